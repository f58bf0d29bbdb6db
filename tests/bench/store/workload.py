"""What viewers ask of one appliance, as traces: repeatable, and made in seconds.

Two families. **Popularity**: films and series, Zipf 0.9 with a daily random walk of the log-popularity, releases whose
boost decays over days; the evening is five times the early morning. **Recency**: clips, news and downloads, re-watched
soon after or not at all (an LRU stack whose depths are log-normal), and a tenth for what is asked for every day.

Sessions are shared: a start-up ramp, the rendition that the line carries, a dip, seeking, half of them abandoned,
bingeing. They are seen in two units. A **segment** is an object of 4-10 s; an **extent** is 64 MiB of a single-file
rendition, and a session asks for it once however many of its requests fall into it. Sizes are whole pages, as on disk.

Where this differs from a real site: it is small, and segments come from a smaller one than extents (a play of a film is
400 segments but 17 extents, and both traces have a million accesses or two); an extent is counted whole though only a
part of it may be asked for; there is no live television, no audio and no geography.

Byte miss ratios at 10 % of the footprint, seed 1, beside published ones (popularity: the same model with 22 renditions
and 20 k videos; recency: JEDI's `v` class). The spread is alike; the levels are higher, as a small site re-uses less:

              popularity extents    popularity segments   recency extents  recency segments   JEDI v
  LRU         .503   pub. .354      .677   pub. .591      .472             .479               .409
  S3-FIFO     -18 %       -18 %     -19 %       -12 %     +9 %             +9 %               +9 %
  ARC         -16 %       -17 %     -17 %       -13 %     +20 %            +19 %              +16 %
  SIEVE       -14 %       -12 %     -16 %       -11 %     +25 %            +42 %              +3 %
  W-TinyLFU   -20 %       -16 %     -18 %        -8 %     +36 %            +44 %              +23 %
  Belady      -43 %       -41 %     -39 %       -33 %     -30 %            -27 %              -27 %

What differs: our recency is harder on those that keep what was read twice, for it seldom comes back once it is cold.
Another seed moves LRU by up to .02, and the others with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from oca.cache.keys import grouped

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

EXTENT_BYTES: Final = 64 << 20
PAGE: Final = 4096
DAY: Final = 86400.0
BEGINS_AT: Final = 1_750_032_000.0
"""Midnight. Times of a trace are such as an appliance sees, for policies that keep them in few bits."""
WARM_SHARE: Final = 0.3

RUNGS_KBPS: Final = np.array([800, 1600, 2800, 4500, 7000], float)
CODECS: Final = np.array([1.0, 0.65])
"""Bit rates against AVC's; a device knows one codec."""
RENDITIONS: Final = len(RUNGS_KBPS) * len(CODECS)
_HOURLY: Final = np.array(
    [6, 4, 3, 2.4, 2, 2, 2.2, 2.8, 3.5, 4, 4.5, 5, 5.5, 5.5, 5.5, 5.8, 6.2, 7, 8, 9.5, 11, 11, 9.5, 7.5]
)
_RUNG_SHIFT: Final = 4
_PART_SHIFT: Final = 16


class Family(StrEnum):
    POPULARITY = "popularity"
    RECENCY = "recency"


class Unit(StrEnum):
    SEGMENTS = "segments"
    EXTENTS = "extents"


@dataclass(frozen=True)
class Trace:
    """Accesses in order of time. Objects are numbered from 0; what is known of an object lies under its number."""

    family: Family
    unit: Unit
    seed: int
    times: Floats
    objects: Whole
    sizes: Whole
    """Of each object."""
    groups: Whole
    """Of each object: its rendition."""
    names: NDArray[np.uint64]
    """Of each object: 64 well-mixed bits."""
    sessions: int

    def __len__(self) -> int:
        return len(self.objects)

    def cache_groups(self) -> list[int]:
        """Of each object, as the store makes it of a path."""
        titles = mixed((self.groups >> _RUNG_SHIFT).astype(np.uint64))
        renditions = mixed(self.groups.astype(np.uint64))
        return list(map(grouped, titles.tolist(), renditions.tolist()))

    @property
    def warm(self) -> int:
        """Accesses before this one warm the cache and are not counted."""
        return int(len(self) * WARM_SHARE)

    @property
    def footprint_bytes(self) -> int:
        """Of all objects that are asked for."""
        return int(self.sizes.sum())

    @property
    def served_bytes_a_day(self) -> float:
        return float(self.sizes[self.objects].sum() / (self.times[-1] - self.times[0]) * DAY)

    @property
    def counted_bytes(self) -> int:
        """What is served after the warm-up."""
        return int(self.sizes[self.objects[self.warm :]].sum())


@dataclass(frozen=True)
class Site:
    """How large a site is, and for how long it is watched."""

    sessions: int
    items: int
    days: float


# Chosen for a million accesses each, and for the LRU curves that are published for such sites.
SITES: Final = {
    (Family.POPULARITY, Unit.SEGMENTS): Site(4_000, 90, 5),
    (Family.POPULARITY, Unit.EXTENTS): Site(75_000, 500, 10),
    (Family.RECENCY, Unit.SEGMENTS): Site(18_000, 0, 3),
    (Family.RECENCY, Unit.EXTENTS): Site(260_000, 0, 6),
}


@dataclass(frozen=True)
class Films:
    """What there is to see, whoever watches. A video is a film or an episode of an item; row by row of items."""

    released: Floats
    """Days after the trace began; negative: before."""
    seconds: Floats
    """Of each video of the item."""

    def titles(self, groups: Whole) -> Whole:
        """The video of each rendition."""
        return groups >> _RUNG_SHIFT

    def rungs(self, groups: Whole) -> Whole:
        return groups & ((1 << _RUNG_SHIFT) - 1)

    def published(self, groups: Whole) -> Floats:
        return self.released[self.titles(groups) // _EPISODES]

    def sizes(self, groups: Whole) -> Whole:
        """Of each rendition, in bytes."""
        whole = self.seconds[self.titles(groups) // _EPISODES] * _bytes_a_second(self.rungs(groups))
        return np.ceil(whole / PAGE).astype(np.int64) * PAGE

    def parts(self, groups: Whole) -> tuple[Whole, Whole, Whole]:
        """All extents of these renditions: the row in `groups`, the name that a trace has for it, its size."""
        sizes = self.sizes(groups)
        row, part = _ranges(np.zeros(len(groups), np.int64), -(-sizes // EXTENT_BYTES))
        return row, groups[row] << _PART_SHIFT | part, np.minimum(sizes[row] - part * EXTENT_BYTES, EXTENT_BYTES)


@dataclass(frozen=True)
class _Plays:
    """Who watches what: one row per video that somebody plays."""

    at: Floats
    video: Whole
    seconds: Floats
    """The length of the video."""
    segment_seconds: Floats
    start: Floats
    stop: Floats
    codec: Whole
    rung: Whole
    pace: Floats
    """Seconds of the clock per second of video: 1, or little for downloads."""
    ramps: NDArray[np.bool_]
    """Whether it begins with lower rungs."""


@dataclass(frozen=True)
class _Pieces:
    """Stretches of a play that are read in order from one rendition. `play` is a row of _Plays."""

    play: Whole
    rung: Whole
    start: Floats
    stop: Floats
    at: Floats


def trace(family: Family, unit: Unit, seed: int = 1, scale: float = 1.0) -> Trace:
    """The same arguments give the same trace. `scale` < 1 makes a smaller site, not a shorter time."""
    site = _scaled(SITES[family, unit], scale)
    dice = np.random.default_rng([seed, list(Family).index(family)])
    plays = _films(site, dice, dice)[0] if family is Family.POPULARITY else _clips(site, dice)
    return _traced(family, unit, seed, plays, dice)


def region(seed: int, scale: float, crowds: int, taste: float = 0.0, days: float = 10) -> tuple[Films, list[Trace]]:
    """The same films watched at several sites, in extents: popularity is shared, the people are not. `taste` is by how
    much the log-popularity of an item differs from site to site (a standard deviation). One crowd more changes no
    other.
    """
    site = _scaled(SITES[Family.POPULARITY, Unit.EXTENTS], scale)
    site = replace(site, days=days, sessions=int(site.sessions * days / site.days))
    traces = []
    for crowd in range(crowds):
        dice, people = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 0, 1 + crowd])
        plays, films = _films(site, dice, people, taste)
        traces.append(_traced(Family.POPULARITY, Unit.EXTENTS, seed, plays, people))
    return films, traces


def _scaled(site: Site, scale: float) -> Site:
    return replace(site, sessions=int(site.sessions * scale), items=int(site.items * scale))


def _traced(family: Family, unit: Unit, seed: int, plays: _Plays, dice: np.random.Generator) -> Trace:
    pieces = _pieces(plays, dice)
    play, rendition, part, at, sizes = (_segments if unit is Unit.SEGMENTS else _extents)(plays, pieces)
    group = plays.video[play] << _RUNG_SHIFT | rendition
    key = group << _PART_SHIFT | part
    # A player has what it has read: one access of a play to an object, its first.
    order = np.lexsort((at, key, play))
    again = np.zeros(len(order), bool)
    again[1:] = (play[order][1:] == play[order][:-1]) & (key[order][1:] == key[order][:-1])
    order = order[~again]
    order = order[np.argsort(at[order], kind="stable")]
    keys, first, objects = np.unique(key[order], return_index=True, return_inverse=True)
    return Trace(
        family=family,
        unit=unit,
        seed=seed,
        times=BEGINS_AT + at[order],
        objects=objects.astype(np.int64),
        sizes=sizes[order][first],
        groups=keys >> _PART_SHIFT,
        names=mixed(keys.astype(np.uint64)),
        sessions=len(plays.at),
    )


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: one to one, and every bit depends on all."""
    with np.errstate(over="ignore"):
        x = numbers + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# --- Who watches what ---


def arrivals(count: int, days: float, dice: np.random.Generator) -> Floats:
    """Moments in seconds, sorted, dense in the evening."""
    hours = np.tile(_HOURLY, int(np.ceil(days)))[: int(days * 24)]
    edges = np.concatenate(([0.0], np.cumsum(hours)))
    return np.interp(np.sort(dice.random(count)) * edges[-1], edges, np.arange(len(edges)) * 3600.0)


_SERIES_SHARE: Final = 0.4
_EPISODES: Final = 8
_DRIFT: Final = 0.12
_RELEASES_A_DAY: Final = 0.004
_BOOST: Final = 7.0
_BOOST_DAYS: Final = 5.0
_BINGE: Final = 0.5


def _films(
    site: Site, dice: np.random.Generator, people: np.random.Generator, taste: float = 0.0
) -> tuple[_Plays, Films]:
    """Items are films and series of eight; a video is a film or an episode. `dice` say what there is, `people` who
    watches it."""
    at = arrivals(site.sessions, site.days, people)
    own = people.normal(0, taste, site.items) if taste else 0.0
    days = int(np.ceil(site.days))
    log_weight = -0.9 * np.log(1 + np.arange(site.items))
    # Released during the trace, or long before it.
    released = np.where(
        dice.random(site.items) < _RELEASES_A_DAY * days,
        dice.uniform(0, site.days, site.items),
        -dice.exponential(100, site.items),
    )
    item = np.empty(len(at), np.int64)
    of_day = (at // DAY).astype(np.int64)
    for day in range(days):
        age = day + 1 - released
        boost = np.log(_BOOST) * np.exp(-np.maximum(age, 0) / _BOOST_DAYS)
        share = np.where(age > 0, np.exp(log_weight + own + boost), 0.0)
        today = of_day == day
        item[today] = people.choice(site.items, int(today.sum()), p=share / share.sum())
        log_weight = log_weight + dice.normal(0, _DRIFT, site.items)

    is_series = dice.random(site.items) < _SERIES_SHARE
    film_seconds = dice.normal(100 * 60, 15 * 60, site.items).clip(60 * 60, 170 * 60)
    episode_seconds = dice.choice([22 * 60, 42 * 60, 55 * 60], site.items)
    seconds_of = np.where(is_series, episode_seconds, film_seconds)
    segment_of = dice.choice([6.0, 6.0, 10.0], site.items)

    # Fewer and fewer get to the later episodes.
    episode = np.where(is_series[item], np.minimum(people.geometric(0.35, len(at)) - 1, _EPISODES - 1), 0)
    codec, rung = _lines(len(at), people)
    rows = []
    while len(at):
        seconds = seconds_of[item]
        start, stop = _watched(seconds, people)
        rows.append((at, item * _EPISODES + episode, seconds, segment_of[item], start, stop, codec, rung))
        goes_on = is_series[item] & (stop >= seconds) & (episode < _EPISODES - 1) & (people.random(len(at)) < _BINGE)
        at = (at + stop - start)[goes_on]
        item, episode, codec, rung = item[goes_on], episode[goes_on] + 1, codec[goes_on], rung[goes_on]
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    count = len(columns[0])
    return _Plays(*columns, pace=np.ones(count), ramps=np.ones(count, bool)), Films(released, seconds_of)


def _lines(count: int, dice: np.random.Generator) -> tuple[Whole, Whole]:
    """The codec that a device knows, and the highest rung that its line carries and its screen shows."""
    codec = (dice.random(count) < 0.6).astype(np.int64)
    kbps = np.exp(dice.normal(np.log(9000), 0.9, count))
    screen = dice.choice([1, 3, 4, 4], count)
    carried = np.searchsorted(RUNGS_KBPS, 0.7 * kbps / CODECS[codec], side="right") - 1
    return codec, np.clip(carried, 0, screen)


def _watched(seconds: Floats, dice: np.random.Generator) -> tuple[Floats, Floats]:
    """Half are abandoned, most of these early; some go on where they stopped yesterday."""
    count = len(seconds)
    start = np.where(dice.random(count) < 0.12, dice.random(count) * 0.8 * seconds, 0.0)
    stays = dice.exponential(0.18, count) * seconds + 5.0
    return start, np.where(dice.random(count) < 0.5, np.minimum(start + stays, seconds), seconds)


# Of new items: clips, news, downloads; the least and most seconds of each, log-uniform.
_KINDS: Final = np.array([0.62, 0.25, 0.13])
_SHORTEST: Final = np.array([20.0, 90.0, 900.0])
_LONGEST: Final = np.array([240.0, 900.0, 5400.0])
_NEW: Final = 0.12
_DEPTH: Final = 0.03
"""The median depth, as a share of all items that there will be."""
_SPREAD: Final = 2.0
_EVERGREEN: Final = 0.1
"""The share of sessions that are for what is asked for every day, by Zipf: of so many items, as a share of sessions."""
_EVERGREENS: Final = 0.004


def _clips(site: Site, dice: np.random.Generator) -> _Plays:
    """An LRU stack of items: new ones come on top, and whatever is asked for again comes on top again."""
    count = site.sessions
    at = arrivals(count, site.days, dice)
    depth = _DEPTH * _NEW * count * np.exp(dice.normal(0, _SPREAD, count))
    item = restacked(dice.random(count) < _NEW, depth.astype(np.int64))
    items = int(item.max()) + 1
    # Outside of the stack: their depth is what their popularity makes it.
    evergreens = max(1, int(_EVERGREENS * count))
    share = (1 + np.arange(evergreens)) ** -0.8
    evergreen = items + dice.choice(evergreens, count, p=share / share.sum())
    item = np.where(dice.random(count) < _EVERGREEN, evergreen, item)
    items += evergreens
    kind = dice.choice(len(_KINDS), items, p=_KINDS)
    seconds_of = np.exp(dice.uniform(np.log(_SHORTEST[kind]), np.log(_LONGEST[kind])))
    segment_of = dice.choice([4.0, 6.0], items)
    # Most come back by the same kind of device: the same household, or an app that prefers one rendition.
    codec_of, rung_of = _lines(items, dice)
    codec, rung = _lines(count, dice)
    is_usual = dice.random(count) < 0.75
    codec, rung = np.where(is_usual, codec_of[item], codec), np.where(is_usual, rung_of[item], rung)
    seconds = seconds_of[item]
    start, stop = _watched(seconds, dice)
    is_download = kind[item] == len(_KINDS) - 1
    start, stop = np.where(is_download, 0.0, start), np.where(is_download, seconds, stop)
    return _Plays(
        at, item, seconds, segment_of[item], start, stop, codec, rung, np.where(is_download, 0.1, 1.0), ~is_download
    )


def restacked(is_new: NDArray[np.bool_], depth: Whole) -> Whole:
    """Numbers of items. A re-reference deeper than the stack is new too."""
    stack: list[int] = []
    given = np.empty(len(depth), np.int64)
    items = 0
    for i, (new, deep) in enumerate(zip(is_new.tolist(), depth.tolist(), strict=True)):
        if new or deep >= len(stack):
            item, items = items, items + 1
        else:
            item = stack.pop(-1 - deep)
        stack.append(item)
        given[i] = item
    return given


# --- How it is read ---

_RAMP: Final = ((2, 8.0), (1, 10.0))
"""Rungs below the line's, for so many seconds, at the start."""
_DIPS: Final = 0.15
_SEEKS: Final = 0.12


def _pieces(plays: _Plays, dice: np.random.Generator) -> _Pieces:
    """Each play is cut at fixed places: ramp, ramp, until the dip, the dip, until the seek, after it."""
    count = len(plays.at)
    watched = plays.stop - plays.start
    dips = plays.ramps & (dice.random(count) < _DIPS)
    seeks = plays.ramps & (dice.random(count) < _SEEKS)
    ramp = np.where(plays.ramps, 1.0, 0.0)
    ends = [ramp * _RAMP[0][1], ramp * (_RAMP[0][1] + _RAMP[1][1])]
    dip_at = np.maximum(dice.random(count) * watched, ends[-1])
    dip_ends = np.where(dips, dip_at + dice.uniform(20, 120, count), dip_at)
    seek_at = dip_ends + dice.random(count) * np.maximum(watched - dip_ends, 0)
    jump = np.where(seeks, dice.exponential(0.15, count) * plays.seconds, 0.0)
    cuts = np.minimum(np.stack([np.zeros(count), *ends, dip_at, dip_ends, seek_at, watched]), watched)
    below = np.stack([np.full(count, _RAMP[0][0]), np.full(count, _RAMP[1][0]), *([np.zeros(count)] * 4)]).astype(
        np.int64
    )
    below[3] = dice.integers(1, 3, count)
    row, play = np.nonzero(cuts[1:] > cuts[:-1])
    skipped = np.where(row == len(cuts) - 2, jump[play], 0.0)
    start = plays.start[play] + cuts[row, play] + skipped
    stop = np.minimum(plays.start[play] + cuts[row + 1, play] + skipped, plays.seconds[play])
    is_left = stop > start
    row, play, start, stop = row[is_left], play[is_left], start[is_left], stop[is_left]
    return _Pieces(
        play=play,
        rung=np.maximum(plays.rung[play] - below[row, play], 0),
        start=start,
        stop=stop,
        at=plays.at[play] + cuts[row, play] * plays.pace[play],
    )


_Accesses = tuple[Whole, Whole, Whole, Floats, Whole]
"""Of each access: the play, the rendition, which part, when, and the size of the part."""


def _segments(plays: _Plays, pieces: _Pieces) -> _Accesses:
    length = plays.segment_seconds[pieces.play]
    first = (pieces.start // length).astype(np.int64)
    last = np.ceil(pieces.stop / length).astype(np.int64)
    piece, part = _ranges(first, last)
    play = pieces.play[piece]
    length = length[piece]
    at = pieces.at[piece] + np.maximum(part * length - pieces.start[piece], 0) * plays.pace[play]
    rendition = plays.codec[play] * len(RUNGS_KBPS) + pieces.rung[piece]
    seconds = np.minimum(length, plays.seconds[play] - part * length)
    # Scenes differ: the size of a segment is its own, whoever asks.
    dice = mixed((plays.video[play] << 20 | part).astype(np.uint64)) >> np.uint64(40)
    scene = 0.6 + 0.8 * dice.astype(float) / (1 << 24)
    return play, rendition, part, at, _paged(_bytes_a_second(rendition) * seconds * scene)


def _extents(plays: _Plays, pieces: _Pieces) -> _Accesses:
    rendition = plays.codec[pieces.play] * len(RUNGS_KBPS) + pieces.rung
    rate = _bytes_a_second(rendition)
    first = (pieces.start * rate // EXTENT_BYTES).astype(np.int64)
    last = np.ceil(pieces.stop * rate / EXTENT_BYTES).astype(np.int64)
    piece, part = _ranges(first, last)
    play = pieces.play[piece]
    begins = part * EXTENT_BYTES / rate[piece]
    at = pieces.at[piece] + np.maximum(begins - pieces.start[piece], 0) * plays.pace[play]
    left = plays.seconds[play] * rate[piece] - part * EXTENT_BYTES
    return play, rendition[piece], part, at, _paged(np.minimum(left, EXTENT_BYTES))


def _ranges(first: Whole, stop: Whole) -> tuple[Whole, Whole]:
    """Every number of every range [first, stop), and the range that it is of."""
    counts = np.maximum(stop - first, 0)
    which = np.repeat(np.arange(len(first)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + first[which]


def _bytes_a_second(rendition: Whole) -> Floats:
    return RUNGS_KBPS[rendition % len(RUNGS_KBPS)] * CODECS[rendition // len(RUNGS_KBPS)] * 125.0


def _paged(sizes: Floats) -> Whole:
    return np.maximum(np.ceil(sizes / PAGE), 1).astype(np.int64) * PAGE
