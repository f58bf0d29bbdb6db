"""Which renditions an appliance holds: the message and its bounds."""

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from wire.codec import WireError, decode, encode
from wire.holdings import MOST_BITMAP_BYTES, MOST_BYTES, Holdings


@given(st.sets(st.integers(0, 2**32 - 1), max_size=50), st.integers(0, 2**63 - 1))
def test_holdings_come_back_as_they_were(numbers, version):
    holdings = Holdings(appliance="a1", boot="b", version=version, bitmap=BitMap(numbers).serialize())
    read = decode(encode(holdings), Holdings)
    assert read == holdings
    assert set(BitMap.deserialize(read.bitmap)) == numbers


def test_half_a_million_renditions_fit_in_a_hundredth_of_the_bound():
    every_other = BitMap(range(0, 1_000_000, 2)).serialize()
    assert len(every_other) < 132_000
    assert len(every_other) * 50 < MOST_BITMAP_BYTES


def test_the_largest_message_is_read_and_a_larger_one_refused():
    largest = encode(Holdings(appliance="a1", boot="b", version=1, bitmap=bytes(MOST_BITMAP_BYTES)))
    assert len(largest) <= MOST_BYTES
    assert len(decode(largest, Holdings).bitmap) == MOST_BITMAP_BYTES
    larger = encode(Holdings(appliance="a1", boot="b", version=1, bitmap=bytes(MOST_BITMAP_BYTES + 1)))
    with pytest.raises(WireError, match="bitmap"):
        decode(larger, Holdings)


@pytest.mark.parametrize(
    ("field", "value"),
    [("appliance", "a/b"), ("version", -1), ("bitmap", "no base64!"), ("bitmap", 5), ("boot", None)],
)
def test_what_is_out_of_bounds_is_refused_and_named(field, value):
    least = {"appliance": "a1", "boot": "b", "version": 1, "bitmap": base64.b64encode(b"x").decode()}
    with pytest.raises(WireError, match="not a Holdings"):
        decode(msgspec.json.encode({**least, field: value}), Holdings)
