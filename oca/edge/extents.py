"""An extent's file as a worker reads it: opened, probed, and read by whole blocks that are compared with their sums.

What may wait for a disk (`open_extent`, `read_block`) is called on the device's own threads, never on the loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

import crc32c

from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS, ExtentKey
from oca.cache.records import ExtentRecord
from oca.counters import PLACES, READING_WORDS, Place
from oca.edge.kernel import cached_pages, is_read_in, open_at_once

PIECE_BYTES: Final = 1024 * 1024
"""Read and summed at once. A piece of a block, because a device has up to 256 threads."""
_BUFFERS: Final = 8
"""Pieces of memory that are kept for the next reads."""
_STREAM_BYTES: Final = 16 * 1024
"""The first read of a stream. Small, because folios grow from one window of the kernel's reading ahead to the next."""
_COPIES: Final = 64
"""Blocks in memory of our own at once, in each worker; beyond it they are sent from the file."""
_PAGE: Final = 4096
_SURE: Final = 0.05
"""Seconds for which a block that was found whole in memory is only looked at at both ends of what is sent."""
_RARELY: Final = 300.0
"""Seconds. Viewers further apart than that find the bytes on the disk again."""
_MEMORY: Final = PLACES.index(Place.MEMORY)
_HDD: Final = PLACES.index(Place.HDD)
_NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
_SUM: Final = struct.Struct(">I")
_one_vector: Final = [bytearray(1)]
_buffers: Final[list[memoryview]] = []
_permits: Final = deque([None] * _COPIES)
"""One for each copy that may be made now. Taken by the devices' threads, given back by whoever lets go last."""


class Lying(NamedTuple):
    """An extent that the index knows and that has to be opened."""

    key: ExtentKey
    path: str
    record: ExtentRecord
    place: int
    """Index into PLACES."""
    size: int
    """Bytes of the object from the extent's first on, up to the extent's end."""

    @property
    def slot(self) -> int:
        return self.record.slot

    @property
    def device(self) -> int:
        return self.record.device


class Watched(Protocol):
    """What is known of the devices."""

    reading: memoryview
    """Not 0 at the places of blocks that are just being read, or that a look may have made the kernel read."""
    suspects: set[int]
    """Devices that let a read wait just now."""


class NotRead(Exception):
    """Bytes can't be had from where they lie; they are brought from elsewhere."""


class Damaged(NotRead):
    """The extent's file is gone, short, unreadable or rotten. The keeper has to know."""

    def __init__(self, of: Lying | OpenExtent, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.key = of.key
        self.slot = of.slot
        self.device = of.device
        self.fault = fault
        self.is_told = False
        """The keeper knows: several responses may wait for the same read."""


class GivenUp(NotRead):
    """The device does not answer in time. Nothing is known to be wrong with the extent."""


class NoDescriptors(NotRead):
    """We are out of file descriptors, which is no fault of the device."""


class OpenExtent:
    """An extent's open file. Closed when the last response that uses it lets go: an evicted file is sent to its end."""

    __slots__ = (
        "_read_at",
        "_reader",
        "_size",
        "_sums",
        "_sure_until",
        "brought",
        "device",
        "fd",
        "is_blind",
        "key",
        "nowait",
        "place",
        "present",
        "rows",
        "shared_at",
        "slot",
    )

    def __init__(self, of: Lying, fd: int, *, is_blind: bool = False) -> None:
        self.key = of.key
        self.fd = fd
        self.present = of.record.present
        self.device = of.record.device
        self.slot = of.record.slot
        self.place = of.place
        """Index into PLACES."""
        self.is_blind = is_blind
        """The file system can't say what is in the page cache: taken as cold, always."""
        # What lies on tmpfs is always warm, and older kernels refuse the flag there.
        self.nowait = 0 if of.place == _MEMORY else os.RWF_NOWAIT
        first = int.from_bytes(of.key[:2], "big") + of.key[-1]
        self.rows = tuple((first + 257 * block) % READING_WORDS for block in range(EXTENT_BLOCKS))
        """Where its blocks stand in the table of those that workers are just reading from devices: their pages must not
        be touched, for they may be rotten, and may never come. Two blocks that share a row, or a worker that died with
        one, cost a read, never a wrong byte.
        """
        self.brought = 0
        """Bitmap of the blocks that cold reads of this worker brought into memory."""
        self._sums = of.record.sums
        self._size = of.size
        self._sure_until = [0.0] * EXTENT_BLOCKS
        self._reader = 0
        self._read_at = float("-inf")
        self.shared_at = float("-inf")
        """The last time (monotonic) that somebody read here soon after another, or found in memory what he wanted."""

    def length_of(self, block: int) -> int:
        """The bytes of a block of this extent; the object's last one is shorter."""
        return min(BLOCK_BYTES, self._size - block * BLOCK_BYTES)

    def may_stream(self, block: int) -> bool:
        """Whether the kernel may read ahead while the block is read: its file ends with it, so that nothing comes in
        that is not compared. A disk with one head is better asked for much at once.
        """
        return (block + 1) * BLOCK_BYTES >= self._size and self.place != _HDD

    def sum_of(self, block: int) -> int:
        return int(_SUM.unpack_from(self._sums, 4 * block)[0])

    def is_warm(self, offset: int, count: int, worker: Watched, now: float) -> bool:
        """Whether a span, which lies in one block, is in the page cache: `sendfile` will not wait for the disk.

        The first and the last page are looked at each time, 0.9 microseconds each, and the whole block again and again
        where the kernel has cachestat(2). That counts pages too that are just being read in: those of workers stand in
        the table, and while a device is suspect (it lets a read wait) each page is looked at. Nothing is sure for
        longer than the moment: the kernel may take a page back before it is sent.
        """
        if not self.nowait:
            return True
        block = offset // BLOCK_BYTES
        if self.is_blind or worker.reading[self.rows[block]]:
            return False
        try:
            os.preadv(self.fd, _one_vector, offset, os.RWF_NOWAIT)
            if count > _PAGE:
                os.preadv(self.fd, _one_vector, offset + count - 1, os.RWF_NOWAIT)
        except OSError:
            # Cold, or broken: the device's own thread will see.
            self.doubt(block, worker)
            return False
        if self.device in worker.suspects:
            return is_read_in(self.fd, offset, count)
        if now < self._sure_until[block]:
            return True
        cached = cached_pages(self.fd, block * BLOCK_BYTES, BLOCK_BYTES)
        if 0 <= cached < -(-self.length_of(block) // _PAGE):
            return False
        self._sure_until[block] = now + _SURE
        return True

    def doubt(self, block: int, worker: Watched) -> None:
        """A look found a page missing. RWF_NOWAIT does not wait, but has the kernel read the page: the block may be
        whole in a moment without having been compared. All workers take it as cold until a device's thread read it.
        """
        worker.reading[self.rows[block]] = 1

    # --- Who reads here, and whether the pages are worth their memory -------------------------------------------------

    def read_by(self, viewer: int, now: float) -> None:
        """A viewer (a connection's number) reads here."""
        if viewer != self._reader:
            if now - self._read_at < _RARELY:
                self.shared_at = now
            self._reader = viewer
        self._read_at = now

    def is_rarely_used(self, viewer: int, now: float) -> bool:
        """Whether `viewer` has been the only one here for minutes: then others make better use of the memory."""
        return self._reader == viewer and now - self.shared_at >= _RARELY

    def __del__(self) -> None:
        os.close(self.fd)


def open_lying(of: Lying) -> OpenExtent:
    """Open an extent's file. May wait for the disk. Raises `Damaged`, `NoDescriptors`."""
    try:
        fd = os.open(of.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_DESCRIPTOR:
            raise NoDescriptors(str(error)) from error
        raise Damaged(of, Fault.MISSING if error.errno == errno.ENOENT else Fault.IO, str(error)) from error
    # What the kernel reads ahead of its own accord would be sent without having been compared with its sum.
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    return OpenExtent(of, fd, is_blind=of.place != _MEMORY and _is_blind(fd))


def open_lying_at_once(of: Lying) -> OpenExtent | None:
    """Open an extent's file if no disk has to be asked for that; for file systems that are known not to be blind."""
    fd = open_at_once(of.path)
    if fd < 0:
        return None
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    return OpenExtent(of, fd)


class Copy:
    """A block's verified bytes in memory of our own, which is sent. `sendfile` from the file might wait for the disk
    again, and send other bytes: pages may go and come before they are sent.
    """

    __slots__ = ("block", "extent", "fd")

    def __init__(self, extent: OpenExtent, block: int) -> None:
        self.extent = extent
        self.block = block
        self.fd = os.memfd_create("oca-block", os.MFD_CLOEXEC)

    def __del__(self) -> None:
        # Never used again for another block: sockets may still hold its pages.
        if hasattr(self, "fd"):
            os.close(self.fd)
            _permits.append(None)


def copy_block(extent: OpenExtent, block: int) -> OpenExtent | Copy:
    """Read a block into the page cache and into memory of our own, compared with its sum. Waits for the disk.

    If that memory is used up it is `read_block`: then the page cache has to do. Raises `Damaged`, `NoDescriptors`.
    """
    try:
        _permits.pop()
    except IndexError:
        return read_block(extent, block)
    try:
        copy = Copy(extent, block)
    except OSError as error:
        _permits.append(None)
        raise NoDescriptors(str(error)) from error
    _verify(extent, block, _sum_of_file(extent, block, copy.fd))
    return copy


def read_block(extent: OpenExtent, block: int) -> OpenExtent:
    """Bring a block into the page cache, compared with its sum. Waits for the disk.

    Raises `Damaged`, `NoDescriptors`.
    """
    _verify(extent, block, _sum_of_file(extent, block, -1))
    return extent


def _verify(extent: OpenExtent, block: int, crc: int) -> None:
    if crc != extent.sum_of(block):
        give_back(extent, block)
        raise Damaged(extent, Fault.ROTTEN, f"block {block} does not have the sum that it was stored with")


def _sum_of_file(extent: OpenExtent, block: int, copy_fd: int) -> int:
    """The CRC32C of a block's bytes, which are written to `copy_fd` too if it is not -1."""
    offset, length = block * BLOCK_BYTES, extent.length_of(block)
    piece = _buffers.pop() if _buffers else memoryview(bytearray(PIECE_BYTES))
    crc = 0
    try:
        with contextlib.ExitStack() as stack:
            if extent.may_stream(block):
                fd, steps = stack.enter_context(_stream_of(extent)), _growing(length)
            else:
                fd, steps = extent.fd, _asked_ahead(extent.fd, offset, length)
            for at, count in steps:
                wanted = piece[:count]
                if os.preadv(fd, [wanted], offset + at) != count:
                    raise Damaged(extent, Fault.SHORT, "the file is shorter than the index says")
                crc = crc32c.crc32c(wanted, crc)
                if copy_fd >= 0:
                    os.pwrite(copy_fd, wanted, at)
    except OSError as error:
        # A stream that was cut short leaves marks, at which the kernel would read on for whoever comes by.
        give_back(extent, block)
        raise Damaged(extent, Fault.IO, str(error)) from error
    finally:
        if len(_buffers) < _BUFFERS:
            _buffers.append(piece)
    return crc


def _asked_ahead(fd: int, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """The pieces of a block: where in it, and how many bytes. The one after each is on its way when it is read.

    Not a byte more comes in than is asked for, but in pages that each stand alone.
    """
    os.posix_fadvise(fd, offset, min(PIECE_BYTES, length), os.POSIX_FADV_WILLNEED)
    for at in range(0, length, PIECE_BYTES):
        ahead = min(PIECE_BYTES, length - at - PIECE_BYTES)
        if ahead > 0:
            os.posix_fadvise(fd, offset + at + PIECE_BYTES, ahead, os.POSIX_FADV_WILLNEED)
        yield at, min(PIECE_BYTES, length - at)


def _growing(length: int) -> Iterator[tuple[int, int]]:
    """The pieces of a block that the kernel reads ahead of, in ever larger folios where the file system has them.

    Those of 4 MiB read so (64 to 1024 KiB from its middle on) cost a quarter to a third less to send than pages that
    stand alone, and a quarter less to bring in.
    """
    at = 0
    while at < length:
        count = min(max(at, _STREAM_BYTES), PIECE_BYTES, length - at)
        yield at, count
        at += count


@contextlib.contextmanager
def _stream_of(extent: OpenExtent) -> Iterator[int]:
    """An opening of its own: whether the kernel reads ahead belongs to it, and what is sent from must never do so."""
    try:
        fd = os.open(f"/proc/self/fd/{extent.fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_DESCRIPTOR:
            raise NoDescriptors(str(error)) from error
        raise
    try:
        yield fd
    finally:
        os.close(fd)


def give_back(extent: OpenExtent, block: int) -> None:
    """Drop a block from the page cache. Pages that a socket still holds stay. May wait for other CPUs."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(extent.fd, block * BLOCK_BYTES, extent.length_of(block), os.POSIX_FADV_DONTNEED)


def _is_blind(fd: int) -> bool:
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError as error:
        return error.errno == errno.EOPNOTSUPP
    return False
