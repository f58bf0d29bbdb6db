"""The courier with a keeper at the other end of its socket: asks, shares what comes, and asks again when it is gone."""

import asyncio
import gc
import os
import socket

import pytest

from oca import ipc
from oca.cache.health import Fault
from oca.cache.records import ExtentRecord, ObjectRecord
from oca.edge.courier import BlockView, Courier
from oca.edge.extents import Damaged, Lying
from oca.edge.watched import Audience
from oca.store.board import new_memory

RECORD = ObjectRecord("/a", 1, 10_000_000)
KEY = b"k" * 16


class Keeper:
    """What stands at the other end: hears everything, answers what a test tells it."""

    def __init__(self, folder_fd: int) -> None:
        self._address = ipc.socket_path(folder_fd)
        self.heard: list[ipc.FromWorker] = []
        self.moved = asyncio.Event()
        self.open()

    def open(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(self._address)
        self._listener.listen()
        self.channels: list[ipc.Channel] = []
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        os.unlink(self._address)
        for channel in self.channels:
            channel.close()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        self.channels.append(ipc.Channel(sock, self._received, lambda: None))

    def _received(self, packed: bytes, fd: int) -> None:
        assert fd < 0
        self.heard.append(ipc.decode_from_worker(packed))
        self.moved.set()

    def say(self, answer: ipc.FromKeeper, fd: int = -1) -> None:
        self.channels[-1].send(answer, fd)

    async def hears(self, kind: type, count: int = 1) -> list:
        async with asyncio.timeout(20):
            while len(found := [packet for packet in self.heard if type(packet) is kind]) < count:
                self.moved.clear()
                await self.moved.wait()
        return found


class Response:
    """Waits for bytes, as a connection does."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.moved = asyncio.Event()

    def opened(self, answer: ipc.Opened) -> None:
        self._note(answer)

    def open_refused(self, status: int, reason: str) -> None:
        self._note((status, reason))

    def bytes_came(self) -> None:
        self._note("bytes")

    def block_failed(self, *, unknown: bool, reason: str) -> None:
        self._note(("failed", unknown))

    def _note(self, event: object) -> None:
        self.events.append(event)
        self.moved.set()

    async def has(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.events) < count:
                self.moved.clear()
                await self.moved.wait()


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
async def courier(keeper):
    built = Courier(keeper.fd, 7, 2)
    built.connect()
    yield built
    built.close()
    await asyncio.sleep(0)


def memory_with(content: bytes) -> int:
    fd = new_memory("test-flight", len(content))
    os.pwrite(fd, content, 0)
    return fd


async def arrive(keeper: Keeper, view: BlockView, response: Response, content: bytes) -> None:
    fd = memory_with(content)
    view.waiters.add(response)
    keeper.say(ipc.Arriving(view.want.flight, len(content)), fd)
    os.close(fd)
    await response.has(len(response.events) + 1)


async def test_the_first_packet_says_who_it_is(keeper, courier):
    assert await keeper.hears(ipc.Hello) == [ipc.Hello(7, os.getpid(), 2)]


async def test_who_asked_what_a_path_is_gets_the_answer(keeper, courier):
    one, other = Response(), Response()
    courier.open("/a", 0, b"", one)
    courier.open("/b", None, b"loop", other)
    asked = await keeper.hears(ipc.Open, 2)
    assert [(packet.path, packet.start, packet.loop) for packet in asked] == [("/a", 0, b""), ("/b", None, b"loop")]
    answer = ipc.Opened(asked[1].request, KEY, RECORD, "miss", 206)
    keeper.say(answer)
    keeper.say(ipc.OpenRefused(asked[0].request, 502, "nobody"))
    await one.has(1)
    assert other.events == [answer]
    assert one.events == [(502, "nobody")]


async def test_who_does_not_wait_any_more_is_not_told(keeper, courier):
    gone, here = Response(), Response()
    courier.open("/a", 0, b"", gone)
    courier.open("/a", 0, b"", here)
    courier.forget_open(gone)
    for packet in await keeper.hears(ipc.Open, 2):
        keeper.say(ipc.OpenRefused(packet.request, 502, ""))
    await here.has(1)
    assert gone.events == []


async def test_responses_that_want_the_same_block_share_a_view(keeper, courier):
    one, other = Response(), Response()
    view = courier.view(KEY, RECORD, 1, 2, b"", one)
    assert courier.view(KEY, RECORD, 1, 2, b"", other) is view
    assert courier.view(KEY, RECORD, 2, 2, b"", one) is not view
    assert courier.view(KEY, ObjectRecord("/a", 2, 10_000_000), 1, 2, b"", one) is not view
    wants = await keeper.hears(ipc.Want, 3)
    assert len({want.flight for want in wants}) == 3


async def test_bytes_are_seen_behind_the_watermark(keeper, courier):
    response = Response()
    view = courier.view(KEY, RECORD, 0, 0, b"", response)
    await keeper.hears(ipc.Want)
    await arrive(keeper, view, response, b"first")
    assert os.pread(view.fd, 100, 0) == b"first"
    assert view.watermark == 5
    view.waiters.add(response)
    keeper.say(ipc.Progress(view.want.flight, 9))
    await response.has(2)
    assert view.watermark == 9
    view.waiters.add(response)
    keeper.say(ipc.Landed(view.want.flight, 12, kept=True))
    await response.has(3)
    assert (view.watermark, view.is_whole, view.is_kept) == (12, True, True)


async def test_a_view_that_ended_is_asked_for_anew(keeper, courier):
    response = Response()
    view = courier.view(KEY, RECORD, 0, 0, b"", response)
    view.waiters.add(response)
    await keeper.hears(ipc.Want)
    keeper.say(ipc.Landed(view.want.flight, 12, kept=False))
    await response.has(1)
    assert courier.view(KEY, RECORD, 0, 0, b"", response) is not view
    await keeper.hears(ipc.Want, 2)


async def test_all_users_of_a_block_that_won_t_come_are_told(keeper, courier):
    one, other = Response(), Response()
    view = courier.view(KEY, RECORD, 0, 0, b"", one)
    courier.view(KEY, RECORD, 0, 0, b"", other)
    await keeper.hears(ipc.Want)
    keeper.say(ipc.Failed(view.want.flight, unknown=True, reason="?"))
    await one.has(1)
    assert one.events == other.events == [("failed", True)]


async def test_the_keeper_is_told_when_nobody_reads_along_any_more(keeper, courier):
    one, other = Response(), Response()
    view = courier.view(KEY, RECORD, 0, 0, b"", one)
    courier.view(KEY, RECORD, 0, 0, b"", other)
    courier.leave(view, one)
    courier.leave(view, one)
    courier.report_touched()
    courier.leave(view, other)
    assert await keeper.hears(ipc.Leave) == [ipc.Leave(view.want.flight)]
    # What was on its way meanwhile belongs to nobody.
    fd = memory_with(b"x")
    keeper.say(ipc.Arriving(view.want.flight, 1), fd)
    os.close(fd)
    courier.open("/a", 0, b"", one)
    keeper.say(ipc.OpenRefused((await keeper.hears(ipc.Open))[0].request, 502, ""))
    await one.has(1)
    assert view.fd == -1


async def test_readings_are_told_in_batches(keeper, courier):
    for slot in range(5000):
        courier.touch(slot)
    courier.report_touched()
    courier.report_touched()
    told = await keeper.hears(ipc.Touched, 2)
    assert [len(packet.slots) for packet in told] == [4096, 904]


async def test_what_was_watched_is_told_once_and_by_folder(keeper, courier):
    audience = Audience()
    for number in range(600):
        audience.of(f"/titles/{number}/720p/init.mp4").hit(0, 10, 1)
    audience.of("/titles/7/720p/seg-1.m4s").passed_on(3)
    courier.report_watched(audience)
    courier.report_watched(audience)
    told = await keeper.hears(ipc.Watched, 3)
    folders = [row for packet in told for row in packet.folders]
    assert len(folders) == 600
    assert dict(folders)["/titles/7/720p"] == [1, 1, 10, 0, 0, 0, 0, 0, 3, 0, 0, 0]
    assert dict(folders)["/titles/8/720p"] == [1, 1, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0]


async def test_sessions_are_told_in_packets_that_fit(keeper, courier):
    courier.report_sessions([2**64 - 1 - number for number in range(25_000)])
    courier.report_sessions([])
    told = await keeper.hears(ipc.Sessions, 3)
    assert [len(packet.numbers) for packet in told] == [10_000, 10_000, 5_000]


async def test_what_is_asked_for_next_is_brought(keeper, courier):
    courier.bring("/titles/x/720p/seg-2.m4s", 7)
    assert await keeper.hears(ipc.Bring) == [ipc.Bring("/titles/x/720p/seg-2.m4s", 7)]


async def test_the_longest_names_fit_into_a_packet(keeper, courier):
    audience = Audience()
    for number in range(300):
        audience.of(f"/titles/{number:064}/{'é' * 90}/init.mp4").sent(0, 2**62)
    courier.report_watched(audience)
    assert sum(len(packet.folders) for packet in await keeper.hears(ipc.Watched, 2)) == 300


async def test_what_is_watched_while_the_keeper_is_away_is_told_when_it_is_back(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    courier = Courier(fd, 1)
    courier.connect()
    audience = Audience()
    for _ in range(2):
        audience.of("/titles/x/720p/a").hit(1, 10, 0)
        courier.report_watched(audience)
    keeper = Keeper(fd)
    await keeper.hears(ipc.Hello)
    courier.report_watched(audience)
    assert await keeper.hears(ipc.Watched) == [ipc.Watched([("/titles/x/720p", [2, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0])])]
    courier.close()
    keeper.close()
    await asyncio.sleep(0)
    os.close(fd)


async def test_everything_waited_for_is_asked_again_when_the_keeper_is_back(keeper, courier):
    opener, reader = Response(), Response()
    courier.open("/a", 5, b"", opener)
    courier.refresh("/stale")
    view = courier.view(KEY, RECORD, 3, 4, b"", reader)
    await keeper.hears(ipc.Want)
    await arrive(keeper, view, reader, b"0123456789")
    first = list(keeper.heard)
    keeper.close()
    keeper.heard.clear()
    keeper.open()
    await keeper.hears(ipc.Want)
    # A refreshing that nobody waits for is not repeated.
    assert keeper.heard == [packet for packet in first if getattr(packet, "path", "") != "/stale"]
    # The new keeper begins anew, and what was seen before is not lost to who has sent it already.
    await arrive(keeper, view, reader, b"01")
    assert (view.watermark, os.pread(view.fd, 100, 0)) == (2, b"01")
    assert opener.events == []


async def test_without_a_keeper_asking_waits(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    courier = Courier(fd, 1)
    courier.connect()
    response = Response()
    courier.open("/a", 0, b"", response)
    keeper = Keeper(fd)
    assert (await keeper.hears(ipc.Open))[0].path == "/a"
    courier.close()
    keeper.close()
    await asyncio.sleep(0)
    os.close(fd)


async def test_no_descriptor_is_left_over(keeper, courier):
    response = Response()
    await keeper.hears(ipc.Hello)
    gc.collect()  # What other tests left to the collector does not count.
    before = len(os.listdir("/proc/self/fd"))
    for block in range(20):
        view = courier.view(KEY, RECORD, block, block, b"", response)
        await keeper.hears(ipc.Want, block + 1)
        await arrive(keeper, view, response, b"x")
        await arrive(keeper, view, response, b"again")
        courier.leave(view, response)
    del view
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_an_extent_that_is_read_often_is_told_once_in_a_batch(keeper, courier):
    for _ in range(64):
        courier.touch(7)
        courier.touch(9)
    courier.report_touched()
    assert await keeper.hears(ipc.Touched) == [ipc.Touched([7, 9])]
    courier.touch(7)
    courier.report_touched()
    assert (await keeper.hears(ipc.Touched, 2))[1] == ipc.Touched([7])


async def test_a_block_that_a_device_does_not_give_is_wanted_from_elsewhere(keeper, courier):
    one, other = Response(), Response()
    view = courier.view(KEY, RECORD, 0, 0, b"", one)
    elsewhere = courier.view(KEY, RECORD, 0, 0, b"", other, unreadable=True)
    # Who finds the block on the device is not mixed with who does not get it from there.
    assert elsewhere is not view
    assert courier.view(KEY, RECORD, 0, 0, b"", one, unreadable=True) is elsewhere
    assert [want.unreadable for want in await keeper.hears(ipc.Want, 2)] == [False, True]


async def test_what_is_wrong_with_an_extent_is_told_once(keeper, courier):
    lying = Lying(b"e" * 28, "/nowhere", ExtentRecord(5, 3, 1, b"0000", 4096), 0, 10)
    damaged = Damaged(lying, Fault.ROTTEN, "why")
    courier.lost(damaged)
    courier.lost(damaged)
    courier.stalled(5, 2.5)
    assert await keeper.hears(ipc.Stalled) == [ipc.Stalled(5, 2.5)]
    assert await keeper.hears(ipc.Lost) == [ipc.Lost(b"e" * 28, 3, "why", 5, "rotten")]
