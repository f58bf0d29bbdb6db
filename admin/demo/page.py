"""The demo's page, served on loopback: files from assets/, what there is to play and where one may be, and a way to
fail and revive what runs.

The page stands before steering as an operator's front end does: it passes on what players ask, and says by
X-Forwarded-For where its viewer pretends to be.
"""

import importlib.resources
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from admin.demo.house import House
from admin.demo.town import BOXES, PARENT, PLACES
from admin.errors import AdminError, MachineError, UsageError
from admin.publish.keys import Keys
from wire.catalog import Title

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HOST: Final = "127.0.0.1"
_ASSETS: Final = {
    "/": ("index.html", "text/html"),
    "/demo.css": ("demo.css", "text/css"),
    "/demo.js": ("demo.js", "text/javascript"),
    "/places.js": ("places.js", "text/javascript"),
    "/players.js": ("players.js", "text/javascript"),
    "/felt.js": ("felt.js", "text/javascript"),
    "/hls.min.js": ("hls.min.js", "text/javascript"),
    "/hls.LICENSE": ("hls.LICENSE", "text/plain"),
    "/dash.all.min.js": ("dash.all.min.js", "text/javascript"),
    "/dash.LICENSE": ("dash.LICENSE", "text/plain"),
}
_ADDRESSES: Final = {place.id: place.address for place in PLACES}
_PLACE: Final = "place"
"""A cookie: where the viewer pretends to be."""
_OURS: Final = "X-Demo"
"""A header that pages of other sites can't send: what changes something wants it."""
_LICENCE: Final = "/licence"
_LONGEST_QUESTION: Final = 4096
_DEADLINE: Final = 5.0
_PASSED_ON: Final = ("Content-Type", "WWW-Authenticate", "Retry-After")


class _Question(msgspec.Struct, frozen=True):
    kids: list[str]


class Rendition(msgspec.Struct, frozen=True):
    """A rendition as the page shows it. `folder` is the URL path its files are in."""

    name: str
    kind: str
    folder: str
    bandwidth_bps: int
    size_bytes: int
    width: int | None
    height: int | None


class Film(msgspec.Struct, frozen=True):
    """What there is to see, and where one may be."""

    title: str
    duration: float
    renditions: tuple[Rendition, ...]
    places: dict[str, str]
    """Names by ids."""
    cities: dict[str, str]
    """Of appliances, by their ids."""
    parent: str


def film(title: Title) -> Film:
    """The page's view of a title in the catalogue."""
    return Film(
        title=title.title,
        duration=title.duration,
        renditions=tuple(
            Rendition(
                each.name,
                str(each.kind),
                each.objects[0].path.rpartition("/")[0],
                each.bandwidth_bps,
                each.size_bytes,
                each.width,
                each.height,
            )
            for each in title.renditions
        ),
        places={place.id: place.name for place in PLACES},
        cities={box.id: box.city for box in BOXES},
        parent=PARENT,
    )


class Page:
    """Handlers over one house."""

    def __init__(self, shown: Film, house: House, keys: Keys | None, session: aiohttp.ClientSession) -> None:
        self._shown = msgspec.json.encode(shown)
        self._sizes = {each.folder: each.size_bytes for each in shown.renditions}
        self._house = house
        self._session = session
        self._keys = {each.kid: each.key for each in ((keys.video, keys.audio) if keys else ())}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[_told])
        for path, (name, content_type) in _ASSETS.items():
            app.router.add_get(path, _file(name, content_type, list(self._house.urls.values())))
        app.router.add_get("/film.json", self._film)
        app.router.add_get("/token", self._token)
        for path in ("/v1/playback", "/v1/content-steering"):
            app.router.add_get(path, self._steer)
        app.router.add_get("/api/explain", self._explain)
        app.router.add_get("/api/fleet", self._fleet)
        app.router.add_post(_LICENCE, self._licence)
        app.router.add_post("/api/fail", self._fail)
        app.router.add_post("/api/revive", self._revive)
        app.router.add_get("/api/night", self._night)
        app.router.add_post("/api/night", self._begin_night)
        return app

    async def _film(self, _: web.Request) -> web.StreamResponse:
        return _json(self._shown)

    async def _token(self, _: web.Request) -> web.StreamResponse:
        """A viewer's, as a log-in would give it."""
        return _json(msgspec.json.encode({"token": self._house.login.token()}))

    async def _licence(self, request: web.Request) -> web.StreamResponse:
        """Keys of the film, as a licence server gives them (ClearKey, Encrypted Media Extensions 9.1.3 and 9.1.4)."""
        try:
            asked = msgspec.json.decode(await request.content.read(_LONGEST_QUESTION), type=_Question)
            kids = [urlsafe_b64decode(kid + "==") for kid in asked.kids]
        except (msgspec.DecodeError, ValueError) as error:
            raise UsageError(f"no question for a licence ({error})") from error
        given = [
            {"kty": "oct", "kid": _unpadded(kid), "k": _unpadded(self._keys[kid])} for kid in kids if kid in self._keys
        ]
        return _json(msgspec.json.encode({"keys": given, "type": "temporary"}), 200 if given else 404)

    async def _steer(self, request: web.Request) -> web.StreamResponse:
        headers = {"X-Forwarded-For": _address(request)}
        if "Authorization" in request.headers:
            headers["Authorization"] = request.headers["Authorization"]
        url = f"{self._house.public_url}{request.rel_url.raw_path_qs}"
        return await self._passed_on(url, headers)

    async def _explain(self, request: web.Request) -> web.StreamResponse:
        query = {"client": _address(request), "path": request.query.get("path", "/")}
        if "current" in request.query:
            query["current"] = request.query["current"]
        return await self._passed_on(f"{self._house.admin_url}/v1/explain", {}, query)

    async def _fleet(self, _: web.Request) -> web.StreamResponse:
        """Of each part whether its process lives, and of appliances what steering believes."""
        alive = {name: part.is_alive for name, part in self._house.appliances.items()}
        alive[self._house.steering.name] = self._house.steering.is_alive
        standing: dict[str, str] = {}
        try:
            async with self._session.get(f"{self._house.admin_url}/v1/fleet") as answer:
                for one in (await answer.json())["appliances"]:
                    standing[one["id"]] = one["standing"]
        except (aiohttp.ClientError, TimeoutError):
            pass  # Steering is what was killed.
        return _json(msgspec.json.encode({"alive": alive, "standing": standing}))

    async def _fail(self, request: web.Request) -> web.StreamResponse:
        self._house.fail(_named(request))
        return _json(b"{}")

    async def _revive(self, request: web.Request) -> web.StreamResponse:
        self._house.revive(_named(request))
        return _json(b"{}")

    async def _night(self, _: web.Request) -> web.StreamResponse:
        return _json(msgspec.json.encode(self._house.night.told))

    async def _begin_night(self, _: web.Request) -> web.StreamResponse:
        self._house.night.begin(self._sizes)
        return _json(msgspec.json.encode(self._house.night.told))

    async def _passed_on(
        self, url: str, headers: dict[str, str], query: dict[str, str] | None = None
    ) -> web.StreamResponse:
        try:
            async with self._session.get(
                # What is escaped stays as it is.
                url if query else URL(url, encoded=True),
                headers=headers,
                params=query,
                allow_redirects=False,
            ) as answer:
                kept = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
                return web.Response(
                    body=await answer.read(), status=answer.status, headers=kept | {"Cache-Control": "no-store"}
                )
        except (aiohttp.ClientError, TimeoutError) as error:
            return _json(msgspec.json.encode({"error": f"steering does not answer: {error}"}), 502)


@asynccontextmanager
async def served(shown: Film, house: House, keys: Keys | None, port: int) -> AsyncIterator[str]:
    """The page's URL, while it is served."""
    timeout = aiohttp.ClientTimeout(total=_DEADLINE)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        runner = web.AppRunner(Page(shown, house, keys, session).application(), access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, _HOST, port).start()
            except OSError as error:
                raise MachineError(f"port {port} can't be used ({error.strerror}); choose another --port") from error
            yield f"http://{_HOST}:{runner.addresses[0][1]}/"
        finally:
            await house.night.close()
            await runner.cleanup()


@web.middleware
async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only this page changes anything, and what was wrong is said."""
    # Players ask for licences by themselves; that changes nothing.
    if request.method == "POST" and request.path != _LICENCE and _OURS not in request.headers:
        return _json(msgspec.json.encode({"error": f"the header {_OURS} is missing"}), 403)
    try:
        return await handler(request)
    except AdminError as error:
        return _json(msgspec.json.encode({"error": str(error)}), 400)


def _named(request: web.Request) -> str:
    name = request.query.get("name")
    if not name:
        raise UsageError('"name" is missing: that of an appliance, or steering')
    return name


def _address(request: web.Request) -> str:
    place = request.cookies.get(_PLACE, PLACES[0].id)
    if place not in _ADDRESSES:
        raise UsageError(f"nobody is at {place[:40]!r}; allowed: {', '.join(_ADDRESSES)}")
    return _ADDRESSES[place]


def _file(name: str, content_type: str, appliances: list[str]) -> Handler:
    body = (importlib.resources.files("admin.demo") / "assets" / name).read_bytes()
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:;"
        f" connect-src 'self' {' '.join(appliances)};"
        " media-src blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    return answer


def _unpadded(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(
        body=body, status=status, content_type="application/json", headers={"Cache-Control": "no-store"}
    )
