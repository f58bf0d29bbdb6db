"""Names of what was evicted: 4 bytes each, in two tables that take turns, so that the old are forgotten together."""

from __future__ import annotations

from array import array
from typing import Final

_FEWEST: Final = 1024


class Ghosts:
    """Remembers most of the last `entries` names, and at most four times as many. May forget; makes up one in 2**32.

    A name is 32 well-mixed bits that are unlike within a group, and the group.
    """

    def __init__(self) -> None:
        self._young = _table(_FEWEST)
        self._old = _table(_FEWEST)
        self._came = 0

    def remember(self, name: int, group: int, entries: int) -> None:
        """`entries`: how many extents the cache holds, more or less. The next table is made for as many."""
        if 2 * self._came >= len(self._young):
            self._old = self._young
            self._young = _table(entries)
            self._came = 0
        self._came += 1
        self._young[(name ^ group) & len(self._young) - 1] = name or 1

    def knows(self, name: int, group: int) -> bool:
        row = name ^ group
        mark = name or 1
        return self._young[row & len(self._young) - 1] == mark or self._old[row & len(self._old) - 1] == mark

    def forget(self, name: int, group: int) -> None:
        row = name ^ group
        for table in (self._young, self._old):
            if table[row & len(table) - 1] == (name or 1):
                table[row & len(table) - 1] = 0

    def dump(self) -> tuple[bytes, bytes]:
        return self._young.tobytes(), self._old.tobytes()

    def restore(self, young: bytes, old: bytes) -> None:
        for packed in (young, old):
            rows = len(packed) // 4
            if len(packed) % 4 or rows < _FEWEST or rows & rows - 1:
                raise ValueError(f"a table of names has {len(packed)} bytes")
        self._young, self._old = array("I", young), array("I", old)
        self._came = sum(map(bool, self._young))


def _table(entries: int) -> array[int]:
    """Half of it stays empty: a name seldom falls on another's place."""
    rows = 2 << (max(entries, _FEWEST // 2) - 1).bit_length()
    return array("I", bytes(4 * rows))
