"""The rack: which devices are in use. They come and go while the appliance serves, by command or by themselves.

| found at the path of a device | then |
|---|---|
| its own id | it is used as it was left |
| no id, and none was expected | it is new, and gets one |
| an id that the index does not know, and none was expected | it comes from elsewhere: what lies on it is taken over |
| no id, but one was expected | vanished: it is not used, and nothing is written to what lies there |
| another id than was expected | the wrong disk: likewise |

The last two wait for the right disk, or for the operator's word that another takes its place.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol

import msgspec

from oca.cache.health import Fault, Signal, Standing, box_health, signal_of
from oca.cache.policy import Level
from oca.cache.records import DeviceRecord
from oca.errors import DeviceFault, OrderRefused, StoreError
from oca.settings import Device as DeviceSettings
from oca.settings import Store as StoreSettings
from oca.settings import Tier
from oca.store.device import DeviceFolder
from oca.store.hands import Hands
from oca.store.index import Index
from oca.store.shelf import DRAIN, MEMORY, REMOVE, SERVE, Shelf
from oca.store.shelves import Shelves

log = logging.getLogger(__name__)

_LOOK: Final = 10.0
"""Seconds for a look at a device."""
_LOOK_AT_START: Final = 2.0
"""At the start viewers wait for it. A disk that needs longer, to spin up, is probed and comes in behind."""
WATCH: Final = 5.0
"""Seconds between two rounds of `Rack.look_after`."""
_PROBE: Final = 30.0
_STALLS: Final = 3
_ABSENCES: Final = frozenset({Fault.VANISHED, Fault.WRONG_DISK, Fault.UNUSABLE, Fault.STALLED})
"""Over as soon as the right device is found at a start."""
_LEAST_PROBATION: Final = 256 * 1024 * 1024
"""Memory for fewer than four extents is not worth a device."""


class LeftOut(msgspec.Struct, frozen=True):
    """A device of the settings that is not used and not known by its id, and why."""

    settings: DeviceSettings
    reason: Fault | None
    detail: str


class AddOrder(msgspec.Struct, forbid_unknown_fields=True):
    """{"path": "/srv/disk7", "tier": "hdd", "capacity": 8000000000000}; of a known device the path is enough."""

    path: str
    tier: Tier | None = None
    capacity: int | None = None
    dwpd: float | None = None
    new: bool = False
    """An empty device takes the place of the one that was expected."""
    adopt: bool = False
    """The device that lies there takes the place of the one that was expected."""


class DeviceReads(Protocol):
    """What workers counted of one device, since they began."""

    @property
    def reads(self) -> int: ...

    @property
    def slow(self) -> int: ...


class Rack:
    """Brings devices into service and out of it, and looks after those that are in."""

    def __init__(
        self,
        shelves: Shelves,
        index: Index,
        store: StoreSettings,
        clock: Callable[[], float],
        reads: Callable[[], Mapping[int, DeviceReads]] = dict,
    ) -> None:
        self._shelves = shelves
        self._index = index
        self._store = store
        self._clock = clock
        self._reads = reads
        self._seen: dict[int, tuple[int, int]] = {}
        self._settings: dict[str, DeviceSettings] = {}
        self._probed_at = 0.0
        self._at_the_rack = asyncio.Lock()
        """Held while a device comes or goes: two commands for one device are carried out one after the other."""
        self.left_out: list[LeftOut] = []
        self.returned: list[Shelf] = []
        """Devices to be settled: they are new here, or back, and things went on without them."""

    @property
    def health(self) -> float:
        """How much of the box's room is well, from 0 to 1."""
        standings = [(shelf.capacity, shelf.health.standing) for shelf in self._shelves.in_use if shelf.tier != MEMORY]
        # What the operator removed is missed by nobody.
        left_out = [(int(out.settings.capacity), Standing.OFFLINE) for out in self.left_out if out.reason is not None]
        return box_health(standings + left_out)

    async def start(self, devices: Iterable[DeviceSettings], appliance: str = "oca", state_dir: str = "") -> None:
        """Bring all devices into service that can be used. A broken one is named, and the others serve."""
        self._settings = {device.path: device for device in devices}
        # What was removed comes last: where another took its place, that one is meant.
        known = dict(sorted(self._index.devices().items(), key=lambda pair: pair[1].wish == REMOVE))
        taken: set[int] = set()
        looks = await asyncio.gather(*(self._look(path) for path in self._settings))
        for device, look in zip(self._settings.values(), looks, strict=True):
            await self._put_in(device, look, known, taken)
        for number, record in known.items():
            if number not in taken and record.tier != MEMORY:
                await self._put_in_unlisted(number, record)
        await self._put_in_memory(appliance, state_dir, known)

    # --- By command ---------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Shelf:
        """A device by its id or its path. Raises `OrderRefused`."""
        for shelf in self._shelves.shelves:
            if name in (shelf.identity, shelf.path) and shelf.tier != MEMORY:
                return shelf
        raise OrderRefused(
            404, f"{name!r} is no device of this appliance, by id or by path; `oca device list` names them"
        )

    async def add(self, order: AddOrder) -> Shelf:
        """Bring a device into service, or back. Raises `OrderRefused` with what would help."""
        async with self._at_the_rack:
            return await self._add(order)

    async def _add(self, order: AddOrder) -> Shelf:
        path = order.path.rstrip("/")
        if not path.startswith("/"):
            raise OrderRefused(400, f"path: read {order.path!r}; allowed: an absolute path")
        folder = DeviceFolder(path)
        try:
            found = await self._identity_at(folder)
        except StoreError as error:
            raise OrderRefused(409, str(error)) from error
        expected = next((shelf for shelf in self._shelves.shelves if shelf.path == path), None)
        same = next((shelf for shelf in self._shelves.shelves if found is not None and shelf.identity == found), None)
        if same is not None:
            return await self._bring_back(same, path, order)
        if expected is not None and expected.wish != REMOVE:
            if found is None and not order.new:
                raise OrderRefused(
                    409,
                    f"{path}: device {expected.identity} was expected and nothing lies there: mount it, or say --new "
                    "to start an empty one in its place",
                )
            if found is not None and not order.adopt:
                raise OrderRefused(
                    409,
                    f"{path}: device {expected.identity} was expected and {found} lies there: mount the right one, or "
                    "say --adopt to take this one in its place",
                )
        listed = self._settings.get(path)
        tier = order.tier or (listed.tier if listed else None) or (Tier(expected.tier) if expected else None)
        capacity = order.capacity or (listed and int(listed.capacity)) or (expected and expected.capacity)
        dwpd = order.dwpd or (listed.dwpd if listed else expected.dwpd if expected else 1.0)
        if tier is None or not capacity:
            raise OrderRefused(400, f"{path}: tier and capacity are needed for a device that the settings do not name")
        if expected is not None:
            await self._forget(expected)
        fresh = Hands(1, f"device {path}")
        try:
            identity = await fresh.do(folder.identify, _LOOK)
        except StoreError as error:
            raise OrderRefused(409, str(error)) from error
        finally:
            fresh.close()
        record = DeviceRecord(
            identity, path, tier, capacity, dwpd=dwpd, home=path, live=listed is None, foreign=found is not None
        )
        shelf = self._register(record, folder)
        self.left_out = [out for out in self.left_out if out.settings.path != path]
        self.returned.append(shelf)
        log.info("device %s (%s) is in service", path, identity)
        return shelf

    def drain(self, shelf: Shelf) -> None:
        """Nothing more is put there, and what lies there moves to others."""
        self._wish(shelf, DRAIN)

    def serve(self, shelf: Shelf) -> None:
        self._wish(shelf, SERVE)

    async def remove(self, shelf: Shelf, *, force: bool) -> None:
        """Out of service for good. With `force` also if content lies there still: it is given up."""
        async with self._at_the_rack:
            await self._remove(shelf, force=force)

    async def _remove(self, shelf: Shelf, *, force: bool) -> None:
        if self._shelves.shelf(shelf.number) is not shelf:
            return  # Somebody else has just removed it.
        left = self._shelves.policy.used_bytes(shelf.number)
        if left and not force:
            raise OrderRefused(
                409,
                f"{shelf.path}: {left} bytes lie there still: drain it first, or say --force to give them up",
            )
        await self._forget(shelf)
        log.info("device %s (%s) is removed", shelf.path, shelf.identity)

    def _wish(self, shelf: Shelf, wish: str) -> None:
        if shelf.wish != wish:
            shelf.wish = wish
            self._shelves.noted(shelf)
            log.info("device %s (%s): the operator wants it to %s", shelf.path, shelf.identity, wish)

    async def _bring_back(self, shelf: Shelf, path: str, order: AddOrder) -> Shelf:
        """The one command that brings a repaired device back."""
        if shelf.path != path and shelf.can_read and await self._shelves.is_in_place(shelf):
            raise OrderRefused(409, f"{path}: is the same device ({shelf.identity}) as {shelf.path}")
        try:
            shelf.folder.path = shelf.path = path
            await shelf.watcher.do(shelf.folder.open, _LOOK)
            await shelf.watcher.do(shelf.folder.probe, _LOOK)
        except StoreError as error:
            if isinstance(error, DeviceFault):
                self._shelves.signal(shelf, signal_of(Fault(error.fault)) or Signal.PROBE_BAD, str(error))
            raise OrderRefused(409, f"{path}: can't be used yet: {error}") from error
        shelf.capacity = order.capacity or shelf.capacity
        shelf.dwpd = order.dwpd or shelf.dwpd
        shelf.live = shelf.live or path not in self._settings
        shelf.wish = SERVE
        shelf.errors.clear()
        shelf.detail = ""
        self._shelves.policy.resize_shelf(shelf.number, shelf.capacity)
        self._shelves.signal(shelf, Signal.OPERATOR)
        self._shelves.noted(shelf)
        self.returned.append(shelf)
        return shelf

    async def _forget(self, shelf: Shelf) -> None:
        """Give up what lies on a device, and the device."""
        shelf.wish = REMOVE
        self._shelves.noted(shelf)
        given_up = await self._shelves.give_up(shelf)
        if given_up:
            log.warning("device %s (%s): %d extents are given up", shelf.path, shelf.identity, given_up)
        self._shelves.take_out(shelf)
        # Remembered, though nothing is there: neither does a restart bring it in, nor is what lies on it believed when
        # it comes back, for what was purged meanwhile lies there still.
        self._index.put_device(shelf.number, msgspec.structs.replace(shelf.record(), path=""))

    # --- At the start -------------------------------------------------------------------------------------------------

    async def _look(self, path: str) -> str | StoreError | None:
        """The id at a device's path; None if nothing lies there, an error if that can't be told."""
        try:
            return await self._identity_at(DeviceFolder(path), _LOOK_AT_START)
        except StoreError as error:
            return error

    async def _put_in(
        self,
        device: DeviceSettings,
        look: str | StoreError | None,
        known: dict[int, DeviceRecord],
        taken: set[int],
    ) -> None:
        here = next((n for n, record in known.items() if record.home == device.path and record.tier != MEMORY), None)
        by_id = next((n for n, record in known.items() if record.id == look), None)
        if by_id is not None and known[by_id].wish == REMOVE and here is not None and known[here].wish != REMOVE:
            by_id = None  # It is not wanted anywhere, and another is expected here.
        if isinstance(look, StoreError):
            fault = Fault(look.fault) if isinstance(look, DeviceFault) else Fault.UNUSABLE
            if here is None or here in taken:
                self._leave_out(device, fault, str(look))
                return
            taken.add(here)
            self._register_known(here, known[here], device, fault, str(look))
        elif by_id is not None and by_id in taken:
            other = next(record.home for n, record in known.items() if n == by_id)
            self._leave_out(device, Fault.WRONG_DISK, f"{device.path}: is the same device ({look}) as {other}")
        elif by_id is not None:
            taken.add(by_id)
            record = known[by_id]
            if record.wish == REMOVE:
                self._leave_out(
                    device, None, f"{device.path}: was removed; `oca device add {device.path}` brings it back"
                )
                return
            self._register_known(by_id, msgspec.structs.replace(record, home=device.path), device, None, "")
        elif here is not None and here not in taken and known[here].wish != REMOVE:
            taken.add(here)
            fault = Fault.VANISHED if look is None else Fault.WRONG_DISK
            what = "nothing lies there" if look is None else f"{look} lies there"
            sentence = (
                f"{device.path}: device {known[here].id} was expected and {what}; "
                f"`oca device add {device.path}` when it is right"
            )
            self._register_known(here, known[here], device, fault, sentence)
        else:
            await self._put_in_new(device, known, taken)

    async def _put_in_new(self, device: DeviceSettings, known: dict[int, DeviceRecord], taken: set[int]) -> None:
        folder = DeviceFolder(device.path)
        hands = Hands(1, f"device {device.path}")
        try:
            identity = await hands.do(folder.identify, _LOOK)
            has_content = await hands.do(lambda: next(folder.extents(), None) is not None, _LOOK)
        except StoreError as error:
            self._leave_out(device, Fault(error.fault) if isinstance(error, DeviceFault) else None, str(error))
            return
        finally:
            hands.close()
        if any(shelf.identity == identity for shelf in self._shelves.shelves):
            folder.close()
            self._leave_out(device, Fault.WRONG_DISK, f"{device.path}: is the same device ({identity}) as another one")
            return
        record = DeviceRecord(
            identity,
            device.path,
            device.tier,
            int(device.capacity),
            dwpd=device.dwpd,
            home=device.path,
            foreign=has_content,
        )
        shelf = self._register(record, folder)
        known[shelf.number] = record
        taken.add(shelf.number)
        self.returned.append(shelf)

    def _register_known(
        self, number: int, record: DeviceRecord, device: DeviceSettings | None, fault: Fault | None, detail: str
    ) -> None:
        if device is not None:
            record = msgspec.structs.replace(
                record, tier=device.tier, capacity=int(device.capacity), dwpd=device.dwpd, live=False
            )
        if fault is None and record.reason in _ABSENCES:
            record = msgspec.structs.replace(record, standing=Standing.ONLINE, reason="", since=self._clock())
        shelf = Shelf(number, record, DeviceFolder(record.home))
        if fault is None:
            try:
                shelf.folder.identify()
            except StoreError as error:
                fault, detail = Fault.UNUSABLE, str(error)
        self._index.put_device(number, shelf.record())
        self._shelves.put_in(shelf)
        if fault is not None:
            # One that gives no answer now gives none to viewers either: it counts as often as it takes.
            self._shelves.signal(shelf, signal_of(fault) or Signal.UNUSABLE, detail, count=_STALLS)
            if shelf.can_read:
                # What would be a blemish of a device at work is none to begin with.
                self._shelves.signal(shelf, Signal.UNUSABLE, detail)
        elif shelf.can_read:
            self.returned.append(shelf)
        else:
            shelf.let_go()

    def _register(self, record: DeviceRecord, folder: DeviceFolder) -> Shelf:
        for known, other in self._index.devices().items():
            if self._shelves.shelf(known) is None and other.wish == REMOVE:
                if other.id == record.id:
                    record = msgspec.structs.replace(record, foreign=False)
                elif other.home != record.home:
                    continue
                self._index.drop_device(known)
        number = self._index.new_device_number()
        shelf = Shelf(number, record, folder)
        self._index.put_device(number, shelf.record())
        self._shelves.put_in(shelf)
        return shelf

    async def _put_in_unlisted(self, number: int, record: DeviceRecord) -> None:
        """A device that the settings do not name: brought in by command, or no longer wanted."""
        if record.wish == REMOVE:
            return
        if not record.live:
            detail = (
                f"{record.home}: is not in the settings any more; `oca device remove {record.id} --force` forgets it"
            )
            self._register_known(number, record, None, Fault.VANISHED, detail)
            return
        try:
            found = await self._identity_at(DeviceFolder(record.home), _LOOK_AT_START)
        except StoreError as error:
            fault = Fault(error.fault) if isinstance(error, DeviceFault) else Fault.UNUSABLE
            self._register_known(number, record, None, fault, str(error))
            return
        wrong = None if found == record.id else Fault.VANISHED if found is None else Fault.WRONG_DISK
        self._register_known(number, record, None, wrong, f"{record.home}: device {record.id} was expected")

    async def _put_in_memory(self, appliance: str, state_dir: str, known: dict[int, DeviceRecord]) -> None:
        """On a box without hdd newcomers wait in memory: what nobody asks for again costs no flash."""
        number = next((n for n, record in known.items() if record.tier == MEMORY), None)
        size = self._probation_bytes()
        if not size:
            if number is not None:
                self._index.put_device(number, msgspec.structs.replace(known[number], path=""))
            return
        mark = hashlib.blake2b(state_dir.encode(), digest_size=4).hexdigest()
        path = f"{self._store.probation_dir}/oca-{appliance}-{mark}"
        folder = DeviceFolder(path)
        try:
            folder.identify(MEMORY)
        except StoreError as error:
            log.error("newcomers can't wait in memory: %s", error)
            return
        record = DeviceRecord(MEMORY, path, MEMORY, size, home=path)
        shelf = Shelf(self._index.new_device_number() if number is None else number, record, folder)
        self._index.put_device(shelf.number, shelf.record())
        self._shelves.put_in(shelf)
        self.returned.append(shelf)

    def _probation_bytes(self) -> int:
        levels = {shelf.level for shelf in self._shelves.shelves}
        if Level.HDD in levels or not levels:
            return 0
        if self._store.probation is not None:
            return int(self._store.probation)
        flash = sum(shelf.capacity for shelf in self._shelves.shelves)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        size = min(memory // 8, flash // 100)
        return size if size >= _LEAST_PROBATION else 0

    def _leave_out(self, device: DeviceSettings, reason: Fault | None, detail: str) -> None:
        log.error("device %s is left out: %s", device.path, detail)
        self.left_out.append(LeftOut(device, reason, detail))

    async def _identity_at(self, folder: DeviceFolder, deadline: float = _LOOK) -> str | None:
        hands = Hands(1, f"device {folder.path}")
        try:
            return await hands.do(folder.identity, deadline)
        finally:
            hands.close()

    # --- All the time -------------------------------------------------------------------------------------------------

    async def look_after(self) -> None:
        """One round: is each device where it was, is it quick, does one that failed answer again?"""
        self._hear_of_reads()
        now = self._clock()
        probes = now - self._probed_at >= _PROBE or now < self._probed_at
        if probes:
            self._probed_at = now
        await asyncio.gather(*(self._visit(shelf, probes=probes) for shelf in self._shelves.in_use))

    async def _visit(self, shelf: Shelf, *, probes: bool) -> None:
        health = shelf.health
        if health.standing is not Standing.OFFLINE and not await self._shelves.is_in_place(shelf):
            return
        if not probes or not health.heals:
            return
        was_away = not health.can_read
        try:
            fault = await shelf.watcher.do(lambda: shelf.folder.whereabouts(shelf.identity), _LOOK)
            if fault is None:
                await shelf.watcher.do(shelf.folder.probe, _LOOK)
        except DeviceFault as error:
            fault = Fault(error.fault)
            shelf.detail = str(error)
        except StoreError as error:
            log.warning("device %s: can't be probed: %s", shelf.path, error)
            return
        if fault is None:
            self._shelves.signal(shelf, Signal.PROBE_GOOD)
            if was_away and health.can_read:
                self.returned.append(shelf)
        else:
            is_bad = fault in (Fault.IO, Fault.ROTTEN)
            self._shelves.signal(shelf, Signal.PROBE_BAD if is_bad else signal_of(fault) or Signal.PROBE_BAD)

    def _hear_of_reads(self) -> None:
        """What workers read, and how many of it slowly."""
        for number, counted in self._reads().items():
            # What was counted before our time is no news.
            reads_before, slow_before = self._seen.get(number, (counted.reads, counted.slow))
            self._seen[number] = (counted.reads, counted.slow)
            shelf = self._shelves.shelf(number)
            slow, all_reads = counted.slow - slow_before, counted.reads - reads_before
            if shelf is None or all_reads <= 0:
                continue
            if slow > 0:
                shelf.errors[Fault.SLOW] += slow
                self._shelves.signal(shelf, Signal.SLOW_READ, f"{slow} of {all_reads} reads were slow", slow)
            if all_reads > slow:
                self._shelves.signal(shelf, Signal.GOOD, count=all_reads - slow)

    async def settle(self, take_over: Callable[[Shelf], Awaitable[object]]) -> int:
        """Take over what lies on devices from elsewhere, and sweep all that are back. Returns files removed."""
        await self._shelves.loaded()
        removed = 0
        while self.returned:
            waiting = set(self.returned)
            self.returned.clear()
            removed += sum(await asyncio.gather(*(self._settle(shelf, take_over) for shelf in waiting)))
        return removed

    async def _settle(self, shelf: Shelf, take_over: Callable[[Shelf], Awaitable[object]]) -> int:
        if shelf.foreign:
            await take_over(shelf)
        # What could not be taken over is not swept either: it is tried again when the device is back.
        return 0 if shelf.foreign else await self._shelves.sweep(shelf)
