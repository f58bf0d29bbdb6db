"""Bitmaps that somebody made to do harm: refused or read, never a crash, which Python could not catch.

In a process of its own: were pyroaring to read past the end, it would be that one that dies.
"""

import struct
import subprocess
import sys

import pytest
from pyroaring import BitMap

from steering.errors import Unrecognised
from steering.fleet import read_bitmap

PLAIN, WITH_RUNS = 12346, 12347


def plain(keys, *containers, offset=None):
    """Containers of (key, count, bytes), without runs."""
    head = struct.pack("<II", PLAIN, len(containers))
    head += b"".join(struct.pack("<HH", key, count) for key, (count, _) in zip(keys, containers, strict=True))
    at = len(head) + 4 * len(containers)
    body = b""
    for _, inside in containers:
        head += struct.pack("<I", at + len(body) if offset is None else offset)
        body += inside
    return head + body


NUMBERS = struct.pack("<HHH", 1, 5, 9)


def test_a_bitmap_is_read():
    assert set(read_bitmap(plain([2], (2, NUMBERS)))) == {0x20001, 0x20005, 0x20009}
    assert read_bitmap(b"") == BitMap()
    assert read_bitmap(BitMap().serialize()) == BitMap()


@pytest.mark.parametrize(
    "packed",
    [
        b"\0",
        b"abc",
        bytes(64),
        struct.pack("<II", PLAIN, 65_537),
        struct.pack("<II", PLAIN, 2**32 - 1),
        plain([0], (2, NUMBERS))[:-1],
        plain([0], (65_535, NUMBERS)),
        plain([0], (2, struct.pack("<HHH", 9, 5, 1))),
        plain([0], (2, struct.pack("<HHH", 5, 5, 5))),
        plain([3, 1], (0, b"\1\0"), (0, b"\2\0")),
        plain([1, 1], (0, b"\1\0"), (0, b"\2\0")),
        plain([0], (60_000, bytes(8192))),
        struct.pack("<IBHHHHHHH", WITH_RUNS, 1, 0, 5, 2, 65_000, 65_000, 3, 1),
        struct.pack("<IBHHHHHHH", WITH_RUNS, 1, 0, 5, 2, 0, 10, 5, 10),
        struct.pack("<IBHHH", WITH_RUNS, 1, 0, 5, 65_535),
    ],
)
def test_what_is_no_bitmap_is_refused(packed):
    with pytest.raises(Unrecognised, match="holdings are no roaring bitmap"):
        read_bitmap(packed)


def test_four_billion_numbers_in_few_bytes_cost_little():
    everything = read_bitmap(BitMap(range(2**32)).serialize())
    assert len(everything) == 2**32
    assert 2**32 - 1 in everything


FUZZ = """
import random
from pyroaring import BitMap
from steering.errors import Unrecognised
from steering.fleet import read_bitmap

dice = random.Random(1)
sets = [range(0, 5000, 3), dice.sample(range(500_000), 20_000), range(100_000), [1], dice.sample(range(2**32), 300)]
bases = [BitMap(numbers).serialize() for numbers in sets]
for numbers in sets:
    runs = BitMap(numbers)
    runs.run_optimize()
    bases.append(runs.serialize())
read = refused = 0
for _ in range(100_000):
    packed = bytearray(dice.choice(bases))
    for _ in range(dice.randrange(1, 6)):
        match dice.randrange(5):
            case 0:
                packed[dice.randrange(64) % len(packed) : 64] = dice.randbytes(1)
            case 1:
                packed[dice.randrange(len(packed))] ^= 1 << dice.randrange(8)
            case 2:
                del packed[dice.randrange(1, len(packed) + 1) :]
            case 3:
                packed += dice.randbytes(dice.randrange(64))
            case _:
                at = dice.randrange(len(packed))
                packed[at:at] = dice.randbytes(dice.randrange(1, 9))
    try:
        bitmap = read_bitmap(bytes(packed))
    except Unrecognised:
        refused += 1
        continue
    read += 1
    numbers = len(bitmap)
    assert (5 in bitmap) in {True, False}
    assert bitmap == BitMap.deserialize(bitmap.serialize())
    assert not numbers or bitmap.min() <= bitmap.max() < 2**32
print(read, refused)
"""


def test_a_hundred_thousand_changed_bitmaps_are_read_or_refused():
    done = subprocess.run([sys.executable, "-c", FUZZ], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    read, refused = map(int, done.stdout.split())
    assert read > 5_000
    assert refused > 50_000
