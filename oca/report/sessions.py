"""Which sessions there are, by numbers that name nobody. Pure: `now` is monotonic.

Numbers are hashes of what players call their sessions, with a salt of the day: so a session that goes on over midnight
has another number from then on. Those that go on are not counted as begun again: as many new numbers as there were
sessions in use are taken for them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

USED_WITHIN: Final = 60.0
"""A player with a full buffer asks for nothing for a while; this is longer than players' buffers usually are."""
_FORGOTTEN: Final = 1800.0
_MOST: Final = 500_000
"""Remembered; beyond, those that were silent for the longest are forgotten. 100 bytes each."""


class Sessions:
    """All of one appliance."""

    def __init__(self) -> None:
        self._last: OrderedDict[int, float] = OrderedDict()
        """When each was heard last; the longest silent first."""
        self._carried = 0
        self.begun = 0

    def heard(self, numbers: Iterable[int], now: float) -> None:
        last = self._last
        for number in numbers:
            if last.pop(number, None) is None:
                if self._carried:
                    self._carried -= 1
                else:
                    self.begun += 1
            last[number] = now
        while last and (len(last) > _MOST or now - next(iter(last.values())) > _FORGOTTEN):
            last.popitem(last=False)

    def in_use(self, now: float) -> int:
        """How many asked for something within `USED_WITHIN`."""
        count = 0
        for heard_at in reversed(self._last.values()):
            if now - heard_at > USED_WITHIN:
                break
            count += 1
        return count

    def renumber(self, now: float) -> None:
        """The salt has changed."""
        self._carried = self.in_use(now)
        self._last.clear()
