"""Token buckets: how often one network may ask. Pure: `now` is given."""

from __future__ import annotations


class Buckets:
    """One bucket for each key, `most` of them: beyond that those that were used the longest ago are forgotten, which
    errs on the side of answering.
    """

    def __init__(self, rate: float, burst: float, most: int) -> None:
        """`rate` tokens a second, up to `burst`."""
        self._rate = rate
        self._burst = burst
        self._most = most
        self._levels: dict[bytes, tuple[float, float]] = {}
        """Tokens, and when; the longest unused first."""

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: bytes, now: float) -> float:
        """Take a token: 0.0 if there was one, else the seconds until there is."""
        found = self._levels.pop(key, None)
        if found is None:
            if len(self._levels) >= self._most:
                del self._levels[next(iter(self._levels))]
            level = self._burst
        else:
            level = min(self._burst, found[0] + max(0.0, now - found[1]) * self._rate)
        if level >= 1.0:
            self._levels[key] = (level - 1.0, now)
            return 0.0
        self._levels[key] = (level, now)
        return (1.0 - level) / self._rate
