"""`python -m oca.keeper.kernel_feed TABLE`: reads a routing table of the kernel's again and again, for the keeper.

A process of its own, because pyroute2 takes 43 µs of Python for each route: with a large table the keeper would stand
still for seconds. And because its sockets do not open on uvloop. Its input is a socket on which it says what it read;
it ends when that is closed, as it is when the keeper ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
import time
from typing import Final

from pyroute2 import AsyncIPRoute, NetlinkError

from oca.keeper.feeds import BEAT, Heard, write_heard, write_unchanged
from wire.prefixes import MOST_PREFIXES, LearnedPrefix

_READ_TIMEOUT: Final = 60.0
_MOST_BUSY: Final = 0.1
"""Of one core that reading may take: a large table is read less often."""
_FAMILIES: Final = {2: "0.0.0.0", 10: "::"}  # noqa: S104 - no socket is bound to it
"""AF_INET and AF_INET6, and the address of a route without a destination."""
_TYPES: Final = frozenset({1, 6, 7, 8})
"""unicast, blackhole, unreachable, prohibit (rtnetlink(7)). Whether something is forwarded there is all one to us; what
is local, broadcast or multicast no speaker learned.
"""


async def read_table(table: int, most: int) -> Heard:
    """The prefixes of one table, each once. Raises OSError, NetlinkError or TimeoutError."""
    prefixes: set[str] = set()
    async with asyncio.timeout(_READ_TIMEOUT), AsyncIPRoute(strict_check=True) as kernel:
        for family, nowhere in _FAMILIES.items():
            async for route in await kernel.route("dump", table=table, family=family):
                if route["type"] not in _TYPES or route.get_attr("RTA_TABLE", route["table"]) != table:
                    continue
                prefixes.add(f"{route.get_attr('RTA_DST') or nowhere}/{route['dst_len']}")
                if len(prefixes) > most:
                    return Heard((), (f"table {table}",))
    return Heard(tuple(LearnedPrefix(prefix) for prefix in sorted(prefixes)))


async def feed(table: int, most: int, poll: float, writer: asyncio.StreamWriter) -> None:
    """Read and tell, until nobody listens or reading fails: OSError, NetlinkError or TimeoutError."""
    last: Heard | None = None
    while True:
        began = time.monotonic()
        heard = await read_table(table, most)
        ended = time.monotonic()
        if heard != last:
            await write_heard(writer, heard)
        last = heard
        until = ended + max(poll, (ended - began) / _MOST_BUSY)
        while (left := until - time.monotonic()) > 0:
            await write_unchanged(writer)
            await asyncio.sleep(min(left, BEAT))


async def _run(table: int, most: int, poll: float) -> None:
    """Our input is one end of a pair of sockets; the keeper has the other."""
    keeper, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=os.dup(sys.stdin.fileno())))
    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(feed(table, most, poll, writer))
        with contextlib.suppress(OSError):
            await keeper.read()
        feeding.cancel()


def main() -> int:
    parser = argparse.ArgumentParser(prog="oca.keeper.kernel_feed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("table", type=int)
    parser.add_argument("--most", type=int, default=MOST_PREFIXES)
    parser.add_argument("--poll", type=float, default=30.0)
    given = parser.parse_args()
    code = 0
    try:
        asyncio.run(_run(given.table, given.most, given.poll))
    except* (OSError, NetlinkError, TimeoutError) as errors:
        print(f"oca: routing table {given.table}: {errors.exceptions[0]!r}", file=sys.stderr)  # noqa: T201
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
