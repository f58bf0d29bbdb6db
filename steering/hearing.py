"""The appliances' listener: heartbeats, holdings and learned prefixes. Who speaks shows a token of its own.

An appliance can speak for itself only: its token names it, or its certificate where the settings ask for one, and a
message that names another is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

from aiohttp import hdrs, web

from steering.announcements import Announcements
from steering.bodies import answer, errors, message
from steering.fleet import Fleet, Turn
from steering.limits import Buckets
from wire import heartbeat as beats
from wire import holdings as held
from wire import prefixes as learned
from wire.heartbeat import Heartbeat
from wire.holdings import Holdings
from wire.prefixes import Prefixes

log = logging.getLogger(__name__)

_MOST_TOKEN: Final = 512
_TOKENS: Final = 65_536
_STRANGERS: Final = 10_000
_STRANGER_RATE: Final = 1.0
_STRANGER_BURST: Final = 20.0


class Heard(StrEnum):
    """What came of a message: a metric label."""

    HEARTBEAT = "heartbeat"
    HOLDINGS = "holdings"
    PREFIXES = "prefixes"
    REFUSED = "refused"


class KeySource(Protocol):
    """Where the public keys are (steering/signer.py)."""

    def key_set(self) -> bytes: ...


class Hearing:
    """Handlers of one application."""

    def __init__(
        self,
        fleet: Fleet,
        announcements: Announcements,
        clock: Callable[[], float],
        turned: Callable[[list[Turn]], None],
        keys: KeySource | None,
    ) -> None:
        self._fleet = fleet
        self._announcements = announcements
        self._keys = keys
        self._clock = clock
        self._turned = turned
        self._strangers = Buckets(_STRANGER_RATE, _STRANGER_BURST, _STRANGERS)
        self._digests: dict[str, str] = {}
        """Of tokens, as text: 4,000 heartbeats a second bring the same few thousand tokens."""
        self.counts: Counter[Heard] = Counter()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[errors, self._counted])
        app.router.add_post("/v1/heartbeat", self._heartbeat)
        app.router.add_post("/v1/holdings", self._holdings)
        app.router.add_post("/v1/prefixes", self._prefixes)
        app.router.add_get("/v1/keys", self._show_keys)
        return app

    async def _heartbeat(self, request: web.Request) -> web.Response:
        appliance = self._speaker(request)
        heartbeat = await message(request, Heartbeat, beats.MOST_BYTES)
        _check_same(appliance, heartbeat.appliance)
        reply, turns = self._fleet.hear(heartbeat, self._clock())
        self._turned(turns)
        self.counts[Heard.HEARTBEAT] += 1
        return answer(reply)

    async def _holdings(self, request: web.Request) -> web.Response:
        appliance = self._speaker(request)
        holdings = await message(request, Holdings, held.MOST_BYTES)
        _check_same(appliance, holdings.appliance)
        self._fleet.learn(holdings)
        self.counts[Heard.HOLDINGS] += 1
        return answer({})

    async def _prefixes(self, request: web.Request) -> web.Response:
        """What an appliance's BGP speaker learned. The answer says what was accepted, and why the rest was not."""
        appliance = self._speaker(request)
        prefixes = await message(request, Prefixes, learned.MOST_BYTES)
        _check_same(appliance, prefixes.appliance)
        accepted = await asyncio.to_thread(self._announcements.judge, prefixes)
        self._announcements.take(appliance, accepted)
        self._fleet.learned_prefixes(appliance, prefixes.version)
        self.counts[Heard.PREFIXES] += 1
        return answer(
            {"accepted": len(accepted.networks), "rejected": accepted.rejected, "examples": accepted.examples}
        )

    async def _show_keys(self, request: web.Request) -> web.Response:
        """The JWKS that tokens are verified with; 404 if URLs are not signed."""
        self._speaker(request)
        if self._keys is None:
            raise web.HTTPNotFound(text="URLs are not signed here: there is no [tokens] in the settings")
        return web.Response(body=self._keys.key_set(), headers={hdrs.CONTENT_TYPE: "application/jwk-set+json"})

    def _speaker(self, request: web.Request) -> str:
        """The appliance that the header `X-Appliance` names, if its token is shown, or a certificate in its name that
        the listener's own authority signed.
        """
        name = request.headers.get("X-Appliance", "")
        if name in self._fleet.members and name in _certified(request):
            return name
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        member = self._fleet.members.get(name)
        shown = self._digest(token.strip()) if scheme.lower() == "bearer" and len(token) <= _MOST_TOKEN else ""
        expected = member.entry.token_sha256 if member is not None else None
        if expected is None or not hmac.compare_digest(shown, expected):
            # One sentence for all of these: a stranger learns nothing of which appliances there are.
            raise web.HTTPUnauthorized(
                text="no appliance of this name and token is known: X-Appliance names it, Authorization is Bearer and"
                " its token, whose SHA-256 stands in the inventory",
                headers={hdrs.WWW_AUTHENTICATE: "Bearer"},
            )
        return name

    def _digest(self, token: str) -> str:
        known = self._digests.get(token)
        if known is None:
            if len(self._digests) >= _TOKENS:
                self._digests.clear()
            known = self._digests[token] = hashlib.sha256(token.encode()).hexdigest()
        return known

    @web.middleware
    async def _counted(self, request: web.Request, handler: Callable[[web.Request], object]) -> web.StreamResponse:
        """Refusals are counted, and logged as often as one peer may cause: a stranger can't fill the disk."""
        try:
            return await handler(request)  # type: ignore[misc, no-any-return] # aiohttp's handlers are awaitable
        except web.HTTPException as error:
            self.counts[Heard.REFUSED] += 1
            if self._strangers.take((request.remote or "").encode(), self._clock()) == 0.0:
                log.warning("%s %s from %s: %s", error.status, request.path[:80], request.remote, error.text)
            raise


def _certified(request: web.Request) -> list[str]:
    """The common names of the client's certificate. TLS shows none that it has not verified."""
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    subject = certificate.get("subject", ()) if certificate else ()
    return [value for parts in subject for key, value in parts if key == "commonName"]


def _check_same(appliance: str, named: str) -> None:
    if appliance != named:
        raise web.HTTPForbidden(text=f"the token is {appliance}'s; it can't speak for {named}")
