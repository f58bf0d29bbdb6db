"""Heat: how often something was read, each reading counting half as much after a half-life.

Heat is kept as a logarithm in steps, 256 for a doubling, as of the last reading. Cooling is then subtraction, and what
is compared between two slots, the value `moment * steps a second + heat`, does not change with time: it is the moment
at which one reading would have been worth as much. With a half-life of minutes the order of values is that of LRU, with
one of weeks that of LFU: the spectrum of LRFU (Lee et al., IEEE ToC 2001).
"""

from __future__ import annotations

import math
from array import array
from typing import Final

DOUBLING: Final = 256
"""Steps of heat that stand for twice as many readings."""
_RANGE: Final = 12 * DOUBLING
"""What is 2**12 times as hot is not changed by what is added to it."""
_ADDED: Final = array("H", (round(DOUBLING * math.log2(1 + 2 ** (-gap / DOUBLING))) for gap in range(_RANGE + 1)))
"""By the gap between two heats: how far their sum lies above the hotter one."""


def steps_a_second(half_life: float) -> float:
    return DOUBLING / half_life


def warmed(cooled: int) -> int:
    """The heat after one more reading, of what has cooled down to `cooled` (which may be below zero)."""
    if cooled >= 0:
        return cooled + _ADDED[cooled] if cooled < _RANGE else cooled
    return _ADDED[-cooled] if cooled > -_RANGE else 0


def together(value: float, other: float) -> float:
    """The value of two things' readings taken together."""
    gap = int(value - other)
    if gap >= 0:
        return value + _ADDED[gap] if gap < _RANGE else value
    return other + _ADDED[-gap] if gap > -_RANGE else other
