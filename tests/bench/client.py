"""A plain HTTP client that measures: one connection, one request at a time, nothing hidden."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.bench.machine import BenchError

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_TIMEOUT = 20.0


@dataclass(frozen=True)
class Answer:
    status: int
    head: bytes
    body: bytes
    first_byte: float
    """Seconds from sending the request to the first byte of the body."""
    whole: float
    """Seconds to the last byte."""

    def field(self, name: str) -> str:
        """The value of a header line, empty if it is not there."""
        found = re.search(rb"\r\n" + re.escape(name.encode()) + rb": ([^\r]*)\r\n", self.head, re.IGNORECASE)
        return found[1].decode() if found else ""


class Client:
    """A keep-alive connection to a server on loopback."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def get(self, path: str, **fields: str) -> Answer:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode()
        began = time.perf_counter()
        self._sock.sendall(request)
        received = bytearray()
        end = length = -1
        first_byte = 0.0
        while end < 0 or len(received) < end + length:
            chunk = self._sock.recv(256 * 1024)
            if not chunk:
                raise BenchError(f"{path}: the connection ended after {len(received)} bytes")
            received += chunk
            if end < 0 and (found := received.find(b"\r\n\r\n")) >= 0:
                end = found + 4
                stated = _LENGTH.search(received, 0, end)
                if stated is None:
                    raise BenchError(f"{path}: no Content-Length in {bytes(received[:end])!r}")
                length = int(stated[1])
            if not first_byte and 0 <= end < len(received):
                first_byte = time.perf_counter() - began
        whole = time.perf_counter() - began
        head = bytes(received[:end])
        return Answer(int(head.split(b" ", 2)[1]), head, bytes(received[end:]), first_byte, whole)
