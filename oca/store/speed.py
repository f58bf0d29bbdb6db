"""How fast a device writes and reads a file in one piece, past the page cache. Blocks: call it in the device's thread.

The file has no name any more before its first byte is written, so nothing of it is left behind, however we end.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from msgspec import Struct

from oca.cache.health import Fault, fault_of
from oca.cache.keys import BLOCK_BYTES
from oca.errors import DeviceFault, StoreError
from oca.store.device import DeviceFolder

MOST_SHARE: Final = 0.05
"""Of the free room, at most."""
LEAST_BYTES: Final = 16 * 1024 * 1024
"""Less says nothing of a disk that has memory of its own."""
_NOT_DIRECT: Final = frozenset({errno.EINVAL, errno.ENOTSUP})
_PAUSE: Final = 0.01

Turn = Callable[[], AbstractContextManager[bool]]
"""A turn at the device for one block: False while viewers wait for it."""


class Speed(Struct, frozen=True):
    """`size_bytes` were written and read; less than asked if the time was over, 0 if viewers never let us."""

    size_bytes: int
    write_bytes_per_second: float
    read_bytes_per_second: float
    is_direct: bool


def affordable(free_bytes: int, wanted_bytes: int) -> int:
    """How much may be written where so much is free: whole blocks, or 0 where there is too little room."""
    size = min(wanted_bytes, int(free_bytes * MOST_SHARE)) // BLOCK_BYTES * BLOCK_BYTES
    return size if size >= LEAST_BYTES else 0


def measured(folder: DeviceFolder, size_bytes: int, seconds: float, turn: Turn) -> Speed:
    """Write whole blocks up to `size_bytes` for half of the time, make them durable, and read them again.

    Raises `DeviceFault` where the device does not do that, or gives back other bytes, and `StoreError` if it is our own
    shortage.
    """
    content = mmap.mmap(-1, BLOCK_BYTES)
    back = mmap.mmap(-1, BLOCK_BYTES)
    try:
        # Of chance: a device that compresses would show the speed of its processor.
        content[:] = os.urandom(BLOCK_BYTES)
        fd = folder.scratch()
        try:
            is_direct = _go_past_the_cache(fd)
            began = time.monotonic()
            done, busy = _each_block(
                lambda offset: _write(fd, content, offset), size_bytes, began + seconds / 2, turn, os.fdatasync, fd
            )
            if not is_direct:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            read, busy_reading = _each_block(
                lambda offset: _read_compared(folder.path, fd, content, back, offset), done, began + seconds, turn
            )
        finally:
            os.close(fd)
    except OSError as error:
        fault = fault_of(error.errno or errno.EIO)
        message = f"{folder.path}: {error.strerror or error}"
        raise (StoreError(message) if fault is None else DeviceFault(fault, message)) from error
    finally:
        content.close()
        back.close()
    if not done or not read:
        return Speed(0, 0.0, 0.0, is_direct)
    return Speed(read, done / busy, read / busy_reading, is_direct)


def _go_past_the_cache(fd: int) -> bool:
    """Whether the file system can do that: tmpfs and some others can't."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError as error:
        if error.errno in _NOT_DIRECT:
            return False
        raise
    return True


def _each_block(
    act: Callable[[int], None],
    size_bytes: int,
    until: float,
    turn: Turn,
    end: Callable[[int], None] | None = None,
    fd: int = -1,
) -> tuple[int, float]:
    """Bytes that were done by `until`, and seconds that the device was busy with them, with the `end` of it."""
    done, busy = 0, 0.0
    while done < size_bytes and time.monotonic() < until:
        with turn() as is_ours:
            if is_ours:
                began = time.monotonic()
                act(done)
                busy += time.monotonic() - began
                done += BLOCK_BYTES
        if not is_ours:
            time.sleep(_PAUSE)
    if end is not None:
        began = time.monotonic()
        end(fd)
        busy += time.monotonic() - began
    # A clock has steps: nothing is infinitely fast.
    return done, max(busy, 1e-6)


def _write(fd: int, content: mmap.mmap, offset: int) -> None:
    with memoryview(content) as memory:
        written = 0
        while written < len(memory):
            written += os.pwrite(fd, memory[written:], offset + written)


def _read_compared(path: str, fd: int, content: mmap.mmap, back: mmap.mmap, offset: int) -> None:
    with memoryview(back) as memory:
        read = 0
        while read < len(memory):
            count = os.preadv(fd, [memory[read:]], offset + read)
            if not count:
                raise DeviceFault(Fault.SHORT, f"{path}: has less than was written")
            read += count
    if back[:] != content[:]:
        raise DeviceFault(Fault.ROTTEN, f"{path}: gives back other bytes than were written")
