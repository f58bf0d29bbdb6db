"""Steering's and appliances' control listeners, asked over HTTP: every question has a deadline, every failure words."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from admin.errors import AdminError, UsageError
from admin.fleet.known import Fleet, Inventory

DEADLINE: Final = 30.0
_MOST_BYTES: Final = 256 * 1024 * 1024
"""A fleet of 20,000 appliances is 10 MB."""
_AT_ONCE: Final = 64
_MOST_WORDS: Final = 500

AnswerT = TypeVar("AnswerT")


class FleetError(AdminError):
    """Steering, or an appliance, did not do what was asked."""

    exit_code = 7


class NotThere(FleetError):
    """There is no such thing there (404)."""


class Refused(AdminError):
    """Steering could, and does not: what was asked for makes no sense, or leaves viewers without an appliance."""

    exit_code = 2


class Desk:
    """A place to ask from. Made by `desk`."""

    def __init__(self, steering: str, session: aiohttp.ClientSession) -> None:
        self._steering = steering
        self._session = session

    async def fleet(self) -> Fleet:
        return await self.read("/v1/fleet", Fleet)

    async def inventory(self) -> Inventory:
        return await self.read("/v1/inventory", Inventory)

    async def read(self, path: str, kind: type[AnswerT], query: Mapping[str, str] | None = None) -> AnswerT:
        """What steering says. Raises FleetError."""
        body = await self._asked("GET", f"{self._steering}{path}", params=query or {})
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise FleetError(f"{self._steering}{path}: an answer that can't be read: {error}") from error

    async def wish(self, names: Sequence[str], wish: str, who: str, why: str, *, force: bool = False) -> None:
        """Raises as `change` does."""
        changes = [{"type": "set-wish", "appliance": name, "wish": wish} for name in names]
        await self.change(changes, who, why, force=force)

    async def change(self, changes: Sequence[Mapping[str, Any]], who: str, why: str, *, force: bool = False) -> None:
        """All of them, or none. Raises Refused where steering does not want to, which says why; else FleetError."""
        order = {"who": who, "why": why, "changes": changes, "force": force}
        await self._asked("POST", f"{self._steering}/v1/changes", json=order)

    async def of_appliance(self, address: str, path: str, deadline: float = DEADLINE) -> Any:  # noqa: ANN401 as it came
        """What an appliance's control listener says, or its agent's. Raises FleetError."""
        url = f"http://{address}{path}"
        body = await asked(self._session, "GET", url, deadline)
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise FleetError(f"{url}: an answer that can't be read: {error}") from error

    async def ask_all(self, addresses: Mapping[str, str], path: str, deadline: float) -> dict[str, Any]:
        """What each says, or a FleetError, by name; several are asked at once."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def ask(address: str) -> Any:  # noqa: ANN401
            async with turn:
                try:
                    return await self.of_appliance(address, path, deadline)
                except FleetError as error:
                    return error

        answers = await asyncio.gather(*(ask(address) for address in addresses.values()))
        return dict(zip(addresses, answers, strict=True))

    async def of_appliance_as(
        self, address: str, path: str, kind: type[AnswerT], absent: AnswerT | None = None
    ) -> AnswerT:
        """As `of_appliance`, typed. `absent`: what it is where the appliance has none (404)."""
        url = f"http://{address}{path}"
        try:
            return msgspec.json.decode(await asked(self._session, "GET", url, DEADLINE), type=kind)
        except NotThere:
            if absent is None:
                raise
            return absent
        except msgspec.DecodeError as error:
            raise FleetError(f"{url}: an answer that can't be read: {error}") from error

    async def tell_appliance(
        self,
        address: str,
        path: str,
        order: Mapping[str, Any],
        kind: type[AnswerT],
        deadline: float = DEADLINE,
    ) -> AnswerT:
        """What an appliance answers to an order. Raises Refused where it does not want to, and FleetError."""
        url = f"http://{address}{path}"
        body = await asked(self._session, "POST", url, deadline, json=order, timeout=aiohttp.ClientTimeout(deadline))
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise FleetError(f"{url}: an answer that can't be read: {error}") from error

    async def tell_all(
        self,
        addresses: Mapping[str, str],
        path: str,
        order: Mapping[str, str],
        reach: Callable[[int], None],
    ) -> dict[str, Any]:
        """Tell appliances the same, several at once; what each says, or a FleetError. `reach`: how many are done."""
        turn, done = asyncio.Semaphore(_AT_ONCE), 0

        async def tell(address: str) -> Any:  # noqa: ANN401
            nonlocal done
            async with turn:
                try:
                    return msgspec.json.decode(await self._asked("POST", f"http://{address}{path}", json=order))
                except (FleetError, msgspec.DecodeError) as error:
                    return error if isinstance(error, FleetError) else FleetError(f"{address}: {error}")
                finally:
                    done += 1
                    reach(done)

        answers = await asyncio.gather(*(tell(address) for address in addresses.values()))
        return dict(zip(addresses, answers, strict=True))

    async def _asked(self, method: str, url: str, **more: Any) -> bytes:  # noqa: ANN401 aiohttp's own keywords
        return await asked(self._session, method, url, DEADLINE, **more)


async def asked(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    deadline: float,
    **more: Any,  # noqa: ANN401 aiohttp's own keywords
) -> bytes:
    """The body of an answer. Raises Refused for 409, NotThere for 404, and FleetError."""
    body = bytearray()
    try:
        async with asyncio.timeout(deadline), session.request(method, url, allow_redirects=False, **more) as answer:
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > _MOST_BYTES:
                    raise FleetError(f"{url}: more than {_MOST_BYTES} bytes")
    except TimeoutError as error:
        raise FleetError(f"{url}: no answer within {deadline:.0f} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise FleetError(f"{url}: no answer ({error})") from error
    if answer.status == HTTPStatus.CONFLICT:
        raise Refused(_reason(bytes(body)))
    if answer.status == HTTPStatus.NOT_FOUND:
        raise NotThere(f"{url}: {answer.status}: {_reason(bytes(body))}")
    if answer.status >= 300:
        raise FleetError(f"{url}: {answer.status}: {_reason(bytes(body))}")
    return bytes(body)


def _reason(body: bytes) -> str:
    """What a refusal says, in JSON or as it is."""
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any])["error"])[:_MOST_WORDS]
    except (msgspec.DecodeError, KeyError):
        return body[:_MOST_WORDS].decode(errors="replace")


@asynccontextmanager
async def desk(steering: str | None) -> AsyncIterator[Desk]:
    """Raises UsageError where nobody said whom to ask."""
    if steering is None:
        raise UsageError("say where steering's operators ask: --steering http://host:9146, or OCA_STEERING")
    parts = urlsplit(steering)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise UsageError(f"--steering {steering!r} is no URL of steering; allowed: http(s)://host:port")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE)) as session:
        yield Desk(steering.rstrip("/"), session)
