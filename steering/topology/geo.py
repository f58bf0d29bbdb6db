"""What a record of an ASN or city database says, and what it does not.

The records come from files that others make, in MaxMind's layout (GeoLite2, GeoIP2, DB-IP): each field may be absent
or of another type than expected, and then it is as if it were absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

WIDEST: Final = 500.0
"""Kilometres of accuracy radius from which on coordinates are no place: half of Europe lies within them."""


class Place(Struct, frozen=True, gc=False):
    """Where an address is used. Coordinates are there only if they mean a place, never the middle of a country."""

    country: str | None = None
    """ISO 3166-1, two letters."""
    subdivision: str | None = None
    """ISO 3166-2 without the country."""
    latitude: float | None = None
    longitude: float | None = None
    radius_km: float | None = None


NOWHERE: Final = Place()


def place_of(record: object, widest_km: float = WIDEST) -> Place:
    """The place of a city record.

    Where a database knows the country only, it gives the country's middle as coordinates: for the USA a farm in
    Kansas, 2,000 km from most of its people. Such a record names neither city, subdivision nor postal code, or it
    owns to a radius of hundreds of kilometres. Only its country is believed.
    """
    if not isinstance(record, Mapping):
        return NOWHERE
    country = _code(_part(record, "country")) or _code(_part(record, "registered_country"))
    subdivisions = record.get("subdivisions")
    # The first is the largest.
    largest = subdivisions[0] if isinstance(subdivisions, list | tuple) and subdivisions else None
    subdivision = _code(largest)
    location = _part(record, "location")
    latitude = _number(location.get("latitude"), 90.0)
    longitude = _number(location.get("longitude"), 180.0)
    radius = _number(location.get("accuracy_radius"), 20_100.0)
    is_named = bool(largest) or bool(_part(record, "city")) or bool(_part(record, "postal"))
    if latitude is None or longitude is None or not is_named or (radius is not None and radius >= widest_km):
        return Place(country, subdivision)
    return Place(country, subdivision, latitude, longitude, radius)


def asn_of(record: object) -> int | None:
    """The AS number of an ASN or ISP record."""
    if not isinstance(record, Mapping):
        return None
    number = record.get("autonomous_system_number")
    return number if isinstance(number, int) and 0 < number < 2**32 else None


def _part(record: Mapping[object, object], name: str) -> Mapping[object, object]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}


def _code(part: object) -> str | None:
    code = part.get("iso_code") if isinstance(part, Mapping) else None
    return code if isinstance(code, str) and 0 < len(code) <= 3 and code.isascii() else None


def _number(value: object, most: float) -> float | None:
    """None also for what is no number, or none that can be meant (NaN compares false)."""
    if not isinstance(value, int | float) or not -most <= value <= most:
        return None
    return float(value)
