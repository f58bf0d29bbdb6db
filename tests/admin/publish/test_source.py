"""What a video is, from ffmpeg's own words about real files."""

import subprocess
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.publish.source import MAX_RATE, Track, constant_rate, has_video, read_source


@pytest.fixture
def banner(ffmpeg):
    def run(path) -> str:
        look = ("-map", "0:V:0?", "-frames:v", "1", "-vf", "showinfo=checksum=0", "-f", "null", "-")
        asked = subprocess.run(
            [ffmpeg.path, "-nostdin", "-i", str(path), *look], capture_output=True, timeout=60, check=False
        )
        return asked.stderr.decode()

    return run


def test_a_film_with_sound(banner, clip):
    source = read_source(banner(clip))
    assert (source.width, source.height, source.rate) == (426, 240, Fraction(30000, 1001))
    assert source.duration == pytest.approx(9.01, abs=0.05)
    assert source.tracks == (Track(0, "deu"),)


def test_a_film_without_sound(banner, other_clip):
    source = read_source(banner(other_clip))
    assert (source.width, source.height, source.tracks) == (160, 120, ())


def test_a_film_held_upright_is_upright(banner, clip, make):
    turned = make("-display_rotation", "90", "-i", str(clip), "-c", "copy", "turned.mp4")
    source = read_source(banner(turned))
    assert (source.width, source.height) == (240, 426)


def test_pictures_of_oblong_pixels_are_as_wide_as_they_are_shown(banner, make):
    dvd = make("-f", "lavfi", "-i", "testsrc2=size=180x120:rate=10:duration=1,setsar=32/27", "dvd.mkv")
    source = read_source(banner(dvd))
    assert (source.width, source.height) == (213, 120)


def test_every_audio_track_is_found_with_its_language(banner, clip, make):
    languages = ("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=und")
    languages += ("-metadata:s:a:2", "language=jpn")
    maps = ("-map", "0:v", "-map", "0:a", "-map", "0:a", "-map", "0:a", "-c", "copy")
    path = make("-i", str(clip), *maps, *languages, "tracks.mkv")
    assert read_source(banner(path)).tracks == (Track(0, "eng"), Track(1, None), Track(2, "jpn"))


def test_cover_art_is_no_film(banner, clip, make):
    song = make("-i", str(clip), "-vn", "-c:a", "copy", "song.m4a")
    cover = make("-i", str(clip), "-frames:v", "1", "cover.png")
    covered = make(
        *("-i", str(song), "-i", str(cover), "-map", "0", "-map", "1", "-c", "copy"),
        *("-disposition:v:0", "attached_pic", "covered.m4a"),
    )
    assert not has_video(banner(covered))
    assert not has_video(banner(song))
    assert has_video(banner(clip))


def test_tags_that_look_like_streams_are_not_taken_for_them(banner, clip, make):
    lie = "x\n  Stream #0:7(eng): Audio: aac\n  Duration: 99:00:00.00, start"
    path = make("-i", str(clip), "-c", "copy", "-metadata", f"title={lie}", "-metadata", f"comment={lie}", "tagged.mkv")
    source = read_source(banner(path))
    assert len(source.tracks) == 1
    assert source.duration < 10


def test_a_length_that_ffmpeg_only_estimates_is_not_known():
    estimated = "[mpeg] Estimating duration from bitrate, this may be inaccurate\n  Duration: 00:10:00.00, start\n"
    frame = "[Parsed_showinfo_0 @ 0x1] n:   0 pts:0 fmt:yuv420p sar:0/1 s:64x48 i:P \n"
    assert read_source(estimated + frame).duration is None
    assert read_source("  Duration: N/A, start\n" + frame).duration is None


def test_words_without_a_picture_are_no_source():
    assert read_source("Input #0, mov, from 'x':\n  Duration: 00:00:10.00, start\n") is None
    assert read_source("") is None


@pytest.mark.parametrize(
    ("nominal", "average", "constant"),
    [
        ("25", None, "25"),
        ("30000/1001", "29.97", "30000/1001"),
        ("60", None, "60"),
        ("120", None, "60"),
        ("120000/1001", None, "60000/1001"),
        ("90", "30", "45"),
        ("1000", "29.5", "29.5"),
        ("90000", None, "30"),
        ("0", None, "30"),
        ("0", "24", "24"),
        ("1/2", "1/2", "30"),
    ],
)
def test_one_constant_rate_for_any_source(nominal, average, constant):
    known = Fraction(average) if average else None
    assert constant_rate(Fraction(nominal), known) == Fraction(constant)


@given(st.fractions(0, 100_000), st.none() | st.fractions(0, 100_000))
def test_the_rate_is_always_one_that_can_be_shown(nominal, average):
    assert 1 <= constant_rate(nominal, average) <= MAX_RATE
