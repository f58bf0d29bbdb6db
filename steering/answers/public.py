"""The players' listener: JSON, content-steering manifests and redirects, all from one decision. (For playback.py too.)

Today's players were tried, and what they do wrong is allowed for (hls.js 1.7, dash.js 5.2, Shaka 5.2): a manifest
always has a TTL (without, hls.js asks two hundred times a second), RELOAD-URI is absolute (Shaka throws on a relative
one), and content steering is never answered with 429 or 404 (hls.js then stops for good): who asks too often gets a
longer TTL. The first answer leaves an HLS player on the pathway that it began with (`_stays`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlsplit

from aiohttp import hdrs, web

from steering.answers.desk import Desk
from steering.answers.door import CORS, JSON, BadPath, Door, Refused, checked_path, encode, guarded
from steering.answers.playback import Player
from steering.answers.questions import PATHWAY, Questions
from steering.decisions import Way
from wire.playback import PLAYBACK_PATH
from wire.steer import STEERING_TYPE, Option, PathwayClone, SteerAnswer, SteeringManifest, UriReplacement

_HOSTS: Final = 65_536
"""Of appliances, remembered: splitting five URLs took a quarter of an answer."""
_AGAIN: Final = "again"
"""A parameter of reload addresses: the player has had an answer."""
_DEFAULT_PATHWAY: Final = "."
"""Of a playlist that names none (draft-pantos-content-steering, section on PATHWAY-ID)."""
_MANIFEST: Final = {hdrs.CONTENT_TYPE: STEERING_TYPE, hdrs.CACHE_CONTROL: "no-store", **CORS}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    # The wildcard does not stand for Authorization (Fetch standard, CORS protocol).
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Max-Age": "86400",
    **CORS,
}


class Public:
    """Handlers of one application."""

    def __init__(self, base_url: str, desk: Desk, door: Door, questions: Questions, player: Player | None) -> None:
        """`player` is None where nobody can press play."""
        self._desk = desk
        self._door = door
        self._questions = questions
        self._player = player
        self._base = base_url.rstrip("/")

    def application(self) -> web.Application:
        app = web.Application(client_max_size=1024)
        app.router.add_get("/v1/steer", guarded(self._steer))
        app.router.add_get("/v1/content-steering", guarded(self._content_steering))
        app.router.add_get("/redirect/{path:.*}", guarded(self._redirect))
        app.router.add_get(PLAYBACK_PATH, guarded(self._no_playback if self._player is None else self._player.playback))
        app.router.add_get("/healthz", self._healthz)
        app.router.add_route(hdrs.METH_OPTIONS, "/{path:.*}", self._preflight)
        return app

    def _no_playback(self, request: web.Request) -> web.Response:
        self._door.limit(self._door.client(request))
        raise Refused(HTTPStatus.NOT_FOUND, "nobody can press play here: the settings have no [playback]")

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(body=b'{"alive":true}', headers=JSON)

    async def _preflight(self, _: web.Request) -> web.Response:
        return web.Response(status=HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)

    def _steer(self, request: web.Request) -> web.Response:
        client = self._door.client(request)
        self._door.limit(client)
        path = checked_path(request.query.get("path"))
        decision, ttl = self._questions.decided(request.query, client, path, Way.JSON)
        answer = SteerAnswer(
            decision=decision.id,
            ttl=ttl,
            options=tuple(Option(id=place.id, url=url) for place, url in self._desk.urls(decision, path, client)),
            reason=decision.reason,
        )
        return web.Response(body=encode(answer), headers=JSON)

    def _redirect(self, request: web.Request) -> web.Response:
        client = self._door.client(request)
        self._door.limit(client)
        path = checked_path("/" + request.rel_url.raw_path.removeprefix("/redirect/"))
        decision, _ = self._questions.decided(request.query, client, path, Way.REDIRECT)
        url = next((url for _, url in self._desk.urls(decision, path, client)), None)
        if url is None:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "no appliance can take this player, and there is no origin", 5
            )
        query = request.rel_url.raw_query_string
        if query:
            url += ("&" if "?" in url else "?") + query
        headers = {hdrs.LOCATION: url, hdrs.CACHE_CONTROL: "no-store", "X-Decision": decision.id, **CORS}
        return web.Response(status=HTTPStatus.FOUND, headers=headers)

    def _content_steering(self, request: web.Request) -> web.Response:
        """Always 200 with a list, whatever was asked: a player that is told no stops asking for the whole film."""
        query = request.query
        try:
            path = checked_path(query.get("path"))
        except BadPath:
            path = "/"
        try:
            client = self._door.client(request)
        except Refused:
            client = b"\0\0\0\0"
        is_late = self._door.wait(client) > 0
        decision, ttl = self._questions.decided(request.query, client, path, Way.CONTENT_STEERING, hurried=is_late)
        base = query.get("base", _DEFAULT_PATHWAY)
        if not PATHWAY.fullmatch(base):
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
        return web.Response(body=encode(manifest), headers=_MANIFEST)

    def _reload_uri(self, path: str, base: str) -> str:
        tail = "" if base == _DEFAULT_PATHWAY else f"&base={quote(base)}"
        return f"{self._base}/v1/content-steering?path={quote(path)}{tail}&{_AGAIN}=1"


def _stays(query: Mapping[str, str], base: str) -> bool:
    """Whether it is too early to move this player. hls.js (1.7.4) drops its first segment if it is given another
    pathway while that is on its way, a clone on the same host too, and then waits for it for ever. It was sent to
    where it is a moment ago.
    """
    return _AGAIN not in query and query.get("_HLS_pathway") == base


@functools.lru_cache(maxsize=_HOSTS)
def _host(url: str) -> str | None:
    """The host name for a clone; None where players would need a port, which clones can't carry."""
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.hostname if parts.port in {None, usual} else None
