"""The index: one LMDB file, written by the keeper alone, read by every worker through shared memory.

| table | key | value |
|---|---|---|
| objects | object key (16 bytes) | ObjectRecord |
| extents | extent key (28 bytes) | ExtentRecord |
| paths | path, cut to 400 bytes, and object key | nothing: for purging a prefix |
| devices | number (2 bytes) | DeviceRecord |
| notes | name | where the scrubber stands, and the like |

A commit is synced to disk before it is answered. What it says is therefore true after any kind of death: a block's
bytes are durable before its bit is put in here, and a file is removed only after its record is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar

import lmdb
import msgspec

from oca.cache.keys import ExtentKey, ObjectKey
from oca.cache.records import (
    FORMAT,
    DeviceRecord,
    ExtentRecord,
    ObjectRecord,
    decode_device,
    decode_extent,
    decode_object,
    encode,
    with_block,
)
from oca.errors import IndexUnusable

T = TypeVar("T")

if TYPE_CHECKING:
    Txn = lmdb.Transaction[bytes]

_MAP_BYTES: Final = 64 * 1024**3
"""Address space, not disk or memory: the most the index may grow to. 10 M records take about 3 GiB."""
_TABLES: Final = 8
_MOST_DEVICES: Final = 4096
_READERS: Final = 1024
_PATH_BYTES: Final = 400
"""LMDB keys end at 511 bytes."""
_OBJECT_KEY: Final = 16
_BEHIND_SLASH: Final = b"0"
"""The byte that follows on "/": what begins with a folder's name and this is behind everything in the folder."""
_NUMBER: Final = struct.Struct(">H")
_FORMAT_KEY: Final = b"format"


class PutObject(msgspec.Struct, frozen=True):
    key: ObjectKey
    record: ObjectRecord


class DropObject(msgspec.Struct, frozen=True):
    """Remove an object's record and all its extents. `unless` spares the extents of one generation, and the record."""

    key: ObjectKey
    unless: int | None = None


class AddBlock(msgspec.Struct, frozen=True):
    """Block `block` of an extent is durable on `device`. An extent that lay elsewhere is given up there."""

    key: ExtentKey
    device: int
    slot: int
    block: int
    crc: int
    used_bytes: int
    group: int = 0
    pledged_until: float = 0.0


class MoveExtent(msgspec.Struct, frozen=True):
    """A whole copy of an extent is durable on `device`: it is read from there now. The old place stays as the copy
    below if `keeps_below`, else it is given up. Nothing happens if the extent is not what was copied (`copied`).
    """

    key: ExtentKey
    copied: ExtentRecord
    device: int
    keeps_below: bool


class DropCopy(msgspec.Struct, frozen=True):
    """What lies of an extent on `device` is gone. If there is a copy elsewhere, it is read from there; else the extent
    goes. With `slot`, only if it still has that slot.
    """

    key: ExtentKey
    device: int
    slot: int | None = None


class AdoptExtent(msgspec.Struct, frozen=True):
    """An extent was found on a device with its label. Nothing happens if the index does not say `known` of it any more,
    or holds a newer generation of its object; extents of older ones go.
    """

    key: ExtentKey
    known: ExtentRecord | None
    extent: ExtentRecord
    object: ObjectRecord


class Pledge(msgspec.Struct, frozen=True):
    """Extents of an object are not evicted before `until`; 0 takes a pledge back."""

    key: ObjectKey
    generation: int
    until: float


class DropExtent(msgspec.Struct, frozen=True):
    """Remove one extent's record; with `slot`, only if it still has that slot. An object without extents goes too:
    what nobody reads must not fill the index.
    """

    key: ExtentKey
    slot: int | None = None


class Listener(Protocol):
    """Hears what each commit changed, on the loop, in the order of the commits. It must not fail or take long."""

    def heard(self, paths: Sequence[str], extents: Sequence[tuple[ExtentRecord | None, ExtentRecord | None]]) -> None:
        """`paths` of objects that were put, and what was and is said of each extent; None: nothing."""
        ...


Change = PutObject | DropObject | AddBlock | MoveExtent | DropCopy | AdoptExtent | Pledge | DropExtent
Dropped = list[tuple[ExtentKey, ExtentRecord]]
"""What a commit took out of the index, an extent or one of its copies: the files on `device` (and `below`) may go."""


def _open(folder: str, *, readonly: bool, sync: bool = True) -> lmdb.Environment:
    try:
        return lmdb.open(
            folder,
            map_size=_MAP_BYTES,
            max_dbs=_TABLES,
            max_readers=_READERS,
            readonly=readonly,
            sync=sync,
            create=not readonly,
            readahead=False,
            max_spare_txns=4,
        )
    except lmdb.Error as error:
        raise IndexUnusable(f"{folder}: the index can't be opened: {error}") from error


class IndexReader:
    """Look-ups of one process. Each call sees the latest commit. Not for threads."""

    def __init__(self, folder: str) -> None:
        self._env = _open(folder, readonly=True)
        self._objects = self._env.open_db(b"objects", create=False)
        self._extents = self._env.open_db(b"extents", create=False)
        self._devices = self._env.open_db(b"devices", create=False)

    def close(self) -> None:
        self._env.close()

    def object(self, key: ObjectKey) -> ObjectRecord | None:
        with self._env.begin(buffers=True) as txn:
            return _readable(txn.get(key, db=self._objects), decode_object)

    def extent(self, key: ExtentKey) -> ExtentRecord | None:
        with self._env.begin(buffers=True) as txn:
            return _readable(txn.get(key, db=self._extents), decode_extent)

    def devices(self) -> dict[int, DeviceRecord]:
        with self._env.begin() as txn, txn.cursor(db=self._devices) as cursor:
            return {_NUMBER.unpack(key)[0]: decode_device(packed) for key, packed in cursor}

    def counts(self) -> tuple[int, int]:
        """How many objects and extents there are."""
        with self._env.begin() as txn:
            return txn.stat(self._objects)["entries"], txn.stat(self._extents)["entries"]

    def scan_from(self, after: ExtentKey, limit: int) -> list[tuple[ExtentKey, ExtentRecord | None]]:
        """The next extents behind a key, in the order of keys; None in place of a record that can't be read."""
        with self._env.begin() as txn, txn.cursor(db=self._extents) as cursor:
            found = islice(_behind(cursor, after), limit)
            return [(key, _readable(packed, decode_extent)) for key, packed in found]


class IndexLoader:
    """Fills a new index, in the order of its keys. It is durable, and complete, when `close` returns."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True)
        self._env = _open(folder, readonly=False, sync=False)
        self._objects = self._env.open_db(b"objects")
        self._extents = self._env.open_db(b"extents")
        self._paths = self._env.open_db(b"paths")
        self._devices = self._env.open_db(b"devices")
        self._env.open_db(b"notes")
        meta = self._env.open_db(b"meta")
        with self._env.begin(write=True) as txn:
            txn.put(_FORMAT_KEY, str(FORMAT).encode(), db=meta)

    def append(
        self, objects: Iterable[tuple[ObjectKey, ObjectRecord]], extents: Iterable[tuple[ExtentKey, ExtentRecord]]
    ) -> None:
        """Records whose keys follow, in order, on all that were appended before."""
        listed = list(objects)
        with self._env.begin(write=True) as txn:
            with txn.cursor(db=self._extents) as cursor:
                cursor.putmulti([(key, encode(record)) for key, record in extents], append=True)
            with txn.cursor(db=self._objects) as cursor:
                cursor.putmulti([(key, encode(record)) for key, record in listed], append=True)
            with txn.cursor(db=self._paths) as cursor:
                cursor.putmulti(sorted((_path_key(record.path, key), b"") for key, record in listed))

    def put_devices(self, devices: dict[int, DeviceRecord]) -> None:
        with self._env.begin(write=True) as txn:
            for number, record in devices.items():
                txn.put(_NUMBER.pack(number), encode(record), db=self._devices)

    def close(self) -> None:
        self._env.sync(True)
        self._env.close()


class Index:
    """The keeper's index. Writes are grouped: whatever waits when a commit ends goes into the next one."""

    def __init__(self, folder: str) -> None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IndexUnusable(f"{folder}: can't be made: {error.strerror}") from error
        self._env = _open(folder, readonly=False)
        self._objects = self._env.open_db(b"objects")
        self._extents = self._env.open_db(b"extents")
        self._paths = self._env.open_db(b"paths")
        self._devices = self._env.open_db(b"devices")
        self._notes = self._env.open_db(b"notes")
        meta = self._env.open_db(b"meta")
        with _translated(), self._env.begin(write=True) as txn:
            found = txn.get(_FORMAT_KEY, db=meta)
            if found is None:
                txn.put(_FORMAT_KEY, str(FORMAT).encode(), db=meta)
            elif found != str(FORMAT).encode():
                self._env.close()
                raise IndexUnusable(f"{folder}: the index has format {found.decode()}, this version reads {FORMAT}")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._waiting: list[tuple[tuple[Change, ...], asyncio.Future[Dropped]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._wakes = asyncio.Event()
        self.listener: Listener | None = None
        self._told_paths: list[str] = []
        """For the listener, of the commit under way; likewise below."""
        self._told_extents: list[tuple[ExtentRecord | None, ExtentRecord | None]] = []

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write(), name="index writer")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._writer is not None
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        for _, done in self._waiting:
            done.cancel()
        self._thread.shutdown(wait=True)
        self._env.close()

    async def apply(self, *changes: Change) -> Dropped:
        """Commit `changes` together, durably. Returns the extents that went."""
        done: asyncio.Future[Dropped] = asyncio.get_running_loop().create_future()
        self._waiting.append((changes, done))
        self._wakes.set()
        return await done

    def object(self, key: ObjectKey) -> ObjectRecord | None:
        """Raises `IndexUnusable` if its disk has failed: what can't be known is not the same as what is not there."""
        with _translated(), self._env.begin(buffers=True) as txn:
            return _readable(txn.get(key, db=self._objects), decode_object)

    def extent(self, key: ExtentKey) -> ExtentRecord | None:
        """As `object`."""
        with _translated(), self._env.begin(buffers=True) as txn:
            return _readable(txn.get(key, db=self._extents), decode_extent)

    def extents_of(self, key: ObjectKey, generation: int) -> list[tuple[ExtentKey, ExtentRecord]]:
        prefix = key + generation.to_bytes(8, "big")
        with _translated(), self._env.begin() as txn:
            return [(found, decode_extent(packed)) for found, packed in _starting(txn, self._extents, prefix)]

    def paths_starting(self, prefix: str, limit: int) -> list[ObjectKey]:
        """Keys of at most `limit` objects whose path starts with `prefix`."""
        wanted = prefix.encode()
        keys: list[ObjectKey] = []
        with _translated(), self._env.begin() as txn:
            for found, _ in _starting(txn, self._paths, wanted[:_PATH_BYTES]):
                if len(found) - 16 < min(len(wanted), _PATH_BYTES):
                    continue  # A shorter path: it was the object key behind it that looked like the rest of the prefix.
                key = found[-16:]
                if len(wanted) > _PATH_BYTES:
                    packed = txn.get(key, db=self._objects)
                    if packed is None or not decode_object(packed).path.startswith(prefix):
                        continue
                keys.append(key)
                if len(keys) == limit:
                    break
        return keys

    def folders_below(self, prefix: str, after: str, limit: int) -> list[str]:
        """Names, in order and behind `after`, of at most `limit` folders directly below `prefix`, which ends in "/".
        One step for each, however much lies in it. For a thread of its own.
        """
        names: list[str] = []
        wanted = prefix.encode()
        with _translated(), self._env.begin() as txn, txn.cursor(db=self._paths) as cursor:
            more = cursor.set_range(wanted + after.encode() + _BEHIND_SLASH if after else wanted)
            while more and len(names) < limit and cursor.key().startswith(wanted):
                name, slash, _ = cursor.key()[len(wanted) : -_OBJECT_KEY].partition(b"/")
                if not slash:
                    more = cursor.next()  # An object, and no folder.
                    continue
                names.append(name.decode(errors="replace"))
                more = cursor.set_range(wanted + name + _BEHIND_SLASH)
        return names

    def lying_below(self, prefix: str, group: int) -> dict[tuple[int, int], int]:
        """Bytes that extents of `group` take whose objects' paths begin with `prefix`, by the number of the device they
        are read from and that of the one with the copy below (-1 without). For `in_thread`.
        """
        found: Counter[tuple[int, int]] = Counter()
        with _translated(), self._env.begin() as txn:
            for path_key, _ in _starting(txn, self._paths, prefix.encode()[:_PATH_BYTES]):
                for _, packed in _starting(txn, self._extents, path_key[-_OBJECT_KEY:]):
                    extent = _readable(packed, decode_extent)
                    if extent is not None and extent.group == group:
                        found[extent.device, -1 if extent.below is None else extent.below] += extent.used_bytes
        return dict(found)

    def counts(self) -> tuple[int, int]:
        """How many objects and extents there are."""
        with _translated(), self._env.begin() as txn:
            return txn.stat(self._objects)["entries"], txn.stat(self._extents)["entries"]

    def scan_extents(self, batch: int) -> Iterator[list[tuple[ExtentKey, ExtentRecord]]]:
        """All extents in batches. Between batches no transaction is held, so the file does not grow meanwhile."""
        after = b""
        while found := self.scan_from(after, batch):
            yield found
            after = found[-1][0]

    def devices(self) -> dict[int, DeviceRecord]:
        """All devices that were ever seen and not removed, by their numbers."""
        with _translated(), self._env.begin() as txn, txn.cursor(db=self._devices) as cursor:
            return {_NUMBER.unpack(key)[0]: decode_device(packed) for key, packed in cursor}

    def new_device_number(self) -> int:
        known = self.devices()
        return next(number for number in range(_MOST_DEVICES) if number not in known)

    def put_device(self, number: int, record: DeviceRecord) -> None:
        with _translated(), self._env.begin(write=True) as txn:
            txn.put(_NUMBER.pack(number), encode(record), db=self._devices)

    def drop_device(self, number: int) -> None:
        """Its number may be given to another: no extent may name it any more."""
        with _translated(), self._env.begin(write=True) as txn:
            txn.delete(_NUMBER.pack(number), db=self._devices)

    def note(self, name: str) -> bytes | None:
        """What was noted under a name: where the scrubber stands, and the like."""
        with _translated(), self._env.begin() as txn:
            return txn.get(name.encode(), db=self._notes)

    async def put_note(self, name: str, value: bytes) -> None:
        """Raises `IndexUnusable` if it can't be written."""

        def put() -> None:
            with _translated(), self._env.begin(write=True) as txn:
                txn.put(name.encode(), value, db=self._notes)

        try:
            await self.in_thread(put)
        except lmdb.Error as error:
            raise IndexUnusable(f"the index can't be written: {error}") from error

    def scan_from(self, after: ExtentKey, limit: int) -> list[tuple[ExtentKey, ExtentRecord]]:
        """The next extents behind a key, in the order of keys. Records that can't be read are passed over."""
        with _translated(), self._env.begin() as txn, txn.cursor(db=self._extents) as cursor:
            decoded = ((key, _readable(packed, decode_extent)) for key, packed in _behind(cursor, after))
            return list(islice(((key, extent) for key, extent in decoded if extent is not None), limit))

    def clear_dead_readers(self) -> int:
        """Free the reader slots of killed workers: while one is held, pages it saw can't be used again."""
        return int(self._env.reader_check())

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run a long read beside the loop, in order with the commits."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _write(self) -> None:
        while True:
            await self._wakes.wait()
            self._wakes.clear()
            batch, self._waiting = self._waiting, []
            try:
                dropped = await self.in_thread(lambda batch=batch: self._commit([c for c, _ in batch]))  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - a full disk, a rotten record: who waits must learn of it
                for _, done in batch:
                    if not done.done():
                        done.set_exception(IndexUnusable(f"the index can't be written: {error!r}"))
                continue
            if self.listener is not None:
                # Nothing writes now: the next commit begins behind this.
                self.listener.heard(self._told_paths, self._told_extents)
            for (_, done), gone in zip(batch, dropped, strict=True):
                if not done.done():
                    done.set_result(gone)

    def _commit(self, batch: list[tuple[Change, ...]]) -> list[Dropped]:
        self._told_paths, self._told_extents = [], []
        with _translated(), self._env.begin(write=True) as txn:
            return [self._change_all(txn, changes) for changes in batch]

    def _change_all(self, txn: Txn, changes: Iterable[Change]) -> Dropped:
        dropped: Dropped = []
        for change in changes:
            match change:
                case PutObject(key, record):
                    txn.put(key, encode(record), db=self._objects)
                    txn.put(_path_key(record.path, key), b"", db=self._paths)
                    self._told_paths.append(record.path)
                case AddBlock():
                    self._add_block(txn, change, dropped)
                case MoveExtent():
                    self._move_extent(txn, change, dropped)
                case DropCopy():
                    self._drop_copy(txn, change, dropped)
                case AdoptExtent():
                    self._adopt_extent(txn, change, dropped)
                case Pledge(key, generation, until):
                    self._pledge(txn, key + generation.to_bytes(8, "big"), until)
                case DropExtent(key, slot):
                    packed = txn.get(key, db=self._extents)
                    if packed is not None:
                        extent = decode_extent(packed)
                        if slot is None or extent.slot == slot:
                            self._drop_extent(txn, key, extent, dropped)
                case DropObject(key, unless):
                    self._drop_object(txn, key, unless, dropped)
        return dropped

    def _add_block(self, txn: Txn, change: AddBlock, dropped: Dropped) -> None:
        packed = txn.get(change.key, db=self._extents)
        before = extent = None if packed is None else decode_extent(packed)
        if extent is not None and (extent.device != change.device or extent.slot != change.slot):
            dropped.append((change.key, extent))
            extent = None
        if extent is None:
            extent = ExtentRecord(
                change.device, change.slot, 0, b"", 0, change.group, pledged_until=change.pledged_until
            )
        if extent.below is not None:
            # The copy lacks this block, and a copy is whole or none.
            dropped.append((change.key, msgspec.structs.replace(extent, device=extent.below, below=None)))
        after = with_block(extent, change.block, change.crc, change.used_bytes)
        self._put_extent(txn, change.key, before, after)

    def _put_extent(self, txn: Txn, key: ExtentKey, before: ExtentRecord | None, after: ExtentRecord) -> None:
        txn.put(key, encode(after), db=self._extents)
        self._told_extents.append((before, after))

    def _delete_extent(self, txn: Txn, key: ExtentKey, before: ExtentRecord) -> None:
        txn.delete(key, db=self._extents)
        self._told_extents.append((before, None))

    def _pledge(self, txn: Txn, prefix: bytes, until: float) -> None:
        for key, packed in list(_starting(txn, self._extents, prefix)):
            before = decode_extent(packed)
            self._put_extent(txn, key, before, msgspec.structs.replace(before, pledged_until=until))

    def _move_extent(self, txn: Txn, change: MoveExtent, dropped: Dropped) -> None:
        packed = txn.get(change.key, db=self._extents)
        extent = None if packed is None else decode_extent(packed)
        copied = change.copied
        if extent is None or (extent.device, extent.slot, extent.present) != (
            copied.device,
            copied.slot,
            copied.present,
        ):
            return
        if extent.sums != copied.sums:
            return
        below = extent.below
        if change.keeps_below:
            if below is not None and below != change.device:
                dropped.append((change.key, msgspec.structs.replace(extent, device=below, below=None)))
            below = extent.device
        else:
            dropped.append((change.key, msgspec.structs.replace(extent, below=None)))
            if below == change.device:
                below = None
        moved = msgspec.structs.replace(extent, device=change.device, below=below)
        self._put_extent(txn, change.key, extent, moved)

    def _drop_copy(self, txn: Txn, change: DropCopy, dropped: Dropped) -> None:
        packed = txn.get(change.key, db=self._extents)
        if packed is None:
            return
        extent = decode_extent(packed)
        if change.slot is not None and extent.slot != change.slot:
            return
        if extent.below == change.device:
            remaining = msgspec.structs.replace(extent, below=None)
        elif extent.device != change.device:
            return
        elif extent.below is not None:
            remaining = msgspec.structs.replace(extent, device=extent.below, below=None)
        else:
            self._drop_extent(txn, change.key, extent, dropped)
            return
        dropped.append((change.key, msgspec.structs.replace(extent, device=change.device, below=None)))
        self._put_extent(txn, change.key, extent, remaining)

    def _adopt_extent(self, txn: Txn, change: AdoptExtent, dropped: Dropped) -> None:
        packed = txn.get(change.key, db=self._extents)
        known = None if packed is None else decode_extent(packed)
        key, record = change.key[:16], change.object
        packed = txn.get(key, db=self._objects)
        held = None if packed is None else decode_object(packed)
        if known != change.known or (held is not None and held.generation > record.generation):
            return
        if held is not None and held.generation < record.generation:
            self._drop_object(txn, key, record.generation, dropped)
            held = None
        if held is None or held.generated_at < record.generated_at:
            txn.put(key, encode(record), db=self._objects)
            txn.put(_path_key(record.path, key), b"", db=self._paths)
        if known is not None:
            kept = (change.extent.device, change.extent.below)
            dropped += [
                (change.key, msgspec.structs.replace(known, device=device, below=None))
                for device in (known.device, known.below)
                if device is not None and device not in kept
            ]
        self._told_paths.append(record.path)
        self._put_extent(txn, change.key, known, change.extent)

    def _drop_extent(self, txn: Txn, key: ExtentKey, extent: ExtentRecord, dropped: Dropped) -> None:
        self._delete_extent(txn, key, extent)
        dropped.append((key, extent))
        if next(_starting(txn, self._extents, key[:16]), None) is None:
            self._drop_object(txn, key[:16], None, dropped)

    def _drop_object(self, txn: Txn, key: ObjectKey, unless: int | None, dropped: Dropped) -> None:
        spared = None if unless is None else key + unless.to_bytes(8, "big")
        for found, packed in list(_starting(txn, self._extents, key)):
            if spared is None or not found.startswith(spared):
                extent = decode_extent(packed)
                dropped.append((found, extent))
                self._delete_extent(txn, found, extent)
        if unless is None:
            record = txn.get(key, db=self._objects)
            if record is not None:
                txn.delete(_path_key(decode_object(record).path, key), db=self._paths)
                txn.delete(key, db=self._objects)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise IndexUnusable(f"the index can't be used: {error}") from error


def _path_key(path: str, key: ObjectKey) -> bytes:
    return path.encode()[:_PATH_BYTES] + key


def _behind(cursor: lmdb.Cursor[bytes], after: bytes) -> Iterator[tuple[bytes, bytes]]:
    more = cursor.set_range(after + b"\0") if after else cursor.first()
    while more:
        yield cursor.key(), cursor.value()
        more = cursor.next()


def _starting(txn: Txn, table: lmdb._Database, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    with txn.cursor(db=table) as cursor:
        more = cursor.set_range(prefix) if prefix else cursor.first()
        while more and cursor.key().startswith(prefix):
            yield cursor.key(), cursor.value()
            more = cursor.next()


def _readable(packed: bytes | memoryview | None, decode: Callable[[bytes | memoryview], T]) -> T | None:
    """The record; None if there is none, or none that can be read: that is a miss, and it is written anew."""
    if packed is None:
        return None
    try:
        return decode(packed)
    except msgspec.DecodeError:
        return None
