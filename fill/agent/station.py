"""The local oca, as the agent speaks to it: its control API over loopback, with a deadline on everything."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from fill.errors import FillError
from wire.catalog import CatalogObject, Title, read_title, title_path
from wire.codec import WireError

_MOST_BYTES: Final = 32 * 1024 * 1024
_QUICK: Final = 30.0
_SLOW: Final = 900.0
"""Seconds for a span of 64 MiB, or for comparing a film, while viewers come first."""
T = TypeVar("T")


class Trouble(StrEnum):
    """As the appliance says it (POST /v1/fill)."""

    ABSENT = "absent"
    CHANGED = "changed"
    NO_PEER = "no_peer"
    UNAVAILABLE = "unavailable"
    NO_ROOM = "no_room"
    BUSY = "busy"
    BAD = "bad"
    AWAY = "away"
    """It does not answer at all."""


class StationError(FillError):
    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble


class Brought(Struct, frozen=True):
    held_bytes: int
    source_bytes: dict[str, int]
    shared_bytes: int = 0


class Verified(Struct, frozen=True):
    right: bool
    reason: str = ""


class PledgedSome(Struct, frozen=True):
    pledged: int
    bytes: int
    absent: tuple[str, ...] = ()


class DevicePressure(Struct, frozen=True):
    id: str
    waited_for: bool = False


class Pressure(Struct, frozen=True):
    egress_bps: int = 0
    link_bps: int = 0
    pledged_bytes: int = 0
    pledgeable_bytes: int = 0
    devices: tuple[DevicePressure, ...] = ()

    @property
    def waited_for(self) -> int:
        return sum(device.waited_for for device in self.devices)


class _Refused(Struct):
    error: str = ""
    reason: str = ""


class Station:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def fill(
        self,
        item: CatalogObject,
        start: int,
        stop: int,
        tier: str | None,
        peers: Sequence[str],
        *,
        only_peers: bool,
    ) -> Brought:
        """Have a span of bytes brought. Raises `StationError`."""
        order = {
            "path": item.path,
            "size": item.size_bytes,
            "start": start,
            "stop": stop,
            "tier": tier,
            "peers": list(peers),
            "only_peers": only_peers,
        }
        return await self._ask("POST", "/v1/fill", Brought, order, _SLOW)

    async def verify(self, item: CatalogObject) -> Verified:
        order = {"path": item.path, "size": item.size_bytes, "sha256": item.sha256}
        return await self._ask("POST", "/v1/verify", Verified, order, _SLOW)

    async def pledge(self, until: float, paths: Sequence[str] = (), folders: Sequence[str] = ()) -> PledgedSome:
        """0 gives back."""
        order = {"until": until, "paths": list(paths), "folders": list(folders)}
        return await self._ask("POST", "/v1/pledges", PledgedSome, order, _SLOW)

    async def pressure(self) -> Pressure:
        return await self._ask("GET", "/v1/pressure", Pressure, None, _QUICK)

    async def title(self, title: str) -> Title:
        """The catalogue's document. Raises `StationError`: ABSENT also if it can't be read."""
        body = await self._bytes("GET", f"/v1/document?path={title_path(title)}", None, _SLOW)
        try:
            return read_title(body)
        except WireError as error:
            raise StationError(Trouble.ABSENT, f"the catalogue's document of {title} can't be read: {error}") from error

    async def _ask(self, method: str, path: str, kind: type[T], order: Any, deadline: float) -> T:  # noqa: ANN401
        body = await self._bytes(method, path, order, deadline)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise StationError(Trouble.AWAY, f"{self._url}{path} speaks another language: {error}") from error

    async def _bytes(self, method: str, path: str, order: Any, deadline: float) -> bytes:  # noqa: ANN401
        try:
            async with self._session.request(
                method, self._url + path, json=order, timeout=aiohttp.ClientTimeout(total=deadline)
            ) as answer:
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > _MOST_BYTES:
                        raise StationError(Trouble.BAD, f"{self._url}{path}: more than {_MOST_BYTES} bytes")
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StationError(Trouble.AWAY, f"{self._url}: {error or type(error).__name__}") from error
        if status == 200:
            return bytes(body)
        try:
            refused = msgspec.json.decode(body, type=_Refused)
            trouble = Trouble(refused.reason)
        except (msgspec.DecodeError, ValueError):
            raise StationError(Trouble.AWAY, f"{self._url}{path}: status {status}: {bytes(body[:200])!r}") from None
        raise StationError(trouble, refused.error)
