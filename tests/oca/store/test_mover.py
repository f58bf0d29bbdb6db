"""Moves with real folders: up, down and off a device, and never a byte that is not the right one."""

import asyncio
import random

import pytest

from oca.cache.health import Fault, Signal, Standing
from oca.cache.keys import BLOCK_BYTES, extent_key, object_key
from oca.cache.policy import Level
from oca.cache.records import decode_label
from oca.store.mover import MoveCause, Pace
from tests.oca.store.bay import PAGE, Bay, content_of

KEY = extent_key(object_key("/a"), 1, 0)


@pytest.fixture
async def bay(tmp_path, board):
    built = Bay(tmp_path, board)
    yield built
    await built.stop()


def flip(path, offset):
    """A bit changes at rest."""
    with open(path, "r+b") as file:
        file.seek(offset)
        flipped = bytes([file.read(1)[0] ^ 4])
        file.seek(offset)
        file.write(flipped)


def tier_of(bay, path="/a"):
    return bay.shelves.shelf(bay.extent(path).device).tier


async def read_often(bay, path="/a", times=3):
    """As many accesses as make an extent rise, none of them the echo of another."""
    for _ in range(times):
        bay.now += 600
        bay.shelves.touch([bay.extent(path).slot])


async def settle(bay):
    while await bay.mover.turn():
        pass


async def test_what_is_read_often_goes_up_and_the_slow_disk_keeps_its_copy(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    assert await bay.keep("/a", 0, length=BLOCK_BYTES)
    assert await bay.keep("/a", 2, length=BLOCK_BYTES)
    assert tier_of(bay) == "hdd"
    await settle(bay)
    assert tier_of(bay) == "hdd"
    stamp = bay.board.stamps[bay.board.row_of(KEY)]
    await read_often(bay)
    await settle(bay)
    extent = bay.extent()
    assert tier_of(bay) == "nvme"
    assert extent.below == bay.shelf("slow").number
    assert extent.present == 0b101
    assert bay.board.stamps[bay.board.row_of(KEY)] > stamp
    assert bay.mover.moves[MoveCause.PROMOTED] == 1
    assert bay.mover.bytes["nvme"] == 2 * BLOCK_BYTES
    bay.is_settled()
    label = decode_label(bay.shelf("fast").folder.describe(KEY)[1])
    assert label.object.path == "/a"
    assert label.extent.sums == extent.sums


async def test_a_copy_that_lacks_a_new_block_goes(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    assert await bay.keep("/a", 0, length=BLOCK_BYTES)
    await read_often(bay)
    await settle(bay)
    assert await bay.keep("/a", 1, length=BLOCK_BYTES)
    assert bay.extent().below is None
    assert bay.files("slow") == {}
    bay.is_settled()


async def test_when_the_fast_device_fails_an_extent_the_copy_is_read(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    assert await bay.keep("/a", 0, length=BLOCK_BYTES)
    await read_often(bay)
    await settle(bay)
    await bay.shelves.lose(KEY, bay.extent().slot, "unreadable", bay.shelf("fast").number, Fault.IO)
    assert tier_of(bay) == "hdd"
    assert bay.shelves.is_present(KEY, 0)
    assert bay.files("fast") == {}
    bay.is_settled()


async def test_room_on_the_fast_device_is_made_by_dropping_what_lies_below_as_well(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=2 * BLOCK_BYTES)
    for name in ("/a", "/b", "/c"):
        assert await bay.keep(name, 0, length=BLOCK_BYTES)
        await read_often(bay, name)
        await settle(bay)
    up = [name for name in ("/a", "/b", "/c") if tier_of(bay, name) == "nvme"]
    assert 1 <= len(up) <= 2
    assert bay.shelves.policy.used_bytes(bay.shelf("fast").number) <= 2 * BLOCK_BYTES
    assert all(bay.extent(name) is not None for name in ("/a", "/b", "/c"))
    bay.is_settled()


async def test_a_rotten_block_is_not_copied_and_the_extent_goes(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    assert await bay.keep("/a", 0, length=BLOCK_BYTES)
    flip(bay.file("slow"), 1000)
    await read_often(bay)
    await settle(bay)
    assert bay.extent() is None
    assert bay.mover.failed == 1
    assert bay.shelf("slow").errors[Fault.ROTTEN] == 1
    bay.is_settled()


async def test_a_move_to_a_device_that_can_not_be_written_leaves_the_extent_where_it_is(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    assert await bay.keep("/a", 0, length=BLOCK_BYTES)
    (bay.root / "fast" / "extents").rmdir()
    (bay.root / "fast" / "extents").write_text("not a folder")
    await read_often(bay)
    await settle(bay)
    assert tier_of(bay) == "hdd"
    assert bay.shelf("fast").health.standing is not Standing.ONLINE
    assert bay.shelves.is_present(KEY, 0)
    assert bay.shelves.policy.used_bytes(bay.shelf("fast").number) == 0
    assert not bay.shelves._pinned


async def test_a_purge_during_a_move_leaves_nothing(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    assert await bay.keep("/a", 0, length=BLOCK_BYTES)
    await read_often(bay)
    moving = asyncio.create_task(bay.mover.turn())
    await asyncio.sleep(0)
    await bay.shelves.drop([object_key("/a")])
    await moving
    assert bay.extent() is None
    bay.is_settled()


async def test_what_a_killed_move_left_is_swept(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    assert await bay.keep("/a", 0, length=BLOCK_BYTES)
    content = memoryview(content_of("/a", 1, 0, BLOCK_BYTES))
    bay.shelf("fast").folder.copy_block(KEY, 0, content, is_first=True)
    assert await bay.rack.settle(None) == 1
    assert bay.files("fast") == {}
    bay.is_settled()


# --- Drains -----------------------------------------------------------------------------------------------------------


async def test_a_drained_device_is_empty_in_the_end_and_nothing_is_missing(bay):
    await bay.start(one=64 * BLOCK_BYTES, two=64 * BLOCK_BYTES, slow=("ssd", 64 * BLOCK_BYTES))
    names = [f"/{number}" for number in range(12)]
    for name in names:
        assert await bay.keep(name, 1, length=PAGE)
    drained = max(("one", "two", "slow"), key=lambda name: len(bay.files(name)))
    bay.rack.drain(bay.shelf(drained))
    await settle(bay)
    assert bay.files(drained) == {}
    assert bay.shelves.policy.used_bytes(bay.shelf(drained).number) == 0
    for name in names:
        assert bay.shelves.is_present(extent_key(object_key(name), 1, 0), 1)
    bay.is_settled()
    assert await bay.keep("/new")
    assert bay.files(drained) == {}
    bay.rack.serve(bay.shelf(drained))
    for number in range(40):
        assert await bay.keep(f"/more/{number}")
    assert bay.files(drained)


async def test_a_drain_has_no_copies_made_of_copies(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    assert await bay.keep("/a", 0, length=BLOCK_BYTES)
    await read_often(bay)
    await settle(bay)
    bay.rack.drain(bay.shelf("fast"))
    await settle(bay)
    assert tier_of(bay) == "hdd"
    assert bay.extent().below is None
    assert bay.files("fast") == {}
    bay.is_settled()


async def test_where_there_is_no_other_device_a_drain_waits(bay):
    await bay.start(disk=64 * BLOCK_BYTES)
    assert await bay.keep("/a")
    bay.rack.drain(bay.shelf("disk"))
    assert not await bay.mover.turn()
    assert bay.shelves.is_present(KEY, 0)
    bay.is_settled()


# --- As it runs -------------------------------------------------------------------------------------------------------


async def test_what_should_move_and_what_is_drained_moves_while_it_runs(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), other=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    names = [f"/{number}" for number in range(8)]
    for name in names:
        assert await bay.keep(name, 0, length=PAGE)
    for name in names[:4]:
        await read_often(bay, name)
    drained = max(("slow", "other"), key=lambda name: len(bay.files(name)))
    bay.rack.drain(bay.shelf(drained))

    async def soon(_):
        await asyncio.sleep(0)

    bay.mover._sleep = soon
    running = asyncio.create_task(bay.mover.run())
    async with asyncio.timeout(30):
        while bay.files(drained) or any(tier_of(bay, name) != "nvme" for name in names[:4]):  # noqa: ASYNC110
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    bay.is_settled()


# --- Pace -------------------------------------------------------------------------------------------------------------


async def test_moves_keep_to_their_rate():
    slept = []
    now = [0.0]

    async def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(1e6, lambda: now[0], sleep)
    for _ in range(200):
        await pace.spend(4 * 1024 * 1024)
    sent = 200 * 4 * 1024 * 1024
    burst = 2 * 64 * 1024 * 1024
    assert now[0] == pytest.approx((sent - burst) / 1e6, rel=0.01)


async def test_moves_stand_back_from_a_disk_that_viewers_read(tmp_path, board):
    bay = Bay(tmp_path, board)
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    asked = []

    class Turn:
        def __enter__(self):
            asked.append("turn")
            return len(asked) > 3

        def __exit__(self, *_):
            asked.append("back")

    async def sleep(_):
        asked.append("sleep")

    bay.mover._try_turn = lambda device, depth: Turn()
    bay.mover._sleep = sleep
    assert await bay.keep("/a", 0, length=BLOCK_BYTES)
    await read_often(bay)
    assert await bay.mover.turn()
    # The last sleep is the rest that the head of an hdd is given.
    assert asked == ["turn", "back", "sleep", "turn", "back", "sleep"]
    await bay.stop()


# --- Everything at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_moves_and_goes_at_once_index_files_and_sums_agree_in_the_end(bay, seed):
    await bay.start(
        one=("hdd", 40 * PAGE), two=("hdd", 40 * PAGE), ssd=("ssd", 20 * PAGE), fast=12 * PAGE, other=12 * PAGE
    )
    dice = random.Random(seed)
    names = [f"/{number}" for number in range(60)]

    async def keep():
        await bay.keep(dice.choice(names), 0, length=PAGE)

    async def touch():
        bay.now += 130
        bay.shelves.touch(dice.sample(range(60), 20))

    async def purge():
        await bay.shelves.drop([object_key(dice.choice(names))])

    async def lose():
        listed = [pair for batch in bay.index.scan_extents(100) for pair in batch]
        if listed:
            key, extent = dice.choice(listed)
            where = dice.choice([extent.device, extent.below if extent.below is not None else extent.device])
            await bay.shelves.lose(key, extent.slot, "bad", where, Fault.SHORT)

    async def drain():
        shelf = dice.choice(bay.shelves.shelves)
        bay.rack.drain(shelf) if dice.random() < 0.5 else bay.rack.serve(shelf)

    acts = [keep] * 12 + [touch] * 3 + [bay.mover.turn] * 6 + [purge, lose, drain]
    for _ in range(60):
        await asyncio.gather(*(dice.choice(acts)() for _ in range(8)))
    for shelf in bay.shelves.shelves:
        bay.rack.serve(shelf)
    bay.is_settled()
    # After a restart the policy stands as before, and everything is in its place.
    used = {shelf.number: bay.shelves.policy.used_bytes(shelf.number) for shelf in bay.shelves.shelves}
    await bay.stop()
    later = Bay(bay.root, bay.board)
    later.now = bay.now
    await later.start(
        one=("hdd", 40 * PAGE), two=("hdd", 40 * PAGE), ssd=("ssd", 20 * PAGE), fast=12 * PAGE, other=12 * PAGE
    )
    assert {shelf.number: later.shelves.policy.used_bytes(shelf.number) for shelf in later.shelves.shelves} == used
    later.is_settled()
    await later.stop()


async def test_an_extent_on_a_device_that_is_away_waits_for_it(bay):
    await bay.start(slow=("hdd", 64 * BLOCK_BYTES), fast=64 * BLOCK_BYTES)
    assert await bay.keep("/a", 0, length=BLOCK_BYTES)
    bay.shelves.signal(bay.shelf("slow"), Signal.VANISHED, "pulled")
    await read_often(bay)
    assert not await bay.mover.turn()
    assert bay.extent() is not None
    assert bay.shelves.ranked(KEY, Level.HDD) == []
    bay.shelf("slow").folder.open()
    assert KEY in bay.files("slow")
