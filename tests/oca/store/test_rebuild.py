"""The index made anew from the devices alone: all of it while the appliance is stopped, or one device while it runs."""

import asyncio
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oca.cache.health import Fault, Signal
from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS, EXTENT_BYTES, extent_key, object_key
from oca.cache.policy import Level
from oca.cache.records import ExtentRecord, Label, ObjectRecord, encode, with_block
from oca.errors import IndexUnusable
from oca.lifecycle import StateDirBusy
from oca.store.board import BOARD_BYTES, Board
from oca.store.device import LABEL, DeviceFolder
from oca.store.index import Index
from oca.store.labels import LabelFlaw, believed, joined, label_of
from oca.store.rack import AddOrder
from oca.store.rebuild import import_device, import_object, rebuild
from tests.doubles.faulty import Act, faulty_disk
from tests.oca.store.stock import Stock, held

ROOT = Path(__file__).parents[3]
TIERS = {"slow": "hdd", "fast": "nvme", "other": "hdd"}


# --- Which label is believed ------------------------------------------------------------------------------------------

SIZE = EXTENT_BYTES + 2 * BLOCK_BYTES + 5
OBJECT = ObjectRecord("/a", 7, SIZE)
KEY = extent_key(object_key("/a"), 7, 1)


def extent_of(*blocks: int) -> ExtentRecord:
    record = ExtentRecord(3, 9, 0, b"", 0, 11)
    for block in blocks:
        record = with_block(record, block, block + 1, 4096)
    return record


@pytest.mark.parametrize(
    ("size", "packed", "found"),
    [
        (BLOCK_BYTES, b"", LabelFlaw.UNLABELLED),
        (BLOCK_BYTES, b"\xc1", LabelFlaw.ROTTEN),
        (BLOCK_BYTES, encode(Label(OBJECT, extent_of(0)))[:-3], LabelFlaw.ROTTEN),
        (BLOCK_BYTES, encode(Label(ObjectRecord("/b", 7, SIZE), extent_of(0))), LabelFlaw.ANOTHERS),
        (BLOCK_BYTES, encode(Label(ObjectRecord("/a", 8, SIZE), extent_of(0))), LabelFlaw.ANOTHERS),
        (BLOCK_BYTES, encode(Label(OBJECT, extent_of())), LabelFlaw.BEYOND),
        (4 * BLOCK_BYTES, encode(Label(OBJECT, extent_of(3))), LabelFlaw.BEYOND),
        (BLOCK_BYTES, encode(Label(ObjectRecord("/a", 7, EXTENT_BYTES), extent_of(0))), LabelFlaw.BEYOND),
        (BLOCK_BYTES, encode(Label(ObjectRecord("/a", 7, SIZE, 404), extent_of(0))), LabelFlaw.BEYOND),
        (BLOCK_BYTES, encode(Label(OBJECT, msgspec.structs.replace(extent_of(0), sums=b"abc"))), LabelFlaw.SUMLESS),
        (2 * BLOCK_BYTES - 1, encode(Label(OBJECT, extent_of(1))), LabelFlaw.SHORT),
        (2 * BLOCK_BYTES + 4, encode(Label(OBJECT, extent_of(0, 2))), LabelFlaw.SHORT),
    ],
)
def test_a_label_that_can_not_be_true_is_not_believed(size, packed, found):
    assert believed(KEY, size, packed) is found


def test_a_label_says_what_lies_there_and_nothing_of_where_it_was():
    label = believed(KEY, 2 * BLOCK_BYTES + 5, encode(Label(OBJECT, extent_of(0, 2))))
    assert label.object == OBJECT
    assert (label.extent.present, label.extent.group, label.extent.below) == (0b101, 11, None)
    assert label.extent.used_bytes == BLOCK_BYTES + 4096


def test_of_an_extent_on_two_devices_the_fuller_is_taken_and_equal_ones_on_two_tiers_are_copies():
    level_of = {0: Level.HDD, 1: Level.NVME, 2: Level.HDD}.__getitem__
    on = lambda device, *blocks: msgspec.structs.replace(extent_of(*blocks), device=device, slot=device)  # noqa: E731
    assert joined(on(0, 1), on(2, 1, 2), level_of) == msgspec.structs.replace(on(2, 1, 2), slot=0)
    assert joined(on(0, 1, 2), on(1, 1), level_of) == on(0, 1, 2)
    assert joined(on(0, 1), on(2, 1), level_of) == on(0, 1)
    upper = msgspec.structs.replace(on(1, 1), below=0)
    assert joined(on(1, 1), on(0, 1), level_of) == upper
    assert joined(on(0, 1), on(1, 1), level_of) == msgspec.structs.replace(upper, slot=0)


# --- While the appliance is stopped -----------------------------------------------------------------------------------


async def fill(stock: Stock) -> None:
    await stock.keep("/film", [0, 1, 16, 17, 33], size=34 * BLOCK_BYTES)
    await stock.keep("/series/1", [0], size=5000)
    await stock.keep("/series/2", [0, 1], size=BLOCK_BYTES + 5000)


async def test_an_index_that_is_lost_is_made_again_from_the_devices(tmp_path, board):
    async with Stock(tmp_path, board, TIERS) as stock:
        await fill(stock)
        before, objects = stock.known(), stock.objects()
        devices = {record.id: record for record in stock.index.devices().values()}
    shutil.rmtree(tmp_path / "state" / "index")
    told = []
    report = rebuild(stock.settings, told.append)
    assert (report.extents, report.objects, report.devices) == (5, 3, 3)
    assert report.bytes == sum(extent.used_bytes for extent in before.values())
    assert not report.flaws
    assert not report.unread
    assert told[-1].startswith("100 %")
    async with Stock(tmp_path, board, TIERS) as stock:
        assert held(stock.known()) == held(before)
        assert stock.objects() == objects
        assert {record.id for record in stock.index.devices().values()} == set(devices)
        assert await stock.rack.settle(lambda shelf: import_device(stock.shelves, shelf)) == 0
        assert stock.index.paths_starting("/series/", 9) == sorted(
            map(object_key, ["/series/1", "/series/2"]), key=lambda key: key != object_key("/series/1")
        )
        await stock.keep("/series/3", [0])


async def test_numbers_and_standings_of_devices_stay(tmp_path, board):
    async with Stock(tmp_path, board, TIERS) as stock:
        await fill(stock)
        stock.shelves.signal(stock.shelf("fast"), Signal.FULL, "full")
        before = stock.index.devices()
    rebuild(stock.settings)
    async with Index(str(tmp_path / "state" / "index")) as index:
        assert index.devices() == before


async def test_a_device_that_is_away_is_taken_over_when_it_is_back(tmp_path, board):
    async with Stock(tmp_path, board, TIERS) as stock:
        await fill(stock)
        before = stock.known()
    (tmp_path / "slow").rename(tmp_path / "away")
    report = rebuild(stock.settings)
    assert [sentence for sentence in report.unread if "slow: no device lies there" in sentence]
    (tmp_path / "away").rename(tmp_path / "slow")
    async with Stock(tmp_path, board, TIERS) as stock:
        assert not stock.shelf("slow").can_write
        assert await stock.rack.settle(lambda shelf: import_device(stock.shelves, shelf)) == 0
        assert held(stock.known()) == held(before)
        assert stock.shelf("slow").can_write


async def test_of_two_generations_the_newer_counts(tmp_path, board):
    async with Stock(tmp_path, board, {"disk": "nvme"}) as stock:
        await stock.keep("/a", [0], size=9000, generation=5)
        file = stock.file("/a", generation=5)
        old = (file, file.read_bytes(), os.getxattr(file, LABEL))
        await stock.shelves.drop([object_key("/a")])
        await stock.keep("/a", [0], size=8000, generation=6)
        await stock.keep("/b", [0], size=8000, generation=4)
    old[0].parent.mkdir(parents=True, exist_ok=True)
    old[0].write_bytes(old[1])
    os.setxattr(old[0], LABEL, old[2])
    report = rebuild(stock.settings)
    assert (report.extents, report.passed_over) == (2, 1)
    async with Stock(tmp_path, board, {"disk": "nvme"}) as stock:
        assert stock.index.object(object_key("/a")).generation == 6
        assert set(stock.known()) == {stock.key("/a", generation=6), stock.key("/b", generation=4)}
        assert await stock.rack.settle(lambda shelf: import_device(stock.shelves, shelf)) == 1


async def test_files_without_a_label_that_is_believed_are_counted_and_not_taken(tmp_path, board):
    async with Stock(tmp_path, board, {"disk": "nvme"}) as stock:
        for number in range(4):
            await stock.keep(f"/{number}", [0, 1])
        files = [stock.file(f"/{number}") for number in range(4)]
    os.removexattr(files[0], LABEL)
    os.truncate(files[1], BLOCK_BYTES)
    os.setxattr(files[2], LABEL, os.getxattr(files[3], LABEL))
    report = rebuild(stock.settings)
    assert report.extents == 1
    assert report.flaws == {LabelFlaw.UNLABELLED: 1, LabelFlaw.SHORT: 1, LabelFlaw.ANOTHERS: 1}


async def test_while_an_appliance_runs_nothing_is_made(tmp_path, board):
    stock = Stock(tmp_path, board, {"disk": "nvme"})
    (tmp_path / "state").mkdir()
    for name in ("appliance.lock", "keeper.lock"):
        with (tmp_path / "state" / name).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(StateDirBusy, match="stop it first"):
                rebuild(stock.settings)
    assert not (tmp_path / "state" / "index").exists()
    assert rebuild(stock.settings).extents == 0


def test_a_state_folder_that_can_not_be_is_named(tmp_path, board):
    (tmp_path / "state").write_text("")
    with pytest.raises(IndexUnusable, match="state"):
        rebuild(Stock(tmp_path, board, {"disk": "nvme"}).settings)


async def test_an_old_index_that_is_rotten_is_replaced(tmp_path, board):
    async with Stock(tmp_path, board, TIERS) as stock:
        await fill(stock)
        before = stock.known()
    data = tmp_path / "state" / "index" / "data.mdb"
    data.write_bytes(b"\xff" * data.stat().st_size)
    assert rebuild(stock.settings).extents == 5
    async with Stock(tmp_path, board, TIERS) as stock:
        assert held(stock.known()) == held(before)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["appliance.lock", "index", "keeper.lock"]


KILLED = """
import sys
from oca.settings import parse_settings
from oca.store.rebuild import rebuild

def progress(line):
    print(line, flush=True)
    sys.stdin.readline()

rebuild(parse_settings(sys.argv[1], "settings"), progress)
"""


def kill_in_the_middle(text: str, lines: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    child.stdout.readline()
    for _ in range(lines):
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.communicate()


@pytest.mark.parametrize("lines", [0, 100])
async def test_who_is_killed_has_changed_nothing_and_the_next_one_makes_it(tmp_path, board, lines):
    async with Stock(tmp_path, board, TIERS) as stock:
        await fill(stock)
        before = stock.known()
    text = "\n".join(
        [
            f'[appliance]\nid = "box"\nstate_dir = "{tmp_path / "state"}"\n[origin]\nurl = "http://127.0.0.1:9"',
            *(
                f'[[device]]\npath = "{tmp_path / name}"\ntier = "{tier}"\ncapacity = "1 TiB"'
                for name, tier in TIERS.items()
            ),
        ]
    )
    kill_in_the_middle(text, lines)
    assert (tmp_path / "state" / "index.new").exists()
    async with Stock(tmp_path, board, TIERS) as stock:
        assert stock.known() == before
    assert rebuild(stock.settings).extents == 5
    assert not (tmp_path / "state" / "index.new").exists()
    async with Stock(tmp_path, board, TIERS) as stock:
        assert held(stock.known()) == held(before)


# --- One device, while the appliance runs -----------------------------------------------------------------------------


def taking_over(stock):
    return stock.rack.settle(lambda shelf: import_device(stock.shelves, shelf))


async def test_without_a_state_folder_all_devices_are_taken_over_and_nothing_is_swept(tmp_path, board):
    async with Stock(tmp_path, board, TIERS) as stock:
        await fill(stock)
        before, objects = stock.known(), stock.objects()
    shutil.rmtree(tmp_path / "state")
    async with Stock(tmp_path, board, TIERS) as stock:
        assert not stock.shelf("slow").can_write
        assert await taking_over(stock) == 0
        assert held(stock.known()) == held(before)
        assert stock.objects() == objects
        assert stock.shelf("slow").can_write
        used = sum(stock.shelves.policy.used_bytes(shelf.number) for shelf in stock.shelves.shelves)
        assert used == sum(extent.used_bytes for extent in before.values())
        await stock.keep("/film", [2], size=34 * BLOCK_BYTES)
        assert stock.extent("/film").present == 0b111


async def test_who_is_stopped_while_taking_over_goes_on_with_it(tmp_path, board):
    async with Stock(tmp_path, board, {"disk": "hdd"}) as stock:
        await fill(stock)
        before = stock.known()
    shutil.rmtree(tmp_path / "state")
    async with Stock(tmp_path, board, {"disk": "hdd"}) as stock:
        shelf = stock.shelf("disk")
        key = min(before)
        async with stock.shelves.alone_with([key]):
            await stock.shelves.adopt(shelf, [(key, label_of(shelf.folder, key))])
    async with Stock(tmp_path, board, {"disk": "hdd"}) as stock:
        assert set(stock.known()) == {key}
        assert await taking_over(stock) == 0
        assert held(stock.known()) == held(before)


async def move_in(stock: Stock, tmp_path: Path, board, name: str, tier: str) -> Stock:
    """The device `name` of another box comes into this one, which is started anew with it."""
    (tmp_path / "theirs" / name).rename(tmp_path / name)
    tiers = {device.path.rpartition("/")[2]: device.tier.value for device in stock.settings.device}
    return Stock(tmp_path, board, {**tiers, name: tier})


async def test_a_device_from_another_box_brings_what_is_not_known_here_yet(tmp_path, board):
    async with Stock(tmp_path / "theirs", board, {"guest": "nvme"}) as theirs:
        await theirs.keep("/same", [0, 1, 2], size=8 * BLOCK_BYTES)
        await theirs.keep("/fuller", [0, 1, 2], size=8 * BLOCK_BYTES)
        await theirs.keep("/poorer", [0], size=8 * BLOCK_BYTES)
        await theirs.keep("/older", [0], size=5000, generation=3)
        await theirs.keep("/newer", [0], size=5000, generation=8)
        await theirs.keep("/new", [0], size=5000)
    async with Stock(tmp_path, board, {"ours": "hdd"}) as stock:
        await stock.keep("/same", [0, 1, 2], size=8 * BLOCK_BYTES)
        await stock.keep("/fuller", [0], size=8 * BLOCK_BYTES)
        await stock.keep("/poorer", [0, 1], size=8 * BLOCK_BYTES)
        await stock.keep("/older", [0], size=5000, generation=5)
        await stock.keep("/newer", [0], size=5000, generation=5)
    stock = await move_in(stock, tmp_path, board, "guest", "nvme")
    async with stock:
        guest, ours = stock.shelf("guest"), stock.shelf("ours")
        # Two that are worse than ours, and two of ours that are worse than theirs.
        assert await taking_over(stock) == 2
        same = stock.extent("/same")
        assert (same.device, same.below) == (guest.number, ours.number)
        assert (stock.extent("/fuller").device, stock.extent("/fuller").present) == (guest.number, 0b111)
        assert (stock.extent("/poorer").device, stock.extent("/poorer").present) == (ours.number, 0b11)
        assert stock.extent("/older", generation=5).device == ours.number
        assert stock.extent("/older", generation=3) is None
        assert stock.extent("/newer", generation=8).device == guest.number
        assert stock.extent("/newer", generation=5) is None
        assert stock.index.object(object_key("/newer")).generation == 8
        assert stock.extent("/new").device == guest.number
        known = stock.known()
        for shelf in (guest, ours):
            here = {key: extent for key, extent in known.items() if shelf.number in (extent.device, extent.below)}
            assert stock.files(shelf.path.rpartition("/")[2]) == set(here)
            used = sum(extent.used_bytes for extent in here.values())
            assert stock.shelves.policy.used_bytes(shelf.number) == used
        assert len({extent.slot for extent in known.values()}) == len(known)
        assert not stock.shelves._pinned
        assert not stock.shelves._busy
    async with stock:
        assert stock.known() == known


async def test_what_a_viewer_asks_for_is_taken_over_first(tmp_path, board):
    async with Stock(tmp_path, board, TIERS) as stock:
        await fill(stock)
        before = stock.known()
    shutil.rmtree(tmp_path / "state")
    async with Stock(tmp_path, board, TIERS) as stock:
        assert stock.shelves.takes_over
        await asyncio.gather(*(import_object(stock.shelves, object_key("/film")) for _ in range(3)))
        await import_object(stock.shelves, object_key("/nothing"))
        film = {key: extent for key, extent in before.items() if key.startswith(object_key("/film"))}
        assert held(stock.known()) == held(film)
        assert stock.index.object(object_key("/film")).size == 34 * BLOCK_BYTES
        assert await taking_over(stock) == 0
        assert not stock.shelves.takes_over
        assert held(stock.known()) == held(before)
        assert sorted(extent.slot for extent in stock.known().values()) == list(range(5))


async def test_what_is_purged_meanwhile_does_not_come_in(tmp_path, board):
    async with Stock(tmp_path, board, {"disk": "hdd"}) as stock:
        await fill(stock)
    shutil.rmtree(tmp_path / "state")
    async with Stock(tmp_path, board, {"disk": "hdd"}) as stock:
        await stock.shelves.drop([object_key("/film")])
        stock.shelves.drop_below("/series/2")
        assert await taking_over(stock) == 4
        assert [stock.index.object(object_key(path)) is None for path in ("/film", "/series/1", "/series/2")] == [
            True,
            False,
            True,
        ]
        # From here on both may be kept again.
        await fill(stock)


async def test_a_device_that_is_pulled_meanwhile_keeps_the_rest_for_later(tmp_path, board):
    async with Stock(tmp_path, board, {"disk": "hdd"}) as stock:
        for number in range(40):
            await stock.keep(f"/{number}", [0], size=4096)
        before = stock.known()
    shutil.rmtree(tmp_path / "state")
    async with Stock(tmp_path, board, {"disk": "hdd"}) as stock:
        shelf = stock.shelf("disk")
        adopt = stock.shelves.adopt

        async def adopt_and_be_pulled(*args):
            stock.shelves.signal(shelf, Signal.VANISHED, "pulled")
            return await adopt(*args)

        stock.shelves.adopt = adopt_and_be_pulled
        assert await taking_over(stock) == 0
        stock.shelves.adopt = adopt
        assert 0 < len(stock.known()) < 40
        assert shelf.foreign
        await stock.rack.add(AddOrder(shelf.path))
        assert await taking_over(stock) == 0
        assert held(stock.known()) == held(before)
        assert shelf.can_write


async def test_a_device_that_is_removed_meanwhile_is_gone(tmp_path, board):
    async with Stock(tmp_path, board, {"disk": "hdd", "other": "nvme"}) as stock:
        for number in range(40):
            await stock.keep(f"/{number}", [0], size=4096)
    shutil.rmtree(tmp_path / "state")
    async with Stock(tmp_path, board, {"disk": "hdd", "other": "nvme"}) as stock:
        shelf = stock.shelf("disk")
        settling = asyncio.create_task(taking_over(stock))
        while not await asyncio.sleep(0, stock.known()):
            pass
        await stock.rack.remove(shelf, force=True)
        await settling
        assert stock.known() == {}
        assert shelf not in stock.shelves.shelves
        assert [record.wish for record in stock.index.devices().values() if record.id == shelf.identity] == ["remove"]
        await stock.keep("/more", [0], size=4096)


async def test_what_is_left_in_memory_without_an_index_is_swept(tmp_path, board):
    (tmp_path / "memory").mkdir()
    store = {"probation": '"256 MiB"', "probation_dir": f'"{tmp_path / "memory"}"'}
    async with Stock(tmp_path, board, {"disk": "nvme"}, **store) as stock:
        memory = next(shelf for shelf in stock.shelves.shelves if shelf.level is Level.MEMORY)
        await asyncio.to_thread(memory.folder.write_block, KEY, 0, memoryview(b"x"), 0)
    shutil.rmtree(tmp_path / "state")
    async with Stock(tmp_path, board, {"disk": "nvme"}, **store) as stock:
        assert await taking_over(stock) == 1
        memory = next(shelf for shelf in stock.shelves.shelves if shelf.level is Level.MEMORY)
        assert list(memory.folder.extents()) == []


async def test_while_it_is_taken_over_what_came_in_is_read_and_fetched_anew_if_it_is_bad(tmp_path, board):
    async with Stock(tmp_path, board, TIERS) as stock:
        await stock.keep("/a", [0, 1], size=8 * BLOCK_BYTES)
    shutil.rmtree(tmp_path / "state")
    async with Stock(tmp_path, board, TIERS) as stock:
        shelf = next(shelf for shelf in stock.shelves.shelves if stock.files(shelf.path.rpartition("/")[2]))
        key = stock.key("/a")
        async with stock.shelves.alone_with([key]):
            await stock.shelves.adopt(shelf, [(key, label_of(shelf.folder, key))])
        assert stock.shelves.is_present(key, 1)
        await stock.shelves.lose(key, stock.extent("/a").slot, "it is rotten", shelf.number, Fault.ROTTEN)
        assert not stock.shelves.is_present(key, 1)
        await taking_over(stock)
        assert stock.known() == {}


@pytest.mark.mounts
async def test_one_label_that_can_not_be_read_does_not_hide_the_others(tmp_path, board):
    with faulty_disk(tmp_path / "faulty") as disk:
        stock = Stock(tmp_path, board, {"faulty/mount": "hdd"})
        async with stock:
            for number in range(4):
                await stock.keep(f"/{number}", [0], size=4096)
            before = stock.known()
        disk.fail(Act.LOOK, where=f"*{stock.key('/2').hex()}")
        report = rebuild(stock.settings)
        assert (report.extents, report.flaws, report.unread) == (3, {Fault.IO: 1}, [])
        shutil.rmtree(tmp_path / "state")
        async with stock:
            (shelf,) = stock.shelves.shelves
            report = await import_device(stock.shelves, shelf)
            assert (report.extents, report.flaws) == (3, {Fault.IO: 1})
            assert shelf.errors == {}
            assert shelf.can_write
        disk.mend()
        disk.fail(Act.LOOK, where=f"*/extents/{stock.key('/1').hex()[:2]}*")
        report = rebuild(stock.settings)
        assert report.extents < 4
        assert len(report.unread) == 1
        disk.mend()
        async with stock:
            assert stock.shelves.takes_over
            await taking_over(stock)
            assert held(stock.known()) == held(before)


# --- Whatever was kept ------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_was_kept_and_dropped_a_new_index_says_the_same(tmp_path_factory, seed):
    dice = random.Random(seed)
    folder = tmp_path_factory.mktemp("whatever")
    fd = os.memfd_create("board")
    os.ftruncate(fd, BOARD_BYTES)
    board = Board(fd)

    async def live() -> tuple[dict, dict]:
        async with Stock(folder, board, TIERS) as stock:
            generations: dict[str, int] = {}
            for turn in range(dice.randrange(1, 25)):
                path = f"/{dice.randrange(5)}"
                stock.now += 1
                match dice.randrange(8):
                    case 0:
                        await stock.shelves.drop([object_key(path)])
                        generations.pop(path, None)
                    case 1 if stock.known():
                        key, extent = dice.choice(sorted(stock.known().items()))
                        await stock.shelves.lose(key, extent.slot, "lost", extent.device, Fault.MISSING)
                    case _:
                        generation = generations.setdefault(path, turn + 1)
                        # Short last blocks, and extents with holes; the longest object has two extents.
                        last = int(path[1:]) * 7
                        blocks = {last, last // EXTENT_BLOCKS * EXTENT_BLOCKS}
                        await stock.keep(path, blocks, size=last * BLOCK_BYTES + 5000, generation=generation)
            return stock.known(), stock.objects()

    async def look() -> tuple[dict, dict]:
        async with Stock(folder, board, TIERS) as stock:
            assert await taking_over(stock) == 0
            return stock.known(), stock.objects()

    before, objects = asyncio.run(live())
    how = dice.choice(["rebuild", "rebuild without the old one", "take over"])
    if how != "rebuild":
        shutil.rmtree(folder / "state")
    if how != "take over":
        assert rebuild(Stock(folder, board, TIERS).settings).extents == len(before)
    after, found = asyncio.run(look())
    assert held(after) == held(before)
    assert {key: (record.path, record.generation, record.size) for key, record in found.items()} == {
        key: (record.path, record.generation, record.size) for key, record in objects.items()
    }
    assert sorted(extent.slot for extent in after.values()) == list(range(len(after)))
    os.close(fd)
    shutil.rmtree(folder)


def test_the_files_of_a_device_are_listed_in_parts(tmp_path):
    folder = DeviceFolder(str(tmp_path))
    folder.identify()
    keys = [extent_key(object_key(f"/{number}"), 1, 0) for number in range(50)]
    for key in keys:
        folder.write_block(key, 0, memoryview(b"x"), 0)
    parts = [key for first in range(256) for key in folder.extents(first)]
    assert sorted(parts) == sorted(folder.extents()) == sorted(keys)
    assert [key[0] for key in parts] == sorted(key[0] for key in keys)
    assert {label_of(folder, key) for key in keys} == {LabelFlaw.UNLABELLED}
    assert label_of(folder, KEY) is LabelFlaw.GONE
    again = extent_key(keys[3][:16], 2, 5)
    folder.write_block(again, 0, memoryview(b"x"), 0)
    assert sorted(folder.extents_of(keys[3][:16])) == sorted([keys[3], again])
    assert folder.extents_of(object_key("/nothing")) == []
