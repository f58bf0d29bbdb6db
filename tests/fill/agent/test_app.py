"""The agent as a whole, in process: what it hears, when it works, how it gives way, and what it tells.

Orders lie in a real S3 server; the appliance is a double; the clock is the test's.
"""

import asyncio
import contextlib
import datetime as dt
import os
import sys
import time

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.utils import floatToGoString

from fill.agent.app import Office
from fill.agent.settings import parse_settings
from fill.agent.station import Station
from fill.agent.told import AgentMetrics
from fill.bucket import Bucket
from fill.errors import SettingsError
from tests.doubles.appliance import free_port
from tests.doubles.keeper import Keeper
from tests.doubles.published import document, rendition
from tests.doubles.s3 import S3Server
from wire.codec import decode
from wire.orders import (
    Bring,
    FillOrder,
    Phase,
    Progress,
    order_key,
    progress_key,
    public_key_text,
    signed,
    urgent_prefix,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
NIGHT = dt.datetime(2026, 11, 25, 3, tzinfo=dt.UTC).timestamp()
EVENING = dt.datetime(2026, 11, 25, 20, tzinfo=dt.UTC).timestamp()
DAY = 86400.0


class Box:
    def __init__(self, folder, bucket):
        self.folder = folder
        self.bucket = bucket
        self.keeper = Keeper()
        self.now = NIGHT
        self.brings = []

    def title(self, title, number, size=100):
        made = rendition(title, number, {"seg-0": size})
        self.keeper.publish(document(title, made))
        (item,) = made.objects
        folder = item.path.rpartition("/")[0]
        self.brings.append(Bring(number=number, title=title, folder=folder, size_bytes=size))
        return item.path

    def order(self, *, urgent=None, key=KEY, **fields):
        plain = {
            "appliance": "a",
            "night": "2026-11-25",
            "version": 1,
            "issued_at": NIGHT - 3600,
            "expires_at": NIGHT + 3 * DAY,
            "pledged_until": NIGHT + 7 * DAY,
            "budget_bytes": 10**9,
            "bring": tuple(self.brings),
            "is_urgent": urgent is not None,
        }
        place = order_key("a") if urgent is None else f"{urgent_prefix('a')}{urgent}.json"
        self.bucket.write(place, signed(FillOrder(**{**plain, **fields}), key, "k"))

    def settings(self, **more):
        words = "".join(f"{name} = {value!r}\n" for name, value in more.items()).replace("'", '"')
        return parse_settings(
            f'appliance = "a"\nstate_dir = "{self.folder}"\ntimezone = "Etc/UTC"\npause = "100 ms"\n{words}'
            f'[control]\nbucket = "s3://x"\n[order_keys]\nk = "{public_key_text(KEY.public_key())}"\n',
            "agent.toml",
        )

    @contextlib.asynccontextmanager
    async def office(self, bucket=None, **more):
        async with self.keeper.server() as server, aiohttp.ClientSession() as session:
            station = Station(session, str(server.make_url("/")))
            office = Office(self.settings(**more), bucket or self.bucket, station, lambda: self.now)
            try:
                yield office
            finally:
                office.close()

    def told(self):
        return decode(self.bucket.read(progress_key("a"), 10**6), Progress)


@pytest.fixture
def box(tmp_path, bucket):
    return Box(tmp_path, bucket)


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def working(office):
    """It works in the background."""
    task = asyncio.create_task(office.work())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_in_the_night_it_works_and_tells_what_it_did(box):
    path = box.title("film", 1)
    box.order()
    async with box.office() as office:
        await office.look()
        await office.work(once=True)
        metrics = metrics_of(office)
    assert path in box.keeper.pledged
    told = box.told()
    assert (told.phase, told.night, told.version, told.done_bytes, told.order_bytes) == (
        Phase.IDLE,
        "2026-11-25",
        1,
        100,
        100,
    )
    assert (told.source_bytes, told.finished_at, told.behind_schedule) == ({"origin": 100}, NIGHT, False)
    for line in (
        "oca_fill_order_bytes 100.0",
        "oca_fill_done_bytes 100.0",
        'oca_fill_source_bytes_total{source="origin"} 100.0',
        'oca_fill_source_bytes_total{source="peer"} 0.0',
        f"oca_fill_last_success_timestamp_seconds {floatToGoString(NIGHT)}",
        "oca_fill_behind_schedule 0.0",
        'oca_fill_renditions_total{result="done"} 1.0',
        "oca_fill_order_age_seconds 3600.0",
    ):
        assert line in metrics


def metrics_of(office):
    registry = CollectorRegistry()
    registry.register(AgentMetrics(office.now, lambda: NIGHT))
    return generate_latest(registry).decode()


async def test_in_the_evening_it_waits_and_says_for_what(box):
    box.title("film", 1)
    box.order()
    box.now = EVENING
    async with box.office() as office:
        await office.look()
        async with working(office):
            await until(lambda: office.now().phase is Phase.WAITING)
            assert office.now().reason == "the window opens at 2026-11-26 02:00 UTC"
            assert box.keeper.asked == []
            box.now = dt.datetime(2026, 11, 26, 2, tzinfo=dt.UTC).timestamp()
            await until(lambda: office.now().finished_at is not None)


async def test_an_urgent_order_is_worked_on_at_once_and_once(box):
    path = box.title("film", 1)
    box.order(urgent=1)
    box.now = EVENING
    async with box.office() as office:
        await office.look()
        async with working(office):
            await until(lambda: office.journal.state.urgent)
        assert path in box.keeper.pledged
        asked = len(box.keeper.asked)
        await office.look()
        assert office.now().urgent_waiting == 0
        assert len(box.keeper.asked) == asked


async def test_an_urgent_order_comes_before_the_current_one_which_goes_on_after_it(box):
    box.title("film", 1)
    box.order()
    box.brings.clear()
    urgent = box.title("news", 2)
    async with box.office() as office:
        await office.look()
        box.order(urgent=1)
        await office.look()
        async with working(office):
            await until(lambda: office.now().finished_at is not None)
    assert box.keeper.paths_of("fill")[0] == urgent
    assert len(box.keeper.pledged) == 2


@pytest.mark.parametrize(
    ("fields", "why", "words"),
    [
        ({"appliance": "b"}, "foreign", "an order for b"),
        ({"expires_at": NIGHT - 1}, "expired", "expired"),
        ({"issued_at": NIGHT + 2 * DAY, "expires_at": NIGHT + 5 * DAY}, "clock", "clock"),
        ({"key": Ed25519PrivateKey.from_private_bytes(bytes(31) + b"x")}, "signature", "can't be believed"),
    ],
)
async def test_what_may_not_be_worked_on_stops_it_and_everybody_hears_why(box, fields, why, words):
    box.title("film", 1)
    box.order(**fields)
    async with box.office() as office:
        await office.look()
        async with working(office):
            await until(lambda: office.now().phase is Phase.STOPPED)
        assert words in office.now().reason
        assert f'oca_fill_orders_refused_total{{reason="{why}"}} 1.0' in metrics_of(office)
        await office.tell()
    assert words in box.told().reason
    assert box.keeper.asked == []


async def test_a_new_order_takes_the_place_of_the_one_that_is_worked_on(box):
    late = box.title("late", 1)
    box.keeper.troubles[late].extend(["unavailable"] * 1000)
    box.order()
    async with box.office() as office:
        await office.look()
        async with working(office):
            await until(lambda: box.keeper.paths_of("fill"))
            box.brings.clear()
            path = box.title("film", 2)
            box.order(version=2)
            await office.look()
            await until(lambda: office.now().finished_at is not None)
    assert office.journal.state.name.version == 2
    assert set(box.keeper.pledged) == {path}


async def test_yesterdays_order_is_not_worked_on_again(box):
    box.title("film", 1)
    box.order(night="2026-11-26")
    async with box.office() as office:
        await office.look()
        async with working(office):
            await until(lambda: office.now().finished_at is not None)
            asked = len(box.keeper.asked)
            box.order(night="2026-11-25", version=9)
            await office.look()
            await until(lambda: office.now().phase is Phase.IDLE)
        assert len(box.keeper.asked) == asked
        assert office.journal.state.name.night == "2026-11-26"


async def test_an_order_that_is_done_is_done_after_a_restart_too(box):
    box.title("film", 1)
    box.order()
    for _ in range(2):
        async with box.office() as office:
            await office.look()
            await office.work(once=True)
    assert len(box.keeper.paths_of("fill")) == 1


async def test_while_the_bucket_is_away_it_works_on_what_it_had(box):
    path = box.title("film", 1)
    box.order()
    async with box.office() as office:
        await office.look()
    async with box.office(bucket=Bucket("s3://films", "http://127.0.0.1:1")) as office:
        await office.look()
        await office.work(once=True)
        assert "orders can't be had" in office.now().reason or office.now().finished_at is not None
    assert path in box.keeper.pledged


async def test_viewers_who_need_the_link_slow_it_down(box):
    late = box.title("late", 1)
    box.keeper.troubles[late].extend(["unavailable"] * 1000)
    box.keeper.pressed = True
    box.order()
    async with box.office() as office:
        await office.look()
        async with working(office):
            await until(lambda: box.keeper.paths_of("fill"))
            way = asyncio.create_task(office.give_way())
            await until(lambda: office.now().share == 0.5)
            way.cancel()
            await asyncio.gather(way, return_exceptions=True)


async def test_it_says_when_it_will_not_be_done_in_time(box):
    box.title("large", 1, size=10**15)
    box.keeper.troubles["/titles/large/video.0001/seg-0"].extend(["unavailable"] * 1000)
    box.order(budget_bytes=10**16)
    async with box.office() as office:
        await office.look()
        assert office.now().is_behind
        assert "oca_fill_behind_schedule 1.0" in metrics_of(office)


async def test_two_agents_do_not_share_a_state(box):
    async with box.office():
        with pytest.raises(SettingsError, match="another agent works there"):
            async with box.office():
                pass


async def test_the_program_draws_a_bar_on_a_terminal_and_says_by_its_exit_code_what_came(box, tmp_path, s3):
    box.title("film", 1)
    gone = box.title("gone", 2)
    del box.keeper.sizes[gone]
    now = time.time()
    box.order(issued_at=now, expires_at=now + DAY, pledged_until=now + 7 * DAY)
    async with box.keeper.server() as server:
        config = tmp_path / "agent.toml"
        config.write_text(
            f'appliance = "a"\nstate_dir = "{tmp_path}/state"\ntimezone = "Etc/UTC"\n'
            f'listen = "127.0.0.1:{free_port()}"\noca = "{server.make_url("/")}"\n'
            f'[control]\nbucket = "{box.bucket.url}"\nendpoint_url = "{s3.endpoint_url}"\n'
            f'[order_keys]\nk = "{public_key_text(KEY.public_key())}"\n'
        )
        terminal, end = os.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fill", "agent", "--config", str(config), "--once"),
                stderr=end,
                env={**S3Server.environment(), "TERM": "xterm", "COLUMNS": "120"},
            )
            async with asyncio.timeout(60):
                code = await process.wait()
            drawn = os.read(terminal, 1 << 16).decode()
        finally:
            os.close(end)
            os.close(terminal)
    assert code == 1  # One of the two did not come.
    assert "2026-11-25/1" in drawn
    assert "━" in drawn
    assert "/titles/film/video.0001 is here" in drawn
