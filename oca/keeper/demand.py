"""Demand, from what the workers tell to what the bucket has confirmed.

What is counted is written to the spool again and again while its hour runs, and for good when the hour is over. Soon
after that a process of its own (`demand_shipper`) is started, which ships what is there and ends. What could not be
shipped stays, and is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from enum import StrEnum
from typing import Any, Final

import msgspec

from oca.errors import OcaError
from oca.keeper.shipping import (
    MOST_LINE,
    HourShipped,
    NotShipped,
    Order,
    PartUnreadable,
    StockShipped,
    Told,
)
from oca.keeper.spool import STOCK, Spool
from oca.report.demand import (
    COUNTS,
    HIT_BYTES_AT,
    HIT_REQUESTS,
    MISS_BYTES,
    MISS_REQUESTS,
    Counts,
    Gathering,
    Timetable,
    encode_part,
    hour_of,
    part_name,
)
from oca.settings import Demand as DemandSettings
from wire.codec import encode
from wire.demand import Stock

log = logging.getLogger(__name__)

_LOOK: Final = 5.0
"""Seconds between two looks whether something is due."""
_AFTER_FAILURE: Final = 30.0
_SILENCE: Final = 180.0
"""Seconds for one hour's object. The process has deadlines of its own (5 s to connect, 30 s for each answer, three
tries); beyond this it hangs, and is killed."""
_MOST_UNWRITTEN: Final = 48
"""Closed parts that are kept in memory while the spool can't be written."""


class Lost(StrEnum):
    """Why a part was given up."""

    SPOOL_FULL = "spool_full"
    UNREADABLE = "unreadable"
    UNWRITABLE = "unwritable"


class ShippingFailed(OcaError):
    """Not all that should be in the bucket is there. The bucket's or the network's fault, mostly; it is tried again."""


class Demand:
    """`stock` says what the appliance holds, each time that something is shipped."""

    def __init__(
        self,
        settings: DemandSettings,
        appliance: str,
        spool: Spool,
        stock: Callable[[], Awaitable[Stock]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._appliance = appliance
        self._spool = spool
        self._stock = stock
        self._clock = clock
        self._gathering: Gathering | None = None
        self._is_unwritten = False
        """What is gathered is more than what the spool has of it."""
        self._closed: list[tuple[str, bytes]] = []
        """Parts that are complete and that the spool does not have yet."""
        self._writing = asyncio.Lock()
        self._shipping = asyncio.Lock()
        self._error = ""
        self.shipped = 0
        """Hours' objects that the bucket has confirmed."""
        self.failures = 0
        self.lost: Counter[Lost] = Counter()
        self.unnamed = 0
        self.succeeded_at = 0.0
        """Seconds since 1970; 0 before the first time."""

    @property
    def spooled_bytes(self) -> int:
        return self._spool.size_bytes

    @property
    def spooled_hours(self) -> int:
        return self._spool.hours

    def heard(self, folders: Iterable[tuple[str, Counts]]) -> None:
        """A worker tells what it counted."""
        gathering = self._of_this_hour()
        unnamed = gathering.unnamed
        gathering.add(folders)
        self.unnamed += gathering.unnamed - unnamed
        self._is_unwritten = True

    def status(self) -> dict[str, Any]:
        """For /v1/status."""
        gathering = self._gathering
        sums = [0] * COUNTS if gathering is None else gathering.sums
        return {
            "running": {
                "folders": 0 if gathering is None else gathering.folders,
                "requests": sums[HIT_REQUESTS] + sums[MISS_REQUESTS],
                "bytes": sum(sums[HIT_BYTES_AT:MISS_REQUESTS]) + sums[MISS_BYTES],
            },
            "spooled_bytes": self.spooled_bytes,
            "spooled_hours": self.spooled_hours,
            "last_success_age": self._clock() - self.succeeded_at if self.succeeded_at else None,
            "error": self._error,
        }

    # --- Counting and keeping -----------------------------------------------------------------------------------------

    def _of_this_hour(self) -> Gathering:
        """Where it is counted now. A clock that was set, either way, begins another part like an hour that is over."""
        hour = hour_of(self._clock())
        if self._gathering is None or self._gathering.hour != hour:
            self._close()
            self._gathering = Gathering(secrets.token_hex(8), hour)
        return self._gathering

    def _close(self) -> None:
        """Nothing is added any more to what was gathered."""
        gathering, self._gathering = self._gathering, None
        self._is_unwritten = False
        if gathering is None or gathering.is_empty:
            return
        self._closed.append((part_name(gathering.hour, gathering.id), encode_part(gathering.part())))
        if len(self._closed) > _MOST_UNWRITTEN:
            name, _ = self._closed.pop(0)
            self._give_up(name, Lost.UNWRITABLE)

    @property
    def _running(self) -> str | None:
        """The name of the part that is still counted."""
        gathering = self._gathering
        return None if gathering is None else part_name(gathering.hour, gathering.id)

    async def save(self) -> None:
        """Have what was counted until now on disk."""
        async with self._writing:
            if self._gathering is not None and self._gathering.hour != hour_of(self._clock()):
                self._close()
            try:
                while self._closed:
                    closed = self._closed[0]
                    await self._spool.write(*closed)
                    if self._closed and self._closed[0] is closed:
                        del self._closed[0]
                running = self._running
                if running is not None and self._is_unwritten:
                    assert self._gathering is not None
                    self._is_unwritten = False
                    await self._spool.write(running, encode_part(self._gathering.part()))
                for name in await self._spool.make_room(running):
                    self._give_up(name, Lost.SPOOL_FULL)
            except OSError as error:
                self._is_unwritten = True
                log.warning("%s: demand can't be written: %s", self._spool.folder, error.strerror)

    async def end(self) -> None:
        """The keeper ends: what it counted is closed and saved."""
        self._close()
        await self.save()

    def _give_up(self, name: str, why: Lost) -> None:
        self.lost[why] += 1
        log.error("demand in %s is lost: %s", name, why)

    # --- Shipping -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Before anything else: see what the last keeper left."""
        try:
            await self._spool.open()
        except OSError as error:
            log.error("%s: can't be used, what waits there stays: %s", self._spool.folder, error.strerror)

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._save_often(), name="save demand")
                    group.create_task(self._ship_often(), name="ship demand")
            except* Exception:
                # Ours, whatever it is: said, and begun anew. What is counted must not pile up in memory.
                log.exception("shipping of demand broke off")
            await asyncio.sleep(_AFTER_FAILURE)

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(self._settings.checkpoint)
            await self.save()

    async def _ship_often(self) -> None:
        """After each hour, and at the start, when what the last keeper left is waiting."""
        jitter = float(self._settings.jitter)
        timetable = Timetable(hour_of(self._clock()), time.monotonic(), jitter, random.random)
        while True:
            await asyncio.sleep(min(_LOOK, max(0.0, timetable.due_at - time.monotonic())))
            if not timetable.is_due(hour_of(self._clock()), time.monotonic()):
                continue
            try:
                await self.ship()
            except ShippingFailed:
                timetable.failed(time.monotonic())
            else:
                timetable.succeeded()

    async def ship_now(self) -> list[str]:
        """Close what was counted until now, and ship all that there is. Returns the keys that were written.

        Raises `ShippingFailed`.
        """
        self._close()
        return await self.ship()

    async def ship(self) -> list[str]:
        """Ship all closed parts, and the stock. Returns the keys that were written. Raises `ShippingFailed`."""
        async with self._shipping:
            await self.save()
            try:
                keys, troubles = await self._round()
            except OSError as error:
                keys, troubles = [], [f"{self._spool.folder}: {error.strerror}"]
            if not troubles:
                self.succeeded_at = self._clock()
                self._error = ""
                return keys
            self.failures += 1
            said = "; ".join(troubles)
            if said != self._error:
                log.warning("demand is not shipped, it waits: %s", said)
            self._error = said
            raise ShippingFailed(said)

    async def _round(self) -> tuple[list[str], list[str]]:
        """The keys that were written, and what went wrong. Raises OSError."""
        await self._spool.write(STOCK, encode(await self._stock()))
        # What the spool has of these may be less than what belongs to their ids.
        unfinished = {self._running, *(name for name, _ in self._closed)}
        order = Order(
            appliance=self._appliance,
            folder=str(self._spool.folder),
            parts=tuple(name for name in self._spool.parts if name not in unfinished),
            stock=STOCK,
            bucket=self._settings.bucket,
            endpoint_url=self._settings.endpoint_url,
            region=self._settings.region,
        )
        keys = []
        troubles = []
        async with contextlib.aclosing(_shipper(order)) as shipper:
            async for told in shipper:
                match told:
                    case StockShipped(key):
                        keys.append(key)
                    case HourShipped(key, parts):
                        keys.append(key)
                        self.shipped += 1
                        for name in parts:
                            await self._spool.remove(name)
                    case PartUnreadable(part, reason):
                        log.error("%s is not what was written: %s", part, reason)
                        self._give_up(part, Lost.UNREADABLE)
                        await self._spool.remove(part)
                    case NotShipped(reason):
                        troubles.append(reason)
        if len(keys) > 1:
            log.info("demand is shipped, %d hour(s)", len(keys) - 1)
        return keys, troubles


async def _shipper(order: Order) -> AsyncGenerator[Told, None]:
    """What the process says that ships. It ends with us, and is killed when it hangs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oca.keeper.demand_shipper", "--keeper", str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MOST_LINE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_SILENCE):
            process.stdin.write(msgspec.json.encode(order))
            await process.stdin.drain()
            process.stdin.close()
        while True:
            async with asyncio.timeout(_SILENCE):
                line = await process.stdout.readline()
            if not line:
                break
            yield msgspec.json.decode(line, type=Told)
        async with asyncio.timeout(_SILENCE):
            code = await process.wait()
        if code:
            yield NotShipped(f"the process that ships ended with {code}; its log says more")
    except TimeoutError:
        yield NotShipped(f"the process that ships said nothing for {_SILENCE:.0f} s")
    except (BrokenPipeError, ConnectionResetError):
        yield NotShipped("the process that ships did not take its order")
    except (msgspec.DecodeError, ValueError) as error:
        yield NotShipped(f"the process that ships said something else: {error}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
