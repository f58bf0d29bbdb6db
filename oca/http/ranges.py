"""Byte ranges (RFC 9110 section 14): from a Range header and a size to half-open spans. A pure function.

| the header | the answer |
|---|---|
| unknown unit, malformed, `last < first` | WHOLE: the header is ignored, 200 |
| empty list elements, spaces around commas | skipped, as RFC 9110 section 5.6.1 asks |
| nothing of it lies within the object | UNSATISFIABLE: 416 |
| more ranges than `max_ranges` | UNSATISFIABLE: 416, as section 15.5.17 allows; a 200 would send the whole film |
| ranges that overlap or touch | joined, so that no byte is sent twice |
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

Span = tuple[int, int]
"""Half-open: the bytes at `start`, up to and without `stop`."""

# As every client writes it; another case of `bytes` takes the longer way. No number here needs a check of its length.
_SINGLE: Final = re.compile(rb"bytes=(\d{1,18})-(\d{0,18})")
_ELEMENT: Final = re.compile(rb"(\d*)-(\d*)")
# Larger than any object; saves us from converting a number of a thousand digits.
_BEYOND: Final = 2**62
_DIGITS: Final = 18


class Verdict(Enum):
    WHOLE = "the header does not apply: send everything"
    UNSATISFIABLE = "no requested byte exists, or too many ranges"


def single_span(header: bytes, size: int) -> Span | None:
    """The span of the plainest of headers, `bytes=first-last` or `bytes=first-`; None for any other."""
    if single := _SINGLE.fullmatch(header):
        first_digits, last_digits = single.groups()
        first = int(first_digits)
        stop = int(last_digits) + 1 if last_digits else size
        if first < stop and first < size:
            return first, min(stop, size)
    return None


def requested_spans(header: bytes, size: int, max_ranges: int) -> list[Span] | Verdict:
    """The spans of an object of `size` bytes that `header` (the value of Range) asks for, in the order asked.

    Each span is non-empty and within the object, no two overlap or touch, and their sum is at most `size`.
    """
    if single := _SINGLE.fullmatch(header):
        first_digits, last_digits = single.groups()
        first = int(first_digits)
        stop = int(last_digits) + 1 if last_digits else _BEYOND
        if stop <= first:
            return Verdict.WHOLE
        return [(first, min(stop, size))] if first < size else Verdict.UNSATISFIABLE
    unit, equals, ranges = header.partition(b"=")
    if not equals or unit.lower() != b"bytes":
        return Verdict.WHOLE
    spans: list[Span] = []
    count = 0
    for padded in ranges.split(b","):
        element = padded.strip(b" \t")
        if not element:
            continue
        found = _ELEMENT.fullmatch(element)
        if found is None or element == b"-":
            return Verdict.WHOLE
        count += 1
        first_digits, last_digits = found.groups()
        if first_digits:
            first = _number(first_digits)
            stop = _number(last_digits) + 1 if last_digits else _BEYOND
            if last_digits and _is_below(last_digits, first_digits):
                return Verdict.WHOLE
        else:
            suffix = _number(last_digits)
            if suffix and not size:
                # Satisfiable, yet Content-Range cannot name zero bytes: the whole (empty) object is the answer.
                return Verdict.WHOLE
            first, stop = max(0, size - suffix), size
        stop = min(stop, size)
        if first < stop:
            spans.append((first, stop))
    if not count:
        return Verdict.WHOLE
    if not spans or count > max_ranges:
        return Verdict.UNSATISFIABLE
    return _joined(spans) if len(spans) > 1 else spans


def _is_below(left: bytes, right: bytes) -> bool:
    """Compare as numbers, however long."""
    left, right = left.lstrip(b"0"), right.lstrip(b"0")
    return (len(left), left) < (len(right), right)


def _number(digits: bytes) -> int:
    digits = digits.lstrip(b"0") or b"0"
    return int(digits) if len(digits) <= _DIGITS else _BEYOND


def _joined(spans: list[Span]) -> list[Span]:
    """Join what overlaps or touches; the rest keeps the order of the request (section 15.3.7.2)."""
    ordered = sorted(spans)
    joined = [ordered[0]]
    for start, stop in ordered[1:]:
        last_start, last_stop = joined[-1]
        if start <= last_stop:
            joined[-1] = (last_start, max(last_stop, stop))
        else:
            joined.append((start, stop))
    if len(joined) == len(spans):
        return spans

    def asked_at(span: Span) -> int:
        return next(i for i, (start, _) in enumerate(spans) if span[0] <= start < span[1])

    return sorted(joined, key=asked_at)


def first_wanted(header: bytes) -> int | None:
    """The first byte that `header` will want of an object whose size is not known yet.

    0 if the header does not apply; None if that depends on the size (a suffix).
    """
    unit, equals, ranges = header.partition(b"=")
    if not equals or unit.lower() != b"bytes":
        return 0
    for padded in ranges.split(b","):
        element = padded.strip(b" \t")
        if element.startswith(b"-"):
            return None
        if found := _ELEMENT.fullmatch(element):
            first = _number(found[1])
            return first if first < _BEYOND else None
        if element:
            return 0
    return 0
