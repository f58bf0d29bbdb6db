"""The fleet as the planner needs it: sites, who is behind whom, appliances, and where in the day each site is."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from fill.errors import InputError
from fill.settings import FleetSource
from wire.codec import WireError, decode, encode

FLEET: Final = "fleet.json"
"""In the lake."""
_DEADLINE: Final = 60.0
_MOST_BYTES: Final = 256 * 1024 * 1024
"""Twenty thousand appliances with a million prefixes are 60 MB."""


class Site(Struct, frozen=True, kw_only=True, gc=False):
    id: str
    country: str
    timezone: str
    parent: str | None = None
    """The site that its misses are fetched from."""


class Appliance(Struct, frozen=True, kw_only=True, gc=False):
    id: str
    site: str
    url: str
    capacity_bps: int | None = None


class Fleet(Struct, frozen=True, kw_only=True):
    sites: tuple[Site, ...]
    appliances: tuple[Appliance, ...]


class _Site(Struct):
    """Of GET /v1/inventory; other fields are nobody's business here."""

    id: str
    country: str
    longitude: float
    parent: str | None = None


class _Appliance(Struct):
    id: str
    site: str
    url: str
    capacity: int | None = None


class _Inventory(Struct):
    site: list[_Site]
    appliance: list[_Appliance]


def fleet_of(source: FleetSource) -> Fleet:
    """Ask steering, or read the file. Raises `InputError`."""
    try:
        if source.steering is not None:
            where = f"{source.steering.rstrip('/')}/v1/inventory"
            with urllib.request.urlopen(where, timeout=_DEADLINE) as answer:  # noqa: S310 - http(s), by the settings
                body = answer.read(_MOST_BYTES + 1)
        else:
            assert source.file is not None
            where = source.file
            with Path(where).open("rb") as file:
                body = file.read(_MOST_BYTES + 1)
    except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
        raise InputError(f"{where}: the fleet can't be had: {error}") from error
    if len(body) > _MOST_BYTES:
        raise InputError(f"{where}: more than {_MOST_BYTES} bytes")
    try:
        inventory = decode(body, _Inventory)
    except WireError as error:
        raise InputError(f"{where}: {error}") from error
    return fleet_from(inventory.site, inventory.appliance, source.timezones, where)


def fleet_from(
    sites: list[_Site], appliances: list[_Appliance], timezones: dict[str, str], where: str = "the inventory"
) -> Fleet:
    """In the order of ids. Raises `InputError` for parents that go in a circle, and for sites that are missing."""
    known = {site.id: site for site in sites}
    for site in sites:
        above, seen = site, {site.id}
        while above.parent is not None:
            if above.parent not in known:
                raise InputError(f"{where}: site {above.id!r} has parent {above.parent!r}, which is no site")
            if above.parent in seen:
                raise InputError(f"{where}: parents of site {site.id!r} go in a circle")
            seen.add(above.parent)
            above = known[above.parent]
    for appliance in appliances:
        if appliance.site not in known:
            raise InputError(f"{where}: appliance {appliance.id!r} is at {appliance.site!r}, which is no site")
    return Fleet(
        sites=tuple(
            Site(
                id=site.id,
                country=site.country,
                timezone=timezones.get(site.id) or timezones.get(site.country) or zone_at(site.longitude),
                parent=site.parent,
            )
            for site in sorted(sites, key=lambda site: site.id)
        ),
        appliances=tuple(
            Appliance(id=one.id, site=one.site, url=one.url.rstrip("/"), capacity_bps=one.capacity)
            for one in sorted(appliances, key=lambda one: one.id)
        ),
    )


def zone_at(longitude: float) -> str:
    """A zone without summer time in which noon is noon, more or less: good enough to know when people watch films."""
    hours = round(longitude / 15)
    # The names of these zones count westwards.
    return "Etc/GMT" if hours == 0 else f"Etc/GMT{-hours:+d}"


def save(fleet: Fleet, lake: Path) -> None:
    (lake / FLEET).write_bytes(encode(fleet))


def load(lake: Path) -> Fleet:
    """Raises `InputError`."""
    path = lake / FLEET
    try:
        return msgspec.json.decode(path.read_bytes(), type=Fleet)
    except (OSError, msgspec.DecodeError) as error:
        raise InputError(f"{path}: can't be read: {error}") from error
