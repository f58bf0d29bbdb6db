"""How hot renditions are: what the extents of one tell of each other, 14 bytes a rendition.

An extent that nobody asked for yet, of a rendition that many are watching, is worth more than its own count says: here
stands the heat of the whole rendition and of how many extents it is known, so that each can be given its share.
"""

from __future__ import annotations

from array import array
from math import log2
from typing import Final

from oca.cache.heat import DOUBLING

_FEWEST: Final = 1 << 15
_WEIGHT: Final = 0.5
"""A share counts half as much as own readings: measured best among 0, 1/2, 1, 2 and 8 (byte misses of
popular extents at 10 %: .3940 without, .3945, .3957; segments .5425, .5388, .5400; a quarter fewer bytes written)."""
UNKNOWN: Final = -1e18


class Renditions:
    """A table with one place for each group; of two that fall on the same place the hotter one is known."""

    def __init__(self) -> None:
        self._groups = array("I", bytes(4 * _FEWEST))
        self._touched = array("I", bytes(4 * _FEWEST))
        self._reads = array("f", bytes(4 * _FEWEST))
        """Fading as heat does, but not as a logarithm: of thousands one more would be less than a step."""
        self._extents = array("H", bytes(2 * _FEWEST))
        self._mask = _FEWEST - 1
        self._taken = 0

    def __len__(self) -> int:
        return len(self._groups)

    def read(self, group: int, second: int, rate: float, most: int) -> None:
        """One of its extents was read. The table grows to `most` places, or twice as many."""
        place = group & self._mask
        touched = self._touched
        left = self._reads[place] * 0.5 ** ((second - touched[place]) * rate / DOUBLING)
        if self._groups[place] != group:
            if self._groups[place] and left > 1:
                return
            place = self._begin(group, most)
            left = 0.0
        self._reads[place] = left + 1
        touched[place] = second

    def widen(self, group: int, most: int) -> None:
        """An extent of it turned up that was not known."""
        place = group & self._mask
        if self._groups[place] != group:
            if self._groups[place]:
                return
            place = self._begin(group, most)
        if self._extents[place] < 0xFFFF:
            self._extents[place] += 1

    def share_of(self, group: int, rate: float) -> float:
        """What a rendition's heat makes each of its extents worth: a value, see heat.py."""
        place = group & self._mask
        if self._groups[place] != group or not self._reads[place]:
            return UNKNOWN
        return self._touched[place] * rate + DOUBLING * log2(_WEIGHT * self._reads[place] / (self._extents[place] or 1))

    def dump(self) -> tuple[bytes, ...]:
        return tuple(column.tobytes() for column in (self._groups, self._touched, self._reads, self._extents))

    def restore(self, groups: bytes, touched: bytes, reads: bytes, extents: bytes) -> None:
        places = len(groups) // 4
        lengths = (4 * places, 4 * places, 4 * places, 2 * places)
        if places < _FEWEST or places & places - 1 or lengths != tuple(map(len, (groups, touched, reads, extents))):
            raise ValueError(f"a table of renditions has {places} places")
        self._groups, self._touched = array("I", groups), array("I", touched)
        self._reads, self._extents = array("f", reads), array("H", extents)
        self._mask = places - 1
        self._taken = sum(map(bool, self._groups))

    def _begin(self, group: int, most: int) -> int:
        """Its place, which it takes over as one that was never read."""
        place = group & self._mask
        if not self._groups[place]:
            self._taken += 1
            if 2 * self._taken > len(self._groups) and len(self._groups) < most:
                self._grow()
                place = group & self._mask
        self._groups[place] = group
        self._extents[place] = 0
        self._touched[place] = 0
        self._reads[place] = 0.0
        return place

    def _grow(self) -> None:
        # Each group's place is the same in one half of the larger table; in the other half its double is overwritten.
        self._groups *= 2
        self._touched *= 2
        self._reads *= 2
        self._extents *= 2
        self._mask = len(self._groups) - 1
