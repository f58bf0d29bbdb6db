"""Settings files as all our programs read them: the same units, and a mistake is named with its file, line and key.

A misspelt key, a bad unit or a value out of bounds is refused whole, never skipped: a setting that does not hold what
its author thinks is worse than a program that does not start.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from enum import EnumType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

StructT = TypeVar("StructT", bound=msgspec.Struct)

_UNITS: Final = {"B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    _UNITS[f"{_letter}iB"] = 1024**_power
    _UNITS[f"{_letter}B"] = 1000**_power
_RATES: Final = {f"{_letter}bit/s": 1000**_power for _power, _letter in enumerate(["", "k", "M", "G", "T"])}
_QUANTITY: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+(?:/s)?)\s*")
_SPANS: Final = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}
_MOST_BYTES: Final = 2**60
"""An exbibyte. What is larger is a slip of the pen, and would not fit where sizes are packed."""
_MOST_SECONDS: Final = 100 * 365 * 86400.0
_MOST_BPS: Final = 10**15


class Mistake(ValueError):
    """What is wrong with a settings file: file, line, key, what was read, and what is allowed."""


class Bytes(int):
    """A size, written as "2 TiB", "500 GB", "64 KiB" or a plain number of bytes."""


class Seconds(float):
    """A duration, written as "75 s", "250 ms", "2 min", "1 h", "7 d" or a plain number of seconds."""


class BitsPerSecond(int):
    """A rate, written as "100 Gbit/s", "500 Mbit/s" or a plain number of bits per second."""


class Document:
    """One settings file: its text, and what TOML makes of it."""

    def __init__(self, text: str, path: str) -> None:
        """`path` stands in messages only. Raises `Mistake`."""
        self._text = text
        self._path = path
        try:
            self._tree = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise Mistake(f"{path}: {error}") from error

    def read(self, kind: type[StructT]) -> StructT:
        """The whole file as one value. Raises `Mistake`."""
        try:
            return msgspec.convert(self._tree, kind, dec_hook=quantity)
        except msgspec.ValidationError as error:
            raise self._explained(str(error), kind) from error

    def refused(self, keys: list[str], sentence: str) -> Mistake:
        """The mistake at `keys` (numbers of tables in a list count as keys), for what types can't say."""
        line = _line_of(keys, self._text)
        at = f"{self._path}: line {line}: " if line else f"{self._path}: "
        return Mistake(f"{at}{'.'.join(key for key in keys if not key.isdigit())}: {sentence}")

    def _explained(self, message: str, root: type[msgspec.Struct]) -> Mistake:
        """Add the line, the key and what was read to msgspec's message, which ends in " - at `$.a.b[0]`"."""
        what, _, where = message.partition(" - at `$")
        dotted = where.rstrip("`").lstrip(".")
        unknown = re.search(r"contains unknown field `(.+)`", what)
        keys = [key for key in re.split(r"\.|\[(\d+|\.\.\.)\]", dotted) if key]
        if unknown:
            keys.append(unknown[1])
            allowed = _fields_of(root, keys[:-1])
            what = f"unknown key {unknown[1]!r}" + (f"; allowed here: {', '.join(allowed)}" if allowed else "")
        if what.startswith("Invalid enum value") and (words := _words_of(root, keys)):
            what = f"not one of the allowed values: {', '.join(words)}"
        shown = ".".join(key for key in keys if not key.isdigit() and key != "...")
        line = _line_of(keys, self._text)
        at = f"{self._path}: line {line}: " if line else f"{self._path}: "
        value = _value_at(keys, self._tree)
        read = "" if unknown or value is None or isinstance(value, dict | list) else f"; read {value!r}"
        return Mistake(f"{at}{shown}: {what}{read}" if shown else f"{at}{what}{read}")


def size_of(text: str) -> Bytes:
    """A size from a command line, written as in the settings; digits alone are bytes. Raises ValueError."""
    return _bytes(int(text) if text.isdecimal() else text)


def host_and_port(address: str) -> tuple[str, int]:
    """Split "host:port" or "[v6]:port". Raises ValueError."""
    parts = urlsplit(f"//{address}")
    if parts.port is None or not parts.hostname or parts.netloc != address or parts.username is not None:
        raise ValueError(f"{address!r} is not host:port")
    return parts.hostname, parts.port


def leads_somewhere(url: str, schemes: tuple[str, ...]) -> bool:
    """Whether `url` is absolute, with a host and one of these schemes."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False  # A port that is none, or half an IPv6 address.


def quantity(kind: type, value: Any) -> Any:  # noqa: ANN401 - msgspec gives whatever TOML held
    """msgspec's hook for sizes, durations and rates."""
    if kind is Bytes:
        return _bytes(value)
    if kind is Seconds:
        return _seconds(value)
    if kind is BitsPerSecond:
        return _bits_per_second(value)
    raise NotImplementedError(kind)


def _bytes(value: object) -> Bytes:
    size = _measured(value, _UNITS)
    if not 0 <= size <= _MOST_BYTES:
        raise ValueError('Expected a size such as "2 TiB", "500 GB" or a number of bytes, 1 EiB at most')
    return Bytes(size)


def _seconds(value: object) -> Seconds:
    span = _measured(value, _SPANS)
    if not 0 <= span <= _MOST_SECONDS:
        raise ValueError('Expected a duration such as "75 s", "250 ms", "2 min", "1 h" or a number of seconds')
    return Seconds(span)


def _bits_per_second(value: object) -> BitsPerSecond:
    rate = _measured(value, _RATES)
    if not 0 <= rate <= _MOST_BPS:
        raise ValueError('Expected a rate such as "100 Gbit/s", "500 Mbit/s" or a number of bits per second')
    return BitsPerSecond(rate)


def _measured(value: object, units: Mapping[str, float]) -> float:
    """-1 if it is not a quantity of these units. A plain number has a fraction only where it is seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if units is _SPANS or isinstance(value, int) else -1
    if isinstance(value, str) and (found := _QUANTITY.fullmatch(value)) and found[2] in units:
        return float(found[1]) * units[found[2]]
    return -1


def _fields_of(kind: Any, keys: list[str]) -> list[str]:  # noqa: ANN401 - annotations are of any type
    kind = _type_at(kind, keys)
    return [f.encode_name for f in msgspec.structs.fields(kind)] if _is_struct(kind) else []


def _words_of(kind: Any, keys: list[str]) -> list[str]:  # noqa: ANN401 - annotations are of any type
    kind = _type_at(kind, keys)
    return list(map(str, kind)) if isinstance(kind, EnumType) else []


def _type_at(kind: Any, keys: list[str]) -> Any:  # noqa: ANN401 - annotations are of any type
    for key in keys:
        if key.isdigit() or key == "...":
            continue
        fields = msgspec.structs.fields(kind) if _is_struct(kind) else ()
        kind = next((f.type for f in fields if f.encode_name == key), None)
        while kind is not None and not _is_struct(kind) and not isinstance(kind, EnumType):
            kind = getattr(kind, "__args__", (None,))[0]
    return kind


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _value_at(keys: list[str], tree: object) -> object:
    for key in keys:
        if isinstance(tree, dict):
            tree = tree.get(key)
        elif isinstance(tree, list) and key.isdigit() and int(key) < len(tree):
            tree = tree[int(key)]
        else:
            return None
    return tree


def _line_of(keys: list[str], text: str) -> int | None:
    """The line where the last named key stands, found by reading tables and keys as a person would. None if unsure."""
    names = [key for key in keys if not key.isdigit() and key != "..."]
    index = int(keys[1]) if len(keys) > 1 and keys[1].isdigit() else 0
    if not names:
        return None
    table = ""
    seen = -1
    header_line = None
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.split("#")[0].strip()
        if stripped.startswith("["):
            table = stripped.strip("[]").strip()
            if table == names[0]:
                seen += 1
                if seen == index:
                    header_line = number
        elif len(names) > 1 and table == names[0] and seen == index:
            if re.match(rf"[\"']?{re.escape(names[1])}[\"']?\s*[.=]", stripped):
                return number
        elif not table and re.match(rf"[\"']?{re.escape(names[0])}[\"']?\s*[.=]", stripped):
            return number
    return header_line
