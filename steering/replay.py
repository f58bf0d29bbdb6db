"""Logged decisions, made again: whether this version, on this machine, would answer the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from steering.decisions import ORIGIN, Fallback, Logged, again
from steering.errors import SteeringError

_MOST_LINE: Final = 1024 * 1024


class BadLine(SteeringError):
    """A line of the log is no decision."""


class Difference(Struct, frozen=True):
    """A decision that would not be made like this again."""

    line: int
    id: str
    what: str


class Report:
    """What a replay found."""

    def __init__(self) -> None:
        self.same = 0
        self.not_ranked = 0
        """Answered from a list: there is nothing to make again."""
        self.differences = 0
        self.reasons: Counter[str] = Counter()


def replay(lines: Iterable[bytes], report: Report) -> Iterator[Difference]:
    """Each difference, as it is found; `report` is filled meanwhile. Raises `BadLine`."""
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        if len(text) > _MOST_LINE:
            raise BadLine(f"line {number}: is longer than {_MOST_LINE} bytes")
        try:
            line = _DECODER.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadLine(f"line {number}: not a decision: {error}") from error
        report.reasons[line.reason] += 1
        if line.fallback not in {Fallback.RANKED, Fallback.SNAPSHOT}:
            report.not_ranked += 1
            continue
        reason, best = again(line)
        names = tuple(row.candidate.appliance for row in best)
        logged = tuple(name for name in line.chosen if name != ORIGIN)
        if (reason, names) == (line.reason, logged):
            report.same += 1
            continue
        report.differences += 1
        yield Difference(
            number,
            line.id,
            f"was {line.reason}: {', '.join(logged) or 'nobody'}; is {reason}: {', '.join(names) or 'nobody'}",
        )


_DECODER: Final = msgspec.json.Decoder(Logged)
