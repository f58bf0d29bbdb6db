"""A long film in parts that are encoded at once and joined: as many encoders as there are cores, each of one thread.

A part begins where a segment does, so its first picture is a keyframe anyway, and what is joined is played as if it
had been made in one piece. A run that is killed loses the parts under way, not the rendition.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from admin.publish.source import Source

SEGMENT_SECONDS: Final = 4
_SEGMENTS: Final = 15
"""Of a part: a minute. Longer ones leave cores idle at the end of a short film, shorter ones decode much twice."""
_SECONDS: Final = _SEGMENTS * SEGMENT_SECONDS
# A file may end a little before it says: no part begins so near to its end.
_LEAST_SECONDS: Final = 8


@dataclass(frozen=True)
class Chunk:
    """One part. `first` is the number of its first picture in the whole film at its constant rate, from 0;
    `pictures` how many there are, None in the last: as many as come. `segments`: how many are before it.
    """

    number: int
    first: int
    pictures: int | None

    @property
    def segments(self) -> int:
        return self.number * _SEGMENTS

    @property
    def second(self) -> int:
        """At or just before its first picture."""
        return self.number * _SECONDS


def chunks_of(source: Source) -> tuple[Chunk, ...]:
    """The parts of a film, or none if it is to be encoded whole: it is short, or its moments can't be found exactly."""
    if source.duration is None or not source.has_index:
        return ()
    count = int((source.duration - _LEAST_SECONDS) // _SECONDS) + 1
    if count < 2:
        return ()
    firsts = [_first_picture(source.rate, number * _SECONDS) for number in range(count)]
    return tuple(
        Chunk(number, first, firsts[number + 1] - first if number + 1 < count else None)
        for number, first in enumerate(firsts)
    )


def _first_picture(rate: Fraction, second: int) -> int:
    return math.ceil(second * rate)
