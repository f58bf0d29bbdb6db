"""The reporter: tells every replica of steering how the appliance is and what it holds, and hears what it is to do.

Each replica is told by a task of its own, within a deadline of its own: one that is dead or slow delays no other. A
heartbeat that was lost is not repeated, the next one is fresher. Without steering the appliance serves as before.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import aiohttp
import msgspec

from oca.counters import Count
from oca.credentials import read_token, tls_context
from oca.errors import SettingsError
from oca.keeper.desk import Counters
from oca.keeper.devices import device_states
from oca.keeper.gauges import Gauge, Gauges
from oca.keeper.readiness import Readiness
from oca.keeper.routes import Routes
from oca.keeper.stocktaker import Stocktaker
from oca.report.rates import HitRatio, fair_share
from oca.report.replicas import Outcome, Replica, drains
from oca.settings import Settings, Steering
from oca.store.board import Board, DrainCause
from oca.store.rack import Rack
from oca.store.shelves import Shelves
from wire.codec import WireError, decode, encode
from wire.heartbeat import Heartbeat, HeartbeatAnswer
from wire.holdings import Holdings
from wire.prefixes import Prefixes
from wire.steer import Problem

log = logging.getLogger(__name__)

_HEARTBEAT: Final = "/v1/heartbeat"
_HOLDINGS: Final = "/v1/holdings"
_PREFIXES: Final = "/v1/prefixes"
_FIRST_READING: Final = 10.0
"""Seconds that the gauges may take before the first heartbeat, on a machine that is busy starting."""
_BASELINE: Final = 1.0
"""Seconds over which the first rates are taken."""
_DEADLINE_SHARE: Final = 0.8
"""Of the interval, for a heartbeat."""
_DELIVERY_DEADLINE: Final = 20.0
"""For holdings and prefixes, which may be megabytes."""
_PREFIXES_APART: Final = 30.0
"""At most: where the table is read more often, steering hears as often."""
_MOST_ANSWER: Final = 64 * 1024
_MOST_WORD: Final = 200
_MOST_REASONS: Final = 32
_MOST_DEVICES: Final = 256


class Unheard(Exception):
    """What steering answered is no success; `outcome` says in which way."""

    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class _Delivery:
    """One thing that a replica may want sent, in a task of its own: heartbeats go on meanwhile."""

    def __init__(self, path: str, apart: float, message: Callable[[], msgspec.Struct]) -> None:
        self.path = path
        self.apart = apart
        self.message = message
        self.is_wanted = asyncio.Event()
        self.error = ""


class Reporter:
    def __init__(
        self,
        settings: Settings,
        steering: Steering,
        boot: str,
        board: Board,
        readiness: Readiness,
        counters: Counters,
        shelves: Shelves,
        rack: Rack,
        stocktaker: Stocktaker,
        session: aiohttp.ClientSession,
        routes: Routes | None = None,
        viewers: Callable[[], int] = lambda: 0,
    ) -> None:
        """`viewers`: how many sessions are known to watch."""
        self._settings = settings
        self._steering = steering
        self._interval = float(steering.interval)
        self._boot = boot
        self._board = board
        self._readiness = readiness
        self._counters = counters
        self._shelves = shelves
        self._rack = rack
        self._stocktaker = stocktaker
        self._session = session
        self._routes = routes
        self._viewers = viewers
        self._gauges = Gauges(steering)
        self._hit_ratio = HitRatio()
        self._sequence = itertools.count(1)
        self._version = version("open-oca")
        self._replicas = [Replica(number, url, self._interval) for number, url in enumerate(steering.urls)]
        self._heartbeat: Heartbeat | None = None
        self._fresh = [asyncio.Event() for _ in self._replicas]
        self.heartbeats: Counter[Outcome] = Counter()
        self.succeeded_at: dict[int, float] = {}
        """Seconds since 1970 of the last answer, by number of the replica."""

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self._report()
            except* Exception:
                # Ours, whatever it is: said, and begun anew. Steering must not lose sight of a box that serves.
                log.exception("reports to steering broke off")
            await asyncio.sleep(self._interval)

    async def _report(self) -> None:
        async with asyncio.TaskGroup() as group:
            for replica, fresh in zip(self._replicas, self._fresh, strict=True):
                deliveries = self._deliveries()
                group.create_task(self._speak(replica, fresh, deliveries), name=f"tell {replica.url}")
                for delivery in deliveries.values():
                    group.create_task(self._deliver(replica, delivery), name=f"send {delivery.path} to {replica.url}")
            await self._gauges.read(_FIRST_READING)
            await asyncio.sleep(_BASELINE)
            while True:
                gauge = await self._gauges.read()
                self._board.suggest(fair_share(gauge.link_bps, gauge.egress_bps, self._viewers()))
                self._heartbeat = self._made(gauge)
                for fresh in self._fresh:
                    fresh.set()
                await asyncio.sleep(self._interval)

    @property
    def heartbeat(self) -> Heartbeat | None:
        """The last that was made."""
        return self._heartbeat

    def status(self) -> dict[str, Any]:
        """For /v1/status."""
        now = time.time()
        return {
            "boot": self._boot,
            "drain": self._board.drains_for(DrainCause.STEERING),
            "replicas": [
                {
                    "url": replica.url,
                    "outcome": replica.outcome,
                    "error": replica.error,
                    "last_success_age": (
                        now - self.succeeded_at[replica.number] if replica.number in self.succeeded_at else None
                    ),
                    "drain": replica.drain,
                }
                for replica in self._replicas
            ],
            "holdings": {
                "version": self._stocktaker.version,
                "renditions": self._stocktaker.renditions,
                "titles": self._stocktaker.titles,
                "complete": self._stocktaker.is_complete,
            },
        }

    # --- What is said -------------------------------------------------------------------------------------------------

    def _made(self, gauge: Gauge) -> Heartbeat:
        sums = self._counters.sums()
        reasons = self._readiness.reasons()
        return Heartbeat(
            appliance=self._settings.appliance.id,
            boot=self._boot,
            sequence=next(self._sequence),
            sent_at=time.time(),
            version=self._version,
            ready=not reasons,
            reasons=tuple(reason[:_MOST_WORD] for reason in reasons[:_MOST_REASONS]),
            draining=self._board.is_draining,
            health=self._rack.health,
            egress_bps=gauge.egress_bps,
            link_bps=gauge.link_bps,
            connections=sums[Count.CONNECTIONS_OPEN],
            max_connections=self._settings.http.max_connections * self._settings.listen.workers,
            cpu=gauge.cpu,
            hit_ratio=self._hit_ratio.counted(sums[Count.HIT_BYTES], sums[Count.MISS_BYTES], time.monotonic()),
            holdings_version=self._stocktaker.version,
            prefixes_version=0 if self._routes is None else self._routes.version,
            devices=tuple(device_states(self._shelves, self._rack)[:_MOST_DEVICES]),
        )

    def _holdings(self) -> Holdings:
        return Holdings(
            appliance=self._settings.appliance.id,
            boot=self._boot,
            version=self._stocktaker.version,
            bitmap=self._stocktaker.bitmap,
        )

    def _prefixes(self) -> Prefixes:
        # A replica wants what a heartbeat has spoken of, and what was known once stays known.
        assert self._routes is not None
        assert self._routes.message is not None
        return self._routes.message

    def _deliveries(self) -> dict[str, _Delivery]:
        found = {_HOLDINGS: _Delivery(_HOLDINGS, float(self._steering.holdings_interval), self._holdings)}
        if self._routes is not None:
            apart = min(_PREFIXES_APART, float(self._settings.routes.poll))
            found[_PREFIXES] = _Delivery(_PREFIXES, apart, self._prefixes)
        return found

    # --- To one replica -----------------------------------------------------------------------------------------------

    async def _speak(self, replica: Replica, fresh: asyncio.Event, deliveries: dict[str, _Delivery]) -> None:
        while True:
            await fresh.wait()
            fresh.clear()
            heartbeat = self._heartbeat
            if heartbeat is not None and replica.is_due(time.monotonic()):
                await self._tell(replica, heartbeat, deliveries)

    async def _tell(self, replica: Replica, heartbeat: Heartbeat, deliveries: dict[str, _Delivery]) -> None:
        deadline = self._interval * _DEADLINE_SHARE
        began = time.monotonic()
        try:
            async with asyncio.timeout(deadline):
                answer = decode(await self._post(replica.url + _HEARTBEAT, heartbeat), HeartbeatAnswer)
        except Unheard as error:
            self._missed(replica, error.outcome, str(error), began)
        except TimeoutError:
            self._missed(replica, Outcome.LATE, f"no answer within {deadline:.1f} s", began)
        except WireError as error:
            self._missed(replica, Outcome.FAILED, f"answered with what is {error}", began)
        except SettingsError as error:
            self._missed(replica, Outcome.FAILED, str(error), began)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._missed(replica, Outcome.FAILED, f"can't be reached: {error}", began)
        else:
            self.heartbeats[Outcome.OK] += 1
            self.succeeded_at[replica.number] = time.time()
            if replica.answered(answer, began):
                log.info("steering at %s hears us", replica.url)
            self._obey()
            if answer.wants_holdings and heartbeat.holdings_version:
                deliveries[_HOLDINGS].is_wanted.set()
            if answer.wants_prefixes and _PREFIXES in deliveries:
                deliveries[_PREFIXES].is_wanted.set()

    def _missed(self, replica: Replica, outcome: Outcome, error: str, began: float) -> None:
        self.heartbeats[outcome] += 1
        if replica.failed(outcome, error, began):
            log.warning("steering at %s does not hear us: %s", replica.url, error)

    def _obey(self) -> None:
        """Its word outlives us: it stands on the board, which the supervisor holds."""
        before = self._board.drains_for(DrainCause.STEERING)
        wanted = drains(self._replicas, before=before)
        if wanted and not before:
            self._board.drain(DrainCause.STEERING)
            log.info("draining by order of steering: /readyz says 503, answers carry Connection: close")
        elif before and not wanted:
            self._board.resume(DrainCause.STEERING)
            log.info("steering wants no more draining")

    async def _deliver(self, replica: Replica, delivery: _Delivery) -> None:
        while True:
            await delivery.is_wanted.wait()
            delivery.is_wanted.clear()
            error = ""
            try:
                async with asyncio.timeout(_DELIVERY_DEADLINE):
                    await self._post(replica.url + delivery.path, delivery.message())
            except TimeoutError:
                error = f"no answer within {_DELIVERY_DEADLINE:.0f} s"
            except (Unheard, SettingsError, aiohttp.ClientError, OSError, ValueError) as trouble:
                error = str(trouble) or type(trouble).__name__
            if error and not delivery.error:
                log.warning("%s%s can't be sent: %s", replica.url, delivery.path, error)
            delivery.error = error
            await asyncio.sleep(delivery.apart)

    async def _post(self, url: str, message: msgspec.Struct) -> bytes:
        """The body of the answer. Raises `Unheard`, `SettingsError`, aiohttp's errors and OSError."""
        headers = {"Content-Type": "application/json", "X-Appliance": self._settings.appliance.id}
        if self._steering.token_file is not None:
            # Each time: a token that was exchanged is used at once.
            token = await asyncio.to_thread(read_token, self._steering.token_file)
            headers["Authorization"] = f"Bearer {token}"
        async with self._session.post(url, data=encode(message), headers=headers, allow_redirects=False) as response:
            body = await _bounded(response)
            if response.status // 100 != 2:
                outcome = Outcome.REFUSED if response.status // 100 == 4 else Outcome.FAILED
                raise Unheard(outcome, _sentence(response.status, body))
            return body


def new_steering_session(steering: Steering) -> aiohttp.ClientSession:
    """The client for steering: no cookies, no proxies, no decompression. Raises `SettingsError`."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls_context(steering), limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": "oca", "Accept-Encoding": "identity", "Accept": "application/json"},
    )


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MOST_ANSWER:
            response.close()
            raise Unheard(Outcome.FAILED, f"answered with more than {_MOST_ANSWER} bytes")
    return bytes(body)


def _sentence(status: int, body: bytes) -> str:
    """What steering says was wrong, safe to be logged."""
    try:
        said = decode(body, Problem).error
    except WireError:
        said = ""
    shown = "".join(letter if letter.isprintable() else " " for letter in said[:_MOST_WORD])
    return f"answered {status}: {shown}" if shown else f"answered {status}"
