"""Carries DNS packets: datagrams, and conversations over TCP (RFC 7766).

UDP is read straight from the socket, many datagrams for each turn of the loop. An answer leaves from the address its
query was sent to, also where the socket is bound to all addresses: a resolver drops what comes from anywhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, cast

from steering.dns.answerer import Answerer, Count, Transport
from steering.dns.limiter import network_of
from steering.dns.packets import HEADER_BYTES, MOST_QUERY_BYTES
from steering.dns.settings import DnsSettings

log = logging.getLogger(__name__)

#: Queries answered before others on the loop have their turn: about a millisecond.
_BATCH: Final = 64
#: Datagrams waiting in the kernel that are still answered at the end.
_LAST_DATAGRAMS: Final = 4096
# A burst waits in the kernel while the loop does something else; the kernel gives less where net.core.rmem_max is less.
_RECEIVE_BUFFER: Final = 4 * 1024 * 1024
_BACKLOG: Final = 1024
_FAILURE_LOG_INTERVAL: Final = 10.0
# Not in the socket module of Python 3.11.
_IP_PKTINFO: Final = 8
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(20)
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"

_Ancillary = list[tuple[int, int, bytes]]


def udp_socket(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Bound and ready for `Server.start`. Raises OSError.

    With `reuse_port` several processes may bind the same port, and the kernel spreads clients over them.
    """
    sock = _bound(host, port, socket.SOCK_DGRAM, reuse_port=reuse_port)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    return sock


def tcp_socket(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """As `udp_socket`, and listening."""
    sock = _bound(host, port, socket.SOCK_STREAM, reuse_port=reuse_port)
    sock.listen(_BACKLOG)
    return sock


def _bound(host: str, port: int, kind: socket.SocketKind, *, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


class Server:
    """One answerer behind any number of sockets, all on the running loop."""

    def __init__(self, answerer: Answerer, settings: DnsSettings, clock: Callable[[], float]) -> None:
        """`clock` is the one that the ranking goes by."""
        self._answerer = answerer
        self._clock = clock
        self._most_conversations = settings.tcp_connections
        self._most_of_a_network = settings.tcp_per_network
        self._idle = settings.tcp_idle
        self._datagrams: list[_Datagrams] = []
        self._listeners: list[asyncio.Server] = []
        self._conversations: set[_Conversation] = set()
        self._of_network: Counter[bytes] = Counter()
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self._next_failure_log = 0.0

    async def start(self, udp: Sequence[socket.socket], tcp: Sequence[socket.socket]) -> None:
        """Answer on these sockets, which belong to the server from now on."""
        loop = asyncio.get_running_loop()
        for sock in udp:
            datagrams = _Datagrams(sock, self)
            loop.add_reader(sock.fileno(), datagrams.receive)
            self._datagrams.append(datagrams)
        for sock in tcp:
            listener = await loop.create_server(lambda: _Conversation(self, self._idle), sock=sock, backlog=_BACKLOG)
            self._listeners.append(listener)

    async def stop(self, deadline: float) -> None:
        """Answer what has arrived, and close everything. Who has not taken his answers in `deadline` seconds is cut."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            listener.close()
        for datagrams in self._datagrams:
            loop.remove_reader(datagrams.sock.fileno())
            datagrams.finish()
        for conversation in tuple(self._conversations):
            conversation.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self._all_gone.wait()
        for conversation in tuple(self._conversations):
            conversation.cut()
        self._datagrams.clear()
        self._listeners.clear()

    def answer(self, packet: bytes, peer: bytes, transport: Transport) -> bytes | None:
        now = self._clock()
        try:
            return self._answerer.answer(packet, peer, transport, now)
        except Exception:
            # The outermost loop of a query. A fault of ours that strangers can reach must not fill the disk as well.
            if now >= self._next_failure_log:
                self._next_failure_log = now + _FAILURE_LOG_INTERVAL
                log.exception("dns: no answer to %s from %s", packet.hex(), _address_text(peer))
            return self._answerer.failed(packet)

    def count(self, what: Count) -> None:
        self._answerer.count(what)

    def admit(self, conversation: _Conversation, network: bytes) -> bool:
        """Whether one more conversation fits; if so, `dismiss` must follow."""
        if len(self._conversations) >= self._most_conversations or self._of_network[network] >= self._most_of_a_network:
            self._answerer.count(Count.TURNED_AWAY)
            return False
        self._conversations.add(conversation)
        self._of_network[network] += 1
        self._all_gone.clear()
        return True

    def dismiss(self, conversation: _Conversation, network: bytes) -> None:
        self._conversations.discard(conversation)
        self._of_network[network] -= 1
        if not self._of_network[network]:
            del self._of_network[network]
        if not self._conversations:
            self._all_gone.set()


class _Datagrams:
    """One UDP socket."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock = sock
        self._server = server

    def receive(self) -> None:
        """Answer what is there, up to a batch."""
        for _ in range(_BATCH):
            if not self._answer_one():
                return

    def finish(self) -> None:
        for _ in range(_LAST_DATAGRAMS):
            if not self._answer_one():
                break
        self.sock.close()

    def _answer_one(self) -> bool:
        """Whether there may be more."""
        try:
            packet, ancillary, _, address = self.sock.recvmsg(MOST_QUERY_BYTES, _ANCILLARY_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            # Such as an ICMP error to an answer of ours. It is off the socket now; there may be queries behind it.
            log.debug("dns: receiving failed: %s", error)
            return True
        reply = self._server.answer(packet, _packed(address[0]), Transport.UDP)
        if reply is not None:
            try:
                self.sock.sendmsg([reply], _returned(ancillary), 0, address)
            except OSError:
                # A full buffer, no route, source port 0. The resolver asks again.
                self._server.count(Count.UNSENT)
        return True


class _Conversation(asyncio.Protocol):
    """One TCP connection: queries in a row, each behind its length, answered in the order they came."""

    def __init__(self, server: Server, idle: float) -> None:
        self._server = server
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._is_admitted = False
        self._is_ending = False
        self._is_full = False
        self._is_waiting_for_turn = False
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._peer = _packed(transport.get_extra_info("peername")[0])
        self._network = network_of(self._peer)
        if not self._server.admit(self, self._network):
            self._transport.abort()
            return
        self._is_admitted = True
        self._timer = self._loop.call_later(self._idle, self._look_at_clock)

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._is_admitted:
            self._is_admitted = False
            self._server.dismiss(self, self._network)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_waiting_for_turn:
            self._go_on()

    def eof_received(self) -> bool:
        """A client may say that it has no more to ask, and still gets its answers."""
        self._is_ending = True
        if not self._is_waiting_for_turn:
            self._go_on()
        return True

    def pause_writing(self) -> None:
        """The client does not take its answers: no more queries are read until it does, or the time is over."""
        self._is_full = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_full = False
        self._go_on()

    def finish(self) -> None:
        """Answer what has arrived, then close."""
        self.eof_received()

    def cut(self) -> None:
        self._transport.abort()

    def _go_on(self) -> None:
        """Answer whole queries, up to a batch, then see whether to read, to wait for our turn, or to close."""
        self._is_waiting_for_turn = False
        if self._transport.is_closing():
            return
        for _ in range(_BATCH):
            if self._is_full:
                return
            query = self._next_query()
            if query is None:
                break
            reply = self._server.answer(query, self._peer, Transport.TCP)
            if reply is None:
                # Garbage. By TCP there is nobody to protect from an answer, and nothing to say either.
                self._transport.abort()
                return
            self._heard_at = self._loop.time()
            self._transport.write(len(reply).to_bytes(2, "big") + reply)
        else:
            self._is_waiting_for_turn = True
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)
            return
        if self._transport.is_closing():
            return
        if self._is_ending:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def _next_query(self) -> bytes | None:
        """The next whole one; None if it is not there yet. What can't be a query ends the conversation."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        stop = 2 + int.from_bytes(buffer[:2], "big")
        if not 2 + HEADER_BYTES <= stop <= 2 + MOST_QUERY_BYTES:
            self._transport.abort()
            return None
        if len(buffer) < stop:
            return None
        query = bytes(buffer[2:stop])
        del buffer[:stop]
        return query

    def _look_at_clock(self) -> None:
        """The time runs from query to query, so that neither silence nor single bytes keep a connection."""
        left = self._heard_at + self._idle - self._loop.time()
        if left <= 0:
            self._transport.abort()
            return
        self._timer = self._loop.call_later(left, self._look_at_clock)


def _packed(host: str) -> bytes:
    """A peer's address, 4 or 16 bytes. IPv4 that came through an IPv6 socket is IPv4."""
    if ":" not in host:
        return socket.inet_aton(host)
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _address_text(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _returned(ancillary: _Ancillary) -> _Ancillary:
    """Which address a query was sent to, as the address to answer from."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            # in_pktinfo: interface, our address, address in the header. The way back is for the routes to say.
            return [(level, kind, b"\0\0\0\0" + data[4:8] + b"\0\0\0\0")]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            # in6_pktinfo: address, interface. A link-local address means nothing without its interface.
            is_link_local = data[:2] == b"\xfe\x80"
            return [(level, kind, data if is_link_local else data[:16] + b"\0\0\0\0")]
    return []
