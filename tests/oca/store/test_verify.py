"""`oca store verify`: a store that is well has nothing to tell, and whatever is wrong is named."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from oca.cache.keys import BLOCK_BYTES, object_key
from oca.cache.records import ExtentRecord, Label, ObjectRecord, encode, with_block
from oca.errors import IndexUnusable, StoreError
from oca.store.device import LABEL
from oca.store.index import Index, MoveExtent, PutObject
from oca.store.verify import Flaw, verify
from tests.doubles.faulty import ALL, Act, faulty_disk
from tests.oca.store.stock import Stock, flip

ROOT = Path(__file__).parents[3]
DEVICES = {"slow": "hdd", "fast": "nvme"}


def nobody_sleeps(_: float) -> None:
    pass


def found(report) -> list[tuple[Flaw, str, int]]:
    return [(finding.flaw, finding.path, finding.extent) for finding in report.findings]


@pytest.fixture
async def stopped(tmp_path, board):
    """Three objects on an hdd, one of them also on the nvme above it; stopped."""
    stock = Stock(tmp_path, board, DEVICES)
    async with stock:
        await stock.keep("/a", [0, 1, 17], size=18 * BLOCK_BYTES)
        await stock.keep("/b", [0], size=5000)
        await stock.keep("/c", [0], size=BLOCK_BYTES)
        key, extent = stock.key("/c"), stock.extent("/c")
        fast, slow = stock.shelf("fast"), stock.shelf("slow")
        content = slow.folder.read_block(key, 0, BLOCK_BYTES, extent.sum_of(0))
        fast.folder.copy_block(key, 0, content, is_first=True)
        fast.folder.seal(key, encode(Label(stock.index.object(object_key("/c")), extent)))
        await stock.index.apply(MoveExtent(key, extent, fast.number, keeps_below=True))
    return stock


def on(stock, name: str, path: str, number: int = 0) -> Path:
    digits = stock.key(path, number).hex()
    return stock.root / name / "extents" / digits[:2] / digits[2:4] / digits


def test_a_store_that_is_well_has_nothing_to_tell(stopped):
    told = []
    report = verify(stopped.settings, progress=told.append, sleep=nobody_sleeps)
    assert report.is_good
    assert report.findings == []
    assert (report.extents, report.blocks, report.bytes) == (5, 6, 5 * BLOCK_BYTES + 5000)
    assert report.unlabelled == 0
    quick = verify(stopped.settings, quick=True, sleep=nobody_sleeps)
    assert quick.is_good
    assert (quick.extents, quick.blocks) == (5, 0)


def test_one_device_is_verified_by_its_path_or_its_id(stopped):
    path = str(stopped.root / "fast")
    report = verify(stopped.settings, path, sleep=nobody_sleeps)
    assert report.is_good
    assert (report.extents, report.blocks) == (1, 1)
    identity = msgspec.json.decode((stopped.root / "fast" / "oca-device.json").read_bytes())["id"]
    assert verify(stopped.settings, identity, sleep=nobody_sleeps).extents == 1
    with pytest.raises(StoreError, match="'/nowhere' is no device"):
        verify(stopped.settings, "/nowhere")


@pytest.mark.parametrize(
    ("damage", "flaw", "is_seen_quickly"),
    [
        (lambda file: flip(file, 1000), Flaw.ROTTEN, False),
        (lambda file: os.truncate(file, BLOCK_BYTES + 1), Flaw.SHORT, True),
        (lambda file: file.unlink(), Flaw.MISSING, True),
        (lambda file: os.setxattr(file, LABEL, b"rotten"), Flaw.CONTRADICTED, True),
    ],
)
def test_what_is_wrong_with_a_file_is_named(stopped, damage, flaw, is_seen_quickly):
    file = on(stopped, "slow", "/a")
    damage(file)
    report = verify(stopped.settings, sleep=nobody_sleeps)
    assert not report.is_good
    assert found(report) == [(flaw, "/a", 0)]
    assert report.findings[0].device == str(stopped.root / "slow")
    assert str(file) in report.findings[0].sentence
    assert report.flaws == {flaw: 1}
    quick = verify(stopped.settings, quick=True, sleep=nobody_sleeps)
    assert found(quick) == (found(report) if is_seen_quickly else [])


def test_all_blocks_that_are_rotten_are_named_and_the_rest_is_read(stopped):
    flip(on(stopped, "slow", "/a"), 5)
    flip(on(stopped, "slow", "/a"), BLOCK_BYTES + 5)
    flip(on(stopped, "slow", "/b"), 5)
    report = verify(stopped.settings, sleep=nobody_sleeps)
    assert sorted(found(report)) == [(Flaw.ROTTEN, "/a", 0), (Flaw.ROTTEN, "/b", 0)]
    assert any("block 0, 1 of the extent" in finding.sentence for finding in report.findings)


@pytest.mark.parametrize("name", ["slow", "fast"])
def test_copies_are_compared_as_well(stopped, name):
    flip(on(stopped, name, "/c"), 77)
    report = verify(stopped.settings, sleep=nobody_sleeps)
    assert found(report) == [(Flaw.ROTTEN, "/c", 0)]
    assert report.findings[0].device == str(stopped.root / name)


def test_a_label_that_lags_behind_or_is_missing_is_no_damage(stopped):
    file = on(stopped, "slow", "/a")
    label = Label(ObjectRecord("/a", 1, 18 * BLOCK_BYTES), ExtentRecord(0, 0, 0, b"", 0))
    os.removexattr(file, LABEL)
    report = verify(stopped.settings, sleep=nobody_sleeps)
    assert report.is_good
    assert report.unlabelled == 1
    os.setxattr(file, LABEL, encode(Label(label.object, with_block(label.extent, 1, 12345, 4096))))
    report = verify(stopped.settings, sleep=nobody_sleeps)
    assert found(report) == [(Flaw.CONTRADICTED, "/a", 0)]
    assert "another sum for block 1" in report.findings[0].sentence


def test_a_file_that_no_record_names_is_told_unless_it_may_just_be_being_written(stopped):
    stray = on(stopped, "fast", "/stray")
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"x")
    slept = []
    assert verify(stopped.settings, sleep=slept.append).is_good
    assert slept == [5.0]
    os.utime(stray, (1, 1))
    report = verify(stopped.settings, sleep=slept.append)
    assert found(report) == [(Flaw.UNNAMED, "", 0)]
    assert str(stray) in report.findings[0].sentence


def test_a_file_that_goes_while_we_look_is_not_told(stopped):
    stray = on(stopped, "fast", "/stray")
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"x")
    os.utime(stray, (1, 1))
    assert verify(stopped.settings, sleep=lambda _: stray.unlink()).is_good


async def test_what_is_wrong_in_the_index_is_named(stopped):
    async with Index(str(stopped.root / "state" / "index")) as index:
        records = dict(pair for batch in index.scan_extents(9) for pair in batch)
        slot = records[stopped.key("/b")].slot
        with index._env.begin(write=True) as txn:

            def put(key, **fields):
                txn.put(key, encode(msgspec.structs.replace(records[key], **fields)), db=index._extents)

            put(stopped.key("/a", 1), slot=slot)
            put(stopped.key("/c"), below=99)
            txn.put(stopped.key("/a", 0), b"\xc1", db=index._extents)
            txn.delete(object_key("/b"), db=index._objects)
    # Of two that claim a slot the second is told; the object of one of them is not known any more.
    second = max((stopped.key("/a", 1), "/a", 1), (stopped.key("/b"), "", 0))
    report = verify(stopped.settings, sleep=nobody_sleeps)
    assert sorted(found(report)) == sorted(
        [
            (Flaw.UNREADABLE, "/a", 0),
            (Flaw.ORPHANED, "", 0),
            (Flaw.HOMELESS, "/c", 0),
            (Flaw.SLOT_TWICE, *second[1:]),
        ]
    )


async def test_an_extent_of_another_generation_than_its_object_is_told(stopped):
    async with Index(str(stopped.root / "state" / "index")) as index:
        await index.apply(PutObject(object_key("/b"), ObjectRecord("/b", 2, 5000)))
    report = verify(stopped.settings, sleep=nobody_sleeps)
    assert found(report)[0] == (Flaw.ORPHANED, "/b", 0)


def test_a_device_that_is_not_there_is_named_once(stopped):
    (stopped.root / "slow").rename(stopped.root / "away")
    report = verify(stopped.settings, sleep=nobody_sleeps)
    assert found(report) == [(Flaw.DEVICE, "", 0)]
    assert "no device lies there" in report.findings[0].sentence
    assert report.extents == 1
    (stopped.root / "slow").mkdir()
    (stopped.root / "slow" / "oca-device.json").write_text('{"id": "another"}')
    report = verify(stopped.settings, sleep=nobody_sleeps)
    assert "another device (another) lies there" in report.findings[0].sentence


def test_without_an_index_there_is_nothing_to_verify(tmp_path, board):
    with pytest.raises(IndexUnusable):
        verify(Stock(tmp_path, board, DEVICES).settings)


BUSY = """
import asyncio, sys
from pathlib import Path
from oca.cache.keys import object_key
from oca.store.board import BOARD_BYTES, Board, new_memory
from tests.oca.store.stock import Stock

async def live():
    board = Board(new_memory("board", BOARD_BYTES))
    async with Stock(Path(sys.argv[1]), board, {"slow": "hdd", "fast": "nvme"}) as stock:
        print("up", flush=True)
        turn = 0
        while True:
            turn += 1
            for number in range(10):
                await stock.keep(f"/busy/{number}", [0, 1], size=8192 + 4194304, generation=turn)
            await stock.shelves.drop([object_key(f"/busy/{number}") for number in range(10)])

asyncio.run(live())
"""


def test_while_content_comes_and_goes_nothing_is_told_that_is_not_so(stopped):
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(stopped.root)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert child.stdout.readline() == b"up\n"
        for _ in range(8):
            report = verify(stopped.settings, sleep=nobody_sleeps)
            assert found(report) == []
        flip(on(stopped, "slow", "/b"), 5)
        assert found(verify(stopped.settings, sleep=nobody_sleeps)) == [(Flaw.ROTTEN, "/b", 0)]
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()


@pytest.mark.mounts
async def test_what_the_disk_can_not_read_is_named_and_the_rest_is_read(tmp_path, board):
    with faulty_disk(tmp_path / "faulty") as disk:
        stock = Stock(tmp_path, board, {"faulty/mount": "hdd"})
        async with stock:
            for number in range(3):
                await stock.keep(f"/{number}", [0, 1], size=8 * BLOCK_BYTES)
        disk.forget(*disk.files())
        disk.fail(Act.READ, where=f"*{stock.key('/1').hex()}")
        report = verify(stock.settings, sleep=nobody_sleeps)
        assert found(report) == [(Flaw.IO, "/1", 0)]
        assert "block 0, 1 of the extent can't be read" in report.findings[0].sentence
        disk.mend()
        disk.fail(*ALL, error=errno.ENXIO)
        report = verify(stock.settings, sleep=nobody_sleeps)
        assert found(report) == [(Flaw.DEVICE, "", 0)]
        disk.mend()
        assert verify(stock.settings, sleep=nobody_sleeps).is_good
