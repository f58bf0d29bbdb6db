"""Viewers with a real browser and real players."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from playwright.sync_api import Browser, Error, Page, sync_playwright
from playwright.sync_api import TimeoutError as TookTooLong

from admin.demo.smoke import BROWSER_ARGUMENTS, find_browser
from tests.doubles.appliance import PATIENCE
from tests.doubles.networks import Machine
from tests.doubles.origin import Origin
from wire.access import split_path

PLAYERS = Path(__file__).with_name("players")
_ASSETS = Path(__file__).parents[2] / "admin" / "demo" / "assets"
_OF_THE_DEMO = ("hls.min.js", "dash.all.min.js", "places.js", "players.js", "felt.js")
_TYPES = {".html": "text/html", ".js": "text/javascript"}
_AHEAD = 12
"""Seconds that a player fetches before they are seen."""


class Segment(NamedTuple):
    """One that came whole."""

    host: str
    rendition: str
    number: int
    """The first is 1."""
    at: float
    """When it was asked for, in seconds since 1970."""


class Answer(NamedTuple):
    """One of steering's, to a player."""

    asked_at: float
    at: float
    """When the player had it, in seconds since 1970."""
    first: str
    """The pathway that it is to take."""


class Request(NamedTuple):
    """Whatever the page or its player asked for, of anybody."""

    url: str
    at: float
    """Seconds since 1970."""
    status: int
    """0: no answer came."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def token(self) -> str | None:
        """That stands before the path."""
        token, _ = split_path(urlsplit(self.url).path.encode())
        return None if token is None else token.decode()

    @property
    def path(self) -> str:
        """Without the token."""
        return split_path(urlsplit(self.url).path.encode())[1].decode()


def serve_page(origin: Origin) -> None:
    """Have the pages with the players there."""
    for path in (*(_ASSETS / name for name in _OF_THE_DEMO), *PLAYERS.glob("*.html"), *PLAYERS.glob("*.js")):
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

    @property
    def answers(self) -> list[Answer]:
        """Steering's, in the order in which they were asked for."""
        questions, answers = self._page.evaluate("[viewing.questions, viewing.answers]")
        return [Answer(asked_at, **answer) for asked_at, answer in zip(questions, answers, strict=False)]

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

    # --- Of who pressed play ---

    @property
    def requests(self) -> list[Request]:
        return [Request(**each) for each in self._page.evaluate("viewing.allRequests()")]

    @property
    def place(self) -> str:
        """Where the film is played from now: an appliance."""
        return self._page.evaluate("viewing.places.current.id")

    @property
    def moves(self) -> list[tuple[str, str, str]]:
        """From where, to where, and why."""
        return [(each["from"], each["to"], each["why"]) for each in self._page.evaluate("viewing.moves")]

    @property
    def left_at(self) -> float:
        """When the first place was left, in seconds since 1970."""
        return self._page.evaluate("(performance.timeOrigin + viewing.moves[0].at) / 1000")

    def pause(self) -> None:
        self._page.evaluate("video.pause()")

    def go_on(self) -> None:
        self._page.evaluate("video.play()")

    @property
    def presses(self) -> int:
        """On play, by the page: the first time or again."""
        return self._page.evaluate("viewing.presses")

    def felt(self) -> tuple[int, float]:
        """How often the picture had to stop, and the fewest seconds that were ever in the buffer."""
        return self._page.evaluate("[viewing.felt.stalls, viewing.felt.leastBuffer]")

    def wait_whole(self) -> None:
        """Until all that is left of the film has been fetched."""
        self._page.evaluate("viewing.ahead(3600)")
        self.wait("viewing.felt.isWhole()")

    def wait_over(self) -> None:
        """Until the film has been seen to its end, in a hurry once all of it is there."""
        self.wait_whole()
        self.hurry()
        self.wait("viewing.isOver")

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
        asked = {"player": player, "manifest": manifest, "ahead": _AHEAD}
        with self._page(f"watch.html?{urlencode(asked)}") as viewing:
            yield viewing

    @contextmanager
    def pressing_play(self, player: str, steering: str, title: str, token: str, **more: Any) -> Iterator[Viewing]:
        """A new viewer who presses play there; the film runs. `ahead`: seconds that the player fetches before they are
        seen; `cookies`: that it keeps those of appliances; `playback`: what steering said when play was pressed before.
        """
        asked = {"player": player, "steering": steering, "title": title, "token": token, **more}
        with self._page(f"press.html?{urlencode(asked)}") as viewing:
            yield viewing

    @contextmanager
    def _page(self, name: str) -> Iterator[Viewing]:
        context = self._browser.new_context()
        try:
            page = context.new_page()
            page.set_default_timeout(PATIENCE * 1000)
            page.goto(self._page_url + name)
            viewing = Viewing(page)
            viewing.wait_past(0)
            yield viewing
        finally:
            with suppress(Error):
                context.close()


@contextmanager
def screen(at: Machine | None, page_url: str, hosts: Mapping[str, str]) -> Iterator[Screen]:
    """A headless Chromium on this machine (None: on ours), which knows these hosts' addresses."""
    rules = ",".join(f"MAP {name} {address}" for name, address in hosts.items())
    with nullcontext() if at is None else at.entered():
        driver = sync_playwright().start()
    try:
        # Encrypted films are for secure pages only, which an operator's page is.
        page = "{0.scheme}://{0.netloc}".format(urlsplit(page_url))
        arguments = [
            *BROWSER_ARGUMENTS,
            f"--host-resolver-rules={rules}",
            f"--unsafely-treat-insecure-origin-as-secure={page}",
        ]
        browser = driver.chromium.launch(executable_path=find_browser(), headless=True, args=arguments)
        try:
            yield Screen(browser, page_url)
        finally:
            browser.close()
    finally:
        driver.stop()
