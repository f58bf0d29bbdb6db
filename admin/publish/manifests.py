"""HLS (RFC 8216, version 7) and DASH (ISO/IEC 23009-1) over the same CMAF segments.

We write them ourselves, from what was measured in the segments: ffmpeg's manifests name an average as the bandwidth,
while players budget with the peak (RFC 8216, 4.3.4.2: "the peak segment bit rate").
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import Final
from urllib.parse import quote
from xml.etree import ElementTree as ET

from admin.publish.boxes import Timing
from admin.publish.renditions import AUDIO_CHANNELS, AUDIO_HERTZ
from wire.catalog import Kind

INIT: Final = "init.mp4"
PLAYLIST: Final = "index.m3u8"
HLS: Final = "master.m3u8"
DASH: Final = "manifest.mpd"

# SegmentTemplate's spelling and ours; five digits last 111 hours of 4 s segments.
_MEDIA: Final = "seg-$Number%05d$.m4s"
_AUDIO_GROUP: Final = "audio"
# Steering's own pathways are clones of this one (PATHWAY-ID's default in draft-pantos-content-steering). It is said
# all the same: players take a default in HLS, and none in DASH.
_PATHWAY: Final = "."


def segment_name(number: int) -> str:
    """The file name of a rendition's segment; the first is 1."""
    return f"seg-{number:05d}.m4s"


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


def hls_playlist(timings: tuple[Timing, ...]) -> str:
    """The media playlist of one rendition, beside its segments."""
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        # RFC 8216, 4.3.3.1: each EXTINF, rounded to the nearest integer, is at most this.
        f"#EXT-X-TARGETDURATION:{max(1, *(math.floor(t.seconds + Fraction(1, 2)) for t in timings))}",
        "#EXT-X-MEDIA-SEQUENCE:1",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{INIT}"',
    ]
    for number, timing in enumerate(timings, start=1):
        lines += [f"#EXTINF:{float(timing.seconds):.6f},", segment_name(number)]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def hls_master(renditions: tuple[Encoded, ...], steered: Steered | None = None) -> str:
    """The multivariant playlist: every video rendition, each with every audio rendition."""
    audios, videos = _of(Kind.AUDIO, renditions), _of(Kind.VIDEO, renditions)
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
    for video in videos:
        codecs = ",".join([video.codecs, *sorted({audio.codecs for audio in audios})])
        bandwidth = video.peak_bps + max((audio.peak_bps for audio in audios), default=0)
        average = video.average_bps + max((audio.average_bps for audio in audios), default=0)
        assert video.frame_rate is not None
        lines += [
            f"#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},AVERAGE-BANDWIDTH={average},"
            f'CODECS="{codecs}",RESOLUTION={video.width}x{video.height},FRAME-RATE={float(video.frame_rate):.3f},'
            + (f'AUDIO="{_AUDIO_GROUP}",' if audios else "")
            + (f'PATHWAY-ID="{_PATHWAY}",' if steered else "")
            + "CLOSED-CAPTIONS=NONE",
            f"{video.folder}/{PLAYLIST}",
        ]
    return "\n".join([*lines, ""])


def dash_manifest(renditions: tuple[Encoded, ...], steered: Steered | None = None) -> str:
    """The MPD: one adaptation set for video, one for each audio rendition."""
    longest = max(rendition.duration for rendition in renditions)
    segment = max(piece.timing.seconds for rendition in renditions for piece in rendition.pieces)
    mpd = ET.Element(
        "MPD",
        {
            "xmlns": "urn:mpeg:dash:schema:mpd:2011",
            "profiles": "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019",
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
    videos = _of(Kind.VIDEO, renditions)
    picture = _adaptation(period, 0, Kind.VIDEO, None)
    picture.set("maxWidth", str(max(video.width or 0 for video in videos)))
    picture.set("maxHeight", str(max(video.height or 0 for video in videos)))
    for video in videos:
        assert video.frame_rate is not None
        shape = {"width": str(video.width), "height": str(video.height), "sar": "1:1"}
        _representation(picture, video, shape | {"frameRate": str(video.frame_rate)})
    for place, audio in enumerate(_of(Kind.AUDIO, renditions), start=1):
        sound = _adaptation(period, place, Kind.AUDIO, audio.language)
        role = "main" if place == 1 else "alternate"
        ET.SubElement(sound, "Role", {"schemeIdUri": "urn:mpeg:dash:role:2011", "value": role})
        representation = _representation(sound, audio, {"audioSamplingRate": str(AUDIO_HERTZ)})
        channels = {
            "schemeIdUri": "urn:mpeg:dash:23003:3:audio_channel_configuration:2011",
            "value": str(AUDIO_CHANNELS),
        }
        # The schema wants it before SegmentTemplate.
        representation.insert(0, ET.Element("AudioChannelConfiguration", channels))
    ET.indent(mpd)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(mpd, encoding="unicode")}\n'


def _adaptation(period: ET.Element, number: int, kind: Kind, language: str | None) -> ET.Element:
    attributes = {"id": str(number), "contentType": str(kind), "segmentAlignment": "true", "startWithSAP": "1"}
    return ET.SubElement(period, "AdaptationSet", attributes | ({"lang": language} if language else {}))


def _representation(parent: ET.Element, rendition: Encoded, more: dict[str, str]) -> ET.Element:
    attributes = {
        "id": rendition.folder,
        "mimeType": f"{rendition.kind}/mp4",
        "codecs": rendition.codecs,
        "bandwidth": str(rendition.peak_bps),
    }
    representation = ET.SubElement(parent, "Representation", attributes | more)
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


def _of(kind: Kind, renditions: tuple[Encoded, ...]) -> tuple[Encoded, ...]:
    return tuple(rendition for rendition in renditions if rendition.kind == kind)


def _iso(seconds: Fraction) -> str:
    return f"PT{float(seconds):.3f}S"
