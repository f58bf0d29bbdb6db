"""Names of extents that are not held, and how hot each is: 4 bytes a name, in a table of fixed places.

A name has two places. Where both are taken the colder one is given up, so that what was read often is known for longer
than what was read once. What stands in a place is one number: a mark of 10 bits, a heat of 7, and a moment of 15.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from oca.cache.heat import DOUBLING

_FEWEST: Final = 1 << 18
"""Places: 1 MB. On a small box that is many times as many as it holds extents: with 32,768 places for 50,000 extents
1.2 % more bytes were missed than with a million."""
AGE_UNIT: Final = 128
"""Seconds: moments are kept in 15 bits of these, and wrap around after 48 days."""
_COARSE: Final = DOUBLING // 8
"""Steps of heat that are one here, to the nearest: what comes and goes is rounded each time, and rounding quarters down
missed half a percent more bytes."""
_HOTTEST: Final = 127
_SPREAD: Final = 0x9E3779B1
_DUMPED_AT_ONCE: Final = 1 << 18


class Ghosts:
    """A name is 32 well-mixed bits that are unlike within a group, and the group. One in 500 is mistaken."""

    def __init__(self, places: int = _FEWEST) -> None:
        """`places`: a power of two."""
        self._known = array("I", bytes(4 * places))
        self.places = places
        self._low = places - 2
        """Makes a pair of places of a name."""
        self._high = 2 * places - 2
        """Beside it, where the table has grown that far: a pair of the half that is added, part by part."""

    def known(self, name: int, group: int) -> int:
        """What is known of it, for `age` and `heat`; 0 if it is not."""
        spread = name ^ group * _SPREAD
        place = spread & self._high
        if place >= self.places:
            place = spread & self._low
        mark = name >> 22 or 1
        known = self._known[place]
        if known >> 22 == mark:
            return known
        known = self._known[place + 1]
        return known if known >> 22 == mark else 0

    def take(self, name: int, group: int) -> int:
        """As `known`, and from now on it is not."""
        spread = name ^ group * _SPREAD
        place = spread & self._high
        if place >= self.places:
            place = spread & self._low
        mark = name >> 22 or 1
        known = self._known[place]
        if known >> 22 != mark:
            place += 1
            known = self._known[place]
            if known >> 22 != mark:
                return 0
        self._known[place] = 0
        return known

    def remember(self, name: int, group: int, heat: int, touched: int, second: int, rate: float) -> None:
        """`heat` as of the second `touched`. `rate`: steps a second by which all cool."""
        table = self._known
        spread = name ^ group * _SPREAD
        place = spread & self._high
        if place >= self.places:
            place = spread & self._low
        mark = name >> 22 or 1
        first = table[place]
        if first and first >> 22 != mark:
            other = table[place + 1]
            if not other or other >> 22 == mark:
                place += 1
            else:
                now = second // AGE_UNIT
                fades = rate * AGE_UNIT / _COARSE
                if (other >> 15 & 127) - (now - other & 0x7FFF) * fades < (first >> 15 & 127) - (
                    now - first & 0x7FFF
                ) * fades:
                    place += 1
        heat = (heat + _COARSE // 2) // _COARSE
        table[place] = mark << 22 | min(heat, _HOTTEST) << 15 | touched // AGE_UNIT & 0x7FFF

    def hold(self, names: int) -> None:
        """Have places for so many, or a few more."""
        while self.places < names:
            # Each name's place is the same as before in what is copied; its double in the other half is no name's.
            low = self._low + 2
            first = self.places - low
            more = min(low - first, max(low >> 5, 2))
            self._known.extend(self._known[first : first + more])
            self.places += more
            if self.places == 2 * low:
                self._low, self._high = self._high, 2 * self._high + 2

    def dump(self, places: int) -> Iterator[bytes]:
        """As many as there are, in parts: what changes between two is known as it was or as it is."""
        for first in range(0, places, _DUMPED_AT_ONCE):
            yield self._known[first : min(first + _DUMPED_AT_ONCE, places)].tobytes()

    def restore(self, packed: bytes) -> None:
        known = array("I")
        known.frombytes(packed)
        low = 1 << len(known).bit_length() - 1
        if low < 16 or len(known) % 2:
            raise ValueError(f"a table of names has {len(known)} places")
        self._known = known
        self.places = len(known)
        self._low, self._high = low - 2, 2 * low - 2


def age(known: int, second: int) -> int:
    """Seconds since it was read, to two minutes."""
    return (second // AGE_UNIT - known & 0x7FFF) * AGE_UNIT


def heat(known: int) -> int:
    """As of then."""
    return (known >> 15 & 127) * _COARSE
