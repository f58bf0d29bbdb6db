"""What the appliance logged last, for whoever asks: `GET /v1/logs`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp import web

from oca.logs import LEVELS, Ring, RingBusy, told

_MOST: Final = 2000


class Logbook:
    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/logs", self._logs)

    async def _logs(self, request: web.Request) -> web.Response:
        """The last `lines` of at least `level`, after the place `since`, which an earlier answer said as `next`."""
        level = request.query.get("level", "DEBUG").upper()
        if level not in LEVELS:
            raise web.HTTPBadRequest(text=f'"level" is {level[:20]!r}; allowed: {", ".join(LEVELS)}')
        numbers = {}
        for name, most, usual in (("lines", _MOST, "200"), ("since", 2**62, "0")):
            text = request.query.get(name, usual)
            if not text.isdecimal() or int(text[:20]) > most:
                raise web.HTTPBadRequest(text=f'"{name}" is {text[:20]!r}; allowed: 0 to {most}')
            numbers[name] = int(text)
        try:
            return web.json_response(told(self._ring, numbers["since"], level, numbers["lines"]))
        except RingBusy:
            return web.json_response({"error": "the log is held by another process"}, status=HTTPStatus.CONFLICT)
