"""The request head as a value, strictly by RFC 9112: what is ambiguous is refused, never guessed.

Why not httptools: it gives one error for many faults (a 414, 431, 501 and 505 cannot be told apart) and parses
pipelined requests before the first is answered. This grammar is two regular expressions, and because players repeat
their header block on every segment, a parsed block is remembered: 0.6 to 0.9 microseconds a request, where httptools
takes 1.2 to 2.6 (one header line, and a browser's fifteen).
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

import msgspec

from oca.http.refusal import Refused, bad_request
from oca.http.target import is_host

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n")
# No obs-fold, no bare CR or LF, no space before the colon. What may follow each piece never begins like that piece, so
# hostile input costs one pass. Not by possessive groups: Debian 12's Python 3.11.2 matches them wrongly (gh-106052).
_FIELD_LINES: Final = re.compile(rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n")
# Other codings, then chunked, once and at the end: the body's end is certain (RFC 9112 section 6.3).
_CODED_CHUNKS: Final = re.compile(rb"(?:(?!chunked[\t ]*,)" + _TOKEN + rb"[\t ]*,[\t ]*)+chunked")
_ONCE: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"if-range", b"range"})

_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
# IANA's common methods: known, so 405 and not 501 (RFC 9110 section 9.1).
_OTHER_METHODS: Final = frozenset({b"POST", b"PUT", b"DELETE", b"PATCH", b"CONNECT", b"TRACE"})

MEMO_ENTRIES: Final = 1024
MEMO_BLOCK_BYTES: Final = 2048


class Fields(msgspec.Struct, frozen=True, gc=False):
    """What the appliance needs of the header fields, each as it came or None. Lists are joined by ", "."""

    host: bytes | None = None
    range: bytes | None = None
    if_range: bytes | None = None
    if_match: bytes | None = None
    if_none_match: bytes | None = None
    if_modified_since: bytes | None = None
    if_unmodified_since: bytes | None = None
    origin: bytes | None = None
    cdn_loop: bytes | None = None
    cookie: bytes | None = None
    cmcd: bytes | None = None
    """The values of CMCD-Request, CMCD-Object, CMCD-Status and CMCD-Session, joined by commas."""
    has_body: bool = False
    """A body follows or is announced: its bytes are never read, so the connection ends with this response."""
    closes: bool = False
    keeps_alive: bool = False
    """`Connection: keep-alive`, which only HTTP/1.0 needs."""
    is_conditional: bool = False
    """Any of Range, If-Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since is there."""
    is_only_ranged: bool = False
    """Of these, only Range is there."""
    is_chunked: bool = False
    is_only_if_cached: bool = False
    """`Cache-Control: only-if-cached`: what is not held shall not be fetched (RFC 9111 section 5.2.1.7)."""
    lines: int = 0
    """How many field lines there were, repeated names included."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request. `target` is as it came; `persists` says whether another may follow on the connection."""

    method: bytes
    target: bytes
    fields: Fields
    persists: bool


_memo: dict[bytes, Fields] = {}
# As every client writes it. Cut out before the block is looked up: ranges differ with every request, the rest does not.
_LINE_WITH_R: Final = (b"\r\nR", b"\r\nr")
# Cut out as well: what players say of themselves changes with every request.
_CMCD_LINE: Final = re.compile(
    rb"\r\nCMCD-(?:Request|Object|Status|Session):[ \t]*([\t\x20-\x7e]*)(?=\r\n)", re.IGNORECASE
)
_SINGLE_RANGE: Final = re.compile(rb"ange: (bytes=[0-9]{1,18}-[0-9]{0,18})\r\n")


def parse_head(head: bytes, max_fields: int) -> Request:
    """Parse `head`, from the request line to the empty line, both included.

    Raises `Refused`: 400 for bad grammar, framing or Host, 405 and 501 for methods, 505 for versions,
    431 for more than `max_fields` field lines, 417 for an unknown expectation.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise _request_line_fault(head)
    method, target, major, minor = line.groups()
    if major != b"1":
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    begin = line.end()
    at = head.find(b"ange: bytes=", begin)
    ranged = None
    if at >= 0 and head[at - 3 : at] in _LINE_WITH_R:
        ranged = _SINGLE_RANGE.match(head, at)
    block = head[begin:] if ranged is None else head[begin : at - 1] + head[ranged.end() :]
    said = None
    if b"CMCD-" in block or b"cmcd-" in block:
        block, said = _without_cmcd(block)
    fields = _memo.get(block)
    others = max_fields - (ranged is not None) - (0 if said is None else len(said))
    if fields is None or fields.lines > others:
        fields = _parse_fields(block, others)
        if len(block) <= MEMO_BLOCK_BYTES:
            if len(_memo) >= MEMO_ENTRIES:
                _memo.clear()
            _memo[block] = fields
    if ranged is not None:
        if fields.range is not None:
            raise bad_request("more than one range header")
        fields = msgspec.structs.replace(
            fields,
            range=ranged[1],
            is_conditional=True,
            is_only_ranged=not fields.is_conditional,
            lines=fields.lines + 1,
        )
    if said:
        fields = msgspec.structs.replace(fields, cmcd=b",".join(said), lines=fields.lines + len(said))
    persists = not fields.closes and not fields.has_body
    if minor == b"0":
        if fields.is_chunked:
            # RFC 9112 section 6.1: treated as faulty framing; a 1.0 hop before us may have read another end.
            raise bad_request("Transfer-Encoding is not known to HTTP/1.0")
        persists = persists and fields.keeps_alive
    elif fields.host is None:
        raise bad_request("an HTTP/1.1 request needs a Host header")
    if method not in _METHODS:
        raise _method_fault(method)
    return Request(method, target, fields, persists)


def _without_cmcd(block: bytes) -> tuple[bytes, list[bytes]]:
    """The field lines without those of CMCD, and the values of these."""
    # The first line has no end of line before it.
    lines = b"\r\n" + block
    return _CMCD_LINE.sub(b"", lines)[2:], _CMCD_LINE.findall(lines)


def _request_line_fault(head: bytes) -> Refused:
    line = head.partition(b"\r\n")[0]
    words = line.split(b" ")
    if len(words) == 3 and re.fullmatch(rb"HTTP/[0-9]+(\.[0-9]+)?", words[2]):
        if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", words[2]) is None:
            return Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        return bad_request("the request line holds a character that is not allowed")
    return bad_request("the request line is not METHOD target HTTP/1.1")


def _method_fault(method: bytes) -> Refused:
    if method in _OTHER_METHODS:
        return Refused(HTTPStatus.METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS are answered here")
    return Refused(HTTPStatus.NOT_IMPLEMENTED, "this method is not known here")


def _parse_fields(block: bytes, max_fields: int) -> Fields:
    if _FIELD_LINES.fullmatch(block) is None:
        raise bad_request("a header line is malformed")
    lines = block[:-4].split(b"\r\n") if len(block) > 2 else []
    if len(lines) > max_fields:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {max_fields} header lines")
    values: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        value = value.strip(b" \t")
        if name not in values:
            values[name] = value
        elif name in _ONCE:
            raise bad_request(f"more than one {name.decode()} header")
        else:
            values[name] += b", " + value
    host = values.get(b"host")
    if host is not None and not is_host(host):
        raise bad_request("the Host header is not a host name or address")
    if b"expect" in values and not _members(values[b"expect"]) <= {b"100-continue"}:
        raise Refused(HTTPStatus.EXPECTATION_FAILED, "the only expectation known here is 100-continue")
    options = _members(values[b"connection"]) if b"connection" in values else frozenset()
    conditional = (
        values.get(b"range"),
        values.get(b"if-range"),
        values.get(b"if-match"),
        values.get(b"if-none-match"),
        values.get(b"if-modified-since"),
        values.get(b"if-unmodified-since"),
    )
    return Fields(
        host,
        *conditional,
        origin=values.get(b"origin"),
        cdn_loop=values.get(b"cdn-loop"),
        cookie=values.get(b"cookie"),
        has_body=_announces_body(values),
        closes=b"close" in options,
        keeps_alive=b"keep-alive" in options,
        is_conditional=any(value is not None for value in conditional),
        is_chunked=b"transfer-encoding" in values,
        is_only_if_cached=b"only-if-cached" in _members(values.get(b"cache-control", b"")),
        lines=len(lines),
    )


def _members(value: bytes) -> frozenset[bytes]:
    """The members of a list of words (RFC 9110 section 5.6.1) in lower case; empty ones do not count."""
    return frozenset(padded.strip(b" \t").lower() for padded in value.split(b",")) - {b""}


def _announces_body(values: dict[bytes, bytes]) -> bool:
    """RFC 9112 section 6.3. Raises `Refused` where the length would have to be guessed."""
    length = values.get(b"content-length")
    coding = values.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise bad_request("both Transfer-Encoding and Content-Length: the length is ambiguous")
        if coding.lower() == b"chunked":
            return True
        if _CODED_CHUNKS.fullmatch(coding.lower()):
            raise Refused(HTTPStatus.NOT_IMPLEMENTED, "the only transfer coding known here is chunked")
        raise bad_request("Transfer-Encoding does not end in one chunked: the length is ambiguous")
    if length is None:
        return False
    if not length.isdigit() or len(length) > 18:
        raise bad_request("Content-Length is not a number of bytes")
    return int(length) > 0
