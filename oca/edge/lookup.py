"""What a worker knows of objects: look-ups in the index, remembered as long as their stamp stands."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS, EXTENT_BYTES, ObjectKey, extent_key, file_name, object_key
from oca.cache.records import DeviceRecord, ExtentRecord, ObjectRecord
from oca.counters import PLACES, Place
from oca.edge.extents import Lying, OpenExtent, open_lying_at_once
from oca.edge.watched import Watched, unwatched
from oca.http.replies import ObjectHeads
from oca.report.demand import begins_play
from oca.store.board import Board
from oca.store.index import IndexReader

log = logging.getLogger(__name__)

_ENTRIES: Final = 8192
_PRIVATE: Final = b"private:"


class Held:
    """One generation of one object as this worker sees it."""

    __slots__ = (
        "begins_play",
        "extents",
        "fresh_until",
        "heads",
        "is_used",
        "key",
        "record",
        "row",
        "stamp",
        "watched",
    )

    def __init__(self, key: ObjectKey, record: ObjectRecord, row: int, stamp: int, watched: Watched) -> None:
        self.key = key
        self.record = record
        self.row = row
        self.stamp = stamp
        self.fresh_until = record.generated_at + record.lifetime
        self.heads = ObjectHeads(record.size, record.etag, record.last_modified, record.kept)
        self.extents: dict[int, OpenExtent] = {}
        self.is_used = False
        self.watched = watched
        """Where it is counted what viewers got of it."""
        self.begins_play = begins_play(record.path, record.size)


class Lookup:
    """The worker's view of the index and of the devices' files."""

    def __init__(self, index: IndexReader, board: Board, watch: Callable[[str], Watched] = unwatched) -> None:
        """`watch` says where an object is counted, by its path."""
        self._index = index
        self._watch = watch
        self._board = board
        self._stamps = board.stamps
        self._held: dict[bytes, Held] = {}
        self._devices: dict[int, tuple[DeviceRecord, int]] = {}
        self._devices_version = -1
        self._answering: set[int] = set()
        """Devices whose file systems say what they have in memory: only those are asked on the loop."""

    def remembered(self, raw_path: bytes) -> Held | None:
        """What is known under this raw path without asking the index, if its stamp stands."""
        held = self._held.get(raw_path)
        if held is None or held.stamp != self._stamps[held.row]:
            return None
        held.is_used = True
        return held

    def find(self, raw_path: bytes, path: str) -> Held | None:
        """Look `path` up in the index and remember it under its raw spelling."""
        key = object_key(path)
        row = Board.row_of(key)
        stamp = self._stamps[row]  # Before the look-up: a change in between must not look like this stamp's truth.
        record = self._index.object(key)
        if record is None:
            self._held.pop(raw_path, None)
            return None
        if len(self._held) >= _ENTRIES:
            self._make_room()
        held = Held(key, record, row, stamp, self._watch(path))
        self._held[raw_path] = held
        return held

    def probe(self) -> None:
        """Look something up that is not there. Raises if the index can't be read."""
        self._index.object(object_key("/"))

    def for_peer(self, path: str) -> Held | None:
        """As `find`, for another appliance that takes what is held: nobody watches, so it is not remembered here nor
        counted as demand.
        """
        key = object_key(path)
        row = Board.row_of(key)
        stamp = self._stamps[row]
        record = self._index.object(key)
        return None if record is None else Held(key, record, row, stamp, unwatched(path))

    def from_keeper(self, key: ObjectKey, record: ObjectRecord) -> Held:
        """What the keeper just said, for one response. Not remembered: the index will say it soon."""
        return Held(key, record, Board.row_of(key), 0, self._watch(record.path))

    def extent(self, held: Held, number: int, block: int) -> OpenExtent | Lying | None:
        """The extent with its block `block` (within the extent) present, open or to be opened; or None.

        What a generation's block holds never changes, so an extent that was opened once stays right for it.
        """
        known = held.extents.get(number)
        if known is not None and known.present >> block & 1:
            return known
        record = self._record(held, number)
        if record is None or not record.present >> block & 1:
            return None
        device = self._device(record.device)
        if device is None:
            return None
        described, tier = device
        key = extent_key(held.key, held.record.generation, number)
        size = min(EXTENT_BYTES, held.record.size - number * EXTENT_BYTES)
        lying = Lying(key, f"{described.path}/extents/{file_name(key)}", record, tier, size)
        if record.device not in self._answering:
            return lying
        opened = open_lying_at_once(lying)
        if opened is None:
            return lying
        held.extents[number] = opened
        return opened

    def remember(self, held: Held, number: int, extent: OpenExtent) -> None:
        """The device's own threads have opened an extent."""
        held.extents[number] = extent
        if not extent.is_blind:
            self._answering.add(extent.device)

    def forget_all(self) -> None:
        """Give back all descriptors that are only remembered."""
        self._held.clear()

    def holds(self, held: Held, start: int, stop: int) -> bool:
        """Whether all bytes of the span lie on devices."""
        first, last = start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES
        block = first
        while block <= last:
            number, place = divmod(block, EXTENT_BLOCKS)
            until = min(last, (number + 1) * EXTENT_BLOCKS - 1)
            wanted = ((1 << (until - block + 1)) - 1) << place
            known = held.extents.get(number)
            if known is None or known.present & wanted != wanted:
                record = self._record(held, number)
                if record is None or record.present & wanted != wanted or self._device(record.device) is None:
                    return False
            block = until + 1
        return True

    def close_stale(self) -> None:
        """Let go of what was changed or evicted, so that the disk gets its room back. Called once a second."""
        stamps = self._stamps
        gone = [raw for raw, held in self._held.items() if held.stamp != stamps[held.row]]
        for raw in gone:
            del self._held[raw]
        if self._devices_version != self._board.devices_version:
            self._let_go_of_devices()

    def _let_go_of_devices(self) -> None:
        """A device that is not read any more may be unmounted: no file on it is kept open for the next response."""
        self._see_devices()
        for held in self._held.values():
            for number in [n for n, extent in held.extents.items() if extent.device not in self._devices]:
                del held.extents[number]

    def _record(self, held: Held, number: int) -> ExtentRecord | None:
        if held.key.startswith(_PRIVATE):
            return None
        return self._index.extent(extent_key(held.key, held.record.generation, number))

    def _device(self, number: int) -> tuple[DeviceRecord, int] | None:
        if self._devices_version != self._board.devices_version:
            self._let_go_of_devices()
        return self._devices.get(number)

    def _see_devices(self) -> None:
        self._devices_version = self._board.devices_version
        self._answering.clear()
        self._devices = {
            found: (record, PLACES.index(Place(record.tier)))
            for found, record in self._index.devices().items()
            if record.path
        }

    def _make_room(self) -> None:
        """Forget what was not used since the last time (a CLOCK with one hand and one bit)."""
        for raw, held in list(self._held.items()):
            if held.is_used:
                held.is_used = False
            else:
                del self._held[raw]
        if len(self._held) >= _ENTRIES:
            self._held.clear()
