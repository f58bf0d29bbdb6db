"""Bodies of requests, from bytes to typed values, bounded and within a deadline; and errors as JSON."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import hdrs, web

from steering.errors import Crowded, InventoryError, RegistryError, SteeringError, Unrecognised
from wire.codec import WireError, decode
from wire.steer import Problem

log = logging.getLogger(__name__)

_DEADLINE: Final = 10.0
MessageT = TypeVar("MessageT", bound=msgspec.Struct)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def read(request: web.Request, most_bytes: int) -> bytes:
    """The whole body. What is too large, or too slow, is refused."""
    if (request.content_length or 0) > most_bytes:
        raise web.HTTPRequestEntityTooLarge(most_bytes, request.content_length or 0)
    body = bytearray()
    try:
        async with asyncio.timeout(_DEADLINE):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > most_bytes:
                    raise web.HTTPRequestEntityTooLarge(most_bytes, len(body))
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {_DEADLINE:.0f} s") from None
    return bytes(body)


async def message(request: web.Request, kind: type[MessageT], most_bytes: int) -> MessageT:
    """The message that a request carries. What is wrong with it is told in a 400."""
    body = await read(request, most_bytes)
    try:
        return decode(body, kind)
    except WireError as error:
        raise web.HTTPBadRequest(text=str(error)) from error


def answer(value: Any, status: int = 200) -> web.Response:  # noqa: ANN401 - whatever JSON can say
    """JSON that nobody keeps."""
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return web.Response(body=_encode(value), status=status, headers=headers)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as JSON, with what was wrong."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        said = answer(Problem(error=error.text or error.reason), error.status)
        if hdrs.WWW_AUTHENTICATE in error.headers:
            said.headers[hdrs.WWW_AUTHENTICATE] = error.headers[hdrs.WWW_AUTHENTICATE]
        return said
    except (InventoryError, Crowded) as error:
        return answer(Problem(error=str(error)), HTTPStatus.CONFLICT)
    except Unrecognised as error:
        return answer(Problem(error=str(error)), HTTPStatus.FORBIDDEN)
    except RegistryError as error:
        log.error("%s", error)
        return answer(Problem(error=str(error)), HTTPStatus.SERVICE_UNAVAILABLE)
    except SteeringError as error:
        return answer(Problem(error=str(error)), HTTPStatus.BAD_REQUEST)


_encode: Final = msgspec.json.Encoder(enc_hook=str).encode
