"""What the agent of nightly fill asks: bring this, compare it, pledge it, give it up; and how busy the appliance is.

An object is brought through the same flights, checks and ladder as a viewer's miss, so both share the work; peers that
the order names are asked before the ladder. While it comes it is protected by a promise of an hour, not by the order's:
what is pledged for good was compared with the catalogue's SHA-256 before, by the agent's next question.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from functools import partial
from typing import Final

import msgspec
from aiohttp import web
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS, ObjectKey, extent_key, object_key
from oca.cache.records import ObjectRecord
from oca.errors import ExtentDamaged, NoSourceAnswered, OcaError, OrderRefused, StoreError
from oca.http.refusal import Refused
from oca.http.target import canonical_path
from oca.ipc import Want
from oca.keeper.bodies import body
from oca.keeper.flights import Flight, Landing
from oca.keeper.gauges import Gauges
from oca.keeper.library import Library
from oca.keeper.peers import PEER, Peers, Route
from oca.keeper.stocktaker import Stocktaker
from oca.settings import Settings, Steering, Tier
from oca.store.index import Index
from oca.store.shelf import MEMORY
from oca.store.shelves import Shelves
from oca.turns import depth_of

log = logging.getLogger(__name__)

_PROVISIONAL: Final = 3600.0
"""Seconds that what is being brought is protected: an agent that dies leaves nothing pledged for nothing."""
_MOST_AT_ONCE: Final = 64
"""Fills under way; more are refused, so that no agent fills the memory with questions."""
_AHEAD: Final = 4
"""Blocks on their way at a time, of one fill."""
_MOST_NAMES: Final = 10_000
_BATCH: Final = 500
_MOST_DOCUMENT_BYTES: Final = 32 * 1024 * 1024
_BREATH: Final = 0.05
"""Seconds that comparing stands back while viewers wait for the disk, and the most of such breaths for a block."""
_STANDS_BACK: Final = 100

_MOST_BELOW: Final = 100_000
_SOURCES: Final = (PEER, "parent", "origin", "shared", "held")

TryTurn = Callable[[int, int], AbstractContextManager[bool]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Trouble(StrEnum):
    """Why something was not brought, for the agent's log and metrics."""

    ABSENT = "absent"
    CHANGED = "changed"
    NO_PEER = "no_peer"
    UNAVAILABLE = "unavailable"
    NO_ROOM = "no_room"
    BUSY = "busy"
    BAD = "bad"


class FillRefused(OcaError):
    """`status` is that of the HTTP answer."""

    def __init__(self, status: int, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.trouble = trouble


class FillOrder(msgspec.Struct, forbid_unknown_fields=True):
    """{"path": "/titles/x/720p.ab/seg-1.m4s", "size": 4000123}; `start` and `stop` (bytes, half-open) narrow it."""

    path: str
    size: int
    """As the catalogue says it."""
    start: int = 0
    stop: int | None = None
    tier: Tier | None = None
    peers: tuple[str, ...] = ()
    """URLs of appliances to ask before the own ladder, in this order."""
    only_peers: bool = False


class VerifyOrder(msgspec.Struct, forbid_unknown_fields=True):
    """{"path": ..., "size": ..., "sha256": "…"}: compare the object, as it lies on the devices, with the catalogue."""

    path: str
    size: int
    sha256: str


class PledgesOrder(msgspec.Struct, forbid_unknown_fields=True):
    """{"until": 1766000000, "paths": [...], "folders": [...]}; a folder stands for all that is known below it. 0 gives
    the pledges back."""

    until: float
    paths: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


class Verdict(StrEnum):
    RIGHT = "right"
    MISSING = "missing"
    """Not all of it lies on devices (any more)."""
    SIZE = "size"
    CHECKSUM = "checksum"


class _Arrival(Landing):
    """Waits for a block, and hears whether it was kept, or why it did not come."""

    def __init__(self, flight: Flight) -> None:
        super().__init__()
        self.flight = flight
        self.kept = False
        self.unknown = False
        self.reason = ""
        flight.join(self)

    def landed(self, flight: Flight, *, kept: bool) -> None:
        self.kept = kept
        super().landed(flight, kept=kept)

    def failed(self, flight: Flight, *, unknown: bool, reason: str) -> None:
        self.unknown, self.reason = unknown, reason
        super().failed(flight, unknown=unknown, reason=reason)


class Filling:
    def __init__(
        self,
        settings: Settings,
        library: Library,
        index: Index,
        shelves: Shelves,
        try_turn: TryTurn,
        is_waited_for: Callable[[int, int], bool],
        stocktaker: Stocktaker | None,
    ) -> None:
        self._settings = settings
        self._library = library
        self._index = index
        self._shelves = shelves
        self._try_turn = try_turn
        self._is_waited_for = is_waited_for
        self._stocktaker = stocktaker
        # Of its own: those of the heartbeat measure from one heartbeat to the next.
        self._gauges = Gauges(settings.steering or Steering(()))
        self._peers = Peers(library.limits)
        self._at_once = 0
        self._verifying = asyncio.Semaphore(2)
        self.brought: Counter[str] = Counter()
        """Bytes, by where they came from."""
        self.verified: Counter[Verdict] = Counter()

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/fill", _told(self._fill))
        app.router.add_post("/v1/verify", _told(self._verify))
        app.router.add_post("/v1/pledges", _told(self._pledges))
        app.router.add_get("/v1/pressure", _told(self._pressure))
        app.router.add_get("/v1/document", _told(self._document))
        app.router.add_get("/v1/holdings", _told(self._holdings))

    # --- Bring --------------------------------------------------------------------------------------------------------

    async def _fill(self, request: web.Request) -> web.Response:
        order = await body(request, FillOrder)
        path = _canonical(order.path)
        stop = order.size if order.stop is None else order.stop
        if not 0 <= order.start < stop <= order.size:
            raise FillRefused(
                400, Trouble.BAD, f"bytes {order.start} to {stop} of {order.size}; allowed: 0 <= start < stop <= size"
            )
        try:
            route = Route(self._peers.named(order.peers), order.only_peers)
        except ValueError as error:
            raise FillRefused(400, Trouble.BAD, f"peers: {error}") from error
        if self._at_once >= _MOST_AT_ONCE:
            raise FillRefused(429, Trouble.BUSY, f"{_MOST_AT_ONCE} fills are under way already")
        self._at_once += 1
        try:
            return web.json_response(await self._bring(path, order, stop, route))
        finally:
            self._at_once -= 1

    async def _bring(self, path: str, order: FillOrder, stop: int, route: Route) -> dict[str, object]:
        key = object_key(path)
        known = self._index.object(key)
        if known is not None and known.status == 200 and known.size == order.size and known.storable:
            # What is held need not be asked for anew to be filled up: its generation is checked with each block.
            record = known
        else:
            record = await self._opened(path, order, route)
        if record.size != order.size:
            raise FillRefused(409, Trouble.CHANGED, f"{path} has {record.size} bytes, the catalogue says {order.size}")
        self._library.promise(key, time.time() + _PROVISIONAL, order.tier)
        held, came = 0, Counter[str]()
        under_way: deque[_Arrival] = deque()
        last = (stop - 1) // BLOCK_BYTES
        try:
            for block in range(order.start // BLOCK_BYTES, last + 1):
                flight = self._library.want(Want(0, key, path, record.generation, block, block), route)
                if flight is None:
                    raise FillRefused(409, Trouble.CHANGED, f"{path} became another while it came")
                if flight.is_over:
                    held += flight.length
                    continue
                under_way.append(_Arrival(flight))
                if len(under_way) >= _AHEAD:
                    await self._arrived(path, under_way.popleft(), route, came)
            while under_way:
                await self._arrived(path, under_way.popleft(), route, came)
        finally:
            for arrival in under_way:
                arrival.flight.leave(arrival)
            self.brought.update(came)
            self.brought["held"] += held
        sources = {kind: came[kind] for kind in ("peer", "parent", "origin")}
        return {"held_bytes": held, "source_bytes": sources, "shared_bytes": came["shared"]}

    async def _opened(self, path: str, order: FillOrder, route: Route) -> ObjectRecord:
        try:
            answer = await self._library.open(path, order.start, b"", route)
        except NoSourceAnswered as error:
            raise _unavailable(error, route) from error
        record = answer.record
        if record.status != 200:
            raise FillRefused(404, Trouble.ABSENT, f"{path}: the sources say that there is no such object")
        if not record.storable:
            raise FillRefused(409, Trouble.CHANGED, f"{path} may not be stored (Cache-Control)")
        return record

    async def _arrived(self, path: str, arrival: _Arrival, route: Route, came: Counter[str]) -> None:
        flight = arrival.flight
        is_here = await arrival.over
        for name, count in flight.came.items():
            came[_kind(name)] += count
        if not is_here and arrival.unknown:
            raise FillRefused(409, Trouble.CHANGED, f"{path}: {arrival.reason}")
        if not is_here:
            raise _unavailable(NoSourceAnswered(502, f"{path}: {arrival.reason}"), route)
        # Streamed with another block's answer, or read from a copy.
        came["shared"] += flight.length - sum(flight.came.values())
        if not arrival.kept:
            raise FillRefused(507, Trouble.NO_ROOM, f"{path}: no device takes a block of it")

    # --- Compare ------------------------------------------------------------------------------------------------------

    async def _verify(self, request: web.Request) -> web.Response:
        order = await body(request, VerifyOrder)
        path = _canonical(order.path)
        async with self._verifying:
            verdict = await self._compared(object_key(path), path, order)
        self.verified[verdict] += 1
        if verdict is Verdict.RIGHT:
            return web.json_response({"right": True})
        return web.json_response({"right": False, "reason": verdict.value})

    async def _compared(self, key: ObjectKey, path: str, order: VerifyOrder) -> Verdict:
        record = self._index.object(key)
        if record is None or record.status != 200:
            return Verdict.MISSING
        if record.size != order.size:
            return Verdict.SIZE
        digest = hashlib.sha256()
        for block in range(-(-record.size // BLOCK_BYTES)):
            content = await self._block(key, record, block)
            if content is None:
                return Verdict.MISSING
            # Without the interpreter lock, and away from the loop.
            await asyncio.to_thread(digest.update, content)
        if digest.hexdigest() == order.sha256.lower():
            return Verdict.RIGHT
        log.error("%s is not what the catalogue says: it is thrown away; SHA-256 %s", path, digest.hexdigest())
        await self._library.purge([key])
        return Verdict.CHECKSUM

    async def _block(self, key: ObjectKey, record: ObjectRecord, block: int) -> memoryview | None:
        """As it lies on a device, compared with its sum. None: it does not (any more)."""
        number, place = divmod(block, EXTENT_BLOCKS)
        extent_of = extent_key(key, record.generation, number)
        extent = self._index.extent(extent_of)
        if extent is None or not extent.present >> place & 1:
            return None
        shelf = self._shelves.shelf(extent.device)
        if shelf is None or not shelf.can_read:
            return None
        length = min(BLOCK_BYTES, record.size - block * BLOCK_BYTES)
        read = partial(shelf.folder.read_block, extent_of, place * BLOCK_BYTES, length, extent.sum_of(place))
        depth = depth_of(self._settings.store, shelf.tier)
        try:
            for _ in range(_STANDS_BACK):
                with self._try_turn(shelf.number, depth) as is_ours:
                    if is_ours:
                        return await shelf.do(read)
                await asyncio.sleep(_BREATH)
            return await shelf.do(read)
        except ExtentDamaged as error:
            await self._shelves.lose(extent_of, extent.slot, str(error), shelf.number, Fault(error.fault))
        except StoreError as error:
            self._shelves.failed(shelf, error)
        return None

    # --- Pledge -------------------------------------------------------------------------------------------------------

    async def _pledges(self, request: web.Request) -> web.Response:
        order = await body(request, PledgesOrder)
        if len(order.paths) + len(order.folders) > _MOST_NAMES:
            raise FillRefused(400, Trouble.BAD, f"more than {_MOST_NAMES} names")
        if order.until and order.until <= time.time():
            raise FillRefused(
                400, Trouble.BAD, f"until {order.until} is past; allowed: seconds since 1970, in the future, or 0"
            )
        pledged = pledged_bytes = 0
        absent: list[str] = []
        for name, keys in self._named(order):
            some = 0
            for at in range(0, len(keys), _BATCH):
                # Together, so that they share commits.
                counts = await asyncio.gather(*(self._pledge(name, key, order.until) for key in keys[at : at + _BATCH]))
                some += sum(count is not None for count in counts)
                pledged_bytes += sum(count for count in counts if count is not None)
            pledged += some
            if not some:
                absent.append(name)
        return web.json_response({"pledged": pledged, "bytes": pledged_bytes, "absent": absent})

    def _named(self, order: PledgesOrder) -> Iterator[tuple[str, list[ObjectKey]]]:
        for path in order.paths:
            yield path, [object_key(_canonical(path))]
        for folder in order.folders:
            yield folder, self._index.paths_starting(_canonical(folder.rstrip("/")) + "/", _MOST_BELOW)

    async def _pledge(self, name: str, key: ObjectKey, until: float) -> int | None:
        """Bytes that are held of it; None if it is not known."""
        record = self._index.object(key)
        if record is None:
            return None
        extents = self._index.extents_of(key, record.generation)
        try:
            await self._library.pledge(key, until)
        except OrderRefused as error:
            raise FillRefused(507, Trouble.NO_ROOM, f"{name}: {error}") from error
        return sum(extent.used_bytes for _, extent in extents)

    # --- Tell ---------------------------------------------------------------------------------------------------------

    async def _pressure(self, _: web.Request) -> web.Response:
        """How much viewers need just now, and how much may still be pledged."""
        gauge = await self._gauges.read()
        policy, share = self._shelves.policy, self._settings.store.pledge_share
        shelves = [shelf for shelf in self._shelves.shelves if shelf.tier != MEMORY]
        devices = [
            {
                "id": shelf.identity,
                "tier": shelf.tier,
                "standing": shelf.health.standing.value,
                "capacity_bytes": shelf.capacity,
                "used_bytes": policy.used_bytes(shelf.number),
                "pledged_bytes": policy.pledged_bytes(shelf.number),
                "waited_for": self._is_waited_for(shelf.number, depth_of(self._settings.store, shelf.tier)),
            }
            for shelf in shelves
        ]
        return web.json_response(
            {
                "egress_bps": gauge.egress_bps,
                "link_bps": gauge.link_bps,
                "flights": self._library.flights,
                "max_flights": self._settings.fetch.max_flights,
                "pledged_bytes": sum(policy.pledged_bytes(shelf.number) for shelf in shelves),
                "pledgeable_bytes": sum(int(shelf.capacity * share) for shelf in shelves if shelf.can_write),
                "devices": devices,
            }
        )

    async def _document(self, request: web.Request) -> web.Response:
        """What the sources have of the catalogue now, past the cache."""
        path = _canonical(request.query.get("path"))
        if not path.startswith("/catalogue/"):
            raise FillRefused(400, Trouble.BAD, f"read {path!r}; allowed: a path below /catalogue/")
        try:
            document = await self._library.document(path, _MOST_DOCUMENT_BYTES)
        except NoSourceAnswered as error:
            raise _unavailable(error, Route()) from error
        if document is None:
            raise FillRefused(404, Trouble.ABSENT, f"{path}: the sources say that there is no such object")
        return web.Response(body=document, content_type="application/json")

    async def _holdings(self, _: web.Request) -> web.Response:
        """Numbers of the renditions that are held, as steering and the planner are told."""
        if self._stocktaker is None:
            raise FillRefused(409, Trouble.BAD, "nobody takes stock here: neither [steering] nor [demand] is set")
        return web.json_response(
            {
                "version": self._stocktaker.version,
                "complete": self._stocktaker.is_complete,
                "numbers": base64.b64encode(self._stocktaker.bitmap).decode(),
            }
        )


class FillMetrics(Collector):
    """Read at each scrape."""

    def __init__(self, filling: Filling) -> None:
        self._filling = filling

    def collect(self) -> Iterator[Metric]:
        brought = CounterMetricFamily("oca_fill_bytes", "Bytes brought for nightly fill, by source.", labels=["source"])
        for source in _SOURCES:
            brought.add_metric([source], self._filling.brought[source])
        yield brought
        verified = CounterMetricFamily(
            "oca_fill_verified", "Objects compared with the catalogue, by what came of it.", labels=["result"]
        )
        for verdict in Verdict:
            verified.add_metric([verdict.value], self._filling.verified[verdict])
        yield verified


def _kind(source: str) -> str:
    """Of the name of a source."""
    return source if source in (PEER, "origin") else "parent"


def _unavailable(error: NoSourceAnswered, route: Route) -> FillRefused:
    if route.only_peers:
        return FillRefused(503, Trouble.NO_PEER, f"no peer has it now: {error}")
    return FillRefused(error.status, Trouble.UNAVAILABLE, str(error))


def _canonical(path: str | None) -> str:
    if not path or not path.startswith("/"):
        raise FillRefused(400, Trouble.BAD, f'read {path!r}; allowed: a path that starts with "/"')
    try:
        return canonical_path(path.replace("%", "%25").encode())
    except Refused as error:
        raise FillRefused(400, Trouble.BAD, error.reason) from error


def _told(handler: Handler) -> Handler:
    """Refusals as JSON, with a word that the agent decides by."""

    async def told(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except FillRefused as error:
            answer = {"error": str(error), "reason": error.trouble.value}
            return web.json_response(answer, status=error.status)

    return told
