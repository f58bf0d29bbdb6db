"""Memory shared by all processes of the appliance: stamps, flags, and the workers' counters.

*Stamps* let a worker keep what it knows of an object without asking anybody: a table of 65,536 numbers, one for every
first two bytes of an object key. The keeper raises a key's stamp after each commit that changed or removed the object;
a worker that finds its remembered stamp unchanged knows that nothing was changed (a purge is seen by every worker with
the first request after it, for 40 ns a look). Two objects that share a stamp cost a look-up, never a wrong byte.

*Counters* are plain numbers in memory that the supervisor owns: a row for each worker, who alone writes it, and the
keeper reads all rows. When a worker ends, its row stays as it is and another worker counts on in it. So /metrics is
exact to the request, whoever dies or is replaced: nothing has to be handed over.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum
from typing import Final

_WORD: Final = 8
_FLAGS: Final = 16
_STAMPS: Final = 65536
BOARD_BYTES: Final = (_FLAGS + _STAMPS) * _WORD

TICKETS_BYTES: Final = 4096
"""Of the memory of the keys of session tickets (oca/tls.py)."""

_DRAINING: Final = 0
_DEVICES: Final = 1
_MOST_BPS: Final = 2
_SALT: Final = 3
_SALT_WORDS: Final = 2


class DrainCause(IntEnum):
    """Who wants the appliance to take no new players; one is enough."""

    OPERATOR = 1
    STEERING = 2


def new_memory(name: str, size_bytes: int) -> int:
    """A file descriptor of zeroed shared memory, inheritable by nobody until passed on."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(fd, size_bytes)
    return fd


class Board:
    """Flags and stamps. One process writes (the keeper), all read."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, BOARD_BYTES)
        words = memoryview(self._map).cast("Q")
        self._flags = words[:_FLAGS]
        self.stamps = words[_FLAGS:]
        """Read `stamps[row_of(key)]` before a look-up and compare it before each use of what was found."""

    @staticmethod
    def row_of(key: bytes) -> int:
        return key[0] << 8 | key[1]

    def raise_stamp(self, key: bytes) -> None:
        """After the commit, never before: a worker must not remember the old record under the new stamp."""
        self.stamps[self.row_of(key)] += 1

    @property
    def is_draining(self) -> bool:
        return self._flags[_DRAINING] != 0

    def drain(self, cause: DrainCause) -> None:
        self._flags[_DRAINING] |= cause

    def resume(self, cause: DrainCause) -> None:
        """It goes on draining if others want it."""
        self._flags[_DRAINING] &= ~cause

    def drains_for(self, cause: DrainCause) -> bool:
        return self._flags[_DRAINING] & cause != 0

    @property
    def devices_version(self) -> int:
        """Grows whenever the devices in the index changed."""
        return self._flags[_DEVICES]

    def raise_devices_version(self) -> None:
        self._flags[_DEVICES] += 1

    @property
    def most_bps(self) -> int:
        """What players should play at most, as the link has no more for each; 0: there is no such bound."""
        return self._flags[_MOST_BPS]

    def suggest(self, bps: int) -> None:
        self._flags[_MOST_BPS] = bps

    @property
    def salt(self) -> bytes:
        """16 bytes that change every day and are kept nowhere: names hashed with it can't be told by tomorrow."""
        return self._flags[_SALT : _SALT + _SALT_WORDS].tobytes()

    def strew(self, salt: bytes) -> None:
        """Set the salt, 16 bytes."""
        for word in range(_SALT_WORDS):
            self._flags[_SALT + word] = int.from_bytes(salt[8 * word : 8 * word + 8], "little")


class CounterMemory:
    """A row of 64-bit counters in shared memory: `words[i] += n` by its one writer, sums by the reader."""

    def __init__(self, fd: int, count: int) -> None:
        self._map = mmap.mmap(fd, count * _WORD)
        self.words = memoryview(self._map).cast("Q")
