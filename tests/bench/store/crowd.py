"""Viewers of what lies on the slow disk, in a process of their own: `python -m tests.bench.store.crowd PORT VIEWERS`.

The objects' paths, and the files they lie in, come on standard input, two words a line. Before each request the file's
pages are dropped, so that each is read from the disk. What comes is thrown away; a line on standard output for each
whole answer.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_RECEIVE = 1024 * 1024


async def watch(port: int, films: list[tuple[str, int]], dice: random.Random) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_RECEIVE)
    while True:
        path, fd = dice.choice(films)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        length = _LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
        assert length is not None
        left = int(length[1])
        while left:
            left -= len(await reader.read(min(left, _RECEIVE)))
            assert not reader.at_eof(), f"{path}: cut, {left} bytes before its end"
        print(path, flush=True)


async def main() -> None:
    port, viewers = int(sys.argv[1]), int(sys.argv[2])
    films = [(path, os.open(file, os.O_RDONLY)) for path, file in map(str.split, sys.stdin)]
    async with asyncio.TaskGroup() as group:
        for number in range(viewers):
            group.create_task(watch(port, films, random.Random(number)))


if __name__ == "__main__":
    asyncio.run(main())
