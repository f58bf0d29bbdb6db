"""Bodies of the control API's orders, from bytes to typed values, within a deadline."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec
from aiohttp import web

MOST_BYTES: Final = 64 * 1024
_DEADLINE: Final = 10.0

T = TypeVar("T")


async def body(request: web.Request, kind: type[T]) -> T:
    """The order that a request carries. What is wrong with it is told in a 400."""
    try:
        async with asyncio.timeout(_DEADLINE):
            return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as error:
        raise web.HTTPBadRequest(text=f"the body is not the JSON expected: {error}") from error
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {_DEADLINE:.0f} s") from None
