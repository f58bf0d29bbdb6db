"""What a source's answer to a ranged fetch is worth. A pure function of the answer's head.

Caches that corrupted a film trusted a 206 (nginx #1065 and #1611, ATS #8481, plug #845). So all of this
must hold of a 206, or nothing of it is used: the wanted start, the right end, one complete length, the same strong
validator as the bytes held already, identity coding, and a body of exactly that length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from oca.cache.records import ObjectRecord
from oca.errors import FetchReason, GenerationChanged, RequestRefused, SourceError
from oca.http.dates import parse_date

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.IGNORECASE)
_STRONG_TAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
NEGATIVE: Final = frozenset({403, 404, 410})
# Said of every request alike: credentials are wrong, the source is slow or has enough of us.
_UNWELL: Final = frozenset({401, 407, 408, 425, 429})
_KEPT: Final = ("content-type", "content-language", "content-disposition", "expires", "cmsd-static")


class Version(msgspec.Struct, frozen=True):
    """Which bytes an answer is about."""

    size: int
    etag: bytes
    last_modified: int | None
    kept: dict[str, str]

    @property
    def is_strong(self) -> bool:
        """Whether two answers with this validator are known to be the same bytes."""
        return bool(self.etag) or self.last_modified is not None


class Part(msgspec.Struct, frozen=True):
    """The body is the bytes from `start` up to and without `stop`, no more and no less."""

    start: int
    stop: int
    version: Version


class Whole(msgspec.Struct, frozen=True):
    """The body is the whole object. `version.size` is -1 if its length is not known before its end."""

    version: Version


class Negative(msgspec.Struct, frozen=True):
    """The object is not to be had, and saying so again soon is right: 403, 404 or 410."""

    status: int


class Unchanged(msgspec.Struct, frozen=True):
    """304: what we hold is still the present generation."""


class Beyond(msgspec.Struct, frozen=True):
    """416: the wanted start lies behind the end. What the object is must be asked without a range."""


Answer = Part | Whole | Negative | Unchanged | Beyond


def judge(
    status: int,
    headers: Mapping[str, str],
    *,
    start: int,
    stop: int | None,
    held: ObjectRecord | None,
    now: float,
    is_s3: bool = False,
) -> Answer:
    """Judge the head of an answer to a GET for `[start, stop)`, or for everything if `stop` is None.

    `headers` have lower-case names. `held` is the generation that the bytes must belong to, or None if none is held
    yet; then `stop` may lie behind the end. Raises `SourceError`: `GenerationChanged` if the object is another now,
    `RequestRefused` if the source is well but has no answer to this.
    """
    if status == 304:
        if held is None:
            raise SourceError(FetchReason.STATUS, "304 to a request without a condition")
        return Unchanged()
    if status in NEGATIVE:
        return Negative(status)
    if status == 412:
        raise GenerationChanged("412: the source holds another version")
    if status == 416:
        if stop is None:
            raise SourceError(FetchReason.STATUS, "416 to a request without a range")
        return Beyond()
    if status == 508:
        raise RequestRefused(FetchReason.LOOP, "508: the request came to this source through itself")
    if 400 <= status < 500 and status not in _UNWELL:
        raise RequestRefused(FetchReason.STATUS, f"status {status}")
    if status not in (200, 206):
        raise SourceError(FetchReason.STATUS, f"status {status}")
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise SourceError(FetchReason.ENCODED, f"Content-Encoding {coding!r} though identity was asked for")
    length = _length(headers)
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if status == 206 and stop is None:
        raise SourceError(FetchReason.NOT_PARTIAL, "206 to a request without a range")
    # rclone's S3 server answers ranges rightly, but with status 200. Content-Length settles which of the two it is.
    is_part = status == 206 or (is_s3 and stop is not None and found is not None and length != int(found[3]))
    if not is_part:
        version = _version(headers, -1 if length is None else length, now)
        if held is not None:
            _same(held, version)
        return Whole(version)
    if found is None:
        raise SourceError(
            FetchReason.WRONG_RANGE, f"Content-Range {headers.get('content-range')!r} is not one byte range"
        )
    first, last, size = (int(number) for number in found.groups())
    assert stop is not None
    version = _version(headers, size, now)
    if held is not None:
        _same(held, version)
    if first != start or last + 1 != min(stop, size):
        raise SourceError(FetchReason.WRONG_RANGE, f"got bytes {first}-{last} of {size}, wanted {start}-{stop - 1}")
    if length != last + 1 - first:
        raise SourceError(FetchReason.WRONG_SIZE, f"Content-Length {length} for bytes {first}-{last}")
    return Part(first, last + 1, version)


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise SourceError(FetchReason.WRONG_SIZE, f"Content-Length {text!r}")
    return int(text)


def _version(headers: Mapping[str, str], size: int, now: float) -> Version:
    etag = headers.get("etag", "").strip()
    last_modified = parse_date(headers.get("last-modified", ""), now)
    date = parse_date(headers.get("date", ""), now)
    if last_modified is not None and (date is None or date < last_modified + 1):
        # RFC 9110 section 8.8.2.2: within the same second the object may have changed twice.
        last_modified = None
    kept = {_written(name): headers[name] for name in _KEPT if name in headers}
    strong = etag.encode("latin-1", "replace") if _STRONG_TAG.fullmatch(etag) else b""
    return Version(size, strong, last_modified, kept)


def _same(held: ObjectRecord, version: Version) -> None:
    now_is = ObjectRecord("", 0, version.size, 200, version.etag, version.last_modified)
    if not held.is_same_version(now_is):
        raise GenerationChanged(
            f"holds {held.size} bytes {held.etag!r} {held.last_modified}, "
            f"source has {version.size} bytes {version.etag!r} {version.last_modified}"
        )


def _written(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("-"))
