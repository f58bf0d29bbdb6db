"""The key file: what films are encrypted with. Keys never leave it but for the licence server's hands."""

import base64
import binascii
import os
import secrets
import stat
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from admin.errors import UsageError
from wire.catalog import Kind

_SHAPE: Final = (
    '{"scheme": "cenc" or "cbcs", "video": {"kid": 32 hex digits, "key": 32 hex digits}, "audio": the same or left out,'
    ' "pssh": [base64, ...] or left out}'
)
_MOST_BYTES: Final = 1 << 20
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Scheme(StrEnum):
    """Of Common Encryption (ISO/IEC 23001-7, 10)."""

    CENC = "cenc"
    """AES-CTR over all of a sample: what Widevine and PlayReady always knew."""
    CBCS = "cbcs"
    """AES-CBC over one block of ten: what FairPlay needs, and the others have learned."""


@dataclass(frozen=True)
class TrackKey:
    """What one rendition is encrypted with. `pssh` are whole boxes of DRM systems, put through as they are."""

    scheme: Scheme
    kid: bytes
    key: bytes = field(repr=False)
    pssh: tuple[bytes, ...] = ()


_Hex = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{32}$")]


class _Pair(Struct, frozen=True, forbid_unknown_fields=True):
    kid: _Hex
    key: _Hex


class _File(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    scheme: Scheme
    video: _Pair
    audio: _Pair | None = None
    pssh: tuple[Annotated[str, Meta(max_length=65536)], ...] = ()


@dataclass(frozen=True)
class Keys:
    """A key for pictures and one for sound; they may be the same."""

    video: TrackKey
    audio: TrackKey

    @property
    def scheme(self) -> Scheme:
        return self.video.scheme

    def of(self, kind: Kind) -> TrackKey | None:
        """The key of renditions of this kind; None for those that stay in the clear (subtitles, thumbnails)."""
        return {Kind.VIDEO: self.video, Kind.AUDIO: self.audio}.get(kind)


def read_keys(path: Path) -> Keys:
    """The keys in this file. Raises UsageError naming what is wrong, and never a key."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            body = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error})") from error
    if mode & _OTHERS:
        raise UsageError(f"{path}: others may read it; allowed: a key file that is only yours (chmod 600 {path})")
    if len(body) > _MOST_BYTES:
        raise UsageError(f"{path}: larger than a key file can be; allowed: {_SHAPE}")
    try:
        said = msgspec.json.decode(body, type=_File)
    except msgspec.DecodeError as error:
        raise UsageError(f"{path}: {error}; allowed: {_SHAPE}") from error
    pssh = tuple(_pssh(path, text) for text in said.pssh)
    video = _track_key(said.scheme, said.video, pssh)
    audio = _track_key(said.scheme, said.audio or said.video, pssh)
    if video.kid == audio.kid and video.key != audio.key:
        raise UsageError(f"{path}: video and audio have one kid and two keys; a kid names one key")
    return Keys(video, audio)


def write_new_keys(path: Path, scheme: Scheme) -> Keys:
    """Make keys of chance and write them to a file of this name, which must not exist yet. Raises UsageError."""
    video, audio = (_Pair(secrets.token_hex(16), secrets.token_hex(16)) for _ in range(2))
    body = msgspec.json.format(msgspec.json.encode(_File(scheme, video, audio)), indent=2) + b"\n"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise UsageError(f"{path}: is there already; keys are never overwritten, films may need them") from error
    except OSError as error:
        raise UsageError(f"{path}: can't be written ({error.strerror})") from error
    return read_keys(path)


def _track_key(scheme: Scheme, pair: _Pair, pssh: tuple[bytes, ...]) -> TrackKey:
    return TrackKey(scheme, bytes.fromhex(pair.kid), bytes.fromhex(pair.key), pssh)


def _pssh(path: Path, text: str) -> bytes:
    try:
        box = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise UsageError(f"{path}: a pssh is no base64 ({error})") from error
    # 23001-7, 8.1.1: size, "pssh", version and flags, system id, ..., size of data.
    if len(box) < 32 or struct.unpack_from(">I4s", box) != (len(box), b"pssh"):
        raise UsageError(f"{path}: a pssh is no whole box of a DRM system's (ISO/IEC 23001-7, 8.1)")
    return box
