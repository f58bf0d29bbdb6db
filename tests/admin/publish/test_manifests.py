"""HLS and DASH say the same of the same segments."""

from fractions import Fraction
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from admin.publish.boxes import Timing
from admin.publish.manifests import Encoded, Piece, Shown, Steered, dash_manifest, hls_master, hls_playlist
from wire.catalog import Kind

MPD = {"m": "urn:mpeg:dash:schema:mpd:2011"}


def encoded(name: str, kind: Kind, sizes: list[int], seconds: list[int], language: str | None = None) -> Encoded:
    pieces, start = [], 0
    for size, length in zip(sizes, seconds, strict=True):
        pieces.append(Piece(Timing(start, length * 1000, 1000, starts_clean=True), size))
        start += length * 1000
    is_video = kind == Kind.VIDEO
    return Encoded(
        name,
        kind,
        f"{name}.abc",
        "avc1.640015" if is_video else "mp4a.40.2",
        tuple(pieces),
        426 if is_video else None,
        240 if is_video else None,
        Fraction(25) if is_video else None,
        language,
    )


VIDEO = encoded("240p", Kind.VIDEO, [400_000, 200_000, 90_000], [4, 4, 1])
GERMAN = encoded("audio-1", Kind.AUDIO, [50_000, 50_000], [4, 4], "deu")
ENGLISH = encoded("audio-2", Kind.AUDIO, [50_000, 60_000], [4, 4], "eng")


def test_the_bandwidth_is_the_peak_and_a_last_splinter_does_not_count():
    assert (VIDEO.peak_bps, VIDEO.average_bps) == (800_000, -(-690_000 * 8 // 9))


def test_a_film_of_one_splinter_has_a_bandwidth_too():
    assert encoded("240p", Kind.VIDEO, [1000], [1]).peak_bps == 8000


def test_the_master_budgets_for_picture_and_the_dearest_sound():
    master = hls_master(Shown((GERMAN, ENGLISH, VIDEO)))
    assert "BANDWIDTH=920000," in master
    assert 'CODECS="avc1.640015,mp4a.40.2",RESOLUTION=426x240,FRAME-RATE=25.000,AUDIO="audio"' in master


def test_a_steered_manifest_tells_players_whom_to_ask_and_what_its_clones_are_made_of():
    steered = Steered("/titles/film", "https://steer.example", "https://films.example")
    asked = "https://steer.example/v1/content-steering?path=/titles/film"
    master = hls_master(Shown((GERMAN, VIDEO)), steered)
    assert f'#EXT-X-CONTENT-STEERING:SERVER-URI="{asked}/master.m3u8",PATHWAY-ID="."\n' in master
    assert [',PATHWAY-ID=".",' in line for line in master.splitlines() if "STREAM-INF" in line] == [True]
    mpd = ET.fromstring(dash_manifest(Shown((GERMAN, VIDEO)), steered))
    base, service = mpd.find("m:BaseURL", MPD), mpd.find("m:ContentSteering", MPD)
    assert (base.get("serviceLocation"), base.text) == (".", "https://films.example/titles/film/")
    assert (service.get("defaultServiceLocation"), service.text) == (".", f"{asked}/manifest.mpd")


def test_without_a_place_that_clones_can_be_made_of_only_hls_is_steered():
    steered = Steered("/titles/film", "https://steer.example", None)
    assert "CONTENT-STEERING" in hls_master(Shown((VIDEO,)), steered)
    assert dash_manifest(Shown((VIDEO,)), steered) == dash_manifest(Shown((VIDEO,)))


def test_the_first_language_is_the_default_and_each_is_offered():
    media = [line for line in hls_master(Shown((GERMAN, ENGLISH, VIDEO))).splitlines() if "TYPE=AUDIO" in line]
    assert ['LANGUAGE="deu",DEFAULT=YES' in media[0], 'LANGUAGE="eng",DEFAULT=NO' in media[1]] == [True, True]
    document = ET.fromstring(dash_manifest(Shown((GERMAN, ENGLISH, VIDEO))))
    sounds = document.findall(".//m:AdaptationSet[@contentType='audio']", MPD)
    assert [sound.get("lang") for sound in sounds] == ["deu", "eng"]


def test_a_silent_film_mentions_no_sound():
    assert "AUDIO" not in hls_master(Shown((VIDEO,)))
    assert "audio" not in dash_manifest(Shown((VIDEO,)))


@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(1, 6)), min_size=1, max_size=30))
def test_hls_and_dash_give_each_segment_the_same_time(pieces):
    video = encoded("240p", Kind.VIDEO, [size for size, _ in pieces], [seconds for _, seconds in pieces])
    playlist = hls_playlist(video.pieces)
    told_by_hls = [float(line[8:-1]) for line in playlist.splitlines() if line.startswith("#EXTINF:")]
    told_by_dash = []
    for run in ET.fromstring(dash_manifest(Shown((video,)))).iterfind(".//m:SegmentTimeline/m:S", MPD):
        told_by_dash += [int(run.get("d")) / 1000] * (int(run.get("r", "0")) + 1)
    assert told_by_hls == told_by_dash == [seconds for _, seconds in pieces]
    target = next(int(line[22:]) for line in playlist.splitlines() if line.startswith("#EXT-X-TARGETDURATION:"))
    assert max(told_by_hls) <= target
