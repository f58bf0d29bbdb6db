"""What a name means in our zone.

<zone>                          SOA, NS
<service>.<zone>                the best appliances for whoever asks
<title>.<service>.<zone>        the same for that title; every well-formed title id is a name
<appliance>.edge.<zone>         the addresses of one appliance, whose id may have dots
<name server>                   its own addresses, where it is called by a name in the zone
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

import dns.name
from msgspec import Struct

from steering.dns.packets import AAAA, HINFO, NS, SOA, A, Record
from steering.dns.settings import EDGE, DnsSettings, NameServer
from wire.catalog import is_title_id

#: Seconds. What stands in the settings changes with a restart; resolvers come for it once an hour.
APEX_TTL: Final = 3600
# For secondaries, which we have none of; within what RIPE-203 and the common zone checkers want to see.
_REFRESH: Final = 7200
_RETRY: Final = 900
_EXPIRE: Final = 1209600

_HOST_LABEL: Final = re.compile(rb"[a-z0-9_-]+")


class Kind(Enum):
    OUTSIDE = auto()
    ABSENT = auto()
    """In the zone, and no such name."""
    BETWEEN = auto()
    """A name without records that has names below it: it exists (RFC 8020)."""
    APEX = auto()
    NAME_SERVER = auto()
    SERVICE = auto()
    TITLE = auto()
    APPLIANCE = auto()
    """Spelt as an appliance may be; whether there is one, the fleet knows."""


class Meaning(Struct, frozen=True, gc=False):
    """What a name stands for. `word` is the service's or the appliance's name, `title` a title's."""

    kind: Kind
    word: str = ""
    title: str | None = None
    ipv4: tuple[bytes, ...] = ()
    """Of a name server."""
    ipv6: tuple[bytes, ...] = ()


_OUTSIDE: Final = Meaning(Kind.OUTSIDE)
_ABSENT: Final = Meaning(Kind.ABSENT)
_BETWEEN: Final = Meaning(Kind.BETWEEN)


class Zone:
    """The names of the settings, and the rules for all others."""

    def __init__(self, settings: DnsSettings, serial: int) -> None:
        """`serial` stands in the SOA record."""
        self.name: Final = wire_name(settings.zone)
        self._fixed: dict[bytes, Meaning] = {self.name: Meaning(Kind.APEX)}
        for service in settings.services:
            self._fixed[_child(service, self.name)] = Meaning(Kind.SERVICE, service)
        self._edge: Final = _child(EDGE, self.name)
        self._fixed[self._edge] = _BETWEEN
        for server in settings.name_servers:
            self._place(server)

        servers = [wire_name(server.name) for server in settings.name_servers]
        numbers = (serial % 2**32, _REFRESH, _RETRY, _EXPIRE, settings.negative_ttl)
        data = servers[0] + _mailbox(settings.hostmaster) + b"".join(number.to_bytes(4, "big") for number in numbers)
        self.soa: Final = Record(self.name, SOA, APEX_TTL, data)
        # A resolver remembers a denial for the least of the record's TTL and its last field (RFC 2308 section 5).
        self.denial: Final = Record(self.name, SOA, settings.negative_ttl, data)
        self.servers: Final = tuple(Record(self.name, NS, APEX_TTL, server) for server in servers)
        self.glue: Final = tuple(record for server in servers for record in self._glue(server))

    def meaning(self, name: bytes) -> Meaning:
        """Of a name in wire form and in lower case."""
        fixed = self._fixed.get(name)
        if fixed is not None:
            return fixed
        if not name.endswith(self.name):
            return _OUTSIDE
        # The zone's bytes at the end may be the inside of a label. The parent is the first ancestor with a meaning.
        at = 0
        while name[at]:
            at += name[at] + 1
            parent = self._fixed.get(name[at:])
            if parent is not None:
                return self._below(parent, name[: at - len(name)], is_edge=name[at:] == self._edge)
        return _OUTSIDE

    @staticmethod
    def _below(parent: Meaning, labels: bytes, *, is_edge: bool) -> Meaning:
        if is_edge:
            words = list(_labels(labels))
            if all(_HOST_LABEL.fullmatch(word) for word in words):
                return Meaning(Kind.APPLIANCE, b".".join(words).decode())
            return _ABSENT
        if parent.kind is not Kind.SERVICE or labels[0] + 1 != len(labels):
            return _ABSENT
        try:
            title = labels[1:].decode("ascii")
        except UnicodeDecodeError:
            return _ABSENT
        return Meaning(Kind.TITLE, parent.word, title) if is_title_id(title) else _ABSENT

    def _place(self, server: NameServer) -> None:
        name = wire_name(server.name)
        if not server.addresses:
            return
        packed = [ipaddress.ip_address(address).packed for address in server.addresses]
        ipv4 = tuple(address for address in packed if len(address) == 4)
        ipv6 = tuple(address for address in packed if len(address) == 16)
        self._fixed[name] = Meaning(Kind.NAME_SERVER, ipv4=ipv4, ipv6=ipv6)
        parent = name[name[0] + 1 :]
        while parent != self.name:
            self._fixed.setdefault(parent, _BETWEEN)
            parent = parent[parent[0] + 1 :]

    def _glue(self, server: bytes) -> Iterator[Record]:
        meaning = self._fixed.get(server)
        if meaning is not None:
            yield from (Record(server, A, APEX_TTL, address) for address in meaning.ipv4)
            yield from (Record(server, AAAA, APEX_TTL, address) for address in meaning.ipv6)


def refusal_of_any(name: bytes) -> Record:
    """The answer to a question for everything (RFC 8482 section 4.2): small, and it may be kept for long."""
    return Record(name, HINFO, APEX_TTL, b"\x07RFC8482\x00")


def wire_name(text: str) -> bytes:
    """A host name of the settings in wire form and in lower case. Raises dns.exception.DNSException."""
    return dns.name.from_text(text).to_digestable()


def _child(label: str, parent: bytes) -> bytes:
    return bytes((len(label),)) + label.encode() + parent


def _mailbox(address: str) -> bytes:
    """As SOA spells mail addresses: what stands before the @ is one label, dots and all (RFC 1035 section 8)."""
    user, _, host = address.partition("@")
    return _child(user, wire_name(host))


def _labels(labels: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(labels):
        stop = at + 1 + labels[at]
        yield labels[at + 1 : stop]
        at = stop
