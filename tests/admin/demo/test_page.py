"""The page: what it is told, what it may load, what it passes on, and that nothing is shown as markup."""

import re
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from yarl import URL

from admin.demo.house import House
from admin.demo.night import Night
from admin.demo.page import Film, film, served
from admin.demo.parts import Origin, Part
from admin.errors import MachineError
from admin.publish.keys import Keys, Scheme, TrackKey

KEYS = Keys(*(TrackKey(Scheme.CBCS, bytes([n]) * 16, bytes([n + 1]) * 16) for n in (1, 3)))
BOX = "http://127.0.0.1:8080"
ASSETS = Path(__file__).parents[3] / "admin" / "demo" / "assets"


class Steering:
    """What the page passes on is told."""

    def __init__(self):
        self.asked = []

    async def answer(self, request):
        self.asked.append((request.rel_url.raw_path_qs, dict(request.headers)))
        return web.json_response({"said": request.path}, status=203, headers={"Retry-After": "7", "Set-Cookie": "a=b"})


class LogIn:
    def token(self):
        return "a-token"


@pytest.fixture
async def steering():
    told = Steering()
    app = web.Application()
    app.router.add_get("/{path:.*}", told.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told.port = runner.addresses[0][1]
    yield told
    await runner.cleanup()


@pytest.fixture
def house(steering, tmp_path, s3):
    parts = {name: Part(name, [], 1, tmp_path / "log", {}) for name in ("lis-1", "mad-1")}
    return House(
        Part("steering", [], steering.port, tmp_path / "log", {}),
        parts,
        {"lis-1": BOX},
        steering.port,
        LogIn(),
        Night(tmp_path / "night", Origin("s3://films", s3, None, {}), parts, f"http://127.0.0.1:{steering.port}"),
        Part("console", [], 1, tmp_path / "log", {}),
        "a password",
    )


@pytest.fixture
def shown(published):
    return film(published.title("metropolis"))


@pytest.fixture
async def page(shown, house):
    async with served(shown, house, KEYS, 0) as url, aiohttp.ClientSession(url) as client:
        yield client


async def test_the_page_is_told_what_the_catalogue_says(page, shown, published):
    async with page.get("film.json") as answer:
        told = msgspec.json.decode(await answer.read(), type=Film)
    assert told == shown
    assert {f"{each.folder}/init.mp4" for each in told.renditions} <= set(published.paths())
    assert set(told.places) == {"lisbon", "madrid", "paris", "tokyo"}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "demo.js",
        "places.js",
        "players.js",
        "felt.js",
        "demo.css",
        "hls.min.js",
        "hls.LICENSE",
        "dash.all.min.js",
        "dash.LICENSE",
    ],
)
async def test_every_file_is_served_and_may_reach_only_appliances_and_the_page(page, path):
    async with page.get("/" + path) as answer:
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert f"connect-src 'self' {BOX};" in policy
        assert "default-src 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_nothing_else_is_served(page):
    for path in ("page.py", "..%2fpage.py", "assets/index.html", "%2e%2e/parts.py"):
        async with page.get(f"/{path}") as answer:
            assert answer.status == 404


async def test_a_port_that_is_taken_is_said_to_be_so(shown, house):
    async with served(shown, house, KEYS, 0) as url:
        port = int(re.search(r":(\d+)/", url)[1])
        with pytest.raises(MachineError, match=f"port {port} can't be used"):
            async with served(shown, house, KEYS, port):
                pass


async def test_steering_is_told_where_the_viewer_pretends_to_be(page, steering):
    headers = {"Authorization": "Bearer x", "X-Forwarded-For": "1.2.3.4", "Cookie": "place=tokyo"}
    async with page.get(URL("/v1/playback?title=a&codecs=avc1%2Cmp4a", encoded=True), headers=headers) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (203, "7")
        assert "Set-Cookie" not in answer.headers
    (asked,) = steering.asked
    assert asked[0] == "/v1/playback?title=a&codecs=avc1%2Cmp4a"
    assert asked[1]["X-Forwarded-For"] == "126.0.10.7"
    assert asked[1]["Authorization"] == "Bearer x"
    assert "Cookie" not in asked[1]


async def test_nobody_is_elsewhere(page, steering):
    async with page.get("/v1/content-steering?path=/x", headers={"Cookie": "place=atlantis"}) as answer:
        assert answer.status == 400
        assert "allowed: lisbon" in (await answer.json())["error"]
    assert steering.asked == []


async def test_a_decision_is_explained_for_the_viewers_place(page, steering):
    async with page.get("/api/explain?path=/titles/x/master.m3u8&current=lis-1") as answer:
        assert answer.status == 203
    assert steering.asked[0][0].startswith("/v1/explain?client=85.88.130.7&path=")


async def test_pages_of_other_sites_change_nothing(page):
    for path in ("/api/fail?name=lis-1", "/api/revive?name=lis-1", "/api/night"):
        async with page.post(path) as answer:
            assert answer.status == 403


async def test_a_night_begins_once_and_is_told(page, house):
    async with page.get("/api/night") as answer:
        assert (await answer.json())["phase"] == "never"
    async with page.post("/api/night", headers={"X-Demo": "1"}) as answer:
        assert (await answer.json())["phase"] == "counting"
    async with page.post("/api/night", headers={"X-Demo": "1"}) as answer:
        assert answer.status == 400
        assert "under way" in (await answer.json())["error"]


@pytest.mark.parametrize("name", ["", "lis-9", "../x"])
async def test_only_what_is_there_can_fail(page, name):
    async with page.post("/api/fail", params={"name": name}, headers={"X-Demo": "1"}) as answer:
        assert answer.status == 400


@pytest.mark.parametrize("name", ["demo.js", "places.js", "players.js", "felt.js"])
def test_the_scripts_never_write_markup(name):
    script = (ASSETS / name).read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script


async def test_a_player_gets_the_keys_it_asks_for_and_no_others(page):
    kid = "AQEBAQEBAQEBAQEBAQEBAQ"
    async with page.post("/licence", json={"kids": [kid, "BwcHBwcHBwcHBwcHBwcHBw"], "type": "temporary"}) as answer:
        assert await answer.json() == {
            "keys": [{"kty": "oct", "kid": kid, "k": "AgICAgICAgICAgICAgICAg"}],
            "type": "temporary",
        }
    async with page.post("/licence", json={"kids": ["BwcHBwcHBwcHBwcHBwcHBw"]}) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("question", [b"", b"{}", b'{"kids": [1]}', b'{"kids": ["\xc3\xa9"]}', b'{"kids": ["a"]}'])
async def test_what_is_no_question_for_a_licence_is_refused(page, question):
    async with page.post("/licence", data=question) as answer:
        assert answer.status == 400
        assert "licence" in (await answer.json())["error"]
