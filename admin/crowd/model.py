"""How a player decides. Pure: time is given, in seconds.

*What to fetch.* The rate that the line carries is estimated as hls.js does, by two exponentially weighted means of what
was measured, a quick and a slow one, of which the lower counts. While the buffer is small a player takes what that rate
carries with room to spare; with a full one it dares nearly all of it (that the buffer says what one may dare: Huang et
al., "A buffer-based approach to rate adaptation", SIGCOMM 2014). It goes up one step at a time (FESTIVE: Jiang et al.,
"Improving fairness, efficiency, and stability in HTTP-based adaptive video streaming", CoNEXT 2012).

*How it goes.* A film starts when the first segment is there, and stalls when nothing is left to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

AHEAD: Final = 30.0
"""Seconds that a player fetches before they are seen."""
_SMALL: Final = 10.0
_CAUTIOUS: Final = 0.7
_DARING: Final = 0.95
_QUICK, _SLOW = 3.0, 9.0
"""Half-lives, in seconds of fetching."""
_RESUME: Final = 2.0
"""Seconds that a stalled player wants before it goes on."""


class Throughput:
    """What the line carries."""

    def __init__(self) -> None:
        self._means = [0.0, 0.0]
        self._weights = [0.0, 0.0]

    def measured(self, size_bytes: int, seconds: float) -> None:
        """Of one file. Small ones say more of the round trip than of the line, and count for less."""
        seconds = max(seconds, 0.001)
        bps = size_bytes * 8 / seconds
        for at, half_life in enumerate((_QUICK, _SLOW)):
            keep = 0.5 ** (seconds / half_life)
            self._means[at] = keep * self._means[at] + (1 - keep) * bps
            self._weights[at] = keep * self._weights[at] + (1 - keep)

    @property
    def bps(self) -> float | None:
        """None before anything was measured."""
        if not self._weights[0]:
            return None
        return min(mean / weight for mean, weight in zip(self._means, self._weights, strict=True))


def next_step(rates: Sequence[int], current: int, bps: float | None, buffer: float) -> int:
    """Which rendition to fetch next: its place in `rates` (bits a second, ascending). `current` is the last one."""
    if bps is None:
        return current
    share = _CAUTIOUS if buffer < _SMALL else _DARING
    best = max((at for at, rate in enumerate(rates) if rate <= bps * share), default=0)
    return min(best, current + 1)


class Showing(StrEnum):
    STARTING = "starting"
    PLAYING = "playing"
    STALLED = "stalled"
    SEEKING = "seeking"


class Screen:
    """What the viewer sees."""

    def __init__(self, now: float) -> None:
        self.state = Showing.STARTING
        self._began_at = now
        self._buffer = 0.0
        self._at = now
        self.start_seconds: float | None = None
        """From pressing play to the first picture."""
        self.stalls = 0
        self.stalled_seconds = 0.0
        self.played_seconds = 0.0
        self.is_starved = False
        """It stalled since `starved` was last asked."""
        self.is_last_fetched = False
        """All of the film is in the buffer, or was shown: what ends then is no stall."""

    def buffer(self, now: float) -> float:
        """Seconds that are left to show."""
        self._pass(now)
        return self._buffer

    def fetched(self, seconds: float, now: float) -> None:
        """A segment is there."""
        self._pass(now)
        self._buffer += seconds
        if self.state is Showing.STARTING:
            self.start_seconds = now - self._began_at
            self.state = Showing.PLAYING
        elif self.state is Showing.SEEKING or self._buffer >= _RESUME or self.is_last_fetched:
            self.state = Showing.PLAYING

    def seek(self, now: float) -> None:
        """The viewer goes elsewhere in the film: what was fetched is of no use."""
        self._pass(now)
        self._buffer = 0.0
        self.is_last_fetched = False
        if self.state is not Showing.STARTING:
            self.state = Showing.SEEKING

    def starved(self) -> bool:
        """Whether it stalled since this was last asked (CMCD `bs`)."""
        was, self.is_starved = self.is_starved, False
        return was

    def _pass(self, now: float) -> None:
        passed = max(0.0, now - self._at)
        self._at = max(now, self._at)
        if self.state is Showing.PLAYING:
            shown = min(passed, self._buffer)
            self._buffer -= shown
            self.played_seconds += shown
            if passed > shown and not self.is_last_fetched:
                self.state = Showing.STALLED
                self.stalls += 1
                self.is_starved = True
                self.stalled_seconds += passed - shown
        elif self.state is Showing.STALLED:
            self.stalled_seconds += passed
