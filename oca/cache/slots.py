"""Slots: small dense numbers for extents, and the key of each without asking the index. 29 bytes a slot."""

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
        self._free = array("I")
        self._most_resting = resting
        self._resting: deque[int] = deque()

    def __len__(self) -> int:
        """How many slots are taken."""
        return len(self._taken) - len(self._free) - len(self._resting)

    @property
    def size(self) -> int:
        """One more than the highest number that was ever taken."""
        return len(self._taken)

    def take(self, key: ExtentKey) -> int:
        if self._free:
            slot = self._free.pop()
            self._set(slot, key)
            return slot
        self._keys.frombytes(key)
        self._taken.append(1)
        return len(self._taken) - 1

    def restore(self, slot: int, key: ExtentKey) -> bool:
        """Take back a number that the index holds. False if another extent has it already."""
        missing = slot + 1 - len(self._taken)
        if missing > 0:
            first = len(self._taken)
            self._keys.frombytes(bytes(_KEY * missing))
            self._taken.frombytes(bytes(missing))
            # The numbers jumped over are free until their own extents turn up: `settle` counts what stayed free.
            self._free.extend(range(first, slot))
        if self._taken[slot]:
            return False
        self._set(slot, key)
        return True

    def settle(self) -> None:
        """After the last `restore`: numbers that nobody claimed are free."""
        self._resting.clear()
        self._free = array("I", (slot for slot, taken in enumerate(self._taken) if not taken))

    def key_of(self, slot: int) -> ExtentKey | None:
        """None if the slot is free or was never given."""
        if slot >= len(self._taken) or not self._taken[slot]:
            return None
        return self._keys[_KEY * slot : _KEY * (slot + 1)].tobytes()

    def give_back(self, slot: int) -> None:
        if self._taken[slot]:
            self._taken[slot] = 0
            self._resting.append(slot)
            if len(self._resting) > self._most_resting:
                self._free.append(self._resting.popleft())

    def _set(self, slot: int, key: ExtentKey) -> None:
        self._keys[_KEY * slot : _KEY * (slot + 1)] = array("B", key)
        self._taken[slot] = 1
