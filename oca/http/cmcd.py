"""What players say of themselves beside a request (CMCD, CTA-5004 and its version 2), and what they are told in return
(CMSD, CTA-5006). Pure.

CMCD stands in the query, as `CMCD=` and a percent-encoded list, or in four headers (CMCD-Request, -Object, -Status,
-Session). It comes from strangers: at most `MOST_BYTES` are looked at, what can't be read is as if it had not been
said, and no number is believed beyond its bound. Used are:

| key | meaning | used for |
|---|---|---|
| br | encoded bitrate, kbit/s | mean bitrate; pacing is never below it |
| d | duration of the object, ms | time played |
| ot | type of the object | only what has a picture counts as played (v, av), or any if it is not said |
| bl | buffer length, ms | how near viewers are to a stall; pacing by `mtp` |
| bs, su | starved, starting up | stalls; no pacing by `mtp` |
| sid | session | counted, hashed, never kept |
| rtp, mtp | throughput that is wanted, that was measured, kbit/s | pacing |
| nor, nrr | the object, and the range, that is asked for next | prefetching on a cold path |
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from oca.http.refusal import Refused
from oca.http.target import canonical_path

MOST_BYTES: Final = 2048
MOST_SESSION: Final = 64
"""Characters of a session id (CTA-5004: at most 64)."""
_MOST_KBPS: Final = 10_000_000
_MOST_MS: Final = 600_000
"""Ten minutes: no object of a film is longer, no buffer larger."""
_SETTLED_MS: Final = 10_000
"""Of buffer, from which on a player that names only `mtp` may be held back."""

_SPLIT_STRING: Final = re.compile(rb'"[^",]+,|\\')
"""What may be a comma within a string, or an escape: then items are matched one by one."""
# A whole item at a time, so that what stands in a string is not taken for a key. In version 2 values may be lists, of
# which the first member is taken: br=(3000;v 128;a).
_ITEM: Final = re.compile(rb'[ ]*([a-z][a-z0-9._-]*)(?:=(\(?"(?:[^"\\]|\\.)*"[^,]*|[^,"]*))?(?:,|\Z)')
_DIGITS: Final = 9
_TRUE: Final = (b"", b"?1")
"""A key alone is true (RFC 8941 section 3.3.6)."""
_NUMBER: Final = re.compile(rb"\(?([0-9]{1,9})")
_STRING: Final = re.compile(rb'\(?"((?:[^"\\]|\\.)*)"(?:;r="([0-9-]{1,40})")?')
_RANGE: Final = re.compile(rb'"?([0-9]{1,15})-')
_WITH_PICTURE: Final = frozenset({b"v", b"av"})


class Said(msgspec.Struct, frozen=True, gc=False):
    """What one request said. Rates in bits a second, times in milliseconds; None where nothing was said."""

    bitrate_bps: int | None = None
    duration_ms: int | None = None
    buffer_ms: int | None = None
    wanted_bps: int | None = None
    measured_bps: int | None = None
    has_picture: bool = True
    """Of the object that is asked for."""
    is_starved: bool = False
    is_starting: bool = False
    session: bytes = b""
    """As the player named it. For hashing only."""
    next_object: bytes = b""
    """A path relative to the request's, percent-encoded as it came."""
    next_start: int = 0
    """First byte that is wanted of it."""


def cmcd_of(query: bytes, headers: bytes | None) -> Said | None:
    """What was said in the query, or else in the headers (their values, joined by commas). None if nothing was.

    A player's usual ten keys take 6 microseconds; with every item matched by `_ITEM` it were 14.
    """
    raw = headers
    if query:
        at = query.find(b"CMCD=")
        if at == 0 or query[at - 1 : at] == b"&":
            raw = query[at + 5 : at + MOST_BYTES].partition(b"&")[0]
            raw = raw.replace(b"%2C", b",").replace(b"%3D", b"=").replace(b"%22", b'"')
            if b"%" in raw:
                raw = unquote_to_bytes(raw)
    if not raw:
        return None
    raw = raw[:MOST_BYTES]
    if b"(" in raw or b" " in raw or _SPLIT_STRING.search(raw):
        items = dict(_ITEM.findall(raw))
    else:
        items = {key: value for key, _, value in [item.partition(b"=") for item in raw.split(b",")]}
    get = items.get
    next_object, next_start = _next(get(b"nor"), get(b"nrr")) if b"nor" in items or b"nrr" in items else (b"", 0)
    kind = get(b"ot")
    session = get(b"sid")
    return Said(
        _number(get(b"br"), _MOST_KBPS, 1000),
        _number(get(b"d"), _MOST_MS, 1),
        _number(get(b"bl"), _MOST_MS, 1),
        _number(get(b"rtp"), _MOST_KBPS, 1000),
        _number(get(b"mtp"), _MOST_KBPS, 1000),
        kind is None or kind in _WITH_PICTURE,
        get(b"bs") in _TRUE,
        get(b"su") in _TRUE,
        b"" if session is None else session[1 : 1 + MOST_SESSION].rstrip(b'"'),
        next_object,
        next_start,
    )


def _number(said: bytes | None, most: int, unit: int) -> int | None:
    if said is None:
        return None
    if not said.isdigit() or len(said) > _DIGITS:
        found = _NUMBER.match(said)
        if found is None:
            return None
        said = found[1]
    return min(int(said), most) * unit


def _next(said: bytes | None, spoken: bytes | None) -> tuple[bytes, int]:
    """What is asked for next. `nrr` alone means more of the same object."""
    found = None if said is None else _STRING.match(said)
    if said is not None and found is None:
        return b"", 0
    if found is not None and found[2] is not None:
        spoken = found[2]
    start = None if spoken is None else _RANGE.match(spoken)
    if found is None:
        return (b".", int(start[1])) if start is not None else (b"", 0)
    return found[1], 0 if start is None else int(start[1])


def next_path(path: str, named: bytes) -> str | None:
    """The path of the object that a player on `path` names as its next; None if it is none, or of another title.

    A player has a reason to be let ahead only in what it plays; and who may play one title must not make an appliance
    fetch another.
    """
    if named == b".":
        return path
    # RFC 3986 section 5.2: CTA-5004 wants a path relative to the request's. Another host's is not ours to fetch.
    raw = unquote_to_bytes(named).partition(b"?")[0]
    if not raw or b"://" in raw or raw.startswith(b"//") or len(raw) > MOST_BYTES:
        return None
    folder = path.rpartition("/")[0].encode() + b"/"
    try:
        found = canonical_path(raw if raw.startswith(b"/") else folder + raw)
    except Refused:
        return None
    title = "/".join(path.split("/", 3)[:3]) + "/"
    return found if found.startswith(title) and not found.endswith("/") else None


def pace_bps(said: Said, least_bps: int) -> int | None:
    """At which rate an answer should go out at most; None: as fast as it goes.

    What a player wants (`rtp`) is given, but never less than 1.25 times what it plays: a player that is mistaken must
    not stall. One that only says what it measured (`mtp`) gets twice that, so that it can still learn that there is
    more, once its buffer is full enough that nothing hurries.
    """
    floor = max(least_bps, 0 if said.bitrate_bps is None else said.bitrate_bps * 5 // 4)
    if said.wanted_bps:
        return max(said.wanted_bps, floor)
    if said.is_starved or said.is_starting or not said.measured_bps:
        return None
    if said.buffer_ms is None or said.buffer_ms < _SETTLED_MS:
        return None
    return max(2 * said.measured_bps, 2 * floor)


def dynamic_line(appliance: bytes, rtt_us: int, throughput_bps: int, most_bps: int) -> bytes:
    """The CMSD-Dynamic header line (CTA-5006): `rtt` in ms, `etp` (estimated throughput) and `mb` (the most that should
    be played) in kbit/s, the last two rounded to hundreds and left out where they are 0.
    """
    line = b'CMSD-Dynamic: "%b";rtt=%d' % (appliance, (rtt_us + 500) // 1000)
    if throughput_bps:
        line += b";etp=%d" % (max(1, throughput_bps // 100_000) * 100)
    if most_bps:
        line += b";mb=%d" % (max(1, most_bps // 100_000) * 100)
    return line + b"\r\n"
