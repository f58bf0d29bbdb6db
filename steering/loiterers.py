"""Connections that ask nothing are closed: one that sends half a request's head, or none, has a deadline.

aiohttp has one for what comes after an answer, and none for a first head: whoever opens connections and sends a byte a
minute would keep them for ever, until there are no file descriptors left for players.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler


class Loiterers:
    """Of one listener."""

    def __init__(self, first: float, next_one: float, clock: Callable[[], float]) -> None:
        """Seconds for the first request of a connection, and for each one after an answer."""
        self._first = first
        self._next = next_one
        self._clock = clock
        self._deadlines: dict[RequestHandler, float | None] = {}
        """None: it is being answered, for which the handlers have deadlines of their own."""
        self.closed = 0

    def __len__(self) -> int:
        """Connections, as of the last look."""
        return len(self._deadlines)

    @web.middleware
    async def notice(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The outermost middleware of the listener's application."""
        connection = request.protocol
        self._deadlines[connection] = None
        try:
            return await handler(request)
        finally:
            self._deadlines[connection] = self._clock() + self._next

    def look(self, server: web.Server) -> None:
        """Once a second: close those that are late."""
        now = self._clock()
        known = self._deadlines
        fresh = now + self._first
        self._deadlines = {connection: known.get(connection, fresh) for connection in server.connections}
        for connection, deadline in self._deadlines.items():
            if deadline is not None and deadline < now:
                self.closed += 1
                connection.force_close()
