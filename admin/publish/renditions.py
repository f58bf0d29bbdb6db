"""Which renditions a source is encoded into.

A step of the ladder is a box of 16:9 (upright for an upright film); a rendition is the film scaled to fit it. Nothing
is ever enlarged: the first step that the film does not fill, or hardly overfills, ends the ladder.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Final

from admin.publish.source import Source, Subtitles, Track
from wire.catalog import Kind

#: Box height to peak bits per second of H.264. Capped quality (CRF) is used, so plain scenes stay far below.
PEAK_BPS: Final = {
    144: 200_000,
    240: 400_000,
    360: 900_000,
    480: 1_600_000,
    720: 3_200_000,
    1080: 6_000_000,
    1440: 10_000_000,
    2160: 18_000_000,
}
HEIGHTS: Final = (240, 360, 480, 720, 1080)
AUDIO_BPS: Final = 128_000
AUDIO_HERTZ: Final = 48_000
AUDIO_CHANNELS: Final = 2

# Bits grow slower than pixels: about their 3/4th power at equal quality (the ratios of PEAK_BPS follow it).
_BITS_PER_PIXELS: Final = 0.75
_MIN_BPS: Final = 64_000

_THUMBNAIL_BOX: Final = 90
_SELDOMEST: Final = 10
"""Seconds between two thumbnails of a film of ten minutes and more; shorter ones have about sixty."""


class Codec(StrEnum):
    """How pictures are encoded. H.264 is always made: every device plays it."""

    H264 = "h264"
    HEVC = "hevc"
    VP9 = "vp9"
    AV1 = "av1"


class Packaging(StrEnum):
    """How a rendition's segments lie at the origin."""

    SEGMENTS = "segments"
    """Each in a file of its own."""
    SINGLE_FILE = "single-file"
    """All in one, of which players ask for ranges: stores and caches have few objects to list, check and keep."""


#: ffmpeg's encoder of each.
ENCODERS: Final = {Codec.H264: "libx264", Codec.HEVC: "libx265", Codec.VP9: "libvpx-vp9", Codec.AV1: "libsvtav1"}
#: Of the bits that H.264 needs, for about the same picture (De Cock et al. 2016, "A large-scale video codec comparison
#: of x264, x265 and libvpx for practical VOD applications"; for AV1, with SVT-AV1's quick presets, cautiously).
_SHARE_OF_BITS: Final = {Codec.H264: 1.0, Codec.HEVC: 0.65, Codec.VP9: 0.7, Codec.AV1: 0.55}


@dataclass(frozen=True)
class VideoPlan:
    """One video rendition to make."""

    name: str
    width: int
    height: int
    peak_bps: int
    codec: Codec = Codec.H264
    kind = Kind.VIDEO


@dataclass(frozen=True)
class AudioPlan:
    """One audio rendition to make, from one track of the source, or of another `file`."""

    name: str
    track: Track
    file: Path | None = None
    kind = Kind.AUDIO


@dataclass(frozen=True)
class TextPlan:
    """Subtitles in one language, from one track of the source, or of another `file`."""

    name: str
    track: Subtitles
    file: Path | None = None
    kind = Kind.TEXT


@dataclass(frozen=True)
class ImagePlan:
    """Thumbnails: one each `interval` seconds, `width` by `height`, SHEET_SIDE times SHEET_SIDE to a picture."""

    name: str
    width: int
    height: int
    interval: int
    kind = Kind.IMAGE


SHEET_SIDE: Final = 10

Plan = VideoPlan | AudioPlan | TextPlan | ImagePlan


@dataclass(frozen=True)
class Aside:
    """A file beside the film that carries a language: a dubbing or subtitles."""

    language: str
    path: Path


@dataclass(frozen=True)
class Wanted:
    """What the operator wants of a film, as far as the film has it."""

    heights: tuple[int, ...]
    codecs: tuple[Codec, ...] = (Codec.H264,)
    audio: tuple[Aside, ...] = ()
    subtitles: tuple[Aside, ...] = ()
    has_thumbnails: bool = False


def planned(source: Source, wanted: Wanted) -> tuple[Plan, ...]:
    """Every rendition to make, cheapest first: a damaged file is found out before the dear ones are begun."""
    ladder = video_plans(source, wanted.heights)
    return (
        *text_plans(source, wanted.subtitles),
        *audio_plans(source, wanted.audio),
        *ladder,
        *(image_plans(source) if wanted.has_thumbnails else ()),
        *chain.from_iterable(in_codec(ladder, codec) for codec in wanted.codecs if codec != Codec.H264),
    )


def video_plans(source: Source, heights: tuple[int, ...]) -> tuple[VideoPlan, ...]:
    """The video renditions in H.264, smallest first; at least one."""
    own = _box_height(source)
    plans: list[VideoPlan] = []
    for height in sorted(heights):
        plans.append(_plan(source, min(height, own), height))
        # A further step less than a ninth larger would cost an encode and show no difference.
        if height * 10 >= own * 9:
            break
    return tuple(plans)


def in_codec(ladder: Iterable[VideoPlan], codec: Codec) -> tuple[VideoPlan, ...]:
    """The same ladder in another codec, with as many bits less as it needs less."""
    return tuple(
        replace(
            plan,
            name=f"{plan.name}-{codec}",
            peak_bps=max(_MIN_BPS, round(plan.peak_bps * _SHARE_OF_BITS[codec])),
            codec=codec,
        )
        for plan in ladder
    )


def audio_plans(source: Source, asides: tuple[Aside, ...] = ()) -> tuple[AudioPlan, ...]:
    """One audio rendition for each audio track, in the order of the source, then for each file beside it."""
    found: list[tuple[Track, Path | None]] = [(track, None) for track in source.tracks]
    found += [(Track(0, aside.language), aside.path) for aside in asides]
    return tuple(AudioPlan(name, *each) for name, each in zip(_numbered("audio", len(found)), found, strict=True))


def text_plans(source: Source, asides: tuple[Aside, ...] = ()) -> tuple[TextPlan, ...]:
    """The same of subtitles that are words; those that are pictures are left out."""
    found: list[tuple[Subtitles, Path | None]] = [(track, None) for track in source.subtitles if track.are_words]
    found += [(Subtitles(0, aside.language, are_words=True), aside.path) for aside in asides]
    return tuple(TextPlan(name, *each) for name, each in zip(_numbered("subtitles", len(found)), found, strict=True))


def image_plans(source: Source) -> tuple[ImagePlan, ...]:
    """Thumbnails, for the bar in which viewers seek."""
    own = _box_height(source)
    box = min(_THUMBNAIL_BOX, own)
    interval = _SELDOMEST if source.duration is None else min(_SELDOMEST, max(1, round(source.duration / 60)))
    return (ImagePlan("thumbnails", _even(source.width * box, own), _even(source.height * box, own), interval),)


def _numbered(name: str, count: int) -> Iterable[str]:
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]


def _plan(source: Source, box: int, step: int) -> VideoPlan:
    own = _box_height(source)
    width, height = _even(source.width * box, own), _even(source.height * box, own)
    fullness = (box / step) ** (2 * _BITS_PER_PIXELS)
    return VideoPlan(f"{box}p", width, height, max(_MIN_BPS, round(PEAK_BPS[step] * fullness)))


def _box_height(source: Source) -> int:
    """The height of the 16:9 box that the film fills: 1080 for 1920x800 as for 1440x1080 and for 1080x1920."""
    across, down = max(source.width, source.height), min(source.width, source.height)
    return max(down, across * 9 // 16)


def _even(length: int, divisor: int) -> int:
    # 4:2:0 pictures have even sides; rounding down never enlarges, except a side of one pixel.
    return max(2, length // divisor // 2 * 2)
