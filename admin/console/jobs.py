"""What is told to a whole fleet and takes a while: purges. Each goes on when its browser is gone.

When the console ends, what is under way is broken off, and kept as that.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from msgspec import Struct, field

from admin.console.rows import Row
from admin.fleet.asking import Desk, FleetError

log = logging.getLogger(__name__)

_KEPT: Final = 50
_AT_ONCE: Final = 4
_MOST_NAMED: Final = 100


class Job(Struct):
    number: int
    what: str
    about: str
    who: str
    begun_at: float
    total: int
    done: int = 0
    purged: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Words by appliance; a hundred are named."""
    failures: int = 0
    ended_at: float | None = None


class Busy(FleetError):
    """As many run already as are allowed."""


class Jobs:
    def __init__(
        self,
        desk: Desk,
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        told: Callable[[list[Row]], None],
    ) -> None:
        self._desk = desk
        self._clock = clock
        self._spawn = spawn
        self._told = told
        self._jobs: deque[Job] = deque(maxlen=_KEPT)
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def purge(
        self, order: Mapping[str, str], addresses: Mapping[str, str], who: str, done: Callable[[str], Awaitable[None]]
    ) -> Job:
        """Begun; `done` is told what came of it. Raises Busy."""
        if sum(job.ended_at is None for job in self._jobs) >= _AT_ONCE:
            raise Busy(f"{_AT_ONCE} purges are under way already; wait for one to end")
        job = Job(next(self._numbers), "purge", next(iter(order.values())), who, self._clock(), len(addresses))
        self._jobs.appendleft(job)
        task = self._spawn(self._run(job, order, addresses, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._tell()
        return job

    async def _run(
        self,
        job: Job,
        order: Mapping[str, str],
        addresses: Mapping[str, str],
        done: Callable[[str], Awaitable[None]],
    ) -> None:
        def reach(count: int) -> None:
            job.done = count
            if count % max(1, job.total // 100) == 0:
                self._tell()

        try:
            answers = await self._desk.tell_all(addresses, "/v1/purge", order, reach)
            for name, said in answers.items():
                if isinstance(said, FleetError):
                    job.failures += 1
                    if len(job.failed) < _MOST_NAMED:
                        job.failed[name] = str(said)
                elif isinstance(said, Mapping):
                    job.purged += int(said.get("purged", 0))
            job.done, job.ended_at = job.total, self._clock()
            self._tell()
            await done(f"{job.purged} objects at {job.total - job.failures} of {job.total} appliances")
        except asyncio.CancelledError:
            await done(f"the console ended: {job.done} of {job.total} appliances were told")
            raise
        except Exception:
            # A mistake of ours, or no room for the audit log: the console goes on.
            log.exception("purge %d of %s failed", job.number, job.about)

    def _tell(self) -> None:
        self._told([_row(job) for job in self._jobs])


def _row(job: Job) -> Row:
    return {name: getattr(job, name) for name in Job.__struct_fields__}
