"""How hot renditions are: what the extents of one tell of each other, 14 bytes a rendition.

An extent that nobody asked for yet, of a rendition that many are watching, is worth more than its own count says: here
stands each one's share of the heat of the whole rendition, and of how many extents that is known.
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
_HOTTEST: Final = 64.0
"""Doublings. What seems to be hotter was read before a clock was set back: it is one reading again."""


class Renditions:
    """A table with one place for each group; of two that fall on the same place the hotter one is known."""

    def __init__(self) -> None:
        self.groups = array("I", bytes(4 * _FEWEST))
        self.touched = array("I", bytes(4 * _FEWEST))
        self.shares = array("f", bytes(4 * _FEWEST))
        """Heat of each extent's share as of `touched`, in steps: see heat.py. Not whole ones: of thousands of readings
        one more is less than a step. Whoever looks at many slots reads the tables without a call for each."""
        self._extents = array("H", bytes(2 * _FEWEST))
        self.mask = _FEWEST - 1
        self._taken = 0

    def __len__(self) -> int:
        return len(self.groups)

    def read(self, group: int, second: int, rate: float, most: int) -> None:
        """One of its extents was read. The table never grows beyond `most` places."""
        place = group & self.mask
        # In doublings.
        cooled = (self.shares[place] - (second - self.touched[place]) * rate) / DOUBLING
        if cooled > _HOTTEST:
            cooled = 0.0
        if self.groups[place] != group:
            if self.groups[place] and 2.0**cooled * (self._extents[place] or 1) > _WEIGHT:
                return
            place = self._begin(group, most)
            self.shares[place] = DOUBLING * log2(_WEIGHT)
        else:
            self.shares[place] = DOUBLING * log2(2.0**cooled + _WEIGHT / (self._extents[place] or 1))
        self.touched[place] = second

    def widen(self, group: int, most: int) -> None:
        """An extent of it turned up that was not known."""
        place = group & self.mask
        if self.groups[place] != group:
            if self.groups[place]:
                return
            place = self._begin(group, most)
        extents = self._extents[place]
        if extents < 0xFFFF:
            self._extents[place] = extents + 1
            if extents:
                self.shares[place] -= DOUBLING * log2((extents + 1) / extents)

    def share_of(self, group: int, rate: float) -> float:
        """What a rendition's heat makes each of its extents worth: a value, see heat.py."""
        place = group & self.mask
        if self.groups[place] != group:
            return UNKNOWN
        return self.touched[place] * rate + self.shares[place]

    def dump(self) -> tuple[bytes, ...]:
        # The column that grows last tells how long all are, also in another thread.
        places = len(self._extents)
        return tuple(column[:places].tobytes() for column in (self.groups, self.touched, self.shares, self._extents))

    def restore(self, groups: bytes, touched: bytes, shares: bytes, extents: bytes) -> None:
        places = len(groups) // 4
        lengths = (4 * places, 4 * places, 4 * places, 2 * places)
        if places < _FEWEST or places & places - 1 or lengths != tuple(map(len, (groups, touched, shares, extents))):
            raise ValueError(f"a table of renditions has {places} places")
        self.groups, self.touched = array("I", groups), array("I", touched)
        self.shares, self._extents = array("f", shares), array("H", extents)
        self.mask = places - 1
        self._taken = sum(map(bool, self.groups))

    def _begin(self, group: int, most: int) -> int:
        """Its place, which it takes over as one that was never read."""
        place = group & self.mask
        if not self.groups[place]:
            self._taken += 1
            if 2 * self._taken > len(self.groups) and 2 * len(self.groups) <= most:
                self._grow()
                place = group & self.mask
        self.groups[place] = group
        self._extents[place] = 0
        self.touched[place] = 0
        self.shares[place] = 0.0
        return place

    def _grow(self) -> None:
        # Each group's place is the same in one half of the larger table; in the other half its double is overwritten.
        self.groups *= 2
        self.touched *= 2
        self.shares *= 2
        self._extents *= 2
        self.mask = len(self.groups) - 1
