"""HLS (RFC 8216, version 7) and DASH (ISO/IEC 23009-1) over the same CMAF segments.

We write them ourselves, from what was measured in the segments: ffmpeg's manifests name an average as the bandwidth,
while players budget with the peak (RFC 8216, 4.3.4.2: "the peak segment bit rate").
"""

import base64
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, groupby
from typing import Final
from urllib.parse import quote
from uuid import UUID
from xml.etree import ElementTree as ET

from admin.publish.boxes import Timing
from admin.publish.keys import Scheme, TrackKey
from admin.publish.renditions import AUDIO_CHANNELS, AUDIO_HERTZ
from wire.catalog import Kind

INIT: Final = "init.mp4"
TRACK: Final = "track.mp4"
"""The file of a rendition that is in one."""
PLAYLIST: Final = "index.m3u8"
WORDS: Final = "subtitles.vtt"
#: As ffmpeg spells it; the first is 1.
SHEET: Final = "sheet-%05d.jpg"
CUES: Final = "thumbnails.vtt"
THUMBNAILS_ID: Final = "org.open-oca.thumbnails"
"""What EXT-X-SESSION-DATA calls them, for pages that show them over HLS."""
HLS: Final = "master.m3u8"
DASH: Final = "manifest.mpd"

# SegmentTemplate's spelling and ours; five digits last 111 hours of 4 s segments.
_MEDIA: Final = "seg-$Number%05d$.m4s"
_SHEETS: Final = "sheet-$Number%05d$.jpg"
_CENC: Final = "urn:mpeg:cenc:2013"
#: DASH-IF's ClearKey: a licence server is asked as W3C's Encrypted Media Extensions say (9.1.3).
_CLEARKEY: Final = "urn:uuid:e2719d58-a985-b3c9-781a-b030af78d30e"
_AUDIO_GROUP: Final = "audio"
_TEXT_GROUP: Final = "subtitles"
# Steering's own pathways are clones of this one (PATHWAY-ID's default in draft-pantos-content-steering). It is said
# all the same: players take a default in HLS, and none in DASH.
_PATHWAY: Final = "."

ET.register_namespace("cenc", _CENC)


def segment_name(number: int) -> str:
    """The file name of a rendition's segment; the first is 1."""
    return f"seg-{number:05d}.m4s"


@dataclass(frozen=True)
class OneFile:
    """How a rendition in one file (TRACK) begins: bytes of the initialisation, then of the index; segments follow."""

    init_bytes: int
    index_bytes: int

    def places(self, sizes: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Where each segment begins, and its size."""
        at = self.init_bytes + self.index_bytes
        for size in sizes:
            yield at, size
            at += size


@dataclass(frozen=True)
class Piece:
    """One segment: when it is shown, and its size."""

    timing: Timing
    size_bytes: int


@dataclass(frozen=True)
class Encoded:
    """What the manifests say of one rendition. `folder` is its folder's name beside the manifests."""

    name: str
    kind: Kind
    folder: str
    codecs: str
    pieces: tuple[Piece, ...]
    width: int | None
    height: int | None
    frame_rate: Fraction | None
    language: str | None
    key: TrackKey | None = None
    """What it is encrypted with; None: it is in the clear."""
    one_file: OneFile | None = None
    """None: each segment is a file."""

    @property
    def duration(self) -> Fraction:
        return sum((piece.timing.seconds for piece in self.pieces), Fraction(0))

    @property
    def peak_bps(self) -> int:
        """The rate of the fullest segment. A last splinter, shorter than half the longest, says nothing of the rate."""
        longest = max(piece.timing.seconds for piece in self.pieces)
        return max(
            math.ceil(piece.size_bytes * 8 / piece.timing.seconds)
            for piece in self.pieces
            if piece.timing.seconds * 2 >= longest
        )

    @property
    def average_bps(self) -> int:
        return math.ceil(sum(piece.size_bytes for piece in self.pieces) * 8 / self.duration)


@dataclass(frozen=True)
class Words:
    """Subtitles in one language: one WebVTT file. `folder` as in `Encoded`."""

    name: str
    folder: str
    language: str | None
    size_bytes: int


@dataclass(frozen=True)
class Sheets:
    """Thumbnails, `side` times `side` of `width` by `height` on a sheet, one each `interval` seconds."""

    folder: str
    width: int
    height: int
    side: int
    interval: int
    count: int
    """Of sheets."""
    size_bytes: int


@dataclass(frozen=True)
class Shown:
    """All that a title's manifests speak of."""

    media: tuple[Encoded, ...]
    words: tuple[Words, ...] = ()
    sheets: Sheets | None = None

    @property
    def duration(self) -> Fraction:
        return max(rendition.duration for rendition in self.media)


@dataclass(frozen=True)
class Steered:
    """How a title's manifests lead players to steering while they play."""

    folder: str
    """The title's own: /titles/ID."""
    service_url: str
    """Where players reach steering: https://host."""
    films_url: str | None
    """Where films are fetched from before steering has said better: https://host. DASH needs it, because clones are
    made of an absolute BaseURL (Shaka's sources throw on another); without it, only HLS is steered."""

    def question(self, manifest: str) -> str:
        """The content-steering question of a player of this manifest."""
        return f"{self.service_url}/v1/content-steering?path={quote(f'{self.folder}/{manifest}')}"


def hls_playlist(pieces: Sequence[Piece], key: TrackKey | None = None, one_file: OneFile | None = None) -> str:
    """The media playlist of one rendition, beside its segments, or the one file in which they are."""
    timings = [piece.timing for piece in pieces]
    opened = f'"{TRACK}",BYTERANGE="{one_file.init_bytes}@0"' if one_file else f'"{INIT}"'
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        # RFC 8216, 4.3.3.1: each EXTINF, rounded to the nearest integer, is at most this.
        f"#EXT-X-TARGETDURATION:{max(1, *(math.floor(t.seconds + Fraction(1, 2)) for t in timings))}",
        "#EXT-X-MEDIA-SEQUENCE:1",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f"#EXT-X-MAP:URI={opened}",
        *(_hls_keys(key) if key else ()),
    ]
    if one_file:
        places = one_file.places(piece.size_bytes for piece in pieces)
        named = [f"#EXT-X-BYTERANGE:{size}@{at}\n{TRACK}" for at, size in places]
    else:
        named = [segment_name(number) for number in range(1, len(pieces) + 1)]
    for timing, name in zip(timings, named, strict=True):
        lines += [f"#EXTINF:{float(timing.seconds):.6f},", name]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def _hls_keys(key: TrackKey) -> list[str]:
    """How to ask for the key: by its id in the clear (ClearKey), and of each DRM system that has said how."""
    method = "SAMPLE-AES-CTR" if key.scheme is Scheme.CENC else "SAMPLE-AES"
    asked = [("org.w3.clearkey", key.kid), *((f"urn:uuid:{_system(box)}", box) for box in key.pssh)]
    return [
        f'#EXT-X-KEY:METHOD={method},URI="data:text/plain;base64,{base64.b64encode(said).decode()}"'
        f',KEYID=0x{key.kid.hex()},KEYFORMAT="{system}",KEYFORMATVERSIONS="1"'
        for system, said in asked
    ]


def _system(pssh: bytes) -> UUID:
    """Of which DRM system it is (ISO/IEC 23001-7, 8.1)."""
    return UUID(bytes=pssh[12:28])


def words_playlist(seconds: Fraction) -> str:
    """The media playlist of subtitles: one segment, as long as the film."""
    return "\n".join(
        [
            "#EXTM3U",
            "#EXT-X-VERSION:7",
            f"#EXT-X-TARGETDURATION:{max(1, math.floor(seconds + Fraction(1, 2)))}",
            "#EXT-X-MEDIA-SEQUENCE:1",
            "#EXT-X-PLAYLIST-TYPE:VOD",
            f"#EXTINF:{float(seconds):.6f},",
            WORDS,
            "#EXT-X-ENDLIST",
            "",
        ]
    )


def thumbnail_cues(width: int, height: int, side: int, interval: int, seconds: float) -> str:
    """Thumbnails as players over HLS know them: WebVTT that names a part of a picture (Media Fragments, 4.2.2)."""
    lines = ["WEBVTT", ""]
    for number in range(max(1, math.ceil(seconds / interval))):
        sheet, place = divmod(number, side * side)
        down, across = divmod(place, side)
        until = min((number + 1) * interval, max(seconds, number * interval + 0.001))
        lines += [
            f"{_clock(number * interval)} --> {_clock(until)}",
            f"{SHEET % (sheet + 1)}#xywh={across * width},{down * height},{width},{height}",
            "",
        ]
    return "\n".join(lines)


def hls_master(shown: Shown, steered: Steered | None = None) -> str:
    """The multivariant playlist: every video rendition, each with every audio rendition and all subtitles."""
    audios, videos = _of(Kind.AUDIO, shown.media), _of(Kind.VIDEO, shown.media)
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    if steered:
        lines.append(f'#EXT-X-CONTENT-STEERING:SERVER-URI="{steered.question(HLS)}",PATHWAY-ID="{_PATHWAY}"')
    for place, audio in enumerate(audios):
        lines.append(
            f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="{_AUDIO_GROUP}",NAME="{audio.name}"'
            + (f',LANGUAGE="{audio.language}"' if audio.language else "")
            + f',DEFAULT={"NO" if place else "YES"},AUTOSELECT=YES,CHANNELS="{AUDIO_CHANNELS}"'
            + f',URI="{audio.folder}/{PLAYLIST}"'
        )
    lines += [
        f'#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="{_TEXT_GROUP}",NAME="{words.name}"'
        + (f',LANGUAGE="{words.language}"' if words.language else "")
        + f',DEFAULT=NO,AUTOSELECT=YES,FORCED=NO,URI="{words.folder}/{PLAYLIST}"'
        for words in shown.words
    ]
    if shown.sheets:
        lines.append(f'#EXT-X-SESSION-DATA:DATA-ID="{THUMBNAILS_ID}",FORMAT=RAW,URI="{shown.sheets.folder}/{CUES}"')
    for video in videos:
        codecs = ",".join([video.codecs, *sorted({audio.codecs for audio in audios})])
        bandwidth = video.peak_bps + max((audio.peak_bps for audio in audios), default=0)
        average = video.average_bps + max((audio.average_bps for audio in audios), default=0)
        assert video.frame_rate is not None
        lines += [
            f"#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},AVERAGE-BANDWIDTH={average},"
            f'CODECS="{codecs}",RESOLUTION={video.width}x{video.height},FRAME-RATE={float(video.frame_rate):.3f},'
            + (f'AUDIO="{_AUDIO_GROUP}",' if audios else "")
            + (f'SUBTITLES="{_TEXT_GROUP}",' if shown.words else "")
            + (f'PATHWAY-ID="{_PATHWAY}",' if steered else "")
            + "CLOSED-CAPTIONS=NONE",
            f"{video.folder}/{PLAYLIST}",
        ]
    return "\n".join([*lines, ""])


def dash_manifest(shown: Shown, steered: Steered | None = None) -> str:
    """The MPD: one adaptation set for the video of each codec, one for each audio rendition and for each subtitles, and
    one for thumbnails.
    """
    longest = shown.duration
    forms = {"on-demand" if rendition.one_file else "live" for rendition in shown.media}
    profiles = [f"urn:mpeg:dash:profile:isoff-{form}:2011" for form in sorted(forms)]
    segment = max(piece.timing.seconds for rendition in shown.media for piece in rendition.pieces)
    mpd = ET.Element(
        "MPD",
        {
            "xmlns": "urn:mpeg:dash:schema:mpd:2011",
            "profiles": ",".join([*profiles, "urn:mpeg:dash:profile:cmaf:2019"]),
            "type": "static",
            "mediaPresentationDuration": _iso(longest),
            "maxSegmentDuration": _iso(segment),
            "minBufferTime": _iso(segment),
        },
    )
    if steered and steered.films_url:
        base = ET.SubElement(mpd, "BaseURL", {"serviceLocation": _PATHWAY})
        base.text = f"{steered.films_url}{steered.folder}/"
        # Playing does not wait for steering: where the manifest came from is a good place already.
        service = ET.SubElement(
            mpd, "ContentSteering", {"defaultServiceLocation": _PATHWAY, "queryBeforeStart": "false"}
        )
        service.text = steered.question(DASH)
    period = ET.SubElement(mpd, "Period", {"id": "0", "start": "PT0S"})
    numbers = count()
    families = _by_codec(_of(Kind.VIDEO, shown.media))
    for family, videos in families.items():
        picture = _adaptation(period, next(numbers), videos[0])
        picture.set("maxWidth", str(max(video.width or 0 for video in videos)))
        picture.set("maxHeight", str(max(video.height or 0 for video in videos)))
        _protect(picture, videos[0].key)
        others = [str(place) for place, other in enumerate(families) if other != family]
        if others:
            # A player may go from one codec to another in mid-film (ISO/IEC 23009-1, 5.3.3.5).
            switching = {"schemeIdUri": "urn:mpeg:dash:adaptation-set-switching:2016", "value": ",".join(others)}
            ET.SubElement(picture, "SupplementalProperty", switching)
        for video in videos:
            assert video.frame_rate is not None
            shape = {"width": str(video.width), "height": str(video.height), "sar": "1:1"}
            _representation(picture, video, shape | {"frameRate": str(video.frame_rate)})
    for place, audio in enumerate(_of(Kind.AUDIO, shown.media), start=1):
        sound = _adaptation(period, next(numbers), audio)
        _protect(sound, audio.key)
        role = "main" if place == 1 else "alternate"
        ET.SubElement(sound, "Role", {"schemeIdUri": "urn:mpeg:dash:role:2011", "value": role})
        representation = _representation(sound, audio, {"audioSamplingRate": str(AUDIO_HERTZ)})
        channels = {
            "schemeIdUri": "urn:mpeg:dash:23003:3:audio_channel_configuration:2011",
            "value": str(AUDIO_CHANNELS),
        }
        # The schema wants it first.
        representation.insert(0, ET.Element("AudioChannelConfiguration", channels))
    for words in shown.words:
        _words(period, next(numbers), words, longest)
    if shown.sheets:
        _sheets(period, next(numbers), shown.sheets)
    ET.indent(mpd)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(mpd, encoding="unicode")}\n'


def _adaptation(period: ET.Element, number: int, first: Encoded) -> ET.Element:
    """For that rendition, and those like it."""
    attributes = {"id": str(number), "contentType": str(first.kind)}
    # In the eyes of DASH a file is one segment, and what we call segments are its subsegments (5.3.3.2).
    names = (
        ("subsegmentAlignment", "subsegmentStartsWithSAP") if first.one_file else ("segmentAlignment", "startWithSAP")
    )
    attributes |= dict(zip(names, ("true", "1"), strict=True))
    return ET.SubElement(period, "AdaptationSet", attributes | ({"lang": first.language} if first.language else {}))


def _representation(parent: ET.Element, rendition: Encoded, more: dict[str, str]) -> ET.Element:
    attributes = {
        "id": rendition.folder,
        "mimeType": f"{rendition.kind}/mp4",
        "codecs": rendition.codecs,
        "bandwidth": str(rendition.peak_bps),
    }
    representation = ET.SubElement(parent, "Representation", attributes | more)
    if one_file := rendition.one_file:
        ET.SubElement(representation, "BaseURL").text = f"{rendition.folder}/{TRACK}"
        first = one_file.init_bytes + one_file.index_bytes
        base = ET.SubElement(
            representation,
            "SegmentBase",
            {
                "timescale": str(rendition.pieces[0].timing.timescale),
                "indexRange": f"{one_file.init_bytes}-{first - 1}",
                "indexRangeExact": "true",
            },
        )
        ET.SubElement(base, "Initialization", {"range": f"0-{one_file.init_bytes - 1}"})
        return representation
    template = ET.SubElement(
        representation,
        "SegmentTemplate",
        {
            "timescale": str(rendition.pieces[0].timing.timescale),
            "initialization": f"$RepresentationID$/{INIT}",
            "media": f"$RepresentationID$/{_MEDIA}",
            "startNumber": "1",
        },
    )
    timeline = ET.SubElement(template, "SegmentTimeline")
    for duration, alike in groupby(piece.timing.duration for piece in rendition.pieces):
        ET.SubElement(timeline, "S", {"d": str(duration), "r": str(len(list(alike)) - 1)})
    timeline[0].set("t", str(rendition.pieces[0].timing.start))
    return representation


def _protect(adaptation: ET.Element, key: TrackKey | None) -> None:
    """ISO/IEC 23001-7, 11: the scheme and the default key's id, then who has the key."""
    if key is None:
        return
    common = {"schemeIdUri": "urn:mpeg:dash:mp4protection:2011", "value": str(key.scheme)}
    said = ET.SubElement(adaptation, "ContentProtection", common)
    said.set(f"{{{_CENC}}}default_KID", str(UUID(bytes=key.kid)))
    clear = {"schemeIdUri": _CLEARKEY, "value": "ClearKey1.0"}
    ET.SubElement(adaptation, "ContentProtection", clear).set(f"{{{_CENC}}}default_KID", str(UUID(bytes=key.kid)))
    for box in key.pssh:
        system = ET.SubElement(adaptation, "ContentProtection", {"schemeIdUri": f"urn:uuid:{_system(box)}"})
        ET.SubElement(system, f"{{{_CENC}}}pssh").text = base64.b64encode(box).decode()


def _words(period: ET.Element, number: int, words: Words, longest: Fraction) -> None:
    lang = {"lang": words.language} if words.language else {}
    text = ET.SubElement(
        period, "AdaptationSet", {"id": str(number), "contentType": "text", "mimeType": "text/vtt"} | lang
    )
    ET.SubElement(text, "Role", {"schemeIdUri": "urn:mpeg:dash:role:2011", "value": "subtitle"})
    bandwidth = str(max(1, math.ceil(words.size_bytes * 8 / longest)))
    representation = ET.SubElement(text, "Representation", {"id": words.folder, "bandwidth": bandwidth})
    ET.SubElement(representation, "BaseURL").text = f"{words.folder}/{WORDS}"


def _sheets(period: ET.Element, number: int, sheets: Sheets) -> None:
    """DASH-IF IOP 4.3, 6.2.6: tiles of thumbnails."""
    images = ET.SubElement(
        period, "AdaptationSet", {"id": str(number), "contentType": "image", "mimeType": "image/jpeg"}
    )
    each = sheets.side * sheets.side * sheets.interval
    template = {"media": f"$RepresentationID$/{_SHEETS}", "duration": str(each), "startNumber": "1"}
    ET.SubElement(images, "SegmentTemplate", template)
    shape = {"width": str(sheets.width * sheets.side), "height": str(sheets.height * sheets.side)}
    bandwidth = str(max(1, math.ceil(sheets.size_bytes * 8 / (each * sheets.count))))
    representation = ET.SubElement(
        images, "Representation", {"id": sheets.folder, "bandwidth": bandwidth, "codecs": "jpeg"} | shape
    )
    tiles = {"schemeIdUri": "http://dashif.org/guidelines/thumbnail_tile", "value": f"{sheets.side}x{sheets.side}"}
    ET.SubElement(representation, "EssentialProperty", tiles)


def _by_codec(videos: tuple[Encoded, ...]) -> dict[str, tuple[Encoded, ...]]:
    families: dict[str, tuple[Encoded, ...]] = {}
    for video in videos:
        family = video.codecs.partition(".")[0]
        families[family] = (*families.get(family, ()), video)
    return families


def _clock(seconds: float) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


def _of(kind: Kind, renditions: tuple[Encoded, ...]) -> tuple[Encoded, ...]:
    return tuple(rendition for rendition in renditions if rendition.kind == kind)


def _iso(seconds: Fraction) -> str:
    return f"PT{float(seconds):.3f}S"
