"""Viewers with a real browser and real players, on a machine of their own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from playwright.sync_api import Browser, Error, Page, sync_playwright
from playwright.sync_api import TimeoutError as TookTooLong

from admin.demo.smoke import BROWSER_ARGUMENTS, find_browser
from tests.doubles.appliance import PATIENCE
from tests.doubles.networks import Machine
from tests.doubles.origin import Origin

PLAYERS = Path(__file__).with_name("players")
_ASSETS = Path(__file__).parents[2] / "admin" / "demo" / "assets"
_OF_THE_DEMO = (_ASSETS / "hls.min.js", _ASSETS / "dash.mediaplayer.min.js")
_TYPES = {".html": "text/html", ".js": "text/javascript"}
_AHEAD = 12
"""Seconds that a player fetches before they are seen."""


class Segment(NamedTuple):
    """One that came whole."""

    host: str
    rendition: str
    number: int
    """The first is 1."""


def serve_page(origin: Origin) -> None:
    """Have the page with the players there."""
    for path in (*_OF_THE_DEMO, PLAYERS / "watch.html", *PLAYERS.glob("*.js")):
        origin.put(f"/{path.name}", path.read_bytes(), content_type=_TYPES[path.suffix])


class Viewing:
    """One film that is being watched. Whatever is waited for, trouble in the player ends it."""

    def __init__(self, page: Page) -> None:
        self._page = page

    @property
    def position(self) -> float:
        """Seconds of the film."""
        return self._page.evaluate("video.currentTime")

    @property
    def segments(self) -> list[Segment]:
        """In the order in which they came."""
        return [Segment(**each) for each in self._page.evaluate("viewing.segments")]

    def hosts(self) -> set[str]:
        return {segment.host for segment in self.segments}

    def hurry(self) -> None:
        """Watch on at eight times the speed."""
        self._page.evaluate("video.playbackRate = 8")

    def wait(self, condition: str, argument: Any = None) -> None:
        """Until this expression of JavaScript, in which `it` is the argument, holds."""
        with suppress(TookTooLong):
            self._page.wait_for_function(f"(it) => viewing.trouble || ({condition})", arg=argument)
        trouble, holds = self._page.evaluate(f"(it) => [viewing.trouble, Boolean({condition})]", argument)
        assert trouble is None, f"{trouble}; {self}"
        assert holds, f"waited in vain until {condition}, where it is {argument!r}; {self}"

    def wait_past(self, position: float) -> None:
        self.wait("video.currentTime > it", position)

    def __str__(self) -> str:
        came = " ".join(f"{one.host}/{one.rendition}/{one.number}" for one in self.segments)
        return f"at {self.position:.1f} s; what came: {came}"


class Screen:
    """A browser. Made by `screen`."""

    def __init__(self, browser: Browser, page_url: str) -> None:
        self._browser = browser
        self._page_url = page_url

    @contextmanager
    def watching(self, player: str, manifest: str) -> Iterator[Viewing]:
        """A new viewer of this manifest; the film runs."""
        context = self._browser.new_context()
        try:
            page = context.new_page()
            page.set_default_timeout(PATIENCE * 1000)
            asked = urlencode({"player": player, "manifest": manifest, "ahead": _AHEAD})
            page.goto(f"{self._page_url}watch.html?{asked}")
            viewing = Viewing(page)
            viewing.wait_past(0)
            yield viewing
        finally:
            with suppress(Error):
                context.close()


@contextmanager
def screen(at: Machine, page_url: str, hosts: Mapping[str, str]) -> Iterator[Screen]:
    """A headless Chromium on this machine, which knows these hosts' addresses."""
    rules = ",".join(f"MAP {name} {address}" for name, address in hosts.items())
    with at.entered():
        driver = sync_playwright().start()
    try:
        arguments = [*BROWSER_ARGUMENTS, f"--host-resolver-rules={rules}"]
        browser = driver.chromium.launch(executable_path=find_browser(), headless=True, args=arguments)
        try:
            yield Screen(browser, page_url)
        finally:
            browser.close()
    finally:
        driver.stop()
