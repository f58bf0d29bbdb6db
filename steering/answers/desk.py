"""Where all ways of asking meet: finds the client, decides, counts, logs, and signs what is answered."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from steering.catalogue import Catalogue
from steering.decisions import ORIGIN, Ask, Decider, Decision, Target, Way
from steering.exporter import DecisionMetrics
from steering.fleet import Content
from steering.pulse import Pulse
from steering.ranking import Reason
from steering.topology.locator import Locator

log = logging.getLogger(__name__)

_RECENT: Final = 4096


class Journal(Protocol):
    """Keeps decisions (steering/journal.py)."""

    def write(self, decision: Decision) -> None: ...


class Signer(Protocol):
    """Signs URLs (steering/signer.py)."""

    def signed(self, url: str, path: str, client: bytes) -> str: ...

    def signed_base(self, url: str, folder: str, client: bytes) -> str: ...


class Sent(Struct, frozen=True, gc=False):
    """A decision, as short as it is remembered."""

    at: float
    decision: str
    way: Way
    reason: Reason
    content: str
    targets: tuple[Target, ...]


class Desk:
    """One for the process."""

    def __init__(
        self,
        decider: Decider,
        locator: Locator,
        catalogue: Catalogue,
        metrics: DecisionMetrics,
        pulse: Pulse,
        most_lag: float,
        clock: Callable[[], float],
        journal: Journal | None,
        signer: Signer | None,
    ) -> None:
        self.decider = decider
        self.locator = locator
        self._catalogue = catalogue
        self._metrics = metrics
        self._pulse = pulse
        self._most_lag = most_lag
        self._clock = clock
        self.journal = journal
        self.recent: deque[Sent] = deque(maxlen=_RECENT)
        """The last decisions, for whoever wants to see where players go."""
        self._signer = signer

    @property
    def is_hurried(self) -> bool:
        """Whether there is no time to rank."""
        return self._pulse.lag >= self._most_lag

    def country(self, client: bytes) -> str | None:
        """Where the client is, as far as it is known."""
        return self.decider.country(self.locator.locate(client))

    def content(self, path: str) -> Content:
        return self._catalogue.content(path)

    def decide(self, ask: Ask, *, hurried: bool = False) -> Decision:
        """Always a decision: if ranking fails, from the region's list."""
        began = time.perf_counter()
        where = self.locator.locate(ask.client)
        try:
            decision = self.decider.decide(ask, where, self._clock(), hurried=hurried)
        except Exception:
            # A mistake of ours must not be a black screen. The log and a counter tell.
            log.exception("ranking failed for %s", ask.content.name)
            self._metrics.failures += 1
            decision = self.decider.decide(ask, where, self._clock(), hurried=True)
        self._metrics.count(decision, time.perf_counter() - began)
        if self.journal is not None:
            self.journal.write(decision)
        if ask.way is not Way.EXPLAIN:
            # Not the whole: its ranking is a hundred times as large.
            self.recent.append(
                Sent(decision.at, decision.id, ask.way, decision.reason, decision.content.name, decision.targets)
            )
        return decision

    def urls(self, decision: Decision, path: str, client: bytes) -> list[tuple[Target, str]]:
        """Whole URLs of a decision's places, the best first, signed if tokens are on."""
        signer = self._signer
        # The origin knows nothing of our tokens.
        return [
            (
                place,
                place.url + path if signer is None or place.id == ORIGIN else signer.signed(place.url, path, client),
            )
            for place in decision.targets
        ]

    def signed(self, base: str, path: str, client: bytes) -> str:
        """The URL of a path at one place as viewers are given it, whoever may have viewers: for whoever checks it."""
        return base + path if self._signer is None else self._signer.signed(base, path, client)

    @property
    def signs(self) -> bool:
        return self._signer is not None

    def bases(self, decision: Decision, folder: str, client: bytes) -> list[str]:
        """A folder's URLs at a decision's places, as `urls` has them: what is relative to them is covered, if tokens
        stand before the path.
        """
        signer = self._signer
        return [
            place.url + folder
            if signer is None or place.id == ORIGIN
            else signer.signed_base(place.url, folder, client)
            for place in decision.targets
        ]
