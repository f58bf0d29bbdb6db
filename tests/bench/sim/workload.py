"""Who plays what, when and for how long: a day, the same for the same seed.

Markets get sessions by the root of their demand, and each session weighs what makes up for it: so small ISPs are seen
as sharply as large ones. Starts are spread over the evening as quantiles, not as dice would: a session stands for a
hundred viewers or so, and these together fluctuate less than one. The local hour is that of the sun.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tests.bench.sim.world import VARIANTS, Markets, variant

SESSIONS: Final = 2_000_000
STREAMS: Final = 20_000_000
"""At the peak of the whole world."""
DAY: Final = 86_400
LEAD: Final = 5_400
"""Seconds before the first one that counts: then the house is as full as it would be."""
TITLES: Final = 5_000
_ZIPF: Final = 0.9
_QUARTER: Final = 900
# Of each local hour, how many begin to watch: nobody at five, everybody at eight in the evening.
_HOURS: Final = (
    0.40, 0.22, 0.12, 0.07, 0.05, 0.05, 0.08, 0.14, 0.18, 0.21, 0.24, 0.28,
    0.33, 0.34, 0.34, 0.36, 0.42, 0.52, 0.68, 0.86, 1.00, 0.97, 0.82, 0.60,
)  # fmt: skip
# Mb/s, and how many watch at it: phones, tablets, sets.
_LADDER: Final = ((0.8, 0.08), (1.8, 0.14), (3.2, 0.22), (5.0, 0.30), (8.0, 0.18), (15.5, 0.08))
# Minutes of what there is to see, and how often that is chosen: episodes, films.
_LENGTHS: Final = ((24.0, 0.30), (47.0, 0.40), (102.0, 0.22), (128.0, 0.08))
_ABANDON: Final = 0.18
"""Leave within some minutes."""
_NEXT: Final = 0.35
"""Of those who see an episode to its end, watch one more."""
EXPECTED_BPS: Final = 5_000_000.0
"""As steering's setting `answers.session`: what it reckons with for one that does not say more."""


@dataclass(frozen=True)
class Crowd:
    """Everybody wants the same title at once."""

    at: float
    lasts: float
    """Seconds in which they come; half of them in the first fifth."""
    countries: tuple[str, ...]
    share: float
    """Of all sessions of the day."""
    title: int


@dataclass(frozen=True)
class Sessions:
    """By start."""

    start: np.ndarray
    end: np.ndarray
    market: np.ndarray
    place: np.ndarray
    """Index of `World.wheres`."""
    title: np.ndarray
    weight: np.ndarray
    """Viewers."""
    bps: np.ndarray
    """Of one viewer."""
    is_crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


def sessions(made: Markets, scale: float, crowd: Crowd | None, seed: int) -> Sessions:
    """Seconds of UTC, from `-LEAD` to a day."""
    dice = np.random.default_rng([seed, 3])
    total = round(SESSIONS * scale)
    sudden = round(total * crowd.share) if crowd is not None else 0
    counts = _shares(made.demand**0.5, total - sudden)
    weights = made.demand / np.maximum(counts, 1)
    market = np.repeat(np.arange(len(made), dtype=np.int32), counts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    quantile = (np.arange(len(market)) - first[market] + dice.random(len(market))) / counts[market]
    begun = np.concatenate([[0.0], np.cumsum(_HOURS)]) / sum(_HOURS)
    local = np.interp(quantile, begun, np.arange(25) * 3600.0)
    start = (local - made.longitude[market] / 15.0 * 3600.0) % DAY
    title = _titles(dice, len(market))
    is_crowd = np.zeros(len(market), bool)
    if crowd is not None:
        there = np.where(made.of_country(*crowd.countries), made.demand**0.5, 0.0)
        more = np.repeat(np.arange(len(made), dtype=np.int32), _shares(there, sudden))
        market = np.concatenate([market, more])
        come = crowd.at + crowd.lasts * dice.random(len(more)) ** (np.log(5) / np.log(2))
        start = np.concatenate([start, come])
        title = np.concatenate([title, np.full(len(more), crowd.title, np.int32)])
        is_crowd = np.concatenate([is_crowd, np.ones(len(more), bool)])
    length = _lengths(dice, len(market))
    bps = dice.choice([rate * 1e6 for rate, _ in _LADDER], len(market), p=[share for _, share in _LADDER])
    place = market * VARIANTS + variant(dice, len(market))
    # The last hours of the day before are those of this day.
    again = np.nonzero((start >= DAY - LEAD) & ~is_crowd)[0]
    rows = np.concatenate([np.arange(len(market)), again])
    start = np.concatenate([start, start[again] - DAY])
    order = np.argsort(start, kind="stable")
    rows, start = rows[order], start[order]
    end = start + length[rows]
    weight = weights[market[rows]]
    weight = weight * (STREAMS * scale / _peak(start, end, weight))
    return Sessions(start, end, market[rows], place[rows], title[rows], weight, bps[rows], is_crowd[rows])


def reads(made: Markets, played: Sessions) -> np.ndarray:
    """Bits a second of each market in each quarter of an hour of a usual day: without the crowd."""
    usual = ~played.is_crowd & (played.start >= 0)
    quarters = DAY // _QUARTER
    bits = np.zeros((len(made), 2 * quarters))
    rate = (played.weight * played.bps)[usual]
    start = (played.start[usual] / _QUARTER).astype(int)
    end = (played.end[usual] / _QUARTER).astype(int)
    np.add.at(bits, (played.market[usual], start), rate)
    np.add.at(bits, (played.market[usual], end), -rate)
    bits = np.cumsum(bits, axis=1)
    # Who plays past midnight is in the next day's first hours, which look like this day's.
    return bits[:, :quarters] + bits[:, quarters:]


def _shares(weights: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in these proportions, `total` together: the running sum is never off by one."""
    ends = np.round(np.cumsum(weights) / weights.sum() * total).astype(int)
    return np.diff(np.concatenate([[0], ends]))


def popularity() -> np.ndarray:
    """Of titles, the most popular first."""
    share = 1.0 / np.arange(1, TITLES + 1) ** _ZIPF
    return share / share.sum()


def _titles(dice: np.random.Generator, count: int) -> np.ndarray:
    return np.searchsorted(np.cumsum(popularity())[:-1], dice.random(count)).astype(np.int32)


def _lengths(dice: np.random.Generator, count: int) -> np.ndarray:
    minutes = dice.choice([m for m, _ in _LENGTHS], count, p=[share for _, share in _LENGTHS])
    more = minutes < 60
    for _ in range(4):
        more &= dice.random(count) < _NEXT
        minutes = minutes + np.where(more, minutes % 23 + 24, 0.0)
    seconds = minutes * 60.0
    left = dice.random(count) < _ABANDON
    seconds = np.where(left, np.minimum(seconds, 20.0 + dice.exponential(240.0, count)), seconds)
    # Of the others some go to bed before the end.
    tired = ~left & (dice.random(count) < 0.3)
    return np.where(tired, seconds * dice.uniform(0.1, 1.0, count), seconds)


def _peak(start: np.ndarray, end: np.ndarray, weight: np.ndarray) -> float:
    minutes = np.zeros(DAY // 60 + 1)
    inside = end > 0
    first = np.clip(start[inside] // 60, 0, len(minutes) - 1).astype(int)
    last = np.clip(end[inside] // 60, 0, len(minutes) - 1).astype(int)
    np.add.at(minutes, first, weight[inside])
    np.add.at(minutes, last, -weight[inside])
    return float(np.cumsum(minutes)[:-1].max())
