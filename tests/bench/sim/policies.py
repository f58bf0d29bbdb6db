"""Three ways to send players somewhere: steering's own code, the nearest by GeoIP, consistent hashing without load.

All three hear the same heartbeats, notice silence as fast, are asked again by playing players as often, and are
measured with the same ruler. The two beside ours know nothing of load: that is what they are here for.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from pyroaring import BitMap

from steering.decisions import Ask, Decider, Way, _network
from steering.fleet import Content, Fleet, content_of
from steering.names import mixed
from steering.neighbourhood import Neighbourhood
from steering.ranking import Rules
from steering.standing import KEEPS_OLD, TAKES_NEW, Patience, Standing
from steering.topology.distance import KM_PER_MS, WAYS, Proximity, great_circle_km, rtt_ms
from tests.bench.sim.workload import TITLES, popularity
from tests.bench.sim.world import VARIANTS, World
from wire.heartbeat import Heartbeat
from wire.holdings import Holdings

ORIGIN: Final = -1
OPTIONS: Final = 4
_HEAD: Final = 0.45
"""Of what is watched, titles that every appliance holds; of the others each site has one copy."""
_CLASSES: Final = len(Proximity)
_SETTLED: Final = 0.003
"""Of an appliance's capacity: less than this, of what was assigned and does not show yet, is nothing."""
_PREPARE: Final = 900.0
"""Seconds between two lists of the regions; while something happens they are made every ten seconds (`tick`)."""
_PREPARE_CLOSELY: Final = 10.0


class Choice(NamedTuple):
    """Of one question."""

    options: Sequence[int]
    """Appliances, the best first; none: the origin."""
    proximity: int
    rtt: float


class Policy(Protocol):
    name: str
    moves: Counter[str]
    """Weights of players that it moved, by why."""

    def choose(self, place: int, title: int, current: int, bps: float, network: int, now: float) -> Choice:
        """Where a player should go, who is on `current` or on none (ORIGIN) yet. `network` is a number of its own."""

    def stays(
        self, rows: np.ndarray, place: np.ndarray, current: np.ndarray, proximity: np.ndarray, rtt: np.ndarray
    ) -> np.ndarray:
        """For which players asking again would change nothing, surely."""

    def why(self, current: int) -> str:
        """Why the last choice was not to stay on `current`."""

    def hear(self, appliances: np.ndarray, load: np.ndarray, now: float) -> np.ndarray:
        """Heartbeats of these. Those of them whose next one will change something even if it says the same."""

    def restarted(self, appliances: np.ndarray) -> None: ...
    def tick(self, now: float) -> None: ...


class Ruler:
    """How far each place is from each site, and of what kind that is: as steering's neighbourhood has it."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.neighbourhood = Neighbourhood(world.inventory, seed)
        self.site_number = {name: number for number, name in enumerate(world.site_names)}
        starts = np.searchsorted(world.site_of, np.arange(len(world.site_names) + 1))
        self.inside = [range(starts[site], starts[site + 1]) for site in range(len(world.site_names))]
        """Of each site, its appliances."""
        count = len(world.wheres)
        self.clients = [(place // VARIANTS).to_bytes(3, "big") + b"\1" for place in range(count)]
        self._near: list[dict[int, tuple[int, float]] | None] = [None] * count
        self.least_rtt = np.full((count, _CLASSES), np.nan)
        """Of each place and class; NaN until the place was looked at, and where there is no such site."""
        self.best_class = np.full(count, -1, np.int8)

    def near(self, place: int) -> dict[int, tuple[int, float]]:
        """Sites by number, the nearest kind first: kind and milliseconds."""
        known = self._near[place]
        if known is None:
            found = self.neighbourhood.near(self.world.wheres[place], _network(self.clients[place]))
            known = {self.site_number[site]: (int(kind), rtt) for site, kind, rtt in found}
            self._near[place] = known
            for kind, rtt in known.values():
                least = self.least_rtt[place, kind]
                self.least_rtt[place, kind] = rtt if math.isnan(least) else min(least, rtt)
            self.best_class[place] = min(kind for kind, _ in known.values())
        return known

    def distance(self, place: int, site: int) -> tuple[int, float]:
        """Kind and milliseconds, also to a site that is not near."""
        known = self.near(place).get(site)
        if known is not None:
            return known
        there = self.world.inventory.sites[self.world.site_names[site]]
        here = self.world.wheres[place]
        if here.latitude is None or here.longitude is None:
            return int(Proximity.ANYWHERE), rtt_ms(None, Proximity.ANYWHERE)
        km = great_circle_km(there.latitude, there.longitude, here.latitude, here.longitude)
        return int(Proximity.PLACE), rtt_ms(km, Proximity.PLACE)


class Ours:
    """Fleet, neighbourhood and decider as they run in a replica, without sockets around them."""

    name = "ours"

    def __init__(self, ruler: Ruler, rules: Rules, seed: int, start: float) -> None:
        world = ruler.world
        dice = np.random.default_rng([seed, 4])
        self._ruler = ruler
        self.rules = rules
        self.moves: Counter[str] = Counter()
        self._patience = Patience()
        self.fleet = Fleet(self._patience, seed)
        self.fleet.take(world.inventory, start)
        self._decider = Decider(self.fleet, ruler.neighbourhood, rules, seed, "sim", "https://origin.example", ())
        self._members = [self.fleet.members[name] for name in world.names]
        self._number = {name: number for number, name in enumerate(world.names)}
        self._capacity = world.capacity
        self._hit_ratio = dice.uniform(0.86, 0.97, len(world.names))
        self._contents: list[Content] = [content_of(f"title-{title}", (title,)) for title in range(TITLES)]
        self._boot = [0] * len(world.names)
        self._sequence = 0
        self._decision = None
        count = len(world.names)
        self._utilisation = np.zeros(count)
        self._keeps = np.zeros(count, bool)
        self._unreported = np.zeros(count)
        self._prepared_at = -math.inf
        self._everyone = np.arange(count)
        self._fill()
        # They were there yesterday: each has joined, and its slow start is over.
        for again in range(self._patience.rise):
            self.hear(self._everyone, np.zeros(count), start - self._patience.ramp - 60.0 + 5.0 * again)
        self.hear(self._everyone, np.zeros(count), start)
        self._fetch = (1.0 - np.array([member.hits_here for member in self._members])) * rules.fetch_penalty

    def _fill(self) -> None:
        """The head everywhere; of each other title a copy at each site, on the appliance that a hash names."""
        world = self._ruler.world
        head = int(np.searchsorted(np.cumsum(popularity()), _HEAD))
        everywhere = BitMap(range(head))
        for site, inside in enumerate(self._ruler.inside):
            dice = np.random.default_rng([site, 5])
            capacity = world.capacity[inside.start : inside.stop]
            kept = dice.choice(len(inside), TITLES, p=capacity / capacity.sum())
            for serial, appliance in enumerate(inside):
                bitmap = everywhere | BitMap(np.nonzero(kept == serial)[0].tolist())
                name = world.names[appliance]
                self.fleet.learn(Holdings(appliance=name, boot="0", version=1, bitmap=bitmap.serialize()))

    def choose(self, place: int, title: int, current: int, bps: float, network: int, now: float) -> Choice:
        ruler = self._ruler
        if ruler.best_class[place] < 0:
            ruler.near(place)
        # What is near to those whose place nobody knows hangs on their network: the ruler measured that of one.
        is_known = ruler.world.wheres[place].latitude is not None
        ask = Ask(
            (mixed(network) >> 40).to_bytes(3, "big") + b"\1" if is_known else ruler.clients[place],
            self._contents[title],
            Way.JSON if current == ORIGIN else Way.CONTENT_STEERING,
            None if current == ORIGIN else self._members[current].entry.id,
            bps,
        )
        decision = self._decision = self._decider.decide(ask, ruler.world.wheres[place], now)
        assert decision.ranking is not None
        number = self._number
        options = [number[target.id] for target in decision.targets[:-1]]
        for appliance in (current, *options[:1]):
            if appliance != ORIGIN:
                self._utilisation[appliance] = self._members[appliance].utilisation
        if decision.ranking.ranked:
            first = decision.ranking.ranked[0].candidate
            return Choice(options, int(first.proximity), first.rtt)
        if options:
            # From the region's list.
            return Choice(options, *ruler.distance(place, int(ruler.world.site_of[options[0]])))
        return Choice((), _CLASSES, 0.0)

    def why(self, current: int) -> str:
        """The bar of who may not stay; "nearer" and "gain" as the rules have them; "beyond": it was on a region's list,
        when no site that is meant for the player had room, and now one has. "none" and "unlisted" are no reasons.
        """
        decision = self._decision
        assert decision is not None
        assert decision.ranking is not None
        name = self._members[current].entry.id
        for candidate, bar in decision.ranking.rejected:
            if candidate.appliance == name:
                return bar.value
        if not decision.ranking.ranked:
            return "none"
        best = decision.ranking.ranked[0]
        mine = next((row for row in decision.ranking.ranked if row.candidate.appliance == name), None)
        if mine is None:
            site = self._members[current].entry.site
            return "unlisted" if any(name == site for name, _, _ in decision.near) else "beyond"
        if best.candidate.proximity < mine.candidate.proximity:
            return "nearer"
        return "gain" if mine.cost - best.cost >= self.rules.move_gain else "none"

    def stays(
        self, rows: np.ndarray, place: np.ndarray, current: np.ndarray, proximity: np.ndarray, rtt: np.ndarray
    ) -> np.ndarray:
        """Follows from `rank`: who is where players are kept, in the nearest class that would call them,
        and could not gain `move_gain` even from an idle one as near as any that holds the title, stays. Only for the
        others is it worth asking; a test asks for all of them and finds the same.
        """
        rules = self.rules
        utilisation = self._utilisation[current]
        sure = (current != ORIGIN) & self._keeps[current] & (utilisation < rules.leave_limit)
        rest = np.nonzero(sure)[0]
        busy = np.minimum(utilisation[rest], rules.leave_limit)
        dearest = (
            rtt[rest]
            - self._ruler.least_rtt[place[rest], proximity[rest]]
            + self._fetch[current[rest]]
            + rules.load_delay * busy / (1.0 - busy)
        )
        sure[rest] = dearest < rules.move_gain
        away = np.nonzero(sure & (proximity > self._ruler.best_class[place]))[0]
        if len(away):
            pairs, which = np.unique(place[away].astype(np.int64) * _CLASSES + proximity[away], return_inverse=True)
            is_open = np.array([self._has_room(int(pair) // _CLASSES, int(pair) % _CLASSES) for pair in pairs])
            sure[away] = ~is_open[which]
        return sure

    def _has_room(self, place: int, below: int) -> bool:
        """Whether somebody of a nearer class than this would call a player away from where it is."""
        limit = self.rules.return_limit
        members, inside = self._members, self._ruler.inside
        for site, (kind, _) in self._ruler.near(place).items():
            if kind >= below:
                return False
            for appliance in inside[site]:
                member = members[appliance]
                if member.utilisation < limit and member.standing in TAKES_NEW:
                    return True
        return False

    def hear(self, appliances: np.ndarray, load: np.ndarray, now: float) -> np.ndarray:
        self._sequence += 1
        members = self._members
        sent = np.minimum(load[appliances], self._capacity[appliances]).astype(np.int64).tolist()
        for appliance, bits in zip(appliances.tolist(), sent, strict=True):
            member = members[appliance]
            self.fleet.hear(
                Heartbeat(
                    appliance=member.entry.id,
                    boot=str(self._boot[appliance]),
                    sequence=self._sequence,
                    sent_at=now,
                    ready=True,
                    egress_bps=bits,
                    link_bps=int(self._capacity[appliance]),
                    hit_ratio=float(self._hit_ratio[appliance]),
                    holdings_version=1,
                ),
                now,
            )
            self._utilisation[appliance] = member.utilisation
            self._keeps[appliance] = member.standing in KEEPS_OLD
            self._unreported[appliance] = member.assigned_bps
        self._prepare(now, _PREPARE)
        return appliances[np.abs(self._unreported[appliances]) > _SETTLED * self._capacity[appliances]]

    def restarted(self, appliances: np.ndarray) -> None:
        for appliance in appliances.tolist():
            self._boot[appliance] += 1

    def tick(self, now: float) -> None:
        for turn in self.fleet.tick(now):
            self._keeps[self._number[turn.appliance]] = turn.after in KEEPS_OLD
        self._prepare(now, _PREPARE_CLOSELY)

    def _prepare(self, now: float, pause: float) -> None:
        if now >= self._prepared_at + pause:
            self._prepared_at = now
            self._decider.prepare()

    def standing(self, appliance: int) -> Standing:
        return self._members[appliance].standing


class Blind:
    """Knows who is silent, and nothing of load: `sites` orders the sites for a place, `inside` the live appliances of
    one of them for a title.
    """

    def __init__(
        self,
        name: str,
        ruler: Ruler,
        start: float,
        sites: Callable[[int], list[int]],
        inside: Callable[[list[int], int, int], list[int]],
    ) -> None:
        self.name = name
        self.moves: Counter[str] = Counter()
        self._ruler = ruler
        self._sites = sites
        self._in_site = inside
        count = len(ruler.world.names)
        self._heard = np.full(count, start)
        self._well = np.zeros(count, int)
        """Heartbeats in a row."""
        self._is_lost = np.zeros(count, bool)
        self._patience = Patience()
        self._epoch = 0
        self._seen = np.zeros(0, np.int32)
        """For each player, of which epoch its answer is."""
        self._orders: dict[int, list[int]] = {}

    def stays(
        self, rows: np.ndarray, place: np.ndarray, current: np.ndarray, proximity: np.ndarray, rtt: np.ndarray
    ) -> np.ndarray:
        if len(rows) and rows.max() >= len(self._seen):
            more = int(rows.max()) + 100_000 - len(self._seen)
            self._seen = np.concatenate([self._seen, np.full(more, self._epoch, np.int32)])
        same = self._seen[rows] == self._epoch
        self._seen[rows] = self._epoch
        return same & (current != ORIGIN) & ~self._is_lost[current]

    def why(self, current: int) -> str:
        return "lost" if self._is_lost[current] else "back"

    def hear(self, appliances: np.ndarray, load: np.ndarray, now: float) -> np.ndarray:
        self._heard[appliances] = now
        self._well[appliances] += 1
        back = appliances[self._is_lost[appliances] & (self._well[appliances] >= self._patience.rise)]
        if len(back):
            self._is_lost[back] = False
            self._epoch += 1
        return appliances[:0]

    def restarted(self, appliances: np.ndarray) -> None:
        """Nothing of before is remembered."""

    def tick(self, now: float) -> None:
        silent = ~self._is_lost & (now - self._heard > self._patience.silent_after)
        if silent.any():
            self._is_lost |= silent
            self._well[silent] = 0
            self._epoch += 1

    def choose(self, place: int, title: int, current: int, bps: float, network: int, now: float) -> Choice:
        order = self._orders.get(place)
        if order is None:
            order = self._orders[place] = self._sites(place)
        options: list[int] = []
        first: int | None = None
        for site in order:
            live = [appliance for appliance in self._ruler.inside[site] if not self._is_lost[appliance]]
            if not live:
                continue
            if first is not None:
                options += self._in_site(live, title, current)[:1]
                break
            first = site
            options += self._in_site(live, title, current)[: OPTIONS - 1]
        return Choice((), _CLASSES, 0.0) if first is None else Choice(options, *self._ruler.near(place)[first])


def nearest(ruler: Ruler, seed: int, start: float) -> Blind:
    """The site that is nearest on the map, to 50 km, of those that may serve the client; there, anybody."""
    dice = random.Random(seed)

    def sites(place: int) -> list[int]:
        near = ruler.near(place)

        def distance(site: int) -> tuple[int, tuple[int, float]]:
            kind, rtt = near[site]
            way = WAYS[Proximity(kind)]
            return round((rtt - way.ms) / way.inflation * KM_PER_MS / 50.0), near[site]

        return sorted(near, key=distance)

    def inside(live: list[int], title: int, current: int) -> list[int]:
        turn = live.index(current) if current in live else dice.randrange(len(live))
        return live[turn:] + live[:turn]

    return Blind("nearest", ruler, start, sites, inside)


def hashed(ruler: Ruler, seed: int, start: float) -> Blind:
    """The cache group by prefix, network or place; there, the cache by consistent hashing of the title, by weight."""
    mixes = [mixed(seed ^ number) for number in range(len(ruler.world.names))]
    titles = [mixed(seed ^ 0xF11 ^ number << 20) for number in range(TITLES)]
    weight = (ruler.world.capacity / 1e9).tolist()

    def inside(live: list[int], title: int, current: int) -> list[int]:
        key = titles[title]
        scored = [(math.log((mixed(key ^ mixes[number]) + 0.5) / 2**64) / weight[number], number) for number in live]
        return [number for _, number in sorted(scored, reverse=True)]

    return Blind("hashed", ruler, start, lambda place: list(ruler.near(place)), inside)
