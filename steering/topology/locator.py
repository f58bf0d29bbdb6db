"""Where a client is: in whose announced prefix, in which AS, and at which place, with how far around that holds.

An address that is not global (private, loopback, reserved and so on) has no place on the map, and no AS: databases that
list such addresses list them by mistake. It is still matched against announced prefixes. IPv6 addresses that only
carry an IPv4 address are looked up as that.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final, Protocol

from msgspec import Struct

from steering.topology.geo import NOWHERE as NO_PLACE
from steering.topology.geo import WIDEST, asn_of, place_of
from steering.topology.prefixes import Announced, text_of
from steering.topology.reach import Reach, reach_of, unwrapped

MOST_REMEMBERED: Final = 100_000
"""Networks whose answer is kept; about 400 bytes each."""

_BLOCK_V4: Final = 24
_BLOCK_V6: Final = 48
"""Prefix lengths of the memo's blocks: what the Internet routes, and a whole number of bytes."""


class Where(Struct, frozen=True, gc=False, kw_only=True):
    """Where one client is."""

    reach: Reach
    network: str | None = None
    """The longest announced prefix that holds the address."""
    sites: tuple[str, ...] = ()
    """Ids of those that announce it, in order."""
    asn: int | None = None
    country: str | None = None
    subdivision: str | None = None
    latitude: float | None = None
    """As the longitude None unless both are known, and mean a place."""
    longitude: float | None = None
    radius_km: float | None = None
    scope: int = 0
    """The shortest prefix length, in the client's own family, within which every address has this very answer."""


NOWHERE: Final = Where(reach=Reach.UNKNOWN)
"""Of a client whose address is not known."""


class Records(Protocol):
    """A database that is looked up by address, such as steering/topology/databases.py holds."""

    generation: int

    def find(self, address: IPv4Address | IPv6Address) -> tuple[object, int]:
        """The record or None, and the prefix length within which it is the same."""
        ...


class Locator:
    """Asks all tables, and remembers by network until one of them changes."""

    def __init__(
        self,
        announced: Announced,
        asns: Records,
        cities: Records,
        *,
        widest_km: float = WIDEST,
        most: int = MOST_REMEMBERED,
    ) -> None:
        """`widest_km`: see `geo.place_of`. `most`: networks that are remembered."""
        self._announced = announced
        self._asns = asns
        self._cities = cities
        self._widest_km = widest_km
        self._half = max(1, most // 2)
        self._generation = -1
        # Two halves: when the new one is full it becomes the old one, whose place it takes. What is asked for comes
        # over, the rest goes with the half. Keys are the first bytes of a block that has one answer, or an address.
        self._new: dict[bytes, Where] = {}
        self._old: dict[bytes, Where] = {}

    def __len__(self) -> int:
        """How many answers are remembered."""
        return len(self._new) + len(self._old)

    def locate(self, address: bytes) -> Where:
        """Where this address, of 4 or 16 bytes, is. Raises ValueError for any other length."""
        generation = self._announced.generation + self._asns.generation + self._cities.generation
        if generation != self._generation:
            self._generation = generation
            self._new.clear()
            self._old.clear()
        if len(address) == 4:
            block, widest = address[:3], _BLOCK_V4
        elif len(address) == 16:
            block, widest = address[:6], _BLOCK_V6
        else:
            raise ValueError(f"an address has 4 or 16 bytes, not {len(address)}")
        found = self._new.get(block) or self._new.get(address)
        if found is not None:
            return found
        found = self._old.get(block) or self._old.get(address) or self._found(address)
        if len(self._new) >= self._half:
            self._old = self._new
            self._new = {}
        self._new[block if found.scope <= widest else address] = found
        return found

    def _found(self, address: bytes) -> Where:
        inner, ahead = unwrapped(address)
        match = self._announced.find(inner)
        reach = reach_of(inner)
        assert reach.value is not None
        scope = max(match.scope, reach.scope)
        asn = None
        place = NO_PLACE
        if reach.value is Reach.GLOBAL:
            asked = IPv4Address(inner) if len(inner) == 4 else IPv6Address(inner)
            record, length = self._asns.find(asked)
            asn = asn_of(record)
            scope = max(scope, length)
            record, length = self._cities.find(asked)
            place = place_of(record, self._widest_km)
            scope = max(scope, length)
        return Where(
            reach=reach.value,
            network=None if match.network is None else text_of(match.network),
            sites=() if match.value is None else match.value.sites,
            asn=asn,
            country=place.country,
            subdivision=place.subdivision,
            latitude=place.latitude,
            longitude=place.longitude,
            radius_km=place.radius_km,
            scope=scope + ahead,
        )
