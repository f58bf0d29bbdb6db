"""Names inside the cache. A name from the network becomes a hash at once and never reaches a disk."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

BLOCK_BYTES: Final = 4 * 1024 * 1024
"""The unit of presence, checksum and fetch."""
EXTENT_BLOCKS: Final = 16
"""Consecutive blocks of one object in one file on one device: the unit of placement and eviction (64 MiB)."""
EXTENT_BYTES: Final = BLOCK_BYTES * EXTENT_BLOCKS

ObjectKey = bytes
"""16 bytes: BLAKE2b of the canonical path."""
ExtentKey = bytes
"""28 bytes: object key, generation (8), extent number (4). Sorted, an object's extents stand together."""

_TAIL: Final = struct.Struct(">QI")
_RENDITION_BITS: Final = 12
"""Of a title's dozen renditions two are taken for one in one title of 60."""
TITLE_BITS: Final = 20


def object_key(path: str) -> ObjectKey:
    return blake2b(path.encode(), digest_size=16).digest()


def extent_key(key: ObjectKey, generation: int, number: int) -> ExtentKey:
    return key + _TAIL.pack(generation, number)


def split_extent_key(key: ExtentKey) -> tuple[ObjectKey, int, int]:
    """Object key, generation and extent number."""
    generation, number = _TAIL.unpack_from(key, 16)
    return key[:16], generation, number


def file_name(key: ExtentKey) -> str:
    """The extent's file below its device's folder: two levels of 256, then 56 hexadecimal digits."""
    digits = key.hex()
    return f"{digits[:2]}/{digits[2:4]}/{digits}"


def key_of_file(name: str) -> ExtentKey | None:
    """The key in the last part of a file's name, or None if the file is not an extent's."""
    try:
        key = bytes.fromhex(name)
    except ValueError:
        return None
    return key if len(key) == 28 and key.hex() == name else None


def block_span(block: int, size: int) -> tuple[int, int]:
    """The half-open span of block number `block` in an object of `size` bytes."""
    start = block * BLOCK_BYTES
    return start, min(start + BLOCK_BYTES, size)


def extent_name(key: ExtentKey) -> int:
    """64 well-mixed bits of an extent's key: the object's hash with the extent number folded in."""
    return (int.from_bytes(key[:8], "big") ^ int.from_bytes(key[24:28], "big") * 0x9E3779B97F4A7C15) & (2**64 - 1)


def group_of(path: str, size: int) -> int:
    """32 bits that all extents of a rendition share, of which the upper ones are those of its title (see `title_of`).

    A long object is a rendition by itself, short ones are segments of one that has a folder of its own. The folder in
    which renditions lie is their title's.
    """
    rendition = path if size > EXTENT_BYTES else path.rpartition("/")[0]
    return grouped(_mixed(rendition.rpartition("/")[0]), _mixed(rendition))


def grouped(title: int, rendition: int) -> int:
    """A group, of well-mixed bits of both."""
    return (title & (1 << TITLE_BITS) - 1) << _RENDITION_BITS | rendition & (1 << _RENDITION_BITS) - 1


def title_of(group: int) -> int:
    """`TITLE_BITS` that all renditions of a title share."""
    return group >> _RENDITION_BITS


def _mixed(path: str) -> int:
    return int.from_bytes(blake2b(path.encode(), digest_size=4).digest(), "big")
