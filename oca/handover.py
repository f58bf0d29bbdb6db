"""How a supervisor becomes the next one: the same process begins anew, with the code that is installed now.

It executes its program again (execve(2)): number, children and open descriptors stay, so that no socket is ever closed,
no child loses its parent, and whoever watches the process sees none come or go. What the next image has to know is
written to memory whose descriptor is named in the environment. Fields may be added, never change their meaning: the
next image may be a newer version, or an older one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

_VARIABLE: Final = "OCA_HANDOVER"
_MOST_BYTES: Final = 1024 * 1024
_SIGNALS: Final = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class Child(Protocol):
    """A process of ours."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int: ...

    def send_signal(self, signal: int) -> None: ...


class WorkerLeft(msgspec.Struct, frozen=True):
    """A worker that the image before started. Its place among the listeners, its row of counters, and where it is asked
    whether it lives."""

    pid: int
    number: int
    place: int
    row: int
    ask: int
    is_leaving: bool = False


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """Descriptors by what they are for, and processes."""

    listeners: dict[str, list[int]]
    """By the name of the setting: "http"."""
    passed: list[str]
    """Of which of them systemd opened the sockets."""
    control: int
    desk: int
    lock: int
    keeper_lock: int
    run_dir: int
    board: int
    log: int
    counters: int
    tickets: int
    shapes: tuple[int, ...]
    """Of the shared memory: with another code's shapes it is made anew."""
    next_number: int
    reloads: int
    workers: list[WorkerLeft]
    keeper: int | None
    """Its process."""

    @property
    def descriptors(self) -> list[int]:
        listening = [fd for fds in self.listeners.values() for fd in fds]
        own = [self.control, self.desk, self.lock, self.keeper_lock, self.run_dir]
        memory = [self.board, self.log, self.counters, self.tickets]
        return [*listening, *own, *memory, *(worker.ask for worker in self.workers)]


def own_program() -> list[str]:
    """The command line that this process was started with. What a symlink on it names is looked up anew."""
    if os.access(sys.argv[0], os.X_OK):
        return list(sys.argv)
    return [sys.executable, *sys.orig_argv[1:]]


def hand_over(handover: Handover) -> None:
    """Become the next image; this does not return. Raises OSError if that can't be, and then nothing has changed."""
    memory = os.memfd_create("oca-handover", 0)
    fds = handover.descriptors
    program = own_program()
    # A signal for which the next image has no handler yet would kill it: they wait until it has.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        os.write(memory, msgspec.json.encode(handover))
        _let_inherit(fds, inherit=True)
        os.execve(program[0], program, {**os.environ, _VARIABLE: str(memory)})  # noqa: S606 - no shell is wanted
    finally:
        _let_inherit(fds, inherit=False)
        os.close(memory)
        take_signals()


def received() -> Handover | None:
    """What the image before left to this one; None: there was none."""
    text = os.environ.pop(_VARIABLE, "")
    if not text.isdecimal():
        return None
    fd = int(text)
    content = os.pread(fd, _MOST_BYTES, 0)
    os.close(fd)
    handover = msgspec.json.decode(content, type=Handover)
    _let_inherit(handover.descriptors, inherit=False)
    return handover


def take_signals() -> None:
    """Once there are handlers: those that came meanwhile are delivered."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


class Adopted:
    """A child of the image before."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            # The image before has heard of its end, and had no time to act on it.
            self._end(0)
        else:
            asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def send_signal(self, signal: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal)

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = 0
        with contextlib.suppress(ChildProcessError):
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._end(code)

    def _end(self, code: int) -> None:
        self.returncode = code
        self._ended.set()


def _let_inherit(fds: Iterable[int], *, inherit: bool) -> None:
    for fd in fds:
        os.set_inheritable(fd, inherit)
