"""The spool: hours that wait on disk until the bucket has confirmed them. Whole files, and no more than allowed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

from oca.cache.records import on_disk
from oca.report.demand import hour_of_part, over_bound

STOCK: Final = "stock.json"
_FRESH: Final = ".new"


class Spool:
    """A folder of parts. What awaits touches the disk, in a thread, and raises OSError."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self._most = most_bytes
        self._sizes: dict[str, int] = {}

    @property
    def size_bytes(self) -> int:
        return sum(self._sizes.values())

    @property
    def hours(self) -> int:
        return len({hour_of_part(name) for name in self._sizes})

    @property
    def parts(self) -> tuple[str, ...]:
        """Names, the oldest hour first."""
        return tuple(sorted(self._sizes))

    async def open(self) -> None:
        """See what is there. Nobody else writes to the folder."""
        self._sizes = await asyncio.to_thread(self._found)

    async def write(self, name: str, packed: bytes) -> None:
        """On return it survives a power cut, in place of what had this name."""
        await asyncio.to_thread(self._write, name, packed)
        if hour_of_part(name) is not None:
            self._sizes[name] = on_disk(len(packed))

    async def remove(self, name: str) -> None:
        await asyncio.to_thread((self.folder / name).unlink, missing_ok=True)
        self._sizes.pop(name, None)

    async def make_room(self, running: str | None) -> list[str]:
        """Remove the oldest hours until the rest is within the bound, but not the part that is still counted. Says
        which went.
        """
        others = {name: size for name, size in self._sizes.items() if name != running}
        given_up = over_bound(others, self._most - self._sizes.get(running or "", 0))
        for name in given_up:
            await self.remove(name)
        return given_up

    def _found(self) -> dict[str, int]:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        sizes = {}
        for path in self.folder.iterdir():
            if path.name.endswith(_FRESH):
                path.unlink()  # Its writer was killed; what it was to replace is still there.
            elif hour_of_part(path.name) is not None:
                sizes[path.name] = on_disk(path.stat().st_size)
        return sizes

    def _write(self, name: str, packed: bytes) -> None:
        fresh = self.folder / (name + _FRESH)
        try:
            with fresh.open("wb") as file:
                file.write(packed)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
