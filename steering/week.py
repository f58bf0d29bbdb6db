"""What sites carried in each hour of the week that is behind us: what they will carry in the next one, most likely.

For the question whether a site can do without an appliance on Saturday at four. Not a forecast of growth: the largest
load that was seen in the same hour, a week ago or less.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

HOURS: Final = 168
_HOUR: Final = 3600.0
_UNSEEN: Final = -1.0


class _Kept(Struct, frozen=True):
    format: int
    hour: int
    sites: dict[str, bytes]


_FORMAT: Final = 1


class Week:
    """Peaks in bits a second, by site and hour. 700 bytes a site."""

    def __init__(self) -> None:
        self._hour = 0
        """Since 1970, of the last look."""
        self._peaks: dict[str, array[float]] = {}

    def note(self, loads: Mapping[str, float], now: float) -> None:
        """What sites carry now. Others are forgotten."""
        hour = int(now // _HOUR)
        skipped = range(max(self._hour + 1, hour - HOURS + 1), hour + 1)
        for site in [site for site in self._peaks if site not in loads]:
            del self._peaks[site]
        for site, load in loads.items():
            peaks = self._peaks.get(site)
            if peaks is None:
                peaks = self._peaks[site] = array("f", [_UNSEEN]) * HOURS
            for begun in skipped:
                # What was seen in this hour a week ago has had its time, also where nobody looked.
                peaks[begun % HOURS] = _UNSEEN
            peaks[hour % HOURS] = max(peaks[hour % HOURS], load)
        self._hour = max(self._hour, hour)

    def expected(self, site: str, start: float, stop: float) -> float | None:
        """The largest load of a site in these hours, as far as they were seen; None if none was."""
        peaks = self._peaks.get(site)
        if peaks is None:
            return None
        first, last = int(start // _HOUR), int(stop // _HOUR) + (stop % _HOUR > 0)
        seen = max(peaks[hour % HOURS] for hour in range(first, min(last, first + HOURS)))
        return None if seen == _UNSEEN else seen

    def packed(self) -> bytes:
        return msgspec.msgpack.encode(
            _Kept(_FORMAT, self._hour, {site: peaks.tobytes() for site, peaks in self._peaks.items()})
        )

    def unpack(self, packed: bytes, sites: Iterable[str]) -> None:
        """Go by what was packed. Raises `msgspec.DecodeError` for what was not."""
        kept = msgspec.msgpack.decode(packed, type=_Kept)
        wanted = set(sites)
        if kept.format != _FORMAT:
            return
        self._hour = kept.hour
        for site, raw in kept.sites.items():
            peaks = array("f")
            if site in wanted and len(raw) == HOURS * peaks.itemsize:
                peaks.frombytes(raw)
                self._peaks[site] = peaks
