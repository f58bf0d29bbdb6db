"""Who watches, as far as players say so (CMCD): sessions are counted, and hidden by a salt."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from oca.report.sessions import Sessions
from oca.store.board import Board

_SALT_BYTES: Final = 16
_DAY: Final = 86_400


class Viewers:
    """One for the keeper. The salt is drawn anew at each start, and at midnight in UTC."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.sessions = Sessions()
        board.strew(os.urandom(_SALT_BYTES))

    @property
    def count(self) -> int:
        return self.sessions.in_use(time.monotonic())

    def heard(self, numbers: list[int]) -> None:
        self.sessions.heard(numbers, time.monotonic())

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_DAY - time.time() % _DAY)
            self._board.strew(os.urandom(_SALT_BYTES))
            self.sessions.renumber(time.monotonic())
