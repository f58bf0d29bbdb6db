"""Decisions as lines of a file, each with all that is needed to make it again (replay.py).

Lines wait in memory and are written by a thread; a disk that can't keep up loses lines, which is counted, and never
holds an answer back.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from steering.decisions import Decision, logged
from steering.names import mixed
from steering.ranking import Rules

log = logging.getLogger(__name__)

_EVERY: Final = 0.5
_MOST: Final = 20_000
"""Lines that may wait: 40 MB."""


class FileJournal:
    """Decisions in a file that grows; rotate it by moving it away and sending SIGHUP."""

    def __init__(self, path: str, share: float, rules: Rules, seed: int, most: int = _MOST) -> None:
        """`share` of the decisions is kept; `most` lines may wait."""
        self._most = most
        self._path = Path(path)
        self._share = share
        self._rules = rules
        self._seed = seed
        self._waiting: list[bytes] = []
        self._file: BinaryIO | None = None
        self._is_moved = False
        self._seen = 0
        self.lost = 0
        self.written = 0

    def write(self, decision: Decision) -> None:
        self._seen += 1
        if mixed(self._seen) >= self._share * 2**64:
            return
        if len(self._waiting) >= self._most:
            self.lost += 1
            return
        self._waiting.append(_encode(logged(decision, self._rules, self._seed)))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await self.flush()

    async def flush(self) -> None:
        """What waits is on its way to the disk."""
        lines, self._waiting = self._waiting, []
        if not lines:
            return
        try:
            await asyncio.to_thread(self._append, b"\n".join(lines) + b"\n")
            self.written += len(lines)
        except OSError as error:
            self.lost += len(lines)
            log.warning("%d decisions are lost: %s: %s", len(lines), self._path, error.strerror)

    def rotate(self) -> None:
        """The file was moved away: lines from now on go to a new one."""
        self._is_moved = True

    def close(self) -> None:
        """Let go of the file; not while `flush` is under way."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, text: bytes) -> None:
        # In the writing thread, so that a file is never closed under it.
        if self._is_moved:
            self._is_moved = False
            self.close()
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
        self._file.write(text)


_encode: Final = msgspec.json.Encoder().encode
