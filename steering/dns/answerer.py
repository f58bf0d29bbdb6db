"""A packet and its sender in, a packet or silence out. No socket, no clock.

    garbage, an answer               silence
    other opcode                     NOTIMP
    not one question, or malformed   FORMERR
    EDNS of another version          BADVERS
    class other than IN, AXFR, IXFR, names outside the zone     REFUSED
    a name that does not exist       NXDOMAIN with SOA
    nothing of this type             NOERROR with SOA
    everything (ANY)                 HINFO (RFC 8482)
    addresses                        as the ranking says, for the client's subnet where the resolver sends it

Cookies (RFC 7873) are left out: to be right they need SipHash and a secret shared and rotated by all replicas, and what
they would buy, a way around the rate limit for those who own their address, TCP gives already.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from steering.dns.limiter import Class, Limiter, Ruling
from steering.dns.packets import (
    AAAA,
    ANY,
    AXFR,
    IN,
    IXFR,
    NS,
    SOA,
    A,
    Builder,
    Fault,
    Query,
    Rcode,
    Subnet,
    Verdict,
    fault,
    fault_of_header,
    is_silent,
    is_truncated,
    read_common,
    room,
    subnet_of,
)
from steering.dns.settings import DnsSettings
from steering.dns.uncommon import build_uncommon, read_uncommon
from steering.dns.zone import APEX_TTL, Kind, Meaning, Zone, refusal_of_any

#: More than this helps nobody, and with it an answer by TCP always fits.
MOST_ADDRESSES: Final = 64
_TCP_BYTES: Final = 0xFFFF


class Choice(Struct, frozen=True):
    """Addresses for a client, packed, the best first. `ttl` in seconds.

    Every client whose address begins with the same `scope` bits gets this answer; 0: everybody. Addresses are distinct.
    """

    ipv4: tuple[bytes, ...]
    ipv6: tuple[bytes, ...]
    ttl: int
    scope: int


class Chooser(Protocol):
    def choose(self, service: str, title: str | None, client: bytes, prefix: int, now: float) -> Choice | None:
        """The best appliances for the packed address `client` (4 or 16 bytes), of which `prefix` bits are known.

        The zone decides which names exist: those of the services in the settings, and every well-formed title below
        them, published or not. None: no such service here, which is our own fault, so the client gets SERVFAIL.
        """

    def host(self, appliance: str) -> Choice | None:
        """The addresses of one appliance, its id in lower case. None: there is none.

        A choice without addresses: the name exists; so it is for `ams` where there is an appliance `box1.ams`.
        """


class Transport(StrEnum):
    UDP = "udp"
    TCP = "tcp"


class Count(StrEnum):
    """What is counted: queries by transport, what they got, and what the limits did."""

    UDP = "udp"
    TCP = "tcp"
    SILENT = "silent"
    """Garbage and answers: nothing was sent."""
    UNCOMMON = "uncommon"
    """Went through dnspython."""
    SUBNET = "subnet"
    """Came with a client's network."""
    ANSWERED = "answered"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    REFUSED = "refused"
    FORMERR = "formerr"
    NOTIMP = "notimp"
    BADVERS = "badvers"
    NOTAUTH = "notauth"
    SERVFAIL = "servfail"
    TRUNCATED = "truncated"
    LIMITED = "limited"
    """Dropped by the rate limit."""
    SLIPPED = "slipped"
    """Sent empty with TC by the rate limit."""
    UNSENT = "unsent"
    """The kernel would not take the answer."""
    TURNED_AWAY = "turned_away"
    """TCP connections beyond the caps."""
    FAILED = "failed"
    """Queries on which our own code raised an error; they got SERVFAIL."""


_BY_RCODE: Final = {
    Rcode.FORMERR: Count.FORMERR,
    Rcode.SERVFAIL: Count.SERVFAIL,
    Rcode.NXDOMAIN: Count.NXDOMAIN,
    Rcode.NOTIMP: Count.NOTIMP,
    Rcode.REFUSED: Count.REFUSED,
    Rcode.NOTAUTH: Count.NOTAUTH,
    Rcode.BADVERS: Count.BADVERS,
}
_REFUSED: Final = Verdict(Rcode.REFUSED, is_authoritative=False)
_SERVFAIL: Final = Verdict(Rcode.SERVFAIL, is_authoritative=False)
_NXDOMAIN: Final = Verdict(Rcode.NXDOMAIN, denies=True)
_NODATA: Final = Verdict(Rcode.NOERROR, denies=True)
_SLIPPED: Final = Verdict(Rcode.NOERROR)


class Answerer:
    """Answers for one zone. Not for several threads at once."""

    def __init__(self, zone: Zone, chooser: Chooser, settings: DnsSettings, limiter: Limiter) -> None:
        self._zone = zone
        self._chooser = chooser
        self._payload_bytes = settings.payload_bytes
        self._uses_subnets = settings.ecs
        self._limiter = limiter
        self._builder = Builder(zone.denial, settings.payload_bytes)
        self._counts = dict.fromkeys(Count, 0)
        self.counts: Final[Mapping[Count, int]] = MappingProxyType(self._counts)

    def count(self, what: Count) -> None:
        """For what only those who carry packets can see."""
        self._counts[what] += 1

    def answer(self, packet: bytes, peer: bytes, transport: Transport, now: float) -> bytes | None:
        """The answer to `packet` from the packed address `peer` (4 or 16 bytes); None: say nothing."""
        counts = self._counts
        is_udp = transport is Transport.UDP
        counts[Count.UDP if is_udp else Count.TCP] += 1
        read = read_common(packet) or self._read_otherwise(packet)
        if read is None:
            counts[Count.SILENT] += 1
            return None
        if isinstance(read, Fault):
            return self._fault(read, peer, transport, now)
        query, subnet = read, None
        edns = query.edns
        if edns is not None and edns.ecs:
            if self._uses_subnets:
                try:
                    subnet = subnet_of(edns)
                except ValueError:
                    malformed = fault(packet, Rcode.FORMERR, query.question, edns)
                    return self._fault(malformed, peer, transport, now)
                counts[Count.SUBNET] += 1
            else:
                query = replace(query, edns=replace(edns, ecs=()))

        meaning = self._zone.meaning(query.name)
        host = self._chooser.host(meaning.word) if meaning.kind is Kind.APPLIANCE else None
        # Before the ranking is asked: a flood shall not cost what an answer costs.
        if is_udp and (ruling := self._limiter.rule(peer, _class(query, meaning, host), now)) is not Ruling.SEND:
            if ruling is Ruling.DROP:
                counts[Count.LIMITED] += 1
                return None
            counts[Count.SLIPPED] += 1
            return self._builder.truncated(query, _REFUSED if _is_refused(query, meaning) else _SLIPPED)
        verdict = self._decide(query, meaning, host, subnet, peer, now)
        return self._build(query, verdict, room(query.edns, self._payload_bytes) if is_udp else _TCP_BYTES)

    def failed(self, packet: bytes) -> bytes:
        """The answer to a packet on which `answer` raised: a resolver does better to try another server at once."""
        self._counts[Count.FAILED] += 1
        return self._builder.fault(fault(packet, Rcode.SERVFAIL))

    def _read_otherwise(self, packet: bytes) -> Query | Fault | None:
        if is_silent(packet):
            return None
        wrong = fault_of_header(packet)
        if wrong is not None:
            return wrong
        self._counts[Count.UNCOMMON] += 1
        return read_uncommon(packet)

    def _fault(self, fault: Fault, peer: bytes, transport: Transport, now: float) -> bytes | None:
        if transport is Transport.UDP and self._limiter.rule(peer, Class.ERROR, now) is not Ruling.SEND:
            # Nobody needs an error so badly that he would come again by TCP for it.
            self._counts[Count.LIMITED] += 1
            return None
        self._counts[_BY_RCODE[fault.rcode]] += 1
        return self._builder.fault(fault)

    def _decide(
        self, query: Query, meaning: Meaning, host: Choice | None, subnet: Subnet | None, peer: bytes, now: float
    ) -> Verdict:
        if _is_refused(query, meaning):
            return _REFUSED
        kind, asked = meaning.kind, query.type
        if kind is Kind.ABSENT or (kind is Kind.APPLIANCE and host is None):
            return _NXDOMAIN
        if asked == ANY:
            return Verdict(Rcode.NOERROR, answers=(refusal_of_any(query.name),))
        if kind is Kind.APEX:
            return self._at_the_apex(asked)
        if asked not in {A, AAAA} or kind is Kind.BETWEEN:
            return _NODATA
        if kind is Kind.NAME_SERVER:
            return _addresses(asked, Choice(meaning.ipv4, meaning.ipv6, APEX_TTL, 0))
        if host is not None:
            return _addresses(asked, host)
        client = subnet or Subnet(peer, len(peer) * 8)
        choice = self._chooser.choose(meaning.word, meaning.title, client.address, client.prefix, now)
        if choice is None:
            return _SERVFAIL
        return _addresses(asked, choice, choice.scope if subnet else 0)

    def _at_the_apex(self, asked: int) -> Verdict:
        if asked == SOA:
            return Verdict(Rcode.NOERROR, answers=(self._zone.soa,))
        if asked == NS:
            return Verdict(Rcode.NOERROR, answers=self._zone.servers, additional=self._zone.glue)
        return _NODATA

    def _build(self, query: Query, verdict: Verdict, most_bytes: int) -> bytes:
        if verdict.rcode is not Rcode.NOERROR:
            self._counts[_BY_RCODE[verdict.rcode]] += 1
        else:
            self._counts[Count.NODATA if verdict.denies else Count.ANSWERED] += 1
        if verdict.answers:
            packet = build_uncommon(query, verdict, self._zone.denial, self._payload_bytes, most_bytes)
        else:
            packet = self._builder.build(query, verdict, most_bytes)
        if is_truncated(packet):
            self._counts[Count.TRUNCATED] += 1
        return packet


def _is_refused(query: Query, meaning: Meaning) -> bool:
    return meaning.kind is Kind.OUTSIDE or query.cls != IN or query.type in {AXFR, IXFR}


def _class(query: Query, meaning: Meaning, host: Choice | None) -> Class:
    if _is_refused(query, meaning):
        return Class.REFUSAL
    if meaning.kind is Kind.ABSENT or (meaning.kind is Kind.APPLIANCE and host is None):
        return Class.DENIAL
    return Class.ANSWER


def _addresses(asked: int, choice: Choice, scope: int = 0) -> Verdict:
    """A denial has scope 0, since resolvers take it so (RFC 7871 section 7.4)."""
    addresses = choice.ipv4 if asked == A else choice.ipv6
    if not addresses:
        return _NODATA
    return Verdict(Rcode.NOERROR, addresses=addresses[:MOST_ADDRESSES], ttl=choice.ttl, scope=scope)
