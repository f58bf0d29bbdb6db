"""The supervisor: owns the listening sockets and shared memory, starts workers and the keeper, replaces the dead.

It does no other work, so that nothing can bring it down. What it holds survives every child: the sockets with their
queues, the stamps, the counters of workers that ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import heapq
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Final

from oca.activation import notify, passed_sockets
from oca.counters import COUNTERS_BYTES, ROWS, WORDS, Count
from oca.errors import OcaError, SettingsError
from oca.ipc import socket_path
from oca.lifecycle import keep_log
from oca.logs import RING_BYTES
from oca.settings import Settings, pack_settings
from oca.store.board import BOARD_BYTES, CounterMemory, new_memory
from oca.store.index import Index
from wire.toml import host_and_port

log = logging.getLogger(__name__)

_BACKLOG: Final = 4096
_START_DEADLINE: Final = 30.0
_RESTART_DELAYS: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Before the first, second, ... restart of a child that ends again and again within `_SETTLED` seconds."""
_SETTLED: Final = 30.0
# The keeper turns over half a megabyte for each chunk that comes in. glibc would map and unmap each anew; kept,
# they save a tenth to a fifth of the keeper's CPU per block (three pairs of runs, `python -m tests.bench cold`).
_KEEPER_MEMORY: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 1024 * 1024),
    "MALLOC_TOP_PAD_": str(16 * 1024 * 1024),
}
_KEEPER_END: Final = 10.0
_KILLED: Final = 5.0
"""Seconds in which a killed process goes, unless the kernel holds it."""
_ENDS_AFTER_DRAIN: Final = 5.0


class StartFailed(OcaError):
    """The appliance can't start: an address is taken, a folder can't be written, a child ends at once."""


class Supervisor:
    """`reread` gives the settings anew, for SIGHUP."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings]) -> None:
        self._settings = settings
        self._reread = reread
        self._next_number = 0
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._leaving: set[asyncio.subprocess.Process] = set()
        """Workers that a reload replaced and that still finish their responses."""
        self._keeper: asyncio.subprocess.Process | None = None
        self._is_stopping = False
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._open_state()
        passed = passed_sockets()
        self._listeners = passed.get("http", [])
        self._is_activated = bool(self._listeners)
        if not self._is_activated:
            self._add_listeners(settings.listen.workers)
        self._control = passed.get("control", [None])[0] or _listening(settings.listen.control, "listen.control")
        self._board_fd = new_memory("oca-board", BOARD_BYTES)
        self._log_fd = new_memory("oca-log", RING_BYTES)
        keep_log("oca", self._log_fd)
        self._counters_fd = new_memory("oca-counters", COUNTERS_BYTES)
        self._counters = CounterMemory(self._counters_fd, ROWS * WORDS).words
        self._free_rows = list(range(ROWS))
        self._settings_fd = self._pack(settings)

    def _open_state(self) -> None:
        state = Path(self._settings.appliance.state_dir)
        run_dir = state / "run"
        try:
            run_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._lock = os.open(state / "appliance.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._keeper_lock = os.open(state / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._run_dir_fd = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StartFailed(f"appliance.state_dir {state}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(f"appliance.state_dir {state}: another appliance runs on it") from None
        with contextlib.suppress(FileNotFoundError):
            (run_dir / "keeper.sock").unlink()
        self._desk = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._desk.bind(socket_path(self._run_dir_fd))
        self._desk.listen(256)

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT. Returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        loop.add_signal_handler(signal.SIGINT, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload()))
        # Workers open the index read-only: it must be there before them.
        async with Index(str(Path(self._settings.appliance.state_dir) / "index")):
            pass
        failure: OcaError | None = None
        try:
            # Workers first: what is held is served at once, the keeper is only needed for what is not.
            starting = [
                asyncio.ensure_future(self._start_worker(place)) for place in range(self._settings.listen.workers)
            ]
            await asyncio.sleep(0)
            await self._start_keeper()
            await asyncio.gather(*starting)
            log.info(
                "appliance %s serves %s, control on %s",
                self._settings.appliance.id,
                self._settings.listen.http,
                self._settings.listen.control,
            )
            notify("READY=1")
            await self._ended.wait()
        except OcaError as error:
            failure = error
            self._is_stopping = True
        await self._stop()
        if failure is not None:
            raise failure
        return 0

    def _on_stop(self) -> None:
        if self._is_stopping:
            log.warning("told to stop again: connections are cut")
            for process in (*self._workers.values(), *self._leaving):
                _signal(process, signal.SIGKILL)
        self._is_stopping = True
        self._ended.set()

    async def _stop(self) -> None:
        """Refuse new connections, let running responses finish, then end the keeper."""
        notify("STOPPING=1")
        for listener in self._listeners:
            listener.close()
        workers = [*self._workers.values(), *self._leaving]
        for process in workers:
            _signal(process, signal.SIGTERM)
        limit = self._settings.http.drain_timeout + _ENDS_AFTER_DRAIN
        await _ended(workers, limit)
        if self._keeper is not None:
            _signal(self._keeper, signal.SIGTERM)
            await _ended([self._keeper], _KEEPER_END)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- Children ---------------------------------------------------------------------------------------------------

    async def _start_keeper(self) -> None:
        self._keeper = await self._start(
            "oca.keeper",
            {
                "settings": self._settings_fd,
                "board": self._board_fd,
                "counters": self._counters_fd,
                "desk": self._desk.fileno(),
                "control": self._control.fileno(),
                "lock": self._keeper_lock,
                "log": self._log_fd,
            },
        )
        self._spawn(self._watch_keeper(self._keeper))

    async def _start_worker(self, place: int) -> None:
        """Start a worker on listener number `place`, and return when it accepts. Raises `StartFailed`."""
        number = self._next_number
        self._next_number += 1
        if not self._free_rows:
            raise StartFailed("too many workers are still finishing")
        row = heapq.heappop(self._free_rows)
        ready, ready_child = os.pipe2(os.O_CLOEXEC)
        try:
            process = await self._start(
                "oca.edge",
                {
                    "settings": self._settings_fd,
                    "board": self._board_fd,
                    "counters": self._counters_fd,
                    "listener": self._listeners[place % len(self._listeners)].fileno(),
                    "run-dir": self._run_dir_fd,
                    "ready": ready_child,
                    "log": self._log_fd,
                },
                "--number",
                str(number),
                "--place",
                str(place),
                "--row",
                str(row),
            )
        finally:
            os.close(ready_child)
        self._workers[number] = process
        try:
            if not await _is_ready(ready):
                _signal(process, signal.SIGKILL)
                raise StartFailed("a worker did not start; its own message stands above")
        finally:
            os.close(ready)
            if process.returncode is None:
                self._spawn(self._watch_worker(number, place, row, process))
            else:
                self._free_row(row)

    def _free_row(self, row: int) -> None:
        """The worker that counted here is dead: what it counted stays, what it had open is open no more."""
        self._counters[row * WORDS + Count.CONNECTIONS_OPEN] = 0
        heapq.heappush(self._free_rows, row)

    async def _start(self, module: str, fds: dict[str, int], *more: str) -> asyncio.subprocess.Process:
        arguments = [part for name, fd in fds.items() for part in (f"--{name}-fd", str(fd))]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            "--supervisor",
            str(os.getpid()),
            *more,
            pass_fds=tuple(fds.values()),
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, **(_KEEPER_MEMORY if module == "oca.keeper" else {})},
        )

    async def _watch_worker(self, number: int, place: int, row: int, process: asyncio.subprocess.Process) -> None:
        """A worker that dies is replaced; the queue of its socket waits in the meantime."""
        began = time.monotonic()
        code = await process.wait()
        self._free_row(row)
        self._leaving.discard(process)
        was_ours = self._workers.pop(number, None) is not None
        if self._is_stopping or not was_ours:
            return
        log.error("worker %d (pid %d) died with %s; it is replaced", number, process.pid, _told(code))
        await self._again(began, lambda: self._start_worker(place))

    async def _watch_keeper(self, process: asyncio.subprocess.Process) -> None:
        began = time.monotonic()
        code = await process.wait()
        if self._is_stopping or self._keeper is not process:
            return
        log.error("keeper (pid %d) died with %s; it is replaced", process.pid, _told(code))
        await self._again(began, self._start_keeper)

    _deaths = 0

    async def _again(self, began: float, start: Callable[[], Awaitable[None]]) -> None:
        """Restart a child: at once, and ever more slowly if it keeps dying."""
        self._deaths = 0 if time.monotonic() - began > _SETTLED else self._deaths + 1
        delay = _RESTART_DELAYS[min(self._deaths, len(_RESTART_DELAYS) - 1)] if self._deaths > 3 else 0.0
        await asyncio.sleep(delay)
        while not self._is_stopping:
            try:
                await start()
            except (OcaError, OSError) as error:
                log.error("%s", error)
                await asyncio.sleep(_RESTART_DELAYS[-1])
            else:
                return

    # --- Reload -----------------------------------------------------------------------------------------------------

    async def _reload(self) -> None:
        """New settings and new code: new children on the same sockets, then the old ones finish and end."""
        async with self._reloading:
            try:
                settings = self._reread()
                self._check_same_place(settings)
            except SettingsError as error:
                log.error("not reloaded: %s", error)
                return
            old_settings_fd = self._settings_fd
            self._settings, self._settings_fd = settings, self._pack(settings)
            os.close(old_settings_fd)
            if not self._is_activated:
                self._add_listeners(settings.listen.workers)
            old = dict(self._workers)
            old_keeper = self._keeper
            self._keeper = None
            if old_keeper is not None:
                _signal(old_keeper, signal.SIGTERM)
                self._spawn(_ended([old_keeper], _KEEPER_END))
            # The new keeper waits for the old one's lock; workers ask again what they were waiting for.
            await self._start_keeper()
            try:
                await asyncio.gather(*(self._start_worker(place) for place in range(settings.listen.workers)))
            except OcaError as error:
                log.error("reloaded the keeper, but the old workers stay: %s", error)
                return
            for number, process in old.items():
                if self._workers.pop(number, None) is not None:
                    self._leaving.add(process)
                    _signal(process, signal.SIGUSR2)
            if not self._is_activated:
                for listener in self._listeners[settings.listen.workers :]:
                    listener.close()
                del self._listeners[settings.listen.workers :]
            notify("READY=1")
            log.info("reloaded: %d workers replaced", len(old))

    def _check_same_place(self, settings: Settings) -> None:
        for name, old, new in (
            ("listen.http", self._settings.listen.http, settings.listen.http),
            ("listen.control", self._settings.listen.control, settings.listen.control),
            ("appliance.state_dir", self._settings.appliance.state_dir, settings.appliance.state_dir),
        ):
            if old != new:
                raise SettingsError(f"{name} can't change while running: it is {old!r}, the file says {new!r}")

    def _add_listeners(self, workers: int) -> None:
        """One SO_REUSEPORT socket for each worker: the kernel spreads connections, and each has a queue of its own."""
        while len(self._listeners) < workers:
            self._listeners.append(_listening(self._settings.listen.http, "listen.http"))

    def _pack(self, settings: Settings) -> int:
        packed = pack_settings(settings)
        fd = os.memfd_create("oca-settings", os.MFD_CLOEXEC)
        os.write(fd, packed)
        return fd

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def serve(settings: Settings, reread: Callable[[], Settings]) -> int:
    """Run the appliance. Raises `StartFailed`, `IndexUnusable`."""
    return await Supervisor(settings, reread).run()


def _listening(address: str, name: str) -> socket.socket:
    host, port = host_and_port(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(where)
        sock.listen(_BACKLOG)
    except OSError as error:
        raise StartFailed(f"{name} {address}: {error.strerror or error}") from error
    return sock


async def _is_ready(fd: int) -> bool:
    """Whether the child wrote its byte, within the deadline."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[bool] = loop.create_future()

    def read() -> None:
        loop.remove_reader(fd)
        if not told.done():
            told.set_result(os.read(fd, 1) == b"1")

    loop.add_reader(fd, read)
    try:
        async with asyncio.timeout(_START_DEADLINE):
            return await told
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)


async def _ended(processes: list[asyncio.subprocess.Process], limit: float) -> None:
    """Wait for processes to end; kill what has not ended by then."""
    try:
        async with asyncio.timeout(limit):
            await asyncio.gather(*(process.wait() for process in processes))
    except TimeoutError:
        for process in processes:
            if process.returncode is None:
                log.warning("pid %d does not end and is killed", process.pid)
                _signal(process, signal.SIGKILL)
        await _gone(processes)


async def _gone(processes: list[asyncio.subprocess.Process]) -> None:
    """Wait for killed processes. One that hangs in the kernel, on a disk that gives no answer, is not waited for."""
    try:
        async with asyncio.timeout(_KILLED):
            await asyncio.gather(*(process.wait() for process in processes))
    except TimeoutError:
        left = [process.pid for process in processes if process.returncode is None]
        log.error("killed, but still in the kernel, which waits for a disk: %s", left)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _told(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
