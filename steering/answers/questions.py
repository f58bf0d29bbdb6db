"""What a player says of itself in its question, and for how long the answer is good."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from steering.answers.desk import Desk
from steering.decisions import Ask, Decision, Way
from steering.names import mixed
from steering.settings import Answers

PATHWAY: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NUMBER: Final = re.compile(r"[0-9]{1,15}")
_MOST_BPS: Final = 1_000_000_000.0


class Questions:
    """Puts players' questions to the desk."""

    def __init__(self, answers: Answers, desk: Desk) -> None:
        self._answers = answers
        self._desk = desk

    def decided(
        self, query: Mapping[str, str], client: bytes, path: str, way: Way, *, hurried: bool = False
    ) -> tuple[Decision, int]:
        """The decision, and for how many seconds it is good."""
        current = pathway(query.get("_HLS_pathway") or query.get("_DASH_pathway") or query.get("current"))
        bps = throughput(query.get("_HLS_throughput") or query.get("_DASH_throughput") or query.get("bps"))
        session = float(self._answers.session)
        ask = Ask(
            client=client,
            content=self._desk.content(path),
            way=way,
            current=current,
            # What the line carries is no more than a bound of what will be read.
            bps=session if bps is None else min(session, bps),
        )
        hurried = hurried or self._desk.is_hurried
        decision = self._desk.decide(ask, hurried=hurried)
        ttl = float(self._answers.steering_ttl if way is Way.CONTENT_STEERING else self._answers.ttl)
        if hurried:
            ttl *= self._answers.hurried_factor
        # Each client's own, and the same each time: what is asked in step stays in step.
        share = mixed(int.from_bytes(client, "big") ^ decision.content.mix) / 2**64
        return decision, max(1, round(ttl * (1.0 - self._answers.jitter * share)))


def pathway(said: str | None) -> str | None:
    """The pathway that a player is on. dash.js sends quoted lists, the one in use first; hostile words are none."""
    if not said or len(said) > 1024:
        return None
    first = said.strip().strip('"').split(",")[0].strip()
    return first if PATHWAY.fullmatch(first) else None


def throughput(said: str | None) -> float | None:
    """Bits a second that a player measured: of dash.js's list, the first. None if it is no number."""
    if not said or len(said) > 1024:
        return None
    first = said.strip().strip('"').split(",")[0].strip()
    return min(float(first), _MOST_BPS) if _NUMBER.fullmatch(first) else None
