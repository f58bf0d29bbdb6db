"""A steering replica, on loopback in a thread: it keeps what it was told and answers as a test tells it."""

import asyncio
import json
import threading
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from pyroaring import BitMap

from tests.doubles.appliance import wait_until
from wire.codec import decode, encode
from wire.heartbeat import Heartbeat, HeartbeatAnswer
from wire.holdings import Holdings

TOKEN = "a-token-of.the_test"


@dataclass
class Told:
    """One request."""

    path: str
    body: bytes
    authorization: str | None
    appliance: str | None
    """As the header X-Appliance names it."""


class Steering:
    """Start it with `with Steering() as steering`. Heartbeats are asked for once a second, so that tests need not wait
    long; holdings are wanted whenever their version is not known here.
    """

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.drain = False
        self.refusal: tuple[int, bytes] | None = None
        """Status and body of every answer, while it is set."""
        self.is_silent = False
        """Requests are taken and not answered."""
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self._known = ("", 0)
        self._known_prefixes = ("", 0)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- What it heard ------------------------------------------------------------------------------------------------

    @property
    def heartbeats(self) -> list[Heartbeat]:
        return [decode(told.body, Heartbeat) for told in list(self.told) if told.path == "/v1/heartbeat"]

    @property
    def holdings(self) -> list[Holdings]:
        return [decode(told.body, Holdings) for told in list(self.told) if told.path == "/v1/holdings"]

    @property
    def held(self) -> set[int] | None:
        """Numbers of renditions that it was told last; None if never."""
        holdings = self.holdings
        return set(BitMap.deserialize(holdings[-1].bitmap)) if holdings else None

    def wait_heartbeat(self, holds=lambda _: True, what: str = "a heartbeat comes") -> Heartbeat:
        """The first heartbeat from now on for which `holds`."""
        begin = len(self.heartbeats)
        return wait_until(lambda: next((one for one in self.heartbeats[begin:] if holds(one)), None), what)

    def wait_held(self, numbers: set[int]) -> None:
        wait_until(lambda: self.held == numbers, f"it is told that {numbers} are held; last was {self.held}")

    # --- Serving ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        started = threading.Event()

        async def serve() -> None:
            app = web.Application(client_max_size=2**24)
            app.router.add_post("/v1/{what}", self._answer)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await self._runner.setup()
            site = web.TCPSite(self._runner, "127.0.0.1", self.port)
            await site.start()
            self.port = site._server.sockets[0].getsockname()[1]
            started.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(serve())
            self._loop.run_forever()
            self._loop.close()

        self._thread = threading.Thread(target=run, name="steering", daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._released.set()
            await self._runner.cleanup()
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)
        self._thread.join(10)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.told.append(
            Told(request.path, body, request.headers.get("Authorization"), request.headers.get("X-Appliance"))
        )
        if self.is_silent:
            await self._released.wait()
        if self.refusal is not None:
            status, content = self.refusal
            return web.Response(status=status, body=content)
        if request.path == "/v1/heartbeat":
            heartbeat = decode(body, Heartbeat)
            known = (heartbeat.boot, heartbeat.holdings_version)
            wants = heartbeat.holdings_version > 0 and known != self._known
            learned = (heartbeat.boot, heartbeat.prefixes_version)
            wants_prefixes = heartbeat.prefixes_version > 0 and learned != self._known_prefixes
            self._known_prefixes = learned
            answer = HeartbeatAnswer(
                drain=self.drain, wants_holdings=wants, wants_prefixes=wants_prefixes, interval=1.0
            )
            return web.Response(body=encode(answer), content_type="application/json")
        if request.path == "/v1/holdings":
            holdings = decode(body, Holdings)
            self._known = (holdings.boot, holdings.version)
        return web.Response(status=204)


def refusal(status: int, error: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": error}).encode()


def settings(*replicas: Steering, folder: Any, **more: Any) -> dict[str, Any]:
    """The [steering] section for these replicas; the token lies in `folder`."""
    token = folder / "token"
    if not token.exists():
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)
    return {
        "urls": [replica.url for replica in replicas],
        "token_file": str(token),
        "interval": "1 s",
        "holdings_interval": "1 s",
        "interfaces": ["lo"],
        **more,
    }
