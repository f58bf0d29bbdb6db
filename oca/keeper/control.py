"""The control listener: /metrics, /healthz, /readyz and the control API. Loopback only: it has no password."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from oca.cache.keys import BLOCK_BYTES, object_key
from oca.cache.records import ObjectRecord
from oca.errors import OcaError, OrderRefused
from oca.http.refusal import Refused
from oca.http.target import canonical_path
from oca.keeper.bodies import MOST_BYTES, body
from oca.keeper.demand import Demand
from oca.keeper.desk import Desk
from oca.keeper.devices import Devices
from oca.keeper.exporter import Exporter
from oca.keeper.filling import Filling
from oca.keeper.library import Library, Spawner
from oca.keeper.probing import Prober
from oca.keeper.readiness import Readiness
from oca.keeper.reporter import Reporter
from oca.settings import Settings, Tier
from oca.store.board import Board, DrainCause
from oca.store.index import Index
from oca.store.rack import Rack
from oca.store.shelves import Shelves

log = logging.getLogger(__name__)

_PURGE_BATCH: Final = 1000
_PREFETCHES: Final = 1000
_PREFETCH_WINDOW: Final = 4

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PurgeOrder(msgspec.Struct, forbid_unknown_fields=True):
    """{"path": "/titles/x/master.m3u8"} or {"prefix": "/titles/x/"}."""

    path: str | None = None
    prefix: str | None = None


class PrefetchOrder(msgspec.Struct, forbid_unknown_fields=True):
    """{"path": "/titles/x/720p.mp4"}; `start` and `stop` (bytes, half-open) narrow it."""

    path: str
    start: int = 0
    stop: int | None = None
    pledged_until: float = 0.0
    """Seconds since 1970 before which what is brought is not evicted."""
    tier: Tier | None = None
    """Where what is brought and pledged is put; the slowest tier if it is not said."""


class PledgeOrder(msgspec.Struct, forbid_unknown_fields=True):
    """{"path": "/titles/x/720p.mp4", "until": 1766000000}: not evicted before that second; 0 takes the pledge back."""

    path: str
    until: float


class Control:
    def __init__(
        self,
        settings: Settings,
        board: Board,
        index: Index,
        shelves: Shelves,
        library: Library,
        desk: Desk,
        exporter: Exporter,
        devices: Devices,
        rack: Rack,
        spawner: Spawner,
        readiness: Readiness,
        reporter: Reporter | None,
        demand: Demand | None,
        filling: Filling,
        prober: Prober,
        security: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self._settings = settings
        self._board = board
        self._index = index
        self._shelves = shelves
        self._library = library
        self._desk = desk
        self._exporter = exporter
        self._devices = devices
        self._rack = rack
        self._spawner = spawner
        self._readiness = readiness
        self._reporter = reporter
        """None: nothing is reported to steering."""
        self._demand = demand
        """None: demand is not shipped."""
        self._filling = filling
        self._prober = prober
        self._security = security
        """None: nothing is served over TLS."""
        self._started_at = time.time()
        self._prefetching = 0
        self._prefetch_turn = asyncio.Semaphore(2)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BYTES, middlewares=[_errors])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/v1/status", self._status)
        app.router.add_get("/v1/objects", self._object)
        app.router.add_post("/v1/purge", self._purge)
        app.router.add_post("/v1/drain", self._drain)
        app.router.add_post("/v1/resume", self._resume)
        app.router.add_post("/v1/prefetch", self._prefetch)
        app.router.add_post("/v1/pledge", self._pledge)
        app.router.add_post("/v1/demand/ship", self._ship_demand)
        self._devices.add_routes(app)
        self._filling.add_routes(app)
        self._prober.add_routes(app)
        return app

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._exporter.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _healthz(self, _: web.Request) -> web.Response:
        """The keeper answers: 200. For a supervisor that restarts what does not."""
        return web.json_response({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        """200 if players may be sent here: all workers are connected and nobody asked to drain."""
        reasons = self._readiness.reasons()
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _status(self, _: web.Request) -> web.Response:
        objects, extents = self._index.counts()
        return web.json_response(
            {
                "id": self._settings.appliance.id,
                "started_at": self._started_at,
                "draining": self._board.is_draining,
                "workers": {str(worker): {"pid": pid} for worker, pid in sorted(self._desk.workers.items())},
                "objects": objects,
                "extents": extents,
                "loaded": self._shelves.is_loaded,
                "flights": self._library.flights,
                "prefetches": self._prefetching,
                "health": self._rack.health,
                "devices": self._devices.entries(),
                "probation": self._devices.memory(),
                "sources": [
                    {"name": name, "breaker": breaker.state.name.lower()}
                    for name, breaker in self._library.breakers.items()
                ],
                "steering": None if self._reporter is None else self._reporter.status(),
                "demand": None if self._demand is None else self._demand.status(),
                "tls": None if self._security is None else self._security(),
            }
        )

    async def _object(self, request: web.Request) -> web.Response:
        path = _canonical(request.query.get("path"))
        key = object_key(path)
        record = self._index.object(key)
        if record is None:
            return web.json_response({"path": path, "held": False}, status=404)
        return web.json_response({"path": path, "held": True, **self._described(key, record)})

    def _described(self, key: bytes, record: ObjectRecord) -> dict[str, Any]:
        extents = self._index.extents_of(key, record.generation)
        devices = {shelf.number: shelf for shelf in self._shelves.shelves if shelf.can_read}
        return {
            "size": record.size,
            "generation": record.generation,
            "etag": record.etag.decode("latin-1"),
            "last_modified": record.last_modified,
            "fresh": record.is_fresh(time.time()),
            "age": record.age(time.time()),
            "lifetime": record.lifetime,
            "blocks": -(-record.size // BLOCK_BYTES),
            "blocks_held": sum(extent.present.bit_count() for _, extent in extents if extent.device in devices),
            "extents": [
                {
                    "number": int.from_bytes(extent_key[24:], "big"),
                    "device": devices[extent.device].identity if extent.device in devices else None,
                    "tier": devices[extent.device].tier if extent.device in devices else None,
                    "present": f"{extent.present:016b}"[::-1],
                    "below": devices[extent.below].identity if extent.below in devices else None,
                    "used_bytes": extent.used_bytes,
                    "pledged_until": extent.pledged_until,
                }
                for extent_key, extent in extents
            ],
        }

    async def _purge(self, request: web.Request) -> web.Response:
        order = await body(request, PurgeOrder)
        if (order.path is None) == (order.prefix is None):
            raise web.HTTPBadRequest(text='give either "path" or "prefix"')
        if order.path is not None:
            key = object_key(_canonical(order.path))
            held = self._index.object(key) is not None
            await self._library.purge([key])
            return web.json_response({"purged": int(held)})
        assert order.prefix is not None
        if not order.prefix.startswith("/"):
            raise web.HTTPBadRequest(text=f'prefix {order.prefix!r} does not start with "/"')
        self._shelves.drop_below(order.prefix)
        await self._library.purge(self._library.objects_below(order.prefix))
        purged = 0
        seen: list[bytes] = []
        while (keys := self._index.paths_starting(order.prefix, _PURGE_BATCH)) and keys != seen:
            await self._library.purge(keys)
            purged += len(keys)
            seen = keys
        return web.json_response({"purged": purged})

    async def _drain(self, _: web.Request) -> web.Response:
        self._board.drain(DrainCause.OPERATOR)
        log.info("draining: /readyz says 503, answers carry Connection: close")
        return web.json_response({"draining": True})

    async def _resume(self, _: web.Request) -> web.Response:
        self._board.resume(DrainCause.OPERATOR)
        is_draining = self._board.is_draining
        log.info("resumed by the operator; steering wants it to drain still" if is_draining else "resumed")
        return web.json_response({"draining": is_draining})

    async def _prefetch(self, request: web.Request) -> web.Response:
        order = await body(request, PrefetchOrder)
        path = _canonical(order.path)
        if order.start < 0 or (order.stop is not None and order.stop <= order.start):
            raise web.HTTPBadRequest(text="start and stop are not a span of bytes: 0 <= start < stop")
        if order.tier is not None and not order.pledged_until:
            raise web.HTTPBadRequest(text="tier is for what is pledged: give pledged_until as well")
        if order.pledged_until:
            self._check_pledge(order.pledged_until)
        if self._prefetching >= _PREFETCHES:
            raise web.HTTPTooManyRequests(text=f"{_PREFETCHES} prefetches are waiting already")
        self._prefetching += 1
        self._spawner.spawn(self._bring(path, order), f"prefetch {path}")
        return web.json_response({"accepted": path}, status=202)

    async def _bring(self, path: str, order: PrefetchOrder) -> None:
        try:
            async with self._prefetch_turn:
                answer = await self._library.open(path, order.start)
                record = answer.record
                if record.status != 200 or not record.storable:
                    return
                stop = min(order.stop or record.size, record.size)
                if order.pledged_until:
                    await self._library.pledge(answer.key, order.pledged_until, order.tier)
                if stop > order.start:
                    await self._library.bring(answer.key, record, order.start, stop, _PREFETCH_WINDOW)
        finally:
            self._prefetching -= 1

    async def _pledge(self, request: web.Request) -> web.Response:
        order = await body(request, PledgeOrder)
        path = _canonical(order.path)
        key = object_key(path)
        if self._index.object(key) is None:
            raise web.HTTPNotFound(text=f"{path} is not held")
        if order.until:
            self._check_pledge(order.until)
        await self._library.pledge(key, order.until)
        return web.json_response({"path": path, "pledged_until": order.until})

    async def _ship_demand(self, _: web.Request) -> web.Response:
        """Have the bucket get what was counted until now (less what workers did not tell yet, of the last second)."""
        if self._demand is None:
            raise web.HTTPConflict(text="there is no [demand] in the settings: nothing is counted")
        return web.json_response({"shipped": await self._demand.ship_now()})

    def _check_pledge(self, until: float) -> None:
        if until <= time.time():
            raise web.HTTPBadRequest(text=f"{until}: is past already; allowed: seconds since 1970, in the future")
        share, most = self._shelves.pledged_share, self._settings.store.pledge_share
        if share >= most:
            raise web.HTTPConflict(
                text=f"{share:.0%} of the devices' room is pledged already; store.pledge_share allows {most:.0%}"
            )


def _canonical(path: str | None) -> str:
    if not path or not path.startswith("/"):
        raise web.HTTPBadRequest(text='"path" is missing or does not start with "/"')
    try:
        return canonical_path(path.replace("%", "%25").encode())
    except Refused as error:
        raise web.HTTPBadRequest(text=error.reason) from error


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as JSON, with what was wrong."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response({"error": error.text}, status=error.status)
    except OrderRefused as error:
        return web.json_response({"error": str(error)}, status=error.status)
    except OcaError as error:
        return web.json_response({"error": str(error)}, status=502)
