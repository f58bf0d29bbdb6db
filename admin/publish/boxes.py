"""What our encoder wrote, read back from the bytes (ISO/IEC 14496-12): durations are measured, never assumed."""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final


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


def fragment_of(segment: bytes) -> bytes:
    """The segment without what stands before its fragment (`moof` and `mdat`), as it lies in a file with others."""
    for at, kind in _heads(segment):
        if kind == b"moof":
            return segment[at:]
    raise BoxError("no moof box")


def file_index(timings: Sequence[Timing], sizes: Sequence[int]) -> bytes:
    """The `sidx` (8.16.3) of a file in which fragments of these sizes follow it, without a gap. Raises BoxError."""
    start, timescale = timings[0].start, timings[0].timescale
    try:
        # Version 1; of the track 1, which is the only one ffmpeg numbers.
        head = struct.pack(">IIIQQHH", 1 << 24, 1, timescale, start, 0, 0, len(timings))
        rows = [
            # SAP type 1: every picture that is shown later is decoded later.
            struct.pack(">III", size, timing.duration, 0x9000_0000 if timing.starts_clean else 0)
            for timing, size in zip(timings, sizes, strict=True)
        ]
    except struct.error as error:
        raise BoxError(f"{len(timings)} segments can't be in one index: {error}") from error
    content = head + b"".join(rows)
    return struct.pack(">I4s", 8 + len(content), b"sidx") + content


def retimed(segment: bytes, ticks: int, fragments: int) -> bytes:
    """The segment, shown so many ticks of its timescale later, as if so many fragments were before it. Raises BoxError.

    Of a size that does not change: `sidx`'s earliest time, `mfhd`'s number and `tfdt`'s time (8.16.3, 8.8.5, 8.8.12).
    """
    moved = bytearray(segment)
    try:
        sidx, mfhd = _place(segment, (b"sidx",)), _place(segment, (b"moof", b"mfhd"))
        tfdt = _place(segment, (b"moof", b"traf", b"tfdt"))
        _add(moved, sidx + 12, ticks, is_wide=segment[sidx] == 1)
        _add(moved, mfhd + 4, fragments, is_wide=False)
        _add(moved, tfdt + 4, ticks, is_wide=segment[tfdt] == 1)
    except (struct.error, IndexError) as error:
        raise BoxError(f"a segment that can't be moved: {error}") from error
    return bytes(moved)


def _add(body: bytearray, at: int, number: int, *, is_wide: bool) -> None:
    form = ">Q" if is_wide else ">I"
    struct.pack_into(form, body, at, struct.unpack_from(form, body, at)[0] + number)


def _place(body: bytes, path: tuple[bytes, ...]) -> int:
    """Where the content of this box begins."""
    at, end = 0, len(body)
    for kind in path:
        while True:
            if end - at < 8:
                raise BoxError(f"no {kind.decode()} box")
            size, found = struct.unpack_from(">I4s", body, at)
            if size < 8 or at + size > end:
                raise BoxError(f"a box of {size} bytes where {end - at} are left")
            if found == kind:
                at, end = at + 8, at + size
                break
            at += size
    return at


def video_codec(init: bytes) -> str:
    """The RFC 6381 name of the video stream that this initialisation segment opens, such as avc1.640015.

    ISO/IEC 14496-15 annex E for H.264 and HEVC; the bindings of VP9 and AV1 to ISO media files, of each the short form.
    """
    moov = _only(init, b"moov")
    for kind, read in _CONFIGURATIONS.items():
        at = moov.find(kind)
        if at >= 0:
            try:
                return read(moov[at + 4 :])
            except (struct.error, IndexError, UnicodeDecodeError) as error:
                raise BoxError(f"damaged {kind.decode()}: {error}") from error
    raise BoxError("no configuration of H.264, HEVC, VP9 or AV1 in the initialisation segment")


def _h264(record: bytes) -> str:
    _, profile, constraints, level = struct.unpack_from(">4B", record)
    return f"avc1.{profile:02x}{constraints:02x}{level:02x}"


def _hevc(record: bytes) -> str:
    _, head, compatibility, constraints, level = struct.unpack_from(">BBI6sB", record)
    space, tier, profile = ("", "A", "B", "C")[head >> 6], "LH"[head >> 5 & 1], head & 31
    # Reversed: the flag of profile 0 is the lowest bit.
    flags = int(f"{compatibility:032b}"[::-1], 2)
    trailing = constraints.rstrip(b"\0")
    return ".".join([f"hvc1.{space}{profile}", f"{flags:X}", f"{tier}{level}", *(f"{byte:X}" for byte in trailing)])


def _vp9(record: bytes) -> str:
    _, profile, level, depth = struct.unpack_from(">I3B", record)
    return f"vp09.{profile:02}.{level:02}.{depth >> 4:02}"


def _av1(record: bytes) -> str:
    _, profile, tier = struct.unpack_from(">3B", record)
    depth = (12 if tier & 0x20 else 10) if tier & 0x40 else 8
    return f"av01.{profile >> 5}.{profile & 31:02}{'H' if tier >> 7 else 'M'}.{depth:02}"


_CONFIGURATIONS: Final[dict[bytes, Callable[[bytes], str]]] = {
    b"avcC": _h264,
    b"hvcC": _hevc,
    b"vpcC": _vp9,
    b"av1C": _av1,
}


def _only(body: bytes, kind: bytes) -> bytes:
    for found, content in _boxes(body):
        if found == kind:
            return content
    raise BoxError(f"no {kind.decode()} box")


def _boxes(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    for at, kind in _heads(body):
        (size,) = struct.unpack_from(">I", body, at)
        yield kind, body[at + 8 : at + size]


def _heads(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Where each box begins, and its kind."""
    at = 0
    while at < len(body):
        if len(body) - at < 8:
            raise BoxError("bytes after the last box")
        size, kind = struct.unpack_from(">I4s", body, at)
        if size < 8 or at + size > len(body):
            raise BoxError(f"a box of {size} bytes where {len(body) - at} are left")
        yield at, kind
        at += size
