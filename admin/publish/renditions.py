"""Which renditions a source is encoded into.

A step of the ladder is a box of 16:9 (upright for an upright film); a rendition is the film scaled to fit it. Nothing
is ever enlarged: the first step that the film does not fill, or hardly overfills, ends the ladder.
"""

from dataclasses import dataclass
from typing import Final

from admin.publish.source import Source, Track
from wire.catalog import Kind

#: Box height to peak bits per second. Capped quality (CRF) is used, so plain scenes stay far below.
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


@dataclass(frozen=True)
class VideoPlan:
    """One video rendition to make."""

    name: str
    width: int
    height: int
    peak_bps: int
    kind = Kind.VIDEO


@dataclass(frozen=True)
class AudioPlan:
    """One audio rendition to make, from one track of the source."""

    name: str
    track: Track
    kind = Kind.AUDIO


Plan = VideoPlan | AudioPlan


def planned(source: Source, heights: tuple[int, ...]) -> tuple[Plan, ...]:
    """Every rendition to make, cheapest first: a damaged file is found out before the dear ones are begun."""
    return (*audio_plans(source), *video_plans(source, heights))


def video_plans(source: Source, heights: tuple[int, ...]) -> tuple[VideoPlan, ...]:
    """The video renditions, smallest first; at least one."""
    own = _box_height(source)
    plans: list[VideoPlan] = []
    for height in sorted(heights):
        plans.append(_plan(source, min(height, own), height))
        # A further step less than a ninth larger would cost an encode and show no difference.
        if height * 10 >= own * 9:
            break
    return tuple(plans)


def audio_plans(source: Source) -> tuple[AudioPlan, ...]:
    """One audio rendition for each audio track, in the order of the source."""
    if len(source.tracks) == 1:
        return (AudioPlan("audio", source.tracks[0]),)
    return tuple(AudioPlan(f"audio-{track.index + 1}", track) for track in source.tracks)


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
