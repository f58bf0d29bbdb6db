"""Dubbings, subtitles, thumbnails and newer codecs: all of a film that is more than its H.264 and first sound."""

import subprocess
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from admin.errors import InputError, MachineError, UsageError
from admin.progress import Lines
from admin.publish.encoder import find_ffmpeg
from admin.publish.publication import Order, publish
from admin.publish.renditions import Aside, Codec
from wire.catalog import Kind

TITLE = "nosferatu"
FOLDER = f"/titles/{TITLE}"
WORDS = "1\n00:00:01,000 --> 00:00:02,500\nOlá & <i>tu</i>\n\n2\n00:00:03,000 --> 00:00:04,000\nAté já\n"


@pytest.fixture(scope="module")
def film(make, tmp_path_factory):
    """5 s, sound in English and German, subtitles in German inside."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "in.srt").write_text("1\n00:00:00,500 --> 00:00:02,000\nGuten Abend\n")
    return make(
        *("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10:duration=5", "-f", "lavfi", "-i", "sine=duration=5"),
        *("-i", str(folder / "in.srt"), "-map", "0:v", "-map", "1:a", "-map", "1:a", "-map", "2:s"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-c:s", "srt"),
        *("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu", "-metadata:s:s:0", "language=deu"),
        "languages.mkv",
    )


@pytest.fixture(scope="module")
def beside(make, tmp_path_factory):
    """Sound and subtitles of their own."""
    words = tmp_path_factory.mktemp("beside") / "pt.srt"
    words.write_text(WORDS)
    return make("-f", "lavfi", "-i", "sine=frequency=200:duration=5", "-c:a", "flac", "fr.flac"), words


@pytest.fixture
def order(film, beside, tmp_path):
    dubbing, words = beside
    return Order(
        film,
        TITLE,
        (144,),
        tmp_path / "work",
        is_replacement=False,
        audio=(Aside("fra", dubbing),),
        subtitles=(Aside("pt-BR", words),),
        has_thumbnails=True,
    )


@pytest.fixture
def title(order, store):
    return publish(order, store.open(), Lines())


def test_every_language_and_the_thumbnails_are_renditions(title):
    told = [(rendition.name, rendition.kind, rendition.language) for rendition in title.renditions]
    assert told == [
        ("subtitles-1", Kind.TEXT, "deu"),
        ("subtitles-2", Kind.TEXT, "pt-BR"),
        ("audio-1", Kind.AUDIO, "eng"),
        ("audio-2", Kind.AUDIO, "deu"),
        ("audio-3", Kind.AUDIO, "fra"),
        ("144p", Kind.VIDEO, None),
        ("thumbnails", Kind.IMAGE, None),
    ]
    assert all(rendition.duration > 4 and rendition.average_bps > 0 for rendition in title.renditions)


def test_subtitles_are_webvtt_whatever_they_were(title, store):
    german, brazilian = (
        store.body(next(each.path for each in rendition.objects if each.content_type == "text/vtt")).decode()
        for rendition in title.renditions[:2]
    )
    assert german.startswith("WEBVTT\n\n00:00.500 --> 00:02.000\nGuten Abend")
    assert "00:01.000 --> 00:02.500\nOlá &amp; <i>tu</i>" in brazilian or "Olá & <i>tu</i>" in brazilian


def test_hls_offers_every_language(title, store):
    master = store.body(f"{FOLDER}/master.m3u8").decode()
    media = [line for line in master.splitlines() if line.startswith("#EXT-X-MEDIA:")]
    assert [line.partition("LANGUAGE=")[2].split(",")[0] for line in media] == [
        '"eng"',
        '"deu"',
        '"fra"',
        '"deu"',
        '"pt-BR"',
    ]
    assert 'AUDIO="audio",SUBTITLES="subtitles"' in master
    words = next(line for line in media if "pt-BR" in line).partition('URI="')[2].rstrip('"')
    playlist = store.body(f"{FOLDER}/{words}").decode()
    assert "#EXTINF:5." in playlist
    assert playlist.splitlines()[-2:] == ["subtitles.vtt", "#EXT-X-ENDLIST"]


def test_dash_offers_every_language_and_the_thumbnails(title, store):
    document = ET.fromstring(store.body(f"{FOLDER}/manifest.mpd"))
    sets = document.findall(".//{*}AdaptationSet")
    assert [(each.get("contentType"), each.get("lang")) for each in sets] == [
        ("video", None),
        ("audio", "eng"),
        ("audio", "deu"),
        ("audio", "fra"),
        ("text", "deu"),
        ("text", "pt-BR"),
        ("image", None),
    ]
    assert len({each.get("id") for each in sets}) == len(sets)
    for words in sets[4:6]:
        path = f"{FOLDER}/{words.find('.//{*}BaseURL').text}"
        assert store.body(path).startswith(b"WEBVTT")
    tile = sets[6].find(".//{*}EssentialProperty")
    assert (tile.get("schemeIdUri"), tile.get("value")) == ("http://dashif.org/guidelines/thumbnail_tile", "10x10")


def test_a_sheet_holds_a_thumbnail_for_each_second_of_a_short_film(title, store, ffmpeg, tmp_path):
    (sheet,) = (
        each.path for rendition in title.renditions for each in rendition.objects if each.content_type == "image/jpeg"
    )
    picture = tmp_path / "sheet.jpg"
    picture.write_bytes(store.body(sheet))
    raw = subprocess.run(
        [ffmpeg.path, "-loglevel", "error", "-i", picture, "-pix_fmt", "gray", "-f", "rawvideo", "-"],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    assert len(raw) == 1600 * 900
    rows = [raw[line * 1600 : (line + 1) * 1600] for line in range(90)]
    tiles = [b"".join(row[place * 160 : (place + 1) * 160] for row in rows) for place in range(10)]
    # Five seconds: five pictures, all different; then nothing.
    assert len(set(tiles[:5])) == 5
    assert max(tiles[7]) - min(tiles[7]) < 10
    cues = store.body(sheet.rpartition("/")[0] + "/thumbnails.vtt").decode()
    assert cues.count(" --> ") in (5, 6)
    assert "00:00:03.000 --> 00:00:04.000\nsheet-00001.jpg#xywh=480,0,160,90\n" in cues


@pytest.mark.parametrize(
    ("codec", "named"), [(Codec.HEVC, "hvc1.1.6.L"), (Codec.VP9, "vp09.00."), (Codec.AV1, "av01.0.")]
)
def test_newer_codecs_are_made_beside_h264_in_the_same_segments(ffmpeg, store, short, tmp_path, codec, named):
    if codec not in find_ffmpeg().codecs:
        pytest.skip(f"{ffmpeg.path} can't make {codec}")
    order = Order(short, TITLE, (144,), tmp_path / "work", is_replacement=False, codecs=(Codec.H264, codec))
    title = publish(order, store.open(), Lines())
    plain, newer = (rendition for rendition in title.renditions if rendition.kind == Kind.VIDEO)
    assert (plain.name, newer.name) == ("144p", f"144p-{codec}")
    assert newer.codecs.startswith(named)
    assert newer.duration == plain.duration
    folder = store.download(tmp_path / "got") / FOLDER[1:]
    playlist = folder / newer.objects[0].path.split("/")[3] / "index.m3u8"
    counted = subprocess.run(
        [ffmpeg.path, "-loglevel", "error", "-xerror", "-i", playlist, "-f", "framecrc", "-"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert len([line for line in counted.stdout.splitlines() if line.startswith("0,")]) == 50
    sets = ET.fromstring(store.body(f"{FOLDER}/manifest.mpd")).findall(".//{*}AdaptationSet[@contentType='video']")
    assert [each.find("{*}SupplementalProperty").get("value") for each in sets] == ["1", "0"]


def test_a_codec_that_ffmpeg_can_not_make_is_named_with_those_it_can(order, store, ffmpeg, tmp_path, monkeypatch):
    lame = tmp_path / "ffmpeg"
    lame.write_text(
        f'#!/bin/sh\ncase "$*" in *-encoders*) echo " V....D libx264 x"; echo " A....D aac x";;'
        f" *) exec '{ffmpeg.path}' \"$@\";; esac\n"
    )
    lame.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(MachineError, match="lacks libsvtav1; it can make: h264"):
        publish(replace(order, codecs=(Codec.H264, Codec.AV1)), store.open(), Lines())


def test_a_file_beside_the_film_that_carries_no_words_or_sound_is_refused(order, store, film, beside, tmp_path):
    dubbing, words = beside
    empty = tmp_path / "empty.srt"
    empty.write_text("no subtitles at all\n")
    for wrong in (dubbing, empty, tmp_path / "absent.srt"):
        with pytest.raises(InputError, match=wrong.name):
            publish(replace(order, subtitles=(Aside("pt", wrong),)), store.open(), Lines())
    with pytest.raises(InputError, match=r"no sound in it .* allowed: MP3"):
        publish(replace(order, audio=(Aside("pt", words),)), store.open(), Lines())
    assert store.paths() in ([], ["/catalogue/conditional-writes-probe"])


def test_a_language_that_is_no_tag_is_refused(order, store, beside):
    with pytest.raises(UsageError, match="such as de, deu or pt-BR"):
        publish(replace(order, subtitles=(Aside('pt"', beside[1]),)), store.open(), Lines())
