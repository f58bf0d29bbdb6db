"""A shelf: one device at work, with its threads, its health and what the operator wants of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

from oca.cache.health import Fault, Health, Limits, Standing
from oca.cache.policy import Level
from oca.cache.records import DeviceRecord
from oca.store.device import DeviceFolder
from oca.store.hands import Hands

T = TypeVar("T")

SERVE: Final = "serve"
DRAIN: Final = "drain"
REMOVE: Final = "remove"
MEMORY: Final = "memory"
"""The tier of the tmpfs on which newcomers wait, and the id of the one device of it."""
_THREADS: Final = {Level.MEMORY: 2, Level.NVME: 8, Level.SSD: 4, Level.HDD: 2}
_DEADLINE: Final = 30.0
"""Seconds that a device may take for one write or removal."""


class Shelf:
    def __init__(self, number: int, record: DeviceRecord, folder: DeviceFolder) -> None:
        self.number = number
        self.identity = record.id
        self.path = record.home or record.path
        self.tier = record.tier
        self.level = Level[record.tier.upper()]
        self.capacity = record.capacity
        self.dwpd = record.dwpd
        self.wish = record.wish
        self.live = record.live
        self.foreign = record.foreign
        self.folder = folder
        self.hands = Hands(_THREADS[self.level], f"device {self.path}")
        self.watcher = Hands(1, f"device {self.path}")
        """Looks after it, also while all other threads hang."""
        fault = Fault(record.reason) if record.reason else None
        self.health = Health(Limits(), Standing(record.standing), fault, record.since)
        self.detail = ""
        """The last trouble, as a sentence."""
        self.errors: Counter[Fault] = Counter()
        self.room = asyncio.Lock()
        """Held while room is made, so that nobody takes it before the victims' files are gone."""
        self.reserved_bytes = 0
        """Room for content that is moving here."""

    @property
    def can_read(self) -> bool:
        return self.health.can_read

    @property
    def can_write(self) -> bool:
        return self.health.can_write and self.wish == SERVE and not self.foreign

    def record(self) -> DeviceRecord:
        """As the index should know it. Workers read from it only if it has a path."""
        return DeviceRecord(
            self.identity,
            self.path if self.can_read else "",
            self.tier,
            self.capacity,
            self.health.standing,
            self.health.reason or "",
            self.health.since,
            self.wish,
            self.dwpd,
            self.path,
            self.live,
            self.foreign,
        )

    async def do(self, work: Callable[[], T], deadline: float = _DEADLINE) -> T:
        """Do it in one of the device's threads. Raises `DeviceFault`, also if it does not answer in time."""
        return await self.hands.do(work, deadline)

    def let_go(self) -> None:
        """Nothing is asked of the device any more: it may be unmounted, or another mounted in its place."""
        self.watcher.leave(self.folder.close)

    def close(self) -> None:
        self.let_go()
        self.hands.close()
        self.watcher.close()
