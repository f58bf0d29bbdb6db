"""What fill is worth: byte misses of on-demand caching alone, and of fill by three who know different things.

The same films watched at ten sites (tests/bench/store/workload.py), extent by extent, through the store's own policy.
At four in the morning each site is filled: what the plan names is put on its device and pledged, as the keeper does it,
and what viewers ask for beside it is cached on demand. Forecast and placement are the planner's own code; the sums that
it gets from the database are made here from the trace.

| who plans | knows |
|---|---|
| nobody | on-demand caching alone: LRU, S3-FIFO, and the store's policy |
| yesterday | the site's own bytes of the day before, and moves whatever they say |
| ours | what was watched until then, at the site alone or at all ten, within the nightly budget |
| oracle | tomorrow's bytes of each rendition |
"""

from __future__ import annotations

import datetime as dt
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fill import forecast, placement
from fill.forecast import Catalogue, Sums
from fill.placement import Box, Room
from fill.rules import PeakHours, Placing, Smoothing
from oca.cache.policy import Level, Policy
from tests.bench.machine import BenchError, cores
from tests.bench.report import table
from tests.bench.store.plain import PlainLru, PlainS3Fifo
from tests.bench.store.replay import Device, Replay, flash_box
from tests.bench.store.workload import BEGINS_AT, DAY, RENDITIONS, Trace, mixed, region

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

PLEDGE_SHARE: Final = 0.8
"""`store.pledge_share`."""
DAYS: Final = 10
FIRST: Final = 3
"""The first night of fill; what counts begins a day later."""
TASTE: Final = 0.3
"""How much an item's log-popularity differs from site to site."""
_HOUR: Final = 3600.0
_AT: Final = 4 * _HOUR
_FIRST_DAY: Final = dt.date(2025, 6, 16)
"""That BEGINS_AT is the midnight of."""
_EPOCH: Final = dt.date(1970, 1, 1)
_PEAK: Final = PeakHours()
LEAST_WAY: Final = 0.6
MOST_CHURN: Final = 0.05


class Who(StrEnum):
    LRU = "LRU, no fill"
    S3_FIFO = "S3-FIFO, no fill"
    STORE = "ours, no fill"
    YESTERDAY = "yesterday's ranking"
    ALONE = "our fill, site alone"
    POOLED = "our fill, ten sites"
    ORACLE = "oracle"


ON_DEMAND: Final = (Who.LRU, Who.S3_FIFO, Who.STORE)


@dataclass(frozen=True)
class Outcome:
    served: int
    missed: int
    peak_served: int
    peak_missed: int
    nights: tuple[float, ...]
    """What each night brought, as a share of the storage."""

    @property
    def bmr(self) -> float:
        return self.missed / self.served

    @property
    def peak_bmr(self) -> float:
        return self.peak_missed / self.peak_served

    @property
    def churn(self) -> float:
        """Of the nights that count."""
        return max(self.nights, default=0.0)


class World:
    """The films, all sites' demand by day, and what a planner may know of it."""

    def __init__(self, seed: int, scale: float, sites: int) -> None:
        self.films, self.traces = region(seed, scale, sites, TASTE, DAYS)
        rows = np.arange(len(self.films.released) * 8)
        self.groups = (rows[:, None] << 4 | np.arange(int(RENDITIONS))[None, :]).ravel()
        published = np.floor(self.films.published(self.groups)).astype(np.int64) + (_FIRST_DAY - _EPOCH).days
        self.catalogue = Catalogue(
            number=np.arange(len(self.groups)),
            title=self.films.titles(self.groups),
            rung=self.films.rungs(self.groups),
            size_bytes=self.films.sizes(self.groups),
            published=published,
        )
        self.demand = [self._by_day(trace) for trace in self.traces]

    def _by_day(self, trace: Trace) -> tuple[Floats, Floats]:
        """Bytes of each day and rendition: all, and those of the peak hours."""
        since = trace.times - BEGINS_AT
        row = np.searchsorted(self.groups, trace.groups[trace.objects])
        at = (since // DAY).astype(np.int64) * len(self.groups) + row
        sizes = trace.sizes[trace.objects].astype(float)
        is_peak = since % DAY >= _PEAK.start * _HOUR
        shape = (DAYS + 2, len(self.groups))
        count = shape[0] * shape[1]
        whole = np.bincount(at, sizes, count).reshape(shape)
        peak = np.bincount(at[is_peak], sizes[is_peak], count).reshape(shape)
        return whole, peak

    def forecast(self, site: int, day: int, sites: list[int]) -> Floats:
        """Bytes of the site's peak hours on `day`, from the days before, as fill/planning.py makes it."""
        rules = Smoothing()
        tomorrow = _FIRST_DAY + dt.timedelta(days=day)
        days = [_FIRST_DAY + dt.timedelta(days=past) for past in range(day)]
        play = float(np.average(self.catalogue.size_bytes))
        when = forecast.calendar(days, tomorrow, self._launches(day, sites, rules), play, rules)
        total = self._sums(sites, when)
        whole = forecast.of_region(self.catalogue, total, when, rules)
        own = self._sums([site], when)
        return forecast.of_site(self.catalogue, whole, total, own, when, rules).peak_bytes

    def _launches(self, day: int, sites: list[int], rules: Smoothing) -> list[tuple[int, int, int]]:
        first = np.searchsorted(self.catalogue.title, np.arange(self.catalogue.titles))
        age_at_0 = (_FIRST_DAY - _EPOCH).days - self.catalogue.published[first]
        by_title = [
            np.bincount(self.catalogue.title, sum(self.demand[site][0][past] for site in sites), self.catalogue.titles)
            for past in range(day)
        ]
        pairs = []
        for age in range(rules.launch_days):
            before = after = 0.0
            for past in range(day - 1):
                those = age_at_0 + past == age
                before += by_title[past][those].sum()
                after += by_title[past + 1][those].sum()
            pairs.append((age, int(before), int(after)))
        return pairs

    def _sums(self, sites: list[int], when: forecast.Calendar) -> Sums:
        fast = slow = peak = np.zeros(len(self.groups))
        begins = (_FIRST_DAY - _EPOCH).days
        for at, day in enumerate(when.days.tolist()):
            age = np.clip(day - self.catalogue.published, 0, len(when.curve) - 1)
            lift = when.curve[age]
            whole = sum(self.demand[site][0][day - begins] for site in sites) / lift
            evening = sum(self.demand[site][1][day - begins] for site in sites) / lift
            fast, slow = fast + whole * when.fast[at], slow + whole * when.slow[at]
            peak = peak + evening * when.slow[at]
        return Sums(fast, slow, peak)


class Filled(Replay):
    """A replay that can be filled between two accesses."""

    def fill(self, number: int, until: float, now: float) -> int:
        """Have an object on the device and pledged. Returns what that cost, in bytes."""
        shelf = len(self.box) - 1
        slot, size, cost = self.slot_of[number], self.sizes[number], 0
        if slot >= 0 and self.lies_on[slot] - 1 != shelf:
            # In memory, on probation: it moves, which brings nothing from outside.
            if not self._makes_room(shelf, size, frozenset((slot,)), now):
                return 0
            if (slot := self.slot_of[number]) >= 0:
                self.policy.move(slot, shelf, now)
                self.used[self.lies_on[slot] - 1] -= size
                self.used[shelf] += size
                self.lies_on[slot] = shelf + 1
        if slot < 0:
            if not self._makes_room(shelf, size, frozenset(), now):
                return 0
            slot = self._take(number)
            self.policy.place(slot, self.names[number], self.groups[number], shelf, size, now)
            self.slot_of[number] = slot
            self.lies_on[slot] = shelf + 1
            self.used[shelf] += size
            cost = size
        self.policy.pledge(slot, until)  # type: ignore[attr-defined]
        return cost

    def give_back(self, number: int) -> None:
        slot = self.slot_of[number]
        if slot >= 0:
            self.policy.pledge(slot, 0)  # type: ignore[attr-defined]


def whole_trace(world: World, site: int) -> tuple[Trace, Whole]:
    """The trace with all extents that there are, also those that nobody at this site asks for; and where each
    rendition's begin."""
    trace = world.traces[site]
    row, key, size = world.films.parts(world.groups)
    names = mixed(key.astype(np.uint64))
    order = np.argsort(names)
    at = order[np.searchsorted(names[order], trace.names)]
    if not ((names[at] == trace.names).all() and (size[at] == trace.sizes).all()):
        raise BenchError("the trace has extents that its films do not have")
    first = np.searchsorted(row, np.arange(len(world.groups) + 1))
    return replace(trace, objects=at[trace.objects], sizes=size, groups=world.groups[row], names=names), first


_world: list[World] = []
"""Made before the processes fork: they inherit it."""


def outcome(who: Who, site: int, share: float) -> Outcome:
    """One site through its days, with a cache of this share of what is asked for there."""
    (world,) = _world
    capacity = int(world.traces[site].footprint_bytes * share)
    trace, first = whole_trace(world, site)
    nights: list[float] = []
    if who in (Who.LRU, Who.S3_FIFO):
        plain = PlainLru() if who is Who.LRU else PlainS3Fifo()
        run = Filled(plain, trace, (Device(Level.NVME, capacity),))
    else:
        run = Filled(Policy(), trace, flash_box(capacity))
    if who not in ON_DEMAND:
        pledged = np.empty(0, np.int64)
        for day in range(FIRST, DAYS):
            now = BEGINS_AT + day * DAY + _AT
            run.run(int(np.searchsorted(trace.times, now)))
            pledged, cost = _night(world, who, site, day, run, first, capacity, pledged, now)
            if day > FIRST:
                nights.append(cost / capacity)
    run.run()
    run.check_books()
    since = trace.times - BEGINS_AT
    counts = since >= (FIRST + 1) * DAY + _AT
    peak = counts & (since % DAY >= _PEAK.start * _HOUR)
    size = trace.sizes[trace.objects]
    missed = size * (np.frombuffer(run.hits, np.uint8) == 0)
    return Outcome(
        int(size[counts].sum()),
        int(missed[counts].sum()),
        int(size[peak].sum()),
        int(missed[peak].sum()),
        tuple(nights),
    )


def _night(
    world: World,
    who: Who,
    site: int,
    day: int,
    run: Filled,
    first: Whole,
    capacity: int,
    pledged: Whole,
    now: float,
) -> tuple[Whole, int]:
    """Plan and fill. Returns what is pledged then, and what came."""
    catalogue = world.catalogue
    slots = np.frombuffer(run.slot_of, np.int32)
    of_row = np.repeat(np.arange(len(world.groups)), np.diff(first))
    bytes_held = np.bincount(of_row, np.where(slots >= 0, run.trace.sizes, 0), len(world.groups))
    # As the stock says it: what is held to nineteen twentieths counts as held.
    held = np.flatnonzero(bytes_held >= 0.95 * catalogue.size_bytes)
    rules = Placing()
    if who is Who.ORACLE:
        worth, rules = world.demand[site][1][day], Placing(churn=1.0, hysteresis=0.0)
    elif who is Who.YESTERDAY:
        worth, rules = world.demand[site][1][day - 1], Placing(churn=1.0, hysteresis=0.0)
    else:
        sites = [site] if who is Who.ALONE else list(range(len(world.traces)))
        worth = world.forecast(site, day, sites)
    box = Box(
        id=f"site-{site}",
        rooms=(Room("nvme", int(capacity * PLEDGE_SHARE)),),
        storage_bytes=capacity,
        free_bytes=0,
        link_bps=10**12,
        window_bytes=10**18,
        pledged=pledged,
        held=np.union1d(held, pledged),
    )
    (chosen,) = placement.placed(catalogue.number, catalogue.size_bytes, worth, _PEAK.seconds, [box], rules)
    for row in chosen.release.tolist():
        for number in range(first[row], first[row + 1]):
            run.give_back(number)
    cost = 0
    until = now + 2 * DAY
    for row in (*chosen.keep.tolist(), *chosen.bring.tolist()):
        for number in range(first[row], first[row + 1]):
            cost += run.fill(number, until, now)
    return np.sort(chosen.pledged), cost


@dataclass(frozen=True)
class Plan:
    seed: int = 1
    scale: float = 1.0
    sites: int = 10
    shares: tuple[float, ...] = (0.03, 0.1, 0.3)


def measure(plan: Plan) -> dict:
    """{share: {who: [Outcome of each site]}}."""
    _world[:] = [World(plan.seed, plan.scale, plan.sites)]
    jobs = [(who, site, share) for share in plan.shares for who in Who for site in range(plan.sites)]
    found: dict = {share: {who: [None] * plan.sites for who in Who} for share in plan.shares}
    began = time.monotonic()
    with ProcessPoolExecutor(len(cores().all), multiprocessing.get_context("fork")) as processes:
        futures = {processes.submit(outcome, *job): job for job in jobs}
        for done, future in enumerate(as_completed(futures), start=1):
            who, site, share = futures[future]
            found[share][who][site] = future.result()
            if sys.stderr.isatty() or done % 20 == 0:
                print(f"{done}/{len(jobs)} {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def told(found: dict) -> str:
    lines = []
    for share, by_who in found.items():
        lines.append(f"\nCache of {share:.0%} of what is asked for; mean of {len(by_who[Who.LRU])} sites, 6 days:")
        rows = []
        lru, oracle = (_mean(by_who[who], "bmr") for who in (Who.LRU, Who.ORACLE))
        for who, outcomes in by_who.items():
            way = (lru - _mean(outcomes, "bmr")) / (lru - oracle)
            nights = [night for one in outcomes for night in one.nights]
            rows.append(
                (
                    str(who),
                    "",
                    f"{_mean(outcomes, 'bmr'):.4f}",
                    f"{_mean(outcomes, 'peak_bmr'):.4f}",
                    f"{sum(one.peak_missed for one in outcomes) / 1e12:.2f} TB",
                    f"{way:.0%}",
                    f"{np.mean(nights):.1%}" if nights else "",
                    f"{max(nights):.1%}" if nights else "",
                )
            )
        head = ("", "", "bytes missed", "in the peak", "origin, peak", "LRU to oracle", "churn", "most")
        lines.append(table(head, rows))
    return "\n".join([*lines, "", *verdicts(found)])


def _mean(outcomes: list[Outcome], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in outcomes]))


def verdicts(found: dict) -> list[str]:
    lines = []
    for who in (Who.ALONE, Who.POOLED):
        for share, by_who in found.items():
            lru, oracle = (_mean(by_who[one], "bmr") for one in (Who.LRU, Who.ORACLE))
            way = (lru - _mean(by_who[who], "bmr")) / (lru - oracle)
            lines.append(_verdict(way >= LEAST_WAY, f"{who}, {share:.0%}: {way:.0%} of the way from LRU to the oracle"))
        worse = [
            f"{share:.0%} site {site} {name}"
            for share, by_who in found.items()
            for site, one in enumerate(by_who[who])
            for name in ("bmr", "peak_bmr")
            if getattr(one, name) >= min(getattr(by_who[other][site], name) for other in ON_DEMAND)
        ]
        count = 2 * sum(len(by_who[who]) for by_who in found.values())
        lines.append(
            _verdict(
                not worse,
                f"{who}: better than the best on demand alone in {count - len(worse)} of {count} (whole days and peak)"
                + (": not " + ", ".join(worse) if worse else ""),
            )
        )
        churn = max(one.churn for by_who in found.values() for one in by_who[who])
        lines.append(_verdict(churn <= MOST_CHURN, f"{who}: churn at most {churn:.1%} of the storage in any night"))
    return lines


def _verdict(is_reached: bool, words: str) -> str:
    return f"{'reached' if is_reached else 'missed'}: {words}"
