"""Peers: appliances that are asked for what they hold before the box's own ladder is climbed. Nightly fill names them.

A peer is asked with `Cache-Control: only-if-cached` (RFC 9111 section 5.2.1.7): it gives what lies on its devices and
says 504 to everything else, which is no failure of its. So no peer fetches anything for another, nobody goes in a
circle, and what comes from a peer passes the same checks as what comes from any source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final
from urllib.parse import urlsplit

import msgspec
from cachetools import LRUCache

from oca.cache.breaker import Breaker, Limits
from oca.cache.ladder import Ladder
from oca.keeper.sources import HttpSource, Source

PEER: Final = "peer"
"""The label of all of them in metrics: there may be many, and they come and go."""
MOST: Final = 8
"""Peers that one request may name."""
_REMEMBERED: Final = 256


class Peer(HttpSource):
    """An appliance of the same site or region."""

    fields: Mapping[str, str] = {"Cache-Control": "only-if-cached"}
    is_peer = True

    def __init__(self, url: str, limits: Limits) -> None:
        super().__init__(PEER, url)
        self.breaker = Breaker(limits)


class Route(msgspec.Struct, frozen=True):
    """Whom to ask before the own ladder. Without peers it is the ladder alone."""

    peers: tuple[Peer, ...] = ()
    only_peers: bool = False
    """The own ladder is not climbed: who needs the bytes will ask again."""


class Content(IntEnum):
    """With whose answers somebody is content; the lower may not be kept waiting by the higher."""

    LADDER = 0
    PEERS_FIRST = 1
    PEERS_ALONE = 2

    @classmethod
    def of(cls, route: Route | None) -> Content:
        if route is None:
            return cls.LADDER
        return cls.PEERS_ALONE if route.only_peers else cls.PEERS_FIRST


class Peers:
    """Those that were named lately, with what is known of their health."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: LRUCache[str, Peer] = LRUCache(_REMEMBERED)

    def named(self, urls: Sequence[str]) -> tuple[Peer, ...]:
        """Raises ValueError for what is no http(s)://host[:port], and for too many."""
        if len(urls) > MOST:
            raise ValueError(f"{len(urls)} peers; allowed: {MOST}")
        return tuple(self._peer(url) for url in dict.fromkeys(urls))

    def _peer(self, url: str) -> Peer:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"read {url!r}; allowed: http(s)://host:port")
        base = url.rstrip("/")
        peer = self._known.get(base)
        if peer is None:
            peer = self._known[base] = Peer(base, self._limits)
        return peer


class Climb:
    """One climb, for one block or one object: peers in their order, each once, then the ladder's own rungs."""

    def __init__(
        self, sources: Sequence[Source], breakers: Sequence[Breaker], attempts: int, route: Route | None
    ) -> None:
        self._peers = [] if route is None else list(route.peers)
        self._sources = sources
        self._ladder = Ladder(breakers, 0 if route is not None and route.only_peers else attempts)

    def next_source(self, now: float) -> Source | None:
        """Whom to ask now; None when the attempts are used up or every breaker is open."""
        while self._peers:
            peer = self._peers.pop(0)
            if peer.breaker.admits(now):
                return peer
        rung = self._ladder.next_rung(now)
        return None if rung is None else self._sources[rung]

    @property
    def has_wrapped(self) -> bool:
        """Whether a rung was asked again: before the next try, waiting is due."""
        return self._ladder.has_wrapped
