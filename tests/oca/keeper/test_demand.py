"""Demand at the keeper: counted by the hour, on disk within the checkpoint, in the bucket once, whatever happens."""

import asyncio
import contextlib
import io

import pyarrow.parquet as pq
import pytest

from oca.keeper.demand import Demand, Lost, ShippingFailed
from oca.keeper.spool import Spool
from oca.report.demand import HOUR, key_of
from oca.settings import Demand as DemandSettings
from tests.doubles.appliance import free_port
from tests.doubles.s3 import S3Server, moto
from wire.demand import Stock, read_stock

FIRST = 494_444
ONE = [("/titles/x/a", [1, 1, 10, 0, 0, 0, 0, 0, 0])]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


class Box:
    """An appliance's state directory, a clock, and keepers that come and go."""

    def __init__(self, folder, server):
        self.folder = folder / "demand"
        self.prefix = folder.name
        self.server = server
        self.endpoint_url = server.endpoint_url
        self.now = FIRST * HOUR + 10.0
        self.spool_bytes = 1_000_000

    async def keeper(self):
        """A keeper begins. Those before it are dead."""

        async def stock():
            return Stock(appliance="box", at=self.now)

        settings = DemandSettings(f"s3://films/{self.prefix}", endpoint_url=self.endpoint_url, region="us-east-1")
        demand = Demand(settings, "box", Spool(self.folder, self.spool_bytes), stock, lambda: self.now)
        await demand.open()
        return demand

    def requests(self, hour=FIRST):
        """As the bucket has them; None if it has no such hour."""
        client = self.server.client()
        try:
            body = client.get_object(Bucket="films", Key=f"{self.prefix}/{key_of(hour, 'box')}")["Body"].read()
        except client.exceptions.NoSuchKey:
            return None
        return sum(pq.read_table(io.BytesIO(body)).column("requests").to_pylist())

    def stock(self):
        client = self.server.client()
        return read_stock(client.get_object(Bucket="films", Key=f"{self.prefix}/stock/box.json")["Body"].read())


@pytest.fixture
def box(server, tmp_path, monkeypatch):
    for name, value in S3Server.environment().items():
        monkeypatch.setenv(name, value)
    return Box(tmp_path, server)


async def test_an_hour_is_shipped_when_it_is_over_and_not_before(box):
    demand = await box.keeper()
    demand.heard(ONE)
    assert await demand.ship() == ["stock/box.json"]
    assert box.requests() is None
    demand.heard(ONE)
    box.now += HOUR
    assert await demand.ship() == ["stock/box.json", key_of(FIRST, "box")]
    assert box.requests() == 2
    assert (demand.spooled_bytes, demand.spooled_hours, demand.shipped) == (0, 0, 1)
    assert demand.succeeded_at == box.now
    assert box.stock().at == box.now


async def test_the_operator_can_have_shipped_what_there_is(box):
    demand = await box.keeper()
    for count in (1, 2):
        demand.heard(ONE)
        assert await demand.ship_now() == ["stock/box.json", key_of(FIRST, "box")]
        assert box.requests() == count
    assert await demand.ship_now() == ["stock/box.json"]


async def test_a_killed_keeper_loses_what_it_counted_since_the_checkpoint_and_nothing_twice(box):
    first = await box.keeper()
    first.heard(ONE)
    await first.save()
    first.heard(ONE)
    second = await box.keeper()
    second.heard(ONE)
    await second.save()
    third = await box.keeper()
    assert third.spooled_hours == 1
    await third.ship()
    assert box.requests() == 2
    box.now += HOUR
    await third.ship()
    assert box.requests() == 2


async def test_a_keeper_that_is_told_to_end_loses_nothing(box):
    first = await box.keeper()
    first.heard(ONE)
    await first.save()
    first.heard(ONE)
    await first.end()
    await (await box.keeper()).ship()
    assert box.requests() == 2


@pytest.mark.parametrize("jump", [-HOUR, 24 * HOUR])
async def test_a_clock_that_is_set_puts_counts_into_the_hour_it_says_and_none_twice(box, jump):
    """Back into an hour that was shipped already as well."""
    demand = await box.keeper()
    other = FIRST + jump // HOUR
    for moved in (jump, -jump, jump, -jump):
        demand.heard(ONE)
        await demand.ship()
        box.now += moved
    demand.heard(ONE)
    await demand.ship_now()
    assert (box.requests(FIRST), box.requests(other)) == (3, 2)


async def test_while_the_bucket_is_away_hours_wait_and_then_all_are_shipped(box):
    box.endpoint_url = f"http://127.0.0.1:{free_port()}"
    demand = await box.keeper()
    for _ in range(3):
        demand.heard(ONE)
        box.now += HOUR
    with pytest.raises(ShippingFailed, match="can't be written"):
        await demand.ship()
    assert demand.spooled_hours == 3
    assert (demand.failures, demand.shipped, demand.succeeded_at) == (1, 0, 0)
    assert "can't be written" in demand.status()["error"]
    box.endpoint_url = box.server.endpoint_url
    again = await box.keeper()
    assert len(await again.ship()) == 1 + 3
    assert [box.requests(FIRST + hour) for hour in range(3)] == [1, 1, 1]
    assert again.status()["error"] == ""


async def test_the_oldest_hours_go_when_the_spool_is_full(box):
    box.spool_bytes = 2 * 4096
    demand = await box.keeper()
    for _ in range(4):
        demand.heard(ONE)
        box.now += HOUR
    await demand.save()
    assert demand.spooled_hours == 2
    assert demand.lost == {Lost.SPOOL_FULL: 2}
    await demand.ship()
    assert [box.requests(FIRST + hour) for hour in range(4)] == [None, None, 1, 1]


async def test_a_part_that_can_not_be_read_is_given_up_and_counted(box):
    first = await box.keeper()
    first.heard(ONE)
    await first.end()
    (broken,) = box.folder.glob("*.part")
    broken.write_bytes(b"\0")
    demand = await box.keeper()
    demand.heard(ONE)
    await demand.ship_now()
    assert demand.lost == {Lost.UNREADABLE: 1}
    assert box.requests() == 1
    assert demand.spooled_bytes == 0


async def test_while_the_disk_takes_nothing_counts_stay_in_memory_within_bounds(box):
    box.folder.write_bytes(b"a file where the folder belongs")
    demand = await box.keeper()
    for _ in range(50):
        demand.heard(ONE)
        await demand.save()
        box.now += HOUR
    with pytest.raises(ShippingFailed):
        await demand.ship()
    assert demand.lost == {Lost.UNWRITABLE: 2}
    box.folder.unlink()
    await demand.open()
    demand.heard(ONE)
    await demand.save()
    assert demand.spooled_hours == 49
    demand.heard(ONE)
    await demand.ship_now()
    assert [box.requests(FIRST + hour) for hour in (1, 2, 49, 50)] == [None, 1, 1, 2]


async def test_what_is_not_on_disk_in_full_is_not_shipped_in_part(box):
    """An hour is over, and the disk fails just then: its last checkpoint is there, the rest is not."""
    demand = await box.keeper()
    demand.heard(ONE)
    await demand.save()
    (checkpoint,) = box.folder.glob("*.part")
    demand.heard(ONE)
    obstacle = box.folder / f"{checkpoint.name}.new"
    obstacle.mkdir()
    box.now += HOUR
    await demand.ship()
    assert box.requests() is None
    obstacle.rmdir()
    await demand.ship()
    assert box.requests() == 2


async def test_what_is_watched_while_it_is_shipped_is_shipped_later(box):
    demand = await box.keeper()
    demand.heard(ONE)
    shipping = demand.ship_now()
    demand.heard(ONE)
    await shipping
    assert box.requests() in (1, 2)
    demand.heard(ONE)
    box.now += HOUR
    await demand.ship()
    assert box.requests() == 3


async def test_shipping_that_is_broken_off_is_done_anew(box):
    demand = await box.keeper()
    demand.heard(ONE)
    task = asyncio.ensure_future(demand.ship_now())
    while not list(box.folder.glob("stock.json")):  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    again = await box.keeper()
    await again.ship()
    assert box.requests() == 1
