"""What devices say they can play, against what there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.codecs import can_play, is_codec

HIGH_4 = "avc1.640028"


def test_a_device_that_names_nothing_plays_everything():
    assert can_play("av01.0.08M.10", ())


@pytest.mark.parametrize(
    ("able", "needed"),
    [
        (HIGH_4, HIGH_4),
        ("avc1", HIGH_4),
        ("AVC1", HIGH_4),
        ("avc3", HIGH_4),
        (HIGH_4, "avc1.64001f"),
        (HIGH_4, "avc1.4d401f"),
        (HIGH_4, "avc1.42c01e"),
        (HIGH_4, "avc3.640028"),
        ("avc1.6E0033", HIGH_4),
        ("hvc1", "hev1.1.6.L120.90"),
        ("hev1.1.6.L120.90", "hvc1.1.6.L93.B0"),
        ("hvc1.2.4.L150.B0", "hvc1.1.6.L120.90"),
        ("hvc1.1.6.H120", "hvc1.1.6.L120.90"),
        ("vp09.00.40.08", "vp09.00.31.08"),
        ("vp09.02.51.10", "vp09.00.41.08.01.01.01.01.00"),
        ("av01.0.09M.10", "av01.0.08M.08"),
        ("av01.0.12H.10", "av01.0.08M.10.0.110.01.01.01.0"),
        ("mp4a.40.2", "mp4a.40.2"),
        ("mp4a", "mp4a.40.5"),
        ("opus", "Opus"),
        ("wvtt", "wvtt"),
    ],
)
def test_a_decoder_plays_what_asks_no_more_of_it(able, needed):
    assert can_play(needed, ("flac", able))


@pytest.mark.parametrize(
    ("able", "needed"),
    [
        (HIGH_4, "avc1.640029"),
        (HIGH_4, "avc1.6e0028"),
        ("avc1.4d401f", "avc1.64001f"),
        (HIGH_4, "hvc1.1.6.L93.B0"),
        ("hvc1.1.6.L120.90", "hvc1.2.4.L120.B0"),
        ("hvc1.1.6.L120.90", "hvc1.1.6.H120.90"),
        ("hvc1.1.6.L93.B0", "hvc1.1.6.L120.90"),
        ("vp09.00.40.08", "vp09.02.40.10"),
        ("av01.0.08M.08", "av01.0.08M.10"),
        ("av01.0.08M.10", "av01.0.08H.10"),
        ("mp4a.40.2", "mp4a.40.5"),
        ("mp4a.40.2", "ec-3"),
        ("avc1.nonsense", HIGH_4),
        (HIGH_4, "avc1.nonsense"),
        ("avc1.990028", HIGH_4),
    ],
)
def test_a_decoder_is_not_asked_for_more_than_it_can(able, needed):
    assert not can_play(needed, (able,))


@pytest.mark.parametrize("said", ["avc1", "avc1.640028", "mp4a.40.2", "av01.0.08M.10.0.110.01.01.01.0", "opus"])
def test_codecs_are_spelled_so(said):
    assert is_codec(said)


@pytest.mark.parametrize(
    "said", ["", "avc", "avc1.", "avc1 ", "avc1;x", "h.264", "avc1.64\n", "avc1." + "0" * 61, "ävc1"]
)
def test_other_words_are_no_codecs(said):
    assert not is_codec(said)


LEVELS = st.tuples(st.sampled_from(["42", "4d", "64", "6e"]), st.integers(10, 62)).map(
    lambda one: f"avc1.{one[0]}00{one[1]:02x}"
)


@given(LEVELS, LEVELS, LEVELS)
def test_who_can_do_more_plays_all_that_who_can_do_less_plays(first, second, third):
    if can_play(second, (first,)) and can_play(third, (second,)):
        assert can_play(third, (first,))


@given(LEVELS, LEVELS)
def test_two_decoders_that_play_each_other_are_the_same(first, second):
    if can_play(first, (second,)) and can_play(second, (first,)):
        assert first == second
