"""The request target: from what stands in the request line to one canonical path.

- origin-form and absolute-form are accepted, asterisk-form only for OPTIONS (RFC 9112 section 3.2).
- The query is cut off: tokens, CMCD and steering parameters never name content.
- Percent escapes are decoded exactly once; dot segments are then resolved, so `%2e%2e` is `..` as well.
- A path that climbs out of the root, holds a control character or is not UTF-8 is refused, never guessed at.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from oca.http.refusal import bad_request

_ABSOLUTE_FORM: Final = re.compile(rb"https?://([^/?#@]+)(/[^?#]*)?(\?[^#]*)?", re.IGNORECASE)
# What nearly every path looks like: nothing to decode, resolve or refuse. Saves half of the time.
_PLAIN: Final = re.compile(rb"/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# C0, DEL and C1: a terminal obeys all three when it shows a log.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?")


def is_host(value: bytes) -> bool:
    """Whether `value` is `uri-host [":" port]` (RFC 9110 section 7.2) and not empty."""
    return _HOST.fullmatch(value) is not None


def path_and_query(target: bytes) -> tuple[bytes, bytes]:
    """Split a target in origin-form or absolute-form into its raw path and its raw query (empty if none).

    Raises `Refused` (400) for anything else.
    """
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        if absolute is None:
            raise bad_request("the request target is neither a path nor an http URL")
        host, path, query = absolute.groups()
        if not is_host(host):
            raise bad_request("the request target names no valid host")
        return path or b"/", (query or b"")[1:]
    path, _, query = target.partition(b"?")
    if b"#" in query:
        raise bad_request("the request target holds a fragment")
    return path, query


def authority(target: bytes, host: bytes | None) -> bytes:
    """The host that a request is for: an absolute-form target's, else the Host header's (RFC 9112 section 3.3)."""
    if target.startswith(b"/"):
        return host or b""
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    return b"" if absolute is None else absolute[1]


def canonical_path(raw_path: bytes) -> str:
    """The path that names an object: decoded once, dot segments resolved, always starting with "/".

    Raises `Refused` (400) for broken escapes, control characters, fragments, bytes that are not UTF-8, and paths that
    begin without a slash or climb above the root.
    """
    if _PLAIN.fullmatch(raw_path) and b"/." not in raw_path:
        return raw_path.decode("ascii")
    if not raw_path.startswith(b"/"):
        raise bad_request("the path does not begin with a slash")
    if b"#" in raw_path:
        raise bad_request("the request target holds a fragment")
    if b"%" in raw_path:
        if _BAD_ESCAPE.search(raw_path):
            raise bad_request("the path holds a broken percent escape")
        raw_path = unquote_to_bytes(raw_path)
    try:
        path = raw_path.decode()
    except UnicodeDecodeError:
        raise bad_request("the path is not UTF-8") from None
    if _CONTROL.search(path):
        raise bad_request("the path holds a control character")
    if "/." in path:
        return _without_dot_segments(path)
    return path


def _without_dot_segments(path: str) -> str:
    """RFC 3986 section 5.2.4, except that climbing above the root is an error and not quietly the root."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if not kept:
                raise bad_request("the path climbs above the root")
            kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
