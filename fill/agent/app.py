"""The agent's process: hears orders, works on them inside the window, gives way to viewers, and tells how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fill.agent.courier import Courier
from fill.agent.journal import Begun, Finished, Journal, Name, UrgentDone
from fill.agent.mailbox import Mailbox
from fill.agent.pace import Pace, is_pressed
from fill.agent.settings import Agent, keys_of, window_of
from fill.agent.station import Station, StationError
from fill.agent.told import AgentMetrics, Telling
from fill.agent.work import Work, is_behind
from fill.bucket import Bucket
from fill.errors import BucketError, SettingsError
from wire.codec import encode
from wire.orders import FillOrder, Phase, progress_key
from wire.toml import host_and_port

log = logging.getLogger(__name__)

_TICK: Final = 1.0
_PRESSURE: Final = 5.0
_TELL: Final = 60.0
"""Seconds between two words of progress while work goes on."""
_BUCKET: Final = 90.0
"""Seconds that the bucket may take for an answer; boto3 has deadlines of its own below."""
_OBSERVED: Final = 300.0
"""Seconds of work after which its speed tells something."""


class Office:
    """One agent: what it knows, and its tasks."""

    def __init__(
        self,
        agent: Agent,
        bucket: Bucket,
        station: Station,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._agent = agent
        self._bucket = bucket
        self._station = station
        self._clock = clock
        folder = Path(agent.state_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(f"state_dir: {folder} can't be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(f"state_dir: {folder}: another agent works there") from error
        self.journal = Journal(folder / "journal")
        self._window = window_of(agent)
        self._mailbox = Mailbox(bucket, keys_of(agent), agent.appliance, folder)
        self._pace = Pace(int(agent.rate.most) / 8, time.monotonic())
        self._current: tuple[Name, FillOrder] | None = None
        self._urgent: list[tuple[str, FillOrder]] = []
        self._courier: Courier | None = None
        self._heard = asyncio.Event()
        """Something new is in the mailbox."""
        self._worked_since: tuple[float, int] | None = None
        self.telling = Telling(agent.appliance, last_success=self.journal.state.last_success)
        self._spent: dict[str, int] = {}
        """Bytes by source of orders that are over."""

    def close(self) -> None:
        self.journal.close()
        os.close(self._lock)

    # --- Hearing ------------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """For ever: what is in the mailbox."""
        while True:
            await self.look()
            await asyncio.sleep(float(self._agent.poll))

    async def look(self) -> None:
        """Once."""
        now = self._clock()
        try:
            async with asyncio.timeout(_BUCKET):
                current = await asyncio.to_thread(self._mailbox.current, now)
                urgent = await asyncio.to_thread(self._mailbox.urgent, now, set(self.journal.state.urgent))
        except TimeoutError:
            log.warning("the bucket does not answer within %.0f s", _BUCKET)
            return
        known = self.journal.state.name
        if current is not None and known is not None and current[0].is_before(known):
            # Whoever can write to the bucket could have an appliance do the work of another night again.
            log.warning("the order %s is before %s, which was worked on already", current[0], known)
            current = None
        if current != self._current or urgent != self._urgent:
            self._current, self._urgent = current, urgent
            self._heard.set()

    # --- Working ------------------------------------------------------------------------------------------------------

    async def work(self, *, once: bool = False) -> None:
        """For ever; with `once` until nothing is left to do, whatever the hour."""
        while True:
            self._heard.clear()
            if self._urgent:
                await self._work_on_urgent(*self._urgent[0])
            elif self._is_due() and (once or self._is_open()):
                await self._work_on_current(once=once)
            elif once:
                return
            else:
                self._rest()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK):
                        await self._heard.wait()

    def _is_open(self) -> bool:
        now = self._clock()
        return now in self._window.at(now)

    def _is_due(self) -> bool:
        """There is an order that is not done."""
        if self._current is None:
            return False
        name, order = self._current
        state = self.journal.state
        return order.expires_at > self._clock() and (state.name != name or state.finished_at is None)

    def _rest(self) -> None:
        told, now = self.telling, self._clock()
        told.reason = self._mailbox.trouble
        if self._current is None:
            told.phase = Phase.STOPPED if told.reason else Phase.IDLE
        else:
            told.phase = Phase.WAITING if self._is_due() else Phase.IDLE
            if told.phase is Phase.WAITING and not told.reason:
                opens = self._window.at(now).opens
                told.reason = f"the window opens at {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(opens))}"

    async def _work_on_current(self, *, once: bool) -> None:
        assert self._current is not None
        name, order = self._current
        state, now = self.journal.state, self._clock()
        if state.name != name:
            self.journal.note(Begun(name, now))
            self.journal.fold()
            log.info("order %s/%d: %d renditions to bring", name.night, name.version, len(order.bring))
        # Peers are waited for from when the work began or the window opened: not anew after each restart.
        waited = max(0.0, now - max(state.began_at, 0.0 if once else self._window.at(now).opens))
        began_at = time.monotonic() - waited
        wait, pause = float(self._agent.peer_wait), float(self._agent.pause)
        work = Work(order, state.done, state.failed, state.released, began_at, wait, pause)
        courier = Courier(work, self.journal, self._station, self._pace, self._agent.rate, time.monotonic)
        self._courier = courier
        self._worked_since = now, work.done_bytes
        self.telling.phase, self.telling.reason = Phase.WORKING, ""
        try:
            await courier.keep()
            await courier.run(lambda: self._heard.is_set() or not (once or self._is_open()) or not self._is_due())
        except StationError as error:
            courier.trouble = str(error)
            log.warning("the appliance can't be told: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PRESSURE):
                    await self._heard.wait()
        finally:
            self._count(work)
            self._courier = None
        if work.is_over:
            self.journal.note(Finished(self._clock()))
            self.telling.phase, self.telling.reason = Phase.IDLE, ""
            self.telling.finished_at = self.journal.state.finished_at
            self.telling.last_success = self.journal.state.last_success
            log.info(
                "order %s/%d is done: %d of %d renditions", name.night, name.version, len(work.done), len(order.bring)
            )
        await self.tell()

    async def _work_on_urgent(self, key: str, order: FillOrder) -> None:
        log.info("urgent order %s: %d renditions to bring", key, len(order.bring))
        now = self._clock()
        wait, pause = float(self._agent.peer_wait), float(self._agent.pause)
        work = Work(order, (), {}, (), time.monotonic(), wait, pause)
        courier = Courier(
            work, self.journal, self._station, self._pace, self._agent.rate, time.monotonic, is_journalled=False
        )
        self._courier = courier
        self._worked_since = now, 0
        self.telling.phase, self.telling.reason = Phase.WORKING, "an urgent order"
        try:
            await courier.run(lambda: order.expires_at <= self._clock())
        finally:
            self._count(work)
            self._courier = None
        self.journal.note(UrgentDone(key))
        self._urgent = [one for one in self._urgent if one[0] != key]
        log.info("urgent order %s is done: %d of %d renditions", key, len(work.done), len(order.bring))
        await self.tell()

    def _count(self, work: Work) -> None:
        for source, count in work.source_bytes.items():
            self._spent[source] = self._spent.get(source, 0) + count

    # --- Giving way ---------------------------------------------------------------------------------------------------

    async def give_way(self) -> None:
        """For ever: how much viewers need."""
        while True:
            if self._courier is not None:
                try:
                    pressure = await self._station.pressure()
                except StationError as error:
                    log.debug("%s", error)
                else:
                    share = self._agent.rate.egress_share
                    now = time.monotonic()
                    if is_pressed(pressure.egress_bps, pressure.link_bps, share, pressure.waited_for):
                        self._pace.give_way(now)
                    else:
                        self._pace.go_on(now)
            await asyncio.sleep(_PRESSURE)

    # --- Telling ------------------------------------------------------------------------------------------------------

    def now(self) -> Telling:
        """What is told, brought up to date."""
        told, now, state = self.telling, self._clock(), self.journal.state
        span = self._window.at(now)
        told.window_opens, told.window_closes = span.opens, span.closes
        told.share = self._pace.share
        told.bucket_heard_at = self._mailbox.heard_at
        told.urgent_waiting = len(self._urgent)
        told.refused = dict(self._mailbox.refused)
        told.last_success, told.finished_at = state.last_success, state.finished_at
        courier = self._courier
        if courier is not None and courier.trouble:
            told.reason = courier.trouble
        self._tell_of_order(told, None if courier is None else courier.work)
        sources = dict(self._spent)
        if courier is not None:
            for source, count in courier.work.source_bytes.items():
                sources[source] = sources.get(source, 0) + count
        told.source_bytes = sources
        told.is_behind = self._is_behind(now)
        return told

    def _tell_of_order(self, told: Telling, work: Work | None) -> None:
        state = self.journal.state
        if work is None and self._current is not None:
            name, order = self._current
            is_known = state.name == name
            work = Work(order, state.done if is_known else (), state.failed if is_known else {}, (), 0.0, 0.0, 1.0)
        if work is None:
            return
        told.night, told.version, told.issued_at = work.order.night, work.order.version, work.order.issued_at
        told.order_bytes, told.done_bytes = work.order_bytes, work.done_bytes
        told.order_renditions, told.done_renditions = len(work.order.bring), len(work.done)
        told.failed = {}
        for why in work.failed.values():
            told.failed[why.value] = told.failed.get(why.value, 0) + 1
        told.renditions = {**told.failed, "done": len(work.done)}

    def _is_behind(self, now: float) -> bool:
        courier, since = self._courier, self._worked_since
        if not self._is_due() or self._current is None:
            return False
        span = self._window.at(now)
        left_seconds = span.closes - max(now, span.opens)
        if courier is None:
            state = self.journal.state
            done = state.done if state.name == self._current[0] else {}
            left = sum(bring.size_bytes for bring in self._current[1].bring if bring.number not in done)
            return is_behind(left, left_seconds, int(self._agent.rate.most) / 8, None)
        observed = None
        if since is not None and now - since[0] >= _OBSERVED:
            observed = max(0, courier.work.done_bytes - since[1]) / (now - since[0])
        return is_behind(courier.work.left_bytes, left_seconds, int(self._agent.rate.most) / 8, observed)

    async def tell(self) -> None:
        """Write progress to the bucket; if it is away, the next word is fresher."""
        body = encode(self.now().progress(self._clock()))
        try:
            async with asyncio.timeout(_BUCKET):
                await asyncio.to_thread(self._bucket.write, progress_key(self._agent.appliance), body)
        except (BucketError, TimeoutError) as error:
            log.warning("progress can't be told: %s", error or "the bucket does not answer")

    async def tell_now_and_then(self) -> None:
        last: tuple[Phase, str, int] | None = None
        told_at = -_TELL
        while True:
            told = self.now()
            what = told.phase, told.reason, told.done_renditions
            now = time.monotonic()
            if (told.phase is Phase.WORKING and now - told_at >= _TELL) or (
                what != last and now - told_at >= _PRESSURE
            ):
                await self.tell()
                last, told_at = what, now
            await asyncio.sleep(_TICK)

    async def draw(self) -> None:
        """A bar, where standard error is a terminal."""
        console = Console(stderr=True)
        if not console.is_terminal:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("waiting", total=None)
            while True:
                told = self.now()
                words = f"{told.phase} {told.night}/{told.version}" if told.night else str(told.phase)
                progress.update(task, description=words, completed=told.done_bytes, total=told.order_bytes or None)
                await asyncio.sleep(_TICK / 2)


async def run(agent: Agent, *, once: bool = False) -> bool:
    """Until SIGTERM; with `once` until nothing is left to do. Whether all that was ordered is here. Raises
    `FillError`.
    """
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    bucket = await asyncio.to_thread(Bucket, agent.control.bucket, agent.control.endpoint_url, agent.control.region)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:
        office = Office(agent, bucket, Station(session, agent.oca))
        registry = CollectorRegistry()
        registry.register(AgentMetrics(office.now, time.time))
        runner = web.AppRunner(_application(office, registry), access_log=None)
        try:
            await runner.setup()
            host, port = host_and_port(agent.listen)
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise SettingsError(f"listen: {agent.listen}: {error.strerror}") from error
            await _until_told(office, once=once)
            return not office.now().failed
        finally:
            await runner.cleanup()
            office.close()


async def _until_told(office: Office, *, once: bool) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await office.look()
    tasks = [
        asyncio.create_task(work, name=name)
        for name, work in (
            ("listen", office.listen()),
            ("give way", office.give_way()),
            ("tell", office.tell_now_and_then()),
            ("draw", office.draw()),
        )
    ]
    working = asyncio.create_task(office.work(once=once), name="work")
    stopping = asyncio.create_task(stopped.wait(), name="stop")
    try:
        while not working.done() and not stopping.done():
            done, _ = await asyncio.wait([working, stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # An error of one ends the agent: systemd begins it anew, and the journal knows.
            tasks = [task for task in tasks if not task.done()]
        await office.tell()
    finally:
        for task in (working, stopping, *tasks):
            task.cancel()
        await asyncio.gather(working, stopping, *tasks, return_exceptions=True)
    log.info("the agent ends")


def _application(office: Office, registry: CollectorRegistry) -> web.Application:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(_: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(office.now()), content_type="application/json")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/status", status)
    return app
