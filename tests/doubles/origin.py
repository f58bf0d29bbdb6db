"""An HTTP origin that does what a test tells it: hold a body back, count, and lie. On loopback, if not told otherwise.

It speaks over raw streams, because an honest library would not let it lie. It runs in a thread of its own, so that
tests may block. What it holds is pseudo-random by path: the same bytes in every run.
"""

import asyncio
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from hashlib import sha256
from typing import Self
from urllib.parse import unquote

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CHUNK = 256 * 1024
_PATIENCE = 60
LONG_AGO = formatdate(1_700_000_000, usegmt=True)


def content_of(name: str, size: int) -> bytes:
    """`size` pseudo-random bytes, always the same for the same name."""
    # A gigabyte and more per second: films of blocks and extents are asked for by hundreds of tests.
    stream = Cipher(AES(sha256(name.encode()).digest()[:16]), CTR(bytes(16))).encryptor()
    return stream.update(bytes(size))


@dataclass
class Film:
    """One object at the origin. Replace it with another by `Origin.put`."""

    content: bytes
    etag: str | None
    last_modified: str | None
    headers: dict[str, str]
    status: int = 200


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    """Lower-case names."""
    query: str = ""
    """As it came."""

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    def span(self, size: int) -> tuple[int, int] | None:
        """The half-open span asked for; None if none or more than one range was."""
        found = _RANGE.fullmatch(self.range or "")
        return None if found is None else (int(found[1]), min(int(found[2]) + 1 if found[2] else size, size))


@dataclass
class Reply:
    """An answer, honest or not: it is sent as it stands."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    start: int = 0
    """Which byte of the object the body begins with, for gates."""
    ending: str = "keep"
    """What follows the body: keep (the next request), close, reset, stall (until the test ends)."""
    version: str = "HTTP/1.1"
    raw: bytes | None = None
    """Sent in place of head and body."""


Lie = Callable[[Asked, Film, Reply], Reply]
"""Turns the honest reply into another."""


class Gate:
    """Where a body stops until the test lets it go on."""

    def __init__(self, at: int, loop: asyncio.AbstractEventLoop) -> None:
        self.at = at
        self._loop = loop
        self._may_pass = asyncio.Event()
        self._reached = threading.Event()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._may_pass.set)

    def wait_reached(self) -> None:
        """Until the origin has sent everything before the gate."""
        assert self._reached.wait(_PATIENCE), f"the origin never came to the gate at {self.at}"

    async def passed(self) -> None:
        self._reached.set()
        await self._may_pass.wait()


@dataclass
class _Lying:
    lie: Lie
    times: int | None


class Origin:
    """Start it with `with Origin() as origin`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.asked: list[Asked] = []
        """All requests so far, in order."""
        self._films: dict[str, Film] = {}
        self._lies: dict[str, deque[_Lying]] = {}
        self._gates: dict[str, list[Gate]] = {}
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = port
        self._host = host
        self.connections = 0
        self.connections_open = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def host(self) -> str:
        return f"{self._host}:{self.port}"

    # --- What the test says -------------------------------------------------------------------------------------------

    def put(
        self,
        path: str,
        size: int | bytes,
        *,
        version: int = 1,
        etag: str | None = "made",
        last_modified: str | None = LONG_AGO,
        status: int = 200,
        **headers: str,
    ) -> bytes:
        """Hold `size` bytes (or these bytes) under `path`; `version` gives other bytes. Returns them.

        Header names are written with underscores: `cache_control="max-age=1"`.
        """
        content = size if isinstance(size, bytes) else content_of(f"{path} {version}", size)
        if etag == "made":
            etag = f'"{sha256(content).hexdigest()[:16]}"'
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        self._films[path] = Film(content, etag, last_modified, named, status)
        return content

    def remove(self, path: str) -> None:
        self._films.pop(path, None)

    def lie(self, path: str, lie: Lie, times: int | None = None) -> None:
        """Answer requests for `path` by `lie`, `times` of them or all; lies are told in the order they were given."""
        self._lies.setdefault(path, deque()).append(_Lying(lie, times))

    def be_honest(self, path: str) -> None:
        self._lies.pop(path, None)

    def gate(self, path: str, at: int) -> Gate:
        """Send the bytes of `path` before `at`, and no more until the gate is opened."""
        gate = Gate(at, self._loop)
        self._gates.setdefault(path, []).append(gate)
        return gate

    def open_gates(self, path: str) -> None:
        """Open the gates of `path` for good."""
        for gate in self._gates.pop(path, []):
            gate.open()

    def count(self, path: str) -> int:
        """How often `path` was asked for, by GET or HEAD."""
        return sum(asked.path == path for asked in self.asked)

    def ranges(self, path: str) -> list[str | None]:
        """The Range headers of all GETs for `path`."""
        return [asked.range for asked in self.asked if asked.path == path and asked.method == "GET"]

    def paths(self) -> list[str]:
        """Of all that it holds."""
        return list(self._films)

    def film(self, path: str) -> Film:
        return self._films[path]

    def content(self, path: str) -> bytes:
        return self._films[path].content

    # --- Serving ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        started = threading.Event()

        async def serve() -> None:
            self._server = await asyncio.start_server(self._connected, self._host, self.port, limit=2**20)
            self.port = self._server.sockets[0].getsockname()[1]
            started.set()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(serve())
            self._loop.run_forever()
            for task in self._tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            self._loop.close()

        self._thread = threading.Thread(target=run, name="origin", daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        def end() -> None:
            self._server.close()
            self._loop.stop()

        self._loop.call_soon_threadsafe(end)
        self._thread.join(10)

    def drop_connections(self) -> None:
        """Be gone: the port refuses, and what was open is reset. `come_back` undoes it."""
        done = threading.Event()

        def drop() -> None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            done.set()

        self._loop.call_soon_threadsafe(drop)
        assert done.wait(10)

    def come_back(self) -> None:
        async def serve() -> None:
            self._server = await asyncio.start_server(self._connected, self._host, self.port, limit=2**20)

        asyncio.run_coroutine_threadsafe(serve(), self._loop).result(10)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.connections_open += 1
        try:
            while await self._answer_one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.connections_open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether another request may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head[:-4].split("\r\n")
        method, target, _ = line.split(" ")
        headers = {}
        for text in lines:
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        # What a player sends (a question for a licence) is heard, and makes no difference.
        await reader.readexactly(min(int(headers.get("content-length", 0)), _CHUNK))
        path, _, query = target.partition("?")
        asked = Asked(method, unquote(path), headers, query)
        self.asked.append(asked)
        film = self._films.get(asked.path)
        reply = Reply(404, {"Content-Length": "9"}, b"not here\n") if film is None else honest(asked, film)
        told = self._lies.get(asked.path)
        if told:
            lying = told[0]
            if lying.times is not None:
                lying.times -= 1
                if lying.times == 0:
                    told.popleft()
            film = film or Film(b"", None, None, {})
            reply = lying.lie(asked, film, reply)
        return await self._send(writer, asked, reply)

    async def _send(self, writer: asyncio.StreamWriter, asked: Asked, reply: Reply) -> bool:
        if reply.raw is not None:
            writer.write(reply.raw)
        else:
            head = f"{reply.version} {reply.status} Whatever\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
            writer.write(head.encode("latin-1") + b"\r\n")
            if asked.method != "HEAD":
                await self._send_body(writer, asked.path, reply)
        await writer.drain()
        if reply.ending == "stall":
            await asyncio.Event().wait()
        if reply.ending == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return reply.ending == "keep"

    async def _send_body(self, writer: asyncio.StreamWriter, path: str, reply: Reply) -> None:
        sent = 0
        body = memoryview(reply.body)
        while sent < len(body):
            at = reply.start + sent
            gate = min((g for g in self._gates.get(path, ()) if g.at >= at), key=lambda g: g.at, default=None)
            if gate is not None and gate.at == at:
                await writer.drain()
                await gate.passed()
                gates = self._gates.get(path, [])
                if gate in gates:
                    gates.remove(gate)
                continue
            count = min(_CHUNK, len(body) - sent, len(body) if gate is None else gate.at - at)
            writer.write(body[sent : sent + count])
            await writer.drain()
            sent += count


def honest(asked: Asked, film: Film) -> Reply:
    """What a good origin says."""
    headers = {"Date": formatdate(usegmt=True), **film.headers}
    if film.etag is not None:
        headers["ETag"] = film.etag
    if film.last_modified is not None:
        headers["Last-Modified"] = film.last_modified
    if film.status != 200:
        return Reply(film.status, {**headers, "Content-Length": "0"})
    if asked.headers.get("if-match", film.etag) != film.etag:
        return Reply(412, {**headers, "Content-Length": "0"})
    if "if-unmodified-since" in asked.headers and asked.headers["if-unmodified-since"] != film.last_modified:
        return Reply(412, {**headers, "Content-Length": "0"})
    if film.etag is not None and asked.headers.get("if-none-match") == film.etag:
        return Reply(304, headers)
    if (
        "if-none-match" not in asked.headers
        and film.last_modified is not None
        and asked.headers.get("if-modified-since") == film.last_modified
    ):
        return Reply(304, headers)
    size = len(film.content)
    span = asked.span(size) if asked.method == "GET" else None
    if span is None:
        return Reply(200, {**headers, "Content-Length": str(size)}, film.content)
    start, stop = span
    if start >= size:
        return Reply(416, {**headers, "Content-Length": "0", "Content-Range": f"bytes */{size}"})
    headers |= {"Content-Length": str(stop - start), "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return Reply(206, headers, film.content[start:stop], start)


# --- Lies -------------------------------------------------------------------------------------------------------------


def _with(reply: Reply, **headers: str) -> Reply:
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    kept = {name: value for name, value in reply.headers.items() if name.title() not in named}
    return replace(reply, headers=kept | named)


def _without(reply: Reply, *names: str) -> Reply:
    return replace(reply, headers={k: v for k, v in reply.headers.items() if k.lower() not in names})


def _shifted(film: Film, reply: Reply, by: int, *, says_so: bool) -> Reply:
    start = (reply.start + by) % max(1, len(film.content))
    body = film.content[start : start + len(reply.body)]
    moved = replace(reply, body=body, start=start, headers=dict(reply.headers))
    moved.headers["Content-Length"] = str(len(body))
    if says_so:
        moved.headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(film.content)}"
    return moved


def wrong_start(asked: Asked, film: Film, reply: Reply) -> Reply:
    """Another part than asked for, honestly labelled."""
    return _shifted(film, reply, 100, says_so=True)


def wrong_end(asked: Asked, film: Film, reply: Reply) -> Reply:
    """One byte less than asked for, honestly labelled."""
    body = reply.body[:-1]
    last = reply.start + len(body) - 1
    part = _with(reply, content_length=str(len(body)), content_range=f"bytes {reply.start}-{last}/{len(film.content)}")
    return replace(part, body=body)


def wrong_complete_length(asked: Asked, film: Film, reply: Reply) -> Reply:
    """The range is right, the object is said to be larger; a body of exactly the asked length is given."""
    span = reply.headers.get("Content-Range", f"bytes 0-{len(reply.body) - 1}/0").partition("/")[0]
    return replace(_with(reply, content_range=f"{span}/{len(film.content) + 1000}"), status=206)


def other_validator(asked: Asked, film: Film, reply: Reply) -> Reply:
    """Other bytes under another strong tag, whatever the condition was."""
    other = content_of("another generation", len(reply.body))
    return replace(_with(reply, etag='"another"'), body=other)


def no_validators(asked: Asked, film: Film, reply: Reply) -> Reply:
    """Other bytes, and nothing to tell them from the right ones."""
    return replace(_without(reply, "etag", "last-modified"), body=content_of("unsaid", len(reply.body)))


def weak_validator(asked: Asked, film: Film, reply: Reply) -> Reply:
    """Other bytes under a weak tag."""
    other = content_of("a weak generation", len(reply.body))
    return replace(_without(_with(reply, etag=f"W/{film.etag}"), "last-modified"), body=other)


def gzip_coding(asked: Asked, film: Film, reply: Reply) -> Reply:
    """Said to be gzip, though identity was asked for."""
    return _with(reply, content_encoding="gzip")


def no_content_range(asked: Asked, film: Film, reply: Reply) -> Reply:
    """A 206 that does not say what it is a part of."""
    return replace(_without(reply, "content-range"), status=206)


def no_content_length(asked: Asked, film: Film, reply: Reply) -> Reply:
    """A 206 that ends when the connection does; too early, of course."""
    return replace(_without(reply, "content-length"), body=reply.body[:-7], ending="close")


def short_body(asked: Asked, film: Film, reply: Reply) -> Reply:
    """The body ends before Content-Length says."""
    return replace(reply, body=reply.body[: len(reply.body) // 2], ending="close")


def long_body(asked: Asked, film: Film, reply: Reply) -> Reply:
    """More bytes follow than Content-Length says, on a connection that is kept."""
    return replace(reply, body=reply.body + b"HTTP/1.1 206 Partial Content\r\n\r\n" + b"x" * 1000)


def multipart(asked: Asked, film: Film, reply: Reply) -> Reply:
    """multipart/byteranges to a request for one range."""
    span = reply.headers.get("Content-Range", "")
    part = f"--b\r\nContent-Range: {span}\r\n\r\n".encode() + reply.body + b"\r\n--b--\r\n"
    typed = _with(_without(reply, "content-range"), content_type="multipart/byteranges; boundary=b")
    return replace(_with(typed, content_length=str(len(part))), status=206, body=part)


def chunked_short(asked: Asked, film: Film, reply: Reply) -> Reply:
    """A chunked 206 whose last chunk comes too early: a clean end of a body that is not whole."""
    body = reply.body[:-9]
    chunks = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    return replace(_with(_without(reply, "content-length"), transfer_encoding="chunked"), body=chunks)


def both_lengths(asked: Asked, film: Film, reply: Reply) -> Reply:
    """Content-Length and chunked in one answer: a smuggler's."""
    body = b"5\r\nwrong\r\n0\r\n\r\n"
    return replace(_with(reply, transfer_encoding="chunked"), body=body, ending="close")


def stall_midway(asked: Asked, film: Film, reply: Reply) -> Reply:
    """Half of the body, then nothing, for ever."""
    return replace(reply, body=reply.body[: len(reply.body) // 2], ending="stall")


def stall_at_once(asked: Asked, film: Film, reply: Reply) -> Reply:
    """Not even a head."""
    return replace(reply, raw=b"", ending="stall")


def reset_midway(asked: Asked, film: Film, reply: Reply) -> Reply:
    return replace(reply, body=reply.body[: len(reply.body) // 2], ending="reset")


def reset_at_once(asked: Asked, film: Film, reply: Reply) -> Reply:
    return replace(reply, raw=b"", ending="reset")


def garbage(asked: Asked, film: Film, reply: Reply) -> Reply:
    """No HTTP at all."""
    return replace(reply, raw=b"\x00\x01 SMTP ready\r\n\r\n", ending="close")


def whole_to_a_range(asked: Asked, film: Film, reply: Reply) -> Reply:
    """200 with everything, though a range was asked for. Legal, and seldom expected."""
    if asked.method == "HEAD":
        return reply
    whole = _with(_without(reply, "content-range"), content_length=str(len(film.content)))
    return replace(whole, status=200, body=film.content, start=0)


def part_as_whole(asked: Asked, film: Film, reply: Reply) -> Reply:
    """200 with a part's bytes and length: the lie that poisons caches."""
    return replace(_without(reply, "content-range"), status=200)


def unasked_304(asked: Asked, film: Film, reply: Reply) -> Reply:
    return Reply(304, _without(reply, "content-length", "content-range").headers)


def unsatisfiable(asked: Asked, film: Film, reply: Reply) -> Reply:
    """416 to a range that exists."""
    if asked.range is None:
        return reply
    return Reply(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(film.content)}"})


def status(code: int, **headers: str) -> Lie:
    """This status and no film."""

    def lie(asked: Asked, film: Film, reply: Reply) -> Reply:
        return _with(Reply(code, {"Content-Length": "5"}, b"sorry"), **headers)

    return lie


def redirect(location: str) -> Lie:
    return status(302, location=location)


def close_delimited(asked: Asked, film: Film, reply: Reply) -> Reply:
    """An honest HTTP/1.0 server without lengths: the whole object, ended by closing."""
    plain = _without(reply, "content-length", "content-range")
    return replace(plain, status=200, version="HTTP/1.0", body=film.content, start=0, ending="close")


def chunked(asked: Asked, film: Film, reply: Reply) -> Reply:
    """The whole object in chunks, without a length."""
    body = b"".join(
        f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        for piece in (film.content[i : i + 10_000] for i in range(0, len(film.content), 10_000))
    )
    plain = _with(_without(reply, "content-length", "content-range"), transfer_encoding="chunked")
    return replace(plain, status=200, body=body + b"0\r\n\r\n", start=0)
