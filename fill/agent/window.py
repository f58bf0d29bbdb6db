"""When an appliance may be filled, by the clock on its own wall. Pure; moments are seconds since 1970.

A window opens when the wall clock first shows its start, and closes when it first shows its stop: in the night on which
clocks are put forward it is an hour shorter, in the one on which they are put back an hour longer. A time that the wall
clock skips counts as shown at the moment of the leap.
"""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple
from zoneinfo import ZoneInfo


class Span(NamedTuple):
    """[opens, closes), and the local date on which it opens."""

    night: dt.date
    opens: float
    closes: float

    def __contains__(self, now: object) -> bool:
        return isinstance(now, int | float) and self.opens <= now < self.closes


class Window:
    def __init__(self, start: dt.time, stop: dt.time, zone: ZoneInfo) -> None:
        """From a time to itself is the whole day; to an earlier one, until the next day."""
        self._start = start
        self._stop = stop
        self._zone = zone
        self._crosses = dt.timedelta(days=0 if stop > start else 1)

    def at(self, now: float) -> Span:
        """The span that `now` is in, else the next one."""
        today = dt.datetime.fromtimestamp(now, self._zone).date()
        # A whole date may be missing: Samoa went from the 29th to the 31st of December 2011.
        spans = (self.of(today + dt.timedelta(days=days)) for days in range(-2, 4))
        return next(span for span in spans if span.closes > max(now, span.opens))

    def of(self, night: dt.date) -> Span:
        """The span that opens on this local date; empty if the date has none."""
        return Span(
            night,
            shown_at(dt.datetime.combine(night, self._start), self._zone),
            shown_at(dt.datetime.combine(night + self._crosses, self._stop), self._zone),
        )


def shown_at(wall: dt.datetime, zone: ZoneInfo) -> float:
    """The first moment at which the wall clock shows this time, or has leapt over it."""
    early, late = (wall.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
    if early <= late:
        return early  # Shown once, or twice: then first without fold (PEP 495).
    # It is leapt over: reckoned by the offset from before it is late, by that from after it early. The leap is between.
    low, high = int(late), int(early)
    before = dt.datetime.fromtimestamp(low, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if dt.datetime.fromtimestamp(middle, zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return float(high)
