"""Two policies everybody knows, in the shape of ours: if the plumbing is right they miss what libcachesim's miss."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

from oca.cache.policy import Admission, AdmitReason, Level
from tests.bench.store.replay import Nothing

_MOST: Final = 3


class _OneShelf(Nothing):
    """What both share: one device, and the sizes of what lies on it."""

    def __init__(self) -> None:
        self._capacity = 0
        self._sizes: dict[int, int] = {}
        self._used = 0
        self._here = Admission(Level.NVME, AdmitReason.FREE)

    def add_shelf(self, number: int, level: Level, capacity_bytes: int, writes_per_day: float | None = None) -> None:
        self._capacity = capacity_bytes

    def admit(self, name: int, group: int, size_bytes: int, now: float) -> Admission:
        return self._here

    def shelf_of(self, slot: int) -> int | None:
        return 0 if slot in self._sizes else None

    def used_bytes(self, shelf: int) -> int:
        return self._used

    def _enter(self, slot: int, size_bytes: int) -> None:
        self._sizes[slot] = size_bytes
        self._used += size_bytes

    def _leave(self, slot: int) -> int:
        size = self._sizes.pop(slot)
        self._used -= size
        return size


class PlainLru(_OneShelf):
    def __init__(self) -> None:
        super().__init__()
        self._order: OrderedDict[int, None] = OrderedDict()

    def place(self, slot: int, name: int, group: int, shelf: int, size_bytes: int, now: float) -> None:
        self._order[slot] = None
        self._enter(slot, size_bytes)

    def touch(self, slot: int, now: float) -> None:
        self._order.move_to_end(slot)

    def victims(self, shelf: int, size_bytes: int, pinned: AbstractSet[int], now: float) -> Iterator[int]:
        if size_bytes > self._capacity:
            return
        while self._used + size_bytes > self._capacity:
            slot, _ = self._order.popitem(last=False)
            self._leave(slot)
            yield slot


class PlainS3Fifo(_OneShelf):
    """With what the paper leaves open as libcachesim decides it: two reads to enter main, until the first eviction
    newcomers go to main when small is full, and a ghost of names worth nine tenths of the capacity."""

    def __init__(self, threshold: int = 2) -> None:
        super().__init__()
        self._threshold = threshold
        self._small: deque[int] = deque()
        self._main: deque[int] = deque()
        self._small_used = self._main_used = self._ghost_used = 0
        self._reads: dict[int, int] = {}
        self._names: dict[int, int] = {}
        self._ghost: OrderedDict[int, int] = OrderedDict()
        self._has_evicted = False
        self._returns = False

    def admit(self, name: int, group: int, size_bytes: int, now: float) -> Admission:
        size = self._ghost.pop(name, None)
        self._returns = size is not None
        self._ghost_used -= size or 0
        return self._here

    def place(self, slot: int, name: int, group: int, shelf: int, size_bytes: int, now: float) -> None:
        self._enter(slot, size_bytes)
        self._reads[slot] = 0
        self._names[slot] = name
        if self._returns or (not self._has_evicted and self._small_used >= self._small_capacity):
            self._main.append(slot)
            self._main_used += size_bytes
        else:
            self._small.append(slot)
            self._small_used += size_bytes

    def touch(self, slot: int, now: float) -> None:
        self._reads[slot] += 1

    def victims(self, shelf: int, size_bytes: int, pinned: AbstractSet[int], now: float) -> Iterator[int]:
        while self._used + size_bytes > self._capacity:
            self._has_evicted = True
            if self._main_used > self._capacity - self._small_capacity or not self._small:
                yield self._out_of_main()
            else:
                slot = self._out_of_small()
                if slot is not None:
                    yield slot

    @property
    def _small_capacity(self) -> int:
        return int(self._capacity * 0.1)

    def _out_of_main(self) -> int:
        while True:
            slot = self._main.popleft()
            reads = self._reads[slot]
            if not reads:
                self._main_used -= self._gone(slot)
                return slot
            self._reads[slot] = min(reads, _MOST) - 1
            self._main.append(slot)

    def _out_of_small(self) -> int | None:
        """None if all of small went to main."""
        while self._small:
            slot = self._small.popleft()
            size = self._sizes[slot]
            self._small_used -= size
            if self._reads[slot] >= self._threshold:
                self._reads[slot] = 0
                self._main.append(slot)
                self._main_used += size
                continue
            self._remember(self._names[slot], size)
            self._gone(slot)
            return slot
        return None

    def _gone(self, slot: int) -> int:
        del self._reads[slot], self._names[slot]
        return self._leave(slot)

    def _remember(self, name: int, size: int) -> None:
        capacity = int(self._capacity * 0.9)
        while self._ghost_used + size > capacity:
            _, oldest = self._ghost.popitem(last=False)
            self._ghost_used -= oldest
        self._ghost[name] = size
        self._ghost_used += size
