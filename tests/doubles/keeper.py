"""The control API of an appliance as nightly fill sees it (POST /v1/fill and so on), with faults that a test asks for.

A real HTTP server over a dict of objects: what the test says is at the sources, and what is held.
"""

from collections import Counter, defaultdict, deque
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from wire.catalog import Title, title_path
from wire.codec import encode


class Keeper:
    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        """Of what the sources have."""
        self.documents: dict[str, bytes] = {}
        self.at_peers: dict[str, str] = {}
        """The peer (its URL) that holds a path."""
        self.held: dict[str, set[int]] = defaultdict(set)
        """Starts of spans that are held, by path."""
        self.pledged: dict[str, float] = {}
        self.wrong: Counter[str] = Counter()
        """How often a path turns out to be wrong when it is compared."""
        self.troubles: dict[str, deque[str]] = defaultdict(deque)
        """Reasons for which the next questions for a path are refused."""
        self.room = 10**18
        """Bytes that may be pledged."""
        self.pressed = False
        self.asked: list[tuple[str, Any]] = []
        """All orders, by what they are for."""
        self.fetched: Counter[tuple[str, int]] = Counter()
        """How often a span came from a source."""

    def publish(self, title: Title) -> None:
        self.documents[title_path(title.title)] = encode(title)
        for rendition in title.renditions:
            for item in rendition.objects:
                self.sizes[item.path] = item.size_bytes

    def paths_of(self, what: str) -> list[str]:
        return [order["path"] for asked, order in self.asked if asked == what]

    def server(self) -> TestServer:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/fill", self._fill)
        app.router.add_post("/v1/verify", self._verify)
        app.router.add_post("/v1/pledges", self._pledges)
        app.router.add_get("/v1/pressure", self._pressure)
        app.router.add_get("/v1/document", self._document)
        return TestServer(app)

    async def _fill(self, request: web.Request) -> web.Response:
        order = await request.json()
        self.asked.append(("fill", order))
        path, start, stop = order["path"], order["start"], order["stop"]
        if self.troubles[path]:
            return _refused(self.troubles[path].popleft())
        if start in self.held[path]:
            return web.json_response({"held_bytes": stop - start, "source_bytes": {}})
        peer = self.at_peers.get(path)
        if peer in order["peers"]:
            kind = "peer"
        elif order["only_peers"]:
            return _refused("no_peer")
        elif path not in self.sizes:
            return _refused("absent")
        elif self.sizes[path] != order["size"]:
            return _refused("changed")
        else:
            kind = "origin"
        self.fetched[path, start] += 1
        self.held[path].add(start)
        return web.json_response({"held_bytes": 0, "source_bytes": {kind: stop - start}})

    async def _verify(self, request: web.Request) -> web.Response:
        order = await request.json()
        self.asked.append(("verify", order))
        path = order["path"]
        if not self.held[path]:
            return web.json_response({"right": False, "reason": "missing"})
        if self.wrong[path]:
            self.wrong[path] -= 1
            self.held[path].clear()
            return web.json_response({"right": False, "reason": "checksum"})
        return web.json_response({"right": True})

    async def _pledges(self, request: web.Request) -> web.Response:
        order = await request.json()
        self.asked.append(("pledges", order))
        names = [*order["paths"], *order["folders"]]
        counts, absent = 0, []
        for name in names:
            below = [path for path in self.held if path == name or path.startswith(name + "/")]
            some = [path for path in below if self.held[path]]
            if not some:
                absent.append(name)
            for path in some:
                if order["until"]:
                    more = 0 if path in self.pledged else self.sizes[path]
                    if sum(self.sizes[one] for one in self.pledged) + more > self.room:
                        return _refused("no_room")
                    self.pledged[path] = order["until"]
                else:
                    self.pledged.pop(path, None)
                counts += self.sizes[path]
        return web.json_response({"pledged": len(names) - len(absent), "bytes": counts, "absent": absent})

    async def _pressure(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"egress_bps": 9 if self.pressed else 0, "link_bps": 10, "devices": [], "pledged_bytes": 0}
        )

    async def _document(self, request: web.Request) -> web.Response:
        path = request.query["path"]
        if self.troubles[path]:
            return _refused(self.troubles[path].popleft())
        body = self.documents.get(path)
        return _refused("absent") if body is None else web.Response(body=body)


def _refused(reason: str) -> web.Response:
    status = {"absent": 404, "changed": 409, "no_peer": 503, "no_room": 507, "busy": 429}.get(reason, 502)
    return web.json_response({"error": f"said the double: {reason}", "reason": reason}, status=status)
