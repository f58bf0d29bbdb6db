"""The lake: a folder on this machine with what a plan is made of, as it lies in the bucket.

    demand/date=2026-11-25/hour=20/<appliance>.parquet
    stock/<appliance>.json
    catalogue/renditions.parquet
    fleet.json

Only what is new comes from the bucket: a plan of a thousand appliances goes by half a million files, of which a night
brings twenty-four thousand. What is older than a plan goes by is removed here, and stays in the bucket.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from fill.bucket import AT_ONCE, Entry
from fill.errors import InputError
from wire.heartbeat import APPLIANCE_ID_PATTERN

log = logging.getLogger(__name__)

DEMAND: Final = "demand/"
STOCK: Final = "stock/"
_ETAGS: Final = ".etags.json"
_MOST_FILE_BYTES: Final = 256 * 1024 * 1024
_HOURLY: Final = re.compile(r"demand/date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})/([^/]+)\.parquet")
_STOCK: Final = re.compile(r"stock/([^/]+)\.json")
_APPLIANCE: Final = re.compile(APPLIANCE_ID_PATTERN)

Reached = Callable[[int, int], None]


class Store(Protocol):
    """Where it comes from (fill/bucket.py)."""

    def entries(self, prefix: str) -> Iterable[Entry]: ...
    def folders(self, prefix: str) -> list[str]: ...
    def fetch(self, key: str, path: Path) -> bool: ...


class Synced(Struct, frozen=True):
    """What a sync did."""

    files: int
    """That lie here now."""
    fetched: int
    fetched_bytes: int
    removed: int
    strange: int
    """Objects whose names say nothing, or that are too large; left where they are."""


class Hour(Struct, frozen=True, order=True):
    """A file of demand."""

    date: dt.date
    hour: int
    appliance: str


def hour_of(key: str) -> Hour | None:
    """What the name of an object says; None: it is no demand."""
    found = _HOURLY.fullmatch(key)
    if found is None or not _APPLIANCE.match(found[3]) or int(found[2]) > 23:
        return None
    try:
        return Hour(dt.date.fromisoformat(found[1]), int(found[2]), found[3])
    except ValueError:
        return None


def sync(store: Store, lake: Path, first: dt.date, last: dt.date, reached: Reached = lambda _done, _of: None) -> Synced:
    """Have here what the bucket has of demand of these days (in UTC, both included), and of stock. `reached`: files
    fetched, of how many. Raises `BucketError`, `InputError`.
    """
    lake.mkdir(parents=True, exist_ok=True)
    known = _read_etags(lake)
    there: dict[str, Entry] = {}
    strange = 0
    for key in [*_days(store, first, last), STOCK]:
        for entry in store.entries(key):
            if not _is_wanted(entry):
                strange += 1
                continue
            there[entry.key] = entry
    wanted = [
        entry for entry in there.values() if known.get(entry.key) != entry.etag or not (lake / entry.key).exists()
    ]
    for folder in {(lake / entry.key).parent for entry in wanted}:
        folder.mkdir(parents=True, exist_ok=True)
    fetched = fetched_bytes = 0
    etags = {key: etag for key, etag in known.items() if key in there}
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for entry, came in pool.map(lambda entry: (entry, store.fetch(entry.key, lake / entry.key)), wanted):
                if came:
                    etags[entry.key] = entry.etag
                    fetched += 1
                    fetched_bytes += entry.size_bytes
                else:
                    del there[entry.key]  # Gone since it was listed.
                reached(fetched, len(wanted))
    except OSError as error:
        raise InputError(f"{lake}: can't be written: {error}") from error
    finally:
        _write_etags(lake, etags)
    removed = _remove_others(lake, set(there))
    return Synced(len(there), fetched, fetched_bytes, removed, strange)


def hours(lake: Path) -> list[Hour]:
    """The files of demand that lie here, in order."""
    found = (hour_of(path.relative_to(lake).as_posix()) for path in (lake / DEMAND).glob("*/*/*.parquet"))
    return sorted(hour for hour in found if hour is not None)


def _days(store: Store, first: dt.date, last: dt.date) -> list[str]:
    """Prefixes of the days that the bucket has, of those that are asked for."""
    days = []
    for name in store.folders(DEMAND):
        try:
            day = dt.date.fromisoformat(name.removeprefix("date="))
        except ValueError:
            continue
        if first <= day <= last:
            days.append(f"{DEMAND}{name}/")
    return days


def _is_wanted(entry: Entry) -> bool:
    if entry.size_bytes > _MOST_FILE_BYTES:
        log.warning("%s: %d bytes are more than an hour of demand can be; left out", entry.key, entry.size_bytes)
        return False
    if entry.key.startswith(STOCK):
        found = _STOCK.fullmatch(entry.key)
        return found is not None and _APPLIANCE.match(found[1]) is not None
    return hour_of(entry.key) is not None


def _read_etags(lake: Path) -> dict[str, str]:
    """What is not known is fetched again, which is all that can come of a broken file."""
    try:
        return msgspec.json.decode((lake / _ETAGS).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def _write_etags(lake: Path, etags: dict[str, str]) -> None:
    beside = lake / f"{_ETAGS}.new"
    beside.write_bytes(msgspec.json.encode(etags))
    beside.replace(lake / _ETAGS)


def _remove_others(lake: Path, kept: set[str]) -> int:
    removed = 0
    for path in [*(lake / DEMAND).glob("*/*/*"), *(lake / STOCK).glob("*")]:
        if path.relative_to(lake).as_posix() not in kept:
            path.unlink()
            removed += 1
    for folder in [*(lake / DEMAND).glob("*/*"), *(lake / DEMAND).glob("*")]:
        if not any(folder.iterdir()):
            folder.rmdir()
    return removed
