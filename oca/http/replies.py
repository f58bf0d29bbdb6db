"""Reply heads as bytes. What is the same for every answer about an object is rendered once (`ObjectHeads`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import msgspec

from oca.http.dates import format_date
from oca.http.ranges import Span
from oca.http.refusal import ALLOWED_METHODS

_PREFLIGHT_MAX_AGE: Final = 86400
_CRLF: Final = re.compile(r"[\r\n\0]")
_IN_304: Final = frozenset({"cache-control", "content-location", "expires", "vary"})
"""What RFC 9110 section 15.4.5 wants in a 304 besides Date and the validators."""

EXPOSED: Final = (
    "Accept-Ranges, Age, Cache-Control, Cache-Status, CMSD-Dynamic, CMSD-Static, Content-Length, Content-Range, Date, "
    "ETag, Last-Modified"
)


class Cors(msgspec.Struct, frozen=True):
    """Cross-origin rules for browser players. The defaults suit public video: any page may read."""

    allow_origins: tuple[str, ...] = ("*",)
    expose_headers: str = EXPOSED
    timing_allow_origin: str = "*"
    with_cookies: bool = False
    """Listed origins may send cookies. Any origin ("*") never may: browsers forbid it."""


class CommonHeads:
    """The header lines every reply carries, rendered once per second or once per process."""

    def __init__(self, cors: Cors) -> None:
        self.any_origin = "*" in cors.allow_origins
        self._origins = frozenset(origin.encode() for origin in cors.allow_origins)
        self._shared = b""
        if cors.expose_headers:
            self._shared += header_line("Access-Control-Expose-Headers", cors.expose_headers)
        if cors.timing_allow_origin:
            self._shared += header_line("Timing-Allow-Origin", cors.timing_allow_origin)
        self._with_cookies = b"Access-Control-Allow-Credentials: true\r\n" if cors.with_cookies else b""
        self._for_any = b"Access-Control-Allow-Origin: *\r\n" + self._shared

    def cors_lines(self, origin: bytes | None) -> bytes:
        """The CORS lines for a request with this Origin header. A listed origin is echoed, with Vary: Origin."""
        if self.any_origin:
            return self._for_any
        if origin is not None and origin in self._origins:
            return b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\n" % origin + self._with_cookies + self._shared
        return b"Vary: Origin\r\n"


@lru_cache(maxsize=4)
def date_line(second: int) -> bytes:
    """The Date line for this second since 1970."""
    return b"Date: " + format_date(second).encode() + b"\r\n"


def status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())


class ObjectHeads:
    """The head of every reply about one generation of one object.

    `kept` are the lines from the origin that are replayed (content type, cache control and so on), in order. It never
    holds a line about one message's framing, length or range: those are written here.
    """

    __slots__ = ("_not_modified", "_ok", "_partial", "_type", "_validators", "size")

    def __init__(self, size: int, etag: bytes, last_modified: int | None, kept: Mapping[str, str]) -> None:
        self.size = size
        validators = b"ETag: " + etag + b"\r\n" if etag else b""
        if last_modified is not None:
            validators += b"Last-Modified: " + format_date(last_modified).encode() + b"\r\n"
        content_type = b""
        in_304 = b""
        others = b""
        for name, value in kept.items():
            line = header_line(name, value)
            if name.lower() == "content-type":
                content_type = line
            elif name.lower() in _IN_304:
                in_304 += line
            else:
                others += line
        self._type = content_type
        self._validators = validators
        described = validators + others + in_304
        self._ok = (
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nAccept-Ranges: bytes\r\n" % size + content_type + described
        )
        self._partial = b"HTTP/1.1 206 Partial Content\r\nAccept-Ranges: bytes\r\n" + described
        self._not_modified = b"HTTP/1.1 304 Not Modified\r\n" + validators + in_304

    def whole(self) -> bytes:
        return self._ok

    def single_part(self, span: Span) -> bytes:
        start, stop = span
        return (
            self._partial
            + self._type
            + b"Content-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n"
            % (
                stop - start,
                start,
                stop - 1,
                self.size,
            )
        )

    def multipart(self, spans: Sequence[Span], boundary: bytes) -> tuple[bytes, list[bytes], bytes]:
        """Head, the head of each part, and the closing line of a multipart/byteranges body (RFC 9110 section 14.6)."""
        parts = [
            b"\r\n--%b\r\n%bContent-Range: bytes %d-%d/%d\r\n\r\n" % (boundary, self._type, start, stop - 1, self.size)
            for start, stop in spans
        ]
        closing = b"\r\n--%b--\r\n" % boundary
        length = sum(map(len, parts)) + len(closing) + sum(stop - start for start, stop in spans)
        head = self._partial + b"Content-Type: multipart/byteranges; boundary=%b\r\nContent-Length: %d\r\n" % (
            boundary,
            length,
        )
        return head, parts, closing

    def not_modified(self) -> bytes:
        return self._not_modified

    def precondition_failed(self) -> bytes:
        # Without the object's Cache-Control: a year's max-age would let a browser keep the 412 and replay it.
        return b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n" + self._validators

    def unsatisfiable(self) -> bytes:
        return (
            b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nAccept-Ranges: bytes\r\n"
            b"Content-Range: bytes */%d\r\n" % self.size
        )


def header_line(name: str, value: str) -> bytes:
    """One line; a value from the origin can never start a second one."""
    return f"{name}: {_CRLF.sub(' ', value)}\r\n".encode("latin-1", "replace")


def refusal(status: int, reason: str) -> tuple[bytes, bytes]:
    """Head lines and body of an answer that carries no content of an object. The body is one line for a person."""
    body = f"{reason}\n".encode()
    head = status_line(status) + b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n" % len(body)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        head += b"Allow: " + ALLOWED_METHODS.encode() + b"\r\n"
    if status == HTTPStatus.UNAUTHORIZED:
        head += b"WWW-Authenticate: URISigningPackage\r\n"  # RFC 9110 section 15.5.2 wants one.
    return head, body


def preflight() -> bytes:
    """The head of an answer to OPTIONS: CORS preflight (Fetch standard) and plain OPTIONS alike."""
    return (
        b"HTTP/1.1 204 No Content\r\nAllow: %b\r\nAccess-Control-Allow-Methods: %b\r\n"
        b"Access-Control-Allow-Headers: Range, If-Range, If-Match, If-None-Match, If-Modified-Since, "
        b"If-Unmodified-Since, CMCD-Object, CMCD-Request, CMCD-Session, CMCD-Status\r\n"
        b"Access-Control-Max-Age: %d\r\n" % (ALLOWED_METHODS.encode(), ALLOWED_METHODS.encode(), _PREFLIGHT_MAX_AGE)
    )
