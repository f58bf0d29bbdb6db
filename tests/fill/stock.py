"""Demand as appliances write it: what matters is named, the rest is ordinary."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq

from wire.demand import COLUMNS, demand_key, folder_of

ARROW = {
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "timestamp[ms, tz=UTC]": pa.timestamp("ms", tz="UTC"),
}
SCHEMA = pa.schema([(name, ARROW[kind]) for name, kind in COLUMNS])


def row(folder="/titles/film/video.0001", outcome="hit", **fields):
    """One rendition and outcome; bytes are counted as read from hdd."""
    sent = fields.get("bytes", 1000)
    plain = {
        "schema": 1,
        "title": folder_of(folder + "/").split("/")[2] if folder else "",
        "folder": folder,
        "outcome": outcome,
        "requests": 1,
        "bytes": sent,
        "bytes_nvme": 0,
        "bytes_ssd": 0,
        "bytes_hdd": sent,
        "bytes_memory": 0,
        "sessions": 0,
        "first_byte_ms": None,
        "stalls": None,
    }
    return {**plain, **fields}


def table(date, hour, appliance, *rows):
    at = dt.datetime.fromisoformat(f"{date}T{hour:02}:00:00+00:00")
    return pa.Table.from_pylist([{**one, "hour": at, "appliance": appliance} for one in rows], SCHEMA)


def write(lake, date, hour, appliance, *rows):
    path = lake / demand_key(date, hour, appliance)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(date, hour, appliance, *rows), path)
