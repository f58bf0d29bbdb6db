"""The index made anew from what extent files say of themselves.

Two ways lead here. `import_device` takes over a device that the running appliance does not know: one that was moved
from another box, or all of them when the state folder was lost. `rebuild` makes a whole new index while the appliance
is stopped. Neither reads the content, which would take days: only labels, names and lengths. What is rotten is found by
the scrubber, by `oca store verify`, and by every cold read before a viewer gets a byte of it.

Of two generations of an object the newer one counts. A file whose label is not believed, or that is held better
elsewhere, is not taken, and is removed by the sweep that follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import lmdb
import msgspec

from oca.cache.health import Fault, Signal, Standing, signal_of
from oca.cache.keys import ExtentKey, ObjectKey, split_extent_key
from oca.cache.policy import Level
from oca.cache.records import DeviceRecord, ExtentRecord, Label, ObjectRecord
from oca.errors import DeviceFault, IndexUnusable, StoreError
from oca.lifecycle import StateDirBusy
from oca.settings import Device, Settings, Tier
from oca.store.device import DeviceFolder
from oca.store.index import IndexLoader, IndexReader
from oca.store.labels import LabelFlaw, joined, label_of
from oca.store.shelf import MEMORY, REMOVE, Shelf
from oca.store.shelves import Shelves

T = TypeVar("T")
_Found = tuple[ExtentKey, Label | LabelFlaw | Fault]

log = logging.getLogger(__name__)

_BATCH: Final = 64
"""Extents that nobody else may touch while their labels are read: on a disk that seeks for each, below a second."""
_LISTING: Final = 600.0
_READING: Final = 60.0
_TRIES: Final = 3
_VIEWER: Final = 2.0
"""Seconds that a device may take to say what it holds of an object that a viewer asks for."""
_INDEX, _NEW, _OLD = "index", "index.new", "index.old"
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


class Report(msgspec.Struct):
    """What became of the extents that were found."""

    extents: int = 0
    """Taken into the index."""
    passed_over: int = 0
    """Held better elsewhere, or of an older generation."""
    flaws: Counter[str] = msgspec.field(default_factory=Counter)
    """Labels that were not believed, by why; files that could not be read, by the device's fault."""
    objects: int = 0
    bytes: int = 0
    devices: int = 0
    unread: list[str] = msgspec.field(default_factory=list)
    """Devices that could not be read, or not to the end, each with why. The appliance takes them over when they are
    back.
    """


# --- A device that comes to a running appliance -----------------------------------------------------------------------


async def import_device(shelves: Shelves, shelf: Shelf) -> Report:
    """Take over what lies on a device from elsewhere, while the appliance serves. Its content is served bit by bit as
    it comes in; nothing is written there before the end. If the device fails meanwhile it stays foreign, and what is
    left is taken over when it is back.
    """
    report = Report()
    try:
        for first in range(256):
            for batch in _batches(await _asked(shelves, shelf, partial(_listed, shelf.folder, first), _LISTING) or []):
                async with shelves.alone_with(batch):
                    found = await _asked(shelves, shelf, partial(_read, shelf.folder, batch), _READING)
                    await _adopt(shelves, shelf, found or [], report)
            if not _is_at_work(shelf):
                log.warning("device %s: is away; so far %s; the rest when it is back", shelf.path, sentence(report))
                return report
        await shelves.taken_over(shelf)
    except StoreError as error:
        log.error("device %s: is not taken over: %s", shelf.path, error)
        return report
    log.info("device %s: %s", shelf.path, sentence(report))
    return report


async def import_object(shelves: Shelves, key: ObjectKey) -> None:
    """Take over what lies of one object on devices that are just being taken over: a viewer asks for it. Not to be
    cancelled: a commit that is under way is through all the same.
    """
    await shelves.loaded()
    await asyncio.gather(
        *(_import_object(shelves, shelf, key) for shelf in shelves.shelves if shelf.foreign and shelf.can_read)
    )


async def _import_object(shelves: Shelves, shelf: Shelf, key: ObjectKey) -> None:
    try:
        listed = await shelf.do(partial(shelf.folder.extents_of, key), _VIEWER)
        if listed:
            async with shelves.alone_with(listed):
                await _adopt(shelves, shelf, await shelf.do(partial(_read, shelf.folder, listed), _VIEWER), Report())
    except StoreError as error:
        log.warning("object %s: what is held of it on %s is not known yet: %s", key.hex(), shelf.path, error)


async def _asked(shelves: Shelves, shelf: Shelf, work: Callable[[], list[T]], deadline: float) -> list[T] | None:
    """What the device answers; None if it does not, though it was asked more than once."""
    for _ in range(_TRIES):
        if not _is_at_work(shelf):
            return None
        try:
            return await shelf.do(work, deadline)
        except DeviceFault as error:
            signal = signal_of(Fault(error.fault))
            if signal is not None and _is_at_work(shelf):
                shelves.signal(shelf, signal, str(error))
            elif not await shelves.is_in_place(shelf):
                return None
        except StoreError as error:
            log.warning("device %s: %s", shelf.path, error)
    return None


def _is_at_work(shelf: Shelf) -> bool:
    return shelf.can_read and shelf.wish != REMOVE


async def _adopt(shelves: Shelves, shelf: Shelf, found: list[_Found], report: Report) -> None:
    labels: list[tuple[ExtentKey, Label]] = []
    for key, label in found:
        if isinstance(label, Label):
            labels.append((key, label))
            continue
        report.flaws[label] += 1
        if label is Fault.IO:
            shelves.signal(shelf, Signal.READ_ERROR, f"{shelf.folder.file_path(key)}: can't be read")
    if labels:
        adopted = await shelves.adopt(shelf, labels)
        report.extents += adopted
        report.passed_over += len(labels) - adopted


def _listed(folder: DeviceFolder, first: int) -> list[ExtentKey]:
    return list(folder.extents(first))


def _read(folder: DeviceFolder, keys: Iterable[ExtentKey]) -> list[_Found]:
    """One file that can't be read does not hide the others; a device that can't be is an error."""
    found: list[_Found] = []
    for key in keys:
        try:
            found.append((key, label_of(folder, key)))
        except DeviceFault as error:
            if error.fault != Fault.IO:
                raise
            found.append((key, Fault.IO))
    return found


def _batches(keys: list[ExtentKey]) -> Iterator[list[ExtentKey]]:
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]


def sentence(report: Report) -> str:
    flaws = ", ".join(f"{count} {flaw}" for flaw, count in sorted(report.flaws.items()))
    return f"{report.extents} extents taken over, {report.passed_over} passed over" + (
        f", not believed: {flaws}" if flaws else ""
    )


# --- A whole index, while the appliance is stopped --------------------------------------------------------------------


class _Reading:
    """A device whose labels are read."""

    def __init__(self, number: int, record: DeviceRecord, folder: DeviceFolder) -> None:
        self.number = number
        self.record = record
        self.folder = folder
        self.failed: StoreError | None = None

    def read(self, first: int) -> list[_Found]:
        """What files whose names begin with `first` say; nothing from a device that has failed."""
        if self.failed is not None:
            return []
        try:
            return _read(self.folder, self.folder.extents(first))
        except StoreError as error:
            self.failed = error
            return []


def rebuild(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> Report:
    """Make the index anew from the labels on all devices of the settings, and on those that the old index knows.

    The old index stays in use until the new one is complete: who is killed meanwhile has changed nothing. Raises
    `StateDirBusy` while the appliance runs, and `IndexUnusable`.
    """
    state = Path(settings.appliance.state_dir)
    try:
        state.mkdir(parents=True, exist_ok=True)
        with _alone_in(state):
            for left in (state / _NEW, state / _OLD):
                shutil.rmtree(left, ignore_errors=True)
            report = _build(settings, str(state / _INDEX), str(state / _NEW), progress)
            _swap(state)
    except (OSError, lmdb.Error) as error:
        raise IndexUnusable(f"{state}: the index can't be made: {error}") from error
    return report


def _build(settings: Settings, old: str, new: str, progress: Callable[[str], None]) -> Report:
    report = Report()
    devices = _known_devices(old)
    reading = _devices_to_read(settings, devices, report)
    report.devices = len(reading)
    loader = IndexLoader(new)
    try:
        with ThreadPoolExecutor(max(1, len(reading)), thread_name_prefix="labels") as threads:
            ahead = [threads.submit(one.read, 0) for one in reading]
            for first in range(256):
                found = [result.result() for result in ahead]
                if first < 255:
                    ahead = [threads.submit(one.read, first + 1) for one in reading]
                _load(loader, list(zip(reading, found, strict=True)), report)
                progress(
                    f"{100 * (first + 1) // 256} %: {report.extents} extents, {report.bytes / 1e9:.1f} GB, "
                    f"on {report.devices} devices"
                )
        for one in reading:
            if one.failed is not None:
                report.unread.append(f"{one.record.home}: {one.failed}")
            devices[one.number] = msgspec.structs.replace(one.record, foreign=one.failed is not None)
        loader.put_devices(devices)
    finally:
        loader.close()
        for one in reading:
            one.folder.close()
    return report


def _load(loader: IndexLoader, found: list[tuple[_Reading, list[_Found]]], report: Report) -> None:
    """Put into the index what was found of the extents that begin with one byte: all there is of their objects."""
    levels = {one.number: Level[one.record.tier.upper()] for one, _ in found}
    extents: dict[ExtentKey, ExtentRecord] = {}
    objects: dict[ObjectKey, ObjectRecord] = {}
    believed = 0
    for one, read in found:
        for key, label in read:
            if not isinstance(label, Label):
                report.flaws[label] += 1
                continue
            believed += 1
            extent = msgspec.structs.replace(label.extent, device=one.number, slot=0)
            known = extents.get(key)
            extents[key] = extent if known is None else joined(known, extent, levels.__getitem__)
            held = objects.get(key[:16])
            if held is None or _age(held) < _age(label.object):
                objects[key[:16]] = label.object
    chosen = sorted(key for key in extents if split_extent_key(key)[1] == objects[key[:16]].generation)
    taken = [(key, msgspec.structs.replace(extents[key], slot=report.extents + n)) for n, key in enumerate(chosen)]
    loader.append(sorted(objects.items()), taken)
    copies = sum(extent.below is not None for _, extent in taken)
    report.extents += len(taken)
    report.objects += len(objects)
    report.passed_over += believed - len(taken) - copies
    report.bytes += sum(extent.used_bytes for _, extent in taken)


def _age(record: ObjectRecord) -> tuple[int, float]:
    """Of two records of an object the greater one counts: the later generation, and the one validated last."""
    return record.generation, record.generated_at


def _known_devices(folder: str) -> dict[int, DeviceRecord]:
    """What the old index says of devices; nothing if it can't be read."""
    if not os.path.exists(folder):  # noqa: PTH110
        return {}
    try:
        reader = IndexReader(folder)
    except (IndexUnusable, lmdb.Error) as error:
        log.warning("the old index says nothing of devices: %s", error)
        return {}
    try:
        return reader.devices()
    except (lmdb.Error, msgspec.DecodeError) as error:
        log.warning("the old index says nothing of devices: %s", error)
        return {}
    finally:
        reader.close()


def _devices_to_read(settings: Settings, devices: dict[int, DeviceRecord], report: Report) -> list[_Reading]:
    """Those that are where they should be. `devices` gets those that are new; what can't be read now is marked, so that
    the appliance takes it over when it is back.
    """
    reading: dict[int, _Reading] = {}
    places: list[tuple[str, Device | None]] = [(device.path, device) for device in settings.device]
    places += [(record.home, None) for record in devices.values() if record.live or record.tier == MEMORY]
    numbers = {record.id: number for number, record in devices.items()}
    for path, device in places:
        folder = DeviceFolder(path)
        try:
            found = folder.identity()
            if found is None:
                raise DeviceFault(Fault.VANISHED, f"{path}: no device lies there")
            number = numbers.get(found)
            if number is None and device is None:
                raise DeviceFault(Fault.WRONG_DISK, f"{path}: another device lies there")
            if number is None:
                number = numbers[found] = next(free for free in count() if free not in devices)
            record = devices.get(number, DeviceRecord(found, path, Tier.HDD))
            if number in reading or record.wish == REMOVE:
                continue
            if record.standing == Standing.OFFLINE:
                raise DeviceFault(Fault.UNUSABLE, f"{path}: is offline ({record.reason}): `oca device add` it")
            if device is not None:
                record = msgspec.structs.replace(
                    record, tier=device.tier, capacity=int(device.capacity), dwpd=device.dwpd, live=False
                )
            record = devices[number] = msgspec.structs.replace(record, path=path, home=path)
            folder.open()
        except StoreError as error:
            report.unread.append(str(error))
            continue
        reading[number] = _Reading(number, record, folder)
    for number, record in devices.items():
        if number not in reading and record.wish != REMOVE:
            devices[number] = msgspec.structs.replace(record, foreign=True)
    return list(reading.values())


@contextlib.contextmanager
def _alone_in(state: Path) -> Iterator[None]:
    """Neither an appliance nor a keeper that outlived one uses the state folder, or can begin to."""
    with contextlib.ExitStack() as stack:
        for name in ("appliance.lock", "keeper.lock"):
            fd = os.open(state / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            stack.callback(os.close, fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateDirBusy(f"{state}: an appliance runs on it: stop it first") from None
        yield


def _swap(state: Path) -> None:
    """The new index in the place of the old one, in one step."""
    new, index, old = state / _NEW, state / _INDEX, state / _OLD
    if index.exists():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(index), _RENAME_EXCHANGE):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(index))
        new.rename(old)
    else:
        new.rename(index)
    fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    shutil.rmtree(old, ignore_errors=True)
