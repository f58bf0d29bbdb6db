"""The rack with real folders: which devices are used, and how they come and go."""

import json
import shutil
from types import SimpleNamespace

import pytest

from oca.cache.health import Fault, Standing
from oca.cache.keys import BLOCK_BYTES, extent_key, object_key
from oca.errors import DeviceFault, OrderRefused
from oca.settings import Store, Tier
from oca.store.rack import AddOrder, Rack
from tests.oca.store.bay import PAGE, Bay
from wire.toml import Bytes

KEY = extent_key(object_key("/a"), 1, 0)
ROOM = 40 * PAGE
MIB = 1024 * 1024


@pytest.fixture
async def bay(tmp_path, board):
    built = Bay(tmp_path, board)
    yield built
    await built.stop()


async def again(bay, **devices):
    await bay.stop()
    other = Bay(bay.root, bay.board)
    other.now = bay.now
    await other.start(**devices)
    bay._exit.push_async_callback(other.stop)
    return other


def order(bay, name, **others):
    return AddOrder(str(bay.root / name), **others)


def readable(bay):
    """Paths that workers may read from."""
    return {record.path for record in bay.index.devices().values() if record.path}


def unmount(bay, name):
    """What is seen of a mount point when nothing is mounted there."""
    (bay.root / name).rename(bay.root / f"{name}.away")
    (bay.root / name).mkdir()


def mount(bay, name):
    shutil.rmtree(bay.root / name)
    (bay.root / f"{name}.away").rename(bay.root / name)


async def probe_until_settled(bay, seconds=150):
    for _ in range(seconds // 30 + 1):
        bay.now += 30
        await bay.rack.look_after()


# --- At the start -----------------------------------------------------------------------------------------------------


async def test_new_devices_get_an_id_and_are_read_and_written(bay):
    await bay.start(one=ROOM, slow=("hdd", ROOM))
    assert [shelf.health.standing for shelf in bay.shelves.shelves] == [Standing.ONLINE] * 2
    assert readable(bay) == {str(bay.root / "one"), str(bay.root / "slow")}
    assert len({shelf.identity for shelf in bay.shelves.shelves}) == 2
    assert bay.rack.health == 1.0


async def test_a_device_is_known_by_its_id_wherever_it_is_mounted(bay):
    await bay.start(one=ROOM, two=ROOM)
    assert await bay.keep("/a")
    home = next(name for name in ("one", "two") if bay.files(name))
    (bay.root / "one").rename(bay.root / "tmp")
    (bay.root / "two").rename(bay.root / "one")
    (bay.root / "tmp").rename(bay.root / "two")
    later = await again(bay, one=ROOM, two=ROOM)
    assert later.shelves.is_present(KEY, 0)
    assert KEY in later.files({"one": "two", "two": "one"}[home])
    later.is_settled()


async def test_nothing_is_written_into_an_empty_mount_point(bay):
    await bay.start(one=ROOM)
    assert await bay.keep("/a")
    await bay.stop()
    unmount(bay, "one")
    later = await again(bay, one=ROOM)
    (shelf,) = later.shelves.shelves
    assert (shelf.health.standing, shelf.health.reason) == (Standing.OFFLINE, Fault.VANISHED)
    assert not await later.keep("/b")
    assert list((bay.root / "one").iterdir()) == []
    assert later.extent() is not None
    assert not later.shelves.is_present(KEY, 0)
    assert readable(later) == set()
    assert later.rack.health == 0.0
    # It comes back by itself when the right disk is there again.
    mount(later, "one")
    await probe_until_settled(later)
    assert shelf.health.standing is Standing.ONLINE
    await later.rack.settle(None)
    assert later.shelves.is_present(KEY, 0)
    assert await later.keep("/b")
    later.is_settled()


async def test_a_wrong_disk_is_told_and_taken_only_by_order(bay):
    await bay.start(one=ROOM)
    assert await bay.keep("/a")
    await bay.stop()
    unmount(bay, "one")
    (bay.root / "one" / "oca-device.json").write_text(json.dumps({"id": "0123456789abcdef", "format": 1}))
    later = await again(bay, one=ROOM)
    (shelf,) = later.shelves.shelves
    assert (shelf.health.standing, shelf.health.reason) == (Standing.OFFLINE, Fault.WRONG_DISK)
    assert "0123456789abcdef lies there" in shelf.detail
    assert not await later.keep("/b")
    with pytest.raises(OrderRefused, match=r"expected and 0123456789abcdef lies there.*--adopt"):
        await later.rack.add(order(later, "one"))
    taken = await later.rack.add(order(later, "one", adopt=True))
    assert taken.identity == "0123456789abcdef"
    assert later.extent() is None


async def test_of_a_device_that_is_away_the_numbers_are_not_given_to_others(bay):
    await bay.start(one=ROOM, two=ROOM)
    for number in range(20):
        assert await bay.keep(f"/{number}")
    away = set(bay.files("two"))
    assert away
    later = await again(bay, one=ROOM)
    assert not any(later.shelves.is_present(key, 0) for key in away)
    for number in range(20, 30):
        assert await later.keep(f"/{number}")
    await later.rack.settle(None)
    last = await again(later, one=ROOM, two=ROOM)
    await last.rack.settle(None)
    assert all(last.shelves.is_present(key, 0) for key in away)
    last.is_settled()


async def test_how_a_device_stands_survives_a_restart(bay):
    await bay.start(one=ROOM, two=ROOM)
    bay.shelves.failed(bay.shelf("one"), bad_write(bay, "one"))
    assert bay.shelf("one").health.standing is Standing.FAILING
    bay.rack.drain(bay.shelf("two"))
    later = await again(bay, one=ROOM, two=ROOM)
    assert later.shelf("one").health.standing is Standing.FAILING
    assert not later.shelf("two").can_write
    assert not later.shelves.can_keep()


def bad_write(bay, name):
    return DeviceFault(Fault.IO, f"{bay.root / name}: Input/output error")


# --- While it serves --------------------------------------------------------------------------------------------------


async def test_a_device_that_vanishes_is_noticed_and_its_content_is_not_forgotten(bay):
    await bay.start(one=ROOM)
    assert await bay.keep("/a")
    unmount(bay, "one")
    await bay.shelves.lose(KEY, bay.extent().slot, "no such file", bay.shelf("one").number, Fault.MISSING)
    shelf = bay.shelf("one")
    assert (shelf.health.standing, shelf.health.reason) == (Standing.OFFLINE, Fault.VANISHED)
    assert bay.extent() is not None
    assert list((bay.root / "one").iterdir()) == []
    mount(bay, "one")
    back = await bay.rack.add(order(bay, "one"))
    assert back is shelf
    assert bay.shelves.is_present(KEY, 0)


async def test_a_look_around_finds_what_nobody_read(bay):
    await bay.start(one=ROOM, two=ROOM)
    unmount(bay, "one")
    await bay.rack.look_after()
    assert bay.shelf("one").health.reason is Fault.VANISHED
    assert bay.shelf("two").health.standing is Standing.ONLINE
    assert bay.rack.health == 0.5
    assert readable(bay) == {str(bay.root / "two")}


async def test_slow_reads_that_workers_count_are_heard(bay):
    counted = {}
    await bay.start(one=ROOM)
    number = bay.shelf("one").number
    rack = Rack(bay.shelves, bay.index, Store(), lambda: bay.now, lambda: counted)
    counted[number] = SimpleNamespace(reads=100, slow=0)
    await rack.look_after()
    assert bay.shelf("one").health.standing is Standing.ONLINE
    counted[number] = SimpleNamespace(reads=200, slow=90)
    await rack.look_after()
    assert (bay.shelf("one").health.standing, bay.shelf("one").health.reason) == (Standing.FAILING, Fault.SLOW)


async def test_a_device_that_fails_to_write_is_probed_and_comes_back(bay):
    await bay.start(one=ROOM)
    bay.shelves.failed(bay.shelf("one"), bad_write(bay, "one"))
    assert not await bay.keep("/a")
    await probe_until_settled(bay)
    assert bay.shelf("one").health.standing is Standing.ONLINE
    assert await bay.keep("/a")


# --- By command -------------------------------------------------------------------------------------------------------


async def test_a_device_comes_in_live_and_stays_over_a_restart(bay):
    await bay.start(one=ROOM)
    with pytest.raises(OrderRefused, match="tier and capacity are needed"):
        await bay.rack.add(order(bay, "new"))
    added = await bay.rack.add(order(bay, "new", tier=Tier.NVME, capacity=ROOM, dwpd=50.0))
    assert added.can_write
    for number in range(20):
        assert await bay.keep(f"/{number}")
    assert bay.files("new")
    later = await again(bay, one=ROOM)
    shelf = later.shelf("new")
    assert (shelf.capacity, shelf.dwpd, shelf.can_write) == (ROOM, 50.0, True)
    later.is_settled()


async def test_a_device_with_content_is_removed_only_by_force_and_stays_out(bay):
    await bay.start(one=ROOM, two=ROOM)
    for number in range(20):
        assert await bay.keep(f"/{number}")
    shelf = bay.shelf("one")
    left = set(bay.files("one"))
    assert left
    with pytest.raises(OrderRefused, match="bytes lie there still"):
        await bay.rack.remove(shelf, force=False)
    await bay.rack.remove(shelf, force=True)
    assert not any(bay.index.extent(key) for key in left)
    later = await again(bay, one=ROOM, two=ROOM)
    assert [shelf.path for shelf in later.shelves.shelves if shelf.can_read] == [str(bay.root / "two")]
    assert ["removed" in out.detail for out in later.rack.left_out] == [True]
    back = await later.rack.add(order(later, "one"))
    assert later.rack.left_out == []
    # What lay there was given up, and may have been purged since: it goes.
    assert set(later.files("one")) == left
    assert await later.rack.settle(None) == len(left)
    assert back.can_write
    later.is_settled()


async def test_a_drained_device_is_removed_without_force(bay):
    await bay.start(one=64 * BLOCK_BYTES, two=64 * BLOCK_BYTES)
    assert await bay.keep("/a")
    home = next(name for name in ("one", "two") if bay.files(name))
    shelf = bay.shelf(home)
    bay.rack.drain(shelf)
    while await bay.mover.turn():
        pass
    await bay.rack.remove(shelf, force=False)
    assert bay.shelves.is_present(KEY, 0)
    bay.is_settled()


async def test_a_new_disk_in_the_slot_of_a_dead_one_is_taken_by_order(bay):
    await bay.start(one=ROOM)
    assert await bay.keep("/a")
    dead = bay.shelf("one").identity
    unmount(bay, "one")
    await bay.rack.look_after()
    with pytest.raises(OrderRefused, match=r"was expected and nothing lies there.*--new"):
        await bay.rack.add(order(bay, "one"))
    fresh = await bay.rack.add(order(bay, "one", new=True))
    assert fresh.identity != dead
    assert fresh.can_write
    assert bay.extent() is None
    assert await bay.keep("/a")
    bay.is_settled()


@pytest.mark.parametrize(("path", "said"), [("disk", "absolute path"), ("", "absolute path")])
async def test_a_path_that_is_none_is_refused(bay, path, said):
    await bay.start(one=ROOM)
    with pytest.raises(OrderRefused, match=said):
        await bay.rack.add(AddOrder(path, Tier.HDD, ROOM))


async def test_a_folder_that_can_not_be_used_is_refused(bay):
    await bay.start(one=ROOM)
    (bay.root / "file").write_text("")
    with pytest.raises(OrderRefused, match="file"):
        await bay.rack.add(order(bay, "file", tier=Tier.HDD, capacity=ROOM))
    assert len(bay.shelves.shelves) == 1


async def test_what_is_no_device_is_named(bay):
    await bay.start(one=ROOM)
    with pytest.raises(OrderRefused, match="'nine' is no device of this appliance"):
        bay.rack.find("nine")
    assert bay.rack.find(bay.shelf("one").identity) is bay.rack.find(str(bay.root / "one"))


# --- Memory for newcomers ---------------------------------------------------------------------------------------------


async def start_with_memory(bay, probation, **devices):
    await bay.start(**devices)
    store = Store(probation=Bytes(probation), probation_dir=str(bay.root / "memory"))
    bay.rack = Rack(bay.shelves, bay.index, store, lambda: bay.now)
    await bay.rack._put_in_memory("oca-test", "/state", bay.index.devices())


async def test_on_a_full_box_without_hdd_newcomers_wait_in_memory_until_they_are_read_again(bay):
    await start_with_memory(bay, 64 * MIB, fast=4 * BLOCK_BYTES)
    for number in range(8):
        assert await bay.keep(f"/{number}", 0, length=BLOCK_BYTES)
    newest = bay.extent("/7")
    assert bay.shelves.shelf(newest.device).tier == "memory"
    bay.now += 600
    bay.shelves.touch([newest.slot])
    while await bay.mover.turn():
        pass
    assert bay.shelves.shelf(bay.extent("/7").device).tier == "nvme"
    bay.is_settled()


async def test_a_box_with_hdd_needs_no_memory_for_newcomers(bay):
    await start_with_memory(bay, 64 * MIB, fast=ROOM, slow=("hdd", ROOM))
    assert {shelf.tier for shelf in bay.shelves.shelves} == {"nvme", "hdd"}
