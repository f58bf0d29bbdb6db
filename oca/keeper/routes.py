"""The routes that the box's BGP speaker learned, as the keeper knows them: one whole set with a version.

They come from a feed: a process that reads the kernel's table, which we start, or one that exabgp starts and that
connects to our socket. When a feed ends, falls silent or talks nonsense, its routes are withdrawn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from oca.keeper.feeds import FeedBroken, Heard, read_heard
from oca.settings import Routes as RouteSettings
from wire.prefixes import MOST_PREFIXES, LearnedPrefix, Prefixes, Speaker

log = logging.getLogger(__name__)

_SILENCE: Final = 90.0
"""Seconds without a word, after which a feed is given up. Reading the kernel's table may take 60."""
_GRACE: Final = 30.0
"""Seconds after the start in which a feed may come; then it is known that nothing is learned."""
_AGAIN: Final = 10.0
"""Seconds until the reader of the kernel's table is started again."""
_SOCKET_MODE: Final = 0o660
_MOST_FEEDS: Final = 8


class Routes:
    """What was learned, and by whom."""

    def __init__(self, settings: RouteSettings, appliance: str) -> None:
        self._settings = settings
        self._appliance = appliance
        self._feeds: dict[object, Heard] = {}
        self._message: Prefixes | None = None
        self._changed = asyncio.Event()

    @property
    def version(self) -> int:
        """Of what is learned; 0 while it is not known, or no speaker is configured. Equal sets have equal versions."""
        return 0 if self._message is None else self._message.version

    @property
    def message(self) -> Prefixes | None:
        """For steering; None while `version` is 0."""
        return self._message

    @property
    def overflowed(self) -> tuple[str, ...]:
        """Sessions and tables that are not believed because they hold too much."""
        return tuple(sorted(name for heard in self._feeds.values() for name in heard.overflowed))

    @property
    def misread(self) -> int:
        """Lines of the living feeds that were not understood."""
        return sum(heard.misread for heard in self._feeds.values())

    async def wait_for_other_than(self, version: int) -> Prefixes:
        """The message, as soon as its version is another one (and not 0)."""
        while self._message is None or self._message.version == version:
            await self._changed.wait()
        return self._message

    async def run(self) -> None:
        """Listen until cancelled. Returns at once if no speaker is configured. Raises OSError if there can't be a
        socket.
        """
        if self._settings.kernel_table is not None:
            await self._read_kernel(self._settings.kernel_table)
        elif self._settings.exabgp_feed is not None:
            await self._hear_exabgp(Path(self._settings.exabgp_feed))

    async def _read_kernel(self, table: int) -> None:
        settings = self._settings
        while True:
            ours, theirs = socket.socketpair()
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "oca.keeper.kernel_feed", str(table)),
                    *("--most", str(settings.most), "--poll", str(float(settings.poll))),
                    stdin=theirs.fileno(),
                )
            try:
                reader, writer = await asyncio.open_unix_connection(sock=ours)
                await self._listen(reader, writer, f"routing table {table}")
            finally:
                # It may hang in the kernel; there is nothing in it that a gentle end would save.
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            self._forget_unknown()
            await asyncio.sleep(_AGAIN)

    async def _hear_exabgp(self, path: Path) -> None:
        listener = _bound(path)
        async with asyncio.TaskGroup() as group:
            feeds: set[asyncio.Task[None]] = set()

            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                if len(feeds) >= _MOST_FEEDS:
                    writer.close()
                    return
                feed = group.create_task(self._listen(reader, writer, "exabgp"))
                feeds.add(feed)
                feed.add_done_callback(feeds.discard)

            server = await asyncio.start_unix_server(connected, sock=listener)
            async with server:
                await asyncio.sleep(_GRACE)
                self._forget_unknown()
                await server.serve_forever()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        """To one feed, until it ends."""
        feed = object()
        try:
            while True:
                heard = await read_heard(reader, _SILENCE)
                if heard is not None:
                    self._hear(feed, heard, name)
        except FeedBroken as error:
            log.warning("routes from %s are withdrawn: %s", name, error)
        finally:
            writer.close()
            if self._feeds.pop(feed, None) is not None:
                self._tell()

    def _hear(self, feed: object, heard: Heard, name: str) -> None:
        before = self._feeds.get(feed)
        if heard.overflowed and (before is None or before.overflowed != heard.overflowed):
            names = ", ".join(heard.overflowed)
            log.error("%s: more than %d routes; not believed: %s", name, self._settings.most, names)
        self._feeds[feed] = heard
        self._tell()

    def _forget_unknown(self) -> None:
        """No feed is there, and there was time for one: that nothing is learned is known from now on."""
        if self._message is None:
            self._tell()

    def _tell(self) -> None:
        routes = _together(heard.routes for heard in self._feeds.values())
        kind = Speaker.KERNEL if self._settings.kernel_table is not None else Speaker.EXABGP
        version = _version_of(routes)
        if version == self.version:
            return
        log.info("%d routes are learned by BGP", len(routes))
        self._message = Prefixes(appliance=self._appliance, version=version, kind=kind, prefixes=routes)
        self._changed.set()
        self._changed = asyncio.Event()


def _bound(path: Path) -> socket.socket:
    """Raises OSError."""
    # A keeper that was killed leaves it behind, and no other keeper runs beside this one.
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(_SOCKET_MODE)
    return listener


def _together(sets: Iterable[tuple[LearnedPrefix, ...]]) -> tuple[LearnedPrefix, ...]:
    """Each route once, in order; no more than a message may hold."""
    every = {route for routes in sets for route in routes}
    return tuple(sorted(every, key=lambda r: (r.prefix, r.as_path or (), r.communities or ())))[:MOST_PREFIXES]


def _version_of(routes: tuple[LearnedPrefix, ...]) -> int:
    """Never 0. Drawn from the content, so that a keeper that starts again need not send what steering has."""
    digest = hashlib.blake2b(msgspec.json.encode(routes), digest_size=8).digest()
    return (int.from_bytes(digest) >> 1) or 1
