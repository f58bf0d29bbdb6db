"""One connection on a real socket, with real files and threads: what a disk that is late or rotten may not do."""

import asyncio
import contextlib
import os
import socket
import time

import pytest

from oca import ipc
from oca.cache.keys import BLOCK_BYTES, extent_key, object_key
from oca.cache.records import DeviceRecord, ObjectRecord
from oca.counters import Count
from oca.edge.connection import Connection
from oca.edge.courier import Courier
from oca.edge.lookup import Lookup
from oca.edge.pages import Pages
from oca.edge.pools import Pools
from oca.edge.viewing import Viewing
from oca.edge.watched import Audience
from oca.edge.worker import Worker
from oca.report.demand import HIT_BYTES_AT, HIT_REQUESTS, HIT_SESSIONS, MISS_BYTES, MISS_REQUESTS, MISS_SESSIONS
from oca.settings import Store, Viewers, parse_settings
from oca.store.device import DeviceFolder
from oca.store.index import AddBlock, IndexReader, PutObject
from oca.turns import Turns
from tests.oca.edge.disk import Bay, flip
from tests.oca.edge.test_courier import Keeper, memory_with

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
PATH = "/titles/film/720p.1f/init.mp4"
SIZE = 2 * BLOCK_BYTES + 1_000_000
KEY = object_key(PATH)
EXTENT = extent_key(KEY, 1, 0)
# A disk that is shared with other tests may take its time, and only the one whose turn is taken is late.
PATIENT = Store(nvme_queue=1, read_timeout=20)
HASTY = Store(nvme_queue=1, read_timeout=0.05)


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.heard = b""

    async def ask(self, path: str, start: int | None = None, stop: int = 0) -> None:
        await self.say(path, "" if start is None else f"Range: bytes={start}-{stop - 1}\r\n")

    async def say(self, path: str, fields: str = "", method: str = "GET") -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"
        await asyncio.get_running_loop().sock_sendall(self._sock, head.encode())

    async def head(self) -> bytes:
        """The next answer, which has no body."""
        async with asyncio.timeout(20):
            while b"\r\n\r\n" not in self.heard:
                await self._hear()
            head, _, self.heard = self.heard.partition(b"\r\n\r\n")
        return head

    async def answer(self) -> tuple[bytes, bytes]:
        """The next answer, whole: its head and its body."""
        head = await self.head()
        async with asyncio.timeout(20):
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            while len(self.heard) < length:
                await self._hear()
            body, self.heard = self.heard[:length], self.heard[length:]
            return head, body

    async def _hear(self) -> None:
        received = await asyncio.get_running_loop().sock_recv(self._sock, 1 << 20)
        if not received:
            raise ConnectionResetError
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
def content():
    return os.urandom(SIZE)


class Box:
    """A worker whose index says that one film lies on one device."""

    def __init__(
        self, file: str, worker: Worker, bay: Bay, connection: Connection, client: Client, audience: Audience
    ) -> None:
        self.file = file
        self.worker = worker
        self.bay = bay
        self.connection = connection
        self.client = client
        self.audience = audience
        self._others = Turns(bay.memory)

    @contextlib.contextmanager
    def late_disk(self):
        """Another process has the device's only turn: what is asked of it meanwhile comes too late."""
        self.worker.pools.store = HASTY
        with self._others.turn(0, 1):
            yield
        self.worker.pools.store = PATIENT

    def forget_pages(self) -> None:
        fd = os.open(self.file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    async def answers_again(self) -> None:
        """Until the worker knows that the device does."""
        async with asyncio.timeout(20):
            while self.worker.pools._pools[0]._is_stalled:  # noqa: ASYNC110
                await asyncio.sleep(0)


@pytest.fixture
async def box(keeper, tmp_path, scribe, board, content):
    folder = DeviceFolder(str(tmp_path / "disk"))
    folder.identify()
    scribe.open(str(tmp_path / "index"))
    scribe.register_device(DeviceRecord("d0", folder.path, "nvme"))
    record = ObjectRecord(PATH, 1, SIZE, etag=b'"v"', generated_at=time.time(), lifetime=1e6)
    changes = [PutObject(KEY, record)]
    for block, at in enumerate(range(0, SIZE, BLOCK_BYTES)):
        part = memoryview(content)[at : at + BLOCK_BYTES]
        crc = folder.write_block(EXTENT, at, part, at)
        changes.append(AddBlock(EXTENT, 0, 5, block, crc, len(part)))
    scribe.apply(*changes)
    reader = IndexReader(str(tmp_path / "index"))
    courier = Courier(keeper.fd, 1)
    courier.connect()
    bay = Bay()
    pools = Pools(Turns(bay.memory), PATIENT, bay.tally, courier.stalled)
    pages = Pages()
    audience = Audience()
    lookup = Lookup(reader, board, audience.of)
    viewing = Viewing(Viewers(), b"lisbon-1", 16_384, board, lookup, courier, bay.tally)
    worker = Worker(parse_settings(SETTINGS, ""), board, lookup, courier, pools, pages, bay.tally, viewing)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    bay.tally.count(Count.CONNECTIONS_OPEN)
    connection = Connection(ours, worker, asyncio.get_running_loop())
    built = Box(folder.file_path(EXTENT), worker, bay, connection, Client(theirs), audience)
    built.forget_pages()
    yield built
    connection.close()
    courier.close()
    pools.close()
    pages.close()
    theirs.close()
    reader.close()
    folder.close()
    bay.close()
    await asyncio.sleep(0)


def give(keeper: Keeper, want: ipc.Want, part: bytes) -> None:
    """The keeper brings a block from elsewhere, and does not keep it."""
    fd = memory_with(part)
    keeper.say(ipc.Arriving(want.flight, len(part)), fd)
    keeper.say(ipc.Landed(want.flight, len(part), kept=False))
    os.close(fd)


SPANS = [
    (0, 1),
    (0, SIZE),
    (BLOCK_BYTES - 10, BLOCK_BYTES + 10),
    (BLOCK_BYTES - 100_000, BLOCK_BYTES + 100_000),
    (1, BLOCK_BYTES),
    (SIZE - 5, SIZE),
    (BLOCK_BYTES, 2 * BLOCK_BYTES),
]


@pytest.mark.parametrize(("start", "stop"), SPANS)
async def test_cold_and_warm_spans_are_the_right_bytes(box, content, start, stop):
    for _ in range(3):
        await box.client.ask(PATH, start, stop)
        head, body = await box.client.answer()
        assert b" 206 " in head
        assert body == content[start:stop]
    blocks = (stop - 1) // BLOCK_BYTES - start // BLOCK_BYTES + 1
    assert box.worker.tally.words[Count.COLD_READS] >= blocks
    assert box.worker.tally.words[Count.HEALED_READS] == 0


async def test_a_disk_that_answers_too_late_does_not_answer_the_next_request(box, keeper):
    with box.late_disk():
        await box.client.ask(PATH)
        (want,) = await keeper.hears(ipc.Want)
        box.connection.expire(time.monotonic() + 1000)
        assert b" 504 " in (await box.client.answer())[0]
        await box.client.ask("/next.mp4")
        asked = (await keeper.hears(ipc.Open))[0]
    await box.answers_again()
    give(keeper, want, b"late")
    assert not box.connection.is_idle  # It still waits for the keeper.
    none = ObjectRecord("/next.mp4", 2, 0, 404)
    keeper.say(ipc.Opened(asked.request, object_key("/next.mp4"), none, "negative", 404))
    assert b" 404 " in (await box.client.answer())[0]


async def test_a_rotten_block_never_reaches_a_viewer(box, keeper, content):
    flip(box.file, BLOCK_BYTES + 77)
    await box.client.ask(PATH)
    answer = asyncio.ensure_future(box.client.answer())
    (want,) = await keeper.hears(ipc.Want)
    assert (want.block, want.unreadable) == (1, False)
    give(keeper, want, content[BLOCK_BYTES : 2 * BLOCK_BYTES])
    # From then on this response takes nothing of that extent.
    last = (await keeper.hears(ipc.Want, 2))[1]
    give(keeper, last, content[2 * BLOCK_BYTES :])
    assert (await answer)[1] == content
    (lost,) = await keeper.hears(ipc.Lost)
    assert (lost.extent, lost.slot, lost.device, lost.fault) == (EXTENT, 5, 0, "rotten")
    assert box.worker.tally.words[Count.HEALED_READS] == 1


@pytest.mark.parametrize(
    ("damage", "fault"), [(os.unlink, "missing"), (lambda path: os.truncate(path, 10), "short")], ids=["gone", "short"]
)
async def test_an_extent_whose_file_is_not_what_it_was_is_told_with_its_fault(box, keeper, content, damage, fault):
    damage(box.file)
    await box.client.ask(PATH, 0, 10)
    (want,) = await keeper.hears(ipc.Want)
    give(keeper, want, content[:BLOCK_BYTES])
    assert (await box.client.answer())[1] == content[:10]
    assert [lost.fault for lost in await keeper.hears(ipc.Lost)] == [fault]


async def test_a_block_that_does_not_come_in_time_comes_from_elsewhere_and_the_next_one_is_tried(box, keeper, content):
    await box.client.ask(PATH, 0, 1)
    await box.client.answer()
    box.forget_pages()
    with box.late_disk():
        await box.client.ask(PATH)
        (want,) = await keeper.hears(ipc.Want)
        assert (want.block, want.unreadable) == (0, True)
    assert (await keeper.hears(ipc.Stalled))[0].device == 0
    await box.answers_again()
    give(keeper, want, content[:BLOCK_BYTES])
    assert (await box.client.answer())[1] == content
    assert len(await keeper.hears(ipc.Want)) == 1


async def test_while_a_device_is_stalled_all_its_cold_blocks_come_from_elsewhere_at_once(box, keeper, content):
    with box.late_disk():
        await box.client.ask(PATH)
        answer = asyncio.ensure_future(box.client.answer())
        for block in range(3):
            want = (await keeper.hears(ipc.Want, block + 1))[block]
            assert (want.block, want.unreadable) == (block, True)
            give(keeper, want, content[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES])
        assert (await answer)[1] == content
    await keeper.hears(ipc.Stalled)
    assert not [packet for packet in keeper.heard if isinstance(packet, ipc.Lost)]


async def test_a_keeper_that_insists_is_not_asked_for_ever(box, keeper):
    with box.late_disk():
        await box.client.ask(PATH)
        for number in range(3):
            want = (await keeper.hears(ipc.Want, number + 1))[number]
            keeper.say(ipc.Landed(want.flight, BLOCK_BYTES, kept=True))
        assert b" 503 " in (await box.client.answer())[0]


async def test_a_block_that_was_moved_meanwhile_is_read_where_it_is_now(box, keeper, content):
    with box.late_disk():
        await box.client.ask(PATH)
        (want,) = await keeper.hears(ipc.Want)
    await box.answers_again()
    keeper.say(ipc.Landed(want.flight, BLOCK_BYTES, kept=True))
    assert (await box.client.answer())[1] == content


async def test_who_leaves_lets_go_of_everything(box, keeper):
    with box.late_disk():
        await box.client.ask(PATH, 0, 1)
        await keeper.hears(ipc.Want)
        box.connection.close()
    with contextlib.suppress(ConnectionResetError):
        await box.client.answer()
    assert box.worker.connections == set()
    assert not box.worker.courier._views


# --- What is counted of it -------------------------------------------------------------------------------------------


def counted(box: Box) -> dict[str, tuple[int, int, int, int, int, int]]:
    """By folder: requests, plays begun and bytes of hits, then of misses. Of the one device there is."""
    places = (HIT_REQUESTS, HIT_SESSIONS, HIT_BYTES_AT, MISS_REQUESTS, MISS_SESSIONS, MISS_BYTES)
    return {folder: tuple(counts[place] for place in places) for folder, counts in box.audience.take(100)}


FOLDER = "/titles/film/720p.1f"


@pytest.mark.parametrize(("start", "stop"), SPANS)
async def test_a_span_is_counted_with_its_bytes_cold_and_warm(box, start, stop):
    for _ in range(3):
        await box.client.ask(PATH, start, stop)
        await box.client.answer()
        assert counted(box) == {FOLDER: (1, int(start == 0), stop - start, 0, 0, 0)}


async def test_bytes_count_where_they_came_from_and_the_request_as_it_began(box, keeper, content):
    flip(box.file, BLOCK_BYTES + 77)
    await box.client.ask(PATH, 10, 2 * BLOCK_BYTES)
    answer = asyncio.ensure_future(box.client.answer())
    (want,) = await keeper.hears(ipc.Want)
    give(keeper, want, content[BLOCK_BYTES : 2 * BLOCK_BYTES])
    await answer
    assert counted(box) == {FOLDER: (1, 0, BLOCK_BYTES - 10, 0, 0, BLOCK_BYTES)}


async def test_a_miss_is_counted_by_the_folder_of_its_object(box, keeper):
    path = "/titles/other/1080p.2e/init.mp4"
    await box.client.ask(path)
    asked = (await keeper.hears(ipc.Open))[0]
    record = ObjectRecord(path, 2, 5, etag=b'"w"', generated_at=time.time(), lifetime=1e6)
    keeper.say(ipc.Opened(asked.request, object_key(path), record, "miss", 206))
    give(keeper, (await keeper.hears(ipc.Want))[0], b"films")
    assert (await box.client.answer())[1] == b"films"
    assert counted(box) == {"/titles/other/1080p.2e": (0, 0, 0, 1, 1, 5)}


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        ("HEAD", "", 200),
        ("GET", 'If-None-Match: "v"\r\n', 304),
        ("GET", 'If-Match: "w"\r\n', 412),
        ("OPTIONS", "Origin: https://play.example\r\nAccess-Control-Request-Method: GET\r\n", 204),
    ],
)
async def test_who_gets_no_content_does_not_count(box, method, fields, status):
    await box.client.say(PATH, fields, method)
    assert b" %d " % status in await box.client.head()
    assert counted(box) == {}


async def test_a_span_that_can_not_be_does_not_count(box):
    await box.client.ask(PATH, SIZE, SIZE + 1)
    assert b" 416 " in (await box.client.answer())[0]
    assert counted(box) == {}


async def test_several_ranges_in_one_request_are_one_request(box):
    await box.client.say(PATH, f"Range: bytes=0-9,{BLOCK_BYTES}-{BLOCK_BYTES + 4}\r\n")
    await box.client.answer()
    assert counted(box) == {FOLDER: (1, 0, 15, 0, 0, 0)}
