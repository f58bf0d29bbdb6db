"""What kind of address it is: the special-purpose registries of IANA (RFC 6890), as of 2025."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from steering.topology.prefixes import Found, Network, PrefixTable, network_of


class Reach(StrEnum):
    """From where an address can be reached. Only a GLOBAL one has a place on the map; any may lie in an announced
    prefix, because an operator may announce his own 10.0.0.0/8 or 100.64.0.0/10.
    """

    GLOBAL = "global"
    PRIVATE = "private"
    """RFC 1918, unique local IPv6 (RFC 4193), local-use translation (RFC 8215)."""
    SHARED = "shared"
    """Behind a carrier's NAT (RFC 6598)."""
    LOOPBACK = "loopback"
    LINK_LOCAL = "link_local"
    DOCUMENTATION = "documentation"
    BENCHMARK = "benchmark"
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    """0.0.0.0/8 and ::."""
    RESERVED = "reserved"
    """Whatever else no client has, IPv6 outside 2000::/3 included."""
    UNKNOWN = "unknown"
    """There is no address to go by."""


_REGISTRY: Final = {
    Reach.GLOBAL: ("0.0.0.0/0", "2000::/3"),
    Reach.PRIVATE: ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "64:ff9b:1::/48"),
    Reach.SHARED: ("100.64.0.0/10",),
    Reach.LOOPBACK: ("127.0.0.0/8", "::1/128"),
    Reach.LINK_LOCAL: ("169.254.0.0/16", "fe80::/10"),
    Reach.DOCUMENTATION: ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    Reach.BENCHMARK: ("198.18.0.0/15", "2001:2::/48"),
    Reach.MULTICAST: ("224.0.0.0/4", "ff00::/8"),
    Reach.UNSPECIFIED: ("0.0.0.0/8", "::/128"),
    # Protocol assignments (among them Teredo, whose clients are gone), the old 6to4 relays, and all that is
    # `unwrapped`: that stands here so that nothing beside it has a scope which holds it.
    Reach.RESERVED: (
        *("192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "::/0", "2001::/23"),
        *("2002::/16", "::ffff:0:0/96", "64:ff9b::/96"),
    ),
}
_TABLE: Final[PrefixTable[Reach]] = PrefixTable()
for _reach, _texts in _REGISTRY.items():
    for _text in _texts:
        _TABLE.put(network_of(_text), _reach)


def _all_of_octet(octet: int) -> Found[Reach] | None:
    found = _TABLE.find(bytes((octet, 0, 0, 0)))
    return found if found.scope <= 8 else None


_OCTETS: Final = tuple(_all_of_octet(octet) for octet in range(256))
"""What all IPv4 addresses with this first octet are, where they are alike: 1.5 µs less for most clients."""

_MAPPED: Final = bytes(10) + b"\xff\xff"
_NAT64: Final = b"\x00\x64\xff\x9b" + bytes(8)
_6TO4: Final = b"\x20\x02"


def reach_of(address: bytes) -> Found[Reach]:
    """The reach of an address of 4 or 16 bytes, and how far around it all addresses have the same."""
    return (_OCTETS[address[0]] if len(address) == 4 else None) or _TABLE.find(address)


def reach_of_all(network: Network) -> Reach | None:
    """The reach that all of `network` has; None if it holds several kinds."""
    found = _TABLE.find(network[0])
    return found.value if found.scope <= network[1] else None


def unwrapped(address: bytes) -> tuple[bytes, int]:
    """The IPv4 address inside an IPv6 one that only carries it, and the bits in front of it; else the address and 0.

    IPv4-mapped (RFC 4291), NAT64 with the well-known prefix (RFC 6052) and 6to4 (RFC 3056).
    """
    if len(address) == 16:
        head = address[:12]
        if head in {_MAPPED, _NAT64}:
            return address[12:], 96
        if address[:2] == _6TO4:
            return address[2:6], 16
    return address, 0
