"""Looking at one box: asked of its control listener, of steering, and of its film port from where the command runs.

Every question has a deadline. What the film port does wrong is seen and judged later; only that steering or the box's
control listener gives no answer is raised.
"""

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct
from yarl import URL

from admin.fleet.asking import Desk
from admin.fleet.known import Box, Fleet, Inventory, Member, Place
from admin.turnup.content import PATH, SIZE_BYTES
from admin.turnup.seen import PARTS, Check, Filled, Read, Seen, Way
from wire.probe import Certificate, Probe

_CONNECT: Final = 5.0
_NAMES: Final = 10.0
_PROBE: Final = 240.0
"""A box with many disks needs two minutes, and half a minute more for one that hangs."""
_PAUSE: Final = 0.1
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_BLOCK: Final = 4 * 1024 * 1024
_RANGES: Final = (
    (0, 1),
    (_BLOCK - 1000, _BLOCK + 1000),
    (SIZE_BYTES // 2 + 7, SIZE_BYTES // 2 + 65536),
    (SIZE_BYTES - 500, SIZE_BYTES),
)
"""Half-open: the first byte, from one block to the next, out of the middle, the end."""


class Plan(Struct, frozen=True):
    """How a box is looked at."""

    wanted: frozenset[Check]
    content: bytes
    size_bytes: int
    """Written to each device, and read again."""
    patience: float
    """Seconds for the test content to come, and to be read back by each way."""


class Answered(Struct, frozen=True):
    """Of `GET /v1/signed`."""

    url: str
    signed: bool = False


class Held(Struct, frozen=True):
    """Of `GET /v1/objects`."""

    held: bool = False
    size: int = 0
    blocks: int = 0
    blocks_held: int = 0

    @property
    def is_whole(self) -> bool:
        return self.held and self.blocks_held == self.blocks


class Busy(Struct, frozen=True):
    """Of `GET /v1/status`."""

    prefetches: int = 0
    flights: int = 0


async def look(at: Desk, address: str, member: Member, fleet: Fleet, inventory: Inventory, plan: Plan) -> Seen:
    """One box, whose control listener is at `address`. Raises FleetError where steering or the box does not answer, and
    Refused where it is being looked at already.
    """
    box = next((one for one in inventory.appliance if one.id == member.id), Box(member.id, member.site))
    place = next((one for one in inventory.site if one.id == member.site), Place(member.site, "?"))
    siblings = tuple(one for one in fleet.appliances if one.site == member.site and one.id != member.id)
    parts = [part.value for check, part in PARTS.items() if check in plan.wanted]
    probe = ways = filled = reads = certificates = None
    if parts:
        order = {"parts": parts, "size_bytes": plan.size_bytes, "path": PATH}
        probe = await at.tell_appliance(address, "/v1/probe", order, Probe, _PROBE)
    if plan.wanted & {Check.FAMILIES, Check.CERTIFICATE, Check.READ_BACK}:
        ways = await ways_to(member.url, box)
    if ways is not None and Check.CERTIFICATE in plan.wanted:
        certificates = await certificates_at(member.url, ways)
    if Check.FILL in plan.wanted:
        filled = await _filled(at, address, plan.patience)
    if ways is not None and Check.READ_BACK in plan.wanted:
        # One after the other: two at once would share the line, and each would look slow.
        reads = tuple([await read_back(at, member.id, way, plan) for way in ways])
    return Seen(
        member=member,
        box=box,
        place=place,
        siblings=siblings,
        at=time.time(),
        probe=probe,
        ways=ways,
        certificates=certificates,
        filled=filled,
        reads=reads,
    )


# --- The film port's addresses ---


async def ways_to(url: str, box: Box) -> tuple[Way, ...]:
    """All declared addresses; of a family without any, those that the host in the URL has."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    ways: list[Way] = []
    for family, declared in ((4, box.ipv4), (6, box.ipv6)):
        addresses = declared or await _resolved(host, port, family)
        ways += [Way(family, address, port) for address in addresses]
    return tuple(await asyncio.gather(*map(_tried, ways)))


async def _resolved(host: str, port: int, family: int) -> tuple[str, ...]:
    """None where the name has none."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_NAMES):
            found = await loop.getaddrinfo(host, port, family=_FAMILIES[family], type=socket.SOCK_STREAM)
    except (TimeoutError, OSError):
        return ()
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def _tried(way: Way) -> Way:
    try:
        async with asyncio.timeout(_CONNECT):
            _, writer = await asyncio.open_connection(way.address, way.port)
    except TimeoutError:
        return _with(way, trouble=f"no answer within {_CONNECT:.0f} s")
    except OSError as error:
        return _with(way, trouble=error.strerror or str(error), is_ours=error.errno in _UNREACHABLE)
    client = str(writer.get_extra_info("sockname")[0])
    writer.close()
    return _with(way, client=client)


def _with(way: Way, client: str = "", trouble: str = "", *, is_ours: bool = False) -> Way:
    return Way(way.family, way.address, way.port, client, trouble, is_ours)


# --- Certificates ---


async def certificates_at(url: str, ways: Sequence[Way]) -> tuple[Certificate, ...]:
    parts = urlsplit(url)
    if parts.scheme != "https":
        return ()
    reached = [way for way in ways if not way.trouble]
    return tuple(await asyncio.gather(*(_shown(way, parts.hostname or "") for way in reached)))


async def _shown(way: Way, host: str) -> Certificate:
    name = f"the film port's certificate at {way.address}"
    try:
        async with asyncio.timeout(_CONNECT):
            _, writer = await asyncio.open_connection(
                way.address, way.port, ssl=ssl.create_default_context(), server_hostname=host
            )
    except TimeoutError:
        return Certificate(name=name, trouble=f"no handshake within {_CONNECT:.0f} s")
    except ssl.SSLCertVerificationError as error:
        return Certificate(name=name, trouble=f"is not trusted here for {host}: {error.verify_message}")
    except OSError as error:
        return Certificate(name=name, trouble=str(error))
    shown: dict[str, Any] = writer.get_extra_info("peercert") or {}
    writer.close()
    return Certificate(name=name, ends_at=float(ssl.cert_time_to_seconds(shown["notAfter"])))


# --- Fill ---


async def _filled(at: Desk, address: str, patience: float) -> Filled:
    """Have the box forget the test content and bring it again: what it has from yesterday proves nothing of today."""
    await at.tell_appliance(address, "/v1/purge", {"path": PATH}, dict[str, Any])
    began = time.monotonic()
    await at.tell_appliance(address, "/v1/prefetch", {"path": PATH}, dict[str, Any])
    while True:
        busy = await at.of_appliance_as(address, "/v1/status", Busy)
        held = await at.of_appliance_as(address, f"/v1/objects?path={PATH}", Held, absent=Held())
        seconds = time.monotonic() - began
        if held.is_whole:
            return Filled(held.size, seconds)
        had = f"{held.blocks_held} of {held.blocks} blocks came" if held.held else "nothing came"
        # Asked in this order: what was under way before is held by now, or will not be.
        if not busy.prefetches and not busy.flights:
            return Filled(held.size, seconds, f"{had}, and the box has given up: its log says why")
        if seconds > patience:
            return Filled(held.size, seconds, f"{had} within {patience:.0f} s")
        await asyncio.sleep(_PAUSE)


# --- Reading back ---


class _Port:
    """The film port as one way leads there: asked by its name, found by its address."""

    def __init__(self, url: str, way: Way) -> None:
        named = URL(url, encoded=True)
        self._url = named.with_host(way.address)
        self._host = named.host or ""
        self._headers = {"Host": named.authority}
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def get(self, **headers: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.get(
            self._url, headers=self._headers | headers, allow_redirects=False, server_hostname=self._host
        )


class _Wrong(Exception):
    """The film port did not give what it should."""


async def read_back(at: Desk, appliance: str, way: Way, plan: Plan) -> Read:
    if way.trouble:
        return Read(way, trouble=f"can't be reached: {way.trouble}")
    query = {"appliance": appliance, "path": PATH, "client": way.client}
    port = _Port((await at.read("/v1/signed", Answered, query)).url, way)
    try:
        async with asyncio.timeout(plan.patience), port:
            began = time.monotonic()
            first_byte, is_hit = await _whole(port, plan.content)
            seconds = time.monotonic() - began
            for start, stop in _RANGES:
                await _range(port, plan.content, start, stop)
            await _beyond(port)
    except _Wrong as error:
        return Read(way, trouble=str(error))
    except TimeoutError:
        return Read(way, trouble=f"was not read within {plan.patience:.0f} s")
    except (aiohttp.ClientError, OSError) as error:
        return Read(way, trouble=f"the connection broke: {error or type(error).__name__}")
    return Read(way, first_byte, seconds, len(_RANGES), is_hit)


async def _whole(port: _Port, content: bytes) -> tuple[float, bool]:
    """Seconds to the first byte, and whether the box had it. Raises _Wrong for the first difference."""
    began = time.monotonic()
    async with port.get() as answer:
        await _expect(answer, HTTPStatus.OK)
        first_byte, place = 0.0, 0
        async for piece in answer.content.iter_any():
            first_byte = first_byte or time.monotonic() - began
            _compare(content, place, piece)
            place += len(piece)
        if place != len(content):
            raise _Wrong(f"{PATH} ends after {place} bytes; allowed: {len(content)}")
        return first_byte, answer.headers.get("Cache-Status", "").endswith("; hit")


async def _range(port: _Port, content: bytes, start: int, stop: int) -> None:
    asked = f"bytes={start}-{stop - 1}"
    async with port.get(Range=asked) as answer:
        await _expect(answer, HTTPStatus.PARTIAL_CONTENT, asked)
        told, right = answer.headers.get("Content-Range", ""), f"bytes {start}-{stop - 1}/{len(content)}"
        if told != right:
            raise _Wrong(f"{asked} is answered with Content-Range {told[:80]!r}; allowed: {right!r}")
        place = start
        async for piece in answer.content.iter_any():
            if place + len(piece) > stop:
                raise _Wrong(f"{asked} is answered with more bytes than were asked for")
            _compare(content, place, piece)
            place += len(piece)
        if place != stop:
            raise _Wrong(f"{asked} is answered with {place - start} bytes")


async def _beyond(port: _Port) -> None:
    asked = f"bytes={SIZE_BYTES}-"
    async with port.get(Range=asked) as answer:
        await _expect(answer, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, asked)


async def _expect(answer: aiohttp.ClientResponse, status: HTTPStatus, asked: str = "") -> None:
    if answer.status == status:
        return
    said = (await answer.content.read(200)).decode(errors="replace").partition("\n")[0]
    what = f"{PATH} ({asked})" if asked else PATH
    raise _Wrong(f"{what} is answered {answer.status}, {said.strip()!r}; allowed: {status.value}")


def _compare(content: bytes, place: int, piece: bytes) -> None:
    """Raises _Wrong and names the first byte that differs."""
    if content[place : place + len(piece)] == piece:
        return
    wrong = next(_differences(content, place, piece))
    raise _Wrong(f"byte {wrong} of {PATH} is not the one that was published")


def _differences(content: bytes, place: int, piece: bytes) -> Iterator[int]:
    for offset, byte in enumerate(piece):
        if place + offset >= len(content) or content[place + offset] != byte:
            yield place + offset
