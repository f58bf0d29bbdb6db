"""A film's own pictures choose its ladder."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.progress import Lines
from admin.publish.complexity import SAMPLE_SECONDS, chosen_ladder, fitted, sample_moments
from admin.publish.encoder import probe
from admin.publish.renditions import HEIGHTS, PEAK_BPS, Codec, VideoPlan, Wanted, planned, video_plans
from admin.publish.source import Source

LADDER = list(video_plans(Source(1920, 1080, 25, 5400.0, ()), HEIGHTS))
TABLE = {plan.name: plan.peak_bps for plan in LADDER}
RATES = st.floats(1_000, 100_000_000)


@pytest.fixture(scope="module")
def plain(make):
    """A minute of a picture that hardly changes, with no sound."""
    picture = "color=gray:size=320x180:rate=10:duration=61"
    return make("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-preset", "ultrafast", "plain.mp4")


@pytest.fixture(scope="module")
def noisy(make):
    """A minute in which every picture is new."""
    picture = "color=gray:size=320x180:rate=10:duration=61,noise=alls=90:allf=t,format=yuv420p"
    return make("-f", "lavfi", "-i", picture, "-c:v", "libx264", "-preset", "ultrafast", "noisy.mp4")


def ladder_of(ffmpeg, path, folder, *codecs):
    film = probe(ffmpeg, path)
    plans = planned(film.source, Wanted((144, 240), codecs or (Codec.H264,)))
    made = fitted(ffmpeg, film, plans, folder, Lines())
    return {plan.name: plan.peak_bps for plan in made if isinstance(plan, VideoPlan)}


def test_a_plain_film_needs_fewer_bits_and_steps_than_a_noisy_one(ffmpeg, plain, noisy, tmp_path):
    calm, wild = ladder_of(ffmpeg, plain, tmp_path), ladder_of(ffmpeg, noisy, tmp_path)
    assert calm["144p"] == PEAK_BPS[144] // 4
    assert wild["144p"] == PEAK_BPS[144] * 3 // 2
    assert wild["180p"] > 3 * calm["180p"]
    assert list(tmp_path.iterdir()) == []


def test_measuring_again_gives_the_same_ladder(ffmpeg, noisy, tmp_path):
    assert ladder_of(ffmpeg, noisy, tmp_path) == ladder_of(ffmpeg, noisy, tmp_path)


def test_other_codecs_follow_the_ladder_of_h264(ffmpeg, noisy, tmp_path):
    made = ladder_of(ffmpeg, noisy, tmp_path, Codec.H264, Codec.HEVC)
    assert made["144p-hevc"] == round(made["144p"] * 0.65)


def test_a_short_film_keeps_the_table(ffmpeg, short, tmp_path):
    assert ladder_of(ffmpeg, short, tmp_path)["144p"] == PEAK_BPS[144]


def test_a_film_that_ffmpeg_can_only_seek_in_by_guessing_keeps_the_table(ffmpeg, noisy, make, tmp_path):
    stream = make("-i", str(noisy), "-c", "copy", "noisy.ts")
    assert ladder_of(ffmpeg, stream, tmp_path)["144p"] == PEAK_BPS[144]


@given(st.lists(st.tuples(RATES, RATES), min_size=len(LADDER), max_size=len(LADDER)))
def test_rates_stay_near_the_table_and_the_ends_of_the_ladder_stay(samples):
    chosen = chosen_ladder(LADDER, dict(zip(TABLE, samples, strict=True)))
    assert (chosen[0].name, chosen[-1].name) == (LADDER[0].name, LADDER[-1].name)
    for plan in chosen:
        assert TABLE[plan.name] // 4 <= plan.peak_bps <= TABLE[plan.name] * 3 // 2
        assert replace(plan, peak_bps=TABLE[plan.name]) in LADDER


def test_a_step_hardly_cheaper_than_the_next_is_left_out():
    samples = {"240p": (300e3,), "360p": (700e3,), "480p": (1e6,), "720p": (1.1e6,), "1080p": (2e6,)}
    assert [plan.name for plan in chosen_ladder(LADDER, samples)] == ["240p", "360p", "720p", "1080p"]


@given(st.floats(60, 20_000))
def test_samples_lie_in_the_film_and_apart(duration):
    moments = sample_moments(duration)
    assert 2 <= len(moments) <= 8
    assert moments[0] > 0
    assert moments[-1] + SAMPLE_SECONDS < duration
    assert all(later - earlier > SAMPLE_SECONDS for earlier, later in pairwise(moments))
