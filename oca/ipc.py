"""The conversation between an edge worker and the keeper: packets on a Unix socket, some with a file descriptor.

| from → to | packet | when |
|---|---|---|
| worker → keeper | Hello | first: who I am |
| worker → keeper | Open | a path is unknown or stale here: may I serve it, and what is it? |
| keeper → worker | Opened, OpenRefused | its answer |
| worker → keeper | Want | a block is not on disk: let me read along |
| keeper → worker | Arriving + fd | the block's memory; then Progress as bytes come in |
| keeper → worker | Progress, Landed, Failed | the watermark grew; the block is whole (and kept or not); it won't come |
| worker → keeper | Leave | nobody here reads along any more |
| worker → keeper | Touched | slots that were read, for the eviction policy |
| worker → keeper | Watched | what viewers got, by the folder of the rendition, where demand is shipped |
| worker → keeper | Bring | a player says that it asks for this next: have it here |
| worker → keeper | Sessions | numbers of the sessions that asked for something in the last second |
| worker → keeper | Lost | an extent's file is not what the index says |
| worker → keeper | Stalled | a device did not answer a read in time |

SOCK_SEQPACKET keeps the packets apart, so there is no framing. When the keeper is gone, the worker reconnects and asks
again: nothing here may be asked only once.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from oca.cache.records import ObjectRecord

_PACKET_BYTES: Final = 128 * 1024
_BACKLOG_PACKETS: Final = 100_000
"""Unsent packets after which the peer is taken for dead."""


class Hello(msgspec.Struct, tag="hello", array_like=True):
    worker: int
    pid: int
    place: int = 0
    """Which of the appliance's workers this is; its successor has the same place and another number."""


class Open(msgspec.Struct, tag="open", array_like=True):
    request: int
    path: str
    start: int | None
    """First byte that will be wanted; None if only the head is (HEAD, or a suffix of unknown length)."""
    loop: bytes = b""
    """The CDN-Loop header of the client, to be passed on."""
    background: bool = False
    """Refresh only: nobody waits for the answer."""


class Opened(msgspec.Struct, tag="opened", array_like=True):
    request: int
    key: bytes
    """Of the object; private (not its path's hash) if the object may not be stored."""
    record: ObjectRecord
    outcome: str
    """An `OpenOutcome`."""
    fwd_status: int = 0
    """The source's status, 0 if none was asked."""


class OpenRefused(msgspec.Struct, tag="refused", array_like=True):
    request: int
    status: int
    reason: str


class Want(msgspec.Struct, tag="want", array_like=True):
    flight: int
    """The worker's own number for what it wants; answers carry it."""
    key: bytes
    path: str
    generation: int
    block: int
    last_block: int
    """The last block that this viewer's range reaches: how far reading ahead may go."""
    loop: bytes = b""
    """As in Open."""
    unreadable: bool = False
    """The block is said to lie on a device, which did not give it in time: bring it from another copy or a source."""


class Arriving(msgspec.Struct, tag="arriving", array_like=True):
    flight: int
    watermark: int


class Progress(msgspec.Struct, tag="progress", array_like=True):
    flight: int
    watermark: int


class Landed(msgspec.Struct, tag="landed", array_like=True):
    """All bytes are there; `kept` says whether they lie on disk now."""

    flight: int
    watermark: int
    kept: bool


class Failed(msgspec.Struct, tag="failed", array_like=True):
    """The block won't come. `unknown` asks the worker to open the object anew: this generation is not known here."""

    flight: int
    unknown: bool
    reason: str


class Leave(msgspec.Struct, tag="leave", array_like=True):
    flight: int


class Touched(msgspec.Struct, tag="touched", array_like=True):
    slots: list[int]


class Watched(msgspec.Struct, tag="watched", array_like=True):
    folders: list[tuple[str, list[int]]]
    """Each with its counts since the last packet, in the places of oca.report.demand."""


class Bring(msgspec.Struct, tag="bring", array_like=True):
    path: str
    start: int
    """First byte that will be wanted."""


class Sessions(msgspec.Struct, tag="sessions", array_like=True):
    numbers: list[int]
    """Hashed with the day's salt (oca.store.board)."""


class Lost(msgspec.Struct, tag="lost", array_like=True):
    """An extent's file on `device` is gone, short, unreadable or rotten."""

    extent: bytes
    slot: int
    reason: str
    device: int = -1
    fault: str = "missing"
    """A `Fault` of oca.cache.health."""


class Stalled(msgspec.Struct, tag="stalled", array_like=True):
    """A device did not answer a read within its deadline."""

    device: int
    seconds: float


FromWorker = Hello | Open | Want | Leave | Touched | Watched | Bring | Sessions | Lost | Stalled
FromKeeper = Opened | OpenRefused | Arriving | Progress | Landed | Failed

_encode = msgspec.msgpack.Encoder().encode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_from_keeper = msgspec.msgpack.Decoder(FromKeeper).decode


class Channel:
    """One end of the conversation, on a connected non-blocking socket.

    `received` gets each packet and its descriptor (-1 if none; the callee owns it); `lost` is called once, at the end.
    """

    def __init__(self, sock: socket.socket, received: Callable[[bytes, int], None], lost: Callable[[], None]) -> None:
        self._sock = sock
        self._received = received
        self._lost = lost
        self._backlog: deque[tuple[bytes, int]] = deque()
        self._loop = asyncio.get_running_loop()
        self._fd = sock.fileno()
        self._open = True
        sock.setblocking(False)
        self._loop.add_reader(self._fd, self._readable)

    def send(self, packet: FromWorker | FromKeeper, fd: int = -1) -> None:
        """Send, now or when there is room. `fd` is duplicated, the caller keeps its own."""
        if not self._open:
            return
        packed = _encode(packet)
        if not self._backlog and self._try(packed, fd):
            return
        if len(self._backlog) >= _BACKLOG_PACKETS:
            self.close()
            return
        self._backlog.append((packed, os.dup(fd) if fd >= 0 else -1))
        if len(self._backlog) == 1:
            self._loop.add_writer(self._fd, self._writable)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        for _, fd in self._backlog:
            if fd >= 0:
                os.close(fd)
        self._backlog.clear()
        self._sock.close()
        self._loop.call_soon(self._lost)

    def _try(self, packed: bytes, fd: int) -> bool:
        """Whether the packet went (or never will)."""
        try:
            if fd >= 0:
                socket.send_fds(self._sock, [packed], [fd])
            else:
                self._sock.send(packed)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
        return True

    def _writable(self) -> None:
        while self._backlog:
            packed, fd = self._backlog.popleft()
            if not self._try(packed, fd):
                self._backlog.appendleft((packed, fd))
                return
            if fd >= 0:
                os.close(fd)
        if self._open:
            self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        # A bound on one turn, so that a talkative peer does not starve the others.
        for _ in range(64):
            try:
                packed, fds, flags, _ = socket.recv_fds(self._sock, _PACKET_BYTES, 1)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            if not packed or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                for fd in fds:
                    os.close(fd)
                self.close()
                return
            self._received(packed, fds[0] if fds else -1)
            if not self._open:
                return


def socket_path(folder_fd: int) -> str:
    """The address of the keeper's socket. Through /proc, because Unix socket addresses end at 108 bytes."""
    return f"/proc/self/fd/{folder_fd}/keeper.sock"
