"""A decision: the answer to "where should this player fetch this from", with all its reasons.

Whoever asks, by JSON, content steering, redirect or DNS, is answered from here, so all ways agree. There is always an
answer. When what is above can't be had, the next one answers:

1. `RANKED`: the full ranking over what appliances say of themselves.
2. `REGION`: the region's list, made every few seconds. For when there is no time to rank, ranking fails, or none of
   those that were near enough to be ranked can take the player.
3. `SNAPSHOT`: the full ranking over what was known before this process started. Until appliances were heard.
4. `STATIC`: the list in the settings. When no appliance is known that could take a player.

The origin is always the last of the list, whoever made it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from steering.fleet import Content, Fleet, Member
from steering.inventory import Serves
from steering.names import mixed
from steering.neighbourhood import Near, Neighbourhood, Whereabouts
from steering.ranking import (
    Candidate,
    Question,
    Ranked,
    Ranking,
    Reason,
    Rules,
    chosen,
    rank,
)
from steering.standing import TAKES_NEW
from steering.topology.distance import Proximity

ORIGIN: Final = "origin"
_EVERYWHERE: Final = ""
_LISTED: Final = 16
"""Appliances in the list of a country, and of everywhere: those that carry least."""


class Fallback(StrEnum):
    """Which of the four answered."""

    RANKED = "ranked"
    REGION = "region"
    SNAPSHOT = "snapshot"
    STATIC = "static"


class Way(StrEnum):
    """How it was asked."""

    JSON = "json"
    CONTENT_STEERING = "content_steering"
    REDIRECT = "redirect"
    DNS = "dns"
    EXPLAIN = "explain"
    PLAYBACK = "playback"


class Ask(Struct, frozen=True, gc=False):
    """One question of one player."""

    client: bytes
    """Its packed address, or as much as is known of it."""
    content: Content
    way: Way
    current: str | None = None
    """The appliance that it is on."""
    bps: float = 0.0
    """What it will read, a second."""
    family: int | None = None
    """4 or 6 if only appliances with such an address will do (DNS)."""


class Target(Struct, frozen=True, gc=False):
    """One of the answer: an appliance, one of the static list, or the origin."""

    id: str
    url: str
    """Scheme and host."""


class Decision(Struct, frozen=True, gc=False):
    id: str
    at: float
    way: Way
    fallback: Fallback
    reason: Reason
    targets: tuple[Target, ...]
    """The best first; the origin last, if there is one."""
    content: Content
    question: Question
    ranking: Ranking | None
    """None where nothing was ranked."""
    where: Whereabouts
    near: tuple[Near, ...]


class Decider:
    """Makes decisions over one fleet."""

    def __init__(
        self,
        fleet: Fleet,
        neighbourhood: Neighbourhood,
        rules: Rules,
        seed: int,
        replica: str,
        origin: str | None,
        static: Sequence[Target],
    ) -> None:
        self._fleet = fleet
        self.neighbourhood = neighbourhood
        self._rules = rules
        self._seed = seed
        self._replica = replica
        self._made = 0
        self._origin = () if origin is None else (Target(ORIGIN, origin),)
        self._static = tuple(static)
        self._lists: dict[str | int, tuple[Member, ...]] = {}

    def decide(self, ask: Ask, where: Whereabouts, now: float, *, hurried: bool = False) -> Decision:
        """The answer. `hurried`: without ranking, from the lists that `prepare` made. Counts the player towards who
        was chosen.
        """
        content = ask.content
        question = Question(content.mix, ask.current)
        near: tuple[Near, ...] = ()
        ranking = None
        if not hurried:
            client = _network(ask.client)
            near = self.neighbourhood.near(where, client)
            refuge = self._fleet.refuge(near, client, ask.current, self._rules.guest_limit, ask.family)
            question = Question(content.mix, ask.current, refuge)
            ranking = self._ranked(ask, question, near)
        members: Sequence[Member] = ()
        if ranking is not None:
            best = chosen(question, ranking, self._rules, self._seed)
            members = [self._fleet.members[row.candidate.appliance] for row in best]
        if ranking is not None and members:
            reason = ranking.reason
            fallback = Fallback.RANKED if members[0].is_live else Fallback.SNAPSHOT
        elif members := self._listed(where, ask):
            reason = Reason.LISTED
            fallback = Fallback.REGION
        else:
            reason = Reason.ONLY_ORIGIN
            fallback = Fallback.STATIC
        targets = tuple([Target(member.entry.id, member.entry.url) for member in members]) or self._static
        if members and ask.bps and ask.way is not Way.EXPLAIN:
            self._count(members[0].entry.id, ask)
        self._made += 1
        return Decision(
            f"{self._replica}-{self._made:x}",
            now,
            ask.way,
            fallback,
            reason,
            targets + self._origin,
            content,
            question,
            ranking,
            where,
            near,
        )

    def country(self, where: Whereabouts) -> str | None:
        """ISO 3166-1 of the client: as the database has it, else that of the sites that announce its network (an
        operator's own addresses are often in no database). None where neither says one.
        """
        if where.country is not None:
            return where.country
        sites = self._fleet.inventory.sites
        countries = {sites[name].country for name in where.sites if name in sites}
        return countries.pop() if len(countries) == 1 else None

    def prepare(self) -> None:
        """Make the lists of all regions anew: of each autonomous system, each country, everywhere. Called every few
        seconds.
        """
        inventory = self._fleet.inventory
        lists: dict[str | int, list[Member]] = {}
        for name, site in inventory.sites.items():
            if site.serves is Serves.ANNOUNCED:
                continue
            able = [member for member in self._fleet.at(name) if self._is_able(member)]
            if not able:
                continue
            for asn in inventory.operator_of(name).asns:
                lists.setdefault(asn, []).extend(able)
            if site.serves is Serves.EVERYONE:
                lists.setdefault(site.country, []).extend(able)
                lists.setdefault(_EVERYWHERE, []).extend(able)
        self._lists = {
            region: tuple(sorted(heapq.nsmallest(_LISTED, members, key=_by_load), key=_by_name))
            for region, members in lists.items()
        }

    def _count(self, first: str, ask: Ask) -> None:
        """The player goes to the first, away from where it was."""
        if first == ask.current:
            return
        self._fleet.assign(first, ask.bps)
        if ask.current is not None:
            self._fleet.assign(ask.current, -ask.bps)

    def _ranked(self, ask: Ask, question: Question, near: tuple[Near, ...]) -> Ranking:
        rules = self._rules
        rows = self._fleet.candidates(
            near,
            ask.content,
            ask.current,
            rules.options,
            rules.hard_limit,
            rules.beside,
            ask.family,
            rules.guest_limit,
            question.refuge,
        )
        return rank(question, rows, rules, self._seed)

    def _listed(self, where: Whereabouts, ask: Ask) -> list[Member]:
        """From the lists of the client's regions, the nearest region first, and of each another one for another title.
        Who plays stays where it is.
        """
        found: dict[str, Member] = {}
        current = self._fleet.members.get(ask.current) if ask.current is not None else None
        if current is not None and self._may_stay(current, where):
            found[current.entry.id] = current
        wider = [region for region in (where.asn, where.country, _EVERYWHERE) if region is not None]
        regions = [self._fleet.at(name) for name in where.sites]
        regions += [self._lists.get(region, ()) for region in wider]
        for members in regions:
            start = ask.content.mix % len(members) if members else 0
            for member in members[start:] + members[:start]:
                if self._is_able(member) and (ask.family is None or member.has_address(ask.family)):
                    found.setdefault(member.entry.id, member)
        return _two_sites(list(found.values()), self._rules.options)

    def _is_able(self, member: Member) -> bool:
        """Whether it takes new players. Lists are of a while ago: who left the inventory since then does not."""
        return (
            member.standing in TAKES_NEW
            and member.utilisation < self._rules.hard_limit
            and self._fleet.members.get(member.entry.id) is member
        )

    def _may_stay(self, member: Member, where: Whereabouts) -> bool:
        if not member.keeps_old or member.utilisation >= self._rules.leave_limit:
            return False
        site = self._fleet.inventory.sites[member.entry.site]
        if site.serves is Serves.EVERYONE or site.id in where.sites:
            return True
        return site.serves is Serves.NETWORK and where.asn in self._fleet.inventory.operator_of(site.id).asns


def _by_load(member: Member) -> tuple[float, str]:
    return member.utilisation, member.entry.id


def _by_name(member: Member) -> str:
    return member.entry.id


def _two_sites(members: list[Member], count: int) -> list[Member]:
    """The first few of them; the last gives way to one of another site if all are of one."""
    best = members[:count]
    if count > 1 and len({member.entry.site for member in best}) == 1:
        other = next((member for member in members[count:] if member.entry.site != best[0].entry.site), None)
        if other is not None:
            best[-1] = other
    return best


def _network(client: bytes) -> int:
    """A number of the client's network: /24 or /48."""
    return mixed(int.from_bytes(client[:3] if len(client) == 4 else client[:6], "big"))


# --- The log: one line for each decision, with all that is needed to make it again ---


class Logged(Struct, frozen=True, kw_only=True, gc=False):
    """A decision as a line of JSON. Of the client only its network is kept."""

    id: str
    at: float
    way: Way
    fallback: Fallback
    reason: Reason
    chosen: tuple[str, ...]
    content: str
    network: str | None
    asn: int | None
    country: str | None
    seed: int
    rules: Rules
    question: Question
    candidates: tuple[Candidate, ...]


def logged(decision: Decision, rules: Rules, seed: int) -> Logged:
    ranking = decision.ranking
    rows: tuple[Candidate, ...] = ()
    if ranking is not None:
        rows = tuple(row.candidate for row in ranking.ranked) + tuple(candidate for candidate, _ in ranking.rejected)
    return Logged(
        id=decision.id,
        at=decision.at,
        way=decision.way,
        fallback=decision.fallback,
        reason=decision.reason,
        chosen=tuple(target.id for target in decision.targets),
        content=decision.content.name,
        network=decision.where.network,
        asn=decision.where.asn,
        country=decision.where.country,
        seed=seed,
        rules=rules,
        question=decision.question,
        candidates=rows,
    )


def again(line: Logged) -> tuple[Reason, tuple[Ranked, ...]]:
    """The ranking of a logged decision, made anew: its reason, and who is chosen. Of what was answered from a list
    (`REGION`, `STATIC`) it says who would have been ranked.
    """
    ranking = rank(line.question, line.candidates, line.rules, line.seed)
    return ranking.reason, chosen(line.question, ranking, line.rules, line.seed)


def proximity_of(decision: Decision) -> Proximity | None:
    """The class of the first appliance; None if none was ranked."""
    ranking = decision.ranking
    return ranking.ranked[0].candidate.proximity if ranking is not None and ranking.ranked else None
