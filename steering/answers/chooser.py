"""Decisions as addresses, for DNS (steering/dns/answerer.py).

DNS knows less than the others: who asks is a resolver, or the network that it names; what is asked for is a title at
best; and the answer is kept for all who are in its scope. So both families come from one ranking, in its order, and
the origin, which has no address of ours, is left to players that find nobody.

Who has both families asks twice, for A and for AAAA, in one breath: a choice is kept for a second, so that both answers
are of one decision, and one player is counted once.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from steering.answers.desk import Desk
from steering.decisions import Ask, Decision, Way, proximity_of
from steering.dns.answerer import Choice
from steering.fleet import Content, Fleet, content_of
from steering.inventory import Appliance, Inventory
from steering.settings import Static
from steering.topology.distance import Proximity

_ADDRESSES: Final = 4
"""Of each family, in one answer."""
_SPREAD_V4: Final = 24
_SPREAD_V6: Final = 48
"""Where nobody knows the place, each network of this length has an order of its own (decisions.py)."""
_KEPT_SECONDS: Final = 1.0
_MOST_KEPT: Final = 50_000
"""Choices, of 500 bytes each: more than a replica makes in that time."""

_Packed = tuple[tuple[bytes, ...], tuple[bytes, ...]]
"""Addresses, IPv4 and IPv6 apart."""


class DnsChooser:
    """A `Chooser` over the desk."""

    def __init__(self, desk: Desk, fleet: Fleet, static: tuple[Static, ...], ttl: int, session_bps: float) -> None:
        self._desk = desk
        self._fleet = fleet
        self._ttl = ttl
        self._session_bps = session_bps
        self._static = [_packed(one.addresses) for one in static]
        self._inventory = Inventory()
        self._hosts: dict[str, Choice] = {}
        self._addresses: dict[str, _Packed] = {}
        self._kept: dict[tuple[str, str | None, bytes], Choice] = {}
        self._kept_until = 0.0

    def choose(self, service: str, title: str | None, client: bytes, prefix: int, now: float) -> Choice | None:
        """The best appliances for a client of whose address `prefix` bits are known; the others are zero."""
        del prefix
        self._see_inventory()
        if not 0.0 <= self._kept_until - now <= _KEPT_SECONDS or len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
            self._kept_until = now + _KEPT_SECONDS
        question = (service, title, client)
        choice = self._kept.get(question)
        if choice is None:
            choice = self._kept[question] = self._chosen(service, title, client)
        return choice

    def _chosen(self, service: str, title: str | None, client: bytes) -> Choice:
        content: Content = content_of(service) if title is None else self._desk.content(f"/titles/{title}/")
        decision = self._desk.decide(
            Ask(client=client, content=content, way=Way.DNS, bps=self._session_bps), hurried=self._desk.is_hurried
        )
        ipv4: list[bytes] = []
        ipv6: list[bytes] = []
        for four, six in self._ordered(decision) or self._static:
            ipv4 += four
            ipv6 += six
        scope = decision.where.scope
        if proximity_of(decision) is Proximity.ANYWHERE:
            scope = max(scope, _SPREAD_V4 if len(client) == 4 else _SPREAD_V6)
        return Choice(
            tuple(dict.fromkeys(ipv4))[:_ADDRESSES], tuple(dict.fromkeys(ipv6))[:_ADDRESSES], self._ttl, scope
        )

    def forget(self) -> None:
        """What was chosen is not to be had any more, or not the best."""
        self._kept.clear()

    def host(self, appliance: str) -> Choice | None:
        """The addresses of one appliance, whatever it stands like: its own name must not vanish under a film."""
        self._see_inventory()
        return self._hosts.get(appliance)

    def _ordered(self, decision: Decision) -> list[_Packed]:
        """Packed addresses of all that can take the player, the best first."""
        addresses = self._addresses
        if decision.ranking is not None and decision.ranking.ranked:
            names = [row.candidate.appliance for row in decision.ranking.ranked]
        else:
            names = [place.id for place in decision.targets]
        return [addresses[name] for name in names if name in addresses]

    def _see_inventory(self) -> None:
        inventory = self._fleet.inventory
        if inventory is self._inventory:
            return
        before, known = self._inventory.appliances, self._addresses
        self._inventory = inventory
        self._kept.clear()
        # One of twenty thousand changed: the others are not read again.
        self._addresses = {
            name: known[name] if before.get(name) is entry else _packed_of(entry)
            for name, entry in inventory.appliances.items()
        }
        hosts: dict[str, Choice] = {}
        for name, (ipv4, ipv6) in self._addresses.items():
            labels = name.lower().split(".")
            for place in range(1, len(labels)):
                # A name above another exists, without addresses of its own (RFC 8020).
                hosts.setdefault(".".join(labels[place:]), Choice((), (), self._ttl, 0))
            hosts[name.lower()] = Choice(ipv4, ipv6, self._ttl, 0)
        self._hosts = hosts


def _packed_of(entry: Appliance) -> _Packed:
    return _packed((*entry.ipv4, *entry.ipv6))


def _packed(texts: tuple[str, ...]) -> _Packed:
    """IPv4 and IPv6 apart."""
    addresses = [ipaddress.ip_address(text).packed for text in texts]
    return tuple(one for one in addresses if len(one) == 4), tuple(one for one in addresses if len(one) == 16)
