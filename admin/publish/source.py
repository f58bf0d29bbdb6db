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
    r"^  Stream #0:(\d+)(?:\[0x[0-9a-f]+\])?(?:\(([^)]*)\))?: (Video|Audio|Subtitle|Data|Attachment)", re.MULTILINE
)
_FRAME: Final = re.compile(r"^\[Parsed_showinfo_\d+ @ \S+\] n: *0 .*? sar:(\d+)/(\d+) s:(\d+)x(\d+) ", re.MULTILINE)
_RATE: Final = re.compile(r"^\[Parsed_showinfo_\d+ @ \S+\] config in .*frame_rate: (\d+)/(\d+)", re.MULTILINE)
_AVERAGE_RATE: Final = re.compile(r"^  Stream #0:\d+.*: Video: .*?, ([\d.]+) fps", re.MULTILINE)
_ESTIMATED: Final = "Estimating duration from bitrate"
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
# ISO 639-2 codes for "we do not know", "no speech", "several".
_NO_LANGUAGE: Final = {"und", "zxx", "mis", "mul"}


@dataclass(frozen=True)
class Track:
    """One audio track. `index` is its place among the audio tracks; `language` as the file says it, or None."""

    index: int
    language: str | None


@dataclass(frozen=True)
class Source:
    """A film as a viewer would see it: rotated upright, square pixels, constant frame rate.

    `duration` is in seconds, None when the container does not say it or ffmpeg only guessed it.
    """

    width: int
    height: int
    rate: Fraction
    duration: float | None
    tracks: tuple[Track, ...]


def read_source(banner: str) -> Source | None:
    """The source ffmpeg described on stderr; None when it decoded no frame."""
    frame = _FRAME.search(banner)
    if frame is None:
        return None
    sar_across, sar_down, width, height = map(int, frame.groups())
    aspect = Fraction(sar_across, sar_down) if sar_across and sar_down else Fraction(1)
    streams = [(kind, language) for _, language, kind in _input_streams(banner)]
    languages = [language for kind, language in streams if kind == "Audio"]
    return Source(
        width=max(1, round(width * aspect)),
        height=height,
        rate=_frame_rate(banner),
        duration=_duration(banner),
        tracks=tuple(Track(index, _language(text)) for index, text in enumerate(languages)),
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


def _input_streams(banner: str) -> list[tuple[str, str, str]]:
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
