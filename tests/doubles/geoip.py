"""City and ASN databases in MaxMind's format, as small as a test wants them."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from mmdb_writer import MMDBWriter
from netaddr import IPSet

CITY = "GeoLite2-City"
ASN = "GeoLite2-ASN"


def write_database(
    path: Path, kind: str, records: Mapping[str, object], version: int = 6, *, built_at: float | None = None
) -> Path:
    """A database of this type whose records are given by prefix; later ones win. It appears whole, by a rename."""
    writer = MMDBWriter(version, kind, languages=["en"], description="for tests", ipv4_compatible=version == 6)
    for prefix, record in records.items():
        writer.insert_network(IPSet([prefix]), record)
    beside = path.with_name(path.name + ".new")
    with nullcontext() if built_at is None else patch("mmdb_writer.time.time", lambda: built_at):
        writer.to_db_file(str(beside))
    return beside.rename(path)


def city(country, latitude, longitude, *, name="Somewhere", radius=20, subdivision=None):
    """A city record as MaxMind writes it. Without a name it is the middle of the country."""
    record = {
        "country": {"iso_code": country, "geoname_id": 1, "names": {"en": country}},
        "location": {"latitude": float(latitude), "longitude": float(longitude), "accuracy_radius": radius},
    }
    if name:
        record["city"] = {"geoname_id": 2, "names": {"en": name}}
    if subdivision:
        record["subdivisions"] = [{"iso_code": subdivision, "names": {"en": subdivision}}]
    return record


def asn(number):
    """An ASN record."""
    return {"autonomous_system_number": number, "autonomous_system_organization": f"Network {number}"}
