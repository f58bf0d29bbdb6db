"""Words on a terminal: the answer on stdout, everything said beside it on stderr, tables, sizes, spans of time."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Final, TextIO

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_EVERY: Final = 10.0
"""Seconds between two lines of progress where lines stay."""


def show(text: str) -> None:
    """What was asked for."""
    print(text)  # noqa: T201 - this is what was asked for


def say(text: str) -> None:
    """For the person; a program that reads the answer does not see it."""
    print(text, file=sys.stderr)  # noqa: T201 - as above


def size(bytes_: int) -> str:
    """A size to be read: "1.5 TiB", "512 B"."""
    value, unit = float(bytes_), 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{bytes_} B"


def span(seconds: float) -> str:
    """A span of time in its largest unit: "3 h", "40 s"."""
    for length, unit in _SPANS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "0 s"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest entry. What is empty is shown as "-", so that columns can be told apart."""
    filled = [titles, *([entry or "-" for entry in row] for row in rows)]
    widths = [max(len(row[column]) for row in filled) for column in range(len(titles))]
    lines = ["  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)) for row in filled]
    return "\n".join(line.rstrip() for line in lines)


class Progress:
    """One line that is written over on a terminal; elsewhere a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._said_at: float | None = None
        self._last = ""

    def tell(self, text: str) -> None:
        if text == self._last:
            return
        now = time.monotonic()
        if self._is_terminal:
            self._stream.write(f"\r{text:<{len(self._last)}}")
        elif self._said_at is None or now - self._said_at >= _EVERY:
            self._stream.write(f"{text}\n")
            self._said_at = now
        self._stream.flush()
        self._last = text

    def end(self) -> None:
        """Leave the line, if one was begun."""
        if self._is_terminal and self._last:
            self._stream.write("\n")
            self._stream.flush()
