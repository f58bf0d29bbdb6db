"""What a video file is, read from what ffmpeg says about it.

The size, shape and rate come from the first *decoded* frame (ffmpeg's showinfo filter), not from the container's
headers: rotation is applied there, and a file whose first frame can't be decoded is found out before any work is done.
The package imageio-ffmpeg carries no ffprobe, so the text is what there is.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

#: Containers that carry films. Others are refused: ffmpeg would also read a playlist that names other files and
#: hosts, a still picture, or a text file (as ANSI art).
FORMATS: Final = {
    "MP4/MOV": "mov,mp4,m4a,3gp,3g2,mj2",
    "Matroska/WebM": "matroska,webm",
    "MPEG-TS": "mpegts",
    "MPEG-PS": "mpeg",
    "AVI": "avi",
    "MXF": "mxf",
    "FLV": "flv",
    "Ogg": "ogg",
    "ASF/WMV": "asf",
    "Y4M": "yuv4mpegpipe",
    "NUT": "nut",
}

#: Players and screens gain nothing above this; a source's rate is divided until it fits.
MAX_RATE: Final = 60
_MIN_RATE: Final = Fraction(1)
_DEFAULT_RATE: Final = Fraction(30)

_DURATION: Final = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", re.MULTILINE)
# The stream's language stands in brackets after its number, its id (if the container has ids) between them.
_STREAM: Final = re.compile(
    r"^  Stream #0:(\d+)(?:\[0x[0-9a-f]+\])?(?:\(([^)]*)\))?: (Video|Audio|Subtitle|Data|Attachment)(?:: (\w+))?",
    re.MULTILINE,
)
_CONTAINER: Final = re.compile(r"^Input #0, (.+?), from '", re.MULTILINE)
_FRAME: Final = re.compile(r"^\[Parsed_showinfo_\d+ @ \S+\] n: *0 .*? sar:(\d+)/(\d+) s:(\d+)x(\d+) ", re.MULTILINE)
_RATE: Final = re.compile(r"^\[Parsed_showinfo_\d+ @ \S+\] config in .*frame_rate: (\d+)/(\d+)", re.MULTILINE)
_AVERAGE_RATE: Final = re.compile(r"^  Stream #0:\d+.*: Video: .*?, ([\d.]+) fps", re.MULTILINE)
_ESTIMATED: Final = "Estimating duration from bitrate"
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
# ISO 639-2 codes for "we do not know", "no speech", "several".
_NO_LANGUAGE: Final = {"und", "zxx", "mis", "mul"}
LANGUAGE_RULE: Final = "a language tag such as de, deu or pt-BR"
# Subtitles that are words; others are pictures of words (Blu-ray, DVD, DVB), which only a reader can turn into words.
_WORDS: Final = {"ass", "mov_text", "srt", "ssa", "subrip", "text", "webvtt"}
# Containers with an index of their pictures. In others ffmpeg seeks by guessing, and lands behind what was asked for.
_INDEXED: Final = {FORMATS["MP4/MOV"], FORMATS["Matroska/WebM"]}


@dataclass(frozen=True)
class Track:
    """One audio track. `index` is its place among the audio tracks; `language` as the file says it, or None."""

    index: int
    language: str | None


@dataclass(frozen=True)
class Subtitles:
    """One track of subtitles, as `Track`. `are_words`: they are text, not pictures of it."""

    index: int
    language: str | None
    are_words: bool


@dataclass(frozen=True)
class Source:
    """A film as a viewer would see it: rotated upright, square pixels, constant frame rate.

    `duration` is in seconds, None when the container does not say it or ffmpeg only guessed it. `has_index`: ffmpeg
    finds any moment of it exactly.
    """

    width: int
    height: int
    rate: Fraction
    duration: float | None
    tracks: tuple[Track, ...]
    subtitles: tuple[Subtitles, ...] = ()
    has_index: bool = False


def is_language(text: str) -> bool:
    """Whether it is spelled as a language tag is (BCP 47, as far as films need it)."""
    return _LANGUAGE.fullmatch(text) is not None


def read_source(banner: str) -> Source | None:
    """The source ffmpeg described on stderr; None when it decoded no frame."""
    frame = _FRAME.search(banner)
    if frame is None:
        return None
    sar_across, sar_down, width, height = map(int, frame.groups())
    aspect = Fraction(sar_across, sar_down) if sar_across and sar_down else Fraction(1)
    streams = _input_streams(banner)
    languages = [language for _, language, kind, _ in streams if kind == "Audio"]
    subtitles = [(language, codec) for _, language, kind, codec in streams if kind == "Subtitle"]
    container = _CONTAINER.search(banner)
    return Source(
        width=max(1, round(width * aspect)),
        height=height,
        rate=_frame_rate(banner),
        duration=_duration(banner),
        tracks=tuple(Track(index, _language(text)) for index, text in enumerate(languages)),
        subtitles=tuple(
            Subtitles(index, _language(text), are_words=codec in _WORDS)
            for index, (text, codec) in enumerate(subtitles)
        ),
        has_index=container is not None and container[1] in _INDEXED,
    )


def has_video(banner: str) -> bool:
    """Whether the file has a moving picture; cover art of a song is none."""
    lines = banner.partition("Output #0")[0].splitlines()
    return any(_STREAM.match(line) and ": Video:" in line and "(attached pic)" not in line for line in lines)


def constant_rate(nominal: Fraction, average: Fraction | None) -> Fraction:
    """The constant frame rate to encode at, for a source with this nominal rate and this average one, if known.

    Films shot with a varying rate often name their clock (1000/s, 90000/s) as nominal: then the average is nearer.
    """
    rate = nominal if _MIN_RATE <= nominal <= 4 * MAX_RATE else average
    if rate is None or rate < _MIN_RATE:
        return _DEFAULT_RATE
    # 120 becomes 60 and 119.88 becomes 59.94: whole divisors drop frames evenly.
    return rate / -(-rate // MAX_RATE)


def _input_streams(banner: str) -> list[tuple[str, str, str, str]]:
    return _STREAM.findall(banner.partition("Stream mapping:")[0])


def _language(text: str) -> str | None:
    # What the file says goes into manifests: anything that is no language tag is dropped here.
    return text if _LANGUAGE.fullmatch(text) and text not in _NO_LANGUAGE else None


def _frame_rate(banner: str) -> Fraction:
    nominal = _RATE.search(banner)
    average = _AVERAGE_RATE.search(banner)
    return constant_rate(
        Fraction(int(nominal[1]), int(nominal[2])) if nominal and int(nominal[2]) else Fraction(0),
        Fraction(average[1]).limit_denominator(1001) if average else None,
    )


def _duration(banner: str) -> float | None:
    found = _DURATION.search(banner)
    if found is None or _ESTIMATED in banner:
        return None
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds) or None
