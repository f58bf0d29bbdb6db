"""What is believed of every appliance now: its standing, its load, what it holds. Not a promise, a view.

Fed by heartbeats (`hear`), holdings (`learn`), our own answers (`assign`), changes of the inventory (`take`) and the
passing of time (`tick`); read by the ranking (`candidates`). Everything is decided at once, nothing here waits; `now`
is the time of steering's own clock. What an appliance says is believed within bounds: of its identity the caller has
made sure, its clock is only compared, its capacity is capped, and one that claims to be idle while players are sent
there carries a part of what was sent.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator
from enum import StrEnum
from typing import Final

from msgspec import Struct
from pyroaring import BitMap

from steering.errors import Unrecognised
from steering.inventory import Appliance, Inventory, Wish
from steering.names import mixed, mixed_name
from steering.ranking import Bar, Candidate, refuge
from steering.standing import KEEPS_OLD, TAKES_NEW, Patience, Signal, Standing, after, is_panic, ramp
from steering.topology.distance import Proximity
from wire.heartbeat import Heartbeat, HeartbeatAnswer
from wire.holdings import Holdings

_GUESSED_BPS: Final = 10_000_000_000
"""Capacity of an appliance of which neither inventory nor network cards say any."""
_MOST_BPS: Final = 1_000_000_000_000
"""What network cards may claim where the inventory sets no bound: more than any one box sends."""
_GUESSED_HIT_RATIO: Final = 0.5
_STAY: Final = 1200.0
"""Seconds that a player stays, as a time constant: what was assigned fades so fast."""
_SURELY_THERE: Final = 0.25
"""Of what was assigned and has not faded yet, so much is taken to be there whatever the appliance claims."""
_ARRIVE: Final = 7.2
"""Seconds, as a time constant, until what was assigned shows in heartbeats: a player goes there with its next segment,
and what leaves by the network cards is told as the mean of five seconds. Half is left after one heartbeat."""
_MOST_LEAVE: Final = 0.25
"""Of what an appliance reported, so much may count as sent away before it says so itself: what a player tells of its
place and speed is not proved."""
_BRIM: Final = 0.98
"""Reported utilisation from which nobody knows how much more is asked for: a full line says "full", be it asked for its
whole or for three times that. Who was sent away then counts only once the appliance reports less."""
_CALM: Final = 15.0
"""Seconds over which processors count, as a time constant: they are busy for a moment with a scrub or a restart, and
nobody's film waits for that."""
_BUSIEST: Final = 0.85
"""Busy processors make an appliance dear, and never full: others may use them, and what they hold up shows in what is
sent and who is connected."""
_SOONER: Final = 0.75
"""Whether too many are silent at once is asked so much sooner than each of them is doubted: heartbeats come spread
over five seconds, and the first to be missed would be doubted before the others are."""
_CLOCK_TOLERANCE: Final = 5.0
_MOST_REFUGES: Final = 8
"""Sites among which the players of one that is gone are spread."""
_NO_ROOM: Final = 1e-6
"""Gbit/s: sums to which was added what was taken off again."""
FULLEST: Final = 0.95
"""How full the rest of a site may become when some of it goes: above that, steering moves players away."""
_MOST_RENDITIONS: Final = 32
"""Of a title, looked up in holdings for one decision."""


class Why(StrEnum):
    """What changed a standing, for log and metrics."""

    HEARTBEAT = "heartbeat"
    SILENCE = "silence"
    ORDER = "order"
    MAINTENANCE = "maintenance"
    SNAPSHOT = "snapshot"


class Turn(Struct, frozen=True):
    """A change of standing."""

    appliance: str
    before: Standing
    after: Standing
    why: Why
    detail: str


class Content(Struct, frozen=True, gc=False):
    """What is asked for. `mix` is of the title; `renditions` are those that the player may read, by number."""

    name: str
    mix: int
    renditions: tuple[int, ...] = ()


class MemberState(Struct, frozen=True, kw_only=True):
    """One appliance in a snapshot."""

    appliance: str
    standing: Standing
    since: float
    utilisation: float
    capacity_bps: int
    hit_ratio: float | None


class Member:
    """One appliance."""

    __slots__ = (
        "assigned_bps",
        "boot_before",
        "capacity_bps",
        "clock_offset",
        "cpu",
        "entry",
        "expected_at",
        "expected_bps",
        "heard_at",
        "heartbeat",
        "hit_ratio",
        "hits_here",
        "holdings",
        "holdings_boot",
        "holdings_version",
        "is_barred",
        "is_live",
        "mix",
        "prefixes_version",
        "put_off",
        "reported",
        "resting",
        "since",
        "standing",
        "steady",
        "utilisation",
        "weight",
    )

    def __init__(self, entry: Appliance, mix: int, now: float) -> None:
        self.entry = entry
        self.mix = mix
        self.standing = Standing.DISABLED if entry.wish is Wish.DISABLE else Standing.LOST
        self.since = now
        self.heard_at: float | None = None
        self.is_live = False
        """Heard since this process started; else what is known is from a snapshot."""
        self.boot_before = ""
        self.heartbeat: Heartbeat | None = None
        self.steady = 0
        self.capacity_bps = _capacity(entry, None)
        self.reported = 0.0
        self.utilisation = 0.0
        self.cpu = 0.0
        """Of its processors, smoothed."""
        self.hit_ratio: float | None = None
        self.hits_here = _GUESSED_HIT_RATIO
        """The mean of its site: which of the siblings has what is not known to be held is anybody's guess, and a guess
        that differed between them would move contents from one to the other and back."""
        self.weight = 0.0
        self.assigned_bps = 0.0
        """Of late, and not in heartbeats yet. Below zero: more were sent away."""
        self.expected_bps = 0.0
        """Of all that was assigned, what has not faded."""
        self.expected_at = now
        self.clock_offset = 0.0
        self.holdings = BitMap()
        self.holdings_boot = ""
        self.holdings_version = 0
        self.prefixes_version = 0
        self.is_barred = False
        """It has to pass its turn-up checks before it may have viewers."""
        self.resting = False
        """Drained by a window of maintenance that has begun."""
        self.put_off: float | None = None
        """Of a window that should have begun and has not: how full the rest of the site would be."""

    @property
    def wish(self) -> Wish:
        """What the operator wants of it now."""
        return Wish.DRAIN if self.resting and self.entry.wish is Wish.SERVE else self.entry.wish

    @property
    def bar(self) -> Bar | None:
        """Why it gets no new players, if so."""
        if self.standing in TAKES_NEW:
            return None
        if self.is_barred and self.standing is Standing.JOINING:
            return Bar.UNPROVEN
        return Bar.UNHEARD if self.heard_at is None and self.standing is Standing.LOST else Bar(self.standing.value)

    @property
    def keeps_old(self) -> bool:
        """Whether players that are there may stay."""
        return self.standing in KEEPS_OLD and not self.is_barred

    @property
    def is_clock_off(self) -> bool:
        return abs(self.clock_offset) > _CLOCK_TOLERANCE

    def candidate(
        self, proximity: Proximity, rtt: float, wanted: BitMap | None, current: str | None, family: int | None
    ) -> Candidate:
        """The row that the ranking sees. `wanted`: numbers of renditions, one at least; None if none are known."""
        standing = self.standing
        entry = self.entry
        name = entry.id
        bar = None
        if standing is not Standing.SERVING and not (name == current and self.keeps_old):
            bar = self.bar
        elif family is not None and not self.has_address(family):
            bar = Bar.NO_ADDRESS
        held = 0.0
        if wanted is not None:
            held = self.holdings.intersection_cardinality(wanted) / len(wanted)
        return Candidate(
            name,
            entry.site,
            proximity,
            rtt,
            self.utilisation,
            self.weight,
            self.hits_here,
            held,
            self.mix,
            bar,
        )

    def has_address(self, family: int) -> bool:
        """Whether DNS can name it: `family` is 4 or 6."""
        return bool(self.entry.ipv4 if family == 4 else self.entry.ipv6)

    def carries(self) -> None:
        """Work out the utilisation anew."""
        floor = self.expected_bps * _SURELY_THERE / self.capacity_bps
        self.utilisation = max(self.reported + self.assigned_bps / self.capacity_bps, floor)


def fullness_without(
    members: Iterable[Member], leaving: Container[str], load: float | None = None, back: Container[str] = ()
) -> float:
    """How full those of a site would be who serve on when others go: their share of its load, in bits a second, which
    is that of now unless it is given. `back`: who rests now and will serve then. Infinite if nobody would be left; 0.0
    if nothing would change.
    """
    carried = going = left = 0.0
    for member in members:
        carried += member.utilisation * member.capacity_bps
        if member.standing is Standing.SERVING or member.entry.id in back:
            if member.entry.id in leaving:
                going += member.capacity_bps
            else:
                left += member.capacity_bps
    load = carried if load is None else load
    if not going or not load:
        return 0.0
    return load / left if left else math.inf


class _Room:
    """What those of a site that serve carry, and could carry yet below `limit` of their load, in Gbit/s. Worked out
    once: a decision looks at several sites, and their members are far apart in memory.
    """

    __slots__ = ("carried", "is_open", "limit", "room")

    def __init__(self, members: Iterable[Member], limit: float, family: int | None = None) -> None:
        self.limit = limit
        self.room = self.carried = 0.0
        self.is_open = False
        for member in members:
            if member.standing is Standing.SERVING and (family is None or member.has_address(family)):
                self.is_open = True
                self.count(member, 1.0)

    def count(self, member: Member, sign: float) -> None:
        utilisation, weight = member.utilisation, member.weight * sign
        self.carried += utilisation * weight
        if utilisation < self.limit:
            self.room += (self.limit - utilisation) * weight


class Fleet:
    """All appliances."""

    def __init__(self, patience: Patience, seed: int, *, proof_required: bool = False) -> None:
        """`proof_required`: who has never passed its turn-up checks is heard, and joins for as long as that is so."""
        self._patience = patience
        self._proof_required = proof_required
        self._seed = seed
        self.inventory = Inventory()
        self.members: dict[str, Member] = {}
        self._of_site: dict[str, tuple[Member, ...]] = {}
        self._site_mixes: dict[str, int] = {}
        self._planned: tuple[Member, ...] = ()
        """Those with windows of maintenance."""
        self._rooms: dict[str, _Room] = {}
        """Of sites of which nothing was heard since, and whose members changed by what was assigned only."""
        self.panic_since: float | None = None
        """Since when silence is not believed, because too much of the fleet is silent at once."""
        self._heard_again_at = -math.inf
        """When the last panic ended. Who has not spoken since then has the usual time to."""

    def take(self, inventory: Inventory, now: float) -> list[Turn]:
        """Go by this inventory from now on. What is known of appliances that stay is kept."""
        self.inventory = inventory
        turns = []
        members: dict[str, Member] = {}
        of_site: dict[str, list[Member]] = {name: [] for name in inventory.sites}
        for name, entry in inventory.appliances.items():
            member = self.members.get(name)
            is_barred = self._proof_required and not entry.is_proven
            # Removed and declared anew in one change: another box under an old name begins as one.
            if member is None or (is_barred and not member.is_barred):
                member = Member(entry, mixed(mixed_name(name) ^ self._seed), now)
            elif member.entry is not entry:
                is_order = member.entry.wish is not entry.wish
                is_back = is_order and entry.wish is Wish.SERVE
                member.entry = entry
                if member.heartbeat is not None:
                    member.capacity_bps = _capacity(entry, member.heartbeat)
                    member.reported = _utilisation(member.heartbeat, member)
                if is_order:
                    turns += self._turn(member, self._signal(member, now, is_back=is_back), Why.ORDER, entry.wish, now)
                member.carries()
                self._weigh(member, now)
            member.is_barred = is_barred
            members[name] = member
            of_site[entry.site].append(member)
        self.members = members
        self._planned = tuple(
            member for member in members.values() if member.entry.maintenance or member.resting or member.put_off
        )
        self._of_site = {name: tuple(inside) for name, inside in of_site.items()}
        self._site_mixes = {name: mixed(mixed_name(name) ^ self._seed) for name in of_site}
        self._rooms.clear()
        return turns

    def at(self, site: str) -> tuple[Member, ...]:
        """The appliances of a site; none if there is no such site any more."""
        return self._of_site.get(site, ())

    def hear(self, heartbeat: Heartbeat, now: float) -> tuple[HeartbeatAnswer, list[Turn]]:
        """An appliance spoke; that it is the one it names was made sure. Raises `Unrecognised` for one that the
        inventory does not know. An old or repeated heartbeat changes nothing.
        """
        member = self.members.get(heartbeat.appliance)
        if member is None:
            raise Unrecognised(f"the inventory knows no appliance {heartbeat.appliance!r}")
        known = member.heartbeat
        if known is not None and known.boot == heartbeat.boot and heartbeat.sequence <= known.sequence:
            return self._answer(member), []
        is_late = member.heard_at is not None and now - member.heard_at > self._patience.quiet_after
        if known is not None and known.boot != heartbeat.boot:
            # Under way while the appliance started anew. But should that one fall silent, any word is welcome.
            if heartbeat.boot == member.boot_before and not is_late:
                return self._answer(member), []
            member.boot_before = known.boot
        self._fade(member, heartbeat, now)
        member.heartbeat = heartbeat
        member.heard_at = now
        member.is_live = True
        member.clock_offset = heartbeat.sent_at - now
        member.capacity_bps = _capacity(member.entry, heartbeat)
        member.reported = _utilisation(heartbeat, member)
        if heartbeat.hit_ratio is not None:
            member.hit_ratio = heartbeat.hit_ratio
            self._guess_hits(member.entry.site)
        member.carries()
        is_well = heartbeat.ready and heartbeat.health >= self._patience.least_health
        member.steady = 0 if not is_well else 1 if is_late else member.steady + 1
        turns = self._turn(member, self._signal(member, now), Why.HEARTBEAT, _told(heartbeat), now)
        self._weigh(member, now)
        return self._answer(member), turns

    def learn(self, holdings: Holdings) -> None:
        """An appliance said what it holds. Raises `Unrecognised` for an unknown appliance and for what is no bitmap."""
        member = self.members.get(holdings.appliance)
        if member is None:
            raise Unrecognised(f"the inventory knows no appliance {holdings.appliance!r}")
        if holdings.boot == member.holdings_boot and holdings.version < member.holdings_version:
            return
        member.holdings = read_bitmap(holdings.bitmap)
        member.holdings_boot = holdings.boot
        member.holdings_version = holdings.version

    def learned_prefixes(self, appliance: str, version: int) -> None:
        """Its announced prefixes of this version are in the tables."""
        self.members[appliance].prefixes_version = version

    def assign(self, appliance: str, bps: float) -> None:
        """A player was sent there, who will read so much; or was sent away, below zero. Counted until the appliance
        itself reports it.
        """
        member = self.members.get(appliance)
        if member is not None:
            least = -_MOST_LEAVE * member.reported * member.capacity_bps if member.reported < _BRIM else 0.0
            member.assigned_bps = max(member.assigned_bps + bps, min(member.assigned_bps, least))
            member.expected_bps = max(0.0, member.expected_bps + bps)
            room = self._rooms.get(member.entry.site) if member.standing is Standing.SERVING else None
            if room is None:
                member.carries()
                return
            room.count(member, -1.0)
            member.carries()
            room.count(member, 1.0)

    def tick(self, now: float) -> list[Turn]:
        """Once a second: maintenance begins and ends, silence is noticed, and slow starts proceed."""
        return [*self._rests(now), *self._silences(now)]

    def loads(self) -> dict[str, float]:
        """What each site carries now, in bits a second."""
        return {
            site: sum(member.utilisation * member.capacity_bps for member in inside)
            for site, inside in self._of_site.items()
        }

    def _rests(self, now: float) -> list[Turn]:
        turns = []
        for member in self._planned:
            due = [window for window in member.entry.maintenance if window.start <= now < window.stop]
            if due and not member.resting:
                full = fullness_without(self.at(member.entry.site), {member.entry.id})
                if full > FULLEST and not any(window.forced for window in due):
                    member.put_off = full
                    continue
            if member.resting == bool(due):
                if not due:
                    member.put_off = None
                continue
            member.resting, member.put_off = bool(due), None
            detail = "it begins" if due else "it is over"
            signal = self._signal(member, now, is_back=not due)
            turns += self._turn(member, signal, Why.MAINTENANCE, detail, now)
        return turns

    def _silences(self, now: float) -> list[Turn]:
        patience = self._patience
        since = self._heard_again_at
        overdue = []
        quiet = counted = 0
        sites: set[str] = set()
        for member in self.members.values():
            heard_at = member.heard_at
            if heard_at is None:
                continue
            standing = member.standing
            # Those that were well when last heard: who was lost long ago says nothing about now.
            may_be_us = standing in KEEPS_OLD
            counted += may_be_us
            silence = now - heard_at
            if may_be_us and silence > patience.quiet_after * _SOONER:
                quiet += 1
                sites.add(member.entry.site)
            if silence > patience.quiet_after and (may_be_us or standing is Standing.DRAINING):
                overdue.append((member, max(heard_at, since)))
            if standing is Standing.SERVING and now - member.since <= patience.ramp + 1.0:
                self._weigh(member, now)
        if is_panic(quiet, len(sites), counted, patience):
            if self.panic_since is None:
                self.panic_since = now
            if now - self.panic_since < patience.panic_longest:
                return []
        elif self.panic_since is not None:
            self.panic_since = None
            # Of the many that are back, some have not had their turn to speak yet.
            self._heard_again_at = now
            return []
        turns = []
        for member, heard_at in overdue:
            silence = now - heard_at
            if silence <= patience.quiet_after:
                continue
            signal = Signal.SILENT if silence > patience.silent_after else Signal.QUIET
            turns += self._turn(member, signal, Why.SILENCE, f"not heard for {silence:.0f} s", now)
        return turns

    def candidates(
        self,
        near: Iterable[tuple[str, Proximity, float]],
        content: Content,
        current: str | None,
        enough: int,
        limit: float,
        within: float = 0.0,
        family: int | None = None,
        guests: float = math.inf,
        refuge: str | None = None,
    ) -> list[Candidate]:
        """Rows for the ranking: of the sites in `near` (site, kind, rtt), the nearest first, until `enough` appliances
        at two sites or more can take the player, which are those below `limit` of their load, and below `guests` where
        a nearer class has appliances at work. Of the class where that happens, all sites that are as near as the
        nearest one, give or take `within` milliseconds, and twice as many appliances. `current`'s site and the refuge
        are always there if they are in `near`.
        """
        rows: list[Candidate] = []
        able = 0
        sites = 0
        wanted = BitMap(content.renditions[:_MOST_RENDITIONS]) if content.renditions else None
        of_site = self._of_site
        here = self.members.get(current) if current is not None else None
        sought = {refuge, here.entry.site if here is not None else None} - {None}
        last = None
        edge = 0.0
        is_enough = is_guest = False
        for site, proximity, rtt in near:
            if proximity is not last:
                if is_guest:
                    limit = min(limit, guests)
                is_enough = is_enough or (able >= enough and sites >= 2)
                last = proximity
                edge = math.inf
            elif able >= 2 * enough and sites >= 2 and rtt > edge:
                is_enough = True
            if site in sought:
                sought.remove(site)
            elif is_enough:
                if not sought:
                    break
                continue
            before = able
            for member in of_site.get(site, ()):
                row = member.candidate(proximity, rtt, wanted, current, family)
                rows.append(row)
                is_guest = is_guest or row.bar is None
                able += row.bar is None and row.utilisation < limit
            if able > before:
                sites += 1
                edge = min(edge, rtt + within)
        return rows

    def refuge(
        self,
        near: Iterable[tuple[str, Proximity, float]],
        client: int,
        current: str | None,
        limit: float,
        family: int | None = None,
    ) -> str | None:
        """Where a player should go if the site that serves it were gone, which is that of `current` or the nearest that
        is at work: drawn for the client's network, among as many of the other sites in `near`, the nearest first, as it
        takes to carry all that this one does. Room is what they carry less than `limit` of their load. None if nobody
        has any.
        """
        here = self.members.get(current) if current is not None else None
        home = here.entry.site if here is not None else None
        needed = 0.0
        if home is not None:
            needed = sum([member.utilisation * member.weight for member in self.at(home)])
        rooms: list[tuple[str, int, float]] = []
        for site, _, _ in near:
            if site == home:
                continue
            there = self._rooms.get(site) if family is None else None
            if there is None or there.limit != limit:
                there = _Room(self._of_site.get(site, ()), limit, family)
                if family is None:
                    self._rooms[site] = there
            if home is None:
                if there.is_open:
                    home = site
                    needed = there.carried
                continue
            room = there.room
            if room > _NO_ROOM:
                # Of the last one only as much as the nearer ones leave.
                rooms.append((site, self._site_mixes[site], min(room, needed) if needed > 0 else room))
                needed -= room
                if needed <= 0 or len(rooms) == _MOST_REFUGES:
                    break
        return refuge(client, rooms)

    def failed_turn_ups(self) -> int:
        """Appliances that shall serve and did not pass their last turn-up checks."""
        return sum(
            member.entry.proof is not None and not member.entry.proof.passed and member.wish is Wish.SERVE
            for member in self.members.values()
        )

    def overdue_turn_ups(self, before: float) -> int:
        """Appliances that shall serve, passed their turn-up checks once, and were not checked since that moment."""
        return sum(
            member.entry.is_proven
            and member.entry.proof is not None
            and member.entry.proof.at < before
            and member.wish is Wish.SERVE
            for member in self.members.values()
        )

    def by_standing(self) -> dict[Standing, int]:
        counts = dict.fromkeys(Standing, 0)
        for member in self.members.values():
            counts[member.standing] += 1
        return counts

    # --- Snapshots ---

    def states(self) -> Iterator[MemberState]:
        """What a restarted steering needs to know at once. Not the holdings, which appliances send again in seconds."""
        for name, member in self.members.items():
            if member.heard_at is None:
                continue
            yield MemberState(
                appliance=name,
                standing=member.standing,
                since=member.since,
                utilisation=member.utilisation,
                capacity_bps=member.capacity_bps,
                hit_ratio=member.hit_ratio,
            )

    def restore(self, states: Iterable[MemberState], now: float) -> int:
        """Believe a snapshot until heartbeats say better: each appliance has the usual time to speak. How many."""
        known = 0
        for state in states:
            member = self.members.get(state.appliance)
            if member is None or member.is_live:
                continue
            known += 1
            # Who rests already is not looked at anew: its site carries the load without it.
            rests = state.standing in {Standing.DRAINING, Standing.DRAINED}
            member.resting = rests and any(one.start <= now < one.stop for one in member.entry.maintenance)
            member.standing = _restored(state.standing, member.wish)
            if member.is_barred and member.standing in TAKES_NEW:
                member.standing = Standing.JOINING
            member.since = min(state.since, now)
            member.heard_at = now
            member.reported = min(max(state.utilisation, 0.0), 1.0)
            member.capacity_bps = min(max(1, state.capacity_bps), int(member.entry.capacity or _MOST_BPS))
            member.hit_ratio = state.hit_ratio
            member.carries()
            self._weigh(member, now)
        for site in self._of_site:
            self._guess_hits(site)
        return known

    # --- What changes one member ---

    def _turn(self, member: Member, signal: Signal | None, why: Why, detail: str, now: float) -> list[Turn]:
        if signal is None:
            return []
        before = member.standing
        standing = after(before, signal)
        if standing is before:
            return []
        self._rooms.pop(member.entry.site, None)
        member.standing = standing
        member.since = now
        if standing is Standing.JOINING:
            # Also after an order or a suspicion: trust is earned by heartbeats that follow.
            member.steady = min(member.steady, 1)
        return [Turn(member.entry.id, before, standing, why, detail)]

    def _weigh(self, member: Member, now: float) -> None:
        self._rooms.pop(member.entry.site, None)
        share = ramp(now - member.since, self._patience) if member.standing is Standing.SERVING else 1.0
        member.weight = member.capacity_bps / 1e9 * share

    def _guess_hits(self, site: str) -> None:
        inside = self._of_site[site]
        told = [member.hit_ratio for member in inside if member.hit_ratio is not None]
        if told:
            mean = sum(told) / len(told)
            for member in inside:
                member.hits_here = mean

    def _fade(self, member: Member, heartbeat: Heartbeat, now: float) -> None:
        """What was assigned shows by now, or is gone; what its processors do counts a little more."""
        passed = max(0.0, now - member.expected_at)
        member.expected_at = now
        member.expected_bps *= math.exp(-passed / _STAY)
        member.assigned_bps *= math.exp(-passed / _ARRIVE)
        if member.heartbeat is None:
            member.cpu = heartbeat.cpu
        else:
            member.cpu += (heartbeat.cpu - member.cpu) * (1.0 - math.exp(-passed / _CALM))

    def _signal(self, member: Member, now: float, *, is_back: bool = False) -> Signal | None:
        """The weightiest word about this appliance. None if there is none. `is_back`: an order to rest is over."""
        wish = member.wish
        if wish is Wish.DISABLE:
            return Signal.BANNED
        heartbeat = member.heartbeat
        patience = self._patience
        if heartbeat is None or member.heard_at is None:
            if is_back and member.standing is Standing.DRAINED and wish is Wish.SERVE:
                return Signal.MISSED
            return Signal.SILENT if member.standing is Standing.DISABLED else None
        if now - member.heard_at > patience.silent_after and self.panic_since is None:
            return Signal.MISSED if is_back and wish is Wish.SERVE else Signal.SILENT
        if wish is Wish.DRAIN or heartbeat.draining:
            return Signal.EMPTY if heartbeat.connections == 0 else Signal.LEAVING
        if not heartbeat.ready or heartbeat.health < patience.least_health:
            return Signal.UNWELL
        return Signal.STEADY if member.steady >= patience.rise and not member.is_barred else Signal.WELL

    def _answer(self, member: Member) -> HeartbeatAnswer:
        heartbeat = member.heartbeat
        assert heartbeat is not None
        return HeartbeatAnswer(
            drain=member.wish is not Wish.SERVE,
            wants_holdings=(member.holdings_boot, member.holdings_version)
            != (heartbeat.boot, heartbeat.holdings_version)
            and heartbeat.holdings_version > 0,
            # Equal sets have equal versions, also after a restart of the appliance; 0 says that it knows none yet.
            wants_prefixes=heartbeat.prefixes_version not in {0, member.prefixes_version},
            interval=self._patience.interval,
        )


def read_bitmap(packed: bytes) -> BitMap:
    """Raises `Unrecognised` for what is no roaring bitmap."""
    try:
        return BitMap.deserialize(packed) if packed else BitMap()
    except (ValueError, RuntimeError, MemoryError) as error:
        raise Unrecognised(f"holdings are no roaring bitmap: {error}") from error


def _restored(standing: Standing, wish: Wish) -> Standing:
    """What a snapshot says, if nothing else was ordered since."""
    if wish is Wish.DISABLE:
        return Standing.DISABLED
    if standing is Standing.DISABLED:
        return Standing.LOST
    if wish is Wish.DRAIN and standing in KEEPS_OLD:
        return Standing.DRAINING
    return standing


def _capacity(entry: Appliance, heartbeat: Heartbeat | None) -> int:
    """Bits a second. What the network cards say counts up to what the inventory allows."""
    said = min(heartbeat.link_bps, _MOST_BPS) if heartbeat is not None else 0
    if entry.capacity:
        return min(int(entry.capacity), said) if said else int(entry.capacity)
    return said or _GUESSED_BPS


def _utilisation(heartbeat: Heartbeat, member: Member) -> float:
    """Of what is scarcest: network, connections, processors."""
    network = heartbeat.egress_bps / member.capacity_bps
    connections = heartbeat.connections / heartbeat.max_connections if heartbeat.max_connections else 0.0
    return max(network, connections, min(member.cpu, _BUSIEST))


def _told(heartbeat: Heartbeat) -> str:
    if heartbeat.reasons:
        return "; ".join(heartbeat.reasons)[:200]
    if heartbeat.draining:
        return "it drains"
    return "it is ready" if heartbeat.ready else "it is not ready"


def content_of(name: str, renditions: tuple[int, ...] = ()) -> Content:
    """Content by the name of what stays together: the title, or the path where no title is known."""
    return Content(name, mixed_name(name), renditions)
