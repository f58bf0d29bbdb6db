"""Whether players may be sent here: what /readyz answers and heartbeats say."""

from __future__ import annotations

from oca.keeper.desk import Desk
from oca.store.board import Board, DrainCause


class Readiness:
    def __init__(self, workers: int, board: Board, desk: Desk) -> None:
        """So many workers there should be."""
        self._workers = workers
        self._board = board
        self._desk = desk

    def reasons(self) -> list[str]:
        """Why not; empty if they may: all workers are connected, and neither operator nor steering asked to drain."""
        missing = self._workers - len(self._desk.workers)
        reasons = []
        if self._board.drains_for(DrainCause.OPERATOR):
            reasons.append("draining")
        if self._board.drains_for(DrainCause.STEERING):
            reasons.append("draining by order of steering")
        if missing > 0:
            reasons.append(f"{missing} of {self._workers} workers are not up")
        return reasons
