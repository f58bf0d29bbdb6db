"""All devices of the appliance together: where blocks are put, what must go for them, and what the index says of it.

The order of steps is the whole point:

- keep: victims leave the index and then the disk, room is reserved, bytes are written and synced, then the bit is set;
- drop: the record leaves the index, stamps are raised, then the file goes.

So nothing is marked present that is not durable, the files never outgrow the capacity, and a place is never reused
while a write to it may be under way: extents that are being written are pinned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec

from oca.cache.eviction import Eviction
from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS, EXTENT_BYTES, ExtentKey, ObjectKey, extent_key
from oca.cache.placement import ranked_devices
from oca.cache.records import DeviceRecord, ExtentRecord, ObjectRecord, on_disk
from oca.cache.slots import Slots
from oca.errors import DeviceFull, ExtentDamaged, IndexUnusable, StoreError
from oca.settings import Device as DeviceSettings
from oca.settings import Tier
from oca.store.board import Board
from oca.store.device import DeviceFolder
from oca.store.index import AddBlock, Change, DropExtent, DropObject, Dropped, Index, PutObject

log = logging.getLogger(__name__)

_THREADS: Final = {Tier.NVME: 8, Tier.SSD: 4, Tier.HDD: 2}
_REST_AFTER_ERROR: Final = 30.0
"""Seconds without writes to a device that failed one. Reading from it goes on."""
_LOAD_BATCH: Final = 2000
_GHOST_SHARE: Final = 64 * 1024 * 1024
_DEADLINE: Final = 60.0
"""Seconds that a device may take for one write or removal."""


class Shelf:
    """One device at work."""

    def __init__(self, number: int, settings: DeviceSettings, folder: DeviceFolder, identity: str) -> None:
        self.number = number
        self.identity = identity
        self.settings = settings
        self.folder = folder
        self.eviction = Eviction(settings.capacity, ghosts=max(1024, settings.capacity // _GHOST_SHARE))
        self.threads = ThreadPoolExecutor(_THREADS[settings.tier], thread_name_prefix=f"device-{number}")
        self.room = asyncio.Lock()
        """Held while room is made, so that nobody takes it before the victims' files are gone."""
        self.rests_until = 0.0
        self.errors = 0


class LeftOut(msgspec.Struct, frozen=True):
    """A device of the settings that can't be used, and why."""

    settings: DeviceSettings
    reason: str


class Keeping(msgspec.Struct, frozen=True):
    """A block to be kept."""

    key: ObjectKey
    record: ObjectRecord
    block: int
    content: memoryview
    is_wanted: Callable[[], bool]
    """False once the object was purged: asked after the write, before the commit."""


T = TypeVar("T")


class Shelves:
    def __init__(self, index: Index, board: Board, clock: Callable[[], float]) -> None:
        self._index = index
        self._board = board
        self._clock = clock
        self._slots = Slots()
        self._shelves: dict[int, Shelf] = {}
        self._pinned: set[int] = set()
        """Slots that are being written to: they can't be evicted."""
        self._busy: dict[ExtentKey, asyncio.Future[None]] = {}
        """Extents whose file is being written or removed."""
        self._left_behind: dict[ExtentKey, set[Shelf]] = {}
        """Busy extents that were dropped meanwhile: who is busy with one removes its file in the end."""
        self._loaded = asyncio.Event()
        self.left_out: list[LeftOut] = []

    @property
    def shelves(self) -> list[Shelf]:
        return list(self._shelves.values())

    @property
    def is_loaded(self) -> bool:
        return self._loaded.is_set()

    def is_up(self, shelf: Shelf) -> bool:
        """Whether blocks are written there now."""
        return self._clock() >= shelf.rests_until

    def is_present(self, key: ExtentKey, place: int) -> bool:
        """Whether the extent's block `place` lies on a device that is in use."""
        extent = self._index.extent(key)
        return extent is not None and bool(extent.present >> place & 1) and extent.device in self._shelves

    def can_keep(self) -> bool:
        return any(self.is_up(shelf) for shelf in self._shelves.values())

    async def add_all(self, devices: Iterable[DeviceSettings]) -> None:
        """Bring all devices into service that can be used. A broken one is named, and the others serve."""
        for device in devices:
            try:
                await self.add(device)
            except StoreError as error:
                log.error("device %s is left out: %s", device.path, error)
                self.left_out.append(LeftOut(device, str(error)))
        self._index.retire_devices(self._shelves.keys())
        self._board.raise_devices_version()

    async def add(self, settings: DeviceSettings) -> None:
        """Bring a device into service. Raises `StoreError` if its folder can't be used."""
        folder = DeviceFolder(settings.path)
        identity = await asyncio.to_thread(folder.identify)
        if any(shelf.identity == identity for shelf in self._shelves.values()):
            raise StoreError(f"{settings.path}: is the same device ({identity}) as another one in the settings")
        number = self._index.register_device(DeviceRecord(identity, settings.path, settings.tier))
        self._shelves[number] = Shelf(number, settings, folder, identity)
        self._board.raise_devices_version()

    async def load(self) -> None:
        """Learn from the index what lies where. Serving goes on meanwhile; nothing new is kept until it is done."""
        doubtful: list[Change] = []
        for batch in self._index.scan_extents(_LOAD_BATCH):
            for key, extent in batch:
                shelf = self._shelves.get(extent.device)
                if shelf is None:
                    continue
                if self._slots.restore(extent.slot, key, extent.device):
                    shelf.eviction.admit(extent.slot, _name(key), extent.used_bytes)
                else:
                    doubtful.append(DropExtent(key))
            await asyncio.sleep(0)
        self._slots.settle()
        if doubtful:
            log.warning("%d extents share a slot and are given up", len(doubtful))
            await self._forget_dropped(await self._index.apply(*doubtful))
        self._loaded.set()
        for shelf in self._shelves.values():
            # A device whose capacity was lowered in the settings is brought below it before anything else.
            with contextlib.suppress(StoreError):
                async with shelf.room:
                    await self._make_room(shelf, 0)

    async def sweep(self) -> int:
        """Remove files that the index does not know: what a killed appliance was just writing. Returns how many."""
        await self._loaded.wait()
        removed = 0
        for shelf in self.shelves:
            try:
                # A large disk takes its time to list, and nobody waits for it.
                listing = asyncio.get_running_loop().run_in_executor(shelf.threads, _listed, shelf.folder)
                keys = await listing
                for number, key in enumerate(keys):
                    if number % 100 == 99:
                        await asyncio.sleep(0)
                    extent = self._index.extent(key)
                    known = extent is not None and extent.device == shelf.number
                    if not known and key not in self._busy:
                        async with self._alone(key):
                            await self._unlink(shelf, key)
                        removed += 1
            except StoreError as error:
                self._failed(shelf, error)
        return removed

    async def keep(self, block: Keeping) -> bool:
        """Put a block on a device and into the index. False if it could not be kept; the reason is logged."""
        if not self._loaded.is_set():
            return False
        number, place = divmod(block.block, EXTENT_BLOCKS)
        key = extent_key(block.key, block.record.generation, number)
        async with self._alone(key):
            for shelf in self._candidates(key):
                if await self._keep_on(shelf, key, place, block):
                    return True
        return False

    async def put(self, key: ObjectKey, record: ObjectRecord, *, replaces: bool) -> None:
        """Remember an object. With `replaces`, extents of its other generations go."""
        changes: list[Change] = [DropObject(key, unless=record.generation)] if replaces else []
        dropped = await self._index.apply(*changes, PutObject(key, record))
        self._board.raise_stamp(key)
        await self._forget_dropped(dropped)

    async def drop(self, keys: Iterable[ObjectKey]) -> None:
        """Forget objects and everything held of them. When this returns, no worker serves them any more."""
        listed = list(keys)
        dropped = await self._index.apply(*(DropObject(key) for key in listed))
        for key in listed:
            self._board.raise_stamp(key)
        await self._forget_dropped(dropped)

    async def lose(self, key: ExtentKey, slot: int, reason: str) -> None:
        """An extent's file is not what the index says: forget it, so that it is fetched anew."""
        log.warning("extent %s is lost: %s", key.hex(), reason)
        async with self._alone(key):
            dropped = await self._index.apply(DropExtent(key, slot))
            self._board.raise_stamp(key)
            await self._forget_dropped(dropped, alone_with=key)

    def touch(self, slots: Iterable[int]) -> None:
        for slot in slots:
            if self._slots.key_of(slot) is not None:
                shelf = self._shelves.get(self._slots.device_of(slot))
                if shelf is not None:
                    shelf.eviction.touch(slot)

    def close(self) -> None:
        for shelf in self._shelves.values():
            shelf.threads.shutdown(wait=False, cancel_futures=True)

    @contextlib.asynccontextmanager
    async def _alone(self, key: ExtentKey) -> AsyncIterator[None]:
        """Nobody else writes or removes this extent's file meanwhile."""
        while (busy := self._busy.get(key)) is not None:
            await asyncio.shield(busy)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._busy[key] = done
        try:
            yield
        finally:
            while shelves := self._left_behind.pop(key, None):
                for shelf in shelves:
                    await self._remove_file(shelf, key)
            del self._busy[key]
            done.set_result(None)

    def _candidates(self, key: ExtentKey) -> list[Shelf]:
        """Where to try, in order: where the extent lies already, else by rendezvous over all that are up."""
        extent = self._index.extent(key)
        home = None if extent is None else self._shelves.get(extent.device)
        if home is not None and self.is_up(home):
            return [home]
        up = {n: float(s.settings.capacity) for n, s in self._shelves.items() if self.is_up(s)}
        return [self._shelves[number] for number in ranked_devices(key, up)[:2]]

    async def _keep_on(self, shelf: Shelf, key: ExtentKey, place: int, block: Keeping) -> bool:
        extent = self._held_on(shelf, key)
        slot = self._slots.take(key, shelf.number) if extent is None else extent.slot
        size = on_disk(len(block.content))
        self._pinned.add(slot)
        try:
            async with shelf.room:
                if not self.is_up(shelf):
                    return False  # It failed while we stood in line.
                await self._make_room(shelf, size)
                shelf.eviction.admit(slot, _name(key), size)
                # Looked at again: while we stood in line it may have gone to make room for another.
                holds = _held_bytes(self._held_on(shelf, key), key, block.record.size)
            if not holds:
                # What a killed appliance was just writing, or what was just evicted.
                await self._on(shelf, lambda: shelf.folder.remove(key))
            offset = place * BLOCK_BYTES
            crc = await self._on(shelf, lambda: shelf.folder.write_block(key, offset, block.content, holds))
            if not block.is_wanted():
                return False
            dropped = await self._index.apply(
                PutObject(block.key, block.record), AddBlock(key, shelf.number, slot, place, crc, size)
            )
            self._board.raise_stamp(block.key)
            await self._forget_dropped(dropped, alone_with=key)
        except DeviceFull as error:
            log.info("%s", error)
            return False
        except ExtentDamaged as error:
            log.error("extent %s is given up: %s", key.hex(), error)
            with contextlib.suppress(IndexUnusable):
                await self._forget_dropped(await self._index.apply(DropExtent(key, slot)), alone_with=key)
            return False
        except IndexUnusable as error:
            log.error("%s", error)
            return False
        except StoreError as error:
            self._failed(shelf, error)
            return False
        finally:
            self._pinned.discard(slot)
            await self._settle(shelf, key, slot)
        return True

    def _held_on(self, shelf: Shelf, key: ExtentKey) -> ExtentRecord | None:
        """What the index says of an extent that lies on this shelf; None if it does not."""
        extent = self._index.extent(key)
        if extent is None or extent.device != shelf.number or self._slots.key_of(extent.slot) != key:
            return None
        return extent

    async def _settle(self, shelf: Shelf, key: ExtentKey, slot: int) -> None:
        """After a write, whatever became of it: what is reserved, and what lies on the disk, is what the index says."""
        extent = self._index.extent(key)
        if extent is not None and extent.device == shelf.number and extent.slot == slot:
            shelf.eviction.resize(slot, extent.used_bytes)
            return
        shelf.eviction.forget(slot)
        if self._slots.key_of(slot) == key:
            self._slots.give_back(slot)
        await self._unlink(shelf, key)

    async def _make_room(self, shelf: Shelf, size: int) -> None:
        victims = [(slot, self._slots.key_of(slot)) for slot in shelf.eviction.victims(size, self._pinned)]
        changes = [DropExtent(key, slot) for slot, key in victims if key is not None]
        if changes:
            try:
                dropped = await self._index.apply(*changes)
            except StoreError:
                # They are where they were, and go on taking their room.
                for slot, key in victims:
                    extent = None if key is None else self._held_on(shelf, key)
                    if key is not None and extent is not None:
                        shelf.eviction.admit(slot, _name(key), extent.used_bytes)
                raise
            for key, extent in dropped:
                if extent.slot in self._pinned and self._slots.key_of(extent.slot) == key:
                    # Somebody came to write to it during the commit, and stands in line for the room that we hold.
                    await self._unlink(shelf, key)
            await self._forget_dropped(dropped)
        if shelf.eviction.free_bytes < size:
            raise DeviceFull(f"{shelf.settings.path}: no room for {size} bytes can be made")

    async def _forget_dropped(self, dropped: Dropped, alone_with: ExtentKey = b"") -> None:
        """After the commit: tell the workers, give back slots and remove files."""
        leaving: list[tuple[Shelf, ExtentKey]] = []
        for key, extent in dropped:
            self._board.raise_stamp(key)
            shelf = self._shelves.get(extent.device)
            if shelf is None:
                continue
            if self._slots.key_of(extent.slot) == key:
                if extent.slot in self._pinned:
                    continue  # Being written: its writer settles it.
                shelf.eviction.forget(extent.slot)
                self._slots.give_back(extent.slot)
            leaving.append((shelf, key))
        for shelf, key in leaving:
            if key == alone_with:
                await self._remove_file(shelf, key)
            elif key in self._busy:
                # Not waited for: who is busy with it may be waiting for the room that we are making.
                self._left_behind.setdefault(key, set()).add(shelf)
            else:
                async with self._alone(key):
                    await self._remove_file(shelf, key)

    async def _remove_file(self, shelf: Shelf, key: ExtentKey) -> None:
        """Remove a dropped extent's file, unless it was fetched and kept anew meanwhile: then the file is a new one."""
        if self._held_on(shelf, key) is None:
            await self._unlink(shelf, key)

    async def _unlink(self, shelf: Shelf, key: ExtentKey) -> None:
        try:
            await self._on(shelf, lambda: shelf.folder.remove(key))
        except StoreError as error:
            self._failed(shelf, error)

    async def _on(self, shelf: Shelf, work: Callable[[], T]) -> T:
        """Do it in one of the device's threads. Raises `StoreError` if it fails or the device does not answer."""
        try:
            async with asyncio.timeout(_DEADLINE):
                return await asyncio.get_running_loop().run_in_executor(shelf.threads, work)
        except TimeoutError as error:
            raise StoreError(f"{shelf.settings.path}: does not answer for {_DEADLINE:.0f} s") from error

    def _failed(self, shelf: Shelf, error: Exception) -> None:
        shelf.errors += 1
        shelf.rests_until = self._clock() + _REST_AFTER_ERROR
        log.error("device %s rests for %.0f s: %s", shelf.settings.path, _REST_AFTER_ERROR, error)


def _listed(folder: DeviceFolder) -> list[ExtentKey]:
    return list(folder.extents())


def _held_bytes(extent: ExtentRecord | None, key: ExtentKey, size: int) -> int:
    """How long an extent's file is at least, by what the index says of it; `size` is its object's."""
    if extent is None:
        return 0
    start = int.from_bytes(key[24:28], "big") * EXTENT_BYTES
    return min(extent.present.bit_length() * BLOCK_BYTES, size - start)


def _name(key: ExtentKey) -> int:
    """64 well-mixed bits: the object's hash with the extent number folded in."""
    return (int.from_bytes(key[:8], "big") ^ int.from_bytes(key[24:28], "big") * 0x9E3779B97F4A7C15) & (2**64 - 1)
