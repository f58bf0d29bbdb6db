"""What there is to see, from the documents of the catalogue: a path's title, the numbers of its renditions, and, for
who presses play, what they are.

A decision never waits for it. A title that is not known yet is decided for without its holdings, and its document is
fetched meanwhile: each once, a few at a time, bounded in size, number and time. Who presses play waits (`listing`).
While the catalogue is away what was known goes on, and after `_PATIENCE` failures in a row it is left alone for
`_REST`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, TypeVar

import aiohttp
import msgspec
from cachetools import LRUCache
from msgspec import Meta, Struct

from steering.errors import SteeringError
from steering.fleet import Content, content_of
from wire.catalog import DASH_TYPE, HLS_TYPE, TITLE_ID_PATTERN, Availability, Kind, title_path
from wire.playback import PlayableRendition

log = logging.getLogger(__name__)

BodyT = TypeVar("BodyT", bytes, bytearray)

_TITLES: Final = 100_000
_FETCHES: Final = 8
_WAITING: Final = 1024
"""Titles whose documents are asked for or wait for it; more are forgotten until they are asked for again."""
_DEADLINE: Final = 10.0
_MOST_BYTES: Final = 32 * 1024 * 1024
"""A document names every segment: an hour in ten renditions is 2 MiB."""
_LISTINGS: Final = 10_000
"""Of titles that somebody pressed play for: 3 KiB each."""
_LONGEST_WAIT: Final = 5.0
"""For who presses play."""
_PATIENCE: Final = 5
_REST: Final = 5.0
_RETRY: Final = 60.0
"""Seconds for which a title that is not there, or whose document can't be had, is not asked for again."""
_PATH: Final = re.compile(r"/titles/([^/]{1,64})/(?:([^/]+)/)?")
_TITLE: Final = re.compile(TITLE_ID_PATTERN)


class CatalogueError(SteeringError):
    """A document could not be had or read."""


class _Object(Struct, frozen=True, gc=False):
    path: str


class _Rendition(Struct, frozen=True, gc=False):
    number: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    """As far as holdings reach (wire/holdings.py)."""
    name: str
    kind: Kind
    codecs: str
    bandwidth_bps: int
    average_bps: int
    width: int | None = None
    height: int | None = None
    frame_rate: str | None = None
    language: str | None = None
    channels: int | None = None
    objects: tuple[_Object, ...] = ()


class _Manifest(Struct, frozen=True, gc=False):
    path: str
    content_type: str


class _Title(Struct, frozen=True, gc=False):
    """What is needed here of wire.catalog.Title; reading the rest would cost ten times as much."""

    duration: float
    manifests: tuple[_Manifest, ...]
    renditions: tuple[_Rendition, ...]
    availability: Availability = Availability()
    withdrawn_at: str | None = None


class Listing(Struct, frozen=True, gc=False):
    """What is told of a title to who presses play."""

    duration: float
    availability: Availability
    hls: str | None
    dash: str | None
    """Paths of the manifests."""
    renditions: tuple[PlayableRendition, ...]
    is_withdrawn: bool = False


class Known(Struct, frozen=True, gc=False):
    """One title: its renditions by their folders, and when this was read."""

    whole: Content
    by_folder: dict[str, Content]
    read_at: float


class _Listed(Struct, frozen=True, gc=False):
    listing: Listing | None
    """None: it is not published."""
    read_at: float


class Shelf(Protocol):
    """Where documents lie."""

    async def document(self, path: str) -> bytes | None:
        """The bytes at a path such as /catalogue/titles/x.json; None if there are none. Raises `CatalogueError`."""

    async def close(self) -> None: ...


class Catalogue:
    """Titles that were asked for lately."""

    def __init__(
        self,
        shelf: Shelf | None,
        refresh: float,
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._shelf = shelf
        self._refresh = refresh
        self._clock = clock
        self._spawn = spawn
        self._known: LRUCache[str, Known] = LRUCache(_TITLES)
        self._unknown: LRUCache[str, Content] = LRUCache(_TITLES)
        self._listings: LRUCache[str, _Listed] = LRUCache(_LISTINGS)
        self._asked: dict[str, asyncio.Event] = {}
        """Titles whose documents are on their way, and what is set when they are there, or can't be had."""
        self._failed = 0
        """In a row."""
        self._rests_until = -math.inf
        self._turn = asyncio.Semaphore(_FETCHES)
        self.failures = 0

    def __len__(self) -> int:
        return len(self._known)

    async def close(self) -> None:
        """Let go of where documents lie."""
        if self._shelf is not None:
            await self._shelf.close()

    def content(self, path: str) -> Content:
        """What this path is of: its title, or the path itself where it is of none."""
        found = _PATH.match(path)
        title = found[1] if found is not None else ""
        if not _TITLE.match(title):
            return content_of(path)
        known = self._known.get(title)
        if known is None or self._clock() - known.read_at >= self._refresh:
            self._ask(title)
        if known is None:
            content = self._unknown.get(title)
            if content is None:
                content = self._unknown[title] = content_of(title)
            return content
        assert found is not None
        return known.by_folder.get(found[2], known.whole) if found[2] else known.whole

    async def listing(self, title: str) -> Listing | None:
        """What is published of a title, at most `refresh` old while the catalogue can be had, else as old as it is;
        None if it is not published. Raises `CatalogueError` if it can't be said.
        """
        listed = self._listings.get(title)
        if listed is not None and self._clock() - listed.read_at < self._refresh:
            return listed.listing
        arrived = self._ask(title)
        if listed is not None:
            return listed.listing
        if arrived is None:
            raise CatalogueError("the catalogue can't be asked now")
        try:
            async with asyncio.timeout(_LONGEST_WAIT):
                await arrived.wait()
        except TimeoutError as error:
            raise CatalogueError(f"the catalogue did not answer within {_LONGEST_WAIT:.0f} s") from error
        listed = self._listings.get(title)
        if listed is None:
            raise CatalogueError("the catalogue can't be read now")
        return listed.listing

    def _ask(self, title: str) -> asyncio.Event | None:
        """Begin to fetch the document, unless it is on its way. None if it is not asked for."""
        arrived = self._asked.get(title)
        if arrived is not None:
            return arrived
        if self._shelf is None or len(self._asked) >= _WAITING or self._clock() < self._rests_until:
            return None
        arrived = self._asked[title] = asyncio.Event()
        self._spawn(self._read(self._shelf, title))
        return arrived

    async def _read(self, shelf: Shelf, title: str) -> None:
        document: _Title | None = None
        try:
            async with self._turn, asyncio.timeout(_DEADLINE):
                body = await shelf.document(title_path(title))
            if body is not None:
                document = await asyncio.to_thread(_DECODER.decode, body)
            self._failed = 0
            self._take(title, document)
        except (CatalogueError, TimeoutError) as error:
            self._failed += 1
            if self._failed >= _PATIENCE:
                self._rests_until = self._clock() + _REST
            self._keep(title, str(error) or "too late")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._keep(title, str(error))
        finally:
            self._asked.pop(title).set()

    def _keep(self, title: str, why: str) -> None:
        """What was known goes on; what was not is not asked for at each request."""
        self.failures += 1
        log.warning("the catalogue's document of %s can't be read: %s", title, why)
        again_at = self._clock() - self._refresh + _RETRY
        known = self._known.get(title) or Known(content_of(title), {}, 0.0)
        self._known[title] = Known(known.whole, known.by_folder, again_at)
        listed = self._listings.get(title)
        if listed is not None:
            self._listings[title] = _Listed(listed.listing, again_at)

    def _take(self, title: str, document: _Title | None) -> None:
        """Believe a document; None: the title is not there."""
        if document is None:
            known = self._known.get(title) or Known(content_of(title), {}, 0.0)
            again_at = self._clock() - self._refresh + _RETRY
            self._known[title] = Known(known.whole, known.by_folder, again_at)
            self._listings[title] = _Listed(None, again_at)
            return
        self._listings[title] = _Listed(_listing(document), self._clock())
        renditions = document.renditions
        whole = content_of(title, tuple(rendition.number for rendition in renditions))
        by_folder = {
            rendition.objects[0].path.split("/")[3]: Content(title, whole.mix, (rendition.number,))
            for rendition in renditions
            if rendition.objects and rendition.objects[0].path.count("/") >= 4
        }
        self._known[title] = Known(whole, by_folder, self._clock())


def _listing(document: _Title) -> Listing:
    by_type = {manifest.content_type: manifest.path for manifest in document.manifests}
    return Listing(
        document.duration,
        document.availability,
        by_type.get(HLS_TYPE),
        by_type.get(DASH_TYPE),
        tuple(
            PlayableRendition(
                name=one.name,
                kind=one.kind,
                codecs=one.codecs,
                bandwidth_bps=one.bandwidth_bps,
                average_bps=one.average_bps,
                width=one.width,
                height=one.height,
                frame_rate=one.frame_rate,
                language=one.language,
                channels=one.channels,
            )
            for one in document.renditions
        ),
        document.withdrawn_at is not None,
    )


class FolderShelf:
    """A folder of this machine."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    async def document(self, path: str) -> bytes | None:
        try:
            return await asyncio.to_thread(self._read, self._folder / path.lstrip("/"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CatalogueError(f"{path}: {error.strerror}") from error

    async def close(self) -> None:
        """Nothing to close."""

    @staticmethod
    def _read(file: Path) -> bytes:
        with file.open("rb") as opened:
            return _bounded(opened.read(_MOST_BYTES + 1), str(file))


class HttpShelf:
    """An HTTP origin, or an appliance."""

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_DEADLINE, connect=3.0), connector=aiohttp.TCPConnector(limit=_FETCHES)
        )

    async def document(self, path: str) -> bytes | None:
        try:
            async with self._session.get(self._base + path, allow_redirects=False) as response:
                if response.status in {404, 410}:
                    return None
                if response.status != 200:
                    raise CatalogueError(f"{self._base}{path}: status {response.status}")
                body = bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    _bounded(body, path)
                return bytes(body)
        except aiohttp.ClientError as error:
            raise CatalogueError(f"{self._base}{path}: {error}") from error

    async def close(self) -> None:
        await self._session.close()


class S3Shelf:
    """A bucket, with the credentials that boto3 finds."""

    def __init__(self, url: str, endpoint_url: str | None, region: str | None) -> None:
        # boto3 takes a third of a replica's start: only where it is used.
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = prefix.strip("/")
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            config=Config(connect_timeout=3, read_timeout=5, retries={"total_max_attempts": 2}),
        )

    async def document(self, path: str) -> bytes | None:
        return await asyncio.to_thread(self._read, f"{self._prefix}{path}".lstrip("/"))

    async def close(self) -> None:
        self._client.close()

    def _read(self, key: str) -> bytes | None:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            with answer["Body"] as stream:
                body: bytes = stream.read(_MOST_BYTES + 1)
                return _bounded(body, key)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return None
            raise CatalogueError(f"s3://{self._bucket}/{key}: {error}") from error
        except BotoCoreError as error:
            raise CatalogueError(f"s3://{self._bucket}/{key}: {error}") from error


def shelf_at(where: str | None, endpoint_url: str | None, region: str | None) -> Shelf | None:
    """The shelf that `content.catalogue` names."""
    if where is None:
        return None
    if where.startswith("/"):
        return FolderShelf(where)
    if where.startswith("s3://"):
        return S3Shelf(where, endpoint_url, region)
    return HttpShelf(where)


def _bounded(body: BodyT, name: str) -> BodyT:
    if len(body) > _MOST_BYTES:
        raise CatalogueError(f"{name}: is larger than {_MOST_BYTES} bytes")
    return body


_DECODER: Final = msgspec.json.Decoder(_Title)
