"""POST /v1/probe: what the appliance sees when it looks at itself, for turn-up checks. Nothing is judged here.

One probe at a time. Every part has a deadline, and a part that hangs is told as trouble of that part: the others stand.
Disks are asked in threads of the probe's own, viewers go before it (`turns`), and it takes a twentieth of the free room
at most, in a file without a name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from oca.cache.health import Standing
from oca.errors import OrderRefused, SourceError, StoreError
from oca.keeper.bodies import body
from oca.keeper.clock import kernel_clock
from oca.keeper.gauges import CARDS, film_cards
from oca.keeper.sources import Source, ask
from oca.settings import Settings
from oca.store.hands import Hands
from oca.store.rack import LeftOut, Rack
from oca.store.shelf import MEMORY, SERVE, Shelf
from oca.store.shelves import Shelves
from oca.store.speed import Speed, affordable, measured
from wire.codec import encode
from wire.probe import Card, Certificate, Clock, DeviceSpeed, Part, Probe, ProbeOrder, Reached
from wire.toml import host_and_port

_CARDS_DEADLINE: Final = 5.0
_SOURCE_DEADLINE: Final = 10.0
_DEVICE_SECONDS: Final = 20.0
"""For writing and reading one device."""
_DEVICE_GRACE: Final = 10.0
"""More, for making durable what was written."""
_FILE_DEADLINE: Final = 5.0
_DEVICES_DEADLINE: Final = 120.0
"""After which no other device is begun with."""
_DEVICES_AT_ONCE: Final = 4
"""They share a controller: more at once would measure that."""
_MOST_DEVICES: Final = 256
_MOST_WORDS: Final = 300
_FIRST_BYTE: Final = "bytes=0-0"
_STATISTICS: Final = {
    "packets": ("rx_packets", "tx_packets"),
    "errors": ("rx_errors", "tx_errors"),
    "drops": ("rx_dropped", "tx_dropped"),
}

TryTurn = Callable[[int, int], AbstractContextManager[bool]]


class Prober:
    def __init__(
        self,
        settings: Settings,
        sources: Sequence[Source],
        session: aiohttp.ClientSession,
        shelves: Shelves,
        rack: Rack,
        try_turn: TryTurn,
        depth: Callable[[str], int],
        clock: Callable[[], float],
    ) -> None:
        """`depth`: how many turns a device of a tier has."""
        self._settings = settings
        self._sources = sources
        self._session = session
        self._shelves = shelves
        self._rack = rack
        self._try_turn = try_turn
        self._depth = depth
        self._clock = clock
        self._is_busy = False
        self._hands: dict[str, Hands] = {}
        """By device, kept: a thread that a disk hangs on to is not joined by another at each probe."""
        self._device_turn = asyncio.Semaphore(_DEVICES_AT_ONCE)

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/probe", self._probe)

    async def _probe(self, request: web.Request) -> web.Response:
        found = await self.probe(await body(request, ProbeOrder))
        return web.Response(body=encode(found), content_type="application/json")

    async def probe(self, order: ProbeOrder) -> Probe:
        """Look at the parts that are asked for. Raises `OrderRefused` (409) while another probe runs."""
        if self._is_busy:
            raise OrderRefused(409, "a probe is under way already; ask again when it has ended, within a minute or two")
        self._is_busy = True
        try:
            return await self._look(order)
        finally:
            self._is_busy = False

    async def _look(self, order: ProbeOrder) -> Probe:
        wanted = frozenset(order.parts)
        before, trouble = await self._cards() if Part.NETWORK in wanted else (None, "")
        async with asyncio.TaskGroup() as group:
            devices = group.create_task(self._devices(order.size_bytes)) if Part.DEVICES in wanted else None
            sources = group.create_task(self._reach(order.path)) if Part.SOURCES in wanted else None
            clock = group.create_task(self._told_clock()) if Part.CLOCK in wanted else None
            certificates = group.create_task(self._certificates()) if Part.CERTIFICATES in wanted else None
        if before is not None and not trouble:
            after, trouble = await self._cards()
            before = _since(before, after) if after is not None else before
        return Probe(
            appliance=self._settings.appliance.id,
            version=version("open-oca"),
            at=self._clock(),
            cards=before,
            cards_trouble=trouble,
            devices=None if devices is None else devices.result(),
            sources=None if sources is None else sources.result(),
            clock=None if clock is None else clock.result(),
            certificates=None if certificates is None else certificates.result(),
        )

    # --- Network cards ---

    async def _cards(self) -> tuple[tuple[Card, ...], str]:
        steering = self._settings.steering
        wanted = steering.interfaces if steering is not None else ()
        host, _ = host_and_port(next(iter(self._settings.listen.ports.values())))
        try:
            async with asyncio.timeout(_CARDS_DEADLINE):
                return await asyncio.to_thread(_read_cards, wanted, host), ""
        except TimeoutError:
            return (), f"the network cards can't be told: no answer for {_CARDS_DEADLINE:.0f} s"
        except OSError as error:
            return (), f"the network cards can't be told: {error}"[:_MOST_WORDS]

    # --- Devices ---

    async def _devices(self, size_bytes: int) -> tuple[DeviceSpeed, ...]:
        shelves = [shelf for shelf in self._shelves.shelves if shelf.tier != MEMORY][:_MOST_DEVICES]
        until = time.monotonic() + _DEVICES_DEADLINE
        known = await asyncio.gather(*(self._measure(shelf, size_bytes, until) for shelf in shelves))
        return (*known, *map(_left_out, self._rack.left_out))

    async def _measure(self, shelf: Shelf, size_bytes: int, until: float) -> DeviceSpeed:
        if shelf.health.standing is not Standing.ONLINE or shelf.wish != SERVE:
            return self._told(shelf, skipped="not measured: it is not in full service")
        async with self._device_turn:
            if time.monotonic() > until:
                return self._told(shelf, skipped="not measured: others took all the time")
            hands = self._hands.setdefault(shelf.identity, Hands(1, f"probe of {shelf.path}"))
            free = None
            try:
                free = await hands.do(shelf.folder.free_bytes, _FILE_DEADLINE)
                size = affordable(free, size_bytes)
                if not size:
                    return self._told(shelf, free, skipped="not measured: too little room is free for that")
                turn = partial(self._try_turn, shelf.number, self._depth(shelf.tier))
                work = partial(measured, shelf.folder, size, _DEVICE_SECONDS, turn)
                speed = await hands.do(work, _DEVICE_SECONDS + _DEVICE_GRACE)
            except StoreError as error:
                return self._told(shelf, free, trouble=str(error)[:_MOST_WORDS])
        if not speed.size_bytes:
            return self._told(shelf, free, skipped="not measured: viewers waited for it all the time")
        return self._told(shelf, free, speed)

    def _told(
        self,
        shelf: Shelf,
        free_bytes: int | None = None,
        speed: Speed | None = None,
        *,
        skipped: str = "",
        trouble: str = "",
    ) -> DeviceSpeed:
        return DeviceSpeed(
            id=shelf.identity,
            path=shelf.path,
            tier=shelf.tier,
            standing=shelf.health.standing,
            reason=shelf.health.reason or "",
            wish=shelf.wish,
            capacity_bytes=shelf.capacity,
            used_bytes=self._shelves.policy.used_bytes(shelf.number),
            free_bytes=free_bytes,
            size_bytes=0 if speed is None else speed.size_bytes,
            write_bytes_per_second=None if speed is None else speed.write_bytes_per_second,
            read_bytes_per_second=None if speed is None else speed.read_bytes_per_second,
            is_direct=speed is not None and speed.is_direct,
            skipped=skipped,
            trouble=trouble,
        )

    # --- Sources ---

    async def _reach(self, path: str) -> tuple[Reached, ...]:
        return tuple(await asyncio.gather(*(self._reached(source, path) for source in self._sources)))

    async def _reached(self, source: Source, path: str) -> Reached:
        headers = {**source.fields, "Range": _FIRST_BYTE}
        if not source.is_s3:
            headers["CDN-Loop"] = self._settings.appliance.id
        began = time.monotonic()
        try:
            async with asyncio.timeout(_SOURCE_DEADLINE):
                response = await ask(self._session, source, "GET", path, headers)
                try:
                    await response.content.readany()
                    return Reached(name=source.name, status=response.status, first_byte=time.monotonic() - began)
                finally:
                    # A source may answer with the whole film, which nobody wants.
                    response.close()
        except TimeoutError:
            return Reached(name=source.name, trouble=f"no answer within {_SOURCE_DEADLINE:.0f} s")
        except (SourceError, aiohttp.ClientError, OSError, ValueError) as error:
            return Reached(name=source.name, trouble=(str(error) or type(error).__name__)[:_MOST_WORDS])

    # --- Clock and certificates ---

    async def _told_clock(self) -> Clock:
        try:
            async with asyncio.timeout(_FILE_DEADLINE):
                return await asyncio.to_thread(kernel_clock, self._clock())
        except TimeoutError:
            return Clock(now=self._clock(), trouble=f"adjtimex: no answer for {_FILE_DEADLINE:.0f} s")

    async def _certificates(self) -> tuple[Certificate, ...]:
        steering = self._settings.steering
        files = [("certificate.cert", certificate.cert) for certificate in self._settings.certificate]
        if steering is not None and steering.client_cert is not None:
            files.append(("steering.client_cert", steering.client_cert))
        return tuple([await self._certificate(name, file) for name, file in files])

    async def _certificate(self, name: str, file: str) -> Certificate:
        try:
            async with asyncio.timeout(_FILE_DEADLINE):
                return Certificate(name=name, ends_at=await asyncio.to_thread(_end_of, file))
        except TimeoutError:
            return Certificate(name=name, trouble=f"can't be read within {_FILE_DEADLINE:.0f} s")
        except (OSError, ValueError) as error:
            return Certificate(name=name, trouble=f"{file}: {error}"[:_MOST_WORDS])


def _read_cards(wanted: tuple[str, ...], host: str) -> tuple[Card, ...]:
    """In a thread. Raises OSError."""
    return tuple(_card(name, addresses) for name, addresses in film_cards(wanted, host).items())


def _card(name: str, addresses: tuple[str, ...]) -> Card:
    folder = CARDS / name
    counts = {
        kind: sum(int(_said(folder / "statistics" / file) or 0) for file in files)
        for kind, files in _STATISTICS.items()
    }
    megabits = _said(folder / "speed")
    return Card(
        name=name,
        # Of what has no cable, such as loopback, the kernel says "unknown" and means that it works.
        is_up=_said(folder / "operstate") in {"up", "unknown"},
        speed_bps=int(megabits) * 1_000_000 if megabits.isdecimal() and int(megabits) else None,
        duplex=_said(folder / "duplex") or "unknown",
        addresses=addresses,
        **counts,
    )


def _said(file: Path) -> str:
    """What the kernel says; nothing where it does not."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _since(before: tuple[Card, ...], after: tuple[Card, ...]) -> tuple[Card, ...]:
    """As they are after, with what came since before."""
    errors = {card.name: card.errors for card in before}
    return tuple(
        Card(
            name=card.name,
            is_up=card.is_up,
            speed_bps=card.speed_bps,
            duplex=card.duplex,
            addresses=card.addresses,
            packets=card.packets,
            errors=card.errors,
            drops=card.drops,
            new_errors=max(0, card.errors - errors.get(card.name, card.errors)),
        )
        for card in after
    )


def _left_out(out: LeftOut) -> DeviceSpeed:
    return DeviceSpeed(
        id=None,
        path=out.settings.path,
        tier=out.settings.tier,
        standing=Standing.OFFLINE,
        reason=out.reason or "",
        wish="serve" if out.reason else "remove",
        capacity_bytes=int(out.settings.capacity),
    )


def _end_of(file: str) -> float:
    """When the certificate in a PEM file ends. Raises OSError and ValueError."""
    # Memory and time to import: only where it is used.
    from cryptography import x509  # noqa: PLC0415

    return x509.load_pem_x509_certificate(Path(file).read_bytes()).not_valid_after_utc.timestamp()
