"""What a viewer of a crowd learns of a film from its playlists."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.crowd.film import FilmError, Part, Track, Variant, read_master, read_track

MASTER = """#EXTM3U
#EXT-X-VERSION:7
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="en",DEFAULT=YES,URI="audio.1f/index.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="pt",URI="audio-pt.1f/index.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=3000000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,AUDIO="audio"
720p.0a/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=400000,RESOLUTION=426x240
240p.0b/index.m3u8
"""
TRACK = """#EXTM3U
#EXT-X-TARGETDURATION:4
#EXT-X-MAP:URI="init.mp4"
#EXTINF:4.004000,
seg-00001.m4s
#EXTINF:2.5,
seg-00002.m4s
#EXT-X-ENDLIST
"""


def test_variants_come_by_rate_each_with_the_first_of_its_sounds():
    assert read_master(MASTER) == (
        Variant("240p.0b/index.m3u8", 400_000, 240, None),
        Variant("720p.0a/index.m3u8", 3_000_000, 720, "audio.1f/index.m3u8"),
    )


def test_files_are_named_from_the_films_folder():
    assert read_track(TRACK, "720p.0a/index.m3u8") == Track(
        Part("720p.0a/init.mp4"), (Part("720p.0a/seg-00001.m4s"), Part("720p.0a/seg-00002.m4s")), (4.004, 2.5)
    )


RANGES = """#EXTM3U
#EXT-X-MAP:URI="track.mp4",BYTERANGE="836@0"
#EXTINF:4,
#EXT-X-BYTERANGE:1000@900
track.mp4
#EXT-X-BYTERANGE:500
#EXTINF:4,
track.mp4
#EXTINF:4,
whole.mp4
#EXT-X-ENDLIST
"""


def test_ranges_of_one_file_are_told_from_files():
    track = read_track(RANGES, "720p.0a/index.m3u8")
    assert track.init == Part("720p.0a/track.mp4", 0, 836)
    assert [(part.path, part.span) for part in track.segments] == [
        ("720p.0a/track.mp4", "900-1899"),
        ("720p.0a/track.mp4", "1900-2399"),
        ("720p.0a/whole.mp4", None),
    ]


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ("1000@900", "many", "'many' is no range"),
        ("1000@900", "0@900", "is no range"),
        ("1000@900", "1000", "follows none of 720p.0a/track.mp4"),
        ('"836@0"', '"836"', "follows none"),
        ("500\n#EXTINF:4,\ntrack", "500\n#EXTINF:4,\nother", "follows none of 720p.0a/other.mp4"),
    ],
)
def test_a_range_that_says_nothing_is_refused(written, instead, says):
    with pytest.raises(FilmError, match=says):
        read_track(RANGES.replace(written, instead, 1), "720p.0a/index.m3u8")


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ("#EXTM3U\n", "", "no HLS playlist"),
        ("BANDWIDTH=400000", "BANDWIDTH=many", "no BANDWIDTH"),
        ("\n240p.0b/index.m3u8", "", "no address"),
        ("240p.0b/", "https://elsewhere.example/", "not below"),
        ("240p.0b/", "/240p.0b/", "not below"),
        ("240p.0b/", "../other/", "not below"),
    ],
)
def test_a_master_that_can_not_be_used_is_refused(written, instead, says):
    with pytest.raises(FilmError, match=says):
        read_master(MASTER.replace(written, instead, 1))


def test_a_master_without_variants_is_refused():
    with pytest.raises(FilmError, match="0 variants"):
        read_master("#EXTM3U\n")


@pytest.mark.parametrize(
    ("written", "instead", "says"),
    [
        ("#EXTINF:2.5,", "#EXTINF:long,", "no duration"),
        ("#EXTINF:2.5,\n", "", "2 segments and 1 durations"),
        ("#EXTINF:2.5,", "#EXTINF:0,", "segments"),
        ("#EXT-X-ENDLIST\n", "", "live"),
        ("seg-00002", "//elsewhere.example/seg", "not below"),
    ],
)
def test_a_track_that_can_not_be_used_is_refused(written, instead, says):
    with pytest.raises(FilmError, match=says):
        read_track(TRACK.replace(written, instead, 1), "720p.0a/index.m3u8")


@given(st.text(max_size=300))
def test_anything_may_come_as_a_playlist(text):
    for read in (read_master, lambda said: read_track(said, "a/b.m3u8")):
        for said in (text, "#EXTM3U\n" + text):
            with contextlib.suppress(FilmError):
                assert read(said)
