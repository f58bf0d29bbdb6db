"""`oca store verify`: is everything as the index says, to the last byte?

The index is only read, so this works while the appliance serves as well as when it is stopped. Meanwhile content comes
and goes: whatever looks wrong is looked at a second time, with what the index says by then, before it is told. Content
is read from the disks and not from the page cache, at the lowest priority, by one thread for each device.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS, EXTENT_BYTES, ExtentKey, split_extent_key
from oca.cache.records import DeviceRecord, ExtentRecord, Label, ObjectRecord
from oca.errors import DeviceFault, ExtentDamaged, StoreError
from oca.settings import Settings
from oca.store.device import DeviceFolder
from oca.store.index import IndexReader
from oca.store.labels import LabelFlaw, believed
from oca.store.shelf import MEMORY, REMOVE

_BATCH: Final = 2000
_AHEAD: Final = 4
"""Parts of the index that a quick device may be ahead of a slow one."""
_TOLD: Final = 1.0
"""Seconds between two lines of progress."""
_YOUNG: Final = 60.0
"""Seconds in which a file that no record names may be one that is just being written."""
_PATIENCE: Final = 5.0
"""Seconds in which a file whose record just went has gone too."""
_MOST_FINDINGS: Final = 10_000
_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}
_IOPRIO_IDLE: Final = 3 << 13


class Flaw(StrEnum):
    MISSING = "missing"
    """A record's file is not there."""
    SHORT = "short"
    """A file ends before the blocks that the index says lie in it."""
    ROTTEN = "rotten"
    """A block does not have its sum."""
    IO = "io"
    """A file can't be read."""
    UNNAMED = "unnamed"
    """No record names the file."""
    CONTRADICTED = "contradicted"
    """A file says of itself something other than the index."""
    UNREADABLE = "unreadable"
    """A record in the index can't be decoded."""
    ORPHANED = "orphaned"
    """A record whose object, or whose generation of it, the index does not know: nobody is served from it."""
    HOMELESS = "homeless"
    """A record on a device that the index does not know."""
    SLOT_TWICE = "slot_twice"
    """Two records claim one row of the policy's arrays."""
    DEVICE = "device"
    """A whole device can't be checked."""


class Finding(msgspec.Struct, frozen=True):
    flaw: Flaw
    path: str
    """Of the object; empty if it is not known."""
    extent: int
    """Number of the extent within its object."""
    device: str
    """Where the device is mounted; empty if it is none in particular."""
    sentence: str


class Report(msgspec.Struct):
    findings: list[Finding] = msgspec.field(default_factory=list)
    """The first 10,000."""
    flaws: Counter[Flaw] = msgspec.field(default_factory=Counter)
    """How many in all, by kind."""
    extents: int = 0
    """Files that were looked at; copies count."""
    blocks: int = 0
    bytes: int = 0
    """Read and compared."""
    unlabelled: int = 0
    """Files without a label: served like any other, but unknown to `oca index rebuild`."""

    @property
    def is_good(self) -> bool:
        return not self.flaws

    def add(self, finding: Finding) -> None:
        self.flaws[finding.flaw] += 1
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(finding)


class _Claim(msgspec.Struct, frozen=True):
    """What the index says lies on a device."""

    key: ExtentKey
    extent: ExtentRecord
    object: ObjectRecord


class _Suspect(msgspec.Struct, frozen=True):
    """What looked wrong at the first look."""

    flaw: Flaw
    key: ExtentKey
    sentence: str


def verify(
    settings: Settings,
    device: str | None = None,
    *,
    quick: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Check all devices, or the one with this id or path. `quick`: names, lengths and labels only; nothing is read.

    Raises `StoreError` if there is no index, or no such device.
    """
    reader = IndexReader(str(Path(settings.appliance.state_dir) / "index"))
    try:
        return _Verifier(reader, device, quick=quick, progress=progress, sleep=sleep).run()
    finally:
        reader.close()


class _Verifier:
    """Goes through the index in the order of keys, in 256 parts, and lets each device compare its part."""

    def __init__(
        self,
        reader: IndexReader,
        device: str | None,
        *,
        quick: bool,
        progress: Callable[[str], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._reader = reader
        self._progress = progress
        self._sleep = sleep
        self._report = Report()
        self._known = reader.devices()
        self._checks = {
            number: _Check(number, record, quick=quick)
            for number, record in self._known.items()
            if record.wish != REMOVE and device in (None, record.id, record.home)
        }
        if device is not None and not self._checks:
            raise StoreError(f"{device!r} is no device of this appliance, by id or by path")
        self._is_whole = device is None
        self._slots = bytearray()
        self._doubtful_slots: set[int] = set()
        self._unnamed: list[tuple[_Check, ExtentKey]] = []
        self._began = self._told_at = time.monotonic()

    def run(self) -> Report:
        try:
            for check in self._checks.values():
                if trouble := check.open():
                    self._report.add(Finding(Flaw.DEVICE, "", 0, check.record.home, trouble))
            ahead: list[list[tuple[_Check, Future[list[_Suspect]]]]] = []
            for first in range(256):
                ahead.append(self._begin(first))
                if len(ahead) == _AHEAD:
                    self._collect(ahead.pop(0))
            for part in ahead:
                self._collect(part)
            self._look_again_at_unnamed()
            self._look_again_at_slots()
        finally:
            for check in self._checks.values():
                check.close()
        for check in self._checks.values():
            self._report.extents += check.extents
            self._report.blocks += check.blocks
            self._report.bytes += check.bytes
            self._report.unlabelled += check.unlabelled
        return self._report

    # --- First look ---------------------------------------------------------------------------------------------------

    def _begin(self, first: int) -> list[tuple[_Check, Future[list[_Suspect]]]]:
        """Let each device look at its extents that begin with one byte."""
        claims: dict[int, dict[ExtentKey, _Claim]] = {number: {} for number in self._checks}
        for key, extent in self._records(first):
            if extent is not None:
                self._note_slot(extent.slot)
            record = self._reader.object(key[:16])
            suspect = self._flaw_of(key, extent, record)
            if suspect is not None:
                self._look_again_at_record(key)
            if extent is not None and record is not None and (suspect is None or suspect.flaw is Flaw.HOMELESS):
                for number in (extent.device, extent.below):
                    if number in claims:
                        claims[number][key] = _Claim(key, extent, record)
        return [
            (check, check.thread.submit(check.look, first, claims[number]))
            for number, check in self._checks.items()
            if not check.has_failed
        ]

    def _records(self, first: int) -> Iterator[tuple[ExtentKey, ExtentRecord | None]]:
        after = bytes([first - 1]) + b"\xff" * 27 if first else b""
        while batch := self._reader.scan_from(after, _BATCH):
            for key, extent in batch:
                if key[0] != first:
                    return
                yield key, extent
            after = batch[-1][0]

    def _note_slot(self, slot: int) -> None:
        place, bit = slot >> 3, 1 << (slot & 7)
        if place >= len(self._slots):
            self._slots.extend(bytes(place + _BATCH - len(self._slots)))
        if self._slots[place] & bit:
            self._doubtful_slots.add(slot)
        self._slots[place] |= bit

    def _flaw_of(self, key: ExtentKey, extent: ExtentRecord | None, record: ObjectRecord | None) -> _Suspect | None:
        """What is wrong with a record as such."""
        if extent is None:
            return _Suspect(Flaw.UNREADABLE, key, "its record can't be decoded")
        if record is None:
            return _Suspect(Flaw.ORPHANED, key, "the index does not know its object")
        _, generation, number = split_extent_key(key)
        if record.generation != generation:
            return _Suspect(Flaw.ORPHANED, key, "its object has another generation")
        top = extent.present.bit_length()
        if number * EXTENT_BYTES + (top - 1) * BLOCK_BYTES >= record.size or len(extent.sums) < 4 * top:
            return _Suspect(Flaw.UNREADABLE, key, "its record promises blocks beyond its object, or without sums")
        for device in (extent.device, extent.below):
            if device is not None and device not in self._known:
                return _Suspect(Flaw.HOMELESS, key, f"lies on device number {device}, which the index does not know")
        return None

    # --- Second look --------------------------------------------------------------------------------------------------

    def _collect(self, part: list[tuple[_Check, Future[list[_Suspect]]]]) -> None:
        for check, looked in part:
            while True:
                try:
                    suspects = looked.result(timeout=_TOLD)
                    break
                except TimeoutError:
                    self._tell()
            for suspect in suspects:
                self._look_again(check, suspect)
        if time.monotonic() - self._told_at >= _TOLD:
            self._tell()

    def _look_again(self, check: _Check, suspect: _Suspect) -> None:
        if suspect.flaw is Flaw.DEVICE:
            self._report.add(Finding(Flaw.DEVICE, "", 0, check.record.home, suspect.sentence))
            return
        claim = self._claim(check, suspect.key)
        if suspect.flaw is Flaw.UNNAMED:
            if claim is None:
                self._unnamed.append((check, suspect.key))
            return
        if claim is None:
            return
        again = check.thread.submit(check.look_at, claim).result()
        if again is not None:
            self._add(check, again, claim.object.path)

    def _claim(self, check: _Check, key: ExtentKey) -> _Claim | None:
        """What the index says by now of an extent on a device."""
        extent, record = self._reader.extent(key), self._reader.object(key[:16])
        if extent is None or record is None or check.number not in (extent.device, extent.below):
            return None
        return _Claim(key, extent, record)

    def _look_again_at_record(self, key: ExtentKey) -> None:
        if not self._is_whole:
            return
        looks = self._reader.scan_from(key[:-1] + bytes([key[-1] - 1]) if key[-1] else key[:-1], 2)
        now = [extent for found, extent in looks if found == key]
        record = self._reader.object(key[:16])
        suspect = self._flaw_of(key, now[0], record) if now else None
        if suspect is not None:
            self._add(None, suspect, record.path if record is not None else "")

    def _look_again_at_unnamed(self) -> None:
        """A file is made before its record, and goes after it."""
        if not self._unnamed:
            return
        self._tell()
        self._sleep(_PATIENCE)
        for check, key in self._unnamed:
            extent = self._reader.extent(key)
            if extent is None or check.number not in (extent.device, extent.below):
                age = check.thread.submit(check.age_of, key).result()
                if age is not None and age > _YOUNG:
                    self._add(check, _Suspect(Flaw.UNNAMED, key, "no record names it: the next sweep removes it"), "")

    def _look_again_at_slots(self) -> None:
        if not self._doubtful_slots or not self._is_whole:
            return
        claimed: dict[int, list[ExtentKey]] = {}
        for first in range(256):
            for key, extent in self._records(first):
                if extent is not None and extent.slot in self._doubtful_slots:
                    claimed.setdefault(extent.slot, []).append(key)
        for slot, keys in claimed.items():
            # Those seen first may have given it back meanwhile.
            still = [key for key in keys if (extent := self._reader.extent(key)) is not None and extent.slot == slot]
            for key in still[1:]:
                sentence = f"claims slot {slot}, as {still[0].hex()} does"
                record = self._reader.object(key[:16])
                self._add(None, _Suspect(Flaw.SLOT_TWICE, key, sentence), "" if record is None else record.path)

    def _add(self, check: _Check | None, suspect: _Suspect, path: str) -> None:
        home = "" if check is None else check.record.home
        where = suspect.key.hex() if check is None else check.folder.file_path(suspect.key)
        number = split_extent_key(suspect.key)[2]
        self._report.add(Finding(suspect.flaw, path, number, home, f"{where}: {suspect.sentence}"))

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        checks = [check for check in self._checks.values() if not check.has_failed]
        share = sum(check.share for check in checks) / max(1, len(checks))
        read = sum(check.bytes for check in checks)
        elapsed = self._told_at - self._began
        left = f", {elapsed * (1 / share - 1) / 60:.0f} min left" if share > 0.001 else ""
        found = f", {self._report.flaws.total()} found wrong" if self._report.flaws else ""
        self._progress(f"{share:.1%} done, {read / max(elapsed, 0.001) / 1e6:.0f} MB/s{left}{found}")


class _Check:
    """One device and the thread that reads it."""

    def __init__(self, number: int, record: DeviceRecord, *, quick: bool) -> None:
        self.number = number
        self.record = record
        self.folder = DeviceFolder(record.home)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"verify {record.home}", initializer=_be_idle)
        self.has_failed = False
        self.share = 0.0
        """How far it is through its extents: their keys are hashes, so the first bytes say it."""
        self.extents = self.blocks = self.bytes = self.unlabelled = 0
        self._quick = quick

    def open(self) -> str:
        """Empty if the device is there; else a sentence why it is not looked at."""
        try:
            found = self.folder.identity()
            if found == self.record.id:
                self.folder.open()
                return ""
            trouble = "no device lies there" if found is None else f"another device ({found}) lies there"
        except StoreError as error:
            trouble = str(error)
        self.has_failed = True
        # Of memory nothing is expected to outlive a start of the machine.
        return "" if self.record.tier == MEMORY else f"{self.record.home}: {trouble}"

    def close(self) -> None:
        self.thread.shutdown(wait=True, cancel_futures=True)
        self.folder.close()

    def look(self, first: int, claims: dict[ExtentKey, _Claim]) -> list[_Suspect]:
        """Compare what lies there of the extents that begin with one byte with what the index says of them."""
        suspects: list[_Suspect] = []
        try:
            lying = list(self.folder.extents(first))
            for key in lying:
                claim = claims.pop(key, None)
                if claim is not None:
                    suspects += self._look_and_count(claim)
                elif not self.record.foreign:
                    suspects.append(_Suspect(Flaw.UNNAMED, key, ""))
                self.share = (first << 8 | key[1]) / 65536
            for claim in claims.values():
                suspects += self._look_and_count(claim)
        except StoreError as error:
            if not self.has_failed:
                suspects.append(_Suspect(Flaw.DEVICE, b"", str(error)))
            self.has_failed = True
        self.share = (first + 1) / 256
        return suspects

    def _look_and_count(self, claim: _Claim) -> list[_Suspect]:
        self.extents += 1
        suspect = self.look_at(claim)
        return [] if suspect is None else [suspect]

    def look_at(self, claim: _Claim) -> _Suspect | None:
        """What is wrong with an extent's file. Raises `StoreError` if it is the device that can't be read."""
        key, extent = claim.key, claim.extent
        try:
            described = self.folder.describe(key)
        except DeviceFault as error:
            if error.fault != Fault.IO:
                raise
            return _Suspect(Flaw.IO, key, "can't be opened")
        if described is None:
            return None if self.record.tier == MEMORY else _Suspect(Flaw.MISSING, key, "is not there")
        size, label = described
        rest = claim.object.size - split_extent_key(key)[2] * EXTENT_BYTES
        holds = min(extent.present.bit_length() * BLOCK_BYTES, rest)
        if size < holds:
            return _Suspect(Flaw.SHORT, key, f"has {size} bytes, and {holds} are held")
        if not label:
            self.unlabelled += 1
        elif contradiction := _contradiction(claim, believed(key, size, label)):
            return _Suspect(Flaw.CONTRADICTED, key, contradiction)
        return None if self._quick else self._read(claim, rest)

    def _read(self, claim: _Claim, rest: int) -> _Suspect | None:
        bad: list[int] = []
        flaw = Flaw.ROTTEN
        for place in range(EXTENT_BLOCKS):
            if not claim.extent.present >> place & 1:
                continue
            offset = place * BLOCK_BYTES
            length = min(BLOCK_BYTES, rest - offset)
            try:
                self.folder.check_block(claim.key, offset, length, claim.extent.sum_of(place))
            except ExtentDamaged as error:
                flaw = Flaw(error.fault)
                bad.append(place)
            except DeviceFault as error:
                if error.fault != Fault.IO:
                    raise
                flaw = Flaw.IO
                bad.append(place)
            self.blocks += 1
            self.bytes += length
        if not bad:
            return None
        what = {Flaw.IO: "can't be read", Flaw.ROTTEN: "does not have its sum"}.get(flaw, "is not there")
        return _Suspect(flaw, claim.key, f"block {', '.join(map(str, bad))} of the extent {what}")

    def age_of(self, key: ExtentKey) -> float | None:
        """Seconds since a file was written; None if it is gone."""
        try:
            return time.time() - os.stat(self.folder.file_path(key)).st_mtime
        except OSError:
            return None


def _contradiction(claim: _Claim, label: Label | LabelFlaw) -> str:
    """Why a file can't be what the index says it is; empty if it can. A label may lag behind: it is not synced."""
    if isinstance(label, LabelFlaw):
        return f"its label is not to be believed ({label})"
    if label.object.size != claim.object.size:
        return f"its label says that the object has {label.object.size} bytes, the index {claim.object.size}"
    both = label.extent.present & claim.extent.present
    differ = [
        str(place)
        for place in range(EXTENT_BLOCKS)
        if both >> place & 1 and label.extent.sum_of(place) != claim.extent.sum_of(place)
    ]
    return f"its label has another sum for block {', '.join(differ)} of the extent" if differ else ""


def _be_idle() -> None:
    """This thread reads when nobody else wants to, and computes likewise. A system that refuses is not asked twice."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, 1, 0, _IOPRIO_IDLE)
