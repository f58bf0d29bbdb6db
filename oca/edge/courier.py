"""The worker's side of the conversation with the keeper: asks, and keeps what comes until a response has used it.

When the keeper is gone the courier reconnects and asks everything again that is still waited for; responses notice
nothing but a pause.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from typing import Final, Protocol

import msgspec

from oca import ipc
from oca.cache.records import ObjectRecord
from oca.edge.extents import Damaged
from oca.edge.watched import Audience

log = logging.getLogger(__name__)

_RECONNECT: Final = 0.05
_SESSIONS: Final = 10_000
"""In one packet: 90 KB."""
_WATCHED_ROWS: Final = 256
"""In one packet: 80 KB with the longest of names."""


class Opening(Protocol):
    """A response that waits to learn what its object is."""

    def opened(self, answer: ipc.Opened) -> None: ...

    def open_refused(self, status: int, reason: str) -> None: ...


class Waiting(Protocol):
    """A response that waits for bytes of a block."""

    def bytes_came(self) -> None: ...

    def block_failed(self, *, unknown: bool, reason: str) -> None: ...


class BlockView:
    """A block on its way in, as this worker sees it. Responses that use it are its `users`."""

    __slots__ = ("fd", "is_kept", "is_whole", "key", "users", "waiters", "want", "watermark")

    def __init__(self, want: ipc.Want) -> None:
        self.want = want
        self.key = (want.key, want.generation, want.block, want.unreadable)
        self.fd = -1
        self.watermark = 0
        self.is_whole = False
        self.is_kept = False
        """It lies on disk: look it up and let this memory go."""
        self.users: set[Waiting] = set()
        self.waiters: set[Waiting] = set()

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Courier:
    def __init__(self, run_dir_fd: int, worker: int, place: int = 0) -> None:
        self._address = ipc.socket_path(run_dir_fd)
        self._worker = worker
        self._place = place
        self._numbers = itertools.count(1)
        self._channel: ipc.Channel | None = None
        self._opens: dict[int, tuple[ipc.Open, Opening]] = {}
        self._views: dict[tuple[bytes, int, int, bool], BlockView] = {}
        self._by_number: dict[int, BlockView] = {}
        self._touched: dict[int, None] = {}
        self._closed = False

    def connect(self) -> None:
        """Connect now, or try again in a moment until it works."""
        if self._closed:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(self._address)
        except OSError:
            sock.close()
            asyncio.get_running_loop().call_later(_RECONNECT, self.connect)
            return
        self._channel = ipc.Channel(sock, self._received, self._lost)
        self._channel.send(ipc.Hello(self._worker, os.getpid(), self._place))
        for asked, _ in self._opens.values():
            self._channel.send(asked)
        for view in self._by_number.values():
            self._channel.send(view.want)

    def close(self) -> None:
        self._closed = True
        self.report_touched()
        if self._channel is not None:
            self._channel.close()

    def open(self, path: str, start: int | None, loop: bytes, opening: Opening) -> None:
        """Ask what `path` is; `opening` is told once, unless it calls `forget_open` first."""
        asked = ipc.Open(next(self._numbers), path, start, loop)
        self._opens[asked.request] = (asked, opening)
        self._send(asked)

    def refresh(self, path: str) -> None:
        """Have a stale object refreshed; nobody waits for it."""
        self._send(ipc.Open(next(self._numbers), path, None, b"", background=True))

    def forget_open(self, opening: Opening) -> None:
        for number in [number for number, (_, other) in self._opens.items() if other is opening]:
            del self._opens[number]

    def view(
        self,
        key: bytes,
        record: ObjectRecord,
        block: int,
        last_block: int,
        loop: bytes,
        user: Waiting,
        *,
        unreadable: bool = False,
    ) -> BlockView:
        """The view of a block, shared by all its users in this worker; asked for if nobody did yet.

        With `unreadable` it lies on a device that does not give it: it is to come from elsewhere.
        """
        view = self._views.get((key, record.generation, block, unreadable))
        if view is None:
            number = next(self._numbers)
            want = ipc.Want(number, key, record.path, record.generation, block, last_block, loop, unreadable)
            view = BlockView(want)
            self._views[view.key] = view
            self._by_number[want.flight] = view
            self._send(want)
        view.users.add(user)
        return view

    def leave(self, view: BlockView, user: Waiting) -> None:
        """`user` needs the view no more. The flight itself goes on."""
        view.waiters.discard(user)
        view.users.discard(user)
        if not view.users and self._by_number.pop(view.want.flight, None) is not None:
            self._views.pop(view.key, None)
            self._send(ipc.Leave(view.want.flight))

    def touch(self, slot: int) -> None:
        """An extent was read, for the eviction policy; told in batches, each slot once in a batch."""
        self._touched[slot] = None
        if len(self._touched) >= 4096:
            self.report_touched()

    def report_touched(self) -> None:
        if self._touched:
            self._send(ipc.Touched(list(self._touched)))
            self._touched.clear()

    def report_watched(self, audience: Audience) -> None:
        """Tell what was sent since the last time. While the keeper is away it goes on being added up."""
        while self._channel is not None and (told := audience.take(_WATCHED_ROWS)):
            self._send(ipc.Watched(told))

    def report_sessions(self, numbers: list[int]) -> None:
        for at in range(0, len(numbers), _SESSIONS):
            self._send(ipc.Sessions(numbers[at : at + _SESSIONS]))

    def bring(self, path: str, start: int) -> None:
        """Have what is asked for next brought; nobody waits for it."""
        self._send(ipc.Bring(path, start))

    def lost(self, damaged: Damaged) -> None:
        """Tell the keeper, once."""
        if damaged.is_told:
            return
        damaged.is_told = True
        log.warning("extent %s on device %d is %s: %s", damaged.key.hex(), damaged.device, damaged.fault, damaged)
        self._send(ipc.Lost(damaged.key, damaged.slot, str(damaged), damaged.device, damaged.fault))

    def stalled(self, device: int, seconds: float) -> None:
        log.warning("device %d did not give a read in %.1f s", device, seconds)
        self._send(ipc.Stalled(device, seconds))

    def _send(self, packet: ipc.FromWorker) -> None:
        if self._channel is not None:
            self._channel.send(packet)

    def _lost(self) -> None:
        self._channel = None
        if not self._closed:
            log.warning("the keeper is gone; asking again when it is back")
            asyncio.get_running_loop().call_later(_RECONNECT, self.connect)

    def _received(self, packed: bytes, fd: int) -> None:
        try:
            packet = ipc.decode_from_keeper(packed)
        except msgspec.DecodeError as error:
            log.error("the keeper speaks another language: %s", error)
            if fd >= 0:
                os.close(fd)
            return
        match packet:
            case ipc.Progress(number, watermark):
                view = self._by_number.get(number)
                if view is not None:
                    view.watermark = watermark
                    _wake(view)
            case ipc.Arriving(number, watermark):
                self._arriving(number, watermark, fd)
                return
            case ipc.Landed(number, watermark, kept):
                self._landed(number, watermark, kept=kept)
            case ipc.Failed(number, unknown, reason):
                view = self._by_number.pop(number, None)
                if view is not None:
                    self._views.pop(view.key, None)
                    for user in list(view.users):
                        user.block_failed(unknown=unknown, reason=reason)
            case ipc.Opened(number):
                asked = self._opens.pop(number, None)
                if asked is not None:
                    asked[1].opened(packet)
            case ipc.OpenRefused(number, status, reason):
                asked = self._opens.pop(number, None)
                if asked is not None:
                    asked[1].open_refused(status, reason)
        if fd >= 0:
            os.close(fd)

    def _arriving(self, number: int, watermark: int, fd: int) -> None:
        view = self._by_number.get(number)
        if view is None:
            if fd >= 0:
                os.close(fd)
            return
        if view.fd >= 0:
            os.close(view.fd)  # A new keeper began anew.
        view.fd = fd
        view.watermark = watermark
        _wake(view)

    def _landed(self, number: int, watermark: int, *, kept: bool) -> None:
        view = self._by_number.pop(number, None)
        if view is None:
            return
        self._views.pop(view.key, None)
        view.watermark = watermark
        view.is_whole = True
        view.is_kept = kept
        _wake(view)


def _wake(view: BlockView) -> None:
    waiters, view.waiters = view.waiters, set()
    for waiter in waiters:
        waiter.bytes_came()
