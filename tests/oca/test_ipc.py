"""The channel between a worker and the keeper: packets in order, descriptors with their packet, one end."""

import asyncio
import contextlib
import os
import socket

import msgspec
import pytest

from oca import ipc
from oca.cache.records import ObjectRecord
from oca.store.board import new_memory


class End:
    """One end of a conversation, and what it heard."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard: list[bytes] = []
        self.fds: list[int] = []
        self.times_lost = 0
        self.moved = asyncio.Event()
        self.channel = ipc.Channel(sock, self._received, self._lost)

    def _received(self, packed: bytes, fd: int) -> None:
        self.heard.append(packed)
        self.fds.append(fd)
        self.moved.set()

    def _lost(self) -> None:
        self.times_lost += 1
        self.moved.set()

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.moved.clear()
                await self.moved.wait()

    def close(self) -> None:
        self.channel.close()
        for fd in self.fds:
            if fd >= 0:
                os.close(fd)


@pytest.fixture
async def ends():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair = End(one), End(other)
    yield pair
    for end in pair:
        end.close()
    await asyncio.sleep(0)


PACKETS = [
    ipc.Hello(3, 4711, 1),
    ipc.Open(1, "/titles/\u6620\u753b", 0, b"a, b", background=True),
    ipc.Open(2, "/x", None),
    ipc.Want(7, b"k" * 16, "/x", 2**62, 5, 9, b"loop", unreadable=True),
    ipc.Leave(7),
    ipc.Touched([0, 1, 2**32 - 1]),
    ipc.Watched([("/titles/\u6620\u753b/720p", [1, 0, 2**62, 0, 0, 0, 0, 0, 0]), ("", [1])]),
    ipc.Bring("/titles/\u6620\u753b/720p/seg-2.m4s", 2**40),
    ipc.Sessions([0, 2**64 - 1]),
    ipc.Lost(b"e" * 28, 9, "gone"),
    ipc.Lost(b"e" * 28, 9, "does not have its sum", 3, "rotten"),
    ipc.Stalled(3, 5.25),
]
ANSWERS = [
    ipc.Opened(1, b"k" * 16, ObjectRecord("/x", 1, 10, etag=b'"v"', kept={"Content-Type": "video/mp4"}), "miss", 206),
    ipc.OpenRefused(2, 504, "no source answered in time"),
    ipc.Arriving(7, 0),
    ipc.Progress(7, 4096),
    ipc.Landed(7, 4194304, kept=True),
    ipc.Failed(8, unknown=True, reason="not known here"),
]


async def test_every_packet_arrives_as_it_was_sent(ends):
    worker, keeper = ends
    for packet in PACKETS:
        worker.channel.send(packet)
    for answer in ANSWERS:
        keeper.channel.send(answer)
    await keeper.until(lambda: len(keeper.heard) == len(PACKETS))
    await worker.until(lambda: len(worker.heard) == len(ANSWERS))
    assert [ipc.decode_from_worker(packed) for packed in keeper.heard] == PACKETS
    assert [ipc.decode_from_keeper(packed) for packed in worker.heard] == ANSWERS


def test_every_packet_of_the_protocol_is_tried_above():
    assert {type(packet) for packet in PACKETS} == set(ipc.FromWorker.__args__)
    assert {type(answer) for answer in ANSWERS} == set(ipc.FromKeeper.__args__)


@pytest.mark.parametrize("packed", [b"\x90", b"\xc1", b"\x91\xa5hello", b"\x93\xa4nope\x01\x02", b"\x92\xa5leave\xa1x"])
def test_rubbish_is_a_decode_error_and_nothing_else(packed):
    with pytest.raises(msgspec.DecodeError):
        ipc.decode_from_worker(packed)
    with pytest.raises(msgspec.DecodeError):
        ipc.decode_from_keeper(packed)


def test_a_packet_of_a_newer_process_is_understood():
    packed = msgspec.msgpack.encode(["leave", 7, "something new"])
    assert ipc.decode_from_worker(packed) == ipc.Leave(7)


async def test_what_does_not_fit_into_the_socket_waits_and_keeps_its_order(ends):
    worker, keeper = ends
    count = 5000
    for number in range(count):
        worker.channel.send(ipc.Leave(number))
    assert worker.channel._backlog
    await keeper.until(lambda: len(keeper.heard) == count)
    assert [ipc.decode_from_worker(packed).flight for packed in keeper.heard] == list(range(count))
    assert not worker.channel._backlog
    # And it goes on without the backlog.
    worker.channel.send(ipc.Leave(count))
    await keeper.until(lambda: len(keeper.heard) == count + 1)


async def test_a_descriptor_arrives_with_its_packet_however_long_it_waited(ends):
    worker, keeper = ends
    count = 1500
    sizes = {}
    for number in range(count):
        if number % 100 == 50:
            fd = new_memory("test", number)
            keeper.channel.send(ipc.Arriving(number, 0), fd)
            os.close(fd)  # It was duplicated: the sender's own may go at once.
            sizes[number] = number
        else:
            keeper.channel.send(ipc.Progress(number, 0))
    assert keeper.channel._backlog
    await worker.until(lambda: len(worker.heard) == count)
    found = {
        ipc.decode_from_keeper(packed).flight: os.fstat(fd).st_size
        for packed, fd in zip(worker.heard, worker.fds, strict=True)
        if fd >= 0
    }
    assert found == sizes


async def test_the_death_of_the_peer_is_told_once_after_its_last_words(ends):
    worker, keeper = ends
    worker.channel.send(ipc.Leave(1))
    worker.channel.close()
    await keeper.until(lambda: keeper.times_lost)
    assert [ipc.decode_from_worker(packed) for packed in keeper.heard] == [ipc.Leave(1)]
    keeper.channel.send(ipc.Progress(1, 2))
    keeper.channel.close()
    await asyncio.sleep(0)
    assert (keeper.times_lost, worker.times_lost) == (1, 1)


async def test_descriptors_that_never_went_are_closed_with_the_channel(ends):
    _, keeper = ends
    read, write = os.pipe()
    while not keeper.channel._backlog:
        keeper.channel.send(ipc.Progress(1, 2))
    for number in range(10):
        keeper.channel.send(ipc.Arriving(number, 0), write)
    os.close(write)
    keeper.channel.close()
    assert os.read(read, 1) == b""  # No copy of the other end is left.
    os.close(read)


async def test_a_packet_that_is_too_large_ends_the_conversation(ends):
    worker, keeper = ends
    worker.channel.send(ipc.Open(1, "/" + "x" * 200_000, 0))
    await keeper.until(lambda: keeper.times_lost)
    await worker.until(lambda: worker.times_lost)
    assert keeper.heard == []


async def test_a_peer_that_sends_more_descriptors_than_one_is_not_listened_to(ends):
    worker, keeper = ends
    read, write = os.pipe()
    with contextlib.suppress(OSError):
        socket.send_fds(worker.sock, [b"\x92\xa5leave\x01"], [write, write])
    os.close(write)
    await keeper.until(lambda: keeper.times_lost)
    assert keeper.heard == []
    worker.channel.close()
    assert os.read(read, 1) == b""
    os.close(read)


async def test_a_peer_that_never_reads_is_taken_for_dead(ends):
    _, keeper = ends
    keeper.channel._loop.remove_reader(ends[0].sock.fileno())
    for number in range(ipc._BACKLOG_PACKETS + 2000):
        keeper.channel.send(ipc.Progress(number, 0))
    await keeper.until(lambda: keeper.times_lost)
    assert keeper.times_lost == 1


async def test_nothing_is_heard_after_the_channel_was_closed_in_between(ends):
    worker, keeper = ends
    heard = []

    def closes(packed: bytes, fd: int) -> None:
        heard.append(packed)
        keeper.channel.close()

    keeper.channel._received = closes
    for number in range(5):
        worker.channel.send(ipc.Leave(number))
    await keeper.until(lambda: keeper.times_lost)
    assert len(heard) == 1


def test_the_address_of_the_socket_is_short_whatever_the_folder(tmp_path):
    deep = tmp_path / ("d" * 200)
    deep.mkdir()
    fd = os.open(deep, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(ipc.socket_path(fd))
    assert (deep / "keeper.sock").is_socket()
    os.close(fd)
