"""The operator's key set (viewers.py), kept fresh: from a file, or from the log-in service over HTTP.

Read every `refresh`, and at once, at most every `_SOON`, when a token names a key that is not in it: the service
changed its keys. A set that can't be had or used leaves the last good one, which also lies in the state folder, so that
a restart in the service's outage turns nobody away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp

from steering.settings import PlaybackAccess
from steering.viewers import MOST_KEY_SET_BYTES, BadKeySet, Keys, read_keys

log = logging.getLogger(__name__)

_DEADLINE: Final = 5.0
_SOON: Final = 10.0
_LONGEST_WAIT: Final = 3.0
"""For a viewer whose key is not known yet."""


class ViewerKeys:
    """One for the process."""

    def __init__(self, settings: PlaybackAccess, state_dir: Path, clock: Callable[[], float]) -> None:
        self._where = settings.keys
        self._refresh = float(settings.refresh)
        self._copy = state_dir / "viewer-keys.json"
        self._clock = clock
        self._wanted = asyncio.Event()
        self._looked = asyncio.Condition()
        self._looked_at: float | None = None
        self._body = b""
        self.keys: Keys | None = None
        """None until a set was had."""
        self.failures = 0

    async def prepare(self) -> None:
        """Believe the copy of the last set, if there is one."""
        try:
            body = await asyncio.to_thread(_bounded, self._copy)
            self.keys = read_keys(body)
            self._body = body
        except FileNotFoundError:
            return
        except (OSError, BadKeySet) as error:
            log.warning("the copy of the viewers' keys at %s can't be used: %s", self._copy, error)

    async def run(self) -> None:
        """Look now, every `refresh`, and when somebody needs a key."""
        while True:
            await self._look()
            try:
                async with asyncio.timeout(self._refresh if self.keys is not None else _SOON):
                    await self._wanted.wait()
            except TimeoutError:
                continue
            # Tokens with made-up key ids must not become a load on the log-in service.
            pause = _SOON - (self._clock() - (self._looked_at or 0.0))
            if pause > 0:
                await asyncio.sleep(pause)

    async def keys_for(self, kid: str | None) -> Keys | None:
        """The keys there are. If this one (None: a token that names none) is not among them, the set is read anew,
        unless that was a moment ago. None if no set was ever had.
        """
        if self.keys is not None and (kid is None or self.keys.of(kid) is not None):
            return self.keys
        last = self._looked_at
        if last is None or self._clock() - last >= _SOON:
            self._wanted.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_WAIT), self._looked:
                    await self._looked.wait_for(lambda: self._looked_at != last)
        return self.keys

    async def _look(self) -> None:
        self._wanted.clear()
        try:
            body = await self._read()
            if body != self._body or self.keys is None:
                keys = read_keys(body)
                self.keys, self._body = keys, body
                log.info("the viewers' key set at %s has %d keys", self._where, len(keys))
                await asyncio.to_thread(_write, self._copy, body)
        except (OSError, aiohttp.ClientError, TimeoutError, BadKeySet) as error:
            self.failures += 1
            log.warning("the viewers' keys at %s stay as they were: %s", self._where, str(error) or "too late")
        async with self._looked:
            self._looked_at = self._clock()
            self._looked.notify_all()

    async def _read(self) -> bytes:
        if self._where.startswith("/"):
            return await asyncio.to_thread(_bounded, Path(self._where))
        timeout = aiohttp.ClientTimeout(total=_DEADLINE)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(self._where, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise BadKeySet(f"status {response.status}")
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                _checked(len(body))
            return bytes(body)


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        body = file.read(MOST_KEY_SET_BYTES + 1)
    _checked(len(body))
    return body


def _checked(size: int) -> None:
    if size > MOST_KEY_SET_BYTES:
        raise BadKeySet(f"larger than {MOST_KEY_SET_BYTES} bytes")


def _write(path: Path, body: bytes) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(body)
        file.flush()
        os.fdatasync(file.fileno())
    new.replace(path)
