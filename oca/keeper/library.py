"""The library: what objects are, and the flights that bring their blocks.

Two questions are answered here. *Open*: what is this path, and may it be served? *Want*: bring me this block. Both
climb the ladder of sources; many who ask the same share one answer. The first fetch of an object asks for its first
wanted block at once: the head of that answer says what the object is, its body already is the block.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Coroutine, Iterator
from enum import StrEnum
from typing import Final

import aiohttp
import msgspec

from oca.cache.breaker import Breaker, Limits
from oca.cache.freshness import Defaults, Lifetime, lifetime
from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS, ExtentKey, ObjectKey, block_span, extent_key, object_key
from oca.cache.ladder import retry_delay
from oca.cache.records import ObjectRecord
from oca.cache.verdicts import NEGATIVE, Answer, Beyond, Negative, Part, Unchanged, Version, Whole, judge
from oca.errors import (
    FetchReason,
    GenerationChanged,
    IndexUnusable,
    NoSourceAnswered,
    OcaError,
    RequestRefused,
    SourceError,
)
from oca.http.dates import format_date
from oca.ipc import Want
from oca.keeper.flights import Flight, Landing, Stage
from oca.keeper.peers import PEER, Climb, Content, Peer, Route
from oca.keeper.sources import Source, ask, fields_of
from oca.settings import Settings
from oca.store.index import Index
from oca.store.rebuild import import_object
from oca.store.shelves import Keeping, Promise, Shelves

log = logging.getLogger(__name__)

_LOOK: Final = 2.0
"""Seconds that a viewer waits for what devices from elsewhere may hold; then a source is asked."""
_NEGATIVES: Final = 10_000
_PLEDGES: Final = 100_000
_PRIVATE_REST: Final = 30.0
"""Seconds that what lies on no device waits for its viewer: a block until it is wanted, an object between two."""


class OpenOutcome(StrEnum):
    """How the answer to Open came about."""

    HIT = "hit"
    MISS = "miss"
    REVALIDATED = "revalidated"
    STALE = "stale"
    NEGATIVE = "negative"


class OpenAnswer(msgspec.Struct, frozen=True):
    key: ObjectKey
    record: ObjectRecord
    outcome: OpenOutcome
    fwd_status: int = 0


class FetchCounts:
    """What the exporter reads: bytes and errors by source."""

    def __init__(self, sources: list[Source]) -> None:
        names = [*(source.name for source in sources), PEER]
        self.bytes = dict.fromkeys(names, 0)
        self.errors = {(name, reason): 0 for name in names for reason in FetchReason}


class Live:
    """An object with flights, or one that may not be stored. Its record may be newer than the index's."""

    def __init__(self, key: ObjectKey, record: ObjectRecord) -> None:
        self.key = key
        self.record = record
        self.flights: dict[int, Flight] = {}
        self.is_purged = False
        self.streams = False
        """The whole object is coming in one answer: no block of it is asked for by itself."""
        self.remembered: asyncio.Task[None] | None = None
        self.looking: asyncio.Task[None] | None = None
        """For what lies of it on devices that are just being taken over."""


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """The store's troubles are told, and are not the viewer's."""
    try:
        yield
    except OcaError as error:
        log.error("%s: %s", what, error)


class Spawner:
    """Starts tasks in the process's one TaskGroup; a task's error is logged and does not end the others."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = self._group.create_task(self._guarded(work, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step has not begun the work: then nobody would ever end it.
        task.add_done_callback(lambda _: work.close())
        return task

    async def end(self) -> None:
        """The process ends: whatever is under way is given up, and has cleaned up behind itself on return."""
        ending = list(self._tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _guarded(self, work: Coroutine[object, object, None], name: str) -> None:
        try:
            await work
        except OcaError as error:
            log.error("%s: %s", name, error)
        except Exception:
            log.exception("%s failed", name)


class Library:
    def __init__(
        self,
        settings: Settings,
        sources: list[Source],
        session: aiohttp.ClientSession,
        index: Index,
        shelves: Shelves,
        spawner: Spawner,
    ) -> None:
        self._settings = settings
        self._fetch = settings.fetch
        self._sources = sources
        self._session = session
        self._index = index
        self._shelves = shelves
        self._spawner = spawner
        limits = Limits(
            settings.breaker.window,
            settings.breaker.min_calls,
            settings.breaker.failure_ratio,
            settings.breaker.open_for,
        )
        self.limits = limits
        self.breakers = {source.name: Breaker(limits) for source in sources}
        fresh = settings.freshness
        self._defaults = Defaults(
            float(fresh.film),
            float(fresh.manifest),
            float(fresh.negative),
            float(fresh.stale_if_error),
            fresh.manifest_suffixes,
        )
        self.counts = FetchCounts(sources)
        self._openings: dict[tuple[ObjectKey, bool, Content], asyncio.Future[OpenAnswer]] = {}
        self._purging: Counter[ObjectKey] = Counter()
        self._live: dict[ObjectKey, Live] = {}
        self._negatives: OrderedDict[ObjectKey, ObjectRecord] = OrderedDict()
        self._memory = asyncio.Semaphore(settings.fetch.max_flights)
        self._losing: dict[ExtentKey, asyncio.Task[None]] = {}
        self._promises: dict[ObjectKey, Promise] = {}
        """Objects that nightly fill is bringing."""
        self._last_generation = 0
        self._private = 0
        self._resting = 0

    @property
    def flights(self) -> int:
        return sum(len(live.flights) for live in self._live.values())

    # --- Open -----------------------------------------------------------------------------------------------------

    async def open(self, path: str, start: int | None, loop: bytes = b"", route: Route | None = None) -> OpenAnswer:
        """What `path` is. `start` is the first byte that will be wanted, None for none. `route` says whom else to ask.

        Raises `NoSourceAnswered` when no source says what it is and nothing that may be served is held.
        """
        key = object_key(path)
        now = time.time()
        known = self._known(key)
        if known is None and self._shelves.takes_over:
            await asyncio.wait([self._look_for(key, path)], timeout=_LOOK)
            known = self._known(key)
        if known is not None and known.is_fresh(now):
            outcome = OpenOutcome.HIT if known.status == 200 else OpenOutcome.NEGATIVE
            return OpenAnswer(key, known, outcome)
        held = known if known is not None and known.status == 200 else None
        # Whoever asks peers alone may fail where the ladder would not: who is content with less does not share it.
        opening_key = (key, start is None, Content.of(route))
        opening = self._openings.get(opening_key)
        is_mine = opening is None
        if opening is None:
            opening = self._begin(opening_key, path, start, held, loop, route)
        may_be_stale = held is not None and now < held.generated_at + held.lifetime + held.stale_if_error
        try:
            # Who can be given something stale need not wait until the whole ladder has been tried.
            async with asyncio.timeout(self._fetch.connect_timeout if may_be_stale else None):
                answer = await asyncio.shield(opening)
            if not answer.record.storable and not is_mine:
                # RFC 9111 section 5.2.2.5: what may not be stored may not be given to a second request either.
                alone: asyncio.Future[OpenAnswer] = asyncio.get_running_loop().create_future()
                self._start_consulting(alone, key, path, start, None, loop, route)
                answer = await asyncio.shield(alone)
        except (NoSourceAnswered, TimeoutError):
            if held is None or not may_be_stale:
                raise
            return OpenAnswer(key, held, OpenOutcome.STALE)
        return answer

    def _look_for(self, key: ObjectKey, path: str) -> asyncio.Task[None]:
        return self._spawner.spawn(import_object(self._shelves, key), f"look for {path}")

    def _known(self, key: ObjectKey) -> ObjectRecord | None:
        live = self._live.get(key)
        if live is not None:
            return live.record
        return self._indexed(key) or self._negatives.get(key)

    def _indexed(self, key: ObjectKey) -> ObjectRecord | None:
        """What the index says, unless a purge is about to take it out. If it can't say anything, a source can."""
        if key in self._purging:
            return None
        try:
            return self._index.object(key)
        except IndexUnusable as error:
            log.error("%s", error)
            return None

    def _begin(
        self,
        opening_key: tuple[ObjectKey, bool, Content],
        path: str,
        start: int | None,
        held: ObjectRecord | None,
        loop: bytes,
        route: Route | None,
    ) -> asyncio.Future[OpenAnswer]:
        opening: asyncio.Future[OpenAnswer] = asyncio.get_running_loop().create_future()
        self._openings[opening_key] = opening

        def over(done: asyncio.Future[OpenAnswer]) -> None:
            if self._openings.get(opening_key) is done:
                del self._openings[opening_key]
            if not done.cancelled():
                done.exception()  # Read, so that asyncio does not complain when nobody waits.

        opening.add_done_callback(over)
        self._start_consulting(opening, opening_key[0], path, start, held, loop, route)
        return opening

    def _start_consulting(
        self,
        opening: asyncio.Future[OpenAnswer],
        key: ObjectKey,
        path: str,
        start: int | None,
        held: ObjectRecord | None,
        loop: bytes,
        route: Route | None,
    ) -> None:
        async def consult() -> None:
            try:
                await self._consult(opening, key, path, start, held, loop, route)
            finally:
                if not opening.done():
                    opening.set_exception(NoSourceAnswered(502, f"{path}: the fetch ended without an answer"))

        self._spawner.spawn(consult(), f"open {path}")

    async def _consult(
        self,
        opening: asyncio.Future[OpenAnswer],
        key: ObjectKey,
        path: str,
        start: int | None,
        held: ObjectRecord | None,
        loop: bytes,
        route: Route | None,
    ) -> None:
        """Climb the ladder until a source says what `path` is; then go on with the body of that answer."""
        block = None if start is None else start // BLOCK_BYTES
        asks_whole = held is not None and not held.ranged
        live: Live | None = None
        flight: Flight | None = None
        climb = self._climb(route)
        tries = 0
        last: SourceError | None = None
        try:
            async with asyncio.timeout(self._fetch.total_deadline) as deadline:
                while (source := climb.next_source(time.monotonic())) is not None:
                    if climb.has_wrapped:
                        tries += 1
                        await asyncio.sleep(retry_delay(tries, self._fetch.retry_delay, random.random()))
                    is_head = block is None
                    span = None
                    if block is not None and not asks_whole:
                        span = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
                    try:
                        async with self._attempt(source, path, span, None, loop, is_head=is_head, condition=held) as (
                            answer,
                            response,
                        ):
                            if isinstance(answer, Beyond):
                                block, climb = None, self._climb(route)
                                continue
                            if isinstance(answer, Part) and not _stands_alone(answer):
                                asks_whole, climb = True, self._climb(route)
                                continue
                            if isinstance(answer, Negative) and answer.status == 403 and held is not None:
                                raise SourceError(FetchReason.REFUSED, "403 for an object that is held")
                            chunks = self._chunks(response, source)
                            if isinstance(answer, Whole) and answer.version.size < 0:
                                if is_head:
                                    # Its length is known only at its end. No range again: that might lead back here.
                                    block, asks_whole, climb = 0, True, self._climb(route)
                                    continue
                                answer, chunks = await self._measured(answer, chunks)
                            # A purge takes the opening away. One that was begun alone is for one request only anyway.
                            is_purged = self._openings.get((key, start is None, Content.of(route))) is not opening
                            live, opened = await self._opened(key, path, answer, response, held, is_purged=is_purged)
                            opening.set_result(opened)
                            if live is None or block is None:
                                return
                            # From here to the new flight or stream nothing is awaited: who waits for this answer asks
                            # for its blocks at once, and must find them under way.
                            if isinstance(answer, Part) and block not in live.flights:
                                if self._is_present(live, block):
                                    return
                                flight = self._new_flight(live, block, loop, route)
                                await _let_the_others_hear()
                                if not await self._take_off(live, flight):
                                    return
                                await self._receive(flight, chunks, source)
                            elif isinstance(answer, Whole) and not live.flights and not self._is_present(live, 0):
                                # A film takes longer than a block: from here on each block has its own deadline.
                                deadline.reschedule(None)
                                await self._stream(live, chunks, source)
                        break
                    except SourceError as error:
                        last = error
                        if opening.done():
                            break
                else:
                    raise self._nobody(path, last)
        except TimeoutError:
            if not opening.done():
                opening.set_exception(NoSourceAnswered(504, f"{path}: no source answered in time"))
        except NoSourceAnswered as error:
            opening.set_exception(error)
        finally:
            if live is not None:
                self._retire(live)
        if live is not None and flight is not None:
            await (self._fly(live, flight) if flight.stage is Stage.WAITING else self._bring(live, flight))

    def _nobody(self, path: str, last: SourceError | None) -> NoSourceAnswered:
        if last is None:
            return NoSourceAnswered(502, f"{path}: every source has failed too often lately")
        status = 504 if last.reason is FetchReason.TIMEOUT else 502
        return NoSourceAnswered(status, f"{path}: no source answered: {last}")

    async def _opened(
        self,
        key: ObjectKey,
        path: str,
        answer: Answer,
        response: aiohttp.ClientResponse,
        held: ObjectRecord | None,
        *,
        is_purged: bool,
    ) -> tuple[Live | None, OpenAnswer]:
        """Turn a source's answer into a record and remember it. The Live is None if there is no body to receive."""
        now = time.time()
        headers = fields_of(response)
        match answer:
            case Unchanged():
                assert held is not None
                life = self._lifetime(path, 200, headers, now, held)
                record = self._dated(held, life, now)
                if not is_purged:
                    live = self._live.get(key)
                    if live is not None and live.record.generation == held.generation:
                        live.record = record
                    # An index that can't be written is no reason to refuse what the source has just confirmed.
                    with _logged(f"refresh {path}"):
                        await self._shelves.put(key, record, replaces=False)
                return None, OpenAnswer(key, record, OpenOutcome.REVALIDATED, 304)
            case Negative(status):
                life = self._lifetime(path, status, headers, now, None)
                kept = {"Cache-Control": life.cache_control}
                record = self._dated(ObjectRecord(path, self._generation(), 0, status, kept=kept), life, now)
                if not is_purged:
                    if held is not None:
                        with _logged(f"forget {path}"):
                            await self.purge([key])
                    if life.storable:
                        self._negatives[key] = record
                        if len(self._negatives) > _NEGATIVES:
                            self._negatives.popitem(last=False)
                return None, OpenAnswer(key, record, OpenOutcome.NEGATIVE, status)
            case Part(_, _, version) | Whole(version):
                life = self._lifetime(path, 200, headers, now, None)
                live = self._adopt(key, path, version, life, now, is_purged=is_purged)
                return live, OpenAnswer(live.key, live.record, OpenOutcome.MISS, response.status)
            case Beyond():
                raise AssertionError("the caller asks again without a range")

    def _adopt(
        self, key: ObjectKey, path: str, version: Version, life: Lifetime, now: float, *, is_purged: bool
    ) -> Live:
        """The object is `version` now. If the same bytes are held already, they stay its present generation."""
        record = ObjectRecord(
            path,
            self._generation(),
            version.size,
            etag=version.etag,
            last_modified=version.last_modified,
            kept=version.kept,
            storable=life.storable and not is_purged,
            ranged=version.is_strong,
        )
        record = self._dated(record, life, now)
        if not record.storable:
            # Private to the one who asked: a name that no path hashes to, and that nobody else is told.
            self._private += 1
            live = Live(b"private:" + self._private.to_bytes(8, "big"), record)
            self._live[live.key] = live
            return live
        present = self._live.get(key)
        known = self._known(key)
        is_same = known is not None and known.is_same_version(record)
        if is_same:
            assert known is not None
            record = msgspec.structs.replace(record, generation=known.generation)
        if present is not None and is_same:
            present.record = record
            live = present
        else:
            if present is not None:
                present.is_purged = True
            live = self._live[key] = Live(key, record)
        self._negatives.pop(key, None)
        replaces = known is not None and not is_same
        live.remembered = self._spawner.spawn(self._remember(live, replaces=replaces), f"remember {path}")
        live.remembered.add_done_callback(lambda _: self._retire(live))
        return live

    async def _remember(self, live: Live, *, replaces: bool) -> None:
        # A purge may have come before this task's turn: its commit must stay the last one.
        if not live.is_purged:
            await self._shelves.put(live.key, live.record, replaces=replaces)

    async def _measured(self, answer: Whole, chunks: AsyncIterator[bytes]) -> tuple[Whole, AsyncIterator[bytes]]:
        """An answer without a length (chunked, or ended by closing) is read whole, one block at most."""
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > BLOCK_BYTES:
                raise SourceError(FetchReason.WRONG_SIZE, "no Content-Length, and larger than a block")

        async def again() -> AsyncIterator[bytes]:
            yield bytes(body)

        return Whole(msgspec.structs.replace(answer.version, size=len(body))), again()

    async def _chunks(self, response: aiohttp.ClientResponse, source: Source) -> AsyncIterator[bytes]:
        """The body as it comes, counted."""
        while chunk := await response.content.readany():
            self.counts.bytes[source.name] += len(chunk)
            yield chunk
            # A source faster than we are would have every turn: let the other flights and the workers have theirs.
            await asyncio.sleep(0)

    def _lifetime(
        self, path: str, status: int, headers: dict[str, str], now: float, held: ObjectRecord | None
    ) -> Lifetime:
        if held is not None and "cache-control" not in headers and "Cache-Control" in held.kept:
            # RFC 9111 section 3.2: a 304 replaces only what it carries.
            headers = {**headers, "cache-control": held.kept["Cache-Control"]}
        return lifetime(path, status, headers, now, self._defaults)

    def _dated(self, record: ObjectRecord, life: Lifetime, now: float) -> ObjectRecord:
        return msgspec.structs.replace(
            record,
            generated_at=now - life.age,
            lifetime=life.fresh,
            stale_while_revalidate=life.stale_while_revalidate,
            stale_if_error=life.stale_if_error,
            kept={**record.kept, "Cache-Control": life.cache_control},
        )

    def _generation(self) -> int:
        self._last_generation = max(time.time_ns(), self._last_generation + 1)
        return self._last_generation

    # --- Want -----------------------------------------------------------------------------------------------------

    def want(self, wanted: Want, route: Route | None = None) -> Flight | None:
        """The flight of a wanted block, to be joined at once; reading ahead is begun as well. `route` says whom else to
        ask.

        None if this generation is not known here (any more): the object must be opened anew. A block that lies on disk
        already comes back as a flight that has landed, without having flown.
        """
        key, generation, block = wanted.key, wanted.generation, wanted.block
        live = self._live.get(key)
        if live is None:
            record = self._indexed(key)
            if record is None:
                return None
            live = Live(key, record)
        # What is live is newer than what the index says: an older generation is over, whoever still reads it.
        if live.record.generation != generation or not 0 <= block * BLOCK_BYTES < max(1, live.record.size):
            return None
        flight = live.flights.get(block)
        if flight is None:
            if not wanted.unreadable and self._is_present(live, block):
                flight = Flight(key, live.record, block)
                flight.stage = Stage.LANDED
                return flight
            if not live.record.ranged and not live.streams:
                # One whole answer made this generation, and part of it is gone: it can't be completed.
                self._spawner.spawn(self.purge([key]), f"forget {live.record.path}")
                return None
            self._live[key] = live
            flight = self._new_flight(live, block, wanted.loop, route)
            flight.passes = wanted.unreadable
            if not live.streams:
                self._spawner.spawn(self._fly(live, flight), f"block {block} of {live.record.path}")
        elif Content.of(route) < Content.of(flight.route):
            flight.route = route  # Somebody waits who would not be content with what those peers hold.
        if not live.streams and not wanted.unreadable:
            self._read_ahead(live, block, wanted.last_block, wanted.loop, route)
        return flight

    def _read_ahead(self, live: Live, block: int, last_block: int, loop: bytes, route: Route | None) -> None:
        if live.record.storable and not self._shelves.can_keep():
            return  # What is read ahead would lie nowhere.
        last = min(block + self._fetch.read_ahead_blocks, last_block, (live.record.size - 1) // BLOCK_BYTES)
        for ahead in range(block + 1, last + 1):
            if ahead not in live.flights and not self._is_present(live, ahead):
                flight = self._new_flight(live, ahead, loop, route)
                self._spawner.spawn(self._fly(live, flight), f"block {ahead} of {live.record.path}")

    def _is_present(self, live: Live, block: int) -> bool:
        if not live.record.storable:
            return False
        key = self._extent_of(live, block)
        return key not in self._losing and self._shelves.is_present(key, block % EXTENT_BLOCKS)

    def _new_flight(self, live: Live, block: int, loop: bytes = b"", route: Route | None = None) -> Flight:
        flight = live.flights.get(block)
        if flight is None:
            flight = live.flights[block] = Flight(live.key, live.record, block, loop, route)
        return flight

    async def _fly(self, live: Live, flight: Flight) -> None:
        losing = self._losing.get(self._extent_of(live, flight.block))
        takes_over = self._shelves.takes_over and not flight.passes
        if losing is not None:
            # What was lost on one device may lie on another: then it is there once the index says so.
            await asyncio.wait([losing])
        if takes_over:
            # One device may have made the object known before another one was asked what it has of it.
            live.looking = live.looking or self._look_for(live.key, live.record.path)
            await asyncio.wait([live.looking], timeout=_LOOK)
        if (takes_over or losing is not None) and self._is_present(live, flight.block):
            flight.land(kept=True)
            self._over(live, flight)
            return
        if await self._take_off(live, flight):
            await self._bring(live, flight)

    def _extent_of(self, live: Live, block: int) -> ExtentKey:
        return extent_key(live.key, live.record.generation, block // EXTENT_BLOCKS)

    async def _take_off(self, live: Live, flight: Flight) -> bool:
        """Get memory for a flight, when its turn comes. False if there is none to be had: then it has failed."""
        await self._memory.acquire()
        try:
            flight.take_off()
        except OSError as error:
            self._memory.release()
            log.error("no memory for a block of %s: %s", live.record.path, error.strerror)
            flight.fail(f"no memory for the block: {error.strerror}")
            self._over(live, flight)
            return False
        return True

    async def _bring(self, live: Live, flight: Flight) -> None:
        """Fetch what is missing of a flight that has taken off, put it on disk, and end it, in every case."""
        try:
            if flight.stage is Stage.ARRIVING and flight.passes:
                copy = await self._shelves.read_copy(
                    self._extent_of(live, flight.block), flight.block % EXTENT_BLOCKS, flight.length
                )
                if copy is not None:
                    flight.receive(copy)
            if flight.stage is Stage.ARRIVING:
                await self._fetch_rest(live, flight)
            await self._land(live, flight)
        except NoSourceAnswered as error:
            flight.fail(str(error))
        except GenerationChanged as error:
            log.warning("%s has changed at its source: %s", live.record.path, error)
            if self._live.get(live.key) is live:
                await self.purge([live.key])
            flight.fail(str(error), unknown=True)
        finally:
            if flight.stage not in (Stage.LANDED, Stage.FAILED):
                flight.fail("the keeper stops")
            self._memory.release()
            self._over(live, flight)

    def _over(self, live: Live, flight: Flight) -> None:
        if live.flights.get(flight.block) is flight:
            del live.flights[flight.block]
        self._retire(live)

    def _retire(self, live: Live) -> None:
        """Let go of an object that has nothing under way; the index knows it, and if not it is asked for again."""
        if live.flights or live.streams or (live.remembered is not None and not live.remembered.done()):
            return
        if not live.record.storable and not live.is_purged:
            # Its one viewer may still come for the next block.
            live.is_purged = True
            asyncio.get_running_loop().call_later(_PRIVATE_REST, self._retire, live)
        elif self._live.get(live.key) is live:
            del self._live[live.key]

    async def _fetch_rest(self, live: Live, flight: Flight) -> None:
        """Climb the ladder from the watermark on. Raises `NoSourceAnswered`, or `GenerationChanged` if all agree."""
        route = flight.route
        climb = self._climb(route)
        record = live.record
        tries = 0
        last: SourceError | None = None
        changed: GenerationChanged | None = None
        try:
            async with asyncio.timeout(self._fetch.total_deadline):
                while True:
                    source = climb.next_source(time.monotonic())
                    if source is None and flight.route is not route:
                        # Somebody came along meanwhile who wants it from wherever it is.
                        route = flight.route
                        climb = self._climb(route)
                        continue
                    if source is None:
                        break
                    if climb.has_wrapped:
                        if changed is not None:
                            raise changed
                        tries += 1
                        await asyncio.sleep(retry_delay(tries, self._fetch.retry_delay, random.random()))
                    span = (flight.start + flight.watermark, flight.stop)
                    try:
                        async with self._attempt(source, record.path, span, record, flight.loop) as (answer, response):
                            chunks = self._chunks(response, source)
                            if isinstance(answer, Part):
                                await self._receive(flight, chunks, source)
                            elif isinstance(answer, Whole):
                                await self._receive(flight, chunks, source, skip=span[0])
                            else:
                                raise SourceError(FetchReason.STATUS, f"status {response.status} for a known object")
                    except GenerationChanged as error:
                        # What another appliance holds may be of yesterday: only the ladder says what is true today.
                        changed, last = (changed, error) if source.is_peer else (error, last)
                    except SourceError as error:
                        last = error
                    else:
                        return
        except TimeoutError:
            raise NoSourceAnswered(504, f"{record.path}: no source gave the block in time") from None
        if changed is not None:
            raise changed
        raise self._nobody(record.path, last)

    async def _receive(
        self, flight: Flight, chunks: AsyncIterator[bytes], source: Source, skip: int | None = None
    ) -> None:
        """Fill the flight. The body must end where the block does; with `skip`, it is the whole object, and the block
        begins that far in it.
        """
        left = skip or 0
        async for chunk in chunks:
            part = chunk[left:] if left else chunk
            left -= len(chunk) - len(part)
            room = flight.length - flight.watermark
            if len(part) > room:
                if skip is None:
                    raise SourceError(FetchReason.OVERLONG, "more bytes than announced")
                part = part[:room]
            if part:
                flight.receive(part)
                flight.came[source.name] += len(part)
            if flight.stage is Stage.WHOLE and skip is not None:
                return
        if flight.stage is not Stage.WHOLE:
            missing = flight.length - flight.watermark
            raise SourceError(FetchReason.TRUNCATED, f"the answer ended {missing} bytes early")

    async def _stream(self, live: Live, chunks: AsyncIterator[bytes], source: Source) -> None:
        """Feed all blocks from one whole answer, in order. What waits when it breaks off is fetched by itself."""
        live.streams = True
        rest = b""
        try:
            await _let_the_others_hear()
            for block in range(-(-live.record.size // BLOCK_BYTES)):
                flight = self._new_flight(live, block)
                if block and not (live.record.storable and self._shelves.can_keep()):
                    # It passes through memory only, so it may not run ahead of its viewer.
                    try:
                        async with asyncio.timeout(self._fetch.total_deadline):
                            await flight.wanted.wait()
                    except TimeoutError:
                        return
                if not await self._take_off(live, flight):
                    return
                # The deadline that a block fetched by itself has: a source may be slow, but not trickle for ever.
                async with asyncio.timeout(self._fetch.total_deadline):
                    while flight.stage is Stage.ARRIVING:
                        chunk = rest or await anext(chunks, b"")
                        if not chunk:
                            raise SourceError(FetchReason.TRUNCATED, "the whole answer ended early")
                        room = flight.length - flight.watermark
                        rest = chunk[room:]
                        flight.receive(chunk[:room])
                        flight.came[source.name] += len(chunk) - len(rest)
                self._spawner.spawn(self._bring(live, flight), f"block {block} of {live.record.path}")
            if rest or await anext(chunks, b""):
                raise SourceError(FetchReason.OVERLONG, "more bytes than announced")
        finally:
            live.streams = False
            for flight in list(live.flights.values()):
                if flight.stage is Stage.WAITING:
                    if live.record.ranged and flight.wanted.is_set():
                        self._spawner.spawn(self._fly(live, flight), f"block {flight.block} of {live.record.path}")
                    else:
                        flight.fail("the source broke off, and its answer can't be continued", unknown=True)
                        self._over(live, flight)
                elif flight.stage is Stage.ARRIVING:
                    self._spawner.spawn(self._bring(live, flight), f"block {flight.block} of {live.record.path}")
            self._retire(live)

    async def _land(self, live: Live, flight: Flight) -> None:
        kept = False
        if live.record.storable and not live.is_purged and not flight.passes:
            if live.remembered is not None:
                # The object's record first: its generation's older extents go with that commit.
                await asyncio.wait([live.remembered])
            with _logged(f"keep block {flight.block} of {live.record.path}"):
                kept = await self._shelves.keep(
                    Keeping(
                        live.key,
                        live.record,
                        flight.block,
                        flight.content(),
                        lambda: not live.is_purged,
                        self._promises.get(live.key),
                    )
                )
        if not kept and self._resting < self._fetch.max_flights // 2:
            # These bytes are nowhere else, and whoever they are for may not have heard of them yet. Half of the memory
            # may wait so: viewers who left must not stop those who came.
            self._resting += 1
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PRIVATE_REST):
                        await flight.wanted.wait()
            finally:
                self._resting -= 1
        flight.land(kept=kept)

    # --- Purge and the rest -----------------------------------------------------------------------------------------

    async def purge(self, keys: list[ObjectKey]) -> None:
        """Forget objects. When this returns no worker serves them; who is being served finishes with the old bytes."""
        for key in keys:
            self._negatives.pop(key, None)
            for part, content in itertools.product((False, True), Content):
                self._openings.pop((key, part, content), None)
            live = self._live.pop(key, None)
            if live is not None:
                live.is_purged = True
        self._purging.update(keys)
        try:
            await self._shelves.drop(keys)
        finally:
            self._purging.subtract(keys)
            self._purging = +self._purging

    def objects_below(self, prefix: str) -> list[ObjectKey]:
        """Keys of objects that are known only here, in memory, and whose path starts with `prefix`."""
        live = [key for key, live in self._live.items() if live.record.path.startswith(prefix)]
        return live + [key for key, record in self._negatives.items() if record.path.startswith(prefix)]

    def lose(self, extent: ExtentKey, slot: int, reason: str, device: int, fault: Fault) -> asyncio.Task[None]:
        """What a worker found: an extent's file is gone, short, unreadable or rotten on a device. From now on its
        blocks come from its copy, or are fetched anew.

        Several viewers find the same at once; one of them is enough. The task is over when the index has forgotten it.
        """
        losing = self._losing.get(extent)
        if losing is None:
            work = self._lose(extent, slot, reason, device, fault)
            losing = self._losing[extent] = self._spawner.spawn(work, "lose an extent")
        return losing

    async def _lose(self, extent: ExtentKey, slot: int, reason: str, device: int, fault: Fault) -> None:
        try:
            await self._shelves.lose(extent, slot, reason, device, fault)
        finally:
            del self._losing[extent]

    def promise(self, key: ObjectKey, until: float, tier: str | None) -> None:
        """What is brought of an object from now on is put on `tier` and not evicted before `until`, nor before what was
        promised already."""
        known = self._promises.get(key)
        self._promises[key] = Promise(until if known is None else max(until, known.until), tier)
        self._forget_promises()

    async def pledge(self, key: ObjectKey, until: float, tier: str | None = None) -> None:
        """What is held of an object, and what is brought of it from now on, is not evicted before `until`, and what is
        brought is put on `tier`; 0: it is again like everything else.
        """
        record = self._indexed(key)
        if until:
            self._promises[key] = Promise(until, tier)
            self._forget_promises()
        else:
            self._promises.pop(key, None)
        if record is not None:
            await self._shelves.pledge(key, record.generation, until)

    def _forget_promises(self) -> None:
        if len(self._promises) > _PLEDGES:
            now = time.time()
            self._promises = {held: one for held, one in self._promises.items() if one.until > now}

    async def bring(self, key: ObjectKey, record: ObjectRecord, start: int, stop: int, ahead: int) -> bool:
        """Have the blocks of a span of bytes fetched, one after the other and some ahead. Whether all are here then."""
        last = (stop - 1) // BLOCK_BYTES
        for block in range(start // BLOCK_BYTES, last + 1):
            flight = self.want(Want(0, key, record.path, record.generation, block, min(last, block + ahead)))
            if flight is None:
                return False
            if not flight.is_over:
                landing = Landing()
                flight.join(landing)
                if not await landing.over:
                    return False
        return True

    async def document(self, path: str, most_bytes: int) -> bytes | None:
        """A small object as the sources have it now, past the cache; None if they say that there is none.

        Raises `NoSourceAnswered`, also for one that is larger.
        """
        climb = self._climb(None)
        tries = 0
        last: SourceError | None = None
        try:
            async with asyncio.timeout(self._fetch.total_deadline):
                while (source := climb.next_source(time.monotonic())) is not None:
                    if climb.has_wrapped:
                        tries += 1
                        await asyncio.sleep(retry_delay(tries, self._fetch.retry_delay, random.random()))
                    try:
                        async with self._attempt(source, path, None, None, b"") as (answer, response):
                            if isinstance(answer, Negative):
                                return None
                            if not isinstance(answer, Whole):
                                raise SourceError(FetchReason.STATUS, f"status {response.status} for a whole object")
                            return await self._read_whole(answer, response, source, most_bytes)
                    except SourceError as error:
                        last = error
        except TimeoutError:
            raise NoSourceAnswered(504, f"{path}: no source gave it in time") from None
        raise self._nobody(path, last)

    async def _read_whole(
        self, answer: Whole, response: aiohttp.ClientResponse, source: Source, most_bytes: int
    ) -> bytes:
        body = bytearray()
        async for chunk in self._chunks(response, source):
            body += chunk
            if len(body) > most_bytes:
                raise RequestRefused(FetchReason.WRONG_SIZE, f"more than {most_bytes} bytes")
        if 0 <= answer.version.size != len(body):
            raise SourceError(FetchReason.TRUNCATED, f"{len(body)} bytes of {answer.version.size}")
        return bytes(body)

    async def refetch(self, path: str, blocks: list[int]) -> None:
        """Have blocks that were lost fetched again, one by one. Returns when they are here, or can't be had."""
        answer = await self.open(path, blocks[0] * BLOCK_BYTES)
        record = answer.record
        if record.status != 200 or not record.storable:
            return
        for block in blocks:
            start, stop = block_span(block, record.size)
            if start < stop:
                await self.bring(answer.key, record, start, stop, 0)

    def _climb(self, route: Route | None) -> Climb:
        return Climb(self._sources, list(self.breakers.values()), self._fetch.attempts, route)

    @contextlib.asynccontextmanager
    async def _attempt(
        self,
        source: Source,
        path: str,
        span: tuple[int, int] | None,
        held: ObjectRecord | None,
        loop: bytes,
        *,
        is_head: bool = False,
        condition: ObjectRecord | None = None,
    ) -> AsyncIterator[tuple[Answer, aiohttp.ClientResponse]]:
        """Ask one source once. Every error of the network or of the source comes out as `SourceError`, counted.

        `held` is the generation the bytes must belong to; `condition` is one that the source may confirm with 304.
        """
        breaker = source.breaker if isinstance(source, Peer) else self.breakers[source.name]
        headers = dict(source.fields)
        if not source.is_s3:
            own = self._settings.appliance.id
            headers["CDN-Loop"] = f"{loop.decode('latin-1')}, {own}" if loop else own
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        if held is not None:
            if held.etag:
                headers["If-Match"] = held.etag.decode("latin-1")
            elif held.last_modified is not None:
                headers["If-Unmodified-Since"] = format_date(held.last_modified)
        if condition is not None:
            if condition.etag:
                headers["If-None-Match"] = condition.etag.decode("latin-1")
            elif condition.last_modified is not None:
                headers["If-Modified-Since"] = format_date(condition.last_modified)
        response: aiohttp.ClientResponse | None = None
        try:
            response = await ask(self._session, source, "HEAD" if is_head else "GET", path, headers)
            if source.is_peer and (response.status == 504 or response.status in NEGATIVE):
                raise RequestRefused(FetchReason.NOT_HELD, f"{response.status}: the peer does not hold it")
            answer = judge(
                response.status,
                fields_of(response),
                start=0 if span is None else span[0],
                stop=None if span is None else span[1],
                held=held if held is not None else condition if response.status == 304 else None,
                now=time.time(),
                is_s3=source.is_s3,
            )
            yield answer, response
        except SourceError as error:
            fault = error
        except TimeoutError as error:
            fault = SourceError(FetchReason.TIMEOUT, "nothing came for too long")
            fault.__cause__ = error
        except aiohttp.ClientPayloadError as error:
            fault = SourceError(FetchReason.TRUNCATED, str(error))
            fault.__cause__ = error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            fault = SourceError(FetchReason.CONNECT, str(error))
            fault.__cause__ = error
        except asyncio.CancelledError:
            # The deadline over all tries: a source that trickles counts as one that fails.
            breaker.report(time.monotonic(), succeeded=False)
            raise
        else:
            breaker.report(time.monotonic(), succeeded=True)
            return
        finally:
            if response is not None:
                # A body that was read to its end leaves the connection for the next request.
                response.release() if response.content.at_eof() else response.close()
        self.counts.errors[source.name, fault.reason] += 1
        breaker.report(time.monotonic(), succeeded=isinstance(fault, (GenerationChanged, RequestRefused)))
        # Of peers most don't have most things most of the night.
        log.log(
            logging.DEBUG if fault.reason is FetchReason.NOT_HELD else logging.INFO,
            "%s: %s: %s",
            source.name,
            path,
            fault,
        )
        raise fault


async def _let_the_others_hear() -> None:
    """Who waits for an object is told before its body is read: a fast source's whole block would come first."""
    await asyncio.sleep(0)  # For the shield around the future ...
    await asyncio.sleep(0)  # ... and for the one who waits for it.


def _stands_alone(part: Part) -> bool:
    """Whether a part can be used: without a strong validator it could not be joined with the next one."""
    return part.version.is_strong or part.stop - part.start == part.version.size
