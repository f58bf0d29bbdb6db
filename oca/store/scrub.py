"""The scrubber: everything that is held is read again within so many days, and what is rotten is replaced.

Each device is read for itself, in the order of keys and from the disk, not from the page cache: block after block, with
pauses so that a round takes the time it may take. Where it stands is noted in the index. It stands back from disks that
viewers are reading, for some seconds: a disk that is never idle is scrubbed nevertheless.

What is damaged is dropped, so that no viewer meets it, and fetched anew unless a copy remains below.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final

import msgspec

from oca.cache.health import Fault, signal_of
from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS, EXTENT_BYTES, ExtentKey, ObjectKey, extent_key, split_extent_key
from oca.cache.policy import Level
from oca.cache.records import ExtentRecord, ObjectRecord
from oca.errors import DeviceFault, ExtentDamaged, OcaError, StoreError
from oca.store.index import Index
from oca.store.mover import TryTurn
from oca.store.shelf import Shelf
from oca.store.shelves import Shelves

log = logging.getLogger(__name__)

_DAY: Final = 86400.0
_BATCH: Final = 256
_NOTED: Final = 60.0
"""Seconds between two notes of where a round stands."""
_NAP: Final = 60.0
"""A pause is never longer: what is held, and who is there, changes meanwhile."""
_LOOK: Final = 5.0
"""Seconds between two looks for devices that came or went."""
_BREATH: Final = 0.1
_SORRY: Final = 5.0
_STANDS_BACK: Final = 100
"""Breaths that a read stands back while viewers read the disk."""
_EARLY: Final = 0.9
"""A round is planned to end after this share of its time."""
_FASTEST: Final = 10.0
"""Times the ordinary rate, for a round that is late."""

Refetch = Callable[[str, list[int]], Awaitable[object]]
"""Path and blocks of an object: bring them again. Returns when they are here, or can't be had."""


class Round(msgspec.Struct):
    """One device being read once. Plain numbers, for status and metrics."""

    started_at: float
    share: float = 0.0
    """How much of it is done, from 0 to 1."""
    expected_end: float = 0.0
    rate_bps: float = 0.0
    """Bytes per second that it goes at now."""


class _Place(msgspec.Struct, array_like=True):
    """Where a round stands, as it is noted."""

    started_at: float
    after: ExtentKey = b""


class Scrubber:
    def __init__(
        self,
        shelves: Shelves,
        index: Index,
        days: float,
        refetch: Refetch,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        depth_of: Callable[[str], int] = lambda _: 1,
        try_turn: TryTurn = lambda _device, _depth: nullcontext(True),
        deadline: float = 30.0,
    ) -> None:
        self._shelves = shelves
        self._index = index
        self._period = days * _DAY
        self._refetch = refetch
        self._clock = clock
        self._sleep = sleep
        self._depth_of = depth_of
        self._try_turn = try_turn
        self._deadline = deadline
        """Seconds that a disk may take for a block."""
        self._read_at: dict[int, float] = {}
        self._noted_at: dict[int, float] = {}
        self.bytes = 0
        """Read and compared."""
        self.blocks = 0
        self.damaged: Counter[Fault] = Counter()
        """Extents, by what was wrong with them."""
        self.replaced = 0
        """Blocks that were fetched anew and are held again."""
        self.rounds: dict[int, Round] = {}
        """By the device's number."""

    async def run(self) -> None:
        """For ever."""
        await self._shelves.loaded()
        tasks: dict[Shelf, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                here = [shelf for shelf in self._shelves.in_use if shelf.level is not Level.MEMORY]
                for shelf in here:
                    if shelf not in tasks:
                        tasks[shelf] = group.create_task(self._scrub(shelf), name=f"scrub {shelf.path}")
                for shelf in [shelf for shelf in tasks if shelf not in here]:
                    tasks.pop(shelf).cancel()
                    self.rounds.pop(shelf.number, None)
                await self._sleep(_LOOK)

    async def _scrub(self, shelf: Shelf) -> None:
        while True:
            try:
                if not await self.round(shelf):
                    await self._sleep(_NAP)
            except StoreError as error:
                log.error("device %s is not scrubbed: %s", shelf.path, error)
                await self._sleep(_NAP)

    async def round(self, shelf: Shelf) -> bool:
        """Read what lies on a device, from where the last round was left. False if it can't be read to the end now."""
        place = self._place(shelf)
        await self._rest(place.started_at)
        self.rounds[shelf.number] = progress = Round(place.started_at, _share(place.after))
        while batch := self._index.scan_from(place.after, _BATCH):
            for key, extent in batch:
                if shelf.number in (extent.device, extent.below):
                    if not self._is_readable(shelf):
                        return False
                    await self._check(shelf, key, progress)
                place.after = key
                progress.share = _share(key)
                if self._clock() - self._noted_at.get(shelf.number, 0.0) >= _NOTED:
                    await self._note(shelf, place)
            await asyncio.sleep(0)
        progress.share = 1.0
        await self._note(shelf, _Place(max(self._clock(), place.started_at + self._period)))
        return True

    async def _rest(self, until: float) -> None:
        while (left := until - self._clock()) > 0:
            await self._sleep(min(left, _NAP))

    def _place(self, shelf: Shelf) -> _Place:
        packed = self._index.note(f"scrub {shelf.identity}")
        now = self._clock()
        try:
            place = msgspec.msgpack.decode(packed, type=_Place) if packed is not None else _Place(now)
        except msgspec.DecodeError:
            return _Place(now)
        # What a wrong clock said, or a longer period, does not put a round off.
        return place if place.started_at <= now + self._period else _Place(now, place.after)

    async def _note(self, shelf: Shelf, place: _Place) -> None:
        self._noted_at[shelf.number] = self._clock()
        await self._index.put_note(f"scrub {shelf.identity}", msgspec.msgpack.encode(place))

    # --- One extent ---------------------------------------------------------------------------------------------------

    async def _check(self, shelf: Shelf, key: ExtentKey, progress: Round) -> None:
        for place in range(EXTENT_BLOCKS):
            # Asked anew for each block: hours may lie between two of them, in which it grew, moved or went.
            extent, record = self._index.extent(key), self._index.object(key[:16])
            if extent is None or record is None or shelf.number not in (extent.device, extent.below):
                return
            if not extent.present >> place & 1:
                continue
            _, generation, number = split_extent_key(key)
            length = min(BLOCK_BYTES, record.size - number * EXTENT_BYTES - place * BLOCK_BYTES)
            if record.generation != generation or length <= 0:
                return  # Nobody is served from it: it goes in its own time.
            await self._pause(shelf, length, progress)
            if not self._is_readable(shelf):
                return
            try:
                await self._read_twice(shelf, key, place * BLOCK_BYTES, length, extent.sum_of(place))
            except DeviceFault as error:
                fault = Fault(error.fault)
                if isinstance(error, ExtentDamaged) or fault is Fault.IO:
                    await self._damaged(shelf, key, extent, record, fault, str(error))
                elif self._is_readable(shelf) and (signal := signal_of(fault)) is not None:
                    self._shelves.signal(shelf, signal, str(error))
                return
            self.blocks += 1
            self.bytes += length

    def _is_readable(self, shelf: Shelf) -> bool:
        return shelf.can_read and self._shelves.shelf(shelf.number) is shelf

    async def _pause(self, shelf: Shelf, length: int, progress: Round) -> None:
        """Until the block is due: the rest of what is held, spread over the rest of the time."""
        last = self._read_at.get(shelf.number, 0.0)
        while self._is_readable(shelf):
            now = self._clock()
            share_left = 1.0 - progress.share
            seconds_left = max(progress.started_at + _EARLY * self._period - now, share_left * self._period / _FASTEST)
            held = self._shelves.policy.used_bytes(shelf.number)
            progress.rate_bps = held * share_left / seconds_left
            progress.expected_end = now + seconds_left
            left = min(length / progress.rate_bps if progress.rate_bps else 0.0, self._period) - (now - last)
            if left <= 0 or now < last:
                break
            await self._sleep(min(left, _NAP))
        self._read_at[shelf.number] = self._clock()

    async def _read_twice(self, shelf: Shelf, key: ExtentKey, offset: int, length: int, crc: int) -> None:
        try:
            await self._read(shelf, key, offset, length, crc)
        except ExtentDamaged:
            # Its file may just have been replaced by another; and it is the disk we ask, not a cable or memory.
            await self._read(shelf, key, offset, length, crc)

    async def _read(self, shelf: Shelf, key: ExtentKey, offset: int, length: int, crc: int) -> None:
        def read() -> None:
            shelf.folder.check_block(key, offset, length, crc)

        for _ in range(_STANDS_BACK):
            with self._try_turn(shelf.number, self._depth_of(shelf.tier)) as is_ours:
                if is_ours:
                    await shelf.do(read, self._deadline)
                    return
            await self._sleep(_BREATH)
        await shelf.do(read, self._deadline)

    async def _damaged(
        self, shelf: Shelf, key: ExtentKey, extent: ExtentRecord, record: ObjectRecord, fault: Fault, sentence: str
    ) -> None:
        now = self._index.extent(key)
        if now is None or now.slot != extent.slot or shelf.number not in (now.device, now.below):
            return  # It was just moved or evicted.
        await self._shelves.lose(key, extent.slot, f"found by the scrubber: {sentence}", shelf.number, fault)
        left = self._index.extent(key)
        if left is not None and shelf.number in (left.device, left.below):
            return  # It is the device that is gone.
        self.damaged[fault] += 1
        if left is not None:
            return  # It is read from its copy now.
        first = split_extent_key(key)[2] * EXTENT_BLOCKS
        blocks = [first + place for place in range(EXTENT_BLOCKS) if extent.present >> place & 1]
        try:
            await self._refetch(record.path, blocks)
        except OcaError as error:
            log.warning("%s: what was damaged is not replaced: %s", record.path, error)
            # A disk that lost all its files must not make us ask a source that is down as fast as we can.
            await self._sleep(_SORRY)
        # With its last extent the object went as well: then it has come back as another generation.
        present = self._index.object(key[:16])
        if present is None:
            return
        self.replaced += sum(self._is_held(key[:16], present.generation, block) for block in blocks)
        if extent.pledged_until > self._clock():
            await self._shelves.pledge(key[:16], present.generation, extent.pledged_until)

    def _is_held(self, key: ObjectKey, generation: int, block: int) -> bool:
        number, place = divmod(block, EXTENT_BLOCKS)
        return self._shelves.is_present(extent_key(key, generation, number), place)


def _share(after: ExtentKey) -> float:
    """Keys are hashes: how far one lies behind the first says how many lie before it."""
    return int.from_bytes(after[:8].ljust(8, b"\0"), "big") / 2**64
