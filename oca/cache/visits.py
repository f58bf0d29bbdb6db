"""Which of its renditions the viewers of a title take.

Which rendition a viewer gets is up to his device and his line, and most who come back to a title come with the same. So
a rendition is compared with the one of its title that was visited most. What is visited less than half as often is
hardly read again before it would go: on generated traffic that is driven by recency 3 to 20 of 100 such newcomers were,
and 40 to 50 of the others. Where popularity rules there is no such difference, so whoever asks here sees first whether
it holds (reuse.py).

A rendition has two places, of which it takes over the one that was left alone for longer.
"""

from __future__ import annotations

from array import array
from typing import Final

from oca.cache.keys import TITLE_BITS, title_of

_FEWEST: Final = 1 << 18
"""Places: 1.3 MB."""
_PAUSE: Final = 5
"""Minutes, nearly: a rendition that was not read for so long is visited anew with the next reading."""
_MINUTE: Final = 64
_MOST: Final = 15
"""More visits are not told apart: what comes up later has caught up with half as many."""
_AGES_AFTER: Final = 4
"""Visits for each place, after which all count half."""
_HALVES: Final = bytes(count >> 1 for count in range(256))


class Visits:
    """Five bytes for each of many renditions, and one for each title there can be."""

    def __init__(self) -> None:
        self._marks = array("H", bytes(2 * _FEWEST))
        """Whose place it is: the bits of the group that do not tell the place."""
        self._moments = array("H", bytes(2 * _FEWEST))
        """Of the last reading, in minutes; they wrap around after 48 days."""
        self._visits = bytearray(_FEWEST)
        """Zero: nobody's place."""
        self._most = bytearray(1 << TITLE_BITS)
        """By title: of the rendition that was visited most."""
        self._last_pair = _FEWEST - 2
        """Also the mask that makes a pair of places of a group."""
        self._left = _AGES_AFTER * _FEWEST
        """Visits until all count half."""

    def __len__(self) -> int:
        return len(self._visits)

    def read(self, group: int, second: int) -> None:
        place = group & self._last_pair
        if self._marks[place] != group >> 16 ^ group & 1 or not self._visits[place]:
            place = self._place(group)
            if place < 0:
                place = self._begin(group, second)
        minute = second // _MINUTE & 0xFFFF
        pause = minute - self._moments[place] & 0xFFFF
        self._moments[place] = minute
        count = self._visits[place]
        if count == _MOST or (count and pause < _PAUSE):
            return
        self._visits[place] = count = count + 1
        title = title_of(group)
        self._most[title] = max(self._most[title], count)
        self._left -= 1
        if not self._left:
            self._age()

    def is_usual(self, group: int) -> bool:
        """Whether it was visited at least half as often as any other of its title, the visit under way counted for
        this one alone. True if it is not known."""
        place = self._place(group)
        return place < 0 or 2 * self._visits[place] > self._most[title_of(group)]

    def hold(self, renditions: int) -> None:
        """Have at least so many places."""
        while len(self._visits) < renditions:
            # Each one's place is the same in one half of the larger table; its double in the other half is nobody's,
            # and is taken over.
            self._marks *= 2
            self._moments *= 2
            self._visits *= 2
        self._last_pair = len(self._visits) - 2

    def dump(self) -> tuple[bytes, ...]:
        # The column that grows last tells how long all are, also in another thread.
        visits = bytes(self._visits)
        places = len(visits)
        return self._marks[:places].tobytes(), self._moments[:places].tobytes(), visits, bytes(self._most)

    def restore(self, marks: bytes, moments: bytes, visits: bytes, most: bytes) -> None:
        places = len(visits)
        lengths = (2 * places, 2 * places, 1 << TITLE_BITS)
        if places < _FEWEST or places & places - 1 or lengths != tuple(map(len, (marks, moments, most))):
            raise ValueError(f"a table of visits has {places} places")
        self._marks, self._moments = array("H", marks), array("H", moments)
        self._visits, self._most = bytearray(visits), bytearray(most)
        self._last_pair = places - 2
        self._left = _AGES_AFTER * places

    def _place(self, group: int) -> int:
        """Where it is known; -1 if it is not."""
        place = group & self._last_pair
        mark = _mark(group)
        if self._marks[place] == mark and self._visits[place]:
            return place
        return place + 1 if self._marks[place + 1] == mark and self._visits[place + 1] else -1

    def _begin(self, group: int, second: int) -> int:
        """A place for it, with no visit yet: a free one, or the one that was left alone for longer."""
        place = group & self._last_pair
        minute = second // _MINUTE
        ages = [
            minute - self._moments[either] & 0xFFFF if self._visits[either] else 0x10000
            for either in (place, place + 1)
        ]
        place += ages[1] > ages[0]
        self._marks[place] = _mark(group)
        self._visits[place] = 0
        return place

    def _age(self) -> None:
        self._visits = self._visits.translate(_HALVES)
        self._most = self._most.translate(_HALVES)
        self._left = _AGES_AFTER * len(self._visits)


def _mark(group: int) -> int:
    """With the number of a pair of places, the whole group."""
    return group >> 16 ^ group & 1
