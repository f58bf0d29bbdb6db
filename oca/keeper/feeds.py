"""How the processes that listen to a BGP speaker tell the keeper what they heard: whole sets, framed, on a stream.

A frame is its length (4 bytes, big-endian) and JSON. A frame of length 0 says that nothing changed. Whoever falls
silent or closes the stream has nothing to say any more: all its routes are withdrawn.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from msgspec import Struct

from oca.errors import OcaError
from wire.prefixes import MOST_BYTES, LearnedPrefix

BEAT: Final = 10.0
"""Seconds between two frames of a feed that lives."""
_WRITE_TIMEOUT: Final = 30.0
_HEAD: Final = 4
UNCHANGED: Final = bytes(_HEAD)


class FeedBroken(OcaError):
    """What came through the stream is not what a feed says. It is closed; its process will come again."""


class Heard(Struct, frozen=True):
    """All that a feed has heard and that holds now."""

    routes: tuple[LearnedPrefix, ...]
    overflowed: tuple[str, ...] = ()
    """Sessions or tables with more routes than may be; none of theirs is among `routes`."""
    misread: int = 0
    """Lines that were not understood, since the feed began."""


async def write_heard(writer: asyncio.StreamWriter, heard: Heard) -> None:
    """Raises OSError or TimeoutError when nobody takes it."""
    body = msgspec.json.encode(heard)
    writer.write(len(body).to_bytes(_HEAD))
    writer.write(body)
    async with asyncio.timeout(_WRITE_TIMEOUT):
        await writer.drain()


async def write_unchanged(writer: asyncio.StreamWriter) -> None:
    """Raises OSError or TimeoutError when nobody takes it."""
    writer.write(UNCHANGED)
    async with asyncio.timeout(_WRITE_TIMEOUT):
        await writer.drain()


async def read_heard(reader: asyncio.StreamReader, silence: float) -> Heard | None:
    """The next frame; None if nothing changed. Raises FeedBroken: also at the end, and after `silence` seconds."""
    try:
        async with asyncio.timeout(silence):
            size = int.from_bytes(await reader.readexactly(_HEAD))
            if not size:
                return None
            if size > MOST_BYTES:
                raise FeedBroken(f"a frame of {size} bytes is larger than any may be")
            return msgspec.json.decode(await reader.readexactly(size), type=Heard)
    except TimeoutError as error:
        raise FeedBroken(f"nothing was heard for {silence:.0f} s") from error
    except (EOFError, OSError) as error:
        raise FeedBroken("it ended") from error
    except msgspec.MsgspecError as error:
        raise FeedBroken(f"it is not understood: {error}") from error
