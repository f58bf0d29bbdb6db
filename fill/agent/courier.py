"""One order being worked on: renditions are brought, compared, pledged, and what they replace is given up.

The journal is written before anything that must not be done twice is left, and after all that must not be claimed too
early: a rendition counts as done when its objects were compared with the catalogue and are pledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from fill.agent.journal import Failed, Journal, Kept, Lost, Pledged, Released
from fill.agent.pace import Pace
from fill.agent.settings import Rate
from fill.agent.station import Station, StationError, Trouble
from fill.agent.work import Failure, Route, Work
from wire.catalog import CatalogObject, Rendition, Title
from wire.orders import Bring

log = logging.getLogger(__name__)

BLOCK_BYTES: Final = 4 * 1024 * 1024
"""What oca fetches at least."""
SPAN_BYTES: Final = 16 * BLOCK_BYTES
"""Asked for at a time at most: an extent of the store."""
_TITLES: Final = 16
"""Documents that are remembered: a film's is megabytes."""
_FOLDERS: Final = 20
"""Pledged by one question."""
_PATHS: Final = 10_000
_STEP: Final = 0.5
_LOOKS: Final = 5.0
"""Seconds without anything to do before the state is looked at again."""

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[object]]

_WAITS: Final = frozenset({Trouble.UNAVAILABLE, Trouble.BUSY, Trouble.AWAY, Trouble.NO_PEER})
"""What may be better soon."""


class _PutOff(Exception):
    """Not now."""


class _GaveUp(Exception):
    def __init__(self, why: Failure, message: str) -> None:
        super().__init__(message)
        self.why = why


class Courier:
    """Works on one order. `work`'s state is what the progress is told from."""

    def __init__(
        self,
        work: Work,
        journal: Journal,
        station: Station,
        pace: Pace,
        rate: Rate,
        clock: Clock,
        *,
        is_journalled: bool = True,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """An urgent order is not `is_journalled`: the journal is about the current one, beside which it is done."""
        self.work = work
        self._journal = journal
        self._station = station
        self._pace = pace
        self._rate = rate
        self._clock = clock
        self._is_journalled = is_journalled
        self._sleep = sleep
        self._titles: OrderedDict[str, asyncio.Task[Title]] = OrderedDict()
        self.trouble = ""
        """Why something waits, as a sentence; empty when all goes well."""

    async def keep(self) -> None:
        """Renew the pledges of what the order keeps. Raises `StationError`: later."""
        order, state = self.work.order, self._journal.state
        if state.has_kept:
            return
        # What this order brought before a restart is kept as well, and has its pledge already.
        numbers = [number for number in _numbers(order.keep) if number in state.ledger]
        unknown = len(_numbers(order.keep)) - len(numbers)
        if unknown:
            log.warning("%d renditions that the order keeps are in no ledger of ours: their pledges just end", unknown)
        for at in range(0, len(numbers), _FOLDERS):
            some = numbers[at : at + _FOLDERS]
            told = await self._station.pledge(order.pledged_until, folders=[state.ledger[number] for number in some])
            lost = tuple(number for number in some if state.ledger[number] in told.absent)
            if lost:
                log.warning("%d renditions that were pledged are not held any more", len(lost))
                self._journal.note(Lost(lost))
        self._journal.note(Kept())

    async def run(self, until: Callable[[], bool]) -> None:
        """Until all is done, or `until` says that nothing more is to be begun; what is under way then is broken off.
        Whatever happens, what is here is here, and the journal says so."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            while not until():
                while len(tasks) < self._rate.renditions and (bring := self.work.pick(self._clock())) is not None:
                    tasks.add(asyncio.create_task(self._take(bring), name=f"bring {bring.folder}"))
                if not tasks and self.work.is_over:
                    break
                next_at = self.work.next_at()
                pause = _LOOKS if next_at is None else min(_LOOKS, max(0.05, next_at - self._clock()))
                if tasks:
                    done, tasks = await asyncio.wait(tasks, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                else:
                    await self._sleep(pause)
            if self.work.is_over:
                await self._release_what_was_replaced()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for title in self._titles.values():
                title.cancel()

    # --- One rendition ------------------------------------------------------------------------------------------------

    async def _take(self, bring: Bring) -> None:
        try:
            await self._bring(bring)
        except _PutOff as reason:
            pause = self.work.put_off(bring, self._clock())
            self.trouble = str(reason)
            log.info("%s waits for %.0f s: %s", bring.folder, pause, reason)
        except _GaveUp as error:
            self.work.gave_up(bring, error.why)
            if self._is_journalled:
                self._journal.note(Failed(bring.number, error.why))
            log.error("%s is not brought (%s): %s", bring.folder, error.why, error)
        except asyncio.CancelledError:
            self.work.dropped(bring)
            raise

    async def _bring(self, bring: Bring) -> None:
        if not self.work.may_spend(bring):
            raise _GaveUp(Failure.BUDGET, f"the {self.work.order.budget_bytes} bytes of the order are used up")
        rendition = await self._rendition(bring)
        began = self._clock()
        before = dict(self.work.source_bytes)
        jobs = iter(rendition.objects)
        # A few at a time of the rendition's objects, each from its first span to its comparison.
        workers = [
            asyncio.create_task(self._objects(bring, jobs), name=f"objects of {bring.folder}")
            for _ in range(min(self._rate.objects, max(1, len(rendition.objects))))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        await self._pledge(bring, rendition)
        if self._is_journalled:
            self._journal.note(Pledged(bring.number, bring.folder, self.work.order.pledged_until))
        self.work.finished(bring)
        self.trouble = ""
        came = {kind: count - before.get(kind, 0) for kind, count in self.work.source_bytes.items()}
        log.info(
            "%s is here: %d bytes in %.1f s, %s",
            bring.folder,
            bring.size_bytes,
            self._clock() - began,
            ", ".join(f"{count} from {kind}" for kind, count in sorted(came.items()) if count) or "all held already",
        )
        await self._release_what_was_replaced()

    async def _rendition(self, bring: Bring) -> Rendition:
        """What the catalogue says of it now."""
        task = self._titles.get(bring.title)
        if task is None:
            task = self._titles[bring.title] = asyncio.create_task(self._station.title(bring.title))
            while len(self._titles) > _TITLES:
                self._titles.popitem(last=False)[1].add_done_callback(_heard)
        try:
            title = await asyncio.shield(task)
        except StationError as error:
            self._titles.pop(bring.title, None)
            if error.trouble in _WAITS:
                raise _PutOff(str(error)) from error
            raise _GaveUp(Failure.ABSENT, str(error)) from error
        for rendition in title.renditions:
            if rendition.number == bring.number and all(
                item.path.rpartition("/")[0] == bring.folder for item in rendition.objects
            ):
                return rendition
        raise _GaveUp(Failure.ABSENT, f"the catalogue has no rendition {bring.number} of {bring.title} any more")

    async def _objects(self, bring: Bring, jobs: Iterator[CatalogObject]) -> None:
        for item in jobs:
            await self._object(bring, item)

    async def _object(self, bring: Bring, item: CatalogObject) -> None:
        """Bring it and compare it. What is wrong is brought once more, from the ladder alone."""
        route = self.work.route(bring, self._clock())
        for is_last in (False, True):
            try:
                await self._spans(bring, item, route)
                verdict = await self._station.verify(item)
            except StationError as error:
                if error.trouble in _WAITS:
                    raise _PutOff(str(error)) from error
                if error.trouble is Trouble.NO_ROOM and not is_last and await self._give_way(bring):
                    continue
                if error.trouble is Trouble.CHANGED and not is_last:
                    # The old one is gone with that answer: a second look says what is there now.
                    route = Route()
                    continue
                raise _GaveUp(_FAILURES.get(error.trouble, Failure.ABSENT), str(error)) from error
            if verdict.right:
                return
            if is_last and verdict.reason == "missing":
                raise _PutOff(f"{item.path} does not stay: it was given up while it was brought")
            if is_last:
                why = Failure.CHECKSUM if verdict.reason == "checksum" else Failure.CHANGED
                raise _GaveUp(why, f"{item.path} is not what the catalogue says ({verdict.reason})")
            log.warning("%s is not what the catalogue says (%s): once more, from outside", item.path, verdict.reason)
            if verdict.reason != "missing":
                route = Route()

    async def _spans(self, bring: Bring, item: CatalogObject, route: Route) -> None:
        start = 0
        while start < item.size_bytes:
            stop = min(start + self._pace.span(BLOCK_BYTES, SPAN_BYTES), item.size_bytes)
            # In small steps: what turns out to be held already is given back to the others.
            while (wait := self._pace.take(stop - start, self._clock())) > 0:
                await self._sleep(min(wait, _STEP))
            brought = await self._station.fill(item, start, stop, bring.tier, route.peers, only_peers=route.only_peers)
            self._pace.give_back(brought.held_bytes, self._clock())
            sources = dict(brought.source_bytes)
            self.work.came(bring, stop - start, sources)
            start = stop

    # --- Pledges ------------------------------------------------------------------------------------------------------

    async def _pledge(self, bring: Bring, rendition: Rendition) -> None:
        paths = [item.path for item in rendition.objects if item.size_bytes]
        until = self.work.order.pledged_until
        while True:
            try:
                for at in range(0, len(paths), _PATHS):
                    told = await self._station.pledge(until, paths=paths[at : at + _PATHS])
                    if told.absent:
                        raise _PutOff(f"{told.absent[0]} does not stay: it was given up while the others were brought")
            except StationError as error:
                if error.trouble in _WAITS:
                    raise _PutOff(str(error)) from error
                # All that may be pledged is: what the order releases goes for what is here, the least valuable first.
                if error.trouble is Trouble.NO_ROOM and await self._give_way(bring):
                    continue
                with_reason = Failure.NO_ROOM if error.trouble is Trouble.NO_ROOM else Failure.ABSENT
                await self._take_back(paths)
                raise _GaveUp(with_reason, str(error)) from error
            return

    async def _take_back(self, paths: list[str]) -> None:
        """What can't be pledged whole is not pledged in part."""
        for at in range(0, len(paths), _PATHS):
            try:
                await self._station.pledge(0, paths=paths[at : at + _PATHS])
            except StationError as error:
                log.warning("a part stays pledged that should not be: %s", error)

    async def _give_way(self, bring: Bring) -> bool:
        """Release what is least valuable, for the sake of what has just come. Whether there was anything."""
        del bring
        folder = self.work.least_valuable()
        if folder is None:
            return False
        await self._release(folder)
        return True

    async def _release_what_was_replaced(self) -> None:
        while (folder := self.work.to_release()) is not None:
            try:
                await self._release(folder)
            except StationError as error:
                log.warning("%s is given up later: %s", folder, error)
                return

    async def _release(self, folder: str) -> None:
        told = await self._station.pledge(0, folders=[folder])
        if self.work.least_valuable() != folder:
            return  # Another one, who was at it at the same time, has noted it.
        self.work.released(folder, told.bytes)
        if self._is_journalled:
            self._journal.note(Released(folder))
        log.info("%s is given up: %d bytes that others replace", folder, told.bytes)


_FAILURES: Final = {
    Trouble.ABSENT: Failure.ABSENT,
    Trouble.BAD: Failure.ABSENT,
    Trouble.CHANGED: Failure.CHANGED,
    Trouble.NO_ROOM: Failure.NO_ROOM,
}


def _heard(task: asyncio.Task[Title]) -> None:
    if not task.cancelled():
        task.exception()


def _numbers(bitmap: bytes) -> list[int]:
    from pyroaring import BitMap  # noqa: PLC0415

    return sorted(BitMap.deserialize(bitmap)) if bitmap else []
