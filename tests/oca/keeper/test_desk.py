"""A worker's conversation with the keeper: each of its wants is answered, whichever flight it is for."""

import asyncio
import os
import socket
from types import SimpleNamespace

import pytest

from oca import ipc
from oca.cache.records import ObjectRecord
from oca.keeper.desk import Clerk
from oca.keeper.flights import Flight

RECORD = ObjectRecord("/a", 1, 10)
KEY = b"k" * 24


class Worker:
    """The other end, which reads along."""

    def __init__(self, sock: socket.socket) -> None:
        self.heard: list[object] = []
        self._moved = asyncio.Event()
        self.channel = ipc.Channel(sock, self._received, lambda: None)

    def _received(self, packed: bytes, fd: int) -> None:
        if fd >= 0:
            os.close(fd)
        self.heard.append(ipc.decode_from_keeper(packed))
        self._moved.set()

    async def hears(self, kind: type, count: int) -> list:
        async with asyncio.timeout(20):
            while len(found := [packet for packet in self.heard if type(packet) is kind]) < count:
                self._moved.clear()
                await self._moved.wait()
        return found

    def want(self, number: int, *, unreadable: bool = False) -> None:
        self.channel.send(ipc.Want(number, KEY, "/a", 1, 0, 0, b"", unreadable))


@pytest.fixture
async def flight():
    return Flight(KEY, RECORD, 0)


@pytest.fixture
async def worker(flight):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    library = SimpleNamespace(want=lambda want: flight)
    clerk = Clerk(ours, SimpleNamespace(library=library, left=lambda clerk: None))
    built = Worker(theirs)
    yield built
    built.channel.close()
    clerk.channel.close()
    await asyncio.sleep(0)


async def test_two_wants_of_a_worker_for_one_flight_are_both_answered(worker, flight):
    """One response misses the block, another could not read it from its device."""
    flight.take_off()
    worker.want(1)
    worker.want(2, unreadable=True)
    assert {packet.flight for packet in await worker.hears(ipc.Arriving, 2)} == {1, 2}
    flight.receive(b"0123456789")
    flight.land(kept=False)
    assert {packet.flight for packet in await worker.hears(ipc.Landed, 2)} == {1, 2}


async def test_who_leaves_one_want_hears_of_the_other(worker, flight):
    flight.take_off()
    worker.want(1)
    worker.want(2, unreadable=True)
    await worker.hears(ipc.Arriving, 2)
    worker.channel.send(ipc.Leave(1))
    worker.channel.send(ipc.Leave(1))
    worker.want(3)
    await worker.hears(ipc.Arriving, 3)
    flight.fail("no source")
    assert {packet.flight for packet in await worker.hears(ipc.Failed, 2)} == {2, 3}
