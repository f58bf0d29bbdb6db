"""A client connection over TLS: the state machine of `connection.py`, with encryption between it and its socket.

OpenSSL works on memory (`ssl.MemoryBIO`), not on the socket. What it made of 128 KiB leaves with one call, not with one
for each record of 16 KiB (measured over loopback: 0.50 against 0.55 to 0.60 CPU-ms for 1 MiB), an interrupted write
needs no repetition, and a handshake can be computed by another thread while nobody else touches anything of it.

What the socket did not take of an encrypted piece waits in `_stuck`; until it has left, nothing more is encrypted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from oca.counters import Count
from oca.edge.access import Gate
from oca.edge.connection import Connection, State
from oca.edge.worker import Worker
from oca.settings import Settings
from oca.tls import FilmContexts, FleetContext, TicketKeys

PIECE_BYTES: Final = 128 * 1024
"""Read and encrypted at once."""
_RECV_BYTES: Final = 16 * 1024
_INLINE: Final = 4
"""Handshakes that one turn of the loop computes itself; what queues behind them goes to threads."""
_THREADS: Final = 2
_WAITING: Final = 4096
"""Handshakes that wait for a thread; whoever comes then is turned away."""


class Shaker:
    """Computes handshakes. A few cost less on the loop than to hand over; many at once would keep viewers waiting."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads: ThreadPoolExecutor | None = None
        self._inline = 0
        self._waiting: deque[Secured] = deque()
        self._busy = 0

    def shake(self, connection: Secured) -> None:
        """Have `connection.compute` called, here or by a thread, and then `connection.computed` on the loop."""
        if self._inline < _INLINE and not self._waiting:
            if self._inline == 0:
                self._loop.call_soon(self._turn_over)
            self._inline += 1
            connection.computed(connection.compute())
        elif len(self._waiting) >= _WAITING:
            connection.computed(ssl.SSLError("too many handshakes wait"))
        else:
            connection.stop_reading()
            self._waiting.append(connection)
            self._go_on()

    def _turn_over(self) -> None:
        self._inline = 0

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _go_on(self) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "shaker")
        while self._waiting and self._busy < _THREADS:
            connection = self._waiting.popleft()
            if connection.is_closed:
                continue
            self._busy += 1
            self._threads.submit(self._compute, connection)

    def _compute(self, connection: Secured) -> None:
        """In a thread."""
        outcome = connection.compute()
        with contextlib.suppress(RuntimeError):  # The loop is closed: the worker ends.
            self._loop.call_soon_threadsafe(self._computed, connection, outcome)

    def _computed(self, connection: Secured, outcome: OSError | None) -> None:
        self._busy -= 1
        self._go_on()
        if not connection.is_closed:
            connection.go_on_reading()
            connection.computed(outcome)


class Security:
    """What the secured connections of a worker share. Raises `SettingsError` if a certificate can't be used."""

    def __init__(
        self, settings: Settings, worker: Worker, loop: asyncio.AbstractEventLoop, gate: Gate | None, tickets_fd: int
    ) -> None:
        tickets = TicketKeys(tickets_fd) if settings.tls.ticket_rotation else None
        self._worker = worker
        self._loop = loop
        self._gate = gate
        self._films = FilmContexts(settings, tickets, self._count_fault) if settings.listen.https is not None else None
        self._fleet = FleetContext(settings) if settings.listen.fleet is not None else None
        self.shaker = Shaker(loop)
        self.piece = memoryview(bytearray(PIECE_BYTES))
        self.look()

    def look(self) -> None:
        """Take up files that changed. Called once a second."""
        if self._films is not None:
            self._films.look()
        if self._fleet is not None and self._fleet.look():
            for connection in [c for c in self._worker.connections if isinstance(c, Secured)]:
                connection.believe_or_close()

    def close(self) -> None:
        self.shaker.close()

    def film_connection(self, sock: socket.socket) -> Connection:
        assert self._films is not None
        return Secured(sock, self._worker, self._loop, self._gate, self, self._films.default)

    def fleet_connection(self, sock: socket.socket) -> Connection | None:
        """None while this appliance is not enrolled."""
        assert self._fleet is not None
        context = self._fleet.context
        if context is None:
            self._worker.tally.count(Count.FLEET_REFUSED)
            return None
        return Secured(sock, self._worker, self._loop, None, self, context, self._fleet)

    def _count_fault(self) -> None:
        self._worker.tally.count(Count.CERTIFICATE_FAULTS)


class Secured(Connection):
    __slots__ = ("_fleet", "_in", "_is_over", "_is_shaken", "_out", "_security", "_stuck", "_tls")

    def __init__(
        self,
        sock: socket.socket,
        worker: Worker,
        loop: asyncio.AbstractEventLoop,
        gate: Gate | None,
        security: Security,
        context: ssl.SSLContext,
        fleet: FleetContext | None = None,
    ) -> None:
        """`fleet`: at the fleet's port, who is believed there."""
        super().__init__(sock, worker, loop, gate)
        self._security = security
        self._fleet = fleet
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._stuck: memoryview | None = None
        self._is_shaken = False
        self._is_over = False
        """Whether the client said that it sends no more (RFC 8446 section 6.1)."""
        self._receive = self._receive_tls
        self._send = self._send_tls
        self._send_file = self._send_file_tls
        self._state = State.SHAKING
        self.deadline = time.monotonic() + worker.http.header_timeout

    # --- Handshake ----------------------------------------------------------------------------------------------------

    def readable(self) -> None:
        if self._state is State.SHAKING:
            self._shake()
        else:
            self._hear()

    def _hear(self) -> None:
        super().readable()
        if self._is_over and not self._end_seen and self._state not in (State.LINGERING, State.CLOSED):
            self._ended_by_client()  # It said so behind its last request: nothing more will come to wake us.

    def _shake(self) -> None:
        try:
            received = self._sock.recv(_RECV_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._shook_off(Count.HANDSHAKES_FAILED)
            return
        self._in.write(received)
        self._security.shaker.shake(self)

    def compute(self) -> OSError | None:
        """Go on with the handshake as far as what came allows; touches OpenSSL's state only. None: it is done."""
        try:
            self._tls.do_handshake()
        except OSError as error:  # ssl.SSLError is one; SSLWantReadError too.
            return error
        except ValueError as error:
            return ssl.SSLError(str(error))
        return None

    def computed(self, outcome: OSError | None) -> None:
        try:
            self._put_out()
        except OSError:
            outcome = ssl.SSLError("the client is gone")
        if isinstance(outcome, ssl.SSLWantReadError):
            if self._stuck is not None:
                self._shook_off(Count.HANDSHAKES_FAILED)  # It takes no answer of a few kilobytes.
            return
        if outcome is not None:
            self._shook_off(Count.HANDSHAKES_FAILED)
            return
        words = self._worker.tally.words
        if not self._is_believed():
            self._shook_off(Count.FLEET_REFUSED)
            return
        words[Count.HANDSHAKES_RESUMED if self._tls.session_reused else Count.HANDSHAKES_FULL] += 1
        if self._tls.version() == "TLSv1.2":
            words[Count.HANDSHAKES_TLS12] += 1
        self._is_shaken = True
        self._state = State.IDLE
        self.deadline = time.monotonic() + self._worker.http.idle_timeout
        if self._in.pending:
            self._hear()  # The first request came with the end of the handshake.

    def _shook_off(self, why: Count) -> None:
        self._worker.tally.words[why] += 1
        self.close()

    @property
    def is_closed(self) -> bool:
        return self._state is State.CLOSED

    @property
    def is_idle(self) -> bool:
        return self._state is State.SHAKING or super().is_idle

    def stop_reading(self) -> None:
        self._pause_reading()

    def go_on_reading(self) -> None:
        if not self._has_reader:
            self._has_reader = True
            self._loop.add_reader(self._number, self.readable)

    def _is_believed(self) -> bool:
        """At the fleet's port: whether its certificate is an appliance's, and not revoked."""
        return self._fleet is None or self._fleet.who(self._tls.getpeercert()) is not None

    def believe_or_close(self) -> None:
        """Somebody was revoked."""
        if self._is_shaken and not self._is_believed():
            self._break_off()

    # --- Bytes --------------------------------------------------------------------------------------------------------

    def _receive_tls(self, most: int) -> bytes:
        """As `socket.recv`. Raises BlockingIOError if nothing came that is a whole record."""
        if not self._in.pending:
            received = self._sock.recv(most)
            if not received:
                return b""
            self._in.write(received)
        parts = []
        try:
            while part := self._tls.read(_RECV_BYTES):
                parts.append(part)
            self._is_over = True
        except ssl.SSLWantReadError:
            if self._out.pending and self._stuck is None:
                self._put_out()  # TLS itself answers: a key update, say.
            if not parts:
                raise BlockingIOError from None
        return b"".join(parts)

    def _send_tls(self, content: bytes | memoryview, flags: int = 0) -> int:
        """As `socket.send`, but that all of it is taken, or nothing. Raises BlockingIOError."""
        del flags
        self._clear()
        self._tls.write(content)
        self._put_out()
        return len(content)

    def _send_file_tls(self, fd: int, offset: int, count: int) -> int:
        """As `os.sendfile`: fewer than `count` if the socket is full, or the file ends."""
        self._clear()
        piece = self._security.piece
        sent = 0
        while sent < count and self._stuck is None:
            read = os.preadv(fd, [piece[: count - sent]], offset + sent)
            if not read:
                break
            self._tls.write(piece[:read])
            sent += read
            self._put_out()
        return sent

    def _put_out(self) -> None:
        """Send what OpenSSL made; keep what the socket does not take."""
        if not self._out.pending:
            return
        made = self._out.read()
        try:
            sent = self._sock.send(made)
        except BlockingIOError:
            sent = 0
        if sent < len(made):
            self._stuck = memoryview(made)[sent:]

    def _clear(self) -> None:
        """Send what is stuck. Raises BlockingIOError if the socket does not take all of it."""
        if self._stuck is None:
            return
        self._stuck = self._stuck[self._sock.send(self._stuck) :]
        if self._stuck:
            raise BlockingIOError
        self._stuck = None

    def _pump(self) -> None:
        try:
            self._clear()
        except BlockingIOError:
            self._await_writable()
        except OSError:
            self.close()
        else:
            super()._pump()

    def _at_rest(self, now: float) -> None:
        if self._stuck is None:
            super()._at_rest(now)
        else:
            self._finished()

    def _finished(self) -> None:
        """What is stuck belongs to the answer."""
        if self._stuck is None:
            super()._finished()
        else:
            self._await_writable()

    # --- Ending -------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        if self._state is State.SHAKING:
            self._shook_off(Count.HANDSHAKE_TIMEOUTS)
        else:
            super().expire(now)

    def _linger(self) -> None:
        self._say_goodbye()
        super()._linger()

    def close(self) -> None:
        if self._state is State.IDLE:
            self._say_goodbye()
        super().close()

    def _say_goodbye(self) -> None:
        """So that the client knows that nothing was cut off (RFC 8446 section 6.1). Who is cut off does not hear it."""
        if not self._is_shaken or self._stuck is not None:
            return
        with contextlib.suppress(OSError, ValueError):
            try:
                self._tls.unwrap()
            finally:
                self._put_out()
