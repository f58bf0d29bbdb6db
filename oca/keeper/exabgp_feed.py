"""`python -m oca.keeper.exabgp_feed SOCKET`: the process that exabgp starts, and that tells the keeper of its routes.

    process oca {
        run /opt/oca/bin/python -m oca.keeper.exabgp_feed /run/oca/exabgp.sock;
        encoder json;
    }
    neighbor 192.0.2.1 {
        ...
        api { processes [ oca ]; neighbor-changes; receive { parsed; update; } }
    }

It keeps the routes itself, so that a keeper which starts again is told all of them. It never writes to its output,
which exabgp would read as commands, and it announces nothing. It ends with exabgp.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
from typing import Final

from oca.keeper.feeds import BEAT, Heard, write_heard, write_unchanged
from oca.keeper.rib import NotUnderstood, Rib
from wire.prefixes import MOST_PREFIXES

log = logging.getLogger(__name__)

_MOST_LINE: Final = 16 * 1024 * 1024
"""Bytes. exabgp writes one line for each update, and a BGP message has 64 KiB at most (RFC 8654)."""
_SETTLE: Final = 1.0
"""Seconds to wait for more after a change: a session that comes up brings thousands of lines."""
_CONNECT_TIMEOUT: Final = 5.0
_AGAIN: Final = 2.0
"""Seconds until the keeper is looked for again."""


class Feed:
    """Lines in, sets out."""

    def __init__(self, socket_path: str, most: int, settle: float = _SETTLE) -> None:
        self._socket_path = socket_path
        self._rib = Rib(most)
        self._settle = settle
        self._misread = 0
        self._changed = asyncio.Event()

    async def run(self, lines: asyncio.StreamReader) -> None:
        """Until exabgp closes `lines`."""
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell())
            await self._listen(lines)
            telling.cancel()

    async def _listen(self, lines: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await lines.readline()
            except ValueError:
                self._misread += 1  # Longer than any may be; the reader has dropped it.
                continue
            if not line:
                return
            try:
                changed = self._rib.hear(line)
            except NotUnderstood as error:
                self._misread += 1
                log.warning("%s", error)
                continue
            if changed:
                self._changed.set()

    async def _tell(self) -> None:
        """Connect, tell everything, then what changes; and again, when the keeper is another one."""
        while True:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    reader, writer = await asyncio.open_unix_connection(self._socket_path)
                try:
                    async with asyncio.TaskGroup() as group:
                        telling = group.create_task(self._tell_one(writer))
                        # It says nothing; that this ends is how we learn at once that it is gone.
                        await reader.read()
                        telling.cancel()
                finally:
                    writer.close()
            except* (OSError, TimeoutError) as errors:
                log.info("the keeper can't be told at %s: %s", self._socket_path, errors.exceptions[0])
            await asyncio.sleep(_AGAIN)

    async def _tell_one(self, writer: asyncio.StreamWriter) -> None:
        """Raises OSError or TimeoutError when nobody takes it."""
        while True:
            self._changed.clear()
            await write_heard(writer, Heard(self._rib.routes(), self._rib.overflowed, self._misread))
            while not await self._is_changed_within(BEAT):
                await write_unchanged(writer)
            await asyncio.sleep(self._settle)

    async def _is_changed_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        return self._changed.is_set()


async def _run(socket_path: str, most: int) -> None:
    lines = asyncio.StreamReader(limit=_MOST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    await Feed(socket_path, most).run(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="oca.keeper.exabgp_feed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("socket", help="as routes.exabgp_feed in the settings of the appliance")
    parser.add_argument("--most", type=int, default=MOST_PREFIXES, help="routes of all sessions together")
    given = parser.parse_args()
    # To standard error, which exabgp puts into its own log.
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="oca: %(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(given.socket, given.most))
    return 0


if __name__ == "__main__":
    sys.exit(main())
