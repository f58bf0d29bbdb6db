"""Where people live, who connects them, and where appliances stand: made from dice, the same for the same seed.

Not the real world, and shaped like it: 45 countries of about the size, place and appetite of real ones; cities by
Zipf; in each country five national ISPs, which have a third, a quarter, a sixth, a tenth and a twentieth of it, and
a dozen regional ones in a few cities each. A *market* is one ISP in one city. The largest markets have a site inside
the ISP; the largest cities have an exchange, whose site is open to everyone. Of an ISP's clients most are in prefixes
that its nearest site announces, some are known by their autonomous system and city only, a few by their country.

Sites are planned as people plan them: for the peak that their market had, at 55 to 95 % of the capacity, so that on a
usual evening some ISPs overflow. Exchanges have room for those without a site and a reserve for neighbours in need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec import Struct

from steering.inventory import Appliance, Inventory, Operator, PutAppliance, PutOperator, PutSite, Serves, Site, apply

SITES: Final = 5_000
APPLIANCES: Final = 20_000
_EXCHANGES: Final = 0.1
"""Of the sites."""

# Code, millions of people, how many of them stream (relative), latitude and longitude of the middle, half extents.
# The first are those to which something happens: small worlds have them too.
_COUNTRIES: Final = (
    ("DE", 83, 0.60, 51.0, 10.0, 3.0, 4.0), ("BR", 203, 0.35, -15.0, -48.0, 9.0, 7.0),
    ("US", 335, 0.70, 39.0, -95.0, 7.0, 24.0), ("JP", 124, 0.40, 36.0, 138.0, 3.0, 4.0),
    ("GB", 67, 0.65, 53.0, -1.5, 2.5, 1.8), ("FR", 66, 0.55, 47.0, 2.5, 3.5, 3.5),
    ("IN", 1400, 0.06, 21.0, 78.0, 9.0, 7.0), ("MX", 128, 0.35, 23.0, -102.0, 5.0, 8.0),
    ("ES", 48, 0.60, 40.0, -3.7, 3.0, 4.0), ("IT", 59, 0.45, 43.0, 12.0, 4.0, 3.5),
    ("KR", 52, 0.50, 36.5, 127.8, 1.5, 1.2), ("AU", 26, 0.70, -32.0, 144.0, 5.0, 8.0),
    ("CA", 39, 0.70, 46.0, -85.0, 2.5, 28.0), ("AR", 46, 0.40, -34.0, -63.0, 6.0, 4.0),
    ("PL", 38, 0.45, 52.0, 19.0, 2.5, 4.0), ("NL", 18, 0.70, 52.2, 5.2, 0.8, 1.2),
    ("TR", 85, 0.25, 39.0, 34.0, 2.0, 7.0), ("CO", 52, 0.30, 5.5, -74.5, 3.5, 2.0),
    ("ID", 275, 0.08, -6.5, 110.0, 2.0, 9.0), ("PH", 114, 0.15, 12.5, 122.5, 4.5, 2.0),
    ("SE", 10, 0.75, 59.0, 15.5, 3.0, 2.0), ("CL", 19, 0.45, -34.0, -71.0, 6.0, 0.8),
    ("ZA", 60, 0.20, -29.0, 26.0, 3.5, 5.0), ("TH", 71, 0.20, 14.5, 101.0, 4.0, 2.0),
    ("EG", 110, 0.08, 29.5, 31.2, 2.0, 1.0), ("SA", 36, 0.35, 24.0, 44.0, 3.0, 5.0),
    ("TW", 24, 0.45, 24.2, 121.0, 1.0, 0.6), ("MY", 33, 0.30, 3.5, 102.0, 1.8, 1.2),
    ("PT", 10, 0.55, 39.8, -8.3, 1.8, 0.6), ("BE", 12, 0.55, 50.8, 4.5, 0.5, 1.2),
    ("CH", 9, 0.60, 47.0, 8.0, 0.6, 1.3), ("AT", 9, 0.55, 47.6, 14.2, 0.8, 2.2),
    ("CZ", 10, 0.40, 49.8, 15.3, 0.8, 2.0), ("RO", 19, 0.30, 45.8, 25.0, 1.5, 2.5),
    ("GR", 10, 0.40, 38.8, 22.8, 1.8, 1.5), ("HU", 10, 0.35, 47.2, 19.4, 0.8, 2.0),
    ("FI", 6, 0.70, 61.5, 25.5, 1.5, 2.5), ("NO", 5, 0.75, 60.5, 9.0, 2.0, 2.0),
    ("DK", 6, 0.75, 55.8, 10.2, 0.8, 1.8), ("IE", 5, 0.65, 53.2, -7.5, 1.0, 1.2),
    ("NZ", 5, 0.65, -40.0, 174.5, 3.5, 2.0), ("PE", 34, 0.25, -10.5, -76.0, 4.0, 2.0),
    ("NG", 220, 0.03, 9.0, 7.5, 2.5, 3.0), ("VN", 98, 0.12, 15.5, 107.0, 5.0, 1.0),
    ("AE", 10, 0.55, 24.6, 54.9, 0.6, 0.8),
)  # fmt: skip
_NATIONAL: Final = (0.34, 0.24, 0.16, 0.10, 0.05)
_REGIONAL: Final = 12
"""ISPs of a few cities each, which share what the national ones leave."""
_REGIONAL_CITIES: Final = 4
_ANNOUNCED: Final = 0.88
_BY_NETWORK: Final = 0.10
"""Of clients; the others are known by country alone."""
VARIANTS: Final = 3


class Where(Struct, frozen=True, gc=False):
    """What steering knows of a client."""

    sites: tuple[str, ...]
    network: str | None
    asn: int | None
    country: str | None
    latitude: float | None
    longitude: float | None


@dataclass(frozen=True)
class Markets:
    """One row each: an ISP in a city."""

    isp: np.ndarray
    city: np.ndarray
    country: np.ndarray
    """Index of `codes`."""
    latitude: np.ndarray
    longitude: np.ndarray
    demand: np.ndarray
    """Relative."""
    codes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.isp)

    def of_country(self, *codes: str) -> np.ndarray:
        """Whether each is in one of these."""
        return np.isin(self.country, [self.codes.index(code) for code in codes if code in self.codes])


@dataclass(frozen=True)
class World:
    markets: Markets
    inventory: Inventory
    site_names: tuple[str, ...]
    site_isp: np.ndarray
    """-1 for exchanges."""
    site_market: np.ndarray
    """The market in which it stands; of an exchange the largest of its city."""
    names: tuple[str, ...]
    """Of appliances."""
    site_of: np.ndarray
    """Of each appliance, its site."""
    capacity: np.ndarray
    """Of each appliance, in bits a second."""
    home: np.ndarray
    """Of each market, the site that was planned to serve it."""
    wheres: tuple[Where, ...]
    """`VARIANTS` for each market: in an announced prefix, by network and city, by country."""


def markets(scale: float, seed: int) -> Markets:
    """At scale 1 some 6,600."""
    dice = np.random.default_rng([seed, 1])
    shrink = scale**0.5
    countries = _COUNTRIES[: max(3, round(len(_COUNTRIES) * shrink))]
    rows: list[tuple[int, int, int, float, float, float]] = []
    isps = cities = 0
    for number, (_, people, share, latitude, longitude, high, wide) in enumerate(countries):
        count = max(3, round(min(60.0, max(6.0, 3.2 * people**0.5)) * shrink))
        sizes = 1.0 / np.arange(1, count + 1) ** 0.8
        sizes *= people * share / sizes.sum()
        north = latitude + dice.uniform(-high, high, count)
        east = longitude + dice.uniform(-wide, wide, count)
        regional = max(1, round(_REGIONAL * shrink))
        for isp in range(len(_NATIONAL) + regional):
            is_national = isp < len(_NATIONAL)
            part = _NATIONAL[isp] if is_national else (1.0 - sum(_NATIONAL)) / regional
            present = range(count) if is_national else dice.choice(count, min(count, _REGIONAL_CITIES), replace=False)
            # Who is in few cities has more of these.
            part *= 1.0 if is_national else sizes.sum() / sizes[present].sum() * 0.5
            rows += [
                (isps, cities + city, number, north[city], east[city], sizes[city] * part * dice.lognormal(0.0, 0.3))
                for city in present
            ]
            isps += 1
        cities += count
    table = np.array(rows)
    return Markets(
        isp=table[:, 0].astype(np.int32),
        city=table[:, 1].astype(np.int32),
        country=table[:, 2].astype(np.int32),
        latitude=table[:, 3],
        longitude=table[:, 4],
        demand=table[:, 5],
        codes=tuple(row[0] for row in countries),
    )


def variant(dice: np.random.Generator, count: int) -> np.ndarray:
    """How much is known of so many clients."""
    return np.searchsorted(np.array([_ANNOUNCED, _ANNOUNCED + _BY_NETWORK]), dice.random(count)).astype(np.int32)


def world(made: Markets, peaks: np.ndarray, scale: float, seed: int) -> World:
    """`peaks` is what each market read through a usual day: bits a second, one column for each quarter of an hour."""
    dice = np.random.default_rng([seed, 2])
    exchanges = max(3, round(SITES * scale * _EXCHANGES))
    embedded = min(len(made), round(SITES * scale) - exchanges)
    inside = np.argsort(-made.demand, kind="stable")[:embedded]
    by_city = np.bincount(made.city, weights=made.demand)
    # One at least in each country, or its overflow would cross a continent.
    of_city = np.zeros(len(by_city), np.int32)
    of_city[made.city] = made.country
    best = [int(np.argmax(np.where(of_city == number, by_city, 0.0))) for number in range(len(made.codes))]
    order = [city for city in np.argsort(-by_city, kind="stable") if city not in best]
    open_cities = (best + order)[:exchanges] if exchanges >= len(best) else best
    largest = {city: int(np.argmax(np.where(made.city == city, made.demand, 0.0))) for city in open_cities}
    stands_in = np.array([*inside, *(largest[city] for city in open_cities)])
    isp = np.array([*made.isp[inside], *([-1] * len(open_cities))])
    latitude = made.latitude[stands_in] + dice.uniform(-0.1, 0.1, len(stands_in))
    longitude = made.longitude[stands_in] + dice.uniform(-0.1, 0.1, len(stands_in))

    home = _homes(made, isp, latitude, longitude)
    planned = np.zeros((len(stands_in), peaks.shape[1]))
    np.add.at(planned, home, peaks)
    planned_for = planned.max(axis=1) / dice.uniform(0.55, 0.95, len(stands_in))
    # What neighbours of an exchange would need, were they in trouble.
    nearest = _nearest(made.latitude, made.longitude, latitude[embedded:], longitude[embedded:]) + embedded
    reserve = np.zeros_like(planned)
    np.add.at(reserve, nearest, peaks)
    planned_for[embedded:] = (planned.max(axis=1) / 0.7 + 0.35 * reserve.max(axis=1))[embedded:]
    planned_for = np.maximum(planned_for, 1e10)

    counts = _counts(planned_for, max(2 * len(stands_in), round(APPLIANCES * scale)))
    site_of = np.repeat(np.arange(len(stands_in)), counts)
    # Two generations of machines stand side by side.
    sizes = dice.choice([1.0, 1.0, 2.0], len(site_of))
    capacity = planned_for[site_of] * sizes / np.bincount(site_of, weights=sizes)[site_of]
    capacity = np.maximum(np.round(capacity / 1e8) * 1e8, 1e8)
    site_names = tuple(
        f"{made.codes[made.country[market]]}-{'ix' if owner < 0 else owner}-{number}".lower()
        for number, (market, owner) in enumerate(zip(stands_in, isp, strict=True))
    )
    serial = np.arange(len(site_of)) - np.concatenate([[0], np.cumsum(counts)[:-1]])[site_of]
    names = tuple(f"{site_names[site]}-a{number}" for site, number in zip(site_of, serial, strict=True))
    places = zip(latitude, longitude, strict=True)
    inventory = _inventory(made, stands_in, isp, tuple(places), site_names, site_of, names, capacity)
    return World(
        markets=made,
        inventory=inventory,
        site_names=site_names,
        site_isp=isp,
        site_market=stands_in,
        names=names,
        site_of=site_of,
        capacity=capacity,
        home=home,
        wheres=_wheres(made, home, isp, site_names),
    )


def _homes(made: Markets, isp: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """For each market the nearest site of its ISP, or else the nearest exchange."""
    home = np.zeros(len(made), np.int32)
    open_sites = np.nonzero(isp < 0)[0]
    for owner in np.unique(made.isp):
        mine = np.nonzero(made.isp == owner)[0]
        sites = np.nonzero(isp == owner)[0]
        sites = sites if len(sites) else open_sites
        home[mine] = sites[_nearest(made.latitude[mine], made.longitude[mine], latitude[sites], longitude[sites])]
    return home


def _nearest(latitude: np.ndarray, longitude: np.ndarray, to_latitude: np.ndarray, to_longitude: np.ndarray):
    return np.argmax(_directions(latitude, longitude) @ _directions(to_latitude, to_longitude).T, axis=1)


def _directions(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    north, east = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1)


def _counts(planned: np.ndarray, total: int) -> np.ndarray:
    """Appliances of each site: by the root of what it carries, two at least, `total` together."""
    share = planned**0.5
    counts = np.maximum(2, np.floor(total * share / share.sum()).astype(int))
    order = np.argsort(-planned, kind="stable")
    position = 0
    while counts.sum() != total:
        step = 1 if counts.sum() < total else -1
        site = order[position % len(order)]
        if counts[site] + step >= 2:
            counts[site] += step
        position += 1
    return counts


def _inventory(
    made: Markets,
    stands_in: np.ndarray,
    isp: np.ndarray,
    places: tuple[tuple[float, float], ...],
    site_names: tuple[str, ...],
    site_of: np.ndarray,
    names: tuple[str, ...],
    capacity: np.ndarray,
) -> Inventory:
    operators = [PutOperator(Operator(id=f"isp-{owner}", asns=(asn(owner),))) for owner in np.unique(made.isp)]
    operators.append(PutOperator(Operator(id="exchanges")))
    sites = [
        PutSite(
            Site(
                id=name,
                operator="exchanges" if owner < 0 else f"isp-{owner}",
                latitude=float(latitude),
                longitude=float(longitude),
                country=made.codes[made.country[market]],
                serves=Serves.EVERYONE if owner < 0 else Serves.NETWORK,
            )
        )
        for name, owner, market, (latitude, longitude) in zip(site_names, isp, stands_in, places, strict=True)
    ]
    appliances = [
        PutAppliance(Appliance(id=name, site=site_names[site], url=f"https://{name}.edge.example", capacity=int(bits)))
        for name, site, bits in zip(names, site_of, capacity, strict=True)
    ]
    return apply(Inventory(), *operators, *sites, *appliances)


def _wheres(made: Markets, home: np.ndarray, isp: np.ndarray, site_names: tuple[str, ...]) -> tuple[Where, ...]:
    wheres = []
    for market in range(len(made)):
        country = made.codes[made.country[market]]
        place = float(made.latitude[market]), float(made.longitude[market])
        number = asn(made.isp[market])
        site = home[market]
        announced = (site_names[site],) if isp[site] >= 0 else ()
        network = f"market-{market}" if announced else None
        wheres += [
            Where(announced, network, number, country, *place),
            Where((), None, number, country, *place),
            # Neither prefix nor system is in any table.
            Where((), None, None, country, None, None),
        ]
    return tuple(wheres)


def asn(isp: int) -> int:
    return 64_512 + int(isp)
