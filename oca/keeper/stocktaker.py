"""The stocktaker: keeps true what the appliance says it holds, while content comes and goes.

What belongs to a rendition stands in the catalogue's document of its title. For each title of which something lies
here, the document is read once (few at a time, through the ladder of sources), boiled down to a sheet that outlives a
restart in a file, and its parts are counted in the index. From then on every commit of the index is heard. The set
that is told to steering is judged anew every so many seconds, and gets a new version when it changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from pyroaring import BitMap

from oca.errors import OcaError
from oca.report.holdings import PAGE_BYTES, TITLES_PREFIX, Books, Change, Sheet, sheet_of, title_at
from oca.settings import Steering
from oca.store.index import Index
from oca.store.shelf import REMOVE
from oca.store.shelves import Shelves
from wire.catalog import is_title_id, read_title, title_folder, title_path
from wire.codec import WireError

log = logging.getLogger(__name__)

_MOST_TITLES: Final = 10_000
"""Looked after at a time. If each has twenty renditions on twelve devices, that is 100 MB."""
_MOST_DOCUMENT_BYTES: Final = 32 * 1024 * 1024
"""A film of three hours in twenty renditions is 11 MB."""
_READERS: Final = 2
"""Documents read at once."""
_REREAD: Final = 86400.0
"""Seconds after which a document is read again, though nothing says that it changed."""
_FIRST_PAUSE: Final = 60.0
"""Seconds before the document of a title is read a second time; doubled each time, up to the next."""
_LONGEST_PAUSE: Final = 6 * 3600.0
_PATIENT: Final = 2 * _MOST_TITLES
"""Titles of which it is remembered when they were asked for."""
_FOLDERS: Final = 500
_SLICE: Final = 20
"""Titles judged before the loop gets its turn."""
_REST: Final = 1.0
"""Seconds of rest for each second of counting: what viewers need goes before."""
_AFTER_FAILURE: Final = 60.0
_FIRST_COUNT: Final = 60.0
"""Seconds after the start before which an incomplete count is not told: steering goes on with what it was told last."""

Fetch = Callable[[str, int], Awaitable[bytes | None]]
"""Path and most bytes of a document: what it says, None if there is none. Raises OcaError."""


class Stocktaker:
    """Listens to the index. `bitmap` and `version` are what is told."""

    def __init__(
        self,
        steering: Steering,
        index: Index,
        shelves: Shelves,
        fetch: Fetch,
        folder: Path,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._interval = float(steering.holdings_interval)
        self._index = index
        self._shelves = shelves
        self._fetch = fetch
        self._folder = folder
        self._clock = clock
        self._sleep = sleep
        self._share = steering.holding_share
        self._books = Books(self._share, _MOST_TITLES)
        self._heard: deque[tuple[Sequence[str], Sequence[Change]]] = deque()
        """Commits that were not thought about yet."""
        self._has_heard = asyncio.Event()
        self._queue: deque[str] = deque()
        """Titles whose document is to be read, each once."""
        self._queued: set[str] = set()
        self._has_queued = asyncio.Event()
        self._patience: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By title: before when it is not asked for again, and for how long after that."""
        self._suspects: OrderedDict[str, None] = OrderedDict()
        """Titles to be read when their time has come."""
        self._is_complete = asyncio.Event()
        self.version = 0
        """0 until there is something to tell."""
        self.bitmap = BitMap().serialize()
        self.renditions = 0
        self._told = BitMap()

    @property
    def titles(self) -> int:
        return len(self._books.sheets)

    @property
    def is_complete(self) -> bool:
        """Whether all titles that were known at the start are counted."""
        return self._is_complete.is_set()

    async def run(self) -> None:
        """For ever. When it fails, nothing is claimed until all was counted anew."""
        await self._shelves.loaded()
        while True:
            try:
                await self._take_stock()
            except* OcaError as errors:
                log.error("what is held can't be told: %s", errors.exceptions[0])
            except* Exception:
                log.exception("what is held can't be told")
            self._index.listener = None
            self._is_complete.clear()
            self._claim(BitMap())
            await self._sleep(_AFTER_FAILURE)

    async def _take_stock(self) -> None:
        self._books = Books(self._share, _MOST_TITLES)
        self._heard.clear()
        self._is_complete.clear()
        self._index.listener = self
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(), name="hear what is held")
            group.create_task(self._count_what_is_here(), name="count what is held")
            for _ in range(_READERS):
                group.create_task(self._read_documents(), name="read catalogue documents")
            group.create_task(self._tell(), name="tell what is held")

    # --- What the index says ------------------------------------------------------------------------------------------

    def heard(self, paths: Sequence[str], extents: Sequence[Change]) -> None:
        """A commit of the index; it is thought about later, for whoever commits has no time."""
        self._heard.append((paths, extents))
        self._has_heard.set()

    async def _listen(self) -> None:
        while True:
            await self._has_heard.wait()
            self._has_heard.clear()
            while self._heard:
                self._digest_one()
                await asyncio.sleep(0)

    def _digest(self) -> None:
        while self._heard:
            self._digest_one()

    def _digest_one(self) -> None:
        paths, extents = self._heard.popleft()
        self._books.hear(extents)
        for path in paths:
            found = title_at(path)
            if found is None or not found[1]:
                continue
            sheet = self._books.touch(found[0])
            if sheet is None or not any(path.startswith(part.prefix) for part in sheet.parts()):
                self._want(found[0])

    def _want(self, title: str) -> None:
        """Have its document read, now or when enough time has passed since the last time."""
        if title in self._queued:
            return
        at, pause = self._patience.get(title, (0.0, _FIRST_PAUSE))
        now = self._clock()
        # A clock that was set back far must not make us wait for ever.
        if at - _LONGEST_PAUSE <= now < at:
            self._suspects[title] = None
            if len(self._suspects) > _PATIENT:
                self._suspects.popitem(last=False)
            return
        self._suspects.pop(title, None)
        if len(self._queued) >= _MOST_TITLES:
            return  # When something comes for it again, it is thought of again.
        self._patience[title] = (now + pause, min(2 * pause, _LONGEST_PAUSE))
        self._patience.move_to_end(title)
        if len(self._patience) > _PATIENT:
            self._patience.popitem(last=False)
        self._queued.add(title)
        self._queue.append(title)
        self._has_queued.set()

    # --- At the start -------------------------------------------------------------------------------------------------

    async def _count_what_is_here(self) -> None:
        after = ""
        while names := await self._index.in_thread(partial(self._index.folders_below, TITLES_PREFIX, after, _FOLDERS)):
            after = names[-1]
            sheets = await asyncio.to_thread(self._recalled, [name for name in names if is_title_id(name)])
            for title, sheet in sheets:
                if title in self._books.sheets:
                    continue
                if sheet is None:
                    self._want(title)
                else:
                    await self._enter(sheet)
        self._is_complete.set()

    async def _enter(self, sheet: Sheet) -> None:
        for title in self._books.enter(sheet):
            await asyncio.to_thread(self._forget, title)
        for part in sheet.parts():
            began = time.thread_time()
            # In order with the commits: what is heard from here on is added to just this count.
            lying = await self._index.in_thread(partial(_timed, self._index.lying_below, part.prefix, part.group))
            self._digest()
            if self._books.sheets.get(sheet.title) is not sheet:
                return
            self._books.counted(part.group, {home: size // PAGE_BYTES for home, size in lying.found.items()})
            await self._sleep(_REST * (lying.seconds + time.thread_time() - began))
        self._books.is_counted(sheet.title)

    # --- Documents ----------------------------------------------------------------------------------------------------

    async def _read_documents(self) -> None:
        while True:
            while not self._queue:
                self._has_queued.clear()
                await self._has_queued.wait()
            title = self._queue.popleft()
            try:
                is_settled = await self._read(title)
            finally:
                self._queued.discard(title)
            if not is_settled:
                self._want(title)

    async def _read(self, title: str) -> bool:
        """False if its document is to be asked for again."""
        if not self._index.paths_starting(title_folder(title) + "/", 1):
            return True  # It went meanwhile.
        path = title_path(title)
        try:
            body = await self._fetch(path, _MOST_DOCUMENT_BYTES)
            sheet = None if body is None else await asyncio.to_thread(_sheet_in, body, title, self._clock())
        except (OcaError, WireError) as error:
            # What is known of it goes on being counted.
            log.warning("%s: what is held of it can't be told: %s", path, error)
            return False
        if sheet is None:
            # Not published yet: its document is written last. Or not any more.
            self._books.leave(title)
            await asyncio.to_thread(self._forget, title)
            return False
        await asyncio.to_thread(self._remember, sheet)
        await self._enter(sheet)
        return True

    def _recalled(self, titles: Iterable[str]) -> list[tuple[str, Sheet | None]]:
        return [(title, self._recall(title)) for title in titles]

    def _recall(self, title: str) -> Sheet | None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            sheet = msgspec.msgpack.decode((self._folder / title).read_bytes(), type=Sheet)
            return sheet if sheet.title == title else None
        return None

    def _remember(self, sheet: Sheet) -> None:
        fresh = self._folder / f".{sheet.title}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(msgspec.msgpack.encode(sheet))
            fresh.rename(self._folder / sheet.title)
        except OSError as error:
            log.warning(
                "%s: can't be written, it is read from the catalogue after a restart: %s", fresh, error.strerror
            )

    def _forget(self, title: str) -> None:
        with contextlib.suppress(OSError):
            (self._folder / title).unlink()

    # --- Telling ------------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_COUNT):
                await self._is_complete.wait()
        while True:
            await self.judge()
            await self._sleep(self._interval)

    async def judge(self) -> None:
        """See what is held now. If it is not what was told, there is a new version."""
        now = self._clock()
        for title, sheet in self._books.sheets.items():
            if not 0 <= now - sheet.read_at < _REREAD and not self._books.is_empty(title):
                self._want(title)
        for title in list(self._suspects):
            self._want(title)
        self._books.read_from(
            frozenset(shelf.number for shelf in self._shelves.shelves if shelf.can_read and shelf.wish != REMOVE)
        )
        is_settled = False
        while not is_settled:
            self._digest()
            is_settled = self._books.settle(_SLICE)
            await asyncio.sleep(0)
        self._claim(self._books.held)

    def _claim(self, held: BitMap) -> None:
        if self.version == 0 or held != self._told:
            self._told = held.copy()
            self.bitmap = self._told.serialize()
            self.renditions = len(self._told)
            self.version += 1


class _Lying(msgspec.Struct, frozen=True):
    found: dict[tuple[int, int], int]
    seconds: float


def _timed(look: Callable[[str, int], dict[tuple[int, int], int]], prefix: str, group: int) -> _Lying:
    began = time.thread_time()
    found = look(prefix, group)
    return _Lying(found, time.thread_time() - began)


def _sheet_in(body: bytes, title: str, now: float) -> Sheet:
    document = read_title(body)
    if document.title != title:
        raise WireError(f"is the document of {document.title!r}")
    return sheet_of(document, now)
