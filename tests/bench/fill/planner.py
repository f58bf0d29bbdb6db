"""What a plan of a large fleet costs: time, CPU and memory of `oca-fill plan`, from a lake that is up to date.

The lake has the demand of four weeks: the last day as a fleet ships it (an hour and appliance to a file), the days
before as the digests that earlier nights left. The plan is made in a process of its own, orders are signed and encoded
one by one and go nowhere: writing them is the bucket's time.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pyroaring import BitMap

from fill import digests, fleet, planning
from fill.catalogue import RENDITIONS, SCHEMA
from fill.fleet import Appliance, Fleet, Site
from fill.plans import Name, Plans
from fill.settings import Settings, parse_settings
from fill.wishes import Wishes
from tests.bench.machine import BenchError
from tests.bench.report import reached
from wire.codec import encode
from wire.demand import COLUMNS, Stock, demand_key, stock_key
from wire.heartbeat import DeviceState

NIGHT: Final = dt.date(2026, 11, 25)
MOST_SECONDS: Final = 300.0
MOST_GIB: Final = 4.0
_OF_TITLE: Final = 20
"""Renditions."""
_ZONES: Final = ("Europe/Lisbon", "Europe/Berlin", "Europe/Helsinki")
_TB: Final = 10**12
_ARROW: Final = {
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "timestamp[ms, tz=UTC]": pa.timestamp("ms", tz="UTC"),
}


@dataclass(frozen=True)
class Size:
    renditions: int = 500_000
    sites: int = 200
    appliances: int = 1_000
    watched: int = 20_000
    """Renditions that a site's viewers take on a day."""
    hourly: int = 1_000
    """Rows of an appliance's hour."""
    days: int = 28


def measure(size: Size, folder: Path) -> dict:
    lake = folder / "lake"
    _build(size, lake)
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.bench.fill.planner", str(lake), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None, text=True, check=False)
    if done.returncode:
        raise BenchError("the plan could not be made")
    row: dict = json.loads(done.stdout)
    row["wall"] = time.monotonic() - began
    row["lake_bytes"] = sum(path.stat().st_size for path in lake.rglob("*") if path.is_file())
    return row


def told(size: Size, row: dict) -> str:
    steps = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in row["steps"].items())
    return (
        f"{size.renditions:,} renditions, {size.sites} sites, {size.appliances:,} appliances, {size.days} days of up to"
        f" {size.sites * size.watched:,} rows, the last as up to {size.appliances * 24 * size.hourly:,} in"
        f" {size.appliances * 24:,} files; {row['lake_bytes'] / 1e9:.1f} GB on disk\n"
        f"{row['orders']:,} orders of {row['brought']:,} renditions to bring, {row['order_bytes'] / 1e6:,.0f} MB\n"
        f"{reached(row['wall'], MOST_SECONDS)}: {row['wall']:.0f} s (<= {MOST_SECONDS:.0f}), CPU {row['cpu']:.0f} s:"
        f" {steps}\n"
        f"{reached(row['gib'], MOST_GIB)}: {row['gib']:.2f} GiB (<= {MOST_GIB:.0f})"
    )


# --- The lake ---


def _build(size: Size, lake: Path) -> None:
    dice = np.random.default_rng(1)
    (lake / "catalogue").mkdir(parents=True)
    (lake / "stock").mkdir()
    (lake / digests.DIGESTS).mkdir()
    titles = size.renditions // _OF_TITLE
    numbers = np.arange(size.renditions)
    bytes_of = dice.integers(200_000_000, 4_000_000_000, size.renditions)
    published = np.datetime64(NIGHT) - dice.integers(0, 1500, titles).astype("timedelta64[D]")
    folders = [f"/titles/title-{number // _OF_TITLE}/r{number % _OF_TITLE}.{number:06x}" for number in numbers]
    table = pa.table(
        {
            "number": numbers.astype(np.int32),
            "title": [f"title-{number // _OF_TITLE}" for number in numbers],
            "folder": folders,
            "kind": ["video"] * size.renditions,
            "name": [f"r{number % _OF_TITLE}" for number in numbers],
            "size_bytes": bytes_of,
            "duration": np.full(size.renditions, 6000.0),
            "width": np.full(size.renditions, 1920, np.int32),
            "height": np.full(size.renditions, 1080, np.int32),
            "codecs": ["avc1"] * size.renditions,
            "bandwidth_bps": bytes_of * 8 // 6000,
            "objects": np.full(size.renditions, 1000, np.int32),
            "published_at": pa.array(
                np.repeat(published, _OF_TITLE).astype("datetime64[ms]"), pa.timestamp("ms", "UTC")
            ),
            "etag": ["e"] * size.renditions,
        }
    ).cast(SCHEMA)
    pq.write_table(table, lake / RENDITIONS, compression="zstd")
    there = _fleet(size)
    fleet.save(there, lake)
    for at, one in enumerate(there.appliances):
        devices = tuple(
            DeviceState(
                id=f"{one.id}-{device}", tier=tier, standing="online", capacity_bytes=capacity, used_bytes=capacity
            )
            for device, (tier, capacity) in enumerate([("nvme", 4 * _TB)] * 2 + [("hdd", 10 * _TB)] * 8)
        )
        held = BitMap(dice.integers(0, size.renditions, size.renditions // 12).tolist())
        stock = Stock(
            appliance=one.id,
            at=_now() - 600,
            devices=devices,
            pledge_share=0.8,
            link_bps=40_000_000_000,
            holdings=held.serialize(),
        )
        (lake / stock_key(one.id)).write_bytes(encode(stock))
        if at % 100 == 99:
            print(f"{at + 1} appliances", file=sys.stderr, flush=True)
    # Popularity is Zipf's over a shuffled catalogue, alike at all sites.
    by_rank = dice.permutation(size.renditions)
    _last_day(size, lake, there, by_rank, bytes_of, folders, dice)
    sites = np.array([site.id for site in there.sites])
    made_by = _made_by(size, lake, there)
    for ago in range(2, size.days + 1):
        day = NIGHT - dt.timedelta(days=ago)
        _digest(size, lake, day, sites, by_rank, bytes_of, dice, made_by[day])


def _now() -> float:
    return dt.datetime.combine(NIGHT, dt.time(1), dt.UTC).timestamp()


def _fleet(size: Size) -> Fleet:
    roots = max(1, size.sites // 20)
    sites = [
        Site(
            id=f"s{at:04}",
            country="PT",
            timezone=_ZONES[at % len(_ZONES)],
            parent=None if at < roots else f"s{at % roots:04}",
        )
        for at in range(size.sites)
    ]
    appliances = [
        Appliance(
            id=f"a{at:05}", site=f"s{at % size.sites:04}", url=f"http://a{at}.example", capacity_bps=40_000_000_000
        )
        for at in range(size.appliances)
    ]
    return Fleet(sites=tuple(sites), appliances=tuple(appliances))


def _watched(count: int, by_rank: np.ndarray, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, and how many plays of each."""
    ranks = np.minimum((len(by_rank) ** dice.random(count * 3) - 1).astype(np.int64), len(by_rank) - 1)
    rank, plays = np.unique(ranks, return_counts=True)
    return by_rank[rank[:count]], plays[:count]


def _last_day(size, lake, there, by_rank, bytes_of, folders, dice) -> None:
    day = NIGHT - dt.timedelta(days=1)
    schema = pa.schema([(name, _ARROW[kind]) for name, kind in COLUMNS])
    for hour in range(24):
        at = dt.datetime.combine(day, dt.time(hour), dt.UTC)
        for one in there.appliances:
            numbers, plays = _watched(size.hourly, by_rank, dice)
            sent = plays * (bytes_of[numbers] // 2)
            count = len(numbers)
            zeros = np.zeros(count, np.int64)
            columns = {
                "schema": np.ones(count, np.int32),
                "hour": [at] * count,
                "appliance": [one.id] * count,
                "title": [folders[number].split("/")[2] for number in numbers],
                "folder": [folders[number] for number in numbers],
                "outcome": ["hit"] * count,
                "requests": plays,
                "bytes": sent,
                "bytes_nvme": zeros,
                "bytes_ssd": zeros,
                "bytes_hdd": sent,
                "bytes_memory": zeros,
                "sessions": plays,
                "first_byte_ms": pa.nulls(count, pa.float64()),
                "stalls": pa.nulls(count, pa.int64()),
            }
            path = lake / demand_key(str(day), hour, one.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns, schema), path, compression="zstd")
        print(f"hour {hour}", file=sys.stderr, flush=True)


def _made_by(size: Size, lake: Path, there: Fleet) -> dict[dt.date, bytes]:
    """What digests of days without files say they were made by. The planner removes those of days that it does not
    have files of, so each old day keeps one empty hour."""
    found = {}
    source = next((lake / "demand").glob("*/*/*.parquet"))
    empty = pq.read_table(source).slice(0, 0)
    for ago in range(2, size.days + 1):
        day = NIGHT - dt.timedelta(days=ago)
        path = lake / demand_key(str(day), 0, there.appliances[0].id)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(empty, path)
        found[day] = digests.fingerprint(lake, day, there, _settings(lake).peak).encode()
    return found


def _digest(size, lake, day, sites, by_rank, bytes_of, dice, made_by) -> None:
    site_of, number_of, sent_of = [], [], []
    for site in range(len(sites)):
        numbers, plays = _watched(size.watched, by_rank, dice)
        order = np.argsort(numbers)
        site_of.append(np.full(len(numbers), site))
        number_of.append(numbers[order])
        sent_of.append(plays[order] * (bytes_of[numbers[order]] // 2))
    sent = np.concatenate(sent_of)
    table = pa.table(
        {
            "site": pa.DictionaryArray.from_arrays(np.concatenate(site_of).astype(np.int32), sites.tolist()).cast(
                pa.string()
            ),
            "day": pa.array([day] * len(sent), pa.date32()),
            "number": np.concatenate(number_of),
            "bytes": sent,
            "peak_bytes": sent * 2 // 5,
        }
    )
    said = {
        b"made-by": made_by,
        b"catalogue": b"c",
        b"bytes": str(int(sent.sum())).encode(),
        b"unknown-folder-bytes": b"0",
        b"unknown-appliance-bytes": b"0",
    }
    pq.write_table(
        table.replace_schema_metadata(said),
        digests.digest_path(lake, day),
        compression="zstd",
        row_group_size=digests.ROWS,
    )
    print(f"{day}", file=sys.stderr, flush=True)


def _settings(lake: Path) -> Settings:
    tables = '[control]\nbucket = "s3://x"\n[fleet]\nfile = "/x"\n[signing]\nkey = "/x"\nkid = "k"\n'
    return parse_settings(f'state_dir = "{lake.parent}"\n{tables}', "fill.toml")


# --- The process that is measured ---


class Nowhere:
    """A bucket that takes everything."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, key: str, body: bytes, kind: str = "", *, is_new: bool = False) -> None:
        del key, kind, is_new
        self.bytes += len(body)


def _plan(lake: Path) -> dict:
    began = time.monotonic()
    steps: dict[str, float] = {}
    last = ["", began]

    def reached_step(what: str, done: int, of: int) -> None:
        del of
        now = time.monotonic()
        if what != last[0]:
            last[:] = [what, now]
        steps[what] = now - last[1]
        if done % 20 == 0:
            print(f"{what} {done}", file=sys.stderr, flush=True)

    stocks, _ = planning.stocks_in(lake)
    there = fleet.load(lake)
    dice = np.random.default_rng(2)
    # Of what they hold, most was ordered.
    promised = {
        name: BitMap.deserialize(stock.holdings) - BitMap(dice.integers(0, 500_000, 5_000).tolist())
        for name, stock in stocks.items()
    }
    plan = planning.planned(
        planning.Inputs(
            lake=lake,
            night=NIGHT,
            now=_now(),
            settings=_settings(lake),
            fleet=there,
            wishes=Wishes(),
            stocks=stocks,
            promised=promised,
            catalogue="c",
        ),
        reached_step,
    )
    wrote = time.monotonic()
    store = Nowhere()
    record = Plans(store).save(  # type: ignore[arg-type]
        Name(str(NIGHT), 1), plan.orders(1), {}, plan.promised, Ed25519PrivateKey.generate(), "k", 0.0
    )
    steps["orders"] = time.monotonic() - wrote
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "steps": steps,
        "orders": len(record.orders),
        "brought": record.bring_renditions,
        "order_bytes": store.bytes,
        "cpu": usage.ru_utime + usage.ru_stime,
        "gib": usage.ru_maxrss / 1024**2,
        "pid": os.getpid(),
    }


if __name__ == "__main__":
    print(json.dumps(_plan(Path(sys.argv[1]))))
