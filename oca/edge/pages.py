"""Page-cache pages of rarely used content are given back after sending, so that hot films keep the memory."""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from typing import Final

from oca.edge.extents import OpenExtent, give_back

_REST: Final = 1.0
"""Seconds after sending: what the client has not acknowledged yet, its socket holds, and it would stay."""
_MOST: Final = 4096
"""Blocks that wait for that; what comes on top of it is left to the kernel."""


class Pages:
    """Blocks that cold reads brought in and that were sent whole, until it is decided whether they stay."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, OpenExtent, int, int]] = deque()
        self._given: SimpleQueue[tuple[OpenExtent, int] | None] = SimpleQueue()
        # Dropping pages may wait for other CPUs to empty their lists: a thread of its own, half a millisecond a block.
        threading.Thread(target=self._run, name="pages", daemon=True).start()

    def sent(self, extent: OpenExtent, block: int, viewer: int, now: float) -> None:
        """A viewer got the whole block."""
        if len(self._sent) < _MOST:
            self._sent.append((now + _REST, extent, block, viewer))

    def look(self, now: float) -> None:
        """Give back what is due and rarely used. Called a few times a second."""
        while self._sent and self._sent[0][0] <= now:
            _, extent, block, viewer = self._sent.popleft()
            if extent.is_rarely_used(viewer, now):
                extent.brought &= ~(1 << block)
                self._given.put((extent, block))

    def close(self) -> None:
        self._given.put(None)

    def _run(self) -> None:
        while (given := self._given.get()) is not None:
            give_back(*given)
            del given  # Its file is to be closed now, not with the next one.
