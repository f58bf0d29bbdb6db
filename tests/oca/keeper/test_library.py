"""The library with a real origin on loopback, a real index and real folders."""

import asyncio
import contextlib
import os
import random
import resource
from pathlib import Path

import pytest
from aiohttp import web

from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES, extent_key, object_key
from oca.errors import NoSourceAnswered
from oca.ipc import Want
from oca.keeper.flights import Flight, Stage
from oca.keeper.library import Library, OpenOutcome, Spawner
from oca.keeper.peers import Route
from oca.keeper.sources import build_sources, new_session
from oca.settings import Tier, parse_settings
from oca.store.index import DropExtent, Index, MoveExtent, PutObject
from oca.store.rack import AddOrder, Rack
from oca.store.shelves import Shelves

PATH = "/films/a.mp4"
KEY = object_key(PATH)
SETTINGS = """\
[appliance]
id = "oca-test"
[origin]
url = "http://127.0.0.1:{port}"
[fetch]
retry_delay = 0
attempts = 3
read_ahead_blocks = 0
max_flights = 4
total_deadline = 20
[[device]]
path = "{folder}/disk"
tier = "nvme"
capacity = "1 GiB"
"""


class Origin:
    """Serves `content` under every path, or what `answer` says instead. Keeps what was asked."""

    def __init__(self) -> None:
        self.content = random.Random(1).randbytes(2 * BLOCK_BYTES + 1000)
        self.headers = {"ETag": '"v1"', "Cache-Control": "max-age=100"}
        self.asked: list[tuple[str, str, str | None]] = []
        self.answer = None
        self.gate = asyncio.Event()
        """Closed, every answer waits before its first byte."""
        self.gate.set()
        self._heard = asyncio.Event()

    async def has_heard(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.asked) < count:
                self._heard.clear()
                await self._heard.wait()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path, request.headers.get("Range")))
        self._heard.set()
        await self.gate.wait()
        if self.answer is not None:
            return await self.answer(request)
        if request.headers.get("If-None-Match") == self.headers.get("ETag", "none"):
            return web.Response(status=304, headers=self.headers)
        if request.headers.get("If-Match", self.headers.get("ETag")) != self.headers.get("ETag"):
            return web.Response(status=412)
        span = request.http_range
        if "Range" not in request.headers:
            return web.Response(body=self.content, headers=self.headers)
        if span.start >= len(self.content):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(self.content)}"})
        stop = min(span.stop, len(self.content))
        described = {"Content-Range": f"bytes {span.start}-{stop - 1}/{len(self.content)}"}
        return web.Response(status=206, body=self.content[span.start : stop], headers=self.headers | described)


class Rig:
    def __init__(
        self, library: Library, index: Index, shelves: Shelves, origin: Origin, rack: Rack, root: Path
    ) -> None:
        self.library = library
        self.rack = rack
        self.root = root
        self.index = index
        self.shelves = shelves
        self.origin = origin

    async def block(
        self, key: bytes, generation: int, block: int, path: str = PATH, *, unreadable: bool = False
    ) -> bytes | str:
        """A block as a worker gets it: its bytes, from memory or from disk; else why not."""
        flight = self.library.want(Want(0, key, path, generation, block, block, unreadable=unreadable))
        if flight is None:
            return "unknown"
        if flight.stage is Stage.LANDED:
            extent = extent_key(key, generation, block // 16)
            record = self.index.extent(extent)
            shelf = next(shelf for shelf in self.shelves.shelves if shelf.number == record.device)
            fd = os.open(shelf.folder.file_path(extent), os.O_RDONLY)
            try:
                return os.pread(fd, BLOCK_BYTES, block % 16 * BLOCK_BYTES)
            finally:
                os.close(fd)
        reader = Along()
        flight.join(reader)
        async with asyncio.timeout(30):
            return await reader.over

    async def settled(self) -> None:
        async with asyncio.timeout(30):
            while self.library.flights:  # noqa: ASYNC110 - it tells nobody when it has come to rest
                await asyncio.sleep(0)


class Along:
    def __init__(self) -> None:
        self.over: asyncio.Future[bytes | str] = asyncio.get_running_loop().create_future()
        self.fd = -1

    def arriving(self, flight: Flight) -> None:
        self.fd = os.dup(flight.fd)

    def progress(self, flight: Flight) -> None:
        pass

    def landed(self, flight: Flight, *, kept: bool) -> None:
        if self.fd < 0:
            self.over.set_result("look it up")
            return
        self.over.set_result(os.pread(self.fd, flight.length, 0))
        os.close(self.fd)

    def failed(self, flight: Flight, *, unknown: bool, reason: str) -> None:
        self.over.set_result("unknown" if unknown else reason)
        if self.fd >= 0:
            os.close(self.fd)


@pytest.fixture
async def rig(tmp_path, board):
    origin = Origin()
    runner = web.ServerRunner(web.Server(origin.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    settings = parse_settings(SETTINGS.format(port=port, folder=tmp_path), "test")
    ready: asyncio.Future[Rig] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def keep_open() -> None:
        # A task of its own: a fixture's two halves may run in different ones, and a TaskGroup must not.
        async with (
            Index(str(tmp_path / "index")) as index,
            new_session(settings.fetch, "oca-test") as session,
            asyncio.TaskGroup() as group,
        ):
            spawner = Spawner(group)
            shelves = Shelves(index, board, lambda: 1000.0)
            rack = Rack(shelves, index, settings.store, lambda: 1000.0)
            await rack.start(settings.device)
            await shelves.load()
            library = Library(settings, build_sources(settings), session, index, shelves, spawner)
            ready.set_result(Rig(library, index, shelves, origin, rack, tmp_path))
            await over.wait()
            await spawner.end()
            shelves.close()

    task = asyncio.ensure_future(keep_open())
    yield await ready
    origin.gate.set()
    over.set()
    await task
    await runner.cleanup()


async def test_the_first_question_brings_the_first_block(rig):
    answer = await rig.library.open(PATH, BLOCK_BYTES + 5)
    assert (answer.key, answer.outcome, answer.fwd_status) == (KEY, OpenOutcome.MISS, 206)
    assert (answer.record.size, answer.record.etag) == (len(rig.origin.content), b'"v1"')
    assert await rig.block(KEY, answer.record.generation, 1) == rig.origin.content[BLOCK_BYTES : 2 * BLOCK_BYTES]
    assert rig.origin.asked == [("GET", PATH, f"bytes={BLOCK_BYTES}-{2 * BLOCK_BYTES - 1}")]
    await rig.settled()
    assert rig.index.object(KEY).generation == answer.record.generation
    assert rig.index.extent(extent_key(KEY, answer.record.generation, 0)).present == 0b10


async def test_many_who_ask_the_same_share_one_answer_and_one_flight(rig):
    rig.origin.gate.clear()
    asking = [asyncio.ensure_future(rig.library.open(PATH, 0)) for _ in range(50)]
    await rig.origin.has_heard(1)
    rig.origin.gate.set()
    answers = await asyncio.gather(*asking)
    assert len({answer.record.generation for answer in answers}) == 1
    blocks = await asyncio.gather(*(rig.block(KEY, answers[0].record.generation, 0) for _ in range(50)))
    assert set(blocks) == {rig.origin.content[:BLOCK_BYTES]}
    assert len(rig.origin.asked) == 1


PEERS_ALONE = Route((), only_peers=True)
"""Nobody has it, and the ladder shall not be climbed."""


@pytest.mark.parametrize("route", [None, Route()])
async def test_who_wants_a_block_from_anywhere_does_not_fail_with_one_who_asks_peers_alone(rig, route):
    generation = (await rig.library.open(PATH, None)).record.generation
    wanted = Want(0, KEY, PATH, generation, 1, 1)
    flight = rig.library.want(wanted, PEERS_ALONE)
    assert rig.library.want(wanted, route) is flight
    along = Along()
    flight.join(along)
    async with asyncio.timeout(30):
        assert await along.over == rig.origin.content[BLOCK_BYTES : 2 * BLOCK_BYTES]


@pytest.mark.parametrize("route", [None, Route()])
async def test_who_asks_anybody_does_not_share_the_answer_of_one_who_asks_peers_alone(rig, route):
    alone = asyncio.ensure_future(rig.library.open(PATH, 0, route=PEERS_ALONE))
    answer = await rig.library.open(PATH, 0, route=route)
    assert answer.record.size == len(rig.origin.content)
    with pytest.raises(NoSourceAnswered):
        await alone


async def test_who_asks_peers_alone_waits_with_one_who_asks_anybody(rig):
    generation = (await rig.library.open(PATH, None)).record.generation
    wanted = Want(0, KEY, PATH, generation, 1, 1)
    flight = rig.library.want(wanted)
    assert rig.library.want(wanted, PEERS_ALONE) is flight
    assert flight.route is None
    assert await rig.block(KEY, generation, 1) == rig.origin.content[BLOCK_BYTES : 2 * BLOCK_BYTES]


async def test_the_rest_is_fetched_block_by_block_and_once(rig):
    generation = (await rig.library.open(PATH, 0)).record.generation
    got = b""
    for block in range(3):
        got += await rig.block(KEY, generation, block)
    await rig.settled()
    assert got == rig.origin.content
    again = [await rig.block(KEY, generation, block) for block in range(3)]
    assert b"".join(again)[: len(got)] == got
    assert len(rig.origin.asked) == 3
    assert (await rig.library.open(PATH, 0)).outcome is OpenOutcome.HIT


@pytest.mark.parametrize("block", [-1, 3, 4, 2**40])
async def test_a_block_that_the_object_does_not_have_is_not_fetched(rig, block):
    generation = (await rig.library.open(PATH, None)).record.generation
    await rig.settled()
    before = len(rig.origin.asked)
    assert await rig.block(KEY, generation, block) == "unknown"
    assert len(rig.origin.asked) == before


async def test_a_generation_that_is_not_known_must_be_opened_anew(rig):
    generation = (await rig.library.open(PATH, 0)).record.generation
    await rig.settled()
    assert await rig.block(KEY, generation + 1, 0) == "unknown"
    assert await rig.block(object_key("/never"), generation, 0) == "unknown"


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_refusal_is_remembered_until_it_is_purged(rig, status):
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status)

    rig.origin.answer = refuse
    for _ in range(3):
        answer = await rig.library.open(PATH, 0)
        assert (answer.outcome, answer.record.status) == (OpenOutcome.NEGATIVE, status)
    assert len(rig.origin.asked) == 1
    rig.origin.answer = None
    await rig.library.purge([KEY])
    assert (await rig.library.open(PATH, 0)).outcome is OpenOutcome.MISS


async def test_what_is_stale_is_asked_about_and_kept_if_it_is_the_same(rig):
    rig.origin.headers["Cache-Control"] = "max-age=0"
    first = await rig.library.open(PATH, 0)
    await rig.settled()
    rig.origin.headers["Cache-Control"] = "max-age=100"
    again = await rig.library.open(PATH, 0)
    assert (again.outcome, again.fwd_status) == (OpenOutcome.REVALIDATED, 304)
    assert again.record.generation == first.record.generation
    assert (await rig.library.open(PATH, 0)).outcome is OpenOutcome.HIT


async def test_what_has_changed_is_another_generation_and_the_old_one_goes(rig):
    rig.origin.headers["Cache-Control"] = "max-age=0"
    first = (await rig.library.open(PATH, 0)).record.generation
    await rig.settled()
    rig.origin.content = rig.origin.content[::-1]
    rig.origin.headers["ETag"] = '"v2"'
    second = (await rig.library.open(PATH, 0)).record.generation
    assert second > first
    assert await rig.block(KEY, second, 0) == rig.origin.content[:BLOCK_BYTES]
    await rig.settled()
    assert rig.index.extent(extent_key(KEY, first, 0)) is None


async def test_bytes_of_two_generations_are_never_mixed(rig):
    generation = (await rig.library.open(PATH, 0)).record.generation
    assert await rig.block(KEY, generation, 0) == rig.origin.content[:BLOCK_BYTES]
    rig.origin.content = rig.origin.content[::-1]
    rig.origin.headers["ETag"] = '"v2"'
    assert await rig.block(KEY, generation, 1) == "unknown"


@pytest.mark.parametrize(
    "headers", [[("Cache-Control", "no-store")], [("Cache-Control", "private"), ("Cache-Control", "max-age=60")]]
)
async def test_what_may_not_be_stored_is_nobody_else_s_and_leaves_nothing(rig, headers):
    async def answer(request: web.Request) -> web.Response:
        response = web.Response(body=b"for you")
        for name, value in headers:
            response.headers.add(name, value)
        return response

    rig.origin.answer = answer
    one, other = await asyncio.gather(rig.library.open(PATH, 0), rig.library.open(PATH, 0))
    assert one.key != other.key
    assert KEY not in (one.key, other.key)
    for mine in (one, other):
        assert await rig.block(mine.key, mine.record.generation, 0) == b"for you"
    await rig.settled()
    assert rig.index.counts() == (0, 0)
    assert len(rig.origin.asked) == 2


async def test_what_may_not_be_stored_waits_for_the_one_who_asked(rig):
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"for you", headers={"Cache-Control": "no-store"})

    rig.origin.answer = answer
    opened = await rig.library.open(PATH, 0)
    # The worker hears of it and asks for the block: by then all of a small object has long come.
    for _ in range(1000):
        await asyncio.sleep(0)
    assert await rig.block(opened.key, opened.record.generation, 0) == b"for you"


async def test_what_breaks_off_is_continued_where_it_stopped(rig):
    broken = []

    async def break_off(request: web.Request) -> web.StreamResponse:
        rig.origin.answer = None
        broken.append(request.headers["Range"])
        span = request.http_range
        response = web.StreamResponse(status=206, headers=rig.origin.headers)
        response.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{len(rig.origin.content)}"
        response.content_length = span.stop - span.start
        await response.prepare(request)
        await response.write(rig.origin.content[span.start : span.start + 1_000_000])
        request.transport.close()
        return response

    rig.origin.answer = break_off
    generation = (await rig.library.open(PATH, 0)).record.generation
    assert await rig.block(KEY, generation, 0) == rig.origin.content[:BLOCK_BYTES]
    assert len(broken) == 1
    continued = [asked for _, _, asked in rig.origin.asked[1:]]
    assert len(continued) == 1
    assert continued[0] != broken[0]


async def test_when_nobody_answers_what_is_held_is_given_or_nothing(rig):
    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=500)

    rig.origin.headers["Cache-Control"] = "max-age=0"
    held = await rig.library.open(PATH, 0)
    await rig.settled()
    rig.origin.answer = fail
    stale = await rig.library.open(PATH, 0)
    assert (stale.outcome, stale.record.generation) == (OpenOutcome.STALE, held.record.generation)
    with pytest.raises(NoSourceAnswered) as nobody:
        await rig.library.open("/never", 0)
    assert nobody.value.status == 502


async def test_a_purge_ends_what_was_begun_before_it(rig):
    rig.origin.gate.clear()
    asking = asyncio.ensure_future(rig.library.open(PATH, 0))
    await rig.origin.has_heard(1)
    await rig.library.purge([KEY])
    rig.origin.gate.set()
    answer = await asking
    assert await rig.block(answer.key, answer.record.generation, 0) == rig.origin.content[:BLOCK_BYTES]
    await rig.settled()
    assert rig.index.counts() == (0, 0)


async def test_a_lost_extent_is_fetched_again(rig):
    generation = (await rig.library.open(PATH, 0)).record.generation
    await rig.block(KEY, generation, 0)
    await rig.settled()
    extent = extent_key(KEY, generation, 0)
    for _ in range(3):  # Several viewers find the same.
        held = rig.index.extent(extent)
        rig.library.lose(extent, held.slot, "unreadable", held.device, Fault.IO)
    async with asyncio.timeout(30):
        while rig.index.extent(extent) is not None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    # The object went with its last extent: its generation has to be asked for anew.
    answer = await rig.library.open(PATH, 0)
    assert await rig.block(KEY, answer.record.generation, 0) == rig.origin.content[:BLOCK_BYTES]
    assert len(rig.origin.asked) == 2


async def test_what_a_device_does_not_give_in_time_is_brought_and_not_kept_again(rig):
    generation = (await rig.library.open(PATH, 0)).record.generation
    await rig.block(KEY, generation, 0)
    await rig.settled()
    before = rig.index.extent(extent_key(KEY, generation, 0))
    assert await rig.block(KEY, generation, 0, unreadable=True) == rig.origin.content[:BLOCK_BYTES]
    await rig.settled()
    assert len(rig.origin.asked) == 2
    assert rig.index.extent(extent_key(KEY, generation, 0)) == before


async def with_a_copy(rig):
    """The first block, on the one device that is read and on another below. Returns its generation."""
    answer = await rig.library.open(PATH, 0)
    generation = answer.record.generation
    await rig.block(KEY, generation, 0)
    await rig.settled()
    key = extent_key(KEY, generation, 0)
    (shelf,) = rig.shelves.shelves
    slow = await rig.rack.add(AddOrder(f"{rig.root}/slow", Tier.HDD, 2**30))
    extent = rig.index.extent(key)
    slow.folder.write_block(key, 0, memoryview(rig.origin.content[:BLOCK_BYTES]), 0)
    await rig.index.apply(MoveExtent(key, extent, slow.number, keeps_below=True))
    await rig.index.apply(MoveExtent(key, rig.index.extent(key), shelf.number, keeps_below=True))
    assert rig.index.extent(key).below == slow.number
    return generation


async def test_what_a_device_does_not_give_in_time_comes_from_its_copy_without_a_source(rig):
    generation = await with_a_copy(rig)
    asked = len(rig.origin.asked)
    assert await rig.block(KEY, generation, 0, unreadable=True) == rig.origin.content[:BLOCK_BYTES]
    assert len(rig.origin.asked) == asked


async def test_an_extent_that_is_lost_on_one_device_is_read_from_its_copy(rig):
    generation = await with_a_copy(rig)
    asked = len(rig.origin.asked)
    key = extent_key(KEY, generation, 0)
    extent = rig.index.extent(key)
    rig.library.lose(key, extent.slot, "unreadable", extent.device, Fault.IO)
    assert await rig.block(KEY, generation, 0) == "look it up"
    assert await rig.block(KEY, generation, 0) == rig.origin.content[:BLOCK_BYTES]
    assert len(rig.origin.asked) == asked


async def test_what_a_device_that_is_taken_over_has_of_a_known_object_is_not_fetched(rig):
    generation = (await rig.library.open(PATH, 0)).record.generation
    await rig.block(KEY, generation, 0)
    await rig.settled()
    asked = len(rig.origin.asked)
    # As if another device had made the object known, and this one was not asked yet.
    record = rig.index.object(KEY)
    await rig.index.apply(DropExtent(extent_key(KEY, generation, 0)), PutObject(KEY, record))
    (shelf,) = rig.shelves.shelves
    shelf.foreign = True
    assert await rig.block(KEY, generation, 0) == "look it up"
    shelf.foreign = False
    assert await rig.block(KEY, generation, 0) == rig.origin.content[:BLOCK_BYTES]
    assert len(rig.origin.asked) == asked


async def test_what_is_pledged_is_known_in_the_index(rig):
    answer = await rig.library.open(PATH, 0)
    await rig.library.pledge(KEY, 5e9)
    assert await rig.library.bring(KEY, answer.record, 0, answer.record.size, 2)
    await rig.settled()
    key = extent_key(KEY, answer.record.generation, 0)
    assert rig.index.extent(key).pledged_until == 5e9
    await rig.library.pledge(KEY, 0.0)
    assert rig.index.extent(key).pledged_until == 0.0


async def test_more_blocks_than_fit_into_memory_are_fetched_one_after_the_other(rig):
    rig.origin.content = random.Random(2).randbytes(7 * BLOCK_BYTES)
    generation = (await rig.library.open(PATH, None)).record.generation
    await rig.settled()
    blocks = await asyncio.gather(*(rig.block(KEY, generation, block) for block in range(7)))
    assert b"".join(blocks) == rig.origin.content


async def test_running_out_of_descriptors_ends_a_flight_and_the_next_one_flies(rig):
    answer = await rig.library.open(PATH, None)
    generation = answer.record.generation
    await rig.index.apply(PutObject(KEY, answer.record))
    flights = []
    with only_these_descriptors():
        for block in (0, 1, 2, 0, 1, 2):
            flight = rig.library.want(Want(0, KEY, PATH, generation, block, block))
            flights.append(flight)
            for _ in range(20):
                await asyncio.sleep(0)
    assert all(flight.stage is Stage.FAILED for flight in flights)
    # Neither their blocks nor their memory are lost for those who come after.
    got = await asyncio.gather(*(rig.block(KEY, generation, block) for block in range(3)))
    assert b"".join(got) == rig.origin.content


@contextlib.contextmanager
def only_these_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers = []
    with contextlib.suppress(OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        while True:
            fillers.append(os.dup(0))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)


async def test_who_still_reads_the_old_generation_does_not_bring_it_back(rig):
    """The old one is wanted after the new one was found, mostly before that stands in the index."""
    rig.origin.headers["Cache-Control"] = "max-age=0"
    old = (await rig.library.open(PATH, 0)).record.generation
    await rig.settled()
    rig.origin.content = rig.origin.content[::-1]
    rig.origin.headers["ETag"] = '"v2"'
    rig.origin.gate.clear()
    opening = asyncio.ensure_future(rig.library.open(PATH, 0))
    await rig.origin.has_heard(2)
    rig.origin.gate.set()
    new = (await opening).record.generation
    assert rig.library.want(Want(0, KEY, PATH, old, 1, 1)) is None
    assert rig.library.want(Want(0, KEY, PATH, new, 1, 1)) is not None


async def test_an_empty_object_that_tells_no_length_is_not_asked_about_for_ever(rig):
    async def empty(request: web.Request) -> web.StreamResponse:
        if "Range" in request.headers:
            return web.Response(status=416, headers={"Content-Range": "bytes */0"})
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write_eof()
        return response

    rig.origin.answer = empty
    opening = asyncio.ensure_future(rig.library.open(PATH, 0))
    asked_often = asyncio.ensure_future(rig.origin.has_heard(30))
    await asyncio.wait([opening, asked_often], return_when=asyncio.FIRST_COMPLETED)
    was_asked_often = asked_often.done()
    for task in (asked_often, opening):
        task.cancel()
    await asyncio.gather(asked_often, opening, return_exceptions=True)
    assert not was_asked_often


async def test_a_document_is_read_past_the_cache_each_time(rig):
    rig.origin.content = b"one"
    assert await rig.library.document("/catalogue/x.json", 100) == b"one"
    rig.origin.content = b"another"
    assert await rig.library.document("/catalogue/x.json", 100) == b"another"
    assert rig.origin.asked == 2 * [("GET", "/catalogue/x.json", None)]
    assert rig.index.counts() == (0, 0)


async def test_a_document_that_is_not_there_is_none(rig):
    async def gone(_):
        return web.Response(status=404)

    rig.origin.answer = gone
    assert await rig.library.document("/catalogue/x.json", 100) is None


@pytest.mark.parametrize("size", [101, 5 * BLOCK_BYTES])
async def test_a_document_that_is_too_large_is_not_read(rig, size):
    rig.origin.content = bytes(size)
    with pytest.raises(NoSourceAnswered, match="more than 100 bytes"):
        await rig.library.document("/catalogue/x.json", 100)


async def test_a_document_is_asked_for_again_when_the_source_fails(rig):
    asked = 0

    async def at_last(_):
        nonlocal asked
        asked += 1
        return web.Response(status=500) if asked < 3 else web.Response(body=b"here")

    rig.origin.answer = at_last
    assert await rig.library.document("/catalogue/x.json", 100) == b"here"
