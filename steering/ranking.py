"""Where this player's first byte comes soonest, in milliseconds, without overloading anyone.

    cost = rtt(client, site) + p_miss(appliance, content) x fetch penalty + load delay(utilisation)

A pure function of the question and of rows that describe the candidates: a decision that was logged with its rows can
be made again, years later, on another machine (replay.py).

- *Eligibility* first. What is barred, or at its hard limit, is not ranked, and the reason is kept.
- *Proximity classes* before cost: an ISP's own appliance comes before anything outside, until its limit.
- But whom their own class has no room for do not take the last room of the next: they go on to a farther class first,
  or one city that is full would fill its neighbours, whose own players would have to go farther still. Telephone
  networks learned the same of alternative routes (trunk reservation: Gibbens, Hunt, Kelly 1990).
- Within a class those that cost nearly the same as the best share by weighted rendezvous hashing on the content, so
  that each has a home that stays put when others come or go (Thaler and Ravishankar 1998; weights: -w / ln h), with
  bounded load (Mirrokni, Thorup, Zadimoghaddam 2018): who carries more than `1 + spread` times their mean comes after.
- The answer names appliances of two sites at least, if there are two: one power cut must not take the whole list. The
  second is not the same for all players of the first, or these would be eight times what it can send: it is drawn for
  each client network among several near ones, by the room that each has (`refuge`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from steering.names import mixed
from steering.topology.distance import Proximity

_UNIT: Final = 1.0 / 2**64
_LATE: Final = 8
"""More than there are classes."""


class Bar(StrEnum):
    """Why a candidate gets no new player."""

    JOINING = "joining"
    SUSPECT = "suspect"
    LOST = "lost"
    DRAINING = "draining"
    DRAINED = "drained"
    DISABLED = "disabled"
    FULL = "full"
    """At its hard load limit."""
    NO_ADDRESS = "no_address"
    """It has no address of the family that was asked for (DNS only)."""
    UNHEARD = "unheard"
    """Declared, and never heard of."""
    UNPROVEN = "unproven"
    """It is heard, and has never passed its turn-up checks."""


class Reason(StrEnum):
    """Why the first of the list is the first: one closed set for logs, metrics and answers."""

    NEAREST = "nearest"
    """Nobody else costs nearly as little."""
    HOLDS = "holds"
    """It has the content, and others as near have not."""
    HOME = "home"
    """Of those that cost the same, the one on which this content belongs."""
    SPREAD = "spread"
    """Its home is too busy for that; this is the next."""
    OVERFLOW = "overflow"
    """Nearer classes are full or away."""
    LISTED = "listed"
    """It is on the region's list: nobody was ranked."""
    STAYS = "stays"
    """The player is there, and nothing is so much better that moving would pay."""
    ONLY_ORIGIN = "only_origin"
    """No appliance can take this player."""


class Rules(Struct, frozen=True, forbid_unknown_fields=True):
    """The constants of the formula."""

    fetch_penalty: float = 80.0
    """Milliseconds that a miss costs: one round trip to a parent or origin and its disk."""
    load_delay: float = 1.0
    """Milliseconds of waiting at half utilisation; it grows like u / (1 - u), as a queue does. With twice that, players
    go half again as far beyond the optimum on a usual evening and when an ISP's sites are away."""
    hard_limit: float = 0.90
    """Utilisation at which an appliance takes no new players."""
    leave_limit: float = 0.95
    """And at which players that are there are moved away."""
    return_limit: float = 0.80
    """And below which it calls players from where they are: were it the hard limit, those that were moved away from a
    full one would be called back by the next heartbeat that tells a percent less."""
    guest_limit: float = 0.80
    """And from which it is the last choice of those for whom appliances of a nearer class are at work, be they full:
    whom one city cannot serve would fill the next one else, and its own players would go to a third."""
    near: float = 3.0
    """Milliseconds within which costs count as the same."""
    beside: float = 0.3
    """And milliseconds of distance, which is 20 km: what is farther than the cheapest by more is not its equal, or
    titles would be at home 200 km away as often as in town."""
    spread: float = 0.25
    """How much more than the mean of its equals an appliance may carry before it comes after them."""
    idle: float = 0.30
    """Below this utilisation nobody is too busy: at night content stays at home."""
    move_gain: float = 40.0
    """Milliseconds that a playing client must gain before it is moved."""
    options: int = 4
    """Appliances in an answer, besides the origin."""


class Question(Struct, frozen=True, gc=False):
    """What is asked for, as far as the ranking needs to know."""

    content: int
    """64 well-mixed bits of what stays together: the title."""
    current: str | None = None
    """The appliance that the player is on."""
    refuge: str | None = None
    """The site for it should that of the first appliance be gone; None: the next best."""


class Candidate(Struct, frozen=True, gc=False, array_like=True):
    """One appliance as seen at one moment. Rows of the log, too."""

    appliance: str
    site: str
    proximity: Proximity
    rtt: float
    """Milliseconds, estimated."""
    utilisation: float
    """0 to 1 and above: of its network, connections and processors the scarcest, with what was assigned since."""
    weight: float
    """Its capacity, in Gbit/s, less what slow start takes."""
    hit_ratio: float
    """Of late, of all appliances of its site; where nothing is known, a modest guess."""
    held: float
    """The share of what is asked for that it holds."""
    mix: int
    """64 well-mixed bits of its name."""
    bar: Bar | None = None


class Ranked(Struct, frozen=True, gc=False):
    """A candidate and the terms of its cost, in milliseconds."""

    candidate: Candidate
    miss: float
    """The chance that it has to fetch."""
    fetch: float
    load: float
    cost: float
    score: float = 0.0
    """Of rendezvous: the greatest is at home."""
    equal: bool = False
    """It costs nearly what the best of its class does, so its place among these is by its score."""
    busy: bool = False
    """It carries more than its share, and stands after its equals."""


class Ranking(Struct, frozen=True, gc=False):
    ranked: tuple[Ranked, ...]
    """All eligible ones, the best first; the answer names the first few. Who plays may stand first, on the one where
    it is or the one that calls it away: the others keep their order."""
    rejected: tuple[tuple[Candidate, Bar], ...]
    """The nearest class first."""
    reason: Reason


def rank(question: Question, candidates: Sequence[Candidate], rules: Rules, seed: int) -> Ranking:
    """The same arguments give the same ranking, whatever order the candidates come in."""
    classes: dict[int, list[Ranked]] = {}
    rejected: list[tuple[Candidate, Bar]] = []
    hard_limit, penalty, load_delay = rules.hard_limit, rules.fetch_penalty, rules.load_delay
    current = question.current
    nearest = min([candidate.proximity for candidate in candidates if candidate.bar is None], default=0)
    for candidate in candidates:
        if candidate.bar is not None:
            rejected.append((candidate, candidate.bar))
            continue
        utilisation = candidate.utilisation
        if utilisation >= (hard_limit if candidate.appliance != current else rules.leave_limit):
            rejected.append((candidate, Bar.FULL))
            continue
        miss = (1.0 - candidate.held) * (1.0 - candidate.hit_ratio)
        fetch = miss * penalty
        load = load_delay * utilisation / (1.0 - utilisation)
        row = Ranked(candidate, miss, fetch, load, candidate.rtt + fetch + load)
        # A guest takes the last room of others only if there is none elsewhere.
        is_late = candidate.proximity > nearest and utilisation >= rules.guest_limit
        classes.setdefault(candidate.proximity + is_late * _LATE, []).append(row)
    ranked: list[Ranked] = []
    if len(rejected) > 1:
        rejected.sort(key=_by_class)
    for proximity in sorted(classes):
        ranked += _ordered(classes[proximity], question.content ^ seed, rules)
    if not ranked:
        return Ranking((), tuple(rejected), Reason.ONLY_ORIGIN)
    if current is not None and ranked[0].candidate.appliance != current:
        mine = next((row for row in ranked if row.candidate.appliance == current), None)
        if mine is not None:
            better = next((row for row in ranked if _pays(row, mine, rules)), None)
            first = better or mine
            if first is not ranked[0]:
                ranked.sort(key=lambda row: row is not first)
            if better is None:
                return Ranking(tuple(ranked), tuple(rejected), Reason.STAYS)
    return Ranking(tuple(ranked), tuple(rejected), _reason(ranked, rejected))


def chosen(question: Question, ranking: Ranking, rules: Rules, seed: int) -> tuple[Ranked, ...]:
    """The first few, and of two sites at least if there are two: the last gives way to the best of another. With a
    refuge: the best of the first one's site, then those of the refuge, then the others.
    """
    count = rules.options
    best = ranking.ranked[:count]
    if count < 2 or len(best) < 2:
        return best
    site, refuge = best[0].candidate.site, question.refuge
    away = [row for row in ranking.ranked if row.candidate.site == refuge] if refuge != site else []
    if away:
        inside = [row for row in ranking.ranked if row.candidate.site == site]
        others = [row for row in best if row.candidate.site not in {site, refuge}]
        away = _by_room(away, question.content ^ seed, rules)
        return tuple((inside[: count - 1] + away + others)[:count])
    if any(row.candidate.site != site for row in best):
        return best
    other = next((row for row in ranking.ranked[count:] if row.candidate.site != site), None)
    return best if other is None else (*best[: count - 1], other)


def refuge(client: int, rooms: Iterable[tuple[str, int, float]]) -> str | None:
    """Of sites (name, 64 well-mixed bits of it, room) the one that is drawn for a client network, of which `client` is
    64 well-mixed bits: each for its share of the room, by weighted rendezvous hashing. None if there is no room.
    """
    best, name = -math.inf, None
    for site, mix, room in rooms:
        score = math.log((mixed(client ^ mix) + 0.5) * _UNIT) / room if room > 0 else -math.inf
        if score > best:
            best, name = score, site
    return name


def _ordered(rows: list[Ranked], key: int, rules: Rules) -> list[Ranked]:
    """One class: first the near-equals of the cheapest, by rendezvous and with bounded load, then the rest by cost."""
    if len(rows) == 1:
        return rows
    cheapest = min(rows, key=_by_cost)
    limit = cheapest.cost + rules.near
    farthest = cheapest.candidate.rtt + rules.beside
    equals = [row for row in rows if row.cost <= limit and row.candidate.rtt <= farthest]
    if len(equals) == 1:
        rows.sort(key=_by_cost)
        return rows
    # fsum: the same in whatever order they come.
    carried = math.fsum([row.candidate.utilisation * row.candidate.weight for row in equals])
    weights = math.fsum([row.candidate.weight for row in equals])
    bound = max(rules.idle, (1.0 + rules.spread) * carried / weights if weights else 0.0)
    ordered = []
    for row in equals:
        candidate = row.candidate
        # A hash in (0, 1): never 0, whose logarithm would be none, and never 1.
        share = (mixed(key ^ candidate.mix) + 0.5) * _UNIT
        score = math.log(share) / candidate.weight if candidate.weight > 0 else -math.inf
        busy = candidate.utilisation > bound
        ordered.append(Ranked(candidate, row.miss, row.fetch, row.load, row.cost, score, True, busy))
    ordered.sort(key=_by_place)
    if len(equals) < len(rows):
        others = [row for row in rows if row.cost > limit or row.candidate.rtt > farthest]
        ordered += sorted(others, key=_by_cost)
    return ordered


def _by_room(rows: list[Ranked], key: int, rules: Rules) -> list[Ranked]:
    """Of one site, for players that come all at once: those that hold as much, or nearly, by rendezvous on the content,
    weighted by the room they have and not by what they can carry, for no load is told before all are there. Then the
    rest by cost.
    """
    if len(rows) == 1:
        return rows
    limit = min([row.fetch for row in rows]) + rules.near
    placed = []
    for row in rows:
        candidate = row.candidate
        room = (rules.guest_limit - candidate.utilisation) * candidate.weight
        if room > 0 and row.fetch <= limit:
            share = (mixed(key ^ candidate.mix) + 0.5) * _UNIT
            placed.append((False, -math.log(share) / room, candidate.appliance, row))
        else:
            placed.append((True, row.cost, candidate.appliance, row))
    placed.sort(key=_by_first_three)
    return [row for _, _, _, row in placed]


def _by_first_three(placed: tuple[bool, float, str, Ranked]) -> tuple[bool, float, str]:
    return placed[:3]


def _by_cost(row: Ranked) -> tuple[float, str]:
    return row.cost, row.candidate.appliance


def _by_place(row: Ranked) -> tuple[bool, float, str]:
    return row.busy, -row.score, row.candidate.appliance


def _by_class(row: tuple[Candidate, Bar]) -> tuple[int, str]:
    return row[0].proximity, row[0].appliance


def _pays(row: Ranked, mine: Ranked, rules: Rules) -> bool:
    """Whether a playing client should leave where it is for this. Nearer classes call, and so does a gain that pays."""
    candidate = row.candidate
    if candidate.utilisation >= rules.return_limit:
        return False
    proximity = mine.candidate.proximity
    return candidate.proximity < proximity or (
        candidate.proximity == proximity and mine.cost - row.cost >= rules.move_gain
    )


def _reason(ranked: list[Ranked], rejected: list[tuple[Candidate, Bar]]) -> Reason:
    first = ranked[0]
    proximity = first.candidate.proximity
    if any(candidate.proximity < proximity and bar is not Bar.NO_ADDRESS for candidate, bar in rejected):
        return Reason.OVERFLOW
    peers = [row for row in ranked[1:] if row.candidate.proximity == proximity]
    if first.equal:
        is_home = not any(row.equal and row.score > first.score for row in peers)
        return Reason.HOME if is_home else Reason.SPREAD
    if first.candidate.held > 0 and any(
        row.candidate.held < first.candidate.held and row.candidate.rtt <= first.candidate.rtt for row in peers
    ):
        return Reason.HOLDS
    return Reason.NEAREST
