"""The players' listener: JSON, content-steering manifests and redirects, all from one decision.

Today's players were tried, and what they do wrong is allowed for (hls.js 1.7, dash.js 5.2, Shaka 5.2): a manifest
always has a TTL (without, hls.js asks two hundred times a second), RELOAD-URI is absolute (Shaka throws on a relative
one), and content steering is never answered with 429 or 404 (hls.js then stops for good): who asks too often gets a
longer TTL. The first answer leaves an HLS player on the pathway that it began with (`_stays`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
from aiohttp import hdrs, web

from steering.answers.clients import BadClient, Proxies, network_of
from steering.answers.desk import Desk
from steering.decisions import Ask, Decision, Way
from steering.errors import SteeringError
from steering.limits import Buckets
from steering.names import mixed
from steering.settings import Settings
from wire.steer import STEERING_TYPE, Option, PathwayClone, Problem, SteerAnswer, SteeringManifest, UriReplacement

_MOST_PATH: Final = 2048
# No spaces, controls, fragments or queries: what is put into a Location or a URL can't end it.
_LEGAL: Final = "/~!$&'()*+,;=:@%-._"
_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_NUMBER: Final = re.compile(r"[0-9]{1,15}")
_PATHWAY: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOSTS: Final = 65_536
"""Of appliances, remembered: splitting five URLs took a quarter of an answer."""
_AGAIN: Final = "again"
"""A parameter of reload addresses: the player has had an answer."""
_MOST_BPS: Final = 1_000_000_000.0
_DEFAULT_PATHWAY: Final = "."
"""Of a playlist that names none (draft-pantos-content-steering, section on PATHWAY-ID)."""
_CORS: Final = {"Access-Control-Allow-Origin": "*", "Timing-Allow-Origin": "*"}
_JSON: Final = {hdrs.CONTENT_TYPE: "application/json", hdrs.CACHE_CONTROL: "no-store", **_CORS}
_MANIFEST: Final = {hdrs.CONTENT_TYPE: STEERING_TYPE, hdrs.CACHE_CONTROL: "no-store", **_CORS}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Max-Age": "86400",
    **_CORS,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """A question that can't be answered as it was put."""

    def __init__(self, status: HTTPStatus, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_after = retry_after


class BadPath(SteeringError):
    """What was asked for is no path."""


class Public:
    """Handlers of one application."""

    def __init__(self, settings: Settings, desk: Desk, buckets: Buckets, clock: Callable[[], float]) -> None:
        self._desk = desk
        self._buckets = buckets
        self._clock = clock
        self._proxies = Proxies(settings.limits.trusted_proxies)
        self._limits = settings.limits
        self._answers = settings.answers
        self._base = settings.listen.base_url.rstrip("/")
        self.limited = 0
        """Questions that came too fast."""

    def application(self) -> web.Application:
        app = web.Application(client_max_size=1024)
        app.router.add_get("/v1/steer", self._guarded(self._steer))
        app.router.add_get("/v1/content-steering", self._guarded(self._content_steering))
        app.router.add_get("/redirect/{path:.*}", self._guarded(self._redirect))
        app.router.add_get("/healthz", self._healthz)
        app.router.add_route(hdrs.METH_OPTIONS, "/{path:.*}", self._preflight)
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(body=b'{"alive":true}', headers=_JSON)

    async def _preflight(self, _: web.Request) -> web.Response:
        return web.Response(status=HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)

    def _steer(self, request: web.Request) -> web.Response:
        client = self._client(request)
        self._limit(client)
        path = checked_path(request.query.get("path"))
        decision, ttl = self._decided(request, client, path, Way.JSON)
        answer = SteerAnswer(
            decision=decision.id,
            ttl=ttl,
            options=tuple(Option(id=place.id, url=url) for place, url in self._desk.urls(decision, path, client)),
            reason=decision.reason,
        )
        return web.Response(body=_encode(answer), headers=_JSON)

    def _redirect(self, request: web.Request) -> web.Response:
        client = self._client(request)
        self._limit(client)
        path = checked_path("/" + request.rel_url.raw_path.removeprefix("/redirect/"))
        decision, _ = self._decided(request, client, path, Way.REDIRECT)
        url = next((url for _, url in self._desk.urls(decision, path, client)), None)
        if url is None:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "no appliance can take this player, and there is no origin", 5
            )
        query = request.rel_url.raw_query_string
        if query:
            url += ("&" if "?" in url else "?") + query
        headers = {hdrs.LOCATION: url, hdrs.CACHE_CONTROL: "no-store", "X-Decision": decision.id, **_CORS}
        return web.Response(status=HTTPStatus.FOUND, headers=headers)

    def _content_steering(self, request: web.Request) -> web.Response:
        """Always 200 with a list, whatever was asked: a player that is told no stops asking for the whole film."""
        query = request.query
        try:
            path = checked_path(query.get("path"))
        except BadPath:
            path = "/"
        try:
            client = self._client(request)
        except Refused:
            client = b"\0\0\0\0"
        is_late = self._wait(client) > 0
        decision, ttl = self._decided(request, client, path, Way.CONTENT_STEERING, hurried=is_late)
        base = query.get("base", _DEFAULT_PATHWAY)
        if not _PATHWAY.fullmatch(base):
            base = _DEFAULT_PATHWAY
        places = [place for place in decision.targets if place.url]
        priority = tuple(place.id for place in places)
        if not priority or _stays(query, base):
            priority = (base, *(name for name in priority if name != base))
        manifest = SteeringManifest(
            version=1,
            ttl=ttl,
            reload_uri=self._reload_uri(path, base),
            priority=priority,
            clones=tuple(
                PathwayClone(base=base, id=place.id, uri=UriReplacement(host=host))
                for place in places
                if place.id != base and (host := _host(place.url)) is not None
            ),
        )
        return web.Response(body=_encode(manifest), headers=_MANIFEST)

    def _decided(
        self, request: web.Request, client: bytes, path: str, way: Way, *, hurried: bool = False
    ) -> tuple[Decision, int]:
        """The decision, and for how many seconds it is good."""
        query = request.query
        current = pathway(query.get("_HLS_pathway") or query.get("_DASH_pathway") or query.get("current"))
        bps = throughput(query.get("_HLS_throughput") or query.get("_DASH_throughput") or query.get("bps"))
        session = float(self._answers.session)
        ask = Ask(
            client=client,
            content=self._desk.content(path),
            way=way,
            current=current,
            # What the line carries is no more than a bound of what will be read.
            bps=session if bps is None else min(session, bps),
        )
        hurried = hurried or self._desk.is_hurried
        decision = self._desk.decide(ask, hurried=hurried)
        ttl = float(self._answers.steering_ttl if way is Way.CONTENT_STEERING else self._answers.ttl)
        if hurried:
            ttl *= self._answers.hurried_factor
        # Each client's own, and the same each time: what is asked in step stays in step.
        share = mixed(int.from_bytes(client, "big") ^ decision.content.mix) / 2**64
        return decision, max(1, round(ttl * (1.0 - self._answers.jitter * share)))

    def _reload_uri(self, path: str, base: str) -> str:
        tail = "" if base == _DEFAULT_PATHWAY else f"&base={quote(base)}"
        return f"{self._base}/v1/content-steering?path={quote(path)}{tail}&{_AGAIN}=1"

    def _client(self, request: web.Request) -> bytes:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        forwarded = request.headers.get("X-Forwarded-For")
        try:
            return self._proxies.client(peer[0] if peer else "", forwarded, request.query.get("client"))
        except BadClient as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"the client's address: {error}") from error

    def _wait(self, client: bytes) -> float:
        network = network_of(client, self._limits.ipv4_prefix, self._limits.ipv6_prefix)
        wait = self._buckets.take(network, self._clock())
        self.limited += wait > 0
        return wait

    def _limit(self, client: bytes) -> None:
        wait = self._wait(client)
        if wait:
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "this network asks too often", max(1, round(wait + 0.5)))

    def _guarded(self, handler: Callable[[web.Request], web.Response]) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                return handler(request)
            except BadPath as error:
                return web.Response(
                    status=HTTPStatus.BAD_REQUEST, body=_encode(Problem(error=str(error))), headers=_JSON
                )
            except Refused as error:
                headers = dict(_JSON)
                if error.retry_after is not None:
                    headers[hdrs.RETRY_AFTER] = str(error.retry_after)
                return web.Response(status=error.status, body=_encode(Problem(error=str(error))), headers=headers)

        return guarded


def _stays(query: Mapping[str, str], base: str) -> bool:
    """Whether it is too early to move this player. hls.js (1.7.4) drops its first segment if it is given another
    pathway while that is on its way, a clone on the same host too, and then waits for it for ever. It was sent to
    where it is a moment ago.
    """
    return _AGAIN not in query and query.get("_HLS_pathway") == base


def pathway(said: str | None) -> str | None:
    """The pathway that a player is on. dash.js sends quoted lists, the one in use first; hostile words are none."""
    if not said or len(said) > 1024:
        return None
    first = said.strip().strip('"').split(",")[0].strip()
    return first if _PATHWAY.fullmatch(first) else None


def throughput(said: str | None) -> float | None:
    """Bits a second that a player measured: of dash.js's list, the first. None if it is no number."""
    if not said or len(said) > 1024:
        return None
    first = said.strip().strip('"').split(",")[0].strip()
    return min(float(first), _MOST_BPS) if _NUMBER.fullmatch(first) else None


def checked_path(said: str | None) -> str:
    """The path that was asked for, as it stands in a URL. Raises `BadPath`."""
    if not said or len(said) > _MOST_PATH:
        raise BadPath(f'"path" is missing or longer than {_MOST_PATH} characters')
    # A parameter was decoded once: what was written in it as %20 is a space again.
    path = quote(said, safe=_LEGAL) if said.isprintable() else ""
    if not _PATH.fullmatch(path) or path.startswith("//") or "/../" in f"{path}/" or "/./" in f"{path}/":
        raise BadPath(f'{json.dumps(said[:80])} is not a path such as "/titles/film/master.m3u8"')
    return path


@functools.lru_cache(maxsize=_HOSTS)
def _host(url: str) -> str | None:
    """The host name for a clone; None where players would need a port, which clones can't carry."""
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.hostname if parts.port in {None, usual} else None


_encode: Final = msgspec.json.Encoder().encode
