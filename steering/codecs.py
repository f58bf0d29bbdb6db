"""What a device says it can play, against what there is. Pure.

A device names codecs as RFC 6381 spells them, each either a family (`avc1`, `hvc1`, `mp4a`) or the most of it that it
can do (`avc1.640028`: High profile up to level 4.0). What is written differently for the same decoder is one family.

| family | written as | compared |
|---|---|---|
| H.264 | avc1, avc3 | profile, then level (ISO/IEC 14496-15 annex E) |
| HEVC | hvc1, hev1 | profile, tier, level (the same) |
| VP9 | vp09 | profile, level, bit depth (VP Codec ISO Media File Format Binding) |
| AV1 | av01 | profile, level, tier, bit depth (AV1 Codec ISO Media File Format Binding, section 5) |
| others | mp4a.40.2, opus, wvtt | the same text, or the family |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

MOST_NAMED: Final = 32
"""Codecs that a device may name."""

Needs = tuple[int, ...]
"""What a stream asks of a decoder. Each number of a decoder that can do it is as large or larger."""

_NAME: Final = re.compile(r"[A-Za-z0-9]{4}(\.[A-Za-z0-9.]{1,60})?\Z")
_FAMILIES: Final = {"avc1": "h264", "avc3": "h264", "hvc1": "hevc", "hev1": "hevc", "vp09": "vp9", "av01": "av1"}
_H264_PROFILES: Final = {0x42: 1, 0x4D: 2, 0x58: 2, 0x64: 3, 0x6E: 4, 0x7A: 5, 0xF4: 6}
"""Baseline, Main and Extended, High, High 10, High 4:2:2, High 4:4:4: who decodes one decodes those before it."""


def is_codec(text: str) -> bool:
    """Whether it is spelled as a codec is: a family, or a family and its parameters."""
    return _NAME.match(text) is not None


def can_play(needed: str, able: Iterable[str]) -> bool:
    """Whether a device that names `able` plays the stream with these `codecs`. A device that names none plays all."""
    named = tuple(able)
    return not named or any(_covers(one, needed) for one in named)


def _covers(able: str, needed: str) -> bool:
    if able.lower() == needed.lower():
        return True
    family, limits = _family(able), able.partition(".")[2]
    if family != _family(needed):
        return False
    if not limits:
        return True
    read = _READERS.get(family)
    most = None if read is None else read(limits)
    asked = None if read is None else read(needed.partition(".")[2])
    if most is None or asked is None:
        return False
    return len(most) == len(asked) and all(one >= other for one, other in zip(most, asked, strict=True))


def _family(codec: str) -> str:
    entry = codec.partition(".")[0].lower()
    return _FAMILIES.get(entry, entry)


def _h264(said: str) -> Needs | None:
    """PPCCLL, hexadecimal."""
    if not re.fullmatch(r"[0-9a-fA-F]{6}", said):
        return None
    profile = _H264_PROFILES.get(int(said[:2], 16))
    return None if profile is None else (profile, int(said[4:], 16))


def _hevc(said: str) -> Needs | None:
    """Profile, compatibility, tier and level, constraints: 1.6.L120.90. Who decodes Main 10 (2) decodes Main (1)."""
    found = re.fullmatch(r"([12])\.[0-9a-fA-F]{1,8}\.([LH])([0-9]{1,3})(\.[0-9a-fA-F.]+)?", said)
    return None if found is None else (int(found[1]), "LH".index(found[2]), int(found[3]))


def _vp9(said: str) -> Needs | None:
    """PP.LL.DD and colours that ask nothing of a decoder."""
    found = re.fullmatch(r"([0-3]{2})\.([0-9]{2})\.(08|10|12)(\.[0-9.]+)?", said)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def _av1(said: str) -> Needs | None:
    """P.LLT.DD and colours."""
    found = re.fullmatch(r"([0-2])\.([0-9]{2})([MH])\.(08|10|12)(\.[0-9.]+)?", said)
    return None if found is None else (int(found[1]), int(found[2]), "MH".index(found[3]), int(found[4]))


_READERS: Final[dict[str, Callable[[str], Needs | None]]] = {"h264": _h264, "hevc": _hevc, "vp9": _vp9, "av1": _av1}
