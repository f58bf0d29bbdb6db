"""One connection on a real socket: what a late answer of the disk may not do."""

import asyncio
import os
import socket
import time

import pytest

from oca import ipc
from oca.cache.keys import extent_key, object_key
from oca.cache.records import DeviceRecord, ObjectRecord
from oca.counters import ROWS, WORDS, Count
from oca.edge.connection import Connection
from oca.edge.courier import Courier
from oca.edge.lookup import Lookup
from oca.edge.pools import is_warm
from oca.edge.tally import Tally
from oca.edge.worker import Worker
from oca.settings import parse_settings
from oca.store.board import new_memory
from oca.store.device import DeviceFolder
from oca.store.index import AddBlock, IndexReader, PutObject
from tests.oca.edge.test_courier import Keeper

SETTINGS = """\
[appliance]
id = "oca-test"
[origin]
url = "http://127.0.0.1:1"
[[device]]
path = "/nowhere"
tier = "nvme"
capacity = "1 GiB"
"""
PATH = "/film.mp4"
SIZE = 1_000_000
KEY = object_key(PATH)
EXTENT = extent_key(KEY, 1, 0)


class StuckDisk:
    """A device whose reads hang until a test lets them go."""

    def __init__(self) -> None:
        self.waiting = []
        self.asked = asyncio.Event()

    def read(self, device, fd, offset, count, done) -> None:
        self.waiting.append(done)
        self.asked.set()


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.heard = b""

    async def ask(self, path: str) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    async def answer(self) -> bytes:
        """The next answer, whole."""
        async with asyncio.timeout(20):
            while b"\r\n\r\n" not in self.heard:
                await self._hear()
            head, _, self.heard = self.heard.partition(b"\r\n\r\n")
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            while len(self.heard) < length:
                await self._hear()
            self.heard = self.heard[length:]
            return head

    async def _hear(self) -> None:
        received = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
        assert received
        self.heard += received


@pytest.fixture
async def keeper(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    built = Keeper(fd)
    built.fd = fd
    yield built
    built.close()
    await asyncio.sleep(0)
    os.close(fd)


@pytest.fixture
def reader(tmp_path, scribe):
    """An index in which one film lies on one device, and whose pages are cold."""
    folder = DeviceFolder(str(tmp_path / "disk"))
    folder.identify()
    scribe.open(str(tmp_path / "index"))
    scribe.register_device(DeviceRecord("d0", folder.path, "nvme"))
    crc = folder.write_block(EXTENT, 0, memoryview(os.urandom(SIZE)), 0)
    record = ObjectRecord(PATH, 1, SIZE, etag=b'"v"', generated_at=time.time(), lifetime=1e6)
    scribe.apply(PutObject(KEY, record), AddBlock(EXTENT, 0, 0, 0, crc, SIZE))
    fd = os.open(folder.file_path(EXTENT), os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert not is_warm(fd, 0, SIZE)
    os.close(fd)
    opened = IndexReader(str(tmp_path / "index"))
    yield opened
    opened.close()


async def test_a_disk_that_answers_too_late_does_not_answer_the_next_request(keeper, reader, board):
    counters = new_memory("test-counters", ROWS * WORDS * 8)
    disk = StuckDisk()
    courier = Courier(keeper.fd, 1)
    courier.connect()
    worker = Worker(parse_settings(SETTINGS, ""), board, Lookup(reader, board), courier, disk, Tally(counters, 0))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    client = Client(theirs)
    worker.tally.count(Count.CONNECTIONS_OPEN)
    connection = Connection(ours, worker, asyncio.get_running_loop())
    try:
        await client.ask(PATH)
        await disk.asked.wait()
        connection.expire(time.monotonic() + 1000)
        assert b" 504 " in await client.answer()
        await client.ask("/next.mp4")
        asked = (await keeper.hears(ipc.Open))[0]
        disk.waiting[0](None)
        assert not connection.is_idle  # It still waits for the keeper.
        none = ObjectRecord("/next.mp4", 2, 0, 404)
        keeper.say(ipc.Opened(asked.request, object_key("/next.mp4"), none, "negative", 404))
        assert b" 404 " in await client.answer()
    finally:
        connection.close()
        courier.close()
        theirs.close()
        os.close(counters)
        await asyncio.sleep(0)
