"""The console from start to end: builds every part, owns the TaskGroup, and ends when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp import web

from admin.console.alerts import Alertmanager
from admin.console.api import Api, bucket_of, failures
from admin.console.charts import Prometheus
from admin.console.door import Door
from admin.console.jobs import Jobs
from admin.console.ledger import Ledger
from admin.console.night import Night
from admin.console.oidc import Provider
from admin.console.settings import Settings
from admin.console.watching import Watching
from admin.errors import AdminError, MachineError, UsageError
from admin.fleet.asking import desk
from wire.toml import host_and_port

log = logging.getLogger(__name__)

_STOP: Final = 3.0
_MOST_SECRET: Final = 4096
_KINDS: Final = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Until SIGTERM or SIGINT. `ready` is told where. Raises AdminError if it can't start."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        await served(settings, ready, stopped)
    except BaseExceptionGroup as group:
        # What a TaskGroup was left by, as what it is.
        known = group.subgroup(AdminError)
        raise next(iter(known.exceptions)) if known is not None else group from None


async def served(settings: Settings, ready: Callable[[str], None], stopped: asyncio.Event) -> None:
    """Until `stopped`."""
    async with contextlib.AsyncExitStack() as stack:
        ledger = stack.enter_context(Ledger(Path(settings.state_dir) / "console.sqlite"))
        session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
        at = await stack.enter_async_context(desk(settings.steering))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        provider = None
        if settings.oidc is not None:
            provider = Provider(settings.oidc, _secret(settings.oidc.client_secret_file), session, time.time)
        alertmanager = None if settings.alertmanager is None else Alertmanager(settings.alertmanager.url, session)
        prometheus = None if settings.prometheus is None else Prometheus(settings.prometheus.url, session)
        door = Door(settings, ledger, provider, time.time)
        watching = Watching(at, alertmanager, ledger, time.time)
        jobs = Jobs(at, time.time, group.create_task, watching.job)
        api = Api(
            settings,
            door,
            ledger,
            at,
            watching,
            jobs,
            Night(at, bucket_of(settings), time.time),
            alertmanager,
            prometheus,
            time.time,
        )
        app = web.Application(middlewares=[door.guard, failures], client_max_size=64 * 1024)
        door.add_routes(app)
        api.add_routes(app)
        _add_assets(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP, handler_cancellation=True)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        host, port = host_and_port(settings.listen)
        try:
            await web.TCPSite(runner, host, port, ssl_context=_tls(settings)).start()
        except OSError as error:
            raise MachineError(f"{settings.listen}: can't be listened on: {error.strerror or error}") from error
        look = group.create_task(watching.run())
        ready(settings.origin)
        await stopped.wait()
        look.cancel()
        jobs.stop()


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls.cert, settings.tls.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"tls: {settings.tls.cert} and {settings.tls.key} can't be used: {error}") from error
    return context


def _secret(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(_MOST_SECRET).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"oidc.client_secret_file: {path}: can't be read: {error}") from error


def _add_assets(app: web.Application) -> None:
    """Read once: a few files, 150 KB in all."""
    folder = resources.files("admin.console") / "assets"
    for entry in folder.iterdir():
        kind = _KINDS.get(Path(entry.name).suffix)
        if kind is not None:
            where = "/" if entry.name == "index.html" else f"/assets/{entry.name}"
            app.router.add_get(where, _asset(entry.read_bytes(), kind))


def _asset(body: bytes, kind: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        said = web.Response(
            body=body, content_type=kind, charset="utf-8", headers={"Cache-Control": "private, no-cache"}
        )
        said.enable_compression()
        return said

    return answer
