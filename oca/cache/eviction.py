"""S3-FIFO over extents (Yang et al., SOSP '23): which extents go when a device is full.

Newcomers stand in a small queue (a tenth of the capacity). Read again, they move to the main queue; not read, they go,
and their name is remembered for a while (the ghost): a ghost that returns enters the main queue at once. The main queue
gives an extent another round for each time it was read, three at most. A hit costs one byte.

All state lies in flat arrays indexed by slot: no Python object per extent (about 20 bytes of memory each, and a name).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final

_MOST: Final = 3
_SMALL_SHARE: Final = 0.1
_UNIT: Final = 4096
"""Sizes are kept in pages, so that 32 bits are enough for an extent."""
_FEWEST: Final = 64


class Queue(IntEnum):
    """Where a slot stands. Zero is what a fresh array holds."""

    NONE = 0
    SMALL = 1
    MAIN = 2


class SlotQueue:
    """A first-in-first-out queue of slots in one array.

    A slot that leaves without being popped stays behind as a stale entry; `stands` tells it from a true one. When the
    array is full the stale ones go, so that it never grows beyond a few times the slots that stand in it.
    """

    def __init__(self, stands: Callable[[int], bool]) -> None:
        self._stands = stands
        self._ring = array("I", bytes(4 * _FEWEST))
        self._head = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, slot: int) -> None:
        if self._count == len(self._ring):
            self._sift()
        self._ring[(self._head + self._count) % len(self._ring)] = slot
        self._count += 1

    def _sift(self) -> None:
        """Drop stale entries, and what stands twice: the newest place is the true one. Half of the array is free."""
        seen = bytearray(max(self._ring) + 1)
        kept = array("I")
        for place in range(self._head + self._count - 1, self._head - 1, -1):
            slot = self._ring[place % len(self._ring)]
            if not seen[slot] and self._stands(slot):
                seen[slot] = 1
                kept.append(slot)
        kept.reverse()
        self._head = 0
        self._count = len(kept)
        self._ring = kept + array("I", bytes(4 * max(len(kept), _FEWEST)))

    def pop(self) -> int:
        slot = self._ring[self._head]
        self._head = (self._head + 1) % len(self._ring)
        self._count -= 1
        return slot


class Ghost:
    """Names of the recently evicted, as fingerprints in a fixed table: 4 bytes each, a false memory in 4 billion."""

    def __init__(self, entries: int) -> None:
        self._size = 1 << max(6, (entries - 1).bit_length())
        self._table = array("I", bytes(4 * self._size))

    def remember(self, name: int) -> None:
        self._table[name % self._size] = name >> 32 & 0xFFFFFFFF or 1

    def forget(self, name: int) -> bool:
        """Whether `name` was remembered; it is not any more."""
        row = name % self._size
        known = self._table[row] == (name >> 32 & 0xFFFFFFFF or 1)
        if known:
            self._table[row] = 0
        return known


class Eviction:
    """The queues of one device. Slots are given from outside and may be shared among devices.

    `name` is 64 well-mixed bits of the extent's key. Sizes are bytes on disk.
    """

    def __init__(self, capacity_bytes: int, ghosts: int = 65536) -> None:
        self._capacity = capacity_bytes // _UNIT
        self._pages = array("I")
        self._queue = bytearray()
        self._reads = bytearray()
        self._names = array("Q")
        self._small = SlotQueue(lambda slot: self._queue[slot] == Queue.SMALL)
        self._main = SlotQueue(lambda slot: self._queue[slot] == Queue.MAIN)
        self._small_pages = 0
        self._main_pages = 0
        self._ghost = Ghost(ghosts)

    @property
    def used_bytes(self) -> int:
        return (self._small_pages + self._main_pages) * _UNIT

    @property
    def free_bytes(self) -> int:
        return self._capacity * _UNIT - self.used_bytes

    def __contains__(self, slot: int) -> bool:
        return slot < len(self._queue) and self._queue[slot] != Queue.NONE

    def admit(self, slot: int, name: int, size_bytes: int) -> None:
        """`slot` now holds `size_bytes` more: a newcomer, or an extent that grew. Room must have been made before."""
        pages = -(-size_bytes // _UNIT)
        if slot >= len(self._queue):
            grow = max(slot + 1 - len(self._queue), len(self._queue))
            self._pages.frombytes(bytes(4 * grow))
            self._queue.extend(bytes(grow))
            self._reads.extend(bytes(grow))
            self._names.frombytes(bytes(8 * grow))
        if self._queue[slot] == Queue.NONE:
            self._reads[slot] = 0
            self._pages[slot] = 0
            self._names[slot] = name
            if self._ghost.forget(name):
                self._queue[slot] = Queue.MAIN
                self._main.push(slot)
            else:
                self._queue[slot] = Queue.SMALL
                self._small.push(slot)
        self._add(slot, pages)

    def touch(self, slot: int) -> None:
        """`slot` was read. Unknown slots are ignored: the report of a worker may be a second old."""
        if slot < len(self._reads) and self._reads[slot] < _MOST:
            self._reads[slot] += 1

    def forget(self, slot: int) -> None:
        """`slot` is gone, by eviction or purge. Its place in a queue is skipped when its turn comes."""
        if slot in self:
            self._add(slot, -self._pages[slot])
            self._queue[slot] = Queue.NONE

    def resize(self, slot: int, size_bytes: int) -> None:
        """`slot` holds `size_bytes` in all: what was reserved for a write that failed is free again."""
        if slot in self:
            self._add(slot, -(-size_bytes // _UNIT) - self._pages[slot])

    def victims(self, size_bytes: int, pinned: frozenset[int] | set[int]) -> Iterator[int]:
        """Slots to remove, in order, until `size_bytes` fit. Each is forgotten as it is given.

        Pinned slots are passed over. The iteration ends early if nothing more can go.
        """
        wanted = -(-size_bytes // _UNIT)
        passed_over = 0
        # Passed over in a row. Where all are, the other queue gives: what is being written must not hide the rest.
        in_a_row = {Queue.SMALL: 0, Queue.MAIN: 0}
        while self._small_pages + self._main_pages + wanted > self._capacity:
            if passed_over > 4 * (len(self._small) + len(self._main)):
                return
            small_gives = len(self._small) > in_a_row[Queue.SMALL]
            main_gives = len(self._main) > in_a_row[Queue.MAIN]
            if not small_gives and not main_gives:
                return
            from_small = small_gives and (self._small_pages > self._capacity * _SMALL_SHARE or not main_gives)
            queue, kind = (self._small, Queue.SMALL) if from_small else (self._main, Queue.MAIN)
            slot = queue.pop()
            if self._queue[slot] != kind:
                continue  # Forgotten earlier, or moved on.
            if slot in pinned:
                queue.push(slot)
                passed_over += 1
                in_a_row[kind] += 1
            elif from_small and self._reads[slot]:
                self._small_pages -= self._pages[slot]
                self._main_pages += self._pages[slot]
                self._queue[slot] = Queue.MAIN
                self._reads[slot] = 0
                self._main.push(slot)
            elif not from_small and self._reads[slot]:
                self._reads[slot] -= 1
                queue.push(slot)
                passed_over += 1
                in_a_row[kind] = 0
            else:
                if from_small:
                    self._ghost.remember(self._names[slot])
                self.forget(slot)
                passed_over = 0
                yield slot

    def _add(self, slot: int, pages: int) -> None:
        self._pages[slot] += pages
        if self._queue[slot] == Queue.SMALL:
            self._small_pages += pages
        else:
            self._main_pages += pages
