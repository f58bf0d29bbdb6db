"""Slots: small dense numbers for extents, and the key of each without asking the index. 28 bytes and a bit a slot."""

from __future__ import annotations

from array import array
from collections import deque
from typing import Final

from oca.cache.keys import ExtentKey

_KEY: Final = 28


class Slots:
    """Gives numbers, takes them back, and knows the key of each."""

    def __init__(self, resting: int = 0) -> None:
        """So many of the numbers that were given back last are not given again yet: a late report must not hit whoever
        would have got the number.
        """
        # Arrays and not bytearrays: those take an eighth more than they hold, these a sixteenth.
        self._keys = array("B")
        self._taken = array("B")
        """A bit for each slot."""
        self._count = 0
        self._free = array("I")
        self._most_resting = resting
        self._resting: deque[int] = deque()

    def __len__(self) -> int:
        """How many slots are taken."""
        return self._count - len(self._free) - len(self._resting)

    @property
    def size(self) -> int:
        """One more than the highest number that was ever taken."""
        return self._count

    def take(self, key: ExtentKey) -> int:
        if self._free:
            slot = self._free.pop()
            self._set(slot, key)
            return slot
        slot = self._count
        self._reach(slot)
        self._set(slot, key)
        return slot

    def restore(self, slot: int, key: ExtentKey) -> bool:
        """Take back a number that the index holds. False if another extent has it already."""
        if slot >= self._count:
            # The numbers jumped over are free until their own extents turn up: `settle` counts what stayed free.
            self._free.extend(range(self._count, slot))
            self._reach(slot)
        if self._is_taken(slot):
            return False
        self._set(slot, key)
        return True

    def settle(self) -> None:
        """After the last `restore`: numbers that nobody claimed are free."""
        self._resting.clear()
        self._free = array("I", (slot for slot in range(self._count) if not self._is_taken(slot)))

    def key_of(self, slot: int) -> ExtentKey | None:
        """None if the slot is free or was never given."""
        if slot >= self._count or not self._is_taken(slot):
            return None
        return self._keys[_KEY * slot : _KEY * (slot + 1)].tobytes()

    def give_back(self, slot: int) -> None:
        if self._is_taken(slot):
            self._taken[slot >> 3] ^= 1 << (slot & 7)
            self._resting.append(slot)
            if len(self._resting) > self._most_resting:
                self._free.append(self._resting.popleft())

    def _set(self, slot: int, key: ExtentKey) -> None:
        self._keys[_KEY * slot : _KEY * (slot + 1)] = array("B", key)
        self._taken[slot >> 3] |= 1 << (slot & 7)

    def _is_taken(self, slot: int) -> int:
        return self._taken[slot >> 3] >> (slot & 7) & 1

    def _reach(self, slot: int) -> None:
        self._keys.frombytes(bytes(_KEY * (slot + 1 - self._count)))
        self._count = slot + 1
        self._taken.frombytes(bytes((self._count + 7 >> 3) - len(self._taken)))
