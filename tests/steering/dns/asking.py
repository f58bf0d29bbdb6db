"""A small zone, a fleet that answers at once, and queries as dnspython makes them."""

from __future__ import annotations

import ipaddress
from typing import Any

import dns.edns
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype

from steering.dns.answerer import Answerer, Choice, Transport
from steering.dns.limiter import Limiter
from steering.dns.settings import DnsSettings, NameServer
from steering.dns.zone import Zone

ZONE = "steer.example.net"
SERIAL = 7
RESOLVER = bytes([198, 51, 100, 53])


def packed(*addresses: str) -> tuple[bytes, ...]:
    return tuple(ipaddress.ip_address(address).packed for address in addresses)


def settings(**changes: Any) -> DnsSettings:
    fields: dict[str, Any] = {
        "zone": ZONE,
        "name_servers": (
            NameServer("ns1.steer.example.net", ("192.0.2.53", "2001:db8::53")),
            NameServer("b.dns.steer.example.net", ("192.0.2.54",)),
            NameServer("ns.elsewhere.example"),
        ),
        "hostmaster": "dns.people@example.net",
        "services": ("films", "trailers"),
        "rate_limit": 0,
    }
    return DnsSettings(**(fields | changes))


class Fleet:
    """A chooser that gives what it was told to, and remembers whom it was asked for."""

    def __init__(self) -> None:
        self.choice: Choice | None = Choice(packed("192.0.2.1", "192.0.2.2"), packed("2001:db8::1"), 30, 20)
        self.hosts = {
            "box1": Choice(packed("192.0.2.1"), packed("2001:db8::1"), 60, 0),
            "box2.ams": Choice(packed("192.0.2.2"), (), 60, 0),
            "ams": Choice((), (), 60, 0),
        }
        self.asked: list[tuple[str, str | None, bytes, int]] = []

    def choose(self, service: str, title: str | None, client: bytes, prefix: int, now: float) -> Choice | None:
        self.asked.append((service, title, client, prefix))
        return self.choice

    def host(self, appliance: str) -> Choice | None:
        return self.hosts.get(appliance)


class Desk:
    """An answerer with its fleet."""

    def __init__(self, **changes: Any) -> None:
        self.settings = settings(**changes)
        self.fleet = Fleet()
        self.zone = Zone(self.settings, SERIAL)
        self.limiter = Limiter(
            self.settings.rate_limit,
            self.settings.rate_window,
            self.settings.slip,
            self.settings.rate_accounts,
            self.settings.unlimited,
        )
        self.answerer = Answerer(self.zone, self.fleet, self.settings, self.limiter)

    def send(
        self, packet: bytes, peer: bytes = RESOLVER, transport: Transport = Transport.UDP, now: float = 0.0
    ) -> bytes | None:
        return self.answerer.answer(packet, peer, transport, now)

    def ask(self, name: str, kind: str = "A", transport: Transport = Transport.UDP, **how: Any) -> dns.message.Message:
        reply = self.send(query(name, kind, **how), transport=transport)
        assert reply is not None
        return dns.message.from_wire(reply)


def query(name: str, kind: str = "A", *, subnet: str | None = None, **how: Any) -> bytes:
    """`name` is below the zone unless it ends in a dot; "@" is the zone. `subnet` is address/prefix."""
    origin = dns.name.from_text(ZONE)
    full = origin if name == "@" else dns.name.from_text(name, origin)
    if subnet is not None:
        how["options"] = [dns.edns.ECSOption.from_text(subnet)]
    # One id for all: packets stand in the names of tests, which must be the same in every process that runs them.
    return dns.message.make_query(full, kind, id=4711, **how).to_wire()


def records(message: dns.message.Message, kind: str) -> list[str]:
    """The answer's records of one type, for the name that was asked."""
    (question,) = message.question
    rrset = message.get_rrset(message.answer, question.name, dns.rdataclass.IN, dns.rdatatype.from_text(kind))
    return [] if rrset is None else [record.to_text() for record in rrset]


def subnet_in(message: dns.message.Message) -> str | None:
    """address/source/scope of the client subnet option."""
    for option in message.options:
        if isinstance(option, dns.edns.ECSOption):
            return f"{option.address}/{option.srclen}/{option.scopelen}"
    return None
