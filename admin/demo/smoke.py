"""The demo watched by a machine: a headless Chromium plays the film, twice, after a night, and while appliances die,
and we look at what it saw.
"""

import importlib
import importlib.util
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from admin.demo.night import Phase, Told
from admin.errors import AdminError, MachineError

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

BROWSER_ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PAGE_DEADLINE: Final = 60.0
_NIGHT_DEADLINE: Final = 180.0
#: How much of the film must be seen to move.
_WATCHED_SECONDS: Final = 3
#: More than a player has in its buffer: what is seen then came from the new place.
_PASSED_SECONDS: Final = 16

_LOOK: Final = """() => {
  const video = document.getElementById('video');
  const canvas = document.createElement('canvas');
  canvas.width = 64; canvas.height = 36;
  const pencil = canvas.getContext('2d');
  pencil.drawImage(video, 0, 0, 64, 36);
  let print = 0;
  for (const value of pencil.getImageData(0, 0, 64, 36).data) print = (print * 31 + value) % 1000000007;
  return {time: video.currentTime, frames: video.getVideoPlaybackQuality().totalVideoFrames, print};
}"""
_DELIVERIES: Final = """() => window.demo.deliveries.map((each) => ({
  path: each.path, kind: each.kind, bytes: each.bytes, cacheStatus: each.cacheStatus, firstByte: each.firstByte,
}))"""
_TROUBLE: Final = "() => window.demo && window.demo.trouble"


_SWITCHED: Final = """() => ({
  current: demo.places.current.id, stalls: demo.felt.stalls, leastBuffer: demo.felt.leastBuffer,
})"""


class SmokeFailed(AdminError):
    """What was seen is not what the demo promises."""

    exit_code = 1


class Look(msgspec.Struct, frozen=True):
    """The picture at one moment: film time, frames decoded so far, and a fingerprint of its pixels."""

    time: float
    frames: int
    print: int


class Delivery(msgspec.Struct, frozen=True, rename="camel"):
    """One file as the page received it. `cache_status` is the header's own text, None when there was none."""

    path: str
    kind: str
    bytes: int
    cache_status: str | None
    first_byte: float

    @property
    def is_hit(self) -> bool:
        """Whether the cache nearest to the viewer had it (RFC 9211: the last member is the nearest cache)."""
        nearest = (self.cache_status or "").rpartition(",")[2]
        return "hit" in [part.strip() for part in nearest.split(";")[1:]]


class Switched(msgspec.Struct, frozen=True, rename="camel"):
    """What a viewer felt while an appliance was killed."""

    current: str
    """Who plays now."""
    stalls: int
    least_buffer: float
    """Seconds."""


@dataclass(frozen=True)
class Viewing:
    """What one viewing of the page showed."""

    before: Look
    after: Look
    deliveries: tuple[Delivery, ...]

    @property
    def segments(self) -> tuple[Delivery, ...]:
        return tuple(each for each in self.deliveries if each.kind != "playlist")


async def smoke(page_url: str, rendition: str, fail: Callable[[str], None], say: Callable[[str], None]) -> None:
    """View the page twice, each time as a new viewer, once more after a night and elsewhere, and then with each player
    while what it plays from is killed (`fail`), the second time with steering away as well. Raises SmokeFailed naming
    the first promise that was not kept.
    """
    async with _browser() as browser:
        # Held to one rendition: left to itself, the player may ask for other segments the second time. And in a city
        # with one appliance: steering may spread viewers over two.
        url = f"{page_url}?rendition={rendition}"
        for count in ("first", "second"):
            async with _viewed(browser, f"{url}&place=madrid") as page:
                viewing = await _watched(page)
                say(f"{count} viewing: {_report(viewing)}")
                _require_moving_picture(viewing, count)
        _require_all_hits(viewing, "the second viewing")
        # Nobody has watched there yet.
        async with _viewed(browser, f"{page_url}?player=dash&place=tokyo") as page:
            say(f"a night: {await _night(page)}")
        async with _viewed(browser, f"{url}&place=paris") as page:
            viewing = await _watched(page)
            say(f"the morning in Paris: {_report(viewing)}")
            _require_all_hits(viewing, "the first viewing in Paris after a night")
        # It is alone in its city, so that the next viewer still finds two.
        async with _viewed(browser, f"{url}&player=hls&place=madrid") as page:
            say(f"hls.js, its appliance killed: {await _killed(page, fail)}")
        async with _viewed(browser, f"{url}&player=dash&place=lisbon") as page:
            fail("steering")
            say(f"dash.js, its appliance and steering killed: {await _killed(page, fail)}")


async def _killed(page: "Page", fail: Callable[[str], None]) -> str:
    """The appliance that plays is killed; the picture goes on from another one, and the buffer is never empty."""
    await _wait(page, f"() => document.getElementById('video').currentTime > {_WATCHED_SECONDS}")
    first = await page.evaluate("() => demo.places.current.id")
    at = await page.evaluate("() => document.getElementById('video').currentTime")
    fail(first)
    came = f"demo.deliveries.filter((each) => each.kind === 'segment' && each.from !== {first!r}).length"
    await _wait(page, f"() => {came} > 0 && document.getElementById('video').currentTime > {at + _PASSED_SECONDS}")
    seen = msgspec.convert(await page.evaluate(_SWITCHED), Switched)
    if seen.stalls or seen.least_buffer <= 0 or seen.current == first:
        raise SmokeFailed(f"the viewer felt that {first} was killed: {seen}")
    return f"from {first} to {seen.current}, never less than {seen.least_buffer:.1f} s in the buffer, no stall"


async def _night(page: "Page") -> str:
    """A viewer presses the button; all that the plan names is there by morning."""
    await page.click("#begin-night")
    await _wait(page, "() => ['done', 'failed'].includes(demo.night?.phase)", _NIGHT_DEADLINE)
    night = msgspec.convert(await page.evaluate("() => demo.night"), Told)
    plan, agents = night.plan, night.agents
    if night.phase is not Phase.DONE or plan is None:
        raise SmokeFailed(f"the night ended as {night.phase}: {night.trouble}")
    left = [one.id for one in plan.appliances if agents[one.id].done_renditions < one.bring_renditions]
    unserved = [site.id for site in plan.sites if site.pledged_after < 1]
    if left or unserved or not plan.sites or len(plan.appliances) != len(agents):
        raise SmokeFailed(f"the night left something undone: {left or unserved or plan}")
    brought = sum(one.done_bytes for one in agents.values())
    renditions = sum(one.done_renditions for one in agents.values())
    return f"{len(agents)} agents brought {brought / 1e6:.1f} MB in {renditions} renditions"


@asynccontextmanager
async def _viewed(browser: "Browser", url: str) -> AsyncIterator["Page"]:
    """The page, with the film running."""
    # A context of its own has no cache of an earlier viewing: every file is asked of the appliance.
    context = await browser.new_context()
    try:
        page = await context.new_page()
        page.set_default_timeout(_PAGE_DEADLINE * 1000)
        await page.goto(url)
        await _wait(page, "() => window.demo && window.demo.film && document.getElementById('video').currentTime > 0")
        yield page
    finally:
        await context.close()


async def _watched(page: "Page") -> Viewing:
    before = msgspec.convert(await page.evaluate(_LOOK), Look)
    until = before.time + _WATCHED_SECONDS
    await _wait(page, f"() => document.getElementById('video').currentTime > {until}")
    after = msgspec.convert(await page.evaluate(_LOOK), Look)
    # To the end at once: what is between is fetched all the same, and seen.
    await page.evaluate("() => { document.getElementById('video').playbackRate = 8; }")
    await _wait(page, "() => window.demo.isBuffered")
    deliveries = msgspec.convert(await page.evaluate(_DELIVERIES), tuple[Delivery, ...])
    return Viewing(before, after, deliveries)


async def _wait(page: "Page", condition: str, patience: float = _PAGE_DEADLINE) -> None:
    """Until the condition holds in the page, or the page says that playing failed."""
    errors = importlib.import_module("playwright.async_api")
    both = f"() => ({condition})() || Boolean(({_TROUBLE})())"
    try:
        await page.wait_for_function(both, timeout=patience * 1000)
    except errors.TimeoutError as error:
        shown = await page.inner_text("body")
        raise SmokeFailed(f"after {patience:.0f} s the page still shows: {shown[:500]}") from error
    if trouble := await page.evaluate(_TROUBLE):
        raise SmokeFailed(f"the page says: {trouble}")


def _require_moving_picture(viewing: Viewing, count: str) -> None:
    before, after = viewing.before, viewing.after
    if not (after.time > before.time and after.frames > before.frames and after.print != before.print):
        raise SmokeFailed(f"the picture stood still in the {count} viewing: {before} then {after}")


def _require_all_hits(viewing: Viewing, which: str) -> None:
    missed = [each for each in viewing.segments if not each.is_hit]
    if missed or not viewing.segments:
        first = f"; first: {missed[0].path} ({missed[0].cache_status or 'no Cache-Status'})" if missed else ""
        raise SmokeFailed(f"in {which} {len(missed)} of {len(viewing.segments)} segments were no hits{first}")


def _report(viewing: Viewing) -> str:
    before, after, segments = viewing.before, viewing.after, viewing.segments
    hits = sum(each.is_hit for each in segments)
    waits = sorted(each.first_byte for each in segments)
    median = f", median {waits[len(waits) // 2]:.1f} ms to first byte" if waits else ""
    return (
        f"film time {before.time:.1f} to {after.time:.1f} s, decoded pictures {before.frames} to {after.frames};"
        f" {len(segments)} segment files, {sum(each.bytes for each in segments) / 1e6:.1f} MB,"
        f" {hits} hits, {len(segments) - hits} not{median}"
    )


def find_browser() -> str:
    """The Chromium to look with. Raises MachineError when there is none, or no playwright to drive it."""
    if importlib.util.find_spec("playwright") is None:
        raise MachineError("--smoke needs the package playwright; pip install 'open-oca[demo]'")
    for name in _BROWSERS:
        if path := shutil.which(name):
            return path
    raise MachineError(f"--smoke needs Chromium on PATH, as one of {', '.join(_BROWSERS)}; apt-get install chromium")


@asynccontextmanager
async def _browser() -> AsyncIterator["Browser"]:
    playwright: Any = importlib.import_module("playwright.async_api")
    async with playwright.async_playwright() as driver:
        try:
            browser = await driver.chromium.launch(
                executable_path=find_browser(),
                headless=True,
                args=list(BROWSER_ARGUMENTS),
                timeout=_PAGE_DEADLINE * 1000,
            )
        except playwright.Error as error:
            raise MachineError(f"{find_browser()} did not start: {error}") from error
        try:
            yield browser
        finally:
            await browser.close()
