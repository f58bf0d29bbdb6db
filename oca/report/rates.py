"""Rates from counters that only grow: what leaves by the network cards, how busy the cores are, how many bytes hit."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

_HALF: Final = 2**31
_FULL: Final = 0.9
"""Of a link, from which on players are asked to play less."""
_HIT_WINDOW: Final = 300.0
_LEAST_SERVED: Final = 64 * 1024 * 1024
"""Bytes within the window, below which a hit ratio would tell of single viewers."""


def fair_share(link_bps: int, egress_bps: int, viewers: int) -> int:
    """What each viewer should play at most while the link is nearly full: its equal part of what may be used of it. 0
    if there is room, or nobody is known to watch.
    """
    if not viewers or not link_bps or egress_bps < _FULL * link_bps:
        return 0
    return int(_FULL * link_bps / viewers)


class Egress:
    """Bits a second over all cards, from the bytes that each has sent since it came up."""

    def __init__(self) -> None:
        self._sent: dict[str, int] = {}
        self._at: float | None = None
        self.bps = 0

    def counted(self, sent: Mapping[str, int], now: float) -> int:
        """The rate since the last call; a card that is new counts from the next one on. 0 at first."""
        if self._at is not None and now > self._at:
            grown = sum(_growth(self._sent[name], count) for name, count in sent.items() if name in self._sent)
            self.bps = int(grown * 8 / (now - self._at))
        if self._at is None or now > self._at:
            self._at = now
            self._sent = dict(sent)
        return self.bps


def _growth(before: int, after: int) -> int:
    if after >= before:
        return after - before
    # Some drivers count in 32 bits. What falls from the upper half to the lower one has wrapped; everything else that
    # falls was begun anew, and what it shows since then was sent at least.
    if _HALF <= before < 2 * _HALF and after < before - _HALF:
        return after + 2 * _HALF - before
    return after


class Cpu:
    """The share of all cores that was at work, from two readings of the first line of /proc/stat (proc(5))."""

    def __init__(self) -> None:
        self._idle = 0
        self._total = 0
        self.share = 0.0

    def counted(self, line: str) -> float:
        """From 0 to 1, since the last call; at first since the machine came up. Raises ValueError for another line."""
        fields = line.split()
        if fields[:1] != ["cpu"] or len(fields) < 6:
            raise ValueError(f"not the first line of /proc/stat: {line[:80]!r}")
        # user, nice, system, idle, iowait, irq, softirq, steal; guests are in user and nice already.
        ticks = [int(field) for field in fields[1:9]]
        idle, total = ticks[3] + ticks[4], sum(ticks)
        span = total - self._total
        if span > 0:
            # iowait may fall (proc(5)).
            self.share = min(1.0, max(0.0, 1 - (idle - self._idle) / span))
            self._idle, self._total = idle, total
        return self.share


class HitRatio:
    """Which share of the bytes of the last five minutes came from devices."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def counted(self, hit_bytes: int, miss_bytes: int, now: float) -> float | None:
        """None while too few bytes were sent to tell."""
        seen = self._seen
        if seen and (hit_bytes < seen[-1][1] or miss_bytes < seen[-1][2]):
            seen.clear()  # The counters were begun anew.
        seen.append((now, hit_bytes, miss_bytes))
        while len(seen) > 1 and seen[1][0] <= now - _HIT_WINDOW:
            seen.popleft()
        hit, miss = hit_bytes - seen[0][1], miss_bytes - seen[0][2]
        return hit / (hit + miss) if hit + miss >= _LEAST_SERVED else None
