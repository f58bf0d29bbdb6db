"""Source files with bytes that no other file has, so that a mixed-up answer is noticed."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True)
class Shape:
    """One row of the tables: files of one size, asked for whole or by random ranges."""

    name: str
    size: int
    lengths: tuple[int, int] | None = None
    """Shortest and longest range; None for whole objects."""
    target: float = 1.0
    """CPU per response may be this many times that of nginx's proxy_cache."""
    in_quick: bool = True


SHAPES = (
    Shape("16 KiB", 16 * KIB, target=2.5),
    Shape("256 KiB", 256 * KIB),
    Shape("1 MiB", MIB, in_quick=False),
    Shape("4 MiB", 4 * MIB),
    Shape("ranges", 4 * MIB, (64 * KIB, 256 * KIB)),
)
"""The last: random ranges of 64 to 256 KiB, aligned to nothing, within files of 4 MiB."""


class Films:
    """`count` files of one size below `root`, at the paths `/size/0000.m4s` and so on."""

    def __init__(self, root: Path, size: int, count: int) -> None:
        self._root = root
        self._names: dict[str, str] = {}
        self.paths = [f"/films/{size}/seg-{number:05}.m4s" for number in range(count)]
        dice = random.Random(size)
        (root / f"films/{size}").mkdir(parents=True, exist_ok=True)
        for path in self.paths:
            self.file(path).write_bytes(dice.randbytes(size))

    def asked_as(self, urls: list[str]) -> Films:
        """The same files under other URLs, in the order of `paths`."""
        others = copy.copy(self)
        others._names = dict(zip(urls, self.paths, strict=True))
        others.paths = urls
        return others

    def file(self, path: str) -> Path:
        return self._root / self._names.get(path, path)[1:]

    def content(self, path: str) -> bytes:
        return self.file(path).read_bytes()
