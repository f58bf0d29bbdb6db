"""What a player learns of a film from its HLS playlists (RFC 8216). Pure, and bounded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from admin.errors import AdminError

MOST_PLAYLIST_BYTES: Final = 4 * 1024 * 1024
_MOST_VARIANTS: Final = 64
_MOST_SEGMENTS: Final = 50_000
_ATTRIBUTE: Final = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)')
_DURATION: Final = re.compile(r"#EXTINF:([0-9.]{1,12})")
_RANGE: Final = re.compile(r"([0-9]{1,12})(?:@([0-9]{1,15}))?")


class FilmError(AdminError):
    """A playlist can't be used."""

    exit_code = 3


class Variant(Struct, frozen=True):
    """One rendition of the picture, as the multivariant playlist has it. Paths are relative to its folder."""

    playlist: str
    bandwidth_bps: int
    height: int | None
    audio: str | None
    """The playlist of its sound, where that is a rendition of its own."""


class Part(Struct, frozen=True):
    """A file, or a range of one. The path is relative to the film's folder."""

    path: str
    first: int = 0
    """The first byte of the range."""
    size_bytes: int | None = None
    """Of the range. None: the whole file is asked for."""

    @property
    def span(self) -> str | None:
        """As Range and CMCD's nrr have it."""
        return None if self.size_bytes is None else f"{self.first}-{self.first + self.size_bytes - 1}"


class Track(Struct, frozen=True):
    """One rendition's files, or ranges, in order."""

    init: Part | None
    segments: tuple[Part, ...]
    durations: tuple[float, ...]


def read_master(text: str) -> tuple[Variant, ...]:
    """The variants, the one of the lowest rate first. Raises `FilmError`."""
    lines = _lines(text)
    sounds: dict[str, str] = {}
    found = []
    for number, line in enumerate(lines):
        if line.startswith("#EXT-X-MEDIA:"):
            said = _attributes(line)
            if said.get("TYPE") == "AUDIO" and "URI" in said and said.get("GROUP-ID") not in sounds:
                sounds[said.get("GROUP-ID", "")] = _below(said["URI"])
        elif line.startswith("#EXT-X-STREAM-INF:"):
            said = _attributes(line)
            uri = next((each for each in lines[number + 1 :] if not each.startswith("#")), None)
            if uri is None or not said.get("BANDWIDTH", "").isdigit():
                raise FilmError("a variant of the playlist has no address or no BANDWIDTH")
            found.append((int(said["BANDWIDTH"]), _below(uri), said))
    if not 0 < len(found) <= _MOST_VARIANTS:
        raise FilmError(f"the playlist has {len(found)} variants; allowed: 1 to {_MOST_VARIANTS}")
    return tuple(
        Variant(uri, bps, _height(said), sounds.get(said.get("AUDIO", "\0")))
        for bps, uri, said in sorted(found, key=lambda each: each[:2])
    )


def read_track(text: str, playlist: str) -> Track:
    """The media playlist at this path. Raises `FilmError`."""
    lines = _lines(text)
    init = None
    segments: list[Part] = []
    durations: list[float] = []
    spoken: str | None = None
    for line in lines:
        if line.startswith("#EXT-X-MAP:"):
            said = _attributes(line)
            init = _part(playlist, said.get("URI", ""), said.get("BYTERANGE"), None)
        elif line.startswith("#EXT-X-BYTERANGE:"):
            spoken = line.partition(":")[2]
        elif line.startswith("#EXTINF:"):
            duration = _DURATION.match(line)
            if duration is None:
                raise FilmError(f"{playlist}: {line[:60]!r} says no duration")
            durations.append(float(duration[1]))
        elif not line.startswith("#"):
            segments.append(_part(playlist, line, spoken, segments[-1] if segments else None))
            spoken = None
    if not 0 < len(segments) <= _MOST_SEGMENTS or len(segments) != len(durations) or min(durations) <= 0:
        raise FilmError(f"{playlist}: has {len(segments)} segments and {len(durations)} durations")
    if "#EXT-X-ENDLIST" not in lines:
        raise FilmError(f"{playlist}: is a live stream; a crowd watches films")
    return Track(init, tuple(segments), tuple(durations))


def _part(playlist: str, uri: str, spoken: str | None, before: Part | None) -> Part:
    """A file that the playlist names, or the range of it that is spoken of: length, and first byte unless the range
    follows the one before (RFC 8216, 4.3.2.2).
    """
    path = _below(urljoin(playlist, uri))
    if spoken is None:
        return Part(path)
    said = _RANGE.fullmatch(spoken)
    if said is None or int(said[1]) == 0:
        raise FilmError(f"{playlist}: {spoken[:60]!r} is no range; allowed: length@first, or length")
    if said[2] is not None:
        return Part(path, int(said[2]), int(said[1]))
    if before is None or before.path != path or before.size_bytes is None:
        raise FilmError(f"{playlist}: the range {spoken[:60]!r} follows none of {path}")
    return Part(path, before.first + before.size_bytes, int(said[1]))


def _lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != "#EXTM3U":
        raise FilmError("this is no HLS playlist: it does not begin with #EXTM3U")
    return lines


def _attributes(line: str) -> Mapping[str, str]:
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(line.partition(":")[2])}


def _height(said: Mapping[str, str]) -> int | None:
    height = said.get("RESOLUTION", "").partition("x")[2]
    return int(height) if height.isdigit() else None


def _below(uri: str) -> str:
    """A path below the film's folder: it is asked for at one place and at another."""
    parts = urlsplit(uri)
    if parts.scheme or parts.netloc or uri.startswith("/") or ".." in parts.path.split("/") or not parts.path:
        raise FilmError(f"{uri[:80]!r} is not below the folder of the film's playlist")
    return parts.path
