"""A line of slots: first in, first out, linked through the columns, so that anybody may leave it at once."""

from __future__ import annotations

from collections.abc import Iterator

from oca.cache.columns import NOBODY, Columns


class Line:
    """Holds no slots itself: only who is first and last, how many stand in it, and how many pages they take."""

    __slots__ = ("_after", "_before", "count", "first", "last", "pages")

    def __init__(self, columns: Columns) -> None:
        self._after = columns.after
        self._before = columns.before
        self.first = NOBODY
        self.last = NOBODY
        self.count = 0
        self.pages = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        slot = self.first
        while slot != NOBODY:
            yield slot
            slot = self._after[slot]

    def push(self, slot: int) -> None:
        """At the end."""
        last = self.last
        self._before[slot] = last
        self._after[slot] = NOBODY
        if last == NOBODY:
            self.first = slot
        else:
            self._after[last] = slot
        self.last = slot
        self.count += 1

    def remove(self, slot: int) -> None:
        before = self._before[slot]
        after = self._after[slot]
        if before == NOBODY:
            self.first = after
        else:
            self._after[before] = after
        if after == NOBODY:
            self.last = before
        else:
            self._before[after] = before
        self.count -= 1

    def turn(self, last: int) -> None:
        """The first, and all behind it up to `last`, become the last. `last` stands in the line."""
        end = self.last
        if last == end:
            return
        after = self._after
        before = self._before
        first = self.first
        self.first = head = after[last]
        before[head] = NOBODY
        after[end] = first
        before[first] = end
        after[last] = NOBODY
        self.last = last
