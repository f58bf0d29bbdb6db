"""A hundred viewers at once, who compare every byte they get with what the origin holds."""

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Self

from tests.doubles.appliance import PATIENCE, wait_until

_KIB = 1024
_LONGEST = 1024 * _KIB
_RECEIVE = 256 * _KIB
_WHOLE = 0.1
"""The share of viewers' requests that ask for a whole film; the others ask for some parts in a row."""
_RATE = 400
"""Answers a second that all of them together ask for at most: viewers who never pause heat the machine and show no
more."""
_KNOWN_FAULTS = 20
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Audience:
    """Viewers on keep-alive connections, in a thread of their own, for as long as the `with` block lasts.

    An answer with wrong bytes or a wrong head stands in `faults`, an honest refusal (5xx) in `refusals`, one that did
    not come to its end in `cuts`; what came of it was compared too.
    """

    def __init__(
        self, port: int, films: dict[str, bytes], *, viewers: int = 100, seed: int = 1, host: str = "127.0.0.1"
    ) -> None:
        self._host = host
        self._port = port
        self._films = dict(films)
        self._newest: list[str] = []
        self._viewers = viewers
        self._seed = seed
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all_view()), name="audience")
        self.answers = 0
        self.hits = 0
        self.cuts: list[str] = []
        self.refusals: list[str] = []
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Everybody finishes the answer that is on its way."""
        self._over.set()
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive(), "the audience does not end"

    def again(self) -> "Audience":
        """The same viewers another time."""
        return Audience(self._port, self._films, viewers=self._viewers, seed=self._seed + 1, host=self._host)

    def premiere(self, films: dict[str, bytes]) -> None:
        """From now on these are watched as well, as often as all the others together."""
        self._films = {**self._films, **films}
        self._newest = list(films)

    def wait_answers(self, count: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Until so many more answers came; `meanwhile` is called again and again."""
        goal = self.answers + count

        def has_come() -> bool:
            meanwhile()
            return self.answers >= goal

        try:
            wait_until(has_come, f"{count} answers came")
        except AssertionError:
            self.assert_content()
            raise

    def assert_content(self) -> None:
        """Nobody missed anything."""
        for missed in (self.faults, self.refusals, self.cuts):
            assert not missed, "\n".join(missed)

    async def _all_view(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._viewers):
                group.create_task(self._view(random.Random(self._seed * 10_000 + number)))

    async def _view(self, dice: random.Random) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._over.is_set():
            path = dice.choice(self._newest if self._newest and dice.random() < 0.5 else list(self._films))
            for start, stop in self._parts(len(self._films[path]), dice):
                await asyncio.sleep(dice.random() * 2 * self._viewers / _RATE)
                if self._over.is_set():
                    break
                began = time.monotonic()
                try:
                    async with asyncio.timeout(PATIENCE):
                        if connection is None:
                            connection = await asyncio.open_connection(self._host, self._port, limit=_LONGEST)
                        await self._watch(connection, path, start, stop)
                except (OSError, asyncio.IncompleteReadError, _Wrong, _Refused) as error:
                    # TimeoutError is an OSError.
                    told = f"{path} [{start}, {stop}) after {time.monotonic() - began:.1f} s: {error!r}"
                    known = {_Wrong: self.faults, _Refused: self.refusals}.get(type(error), self.cuts)
                    if len(known) < _KNOWN_FAULTS:
                        known.append(told)
                    if connection is not None:
                        connection[1].transport.abort()
                    connection = None
                    # An appliance that is down would be asked as fast as we can.
                    await asyncio.sleep(0.01)
        if connection is not None:
            connection[1].transport.abort()

    def _parts(self, size: int, dice: random.Random) -> list[tuple[int, int]]:
        """Spans of a film; the whole film stands as (0, 0)."""
        if dice.random() < _WHOLE:
            return [(0, 0)]
        at = dice.randrange(size)
        parts = []
        for _ in range(dice.randrange(1, 6)):
            if at < size:
                stop = min(size, at + dice.choice([1, 4097, 64 * _KIB, 300_000, _LONGEST]))
                parts.append((at, stop))
                at = stop
        return parts

    async def _watch(
        self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str, start: int, stop: int
    ) -> None:
        reader, writer = connection
        # Not a view: those are compared item by item.
        wanted = self._films[path][start : stop or None]
        span = f"Range: bytes={start}-{stop - 1}\r\n" if stop else ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: films.example\r\n{span}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status and status[1].startswith(b"5"):
            raise _Refused(head.decode("latin-1"))
        said = (int(status[1]), int(length[1])) if status and length else None
        if said != (206 if stop else 200, len(wanted)):
            raise _Wrong(head.decode("latin-1"))
        at = 0
        while at < len(wanted):
            piece = await reader.read(min(_RECEIVE, len(wanted) - at))
            if not piece:
                raise asyncio.IncompleteReadError(b"", len(wanted) - at)
            if piece != wanted[at : at + len(piece)]:
                raise _Wrong(f"other bytes in [{start + at}, {start + at + len(piece)}):\n{head.decode('latin-1')}")
            at += len(piece)
        self.answers += 1
        self.hits += b"; hit\r\n" in head


class _Refused(Exception):
    """A status of 500 or more."""


class _Wrong(Exception):
    """An answer that is not what was asked for."""
