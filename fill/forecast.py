"""What a region and its sites will be asked for tomorrow. Pure, on arrays in order of the catalogue.

From whole-number sums of the days before (history.py) to bytes in tomorrow's peak hours, for each rendition:

1. A *title*'s bytes: smoothed over days twice, slowly and fast; the more is known of it, the more the fast one counts,
   within bounds (a trend). A title of which little or nothing was seen yet is what releases like it were.
2. A *rendition*'s share of it: what such a rung usually has, corrected by what this one had.
3. A *site*'s share of the region, corrected by what the site itself saw of the rendition.

Steps 1 to 3 correct alike: with m plays expected and n seen, m(n + a)/(m + a). It is the mean of a Poisson rate whose
prior is a gamma distribution of mean m and shape a; a is how much one trusts the expectation, in plays. Where a site
saw little, m is small against a and the region's word stands; where it saw much, its own does. A *play* is a
rendition's size in bytes served.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fill.rules import Smoothing

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

#: Weights are whole numbers of this (history.py).
UNIT: Final = 4096


@dataclass(frozen=True)
class Catalogue:
    """Renditions in order of their numbers; the place in these arrays is a *row*."""

    number: Whole
    title: Whole
    """Titles are counted from 0."""
    rung: Whole
    """Kind, name and codec, counted from 0."""
    size_bytes: Whole
    """More than 0: what has no size can't be planned."""
    published: Whole
    """Days since 1970, UTC."""

    @property
    def titles(self) -> int:
        return int(self.title.max(initial=-1)) + 1

    def __len__(self) -> int:
        return len(self.number)


@dataclass(frozen=True)
class Sums:
    """Of `history.weighted`, one value for each row of the catalogue."""

    fast: Floats
    slow: Floats
    peak: Floats

    @classmethod
    def of(cls, catalogue: Catalogue, number: Whole, fast: Whole, slow: Whole, peak: Whole) -> Sums:
        """From the rows of the table. Numbers that are in no catalogue count for nothing."""
        at = np.searchsorted(catalogue.number, number)
        is_known = at < len(catalogue)
        is_known[is_known] = catalogue.number[at[is_known]] == number[is_known]
        dense = []
        for column in (fast, slow, peak):
            values = np.zeros(len(catalogue))
            values[at[is_known]] = column[is_known]
            dense.append(values)
        return cls(*dense)


@dataclass(frozen=True)
class Calendar:
    """The days that are known, and how they count for `tomorrow`."""

    tomorrow: int
    """Days since 1970."""
    days: Whole
    fast: Whole
    slow: Whole
    curve: Floats
    """By age in days, how much more is asked for a title than when it is old; the last is 1."""

    def ages(self, catalogue: Catalogue) -> Whole:
        """Of each rendition, tomorrow."""
        return np.clip(self.tomorrow - catalogue.published, 0, len(self.curve) - 1)

    def lift(self, catalogue: Catalogue) -> Floats:
        return self.curve[self.ages(catalogue)]

    def exposed(self, weights: Whole, catalogue: Catalogue) -> Floats:
        """The weights of the days on which a rendition was there."""
        order = np.argsort(self.days)
        after = np.concatenate((np.cumsum(weights[order][::-1])[::-1], [0]))
        return after[np.searchsorted(self.days[order], catalogue.published)].astype(float)


@dataclass(frozen=True)
class Release:
    """What the operator knows of a title that nobody could see yet."""

    title: int
    strength: float = 1.0
    """Against the usual release."""


@dataclass(frozen=True)
class Forecast:
    """Bytes of tomorrow, for each row of the catalogue."""

    day_bytes: Floats
    peak_bytes: Floats


def calendar(
    days: Sequence[dt.date], tomorrow: dt.date, pairs: Sequence[tuple[int, int, int]], play: float, rules: Smoothing
) -> Calendar:
    """`pairs` are the rows of `history.launches`; `play` is what a title serves by one play, in bytes."""
    known = np.array(sorted({(day - _EPOCH).days for day in days}), np.int64)
    age = (tomorrow - _EPOCH).days - known
    known, age = known[(age > 0) & (age <= rules.days)], age[(age > 0) & (age <= rules.days)]
    return Calendar(
        tomorrow=(tomorrow - _EPOCH).days,
        days=known,
        fast=np.ceil(UNIT * rules.fast * (1 - rules.fast) ** (age - 1)).astype(np.int64),
        slow=np.ceil(UNIT * rules.slow * (1 - rules.slow) ** (age - 1)).astype(np.int64),
        curve=launch_curve(pairs, play, rules),
    )


_EPOCH: Final = dt.date(1970, 1, 1)


def launch_curve(pairs: Sequence[tuple[int, int, int]], play: float, rules: Smoothing) -> Floats:
    """By the chain-ladder method: the step from one age to the next is what all titles that were seen at both made of
    it, so that a hit in one week is not taken for a curve. Steps of which little was seen are near 1."""
    steps = np.ones(rules.launch_days)
    trust = rules.launch_plays * play
    for age, before, after in pairs:
        if age < rules.launch_days:
            steps[age] = (after + trust) / (before + trust)
    # A title does not, as a rule, become more wanted than old ones by growing old: the first day may be a part of one.
    steps[1:] = np.minimum(steps[1:], 1.0)
    curve = np.concatenate((np.cumprod(steps[::-1])[::-1] ** -1.0, [1.0]))
    return np.clip(curve, 1 / rules.launch_most, rules.launch_most)


def weekday_levels(totals: Mapping[dt.date, int], tomorrow: dt.date) -> dict[dt.date, float]:
    """By what a day's bytes are multiplied to be like those of tomorrow's weekday; 1 with less than two weeks."""
    days = sorted(totals)
    if len(days) < 14 or not all(totals.values()):
        return dict.fromkeys(days, 1.0)
    mean = [np.mean([float(totals[day]) for day in days if day.weekday() == weekday] or [0.0]) for weekday in range(7)]
    if not all(mean):
        return dict.fromkeys(days, 1.0)
    return {day: float(np.clip(mean[tomorrow.weekday()] / mean[day.weekday()], 0.2, 5.0)) for day in days}


def of_region(
    catalogue: Catalogue, sums: Sums, when: Calendar, rules: Smoothing, releases: Sequence[Release] = ()
) -> Forecast:
    """Steps 1 and 2."""
    titles, title = catalogue.titles, catalogue.title
    size = catalogue.size_bytes.astype(float)
    fast_days, slow_days = when.exposed(when.fast, catalogue), when.exposed(when.slow, catalogue)
    fast, slow = _ratio(sums.fast, fast_days), _ratio(sums.slow, slow_days)
    lift = when.lift(catalogue)

    # 1. Of titles. What one play of it serves is the mean of its renditions, by their bytes.
    first = np.zeros(titles, np.int64)
    first[title[::-1]] = np.arange(len(title))[::-1]
    title_fast, title_slow = np.bincount(title, fast, titles), np.bincount(title, slow, titles)
    plays = np.bincount(title, sums.slow / size, titles) / UNIT
    spread = _spread(when.slow)
    per_play = _ratio(np.bincount(title, sums.slow, titles) / UNIT, plays)
    usual_play = _ratio(np.array(per_play @ plays), np.array(plays.sum()))
    per_play = np.where(per_play > 0, per_play, float(usual_play))
    gain = _ratio(title_fast, per_play)
    gain = gain / (gain + rules.trend_plays)
    blended = title_slow + gain * (np.minimum(title_fast, rules.trend_most * title_slow) - title_slow)
    seen_days = slow_days[first] / UNIT * spread
    expected = _expected(when, catalogue, first, blended, seen_days > 0, rules)
    strength = np.ones(titles)
    for release in releases:
        strength[release.title] = release.strength
    expected *= strength
    counts = _ratio(expected * seen_days, per_play)
    wanted = (
        np.where(
            seen_days > 0,
            _corrected(expected, counts, _ratio(blended * seen_days, per_play), rules.title_shape),
            expected,
        )
        * lift[first]
    )

    # 2. Of renditions: by rung, per byte, for ladders differ from title to title.
    per_byte = _ratio(title_slow, np.bincount(title, size, titles))
    rungs = int(catalogue.rung.max(initial=-1)) + 1
    usual = _ratio(
        np.bincount(catalogue.rung, slow, rungs), np.bincount(catalogue.rung, per_byte[title] * size, rungs), empty=1.0
    )
    of_rung = usual[catalogue.rung] * size
    share = _ratio(of_rung, np.bincount(title, of_rung, titles)[title])
    seen = slow * slow_days / UNIT * spread / size
    model = title_slow[title] * share * slow_days / UNIT * spread / size
    corrected = _corrected(share, model, seen, rules.rung_shape)
    share = _ratio(corrected, np.bincount(title, corrected, titles)[title])
    day_bytes = wanted[title] * share

    # Peak hours: the region's share of them, corrected by title.
    whole = float(_ratio(np.array(sums.peak.sum()), np.array(sums.slow.sum())))
    peak_plays = np.bincount(title, sums.peak / size, titles) / UNIT * spread
    own = (peak_plays + rules.peak_plays * whole) / (plays * spread + rules.peak_plays)
    return Forecast(day_bytes, day_bytes * own[title])


def of_site(
    catalogue: Catalogue,
    region: Forecast,
    region_sums: Sums,
    own: Sums,
    when: Calendar,
    rules: Smoothing,
    least_share: float = 0.0,
) -> Forecast:
    """Step 3. A site that is new has the `least_share` of its region: it is filled before its first viewer comes."""
    total = region_sums.slow.sum()
    share = max(least_share, own.slow.sum() / total) if total else 0.0
    size = catalogue.size_bytes.astype(float)
    spread = _spread(when.slow) / UNIT / size
    # What the site would have seen of what its region saw, were it like the region. Not of what is forecast there: a
    # trend of the region is the site's too.
    expected = region_sums.slow * share * spread
    factor = _corrected(np.ones(len(size)), expected, own.slow * spread, rules.site_shape)
    return Forecast(region.day_bytes * share * factor, region.peak_bytes * share * factor)


def _expected(
    when: Calendar, catalogue: Catalogue, first: Whole, level: Floats, was_seen: NDArray[np.bool_], rules: Smoothing
) -> Floats:
    """What is expected of a title before it is looked at: of one that came lately, what others that came lately are
    asked for; of an old one, what old ones are. A mean of few leans on that of all."""
    is_new = (when.tomorrow - catalogue.published[first]) <= rules.launch_days
    means = np.zeros(len(first))
    of_all = float(level[was_seen].mean()) if was_seen.any() else 0.0
    for group in (is_new, ~is_new):
        seen = group & was_seen
        means[group] = (level[seen].sum() + 5 * of_all) / (seen.sum() + 5)
    return means


def _corrected(value: Floats, expected: Floats, seen: Floats, shape: float) -> Floats:
    """`value`, of which `expected` plays were to be seen and `seen` were."""
    return value * (seen + shape) / (expected + shape)


def _spread(weights: Whole) -> float:
    """By how much a weighted sum of days is worth more plays than its weights say, were they of one day."""
    total = float(weights.sum())
    return total * UNIT / float((weights.astype(float) ** 2).sum()) if total else 1.0


def _ratio(above: Floats | Whole, below: Floats | Whole, empty: float = 0.0) -> Floats:
    """above/below, and `empty` where there is nothing below."""
    ratio: Floats = np.divide(above, below, out=np.full(np.broadcast(above, below).shape, empty), where=below > 0)
    return ratio
