"""Which source is asked next: parents in their order, then the origin, then again; none with an open breaker."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from oca.cache.breaker import Breaker


class Ladder:
    """One climb: the rungs tried for one block or one object. Rungs are numbered as in the settings, origin last."""

    def __init__(self, breakers: Sequence[Breaker], attempts: int) -> None:
        self._breakers = breakers
        self._left = attempts
        self._tried: list[int] = []

    def next_rung(self, now: float) -> int | None:
        """The number of the source to ask now, or None when the attempts are used up or every breaker is open."""
        if not self._left:
            return None
        count = len(self._breakers)
        start = 0 if not self._tried else self._tried[-1] + 1
        # From the rung above the last one tried to the origin, then again from below.
        for step in range(count):
            rung = (start + step) % count
            if self._breakers[rung].admits(now):
                self._left -= 1
                self._tried.append(rung)
                return rung
        return None

    @property
    def has_wrapped(self) -> bool:
        """Whether a rung was asked again: before the next try, waiting is due."""
        return any(later <= earlier for earlier, later in pairwise(self._tried))


def retry_delay(tries: int, base: float, jitter: float) -> float:
    """Seconds before retry number `tries` (from 1): doubled each time; `jitter` in [0, 1) spreads it by half."""
    return float(min(base * 2 ** (tries - 1), 5.0) * (0.5 + jitter))
