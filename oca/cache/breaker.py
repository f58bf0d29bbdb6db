"""The circuit breaker of one source. Time is an argument.

| state | on | next |
|---|---|---|
| CLOSED | more than `failure_ratio` of at least `min_calls` calls failed within `window` | OPEN |
| OPEN | `open_for` has passed | HALF_OPEN: one probe is let through |
| HALF_OPEN | the probe succeeded | CLOSED, with an empty memory |
| HALF_OPEN | the probe failed | OPEN |
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

import msgspec


class State(IntEnum):
    """The value of `oca_breaker_state`."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Limits(msgspec.Struct, frozen=True):
    window: float
    min_calls: int
    failure_ratio: float
    open_for: float


class Breaker:
    """Call `admits` before a call and `report` after each call that was admitted."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._calls: deque[tuple[float, bool]] = deque()
        self._failures = 0
        self._opened_at = 0.0
        self._probe_at: float | None = None
        self.state = State.CLOSED

    def admits(self, now: float) -> bool:
        """Whether a call may be made now. In HALF_OPEN only one is, until it reports or is itself `open_for` old."""
        if self.state is State.OPEN and now - self._opened_at >= self._limits.open_for:
            self.state = State.HALF_OPEN
            self._probe_at = None
        if self.state is State.HALF_OPEN:
            # A probe that never reported (its task was cancelled) must not hold the door shut for ever.
            if self._probe_at is not None and now - self._probe_at < self._limits.open_for:
                return False
            self._probe_at = now
            return True
        return self.state is State.CLOSED

    def report(self, now: float, *, succeeded: bool) -> None:
        if self.state is State.HALF_OPEN:
            self._probe_at = None
            if succeeded:
                self.state = State.CLOSED
                self._calls.clear()
                self._failures = 0
            else:
                self._open(now)
            return
        self._calls.append((now, succeeded))
        self._failures += not succeeded
        while self._calls and self._calls[0][0] <= now - self._limits.window:
            _, old_succeeded = self._calls.popleft()
            self._failures -= not old_succeeded
        if (
            self.state is State.CLOSED
            and len(self._calls) >= self._limits.min_calls
            and self._failures > self._limits.failure_ratio * len(self._calls)
        ):
            self._open(now)

    def _open(self, now: float) -> None:
        self.state = State.OPEN
        self._opened_at = now
        self._calls.clear()
        self._failures = 0
