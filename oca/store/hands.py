"""A device's own threads: what one disk does not do keeps nobody but those who wait for that disk."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from oca.cache.health import Fault
from oca.errors import DeviceFault

T = TypeVar("T")

_PATIENCE: Final = 1.0
"""Seconds that work waits for a thread while every thread hangs."""


class Hands:
    """A few threads, started when they are needed. They are daemons: a process ends while a disk keeps one of them."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._started = 0
        self._under_way = 0
        self._hung = 0
        """Threads whose work was given up by the one who waited for it."""

    @property
    def is_stuck(self) -> bool:
        """Every thread hangs: what is asked for now would wait for ever."""
        return self._hung >= self._count

    def leave(self, work: Callable[[], None]) -> None:
        """Have it done some time, and hear nothing of it."""
        self._put(_Work(work, asyncio.get_running_loop()))

    async def do(self, work: Callable[[], T], deadline: float) -> T:
        """Do it in one of the threads. Raises what it raises, or `DeviceFault` (stalled) when the deadline passes."""
        asked = _Work(work, asyncio.get_running_loop())
        self._put(asked)
        allowed = min(deadline, _PATIENCE) if self.is_stuck else deadline
        try:
            async with asyncio.timeout(allowed):
                return await asked.done  # type: ignore[no-any-return]
        except TimeoutError as error:
            raise DeviceFault(Fault.STALLED, f"{self._name}: does not answer for {allowed:.1f} s") from error
        finally:
            if not asked.is_over:
                asked.is_given_up = True
                asked.hangs = asked.has_begun
                self._hung += asked.hangs

    def close(self) -> None:
        for _ in range(self._started):
            self._work.put(None)

    def _put(self, asked: _Work) -> None:
        self._under_way += 1
        if self._started < min(self._under_way, self._count):
            self._started += 1
            threading.Thread(target=self._run, name=f"{self._name}-{self._started}", daemon=True).start()
        self._work.put(asked)

    def _run(self) -> None:
        while True:
            asked = self._work.get()
            if asked is None:
                return
            result: Any = None
            fault: BaseException | None = None
            if not asked.is_given_up:
                asked.has_begun = True
                try:
                    result = asked.work()
                except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
                    fault = error
            try:
                asked.loop.call_soon_threadsafe(self._tell, asked, result, fault)
            except RuntimeError:
                return  # The process ends.

    def _tell(self, asked: _Work, result: object, fault: BaseException | None) -> None:
        asked.is_over = True
        self._under_way -= 1
        self._hung -= asked.hangs
        if not asked.is_given_up and not asked.done.done():
            asked.done.set_exception(fault) if fault is not None else asked.done.set_result(result)


class _Work:
    __slots__ = ("done", "hangs", "has_begun", "is_given_up", "is_over", "loop", "work")

    def __init__(self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.done: asyncio.Future[Any] = loop.create_future()
        self.has_begun = False
        self.hangs = False
        self.is_given_up = False
        self.is_over = False
