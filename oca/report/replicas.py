"""What is known of each replica of steering, and what follows from all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from wire.heartbeat import HeartbeatAnswer

_SLOWER: Final = 6.0
"""Times the interval, towards a replica that refuses us: what is wrong there a person has to mend."""
_LAST_WORD: Final = 60.0
"""Seconds that the word of a replica which fell silent counts beside those of the others."""


class Outcome(StrEnum):
    """What became of a heartbeat: the closed label set of `oca_reports_total`."""

    OK = "ok"
    REFUSED = "refused"
    """Answered with 4xx: a token that is not known, an appliance that the inventory lacks."""
    FAILED = "failed"
    """Not reached, answered with 5xx, or with what is no answer."""
    LATE = "late"
    """No answer before the deadline."""


class Replica:
    """One replica. `now` is of the keeper's monotonic clock."""

    def __init__(self, number: int, url: str, interval: float) -> None:
        self.number = number
        self.url = url.rstrip("/")
        self._interval = interval
        self.outcome: Outcome | None = None
        self.error = ""
        """Why the last heartbeat failed, as a sentence; empty if it did not."""
        self.answered_at: float | None = None
        self.drain = False
        self._due_at = 0.0

    def is_due(self, now: float) -> bool:
        """Whether a heartbeat that is made now is meant for it. They are made in steps of the interval, so half a step
        too early is on time.
        """
        return now >= self._due_at - self._interval / 2

    def answered(self, answer: HeartbeatAnswer, now: float) -> bool:
        """True if that is news: it did not answer before."""
        is_news = self.outcome is not Outcome.OK
        self.outcome, self.error = Outcome.OK, ""
        self.answered_at = now
        self.drain = answer.drain
        self._due_at = now + max(self._interval, answer.interval)
        return is_news

    def failed(self, outcome: Outcome, error: str, now: float) -> bool:
        """True if that is news: it failed in another way before, or not at all."""
        is_news = self.outcome is not outcome
        self.outcome, self.error = outcome, error
        self._due_at = now + self._interval * (_SLOWER if outcome is Outcome.REFUSED else 1.0)
        return is_news


def drains(replicas: Iterable[Replica], *, before: bool) -> bool:
    """Whether steering wants the appliance to drain, which it wanted `before` or not.

    One that says so is enough: replicas hear of an operator's word one after the other, and taking no new players is
    the safer mistake. A replica that fell silent is outvoted by those that speak; while all are silent, what was last
    said holds.
    """
    answered = [(replica.answered_at, replica.drain) for replica in replicas if replica.answered_at is not None]
    if not answered:
        return before
    newest = max(at for at, _ in answered)
    return any(drain for at, drain in answered if at >= newest - _LAST_WORD)
