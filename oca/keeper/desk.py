"""The desk: where the keeper talks to edge workers. Packets in, library calls out, flights reported back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import Final, NamedTuple

import msgspec

from oca import ipc
from oca.cache.health import Fault, Signal
from oca.cache.keys import BLOCK_BYTES
from oca.counters import DEVICE_BUCKETS_OFFSET, DEVICE_WORDS, DEVICES, DEVICES_AT, ROWS, WORDS, DeviceCount
from oca.errors import NoSourceAnswered
from oca.keeper.demand import Demand
from oca.keeper.flights import Flight, Stage
from oca.keeper.library import Library, Spawner
from oca.keeper.viewers import Viewers
from oca.store.board import CounterMemory
from oca.store.shelves import Shelves

log = logging.getLogger(__name__)

_MOST_BROUGHT: Final = 64
"""Objects that are brought ahead of time at once, for one worker; more are left to who asks for them."""
_UNUSED: Final = bytes(8 * DEVICES_AT)


class DeviceReads(NamedTuple):
    """Cold reads of one device since the appliance started."""

    reads: int
    bytes: int
    errors: int
    slow: int
    """Those that took longer than store.slow_read."""
    seconds: float
    buckets: list[int]
    """By `DEVICE_READ_BUCKETS`, not summed up; the last is for all above."""


class Counters:
    """The counters of all workers, living and dead, as one row of sums."""

    def __init__(self, memory: CounterMemory) -> None:
        self._rows = [memory.words[row * WORDS : row * WORDS + DEVICES_AT] for row in range(ROWS)]
        self._device_rows = [memory.words[row * WORDS + DEVICES_AT : (row + 1) * WORDS] for row in range(ROWS)]

    def sums(self) -> list[int]:
        """What stands before `DEVICES_AT`, over all workers."""
        used = [self._rows[row] for row in self._used()]
        return [sum(column) for column in zip(*used, strict=True)] if used else [0] * DEVICES_AT

    def device_reads(self) -> dict[int, DeviceReads]:
        """Cold reads by the number of the device, of those that were read at all; sums over all workers."""
        used = [self._device_rows[row] for row in self._used()]
        sums = [sum(column) for column in zip(*used, strict=True)]
        found: dict[int, DeviceReads] = {}
        for device in range(DEVICES if sums else 0):
            words = sums[device * DEVICE_WORDS : (device + 1) * DEVICE_WORDS]
            if words[DeviceCount.READS]:
                found[device] = DeviceReads(
                    words[DeviceCount.READS],
                    words[DeviceCount.BYTES],
                    words[DeviceCount.ERRORS],
                    words[DeviceCount.SLOW],
                    words[DeviceCount.MICROSECONDS] / 1e6,
                    words[DEVICE_BUCKETS_OFFSET:],
                )
        return found

    def _used(self) -> list[int]:
        # Most rows never had a worker: comparing one with zeros is cheaper than adding it.
        return [number for number, row in enumerate(self._rows) if row.tobytes() != _UNUSED]


class Desk:
    """Accepts workers on the appliance's Unix socket."""

    def __init__(
        self,
        sock: socket.socket,
        library: Library,
        shelves: Shelves,
        counters: Counters,
        spawner: Spawner,
        viewers: Viewers,
        demand: Demand | None = None,
    ) -> None:
        self.library = library
        self.shelves = shelves
        self.counters = counters
        self.spawner = spawner
        self.viewers = viewers
        self.demand = demand
        """None: demand is not shipped."""
        self._sock = sock
        self._clerks: set[Clerk] = set()
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept)

    @property
    def workers(self) -> dict[int, int]:
        """Process ids of the connected workers, by place. While one replaces another, the newer one's."""
        return {clerk.place: clerk.pid for clerk in sorted(self._clerks, key=lambda c: c.worker) if clerk.pid}

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        for clerk in list(self._clerks):
            clerk.channel.close()

    def left(self, clerk: Clerk) -> None:
        self._clerks.discard(clerk)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._sock.accept()
                self._clerks.add(Clerk(sock, self))


class Seat:
    """One Want of a worker: the Reader of its flight. Two of them may be for the same flight."""

    def __init__(self, clerk: Clerk, number: int, flight: Flight) -> None:
        self._clerk = clerk
        self._number = number
        self.flight = flight

    def arriving(self, flight: Flight) -> None:
        self._clerk.channel.send(ipc.Arriving(self._number, flight.watermark), flight.fd)

    def progress(self, flight: Flight) -> None:
        self._clerk.channel.send(ipc.Progress(self._number, flight.watermark))

    def landed(self, flight: Flight, *, kept: bool) -> None:
        self._clerk.seats.pop(self._number, None)
        self._clerk.channel.send(ipc.Landed(self._number, flight.length, kept))

    def failed(self, flight: Flight, *, unknown: bool, reason: str) -> None:
        del flight
        self._clerk.seats.pop(self._number, None)
        self._clerk.channel.send(ipc.Failed(self._number, unknown, reason))


class Clerk:
    """One worker's conversation."""

    def __init__(self, sock: socket.socket, desk: Desk) -> None:
        self._desk = desk
        self.channel = ipc.Channel(sock, self._received, self._lost)
        self.worker = -1
        self.pid = 0
        self.place = 0
        self._bringing = 0
        self.seats: dict[int, Seat] = {}
        """What this worker reads along with, by its own numbers."""

    # --- What the worker says ----------------------------------------------------------------------------------------

    def _received(self, packed: bytes, fd: int) -> None:
        try:
            packet = ipc.decode_from_worker(packed)
        except msgspec.DecodeError as error:
            log.error("worker %d speaks another language: %s", self.worker, error)
            self.channel.close()
            return
        finally:
            if fd >= 0:
                os.close(fd)
        match packet:
            case ipc.Hello(worker, pid, place):
                self.worker, self.pid, self.place = worker, pid, place
            case ipc.Open():
                self._desk.spawner.spawn(self._open(packet), f"answer {packet.path}")
            case ipc.Want():
                self._want(packet)
            case ipc.Leave(number):
                seat = self.seats.pop(number, None)
                if seat is not None:
                    seat.flight.leave(seat)
            case ipc.Touched(slots):
                self._desk.shelves.touch(slots)
            case ipc.Watched(folders):
                if self._desk.demand is not None:
                    self._desk.demand.heard(folders)
            case ipc.Sessions(numbers):
                self._desk.viewers.heard(numbers)
            case ipc.Bring(path, start):
                if self._bringing < _MOST_BROUGHT:
                    self._bringing += 1
                    self._desk.spawner.spawn(self._bring(path, start), f"bring {path}")
            case ipc.Lost(extent, slot, reason, device, fault):
                self._desk.library.lose(extent, slot, reason, device, _fault(fault))
            case ipc.Stalled(device, seconds):
                shelf = self._desk.shelves.shelf(device)
                if shelf is not None:
                    shelf.errors[Fault.STALLED] += 1
                    detail = f"{shelf.path}: a read was not done within {seconds:.1f} s"
                    self._desk.shelves.signal(shelf, Signal.STALL, detail)

    async def _open(self, asked: ipc.Open) -> None:
        try:
            answer = await self._desk.library.open(asked.path, asked.start, asked.loop)
        except NoSourceAnswered as error:
            log.warning("%s", error)
            refused: ipc.OpenRefused | None = ipc.OpenRefused(asked.request, error.status, str(error))
        except Exception:
            # Whatever it was, the client must not wait for its deadline to learn of it.
            log.exception("%s can't be opened", asked.path)
            refused = ipc.OpenRefused(asked.request, 500, "an error of the appliance's own; its log says more")
        else:
            refused = None
        if refused is not None:
            if not asked.background:
                self.channel.send(refused)
            return
        if not asked.background:
            self.channel.send(ipc.Opened(asked.request, answer.key, answer.record, answer.outcome, answer.fwd_status))

    async def _bring(self, path: str, start: int) -> None:
        """Have a block here before it is asked for. Whoever asks then meets a flight, or what was kept."""
        try:
            answer = await self._desk.library.open(path, start)
            record = answer.record
            if record.status == 200 and record.storable and start < record.size:
                block = start // BLOCK_BYTES
                self._desk.library.want(ipc.Want(0, answer.key, path, record.generation, block, block))
        except NoSourceAnswered as error:
            log.debug("%s is not brought ahead of time: %s", path, error)
        finally:
            self._bringing -= 1

    def _want(self, want: ipc.Want) -> None:
        flight = self._desk.library.want(want)
        if flight is None:
            self.channel.send(ipc.Failed(want.flight, unknown=True, reason="this generation is not known here"))
        elif flight.stage is Stage.LANDED:
            self.channel.send(ipc.Landed(want.flight, flight.length, kept=True))
        else:
            seat = self.seats[want.flight] = Seat(self, want.flight, flight)
            flight.join(seat)

    def _lost(self) -> None:
        for seat in self.seats.values():
            seat.flight.leave(seat)
        self.seats.clear()
        self._desk.left(self)


def _fault(word: str) -> Fault:
    """A worker of another version may have words that we lack."""
    return Fault(word) if word in Fault.__members__.values() else Fault.IO
