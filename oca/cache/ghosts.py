"""Names of extents that are not held, and how hot each is: 5 bytes a name, in a table of fixed places.

A name has two places. Where both are taken the colder one is given up, so that what was read often is known for longer
than what was read once.
"""

from __future__ import annotations

from array import array
from typing import Final

from oca.cache.heat import DOUBLING

_FEWEST: Final = 1 << 18
"""Places: 1.3 MB. On a small box that is many times as many as it holds extents: with 32,768 places for 50,000 extents
1.2 % more bytes were missed than with a million."""
AGE_UNIT: Final = 64
"""Seconds: moments are kept in 16 bits of these, and wrap around after 48 days."""
_COARSE: Final = DOUBLING // 16
"""Steps of heat that are one here."""
_SPREAD: Final = 0x9E3779B1


class Ghosts:
    """A name is 32 well-mixed bits that are unlike within a group, and the group. One in 30,000 is mistaken."""

    def __init__(self, places: int = _FEWEST) -> None:
        """`places`: a power of two."""
        self._marks = array("H", bytes(2 * places))
        self._moments = array("H", bytes(2 * places))
        self._heats = bytearray(places)
        self.places = places
        self._last_pair = places - 2
        """Also the mask that makes a pair of places of a name."""

    def place_of(self, name: int, group: int) -> int:
        """Where it is known; -1 if it is not."""
        place = (name ^ group * _SPREAD) & self._last_pair
        mark = name >> 16 or 1
        if self._marks[place] == mark:
            return place
        return place + 1 if self._marks[place + 1] == mark else -1

    def age(self, place: int, second: int) -> int:
        """Seconds since it was read, to a minute."""
        return (second // AGE_UNIT - self._moments[place] & 0xFFFF) * AGE_UNIT

    def heat(self, place: int) -> int:
        return self._heats[place] * _COARSE

    def remember(self, name: int, group: int, heat: int, touched: int, second: int, rate: float) -> None:
        """`heat` as of the second `touched`. `rate`: steps a second by which all cool."""
        marks = self._marks
        mark = name >> 16 or 1
        place = (name ^ group * _SPREAD) & self._last_pair
        if marks[place] != mark:
            other = place + 1
            if (
                marks[other] == mark
                or not marks[other]
                or (marks[place] and self._value(other, second, rate) < self._value(place, second, rate))
            ):
                place = other
        marks[place] = mark
        self._moments[place] = touched // AGE_UNIT & 0xFFFF
        heat //= _COARSE
        self._heats[place] = heat if heat < 256 else 255

    def forget(self, place: int) -> None:
        self._marks[place] = 0
        self._heats[place] = 0

    def hold(self, names: int) -> None:
        """Have at least so many places."""
        while self.places < names:
            # Each name's place is the same in one half of the larger table; its double in the other half is no name's.
            self._marks *= 2
            self._moments *= 2
            self._heats *= 2
            self.places *= 2
            self._last_pair = self.places - 2

    def dump(self) -> tuple[bytes, ...]:
        return self._marks.tobytes(), self._moments.tobytes(), bytes(self._heats)

    def restore(self, marks: bytes, moments: bytes, heats: bytes) -> None:
        places = len(heats)
        if places < 2 or places & places - 1 or len(marks) != 2 * places or len(moments) != 2 * places:
            raise ValueError(f"a table of names has {places} places")
        self._marks, self._moments, self._heats = array("H", marks), array("H", moments), bytearray(heats)
        self.places = places
        self._last_pair = places - 2

    def _value(self, place: int, second: int, rate: float) -> float:
        return self._heats[place] * _COARSE - (second // AGE_UNIT - self._moments[place] & 0xFFFF) * AGE_UNIT * rate
