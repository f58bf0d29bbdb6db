"""Which renditions are made of a film."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.publish.renditions import HEIGHTS, PEAK_BPS, AudioPlan, Wanted, audio_plans, planned, video_plans
from admin.publish.source import Source, Track


def film(width: int, height: int, tracks: int = 1) -> Source:
    return Source(width, height, Fraction(25), 60.0, tuple(Track(index, None) for index in range(tracks)))


SIDES = st.integers(1, 8192)
LADDERS = st.sets(st.sampled_from(sorted(PEAK_BPS)), min_size=1).map(tuple)


@pytest.mark.parametrize(
    ("size", "made"),
    [
        ((1920, 1080), ["240p 426x240", "360p 640x360", "480p 852x480", "720p 1280x720", "1080p 1920x1080"]),
        ((3840, 2160), ["240p 426x240", "360p 640x360", "480p 852x480", "720p 1280x720", "1080p 1920x1080"]),
        ((1920, 800), ["240p 426x176", "360p 640x266", "480p 852x354", "720p 1280x532", "1080p 1920x800"]),
        ((1080, 1920), ["240p 240x426", "360p 360x640", "480p 480x852", "720p 720x1280", "1080p 1080x1920"]),
        ((960, 540), ["240p 426x240", "360p 640x360", "480p 852x480", "540p 960x540"]),
        ((854, 480), ["240p 426x240", "360p 640x360", "480p 854x480"]),
        ((1920, 1088), ["240p 422x240", "360p 634x360", "480p 846x480", "720p 1270x720", "1080p 1904x1080"]),
        ((426, 242), ["240p 422x240"]),
        ((161, 121), ["121p 160x120"]),
        ((1, 1), ["1p 2x2"]),
    ],
)
def test_the_ladder_of_a_film(size, made):
    plans = video_plans(film(*size), HEIGHTS)
    assert [f"{plan.name} {plan.width}x{plan.height}" for plan in plans] == made


@given(SIDES, SIDES, LADDERS)
def test_nothing_is_enlarged_and_every_side_is_even(width, height, heights):
    for plan in video_plans(film(width, height), heights):
        assert plan.width <= max(2, width)
        assert plan.height <= max(2, height)
        assert plan.width % 2 == plan.height % 2 == 0


@given(SIDES, SIDES, LADDERS)
def test_there_is_always_a_rendition_and_each_is_dearer_than_the_last(width, height, heights):
    plans = video_plans(film(width, height), heights)
    assert plans
    names = [plan.name for plan in plans]
    assert len(set(names)) == len(names)
    assert [plan.height for plan in plans] == sorted(plan.height for plan in plans)
    assert [plan.peak_bps for plan in plans] == sorted(plan.peak_bps for plan in plans)


@given(st.integers(100, 8192), st.integers(100, 8192), LADDERS)
def test_the_shape_is_kept_to_the_pixel(width, height, heights):
    for plan in video_plans(film(width, height), heights):
        # Each side is less than two pixels below the exact one.
        assert -2 * height < plan.width * height - plan.height * width < 2 * width


def test_sound_is_a_rendition_of_its_own_and_is_made_first():
    plans = planned(film(640, 360), Wanted(HEIGHTS))
    assert [plan.name for plan in plans] == ["audio", "240p", "360p"]
    assert isinstance(plans[0], AudioPlan)


def test_each_audio_track_is_a_rendition():
    assert [plan.name for plan in audio_plans(film(640, 360, tracks=3))] == ["audio-1", "audio-2", "audio-3"]


def test_a_silent_film_has_pictures_only():
    assert audio_plans(film(640, 360, tracks=0)) == ()
