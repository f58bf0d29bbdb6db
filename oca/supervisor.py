"""The supervisor: owns the listening sockets and shared memory, starts workers and the keeper, replaces the dead.

It does no other work, so that nothing can bring it down. What it holds survives every child: the sockets with their
queues, the stamps, the counters of workers that ended. A reload has the supervisor itself begin anew (handover.py), so
that all of it is the code and the settings that are installed now. systemd keeps the sockets for the case that it dies.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from oca.activation import keep, notify, passed, watchdog_interval
from oca.counters import COUNTERS_BYTES, ROWS, WORDS, Count
from oca.errors import OcaError
from oca.handover import Adopted, Child, Handover, WorkerLeft, hand_over, own_program, received, take_signals
from oca.ipc import socket_path
from oca.lifecycle import keep_log
from oca.logs import RING_BYTES
from oca.reloads import Place, Reloads
from oca.settings import Settings, pack_settings
from oca.store.board import BOARD_BYTES, TICKETS_BYTES, CounterMemory, new_memory
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
_CHECK_DEADLINE: Final = 60.0
"""For the installed code to say whether it can use the settings."""
_MOST_WORDS: Final = 4000
_ASK_EVERY: Final = 5.0
_SILENT: Final = 30.0
"""Seconds without an answer after which a worker is replaced; half of WatchdogSec= where that is less."""
_LAST_WORDS: Final = 2.0
"""Seconds in which a silent worker may write down where it is (SIGABRT, faulthandler)."""
_SHAPES: Final = (BOARD_BYTES, RING_BYTES, COUNTERS_BYTES, ROWS, WORDS)
_KEPT_LOG: Final = f"log-{RING_BYTES}"
_KEPT_COUNTERS: Final = f"counters-{ROWS}-{WORDS}"
"""Names under which systemd keeps them; another shape is another name."""


class StartFailed(OcaError):
    """The appliance can't start: an address is taken, a folder can't be written, a child ends at once."""


@dataclass(eq=False)
class _Worker:
    number: int
    place: int
    """Of its listeners."""
    row: int
    """Of the counters."""
    process: Child
    ask: socket.socket
    """Where it is asked whether its loop turns."""
    answered_at: float
    was_asked: bool = False


class Supervisor:
    """What it was told on the command line, `config`, is read anew by the image that a reload makes."""

    def __init__(self, settings: Settings, config: str) -> None:
        self._settings = settings
        self._config = config
        self._next_number = 0
        self._workers: dict[int, _Worker] = {}
        self._leaving: set[_Worker] = set()
        """Workers that a reload replaced and that still finish their responses."""
        self._keeper: Child | None = None
        self._is_stopping = False
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._fed_at = time.monotonic()
        self._reloads = Reloads(Path(settings.appliance.state_dir) / "run")
        self._before = received()
        if self._before is not None:
            self._take_over(self._before)
        else:
            self._begin()
        self._counters = CounterMemory(self._counters_fd, ROWS * WORDS).words
        taken = {worker.row for worker in self._before.workers} if self._before is not None else set()
        self._free_rows = [row for row in range(ROWS) if row not in taken]
        if self._before is None:
            for row in self._free_rows:
                # systemd may have kept what a supervisor counted that died.
                self._counters[row * WORDS + Count.CONNECTIONS_OPEN] = 0
        self._settings_fd = self._pack(settings)

    def _begin(self) -> None:
        """All from the beginning, but for what systemd opened or kept for us."""
        self._open_state()
        given = passed()
        listen = self._settings.listen
        self._listeners = {name: [socket.socket(fileno=fd) for fd in given.get(name, [])] for name in listen.ports}
        self._passed = {name for name, socks in self._listeners.items() if socks}
        for name in listen.ports.keys() - self._passed:
            self._listeners[name] = self._kept(name, listen.ports[name], given)
        self._add_listeners(listen.workers)
        control = given.get("control") or []
        self._control = socket.socket(fileno=control[0]) if control else _listening(listen.control, "listen.control")
        self._board_fd = new_memory("oca-board", BOARD_BYTES)
        self._tickets_fd = new_memory("oca-tickets", TICKETS_BYTES)
        self._log_fd = self._memory("oca-log", RING_BYTES, _KEPT_LOG, given)
        self._counters_fd = self._memory("oca-counters", COUNTERS_BYTES, _KEPT_COUNTERS, given)
        for sock in (*(sock for socks in self._listeners.values() for sock in socks), self._control):
            sock.setblocking(False)
        keep_log("oca", self._log_fd)

    def _kept(self, name: str, address: str, given: dict[str, list[int]]) -> list[socket.socket]:
        """Sockets of ours that systemd kept. Those of an address that is not ours any more are closed."""
        kept = [socket.socket(fileno=fd) for fd in given.get(f"kept-{name}", [])]
        ours = [sock for sock in kept if _is_at(sock, address)][: self._settings.listen.workers]
        if len(ours) < len(kept):
            keep(f"kept-{name}", [])
            keep(f"kept-{name}", [sock.fileno() for sock in ours])
        for sock in kept:
            if sock not in ours:
                sock.close()
        return ours

    def _memory(self, name: str, size: int, kept_as: str, given: dict[str, list[int]]) -> int:
        kept = given.get(kept_as)
        if kept:
            return kept[0]
        fd = new_memory(name, size)
        keep(kept_as, [fd])
        return fd

    def _take_over(self, before: Handover) -> None:
        """Go on with what the image before had."""
        self._lock, self._keeper_lock, self._run_dir_fd = before.lock, before.keeper_lock, before.run_dir
        self._desk = socket.socket(fileno=before.desk)
        self._control = socket.socket(fileno=before.control)
        self._passed = set(before.passed)
        self._listeners = {name: [socket.socket(fileno=fd) for fd in fds] for name, fds in before.listeners.items()}
        self._tickets_fd = before.tickets
        if before.shapes == _SHAPES:
            self._board_fd, self._log_fd, self._counters_fd = before.board, before.log, before.counters
        else:
            # The old workers and their keeper keep theirs.
            self._board_fd = new_memory("oca-board", BOARD_BYTES)
            self._log_fd = new_memory("oca-log", RING_BYTES)
            self._counters_fd = new_memory("oca-counters", COUNTERS_BYTES)
        self._next_number = before.next_number
        keep_log("oca", self._log_fd)

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
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
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
        failure: OcaError | None = None
        try:
            # Who tells us to reload meanwhile waits: a worker half started is nobody's.
            async with self._reloading:
                await (self._start_all() if self._before is None else self._replace_all(self._before))
            notify("READY=1")
            self._spawn(self._look_after_workers())
            await self._ended.wait()
        except OcaError as error:
            failure = error
            self._is_stopping = True
        await self._stop()
        if failure is not None:
            raise failure
        return 0

    async def _start_all(self) -> None:
        take_signals()
        # Workers open the index read-only: it must be there before them.
        async with Index(str(Path(self._settings.appliance.state_dir) / "index")):
            pass
        # Workers first: what is held is served at once, the keeper is only needed for what is not.
        starting = [asyncio.ensure_future(self._start_worker(place)) for place in range(self._most_workers)]
        await asyncio.sleep(0)
        await self._start_keeper()
        await asyncio.gather(*starting)
        log.info(
            "appliance %s serves %s, control on %s",
            self._settings.appliance.id,
            ", ".join(self._settings.listen.ports.values()),
            self._settings.listen.control,
        )

    @property
    def _most_workers(self) -> int:
        """As the settings say; and where systemd opened more sockets, one for each: a queue that nobody looks at would
        keep its connections waiting for ever.
        """
        return max(self._settings.listen.workers, *(len(self._listeners[name]) for name in self._passed), 1)

    def _on_stop(self) -> None:
        if self._is_stopping:
            log.warning("told to stop again: connections are cut")
            for worker in (*self._workers.values(), *self._leaving):
                _signal(worker.process, signal.SIGKILL)
        self._is_stopping = True
        self._ended.set()

    async def _stop(self) -> None:
        """Refuse new connections, let running responses finish, then end the keeper."""
        notify("STOPPING=1")
        for listener in (sock for socks in self._listeners.values() for sock in socks):
            listener.close()
        workers = [worker.process for worker in (*self._workers.values(), *self._leaving)]
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
                "tickets": self._tickets_fd,
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
        ports = {name: socks[place % len(socks)].fileno() for name, socks in self._listeners.items()}
        ready, ready_child = os.pipe2(os.O_CLOEXEC)
        ask, ask_child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            process = await self._start(
                "oca.edge",
                {
                    "settings": self._settings_fd,
                    "board": self._board_fd,
                    "counters": self._counters_fd,
                    "tickets": self._tickets_fd,
                    **ports,
                    "run-dir": self._run_dir_fd,
                    "ready": ready_child,
                    "ask": ask_child.fileno(),
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
            ask_child.close()
        worker = self._workers[number] = _Worker(number, place, row, process, ask, time.monotonic())
        try:
            if not await _is_ready(ready):
                del self._workers[number]  # Nobody else replaces it: whoever wanted it hears of it.
                _signal(process, signal.SIGKILL)
                raise StartFailed("a worker did not start; its own message stands above")
        finally:
            os.close(ready)
            worker.answered_at = time.monotonic()
            self._spawn(self._watch_worker(worker))

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

    async def _watch_worker(self, worker: _Worker) -> None:
        """A worker that dies is replaced; the queue of its socket waits in the meantime."""
        began = time.monotonic()
        code = await worker.process.wait()
        self._free_row(worker.row)
        worker.ask.close()
        self._leaving.discard(worker)
        was_ours = self._workers.pop(worker.number, None) is not None
        if self._is_stopping or not was_ours:
            return
        log.error("worker %d (pid %d) died with %s; it is replaced", worker.number, worker.process.pid, _told(code))
        await self._again(began, lambda: self._start_worker(worker.place))

    async def _watch_keeper(self, process: Child) -> None:
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

    # --- Whether workers live -----------------------------------------------------------------------------------------

    async def _look_after_workers(self) -> None:
        """Ask each worker again and again. One whose loop does not turn is replaced; and while not a single one
        answers, systemd's watchdog is not fed, which then has everything begin anew.
        """
        interval = watchdog_interval()
        pause, silent = _ASK_EVERY, _SILENT
        if interval:
            pause, silent = min(pause, interval / 8), min(silent, interval / 2)
        while True:
            now = time.monotonic()
            for worker in list(self._workers.values()):
                _ask(worker, now)
                if now - worker.answered_at > silent:
                    self._replace_silent(worker)
            newest = max((worker.answered_at for worker in self._workers.values()), default=0.0)
            if interval and newest > self._fed_at:
                self._fed_at = now
                notify("WATCHDOG=1")
            await asyncio.sleep(pause)

    def _replace_silent(self, worker: _Worker) -> None:
        """Its successor takes the same socket at once: it may hang in the kernel, where no signal reaches it."""
        log.error("worker %d (pid %d) gives no answer; it is replaced", worker.number, worker.process.pid)
        del self._workers[worker.number]
        self._leaving.add(worker)
        self._spawn(_killed(worker.process))
        self._spawn(self._again(time.monotonic(), lambda: self._start_worker(worker.place)))

    # --- Reload -----------------------------------------------------------------------------------------------------

    async def _reload(self) -> None:
        """Begin anew with the code and the settings that are there now, if these can be used."""
        async with self._reloading:
            if self._is_stopping:
                return
            number = self._reloads.number + 1
            refusal = await self._refusal()
            if not refusal:
                notify("RELOADING=1")
                try:
                    hand_over(self._left(number))
                except OSError as error:
                    refusal = f"{own_program()[0]}: can't be executed: {error.strerror}"
                    notify("READY=1")
            log.error("not reloaded: %s", refusal)
            self._reloads.tell(number, refusal)

    async def _refusal(self) -> str:
        """What the code that is installed now has against the settings that are there now; empty: nothing."""
        program = own_program()
        words = program.index("serve")
        place = msgspec.json.encode(Place.of(self._settings)).decode()
        command = [*program[:words], "check", "--config", self._config, "--running", place]
        try:
            async with asyncio.timeout(_CHECK_DEADLINE):
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                )
                try:
                    _, said = await process.communicate()
                except asyncio.CancelledError:
                    _signal(process, signal.SIGKILL)
                    raise
        except TimeoutError:
            return f"{command[0]}: did not check the settings within {_CHECK_DEADLINE:.0f} s"
        except OSError as error:
            return f"{command[0]}: can't be executed: {error.strerror}"
        if process.returncode == 0:
            return ""
        sentence = said[-_MOST_WORDS:].decode(errors="replace").strip().removeprefix("oca: ")
        return sentence or f"{command[0]}: ended with {_told(process.returncode or 0)}"

    def _left(self, number: int) -> Handover:
        old = [*((worker, False) for worker in self._workers.values()), *((worker, True) for worker in self._leaving)]
        return Handover(
            listeners={name: [sock.fileno() for sock in socks] for name, socks in self._listeners.items()},
            passed=sorted(self._passed),
            control=self._control.fileno(),
            desk=self._desk.fileno(),
            lock=self._lock,
            keeper_lock=self._keeper_lock,
            run_dir=self._run_dir_fd,
            board=self._board_fd,
            log=self._log_fd,
            tickets=self._tickets_fd,
            counters=self._counters_fd,
            shapes=_SHAPES,
            next_number=self._next_number,
            reloads=number,
            workers=[
                WorkerLeft(
                    pid=worker.process.pid,
                    number=worker.number,
                    place=worker.place,
                    row=worker.row,
                    ask=worker.ask.fileno(),
                    is_leaving=is_leaving,
                )
                for worker, is_leaving in old
                if worker.process.returncode is None
            ],
            keeper=self._keeper.pid if self._keeper is not None and self._keeper.returncode is None else None,
        )

    async def _replace_all(self, before: Handover) -> None:
        """New children on the same sockets, then those of the image before finish and end."""
        old = {}
        for left in before.workers:
            ask = socket.socket(fileno=left.ask)
            worker = _Worker(left.number, left.place, left.row, Adopted(left.pid), ask, time.monotonic())
            if left.is_leaving:
                self._leaving.add(worker)
            else:
                self._workers[left.number] = old[left.number] = worker
            self._spawn(self._watch_worker(worker))
        take_signals()
        self._add_listeners(self._settings.listen.workers)
        if before.keeper is not None:
            keeper = Adopted(before.keeper)
            _signal(keeper, signal.SIGTERM)
            self._spawn(_ended([keeper], _KEEPER_END))
        # The new keeper waits for the old one's lock; workers ask again what they were waiting for.
        await self._start_keeper()
        try:
            await asyncio.gather(*(self._start_worker(place) for place in range(self._most_workers)))
        except OcaError as error:
            log.error("reloaded the keeper, but the old workers stay: %s", error)
            self._reloads.tell(before.reloads, str(error))
            return
        for number, worker in old.items():
            if self._workers.pop(number, None) is not None:
                self._leaving.add(worker)
                _signal(worker.process, signal.SIGUSR2)
        self._drop_listeners(self._settings.listen.workers)
        log.info("reloaded: %d workers replaced", len(old))
        self._reloads.tell(before.reloads, "")

    def _add_listeners(self, workers: int) -> None:
        """One SO_REUSEPORT socket for each worker: the kernel spreads connections, and each has a queue of its own."""
        for name, listeners in self._own_listeners():
            while len(listeners) < workers:
                sock = _listening(self._settings.listen.ports[name], f"listen.{name}")
                keep(f"kept-{name}", [sock.fileno()])
                listeners.append(sock)

    def _own_listeners(self) -> list[tuple[str, list[socket.socket]]]:
        """Those that systemd did not open."""
        return [(name, socks) for name, socks in self._listeners.items() if name not in self._passed]

    def _drop_listeners(self, workers: int) -> None:
        for name, listeners in self._own_listeners():
            if len(listeners) == workers:
                continue
            for listener in listeners[workers:]:
                listener.close()
            del listeners[workers:]
            keep(f"kept-{name}", [])
            keep(f"kept-{name}", [sock.fileno() for sock in listeners])

    def _pack(self, settings: Settings) -> int:
        packed = pack_settings(settings)
        fd = os.memfd_create("oca-settings", os.MFD_CLOEXEC)
        os.write(fd, packed)
        return fd

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def serve(settings: Settings, config: str) -> int:
    """Run the appliance. `config`: the file of the settings. Raises `StartFailed`, `IndexUnusable`."""
    return await Supervisor(settings, config).run()


def _ask(worker: _Worker, now: float) -> None:
    """Hear whether it answered, and ask again if it did."""
    with contextlib.suppress(OSError):
        if worker.was_asked and worker.ask.recv(16):
            worker.answered_at, worker.was_asked = now, False
        if not worker.was_asked:
            worker.ask.send(b"?")
            worker.was_asked = True


async def _killed(process: Child) -> None:
    """Let it write down where it is, then kill it."""
    _signal(process, signal.SIGABRT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS):
            await process.wait()
    _signal(process, signal.SIGKILL)


def _is_at(sock: socket.socket, address: str) -> bool:
    """Whether a listening socket is bound to `address`."""
    host, port = host_and_port(address)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV)
    return any(sock.getsockname()[:2] == where[4][:2] for where in found)


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


async def _ended(processes: list[Child], limit: float) -> None:
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


async def _gone(processes: list[Child]) -> None:
    """Wait for killed processes. One that hangs in the kernel, on a disk that gives no answer, is not waited for."""
    try:
        async with asyncio.timeout(_KILLED):
            await asyncio.gather(*(process.wait() for process in processes))
    except TimeoutError:
        left = [process.pid for process in processes if process.returncode is None]
        log.error("killed, but still in the kernel, which waits for a disk: %s", left)


def _signal(process: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _told(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
