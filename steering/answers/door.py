"""What all questions of players pass: who asks, how often, about which path; and refusals as JSON."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import quote

import msgspec
from aiohttp import hdrs, web

from steering.answers.clients import BadClient, Proxies, network_of
from steering.errors import SteeringError
from steering.limits import Buckets
from steering.settings import Limits
from wire.steer import Problem

_MOST_PATH: Final = 2048
# No spaces, controls, fragments or queries: what is put into a Location or a URL can't end it.
_LEGAL: Final = "/~!$&'()*+,;=:@%-._"
_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
CORS: Final = {"Access-Control-Allow-Origin": "*", "Timing-Allow-Origin": "*"}
JSON: Final = {hdrs.CONTENT_TYPE: "application/json", hdrs.CACHE_CONTROL: "no-store", **CORS}

Answer = web.Response | Awaitable[web.Response]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """A question that can't be answered as it was put."""

    def __init__(
        self, status: HTTPStatus, sentence: str, retry_after: int | None = None, challenge: str | None = None
    ) -> None:
        """`challenge`: the value of WWW-Authenticate."""
        super().__init__(sentence)
        self.status = status
        self.retry_after = retry_after
        self.challenge = challenge


class BadPath(SteeringError):
    """What was asked for is no path."""


class Door:
    """One for the process: limits are of all ways of asking together."""

    def __init__(self, limits: Limits, buckets: Buckets, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._buckets = buckets
        self._clock = clock
        self._proxies = Proxies(limits.trusted_proxies)
        self.limited = 0
        """Questions that came too fast."""

    def client(self, request: web.Request) -> bytes:
        """The client's packed address. Raises `Refused`."""
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        forwarded = request.headers.get("X-Forwarded-For")
        try:
            return self._proxies.client(peer[0] if peer else "", forwarded, request.query.get("client"))
        except BadClient as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"the client's address: {error}") from error

    def wait(self, client: bytes) -> float:
        """Count a question: 0.0, or the seconds after which it may be put again."""
        network = network_of(client, self._limits.ipv4_prefix, self._limits.ipv6_prefix)
        wait = self._buckets.take(network, self._clock())
        self.limited += wait > 0
        return wait

    def limit(self, client: bytes) -> None:
        """Count a question. Raises `Refused` if there were too many."""
        wait = self.wait(client)
        if wait:
            raise too_often("this network", wait)


def too_often(who: str, wait: float) -> Refused:
    return Refused(HTTPStatus.TOO_MANY_REQUESTS, f"{who} asks too often", max(1, round(wait + 0.5)))


def guarded(handler: Callable[[web.Request], Answer]) -> Handler:
    """The handler, with what it refuses as JSON."""

    waits = inspect.iscoroutinefunction(handler)

    async def guard(request: web.Request) -> web.StreamResponse:
        try:
            answer = handler(request)
            return await cast("Awaitable[web.Response]", answer) if waits else cast("web.Response", answer)
        except BadPath as error:
            return web.Response(status=HTTPStatus.BAD_REQUEST, body=encode(Problem(error=str(error))), headers=JSON)
        except Refused as error:
            headers = dict(JSON)
            if error.retry_after is not None:
                headers[hdrs.RETRY_AFTER] = str(error.retry_after)
            if error.challenge is not None:
                headers[hdrs.WWW_AUTHENTICATE] = error.challenge
            return web.Response(status=error.status, body=encode(Problem(error=str(error))), headers=headers)

    return guard


def checked_path(said: str | None) -> str:
    """The path that was asked for, as it stands in a URL. Raises `BadPath`."""
    if not said or len(said) > _MOST_PATH:
        raise BadPath(f'"path" is missing or longer than {_MOST_PATH} characters')
    # A parameter was decoded once: what was written in it as %20 is a space again.
    path = quote(said, safe=_LEGAL) if said.isprintable() else ""
    if not _PATH.fullmatch(path) or path.startswith("//") or "/../" in f"{path}/" or "/./" in f"{path}/":
        raise BadPath(f'{json.dumps(said[:80])} is not a path such as "/titles/film/master.m3u8"')
    return path


encode: Final = msgspec.json.Encoder().encode
