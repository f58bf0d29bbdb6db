"""What our encoder wrote, read back from the bytes (ISO/IEC 14496-12): durations are measured, never assumed."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


class BoxError(ValueError):
    """The file is not the fragmented MP4 we asked for."""


@dataclass(frozen=True)
class Timing:
    """When one segment is shown, in ticks of `timescale` per second. `starts_clean`: it begins with a keyframe."""

    start: int
    duration: int
    timescale: int
    starts_clean: bool

    @property
    def seconds(self) -> Fraction:
        return Fraction(self.duration, self.timescale)


def segment_timing(segment: bytes) -> Timing:
    """The timing that the segment's index (`sidx`, 8.16.3) gives. Raises BoxError."""
    body = _only(segment, b"sidx")
    try:
        wide = body[0] == 1
        _, timescale = struct.unpack_from(">II", body, 4)
        start, _ = struct.unpack_from(">QQ" if wide else ">II", body, 12)
        count, _, duration, access = struct.unpack_from(">HIII", body, 30 if wide else 22)
    except (struct.error, IndexError) as error:
        raise BoxError(f"damaged sidx: {error}") from error
    if count != 1 or timescale == 0:
        raise BoxError(f"a segment of {count} fragments and timescale {timescale}; we write one fragment each")
    return Timing(start, duration, timescale, starts_clean=bool(access >> 31))


def video_codec(init: bytes) -> str:
    """The RFC 6381 name of the H.264 stream that this initialisation segment opens, such as avc1.640015."""
    at = _only(init, b"moov").find(b"avcC")
    # version, then profile, constraint flags and level (ISO/IEC 14496-15, 5.3.3.1)
    profile = _only(init, b"moov")[at + 5 : at + 8]
    if at < 0 or len(profile) < 3:
        raise BoxError("no H.264 configuration in the initialisation segment")
    return f"avc1.{profile.hex()}"


def _only(body: bytes, kind: bytes) -> bytes:
    for found, content in _boxes(body):
        if found == kind:
            return content
    raise BoxError(f"no {kind.decode()} box")


def _boxes(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(body):
        if len(body) - at < 8:
            raise BoxError("bytes after the last box")
        size, kind = struct.unpack_from(">I4s", body, at)
        if size < 8 or at + size > len(body):
            raise BoxError(f"a box of {size} bytes where {len(body) - at} are left")
        yield kind, body[at + 8 : at + size]
        at += size
