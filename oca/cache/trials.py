"""How long a reading should count: small caches that are only books try four half-lives on a sample of the extents.

Where what is wanted changes within the hour (news, clips that go round) a long memory is wrong; where films are popular
for weeks a short one is. No measure of the traffic told the two apart as well as trying (miniature simulation,
Waldspurger et al., USENIX ATC '17). What each trial holds is a sample of names, so the cost and the memory are bounded.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

_HOUR: Final = 3600.0
HALF_LIVES: Final = (_HOUR / 6, 1.5 * _HOUR, 13 * _HOUR, 120 * _HOUR)
"""Nine-fold steps: between two neighbours the best ratio of a workload differs by about one in a hundred. Readings of
more than a few weeks ago were of no use on any of them."""
SHORT: Final = 2 * _HOUR
"""Half-lives up to this make the order that of LRU."""
FIRST: Final = 3
_SAMPLED: Final = 5
"""One name in 2**5 takes part, at first: fewer as the cache grows."""
_MOST: Final = 4096
"""Extents that one trial holds at most, and ghosts."""
_FEWEST_GHOSTS: Final = _MOST // 4
_SAMPLE: Final = 5
_FADES: Final = 0.9995
_AT_ONCE: Final = 64
_JUDGED_EVERY: Final = 4 * _AT_ONCE
_BETTER: Final = 0.9
"""Another half-life must miss so much less: changing costs a while of bad order, and a sample errs. Where it matters it
matters by more: a long one on traffic driven by recency misses half as much again."""
_BETTER_SHORT: Final = 0.96
"""From a long one to a short one: where popularity ruled short ones came down to 0.976 of the long one's misses for a
while, and where recency ruled they were below this when a cache of 30 % was just full."""


class Trials:
    def __init__(self, margin: float) -> None:
        """`margin`: doublings by which a newcomer must be hotter than what it replaces."""
        self.chosen = FIRST
        self.mask = (1 << _SAMPLED) - 1
        """Names whose masked bits are all zero take part."""
        self._trials = [_Trial(half_life, margin) for half_life in HALF_LIVES]
        self._shift = _SAMPLED
        self._waiting: list[tuple[int, int, float]] = []
        """What was read and is not tried out yet: many in a row cost half as much."""
        self._seen = 0

    @property
    def half_life(self) -> float:
        return HALF_LIVES[self.chosen]

    @property
    def missed(self) -> list[float]:
        """What each missed lately; comparable, no more."""
        return [trial.missed for trial in self._trials]

    def read(self, name: int, pages: int, capacity: int, now: float) -> bool:
        """A sampled extent was asked for; `capacity` is of the real cache, in pages. Whether the choice has changed.

        The trials have three quarters of it: while a new cache fills they are full first, and know before it matters.
        """
        self._waiting.append((name, pages, now))
        if len(self._waiting) < _AT_ONCE:
            return False
        for trial in self._trials:
            trial.read(self._waiting, 3 * capacity >> self._shift + 2)
        self._waiting.clear()
        self._seen += _AT_ONCE
        if self._seen % _JUDGED_EVERY:
            return False
        if max(map(len, self._trials)) > _MOST:
            self._halve()
        best = min(range(len(HALF_LIVES)), key=lambda number: self._trials[number].missed)
        better = _BETTER_SHORT if HALF_LIVES[best] <= SHORT < self.half_life else _BETTER
        if self._trials[best].missed >= better * self._trials[self.chosen].missed:
            return False
        self.chosen = best
        return True

    def restore(self, chosen: int, missed: tuple[float, ...]) -> None:
        if not 0 <= chosen < len(HALF_LIVES) or len(missed) != len(HALF_LIVES):
            raise ValueError(f"a half-life of number {chosen}")
        self.chosen = chosen
        for trial, misses in zip(self._trials, missed, strict=True):
            trial.missed = misses

    def _halve(self) -> None:
        bit = self.mask + 1
        self.mask |= bit
        self._shift += 1
        for trial in self._trials:
            trial.halve(bit)


class _Trial:
    """Values are in doublings here: moment / half-life + logarithm of the count, see heat.py."""

    __slots__ = ("_ghosts", "_half_life", "_held", "_margin", "_used", "missed")

    def __init__(self, half_life: float, margin: float) -> None:
        self._half_life = half_life
        self._margin = margin
        self._held: OrderedDict[int, tuple[float, int]] = OrderedDict()
        self._ghosts: OrderedDict[int, float] = OrderedDict()
        self._used = 0
        self.missed = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def read(self, what: list[tuple[int, int, float]], capacity: int) -> None:
        """Names, pages and moments."""
        held = self._held
        half_life = self._half_life
        missed = self.missed
        for name, pages, now in what:
            moment = now / half_life
            missed *= _FADES
            entry = held.get(name)
            if entry is not None:
                held[name] = (_read_again(entry[0], moment), entry[1])
                continue
            missed += pages
            before = self._ghosts.pop(name, None)
            value = moment if before is None else _read_again(before, moment)
            if self._used <= capacity - pages or self._makes_room(value, capacity - pages):
                held[name] = (value, pages)
                self._used += pages
            else:
                self._remember(name, value)
        self.missed = missed

    def halve(self, bit: int) -> None:
        """Names with this bit take part no longer."""
        self._held = OrderedDict((name, entry) for name, entry in self._held.items() if not name & bit)
        self._ghosts = OrderedDict((name, value) for name, value in self._ghosts.items() if not name & bit)
        self._used = sum(pages for _, pages in self._held.values())

    def _makes_room(self, value: float, most: int) -> bool:
        """Whether a newcomer of this value may come in; then no more than `most` pages are held."""
        held = self._held
        least = value - self._margin
        while self._used > most and held:
            lowest = math.inf
            for _ in range(min(_SAMPLE, len(held))):
                # Who was looked at goes to the end, so that the next look is at others.
                name, entry = held.popitem(last=False)
                held[name] = entry
                if entry[0] < lowest:
                    lowest = entry[0]
                    coldest = name
            if least <= lowest:
                return False
            least = math.inf
            self._used -= held.pop(coldest)[1]
            self._remember(coldest, lowest)
        return self._used <= most

    def _remember(self, name: int, value: float) -> None:
        ghosts = self._ghosts
        ghosts[name] = value
        if len(ghosts) > _FEWEST_GHOSTS and len(ghosts) > len(self._held):
            ghosts.popitem(last=False)


def _read_again(value: float, moment: float) -> float:
    """Its count, halved for each half-life that passed, and one."""
    gap = value - moment
    return moment + math.log2(1 + 2.0**gap) if gap < 40 else value
