"""How fast the agent may go. Pure; time is an argument.

A bucket of tokens under the cap, whose rate gives way to viewers: halved while they need the link or a disk, and raised
by a tenth of the cap each time a look finds that they don't (additive increase, multiplicative decrease).
"""

from __future__ import annotations

from typing import Final

_BURST: Final = 0.25
"""Seconds of the cap that may go out at once."""
_SPAN: Final = 0.1
"""Seconds of the cap that are asked for at a time."""
_LEAST: Final = 1 / 64
"""Of the cap: viewers who need everything for hours must not stop a night for ever."""
_STEP: Final = 0.1


class Pace:
    def __init__(self, bytes_a_second: float, now: float) -> None:
        self._cap = bytes_a_second
        self.share = 1.0
        """Of the cap that is used now."""
        self._tokens = bytes_a_second * _BURST
        self._at = now

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self._cap * self.share

    def span(self, least: int, most: int) -> int:
        """How much to ask for at a time, in steps of `least`: little where the rate is low, for what is asked for comes
        as fast as its source gives it, whatever the rate."""
        return max(least, min(most, int(self.rate * _SPAN) // least * least))

    def take(self, count: int, now: float) -> float:
        """0: `count` bytes may be asked for now; they are taken from the bucket, which may be in debt then. Else
        nothing is taken, and in so many seconds it is worth asking again.
        """
        self._fill(now)
        if self._tokens <= 0:
            return -self._tokens / self.rate + 0.001
        self._tokens -= count
        return 0.0

    def give_back(self, count: int, now: float) -> None:
        """Bytes that did not have to come after all."""
        self._fill(now)
        self._tokens = min(self._tokens + count, self._cap * _BURST)

    def give_way(self, now: float) -> None:
        """Viewers need the link, or a disk."""
        self._fill(now)
        self.share = max(_LEAST, self.share / 2)

    def go_on(self, now: float) -> None:
        """They don't."""
        self._fill(now)
        self.share = min(1.0, self.share + _STEP)

    def _fill(self, now: float) -> None:
        elapsed = max(0.0, now - self._at)
        self._at = max(self._at, now)
        self._tokens = min(self._tokens + elapsed * self.rate, self._cap * _BURST)


def is_pressed(egress_bps: int, link_bps: int, most_share: float, waited_for: int) -> bool:
    """Whether viewers need more: their share of the link is above `most_share`, or they wait for a device."""
    return waited_for > 0 or (link_bps > 0 and egress_bps > most_share * link_bps)
