"""`python -m oca.keeper.demand_shipper`: turns parts of the spool into hourly Parquet files in the bucket, and ends.

A process of its own, because pyarrow and boto3 would take 100 MB of the keeper's memory for good, for a few seconds of
work an hour. Its input is an `Order` as JSON; it says line by line what the bucket has confirmed.

An object holds one hour, whoever counted it in how many parts. So what lies there is read first, and the parts are
added to it; their ids stand in the file's metadata, and a part whose id is there already (the bucket had it, but we
were killed before we could say so) is not added again. One process at a time does this: it holds a lock on the spool.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import hashlib
import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from oca.errors import OcaError
from oca.keeper.shipping import HourShipped, NotShipped, Order, PartUnreadable, StockShipped, Told
from oca.lifecycle import begin_child
from oca.report.demand import Part, decode_part, folders_of, hour_of_part, key_of, merged, table_of
from wire.demand import COLUMNS, SCHEMA, stock_key

PARTS: Final = b"oca.parts"
"""In a file's metadata: ids of the parts that are in it, as a JSON list."""
_TYPES: Final = {
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "timestamp[ms, tz=UTC]": pa.timestamp("ms", tz="UTC"),
}
ARROW_SCHEMA: Final = pa.schema([(name, _TYPES[kind]) for name, kind in COLUMNS])
_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_PARQUET: Final = "application/vnd.apache.parquet"
_NICENESS: Final = 10


class BucketAway(OcaError):
    """The bucket did not do what was asked. Asking again later may help."""


class ObjectStrange(OcaError):
    """What lies where an hour belongs was not written by us, or by a later version: it is not overwritten."""


class Bucket:
    """A prefix of a bucket."""

    def __init__(self, order: Order) -> None:
        """Raises `BucketAway` for settings that boto3 can't use."""
        parts = urlsplit(order.bucket)
        self._name = parts.netloc
        self._prefix = parts.path.strip("/")
        foreign = order.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        try:
            self._client: Any = boto3.Session().client(
                "s3",
                endpoint_url=order.endpoint_url,
                region_name=order.region,
                config=Config(
                    signature_version="s3v4",
                    connect_timeout=5,
                    read_timeout=30,
                    retries={"mode": "standard", "total_max_attempts": 3},
                    # Foreign servers stumble over the checksums that botocore adds by itself.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3={"addressing_style": "path" if foreign else "auto"},
                ),
            )
        except (BotoCoreError, ValueError) as error:
            raise BucketAway(f"{order.bucket}: {error}") from error

    def get(self, key: str) -> bytes | None:
        """An object's bytes, None if there is none. Raises `BucketAway`."""
        try:
            return bytes(self._client.get_object(Bucket=self._name, Key=self._key(key))["Body"].read())
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _ABSENT:
                return None
            raise BucketAway(f"{key} can't be read: {error}") from error
        except (BotoCoreError, OSError) as error:
            raise BucketAway(f"{key} can't be read: {error}") from error

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """On return the bucket has it. Raises `BucketAway`."""
        try:
            self._client.put_object(
                Bucket=self._name,
                Key=self._key(key),
                Body=body,
                ContentType=content_type,
                # What arrives otherwise than it was sent is refused.
                ContentMD5=base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
            )
        except (BotoCoreError, ClientError, OSError) as error:
            raise BucketAway(f"{key} can't be written: {error}") from error

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key


def ship(order: Order) -> Iterator[Told]:
    """Do what is ordered. What the bucket confirmed is told at once: who is killed did that much for good."""
    folder = Path(order.folder)
    try:
        bucket = Bucket(order)
        # The stock first: it is small, and tells the planner that we live, also while there is much to catch up with.
        bucket.put(stock_key(order.appliance), (folder / order.stock).read_bytes(), "application/json")
        yield StockShipped(stock_key(order.appliance))
        for hour, names in groupby(sorted(order.parts), hour_of_part):
            if hour is not None:
                yield from _ship_hour(bucket, order, hour, list(names))
    except BucketAway as error:
        yield NotShipped(str(error))  # The hours that are left would not fare better.
    except OSError as error:
        yield NotShipped(f"the spool can't be read: {error}")


def _ship_hour(bucket: Bucket, order: Order, hour: int, names: list[str]) -> Iterator[Told]:
    parts: dict[str, Part] = {}
    for name in names:
        try:
            part = decode_part((Path(order.folder) / name).read_bytes())
        except ValueError as error:
            yield PartUnreadable(name, str(error))
        else:
            parts[name] = part
    if not parts:
        return
    key = key_of(hour, order.appliance)
    try:
        lying, known = _read(bucket.get(key), key)
    except ObjectStrange as error:
        yield NotShipped(str(error))
        return
    fresh = [part for part in parts.values() if part.id not in known]
    if fresh:
        folders = merged(lying, *(part.folders for part in fresh))
        bucket.put(key, packed(order.appliance, hour, folders, known | {part.id for part in fresh}), _PARQUET)
    yield HourShipped(key, tuple(parts))


def packed(appliance: str, hour: int, folders: dict[str, list[int]], ids: set[str]) -> bytes:
    """An hour as a Parquet file."""
    schema = ARROW_SCHEMA.with_metadata({PARTS: json.dumps(sorted(ids))})
    sink = io.BytesIO()
    pq.write_table(pa.table(table_of(appliance, hour, folders), schema=schema), sink, compression="zstd")
    return sink.getvalue()


def _read(body: bytes | None, key: str) -> tuple[dict[str, list[int]], set[str]]:
    """What an hour's object says by folder, and the ids of its parts. Raises `ObjectStrange`."""
    if body is None:
        return {}, set()
    try:
        table = pq.read_table(io.BytesIO(body))
        ids = {str(one) for one in json.loads((table.schema.metadata or {})[PARTS])}
        columns = table.to_pydict()
        if any(schema > SCHEMA for schema in columns["schema"]):
            raise ObjectStrange(f"{key} is in a schema later than ours: upgrade")
        return folders_of(columns), ids
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise ObjectStrange(f"{key} lies in the bucket and is not what we write there: {error!r}") from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="oca.keeper.demand_shipper", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--keeper", type=int, required=True, help="process id of the parent, with which it ends")
    given = parser.parse_args()
    begin_child("shipper", given.keeper)
    os.nice(_NICENESS)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    lock = os.open(Path(order.folder) / "shipper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # Of a keeper that was killed: it reads and writes the same objects, and ends at its deadlines.
        _say(NotShipped("another process is still shipping"))
        return 1
    for told in ship(order):
        _say(told)
    return 0


def _say(told: Told) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
