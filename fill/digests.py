"""Days of demand, summed once and kept: `digests/date=2026-11-25.parquet` of the lake, rows as `history.DIGEST`.

A night reads the hours of the days that changed, and the digests of the others. A digest says by what it was made:
when appliances' hours, their sites, time zones or the peak hours are others, it is made anew; also when it left out
renditions that were in no catalogue, and the catalogue is another one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from msgspec import Struct

from fill import history
from fill.catalogue import RENDITIONS
from fill.errors import InputError
from fill.fleet import Fleet
from fill.lake import DEMAND, Hour, hours
from fill.rules import PeakHours

log = logging.getLogger(__name__)

DIGESTS: Final = "digests/"
_BY: Final = b"made-by"
_UNKNOWN: Final = b"unknown-folder-bytes"
_STRANGE: Final = b"unknown-appliance-bytes"
_ALL: Final = b"bytes"
_CATALOGUE: Final = b"catalogue"
_VERSION: Final = 1
"""Raised when a digest would come out otherwise."""

ROWS: Final = 32_768
"""Of a row group: they are in order of sites, so a question about some reads no more than their part of a file."""

Reached = Callable[[int, int], None]


class Account(Struct, frozen=True, kw_only=True):
    """What the demand of the days was, and what of it could not be used."""

    bytes: int = 0
    unknown_folders: int = 0
    """Of renditions that are in no catalogue, such as manifests and what was withdrawn."""
    unknown_appliances: int = 0


@contextmanager
def database(lake: Path, memory_bytes: int) -> Iterator[Backend]:
    """DuckDB by way of ibis, in memory; what is too large goes to disk, below the lake."""
    beside = lake / "temporary"
    beside.mkdir(parents=True, exist_ok=True)
    connection = ibis.duckdb.connect(
        memory_limit=f"{max(memory_bytes, 64 << 20)}B", temp_directory=str(beside), preserve_insertion_order=False
    )
    try:
        connection.raw_sql("set TimeZone = 'UTC'")
        yield connection
    finally:
        connection.disconnect()


def refresh(
    connection: Backend,
    lake: Path,
    fleet: Fleet,
    peak: PeakHours,
    catalogue: str,
    reached: Reached = lambda _done, _of: None,
) -> Account:
    """Have a digest of every day of which there is demand, and of no other. `catalogue` is its digest.

    Raises `InputError` for demand that can't be read. `reached`: days looked at, of how many.
    """
    places = _places(fleet)
    of_day: dict[dt.date, list[Hour]] = {}
    for hour in hours(lake):
        of_day.setdefault(hour.date, []).append(hour)
    (lake / DIGESTS).mkdir(exist_ok=True)
    total = Account()
    for done, (date, inside) in enumerate(sorted(of_day.items())):
        reached(done, len(of_day))
        path = digest_path(lake, date)
        by = _fingerprint(lake, inside, places, peak)
        known = _account(path, by, catalogue)
        if known is None:
            known = _make(connection, lake, date, places, peak, by, catalogue)
        total = Account(
            bytes=total.bytes + known.bytes,
            unknown_folders=total.unknown_folders + known.unknown_folders,
            unknown_appliances=total.unknown_appliances + known.unknown_appliances,
        )
    kept = {digest_path(lake, date) for date in of_day}
    for path in (lake / DIGESTS).glob("*"):
        if path not in kept:
            path.unlink()
    reached(len(of_day), len(of_day))
    return total


def fingerprint(lake: Path, date: dt.date, fleet: Fleet, peak: PeakHours) -> str:
    """By what a day's digest is made, as it lies here."""
    return _fingerprint(lake, [hour for hour in hours(lake) if hour.date == date], _places(fleet), peak)


def _places(fleet: Fleet) -> dict[str, tuple[str, str]]:
    """Site and time zone of each appliance."""
    zones = {site.id: site.timezone for site in fleet.sites}
    return {one.id: (one.site, zones[one.site]) for one in fleet.appliances}


def digest_path(lake: Path, date: dt.date) -> Path:
    return lake / DIGESTS / f"date={date}.parquet"


def _fingerprint(lake: Path, inside: list[Hour], places: Mapping[str, tuple[str, str]], peak: PeakHours) -> str:
    text = hashlib.sha256(f"{_VERSION} {peak.start} {peak.stop}\n".encode())
    for hour in inside:
        path = lake / DEMAND / f"date={hour.date}" / f"hour={hour.hour:02}" / f"{hour.appliance}.parquet"
        stat = path.stat()
        text.update(f"{hour.hour} {hour.appliance} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    for appliance in sorted({hour.appliance for hour in inside}):
        text.update(f"{appliance} {places.get(appliance)}\n".encode())
    return text.hexdigest()


def _account(path: Path, by: str, catalogue: str) -> Account | None:
    """None: there is none, or it must be made anew."""
    try:
        said = pq.read_schema(path).metadata or {}
        found = Account(
            bytes=int(said[_ALL]), unknown_folders=int(said[_UNKNOWN]), unknown_appliances=int(said[_STRANGE])
        )
        if said[_BY].decode() != by or (found.unknown_folders and said[_CATALOGUE].decode() != catalogue):
            return None
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError, pa.ArrowInvalid) as error:
        log.warning("%s can't be used, and is made anew: %s", path, error)
        return None
    return found


def _make(
    connection: Backend,
    lake: Path,
    date: dt.date,
    places: Mapping[str, tuple[str, str]],
    peak: PeakHours,
    by: str,
    catalogue: str,
) -> Account:
    try:
        files = str(lake / DEMAND / f"date={date}" / "*" / "*.parquet")
        # Or else the hour in a folder's name would be taken for the column of that name.
        demand = connection.read_parquet(files, union_by_name=True, hive_partitioning=False)
        renditions = connection.read_parquet(str(lake / RENDITIONS))
        sites = history.sites_of(places)
        midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
        local = history.local_hours((zone for _, zone in places.values()), midnight, 24, peak)
        table = history.digest(demand, sites, renditions, local).to_pyarrow()
        (left_out,) = history.strangers(demand, sites, renditions).to_pyarrow().to_pylist()
    except (duckdb.Error, ibis.IbisError) as error:
        raise InputError(f"{lake}: demand of {date} can't be read: {str(error).splitlines()[0]}") from error
    said = {
        _BY: by.encode(),
        _CATALOGUE: catalogue.encode(),
        _ALL: _text(left_out["bytes"]),
        _UNKNOWN: _text(left_out["unknown_folders"]),
        _STRANGE: _text(left_out["unknown_appliances"]),
    }
    path = digest_path(lake, date)
    beside = path.with_name(f".{path.name}.new")
    pq.write_table(table.replace_schema_metadata(said), beside, compression="zstd", row_group_size=ROWS)
    beside.replace(path)
    return Account(
        bytes=left_out["bytes"],
        unknown_folders=left_out["unknown_folders"],
        unknown_appliances=left_out["unknown_appliances"],
    )


def _text(value: Any) -> bytes:  # noqa: ANN401 - what a database gives
    return str(int(value)).encode()
