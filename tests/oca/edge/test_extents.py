"""Extent files: opened, probed, and read by whole blocks that are compared with their sums."""

import errno
import os

import pytest

from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES
from oca.counters import COUNTERS_BYTES, READING_WORDS
from oca.edge import extents, kernel
from oca.edge.extents import Copy, Damaged, OpenExtent, copy_block, open_lying, open_lying_at_once, read_block
from oca.edge.tally import Tally
from oca.store.board import new_memory
from tests.oca.edge.disk import flip, forget_pages, laid, opened

SIZE = 2 * BLOCK_BYTES + 12_345


class Watched:
    """What is known of the devices."""

    def __init__(self) -> None:
        self.fd = new_memory("test-counters", COUNTERS_BYTES)
        self.reading = Tally(self.fd, 0).reading
        self.suspects: set[int] = set()


@pytest.fixture
def watched():
    built = Watched()
    yield built
    os.close(built.fd)


@pytest.fixture
def content():
    return os.urandom(SIZE)


def is_warm(extent: OpenExtent, watched: Watched, start: int = 0, stop: int = 4096, now: float = 1.0) -> bool:
    return extent.is_warm(start, stop - start, watched, now)


def test_what_was_just_written_is_warm_and_what_was_forgotten_is_not(tmp_path, content, watched):
    extent = opened(tmp_path, content)
    assert is_warm(extent, watched, 0, BLOCK_BYTES)
    assert is_warm(extent, watched, 2 * BLOCK_BYTES, SIZE)
    forget_pages(extent)
    assert not is_warm(extent, watched, 0, 1, now=9.0)
    assert not is_warm(extent, watched, 2 * BLOCK_BYTES, SIZE, now=9.0)


def test_a_hole_among_cached_pages_is_seen(tmp_path, content, watched):
    extent = opened(tmp_path, content)
    forget_pages(extent)
    for start, stop in ((0, 1024 * 1024), (1024 * 1024 + 65536, BLOCK_BYTES)):
        os.pread(extent.fd, stop - start, start)
    assert kernel.cached_pages(extent.fd, 0, BLOCK_BYTES) in (-1, 1024 - 16)
    if kernel.cached_pages(extent.fd, 0, BLOCK_BYTES) >= 0:
        assert not is_warm(extent, watched, 0, 2 * 1024 * 1024)
    # Of a device that lets reads wait each page is looked at, whatever the kernel counts.
    watched.suspects.add(extent.device)
    assert not is_warm(extent, watched, 0, 2 * 1024 * 1024)
    assert is_warm(extent, watched, 2 * 1024 * 1024, 4 * 1024 * 1024)


def test_what_a_worker_is_just_reading_is_not_touched(tmp_path, content, watched):
    extent = opened(tmp_path, content)
    watched.reading[extent.rows[0]] = 1
    assert not is_warm(extent, watched)
    assert is_warm(extent, watched, BLOCK_BYTES, BLOCK_BYTES + 1)


def test_what_a_look_had_the_kernel_read_is_cold_until_it_was_compared(tmp_path, content, watched):
    extent = opened(tmp_path, content)
    forget_pages(extent)
    missing = 65536
    os.pread(extent.fd, missing, 0)
    os.pread(extent.fd, BLOCK_BYTES - missing - 4096, missing + 4096)
    assert not is_warm(extent, watched, missing, missing + 1)
    os.pread(extent.fd, 4096, missing)  # By now it is there: the look asked for it.
    assert not is_warm(extent, watched, 0, BLOCK_BYTES, now=9.0)
    assert not is_warm(OpenExtent(laid(tmp_path, content), os.dup(extent.fd)), watched, 0, BLOCK_BYTES)
    watched.reading[extent.rows[0]] = 0
    assert is_warm(extent, watched, 0, BLOCK_BYTES, now=9.0)


def test_the_blocks_of_an_extent_have_rows_of_their_own(tmp_path, content):
    extent = opened(tmp_path, content)
    assert len(set(extent.rows)) == 16
    assert all(0 <= row < READING_WORDS for row in extent.rows)


def test_memory_is_always_warm(tmp_path, content, watched):
    extent = opened(tmp_path, content, tier="memory")
    forget_pages(extent)
    assert is_warm(extent, watched)


def test_a_file_system_that_can_not_tell_is_taken_as_cold(tmp_path, content, watched):
    lying = laid(tmp_path, content)
    extent = OpenExtent(lying, os.open(lying.path, os.O_RDONLY), is_blind=True)
    assert not is_warm(extent, watched)


@pytest.mark.parametrize("read", [read_block, copy_block])
def test_each_block_is_read_and_verified_the_last_one_too(tmp_path, content, watched, read):
    extent = opened(tmp_path, content)
    for block in range(3):
        forget_pages(extent)
        result = read(extent, block)
        part = content[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        assert is_warm(extent, watched, block * BLOCK_BYTES, block * BLOCK_BYTES + len(part), now=10.0 * block)
        if read is copy_block:
            assert isinstance(result, Copy)
            assert os.pread(result.fd, BLOCK_BYTES + 1, 0) == part
        else:
            assert result is extent


@pytest.mark.parametrize("tier", ["nvme", "hdd"])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_no_other_block_comes_in_with_the_one_that_is_read(tmp_path, content, watched, block, tier):
    extent = opened(tmp_path, content, tier=tier)
    forget_pages(extent)
    read_block(extent, block)
    for other in {0, 1, 2} - {block}:
        assert kernel.cached_pages(extent.fd, other * BLOCK_BYTES, BLOCK_BYTES) in (-1, 0)
        assert not is_warm(extent, watched, other * BLOCK_BYTES, other * BLOCK_BYTES + 1)


def test_sending_what_a_stream_brought_in_makes_the_kernel_read_nothing(tmp_path):
    """Its marks for reading ahead are used up: they would have a later hole filled with what nobody compares."""
    extent = opened(tmp_path, os.urandom(2 * BLOCK_BYTES))
    half = BLOCK_BYTES // 2
    for gone in range(BLOCK_BYTES, 2 * BLOCK_BYTES, half):
        forget_pages(extent)
        read_block(extent, 1)
        os.posix_fadvise(extent.fd, gone, half, os.POSIX_FADV_DONTNEED)
        for page in range(BLOCK_BYTES, 2 * BLOCK_BYTES, 4096):
            if not gone <= page < gone + half:
                os.pread(extent.fd, 1, page)
        assert kernel.cached_pages(extent.fd, gone, half) in (-1, 0)
        assert kernel.cached_pages(extent.fd, 0, BLOCK_BYTES) in (-1, 0)


@pytest.mark.parametrize("read", [read_block, copy_block])
@pytest.mark.parametrize("offset", [0, BLOCK_BYTES - 1, SIZE - 1])
def test_a_flipped_bit_is_found_and_its_pages_are_dropped(tmp_path, content, watched, offset, read):
    lying = laid(tmp_path, content)
    flip(lying.path, offset)
    extent = open_lying(lying)
    with pytest.raises(Damaged) as caught:
        read(extent, offset // BLOCK_BYTES)
    assert (caught.value.fault, caught.value.key, caught.value.slot, caught.value.device) == (
        Fault.ROTTEN,
        lying.key,
        3,
        0,
    )
    assert not is_warm(extent, watched, offset, offset + 1)
    assert read(extent, 1) if offset != SIZE else True


def test_a_file_that_ends_early_is_short(tmp_path, content):
    lying = laid(tmp_path, content)
    os.truncate(lying.path, BLOCK_BYTES + 5)
    extent = open_lying(lying)
    read_block(extent, 0)
    for block in (1, 2):
        with pytest.raises(Damaged) as caught:
            read_block(extent, block)
        assert caught.value.fault is Fault.SHORT


def test_a_file_that_is_gone_is_missing(tmp_path, content):
    lying = laid(tmp_path, content)
    os.unlink(lying.path)
    assert open_lying_at_once(lying) is None
    with pytest.raises(Damaged) as caught:
        open_lying(lying)
    assert caught.value.fault is Fault.MISSING


def test_what_is_no_file_is_an_error_of_the_disk(tmp_path, content):
    lying = laid(tmp_path, content)
    extent = OpenExtent(lying, os.open(tmp_path, os.O_RDONLY))
    with pytest.raises(Damaged, match=os.strerror(errno.EISDIR)) as caught:
        read_block(extent, 0)
    assert caught.value.fault is Fault.IO


def test_a_file_whose_place_is_known_is_opened_at_once(tmp_path, content):
    lying = laid(tmp_path, content)
    extent = open_lying_at_once(lying)
    assert extent is not None
    assert os.pread(extent.fd, 10, 0) == content[:10]


def test_memory_for_copies_is_bounded(tmp_path):
    extent = opened(tmp_path, b"x" * 100)
    copies = []
    while isinstance(copy := copy_block(extent, 0), Copy):
        copies.append(copy)
    assert copy is extent
    assert 0 < len(copies) <= extents._COPIES
    copies.clear()
    assert isinstance(copy_block(extent, 0), Copy)


# --- Whether pages are worth their memory -----------------------------------------------------------------------------

MINUTES = extents._RARELY


@pytest.mark.parametrize(
    ("reads", "warm_at", "is_rare"),
    [
        ([(1, 0.0)], None, True),
        ([(1, 0.0), (1, 50.0)], None, True),
        ([(1, 0.0), (2, 50.0)], None, False),
        ([(2, 0.0), (1, 50.0)], None, False),
        ([(2, 50 - MINUTES), (1, 50.0)], None, True),
        ([(2, 0.0), (1, 10.0), (1, 10 + MINUTES)], None, True),
        ([(1, 0.0)], 1.0, False),
        ([(1, MINUTES + 1)], 1.0, True),
    ],
    ids=[
        "one viewer",
        "one viewer, again",
        "another came after",
        "another was here before",
        "another was here long ago",
        "the other left long ago",
        "somebody found it warm",
        "somebody found it warm long ago",
    ],
)
def test_pages_are_rarely_used_if_one_viewer_alone_read_them_for_minutes(tmp_path, reads, warm_at, is_rare):
    extent = opened(tmp_path, b"x")
    for viewer, now in reads:
        extent.read_by(viewer, now)
    if warm_at is not None:
        extent.shared_at = warm_at
    assert extent.is_rarely_used(1, max(reads[-1][1], warm_at or 0)) is is_rare
