"""How much may be written to a flash device: a bucket that fills in a day and starts full."""

from __future__ import annotations

from typing import Final

_DAY: Final = 86400.0


class WriteBudget:
    def __init__(self, bytes_per_day: float) -> None:
        self.bytes_per_day = bytes_per_day
        self.left_bytes = bytes_per_day
        self.counted_at: float | None = None

    def allows(self, now: float) -> bool:
        """As long as anything is left: the last extent of the day may be on tomorrow's account."""
        self._fill(now)
        return self.left_bytes > 0

    def is_ample(self, now: float) -> bool:
        """Whether half a day's worth is left."""
        self._fill(now)
        return 2 * self.left_bytes > self.bytes_per_day

    def spend(self, size_bytes: int, now: float) -> None:
        """What was written was written: the bucket may go below empty, by no more than it holds."""
        self._fill(now)
        self.left_bytes = max(self.left_bytes - size_bytes, -self.bytes_per_day)

    def _fill(self, now: float) -> None:
        if self.counted_at is not None and now > self.counted_at:
            gained = (now - self.counted_at) * self.bytes_per_day / _DAY
            self.left_bytes = min(self.left_bytes + gained, self.bytes_per_day)
        # A clock that was set back fills nothing, and counts on from there.
        self.counted_at = now
