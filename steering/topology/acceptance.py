"""Which of the routes that an appliance reports are accepted.

An appliance stands in another company's rack, and a BGP session leaks sooner or later: what it reports is believed only
within what the operator of its site is allowed, and each refusal has a reason that is counted. Accepting what was
accepted changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Final

from msgspec import Meta, Struct

from steering.topology.prefixes import Network, PrefixError, PrefixTable, network_of
from steering.topology.reach import Reach, reach_of_all
from wire.prefixes import AS_SET, LearnedPrefix

EXAMPLES: Final = 5
"""Refused prefixes that are kept for each reason, to be shown."""

Length = Annotated[int, Meta(ge=0, le=128)]


class Rejection(StrEnum):
    """Why a route is not accepted: the closed set for log and metrics, in the order in which it is judged."""

    MALFORMED = "malformed"
    """Not a prefix, or with bits set beyond its length."""
    DEFAULT_ROUTE = "default_route"
    """It would make every client in the world this site's own."""
    TOO_WIDE = "too_wide"
    """Shorter than any that is expected: a leak, or a way to take in others' clients."""
    TOO_NARROW = "too_narrow"
    """Longer than what is routed between networks: hosts and links."""
    BOGON = "bogon"
    """It holds private or other special addresses, and these are not allowed by name."""
    NOT_ALLOWED = "not_allowed"
    """Outside of what the operator may announce."""
    AS_SET = "as_set"
    """Nobody answers for where it begins (RFC 9774)."""
    FIRST_AS = "first_as"
    """It came from a neighbour that is not among those named."""
    ORIGIN_AS = "origin_as"
    """It begins in an AS that is not among those named."""
    NO_COMMUNITY = "no_community"
    """It has none of those of which one is required."""
    FORBIDDEN_COMMUNITY = "forbidden_community"
    TOO_MANY = "too_many"
    """The appliance reports more than it may; the widest are kept."""


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the operator of a site may announce."""

    allowed: tuple[str, ...] = ()
    """Prefixes that hold all he may announce; without any, nothing is accepted. Private and other special addresses
    are accepted only inside one that lies in such space itself: 0.0.0.0/0 does not allow 10.0.0.0/8."""
    v4_lengths: tuple[Length, Length] = (8, 24)
    """Shortest and longest that is accepted."""
    v6_lengths: tuple[Length, Length] = (16, 48)
    first_as: tuple[int, ...] = ()
    """If there are any: the neighbours it may come from, judged where a path is known. An empty path begins in the
    speaker's own AS, which is the operator's, and is good."""
    origin_as: tuple[int, ...] = ()
    """If there are any: where it may begin, judged likewise."""
    required_communities: tuple[str, ...] = ()
    """If there are any, a route must have one of them: whoever is not known to have it, has not."""
    forbidden_communities: tuple[str, ...] = ()
    most: Annotated[int, Meta(ge=1, le=200_000)] = 20_000
    """Prefixes of one appliance."""


class Accepted(Struct, frozen=True):
    networks: tuple[Network, ...]
    """Each once, although several routes may lead to it."""
    rejected: Mapping[Rejection, int]
    """Routes, by reason."""
    examples: Mapping[Rejection, tuple[str, ...]]
    """Some of the prefixes that were refused."""
    digest: str = ""
    """Of the networks, 16 hex digits: equal sets have equal ones, in whatever order they came."""


def digest_of(networks: Iterable[Network]) -> str:
    """16 hex digits of a set of networks."""
    whole = blake2b(digest_size=8)
    for packed, length in sorted(networks):
        # The length of an address goes before it, so that no two sets read alike.
        whole.update(bytes((len(packed), length)) + packed)
    return whole.hexdigest()


class Gate:
    """The rules of one site, ready to judge with: 3 to 5 µs a route."""

    def __init__(self, rules: Rules) -> None:
        """Raises PrefixError if an allowed prefix is none."""
        self._rules = rules
        self._allowed: PrefixTable[bool] = PrefixTable()
        """The value says whether the entry lies in special space itself."""
        for text in rules.allowed:
            network = network_of(text)
            self._allowed.put(network, reach_of_all(network) not in {Reach.GLOBAL, None})
        self._required = frozenset(rules.required_communities)
        self._forbidden = frozenset(rules.forbidden_communities)

    def accept(self, routes: Iterable[LearnedPrefix]) -> Accepted:
        """Judge all that one appliance reports."""
        networks: dict[Network, None] = {}
        rejected: Counter[Rejection] = Counter()
        examples: dict[Rejection, list[str]] = {}
        for route in routes:
            verdict = self.judge(route)
            if isinstance(verdict, Rejection):
                _refuse(verdict, route.prefix, rejected, examples)
            else:
                networks[verdict] = None
        kept = tuple(networks)
        if len(kept) > self._rules.most:
            # Widest first, so that which are kept does not depend on the order in which they were sent.
            in_order = sorted(kept, key=lambda network: (network[1], network[0]))
            kept = tuple(in_order[: self._rules.most])
            rejected[Rejection.TOO_MANY] = len(in_order) - len(kept)
        shown = {reason: tuple(prefixes) for reason, prefixes in examples.items()}
        return Accepted(kept, dict(rejected), shown, digest_of(kept))

    def judge(self, route: LearnedPrefix) -> Network | Rejection:
        """The network of a route that is accepted, else why it is not."""
        try:
            network = network_of(route.prefix)
        except PrefixError:
            return Rejection.MALFORMED
        packed, length = network
        rules = self._rules
        if not length:
            return Rejection.DEFAULT_ROUTE
        shortest, longest = rules.v4_lengths if len(packed) == 4 else rules.v6_lengths
        if length < shortest:
            return Rejection.TOO_WIDE
        if length > longest:
            return Rejection.TOO_NARROW
        allowed_by_name = self._allowed.covers(network)
        if not allowed_by_name and reach_of_all(network) is not Reach.GLOBAL:
            return Rejection.BOGON
        if allowed_by_name is None:
            return Rejection.NOT_ALLOWED
        return self._judged_by_path(route) or network

    def _judged_by_path(self, route: LearnedPrefix) -> Rejection | None:
        rules = self._rules
        path = route.as_path
        if path:
            if AS_SET in path:
                return Rejection.AS_SET
            if rules.first_as and path[0] not in rules.first_as:
                return Rejection.FIRST_AS
            if rules.origin_as and path[-1] not in rules.origin_as:
                return Rejection.ORIGIN_AS
        communities = route.communities or ()
        if self._required and self._required.isdisjoint(communities):
            return Rejection.NO_COMMUNITY
        if not self._forbidden.isdisjoint(communities):
            return Rejection.FORBIDDEN_COMMUNITY
        return None


def _refuse(reason: Rejection, prefix: str, rejected: Counter[Rejection], examples: dict[Rejection, list[str]]) -> None:
    rejected[reason] += 1
    shown = examples.setdefault(reason, [])
    if len(shown) < EXAMPLES:
        shown.append(prefix)
