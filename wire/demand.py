"""What viewers asked of an appliance in an hour, and what it holds: how the planner learns what people watch.

Objects of the control bucket, beside the origin's or in a bucket of their own:

    demand/date=2026-11-25/hour=20/<appliance>.parquet     an hour in UTC; columns as in `COLUMNS`, one row for each
                                                           rendition and outcome of which bytes were sent
    stock/<appliance>.json                                 `Stock`, written anew each hour

A rendition is named by its *folder*: /titles/<title>/<next part of the path>, which is what an appliance sees of it
without a catalogue. What lies directly in a title's folder (manifests, posters) has a folder of its own.
"""

import re
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from wire.codec import WireError, decode
from wire.heartbeat import ApplianceId, Count, DeviceState
from wire.holdings import MOST_BITMAP_BYTES

#: Raised only when a column that older readers know changes its meaning; new columns do not raise it.
SCHEMA: Final = 1

MOST_STOCK_BYTES: Final = 2 * MOST_BITMAP_BYTES


class Served(StrEnum):
    """How requests were answered, as far as fill is concerned."""

    HIT = "hit"
    """From what was held."""
    MISS = "miss"
    """While it was fetched."""


#: Name and type in Arrow's words (Parquet keeps milliseconds where Arrow says seconds). Numbers are never null; what no
#: player told is null. Bytes count by where they came from: hits' from tiers, misses' from the memory of flights; so
#: `bytes` is the sum of its four parts. A request counts once, as its answer began, and only if it got content. What
#: has no name (no film, or too many renditions in an hour) stands under folder "" and title "". What players tell
#: stands in a folder's first row, whatever its outcome.
COLUMNS: Final = (
    ("schema", "int32"),
    ("hour", "timestamp[ms, tz=UTC]"),
    ("appliance", "string"),
    ("title", "string"),
    ("folder", "string"),
    ("outcome", "string"),
    ("requests", "int64"),
    ("bytes", "int64"),
    ("bytes_nvme", "int64"),
    ("bytes_ssd", "int64"),
    ("bytes_hdd", "int64"),
    ("bytes_memory", "int64"),
    ("sessions", "int64"),  # plays begun: the first byte of its init segment, or of its one large file, was asked for
    ("first_byte_ms", "float64"),  # the mean that players measured (CMCD), or null
    ("stalls", "int64"),  # that players told (CMCD), or null
    ("played_ms", "int64"),  # of pictures that players asked for and told the duration of (CMCD), or null
    ("played_kilobits", "int64"),  # of these, where the bitrate was told too, or null
)


class Stock(Struct, frozen=True, kw_only=True):
    """What an appliance has room for and what it holds, at one moment."""

    schema: int = SCHEMA
    appliance: ApplianceId
    at: float
    """Seconds since 1970, by its own clock."""
    version: Annotated[str, Meta(max_length=200)] = ""
    """Of its software."""
    devices: Annotated[tuple[DeviceState, ...], Meta(max_length=256)] = ()
    pledge_share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """The most of a device that may be pledged (store.pledge_share)."""
    link_bps: Count = 0
    holdings: Annotated[bytes, Meta(max_length=MOST_BITMAP_BYTES)] = b""
    """Numbers of renditions that are held, as in wire.holdings; empty: not known yet."""


_FOLDER: Final = re.compile(r"/titles/([a-z0-9-]{1,64})/(?:[^/]+/)?")


def folder_of(path: str) -> str:
    """The folder of the rendition that an object belongs to; "" for what is no film.

    /titles/x/720p.1f/seg-1.m4s -> /titles/x/720p.1f; /titles/x/master.m3u8 -> /titles/x
    """
    found = _FOLDER.match(path)
    return "" if found is None else found[0][:-1]


def demand_key(date: str, hour: int, appliance: str) -> str:
    """Where an hour's demand lies. `date` as 2026-11-25, both in UTC."""
    return f"demand/date={date}/hour={hour:02}/{appliance}.parquet"


def stock_key(appliance: str) -> str:
    return f"stock/{appliance}.json"


def read_stock(body: bytes) -> Stock:
    """Raises WireError, also when it is in a schema later than ours."""
    stock = decode(body, Stock)
    if stock.schema > SCHEMA:
        raise WireError(f"Stock is in schema {stock.schema}; this version reads up to {SCHEMA}: upgrade")
    return stock
