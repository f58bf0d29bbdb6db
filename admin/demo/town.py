"""The country of the demo: three cities with appliances, a fourth without, and viewers in all of them.

Addresses are of nobody in particular; the demo's GeoIP database and announced prefixes say where they are.
"""

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct


class Place(Struct, frozen=True):
    """Where a viewer may be."""

    id: str
    name: str
    address: str
    """Of a viewer there."""
    network: str
    """That the GeoIP database has for the place."""
    country: str
    latitude: float
    longitude: float


class Box(Struct, frozen=True):
    """One appliance. Its id begins with its site's."""

    id: str
    site: str
    city: str


PLACES: Final = (
    Place("lisbon", "Lisbon", "85.88.130.7", "85.88.128.0/19", "PT", 38.72, -9.14),
    Place("madrid", "Madrid", "83.44.10.7", "83.44.0.0/16", "ES", 40.42, -3.70),
    Place("paris", "Paris", "90.12.44.7", "90.12.0.0/16", "FR", 48.86, 2.35),
    Place("tokyo", "Tokyo", "126.0.10.7", "126.0.0.0/16", "JP", 35.68, 139.69),
)
BOXES: Final = (
    Box("lis-1", "lis", "Lisbon"),
    Box("lis-2", "lis", "Lisbon"),
    Box("mad-1", "mad", "Madrid"),
    Box("par-1", "par", "Paris"),
)
PARENT: Final = "ixp-1"
"""The appliance at an exchange from which the others fetch, and which alone fetches from the origin."""


def fleet(urls: Mapping[str, str], control: Mapping[str, int], token: str) -> str:
    """Steering's inventory. The provider of Lisbon announces its viewers' prefix, that of Madrid is known by its
    addresses, and Paris is open to everyone. `control`: ports of control listeners.
    """
    digest = hashlib.sha256(token.encode()).hexdigest()
    lisbon, madrid, paris, _ = PLACES
    tables = [
        '[[operator]]\nid = "isp-pt"\nasns = [64500]\nallowed = ["85.88.128.0/19"]',
        '[[operator]]\nid = "isp-es"\nasns = [64501]\nallowed = ["83.44.0.0/16"]',
        '[[operator]]\nid = "ix-fr"',
        _site("lis", "isp-pt", lisbon, f'prefixes = ["{lisbon.network}"]'),
        _site("mad", "isp-es", madrid, f'prefixes = ["{madrid.network}"]'),
        _site("par", "ix-fr", paris, 'serves = "everyone"'),
    ]
    tables += [
        f'[[appliance]]\nid = "{box.id}"\nsite = "{box.site}"\nurl = "{urls[box.id]}"\ntoken_sha256 = "{digest}"\n'
        f'metrics = "127.0.0.1:{control[box.id]}"'
        for box in BOXES
    ]
    return "\n\n".join(tables) + "\n"


def _site(name: str, operator: str, place: Place, serves: str) -> str:
    return (
        f'[[site]]\nid = "{name}"\nname = "{place.name}"\noperator = "{operator}"\ncountry = "{place.country}"\n'
        f"latitude = {place.latitude}\nlongitude = {place.longitude}\n{serves}"
    )


def write_cities(path: Path) -> None:
    """A city database in MaxMind's format that knows the demo's places and nothing else."""
    # Of the extra [demo], and without types.
    databases: Any = importlib.import_module("mmdb_writer")
    networks: Any = importlib.import_module("netaddr")
    writer = databases.MMDBWriter(
        6, "GeoLite2-City", languages=["en"], description="the demo's places", ipv4_compatible=True
    )
    for place in PLACES:
        writer.insert_network(networks.IPSet([place.network]), _city(place))
    writer.to_db_file(str(path))


def _city(place: Place) -> dict[str, Any]:
    return {
        "city": {"geoname_id": 1, "names": {"en": place.name}},
        "country": {"geoname_id": 2, "iso_code": place.country, "names": {"en": place.country}},
        "location": {"latitude": place.latitude, "longitude": place.longitude, "accuracy_radius": 20},
    }
