"""Which extents are kept, where, and which go: the cache policy over all shelves of an appliance.

S3-FIFO (Yang et al., SOSP '23) on every shelf. Newcomers stand in a probation line; read again, they move to the main
line; not read, they go, and their name is remembered (a ghost): one that returns enters the main line at once. The main
line gives another round for each time it was read, three at most. A hit costs a few bytes in flat arrays.

A box without slow disks keeps its probation in memory, where it wears out nothing: flash is written for what was
wanted a second time. A box with slow disks takes newcomers there, and flash gets what is read often.

The store asks (`admit`, `victims`, `next_move`) and tells what it did (`place`, `move`, `forget`): nothing here changes
by being asked, but that victims leave their line as they are given.
"""

from __future__ import annotations

import contextlib
import struct
from array import array
from collections import deque
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from enum import IntEnum, StrEnum
from typing import Final

import msgspec

from oca.cache.budget import WriteBudget
from oca.cache.columns import AWAITED, NOBODY, PAGE_BYTES, Columns, Standing, pages
from oca.cache.ghosts import Ghosts
from oca.cache.queues import Line

_MOST: Final = 7
"""Reads are counted up to this."""
_ROUNDS: Final = 3
"""Rounds that the main line gives at most."""
_PROBATION_SHARE: Final = 0.1
_CORRELATED: Final = 120
"""Seconds within which touches of a slot count once: requests of one viewer inside one extent."""
_FORGETS: Final = 12 * 3600
"""Seconds without a read after which a slot on a slow disk counts anew: three reads in a day make it rise."""
_RISING_READS: Final = 3
_PATIENCE: Final = 256
"""Rounds given at most before one victim is found: more would let a viewer wait for the sake of a ratio."""
_NEARLY_FULL: Final = 0.98
_MOVES: Final = 64
"""Moves proposed and not answered yet, at most."""
_HOUR: Final = 3600


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
    """Never seen, or too long ago: on probation."""
    RETURNED = "returned"
    """It was wanted before, not long ago."""
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
    """One device: its lines, and how full it is. Copies below count as used and stand in no line of their own."""

    __slots__ = ("budget", "capacity", "is_open", "level", "lines", "main", "number", "pledged", "probation", "used")

    def __init__(self, columns: Columns, number: int, level: Level) -> None:
        self.number = number
        self.level = level
        self.capacity = 0
        self.used = 0
        self.is_open = False
        self.budget: WriteBudget | None = None
        self.probation = Line(columns)
        self.main = Line(columns)
        self.pledged = Line(columns)
        self.lines = (self.probation, self.main, self.pledged)

    def line(self, standing: int) -> Line:
        return self.lines[(standing & ~AWAITED) - 1]

    def has_room(self, size_bytes: int) -> bool:
        return self.is_open and self.used + pages(size_bytes) <= self.capacity

    def may_write(self, now: float) -> bool:
        return self.is_open and (self.budget is None or self.budget.allows(now))


class Policy:
    """Sizes are bytes on disk. A `name` is 64 well-mixed bits of an extent's key, a `group` 32 of its rendition's."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._columns = columns = Columns()
        self._line = columns.line
        self._reads = columns.reads
        self._pages = columns.pages
        self._shelf = columns.shelf
        self._below = columns.below
        self._touched = columns.touched
        self._shelves: dict[int, _Shelf] = {}
        self._ghosts = Ghosts()
        self._held = 0
        self._rises_after: dict[int, int] = {}
        """For shelves with a faster level above that takes what was read so often."""
        self._rising: deque[int] = deque(maxlen=4096)
        self._moving: set[int] = set()

    # Shelves

    def add_shelf(self, number: int, level: Level, capacity_bytes: int, writes_per_day: float | None = None) -> None:
        """A device comes into use, open. `writes_per_day`: bytes that flash may take; None: as many as come."""
        shelf = self._shelves.get(number)
        if shelf is None:
            shelf = self._shelves[number] = _Shelf(self._columns, number, level)
        shelf.level = level
        shelf.capacity = capacity_bytes // PAGE_BYTES
        shelf.is_open = True
        if writes_per_day is None:
            shelf.budget = None
        elif shelf.budget is None or shelf.budget.bytes_per_day != writes_per_day:
            shelf.budget = WriteBudget(writes_per_day)
        self._look_up()

    def resize_shelf(self, number: int, capacity_bytes: int) -> None:
        self._shelves[number].capacity = capacity_bytes // PAGE_BYTES

    def remove_shelf(self, number: int) -> None:
        """All its slots must have been forgotten or moved."""
        shelf = self._shelves.pop(number)
        assert not shelf.used
        for line in shelf.lines:
            for slot in list(line):  # Awaited since a restart, and they never came.
                self._line[slot] = Standing.NOWHERE
        self._look_up()

    def open_shelf(self, number: int, is_open: bool) -> None:  # noqa: FBT001 - the shelf's state, not a switch
        """Whether anything is written there now."""
        self._shelves[number].is_open = is_open
        self._look_up()

    def _look_up(self) -> None:
        """For each shelf, after how many reads a slot wants to go up."""
        flash = [shelf.level for shelf in self._shelves.values() if shelf.is_open and _is_flash(shelf.level)]
        self._rises_after = {
            shelf.number: 1 if shelf.level == Level.MEMORY else _RISING_READS
            for shelf in self._shelves.values()
            if any(shelf.level == Level.MEMORY or level < shelf.level for level in flash)
        }

    # Asked

    def admit(self, name: int, group: int, size_bytes: int, now: float) -> Admission:
        """Where a new extent of about `size_bytes` goes."""
        levels = sorted({shelf.level for shelf in self._shelves.values() if shelf.is_open}, reverse=True)
        if not levels:
            return Admission(None, AdmitReason.CLOSED)
        for level in levels:
            if level != Level.MEMORY and any(shelf.has_room(size_bytes) for shelf in self._on(level)):
                return Admission(level, AdmitReason.FREE)
        lowest = levels[0]
        returns = self._ghosts.knows(name & 0xFFFFFFFF, group)
        why = AdmitReason.RETURNED if returns else AdmitReason.NEWCOMER
        if levels[-1] == Level.MEMORY and not returns:
            return Admission(Level.MEMORY, why)
        if any(shelf.may_write(now) for shelf in self._on(lowest)):
            return Admission(lowest, why)
        return Admission(Level.MEMORY if levels[-1] == Level.MEMORY else None, AdmitReason.BUDGET)

    def victims(self, shelf: int, size_bytes: int, pinned: AbstractSet[int], now: float) -> Iterator[int]:
        """Slots to take off `shelf`, in order, until `size_bytes` fit. Each has left it in these books as it is given.

        A slot with a copy below stands there from now on; another is forgotten, and its name remembered. Pinned and
        pledged ones are passed over. The iteration ends early if nothing more can go.
        """
        here = self._shelves[shelf]
        wanted = pages(size_bytes)
        self._release(here, now)
        probation, main = here.probation, here.main
        probation_share = 0.0 if here.level == Level.MEMORY else _PROBATION_SHARE * here.capacity
        # Passed over in a row. Where all are, the other line gives: what is being written must not hide the rest.
        pinned_probation = pinned_main = 0
        rounds = 0
        while here.used + wanted > here.capacity:
            probation_gives = probation.count > pinned_probation
            main_gives = main.count > pinned_main
            if not probation_gives and not main_gives:
                return
            from_probation = probation_gives and (probation.pages > probation_share or not main_gives)
            line = probation if from_probation else main
            slot = line.first
            line.remove(slot)
            reads = self._reads[slot]
            if self._line[slot] & AWAITED:
                self._line[slot] = Standing.NOWHERE
            elif slot in pinned:
                line.push(slot)
                if from_probation:
                    pinned_probation += 1
                else:
                    pinned_main += 1
            elif reads and rounds < _PATIENCE and here.level != Level.MEMORY:
                rounds += 1
                if from_probation:
                    line.pages -= self._pages[slot]
                    main.pages += self._pages[slot]
                    self._line[slot] = Standing.MAIN
                    self._reads[slot] = 0
                else:
                    self._reads[slot] = min(reads, _ROUNDS) - 1
                main.push(slot)
                pinned_main = 0
            else:
                rounds = 0
                if from_probation:
                    self._ghosts.remember(self._columns.name[slot], self._columns.group[slot], self._held)
                line.pages -= self._pages[slot]
                self._leave(slot, here)
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
        for shelf in self._shelves.values():
            move = self._sink(shelf, now)
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
        for line in self._shelves[shelf].lines:
            yield from (slot for slot in line if self._is_held(slot))
        slot = -1
        with contextlib.suppress(ValueError):
            while True:
                # In C: half a millisecond for each million slots.
                slot = self._below.index(shelf + 1, slot + 1)
                if self._is_held(slot):
                    yield slot

    def shelf_of(self, slot: int) -> int | None:
        return self._shelf[slot] if self._is_held(slot) else None

    def below_of(self, slot: int) -> int | None:
        return self._below[slot] - 1 if self._is_held(slot) and self._below[slot] else None

    # Told

    def place(
        self, slot: int, name: int, group: int, shelf: int, size_bytes: int, now: float, *, is_written: bool = True
    ) -> None:
        """`slot` holds `size_bytes` more on `shelf`: a newcomer, or one that grew. Room must have been made before.
        Without `is_written` it was there before the start, and is on no day's account.
        """
        here = self._shelves[shelf]
        name &= 0xFFFFFFFF
        if slot >= len(self._line):
            self._columns.reach(slot)
        standing = self._line[slot]
        if not standing or standing & AWAITED:
            self._enter(slot, name, group, here, now)
        elif self._shelf[slot] != shelf:
            # The store puts growth where the slot stands: it knows better.
            self.move(slot, shelf, now)
        if self._below[slot]:
            # Until the store says that the copy below went, it counts as much as what is copied.
            self._shelves[self._below[slot] - 1].used += pages(size_bytes)
        self._add(slot, here, pages(size_bytes))
        if is_written and here.budget is not None:
            here.budget.spend(size_bytes, now)

    def resize(self, slot: int, size_bytes: int) -> None:
        """`slot` holds `size_bytes` in all: what was reserved for a write that failed is free again."""
        if not self._is_held(slot):
            return
        more = pages(size_bytes) - self._pages[slot]
        if self._below[slot]:
            self._shelves[self._below[slot] - 1].used += more
        self._add(slot, self._shelves[self._shelf[slot]], more)

    def move(self, slot: int, shelf: int, now: float, keeps_below: bool = False) -> None:  # noqa: FBT001, FBT002 - a fact
        """`slot` stands on `shelf` now. With `keeps_below`, where it stood holds a copy still."""
        self._moving.discard(slot)
        if not self._is_held(slot) or self._shelf[slot] == shelf:
            return
        old = self._shelves[self._shelf[slot]]
        new = self._shelves[shelf]
        size = self._pages[slot]
        line = old.line(self._line[slot])
        line.remove(slot)
        line.pages -= size
        if self._below[slot] == shelf + 1 or keeps_below:
            # Its copy below is where it goes: that one is no copy any more. Or only one copy is known of: the newest.
            self.drop_below(slot)
        if keeps_below:
            self._below[slot] = old.number + 1
        else:
            old.used -= size
        self._stand(slot, new, self._line[slot] if self._line[slot] == Standing.PLEDGED else Standing.MAIN)
        new.used += size
        self._reads[slot] = 0
        if new.budget is not None:
            new.budget.spend(size * PAGE_BYTES, now)

    def moved_not(self, slot: int) -> None:
        """A move that was proposed did not come about. It may be proposed again when the slot is read again."""
        self._moving.discard(slot)

    def drop_below(self, slot: int) -> None:
        """The copy below went."""
        if self._is_held(slot) and self._below[slot]:
            self._shelves[self._below[slot] - 1].used -= self._pages[slot]
            self._below[slot] = 0

    def forget(self, slot: int) -> None:
        """`slot` is gone, with all its copies."""
        self._moving.discard(slot)
        if self._is_held(slot):
            self.drop_below(slot)
            here = self._shelves[self._shelf[slot]]
            line = here.line(self._line[slot])
            line.remove(slot)
            line.pages -= self._pages[slot]
            self._leave(slot, here)

    def touch(self, slot: int, now: float) -> None:
        """`slot` was read. Unknown slots are ignored: the report of a worker may be a second old."""
        if slot >= len(self._line) or not self._line[slot]:
            return
        second = int(now)
        since = second - self._touched[slot]
        if 0 <= since < _CORRELATED:
            return
        self._touched[slot] = second
        reads = self._reads[slot]
        rises_after = self._rises_after.get(self._shelf[slot])
        if rises_after is None:
            if reads < _MOST:
                self._reads[slot] = reads + 1
            return
        if since > _FORGETS:
            reads = 0
        if reads < _MOST:
            reads += 1
            self._reads[slot] = reads
        if reads >= rises_after:
            self._rising.append(slot)

    def pledge(self, slot: int, until: float) -> None:
        """It is not evicted before `until`, by the hour."""
        if not self._is_held(slot):
            return
        here = self._shelves[self._shelf[slot]]
        self._columns.pledge[slot] = (int(until) + _HOUR - 1) // _HOUR & 0xFFFF
        self._restand(slot, here, Standing.PLEDGED)

    # What was, for a restart

    def dump(self) -> Iterator[bytes]:
        """All that the index does not hold, taken at once: standings, order, counts, ghosts, budgets."""
        columns = self._columns
        pieces = [_HEAD.pack(_FORMAT, len(columns), len(self._shelves))]
        for shelf in self._shelves.values():
            budget = shelf.budget or WriteBudget(0.0)
            ends = [end for line in shelf.lines for end in (line.first, line.last, line.count)]
            pieces.append(
                _SHELF.pack(
                    shelf.number,
                    shelf.level,
                    budget.bytes_per_day,
                    budget.left_bytes,
                    -1.0 if budget.counted_at is None else budget.counted_at,
                    *ends,
                )
            )
        pieces += (bytes(columns.line), bytes(columns.reads))
        pieces += (column.tobytes() for column in self._dumped())
        for table in self._ghosts.dump():
            pieces += (_LENGTH.pack(len(table)), table)
        return iter(pieces)

    def restore(self, packed: memoryview) -> None:
        """Take up a dump, before anything is placed. What is placed under its old slot and name stands where it stood.

        Raises `ValueError`, and knows nothing, if it is not a whole dump of this version.
        """
        reader = _Reader(packed)
        version, rows, shelves = reader.take(_HEAD)
        if version != _FORMAT:
            raise ValueError(f"a dump of version {version}")
        heads = [reader.take(_SHELF) for _ in range(shelves)]
        line, reads = reader.bytes(rows), reader.bytes(rows)
        columns = [reader.bytes(rows * column.itemsize) for column in self._dumped()]
        young = reader.bytes(*reader.take(_LENGTH))
        old = reader.bytes(*reader.take(_LENGTH))
        self._ghosts.restore(young, old)

        self._line[:] = line.translate(_ALL_AWAITED)
        self._reads[:] = reads
        for column, content in zip(self._dumped(), columns, strict=True):
            del column[:]
            column.frombytes(content)
        for column in (self._pages, self._below, self._columns.group):
            del column[:]
            column.frombytes(bytes(column.itemsize * rows))
        for number, level, bytes_per_day, left_bytes, counted_at, *ends in heads:
            here = self._shelves.get(number)
            if here is None:
                # It may be added yet.
                here = self._shelves[number] = _Shelf(self._columns, number, Level(level))
            if here.budget is None and bytes_per_day:
                here.budget = WriteBudget(bytes_per_day)
            if here.budget is not None:
                here.budget.left_bytes = min(left_bytes, here.budget.bytes_per_day)
                here.budget.counted_at = None if counted_at < 0 else counted_at
            for place, own in enumerate(here.lines):
                own.first, own.last, own.count = ends[3 * place : 3 * place + 3]

    def _dumped(self) -> tuple[array[int], ...]:
        columns = self._columns
        return columns.shelf, columns.pledge, columns.touched, columns.name, columns.after, columns.before

    # Within

    def _on(self, level: Level) -> Iterator[_Shelf]:
        return (shelf for shelf in self._shelves.values() if shelf.level == level and shelf.is_open)

    def _is_held(self, slot: int) -> bool:
        return slot < len(self._line) and 0 < self._line[slot] < AWAITED

    def _add(self, slot: int, here: _Shelf, more: int) -> None:
        self._pages[slot] += more
        here.used += more
        here.line(self._line[slot]).pages += more

    def _stand(self, slot: int, here: _Shelf, standing: int) -> None:
        if here.level == Level.MEMORY and standing == Standing.MAIN:
            standing = Standing.PROBATION  # There is nothing but probation in memory.
        self._shelf[slot] = here.number
        self._line[slot] = standing
        line = here.line(standing)
        line.push(slot)
        line.pages += self._pages[slot]

    def _restand(self, slot: int, here: _Shelf, standing: int) -> None:
        line = here.line(self._line[slot])
        line.remove(slot)
        line.pages -= self._pages[slot]
        self._stand(slot, here, standing)

    def _enter(self, slot: int, name: int, group: int, here: _Shelf, now: float) -> None:
        columns = self._columns
        self._held += 1
        standing = self._line[slot]
        if standing:
            standing &= ~AWAITED
            before = self._shelves[self._shelf[slot]]
            if columns.name[slot] == name and before is here:
                self._line[slot] = standing
                columns.group[slot] = group
                return
            before.line(standing).remove(slot)
        was_here = bool(standing) and columns.name[slot] == name
        columns.group[slot] = group
        self._pages[slot] = 0
        self._below[slot] = 0
        if not was_here:
            columns.name[slot] = name
            self._reads[slot] = 0
            self._touched[slot] = int(now)
            standing = Standing.PROBATION
            if self._ghosts.knows(name, group):
                self._ghosts.forget(name, group)
                standing = Standing.MAIN
        self._stand(slot, here, standing)

    def _leave(self, slot: int, here: _Shelf) -> None:
        """Off this shelf, whose line it left: to the one below if a copy lies there, else out of the books."""
        here.used -= self._pages[slot]
        if self._below[slot]:
            below = self._shelves[self._below[slot] - 1]
            self._below[slot] = 0
            self._reads[slot] = 0
            self._stand(slot, below, Standing.MAIN)
            return
        self._line[slot] = Standing.NOWHERE
        self._pages[slot] = 0
        self._held -= 1

    def _release(self, here: _Shelf, now: float) -> None:
        """Pledges that are over. Two are looked at each time: more come up than victims go."""
        hour = int(now) // _HOUR
        for _ in range(min(2, here.pledged.count)):
            slot = here.pledged.first
            left = self._columns.pledge[slot] - hour & 0xFFFF
            is_over = left == 0 or left >= 0x8000
            if self._line[slot] & AWAITED:
                here.pledged.remove(slot)
                here.pledged.push(slot)
            else:
                self._restand(slot, here, Standing.MAIN if is_over else Standing.PLEDGED)

    def _rise(self, slot: int, now: float) -> Move | None:
        """One level up for what was read often, if it still stands where it was read and flash may be written."""
        if not self._is_held(slot) or slot in self._moving:
            return None
        here = self._shelves[self._shelf[slot]]
        rises_after = self._rises_after.get(here.number)
        if rises_after is None or self._reads[slot] < rises_after:
            return None
        from_memory = here.level == Level.MEMORY
        for level in (Level.SSD, Level.NVME):
            if not from_memory and level >= here.level:
                continue
            if any(shelf.may_write(now) for shelf in self._on(level)):
                return Move(slot, level, MoveReason.READ_AGAIN if from_memory else MoveReason.PROMOTED)
        return None

    def _sink(self, here: _Shelf, now: float) -> Move | None:
        """What would be evicted next from a nearly full flash shelf goes down first, if there is somewhere to go."""
        if not _is_flash(here.level) or here.used < _NEARLY_FULL * here.capacity:
            return None
        lower = [level for level in Level if level > here.level and any(s.may_write(now) for s in self._on(level))]
        line = here.main
        slot = line.first
        if not lower or slot == NOBODY or self._line[slot] & AWAITED or self._below[slot] or slot in self._moving:
            return None
        # Another round, as victims() would give it: the next proposal is another slot.
        line.remove(slot)
        line.push(slot)
        if self._reads[slot]:
            self._reads[slot] = min(self._reads[slot], _ROUNDS) - 1
            return None
        return Move(slot, lower[0], MoveReason.DEMOTED)


def _is_flash(level: Level) -> bool:
    return level in (Level.NVME, Level.SSD)


class _Reader:
    """Takes a dump apart, from front to back."""

    def __init__(self, packed: memoryview) -> None:
        self._packed = packed
        self._at = 0

    def bytes(self, length: int) -> bytes:
        piece = bytes(self._packed[self._at : self._at + length])
        if len(piece) != length:
            raise ValueError("a dump that ends too soon")
        self._at += length
        return piece

    def take(self, shape: struct.Struct) -> tuple[int, ...]:
        return shape.unpack(self.bytes(shape.size))


_FORMAT: Final = 1
_HEAD: Final = struct.Struct("<QQQ")
_SHELF: Final = struct.Struct("<QQddd9Q")
_LENGTH: Final = struct.Struct("<Q")
_ALL_AWAITED: Final = bytes(kind | AWAITED if kind else 0 for kind in range(256))
