"""The page: what it is told, what it may load, and that nothing is shown as markup."""

import re
from pathlib import Path

import aiohttp
import msgspec
import pytest

from admin.demo.page import Film, film, served
from admin.errors import MachineError

APPLIANCE = "http://127.0.0.1:8080"


@pytest.fixture
def shown(published):
    return film(published.title("metropolis"), APPLIANCE, published.url)


async def test_the_page_is_told_what_the_catalogue_says(shown, published):
    async with served(shown, 0) as url, aiohttp.ClientSession() as client, client.get(f"{url}film.json") as answer:
        told = msgspec.json.decode(await answer.read(), type=Film)
    assert told == shown
    assert told.playlist_url == f"{APPLIANCE}/titles/metropolis/master.m3u8"
    assert {f"{each.folder}/init.mp4" for each in told.renditions} <= set(published.paths())


@pytest.mark.parametrize("path", ["", "demo.js", "demo.css", "hls.min.js", "hls.LICENSE"])
async def test_every_file_is_served_and_may_reach_only_the_appliance(shown, path):
    async with served(shown, 0) as url, aiohttp.ClientSession() as client, client.get(url + path) as answer:
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert f"connect-src 'self' {APPLIANCE};" in policy
        assert "default-src 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_nothing_else_is_served(shown):
    async with served(shown, 0) as url, aiohttp.ClientSession() as client:
        for path in ("page.py", "..%2fpage.py", "assets/index.html", "%2e%2e/parts.py"):
            async with client.get(url + path) as answer:
                assert answer.status == 404


async def test_a_port_that_is_taken_is_said_to_be_so(shown):
    async with served(shown, 0) as url:
        port = int(re.search(r":(\d+)/", url)[1])
        with pytest.raises(MachineError, match=f"port {port} can't be used"):
            async with served(shown, port):
                pass


def test_the_script_never_writes_markup():
    script = (Path(__file__).parents[3] / "admin" / "demo" / "assets" / "demo.js").read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script
