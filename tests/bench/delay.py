"""A proxy that holds every byte back for a while, in both directions: distance without netem.

`python -m tests.bench.delay LISTEN_PORT TO_PORT ONE_WAY_SECONDS`
"""

from __future__ import annotations

import asyncio
import sys

import uvloop


class End(asyncio.Protocol):
    """One side of a connection; what it receives goes out on the other side, later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self.other: End | None = None

    def connection_made(self, transport) -> None:
        self._transport = transport
        for content in self._early:
            transport.write(content)

    def data_received(self, content: bytes) -> None:
        asyncio.get_running_loop().call_later(self._delay, self.other.send, content)

    def connection_lost(self, error: Exception | None) -> None:
        asyncio.get_running_loop().call_later(self._delay, self.other.close)

    def send(self, content: bytes) -> None:
        if self._transport is None:
            self._early.append(content)
        else:
            self._transport.write(content)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def forward(listen_port: int, to_port: int, delay: float) -> None:
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task] = set()

    def accept() -> End:
        near, far = End(delay), End(delay)
        near.other, far.other = far, near
        task = loop.create_task(loop.create_connection(lambda: far, "127.0.0.1", to_port))
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return near

    server = await loop.create_server(accept, "127.0.0.1", listen_port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(forward(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
