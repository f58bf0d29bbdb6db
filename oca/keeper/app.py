"""The keeper process: builds every part, owns the TaskGroup, and ends when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from oca.counters import ROWS, WORDS
from oca.keeper.control import Control
from oca.keeper.demand import Demand
from oca.keeper.demand_metrics import DemandMetrics
from oca.keeper.desk import Counters, Desk
from oca.keeper.devices import Devices
from oca.keeper.exporter import Exporter
from oca.keeper.filling import Filling, FillMetrics
from oca.keeper.key_courier import KeyCourier
from oca.keeper.library import Library, Spawner
from oca.keeper.logbook import Logbook
from oca.keeper.probing import Prober
from oca.keeper.readiness import Readiness
from oca.keeper.reporter import Reporter, new_steering_session
from oca.keeper.reporting import ReportMetrics
from oca.keeper.routes import Routes
from oca.keeper.scrubbing import ScrubMetrics
from oca.keeper.sources import build_sources, new_session
from oca.keeper.spool import Spool
from oca.keeper.stock import StockReport
from oca.keeper.stocktaker import Stocktaker
from oca.keeper.viewer_metrics import ViewerMetrics
from oca.keeper.viewers import Viewers
from oca.logs import Ring
from oca.settings import Settings, Steering, keys_file
from oca.store.board import Board, CounterMemory, DrainCause
from oca.store.index import Index
from oca.store.memoir import Memoir
from oca.store.mover import Mover, Pace
from oca.store.rack import WATCH, Rack
from oca.store.rebuild import import_device
from oca.store.scrub import Scrubber
from oca.store.shelves import Shelves
from oca.turns import Turns, depth_of

log = logging.getLogger(__name__)

_READER_CHECK: Final = 10.0
_LOAD_AT_START: Final = 1.0
"""Seconds that the start waits for the shelves to learn what they hold. Serving does not need it, keeping does."""


async def run_keeper(
    settings: Settings,
    *,
    board_fd: int,
    counters_fd: int,
    desk_socket: socket.socket,
    control_socket: socket.socket,
    tickets_fd: int,
    ring: Ring,
) -> None:
    """Run until SIGTERM. Blocks that are not on disk by then are dropped; workers ask for them again."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    state_dir = Path(settings.appliance.state_dir)
    if settings.access.required and settings.access.renewal_limit:
        # Cryptography takes memory and time to import: only where it is used.
        from oca.store.key_files import OWN_KEY, make_own_key  # noqa: PLC0415

        make_own_key(str(state_dir / OWN_KEY))
    board = Board(board_fd)
    sources = await asyncio.to_thread(build_sources, settings)
    async with (
        Index(str(state_dir / "index")) as index,
        new_session(settings.fetch, settings.appliance.id) as session,
        contextlib.AsyncExitStack() as stack,
        asyncio.TaskGroup() as group,
    ):
        spawner = Spawner(group)
        shelves = Shelves(index, board, time.time, settings.store.pledge_share)
        counters = Counters(CounterMemory(counters_fd, ROWS * WORDS))
        rack = Rack(shelves, index, settings.store, time.time, counters.device_reads)
        await rack.start(settings.device, settings.appliance.id, settings.appliance.state_dir)
        memoir = Memoir(shelves, str(state_dir / "policy"))
        await memoir.recall()
        loading = spawner.spawn(shelves.load(), "load the shelves")
        await asyncio.wait([loading], timeout=_LOAD_AT_START)
        library = Library(settings, sources, session, index, shelves, spawner)
        stocktaker: Stocktaker | None = None
        # A box that ships demand says what it holds as well, also without steering.
        reporting = settings.steering or (Steering(()) if settings.demand is not None else None)
        if reporting is not None:
            stocktaker = Stocktaker(reporting, index, shelves, library.document, state_dir / "catalogue", time.time)
            spawner.spawn(stocktaker.run(), "take stock")
        demand: Demand | None = None
        if settings.demand is not None:
            assert reporting is not None
            assert stocktaker is not None
            stock = StockReport(settings, reporting, shelves, rack, stocktaker, time.time)
            spool = Spool(state_dir / "demand", int(settings.demand.spool))
            demand = Demand(settings.demand, settings.appliance.id, spool, stock.message)
            await demand.open()
            spawner.spawn(demand.run(), "ship demand")
        viewers = Viewers(board)
        spawner.spawn(viewers.run(), "change the salt")
        desk = Desk(desk_socket, library, shelves, counters, spawner, viewers, demand)
        pace = Pace(float(settings.store.move_rate), time.monotonic)
        turns = Turns(counters_fd)
        depth = partial(depth_of, settings.store)
        mover = Mover(shelves, index, pace, time.time, depth, turns.try_turn)
        scrubber = Scrubber(
            shelves, index, settings.store.scrub_days, library.refetch, time.time, asyncio.sleep, depth, turns.try_turn
        )
        exporter = Exporter(desk, library, shelves, index, rack, mover, settings.listen.workers)

        async def settle() -> None:
            """After the start, and when a device came back: what was given up while it was away goes, and what comes
            from elsewhere is taken over.
            """
            removed = await rack.settle(lambda shelf: import_device(shelves, shelf))
            if removed:
                log.info("%d files that no record names are removed", removed)

        exporter.registry.register(ScrubMetrics(scrubber, shelves))
        exporter.registry.register(ViewerMetrics(viewers, counters))
        if demand is not None:
            exporter.registry.register(DemandMetrics(demand))
        readiness = Readiness(settings.listen.workers, board, desk)
        reporter: Reporter | None = None
        steering = settings.steering
        if steering is not None:
            assert stocktaker is not None
            to_steering = await stack.enter_async_context(new_steering_session(steering))
            boot = secrets.token_hex(8)
            routes = Routes(settings.routes, settings.appliance.id)
            spawner.spawn(routes.run(), "hear routes")
            reporter = Reporter(
                settings,
                steering,
                boot,
                board,
                readiness,
                counters,
                shelves,
                rack,
                stocktaker,
                to_steering,
                routes,
                lambda: viewers.count,
            )
            exporter.registry.register(ReportMetrics(reporter, stocktaker))
            spawner.spawn(reporter.run(), "report to steering")
            if settings.access.required and settings.access.keys is None:
                courier = KeyCourier(settings, steering, to_steering, Path(keys_file(settings)))
                spawner.spawn(courier.run(), "bring keys from steering")
        else:
            board.resume(DrainCause.STEERING)  # Nobody is left who could take the order back.
        devices = Devices(rack, shelves, lambda: spawner.spawn(settle(), "settle devices"), scrubber.rounds)
        filling = Filling(settings, library, index, shelves, turns.try_turn, turns.is_waited_for, stocktaker)
        exporter.registry.register(FillMetrics(filling))
        security = None
        if settings.listen.https is not None or settings.listen.fleet is not None:
            # As above: cryptography.
            from oca.keeper.security import Security  # noqa: PLC0415

            security = Security(settings, tickets_fd, counters, time.time)
            exporter.registry.register(security)
            spawner.spawn(security.run(), "look after TLS")
        prober = Prober(settings, sources, session, shelves, rack, turns.try_turn, depth, time.time)
        control = Control(
            settings,
            board,
            index,
            shelves,
            library,
            desk,
            exporter,
            devices,
            rack,
            spawner,
            readiness,
            reporter,
            demand,
            filling,
            prober,
            None if security is None else security.status,
        )
        application = control.application()
        Logbook(ring).add_routes(application)
        runner = web.AppRunner(application, access_log=None, keepalive_timeout=15)
        await runner.setup()
        await web.SockSite(runner, control_socket).start()
        spawner.spawn(settle(), "settle devices")
        spawner.spawn(_watch(rack, lambda: spawner.spawn(settle(), "settle devices")), "watch devices")
        spawner.spawn(mover.run(), "move content")
        spawner.spawn(scrubber.run(), "scrub")
        spawner.spawn(memoir.write(), "remember accesses")
        spawner.spawn(_check_readers(index), "check readers")
        log.info("keeper %d is up", os.getpid())
        await stopped.wait()
        desk.close()
        await runner.cleanup()
        await spawner.end()
        if demand is not None:
            await demand.end()
        await memoir.save()
        shelves.close()
    log.info("keeper %d ends", os.getpid())


async def _watch(rack: Rack, settle: Callable[[], object]) -> None:
    while True:
        await asyncio.sleep(WATCH)
        await rack.look_after()
        if rack.returned:
            settle()


async def _check_readers(index: Index) -> None:
    while True:
        await asyncio.sleep(_READER_CHECK)
        freed = index.clear_dead_readers()
        if freed:
            log.info("%d readers of killed workers cleared", freed)
