"""Cold reads: each device has its own few threads, so that a slow or hanging disk never delays what lies elsewhere.

A read waits in its device's line until the device has a turn for it (see oca.turns), and is given up after
store.read_timeout, waiting included: whoever asked gets the bytes from elsewhere. A thread that hangs in the kernel
stays there, and keeps its turn. When a read was given up and the device has answered nothing since it was asked, the
device is *stalled*: all who are in line, and all who come, are refused at once, until it answers something.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from oca.counters import PLACES
from oca.edge.extents import Copy, Damaged, GivenUp, Lying, NotRead, OpenExtent, copy_block, open_lying, read_block
from oca.edge.tally import Tally
from oca.settings import Store
from oca.turns import Turns, depth_of

_SUSPECT: Final = 0.1
"""Seconds without an answer, after which nothing is taken for granted that has to do with the device."""
_LINE: Final = 64
"""Reads in line for each turn of a device. A disk with one head needs two to three seconds for as many blocks."""

Answer = OpenExtent | Copy | NotRead
Work = Callable[[], OpenExtent | Copy]
Done = Callable[[Answer], None]


class Job:
    """An extent that is to be opened, or a block that is to be read, and who waits for it."""

    __slots__ = ("asked_at", "began_at", "count", "is_over", "key", "timer", "waiters", "work")

    def __init__(self, key: tuple[bytes, int], work: Work, count: int, now: float) -> None:
        self.key = key
        self.work = work
        self.count = count
        """Bytes that are read; 0 for opening a file."""
        self.asked_at = now
        self.began_at: float | None = None
        self.is_over = False
        """Nobody waits for it any more."""
        self.waiters: list[Done] = []
        self.timer: asyncio.TimerHandle | None = None


class Pool:
    """The threads and the line of one device. All methods but `_run` belong to the loop."""

    def __init__(self, device: int, depth: int, pools: Pools) -> None:
        self._device = device
        self._depth = depth
        self._pools = pools
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[tuple[bytes, int], Job] = {}
        """All that are in line or being read, those included that were given up and still hang."""
        self._line: deque[Job] = deque()
        self._ahead: Job | None = None
        self._calls: SimpleQueue[bool] = SimpleQueue()
        """One for each job: some thread is to look at the line. False ends a thread."""
        self._threads = 0
        self._called = 0
        """Calls from which no thread has come back."""
        self._silent_since = time.monotonic()
        """When it answered last, or was asked first after having had nothing to do."""
        self._is_stalled = False
        self._accusing: asyncio.TimerHandle | None = None
        self._told_at = float("-inf")

    def ask(self, key: tuple[bytes, int], work: Work, count: int, done: Done) -> Job:
        """Have the work done; `done` is told, on the loop and never at once, unless it leaves. Raises `GivenUp`."""
        if self._is_stalled:
            raise GivenUp("the device does not answer")
        now = time.monotonic()
        job = self._jobs.get(key)
        if job is None:
            if len(self._line) >= _LINE * self._depth:
                raise GivenUp("too many reads are waiting for the device")
            job = Job(key, work, count, now)
            self._jobs[key] = job
            self._line.append(job)
            self._call(now)
        elif job.is_over:
            raise GivenUp("this very read hangs")
        elif job is self._ahead and job.began_at is None:
            self._ahead = None
            job.asked_at = now
            self._line.append(job)
            self._call(now)
        if job.timer is None:
            job.timer = self._loop.call_later(self._pools.store.read_timeout, self._expire, job)
        job.waiters.append(done)
        return job

    def ahead(self, key: tuple[bytes, int], work: Work, count: int) -> None:
        """Do it now for somebody who will ask soon, if the device has nothing else to do."""
        if not self._is_stalled and not self._jobs:
            now = time.monotonic()
            self._ahead = self._jobs[key] = Job(key, work, count, now)
            self._call(now)

    def leave(self, job: Job, done: Done) -> None:
        """Who asked needs it no more."""
        with contextlib.suppress(ValueError):
            job.waiters.remove(done)
        if not job.waiters and job.began_at is None and job is not self._ahead:
            self._drop(job)

    def silent_for(self, now: float) -> float:
        """How long the device has answered nothing although it was asked."""
        if not self._called:
            return 0.0
        return now - self._silent_since

    def close(self) -> None:
        if self._accusing is not None:
            self._accusing.cancel()
        for _ in range(self._threads):
            self._calls.put(False)

    def _call(self, now: float) -> None:
        if not self._called:
            self._silent_since = now
        self._called += 1
        if self._called > self._threads and self._threads < self._depth:
            self._threads += 1
            # Daemons: a process whose disk hangs must be able to end.
            threading.Thread(target=self._run, name=f"device-{self._device}-{self._threads}", daemon=True).start()
        self._calls.put(True)

    # --- On the device's threads --------------------------------------------------------------------------------------

    def _run(self) -> None:
        turns = self._pools.turns
        while self._calls.get():
            if self._ahead is not None and not self._line:
                with turns.try_turn(self._device, self._depth) as is_ours:
                    self._work(self._ahead if is_ours else None)
            else:
                with turns.turn(self._device, self._depth):
                    # Taken after the wait: who came first goes first, whichever turn it was.
                    self._work(self._next())

    def _next(self) -> Job | None:
        with contextlib.suppress(IndexError):
            while True:
                job = self._line.popleft()
                if not job.is_over:
                    return job
        return None

    def _work(self, job: Job | None) -> None:
        result: Answer | None = None
        began = time.monotonic()
        if job is not None:
            job.began_at = began
            try:
                result = job.work()
            except NotRead as error:
                result = error
        with contextlib.suppress(RuntimeError):  # The loop is closed: the process ends.
            self._loop.call_soon_threadsafe(self._answered, job, result, time.monotonic() - began)

    # --- On the loop again --------------------------------------------------------------------------------------------

    def _answered(self, job: Job | None, result: Answer | None, seconds: float) -> None:
        """A thread came back, with or without having found something to do: either way the device lives."""
        self._called -= 1
        self._silent_since = time.monotonic()
        self._is_stalled = False
        if self._accusing is not None:
            self._accusing.cancel()
        self._pools.suspects.discard(self._device)
        ahead = self._ahead
        if ahead is not None and (job is ahead or (job is None and ahead.began_at is None)):
            self._ahead = None
            self._forget(ahead)
        if job is None or result is None:
            return
        self._forget(job)
        if job.timer is not None:
            job.timer.cancel()
        if job.count:
            failed = isinstance(result, Damaged)
            is_slow = seconds > self._pools.store.slow_read
            self._pools.tally.device_read(self._device, job.count, seconds, is_slow=is_slow, failed=failed)
        _tell(job, result)

    def _expire(self, job: Job) -> None:
        """The deadline passed. If the device is to blame it is said so; a long line is nobody's fault."""
        now = time.monotonic()
        self._drop(job)
        if self._is_stalled:
            pass  # It was said already: reads that hang together are one trouble.
        elif self._silent_since <= job.asked_at:
            self._is_stalled = True
            self._accuse()
        elif job.began_at is not None and now - job.began_at >= self._pools.store.read_timeout / 2:
            self._tell_keeper(now, now - job.asked_at)
        _tell(job, GivenUp("the device did not answer in time"))
        if self._is_stalled:
            for waiting in list(self._line):
                self._drop(waiting)
                _tell(waiting, GivenUp("the device does not answer"))

    def _accuse(self) -> None:
        """Say that the device does not answer, now and again for as long as it does not, ever more seldom."""
        now = time.monotonic()
        silence = self.silent_for(now)
        self._tell_keeper(now, silence)
        self._accusing = self._loop.call_later(max(silence, self._pools.store.read_timeout), self._accuse)

    def _tell_keeper(self, now: float, seconds: float) -> None:
        """Reads that hang together are one trouble, which is told once: three make a device go offline."""
        if now - self._told_at >= self._pools.store.read_timeout:
            self._told_at = now
            self._pools.stalled(self._device, seconds)

    def _drop(self, job: Job) -> None:
        """Have it skipped in line. What is being read goes on, and is known as hanging until it is back."""
        job.is_over = True
        if job.timer is not None:
            job.timer.cancel()
        if job.began_at is None:
            self._forget(job)
            with contextlib.suppress(ValueError):
                self._line.remove(job)

    def _forget(self, job: Job) -> None:
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]


class Pools:
    """The pools of all devices. `stalled` is told when a device did not give a read in time."""

    def __init__(self, turns: Turns, store: Store, tally: Tally, stalled: Callable[[int, float], None]) -> None:
        self.turns = turns
        self.store = store
        self.tally = tally
        self.stalled = stalled
        self.suspects: set[int] = set()
        """Devices that let a read wait just now."""
        self.reading = tally.reading
        self._pools: dict[int, Pool] = {}

    def open(self, lying: Lying, done: Done) -> Job:
        """Open an extent's file."""
        pool = self._pool(lying.device, lying.place)
        return pool.ask((lying.key, -1), lambda: open_lying(lying), 0, done)

    def read(self, extent: OpenExtent, block: int, done: Done) -> Job:
        """Read a block of an extent, compared with its sum: into memory of our own, or the page cache has to do."""
        pool = self._pool(extent.device, extent.place)
        work = self._reading(extent, block, copy_block)
        return pool.ask((extent.key, block), work, extent.length_of(block), done)

    def read_ahead(self, extent: OpenExtent, block: int) -> None:
        """Bring a block that somebody will want next into the page cache, if nothing else is to be read there."""
        pool = self._pool(extent.device, extent.place)
        work = self._reading(extent, block, read_block)
        pool.ahead((extent.key, block), work, extent.length_of(block))

    def leave(self, device: int, job: Job, done: Done) -> None:
        self._pools[device].leave(job, done)

    def look(self, now: float) -> None:
        """See who lets a read wait. Called a few times a second."""
        for device, pool in self._pools.items():
            if pool.silent_for(now) >= _SUSPECT:
                self.suspects.add(device)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _pool(self, device: int, place: int) -> Pool:
        pool = self._pools.get(device)
        if pool is None:
            pool = self._pools[device] = Pool(device, depth_of(self.store, PLACES[place]), self)
        return pool

    def _reading(self, extent: OpenExtent, block: int, read: Callable[[OpenExtent, int], OpenExtent | Copy]) -> Work:
        row = extent.rows[block]

        def work() -> OpenExtent | Copy:
            self.reading[row] = 1
            try:
                return read(extent, block)
            finally:
                self.reading[row] = 0

        return work


def _tell(job: Job, result: Answer) -> None:
    waiters, job.waiters = job.waiters, []
    for done in waiters:
        done(result)
