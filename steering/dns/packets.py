"""DNS packets as bytes, by hand: the common query, and the answers it gets.

Common is one question without compression, alone or with one well-formed OPT record. Everything else goes through
`uncommon`, which reads into the same `Query` and builds from the same `Verdict`; tests hold one against the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct as Layout
from typing import Final

from msgspec import Struct

HEADER_BYTES: Final = 12
#: What may be sent to whoever does not say more (RFC 1035 section 2.3.4, RFC 6891 section 6.2.3).
PLAIN_BYTES: Final = 512
#: Queries are far shorter, padded ones too (RFC 8467 recommends 128).
MOST_QUERY_BYTES: Final = 4096

IN: Final = 1
A: Final = 1
NS: Final = 2
SOA: Final = 6
HINFO: Final = 13
AAAA: Final = 28
OPT: Final = 41
IXFR: Final = 251
AXFR: Final = 252
ANY: Final = 255

_HEADER: Final = Layout("!HHHHHH")
_OPT_HEAD: Final = Layout("!HBBHH")  # payload size, extended rcode, version, flags, length of the options
_RECORD_HEAD: Final = Layout("!HHHIH")  # pointer to the owner, type, class, TTL, length
_TYPE_AND_CLASS: Final = Layout("!HH")
_QR: Final = 0x8000
_OPCODE: Final = 0x7800
_AA: Final = 0x0400
_TC: Final = 0x0200
_RD: Final = 0x0100
_DO: Final = 0x8000
_ECS: Final = 8
_POINTER: Final = 0xC000
_LONGEST_NAME: Final = 255
_FAMILY_BITS: Final = {1: 32, 2: 128}


class Rcode(IntEnum):
    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    NOTAUTH = 9
    BADVERS = 16


class Edns(Struct, frozen=True, gc=False):
    """What an OPT record said (RFC 6891)."""

    payload_bytes: int
    version: int = 0
    wants_dnssec: bool = False
    """Only to be repeated in the answer (RFC 3225): the zone is not signed."""
    ecs: tuple[bytes, ...] = ()
    """Every client subnet option, as it came: nothing in it was checked."""


class Query(Struct, frozen=True, gc=False):
    """One question. `question` is as it came, spelling included; `name` is its name in lower case, in wire form."""

    id: int
    wants_recursion: bool
    question: bytes
    name: bytes
    type: int
    cls: int
    edns: Edns | None = None


class Fault(Struct, frozen=True, gc=False):
    """A packet that gets an error and nothing else. `question` is empty where it could not be read."""

    id: int
    opcode: int
    wants_recursion: bool
    rcode: Rcode
    question: bytes = b""
    edns: Edns | None = None


class Subnet(Struct, frozen=True, gc=False):
    """Whom a resolver asks for (RFC 7871). `address` is packed, 4 or 16 bytes, zero beyond `prefix`."""

    address: bytes
    prefix: int


class Record(Struct, frozen=True, gc=False):
    """A resource record of class IN. `name`, and all names in `data`, are in wire form without compression."""

    name: bytes
    type: int
    ttl: int
    data: bytes


class Verdict(Struct, frozen=True, gc=False):
    """What is to be said about a query, before it is bytes."""

    rcode: Rcode
    is_authoritative: bool = True
    addresses: tuple[bytes, ...] = ()
    """Of the question's type, A or AAAA, for the name in the question."""
    ttl: int = 0
    """Of the addresses."""
    scope: int = 0
    """For the client subnet option, which is repeated where the query has one."""
    denies: bool = False
    """NXDOMAIN or NODATA: the SOA record goes along, so that resolvers may remember it (RFC 2308)."""
    answers: tuple[Record, ...] = ()
    """Anything else than addresses of the name in the question."""
    additional: tuple[Record, ...] = ()


def is_silent(packet: bytes) -> bool:
    """Whether nothing may be said: no whole header, or an answer. Two servers that answer answers talk for ever."""
    return len(packet) < HEADER_BYTES or packet[2] & 0x80 != 0


def fault_of_header(packet: bytes) -> Fault | None:
    """What is wrong with the header of a packet that is not met with silence; None: read on.

    Behind another opcode nothing is as in a query. A count of questions other than one is malformed (RFC 9619).
    """
    flags, questions = _HEADER.unpack_from(packet)[1:3]
    if flags & _OPCODE:
        return fault(packet, Rcode.NOTIMP)
    return fault(packet, Rcode.FORMERR) if questions != 1 else None


def fault(packet: bytes, rcode: Rcode, question: bytes = b"", edns: Edns | None = None) -> Fault:
    """The fault for a packet with a whole header."""
    number, flags = _HEADER.unpack_from(packet)[:2]
    return Fault(number, (flags & _OPCODE) >> 11, bool(flags & _RD), rcode, question, edns)


def read_common(packet: bytes) -> Query | None:
    """The query, or None: not a common one, which does not mean that it is wrong."""
    size = len(packet)
    if size < HEADER_BYTES + 5:
        return None
    number, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(packet)
    if flags & (_QR | _OPCODE) or questions != 1 or answers or authorities or additionals > 1:
        return None
    at = HEADER_BYTES
    while length := packet[at]:
        at += length + 1
        if length > 63 or at >= size:
            return None
    stop = at + 5
    if stop > size or at - HEADER_BYTES >= _LONGEST_NAME:
        return None
    kind, cls = _TYPE_AND_CLASS.unpack_from(packet, at + 1)
    if additionals:
        edns = _read_edns(packet, stop)
        if edns is None:
            return None
    elif stop != size:
        return None
    else:
        edns = None
    # Lengths of labels are below 64, so lower() touches letters only.
    name = packet[HEADER_BYTES : at + 1].lower()
    return Query(number, bool(flags & _RD), packet[HEADER_BYTES:stop], name, kind, cls, edns)


def _read_edns(packet: bytes, start: int) -> Edns | None:
    """What the OPT record from `start` to the packet's end says; None if it is not one, whole, of version 0."""
    size = len(packet)
    if size < start + 11 or packet[start : start + 3] != b"\0\0\x29":
        return None
    payload, _, version, flags, length = _OPT_HEAD.unpack_from(packet, start + 3)
    at = start + 11
    if version or size != at + length:
        return None
    if not length:
        return Edns(payload, 0, bool(flags & _DO))
    options = options_of(packet[at:])
    if options is None:
        return None
    return Edns(payload, 0, bool(flags & _DO), tuple([body for code, body in options if code == _ECS]))


def options_of(body: bytes) -> list[tuple[int, bytes]] | None:
    """The options of an OPT record, each with its code; None if their lengths do not add up."""
    options = []
    at = 0
    while at < len(body):
        if at + 4 > len(body):
            return None
        code, length = _TYPE_AND_CLASS.unpack_from(body, at)
        at += 4 + length
        if at > len(body):
            return None
        options.append((code, body[at - length : at]))
    return options


def subnet_of(edns: Edns) -> Subnet | None:
    """The client's network, or None where the option keeps it back (a source prefix of 0: RFC 7871 section 7.1.2).

    Raises ValueError for an option that breaks RFC 7871 section 6, or for two of them. Family 0 with a prefix of 0 is
    accepted, as BIND does and as old versions of dig send it.
    """
    (option,) = edns.ecs
    if len(option) < 4:
        raise ValueError("the option is cut short")
    family, prefix, scope, address = option[1], option[2], option[3], option[4:]
    if option[0] or (family not in _FAMILY_BITS and (family or prefix)):
        raise ValueError("unknown address family")
    if scope:
        raise ValueError("a query has no scope")
    if not prefix:
        if address:
            raise ValueError("address longer than its prefix")
        return None
    bits = _FAMILY_BITS[family]
    if prefix > bits or len(address) != (prefix + 7) // 8:
        raise ValueError("prefix and address do not fit")
    if address[-1] & (0xFF >> ((prefix - 1) % 8 + 1)):
        raise ValueError("bits are set beyond the prefix")
    return Subnet(address.ljust(bits // 8, b"\0"), prefix)


def scoped(option: bytes, scope: int) -> bytes:
    """The client subnet option of an answer: that of the query, with `scope`."""
    return option[:3] + bytes((scope,)) + option[4:]


def room(edns: Edns | None, payload_bytes: int) -> int:
    """How many bytes a UDP answer to this query may have, with `payload_bytes` as our own most."""
    if edns is None:
        return PLAIN_BYTES
    return min(max(edns.payload_bytes, PLAIN_BYTES), payload_bytes)


def is_truncated(answer: bytes) -> bool:
    return answer[2] & (_TC >> 8) != 0


class Builder:
    """Makes answers for one zone."""

    __slots__ = ("_payload_bytes", "_soa", "_tails", "_zone")

    def __init__(self, soa: Record, payload_bytes: int) -> None:
        """`soa` is the zone's record as it stands in negative answers; `payload_bytes` is what we say we receive."""
        self._zone = soa.name
        self._soa = soa
        self._payload_bytes = payload_bytes
        # Where the zone's name begins in the question, to the SOA record with pointers there: 250 of them at most.
        self._tails: dict[int, bytes] = {}

    def build(self, query: Query, verdict: Verdict, most_bytes: int) -> bytes:
        """The answer where there are addresses or nothing; with TC, and only the question, if it would not fit."""
        question = query.question
        edns = b"" if query.edns is None else self._edns(query.edns, verdict)
        flags = _QR | verdict.rcode
        if verdict.is_authoritative:
            flags |= _AA
        if query.wants_recursion:
            flags |= _RD
        addresses = verdict.addresses
        if addresses:
            # The owner of every record is the question's name, which stands right behind the header.
            head = _RECORD_HEAD.pack(_POINTER | HEADER_BYTES, query.type, IN, verdict.ttl, len(addresses[0]))
            records = head + head.join(addresses)
        elif verdict.denies:
            records = self._denial(len(question))
        else:
            records = b""
        if HEADER_BYTES + len(question) + len(records) + len(edns) > most_bytes:
            return self.truncated(query, verdict)
        counts = (len(addresses), 1 if records and not addresses else 0, 1 if edns else 0)
        return _HEADER.pack(query.id, flags, 1, *counts) + question + records + edns

    def truncated(self, query: Query, verdict: Verdict) -> bytes:
        """The same answer without its records: whoever it is meant for comes again by TCP."""
        edns = b"" if query.edns is None else self._edns(query.edns, verdict)
        flags = _QR | _TC | verdict.rcode
        if verdict.is_authoritative:
            flags |= _AA
        if query.wants_recursion:
            flags |= _RD
        return _HEADER.pack(query.id, flags, 1, 0, 0, 1 if edns else 0) + query.question + edns

    def fault(self, fault: Fault) -> bytes:
        """The answer to a fault. A client subnet is not repeated: it was not used, or is what is wrong."""
        edns = b"" if fault.edns is None else self._opt(fault.edns, fault.rcode >> 4, b"")
        flags = _QR | fault.opcode << 11 | fault.rcode & 0xF
        if fault.wants_recursion:
            flags |= _RD
        counts = (1 if fault.question else 0, 0, 0, 1 if edns else 0)
        return _HEADER.pack(fault.id, flags, *counts) + fault.question + edns

    def _edns(self, edns: Edns, verdict: Verdict) -> bytes:
        options = b""
        if edns.ecs:
            option = scoped(edns.ecs[0], verdict.scope)
            options = _TYPE_AND_CLASS.pack(_ECS, len(option)) + option
        return self._opt(edns, 0, options)

    def _opt(self, edns: Edns, extended_rcode: int, options: bytes) -> bytes:
        flags = _DO if edns.wants_dnssec else 0
        head = _OPT_HEAD.pack(self._payload_bytes, extended_rcode, 0, flags, len(options))
        return b"\0\0\x29" + head + options

    def _denial(self, question_bytes: int) -> bytes:
        zone_at = HEADER_BYTES + question_bytes - 4 - len(self._zone)
        tail = self._tails.get(zone_at)
        if tail is None:
            tail = self._tails[zone_at] = self._soa_with_pointers(zone_at)
        return tail

    def _soa_with_pointers(self, zone_at: int) -> bytes:
        names, numbers = self._soa.data[:-20], self._soa.data[-20:]
        stop = name_stop(names)
        data = self._short(names[:stop], zone_at) + self._short(names[stop:], zone_at) + numbers
        return _RECORD_HEAD.pack(_POINTER | zone_at, SOA, IN, self._soa.ttl, len(data)) + data

    def _short(self, name: bytes, zone_at: int) -> bytes:
        """`name` with a pointer in place of what it shares with the zone's name, which begins at `zone_at`."""
        endings = {self._zone[at:]: zone_at + at for at in label_starts(self._zone)}
        for at in label_starts(name):
            shared_at = endings.get(name[at:])
            if shared_at is not None:
                return name[:at] + (_POINTER | shared_at).to_bytes(2, "big")
        return name


def label_starts(name: bytes) -> Iterator[int]:
    """Where the labels of a name in wire form begin, without that of the root."""
    at = 0
    while name[at]:
        yield at
        at += name[at] + 1


def name_stop(names: bytes) -> int:
    """Where the first name in wire form ends, without compression."""
    return sum(names[at] + 1 for at in label_starts(names)) + 1
