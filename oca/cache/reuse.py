"""Whether a rule about newcomers holds on this traffic: of each kind, how many are read again before they would go.

A sample of the newcomers is followed, whether they were kept or not. Both kinds come side by side and have the same
time to be read again, so that they can be compared long before the first of them would have gone.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import Final

_SAMPLED: Final = 5
"""One name in 2**5 is followed, at first: fewer as more are waiting."""
_MOST: Final = 4096
_FADES: Final = 1 - 1 / 1024
"""With each newcomer of the kind."""
_ONE_READING: Final = 128
"""Seconds: the blocks of an extent come one after the other, and are one newcomer."""
_FEWEST: Final = 64.0
_FEWEST_READ: Final = 16.0
"""Of each kind, and of the promising ones read again, before anything is concluded."""
_LESS: Final = 0.75
_TOLD: Final = struct.Struct("<4d")


class Reuse:
    """Newcomers are of two kinds, promising and doubtful."""

    def __init__(self) -> None:
        self.mask = (1 << _SAMPLED) - 1
        """Names whose masked bits are all zero are followed."""
        self.is_doubt_right = False
        """Whether doubtful ones are read again notably less often."""
        self._waiting: OrderedDict[int, int] = OrderedDict()
        """By name, the oldest first: twice the second of its coming, and one if it is promising."""
        self._came = [0.0, 0.0]
        self._read_again = [0.0, 0.0]

    def __len__(self) -> int:
        return len(self._waiting)

    def come(self, name: int, is_promising: bool, second: int, stay: int) -> None:  # noqa: FBT001 - its kind
        """A sampled newcomer. `stay`: the seconds that one has, until it goes if it is not read."""
        self._expire(second - stay)
        before = self._waiting.get(name)
        if before is not None and 0 <= second - (before >> 1) < _ONE_READING:
            return
        self.read(name)
        self._waiting[name] = second << 1 | is_promising
        if len(self._waiting) > _MOST:
            self._halve()
        self._came[is_promising] = self._came[is_promising] * _FADES + 1
        self._read_again[is_promising] *= _FADES
        self._conclude()

    def read(self, name: int) -> None:
        """A sampled one was read."""
        entry = self._waiting.pop(name, None)
        if entry is not None:
            self._read_again[entry & 1] += 1

    def dump(self) -> bytes:
        """What was concluded; who is followed is not kept."""
        return _TOLD.pack(*self._came, *self._read_again)

    def restore(self, told: bytes) -> None:
        if len(told) != _TOLD.size:
            raise ValueError(f"{len(told)} bytes of what was read again")
        *self._came, doubtful, promising = _TOLD.unpack(told)
        self._read_again = [doubtful, promising]
        self._conclude()

    def _conclude(self) -> None:
        came, read_again = self._came, self._read_again
        self.is_doubt_right = (
            min(came) >= _FEWEST
            and read_again[1] >= _FEWEST_READ
            and read_again[0] * came[1] < _LESS * read_again[1] * came[0]
        )

    def _expire(self, before: int) -> None:
        waiting = self._waiting
        while waiting:
            oldest, entry = next(iter(waiting.items()))
            if entry >> 1 >= before:
                return
            del waiting[oldest]

    def _halve(self) -> None:
        bit = self.mask + 1
        self.mask |= bit
        self._waiting = OrderedDict((name, entry) for name, entry in self._waiting.items() if not name & bit)
