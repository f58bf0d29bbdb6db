"""How late the event loop is: what decides whether there is time to rank."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_BEAT: Final = 0.05


class Pulse:
    """Measures the loop's lag all the time. Up at once, down slowly: half of it goes in a third of a second."""

    def __init__(self) -> None:
        self.lag = 0.0
        """Seconds."""

    async def run(self) -> None:
        while True:
            due = time.monotonic() + _BEAT
            await asyncio.sleep(_BEAT)
            late = max(0.0, time.monotonic() - due)
            self.lag = max(late, self.lag * 0.9)
