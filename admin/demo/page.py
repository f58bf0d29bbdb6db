"""The demo's page, served on loopback: files from assets/, and one document that says what to play."""

import importlib.resources
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from aiohttp import web

from admin.demo.parts import APPLIANCE_ID
from admin.errors import MachineError
from wire.catalog import Title, title_folder

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HOST: Final = "127.0.0.1"
_ASSETS: Final = {
    "/": ("index.html", "text/html"),
    "/demo.css": ("demo.css", "text/css"),
    "/demo.js": ("demo.js", "text/javascript"),
    "/hls.min.js": ("hls.min.js", "text/javascript"),
    "/hls.LICENSE": ("hls.LICENSE", "text/plain"),
}


class Rendition(msgspec.Struct, frozen=True):
    """A rendition as the page shows it. `folder` is the URL path its files are in."""

    name: str
    kind: str
    folder: str
    bandwidth_bps: int
    width: int | None
    height: int | None


class Film(msgspec.Struct, frozen=True):
    """What the page plays, from where."""

    title: str
    duration: float
    appliance_id: str
    appliance_url: str
    playlist_url: str
    origin_url: str
    renditions: tuple[Rendition, ...]


def film(title: Title, appliance_url: str, origin_url: str) -> Film:
    """The page's view of a title in the catalogue."""
    return Film(
        title=title.title,
        duration=title.duration,
        appliance_id=APPLIANCE_ID,
        appliance_url=appliance_url,
        playlist_url=f"{appliance_url}{title_folder(title.title)}/master.m3u8",
        origin_url=origin_url,
        renditions=tuple(
            Rendition(
                each.name,
                str(each.kind),
                each.objects[0].path.rpartition("/")[0],
                each.bandwidth_bps,
                each.width,
                each.height,
            )
            for each in title.renditions
        ),
    )


@asynccontextmanager
async def served(shown: Film, port: int) -> AsyncIterator[str]:
    """The page's URL, while it is served. Port 0 takes a free one."""
    application = web.Application()
    for path, (name, content_type) in _ASSETS.items():
        application.router.add_get(path, _file(name, content_type, shown.appliance_url))
    application.router.add_get("/film.json", _document(msgspec.json.encode(shown)))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, _HOST, port)
        try:
            await site.start()
        except OSError as error:
            raise MachineError(f"port {port} can't be used ({error.strerror}); choose another --port") from error
        yield f"http://{_HOST}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def _file(name: str, content_type: str, appliance_url: str) -> Handler:
    body = (importlib.resources.files("admin.demo") / "assets" / name).read_bytes()
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' {appliance_url};"
        " media-src blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    return answer


def _document(body: bytes) -> Handler:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    return answer
