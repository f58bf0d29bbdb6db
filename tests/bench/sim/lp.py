"""The optimum, by a linear program, of where the players of some countries could be at one moment.

All of them could be moved at once, split as finely as one likes, by somebody who knows everything: no rule that decides
for one player at a time can do better. What others carry at the same sites stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from steering.topology.distance import Proximity
from tests.bench.sim.engine import Snapshot
from tests.bench.sim.policies import ORIGIN, Ruler
from tests.bench.sim.world import VARIANTS

_NOBODY: Final = 1e6
"""Milliseconds that it costs to serve somebody from nowhere."""
_NEARER_CLASS: Final = 1_000.0
"""Milliseconds by which a nearer class is better whatever the distance: the ISP's own comes first."""


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

    @property
    def extra(self) -> float:
        return self.ours / self.best - 1.0


def optimum(ruler: Ruler, seen: Snapshot, countries: tuple[str, ...], limit: float) -> Optimum | None:
    """`limit` is the utilisation up to which sites may be filled. None where the sample is empty.

    Players whose place nobody knows are left out, and what they read is taken from the capacity.
    """
    world = ruler.world
    chosen = world.markets.of_country(*countries)[seen.place // VARIANTS] & (seen.appliance != ORIGIN)
    chosen &= seen.place % VARIANTS != VARIANTS - 1
    if not chosen.any():
        return None
    sites = len(world.site_names)
    load = np.bincount(seen.appliance[chosen], weights=seen.bps[chosen], minlength=len(world.names))
    # An appliance cannot be relieved of what others have there.
    room = np.maximum(np.where(seen.is_gone, 0.0, world.capacity * limit) - (seen.load - load), 0.0)
    capacity = np.bincount(world.site_of, weights=room, minlength=sites)
    places, which = np.unique(seen.place[chosen], return_inverse=True)
    demand = np.bincount(which, weights=seen.bps[chosen])

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
        A_ub=coo_matrix((np.ones(count), (columns, np.arange(count))), shape=(sites, len(unknowns))).tocsr(),
        b_ub=capacity / 1e9,
        A_eq=coo_matrix((np.ones(len(unknowns)), (everybody, unknowns)), shape=(len(places), len(unknowns))).tocsr(),
        b_eq=demand / 1e9,
        method="highs",
    )
    if not solved.success:
        raise RuntimeError(f"the linear program was not solved: {solved.message}")
    flow = solved.x[:count] * 1e9
    total = float(demand.sum())
    mine = [
        ruler.distance(place, int(site))
        for place, site in zip(seen.place[chosen].tolist(), world.site_of[seen.appliance[chosen]].tolist(), strict=True)
    ]
    bps = seen.bps[chosen]
    return Optimum(
        bps=total,
        ours=float(sum(rtt * bits for (_, rtt), bits in zip(mine, bps, strict=True))) / total,
        best=float((flow * distance).sum() / flow.sum()),
        own=float(sum(bits for (kind_, _), bits in zip(mine, bps, strict=True) if kind_ <= Proximity.NETWORK)) / total,
        best_own=float(flow[kind <= Proximity.NETWORK].sum()) / total,
        unplaced=float(solved.x[count:].sum() * 1e9) / total,
    )
