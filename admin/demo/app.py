"""The demo from start to end: origin, film, appliances, steering, page; and everything gone again afterwards."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from admin.bucket import Bucket
from admin.demo.house import House, furnished
from admin.demo.page import Film, film, served
from admin.demo.parts import CLIP_SECONDS, Origin, embedded_origin, free_ports, make_clip
from admin.demo.settings import HOST
from admin.demo.smoke import find_browser, smoke
from admin.demo.town import BOXES, PARENT
from admin.progress import Watcher
from admin.publish.encoder import find_ffmpeg
from admin.publish.keys import Keys, Scheme, write_new_keys
from admin.publish.publication import Order, publish
from wire.catalog import Kind

ORIGIN_VARIABLE: Final = "OCA_DEMO_ORIGIN"

_TITLE: Final = "oca-demo"
_HEIGHTS: Final = (240, 360, 720)
_SMOKE_RENDITION_HEIGHT: Final = 360


def demo(video: Path | None, port: int, watcher: Watcher, *, is_encrypted: bool = False) -> None:
    """Run the demo until SIGINT or SIGTERM. Raises AdminError."""
    with _house(video, port, watcher, is_encrypted=is_encrypted) as opened:
        asyncio.run(_show(opened, watcher))


def demo_smoke(video: Path | None, port: int, watcher: Watcher) -> None:
    """Run the demo, have a browser watch it, and end. Raises AdminError when it did not see what it should."""
    find_browser()  # Before anything is begun.
    # In the clear: what a browser decrypts, no page may look at.
    with _house(video, port, watcher, is_encrypted=False) as opened:
        asyncio.run(_watch(opened, watcher))


@dataclass(frozen=True)
class _Opened:
    """Everything that runs, what there is to see, what it is encrypted with, if it is, and the page's port."""

    house: House
    shown: Film
    keys: Keys | None
    port: int


@contextmanager
def _house(video: Path | None, port: int, watcher: Watcher, *, is_encrypted: bool) -> Iterator[_Opened]:
    """All of it; gone when the block is left."""
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="oca-demo-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        origin = _origin(stack, watcher)
        if video is None:
            video = folder / "clip.mp4"
            with watcher.step("clip", None) as step:
                make_clip(find_ffmpeg(), video)
                step.note(f"{CLIP_SECONDS} s of a test picture, with a clock and a beep each second")
        bucket = Bucket(origin.url, origin.endpoint_url, origin.session)
        keys = write_new_keys(folder / "keys.json", Scheme.CBCS) if is_encrypted else None
        order = Order(*(video, _TITLE, _HEIGHTS, folder / "work"), is_replacement=True, has_thumbnails=True, keys=keys)
        title = publish(order, bucket, watcher)
        port = port or free_ports(1)[0]
        with watcher.step("appliances", None) as step:
            house = stack.enter_context(furnished(folder, origin, f"http://{HOST}:{port}"))
            cities = ", ".join(f"{box.id} ({box.city})" for box in BOXES)
            step.note(f"{cities}, their parent {PARENT}, and steering")
        yield _Opened(house, film(title), keys, port)


def _origin(stack: ExitStack, watcher: Watcher) -> Origin:
    url = os.environ.get(ORIGIN_VARIABLE)
    if url:
        watcher.say(f"origin: {url}; the title {_TITLE} stays there afterwards")
        return Origin(url, os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"), None, {})
    with watcher.step("origin", None) as step:
        origin = stack.enter_context(embedded_origin())
        step.note(f"{origin.url} at {origin.endpoint_url}, in memory")
        return origin


async def _show(opened: _Opened, watcher: Watcher) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with served(opened.shown, opened.house, opened.keys, opened.port) as url:
        house = opened.house
        watcher.say(f"\nOpen {url}, press play, and fail the appliance that plays.")
        watcher.say(
            f"The NOC sees it at {house.console_url} (log in as noc with {house.password}). Ctrl-C ends it all."
        )
        while not ended.is_set():
            opened.house.require_alive()
            try:
                async with asyncio.timeout(1):
                    await ended.wait()
            except TimeoutError:
                continue
    watcher.say("ending the demo")


async def _watch(opened: _Opened, watcher: Watcher) -> None:
    videos = [each for each in opened.shown.renditions if each.kind == Kind.VIDEO]
    # A size that a machine without a graphics card decodes in time.
    chosen = min(videos, key=lambda each: abs((each.height or 0) - _SMOKE_RENDITION_HEIGHT))
    async with served(opened.shown, opened.house, opened.keys, opened.port) as url:
        await smoke(url, chosen.name, opened.house.fail, watcher.say)
    opened.house.require_alive()
    watcher.say(
        "the picture moves, the second viewing was all hits, as was the first after a night, and a killed appliance"
        " stopped nobody"
    )
