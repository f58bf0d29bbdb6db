"""Brings the public keys that tokens are verified with from steering to a file, which the workers look at.

A file, because keys must outlive everything: workers, keeper, and steering itself. What does not read as a key set
never takes the place of one that does.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

import aiohttp

from oca.credentials import read_token
from oca.errors import OcaError
from oca.settings import Settings, Steering

log = logging.getLogger(__name__)

EVERY: Final = 60.0
"""Seconds. Steering publishes a new key ten minutes before it signs with it."""
_SOON: Final = 5.0
"""While there are no keys at all."""
_DEADLINE: Final = 10.0


class KeysNotHad(OcaError):
    """A replica gave no keys; the text says why."""


class KeyCourier:
    """Asks the replicas one after the other until one answers."""

    def __init__(self, settings: Settings, steering: Steering, session: aiohttp.ClientSession, path: Path) -> None:
        self._appliance = settings.appliance.id
        self._steering = steering
        self._session = session
        self._path = path
        self._trouble = ""

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.fetch()
            await asyncio.sleep(EVERY if self._path.exists() else _SOON)

    async def fetch(self) -> None:
        """Once. What goes wrong is logged when it changes; the keys stay as they were."""
        troubles = []
        for url in self._steering.urls:
            trouble = await self._fetch_from(url)
            if not trouble:
                self._trouble = ""
                return
            troubles.append(f"{url}: {trouble}")
        said = "; ".join(troubles)
        if said != self._trouble:
            log.warning("no keys from steering, those that are known stay: %s", said)
        self._trouble = said

    async def _fetch_from(self, url: str) -> str:
        """What went wrong, in words; empty if nothing did."""
        try:
            async with asyncio.timeout(_DEADLINE):
                body = await self._asked(url)
            if await asyncio.to_thread(_keep, self._path, body):
                log.info("new keys from steering at %s", url)
        except TimeoutError:
            return f"no answer within {_DEADLINE:.0f} s"
        except (OcaError, aiohttp.ClientError, OSError, ValueError) as error:
            return str(error) or type(error).__name__
        return ""

    async def _asked(self, url: str) -> bytes:
        from wire.token import MAX_KEY_SET_BYTES  # noqa: PLC0415 - cryptography is loaded only where access is required

        headers = {"X-Appliance": self._appliance}
        if self._steering.token_file is not None:
            headers["Authorization"] = f"Bearer {await asyncio.to_thread(read_token, self._steering.token_file)}"
        async with self._session.get(f"{url}/v1/keys", headers=headers, allow_redirects=False) as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > MAX_KEY_SET_BYTES:
                    response.close()
                    raise KeysNotHad(f"answered with more than {MAX_KEY_SET_BYTES} bytes")
            if response.status != 200:
                raise KeysNotHad(f"answered {response.status}")
            return bytes(body)


def _keep(path: Path, body: bytes) -> bool:
    """Whether these are others than before. Raises ValueError for what is no key set, and OSError."""
    from wire.token import read_key_set  # noqa: PLC0415 - as above

    read_key_set(body)
    try:
        if path.read_bytes() == body:
            return False
    except FileNotFoundError:
        pass
    new = path.with_suffix(".new")
    new.write_bytes(body)
    new.replace(path)
    return True
