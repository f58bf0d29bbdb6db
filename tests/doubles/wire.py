"""A raw HTTP/1.1 client: it sends what a test wants, right or wrong, and reads exactly what comes."""

import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from typing import Self

_PATIENCE = 30.0


@dataclass
class Heard:
    """One answer as it came over the wire."""

    version: str
    status: int
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def __getitem__(self, name: str) -> str | None:
        return next((value for known, value in self.fields if known.lower() == name.lower()), None)


class Cut(Exception):
    """The connection ended before the answer did. `body` is what came of it."""

    def __init__(self, body: bytes = b"") -> None:
        super().__init__(f"cut after {len(body)} bytes of the body")
        self.body = body


class _Tls:
    """TLS on memory, beside the socket: it can say that it sends no more while bytes are on their way here, which an
    `SSLSocket` can't (its `unwrap` reads, and finds no goodbye).
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None) -> None:
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._in, self._out, server_hostname=name, session=session)
        while True:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._take()
            else:
                self._flush()
                return

    def sendall(self, content: bytes) -> None:
        self.object.write(content)
        self._flush()

    def recv(self, most: int) -> bytes:
        while True:
            try:
                return self.object.read(most)
            except ssl.SSLWantReadError:
                self._take()
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                return b""

    def say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.object.unwrap()
        self._flush()

    def _take(self) -> None:
        received = self._sock.recv(2**16)
        if received:
            self._in.write(received)
        else:
            self._in.write_eof()

    def _flush(self) -> None:
        if self._out.pending:
            self._sock.sendall(self._out.read())


class Wire:
    """One connection. Also a context manager."""

    def __init__(
        self,
        port: int,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        name: str = "127.0.0.1",
        session: ssl.SSLSession | None = None,
    ) -> None:
        """`name`: who is asked for, over TLS."""
        self._sock = socket.socket()
        if receive_buffer is not None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._sock.settimeout(_PATIENCE)
        try:
            self._sock.connect(("127.0.0.1", port))
            self._tls = None if tls is None else _Tls(self._sock, tls, name, session)
        except OSError:
            self._sock.close()
            raise
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def send(self, content: bytes) -> None:
        if self._tls is None:
            self._sock.sendall(content)
        else:
            self._tls.sendall(content)

    def half_close(self) -> None:
        """Send no more; go on reading."""
        if self._tls is None:
            self._sock.shutdown(socket.SHUT_WR)
        else:
            self._tls.say_goodbye()

    @property
    def tls(self) -> ssl.SSLObject:
        assert self._tls is not None
        return self._tls.object

    @property
    def port(self) -> int:
        """Of this end."""
        return self._sock.getsockname()[1]

    def ask(self, target: str, method: str = "GET", version: str = "1.1", **headers: str) -> None:
        """Send one well-formed request. Header names are written with underscores."""
        lines = [f"{method} {target} HTTP/{version}", "Host: films.example"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def get(self, target: str, **headers: str) -> Heard:
        self.ask(target, **headers)
        return self.answer()

    def head(self) -> Heard:
        """Read a status line and header fields. The body is left for `read`."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        pairs = [text.partition(":") for text in lines]
        return Heard(version, int(status), [(name, value.strip()) for name, _, value in pairs])

    def answer(self, *, to_head: bool = False) -> Heard:
        """Read one whole answer, which must say its length. Raises `Cut`."""
        heard = self.head()
        if not to_head and heard.status not in (204, 304):
            heard.body = self.read(int(heard["Content-Length"] or 0))
        return heard

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes. Raises `Cut`."""
        pieces = [self._buffer[:count]]
        self._buffer = self._buffer[count:]
        left = count - len(pieces[0])
        while left:
            piece = self._receive(min(left, 2**20))
            if not piece:
                raise Cut(b"".join(pieces))
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def rest_of_answer(self) -> bytes:
        """The body of the answer that comes now, as far as it comes."""
        try:
            return self.answer().body
        except Cut as cut:
            return cut.body

    def rest(self) -> bytes:
        """All that comes until the other side closes. A reset counts as a close."""
        pieces = [self._buffer]
        self._buffer = b""
        while piece := self._receive(2**20):
            pieces.append(piece)
        return b"".join(pieces)

    def is_silent(self) -> bool:
        """Whether nothing lies here to be read just now, and the connection is open."""
        if self._buffer:
            return False
        self._sock.setblocking(False)
        try:
            if self._tls is not None:
                self._buffer += self._tls.recv(1)
            else:
                self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        finally:
            self._sock.settimeout(_PATIENCE)
        return False

    def wait_closed(self) -> None:
        """Until the other side closes; nothing may come before that."""
        left = self.rest()
        assert left == b"", f"unexpected: {left[:200]!r}"

    def _more(self) -> None:
        piece = self._receive(2**16)
        if not piece:
            raise Cut
        self._buffer += piece

    def _receive(self, most: int) -> bytes:
        try:
            return self._sock.recv(most) if self._tls is None else self._tls.recv(most)
        except (ConnectionResetError, BrokenPipeError):
            return b""
