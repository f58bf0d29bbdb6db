"""Parts of an appliance, real ones in a temporary folder."""

import os
from collections.abc import Iterator

import pytest

from oca.store.board import BOARD_BYTES, Board, new_memory


@pytest.fixture
def board() -> Iterator[Board]:
    fd = new_memory("test-board", BOARD_BYTES)
    yield Board(fd)
    os.close(fd)
