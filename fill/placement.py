"""Who holds what by morning. Pure, on arrays: rows of the catalogue, appliances of a site.

For each site, from the bytes that its viewers are predicted to ask for in tomorrow's peak hours:

1. *Copies*: as many as its peak rate needs (`copy_bps` each), at least one and at most one on each appliance. Each copy
   serves an equal part, so the value of a copy is `peak bytes / copies / size`.
2. *Where*: by weighted rendezvous hashing on the rendition's number, weights being the room that may be pledged, so an
   appliance that comes or goes moves only its own share (Thaler and Ravishankar 1998; weights as -w/ln(h)).
3. *What*: each appliance takes the densest copies that fit (for a knapsack of many small things, within one of the
   optimum). What it holds by pledge counts `1 + hysteresis` times, so that noise moves nothing; what is new and not
   held may cost `budget` bytes, the densest first. What got no room where it belongs is offered to the next.
4. *Tier*: the densest go to the fastest devices until their room is used.

Pins come before everything, blocks are nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fill.rules import Placing

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]

NOBODY: Final = -1
_REACH: Final = 1.5
"""So many times the room of a site is looked at: what is less dense is held by nobody, or was and goes."""
_LEAST: Final = 10_000
"""And so many renditions at least: where few are large, the next smaller one may still fit."""
_ROUNDS: Final = 3
"""How often what got no room is offered to the next appliance."""


class Reason(StrEnum):
    """Why something that was wanted is not in an order."""

    ROOM = "room"
    """What is denser fills what may be pledged."""
    BUDGET = "budget"
    """The night's bytes are used up: by the churn that is allowed, or by window and rate cap."""
    BLOCKED = "blocked"
    UNKNOWN = "unknown"
    """A wish names what the catalogue or the fleet does not have."""


@dataclass(frozen=True)
class Room:
    """What may be pledged on an appliance's devices of one tier."""

    tier: str
    bytes: int


@dataclass(frozen=True)
class Box:
    """An appliance, as it is before the night. Rows are those of the catalogue, sorted."""

    id: str
    rooms: tuple[Room, ...]
    """The fastest tier first."""
    storage_bytes: int
    free_bytes: int
    """That hold nothing."""
    link_bps: int
    window_bytes: int
    """The most that its window and its rate cap let in."""
    pledged: Whole = field(repr=False)
    """Ordered before, and held."""
    held: Whole = field(repr=False)

    @property
    def room_bytes(self) -> int:
        return sum(room.bytes for room in self.rooms)

    def budget_bytes(self, rules: Placing) -> int:
        """What the night may cost."""
        return min(int(self.storage_bytes * rules.churn) + self.free_bytes, self.window_bytes)


@dataclass(frozen=True)
class Chosen:
    """One appliance's part. Rows of the catalogue; `bring` and `keep` have the most valuable first."""

    bring: Whole
    """Not pledged yet. What is held already costs nothing; it is named so that it becomes pledged."""
    keep: Whole
    release: Whole
    """The least valuable first."""
    tiers: tuple[str, ...]
    """Of each row of `bring`."""
    value: Floats
    """Of each row of `bring`: predicted bytes in the peak hours for each byte of it."""
    cost_bytes: int
    """Of what is to be brought and not held."""
    budget_bytes: int
    refused: dict[Reason, int]
    """Bytes that were wanted here, by why they don't come tonight."""

    @property
    def pledged(self) -> Whole:
        """Rows, by morning."""
        return np.concatenate([self.bring, self.keep])


def hashed(name: str) -> np.uint64:
    """An appliance's name as 64 well-mixed bits, the same on every machine."""
    return np.uint64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"))


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        x = numbers + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def preferences(numbers: Whole, names: Sequence[str], weights: Sequence[float]) -> Whole:
    """For each rendition all appliances in its order, the first preferred: shape (renditions, appliances)."""
    seeds = np.array([hashed(name) for name in names], np.uint64)
    points = mixed(mixed(numbers.astype(np.uint64))[:, None] ^ seeds[None, :])
    # In (0, 1): half a step away from both ends, so that no logarithm is of 0 and none is 0.
    share = ((points >> np.uint64(11)).astype(np.float64) + 0.5) / float(1 << 53)
    scores = -np.asarray(weights, np.float64)[None, :] / np.log(share)
    order: Whole = np.argsort(-scores, axis=1, kind="stable")
    return order


def copies(peak_bps: Floats, copy_bps: float, most: int) -> Whole:
    """How many appliances of a site shall hold each rendition: in proportion to its peak rate."""
    return np.clip(np.ceil(peak_bps / copy_bps), 1, most).astype(np.int64)


def placed(
    numbers: Whole,
    sizes: Whole,
    peak_bytes: Floats,
    peak_seconds: float,
    boxes: Sequence[Box],
    rules: Placing,
    pins: Whole = np.empty(0, np.int64),  # noqa: B008 - never written to
    blocks: Whole = np.empty(0, np.int64),  # noqa: B008 - as above
) -> list[Chosen]:
    """The parts of a site's appliances, in the order of `boxes`. The first three arrays have a value for each row of
    the catalogue; `pins` and `blocks` are rows.
    """
    if not boxes:
        return []
    rows, worth = _candidates(sizes, peak_bytes, boxes, pins, blocks)
    weights = [float(max(box.room_bytes, 1)) for box in boxes]
    order = preferences(numbers[rows], [box.id for box in boxes], weights)
    link = np.mean([box.link_bps for box in boxes])
    wanted = copies(peak_bytes[rows] * 8 / peak_seconds, max(1.0, float(link) * rules.copy_share), len(boxes))
    density = worth / sizes[rows] / wanted
    is_pin = _marked(len(sizes), pins)[rows]
    pledged = np.stack([_marked(len(sizes), box.pledged)[rows] for box in boxes], axis=1)
    held = np.stack([_marked(len(sizes), box.held)[rows] for box in boxes], axis=1)
    places = np.arange(len(boxes))[None, :]
    asked = wanted
    offers = places < asked[:, None]
    """By place in the rendition's own order: whether it is offered there. What was refused is not offered again, so
    that there are never more copies than are wanted (deferred acceptance; Gale and Shapley 1962)."""
    shelves = [
        _Shelf(box, rules, sizes[rows], density, is_pin, pledged[:, at], held[:, at]) for at, box in enumerate(boxes)
    ]
    for turn in range(_ROUNDS if len(boxes) > 1 else 1):
        offered = np.zeros((len(rows), len(boxes)), bool)
        where = np.nonzero(offers)
        offered[where[0], order[where]] = True
        taken = np.stack([shelf.filled(offered[:, at]) for at, shelf in enumerate(shelves)], axis=1)
        missing = wanted - taken.sum(axis=1)
        more = np.minimum(asked + missing, len(boxes))
        if turn == _ROUNDS - 1 or (more == asked).all():
            break
        # The next in its order that were not asked yet.
        offers &= np.take_along_axis(taken, order, axis=1)
        offers |= (places >= asked[:, None]) & (places < more[:, None])
        asked = more
    blocked = set(blocks.tolist())
    return [shelf.chosen(rows, blocked) for shelf in shelves]


def _candidates(
    sizes: Whole, peak_bytes: Floats, boxes: Sequence[Box], pins: Whole, blocks: Whole
) -> tuple[Whole, Floats]:
    """Rows that may be held, and what each is worth: the densest, what is pledged, and pins."""
    worth = peak_bytes.astype(np.float64).copy()
    worth[blocks] = 0.0
    wanted = np.flatnonzero(worth > 0)
    wanted = wanted[np.argsort(-(worth[wanted] / sizes[wanted]), kind="stable")]
    room = _REACH * sum(box.room_bytes for box in boxes)
    wanted = wanted[: max(int(np.searchsorted(np.cumsum(sizes[wanted]), room)) + 1, _LEAST)]
    pinned = np.setdiff1d(pins, blocks)
    incumbents = [box.pledged[~_marked(len(sizes), blocks)[box.pledged]] for box in boxes]
    marks = np.zeros(len(sizes), bool)
    for some in (wanted, pinned, *incumbents):
        marks[some] = True
    rows = np.flatnonzero(marks)
    return rows, worth[rows]


def _marked(count: int, those: Whole) -> Flags:
    """Of `count` rows, whether each is of those."""
    marks = np.zeros(count, bool)
    marks[those] = True
    return marks


class _Shelf:
    """One appliance while it is filled. Arrays have a value for each candidate."""

    def __init__(
        self, box: Box, rules: Placing, sizes: Whole, density: Floats, is_pin: Flags, pledged: Flags, held: Flags
    ) -> None:
        self._box = box
        self._sizes = sizes
        self._density = density
        self._is_pin = is_pin
        self._pledged = pledged
        self._held = held
        score = density * np.where(pledged, 1 + rules.hysteresis, 1.0)
        # Pins first; of equals the lower number.
        self._order = np.argsort(-np.where(is_pin, np.inf, score), kind="stable")
        self._budget = box.budget_bytes(rules)
        self._taken = np.zeros(len(sizes), bool)
        self._refused: dict[Reason, int] = {}

    def filled(self, offered: Flags) -> Flags:
        """Which of `offered` are taken."""
        box, sizes = self._box, self._sizes
        order = self._order[offered[self._order]]
        free_of_cost = self._pledged | self._held
        fits = _fitting(sizes[order], box.room_bytes)
        costs = np.where(free_of_cost[order], 0, sizes[order])
        # Pins may cost more than churn allows, but no more than the window lets in.
        is_pin = self._is_pin[order]
        affordable = _affordable(costs, fits & is_pin, box.window_bytes)
        pins = int(costs[fits & is_pin & affordable].sum())
        affordable |= _affordable(costs, fits & ~is_pin, max(0, self._budget - pins))
        taken = order[fits & affordable]
        # Tonight nothing comes for what can't be afforded: what is there stays there as long as there is room.
        room = box.room_bytes - int(sizes[taken].sum())
        self._taken[:] = False
        self._taken[taken] = True
        stays = self._order[(self._pledged & ~self._taken)[self._order]]
        self._taken[stays[_fitting(sizes[stays], room)]] = True
        beyond = order[~fits]
        beyond = beyond[~self._pledged[beyond]]
        late = order[fits & ~affordable]
        self._refused = {
            Reason.ROOM: int(sizes[beyond].sum()),
            Reason.BUDGET: int(sizes[late].sum()),
        }
        return self._taken & offered

    def chosen(self, rows: Whole, blocked: set[int]) -> Chosen:
        order = self._order[self._taken[self._order]]
        bring = order[~self._pledged[order]]
        keep = order[self._pledged[order]]
        gone = self._order[self._pledged[self._order] & ~self._taken[self._order]][::-1]
        also = np.array(sorted(blocked & set(self._box.pledged.tolist())), np.int64)
        costs = bring[~self._held[bring]]
        return Chosen(
            bring=rows[bring],
            keep=rows[keep],
            release=np.concatenate([also, rows[gone]]),
            tiers=self._tiers(order, bring),
            value=self._density[bring],
            cost_bytes=int(self._sizes[costs].sum()),
            budget_bytes=max(self._budget, int(self._sizes[costs].sum())),
            refused={reason: count for reason, count in self._refused.items() if count},
        )

    def _tiers(self, order: Whole, bring: Whole) -> tuple[str, ...]:
        by_density = order[np.argsort(-self._density[order], kind="stable")]
        ends = np.cumsum([room.bytes for room in self._box.rooms])
        middle = np.cumsum(self._sizes[by_density]) - self._sizes[by_density] / 2
        tier = np.minimum(np.searchsorted(ends, middle), len(ends) - 1)
        of_row = np.zeros(len(self._sizes), np.int64)
        of_row[by_density] = tier
        return tuple(self._box.rooms[at].tier for at in of_row[bring].tolist())


def _fitting(sizes: Whole, room: float) -> Flags:
    """In order, whatever fits into what is left of `room`."""
    fits: Flags = np.cumsum(sizes) <= room
    left = room - float(sizes[fits].sum())
    first = int(fits.sum())
    if first == len(sizes) or left <= 0:
        return fits
    smallest = np.minimum.accumulate(sizes[first:][::-1])[::-1]
    for at in range(first, len(sizes)):
        if smallest[at - first] > left:
            break
        if sizes[at] <= left:
            fits[at] = True
            left -= float(sizes[at])
    return fits


def _affordable(costs: Whole, fits: Flags, budget: float) -> Flags:
    """In order, what costs nothing and whatever the budget still pays for."""
    affordable: Flags = costs == 0
    paid = np.flatnonzero(fits & ~affordable)
    affordable[paid[_fitting(costs[paid], budget)]] = True
    return affordable


# --- Who brings it in ---


def sources(
    numbers: Whole, holders: Iterable[tuple[str, str, Whole, Whole]], first_site: str | None = None
) -> dict[str, list[tuple[str, ...]]]:
    """Whom each appliance of a region asks for what it is to bring, in the order of its rows.

    `holders` are (appliance, site, rows it is to bring, rows it holds), of all sites behind one parent; `first_site` is
    the parent itself. Who holds a rendition already is asked; else the one of the site that rendezvous hashing prefers
    brings it in, from the one that is preferred in the region; this one asks nobody (its ladder).
    """
    everyone = list(holders)
    names = [name for name, *_ in everyone]
    sites = [site for _, site, *_ in everyone]
    rows = np.concatenate([bring for *_, bring, _ in everyone]) if everyone else np.empty(0, np.int64)
    wanted = np.unique(rows)
    if not len(wanted):
        return {name: [] for name in names}
    seeds = np.array([hashed(name) for name in names], np.uint64)
    points = mixed(numbers[wanted].astype(np.uint64))
    best_of_site: dict[str, Whole] = {}
    best = np.full(len(wanted), NOBODY)
    best_rank = np.zeros(len(wanted))
    for site in dict.fromkeys(sites):
        chosen, chosen_rank = np.full(len(wanted), NOBODY), np.zeros(len(wanted))
        for at, (_, own_site, bring, held) in enumerate(everyone):
            if own_site != site:
                continue
            has = _marked(len(numbers), held)[wanted]
            takes_part = has | _marked(len(numbers), bring)[wanted]
            # From 0 to 1 by hashing; holders come before all others, those of the parent before those behind it.
            rank = (mixed(points ^ seeds[at]) >> np.uint64(11)) / float(1 << 53)
            rank = np.where(takes_part, rank + 2.0 * has + 1.0 * (site == first_site), -1.0)
            better = rank > chosen_rank
            chosen, chosen_rank = np.where(better, at, chosen), np.where(better, rank, chosen_rank)
        best_of_site[site] = chosen
        better = chosen_rank > best_rank
        best, best_rank = np.where(better, chosen, best), np.where(better, chosen_rank, best_rank)
    asked: dict[str, list[tuple[str, ...]]] = {}
    for at, (name, site, bring, _) in enumerate(everyone):
        place = np.searchsorted(wanted, bring)
        near, far = best_of_site[site][place].tolist(), best[place].tolist()
        asked[name] = [
            tuple(names[one] for one in dict.fromkeys((close, distant)) if one not in (NOBODY, at))
            for close, distant in zip(near, far, strict=True)
        ]
    return asked
