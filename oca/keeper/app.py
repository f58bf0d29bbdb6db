"""The keeper process: builds every part, owns the TaskGroup, and ends when it is told to."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Final

from aiohttp import web

from oca.counters import ROWS, WORDS
from oca.keeper.control import Control
from oca.keeper.desk import Counters, Desk
from oca.keeper.exporter import Exporter
from oca.keeper.library import Library, Spawner
from oca.keeper.sources import build_sources, new_session
from oca.settings import Settings
from oca.store.board import Board, CounterMemory
from oca.store.index import Index
from oca.store.shelves import Shelves

log = logging.getLogger(__name__)

_READER_CHECK: Final = 10.0
_LOAD_AT_START: Final = 1.0
"""Seconds that the start waits for the shelves to learn what they hold. Serving does not need it, keeping does."""


async def run_keeper(
    settings: Settings, *, board_fd: int, counters_fd: int, desk_socket: socket.socket, control_socket: socket.socket
) -> None:
    """Run until SIGTERM. Blocks that are not on disk by then are dropped; workers ask for them again."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    board = Board(board_fd)
    sources = await asyncio.to_thread(build_sources, settings)
    index_folder = str(Path(settings.appliance.state_dir) / "index")
    async with (
        Index(index_folder) as index,
        new_session(settings.fetch, settings.appliance.id) as session,
        asyncio.TaskGroup() as group,
    ):
        spawner = Spawner(group)
        shelves = Shelves(index, board, time.monotonic)
        await shelves.add_all(settings.device)
        loading = spawner.spawn(shelves.load(), "load the shelves")
        await asyncio.wait([loading], timeout=_LOAD_AT_START)
        library = Library(settings, sources, session, index, shelves, spawner)
        counters = Counters(CounterMemory(counters_fd, ROWS * WORDS))
        desk = Desk(desk_socket, library, shelves, counters, spawner)
        exporter = Exporter(desk, library, shelves, index, settings.listen.workers)
        control = Control(settings, board, index, shelves, library, desk, exporter, spawner)
        runner = web.AppRunner(control.application(), access_log=None, keepalive_timeout=15)
        await runner.setup()
        await web.SockSite(runner, control_socket).start()
        spawner.spawn(_sweep(shelves), "sweep")
        spawner.spawn(_check_readers(index), "check readers")
        log.info("keeper %d is up", os.getpid())
        await stopped.wait()
        desk.close()
        await runner.cleanup()
        await spawner.end()
        shelves.close()
    log.info("keeper %d ends", os.getpid())


async def _sweep(shelves: Shelves) -> None:
    """Once, after the start: files that no record names were being written when the appliance was killed."""
    removed = await shelves.sweep()
    if removed:
        log.info("%d unfinished files removed", removed)


async def _check_readers(index: Index) -> None:
    while True:
        await asyncio.sleep(_READER_CHECK)
        freed = index.clear_dead_readers()
        if freed:
            log.info("%d readers of killed workers cleared", freed)
