"""How long an answer is fresh, and what may be done with it after (RFC 9111, RFC 5861, RFC 8246). A pure function."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from oca.http.dates import parse_date

# No possessive groups: Python 3.11.2, which is Debian 12's, matches them wrongly (gh-106052). None is needed either:
# what an unclosed quote swallows ends at \Z, so nothing is ever tried twice.
_ELEMENT: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.?)*(?:"|\Z))+')
_DIRECTIVE: Final = re.compile(r'\s*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)(?:=(?:"((?:[^"\\]|\\.)*)"\s*\Z|([^\r\n]*)))?')
_MAX_DELTA: Final = 2**31
"""RFC 9111 section 1.2.2: larger numbers of seconds count as this."""
_YEAR: Final = 365 * 86400.0


class Defaults(msgspec.Struct, frozen=True):
    """Lifetimes in seconds where the origin says nothing."""

    film: float
    manifest: float
    negative: float
    stale_if_error: float
    manifest_suffixes: tuple[str, ...]


class Lifetime(msgspec.Struct, frozen=True):
    """Seconds, counted from the moment the answer was generated; `age` is how old it already was on arrival."""

    fresh: float
    age: float
    stale_while_revalidate: float
    stale_if_error: float
    storable: bool
    cache_control: str
    """The Cache-Control line to replay."""


def directives(header: str) -> dict[str, str]:
    """Cache-Control as lower-case names with their argument ("" if none). The first of a repeated name counts.

    What is malformed after a name does not hide the name: "no-store; max-age=60" is taken as no-store.
    """
    found: dict[str, str] = {}
    for element in _ELEMENT.findall(header):
        match = _DIRECTIVE.match(element)
        if match is not None:
            name, quoted, token = match.groups()
            found.setdefault(name.lower(), quoted if quoted is not None else (token or "").strip())
    return found


def lifetime(path: str, status: int, headers: Mapping[str, str], now: float, defaults: Defaults) -> Lifetime:
    """Judge an answer for `path` with lower-case `headers`, received at `now` (seconds since 1970).

    We are a shared cache: s-maxage counts before max-age, private is not stored, must-revalidate is obeyed.
    """
    control = directives(headers.get("cache-control", ""))
    if status != 200:
        # Of a refusal the origin may only shorten the life: a wrong 404 must not outlive its mending by long.
        fresh = min(defaults.negative, _explicit(control, headers, now, default=defaults.negative))
        if {"no-store", "private"} & control.keys():
            return Lifetime(0.0, 0.0, 0.0, 0.0, storable=False, cache_control="no-store")
        return Lifetime(fresh, 0.0, 0.0, 0.0, storable=True, cache_control=f"max-age={int(fresh)}")
    storable = not ("no-store" in control or "private" in control or headers.get("vary", "").strip() == "*")
    is_manifest = path.endswith(defaults.manifest_suffixes)
    default = defaults.manifest if is_manifest else defaults.film
    if "immutable" in control:
        # RFC 8246 section 2: for the lifetime that is given; without one, for long.
        default = max(default, _YEAR)
    fresh = _explicit(control, headers, now, default)
    age = _delta(headers.get("age", "0")) or 0.0
    strict = {"must-revalidate", "proxy-revalidate", "s-maxage", "no-cache"} & control.keys()
    stale_if_error = _delta(control.get("stale-if-error"))
    if stale_if_error is None:
        stale_if_error = 0.0 if strict else defaults.stale_if_error
    stale_while_revalidate = 0.0 if strict else _delta(control.get("stale-while-revalidate")) or 0.0
    said = headers.get("cache-control") or (f"public, max-age={int(fresh)}" + ("" if is_manifest else ", immutable"))
    return Lifetime(fresh, age, stale_while_revalidate, stale_if_error, storable, said)


def _explicit(control: Mapping[str, str], headers: Mapping[str, str], now: float, default: float) -> float:
    if "no-cache" in control:
        return 0.0
    for name in ("s-maxage", "max-age"):
        if name in control:
            # An argument that is no number makes the answer stale at once (section 4.2.1).
            return _delta(control[name]) or 0.0
    if "expires" in headers:
        expires = parse_date(headers["expires"], now)
        date = parse_date(headers.get("date", ""), now)
        return 0.0 if expires is None else max(0.0, expires - (now if date is None else date))
    return default


def _delta(text: str | None) -> float | None:
    if text is None or not text.strip().isascii() or not text.strip().isdigit():
        return None
    digits = text.strip()
    return float(min(int(digits), _MAX_DELTA)) if len(digits) < 12 else float(_MAX_DELTA)
