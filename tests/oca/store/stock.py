"""A store with devices in several tiers, in folders below one root, with the settings that say so."""

import contextlib
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from oca.cache.keys import BLOCK_BYTES, extent_key, object_key
from oca.cache.records import ExtentRecord, ObjectRecord
from oca.settings import Settings, parse_settings
from oca.store.board import Board
from oca.store.device import DeviceFolder
from oca.store.index import Index
from oca.store.rack import Rack
from oca.store.shelf import Shelf
from oca.store.shelves import Keeping, Shelves

PAGE = 4096


def content_of(path: str, generation: int, block: int, length: int) -> bytes:
    return (random.Random(f"{path} {generation} {block}").randbytes(PAGE) * (length // PAGE + 1))[:length]


class Stock:
    """`devices` are tiers by name. The clock stands until it is moved; nobody sleeps, the clock jumps."""

    def __init__(self, root: Path, board: Board, devices: dict[str, str], **store: object) -> None:
        self.root = root
        self.board = board
        self.now = 1_000_000.0
        self.settings = self.with_devices(devices, **store)
        self.index: Index
        self.shelves: Shelves
        self.rack: Rack
        self._exit = contextlib.AsyncExitStack()

    def with_devices(self, devices: dict[str, str], **store: object) -> Settings:
        lines = [
            '[appliance]\nid = "box"',
            f'state_dir = "{self.root / "state"}"',
            '[origin]\nurl = "http://127.0.0.1:9"',
            "[store]",
            *(f"{name} = {value}" for name, value in {"probation": 0, **store}.items()),
        ]
        for name, tier in devices.items():
            lines.append(f'[[device]]\npath = "{self.root / name}"\ntier = "{tier}"\ncapacity = "1 TiB"\ndwpd = 100')
        return parse_settings("\n".join(lines), "settings")

    async def start(self) -> None:
        self.index = await self._exit.enter_async_context(Index(str(self.root / "state" / "index")))
        self.shelves = Shelves(self.index, self.board, lambda: self.now)
        self.rack = Rack(self.shelves, self.index, self.settings.store, lambda: self.now)
        await self.rack.start(self.settings.device)
        await self.shelves.load()

    async def stop(self) -> None:
        if hasattr(self, "shelves"):
            self.shelves.close()
        await self._exit.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    # --- Content ------------------------------------------------------------------------------------------------------

    async def keep(self, path: str, blocks: Iterable[int], *, size: int | None = None, generation: int = 1) -> None:
        """Blocks of an object of `size` bytes; by default all are whole and the last one is the object's last."""
        listed = list(blocks)
        size = size or (max(listed) + 1) * BLOCK_BYTES
        record = ObjectRecord(path, generation, size, etag=b'"e"', generated_at=self.now, lifetime=1e6)
        for block in listed:
            length = min(BLOCK_BYTES, size - block * BLOCK_BYTES)
            content = memoryview(content_of(path, generation, block, length))
            assert await self.shelves.keep(Keeping(object_key(path), record, block, content, lambda: True))

    def key(self, path: str, number: int = 0, generation: int = 1) -> bytes:
        return extent_key(object_key(path), generation, number)

    def extent(self, path: str, number: int = 0, generation: int = 1) -> ExtentRecord | None:
        return self.index.extent(self.key(path, number, generation))

    def shelf(self, name: str) -> Shelf:
        return next(shelf for shelf in self.shelves.shelves if shelf.path == str(self.root / name))

    def folder(self, name: str) -> DeviceFolder:
        folder = DeviceFolder(str(self.root / name))
        folder.open()
        return folder

    def files(self, name: str) -> set[bytes]:
        folder = self.folder(name)
        try:
            return set(folder.extents())
        finally:
            folder.close()

    def file(self, path: str, number: int = 0, generation: int = 1) -> Path:
        """The one file of an extent, wherever it is."""
        name = self.key(path, number, generation).hex()
        return next(self.root.rglob(name))

    def known(self) -> dict[bytes, ExtentRecord]:
        return dict(pair for batch in self.index.scan_extents(100) for pair in batch)

    def objects(self) -> dict[bytes, ObjectRecord | None]:
        return {key[:16]: self.index.object(key[:16]) for key in self.known()}


def held(known: dict[bytes, ExtentRecord]) -> dict[bytes, tuple[object, ...]]:
    """What matters of extents when their index was made anew: neither slots nor numbers of devices."""
    return {
        key: (extent.present, extent.sums, extent.used_bytes, extent.group, extent.pledged_until)
        for key, extent in known.items()
    }


def flip(file: Path, offset: int) -> None:
    """One bit at rest."""
    with file.open("r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([byte ^ 1]))
        os.fsync(opened.fileno())
