"""Which sites could serve a client, the nearest kind first: the inventory seen from one place.

Worked out once for each place and remembered until the inventory or the announced prefixes change: thousands of
clients share one announced prefix, one autonomous system in one city, or one country.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import Final, Protocol

from steering.inventory import Inventory, Serves, Site
from steering.names import mixed, mixed_name
from steering.topology.distance import Proximity, great_circle_km, rtt_ms

Near = tuple[str, Proximity, float]
"""A site, how it was found, and the milliseconds of a round trip to it, estimated."""

_SPREADS: Final = 64
"""Orders among which networks of unknown place are shared."""
_STEP: Final = 4.0
_PLACES: Final = 65_536
_SITES: Final = 24
"""In one list, of each kind."""
_CELL: Final = 2.0
"""Cells to a degree: 55 km, half a millisecond of fibre."""


class Whereabouts(Protocol):
    """What must be known of a client (steering/topology/locator.py)."""

    @property
    def sites(self) -> tuple[str, ...]: ...
    @property
    def network(self) -> str | None: ...
    @property
    def asn(self) -> int | None: ...
    @property
    def country(self) -> str | None: ...
    @property
    def latitude(self) -> float | None: ...
    @property
    def longitude(self) -> float | None: ...
    @property
    def scope(self) -> int:
        """The shortest prefix length around the client within which everyone is where it is."""
        ...


class Neighbourhood:
    """Sites around clients, for one inventory."""

    def __init__(self, inventory: Inventory, seed: int) -> None:
        self._sites = inventory.sites
        self._of_asn: dict[int, list[Site]] = {}
        self._open: list[tuple[Site, tuple[float, float, float]]] = []
        for site in inventory.sites.values():
            if site.serves is not Serves.ANNOUNCED:
                for asn in inventory.operator_of(site.id).asns:
                    self._of_asn.setdefault(asn, []).append(site)
            if site.serves is Serves.EVERYONE:
                self._open.append((site, _direction(site.latitude, site.longitude)))
        self._mixes = {name: mixed(mixed_name(name) ^ seed) for name in self._sites}
        self._open_ids = frozenset(site.id for site, _ in self._open)
        self._own: dict[tuple[object, ...], tuple[tuple[Near, ...], frozenset[str]]] = {}
        """By what is announced, the network and the cell: the client's own sites, and which of them are open to
        everyone as well.
        """
        self._others: dict[tuple[object, ...], tuple[Near, ...]] = {}
        """By cell, or by country and spread where nobody knows the place: sites that are open to everyone."""

    def near(self, where: Whereabouts, spread: int = 0) -> tuple[Near, ...]:
        """Sites for this client. `spread` is drawn from the client's network: where nobody knows the place, clients
        are spread over all sites of their autonomous system and over those that are open to everyone, and each network
        keeps to its own.
        """
        cell = _cell(where.latitude, where.longitude)
        asn = where.asn if where.asn in self._of_asn else None
        spread = 0 if cell is not None else spread % _SPREADS
        key = (where.sites, asn, cell, spread)
        own = self._own.get(key)
        if own is None:
            if len(self._own) >= _PLACES:
                self._own.clear()
            own = self._own[key] = self._own_sites(where.sites, asn, cell, spread)
        others_key = cell or (where.country, spread)
        others = self._others.get(others_key)
        if others is None:
            if len(self._others) >= _PLACES:
                self._others.clear()
            others = self._around(cell) if cell is not None else self._spread(where.country, spread)
            self._others[others_key] = others
        sites, twice = own
        return sites + (others if not twice else tuple(near for near in others if near[0] not in twice))

    def _own_sites(
        self, sites: tuple[str, ...], asn: int | None, cell: tuple[int, int] | None, spread: int
    ) -> tuple[tuple[Near, ...], frozenset[str]]:
        place = _middle(cell)
        announcing = [self._sites[name] for name in sites if name in self._sites]
        # Who announces a prefix is near to all of it, so of several none comes before the others; but not all of a
        # hundred can be ranked, and these are not the same ones for everybody.
        if place is None:
            announcing.sort(key=lambda site: self._drawn(site, spread))
        own = self._sorted(announcing[:_SITES] if place is None else announcing, place, Proximity.PREFIX)
        if asn is not None:
            seen = set(sites)
            network = [site for site in self._of_asn[asn] if site.id not in seen]
            own += (
                self._sorted(network, place, Proximity.NETWORK)
                if place is not None
                else self._in_turn(network, Proximity.NETWORK, spread)
            )
        return tuple(own), self._open_ids.intersection(name for name, _, _ in own)

    def _around(self, cell: tuple[int, int]) -> tuple[Near, ...]:
        place = _middle(cell)
        assert place is not None
        here = _direction(*place)
        nearest = heapq.nsmallest(_SITES, self._open, key=lambda row: (-_dot(row[1], here), row[0].id))
        return tuple(self._sorted([site for site, _ in nearest], place, Proximity.PLACE))

    def _sorted(self, sites: Iterable[Site], place: tuple[float, float] | None, kind: Proximity) -> list[Near]:
        rows = []
        for site in sites:
            km = None if place is None else great_circle_km(site.latitude, site.longitude, *place)
            rows.append((site.id, kind, rtt_ms(km, kind)))
        rows.sort(key=lambda row: (row[2], row[0]))
        return rows[:_SITES]

    def _spread(self, country: str | None, spread: int) -> tuple[Near, ...]:
        """Nobody knows where the client is: sites of its country first, if that is known, in an order of its own."""
        here = [site for site, _ in self._open if site.country == country]
        elsewhere = [site for site, _ in self._open if site.country != country]
        return tuple(self._in_turn(here, Proximity.ANYWHERE, spread, elsewhere))

    def _in_turn(self, sites: Iterable[Site], kind: Proximity, spread: int, others: Iterable[Site] = ()) -> list[Near]:
        """In an order that is drawn for each network, and these before the others. The order is the choice: more
        milliseconds for each place in it than the ranking takes for the same.
        """
        order = sorted(sites, key=lambda site: self._drawn(site, spread))
        if len(order) < _SITES:
            order += sorted(others, key=lambda site: self._drawn(site, spread))
        distance = rtt_ms(None, kind)
        return [(site.id, kind, distance + _STEP * number) for number, site in enumerate(order[:_SITES])]

    def _drawn(self, site: Site, spread: int) -> tuple[int, str]:
        return mixed(self._mixes[site.id] ^ spread), site.id


def _cell(latitude: float | None, longitude: float | None) -> tuple[int, int] | None:
    if latitude is None or longitude is None:
        return None
    return math.floor(latitude * _CELL), math.floor(longitude * _CELL)


def _middle(cell: tuple[int, int] | None) -> tuple[float, float] | None:
    return None if cell is None else ((cell[0] + 0.5) / _CELL, (cell[1] + 0.5) / _CELL)


def _direction(latitude: float, longitude: float) -> tuple[float, float, float]:
    """The unit vector from the middle of the earth."""
    north, east = math.radians(latitude), math.radians(longitude)
    return math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)


def _dot(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
