"""The day itself: arrivals, ends, questions of playing players, heartbeats, outages; second by second where it matters.

What is simplified, and what is not:

- A session stands for many viewers. It comes, asks and moves as several, each of which reads 15 % of a usual appliance
  of its site at most (of a small one, if it is in no announced prefix); and 2 % where that could matter, for one of
  its site carries more than 65 % or something happens in its country, and 8 % of a small one. They come one after the
  other within two minutes, as long as it takes until the next session of a market.
- Time goes in steps of 5 s, the interval of heartbeats; from just before an outage begins or ends, or a crowd comes,
  in steps of 1 s for some minutes. In the steps of 5 s only appliances speak whose load has changed, and once more 15 s
  later if players were assigned to them: the heartbeats of the others would say what the last one said. Nobody can
  fall silent then, so the fleet's `tick` is called in the steps of 1 s only, and there everybody speaks every 5 s.
- A playing player asks again every 51 to 60 s. Where `Policy.stays` proves that the answer would be to stay, the
  question is not put (`ask_all` puts it), and the list that the player has for an emergency stays the older one; but
  those whose appliance will be gone within a minute do ask.
- An appliance that is gone sends nothing. Its players need 2 to 10 s to believe it, then take the next place of the
  list they have; so does one that was sent there before steering knew.
- What an appliance is asked for beyond its capacity nobody gets (`unserved`). Players do not choose lower bitrates.
- Holdings stay what they are through the day.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from steering.topology.distance import Proximity
from tests.bench.sim.policies import ORIGIN, Policy, Ruler
from tests.bench.sim.workload import DAY, EXPECTED_BPS, LEAD, Sessions
from tests.bench.sim.world import VARIANTS

STEP: Final = 5
_TTL: Final = 60
_JITTER: Final = 0.15
_LEAST_TTL: Final = round(_TTL * (1.0 - _JITTER))
_RING: Final = 128
_BEFORE: Final = 20
"""Seconds of small steps before something happens."""
_AFTER: Final = 240
PROMISE: Final = 0.95
"""Of its capacity, that an appliance may carry while others of its class have room."""
ROOM: Final = 0.90
"""Below which an appliance has room."""
_LOOK: Final = 30
"""Seconds between two looks for appliances above `PROMISE`; where something happens, it is looked every `STEP`."""
_FINE: Final = 0.02
_COARSE: Final = 0.15
_SPREAD: Final = 120
_SETTLE: Final = 15
"""Seconds until an appliance to which players were assigned speaks again, if its load stays what it is."""
_FINE_ANYWHERE: Final = 0.08
_MOST_PIECES: Final = 48
_HOT: Final = 0.65
_CLASSES: Final = len(Proximity)


@dataclass(frozen=True)
class Outage:
    """These appliances are gone for a while."""

    name: str
    at: int
    until: int
    appliances: np.ndarray
    country: int


@dataclass(frozen=True)
class Happening:
    """A time and country worth looking at closely."""

    at: int
    countries: tuple[int, ...]


@dataclass
class Recovery:
    """What became of an outage."""

    name: str
    viewers: float = 0.0
    """On the appliances when they went."""
    bps: float = 0.0
    left: list[float] = field(default_factory=list)
    """The share of what they carried that is still asked of them, each second."""
    seconds: int | None = None
    """Until that was 1 %."""
    back_seconds: int | None = None
    """After they came back, until they carried 90 % of what they did."""
    highest: float = 0.0
    """Utilisation anywhere in the minutes after."""
    over_seconds: int = 0
    """Of these minutes, while anybody was above `PROMISE`."""


@dataclass
class Outcome:
    """What one policy made of the day."""

    policy: str
    minutes: list[dict] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    moves: Counter[str] = field(default_factory=Counter)
    """Viewers that steering moved, by why."""
    failovers: float = 0.0
    """Viewers that helped themselves when their appliance was gone."""
    arrivals: float = 0.0
    refused: float = 0.0
    """Viewers for whom there was only the origin when they came."""
    viewer_seconds: float = 0.0
    bits: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """All, by own ISP, by the origin, unserved."""
    over_seconds: int = 0
    """Seconds that appliances were above `PROMISE`, of all of them together."""
    over_with_room: int = 0
    """Of these, while others of its class had room."""
    longest_over: int = 0
    """Seconds for which one was so without a break, about."""
    highest: float = 0.0
    highest_with_room: float = 0.0
    decisions: int = 0
    questions: int = 0
    mistaken: int = 0
    """Players of whom `Policy.stays` was sure and who were moved: counted with `ask_all`."""
    samples: dict[str, Snapshot] = field(default_factory=dict)
    course: Course | None = None


@dataclass(frozen=True)
class Course:
    """Who came and left, all day: for the linear program in which nobody moves. One row for each piece of a session."""

    place: np.ndarray
    bps: np.ndarray
    start: np.ndarray
    stop: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """Who is where at one moment: for the linear program."""

    at: int
    place: np.ndarray
    appliance: np.ndarray
    bps: np.ndarray
    load: np.ndarray
    is_gone: np.ndarray


class Day:
    """One policy through one day."""

    def __init__(
        self,
        ruler: Ruler,
        played: Sessions,
        policy: Policy,
        outages: tuple[Outage, ...],
        happenings: tuple[Happening, ...],
        samples: dict[str, int],
        seed: int,
        start: int = 0,
        end: int = DAY,
        *,
        ask_all: bool = False,
    ) -> None:
        self._ruler = ruler
        self._world = world = ruler.world
        self._played = played
        self._policy = policy
        self._outages = outages
        self._happenings = happenings
        self._samples = samples
        self._dice = np.random.default_rng([seed, 7])
        self._start = start
        self._end = end
        self._ask_all = ask_all
        self.outcome = Outcome(policy.name, recoveries=[Recovery(outage.name) for outage in outages])
        count = len(world.names)
        self.load = np.zeros(count)
        self._viewers = np.zeros(count)
        self._is_gone = np.zeros(count, bool)
        self._is_dirty = np.zeros(count, bool)
        self._over_since = np.full(count, -1)
        self._site_capacity = np.bincount(world.site_of, weights=world.capacity)
        self._usual_capacity = (self._site_capacity / np.bincount(world.site_of))[world.home]
        """For each market, of an appliance of the site that was planned for it."""
        self._small_capacity = float(np.percentile(world.capacity, 10))
        self._is_hot = np.zeros(len(world.markets), bool)
        self._rows = 0
        self._make_room(len(played) + 1024)
        self._due: list[list[int]] = [[] for _ in range(_RING)]
        """Rows that ask again in a second: those that asked by themselves, and"""
        self._due_together: list[list[np.ndarray]] = [[] for _ in range(_RING)]
        """those that did so with others."""
        self._ends: defaultdict[int, list[int]] = defaultdict(list)
        self._failing: defaultdict[int, list[int]] = defaultdict(list)
        self._coming: defaultdict[int, list[tuple[int, int, float, float, int]]] = defaultdict(list)
        self._moved: Counter[str] = Counter()
        self._unsettled: dict[int, np.ndarray] = {}
        self._highest_lately = 0.0

    def run(self) -> Outcome:
        played = self._played
        now = self._start - LEAD
        ahead = int(np.searchsorted(played.start, now))
        while now < self._end:
            is_close = self._is_close(now)
            step = 1 if is_close else STEP
            if is_close and not self._is_close(now - STEP):
                self._policy.hear(np.nonzero(~self._is_gone)[0], self.load, float(now))
            self._happen(now)
            self._end_sessions(now, step)
            until = int(np.searchsorted(played.start, now + step))
            for number in range(ahead, until):
                self._arrive(number, now)
            ahead = until
            self._enter_others(now, step)
            self._fail_over(now, step)
            self._ask_again(now, step)
            self._speak(now + step, is_close=is_close)
            now += step
            self._look(now, is_close=is_close)
        self.outcome.moves = +self._policy.moves
        rows = slice(self._rows)
        self.outcome.course = Course(self._place[rows], self._bps[rows], self._start_of[rows], self._stop[rows])
        return self.outcome

    # --- Rows: a session, or a piece of one ---

    def _make_room(self, count: int) -> None:
        kinds = {
            "_place": np.int32, "_title": np.int32, "_appliance": np.int32, "_proximity": np.int8, "_rtt": np.float32,
            "_weight": np.float64, "_bps": np.float64, "_start_of": np.int32, "_stop": np.int32, "_period": np.int8,
            "_alive": bool,
        }  # fmt: skip
        for name, kind in kinds.items():
            grown = np.zeros(count, kind)
            if self._rows:
                grown[: self._rows] = getattr(self, name)[: self._rows]
            setattr(self, name, grown)
        options = np.full((count, 4), ORIGIN, np.int32)
        if self._rows:
            options[: self._rows] = self._options[: self._rows]
        self._options = options

    def _row(self, place: int, title: int, weight: float, bps: float, start: int, stop: int) -> int:
        row = self._rows
        if row == len(self._place):
            self._make_room(2 * row)
        self._rows = row + 1
        self._place[row] = place
        self._title[row] = title
        self._weight[row] = weight
        self._bps[row] = bps
        self._start_of[row] = start
        self._stop[row] = stop
        self._appliance[row] = ORIGIN
        # As steering/answers: each client's own, and the same each time.
        self._period[row] = round(_TTL * (1.0 - _JITTER * ((row * 2654435761) % 2**32) / 2**32))
        self._alive[row] = True
        self._ends[stop].append(row)
        return row

    def _pieces(self, place: int, bps: float) -> int:
        market, known = divmod(place, VARIANTS)
        most = self._usual_capacity[market]
        if known != 0:
            # Those in no announced prefix come to strangers' sites too.
            most = min(most, self._small_capacity)
        most = min(most * _FINE, self._small_capacity * _FINE_ANYWHERE) if self._is_hot[market] else most * _COARSE
        return min(_MOST_PIECES, max(1, math.ceil(bps / most)))

    def _split(self, row: int, now: int) -> None:
        """From now on these viewers ask as several."""
        pieces = self._pieces(int(self._place[row]), self._bps[row])
        if pieces == 1:
            return
        self._weight[row] /= pieces
        self._bps[row] /= pieces
        appliance = int(self._appliance[row])
        for _ in range(pieces - 1):
            other = self._row(
                int(self._place[row]),
                int(self._title[row]),
                self._weight[row],
                self._bps[row],
                int(self._start_of[row]),
                int(self._stop[row]),
            )
            self._appliance[other] = appliance
            self._proximity[other] = self._proximity[row]
            self._rtt[other] = self._rtt[row]
            self._options[other] = self._options[row]
            self._due[(now + int(self._dice.integers(1, _TTL))) % _RING].append(other)

    # --- What players do ---

    def _arrive(self, number: int, now: int) -> None:
        played = self._played
        place, title = int(played.place[number]), int(played.title[number])
        weight = float(played.weight[number])
        bps = weight * float(played.bps[number])
        stop = max(int(played.end[number]), now + STEP)
        pieces = self._pieces(place, bps)
        weight, bps = weight / pieces, bps / pieces
        self._enter(place, title, weight, bps, stop, now)
        for piece in range(1, pieces):
            later = now + piece * _SPREAD // pieces
            # They leave as they came, one after the other.
            self._coming[later].append((place, title, weight, bps, stop + later - now))

    def _enter_others(self, now: int, step: int) -> None:
        for second in range(now, now + step):
            for place, title, weight, bps, stop in self._coming.pop(second, ()):
                self._enter(place, title, weight, bps, stop, now)

    def _enter(self, place: int, title: int, weight: float, bps: float, stop: int, now: int) -> None:
        row = self._row(place, title, weight, bps, now, stop)
        is_served = self._ask(row, now)
        self._due[(now + int(self._period[row])) % _RING].append(row)
        if now >= self._start:
            self.outcome.arrivals += weight
            self.outcome.refused += 0.0 if is_served else weight

    def _ask(self, row: int, now: int) -> bool:
        """Ask steering and go there. Whether anybody but the origin was named."""
        current = int(self._appliance[row])
        place = int(self._place[row])
        weight = float(self._weight[row])
        choice = self._policy.choose(
            place, int(self._title[row]), current, min(EXPECTED_BPS * weight, float(self._bps[row])), row, float(now)
        )
        self.outcome.decisions += 1
        options = choice.options
        chosen = options[0] if options else ORIGIN
        if chosen != current:
            if current != ORIGIN:
                why = self._policy.why(current)
                self._policy.moves[why] += weight
                self._moved[why] += weight
            self._go(row, chosen, choice.proximity, choice.rtt)
        if options:
            self._options[row, : len(options)] = options
            self._options[row, len(options) :] = ORIGIN
            if self._is_gone[chosen] and chosen != current:
                self._failing[now + int(self._dice.integers(2, 11))].append(row)
        return bool(options)

    def _go(self, row: int, appliance: int, proximity: int, rtt: float) -> None:
        before = int(self._appliance[row])
        bps, weight = self._bps[row], self._weight[row]
        for number, sign in ((before, -1.0), (appliance, 1.0)):
            if number != ORIGIN:
                self.load[number] += sign * bps
                self._viewers[number] += sign * weight
                self._is_dirty[number] = True
        self._appliance[row] = appliance
        self._proximity[row] = proximity
        self._rtt[row] = rtt

    def _end_sessions(self, now: int, step: int) -> None:
        rows = [row for second in range(now, now + step) for row in self._ends.pop(second, ())]
        if not rows:
            return
        ended = np.array(rows)
        self._alive[ended] = False
        ended = ended[self._appliance[ended] != ORIGIN]
        appliances = self._appliance[ended]
        np.subtract.at(self.load, appliances, self._bps[ended])
        np.subtract.at(self._viewers, appliances, self._weight[ended])
        self._is_dirty[appliances] = True

    def _fail_over(self, now: int, step: int) -> None:
        """Players on an appliance that is gone take the next place of their list."""
        for second in range(now, now + step):
            for row in self._failing.pop(second, ()):
                appliance = int(self._appliance[row])
                if not self._alive[row] or appliance == ORIGIN or not self._is_gone[appliance]:
                    continue
                self.outcome.failovers += float(self._weight[row])
                place = int(self._place[row])
                for option in self._options[row].tolist():
                    if option != ORIGIN and not self._is_gone[option]:
                        self._go(row, option, *self._ruler.distance(place, int(self._world.site_of[option])))
                        break
                else:
                    self._go(row, ORIGIN, _CLASSES, 0.0)

    def _ask_again(self, now: int, step: int) -> None:
        together: list[np.ndarray] = []
        for second in range(now, now + step):
            slot = second % _RING
            together += self._due_together[slot]
            if self._due[slot]:
                together.append(np.array(self._due[slot]))
            self._due_together[slot] = []
            self._due[slot] = []
        if not together:
            return
        rows = np.concatenate(together)
        rows = rows[self._alive[rows]]
        self.outcome.questions += len(rows)
        period = self._period[rows]
        for seconds in range(_LEAST_TTL, _TTL + 1):
            self._due_together[(now + seconds) % _RING].append(rows[period == seconds])
        if self._ask_all:
            for row in rows.tolist():
                self._ask_and_compare(row, now)
            return
        # Who will need the list soon has one of the last minute.
        for row in rows[~self._stay(rows) | self._is_soon_gone(now)[self._appliance[rows]]].tolist():
            self._split(row, now)
            self._ask(row, now)

    def _stay(self, rows: np.ndarray) -> np.ndarray:
        return self._policy.stays(
            rows, self._place[rows], self._appliance[rows], self._proximity[rows], self._rtt[rows]
        )

    def _ask_and_compare(self, row: int, now: int) -> None:
        """Put a question whatever is known of the answer, and count if that was wrong."""
        before = self._appliance[row]
        is_sure = bool(self._stay(np.array([row]))[0])
        if not is_sure:
            self._split(row, now)
        self._ask(row, now)
        self.outcome.mistaken += is_sure and self._appliance[row] != before

    # --- What appliances do ---

    def _is_close(self, now: int) -> bool:
        times = [when for outage in self._outages for when in (outage.at, outage.until)]
        times += [happening.at for happening in self._happenings]
        return any(when - _BEFORE <= now < when + _AFTER for when in times)

    def _is_soon_gone(self, now: int) -> np.ndarray:
        soon = np.zeros(len(self.load), bool)
        for outage in self._outages:
            if outage.at - _TTL <= now < outage.at:
                soon[outage.appliances] = True
        return soon

    def _happen(self, now: int) -> None:
        for outage, recovery in zip(self._outages, self.outcome.recoveries, strict=True):
            inside = outage.appliances
            if now == outage.at:
                on_them = self._active()
                on_them = on_them[np.isin(self._appliance[on_them], inside)]
                for row in on_them.tolist():
                    self._split(row, now)
                on_them = self._active()
                on_them = on_them[np.isin(self._appliance[on_them], inside)]
                recovery.viewers = float(self._weight[on_them].sum())
                recovery.bps = float(self.load[inside].sum())
                self._is_gone[inside] = True
                for row, delay in zip(on_them.tolist(), self._dice.integers(2, 11, len(on_them)).tolist(), strict=True):
                    self._failing[now + delay].append(row)
            elif now == outage.until:
                self._is_gone[inside] = False
                self._policy.restarted(inside)

    def _speak(self, now: int, *, is_close: bool) -> None:
        if is_close:
            everyone = np.arange(now % STEP, len(self.load), STEP)
            self._policy.hear(everyone[~self._is_gone[everyone]], self.load, float(now))
            self._is_dirty[everyone] = False
            self._policy.tick(float(now))
        else:
            changed = np.nonzero(self._is_dirty & ~self._is_gone)[0]
            self._is_dirty[:] = False
            self._unsettled[(now + _SETTLE) % _RING] = self._policy.hear(changed, self.load, float(now))
            again = self._unsettled.pop(now % _RING, None)
            if again is not None:
                self._is_dirty[again] = True

    # --- What is seen ---

    def _active(self) -> np.ndarray:
        return np.nonzero(self._alive[: self._rows])[0]

    def _look(self, now: int, *, is_close: bool) -> None:
        if is_close:
            self._watch(now)
        pause = STEP if is_close else _LOOK
        if now % pause == 0:
            self._look_for_busy(now, pause)
        if now % 60 == 0:
            self._warm(now)
            if now > self._start:
                self._count(now)
            self._moved.clear()
            self._highest_lately = 0.0
        for name, when in self._samples.items():
            if when - STEP < now <= when:
                rows = self._active()
                self.outcome.samples[name] = Snapshot(
                    now,
                    self._place[rows].copy(),
                    self._appliance[rows].copy(),
                    self._bps[rows].copy(),
                    self.load.copy(),
                    self._is_gone.copy(),
                )

    def _watch(self, now: int) -> None:
        highest = float((self.load / self._world.capacity).max(where=~self._is_gone, initial=0.0))
        self._highest_lately = max(self._highest_lately, highest)
        for outage, recovery in zip(self._outages, self.outcome.recoveries, strict=True):
            share = float(self.load[outage.appliances].sum()) / max(recovery.bps, 1.0)
            if outage.at < now <= outage.at + _AFTER:
                recovery.left.append(share)
                recovery.highest = max(recovery.highest, highest)
                recovery.over_seconds += highest > PROMISE
                if share <= 0.01 and recovery.seconds is None:
                    recovery.seconds = now - outage.at
            elif outage.until < now <= outage.until + _AFTER and share >= 0.9 and recovery.back_seconds is None:
                recovery.back_seconds = now - outage.until

    def _warm(self, now: int) -> None:
        """Where sessions come as several."""
        busiest = np.zeros(len(self._site_capacity))
        np.maximum.at(busiest, self._world.site_of, self.load / self._world.capacity)
        self._is_hot = busiest[self._world.home] > _HOT
        near = [
            country
            for outage in self._outages
            if outage.at - 300 <= now < outage.until + 1200
            for country in [outage.country]
        ]
        near += [
            country
            for happening in self._happenings
            if happening.at - 60 <= now < happening.at + 2400
            for country in happening.countries
        ]
        self._is_hot |= np.isin(self._world.markets.country, near)

    def _look_for_busy(self, now: int, pause: int) -> None:
        if now <= self._start:
            return
        outcome = self.outcome
        utilisation = self.load / self._world.capacity
        over = np.nonzero((utilisation > PROMISE) & ~self._is_gone)[0]
        self._highest_lately = max(self._highest_lately, float(utilisation.max(where=~self._is_gone, initial=0.0)))
        self._over_since[utilisation <= PROMISE] = -1
        if not len(over):
            return
        with_room = self._with_room(over, utilisation)
        outcome.over_seconds += pause * len(over)
        outcome.over_with_room += pause * len(with_room)
        lasting = np.zeros(len(self.load), bool)
        lasting[with_room] = True
        self._over_since[~lasting] = -1
        self._over_since[lasting & (self._over_since < 0)] = now - pause // 2
        if len(with_room):
            outcome.longest_over = max(outcome.longest_over, int(now - self._over_since[with_room].min()))
            outcome.highest_with_room = max(outcome.highest_with_room, float(utilisation[with_room].max()))

    def _with_room(self, over: np.ndarray, utilisation: np.ndarray) -> np.ndarray:
        """Those of them some of whose players could be elsewhere in the same class, on an appliance with room."""
        is_over = np.zeros(len(self.load), bool)
        is_over[over] = True
        rows = self._active()
        rows = rows[self._appliance[rows] != ORIGIN]
        rows = rows[is_over[self._appliance[rows]]]
        key = (self._appliance[rows].astype(np.int64) * len(self._world.wheres) + self._place[rows]) * _CLASSES
        found = set()
        has_room = (utilisation < ROOM) & ~self._is_gone
        site_has_room = np.bincount(self._world.site_of, weights=has_room) > 0
        for pair in np.unique(key + self._proximity[rows]).tolist():
            rest, proximity = divmod(pair, _CLASSES)
            appliance, place = divmod(rest, len(self._world.wheres))
            if appliance not in found and any(
                kind == proximity and site_has_room[site] for site, (kind, _) in self._ruler.near(place).items()
            ):
                found.add(appliance)
        return np.array(sorted(found), int)

    def _count(self, now: int) -> None:
        outcome = self.outcome
        rows = self._active()
        appliance, bps, weight = self._appliance[rows], self._bps[rows], self._weight[rows]
        served = appliance != ORIGIN
        by_class = np.bincount(self._proximity[rows][served], weights=bps[served], minlength=_CLASSES)
        own = served & (self._proximity[rows] <= Proximity.NETWORK)
        country = self._world.markets.country[self._place[rows] // VARIANTS]
        countries = len(self._world.markets.codes)
        utilisation = self.load / self._world.capacity
        unserved = float(np.maximum(self.load - self._world.capacity, 0.0).sum())
        gone = float(self.load[self._is_gone].sum())
        total = float(bps.sum())
        known = served & (self._proximity[rows] <= Proximity.PLACE)
        outcome.highest = max(outcome.highest, self._highest_lately)
        outcome.viewer_seconds += float(weight.sum()) * 60
        outcome.bits["all"] += total * 60
        outcome.bits["own"] += float(bps[own].sum()) * 60
        outcome.bits["origin"] += float(bps[~served].sum()) * 60
        outcome.bits["unserved"] += (unserved + gone) * 60
        outcome.bits["ms"] += float((bps * self._rtt[rows])[known].sum()) * 60
        outcome.bits["known"] += float(bps[known].sum()) * 60
        outcome.minutes.append(
            {
                "at": now,
                "viewers": float(weight.sum()),
                "bps": total,
                "by_class": by_class.tolist(),
                "origin": float(bps[~served].sum()),
                "unserved": unserved + gone,
                "highest": self._highest_lately,
                "percentile_99": float(np.percentile(utilisation[~self._is_gone], 99)),
                "over": int(((utilisation > PROMISE) & ~self._is_gone).sum()),
                "moved": dict(self._moved),
                "own_by_country": np.bincount(country[own], weights=bps[own], minlength=countries).tolist(),
                "by_country": np.bincount(country, weights=bps, minlength=countries).tolist(),
            }
        )
