"""Turns at a device: how many reads are under way there at once, over all processes of the appliance.

A turn is a lock on one byte of a file that all processes have (an *open file description* lock, fcntl(2)): the kernel
takes it back from whoever dies, and hands it on without a broker. Each turn has a *door* beside it, another byte: who
has to wait holds the door meanwhile, so that the process which has just read can't take its turn again at once, and
whoever reads in the background sees that somebody waits.

Cost: 8 microseconds to take a free turn and give it back, without waiting for anybody.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from oca.settings import Store, Tier

_MOST: Final = 256
"""Turns of one device."""
_DEVICE: Final = 2 * _MOST
_FLOCK: Final = struct.Struct("hhqqi4x")


def depth_of(store: Store, tier: str) -> int:
    """How many turns a device of this tier has."""
    return {Tier.NVME.value: store.nvme_queue, Tier.SSD.value: store.ssd_queue, Tier.HDD.value: store.hdd_queue}.get(
        tier, store.nvme_queue
    )


class Turns:
    """This process's part in the turns of all devices. Thread-safe.

    `fd` is any file that all processes of the appliance share; nothing is read from it or written to it.
    """

    def __init__(self, fd: int) -> None:
        # A lock belongs to an opening of the file: what was inherited would be one owner with all other processes.
        self._fd = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        self._ours: set[tuple[int, int]] = set()
        """Turns that threads of this process have or wait for: among ourselves the kernel sees no difference."""
        self._mutex = threading.Lock()

    def close(self) -> None:
        os.close(self._fd)

    @contextmanager
    def turn(self, device: int, depth: int) -> Iterator[None]:
        """Wait for a turn, for ever if need be. At most `depth` threads of a process may ask at once."""
        place = self._take(device, depth)
        if place is None:
            place = self._wait(device, depth)
        try:
            yield
        finally:
            self._give_back(device, place)

    @contextmanager
    def try_turn(self, device: int, depth: int) -> Iterator[bool]:
        """A turn for what nobody waits for, such as the scrubber or the mover: False if viewers are waiting or there is
        none at once. Keep it for one block.
        """
        place = None if self.is_waited_for(device, depth) else self._take(device, depth)
        try:
            yield place is not None
        finally:
            if place is not None:
                self._give_back(device, place)

    def is_waited_for(self, device: int, depth: int) -> bool:
        """Whether another process waits for a turn."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, device * _DEVICE, depth, 0)
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, asked)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def _take(self, device: int, depth: int) -> int | None:
        """A turn that is free, at whose door nobody stands."""
        for place in range(depth):
            if not self._reserve(device, place):
                continue
            door = device * _DEVICE + place
            if self._try_lock(door):
                if self._try_lock(door + _MOST):
                    self._unlock(door)
                    return place
                self._unlock(door)
            self._release(device, place)
        return None

    def _wait(self, device: int, depth: int) -> int:
        place = next(place for place in range(depth) if self._reserve(device, place))
        door = device * _DEVICE + place
        self._lock(door)
        self._lock(door + _MOST)
        self._unlock(door)
        return place

    def _give_back(self, device: int, place: int) -> None:
        self._unlock(device * _DEVICE + _MOST + place)
        self._release(device, place)

    def _reserve(self, device: int, place: int) -> bool:
        with self._mutex:
            if (device, place) in self._ours:
                return False
            self._ours.add((device, place))
            return True

    def _release(self, device: int, place: int) -> None:
        with self._mutex:
            self._ours.discard((device, place))

    def _try_lock(self, byte: int) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        except BlockingIOError:
            return False
        except PermissionError:  # POSIX lets a system say EACCES as well.
            return False
        return True

    def _lock(self, byte: int) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))

    def _unlock(self, byte: int) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0))
