"""The last lines that an appliance logged, in memory that its processes share: for whoever asks the control listener.

The journal has all of them; this is for people who can't log in to the box. A ring of bytes: lines end with a line
feed, each is JSON, and the header counts all bytes ever written. Whoever writes or reads holds a lock of the memory,
which the kernel takes from a process that dies. Nobody waits for it: while one that is stopped holds it, lines are left
out here.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import msgspec

RING_BYTES: Final = 512 * 1024
_HEADER: Final = struct.Struct("<Q")
_ROOM: Final = RING_BYTES - _HEADER.size
_MOST_TEXT: Final = 2000
_TRIES: Final = 200
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class RingBusy(Exception):
    """Another process holds the ring, and does not go on."""


class Ring:
    """`fd`: memory of RING_BYTES, zeros at first."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._memory = mmap.mmap(fd, RING_BYTES)
        self._own = threading.Lock()
        """The kernel's lock is the process's: among threads this one counts."""

    def add(self, line: bytes) -> None:
        """A line without its end. Raises RingBusy."""
        line = line[: _ROOM // 2] + b"\n"
        with self._locked():
            written = self._written()
            at = written % _ROOM
            first = min(len(line), _ROOM - at)
            self._put(at, line[:first])
            self._put(0, line[first:])
            _HEADER.pack_into(self._memory, 0, written + len(line))

    def since(self, place: int) -> tuple[list[bytes], int]:
        """Whole lines that were added after a place which this said before, or all that are left; and the place now.

        Raises RingBusy.
        """
        with self._locked():
            written = self._written()
            content = bytes(self._memory[_HEADER.size :])
        oldest = max(0, written - _ROOM)
        begin = place if oldest <= place <= written else oldest
        at = begin % _ROOM
        fresh = (content[at:] + content[:at])[: written - begin]
        lines = fresh.split(b"\n")[:-1]
        # What is oldest may be a line's end, written over in part.
        return (lines[1:] if begin == oldest > 0 else lines), written

    def _written(self) -> int:
        return int(_HEADER.unpack_from(self._memory)[0])

    def _put(self, at: int, content: bytes) -> None:
        self._memory[_HEADER.size + at : _HEADER.size + at + len(content)] = content

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._own:
            for _ in range(_TRIES):
                with suppress(BlockingIOError):
                    fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
            else:
                raise RingBusy
            try:
                yield
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)


class RingHandler(logging.Handler):
    """Keeps what is logged in a ring."""

    def __init__(self, ring: Ring, process: str) -> None:
        super().__init__()
        self._ring = ring
        self._process = process

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += f"\n{logging.Formatter().formatException(record.exc_info)}"
        told = {
            "at": record.created,
            "process": self._process,
            "pid": os.getpid(),
            "level": record.levelname,
            "text": text[:_MOST_TEXT],
        }
        with suppress(RingBusy, UnicodeEncodeError):
            self._ring.add(msgspec.json.encode(told))


def told(ring: Ring, since: int, level: str, most: int) -> dict[str, Any]:
    """The last `most` lines of at least this level, the oldest first, and where to go on from."""
    lines, place = ring.since(since)
    wanted = set(LEVELS[LEVELS.index(level) :])
    rows = [row for row in map(msgspec.json.decode, lines) if row["level"] in wanted]
    return {"lines": rows[-most:], "next": place, "now": time.time()}
