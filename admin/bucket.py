"""One prefix of one S3 bucket: every call has a deadline, every failure is ours, in words.

Objects are named by their URL path on an appliance (`/titles/...`); the key is the prefix and that path.
"""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as NoConnection

from admin.errors import ConditionFailed, StoreError, StoreRefused, StoreUnreachable, UsageError

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

UPLOADS_AT_ONCE: Final = 8
WHOLE_BYTES: Final = 16 << 20
"""What is larger is sent from its file, in parts (S3's multipart upload)."""

_PARTS_AT_ONCE: Final = 2
"""Of each file; several files are sent at once."""

_URL_RULE: Final = "s3://bucket or s3://bucket/prefix, the prefix of letters, digits and . _ - between slashes"
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX_PART: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]+")
_PROBE: Final = "/catalogue/conditional-writes-probe"
# An ETag that no object of ours has.
_NO_ETAG: Final = '"00000000000000000000000000000000"'
_CONDITION_CODES: Final = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_CREDENTIAL_CODES: Final = {
    "403",
    "AccessDenied",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_ABSENT_CODES: Final = {"404", "NoSuchKey", "NotFound"}
_CONDITIONS_NEEDED: Final = (
    "does not honour conditional writes (If-None-Match, If-Match), so two publishers could give out one rendition"
    " number twice; allowed: AWS S3, Ceph RGW, MinIO, or another store that does"
)


@dataclass(frozen=True)
class Stored:
    """An object's bytes and the ETag they had when they were read."""

    body: bytes
    etag: str


@dataclass(frozen=True)
class Upload:
    """An object to write. `sha256` is in hex; the store is told it, and keeps it where it can."""

    path: str
    body: bytes
    content_type: str
    cache_control: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True)
class FileUpload:
    """A large object to write, from a file that does not change meanwhile. `sha256` is that of all of it, in hex."""

    path: str
    file: Path
    sha256: str
    content_type: str
    cache_control: str


class Bucket:
    """A prefix in a bucket. Methods may be called from several threads."""

    def __init__(self, url: str, endpoint_url: str | None = None, session: boto3.Session | None = None) -> None:
        """Raises UsageError when a URL can't be understood; nothing is sent yet."""
        self.url = url.rstrip("/")
        self._name, self._prefix = _parts(url)
        if endpoint_url is not None:
            _require_endpoint(endpoint_url)
        foreign = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=2 * UPLOADS_AT_ONCE,
            # Foreign stores stumble over the checksums that botocore adds by itself; we give our own.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # A store at an address or a host name of its own seldom has a name for each bucket.
            s3={"addressing_style": "path"} if foreign else {},
        )
        self._where = foreign or "AWS"
        with self._translated("connect"):
            self._client: S3Client = (session or boto3.Session()).client("s3", endpoint_url=endpoint_url, config=config)

    def require_usable(self) -> None:
        """Ask whether the bucket is there and we may use it. Raises StoreError."""
        try:
            with self._translated("find"):
                self._client.head_bucket(Bucket=self._name)
        except StoreRefused:
            raise
        except _Absent as error:
            raise StoreRefused(
                f"{self.url}: there is no bucket {self._name} at {self._where}; create it first"
            ) from error

    def require_conditional_writes(self) -> None:
        """Find out whether the store honours conditional writes. Raises StoreRefused when it does not."""
        probe = Upload(
            _PROBE, b"Kept to find out whether this store honours conditional writes.\n", "text/plain", "no-store"
        )
        try:
            self.create(probe)
        except ConditionFailed:
            pass  # It was here before, and the store said so.
        else:
            self._require_refusal(probe, IfNoneMatch="*")
        self._require_refusal(probe, IfMatch=_NO_ETAG)

    def read(self, path: str) -> Stored | None:
        """The object at this path; None when there is none."""
        try:
            with self._translated("read", path):
                answer = self._client.get_object(Bucket=self._name, Key=self._key(path))
                return Stored(answer["Body"].read(), answer["ETag"])
        except _Absent:
            return None

    def etag(self, path: str) -> str | None:
        """The ETag of the object at this path; None when there is none."""
        try:
            with self._translated("look at", path):
                return self._client.head_object(Bucket=self._name, Key=self._key(path))["ETag"]
        except _Absent:
            return None

    def sizes(self, folder: str) -> dict[str, int]:
        """The size of every object below this folder, by path."""
        found: dict[str, int] = {}
        with self._translated("list", folder):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._name, Prefix=self._key(folder) + "/"
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    found["/" + item["Key"].removeprefix(self._prefix).lstrip("/")] = item["Size"]
        return found

    def sha256(self, path: str) -> str | None:
        """The checksum stored with the object, in hex; None when there is no object or no checksum."""
        try:
            with self._translated("look at", path):
                head = self._client.head_object(Bucket=self._name, Key=self._key(path), ChecksumMode="ENABLED")
        except _Absent:
            return None
        # Ours go first: the store's checksum of what was sent in parts is not that of the whole.
        if said := head["Metadata"].get("sha256"):
            return said
        checksum = head.get("ChecksumSHA256", "")
        return base64.b64decode(checksum).hex() if checksum and "-" not in checksum else None

    def put(self, upload: Upload) -> None:
        """Write the object, whatever was there."""
        self._put(upload)

    def put_file(self, upload: FileUpload, reach: Callable[[int], None]) -> None:
        """Write the object in parts, several at once, each with its checksum, whatever was there. `reach` gets every
        count of bytes that went; negative ones, if a part is sent again. A failure leaves no parts behind.
        """
        described = {
            "ContentType": upload.content_type,
            "CacheControl": upload.cache_control,
            "ChecksumAlgorithm": "SHA256",
            "Metadata": {"sha256": upload.sha256},
        }
        config = TransferConfig(max_concurrency=_PARTS_AT_ONCE, multipart_chunksize=WHOLE_BYTES)
        with self._translated("write", upload.path), create_transfer_manager(self._client, config) as manager:
            told = ProgressCallbackInvoker(reach)
            manager.upload(str(upload.file), self._name, self._key(upload.path), described, [told]).result()

    def create(self, upload: Upload) -> None:
        """Write the object if there is none. Raises ConditionFailed if there is."""
        self._put(upload, IfNoneMatch="*")

    def replace(self, upload: Upload, etag: str) -> None:
        """Write the object if the one there still has this ETag. Raises ConditionFailed if not."""
        self._put(upload, IfMatch=etag)

    def _put(self, upload: Upload, **condition: Any) -> None:  # noqa: ANN401 botocore's own keywords
        checksum = upload.sha256
        try:
            with self._translated("write", upload.path):
                self._client.put_object(
                    Bucket=self._name,
                    Key=self._key(upload.path),
                    Body=upload.body,
                    ContentType=upload.content_type,
                    CacheControl=upload.cache_control,
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(checksum)).decode(),
                    Metadata={"sha256": checksum},
                    **condition,
                )
        except _Absent as error:
            # S3 answers 404 to If-Match where there is no object.
            raise ConditionFailed(f"{upload.path}: no such object any more") from error

    def _require_refusal(self, probe: Upload, **condition: str) -> None:
        try:
            self._put(probe, **condition)
        except ConditionFailed:
            return
        except StoreRefused as error:
            if isinstance(error.__cause__, ClientError) and _code(error.__cause__) == "NotImplemented":
                raise StoreRefused(f"{self.url}: the store {_CONDITIONS_NEEDED}") from error
            raise
        raise StoreRefused(f"{self.url}: the store {_CONDITIONS_NEEDED}")

    def _key(self, path: str) -> str:
        return f"{self._prefix}{path}".lstrip("/")

    @contextmanager
    def _translated(self, verb: str, path: str = "") -> Iterator[None]:
        place = f"{self.url}{path}"
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound) as error:
            raise StoreRefused(
                f"{place}: no credentials ({error}); allowed: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE,"
                " or a role of this machine"
            ) from error
        except (NoConnection, HTTPClientError) as error:
            raise StoreUnreachable(f"{place}: no answer from {self._where} ({error})") from error
        except ClientError as error:
            raise self._refusal(verb, place, error) from error
        except (BotoCoreError, ValueError) as error:
            raise StoreRefused(f"{place}: can't {verb} it ({error})") from error

    def _refusal(self, verb: str, place: str, error: ClientError) -> StoreError:
        code = _code(error)
        if code in _CONDITION_CODES:
            return ConditionFailed(f"{place}: someone else wrote it first")
        if code in _CREDENTIAL_CODES:
            return StoreRefused(
                f"{place}: {self._where} refused to let us {verb} it ({code}): wrong credentials, or no permission for"
                f" bucket {self._name}"
            )
        if code == "NoSuchBucket":
            return StoreRefused(f"{place}: there is no bucket {self._name} at {self._where}; create it first")
        if code in _ABSENT_CODES:
            return _Absent(f"{place}: not there")
        if code in {"301", "PermanentRedirect", "AuthorizationHeaderMalformed"}:
            return StoreRefused(f"{place}: the bucket is in another region ({code}); set AWS_REGION to its region")
        message = error.response.get("Error", {}).get("Message", "")
        return StoreRefused(f"{place}: {self._where} refused to {verb} it ({code}: {message})")


class _Absent(StoreError):
    """The object or bucket is not there; each method says what that means."""


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _parts(url: str) -> tuple[str, str]:
    """Bucket and prefix ("" or "films/2026", without slashes around) of an s3:// URL. Raises UsageError."""
    scheme, _, rest = url.partition("://")
    name, _, prefix = rest.rstrip("/").partition("/")
    parts = prefix.split("/") if prefix else []
    if scheme != "s3" or not _BUCKET.fullmatch(name) or not all(_PREFIX_PART.fullmatch(part) for part in parts):
        raise UsageError(f"{url!r} names no bucket; allowed: {_URL_RULE}")
    return name, prefix


def _require_endpoint(url: str) -> None:
    try:
        parts = urlsplit(url)
        well = parts.scheme in {"http", "https"} and parts.hostname and parts.path in {"", "/"} and parts.port != 0
    except ValueError:
        well = False
    if not well:
        raise UsageError(f"endpoint {url!r} is no URL of a store; allowed: http://host[:port] or https://host[:port]")
