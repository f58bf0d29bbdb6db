"""The edge worker process: accepts connections, keeps their deadlines, and leaves without cutting anybody off."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from oca.counters import Count
from oca.edge.connection import Connection
from oca.edge.courier import Courier
from oca.edge.lookup import Lookup
from oca.edge.pages import Pages
from oca.edge.pools import Pools
from oca.edge.tally import Tally
from oca.edge.viewing import Viewing
from oca.edge.watched import Audience, unwatched
from oca.edge.worker import Worker
from oca.settings import Scheme, Settings
from oca.store.board import Board
from oca.store.index import IndexReader
from oca.turns import Turns

log = logging.getLogger(__name__)

Taker = Callable[[socket.socket], Connection | None]
"""What becomes of an accepted socket; None: it is closed."""

_ACCEPTS: Final = 64
"""Connections taken in one turn."""
_TICK: Final = 0.1
_SWITCH: Final = 0.001
_HOUSEKEEPING_TICKS: Final = 10


async def run_worker(
    settings: Settings,
    *,
    number: int,
    place: int,
    row: int,
    listeners: dict[str, socket.socket],
    tickets_fd: int,
    board_fd: int,
    counters_fd: int,
    run_dir_fd: int,
    ready_fd: int,
    ask: socket.socket,
) -> None:
    """Run until SIGTERM (drain: idle connections are closed at once) or SIGUSR2 (a successor has the socket: idle
    connections may send one more request). Both end when the last response is out, or at the drain deadline.
    """
    loop = asyncio.get_running_loop()
    _raise_file_limit()
    # The threads of the devices get their turn soon, also while the loop is busy: 5 ms is Python's default.
    sys.setswitchinterval(_SWITCH)
    board = Board(board_fd)
    tally = Tally(counters_fd, row)
    courier = Courier(run_dir_fd, number, place)
    audience = Audience()
    watch = unwatched if settings.demand is None else audience.of
    lookup = Lookup(IndexReader(str(Path(settings.appliance.state_dir) / "index")), board, watch)
    # The counters are a file that all processes have: the turns are locks on it, and touch no byte.
    pools = Pools(Turns(counters_fd), settings.store, tally, courier.stalled)
    pages = Pages()
    gates = {}
    if settings.access.required:
        # Cryptography takes memory and time to import: only where it is used.
        from oca.edge.access import Gate  # noqa: PLC0415

        gates = {name: Gate(settings, tally, Scheme(name)) for name in listeners if name != "fleet"}
        for gate in gates.values():
            gate.look()
    viewing = Viewing(
        settings.viewers,
        settings.appliance.id.encode(),
        int(settings.http.min_send_rate),
        board,
        lookup,
        courier,
        tally,
    )
    worker = Worker(
        settings, board, lookup, courier, pools, pages, tally, viewing, with_cookies=settings.access.required
    )
    takers: dict[str, Taker] = {"http": lambda sock: Connection(sock, worker, loop, gates.get("http"))}
    security = None
    if "https" in listeners or "fleet" in listeners:
        from oca.edge.secured import Security  # noqa: PLC0415 - as above

        security = Security(settings, worker, loop, gates.get("https"), tickets_fd)
        takers |= {"https": security.film_connection, "fleet": security.fleet_connection}
    leaving = asyncio.Event()

    def leave(*, closes_idle: bool) -> None:
        if not worker.is_leaving:
            for name, listener in listeners.items():
                _accept_all(listener, worker, takers[name])
            worker.is_leaving = True
            for listener in listeners.values():
                loop.remove_reader(listener.fileno())
                listener.close()
            leaving.set()
        if closes_idle:
            worker.is_stopping = True
            for connection in [c for c in worker.connections if c.is_idle]:
                connection.close()

    loop.add_signal_handler(signal.SIGTERM, lambda: leave(closes_idle=True))
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGUSR2, lambda: leave(closes_idle=False))
    courier.connect()
    # What was imported and built stays for ever: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    for name, listener in listeners.items():
        listener.setblocking(False)
        loop.add_reader(listener.fileno(), _accept_all, listener, worker, takers[name])
    ask.setblocking(False)
    loop.add_reader(ask.fileno(), _answer, ask, lookup, loop)
    os.write(ready_fd, b"1")
    os.close(ready_fd)
    deadline = float("inf")
    ticks = 0
    while True:
        await asyncio.sleep(_TICK)
        now = time.monotonic()
        ticks += 1
        pools.look(now)
        pages.look(now)
        for connection in [c for c in worker.connections if c.deadline <= now]:
            connection.expire(now)
        if ticks % _HOUSEKEEPING_TICKS == 0:
            courier.report_touched()
            courier.report_watched(audience)
            courier.report_sessions(viewing.take_sessions())
            lookup.close_stale()
            for gate in gates.values():
                gate.look()
            if security is not None:
                security.look()
        if leaving.is_set():
            deadline = min(deadline, now + settings.http.drain_timeout)
            if not worker.connections:
                break
            if now >= deadline:
                log.warning("%d connections are cut at the drain deadline", len(worker.connections))
                for connection in list(worker.connections):
                    connection.close()
                break
    courier.report_watched(audience)
    courier.close()
    pools.close()
    pages.close()
    if security is not None:
        security.close()
    # Let the channel's last packets and the loop's last callbacks out.
    await asyncio.sleep(0)


def _accept_all(listener: socket.socket, worker: Worker, taken: Taker) -> None:
    words = worker.tally.words
    for _ in range(_ACCEPTS):
        try:
            sock, _address = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # Out of descriptors, or the client was gone already: the next turn tries again.
            log.warning("accept: %s", error)
            return
        words[Count.CONNECTIONS_ACCEPTED] += 1
        if len(worker.connections) >= worker.http.max_connections:
            words[Count.CONNECTIONS_REFUSED] += 1
            sock.close()
            continue
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        words[Count.CONNECTIONS_OPEN] += 1
        connection = taken(sock)
        if connection is None:
            words[Count.CONNECTIONS_OPEN] -= 1
            sock.close()
        else:
            worker.connections.add(connection)


def _answer(ask: socket.socket, lookup: Lookup, loop: asyncio.AbstractEventLoop) -> None:
    """The supervisor asks whether this loop turns, and can look into the index: only then viewers are served."""
    try:
        asked = ask.recv(16)
    except BlockingIOError:
        return
    except OSError:
        asked = b""
    if not asked:
        loop.remove_reader(ask.fileno())
        return
    lookup.probe()
    with contextlib.suppress(OSError):
        ask.send(b"!")


def _raise_file_limit() -> None:
    """As many descriptors as the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
