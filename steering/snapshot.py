"""The view of the fleet on disk, so that a restarted steering has one at once.

Holdings are left out: appliances send them again within seconds, and they are a hundred times as large as all else.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from steering.fleet import MemberState
from steering.week import Week

log = logging.getLogger(__name__)

_MOST_BYTES: Final = 256 * 1024 * 1024
_FORMAT: Final = 1


class View(Struct, frozen=True):
    format: int
    saved_at: float
    members: tuple[MemberState, ...]


async def save(path: Path, members: tuple[MemberState, ...], now: float) -> None:
    """Whole or not at all. A disk that can't is logged: the view in memory goes on."""
    try:
        await asyncio.to_thread(_write, path, msgspec.msgpack.encode(View(_FORMAT, now, members)))
    except OSError as error:
        log.warning("the snapshot of the fleet can't be written to %s: %s", path, error.strerror)


async def save_week(path: Path, week: Week) -> None:
    """Likewise."""
    try:
        await asyncio.to_thread(_write, path, week.packed())
    except OSError as error:
        log.warning("what sites carried can't be written to %s: %s", path, error.strerror)


async def recall_week(path: Path, week: Week, sites: Iterable[str]) -> None:
    """What was saved last, if it can be used."""
    try:
        week.unpack(await asyncio.to_thread(_read, path), sites)
    except FileNotFoundError:
        pass
    except (OSError, msgspec.DecodeError) as error:
        log.warning("what sites carried, at %s, can't be used: %s", path, error)


async def recall(path: Path) -> View | None:
    """What was saved last; None if there is nothing that can be used."""
    try:
        view = msgspec.msgpack.decode(await asyncio.to_thread(_read, path), type=View)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("the snapshot of the fleet at %s can't be used: %s", path, error)
        return None
    return view if view.format == _FORMAT else None


def _write(path: Path, packed: bytes) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(packed)
        file.flush()
        os.fdatasync(file.fileno())
    new.replace(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)
