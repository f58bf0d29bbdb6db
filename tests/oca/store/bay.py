"""Shelves on folders, with a clock that stands until it is moved: what the tests of the store stand on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random

import crc32c

from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES, extent_key, object_key
from oca.cache.records import ObjectRecord
from oca.settings import Device, Store, Tier
from oca.store.index import Index
from oca.store.mover import Mover, Pace
from oca.store.rack import Rack
from oca.store.shelves import Keeping, Shelves
from wire.toml import Bytes

PAGE = 4096


def content_of(path: str, generation: int, block: int, length: int = PAGE) -> bytes:
    return random.Random(f"{path} {generation} {block}").randbytes(PAGE) * (length // PAGE)


def allocated(path: str) -> int:
    """Bytes of a file that are no holes, by whole pages."""
    total = end = 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            total += -(-(end - start) // PAGE) * PAGE
    return total


class Bay:
    """Shelves on folders below `root`, with a clock that stands until it is moved."""

    def __init__(self, root, board) -> None:
        self.root = root
        self.board = board
        self.now = 1e9
        self.pledge_share = 1.0
        self.index: Index
        self.shelves: Shelves
        self._exit = contextlib.AsyncExitStack()

    async def start(self, **devices: int | tuple[str, int]) -> None:
        """Devices by name, with what the cache may use of each, and its tier if it is not nvme."""
        self.index = await self._exit.enter_async_context(Index(str(self.root / "index")))
        self.shelves = Shelves(self.index, self.board, lambda: self.now, self.pledge_share)
        self.rack = Rack(self.shelves, self.index, Store(probation=Bytes(0)), lambda: self.now)
        self.mover = Mover(self.shelves, self.index, Pace(0.0, lambda: self.now), lambda: self.now, sleep=self.rest)
        await self.rack.start(self.device(name, what) for name, what in devices.items())
        await self.shelves.load()

    async def rest(self, seconds: float) -> None:
        """Time that is slept costs none."""
        self.now += seconds
        await asyncio.sleep(0)

    def device(self, name: str, what: int | tuple[str, int]) -> Device:
        tier, capacity = what if isinstance(what, tuple) else ("nvme", what)
        return Device(str(self.root / name), Tier(tier), Bytes(capacity), 100.0)

    async def stop(self) -> None:
        if hasattr(self, "shelves"):
            self.shelves.close()
        await self._exit.aclose()

    def keeping(
        self, path="/a", block=0, *, generation=1, length=PAGE, is_wanted=lambda: True, promise=None
    ) -> Keeping:
        """A whole block, or one shorter than that, which is then the last of its object."""
        size = (block + 1) * BLOCK_BYTES if length == BLOCK_BYTES else block * BLOCK_BYTES + length
        record = ObjectRecord(path, generation, max(size, 16 * BLOCK_BYTES if length == BLOCK_BYTES else 0))
        content = memoryview(content_of(path, generation, block, length))
        return Keeping(object_key(path), record, block, content, is_wanted, promise)

    async def keep(self, *args, **others) -> bool:
        return await self.shelves.keep(self.keeping(*args, **others))

    async def lose(self, key: bytes, slot: int, reason: str, device: int | None = None) -> None:
        """`device` is where the index says that it lies, unless it is given: another thread writes the index."""
        fault = Fault.MISSING if reason == "gone" else Fault.IO
        on = self.index.extent(key).device if device is None else device
        await self.shelves.lose(key, slot, reason, on, fault)

    async def sweep(self) -> int:
        return sum([await self.shelves.sweep(shelf) for shelf in self.shelves.shelves])

    def shelf(self, name: str):
        return next(shelf for shelf in self.shelves.shelves if shelf.path == str(self.root / name))

    def extent(self, path="/a", *, generation=1, number=0):
        return self.index.extent(extent_key(object_key(path), generation, number))

    def file(self, name: str, path="/a", *, generation=1, number=0) -> str:
        return self.shelf(name).folder.file_path(extent_key(object_key(path), generation, number))

    def files(self, name: str) -> dict[bytes, os.stat_result]:
        folder = self.shelf(name).folder
        found = {}
        for key in folder.extents():
            # A mover that is at work may take it away just now.
            with contextlib.suppress(FileNotFoundError):
                found[key] = os.stat(folder.file_path(key))
        return found

    def bytes_on_disk(self, name: str) -> int:
        """What the content takes; a file's label is the file system's business."""
        folder = self.shelf(name).folder
        return sum(allocated(folder.file_path(key)) for key in folder.extents())

    def is_settled(self) -> None:
        """Index, files, slots and sums say the same, and no device holds more than it may."""
        listed = [pair for batch in self.index.scan_extents(100) for pair in batch]
        for shelf in self.shelves.shelves:
            here = {key: record for key, record in listed if shelf.number in (record.device, record.below)}
            assert set(shelf.folder.extents()) == set(here)
            assert self.shelves.policy.used_bytes(shelf.number) == sum(record.used_bytes for record in here.values())
            assert self.shelves.policy.used_bytes(shelf.number) <= shelf.capacity
            for key, record in here.items():
                assert self.shelves.policy.shelf_of(record.slot) == record.device
                assert self.shelves.policy.below_of(record.slot) == record.below
                with open(shelf.folder.file_path(key), "rb") as file:
                    for block in range(16):
                        if record.present >> block & 1:
                            file.seek(block * BLOCK_BYTES)
                            assert crc32c.crc32c(file.read(BLOCK_BYTES)) == record.sum_of(block)
        slots = [record.slot for _, record in listed]
        assert len(set(slots)) == len(slots)
        assert not self.shelves._pinned
        assert not any(shelf.reserved_bytes for shelf in self.shelves.shelves)
        assert not self.shelves._busy
