"""Which extents are kept, where, and which go: the cache policy over all shelves of an appliance.

Every extent has a heat: how often it was read, lately counting more, and a part of the heat of its rendition (heat.py,
renditions.py). What goes is the coldest of those looked at lately (shortlist.py). What goes is remembered with its heat
(ghosts.py), so that one that returns is known. How fast readings fade is tried out all the time (trials.py): within
minutes where the traffic is driven by recency, and the order is then that of LRU; in days where it is driven by
popularity, and the order is then that of LFU.

Flash is written only for what is hotter than what it would replace, by a margin that narrows while little is written.
What is not waits in memory, on a box that has no slow disks, and is lost if nobody asks again; on a box with slow disks
everything new goes there, and flash gets what has become hot enough. Where readings fade within minutes everything new
is written: probation is then on flash, and as large as it need be. Only the budget of a device limits that, and what is
seen of the titles: a newcomer of a rendition that the viewers of its title seldom take (visits.py) waits in memory, or
is not kept where there is none, as long as such are read again less often than others (reuse.py).

The store asks (`admit`, `victims`, `next_move`) and tells what it did (`place`, `move`, `forget`).
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from enum import IntEnum, StrEnum
from typing import Final

import msgspec

from oca.cache import ghosts
from oca.cache.budget import WriteBudget
from oca.cache.columns import AWAITED, LISTED, NOBODY, PAGE_BYTES, Columns, Standing, pages
from oca.cache.ghosts import AGE_UNIT, Ghosts
from oca.cache.heat import DOUBLING, steps_a_second, together, warmed
from oca.cache.queues import Line
from oca.cache.renditions import Renditions
from oca.cache.reuse import Reuse
from oca.cache.shortlist import Shortlist
from oca.cache.trials import HALF_LIVES, SHORT, Trials
from oca.cache.visits import Visits

_LEAST_MARGIN: Final = DOUBLING // 4
_MOST_MARGIN: Final = DOUBLING * 5 // 4
"""Between these lies how many steps a newcomer must be hotter than what it replaces on flash."""
_WRITTEN: Final = 5
"""The margin narrows while fewer than one in six newcomers are written, and widens while more are."""
_PAGES_A_SECOND: Final = 128
"""4 Mb/s: requests within the time that a viewer takes to read an extent are this viewer's, and count once."""
_RISES_AT: Final = 463
"""Heat of three and a half readings: its first, which was a miss, and three more, none of them long after another. Read
less often, an extent on a slow disk stays there: moving costs the disk a reading, and flash a writing."""
_RISES_WITHIN: Final = 12 * 3600
_NEARLY_FULL: Final = 0.98
_MOVES: Final = 64
"""Moves proposed and not answered yet, at most."""
_LOOKS: Final = 2
"""Slots looked at for each that goes."""
_MOST_LOOKS: Final = 64
"""Looks beyond these, while none is as cold as the last that went, or nearly: one more for each that goes, saved up to
so many. Byte misses fell by half a percent to two."""
_NOTABLY: Final = DOUBLING // 4
_SWEEP: Final = 16
"""Looks that are saved up, to be had in one go: the first of a sweep costs as much as the next four."""
_MORE: Final = 8
"""As many at a time of those beyond."""
_ASKS: Final = 4
"""Questions between two times that the coldest is looked at anew."""
_ASKS_A_SWEEP: Final = 16
"""Questions between two sweeps for what a newcomer would replace: looking costs as much as all else of a question."""
_SINKS: Final = 4
"""Questions between two looks for what could go down."""
_NONE: Final[AbstractSet[int]] = frozenset()
_NEVER: Final = 1 << 20
_HOUR: Final = 3600
_BERTHS: Final = 255
_LOW: Final = 0xFFFFFFFF


class Level(IntEnum):
    """From the fastest to the slowest."""

    MEMORY = 0
    NVME = 1
    SSD = 2
    HDD = 3


class AdmitReason(StrEnum):
    """Why a new extent goes where it goes: a metric label."""

    FREE = "free"
    """There is room."""
    NEWCOMER = "newcomer"
    """Never seen, or too long ago."""
    RETURNED = "returned"
    """It was wanted before."""
    COLD = "cold"
    """Not so hot that flash should be written for it."""
    UNUSUAL = "unusual"
    """Of a rendition that is seldom taken of its title: hardly to be read again, where recency rules."""
    BUDGET = "budget"
    """It belongs on flash, which has been written enough for today."""
    CLOSED = "closed"
    """No device is open for writing."""


class MoveReason(StrEnum):
    READ_AGAIN = "read_again"
    """Out of memory, before it is lost."""
    PROMOTED = "promoted"
    DEMOTED = "demoted"


class Admission(msgspec.Struct, frozen=True, gc=False):
    level: Level | None
    """None: pass it through memory and keep nothing."""
    reason: AdmitReason


class Move(msgspec.Struct, frozen=True, gc=False):
    slot: int
    level: Level
    reason: MoveReason


class _Shelf:
    """One device: who stands there, and how full it is. Copies below count as used, and stand in no line here."""

    __slots__ = (
        "asked",
        "bar",
        "berth",
        "budget",
        "capacity",
        "due",
        "is_memory",
        "is_open",
        "kept",
        "level",
        "looks",
        "number",
        "pledged",
        "rises_at",
        "shortlist",
        "sinks_in",
        "tier",
        "used",
    )

    def __init__(self, columns: Columns, number: int, berth: int, level: Level, tier: _Tier) -> None:
        self.number = number
        self.berth = berth
        """Its number in the columns, which have a byte for it."""
        self.level = level
        self.is_memory = level == Level.MEMORY
        self.tier = tier
        self.capacity = 0
        self.used = 0
        self.is_open = False
        self.budget: WriteBudget | None = None
        self.kept = Line(columns)
        self.pledged = Line(columns)
        self.shortlist = Shortlist()
        self.asked = -1
        """How often what it would give up was asked for: not each question is worth a look."""
        self.bar = 0.0
        """The value of what it would give up for a newcomer, as of the last look."""
        self.due = _SWEEP
        """Looks saved up of those that are had for each that goes."""
        self.looks = _MOST_LOOKS
        self.sinks_in = 0
        """So many questions for what could go down are not worth a look, because the last one was not."""
        self.rises_at = _NEVER
        """The heat at which a slot wants to go to a faster level."""

    def line(self, standing: int) -> Line:
        return self.pledged if standing & Standing.PLEDGED else self.kept

    def may_write(self, now: float) -> bool:
        return self.budget is None or self.budget.allows(now)


class _Tier:
    """The open shelves of a level."""

    __slots__ = (
        "_turn",
        "free",
        "has_returned",
        "is_new",
        "is_room",
        "kept_free",
        "level",
        "plenty",
        "shelves",
        "slack",
    )

    def __init__(self, level: Level, shelves: list[_Shelf]) -> None:
        self.level = level
        self.shelves = shelves
        self.free = sum(shelf.capacity - shelf.used for shelf in shelves)
        """Pages."""
        self.slack = sum(min(2 * _EXTENT_PAGES, shelf.capacity // 64) for shelf in shelves[1:])
        """Room that is left when some shelf may be full: they are filled evenly, but for chance."""
        self.kept_free = self.slack
        """Room that newcomers leave, beside their own."""
        self.plenty = self.slack + max(1, sum(shelf.capacity for shelf in shelves) // 16)
        """More than this need not be free for an extent to be kept without asking for its worth: it comes in blocks."""
        self._turn = 0
        # Made once: to look up a word of an Enum takes as long as all else that an answer takes.
        self.is_room = Admission(level, AdmitReason.FREE)
        self.is_new = Admission(level, AdmitReason.NEWCOMER)
        self.has_returned = Admission(level, AdmitReason.RETURNED)

    def has_room(self, size: int) -> bool:
        return self.free >= size + self.slack or self.free >= self.plenty

    def next_shelf(self) -> _Shelf:
        """One after the other: which one the store takes, it decides itself."""
        self._turn = (self._turn + 1) % len(self.shelves)
        return self.shelves[self._turn]


_EXTENT_PAGES: Final = (64 << 20) // PAGE_BYTES
_KEPT: Final = int(Standing.KEPT)
_KEPT_AND_LISTED: Final = Standing.KEPT | LISTED
_UNLISTED: Final = 0xFF & ~LISTED


class Policy:
    """Sizes are bytes on disk. A `name` is 64 well-mixed bits of an extent's key, a `group` 32 of its rendition's."""

    def __init__(self) -> None:
        self._columns = columns = Columns()
        self._standing = columns.standing
        self._shelf = columns.shelf
        self._below = columns.below
        self._heat = columns.heat
        self._pages = columns.pages
        self._touched = columns.touched
        self._name = columns.name
        self._after = columns.after
        self._group = columns.group
        self._shelves: dict[int, _Shelf] = {}
        self._berths: list[_Shelf] = []
        """By the number that stands in the columns. A berth is given to another shelf when its own is removed."""
        self._closed = _Tier(Level.HDD, [])
        self._tiers: list[_Tier] = []
        """That are open, slowest first; memory is not among them."""
        self._flash: list[_Tier] = []
        """The flash tiers among them, fastest first."""
        self._sinking: list[_Tier] = []
        """The flash tiers that have a slower one below."""
        self._has_memory = False
        self._is_slow = False
        """Whether newcomers go to a slow disk."""
        self._refuse(None)
        self._capacity = 0
        self._ghosts = Ghosts()
        self._renditions = Renditions()
        self._trials = Trials(1.0)
        self._visits = Visits()
        self._reuse = Reuse()
        self._rate = steps_a_second(self._trials.half_life)
        self._is_short = self._trials.half_life <= SHORT
        """Whether readings fade so fast that the last one alone counts. Then the lines are kept in that order, any
        newcomer is hotter than what it replaces, and nothing is compared."""
        self._held = 0
        self._margin = DOUBLING // 2
        self._rising: deque[int] = deque(maxlen=4096)
        self._moving: set[int] = set()
        self._refused: set[int] = set()
        """Slots that could not go down: they are not proposed again and again."""

    # Shelves

    def add_shelf(self, number: int, level: Level, capacity_bytes: int, writes_per_day: float | None = None) -> None:
        """A device comes into use, open. `writes_per_day`: bytes that flash may take; None: as many as come."""
        shelf = self._shelves.get(number)
        if shelf is None:
            shelf = self._berth(number, level)
        shelf.level = level
        shelf.is_memory = level == Level.MEMORY
        shelf.capacity = capacity_bytes // PAGE_BYTES
        shelf.is_open = True
        if writes_per_day is None:
            shelf.budget = None
        elif shelf.budget is None or shelf.budget.bytes_per_day != writes_per_day:
            shelf.budget = WriteBudget(writes_per_day)
        self._look_up()

    def resize_shelf(self, number: int, capacity_bytes: int) -> None:
        self._shelves[number].capacity = capacity_bytes // PAGE_BYTES
        self._look_up()

    def remove_shelf(self, number: int) -> None:
        """All its slots must have been forgotten or moved."""
        shelf = self._shelves.pop(number)
        assert not shelf.used
        for line in (shelf.kept, shelf.pledged):
            for slot in list(line):  # Awaited since a restart, and they never came.
                line.remove(slot)
                self._standing[slot] = Standing.NOWHERE
        shelf.is_open = False
        self._look_up()

    def open_shelf(self, number: int, is_open: bool) -> None:  # noqa: FBT001 - the shelf's state, not a switch
        """Whether anything is written there now."""
        self._shelves[number].is_open = is_open
        self._look_up()

    def _berth(self, number: int, level: Level) -> _Shelf:
        left = (shelf.berth for shelf in self._berths if self._shelves.get(shelf.number) is not shelf)
        berth = next(left, len(self._berths))
        if berth >= _BERTHS:
            raise ValueError(f"there are {_BERTHS} devices already")
        shelf = self._shelves[number] = _Shelf(self._columns, number, berth, level, self._closed)
        self._berths[berth : berth + 1] = [shelf]
        return shelf

    def _look_up(self) -> None:
        """What follows from which shelves are open, and how large they are."""
        tiers = {}
        for shelf in self._shelves.values():
            shelf.tier = self._closed
        for level in Level:
            shelves = [shelf for shelf in self._shelves.values() if shelf.level == level and shelf.is_open]
            if shelves:
                tiers[level] = _Tier(level, shelves)
                for shelf in shelves:
                    shelf.tier = tiers[level]
        self._tiers = [tiers[level] for level in (Level.HDD, Level.SSD, Level.NVME) if level in tiers]
        self._flash = [tiers[level] for level in (Level.NVME, Level.SSD) if level in tiers]
        self._sinking = [tier for tier in self._flash if tier is not self._tiers[0]]
        for tier in self._sinking:
            # This room is made by sending down. Newcomers that took it would have ever more sent down in their place:
            # then half of all that was served was written to flash.
            tier.kept_free += sum(shelf.capacity - int(_NEARLY_FULL * shelf.capacity) for shelf in tier.shelves)
        self._has_memory = Level.MEMORY in tiers
        self._is_slow = Level.HDD in tiers
        self._refuse(Level.MEMORY if self._has_memory else None)
        self._capacity = sum(shelf.capacity for tier in tiers.values() for shelf in tier.shelves)
        for shelf in self._shelves.values():
            faster = [tier for tier in self._flash if tier.level < shelf.level]
            if shelf.level == Level.MEMORY and self._flash:
                shelf.rises_at = 0
            else:
                shelf.rises_at = _RISES_AT if faster else _NEVER

    def _refuse(self, level: Level | None) -> None:
        """Where goes what flash is not written for."""
        self._is_cold = Admission(level, AdmitReason.COLD)
        self._is_unusual = Admission(level, AdmitReason.UNUSUAL)
        self._is_spent = Admission(level, AdmitReason.BUDGET)
        self._is_closed = Admission(level, AdmitReason.CLOSED if level is None else AdmitReason.NEWCOMER)

    # Asked

    def admit(self, name: int, group: int, size_bytes: int, now: float) -> Admission:
        """Somebody wants an extent of about `size_bytes` that is not held: where does it go?"""
        name &= _LOW
        second = int(now)
        rate = self._rate
        self._visits.read(group, second)
        known = self._ghosts.known(name, group)
        if not known:
            heat = 0
            self._renditions.read(group, second, rate, self._held >> 3)
        else:
            heat = ghosts.heat(known)
            age = ghosts.age(known, second)
            if age >= size_bytes // (_PAGES_A_SECOND * PAGE_BYTES * AGE_UNIT) * AGE_UNIT:
                heat = warmed(heat - int(age * rate))
                self._renditions.read(group, second, rate, self._held >> 3)
        if not name & self._trials.mask:
            self._try_out(name, pages(size_bytes), now)
        if not self._tiers:
            return self._is_closed
        if not name & self._reuse.mask:
            self._reuse.come(name, self._visits.is_usual(group), second, self._stay(second))
        wanted = -(-size_bytes // PAGE_BYTES)
        for tier in self._tiers:
            if tier.free >= wanted + tier.kept_free or tier.free >= tier.plenty:
                return tier.is_room
        tier = self._tiers[0]
        admission = tier.has_returned if known else tier.is_new
        if self._is_short and self._reuse.is_doubt_right and not self._visits.is_usual(group):
            return self._is_unusual
        if self._is_slow:
            return admission
        shelf = tier.shelves[0] if len(tier.shelves) == 1 else tier.next_shelf()
        if self._has_memory and not self._is_short:
            bar = self._bar(shelf) + self._margin
            value = second * rate + heat
            if value <= bar and together(value, self._renditions.share_of(group, rate)) <= bar:
                self._margin -= self._margin > _LEAST_MARGIN
                return self._is_cold
        # Without memory probation is on flash: newcomers go first there. The budget says how many there may be.
        if shelf.budget is None or (shelf.budget.allows(now) if known else shelf.budget.is_ample(now)):
            self._margin = min(self._margin + _WRITTEN, _MOST_MARGIN)
            return admission
        if not self._has_memory:
            if not known:
                self._renditions.widen(group, self._held >> 3)
            self._ghosts.remember(name, group, heat, second, second, rate)
        return self._is_spent

    def victims(self, shelf: int, size_bytes: int, pinned: AbstractSet[int], now: float) -> Iterator[int]:
        """Slots to take off `shelf`, in order, until `size_bytes` fit. Each has left it in these books as it is given.

        A slot with a copy below stands there from now on; another is forgotten, and its name remembered. Pinned and
        pledged ones are passed over. The iteration ends early if nothing more can go.
        """
        here = self._shelves[shelf]
        most = here.capacity + -size_bytes // PAGE_BYTES
        if here.used <= most:
            return
        if here.pledged.count:
            self._release(here, now)
        find = self._oldest if here.is_memory or self._is_short else self._coldest
        second = int(now)
        while here.used > most:
            slot = find(here, pinned)
            if slot == NOBODY:
                return
            here.kept.remove(slot)
            self._leave(slot, here, second)
            yield slot

    def next_move(self, now: float) -> Move | None:
        """What should change its level now. Every proposal is answered: by `move`, `forget` or `moved_not`."""
        if len(self._moving) >= _MOVES:
            return None
        while self._rising:
            slot = self._rising.popleft()
            move = self._rise(slot, now)
            if move is not None:
                self._moving.add(slot)
                return move
        # Where recency rules nothing goes down: it would make room above for the next newcomer, all of which would be
        # written twice (0.46 bytes on ssd for each served, at misses 4 % lower).
        for tier in () if self._is_short else self._sinking:
            move = self._sink(tier.next_shelf(), now)
            if move is not None:
                self._moving.add(move.slot)
                return move
        return None

    def used_bytes(self, shelf: int) -> int:
        return self._shelves[shelf].used * PAGE_BYTES

    def free_bytes(self, shelf: int) -> int:
        here = self._shelves[shelf]
        return (here.capacity - here.used) * PAGE_BYTES

    def pledged_bytes(self, shelf: int) -> int:
        """What may not be evicted yet."""
        return self._shelves[shelf].pledged.pages * PAGE_BYTES

    def slots_on(self, shelf: int) -> Iterator[int]:
        """Slots of which something lies there: those that stand there first, then those with a copy below. To be taken
        up before anything changes.
        """
        here = self._shelves[shelf]
        for line in (here.kept, here.pledged):
            yield from (slot for slot in line if self._is_held(slot))
        # In C: half a millisecond for each million slots.
        slot = self._below.find(here.berth + 1)
        while slot >= 0:
            if self._is_held(slot):
                yield slot
            slot = self._below.find(here.berth + 1, slot + 1)

    def shelf_of(self, slot: int) -> int | None:
        return self._berths[self._shelf[slot]].number if self._is_held(slot) else None

    def below_of(self, slot: int) -> int | None:
        return self._berths[self._below[slot] - 1].number if self._is_held(slot) and self._below[slot] else None

    # Told

    def place(
        self, slot: int, name: int, group: int, shelf: int, size_bytes: int, now: float, *, is_written: bool = True
    ) -> None:
        """`slot` holds `size_bytes` more on `shelf`: a newcomer, or one that grew. Room must have been made before.
        Without `is_written` it was there before the start, and is on no day's account.
        """
        here = self._shelves[shelf]
        if slot >= len(self._standing):
            self._columns.reach(slot)
        standing = self._standing[slot]
        more = -(-size_bytes // PAGE_BYTES)
        if not standing:
            self._enter(slot, name & _LOW, group, here, int(now), more)
        elif standing & AWAITED:
            self._return(slot, name & _LOW, group, here, int(now), more)
        else:
            if self._shelf[slot] != here.berth:
                # The store puts growth where the slot stands: it knows better.
                self.move(slot, shelf, now)
            if self._below[slot]:
                # Until the store says that the copy below went, it counts as much as what is copied.
                self._take(self._berths[self._below[slot] - 1], more)
            self._pages[slot] += more
            here.line(standing).pages += more
        here.used += more
        here.tier.free -= more
        if here.budget is not None and is_written:
            here.budget.spend(size_bytes, now)

    def resize(self, slot: int, size_bytes: int) -> None:
        """`slot` holds `size_bytes` in all: what was reserved for a write that failed is free again."""
        if not self._is_held(slot):
            return
        more = pages(size_bytes) - self._pages[slot]
        if self._below[slot]:
            self._take(self._berths[self._below[slot] - 1], more)
        self._add(slot, self._berths[self._shelf[slot]], more)

    def move(
        self,
        slot: int,
        shelf: int,
        now: float,
        keeps_below: bool = False,  # noqa: FBT001, FBT002 - a fact, not a switch
        *,
        is_written: bool = True,
    ) -> None:
        """`slot` stands on `shelf` now. With `keeps_below`, where it stood holds a copy still."""
        self._moving.discard(slot)
        if not self._is_held(slot):
            return
        old = self._berths[self._shelf[slot]]
        new = self._shelves[shelf]
        if old is new:
            return
        size = self._pages[slot]
        self._stand_off(slot, old)
        if self._below[slot] == new.berth + 1 or keeps_below:
            # Its copy below is where it goes: that one is no copy any more. Or only one copy is known of: the newest.
            self.drop_below(slot)
        if keeps_below:
            self._below[slot] = old.berth + 1
        else:
            self._take(old, -size)
        self._take(new, size)
        self._stand(slot, new, self._standing[slot] & ~LISTED)
        if new.budget is not None and is_written:
            new.budget.spend(size * PAGE_BYTES, now)

    def moved_not(self, slot: int) -> None:
        """A move that was proposed did not come about. It may be proposed again when the slot is read again."""
        self._moving.discard(slot)
        if len(self._refused) >= _MOVES:
            self._refused.clear()
        self._refused.add(slot)

    def drop_below(self, slot: int) -> None:
        """The copy below went."""
        if self._is_held(slot) and self._below[slot]:
            self._take(self._berths[self._below[slot] - 1], -self._pages[slot])
            self._below[slot] = 0

    def forget(self, slot: int) -> None:
        """`slot` is gone, with all its copies."""
        self._moving.discard(slot)
        if self._is_held(slot):
            self.drop_below(slot)
            here = self._berths[self._shelf[slot]]
            self._stand_off(slot, here)
            self._take(here, -self._pages[slot])
            self._standing[slot] = 0
            self._held -= 1

    def touch(self, slot: int, now: float) -> None:
        """`slot` was read. Unknown slots are ignored: the report of a worker may be a second old."""
        if slot >= len(self._standing) or not self._standing[slot]:
            return
        second = int(now)
        since = second - self._touched[slot]
        if 0 <= since < self._pages[slot] // _PAGES_A_SECOND:
            return
        rate = self._rate
        self._touched[slot] = second
        self._heat[slot] = heat = warmed(self._heat[slot] - int(since * rate))
        group = self._group[slot]
        self._renditions.read(group, second, rate, self._held >> 3)
        self._visits.read(group, second)
        name = self._name[slot]
        if not name & self._trials.mask:
            self._try_out(name, self._pages[slot], now)
        if not name & self._reuse.mask:
            self._reuse.read(name)
        here = self._berths[self._shelf[slot]]
        if heat >= here.rises_at and since < _RISES_WITHIN:
            self._rising.append(slot)
        if self._is_short and self._standing[slot] & _UNLISTED == _KEPT and not here.is_memory:
            # Then the line is in the order of the last reading, and its head is who goes next, without a search.
            here.kept.remove(slot)
            here.kept.push(slot)

    def pledge(self, slot: int, until: float) -> None:
        """It is not evicted before `until`, by the hour."""
        if self._is_held(slot):
            self._columns.pledge[slot] = (int(until) + _HOUR - 1) // _HOUR & 0xFFFF
            self._restand(slot, Standing.PLEDGED)

    # What was, for a restart

    def dump(self) -> Iterator[bytes]:
        """All that the index does not hold: standings, order, heat, ghosts, budgets.

        Who stands where is taken at once, before anything is asked of what comes back. The rest is taken in parts, as
        it is asked for, also in another thread: each row and each name is then as it was at some moment meanwhile.
        """
        columns = self._columns
        trials = self._trials
        rows = len(columns)
        pieces = [_HEAD.pack(_FORMAT, rows, len(self._shelves), trials.chosen, *trials.missed)]
        for shelf in self._shelves.values():
            budget = shelf.budget or WriteBudget(0.0)
            pieces.append(
                _SHELF.pack(
                    shelf.number,
                    shelf.berth,
                    shelf.level,
                    budget.bytes_per_day,
                    budget.left_bytes,
                    -1.0 if budget.counted_at is None else budget.counted_at,
                    *(end for line in (shelf.kept, shelf.pledged) for end in (line.first, line.last, line.count)),
                )
            )
        pieces += (bytes(columns.standing), bytes(columns.shelf), columns.after.tobytes(), columns.before.tobytes())
        return self._in_parts(pieces, rows)

    def _in_parts(self, pieces: list[bytes], rows: int) -> Iterator[bytes]:
        pieces.reverse()
        while pieces:
            yield pieces.pop()
        for column in self._dumped():
            for first in range(0, rows, _DUMPED_AT_ONCE):
                yield column[first : min(first + _DUMPED_AT_ONCE, rows)].tobytes()
        places = self._ghosts.places
        yield _LENGTH.pack(4 * places)
        yield from self._ghosts.dump(places)
        for table in (*self._renditions.dump(), *self._visits.dump(), self._reuse.dump()):
            yield _LENGTH.pack(len(table))
            yield table

    def restore(self, packed: memoryview) -> None:
        """Take up a dump, before anything is placed. What is placed under its old slot and name stands where it stood.

        Raises `ValueError`, and knows nothing, if it is not a whole dump of this version.
        """
        reader = _Reader(packed)
        version, rows, shelves, chosen, *missed = reader.take(_HEAD)
        if version != _FORMAT:
            raise ValueError(f"a dump of version {version}")
        heads = [reader.take(_SHELF) for _ in range(int(shelves))]
        standing, shelf = reader.bytes(int(rows)), reader.bytes(int(rows))
        restored = (self._columns.after, self._columns.before, *self._dumped())
        columns = [reader.bytes(int(rows) * column.itemsize) for column in restored]
        tables = [reader.bytes(*reader.take(_LENGTH)) for _ in range(10)]
        self._ghosts.restore(tables[0])
        self._renditions.restore(*tables[1:5])
        self._visits.restore(*tables[5:9])
        self._reuse.restore(tables[9])
        self._trials.restore(int(chosen), tuple(missed))
        self._adopt()

        berths = bytearray(256)
        for number, berth, level, bytes_per_day, left_bytes, counted_at, *ends in heads:
            # One that is not known may be added yet.
            here = self._shelves.get(int(number)) or self._berth(int(number), Level(int(level)))
            berths[int(berth)] = here.berth
            if here.budget is None and bytes_per_day:
                here.budget = WriteBudget(bytes_per_day)
            if here.budget is not None:
                here.budget.left_bytes = min(left_bytes, here.budget.bytes_per_day)
                here.budget.counted_at = None if counted_at < 0 else counted_at
            for place, line in enumerate((here.kept, here.pledged)):
                line.first, line.last, line.count = map(int, ends[3 * place : 3 * place + 3])
        self._columns.restore(int(rows))
        self._standing[:] = standing.translate(_ALL_AWAITED)
        self._shelf[:] = shelf.translate(berths)
        for column, content in zip(restored, columns, strict=True):
            del column[:]
            column.frombytes(content)

    def _dumped(self) -> tuple[array[int], ...]:
        columns = self._columns
        return columns.heat, columns.pledge, columns.touched, columns.name

    # Within: who goes

    def _value(self, slot: int) -> float:
        """How much it is worth to keep a slot; see heat.py."""
        rate = self._rate
        return together(
            self._touched[slot] * rate + self._heat[slot], self._renditions.share_of(self._group[slot], rate)
        )

    def _stay(self, second: int) -> int:
        """For how many seconds the next to go was not read, where newcomers go."""
        slot = self._tiers[0].shelves[0].kept.first
        return second - self._touched[slot] if slot != NOBODY else 0

    def _sweep(self, here: _Shelf, looks: int, pinned: AbstractSet[int]) -> None:
        """Look at the next slots of a shelf, and put those that are cold enough on the shortlist."""
        line = here.kept
        slot = line.first
        if slot == NOBODY:
            return
        standing, after, touched, heat, group = self._standing, self._after, self._touched, self._heat, self._group
        renditions, rate = self._renditions, self._rate
        groups, mask, read_at, shares = renditions.groups, renditions.mask, renditions.touched, renditions.shares
        limit = here.shortlist.limit
        found = []
        strays = []
        for _ in range(min(looks, line.count)):
            kind = standing[slot]
            if kind == _KEPT:
                # Most are not cold enough even without what their renditions add.
                value = touched[slot] * rate + heat[slot]
                if value < limit:
                    place = group[slot] & mask
                    if groups[place] == group[slot]:
                        share = read_at[place] * rate + shares[place]
                        value = together(value, share) if share < limit else share
                    if value < limit and slot not in pinned:
                        found.append((value, slot))
                        standing[slot] = _KEPT_AND_LISTED
            elif kind & AWAITED:
                strays.append(slot)
            last = slot
            slot = after[slot]
        line.turn(last)
        for slot in strays:
            line.remove(slot)
            standing[slot] = 0
        if found:
            for _, slot in here.shortlist.add(found):
                standing[slot] &= _UNLISTED

    def _true_coldest(self, here: _Shelf) -> tuple[float, int]:
        """The coldest of the shortlist as of now, with its value; it stays there. NOBODY if the list is empty."""
        shortlist = here.shortlist
        pairs = shortlist.pairs
        standing = self._standing
        while pairs:
            listed, slot = pairs[0]
            if standing[slot] != _KEPT_AND_LISTED or self._shelf[slot] != here.berth:
                shortlist.drop_coldest()
                continue
            value = self._value(slot)
            if value <= listed or len(pairs) == 1 or value <= pairs[1][0]:
                return value, slot
            # It was read since, or its rendition was. Values never sink, so that each is put back once.
            if value <= shortlist.limit:
                shortlist.put_back(value)
            else:
                shortlist.drop_coldest()
                standing[slot] &= _UNLISTED
        return 0.0, NOBODY

    def _bar(self, here: _Shelf) -> float:
        """The value of what a shelf would give up for a newcomer, as of lately."""
        here.asked += 1
        if here.asked % _ASKS:
            return here.bar
        if not here.asked % _ASKS_A_SWEEP:
            self._sweep(here, _ASKS_A_SWEEP // _ASKS, _NONE)
        here.bar = self._true_coldest(here)[0]
        return here.bar

    def _coldest(self, here: _Shelf, pinned: AbstractSet[int]) -> int:
        """Who is to go off a shelf, out of its shortlist already; NOBODY if nobody can."""
        here.due += _LOOKS
        if here.due >= _SWEEP:
            self._sweep(here, here.due, pinned)
            here.due = 0
        if here.looks < _MOST_LOOKS:
            here.looks += 1
        left = here.kept.count
        while True:
            value, slot = self._true_coldest(here)
            if slot == NOBODY:
                if left <= 0:
                    return NOBODY
                self._sweep(here, _SWEEP, pinned)
                left -= _SWEEP
            elif value > here.bar + _NOTABLY and here.looks >= _MORE:
                # Who came together stands together: where many in a row are hot, the next ones may not be.
                self._sweep(here, _MORE, pinned)
                here.looks -= _MORE
            else:
                here.shortlist.drop_coldest()
                self._standing[slot] &= _UNLISTED
                if slot not in pinned:
                    here.bar = value
                    return slot

    def _oldest(self, here: _Shelf, pinned: AbstractSet[int]) -> int:
        """Who is first in the line: in memory who came first, elsewhere who was read longest ago."""
        line = here.kept
        for _ in range(line.count):
            slot = line.first
            if slot not in pinned and self._standing[slot] < AWAITED:
                return slot
            line.remove(slot)
            if self._standing[slot] & AWAITED:
                self._standing[slot] = Standing.NOWHERE
            else:
                line.push(slot)
        return NOBODY

    def _release(self, here: _Shelf, now: float) -> None:
        """Pledges that are over. Two are looked at each time: more come up than victims go."""
        hour = int(now) // _HOUR
        for _ in range(min(2, here.pledged.count)):
            slot = here.pledged.first
            left = self._columns.pledge[slot] - hour & 0xFFFF
            is_over = left == 0 or left >= 0x8000
            if self._standing[slot] & AWAITED:
                here.pledged.remove(slot)
                here.pledged.push(slot)
            else:
                self._restand(slot, Standing.KEPT if is_over else Standing.PLEDGED)

    # Within: who moves

    def _rise(self, slot: int, now: float) -> Move | None:
        """To the fastest level where it is hotter than what it replaces, if flash may be written."""
        if not self._is_held(slot) or slot in self._moving:
            return None
        here = self._berths[self._shelf[slot]]
        if self._heat[slot] < here.rises_at:
            return None
        from_memory = here.is_memory
        value = self._value(slot) - (0 if self._is_short else self._margin)
        for tier in self._flash:
            if tier.level >= here.level and not from_memory:
                continue
            shelf = tier.next_shelf()
            has_room = tier.has_room(self._pages[slot])
            if shelf.may_write(now) and (has_room or value > self._bar(shelf)):
                self._margin = min(self._margin + _WRITTEN, _MOST_MARGIN)
                return Move(slot, tier.level, MoveReason.READ_AGAIN if from_memory else MoveReason.PROMOTED)
        return None

    def _sink(self, here: _Shelf, now: float) -> Move | None:
        """What a nearly full flash shelf would give up next goes down first, if it is hotter than what goes there."""
        if here.sinks_in:
            here.sinks_in -= 1
            return None
        if here.used < _NEARLY_FULL * here.capacity:
            return None
        self._sweep(here, _LOOKS * _SINKS, _NONE)
        here.sinks_in = _SINKS - 1
        value, slot = self._true_coldest(here)
        if slot == NOBODY or self._below[slot] or slot in self._moving or slot in self._refused:
            return None
        lower = self._tiers[0]
        target = lower.next_shelf()
        has_room = lower.has_room(self._pages[slot])
        if target.may_write(now) and (has_room or value > self._bar(target)):
            here.shortlist.drop_coldest()
            self._standing[slot] &= _UNLISTED
            here.sinks_in = 0
            return Move(slot, lower.level, MoveReason.DEMOTED)
        return None

    def _try_out(self, name: int, size: int, now: float) -> None:
        if self._trials.read(name, size, self._capacity, now):
            self._adopt()

    def _adopt(self) -> None:
        """The half-life that was chosen. Heats of another are off by a factor that fades."""
        self._rate = steps_a_second(self._trials.half_life)
        self._is_short = self._trials.half_life <= SHORT
        for shelf in self._shelves.values():
            shelf.asked = -1
            for slot in shelf.shortlist.clear():
                self._standing[slot] &= _UNLISTED

    # Within: the books

    def _is_held(self, slot: int) -> bool:
        return slot < len(self._standing) and 0 < self._standing[slot] < AWAITED

    def _take(self, here: _Shelf, more: int) -> None:
        here.used += more
        here.tier.free -= more

    def _add(self, slot: int, here: _Shelf, more: int) -> None:
        self._pages[slot] += more
        here.used += more
        here.tier.free -= more
        if self._standing[slot] & Standing.PLEDGED:
            here.pledged.pages += more

    def _stand(self, slot: int, here: _Shelf, standing: int) -> None:
        self._shelf[slot] = here.berth
        self._standing[slot] = standing
        line = here.line(standing)
        line.push(slot)
        line.pages += self._pages[slot]

    def _stand_off(self, slot: int, here: _Shelf) -> None:
        line = here.line(self._standing[slot])
        line.remove(slot)
        line.pages -= self._pages[slot]

    def _restand(self, slot: int, standing: int) -> None:
        here = self._berths[self._shelf[slot]]
        self._stand_off(slot, here)
        self._stand(slot, here, standing)

    def _enter(self, slot: int, name: int, group: int, here: _Shelf, second: int, size: int) -> None:
        """A newcomer, in a row that nobody has."""
        self._held += 1
        known = self._ghosts.take(name, group)
        if known:
            self._heat[slot] = warmed(ghosts.heat(known) - int(ghosts.age(known, second) * self._rate))
        else:
            self._heat[slot] = 0
            self._renditions.widen(group, self._held >> 3)
        self._name[slot] = name
        self._group[slot] = group
        self._pages[slot] = size
        self._touched[slot] = second
        self._shelf[slot] = here.berth
        self._standing[slot] = _KEPT
        here.kept.push(slot)

    def _return(self, slot: int, name: int, group: int, here: _Shelf, second: int, size: int) -> None:
        """Into a row that has been waiting since a restart: if it is the one that is awaited, it stands as it stood."""
        before = self._berths[self._shelf[slot]]
        standing = self._standing[slot] & ~AWAITED
        if self._name[slot] != name or before is not here:
            before.line(standing).remove(slot)
        if self._name[slot] != name:
            self._enter(slot, name, group, here, second, size)
            return
        self._held += 1
        self._group[slot] = group
        self._pages[slot] = size
        if before is here:
            self._standing[slot] = standing
            here.line(standing).pages += size
        else:
            self._stand(slot, here, standing)

    def _leave(self, slot: int, here: _Shelf, second: int) -> None:
        """Off this shelf, whose line it left: to the one below if a copy lies there, else out of the books."""
        size = self._pages[slot]
        here.used -= size
        here.tier.free += size
        if self._below[slot]:
            below = self._berths[self._below[slot] - 1]
            self._below[slot] = 0
            self._stand(slot, below, Standing.KEPT)
            return
        known = self._ghosts
        if known.places < self._held:
            known.hold(self._held)
            self._visits.hold(self._held >> 5)
        known.remember(self._name[slot], self._group[slot], self._heat[slot], self._touched[slot], second, self._rate)
        self._standing[slot] = 0
        self._held -= 1


class _Reader:
    """Takes a dump apart, from front to back."""

    def __init__(self, packed: memoryview) -> None:
        self._packed = packed
        self._at = 0

    def bytes(self, length: float) -> bytes:
        piece = bytes(self._packed[self._at : self._at + int(length)])
        if len(piece) != length:
            raise ValueError("a dump that ends too soon")
        self._at += len(piece)
        return piece

    def take(self, shape: struct.Struct) -> tuple[float, ...]:
        return shape.unpack(self.bytes(shape.size))


_FORMAT: Final = 4
_DUMPED_AT_ONCE: Final = 1 << 18
_HEAD: Final = struct.Struct(f"<QQQQ{len(HALF_LIVES)}d")
_SHELF: Final = struct.Struct("<QQQddd6Q")
_LENGTH: Final = struct.Struct("<Q")
_ALL_AWAITED: Final = bytes(kind & ~LISTED | AWAITED if kind else 0 for kind in range(256))
