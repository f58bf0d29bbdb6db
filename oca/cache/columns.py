"""What the policy knows of each slot, in flat arrays that all shelves share: 30 bytes a slot and no Python object."""

from __future__ import annotations

from array import array
from enum import IntEnum
from typing import Final

PAGE_BYTES: Final = 4096
"""Sizes are kept in pages of a file system, so that 16 bits are enough for an extent."""
NOBODY: Final = 0xFFFFFFFF
"""In the links of a line: there is no neighbour."""
AWAITED: Final = 0x80
"""Beside a line's number: the slot stood there before a restart and has not been placed yet."""
_GROW: Final = 1024


class Standing(IntEnum):
    """In which line of its shelf a slot stands. Zero is what a fresh array holds."""

    NOWHERE = 0
    PROBATION = 1
    MAIN = 2
    PLEDGED = 3


class Columns:
    """One row a slot. Rows are only ever added."""

    def __init__(self) -> None:
        self.line = bytearray()
        """A `Standing`, or one with `AWAITED`."""
        self.reads = bytearray()
        """Counted touches since it last came up for eviction."""
        self.pages = array("H")
        self.shelf = array("H")
        self.below = array("H")
        """One more than the number of the shelf that holds a copy below; zero: none."""
        self.pledge = array("H")
        """Hours, modulo 2**16, until which it is not evicted."""
        self.touched = array("I")
        """Second of the last touch that was counted."""
        self.name = array("I")
        """The low half of the extent's name; with the group it tells extents apart."""
        self.group = array("I")
        self.after = array("I")
        """Who stands behind it in its line."""
        self.before = array("I")
        self._wide = (
            self.pages,
            self.shelf,
            self.below,
            self.pledge,
            self.touched,
            self.name,
            self.group,
            self.after,
            self.before,
        )

    def __len__(self) -> int:
        return len(self.line)

    def reach(self, slot: int) -> None:
        """Have a row for `slot`. Grows by an eighth, so that little memory lies idle and rows are seldom copied."""
        missing = slot + 1 - len(self.line)
        if missing <= 0:
            return
        rows = max(missing, len(self.line) >> 3, _GROW)
        for column in self._wide:
            column.frombytes(bytes(column.itemsize * rows))
        self.reads.extend(bytes(rows))
        self.line.extend(bytes(rows))


def pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES)
