"""The reporter in the keeper's process: what no whole appliance can show yet."""

import asyncio
import contextlib
import os
import socket

import pytest

from oca.counters import COUNTERS_BYTES, ROWS, WORDS
from oca.keeper.desk import Counters, Desk
from oca.keeper.readiness import Readiness
from oca.keeper.reporter import Reporter, new_steering_session
from oca.keeper.stocktaker import Stocktaker
from oca.keeper.viewers import Viewers
from oca.settings import Steering as SteeringSettings
from oca.store.board import CounterMemory, new_memory
from tests.doubles.appliance import wait_until
from tests.doubles.fake_steering import Steering
from tests.oca.store.stock import Stock
from wire.codec import decode
from wire.prefixes import LearnedPrefix, Prefixes, Speaker
from wire.toml import Seconds


class Routes:
    """As BGP may have taught us."""

    version = 3
    message = Prefixes(
        appliance="oca-test", version=3, kind=Speaker.KERNEL, prefixes=(LearnedPrefix("198.51.100.0/24"),)
    )


@pytest.fixture
def counters():
    fd = new_memory("test-counters", COUNTERS_BYTES)
    yield Counters(CounterMemory(fd, ROWS * WORDS))
    os.close(fd)


@pytest.fixture
def steering():
    with Steering() as steering:
        yield steering


async def test_prefixes_are_sent_when_steering_wants_them(tmp_path, board, counters, steering):
    section = SteeringSettings((steering.url + "/",), interval=Seconds(1), interfaces=("lo",))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "desk"))
        listener.listen()
        async with Stock(tmp_path, board, {"fast": "nvme"}) as stock, new_steering_session(section) as session:
            desk = Desk(listener, None, stock.shelves, counters, None, Viewers(board))

            async def fetch(path, most_bytes):
                return None

            taker = Stocktaker(section, stock.index, stock.shelves, fetch, tmp_path / "catalogue", lambda: stock.now)
            readiness = Readiness(0, board, desk)
            reporter = Reporter(
                stock.settings,
                section,
                "this-boot",
                board,
                readiness,
                counters,
                stock.shelves,
                stock.rack,
                taker,
                session,
                Routes(),
            )
            task = asyncio.ensure_future(reporter.run())

            def are_sent():
                return any(told.path == "/v1/prefixes" for told in steering.told)

            await asyncio.to_thread(wait_until, are_sent, "prefixes are sent")
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            desk.close()
    assert steering.heartbeats[0].prefixes_version == 3
    (sent,) = [told for told in steering.told if told.path == "/v1/prefixes"]
    assert decode(sent.body, Prefixes) == Routes.message
    assert sent.authorization is None  # There is no token in the settings: a certificate speaks for us.
    assert sent.appliance == "box"
