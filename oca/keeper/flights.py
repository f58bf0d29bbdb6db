"""Flights: blocks on their way in. A flight belongs to no client; it goes on when the one who asked has left."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections import Counter
from enum import Enum
from typing import Protocol

from oca.cache.keys import ObjectKey, block_span
from oca.cache.records import ObjectRecord
from oca.keeper.peers import Route


class Stage(Enum):
    WAITING = "for its turn or for the stream to reach it"
    ARRIVING = "bytes are coming in"
    WHOLE = "all bytes are here and being put on disk"
    LANDED = "over, and right"
    FAILED = "over, and wrong"


class Reader(Protocol):
    """Somebody who reads along: one edge worker, on behalf of all its clients."""

    def arriving(self, flight: Flight) -> None: ...

    def progress(self, flight: Flight) -> None: ...

    def landed(self, flight: Flight, *, kept: bool) -> None: ...

    def failed(self, flight: Flight, *, unknown: bool, reason: str) -> None: ...


class Flight:
    """One block in memory that others may map. Readers see the end as `landed` or `failed`, never as silence."""

    def __init__(
        self, key: ObjectKey, record: ObjectRecord, block: int, loop: bytes = b"", route: Route | None = None
    ) -> None:
        self.key = key
        self.loop = loop
        """The CDN-Loop header of the request that began it."""
        self.route = route
        """Whom to ask before the ladder; None: nobody."""
        self.came: Counter[str] = Counter()
        """Bytes, by the name of the source."""
        self.block = block
        self.start, self.stop = block_span(block, record.size)
        self.watermark = 0
        """Bytes that are here, from the start of the block."""
        self.stage = Stage.WAITING
        self.fd = -1
        self.wanted = asyncio.Event()
        """Somebody reads along, or did."""
        self.passes = False
        """It lies on a device that does not give it: it is brought for those who wait, and not kept again."""
        self._readers: set[Reader] = set()

    @property
    def length(self) -> int:
        return self.stop - self.start

    @property
    def is_over(self) -> bool:
        return self.stage in (Stage.LANDED, Stage.FAILED)

    def take_off(self) -> None:
        """Get memory; from now on bytes may come. Raises OSError if there is none; then the flight still waits."""
        assert self.stage is Stage.WAITING
        fd = os.memfd_create("oca-flight", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, self.length)
        except OSError:
            os.close(fd)
            raise
        self.fd = fd
        self.stage = Stage.ARRIVING
        for reader in self._readers:
            reader.arriving(self)

    def join(self, reader: Reader) -> None:
        self._readers.add(reader)
        self.wanted.set()
        if self.stage in (Stage.ARRIVING, Stage.WHOLE):
            reader.arriving(self)

    def leave(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def receive(self, content: bytes | memoryview) -> None:
        """The next bytes, in order. More than the block holds is an error of the caller."""
        assert self.stage is Stage.ARRIVING
        assert self.watermark + len(content) <= self.length
        view = memoryview(content)
        while view:
            written = os.pwrite(self.fd, view, self.watermark)
            self.watermark += written
            view = view[written:]
        if self.watermark == self.length:
            self.stage = Stage.WHOLE
        for reader in self._readers:
            reader.progress(self)

    def content(self) -> memoryview:
        """All bytes of a WHOLE flight. The memory lives as long as the view does."""
        assert self.stage is Stage.WHOLE
        return memoryview(mmap.mmap(self.fd, self.length, prot=mmap.PROT_READ))

    def land(self, *, kept: bool) -> None:
        self.stage = Stage.LANDED
        for reader in self._readers:
            reader.landed(self, kept=kept)
        self._end()

    def fail(self, reason: str, *, unknown: bool = False) -> None:
        self.stage = Stage.FAILED
        for reader in self._readers:
            reader.failed(self, unknown=unknown, reason=reason)
        self._end()

    def _end(self) -> None:
        self._readers.clear()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Landing:
    """A reader that only waits for the end."""

    def __init__(self) -> None:
        self.over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether the block is here."""

    def arriving(self, flight: Flight) -> None: ...

    def progress(self, flight: Flight) -> None: ...

    def landed(self, flight: Flight, *, kept: bool) -> None:
        del flight, kept
        if not self.over.done():
            self.over.set_result(True)

    def failed(self, flight: Flight, *, unknown: bool, reason: str) -> None:
        del flight, unknown, reason
        if not self.over.done():
            self.over.set_result(False)
