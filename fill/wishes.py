"""What the operator wants whatever is predicted: a TOML file of pins, blocks and releases.

[[pin]]                     held, whatever it is asked for: first in every order
title = "nosferatu-1922"
renditions = ["1080p"]      names in the catalogue; all if it is not said
sites = ["lis"]             everywhere if it is not said
until = 2026-12-24          the last night of it; for ever if it is not said

[[block]]                   not filled, and given up where it is pledged; viewers still get it on demand
title = "withdrawn-soon"

[[release]]                 what is known of a title that nobody could see yet
title = "the-big-one"
strength = 5.0              against the usual release
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta, Struct

from fill.errors import SettingsError
from wire.catalog import TitleId
from wire.toml import Document, Mistake

_MOST_BYTES: Final = 16 * 1024 * 1024


class Pin(Struct, frozen=True, forbid_unknown_fields=True):
    title: TitleId
    renditions: tuple[str, ...] | None = None
    sites: tuple[str, ...] | None = None
    until: dt.date | None = None


class Block(Struct, frozen=True, forbid_unknown_fields=True):
    title: TitleId
    renditions: tuple[str, ...] | None = None
    sites: tuple[str, ...] | None = None
    until: dt.date | None = None


class Release(Struct, frozen=True, forbid_unknown_fields=True):
    title: TitleId
    strength: Annotated[float, Meta(gt=0, le=1000)] = 1.0


class Wishes(Struct, frozen=True, forbid_unknown_fields=True):
    pin: tuple[Pin, ...] = ()
    block: tuple[Block, ...] = ()
    release: tuple[Release, ...] = ()


def read_wishes(path: str | None) -> Wishes:
    """Nothing is wished without a file. Raises `SettingsError`, which names the line."""
    if path is None:
        return Wishes()
    try:
        with Path(path).open("rb") as file:
            body = file.read(_MOST_BYTES + 1)
        text = body.decode()
    except OSError as error:
        raise SettingsError(f"wishes: {path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"wishes: {path}: is not UTF-8 text") from error
    if len(body) > _MOST_BYTES:
        raise SettingsError(f"wishes: {path}: more than {_MOST_BYTES} bytes")
    try:
        return Document(text, path).read(Wishes)
    except Mistake as error:
        raise SettingsError(f"wishes: {error}") from error
