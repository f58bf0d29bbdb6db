"""HTTP dates (RFC 9110 section 5.6.7): all three forms are read, IMF-fixdate is written."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LONG_DAY: Final = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_DAY: Final = f"(?:{'|'.join(_DAYS)})"
_MONTH: Final = f"({'|'.join(_MONTHS)})"
_CLOCK: Final = r"(\d\d):(\d\d):(\d\d)"
_IMF: Final = re.compile(rf"{_DAY}, (\d\d) {_MONTH} (\d{{4}}) {_CLOCK} GMT", re.ASCII)
_RFC850: Final = re.compile(rf"{_LONG_DAY}, (\d\d)-{_MONTH}-(\d\d) {_CLOCK} GMT", re.ASCII)
_ASCTIME: Final = re.compile(rf"{_DAY} {_MONTH} ([ \d]\d) {_CLOCK} (\d{{4}})", re.ASCII)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_Moment = tuple[int, int, int, int, int, int]
"""Year, month, day, hour, minute, second."""


def format_date(moment: float) -> str:
    """`moment` (seconds since 1970, UTC, of the years 1 to 9999) as IMF-fixdate. Fractions are cut off."""
    at = _EPOCH + timedelta(seconds=math.floor(moment))
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year:04d} "
        f"{at.hour:02d}:{at.minute:02d}:{at.second:02d} GMT"
    )


def parse_date(text: str, now: float) -> int | None:
    """Seconds since 1970, or None if `text` is no HTTP date.

    `now` settles the century of the two-digit year of RFC 850: a date over 50 years ahead is in the past.
    """
    text = text.strip(" \t")
    if found := _IMF.fullmatch(text):
        day, month, year, *clock = found.groups()
    elif found := _ASCTIME.fullmatch(text):
        month, day, *clock, year = found.groups()
    elif found := _RFC850.fullmatch(text):
        day, month, year, *clock = found.groups()
    else:
        return None
    hour, minute, second = map(int, clock)
    # A leap second (60) is a valid second; it counts as the one before it.
    written = (int(year), _MONTHS.index(month) + 1, int(day), hour, minute, 59 if second == 60 else second)
    if len(year) == 2:
        written = _within_fifty_years(written, now)
    try:
        return (datetime(*written, tzinfo=UTC) - _EPOCH) // _SECOND
    except ValueError:
        # No such day in the calendar, no such moment on the clock.
        return None


def _within_fifty_years(written: _Moment, now: float) -> _Moment:
    """`written` with its century: the last one that does not lie more than 50 years ahead of `now`."""
    today = _EPOCH + timedelta(seconds=now)
    limit = (today.year + 50, today.month, today.day, today.hour, today.minute, today.second)
    short_year, month, day, hour, minute, second = written
    year = limit[0] - limit[0] % 100 + short_year
    if (year, month, day, hour, minute, second) > limit:
        year -= 100
    return year, month, day, hour, minute, second
