"""One prefix of one S3 bucket: orders, plans, demand and stock lie there.

Every call has a deadline, every failure is ours, in words. Keys are those of wire/demand.py and wire/orders.py, below
the prefix. May be used from several threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnection
from msgspec import Struct

from fill.errors import BucketError, BucketRefused, BucketUnreachable, SettingsError, SomebodyElse

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

AT_ONCE: Final = 8
"""Threads that may ask at the same time without waiting for a connection."""
_PAGE: Final = 1000
"""Of a listing: the most that S3 gives."""
_ABSENT: Final = {"404", "NoSuchKey", "NotFound"}
_TAKEN: Final = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class Entry(Struct, frozen=True, gc=False):
    """An object in a listing."""

    key: str
    size_bytes: int
    etag: str
    """Another one when the bytes are others."""


class Bucket:
    def __init__(self, url: str, endpoint_url: str | None = None, region: str | None = None) -> None:
        """`url` as s3://bucket/prefix. Raises `SettingsError`; nothing is sent yet."""
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise SettingsError(f"read {url!r}; allowed: s3://bucket or s3://bucket/prefix")
        self.url = url.rstrip("/")
        self._name = parts.netloc
        prefix = parts.path.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        foreign = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._where = foreign or "AWS"
        config = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=2 * AT_ONCE,
            # Foreign stores stumble over the checksums that botocore adds by itself.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # A store at an address or a host name of its own seldom has a name for each bucket.
            s3={"addressing_style": "path"} if foreign else {},
        )
        try:
            self._client: S3Client = boto3.Session().client(
                "s3", endpoint_url=endpoint_url, region_name=region, config=config
            )
        except (BotoCoreError, ValueError) as error:
            raise SettingsError(f"{url}: can't be asked: {error}") from error

    def read(self, key: str, most_bytes: int) -> bytes | None:
        """The bytes at this key; None if there are none. Raises `BucketError`, also for more than `most_bytes`."""
        try:
            with self._translated("read", key):
                answer = self._client.get_object(Bucket=self._name, Key=self._prefix + key)
                if answer["ContentLength"] > most_bytes:
                    raise BucketError(f"{self.url}/{key}: {answer['ContentLength']} bytes; allowed: {most_bytes}")
                return answer["Body"].read()
        except _Absent:
            return None

    def fetch(self, key: str, path: Path) -> bool:
        """Write what lies at this key to a file, whole or not at all. False if there is nothing."""
        beside = path.with_name(f".{path.name}.new")
        try:
            with self._translated("read", key):
                self._client.download_file(Bucket=self._name, Key=self._prefix + key, Filename=str(beside))
            beside.replace(path)
        except _Absent:
            return False
        finally:
            beside.unlink(missing_ok=True)
        return True

    def entries(self, prefix: str) -> Iterator[Entry]:
        """What lies below, in the order of keys."""
        with self._translated("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=self._prefix + prefix, PaginationConfig={"PageSize": _PAGE}
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield Entry(item["Key"].removeprefix(self._prefix), item["Size"], item["ETag"].strip('"'))

    def folders(self, prefix: str) -> list[str]:
        """The names directly below `prefix`, which ends in a slash, that have something below them, in order."""
        found: list[str] = []
        with self._translated("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=self._prefix + prefix, Delimiter="/"
            )
            for page in pages:
                found += [
                    item["Prefix"].removeprefix(self._prefix + prefix).rstrip("/")
                    for item in page.get("CommonPrefixes", ())
                ]
        return found

    def write(self, key: str, body: bytes, kind: str = "application/json", *, is_new: bool = False) -> None:
        """Put the bytes there. Raises `SomebodyElse` if `is_new` and something is there already."""
        with self._translated("write", key):
            if is_new:
                self._client.put_object(
                    Bucket=self._name, Key=self._prefix + key, Body=body, ContentType=kind, IfNoneMatch="*"
                )
            else:
                self._client.put_object(Bucket=self._name, Key=self._prefix + key, Body=body, ContentType=kind)

    def copy(self, key: str, to: str) -> None:
        """Put the same bytes there, without bringing them here. Raises `BucketError`, also if there are none."""
        with self._translated("copy", key):
            self._client.copy_object(
                Bucket=self._name,
                Key=self._prefix + to,
                CopySource={"Bucket": self._name, "Key": self._prefix + key},
            )

    def remove(self, key: str) -> None:
        """It is not there then, whether it was or not."""
        with self._translated("remove", key):
            self._client.delete_object(Bucket=self._name, Key=self._prefix + key)

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        place = f"{self.url}/{key}"
        try:
            yield
        except (NoConnection, HTTPClientError) as error:
            raise BucketUnreachable(f"{place}: no answer from {self._where} ({error})") from error
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "NoSuchBucket":
                raise BucketRefused(f"{place}: there is no bucket {self._name} at {self._where}") from error
            if code in _ABSENT:
                raise _Absent(f"{place}: not there") from error
            if code in _TAKEN:
                raise SomebodyElse(f"{place}: somebody else wrote it first") from error
            raise BucketRefused(f"{place}: {self._where} refused to let us {verb} it ({code})") from error
        except (BotoCoreError, ValueError) as error:
            raise BucketRefused(f"{place}: can't {verb} it ({error})") from error
        except OSError as error:
            raise BucketError(f"{place}: can't {verb} it: {error}") from error


class _Absent(BucketError):
    """Nothing is there; each method says what that means."""
