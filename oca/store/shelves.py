"""All devices of the appliance together: where blocks are put, what must go for them, and what the index says of it.

The order of steps is the whole point:

- keep: victims leave the index and then the disk, room is reserved, bytes are written and synced, then the bit is set;
- move: the copy is written, compared and synced, then the record says where it is, then the old place is freed;
- drop: the record leaves the index, stamps are raised, then the file goes.

So nothing is marked present that is not durable, the files never outgrow the capacity, and a place is never reused
while a write to it may be under way: extents that are being written are pinned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from itertools import islice
from typing import Final

import msgspec

from oca.cache.health import Fault, Signal, Standing, signal_of
from oca.cache.keys import (
    BLOCK_BYTES,
    EXTENT_BLOCKS,
    EXTENT_BYTES,
    ExtentKey,
    ObjectKey,
    extent_key,
    extent_name,
    group_of,
)
from oca.cache.placement import ranked_devices
from oca.cache.policy import AdmitReason, Level, Policy
from oca.cache.records import (
    ExtentRecord,
    Label,
    ObjectRecord,
    encode,
    on_disk,
    with_block,
)
from oca.cache.slots import Slots
from oca.errors import DeviceFault, DeviceFull, ExtentDamaged, IndexUnusable, OrderRefused, StoreError
from oca.store.board import Board
from oca.store.device import DeviceFolder
from oca.store.index import (
    AddBlock,
    AdoptExtent,
    Change,
    DropCopy,
    DropExtent,
    DropObject,
    Dropped,
    Index,
    Pledge,
    PutObject,
)
from oca.store.labels import joined
from oca.store.shelf import MEMORY, REMOVE, Shelf

log = logging.getLogger(__name__)

_RESTING: Final = 1024
_LOAD_BATCH: Final = 2000
_FORGET_BATCH: Final = 500
_LISTING: Final = 600.0
_WHEREABOUTS: Final = 5.0
"""Seconds for a look whether a device is still where it was."""


class Promise(msgspec.Struct, frozen=True):
    """What nightly fill was promised of an object."""

    until: float
    """Seconds since 1970 before which it is not evicted."""
    tier: str | None = None
    """Where it is to be put; None: on the slowest tier there is, which has most room."""


class Keeping(msgspec.Struct, frozen=True):
    """A block to be kept."""

    key: ObjectKey
    record: ObjectRecord
    block: int
    content: memoryview
    is_wanted: Callable[[], bool]
    """False once the object was purged: asked after the write, before the commit."""
    promise: Promise | None = None


class Shelves:
    def __init__(self, index: Index, board: Board, clock: Callable[[], float], pledge_share: float = 1.0) -> None:
        self._index = index
        self._board = board
        self._clock = clock
        self._pledge_share = pledge_share
        self.slots = Slots(_RESTING)
        self.policy = Policy()
        self.admissions: Counter[AdmitReason] = Counter()
        self.written: Counter[str] = Counter()
        """Bytes of blocks that were kept, by tier."""
        self.unpledged = 0
        """Blocks of fill that are kept without a pledge: the device had no more to give."""
        self._shelves: dict[int, Shelf] = {}
        self._pinned: set[int] = set()
        """Slots that are being written to or moved: they can't be evicted."""
        self._busy: dict[ExtentKey, asyncio.Future[None]] = {}
        """Extents whose file is being written or removed."""
        self._left_behind: dict[ExtentKey, set[Shelf]] = {}
        """Busy extents that were dropped meanwhile: who is busy with one removes its file in the end."""
        self._purged: set[ObjectKey] = set()
        """What was purged while devices are taken over: it does not come in with them. Prefixes likewise."""
        self._purged_prefixes: set[str] = set()
        self._loaded = asyncio.Event()

    @property
    def shelves(self) -> list[Shelf]:
        """All devices that are known, also those that can't be used now."""
        return list(self._shelves.values())

    @property
    def is_loaded(self) -> bool:
        return self._loaded.is_set()

    def shelf(self, number: int) -> Shelf | None:
        return self._shelves.get(number)

    def is_present(self, key: ExtentKey, place: int) -> bool:
        """Whether the extent's block `place` lies on a device that is read from."""
        try:
            extent = self._index.extent(key)
        except IndexUnusable:
            return False
        if extent is None or not extent.present >> place & 1:
            return False
        shelf = self._shelves.get(extent.device)
        return shelf is not None and shelf.can_read

    @property
    def takes_over(self) -> bool:
        """Whether more may be held than the index says: a device from elsewhere is still being taken over."""
        return any(shelf.foreign for shelf in self._shelves.values())

    def can_keep(self) -> bool:
        return any(shelf.can_write for shelf in self._shelves.values())

    def put_in(self, shelf: Shelf) -> None:
        """From now on this device counts. Its record is in the index already."""
        self._shelves[shelf.number] = shelf
        is_flash = shelf.level in (Level.NVME, Level.SSD)
        self.policy.add_shelf(
            shelf.number, shelf.level, shelf.capacity, shelf.dwpd * shelf.capacity if is_flash else None
        )
        self.noted(shelf)

    def take_out(self, shelf: Shelf) -> None:
        """An empty device goes."""
        del self._shelves[shelf.number]
        self.policy.remove_shelf(shelf.number)
        shelf.close()

    def noted(self, shelf: Shelf) -> None:
        """Something changed about a device: tell index, workers and policy."""
        self._index.put_device(shelf.number, shelf.record())
        self._board.raise_devices_version()
        self.policy.open_shelf(shelf.number, shelf.can_write)

    async def load(self) -> None:
        """Learn from the index what lies where. Serving goes on meanwhile; nothing new is kept until it is done."""
        doubtful: list[Change] = []
        in_memory = await self._in_memory()
        now = self._clock()
        for batch in self._index.scan_extents(_LOAD_BATCH):
            for key, extent in batch:
                if self._shelves.get(extent.device) is None or (
                    extent.device in in_memory and key not in in_memory[extent.device]
                ):
                    doubtful.append(DropCopy(key, extent.device, extent.slot))
                elif self.slots.restore(extent.slot, key):
                    self._place(extent.slot, key, extent, now)
                else:
                    log.warning("extent %s shares slot %d with another and is given up", key.hex(), extent.slot)
                    doubtful.append(DropExtent(key))
            await asyncio.sleep(0)
        self.slots.settle()
        if doubtful:
            log.info("%d extents lie on no device that is known and are given up", len(doubtful))
            await self._forget_all(doubtful)
        self._loaded.set()
        for shelf in self._shelves.values():
            # A device whose capacity was lowered in the settings is brought below it before anything else.
            with contextlib.suppress(StoreError):
                async with shelf.room:
                    await self._make_room(shelf, 0)

    async def loaded(self) -> None:
        await self._loaded.wait()

    async def _in_memory(self) -> dict[int, set[ExtentKey]]:
        """What survived on the tmpfs: nothing, if the box was started anew."""
        found: dict[int, set[ExtentKey]] = {}
        for shelf in self.shelves:
            if shelf.tier == MEMORY:
                with contextlib.suppress(StoreError):
                    found[shelf.number] = await shelf.do(lambda shelf=shelf: set(shelf.folder.extents()))  # type: ignore[misc]
        return found

    def _place(self, slot: int, key: ExtentKey, extent: ExtentRecord, now: float) -> None:
        """Tell the policy of an extent that lies there already."""
        name = extent_name(key)
        if extent.below is not None and extent.below in self._shelves:
            self.policy.place(slot, name, extent.group, extent.below, extent.used_bytes, now, is_written=False)
            self.policy.move(slot, extent.device, now, keeps_below=True, is_written=False)
        else:
            self.policy.place(slot, name, extent.group, extent.device, extent.used_bytes, now, is_written=False)
        if extent.pledged_until > now:
            self.policy.pledge(slot, extent.pledged_until)

    async def sweep(self, shelf: Shelf) -> int:
        """Remove files that the index does not know: what a killed appliance was just writing. Returns how many."""
        await self._loaded.wait()
        removed = 0
        try:
            # In parts: a large disk takes its time to list, and ten million names are a gigabyte.
            for first in range(256):
                listing = partial(_listed, shelf.folder, first)
                for number, key in enumerate(await shelf.do(listing, _LISTING)):
                    if number % 100 == 99:
                        await asyncio.sleep(0)
                    if self._lies_on(shelf, key) or key in self._busy:
                        continue
                    async with self._alone(key):
                        if not self._lies_on(shelf, key):
                            await self._unlink(shelf, key)
                    removed += 1
        except StoreError as error:
            self.failed(shelf, error)
        return removed

    def _lies_on(self, shelf: Shelf, key: ExtentKey) -> bool:
        extent = self._index.extent(key)
        return extent is not None and shelf.number in (extent.device, extent.below)

    async def keep(self, block: Keeping) -> bool:
        """Put a block on a device and into the index. False if it is not kept; the reason is counted or logged."""
        if not self._loaded.is_set():
            return False
        number, place = divmod(block.block, EXTENT_BLOCKS)
        key = extent_key(block.key, block.record.generation, number)
        async with self._alone(key):
            for shelf in self._candidates(key, block):
                if await self._keep_on(shelf, key, place, block):
                    return True
        return False

    async def put(self, key: ObjectKey, record: ObjectRecord, *, replaces: bool) -> None:
        """Remember an object. With `replaces`, extents of its other generations go."""
        changes: list[Change] = [DropObject(key, unless=record.generation)] if replaces else []
        dropped = await self._index.apply(*changes, PutObject(key, record))
        self._board.raise_stamp(key)
        await self._forget_dropped(dropped)

    def drop_below(self, prefix: str) -> None:
        """What begins with `prefix` is being purged: it is not taken over from devices that come from elsewhere."""
        if self.takes_over:
            self._purged_prefixes.add(prefix)

    async def drop(self, keys: Iterable[ObjectKey]) -> None:
        """Forget objects and everything held of them. When this returns, no worker serves them any more."""
        listed = list(keys)
        if self.takes_over:
            self._purged.update(listed)
        dropped = await self._index.apply(*(DropObject(key) for key in listed))
        for key in listed:
            self._board.raise_stamp(key)
        await self._forget_dropped(dropped)

    async def lose(self, key: ExtentKey, slot: int, reason: str, device: int, fault: Fault) -> None:
        """An extent's file on a device is not what the index says: forget it there, so that it is read from its copy
        or fetched anew. If it is the device that is gone, the index goes on knowing what lies on it.
        """
        extent = self._index.extent(key)
        if device < 0 and extent is not None:
            device = extent.device  # A worker that is older than we are does not say which.
        shelf = self._shelves.get(device)
        if shelf is not None and shelf.can_read:
            async with self._alone(key):
                await self.lose_alone(key, slot, reason, shelf, fault)

    async def lose_alone(self, key: ExtentKey, slot: int, reason: str, shelf: Shelf, fault: Fault) -> None:
        """As `lose`, for who is alone with the extent already."""
        extent = self._index.extent(key)
        if extent is None or extent.slot != slot or shelf.number not in (extent.device, extent.below):
            return  # It was evicted or moved while somebody opened it.
        log.warning("extent %s is lost on %s: %s", key.hex(), shelf.path, reason)
        if fault in (Fault.MISSING, Fault.SHORT) and not await self.is_in_place(shelf):
            return
        shelf.errors[fault] += 1
        signal = signal_of(fault)
        if signal is not None:
            self.signal(shelf, signal, reason)
        dropped = await self._index.apply(DropCopy(key, shelf.number, slot))
        self._board.raise_stamp(key)
        await self._forget_dropped(dropped, alone_with=key)

    async def read_copy(self, key: ExtentKey, place: int, length: int) -> memoryview | None:
        """A block from the copy below, while the device it is read from does not answer. None if there is none."""
        extent = self._index.extent(key)
        below = None if extent is None or extent.below is None else self._shelves.get(extent.below)
        if extent is None or below is None or not below.can_read or not extent.present >> place & 1:
            return None
        try:
            return await below.do(
                lambda: below.folder.read_block(key, place * BLOCK_BYTES, length, extent.sum_of(place))
            )
        except ExtentDamaged as error:
            await self.lose(key, extent.slot, str(error), below.number, Fault(error.fault))
        except StoreError as error:
            self.failed(below, error)
        return None

    async def adopt(self, shelf: Shelf, found: Iterable[tuple[ExtentKey, Label]]) -> int:
        """Extents that were found on a device are held from now on, as their labels say; who calls is alone with them.
        Returns how many are: others are held better already, or were purged since.
        """
        changes = [change for key, label in found if (change := self._adoption(shelf, key, label)) is not None]
        dropped: Dropped = []
        try:
            dropped = await self._index.apply(*changes)
        finally:
            adopted = sum([self._settle_adopted(change) for change in changes])
        for change in changes:
            self._board.raise_stamp(change.key)
        await self._forget_dropped(dropped)
        return adopted

    def _adoption(self, shelf: Shelf, key: ExtentKey, label: Label) -> AdoptExtent | None:
        if (
            shelf.wish == REMOVE
            or key[:16] in self._purged
            or label.object.path.startswith(tuple(self._purged_prefixes))
        ):
            return None
        known = self._index.extent(key)
        slot = self.slots.take(key) if known is None else known.slot
        extent = msgspec.structs.replace(label.extent, device=shelf.number, slot=slot, below=None)
        home = None if known is None else self._shelves.get(known.device)
        if known is None:
            self._pinned.add(slot)
            self._place(slot, key, extent, self._clock())
        elif home is not None and home.can_read:
            extent = joined(known, extent, lambda number: self._shelves[number].level)
        return None if extent == known else AdoptExtent(key, known, extent, label.object)

    def _settle_adopted(self, change: AdoptExtent) -> bool:
        """The policy believes what the index says now. True if the extent was taken."""
        key, slot = change.key, change.extent.slot
        extent = self._index.extent(key)
        if change.known is None:
            self._pinned.discard(slot)
        if extent is not None and extent.slot == slot:
            if (self.policy.shelf_of(slot), self.policy.below_of(slot)) != (extent.device, extent.below):
                self.policy.forget(slot)
                self._place(slot, key, extent, self._clock())
            self.policy.resize(slot, extent.used_bytes)
            return extent == change.extent
        if change.known is None:
            self.policy.forget(slot)
            if self.slots.key_of(slot) == key:
                self.slots.give_back(slot)
        return False

    async def taken_over(self, shelf: Shelf) -> None:
        """Everything of a device from elsewhere that can be used is held now: from here on it is one of ours."""
        shelf.foreign = False
        if not self.takes_over:
            self._purged.clear()
            self._purged_prefixes.clear()
        self.noted(shelf)
        async with shelf.room:
            await self._make_room(shelf, 0)

    async def pledge(self, key: ObjectKey, generation: int, until: float) -> None:
        """What is held of an object is not evicted before `until`; 0: it is again like everything else.

        Raises `OrderRefused` if that were more of a device than may be pledged.
        """
        extents = self._index.extents_of(key, generation)
        if until:
            more: Counter[int] = Counter()
            for _, extent in extents:
                if extent.pledged_until <= self._clock():
                    more[extent.device] += extent.used_bytes
            for number, size in more.items():
                shelf = self._shelves.get(number)
                if shelf is not None and not self.may_pledge(shelf, size):
                    raise OrderRefused(
                        409,
                        f"{shelf.path}: no more than {self._pledge_share:.0%} of a device may be pledged "
                        "(store.pledge_share)",
                    )
        await self._index.apply(Pledge(key, generation, until))
        for _, extent in extents:
            self.policy.pledge(extent.slot, until or self._clock())

    def may_pledge(self, shelf: Shelf, size: int) -> bool:
        """Whether so much more of a device may be kept from eviction."""
        return self.policy.pledged_bytes(shelf.number) + size <= self._pledge_share * shelf.capacity

    def _pledged_until(self, shelf: Shelf, block: Keeping, size: int) -> float:
        """What is more than may be pledged is kept like everything else."""
        if block.promise is None:
            return 0.0
        if self.may_pledge(shelf, size):
            return block.promise.until
        self.unpledged += 1
        return 0.0

    @property
    def pledged_share(self) -> float:
        """How much of the devices' room is pledged, from 0 to 1."""
        capacity = sum(shelf.capacity for shelf in self._shelves.values())
        return sum(self.policy.pledged_bytes(number) for number in self._shelves) / capacity if capacity else 0.0

    def touch(self, slots: Iterable[int]) -> None:
        now = self._clock()
        for slot in slots:
            self.policy.touch(slot, now)

    def close(self) -> None:
        for shelf in self._shelves.values():
            shelf.close()

    # --- Health -------------------------------------------------------------------------------------------------------

    def signal(self, shelf: Shelf, signal: Signal, detail: str = "", count: int = 1) -> None:
        """Something was heard of a device. What it changes is logged, persisted and acted upon."""
        change = shelf.health.signal(self._clock(), signal, count)
        if detail:
            shelf.detail = detail
        if change is None:
            return
        if change.after is Standing.ONLINE:
            log.warning("device %s (%s) is online again", shelf.path, shelf.identity)
        else:
            log.error(
                "device %s (%s) is %s: %s: %s", shelf.path, shelf.identity, change.after, change.reason, shelf.detail
            )
        if not shelf.can_read:
            shelf.let_go()
        self.noted(shelf)

    def failed(self, shelf: Shelf, error: StoreError) -> None:
        """A write to a device, or a removal, failed."""
        log.warning("device %s: %s", shelf.path, error)
        if not isinstance(error, DeviceFault) or not shelf.can_read:
            return  # Our own shortage, of descriptors or memory; or it was let go under the work.
        fault = Fault(error.fault)
        shelf.errors[fault] += 1
        signal = {Fault.IO: Signal.WRITE_ERROR, Fault.MISSING: Signal.VANISHED}.get(fault) or signal_of(fault)
        self.signal(shelf, signal or Signal.WRITE_ERROR, str(error))

    async def is_in_place(self, shelf: Shelf) -> bool:
        """Whether the device is still mounted where it was. What is wrong is signalled."""
        try:
            fault = await shelf.watcher.do(lambda: shelf.folder.whereabouts(shelf.identity), _WHEREABOUTS)
        except DeviceFault as error:
            shelf.errors[Fault(error.fault)] += 1
            self.signal(shelf, signal_of(Fault(error.fault)) or Signal.UNUSABLE, str(error))
            return False
        except StoreError as error:
            log.warning("device %s: can't be looked at: %s", shelf.path, error)
            return True
        if fault is None:
            return True
        shelf.errors[fault] += 1
        sentence = {
            Fault.VANISHED: "nothing is mounted there, or the folder is empty",
            Fault.WRONG_DISK: "another device is mounted there",
        }.get(fault, "")
        self.signal(shelf, signal_of(fault) or Signal.UNUSABLE, f"{shelf.path}: {sentence}")
        return False

    # --- One extent at a time -----------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def alone(self, key: ExtentKey, slot: int) -> AsyncIterator[None]:
        """Nobody else writes, moves, evicts or removes this extent meanwhile."""
        async with self._alone(key):
            self._pinned.add(slot)
            try:
                yield
            finally:
                self._pinned.discard(slot)
                extent = self._index.extent(key)
                if (extent is None or extent.slot != slot) and self.slots.key_of(slot) == key:
                    self.policy.forget(slot)  # It went meanwhile.
                    self.slots.give_back(slot)

    @contextlib.asynccontextmanager
    async def alone_with(self, keys: Iterable[ExtentKey]) -> AsyncIterator[None]:
        """Nobody else writes or removes the files of these extents meanwhile."""
        async with contextlib.AsyncExitStack() as stack:
            # In one order, so that two who want the same do not wait for each other.
            for key in sorted(keys):
                await stack.enter_async_context(self._alone(key))
            yield

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

    def _candidates(self, key: ExtentKey, block: Keeping) -> list[Shelf]:
        """Where to try, in order: where the extent lies already, else where the policy admits it, by rendezvous."""
        extent = self._index.extent(key)
        home = None if extent is None else self._shelves.get(extent.device)
        if home is not None and home.can_read:
            # Of a device that is read but not written nothing is given up for one block more.
            return [home] if home.can_write else []
        if block.promise is not None:
            return self._promised(key, block.promise)
        start = block.block // EXTENT_BLOCKS * EXTENT_BYTES
        expected = min(EXTENT_BYTES, on_disk(block.record.size - start))
        group = group_of(block.record.path, block.record.size)
        admission = self.policy.admit(extent_name(key), group, expected, self._clock())
        self.admissions[admission.reason] += 1
        if admission.level is None:
            return []
        return self.ranked(key, admission.level)[:2]

    def _promised(self, key: ExtentKey, promise: Promise) -> list[Shelf]:
        """What fill brings was chosen by a forecast: it passes no probation."""
        levels = sorted({s.level for s in self._shelves.values() if s.can_write and s.tier != MEMORY}, reverse=True)
        if promise.tier is not None:
            wanted = Level[promise.tier.upper()]
            levels.sort(key=lambda level: abs(level - wanted))
        return [shelf for level in levels for shelf in self.ranked(key, level)[:2]]

    def ranked(self, key: ExtentKey, level: Level) -> list[Shelf]:
        """Devices of a tier that are written to, by weighted rendezvous."""
        weights = {n: float(s.capacity) for n, s in self._shelves.items() if s.level is level and s.can_write}
        return [self._shelves[number] for number in ranked_devices(key, weights)]

    async def _keep_on(self, shelf: Shelf, key: ExtentKey, place: int, block: Keeping) -> bool:
        extent = self._held_on(shelf, key)
        slot = self.slots.take(key) if extent is None else extent.slot
        size = on_disk(len(block.content))
        group = group_of(block.record.path, block.record.size)
        self._pinned.add(slot)
        try:
            async with shelf.room:
                if not shelf.can_write:
                    return False  # It failed while we stood in line.
                await self._make_room(shelf, size)
                self.policy.place(slot, extent_name(key), group, shelf.number, size, self._clock())
                # Looked at again: while we stood in line it may have gone to make room for another.
                extent = self._held_on(shelf, key)
                holds = _held_bytes(extent, key, block.record.size)
            if not holds:
                # What a killed appliance was just writing, or what was just evicted.
                await shelf.do(lambda: shelf.folder.remove(key))
            until = self._pledged_until(shelf, block, size)
            growing = extent or ExtentRecord(shelf.number, slot, 0, b"", 0, group, pledged_until=until)

            def label(crc: int) -> bytes:
                return encode(Label(block.record, with_block(growing, place, crc, size)))

            offset = place * BLOCK_BYTES
            crc = await shelf.do(lambda: shelf.folder.write_block(key, offset, block.content, holds, label))
            if not block.is_wanted():
                return False
            dropped = await self._index.apply(
                PutObject(block.key, block.record),
                AddBlock(key, shelf.number, slot, place, crc, size, group, until),
            )
            self._board.raise_stamp(block.key)
            if until:
                self.policy.pledge(slot, until)
            self.written[shelf.tier] += size
            self.signal(shelf, Signal.GOOD)
            await self._forget_dropped(dropped, alone_with=key)
        except DeviceFull as error:
            log.info("%s", error)
            return False
        except ExtentDamaged as error:
            with contextlib.suppress(IndexUnusable):
                await self.lose_alone(key, slot, str(error), shelf, Fault(error.fault))
            return False
        except IndexUnusable as error:
            log.error("%s", error)
            return False
        except StoreError as error:
            self.failed(shelf, error)
            return False
        finally:
            self._pinned.discard(slot)
            await self._settle(shelf, key, slot)
        return True

    def _held_on(self, shelf: Shelf, key: ExtentKey) -> ExtentRecord | None:
        """What the index says of an extent that is read from this shelf; None if it is not."""
        extent = self._index.extent(key)
        if extent is None or extent.device != shelf.number or self.slots.key_of(extent.slot) != key:
            return None
        return extent

    async def _settle(self, shelf: Shelf, key: ExtentKey, slot: int) -> None:
        """After a write, whatever became of it: what is reserved, and what lies on the disk, is what the index says."""
        extent = self._index.extent(key)
        if extent is not None and extent.slot == slot:
            self._agree(slot, extent)
            if shelf.number not in (extent.device, extent.below):
                await self._unlink(shelf, key)
            return
        self.policy.forget(slot)
        if self.slots.key_of(slot) == key:
            self.slots.give_back(slot)
        await self._unlink(shelf, key)

    def _agree(self, slot: int, extent: ExtentRecord) -> None:
        """Make the policy believe what the index says of an extent that is there."""
        if self.policy.shelf_of(slot) != extent.device:
            self.policy.move(slot, extent.device, self._clock(), keeps_below=extent.below is not None, is_written=False)
        if extent.below is None and self.policy.below_of(slot) is not None:
            self.policy.drop_below(slot)
        self.policy.resize(slot, extent.used_bytes)

    # --- Room ---------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def room_for(self, shelf: Shelf, size: int) -> AsyncIterator[None]:
        """Room for something that is moving there is kept free. Raises `DeviceFull`."""
        async with shelf.room:
            await self._make_room(shelf, size)
            shelf.reserved_bytes += size
        try:
            yield
        finally:
            shelf.reserved_bytes -= size

    async def _make_room(self, shelf: Shelf, size: int) -> None:
        needed = size + shelf.reserved_bytes
        changes: list[Change] = []
        victims: list[tuple[int, ExtentKey]] = []
        for slot in self.policy.victims(shelf.number, needed, self._pinned, self._clock()):
            key = self.slots.key_of(slot)
            if key is not None:
                victims.append((slot, key))
                changes.append(DropCopy(key, shelf.number, slot))
        if changes:
            try:
                dropped = await self._index.apply(*changes)
            except StoreError:
                # They are where they were, and go on taking their room.
                for slot, key in victims:
                    extent = self._held_on(shelf, key)
                    if extent is None:
                        continue
                    if self.policy.shelf_of(slot) is None:
                        self._place(slot, key, extent, self._clock())
                    else:
                        self._agree(slot, extent)
                raise
            for key, extent in dropped:
                if extent.slot in self._pinned and self.slots.key_of(extent.slot) == key:
                    # Somebody came to write to it during the commit, and stands in line for the room that we hold.
                    await self._unlink(shelf, key)
            await self._forget_dropped(dropped)
        if self.policy.free_bytes(shelf.number) < needed:
            raise DeviceFull(f"{shelf.path}: no room for {size} bytes can be made")

    async def _forget_all(self, changes: list[Change]) -> None:
        for first in range(0, len(changes), _FORGET_BATCH):
            await self._forget_dropped(await self._index.apply(*changes[first : first + _FORGET_BATCH]))

    async def _forget_dropped(self, dropped: Dropped, alone_with: ExtentKey = b"") -> None:
        """After the commit: tell the workers, give back slots and remove files."""
        leaving: list[tuple[Shelf, ExtentKey]] = []
        for key, extent in dropped:
            self._board.raise_stamp(key)
            remaining = self._index.extent(key)
            if remaining is not None and remaining.slot == extent.slot:
                self._agree(extent.slot, remaining)  # One of its copies went.
            elif self.slots.key_of(extent.slot) == key:
                if extent.slot in self._pinned:
                    # Being written or moved: who does so settles it, and removes what is left.
                    self._leave_behind(key, extent)
                    continue
                self.policy.forget(extent.slot)
                self.slots.give_back(extent.slot)
            for number in (extent.device, extent.below):
                shelf = None if number is None else self._shelves.get(number)
                if shelf is not None:
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

    def _leave_behind(self, key: ExtentKey, extent: ExtentRecord) -> None:
        for number in (extent.device, extent.below):
            if number is not None and (shelf := self._shelves.get(number)) is not None:
                self._left_behind.setdefault(key, set()).add(shelf)

    async def _remove_file(self, shelf: Shelf, key: ExtentKey) -> None:
        """Remove a dropped extent's file, unless it was fetched and kept anew meanwhile: then the file is a new one."""
        if not self._lies_on(shelf, key):
            await self._unlink(shelf, key)

    async def _unlink(self, shelf: Shelf, key: ExtentKey) -> None:
        if not shelf.can_read or shelf.wish == REMOVE:
            return  # What is left there is swept when it is back.
        try:
            await shelf.do(lambda: shelf.folder.remove(key))
        except StoreError as error:
            if isinstance(error, DeviceFault) and error.fault == Fault.READ_ONLY and not shelf.can_write:
                return
            self.failed(shelf, error)

    # --- What moves and leaves ----------------------------------------------------------------------------------------

    def slots_on(self, shelf: Shelf, most: int | None = None) -> list[int]:
        """Slots of extents of which something lies on a device: `most` of them, or all."""
        return list(islice(self.policy.slots_on(shelf.number), most))

    async def changed(self, dropped: Dropped, alone_with: ExtentKey) -> None:
        """A commit of the mover is through: workers look anew where the extent lies."""
        self._board.raise_stamp(alone_with)
        await self._forget_dropped(dropped, alone_with=alone_with)

    async def give_up(self, shelf: Shelf) -> int:
        """Forget everything that lies on a device, without touching it. Returns how many extents."""
        count = 0
        changes: list[Change] = []
        for slot in self.slots_on(shelf):
            key = self.slots.key_of(slot)
            if key is not None:
                changes.append(DropCopy(key, shelf.number, slot))
                count += 1
        await self._forget_all(changes)
        return count

    @property
    def in_use(self) -> list[Shelf]:
        """Devices that the operator has not removed."""
        return [shelf for shelf in self._shelves.values() if shelf.wish != REMOVE]


def _held_bytes(extent: ExtentRecord | None, key: ExtentKey, size: int) -> int:
    """How long an extent's file is at least, by what the index says of it; `size` is its object's."""
    if extent is None:
        return 0
    start = int.from_bytes(key[24:28], "big") * EXTENT_BYTES
    return min(extent.present.bit_length() * BLOCK_BYTES, size - start)


def _listed(folder: DeviceFolder, first: int) -> list[ExtentKey]:
    return list(folder.extents(first))
