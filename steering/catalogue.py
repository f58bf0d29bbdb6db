"""What there is to see: a path's title, and the numbers of its renditions, from the documents of the catalogue.

A decision never waits for it. A title that is not known yet is decided for without its holdings, and its document is
fetched meanwhile: each once, a few at a time, bounded in size, number and time.
"""

from __future__ import annotations

import asyncio
import logging
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
from wire.catalog import TITLE_ID_PATTERN, title_path

log = logging.getLogger(__name__)

BodyT = TypeVar("BodyT", bytes, bytearray)

_TITLES: Final = 100_000
_FETCHES: Final = 8
_WAITING: Final = 1024
"""Titles whose documents are asked for or wait for it; more are forgotten until they are asked for again."""
_DEADLINE: Final = 10.0
_MOST_BYTES: Final = 32 * 1024 * 1024
"""A document names every segment: an hour in ten renditions is 2 MiB."""
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
    objects: tuple[_Object, ...] = ()


class _Title(Struct, frozen=True, gc=False):
    """What is needed here of wire.catalog.Title; reading the rest would cost ten times as much."""

    renditions: tuple[_Rendition, ...]


class Known(Struct, frozen=True, gc=False):
    """One title: its renditions by their folders, and when this was read."""

    whole: Content
    by_folder: dict[str, Content]
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
        self._asked: set[str] = set()
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

    def _ask(self, title: str) -> None:
        if self._shelf is not None and title not in self._asked and len(self._asked) < _WAITING:
            self._asked.add(title)
            self._spawn(self._read(self._shelf, title))

    async def _read(self, shelf: Shelf, title: str) -> None:
        renditions: tuple[_Rendition, ...] | None = None
        try:
            async with self._turn, asyncio.timeout(_DEADLINE):
                body = await shelf.document(title_path(title))
            if body is not None:
                renditions = (await asyncio.to_thread(_DECODER.decode, body)).renditions
        except (CatalogueError, TimeoutError, msgspec.DecodeError) as error:
            self.failures += 1
            log.warning("the catalogue's document of %s can't be read: %s", title, str(error) or "too late")
        finally:
            self._asked.discard(title)
        if renditions is None:
            # What was known goes on; what was not is not asked for at each request.
            known = self._known.get(title) or Known(content_of(title), {}, 0.0)
            read_at = self._clock() - self._refresh + _RETRY
            self._known[title] = Known(known.whole, known.by_folder, read_at)
            return
        whole = content_of(title, tuple(rendition.number for rendition in renditions))
        by_folder = {
            rendition.objects[0].path.split("/")[3]: Content(title, whole.mix, (rendition.number,))
            for rendition in renditions
            if rendition.objects and rendition.objects[0].path.count("/") >= 4
        }
        self._known[title] = Known(whole, by_folder, self._clock())


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
