"""The shelves with real folders: what the index says lies there and nothing else, and no device is outgrown."""

import asyncio
import os
import random
import shutil

import crc32c
import pytest

from oca.cache.health import Fault, Signal, Standing
from oca.cache.keys import BLOCK_BYTES, extent_key, object_key
from oca.cache.records import ObjectRecord
from oca.errors import IndexUnusable, OrderRefused
from oca.settings import Device, Store, Tier
from oca.store.index import AddBlock, Index, PutObject
from oca.store.rack import AddOrder, Rack
from oca.store.shelves import Promise, Shelves
from tests.oca.store.bay import PAGE, Bay, content_of
from wire.toml import Bytes


@pytest.fixture
async def rack(tmp_path, board):
    built = Bay(tmp_path, board)
    yield built
    await built.stop()


async def test_a_kept_block_is_in_the_index_and_on_the_disk(rack):
    await rack.start(disk=10 * PAGE)
    stamp = rack.board.stamps[rack.board.row_of(object_key("/a"))]
    assert await rack.keep("/a", 3)
    extent = rack.extent("/a")
    assert extent.present == 0b1000
    assert extent.sum_of(3) == crc32c.crc32c(content_of("/a", 1, 3))
    assert rack.index.object(object_key("/a")).path == "/a"
    assert rack.board.stamps[rack.board.row_of(object_key("/a"))] > stamp
    rack.is_settled()


async def test_blocks_of_one_extent_that_come_together_share_its_file(rack):
    await rack.start(disk=20 * BLOCK_BYTES)
    answers = await asyncio.gather(*(rack.keep("/a", block, length=BLOCK_BYTES) for block in (5, 0, 3)))
    assert answers == [True] * 3
    assert rack.extent("/a").present == 0b101001
    assert len(rack.files("disk")) == 1
    rack.is_settled()


async def test_extents_of_one_object_are_spread_over_devices(rack):
    await rack.start(one=200 * PAGE, two=200 * PAGE)
    kept = await asyncio.gather(*(rack.keep("/a", 16 * number) for number in range(40)))
    assert all(kept)
    assert 8 < len(rack.files("one")) < 32
    rack.is_settled()


async def test_nothing_is_kept_before_the_shelves_know_what_they_hold(rack):
    rack.index = await rack._exit.enter_async_context(Index(str(rack.root / "index")))
    rack.shelves = Shelves(rack.index, rack.board, lambda: rack.now)
    brought = Rack(rack.shelves, rack.index, Store(), lambda: rack.now)
    await brought.start([Device(str(rack.root / "disk"), Tier.NVME, Bytes(10 * PAGE))])
    assert not await rack.keep()
    await rack.shelves.load()
    assert await rack.keep()


async def test_a_block_written_again_changes_nothing_but_its_sum(rack):
    await rack.start(disk=10 * PAGE)
    assert await rack.keep()
    assert await rack.keep()
    assert rack.extent().used_bytes == PAGE
    rack.is_settled()


# --- Capacity ---------------------------------------------------------------------------------------------------------


async def test_the_capacity_is_never_exceeded_while_many_write_at_once(rack):
    await rack.start(disk=6 * PAGE)
    most = 0

    def looks_wanted() -> bool:
        nonlocal most
        most = max(most, rack.bytes_on_disk("disk"))
        return True

    async def keep_some(first: int) -> list[bool]:
        return [await rack.keep(f"/{first + turn}", is_wanted=looks_wanted) for turn in range(12)]

    answers = await asyncio.gather(*(keep_some(first) for first in range(0, 60, 10)))
    assert sum(map(sum, answers)) > 30
    assert 4 * PAGE <= most <= 6 * PAGE
    rack.is_settled()


async def test_a_full_device_gives_up_its_oldest_and_the_file_goes(rack):
    await rack.start(disk=3 * PAGE)
    for name in ("/a", "/b", "/c", "/d"):
        assert await rack.keep(name)
    assert rack.extent("/a") is None
    assert rack.index.object(object_key("/a")) is None
    assert len(rack.files("disk")) == 3
    rack.is_settled()


async def test_what_workers_read_stays(rack):
    await rack.start(disk=3 * PAGE)
    for name in ("/a", "/b", "/c"):
        assert await rack.keep(name)
    rack.now += 600  # What one viewer asks for within minutes is one access.
    rack.shelves.touch([rack.extent("/a").slot, 4711])
    assert await rack.keep("/d")
    assert rack.extent("/a") is not None
    assert rack.extent("/b") is None


async def test_a_block_larger_than_the_device_is_not_kept(rack):
    await rack.start(disk=2 * PAGE)
    assert await rack.keep("/a")
    assert not await rack.keep("/b", length=3 * PAGE)
    assert rack.shelf("disk").can_write
    rack.is_settled()


async def test_an_extent_that_is_evicted_while_a_block_for_it_waits_begins_anew(rack):
    await rack.start(disk=2 * BLOCK_BYTES)
    for block in range(2):
        assert await rack.keep("/a", block, length=BLOCK_BYTES)
    # While /b makes room by removing /a, a block of /a stands in line behind it.
    answers = await asyncio.gather(rack.keep("/b"), rack.keep("/a", 7, length=BLOCK_BYTES))
    assert answers == [True, True]
    assert rack.extent("/a").present == 1 << 7
    assert rack.bytes_on_disk("disk") == BLOCK_BYTES + PAGE
    rack.is_settled()


async def test_what_was_dropped_and_kept_anew_meanwhile_is_not_removed(rack):
    await rack.start(disk=10 * PAGE)
    assert await rack.keep()
    dropped = [(extent_key(object_key("/a"), 1, 0), rack.extent())]
    # Removing the files of a great purge takes long enough for one of them to be fetched again.
    await rack.shelves._forget_dropped(
        [(key, record.__class__(record.device, record.slot + 1, 1, b"", PAGE)) for key, record in dropped]
    )
    rack.is_settled()


async def test_a_commit_that_fails_forgets_no_victim(rack):
    await rack.start(disk=3 * PAGE)
    for name in ("/a", "/b", "/c"):
        assert await rack.keep(name)
    bad = PutObject(b"x" * 16, ObjectRecord("/\ud800", 1, 1))
    # Both changes go into one commit, and the second can't be written.
    answers = await asyncio.gather(rack.keep("/d"), rack.index.apply(bad), return_exceptions=True)
    assert answers[0] is False
    assert isinstance(answers[1], IndexUnusable)
    assert rack.shelf("disk").can_write
    rack.is_settled()
    assert await rack.keep("/d")
    rack.is_settled()


# --- Purge, replace, lose ---------------------------------------------------------------------------------------------


async def test_a_purge_before_the_commit_leaves_nothing(rack):
    await rack.start(disk=10 * PAGE)
    assert not await rack.keep(is_wanted=lambda: False)
    assert rack.extent() is None
    assert rack.files("disk") == {}
    assert rack.shelves.policy.used_bytes(rack.shelf("disk").number) == 0
    rack.is_settled()


async def test_a_purge_between_the_last_look_and_the_commit_leaves_nothing(rack):
    await rack.start(disk=10 * PAGE)
    purges = []

    def looks_wanted() -> bool:
        purges.append(asyncio.ensure_future(rack.shelves.drop([object_key("/a")])))
        return True

    await rack.keep(is_wanted=looks_wanted)
    await purges[0]
    assert rack.extent() is None
    assert rack.index.object(object_key("/a")) is None
    assert rack.files("disk") == {}
    rack.is_settled()


async def test_a_purge_of_an_extent_that_is_being_added_to_leaves_nothing(rack):
    await rack.start(disk=3 * BLOCK_BYTES)
    assert await rack.keep("/a", 0, length=BLOCK_BYTES)
    is_purged = False

    async def purge() -> None:
        nonlocal is_purged
        is_purged = True
        await rack.shelves.drop([object_key("/a")])

    kept, _ = await asyncio.gather(rack.keep("/a", 1, is_wanted=lambda: not is_purged), purge())
    assert not kept
    assert rack.files("disk") == {}
    rack.is_settled()


async def test_a_purge_is_told_to_the_workers(rack):
    await rack.start(disk=10 * PAGE)
    assert await rack.keep()
    row = rack.board.row_of(object_key("/a"))
    stamp = rack.board.stamps[row]
    await rack.shelves.drop([object_key("/a"), object_key("/never-heard-of")])
    assert rack.board.stamps[row] > stamp


async def test_a_new_generation_takes_the_place_of_the_old(rack):
    await rack.start(disk=10 * PAGE)
    assert await rack.keep("/a", generation=1)
    assert await rack.keep("/a", generation=2)
    await rack.shelves.put(object_key("/a"), ObjectRecord("/a", 2, BLOCK_BYTES), replaces=True)
    assert rack.extent(generation=1) is None
    assert rack.extent(generation=2) is not None
    rack.is_settled()


async def test_a_lost_extent_is_forgotten(rack):
    await rack.start(disk=10 * PAGE)
    assert await rack.keep()
    os.unlink(rack.file("disk"))
    await rack.lose(extent_key(object_key("/a"), 1, 0), rack.extent().slot, "gone")
    assert rack.extent() is None
    rack.is_settled()


async def test_an_extent_is_not_lost_by_an_old_report(rack):
    await rack.start(disk=10 * PAGE)
    assert await rack.keep()
    await rack.lose(extent_key(object_key("/a"), 1, 0), rack.extent().slot + 1, "gone")
    assert rack.extent() is not None
    rack.is_settled()


async def test_an_extent_that_is_lost_while_it_is_added_to_is_lost_whole(rack):
    await rack.start(disk=3 * BLOCK_BYTES)
    assert await rack.keep("/a", 0, length=BLOCK_BYTES)
    slot = rack.extent().slot
    lost = rack.lose(extent_key(object_key("/a"), 1, 0), slot, "unreadable")
    await asyncio.gather(rack.keep("/a", 1), lost)
    assert rack.extent() is None
    rack.is_settled()


@pytest.mark.parametrize("length", [None, 0, BLOCK_BYTES - 1])
async def test_the_holes_of_a_file_that_lost_its_bytes_are_never_marked_present(rack, length):
    await rack.start(disk=5 * BLOCK_BYTES)
    assert await rack.keep("/a", 0, length=BLOCK_BYTES)
    if length is None:
        os.unlink(rack.file("disk"))
    else:
        os.truncate(rack.file("disk"), length)
    await rack.keep("/a", 1, length=BLOCK_BYTES)
    extent = rack.extent()
    assert extent is None or not extent.present & 1
    assert rack.shelf("disk").can_write
    rack.is_settled()
    assert await rack.keep("/a", 2, length=BLOCK_BYTES)
    rack.is_settled()


# --- Pledges ----------------------------------------------------------------------------------------------------------


async def test_what_fill_brought_is_not_evicted_before_its_time(rack):
    await rack.start(disk=5 * PAGE)
    until = rack.now + 86400
    assert await rack.keep("/pledged", promise=Promise(until))
    assert rack.extent("/pledged").pledged_until == until
    for number in range(30):
        await rack.keep(f"/{number}")
    assert rack.extent("/pledged") is not None
    later = await again(rack, disk=5 * PAGE)
    for number in range(30, 60):
        await later.keep(f"/{number}")
    assert later.extent("/pledged") is not None
    later.now = until + 7200
    for number in range(60, 120):
        await later.keep(f"/{number}")
    assert later.extent("/pledged") is None
    later.is_settled()
    await later.stop()


async def test_a_purge_takes_what_is_pledged(rack):
    await rack.start(disk=5 * PAGE)
    assert await rack.keep("/pledged", promise=Promise(rack.now + 86400))
    await rack.shelves.drop([object_key("/pledged")])
    assert rack.extent("/pledged") is None
    assert rack.shelves.pledged_share == 0.0
    rack.is_settled()


async def test_no_more_of_a_device_is_pledged_than_is_allowed(rack):
    rack.pledge_share = 0.5
    await rack.start(disk=10 * PAGE)
    for number in range(8):
        assert await rack.keep(f"/{number}", promise=Promise(rack.now + 86400))
    assert rack.shelves.pledged_share == 0.5
    assert rack.shelves.unpledged == 3
    pledged = [number for number in range(8) if rack.extent(f"/{number}").pledged_until]
    assert len(pledged) == 5
    other = next(number for number in range(8) if number not in pledged)
    with pytest.raises(OrderRefused, match="no more than 50% of a device"):
        await rack.shelves.pledge(object_key(f"/{other}"), 1, rack.now + 86400)
    # A pledge that is taken back, and one that is renewed, need no room.
    await rack.shelves.pledge(object_key(f"/{pledged[0]}"), 1, rack.now + 2 * 86400)
    await rack.shelves.pledge(object_key(f"/{pledged[1]}"), 1, 0.0)
    rack.is_settled()


async def test_what_fill_brings_goes_where_it_is_told(rack):
    await rack.start(slow=("hdd", 20 * PAGE), fast=20 * PAGE)
    assert await rack.keep("/cold", promise=Promise(rack.now + 86400))
    assert await rack.keep("/hot", promise=Promise(rack.now + 86400, "nvme"))
    assert await rack.keep("/warm", promise=Promise(rack.now + 86400, "ssd"))
    assert rack.shelves.shelf(rack.extent("/cold").device).tier == "hdd"
    assert rack.shelves.shelf(rack.extent("/hot").device).tier == "nvme"
    assert rack.extent("/warm") is not None  # There is no ssd: the next best.


# --- Devices that fail, come and go -----------------------------------------------------------------------------------


def break_device(rack, name: str) -> None:
    shutil.rmtree(rack.root / name / "extents")
    (rack.root / name / "extents").write_text("not a folder")


def mend_device(rack, name: str) -> None:
    (rack.root / name / "extents").unlink()
    (rack.root / name / "extents").mkdir()


async def test_a_failing_device_is_not_written_and_its_sums_are_as_before(rack):
    await rack.start(disk=10 * PAGE)
    break_device(rack, "disk")
    assert not await rack.keep()
    shelf = rack.shelf("disk")
    assert shelf.health.standing is Standing.OFFLINE
    assert shelf.health.reason is Fault.UNUSABLE
    assert shelf.errors[Fault.UNUSABLE] > 0
    assert not rack.shelves.can_keep()
    assert rack.shelves.policy.used_bytes(shelf.number) == 0
    assert rack.extent() is None
    mend_device(rack, "disk")
    assert not await rack.keep()
    await rack.rack.add(AddOrder(str(rack.root / "disk")))
    assert await rack.keep()
    rack.is_settled()


async def test_what_a_failing_device_can_not_take_another_takes(rack):
    await rack.start(one=20 * PAGE, two=20 * PAGE)
    break_device(rack, "one")
    assert all(await asyncio.gather(*(rack.keep(f"/{number}") for number in range(10))))
    assert len(rack.files("two")) == 10
    assert not rack.shelf("one").can_write


async def test_of_an_extent_whose_home_is_read_but_not_written_nothing_is_given_up(rack):
    await rack.start(one=20 * PAGE, two=20 * PAGE)
    assert await rack.keep("/a", 0)
    home = next(name for name in ("one", "two") if rack.files(name))
    rack.rack.drain(rack.shelf(home))
    assert not await rack.keep("/a", 1)
    assert rack.extent().present == 0b1
    rack.is_settled()


async def test_an_extent_whose_home_is_offline_begins_anew_elsewhere(rack):
    await rack.start(one=20 * PAGE, two=20 * PAGE)
    assert await rack.keep("/a", 0)
    home = next(name for name in ("one", "two") if rack.files(name))
    other = {"one": "two", "two": "one"}[home]
    rack.shelves.signal(rack.shelf(home), Signal.VANISHED, "pulled")
    assert not rack.shelves.is_present(extent_key(object_key("/a"), 1, 0), 0)
    assert await rack.keep("/a", 1)
    assert rack.extent().present == 0b10
    assert len(rack.files(other)) == 1
    await rack.rack.add(AddOrder(str(rack.root / home)))
    assert await rack.rack.settle(lambda _: None) == 1
    assert rack.files(home) == {}
    rack.is_settled()


async def test_the_same_device_under_two_names_is_taken_once(rack):
    (rack.root / "disk").mkdir()
    (rack.root / "again").symlink_to("disk")
    await rack.start(disk=10 * PAGE, again=10 * PAGE)
    assert [shelf.path for shelf in rack.shelves.shelves] == [str(rack.root / "disk")]
    assert ["same device" in left.detail for left in rack.rack.left_out] == [True]
    with pytest.raises(OrderRefused, match="again: is the same device"):
        await rack.rack.add(AddOrder(str(rack.root / "again"), Tier.HDD, PAGE))


async def test_a_device_that_can_not_be_used_is_left_out_and_the_others_serve(rack):
    (rack.root / "broken").write_text("not a folder")
    await rack.start(broken=10 * PAGE, disk=10 * PAGE)
    assert [left.settings.path for left in rack.rack.left_out] == [str(rack.root / "broken")]
    assert await rack.keep()
    rack.is_settled()


# --- Restarts ---------------------------------------------------------------------------------------------------------


async def again(rack, **capacities: int) -> Bay:
    await rack.stop()
    other = Bay(rack.root, rack.board)
    await other.start(**capacities)
    return other


async def test_after_a_restart_everything_is_as_before(rack):
    await rack.start(one=4 * BLOCK_BYTES, two=4 * BLOCK_BYTES)
    for number in range(12):
        assert await rack.keep(f"/{number}", number % 3)
    assert await rack.keep("/film", 0, length=BLOCK_BYTES)
    before = {shelf.path: rack.shelves.policy.used_bytes(shelf.number) for shelf in rack.shelves.shelves}
    later = await again(rack, two=4 * BLOCK_BYTES, one=4 * BLOCK_BYTES)
    assert {shelf.path: rack.shelves.policy.used_bytes(shelf.number) for shelf in later.shelves.shelves} == before
    later.is_settled()
    assert await later.keep("/film", 2, length=BLOCK_BYTES)
    assert later.extent("/film").present == 0b101
    assert await later.keep("/new")
    later.is_settled()
    await later.stop()


async def test_a_device_whose_capacity_was_lowered_is_brought_below_it(rack):
    await rack.start(disk=12 * PAGE)
    for number in range(12):
        assert await rack.keep(f"/{number}")
    later = await again(rack, disk=5 * PAGE)
    assert later.bytes_on_disk("disk") <= 5 * PAGE
    later.is_settled()
    await later.stop()


async def test_what_lies_on_a_device_that_was_away_is_there_when_it_is_back(rack):
    await rack.start(one=40 * PAGE, two=40 * PAGE)
    for number in range(20):
        assert await rack.keep(f"/{number}")
    away = set(rack.files("two"))
    later = await again(rack, one=40 * PAGE)
    # Its numbers are free meanwhile; what lies there is neither present nor removed.
    assert not any(later.shelves.is_present(key, 0) for key in away)
    for number in range(20, 30):
        assert await later.keep(f"/{number}")
    await later.sweep()
    last = await again(later, one=40 * PAGE, two=40 * PAGE)
    # An extent whose number another one has by now is given up; those that are left are whole.
    await last.sweep()
    last.is_settled()
    await last.stop()


async def test_of_two_extents_with_one_slot_one_is_given_up_and_the_sums_are_exact(rack):
    await rack.start(disk=10 * PAGE)
    for name in ("/a", "/b"):
        assert await rack.keep(name)
    slot = rack.extent("/a").slot
    # As if a bug or another's hand had written it.
    twin = extent_key(object_key("/b"), 1, 0)
    await rack.index.apply(AddBlock(twin, 0, slot, 0, rack.extent("/b").sum_of(0), PAGE))
    later = await again(rack, disk=10 * PAGE)
    assert later.index.counts()[1] == 1
    later.is_settled()
    await later.stop()


async def test_a_sweep_removes_what_the_index_does_not_know_and_nothing_else(rack):
    await rack.start(one=20 * PAGE, two=20 * PAGE)
    assert await rack.keep("/a")
    home = next(name for name in ("one", "two") if rack.files(name))
    other = {"one": "two", "two": "one"}[home]
    known = extent_key(object_key("/a"), 1, 0)
    unfinished = extent_key(object_key("/unfinished"), 1, 0)
    rack.shelf(home).folder.write_block(unfinished, 0, memoryview(b"x"), 0)
    # The same extent on a device that is not its own is not known there.
    rack.shelf(other).folder.write_block(known, 0, memoryview(b"x"), 0)
    stranger = rack.root / home / "extents" / "README"
    stranger.write_text("an operator's note")
    assert await rack.sweep() == 2
    assert set(rack.files(home)) == {known}
    assert rack.files(other) == {}
    assert stranger.exists()
    rack.is_settled()


async def test_a_sweep_spares_what_is_being_written(rack):
    await rack.start(disk=40 * PAGE)
    answers = await asyncio.gather(rack.sweep(), *(rack.keep(f"/{number}") for number in range(20)))
    assert answers == [0, *[True] * 20]
    rack.is_settled()


async def test_what_a_killed_appliance_was_writing_does_not_get_in_the_way(rack):
    await rack.start(disk=10 * PAGE)
    key = extent_key(object_key("/a"), 1, 0)
    rack.shelf("disk").folder.write_block(key, 9 * BLOCK_BYTES, memoryview(b"x" * 100), 0)
    assert await rack.keep("/a", 0)
    assert rack.bytes_on_disk("disk") == PAGE
    rack.is_settled()


# --- Everything at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_at_once_index_files_and_sums_agree_in_the_end(rack, seed):
    capacities = {"one": 2 * BLOCK_BYTES + 4 * PAGE, "two": 5 * PAGE}
    await rack.start(**capacities)
    dice = random.Random(seed)
    generations = dict.fromkeys("abcdeF", 1)

    async def keep(name: str, generation: int, number: int) -> None:
        # F is a film of whole blocks; of the others an extent is a block.
        length = BLOCK_BYTES if name == "F" else PAGE
        block = 16 * number + (dice.randrange(3) if name == "F" else 0)
        still = lambda: generations[name] == generation  # noqa: E731
        await rack.keep(f"/{name}", block, generation=generation, length=length, is_wanted=still)

    async def act() -> None:
        for _ in range(25):
            name = dice.choice("abcdeF")
            path, generation = f"/{name}", generations[name]
            key = object_key(path)
            number = dice.randrange(2)
            match dice.randrange(10):
                case 0:
                    generations[name] += 1  # A purged generation never comes back.
                    await rack.shelves.drop([key])
                case 1:
                    generations[name] += 1
                    record = ObjectRecord(path, generations[name], 32 * BLOCK_BYTES)
                    await rack.shelves.put(key, record, replaces=True)
                case 2:
                    extent = rack.extent(path, generation=generation, number=number)
                    if extent is not None:
                        lost = extent_key(key, generation, number)
                        await rack.lose(lost, extent.slot, "unreadable", extent.device)
                case 3:
                    rack.shelves.touch(range(dice.randrange(20)))
                case _:
                    await keep(name, generation, number)

    await asyncio.gather(*(act() for _ in range(6)))
    rack.is_settled()
    later = await again(rack, **capacities)
    later.is_settled()
    assert await later.sweep() == 0
    await later.stop()
