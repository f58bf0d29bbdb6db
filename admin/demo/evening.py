"""Hours of viewers in the demo's cities, made up: a plan goes by what was watched, and a demo has no past."""

import datetime as dt
import io
from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from wire.demand import COLUMNS, SCHEMA, Served

_HOURS: Final = 5
_PLAYS: Final = 12
"""Of each rendition, in each hour and at each appliance."""
_TYPES: Final = {
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "timestamp[ms, tz=UTC]": pa.timestamp("ms", tz="UTC"),
}
_SCHEMA: Final = pa.schema([(name, _TYPES[kind]) for name, kind in COLUMNS])


def hours_beside(now: dt.datetime) -> tuple[dt.datetime, ...]:
    """Hours of the same day in UTC that appliances don't write demand of soon. (A title has no demand on days before it
    was published.)
    """
    return tuple(
        now.replace(hour=(now.hour + 2 + number) % 24, minute=0, second=0, microsecond=0) for number in range(_HOURS)
    )


def an_hour(appliance: str, at: dt.datetime, sizes: Mapping[str, int]) -> bytes:
    """What that appliance would have shipped of the hour that begins then (wire.demand): each rendition, by folder and
    size in bytes, was seen some times from beginning to end, and nothing was held.
    """
    rows = [
        {name: 0 for name, kind in COLUMNS if kind == "int64"}
        | dict.fromkeys(("stalls", "played_ms", "played_kilobits"))
        | {
            "schema": SCHEMA,
            "hour": at,
            "appliance": appliance,
            "title": folder.split("/")[2],
            "folder": folder,
            "outcome": str(Served.MISS),
            "requests": _PLAYS,
            "bytes": _PLAYS * size,
            "bytes_memory": _PLAYS * size,
            "sessions": _PLAYS,
        }
        for folder, size in sizes.items()
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), sink, compression="zstd")
    return sink.getvalue()
