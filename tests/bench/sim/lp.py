"""The optimum, by linear programs, of where the players of some countries could be at one moment.

`optimum`: all of them could be moved at once, split as finely as one likes, by somebody who knows everything: no rule
that decides for one player at a time can do better. What others carry at the same sites stays where it is.

`staying`: some minutes before they were where that program has them. From then on whoever comes is placed by it, all
of a minute together, and stays there until the end of the film; only whose site is gone is placed anew. So near one may
come without moving anybody who plays, and without knowing who comes later.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from steering.topology.distance import Proximity
from tests.bench.sim.engine import Course, Snapshot
from tests.bench.sim.policies import ORIGIN, Ruler
from tests.bench.sim.world import VARIANTS

_NOBODY: Final = 1e6
"""Milliseconds that it costs to serve somebody from nowhere."""
_NEARER_CLASS: Final = 1_000.0
"""Milliseconds by which a nearer class is better whatever the distance: the ISP's own comes first."""
_TOGETHER: Final = 60
"""Seconds of newcomers that are placed at once."""

_Players = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Their places, what they read, and when they leave."""
_NONE: Final = (np.zeros(0, np.int32), np.zeros(0), np.zeros(0, np.int32))


@dataclass(frozen=True)
class Optimum:
    bps: float
    ours: float
    """Milliseconds of a round trip, mean over what is read."""
    best: float
    own: float
    """The share that the ISP's own sites serve, as it was."""
    best_own: float
    unplaced: float
    """The share for which the program found no room."""
    staying: float | None = None
    """Milliseconds if nobody who plays is moved."""

    @property
    def extra(self) -> float:
        return self.ours / self.best - 1.0


@dataclass(frozen=True)
class _Flows:
    """What goes where: one row for each place and site."""

    place: np.ndarray
    """Index into the places that were asked for."""
    site: np.ndarray
    kind: np.ndarray
    distance: np.ndarray
    bps: np.ndarray
    unplaced: float


@dataclass(frozen=True)
class _Batch:
    """Players that were placed together. Of each place all are split alike."""

    places: np.ndarray
    place: np.ndarray
    """Of each player, index into `places`."""
    bps: np.ndarray
    stop: np.ndarray
    flows: _Flows
    share: np.ndarray
    """Of each flow, of what its place reads."""

    def reads(self, at: int) -> np.ndarray:
        """Of each flow, by those who are still there."""
        there = np.bincount(self.place, weights=self.bps * (self.stop >= at), minlength=len(self.places))
        return there[self.flows.place] * self.share


def optimum(ruler: Ruler, seen: Snapshot, countries: tuple[str, ...], limit: float) -> Optimum | None:
    """`limit` is the utilisation up to which sites may be filled. None where the sample is empty.

    Players whose place nobody knows are left out, and what they read is taken from the capacity.
    """
    world = ruler.world
    chosen = _chosen(ruler, seen.place, countries) & (seen.appliance != ORIGIN)
    if not chosen.any():
        return None
    places, which = np.unique(seen.place[chosen], return_inverse=True)
    demand = np.bincount(which, weights=seen.bps[chosen])
    flows = _placed(ruler, places, demand, _room(ruler, seen, countries, limit))
    total = float(demand.sum())
    mine = [
        ruler.distance(place, int(site))
        for place, site in zip(seen.place[chosen].tolist(), world.site_of[seen.appliance[chosen]].tolist(), strict=True)
    ]
    bps = seen.bps[chosen]
    return Optimum(
        bps=total,
        ours=float(sum(rtt * bits for (_, rtt), bits in zip(mine, bps, strict=True))) / total,
        best=float((flows.bps * flows.distance).sum() / flows.bps.sum()),
        own=float(sum(bits for (kind, _), bits in zip(mine, bps, strict=True) if kind <= Proximity.NETWORK)) / total,
        best_own=float(flows.bps[flows.kind <= Proximity.NETWORK].sum()) / total,
        unplaced=flows.unplaced / total,
    )


def staying(
    ruler: Ruler, course: Course, before: Snapshot, seen: Snapshot, countries: tuple[str, ...], limit: float
) -> float:
    """Milliseconds of a round trip, mean over what is read when `seen`, if from `before` on nobody is moved.

    What others carry is taken to be what it is when `seen`, and so is who is gone, from just after `before`.
    """
    world = ruler.world
    room = _room(ruler, before, countries, limit)
    is_gone = np.bincount(world.site_of, weights=~seen.is_gone, minlength=len(world.site_names)) == 0
    chosen = _chosen(ruler, course.place, countries) & (course.start < seen.at) & (course.stop >= before.at)
    place, bps, start, stop = (column[chosen] for column in (course.place, course.bps, course.start, course.stop))
    there = start < before.at
    stayed, displaced = _parted(_batch(ruler, place[there], bps[there], stop[there], room), is_gone)
    batches = [stayed]
    room = _room(ruler, seen, countries, limit)
    for since in range(before.at, seen.at, _TOGETHER):
        now = min(since + _TOGETHER, seen.at)
        new = (start >= since) & (start < now)
        come = [np.concatenate(pair) for pair in zip(displaced, (place[new], bps[new], stop[new]), strict=True)]
        displaced = _NONE
        carried = np.zeros(len(room))
        for batch in batches:
            carried += np.bincount(batch.flows.site, weights=batch.reads(now), minlength=len(room))
        there = come[2] >= now
        if there.any():
            batches.append(_batch(ruler, *(column[there] for column in come), np.maximum(room - carried, 0.0)))
    reads = [batch.reads(seen.at) for batch in batches]
    far = sum(float((bits * batch.flows.distance).sum()) for bits, batch in zip(reads, batches, strict=True))
    return far / float(sum(bits.sum() for bits in reads))


def _chosen(ruler: Ruler, place: np.ndarray, countries: tuple[str, ...]) -> np.ndarray:
    """Whose place is known, in these countries."""
    return ruler.world.markets.of_country(*countries)[place // VARIANTS] & (place % VARIANTS != VARIANTS - 1)


def _room(ruler: Ruler, seen: Snapshot, countries: tuple[str, ...], limit: float) -> np.ndarray:
    """Of each site, what others leave: an appliance cannot be relieved of these."""
    world = ruler.world
    chosen = _chosen(ruler, seen.place, countries) & (seen.appliance != ORIGIN)
    load = np.bincount(seen.appliance[chosen], weights=seen.bps[chosen], minlength=len(world.names))
    room = np.maximum(np.where(seen.is_gone, 0.0, world.capacity * limit) - (seen.load - load), 0.0)
    return np.bincount(world.site_of, weights=room, minlength=len(world.site_names))


def _batch(ruler: Ruler, place: np.ndarray, bps: np.ndarray, stop: np.ndarray, room: np.ndarray) -> _Batch:
    places, which = np.unique(place, return_inverse=True)
    demand = np.bincount(which, weights=bps)
    flows = _placed(ruler, places, demand, room)
    return _Batch(places, which, bps, stop, flows, flows.bps / demand[flows.place])


def _parted(batch: _Batch, is_gone: np.ndarray) -> tuple[_Batch, _Players]:
    """Those whose site is still there, and the others."""
    lost = is_gone[batch.flows.site]
    share = np.bincount(batch.flows.place[lost], weights=batch.share[lost], minlength=len(batch.places))[batch.place]
    away = share > 0
    players = batch.places[batch.place[away]], (batch.bps * share)[away], batch.stop[away]
    return replace(batch, share=np.where(lost, 0.0, batch.share)), players


def _placed(ruler: Ruler, places: np.ndarray, demand: np.ndarray, room: np.ndarray) -> _Flows:
    """The best that can be done for those who read so much at these places, where sites have so much room."""
    rows: list[int] = []
    columns: list[int] = []
    kinds: list[int] = []
    distances: list[float] = []
    for number, place in enumerate(places.tolist()):
        for site, (kind, rtt) in ruler.near(place).items():
            rows.append(number)
            columns.append(site)
            kinds.append(kind)
            distances.append(rtt)
    kind, distance = np.array(kinds), np.array(distances)
    count = len(rows)
    cost = np.concatenate([distance + _NEARER_CLASS * kind, np.full(len(places), _NOBODY)])
    everybody = np.concatenate([np.array(rows), np.arange(len(places))])
    unknowns = np.arange(count + len(places))
    solved = linprog(
        cost,
        A_ub=coo_matrix((np.ones(count), (columns, np.arange(count))), shape=(len(room), len(unknowns))).tocsr(),
        b_ub=room / 1e9,
        A_eq=coo_matrix((np.ones(len(unknowns)), (everybody, unknowns)), shape=(len(places), len(unknowns))).tocsr(),
        b_eq=demand / 1e9,
        method="highs",
    )
    if not solved.success:
        raise RuntimeError(f"the linear program was not solved: {solved.message}")
    flow = solved.x * 1e9
    return _Flows(np.array(rows), np.array(columns), kind, distance, flow[:count], float(flow[count:].sum()))
