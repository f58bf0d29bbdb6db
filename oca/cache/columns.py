"""What the policy knows of each slot, in flat arrays that all shelves share: 29 bytes a slot and no Python object."""

from __future__ import annotations

from array import array
from enum import IntEnum
from typing import Final

PAGE_BYTES: Final = 4096
"""Sizes are kept in pages of a file system, so that 16 bits are enough for an extent."""
NOBODY: Final = 0xFFFFFFFF
"""In the links of a line: there is no neighbour."""
LISTED: Final = 0x40
"""Beside a standing: the slot is on its shelf's shortlist of those that may go next."""
AWAITED: Final = 0x80
"""Beside a standing: the slot stood there before a restart and has not been placed yet."""
_GROW: Final = 1024


class Standing(IntEnum):
    """In which line of its shelf a slot stands. Zero is what a fresh array holds."""

    NOWHERE = 0
    KEPT = 1
    PLEDGED = 2


class Columns:
    """One row a slot. Rows are only ever added."""

    def __init__(self) -> None:
        self.standing = bytearray()
        """A `Standing`, perhaps with `LISTED` or `AWAITED`."""
        self.shelf = bytearray()
        """The berth of the shelf it stands on."""
        self.below = bytearray()
        """One more than the berth of the shelf that holds a copy below; zero: none."""
        self.heat = array("H")
        """How often it was read, as of `touched`: see heat.py."""
        self.pages = array("H")
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
        self._narrow = (self.standing, self.shelf, self.below)
        self._wide = (
            self.heat,
            self.pages,
            self.pledge,
            self.touched,
            self.name,
            self.group,
            self.after,
            self.before,
        )

    def __len__(self) -> int:
        return len(self.standing)

    @property
    def row_bytes(self) -> int:
        return len(self._narrow) + sum(column.itemsize for column in self._wide)

    def reach(self, slot: int) -> None:
        """Have a row for `slot`. Grows by a 64th, so that little memory lies idle: the kernel copies no
        page of an array so large when it grows.
        """
        missing = slot + 1 - len(self.standing)
        if missing <= 0:
            return
        rows = max(missing, len(self.standing) >> 6, _GROW)
        for column in self._wide:
            column.frombytes(bytes(column.itemsize * rows))
        for narrow in self._narrow:
            narrow.extend(bytes(rows))

    def restore(self, rows: int) -> None:
        """So many rows of zeros."""
        for column in self._wide:
            del column[:]
            column.frombytes(bytes(column.itemsize * rows))
        for narrow in self._narrow:
            narrow[:] = bytes(rows)


def pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES)
