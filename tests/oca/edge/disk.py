"""Extent files as the keeper leaves them, and what a worker needs to read them."""

import asyncio
import os
from pathlib import Path

import crc32c

from oca.cache.keys import BLOCK_BYTES, extent_key, object_key
from oca.cache.records import ExtentRecord, with_block
from oca.counters import COUNTERS_BYTES, PLACES
from oca.edge.extents import Lying, OpenExtent, open_lying
from oca.edge.pools import Answer, Pools
from oca.edge.tally import Tally
from oca.settings import Store
from oca.store.board import new_memory
from oca.turns import Turns

PATIENCE = 20.0


def laid(folder: Path, content: bytes, *, device: int = 0, tier: str = "nvme", name: str = "/film") -> Lying:
    """An extent's file with `content`, durable and right."""
    key = extent_key(object_key(name), 1, 0)
    path = folder / key.hex()
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    record = ExtentRecord(device, 3, 0, b"", 0)
    for block, at in enumerate(range(0, len(content), BLOCK_BYTES)):
        part = content[at : at + BLOCK_BYTES]
        record = with_block(record, block, crc32c.crc32c(part), len(part))
    return Lying(key, str(path), record, PLACES.index(tier), len(content))


def opened(*args, **kwargs) -> OpenExtent:
    return open_lying(laid(*args, **kwargs))


def forget_pages(extent: OpenExtent) -> None:
    os.posix_fadvise(extent.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def flip(path: str, offset: int) -> None:
    """One bit, at rest."""
    fd = os.open(path, os.O_RDWR)
    (byte,) = os.pread(fd, 1, offset)
    os.pwrite(fd, bytes([byte ^ 4]), offset)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


class Bay:
    """The pools of one worker, with its own row of counters and all turns."""

    def __init__(self, **store: float) -> None:
        self.memory = new_memory("test-counters", COUNTERS_BYTES)
        self.tally = Tally(self.memory, 0)
        self.stalls: list[tuple[int, float]] = []
        self.turns = Turns(self.memory)
        self.pools = Pools(self.turns, Store(**store), self.tally, lambda *told: self.stalls.append(told))

    def close(self) -> None:
        self.pools.close()
        os.close(self.memory)


async def answer_of(ask, *args: object) -> Answer:
    """What a pool says in the end."""
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    ask(*args, answered.set_result)
    async with asyncio.timeout(PATIENCE):
        return await answered
