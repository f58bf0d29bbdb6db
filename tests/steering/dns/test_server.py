"""Real sockets on loopback, with dnspython as the resolver."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from steering.dns.answerer import Choice, Count, Transport
from steering.dns.packets import MOST_QUERY_BYTES
from steering.dns.server import Server, tcp_socket, udp_socket
from tests.steering.dns.asking import Desk, query, records

DEADLINE = 20.0
_PORT_TRIES = 20


class House:
    """A server on one port for both transports."""

    def __init__(self, desk: Desk, server: Server, host: str, port: int) -> None:
        self.desk = desk
        self.server = server
        self.host = host
        self.port = port

    def counted(self, what: Count) -> int:
        return self.desk.answerer.counts[what]


def _sockets(host: str) -> tuple[socket.socket, socket.socket]:
    """Both on the same port, which the system gives for one and may have given away for the other."""
    for _ in range(_PORT_TRIES):
        tcp = tcp_socket(host, 0)
        try:
            return udp_socket(host, tcp.getsockname()[1]), tcp
        except OSError as error:
            tcp.close()
            if error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("no port is free for both")


@contextlib.asynccontextmanager
async def housed(host: str = "127.0.0.1", **changes: Any) -> AsyncIterator[House]:
    desk = Desk(**changes)
    server = Server(desk.answerer, desk.settings, asyncio.get_running_loop().time)
    udp, tcp = _sockets(host)
    port = udp.getsockname()[1]
    await server.start([udp], [tcp])
    try:
        yield House(desk, server, host, port)
    finally:
        await server.stop(DEADLINE)


def _asked(name: str, kind: str = "A", **how: Any) -> dns.message.Message:
    return dns.message.from_wire(query(name, kind, **how))


def _framed(*packets: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(packet)) + packet for packet in packets)


async def _reply(reader: asyncio.StreamReader) -> dns.message.Message:
    async with asyncio.timeout(DEADLINE):
        size = int.from_bytes(await reader.readexactly(2), "big")
        return dns.message.from_wire(await reader.readexactly(size))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_transports_answer_in_both_families(host: str) -> None:
    async with housed(host) as house:
        for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
            answer = await ask(_asked("films", subnet="203.0.113.0/24"), house.host, DEADLINE, house.port)
            assert records(answer, "A") == ["192.0.2.1", "192.0.2.2"]
        assert (house.counted(Count.UDP), house.counted(Count.TCP)) == (1, 1)


async def test_an_answer_comes_from_the_address_that_was_asked() -> None:
    async with housed("0.0.0.0") as house:
        # dnspython, as any resolver, takes an answer only from where it sent the query to.
        answer = await dns.asyncquery.udp(_asked("films"), "127.0.0.2", DEADLINE, house.port)
        assert records(answer, "A") == ["192.0.2.1", "192.0.2.2"]


async def test_the_peer_is_whom_the_ranking_is_asked_for() -> None:
    async with housed("0.0.0.0") as house:
        await dns.asyncquery.udp(_asked("films"), "127.0.0.1", DEADLINE, house.port, source="127.0.0.9")
        await dns.asyncquery.tcp(_asked("films"), "127.0.0.1", DEADLINE, house.port, source="127.0.0.8")
        assert [client for _, _, client, _ in house.desk.fleet.asked] == [b"\x7f\0\0\x09", b"\x7f\0\0\x08"]


async def test_ipv4_through_an_ipv6_socket_is_ipv4() -> None:
    desk = Desk()
    server = Server(desk.answerer, desk.settings, asyncio.get_running_loop().time)
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setblocking(False)
    sock.bind(("::", 0))
    await server.start([sock], [])
    await dns.asyncquery.udp(_asked("films"), "127.0.0.1", DEADLINE, sock.getsockname()[1])
    await server.stop(DEADLINE)
    assert desk.fleet.asked == [("films", None, b"\x7f\0\0\1", 32)]


async def test_a_resolver_goes_to_tcp_for_what_does_not_fit() -> None:
    async with housed() as house:
        house.desk.fleet.choice = Choice(tuple(bytes((10, 0, 0, last)) for last in range(60)), (), 30, 0)
        answer, by_tcp = await dns.asyncquery.udp_with_fallback(_asked("films"), house.host, DEADLINE, house.port)
        assert by_tcp
        assert len(records(answer, "A")) == 60


async def test_a_limited_resolver_gets_its_answer_by_tcp() -> None:
    async with housed(rate_limit=1, slip=1) as house:
        for expected in (False, True, True):
            answer, by_tcp = await dns.asyncquery.udp_with_fallback(_asked("films"), house.host, DEADLINE, house.port)
            assert by_tcp is expected
            assert len(records(answer, "A")) == 2


async def test_garbage_is_met_with_silence_and_the_next_query_is_answered() -> None:
    async with housed() as house:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            for packet in (b"", b"\0", b"\xff" * 11, b"\xff" * 5000, query("films")[:2] + b"\x80" + bytes(9)):
                sock.sendto(packet, (house.host, house.port))
        # Datagrams on one socket keep their order, so all of these were met before the answer came.
        answer = await dns.asyncquery.udp(_asked("films"), house.host, DEADLINE, house.port)
        assert answer.rcode() == dns.rcode.NOERROR
        assert house.counted(Count.SILENT) == 5


async def test_many_queries_go_over_one_connection_and_are_answered_in_order() -> None:
    async with housed() as house:
        reader, writer = await asyncio.open_connection(house.host, house.port)
        names = [f"title-{number}.films" for number in range(300)]
        writer.write(_framed(*(query(name) for name in names)))
        replies = [await _reply(reader) for _ in names]
        assert [reply.question[0].name.to_text().split(".")[0] for reply in replies] == [
            name.split(".")[0] for name in names
        ]
        writer.write(_framed(query("films")))
        assert (await _reply(reader)).rcode() == dns.rcode.NOERROR
        writer.close()


async def test_a_query_that_comes_in_single_bytes_is_answered() -> None:
    async with housed() as house:
        reader, writer = await asyncio.open_connection(house.host, house.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in _framed(query("films")):
            writer.write(bytes((byte,)))
            await writer.drain()
        assert len(records(await _reply(reader), "A")) == 2
        writer.close()


async def test_who_has_said_all_still_gets_all_answers_and_then_the_end() -> None:
    async with housed() as house:
        reader, writer = await asyncio.open_connection(house.host, house.port)
        writer.write(_framed(*[query("films")] * 200))
        writer.write_eof()
        for _ in range(200):
            assert (await _reply(reader)).rcode() == dns.rcode.NOERROR
        assert await _at_end(reader)
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0",
        b"\0\x0b" + b"x" * 11,
        struct.pack("!H", MOST_QUERY_BYTES + 1),
        b"\xff\xff",
        _framed(query("films")[:2] + b"\x80" + bytes(9)),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_query_ends_the_connection(sent: bytes) -> None:
    async with housed() as house:
        reader, writer = await asyncio.open_connection(house.host, house.port)
        writer.write(sent)
        assert await _at_end(reader)
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"\0", _framed(query("films"))[:-1]])
async def test_a_connection_without_a_whole_query_ends_by_itself(sent: bytes) -> None:
    async with housed(tcp_idle=0.05) as house:
        reader, writer = await asyncio.open_connection(house.host, house.port)
        writer.write(sent)
        assert await _at_end(reader)
        writer.close()


async def test_who_asks_and_does_not_listen_is_cut_off() -> None:
    async with housed(tcp_idle=0.2) as house:
        house.desk.fleet.choice = Choice(tuple(bytes((10, 0, 0, last)) for last in range(60)), (), 30, 0)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_connect(deaf, (house.host, house.port))
            with pytest.raises(ConnectionError):
                await _ask_for_ever(deaf)


async def test_connections_beyond_those_of_one_network_are_turned_away() -> None:
    async with housed("0.0.0.0", tcp_per_network=2) as house:
        open_now = [await asyncio.open_connection("127.0.0.1", house.port) for _ in range(2)]
        for reader, writer in open_now:
            writer.write(_framed(query("films")))
            await _reply(reader)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        assert await _at_end(reader)
        writer.close()
        assert house.counted(Count.TURNED_AWAY) == 1
        # Another network has places of its own.
        there = await asyncio.open_connection("127.0.0.1", house.port, local_addr=("127.9.9.9", 0))
        there[1].write(_framed(query("films")))
        assert len(records(await _reply(there[0]), "A")) == 2
        for _, writer in (*open_now, there):
            writer.close()


async def test_a_place_is_free_again_when_its_connection_has_gone() -> None:
    async with housed(tcp_connections=1) as house:
        reader, writer = await asyncio.open_connection(house.host, house.port)
        writer.write(_framed(query("films")))
        writer.write_eof()
        await _reply(reader)
        assert await _at_end(reader)
        writer.close()
        answer = await _until(lambda: _tcp_once(house))
        assert len(records(answer, "A")) == 2


async def test_stopping_answers_what_has_arrived() -> None:
    async with housed() as house:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(DEADLINE)
            for _ in range(100):
                asking.sendto(query("films"), (house.host, house.port))
            reader, writer = await asyncio.open_connection(house.host, house.port)
            writer.write(_framed(query("films")))
            await _reply(reader)
            # All hundred lie in the socket or were answered: nothing else runs from here to the stop.
            await house.server.stop(DEADLINE)
            for _ in range(100):
                assert dns.message.from_wire(asking.recv(4096)).answer
        assert await _at_end(reader)
        writer.close()
        with pytest.raises(OSError, match=r"."):
            await asyncio.open_connection(house.host, house.port)


async def test_two_servers_may_share_a_port() -> None:
    desks = [Desk(), Desk()]
    servers = [Server(desk.answerer, desk.settings, asyncio.get_running_loop().time) for desk in desks]
    first = udp_socket("127.0.0.1", 0, reuse_port=True)
    port = first.getsockname()[1]
    await servers[0].start([first], [])
    await servers[1].start([udp_socket("127.0.0.1", port, reuse_port=True)], [])
    for _ in range(64):
        # A new port for each: the kernel spreads by both ends' addresses.
        await dns.asyncquery.udp(_asked("films"), "127.0.0.1", DEADLINE, port)
    asked = [desk.answerer.counts[Count.UDP] for desk in desks]
    for server in servers:
        await server.stop(DEADLINE)
    assert sum(asked) == 64
    assert all(asked)


async def test_a_fault_of_ours_is_servfail_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with housed() as house:

        def fail(*_: object) -> None:
            raise LookupError("an index that is not there")

        house.desk.fleet.choose = fail  # type: ignore[method-assign]
        for ask in (dns.asyncquery.udp, dns.asyncquery.tcp):
            answer = await ask(_asked("films"), house.host, DEADLINE, house.port)
            assert answer.rcode() == dns.rcode.SERVFAIL
        assert house.counted(Count.FAILED) == 2
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "127.0.0.1" in caplog.text
        assert (await dns.asyncquery.udp(_asked("@", "NS"), house.host, DEADLINE, house.port)).answer


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open() -> None:
    with udp_socket("127.0.0.1", 0) as taken, pytest.raises(OSError, match="in use"):
        udp_socket("127.0.0.1", taken.getsockname()[1])


async def _ask_for_ever(sock: socket.socket) -> None:
    async with asyncio.timeout(DEADLINE):
        while True:
            await asyncio.get_running_loop().sock_sendall(sock, _framed(*[query("films")] * 100))


async def _at_end(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends without another byte, by its end or by a reset."""
    async with asyncio.timeout(DEADLINE):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


async def _tcp_once(house: House) -> dns.message.Message | None:
    try:
        return await dns.asyncquery.tcp(_asked("films"), house.host, DEADLINE, house.port)
    except (EOFError, ConnectionError):
        return None


async def _until(attempt: Callable[[], Any]) -> dns.message.Message:
    async with asyncio.timeout(DEADLINE):
        while True:
            found = await attempt()
            if found is not None:
                return found


def test_transports_are_counted_by_their_own_names() -> None:
    assert {transport.value for transport in Transport} <= {what.value for what in Count}
