"""Preconditions and ranges, evaluated in the order of RFC 9110 section 13.2.2. A pure function of values."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from oca.http.dates import parse_date
from oca.http.ranges import Span, Verdict, requested_spans
from oca.http.request import Fields

_ENTITY_TAG: Final = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
# What may follow each piece never begins like that piece, so a long hostile list costs one pass.
_ENTITY_TAGS: Final = re.compile(rb"[\t ,]*(?:%b[\t ]*(?:,[\t ,]*|\Z))*" % _ENTITY_TAG.pattern)


class Outcome(Enum):
    WHOLE = 200
    PARTIAL = 206
    NOT_MODIFIED = 304
    PRECONDITION_FAILED = 412
    UNSATISFIABLE = 416


Decision = tuple[Outcome, list[Span]]
"""The spans are filled for PARTIAL only."""


def decide(
    fields: Fields, *, is_head: bool, etag: bytes, last_modified: int | None, size: int, max_ranges: int, now: float
) -> Decision:
    """What a GET or HEAD with `fields` gets of a 200 representation of `size` bytes.

    `etag` is the strong entity tag with its quotes, or empty; `last_modified` is in seconds since 1970, or None.
    `now` only settles the century of two-digit years.
    """
    if fields.if_match is not None:
        if not _if_match_holds(fields.if_match, etag):
            return Outcome.PRECONDITION_FAILED, []
    elif fields.if_unmodified_since is not None:
        limit = parse_date(fields.if_unmodified_since.decode("latin-1"), now)
        if limit is not None and last_modified is not None and last_modified > limit:
            return Outcome.PRECONDITION_FAILED, []
    if fields.if_none_match is not None:
        if _lists_weakly(fields.if_none_match, etag):
            return Outcome.NOT_MODIFIED, []
    elif fields.if_modified_since is not None:
        since = parse_date(fields.if_modified_since.decode("latin-1"), now)
        if since is not None and last_modified is not None and last_modified <= since:
            return Outcome.NOT_MODIFIED, []
    if is_head or fields.range is None:
        # RFC 9110 section 14.2: Range is defined for GET only.
        return Outcome.WHOLE, []
    if fields.if_range is not None and not _if_range_holds(fields.if_range, etag, last_modified, now):
        return Outcome.WHOLE, []
    spans = requested_spans(fields.range, size, max_ranges)
    if spans is Verdict.WHOLE:
        return Outcome.WHOLE, []
    if spans is Verdict.UNSATISFIABLE:
        return Outcome.UNSATISFIABLE, []
    assert isinstance(spans, list)
    return Outcome.PARTIAL, spans


def _if_match_holds(header: bytes, etag: bytes) -> bool:
    """Strong comparison (section 13.1.1). `*` holds: there is a representation."""
    if header == b"*":
        return True
    return bool(etag) and (b"", etag) in _entity_tags(header)


def _lists_weakly(header: bytes, etag: bytes) -> bool:
    """Weak comparison (section 13.1.2): the mark W/ does not count."""
    if header == b"*":
        return True
    return bool(etag) and any(tag == etag for _, tag in _entity_tags(header))


def _entity_tags(header: bytes) -> list[tuple[bytes, bytes]]:
    """Each tag with its weakness mark (`W/` or empty). A malformed list names none: a guess could be a false 304."""
    if _ENTITY_TAGS.fullmatch(header) is None:
        return []
    return _ENTITY_TAG.findall(header)


def _if_range_holds(header: bytes, etag: bytes, last_modified: int | None, now: float) -> bool:
    """Strong comparison only (section 13.1.5); a date must equal Last-Modified, which we replay only if strong."""
    if header.startswith((b'"', b"W/")):
        return bool(etag) and header == etag
    moment = parse_date(header.decode("latin-1"), now)
    return moment is not None and moment == last_modified
