"""What a worker knows of objects: the index while it changes under another process, and files while they go."""

import gc
import os

import pytest

from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES, EXTENT_BYTES, extent_key, object_key
from oca.cache.records import DeviceRecord, ObjectRecord
from oca.counters import PLACES
from oca.edge.extents import Damaged, Lying, OpenExtent, open_lying
from oca.edge.lookup import Held, Lookup
from oca.store.board import Board
from oca.store.device import DeviceFolder
from oca.store.index import AddBlock, DropObject, IndexReader, PutObject
from tests.oca.store.scribe import Scribe

PATH = "/titles/x/720p.mp4"
RAW = b"/titles/x/720p.mp4"
KEY = object_key(PATH)
SIZE = 3 * EXTENT_BYTES
RECORD = ObjectRecord(PATH, 1, SIZE, etag=b'"v1"')


class Box:
    """A keeper's hand (`scribe`, `board`) and a worker's eye (`lookup`) on the same index and disk."""

    def __init__(self, root, board: Board, scribe: Scribe) -> None:
        self.board = board
        self.folder = DeviceFolder(str(root / "disk"))
        self.folder.identify()
        self.scribe = scribe
        scribe.open(str(root / "index"))
        self.scribe.register_device(DeviceRecord("d0", self.folder.path, "ssd"))
        self.reader = IndexReader(str(root / "index"))
        self.lookup = Lookup(self.reader, board)

    def commit(self, *changes, told: bool = True) -> None:
        self.scribe.apply(*changes)
        if told:
            self.board.raise_stamp(KEY)

    def keep(self, *blocks: int, told: bool = True, file: bool = True) -> None:
        for block in blocks:
            number, place = divmod(block, 16)
            extent = extent_key(KEY, 1, number)
            if file and not os.path.exists(self.folder.file_path(extent)):
                self.folder.write_block(extent, 0, memoryview(bytes([number + 1])), 0)
            self.commit(PutObject(KEY, RECORD), AddBlock(extent, 0, number, place, 1, 4096), told=told)

    def find(self) -> Held:
        held = self.lookup.find(RAW, PATH)
        assert held is not None
        return held

    def extent(self, held: Held, number: int, block: int, lookup: Lookup | None = None) -> OpenExtent | None:
        """As a response gets it: opened on the device's own threads if it must be."""
        lookup = lookup or self.lookup
        found = lookup.extent(held, number, block)
        if isinstance(found, Lying):
            found = open_lying(found)
            lookup.remember(held, number, found)
        return found

    def close(self) -> None:
        self.reader.close()


@pytest.fixture
def box(tmp_path, board, scribe):
    built = Box(tmp_path, board, scribe)
    yield built
    built.close()


def test_what_the_index_does_not_know_is_not_known(box):
    assert box.lookup.remembered(RAW) is None
    assert box.lookup.find(RAW, PATH) is None
    assert box.lookup.remembered(RAW) is None


def test_what_was_found_is_remembered_under_its_spelling(box):
    box.commit(PutObject(KEY, RECORD))
    held = box.find()
    assert held.record == RECORD
    assert box.lookup.remembered(RAW) is held
    assert box.lookup.remembered(b"/titles/%78/720p.mp4") is None


def test_a_change_is_seen_with_the_first_request_after_its_stamp_was_raised(box):
    box.commit(PutObject(KEY, RECORD))
    before = box.find()
    changed = ObjectRecord(PATH, 2, 5)
    box.commit(PutObject(KEY, changed), told=False)
    assert box.lookup.remembered(RAW) is before
    box.board.raise_stamp(KEY)
    assert box.lookup.remembered(RAW) is None
    assert box.find().record == changed


def test_a_purge_is_seen_with_the_first_request_after_its_stamp_was_raised(box):
    box.keep(0)
    held = box.find()
    box.commit(DropObject(KEY))
    assert box.lookup.remembered(RAW) is None
    assert box.lookup.find(RAW, PATH) is None
    # Who is being served finishes; nobody else gets a block of it.
    assert box.extent(held, 0, 0) is None


def test_a_change_between_the_stamp_and_the_look_is_not_hidden(box, monkeypatch):
    box.commit(PutObject(KEY, RECORD))

    class Meddler:
        """An index that the keeper changes after the worker has noted the stamp and looked."""

        def object(self, key):
            found = box.reader.object(key)
            box.commit(PutObject(KEY, ObjectRecord(PATH, 2, 5)))
            return found

    lookup = Lookup(Meddler(), box.board)
    assert lookup.find(RAW, PATH).record == RECORD
    assert lookup.remembered(RAW) is None


def test_an_object_that_only_shares_a_stamp_is_looked_up_again_and_is_the_same(box):
    box.commit(PutObject(KEY, RECORD))
    box.find()
    box.board.raise_stamp(KEY[:2] + b"\xff" * 14)
    assert box.lookup.remembered(RAW) is None
    assert box.find().record == RECORD


def test_an_extent_is_opened_where_its_device_is(box):
    box.keep(0, 5, 16)
    held = box.find()
    extent = box.extent(held, 0, 5)
    assert (extent.present, extent.slot, PLACES[extent.place]) == (0b100001, 0, "ssd")
    assert os.pread(extent.fd, 1, 0) == b"\x01"
    assert os.pread(box.extent(held, 1, 0).fd, 1, 0) == b"\x02"
    assert box.extent(held, 0, 0) is extent


def test_a_block_that_is_not_there_yet_is_found_once_it_is(box):
    box.keep(0)
    held = box.find()
    first = box.extent(held, 0, 0)
    assert box.extent(held, 0, 1) is None
    box.keep(1, told=False)
    second = box.extent(held, 0, 1)
    assert second is not first
    assert box.extent(held, 0, 0) is second


def test_an_extent_whose_file_is_gone_is_an_error_that_can_be_told(box):
    box.keep(0, file=False)
    held = box.find()
    with pytest.raises(Damaged) as caught:
        box.extent(held, 0, 0)
    assert (caught.value.key, caught.value.slot, caught.value.device) == (extent_key(KEY, 1, 0), 0, 0)
    assert caught.value.fault is Fault.MISSING


def test_a_file_is_opened_on_the_loop_only_where_no_disk_has_to_be_asked(box):
    box.keep(0, 16)
    held = box.find()
    # The first file of a device says whether its file system answers without waiting.
    assert isinstance(box.lookup.extent(held, 0, 0), Lying)
    box.extent(held, 0, 0)
    assert isinstance(box.lookup.extent(held, 1, 0), OpenExtent)
    box.board.raise_devices_version()
    held.extents.clear()
    assert isinstance(box.lookup.extent(held, 0, 0), Lying)


def test_an_open_file_is_read_to_its_end_though_it_was_evicted(box):
    box.keep(0)
    held = box.find()
    extent = box.extent(held, 0, 0)
    box.commit(DropObject(KEY))
    box.folder.remove(extent_key(KEY, 1, 0))
    assert box.extent(held, 0, 0) is extent
    assert os.pread(extent.fd, 1, 0) == b"\x01"


def test_a_device_that_is_not_in_use_holds_nothing(box):
    box.keep(0)
    box.scribe.retire_devices([])
    box.board.raise_devices_version()
    held = box.find()
    assert box.extent(held, 0, 0) is None
    assert not box.lookup.holds(held, 0, 10)
    box.scribe.register_device(DeviceRecord("d0", box.folder.path, "hdd"))
    box.board.raise_devices_version()
    assert PLACES[box.extent(held, 0, 0).place] == "hdd"


def test_another_generation_of_the_same_object_has_other_extents(box):
    box.keep(0)
    held = box.lookup.from_keeper(KEY, ObjectRecord(PATH, 2, SIZE))
    assert box.extent(held, 0, 0) is None
    assert box.lookup.remembered(RAW) is None


def test_a_private_object_is_never_looked_up(box):
    box.keep(0)
    held = box.lookup.from_keeper(b"private:" + bytes(8), RECORD)
    assert box.extent(held, 0, 0) is None
    assert not box.lookup.holds(held, 0, 1)


@pytest.mark.parametrize(
    ("blocks", "start", "stop", "holds"),
    [
        ([0], 0, BLOCK_BYTES, True),
        ([0], 0, BLOCK_BYTES + 1, False),
        ([0], BLOCK_BYTES - 1, BLOCK_BYTES, True),
        ([1], 0, 1, False),
        ([0, 2], 0, 3 * BLOCK_BYTES, False),
        ([15, 16], 15 * BLOCK_BYTES, 17 * BLOCK_BYTES, True),
        ([15, 16], 15 * BLOCK_BYTES, 17 * BLOCK_BYTES + 1, False),
        ([15, 17], 15 * BLOCK_BYTES, 18 * BLOCK_BYTES, False),
        ([14, *range(16, 32), 32], EXTENT_BYTES, 2 * EXTENT_BYTES + 1, True),
        ([*range(15, 32), 33], 15 * BLOCK_BYTES, 2 * EXTENT_BYTES + 1, False),
    ],
)
def test_whether_all_bytes_of_a_span_are_held(box, blocks, start, stop, holds):
    box.keep(*blocks)
    held = box.find()
    assert box.lookup.holds(held, start, stop) is holds
    # The same once the extents are open.
    for block in blocks:
        box.extent(held, *divmod(block, 16))
    assert box.lookup.holds(held, start, stop) is holds


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_what_is_forgotten_gives_its_descriptors_back(box):
    box.keep(0, 16)
    before = open_files()
    held = box.find()
    box.extent(held, 0, 0)
    box.extent(held, 1, 0)
    assert open_files() == before + 2
    del held
    box.lookup.close_stale()
    assert open_files() == before + 2
    box.board.raise_stamp(KEY)
    box.lookup.close_stale()
    assert open_files() == before


def test_what_is_used_is_remembered_longer_and_the_memory_is_bounded(box):
    box.commit(PutObject(KEY, RECORD))
    for number in range(30_000):
        box.lookup.find(b"/%d" % number, PATH)
        if number:
            assert box.lookup.remembered(b"/%d" % (number - number % 100))
        assert len(box.lookup._held) <= 8192
        if number % 1000 == 0:
            box.lookup.remembered(b"/0")
    assert box.lookup.remembered(b"/0")


def test_files_of_a_device_that_is_not_read_any_more_are_let_go(box):
    box.keep(0)
    held = box.find()
    extent = box.extent(held, 0, 0)
    box.scribe.register_device(DeviceRecord("d0", "", "ssd"))
    box.board.raise_devices_version()
    box.lookup.close_stale()
    assert held.extents == {}
    assert box.extent(held, 0, 0) is None
    # Who is just being served from it finishes.
    assert os.pread(extent.fd, 1, 0) == b"\x01"
