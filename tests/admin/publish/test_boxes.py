"""Timing and codec, read from the bytes of segments."""

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.publish.boxes import BoxError, segment_timing, video_codec

SEGMENT_OF_4_S = bytes.fromhex(
    "00000034" "73696478" "01000000" "00000001" "00007530" "0000000000000000" "0000000000000000"
    "0000" "0001" "00022eed" "0001d538" "80000000"
)  # fmt: skip


def test_a_segment_says_when_it_is_shown():
    timing = segment_timing(SEGMENT_OF_4_S)
    assert (timing.start, timing.seconds, timing.starts_clean) == (0, Fraction(4004, 1000), True)


def test_the_codec_is_named_from_its_configuration(published):
    init = next(path for path in published.paths() if "/240p." in path and path.endswith("init.mp4"))
    assert video_codec(published.body(init)).startswith("avc1.64")


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(body):
    for read in (segment_timing, video_codec):
        with pytest.raises(BoxError):
            read(body)


@given(st.integers(0, len(SEGMENT_OF_4_S) - 1))
def test_a_segment_that_breaks_off_is_refused(length):
    with pytest.raises(BoxError):
        segment_timing(SEGMENT_OF_4_S[:length])


@given(st.integers(8, 30), st.binary(max_size=40))
def test_a_damaged_index_is_refused_or_read_but_never_crashes(at, rubbish):
    damaged = (SEGMENT_OF_4_S[:at] + rubbish + SEGMENT_OF_4_S[at + len(rubbish) :])[: len(SEGMENT_OF_4_S)]
    with suppress(BoxError):
        assert segment_timing(damaged).timescale > 0
