"""A rendition in one file: players fetch ranges of it, and find the same film there."""

import hashlib
import re
import struct
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from admin.errors import StoreError
from admin.progress import Lines
from admin.publish import publication
from admin.publish.boxes import BoxError, Timing, file_index, fragment_of
from admin.publish.publication import publish
from admin.publish.renditions import Packaging
from tests.admin.publish.test_publication import decoded
from wire.catalog import Kind

TITLE = "metropolis"
MPD = {"m": "urn:mpeg:dash:schema:mpd:2011"}


@pytest.fixture
def order(order):
    return replace(order, packaging=Packaging.SINGLE_FILE)


@pytest.fixture(scope="module")
def single(publishing, clip):
    """As it stands in a bucket, for tests that only look."""
    return publishing(clip, packaging=Packaging.SINGLE_FILE)


def ranges_in(playlist: str) -> list[tuple[int, int]]:
    """Of the initialisation, then of each segment: where it begins, and its size."""
    found = re.findall(r'BYTERANGE[=:]"?(\d+)@(\d+)', playlist)
    return [(int(at), int(size)) for size, at in found]


def test_every_picture_and_sound_is_played_from_either_manifest(ffmpeg, single, tmp_path):
    folder = single.download(tmp_path / "got") / "titles" / TITLE
    hls = sorted(decoded(ffmpeg, folder / "master.m3u8").values())
    # One by one: of an MPD that names ranges, ffmpeg ends all streams when the first has ended.
    dash = [decoded(ffmpeg, folder / "manifest.mpd", stream)["0"] for stream in ("0:v:0", "0:v:1", "0:a")]
    for *pictures, sounds in (hls, dash):
        assert pictures == [270, 270]
        assert 420 <= sounds <= 425


def test_each_rendition_is_one_file_and_a_playlist_and_both_are_in_the_catalogue(single):
    title = single.title(TITLE)
    assert [rendition.name for rendition in title.renditions] == ["audio", "144p", "240p"]
    for rendition in title.renditions:
        assert [each.path.rpartition("/")[2] for each in rendition.objects] == ["track.mp4", "index.m3u8"]
        for each in rendition.objects:
            body = single.body(each.path)
            assert (each.size_bytes, each.sha256) == (len(body), hashlib.sha256(body).hexdigest())


def test_playlist_and_index_name_the_same_places_and_there_segments_begin(single):
    for rendition in single.title(TITLE).renditions:
        track, playlist = (single.body(each.path) for each in rendition.objects)
        (_, init), *segments = ranges_in(playlist.decode())
        assert len(segments) == 3
        assert sum(segments[-1]) == len(track)
        assert all(sum(one) == following for one, (following, _) in pairwise(segments))
        assert {track[at + 4 : at + 8] for at, _ in segments} == {b"moof"}
        assert track[init + 4 : init + 8] == b"sidx"
        assert init + int.from_bytes(track[init : init + 4]) == segments[0][0]
        rows = struct.iter_unpack(">III", track[init + 40 : segments[0][0]])
        told = [(size, said >> 28) for size, _, said in rows]
        assert told == [(size, 9) for _, size in segments]


def test_the_mpd_says_where_index_and_initialisation_are(single):
    mpd = ET.fromstring(single.body(f"/titles/{TITLE}/manifest.mpd"))
    assert mpd.get("profiles") == "urn:mpeg:dash:profile:isoff-on-demand:2011,urn:mpeg:dash:profile:cmaf:2019"
    paths = {each.path for rendition in single.title(TITLE).renditions for each in rendition.objects}
    told = mpd.findall(".//m:Representation", MPD)
    assert len(told) == 3
    for representation in told:
        path = f"/titles/{TITLE}/{representation.find('m:BaseURL', MPD).text}"
        assert path in paths
        base = representation.find("m:SegmentBase", MPD)
        first, last = map(int, base.get("indexRange").split("-"))
        assert single.body(path)[first + 4 : first + 8] == b"sidx"
        assert int.from_bytes(single.body(path)[first : first + 4]) == last + 1 - first
        assert base.find("m:Initialization", MPD).get("range") == f"0-{first - 1}"
    for adaptation in mpd.findall(".//m:AdaptationSet", MPD):
        assert (adaptation.get("subsegmentAlignment"), adaptation.get("subsegmentStartsWithSAP")) == ("true", "1")


def test_a_title_goes_from_one_packaging_to_the_other_and_keeps_what_it_was(store, order):
    before = publish(order, store.open(), Lines())
    publish(replace(order, is_replacement=True, packaging=Packaging.SEGMENTS), store.open(), Lines())
    after = store.title(TITLE)
    assert {len(rendition.objects) for rendition in after.renditions} == {4}
    assert {one.number for one in before.renditions}.isdisjoint({one.number for one in after.renditions})
    for rendition in before.renditions:
        assert store.head(rendition.objects[0].path)["ContentLength"] == rendition.objects[0].size_bytes


def test_a_run_that_lost_its_store_goes_on_with_the_files_it_made(watched, order, ffmpeg):
    watched.on_put = lambda path: 403 if path.endswith("/track.mp4") and "/144p." in path else None
    with pytest.raises(StoreError):
        publish(order, watched.store.open(), Lines())
    watched.wait_until_idle()
    watched.on_put = lambda _path: None
    sent = {path for path in watched.films if path.endswith(".mp4")}
    watched.puts.clear()
    publish(order, watched.store.open(), Lines())
    video = next(one for one in watched.store.title(TITLE).renditions if one.name == "144p")
    assert video.objects[0].path in watched.films
    assert not sent & set(watched.films)


def test_files_that_are_large_go_in_parts_and_are_known_again(store, order, monkeypatch, capsys):
    monkeypatch.setattr(publication, "WHOLE_BYTES", 20_000)
    title = publish(order, store.open(), Lines())
    large = [each for one in title.renditions for each in one.objects if each.size_bytes > 20_000]
    assert len(large) == 3
    for each in large:
        assert store.open().sha256(each.path) == each.sha256
        assert store.head(each.path)["CacheControl"] == "public, max-age=31536000, immutable"
    publish(replace(order, is_replacement=True), store.open(), Lines())
    assert "6 files were there" in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2, 0xFFFF])
def test_an_index_tells_of_any_number_of_segments_that_it_can_hold(count):
    timings = [Timing(4 * number, 4, 1, starts_clean=True) for number in range(count)]
    box = file_index(timings, [1000 + number for number in range(count)])
    assert int.from_bytes(box[:4]) == len(box) == 40 + 12 * count
    assert int.from_bytes(box[38:40]) == count
    assert struct.unpack(">III", box[-12:]) == (999 + count, 4, 0x90000000)


def test_more_segments_than_an_index_can_hold_are_refused():
    timing = Timing(0, 4, 1, starts_clean=True)
    with pytest.raises(BoxError, match="65536 segments"):
        file_index([timing] * 0x10000, [1] * 0x10000)


def test_what_has_no_fragment_is_refused():
    with pytest.raises(BoxError, match="no moof"):
        fragment_of(struct.pack(">I4s", 8, b"mdat"))


def test_a_silent_film_is_one_file_too(store, order, other_clip):
    title = publish(replace(order, video=other_clip, heights=(144,)), store.open(), Lines())
    assert [(one.kind, len(one.objects)) for one in title.renditions] == [(Kind.VIDEO, 2)]
