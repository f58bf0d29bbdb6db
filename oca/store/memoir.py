"""What the policy knows beside the index (who was read how often, in which order), kept over restarts in one file."""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from oca.store.shelves import Shelves

log = logging.getLogger(__name__)

_EVERY: Final = 300.0
"""Seconds between two writings: what a killed keeper forgets. 10 M extents are a file of 300 MB."""


class Memoir:
    """A file beside the index. If it is missing or unusable the policy begins anew, and nothing else is lost."""

    def __init__(self, shelves: Shelves, path: str) -> None:
        self._shelves = shelves
        self._path = path

    async def recall(self) -> None:
        """Before the shelves are loaded."""
        try:
            await asyncio.to_thread(self._recall)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("%s: can't be used, what was read how often is learned anew: %s", self._path, error)

    async def write(self) -> None:
        """Every few minutes, for ever."""
        await self._shelves.loaded()
        while True:
            await asyncio.sleep(_EVERY)
            await self.save()

    async def save(self) -> None:
        if not self._shelves.is_loaded:
            return  # It would say less than the one that is there.
        # What has to be of one moment is taken here and now; the rest as it is written.
        pieces = self._shelves.policy.dump()
        try:
            await asyncio.to_thread(self._save, pieces)
        except OSError as error:
            log.warning("%s: can't be written: %s", self._path, error.strerror)

    def _recall(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as content, memoryview(content) as view:
                self._shelves.policy.restore(view)
        finally:
            os.close(fd)

    def _save(self, pieces: Iterator[bytes]) -> None:
        fresh = Path(f"{self._path}.new")
        with fresh.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._path)
