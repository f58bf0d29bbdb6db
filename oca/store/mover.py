"""The mover: content goes up, down, and off devices that are drained.

A move copies block by block, each compared with its sum as it is read; syncs; switches the record in one commit; then
frees the old place. A move that is cut short leaves a file that no record names: it is swept at the next start, and the
extent is where it was. Moves share one rate, and stand back from disks that viewers are reading.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from enum import StrEnum
from typing import Final
from weakref import WeakKeyDictionary

import msgspec

from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS, EXTENT_BYTES, ExtentKey
from oca.cache.policy import Level, Move, MoveReason
from oca.cache.records import ExtentRecord, Label, encode
from oca.errors import DeviceFull, ExtentDamaged, StoreError
from oca.store.index import DropCopy, Index, MoveExtent
from oca.store.shelf import DRAIN, Shelf
from oca.store.shelves import Shelves

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""Moves that the policy wants, under way at once."""
_SEEK: Final = 0.0115
_HDD_BPS: Final = 143e6
"""A read takes a disk's head this long and its bytes at this rate (constants of BCacheSim, measured at Meta)."""
_HEAD_SHARE: Final = 0.1
"""Of an hdd's head time that promotions may take; more would cost viewers more than it saves them."""
_IDLE: Final = 1.0
"""Seconds between looks for something to move."""
_BREATH: Final = 0.02
"""Seconds that a move stands back when viewers read the disk."""
_LOOKED_AT: Final = 256
"""Extents that are tried in one turn of a drain before it is said that nothing can be moved now."""
_STANDS_BACK: Final = 100
_BURST: Final = 2 * EXTENT_BYTES
_PLACES: Final = (Level.NVME, Level.SSD, Level.HDD)


TryTurn = Callable[[int, int], AbstractContextManager[bool]]
"""Device and queue depth; False if viewers are reading there."""


def _always(_device: int, _depth: int) -> AbstractContextManager[bool]:
    return nullcontext(True)


class MoveCause(StrEnum):
    """Why content moves: a metric label."""

    READ_AGAIN = MoveReason.READ_AGAIN
    PROMOTED = MoveReason.PROMOTED
    DEMOTED = MoveReason.DEMOTED
    DRAINED = "drained"


class Pace:
    """A rate in bytes per second, with a burst of two extents."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._left = float(_BURST)
        self._at = clock()

    async def spend(self, size: int) -> None:
        """Wait until `size` bytes may go."""
        now = self._clock()
        self._left = min(float(_BURST), self._left + max(0.0, now - self._at) * self._rate) - size
        self._at = now
        if self._left < 0 and self._rate > 0:
            await self._sleep(min(60.0, -self._left / self._rate))


class Mover:
    def __init__(
        self,
        shelves: Shelves,
        index: Index,
        pace: Pace,
        clock: Callable[[], float],
        depth_of: Callable[[str], int] = lambda _: 1,
        try_turn: TryTurn = _always,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._shelves = shelves
        self._index = index
        self._pace = pace
        self._clock = clock
        self._depth_of = depth_of
        self._try_turn = try_turn
        self._sleep = sleep
        self.moves: Counter[MoveCause] = Counter()
        self.bytes: Counter[str] = Counter()
        """Written by moves, by tier."""
        self.failed = 0
        self._heads: WeakKeyDictionary[Shelf, asyncio.Lock] = WeakKeyDictionary()

    async def run(self) -> None:
        """For ever: some moves at once, so that one slow disk does not keep the others waiting."""
        await self._shelves.loaded()
        drains: dict[Shelf, asyncio.Task[bool]] = {}
        moves: set[asyncio.Task[bool]] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                while len(moves) < _AT_ONCE and (move := self._shelves.policy.next_move(self._clock())) is not None:
                    moves.add(group.create_task(self._follow(move), name=f"move slot {move.slot}"))
                for shelf in self._drained():
                    if shelf not in drains:
                        drains[shelf] = group.create_task(self._drain_some(shelf), name=f"drain {shelf.path}")
                under_way = [*moves, *drains.values()]
                if under_way:
                    await asyncio.wait(under_way, timeout=_IDLE, return_when=asyncio.FIRST_COMPLETED)
                has_moved = any(task.done() and task.result() for task in under_way)
                moves = {task for task in moves if not task.done()}
                drains = {shelf: task for shelf, task in drains.items() if not task.done()}
                if not has_moved:
                    await self._sleep(_IDLE)

    def _drained(self) -> list[Shelf]:
        policy = self._shelves.policy
        shelves = [shelf for shelf in self._shelves.shelves if shelf.wish == DRAIN and shelf.can_read]
        return [shelf for shelf in shelves if policy.used_bytes(shelf.number)]

    async def turn(self) -> bool:
        """One move that the policy wants, and one off each device that is drained. False if there was nothing to do."""
        busy = False
        move = self._shelves.policy.next_move(self._clock())
        if move is not None:
            busy = await self._follow(move)
        for shelf in self._drained():
            busy = await self._drain_some(shelf) or busy
        return busy

    async def _follow(self, move: Move) -> bool:
        key = self._shelves.slots.key_of(move.slot)
        done = False
        if key is not None:
            try:
                done = await self._move(key, move.slot, [move.level], MoveCause(move.reason))
            finally:
                if not done:
                    self._shelves.policy.moved_not(move.slot)
        else:
            self._shelves.policy.moved_not(move.slot)
        return done

    async def _drain_some(self, shelf: Shelf) -> bool:
        """One extent off a device that is drained: to its own tier if there is room, else to the next."""
        nearest = sorted(_PLACES, key=lambda level: (abs(level - shelf.level), -level))
        for slot in self._shelves.slots_on(shelf, _LOOKED_AT):
            key = self._shelves.slots.key_of(slot)
            if key is None:
                continue
            if await self._move(key, slot, nearest, MoveCause.DRAINED, off=shelf):
                return True
        return False

    async def _move(
        self, key: ExtentKey, slot: int, levels: list[Level], reason: MoveCause, off: Shelf | None = None
    ) -> bool:
        async with self._shelves.alone(key, slot):
            extent = self._index.extent(key)
            if extent is None or extent.slot != slot:
                return False
            source = self._shelves.shelf(extent.device)
            if off is not None and extent.below == off.number:
                # It is read from elsewhere: the copy just goes.
                await self._shelves.changed(await self._index.apply(DropCopy(key, off.number, slot)), key)
                return True
            if off is not None and extent.device == off.number and extent.below is not None:
                await self._shelves.changed(await self._index.apply(DropCopy(key, off.number, slot)), key)
                return True
            if source is None or not source.can_read:
                return False
            for level in levels:
                if extent.below is not None and off is None:
                    below = self._shelves.shelf(extent.below)
                    if below is not None and below.level is level:
                        # Going down to where a copy lies already is dropping the upper one.
                        await self._shelves.changed(await self._index.apply(DropCopy(key, source.number, slot)), key)
                        self.moves[reason] += 1
                        return True
                for target in self._shelves.ranked(key, level)[:2]:
                    if target is not source and await self._copy(key, extent, source, target, reason):
                        return True
        return False

    async def _copy(
        self, key: ExtentKey, extent: ExtentRecord, source: Shelf, target: Shelf, reason: MoveCause
    ) -> bool:
        record = self._index.object(key[:16])
        if record is None:
            return False
        start = int.from_bytes(key[24:28], "big") * EXTENT_BYTES
        # Of what goes up from an hdd the hdd keeps its copy: coming down again is then free, and a flash device that
        # fails is healed from it.
        keeps_below = source.level is Level.HDD and target.level is not Level.HDD and reason is MoveCause.PROMOTED
        is_first = True
        try:
            async with self._shelves.room_for(target, extent.used_bytes):
                await target.do(lambda: target.folder.remove(key))
                for place in range(EXTENT_BLOCKS):
                    if not extent.present >> place & 1:
                        continue
                    offset = place * BLOCK_BYTES
                    length = min(BLOCK_BYTES, record.size - start - offset)
                    if length <= 0:
                        return False  # The object's record is of another mind: whoever reads it finds out.
                    await self._pace.spend(length)
                    rests = reason is not MoveCause.DRAINED
                    content = await self._read(source, key, offset, length, extent.sum_of(place), rests=rests)
                    await target.do(
                        lambda offset=offset, content=content, is_first=is_first: target.folder.copy_block(  # type: ignore[misc]
                            key, offset, content, is_first=is_first
                        )
                    )
                    is_first = False
                if is_first:
                    return False
                moved = msgspec.structs.replace(extent, device=target.number, below=None)
                await target.do(lambda: target.folder.seal(key, encode(Label(record, moved))))
                dropped = await self._index.apply(MoveExtent(key, extent, target.number, keeps_below))
            after = self._index.extent(key)
            has_moved = after is not None and after.device == target.number
            if has_moved:
                self._shelves.policy.move(extent.slot, target.number, self._clock(), keeps_below)
                self.moves[reason] += 1
                self.bytes[target.tier] += extent.used_bytes
            else:
                await self._clear(target, key)
            await self._shelves.changed(dropped, key)
        except DeviceFull:
            return False
        except ExtentDamaged as error:
            self.failed += 1
            await self._clear(target, key)
            await self._shelves.lose_alone(key, extent.slot, str(error), source, Fault(error.fault))
            return False
        except StoreError as error:
            self.failed += 1
            log.warning("extent %s can't be moved to %s: %s", key.hex(), target.path, error)
            await self._clear(target, key)
            return False
        return has_moved

    async def _read(
        self, source: Shelf, key: ExtentKey, offset: int, length: int, crc: int, *, rests: bool
    ) -> memoryview:
        """A block. What moves for the sake of later viewers leaves an hdd's head to those of now most of the time."""
        if not rests or source.level is not Level.HDD:
            async with self._turn(source):
                return await source.do(lambda: source.folder.read_block(key, offset, length, crc))
        async with self._heads.setdefault(source, asyncio.Lock()):
            async with self._turn(source):
                content = await source.do(lambda: source.folder.read_block(key, offset, length, crc))
            head = _SEEK + length / _HDD_BPS
            await self._sleep(head / _HEAD_SHARE - head)
        return content

    @asynccontextmanager
    async def _turn(self, source: Shelf) -> AsyncIterator[None]:
        """When no viewer waits for the disk; after some seconds even so, or a busy disk could never be drained."""
        for _ in range(_STANDS_BACK):
            with self._try_turn(source.number, self._depth_of(source.tier)) as is_ours:
                if is_ours:
                    yield
                    return
            await self._sleep(_BREATH)
        yield

    async def _clear(self, target: Shelf, key: ExtentKey) -> None:
        """What was begun on the target goes."""
        try:
            await target.do(lambda: target.folder.remove(key))
        except StoreError as error:
            self._shelves.failed(target, error)
