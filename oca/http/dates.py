"""HTTP dates (RFC 9110 section 5.6.7): all three forms are read, IMF-fixdate is written."""

from __future__ import annotations

import calendar
import re
import time
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK: Final = r"(\d\d):(\d\d):(\d\d)"
_IMF: Final = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) (\w{3}) (\d{4}) " + _CLOCK + " GMT", re.ASCII)
_RFC850: Final = re.compile(r"[A-Z][a-z]{5,8}, (\d\d)-(\w{3})-(\d\d) " + _CLOCK + " GMT", re.ASCII)
_ASCTIME: Final = re.compile(r"[A-Z][a-z]{2} (\w{3}) ([ \d]\d) " + _CLOCK + r" (\d{4})", re.ASCII)


def format_date(moment: float) -> str:
    """`moment` (seconds since 1970, UTC) as IMF-fixdate."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(moment)
    return f"{_DAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year:04d} {hour:02d}:{minute:02d}:{second:02d} GMT"


def parse_date(text: str, now: float) -> int | None:
    """Seconds since 1970, or None if `text` is no HTTP date.

    `now` settles the century of the two-digit year of RFC 850: a date over 50 years ahead is in the past.
    """
    text = text.strip()
    if found := _IMF.fullmatch(text):
        day, month, year, *clock = found.groups()
    elif found := _RFC850.fullmatch(text):
        day, month, short_year, *clock = found.groups()
        this_year = time.gmtime(now).tm_year
        full_year = this_year - this_year % 100 + int(short_year)
        year = str(full_year - 100 if full_year > this_year + 50 else full_year)
    elif found := _ASCTIME.fullmatch(text):
        month, day, *clock, year = found.groups()
    else:
        return None
    if month not in _MONTHS:
        return None
    hour, minute, second = (int(part) for part in clock)
    # A leap second (60) is a valid second; it counts as the one before it.
    if not (1 <= int(day) <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    moment = (int(year), _MONTHS.index(month) + 1, int(day), hour, minute, min(second, 59))
    return calendar.timegm((*moment, 0, 0, 0))
