"""Processes of a bench: pinned to their cores, ended by their pid, and never outliving us."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench.machine import BenchError, children

_PR_SET_PDEATHSIG = 1
_END_DEADLINE = 15.0
_libc = ctypes.CDLL(None)


def pinned(on: frozenset[int]) -> Callable[[], None]:
    """What a child does before exec: stay on these cores, and die with us."""
    ours = os.getpid()

    def begin() -> None:
        os.sched_setaffinity(0, on)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != ours:
            os._exit(1)

    return begin


@contextlib.contextmanager
def pinned_here(on: frozenset[int]) -> Iterator[None]:
    """This thread stays on these cores meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, on)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """One started program. Its output goes to `log`; the end of it stands in the message when something fails."""

    def __init__(
        self, name: str, argv: Sequence[str], *, on: frozenset[int], log: Path, cwd: Path | None = None
    ) -> None:
        self.name = name
        self.log = log
        environment = {**os.environ, "OCA_LOG_LEVEL": "INFO"}
        if cwd is not None:
            environment["PYTHONPATH"] = str(cwd)
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                argv,
                preexec_fn=pinned(on),  # noqa: PLW1509  # the bench has no threads
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env=environment,
            )
        self.pid = self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def family(self) -> list[int]:
        """Its pid and those of its children and theirs."""
        found = [self.pid]
        for pid in found:
            with contextlib.suppress(FileNotFoundError):
                found += children(pid)
        return found

    def end(self) -> None:
        if not self.is_running:
            return
        family = self.family()
        self._popen.terminate()
        try:
            self._popen.wait(_END_DEADLINE)
        except subprocess.TimeoutExpired:
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._popen.wait()

    def told(self) -> str:
        """The last lines it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])


@contextlib.contextmanager
def ending(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.end()


def wait_until(what: str, holds: Callable[[], bool], process: Process, limit: float = 30.0) -> None:
    """Poll `holds` until it is true. A refused connection counts as not yet. Raises `BenchError`."""
    deadline = time.monotonic() + limit
    while True:
        with contextlib.suppress(ConnectionError, TimeoutError):
            if holds():
                return
        if not process.is_running:
            raise BenchError(f"{process.name} ended while the bench waited for this: {what}\n{process.told()}")
        if time.monotonic() > deadline:
            raise BenchError(f"{process.name}: not so within {limit:.0f} s: {what}\n{process.told()}")
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def accepts(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
