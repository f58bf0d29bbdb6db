"""Which sites could serve a client, the nearest kind first: the inventory seen from one place.

Worked out once for each place and remembered until the inventory or the announced prefixes change: thousands of
clients share one announced prefix, one autonomous system in one city, or one country.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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


class Neighbourhood:
    """Sites around clients, for one inventory."""

    def __init__(self, inventory: Inventory, seed: int) -> None:
        self._sites = inventory.sites
        self._seed = seed
        self._of_asn: dict[int, list[Site]] = {}
        self._open: list[tuple[Site, tuple[float, float, float]]] = []
        for site in inventory.sites.values():
            if site.serves is not Serves.ANNOUNCED:
                for asn in inventory.operator_of(site.id).asns:
                    self._of_asn.setdefault(asn, []).append(site)
            if site.serves is Serves.EVERYONE:
                self._open.append((site, _direction(site.latitude, site.longitude)))
        self._near: dict[tuple[object, ...], tuple[Near, ...]] = {}

    def near(self, where: Whereabouts, spread: int = 0) -> tuple[Near, ...]:
        """Sites for this client. `spread` is drawn from the client's network: where nobody knows the place, clients
        are spread over all sites that are open to everyone, and each network keeps to its own.
        """
        cell = _cell(where.latitude, where.longitude)
        spread = spread % _SPREADS if cell is None else 0
        key = (where.sites, where.asn if where.asn in self._of_asn else None, where.country, cell, spread)
        known = self._near.get(key)
        if known is None:
            if len(self._near) >= _PLACES:
                self._near.clear()
            known = self._near[key] = tuple(self._around(where, cell, spread))
        return known

    def _around(self, where: Whereabouts, cell: tuple[int, int] | None, spread: int) -> Iterable[Near]:
        place = None if cell is None else ((cell[0] + 0.5) / _CELL, (cell[1] + 0.5) / _CELL)
        seen: set[str] = set()
        announcing = [self._sites[name] for name in where.sites if name in self._sites]
        yield from self._sorted(announcing, place, Proximity.PREFIX, seen)
        if where.asn is not None:
            yield from self._sorted(self._of_asn.get(where.asn, ()), place, Proximity.NETWORK, seen)
        if place is not None:
            here = _direction(*place)
            nearest = sorted(self._open, key=lambda row: -_dot(row[1], here))[: 2 * _SITES]
            yield from self._sorted([site for site, _ in nearest], place, Proximity.PLACE, seen)
        else:
            yield from self._spread(where.country, spread, seen)

    def _sorted(
        self, sites: Sequence[Site], place: tuple[float, float] | None, kind: Proximity, seen: set[str]
    ) -> Iterable[Near]:
        rows = []
        for site in sites:
            if site.id not in seen:
                seen.add(site.id)
                km = None if place is None else great_circle_km(site.latitude, site.longitude, *place)
                rows.append((site.id, kind, rtt_ms(km, kind)))
        rows.sort(key=lambda row: (row[2], row[0]))
        return rows[:_SITES]

    def _spread(self, country: str | None, spread: int, seen: set[str]) -> Iterable[Near]:
        """Nobody knows where the client is: sites of its country first, if that is known, in an order of its own."""
        rows = [
            (site.country != country, mixed(mixed_name(site.id) ^ self._seed ^ spread), site.id)
            for site, _ in self._open
            if site.id not in seen
        ]
        rows.sort()
        distance = rtt_ms(None, Proximity.ANYWHERE)
        # The order is the choice: more milliseconds for each place in it than the ranking takes for the same.
        return [
            (name, Proximity.ANYWHERE, distance + _STEP * number) for number, (_, _, name) in enumerate(rows[:_SITES])
        ]


def _cell(latitude: float | None, longitude: float | None) -> tuple[int, int] | None:
    if latitude is None or longitude is None:
        return None
    return math.floor(latitude * _CELL), math.floor(longitude * _CELL)


def _direction(latitude: float, longitude: float) -> tuple[float, float, float]:
    """The unit vector from the middle of the earth."""
    north, east = math.radians(latitude), math.radians(longitude)
    return math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)


def _dot(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
