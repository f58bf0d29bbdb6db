"""Connections that ask nothing are closed, over real sockets and with a clock of the test's."""

import asyncio

import pytest
from aiohttp import web

from steering.loiterers import Loiterers

FIRST, NEXT = 10.0, 85.0


class Door:
    """A listener, its clock, and what one would ask it."""

    def __init__(self):
        self.now = 0.0
        self.loiterers = Loiterers(FIRST, NEXT, lambda: self.now)
        self.is_asked = asyncio.Event()
        self.is_open = asyncio.Event()

    async def __aenter__(self):
        app = web.Application(middlewares=[self.loiterers.notice])
        app.router.add_get("/quick", self.quick)
        app.router.add_get("/slow", self.slow)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def quick(self, _request):
        return web.Response(text="yes")

    async def slow(self, _request):
        self.is_asked.set()
        await self.is_open.wait()
        return web.Response(text="at last")

    async def enter(self, sent):
        """A connection on which this was sent, and which the listener has seen."""
        known = len(self.runner.server.connections)
        reader, writer = await asyncio.open_connection(*self.runner.addresses[0][:2])
        writer.write(sent)
        await until(lambda: len(self.runner.server.connections) > known)
        self.look()
        return reader, writer

    def look(self, later=0.0):
        self.now += later
        self.loiterers.look(self.runner.server)


async def until(is_so):
    while not is_so():  # noqa: ASYNC110 - the listener tells nobody
        await asyncio.sleep(0)


async def is_cut(reader):
    """Whether the listener has closed it: at once where there is something that it never read."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


def inside(scene):
    """Run a scene behind an open door, with a deadline."""

    async def run():
        async with asyncio.timeout(20), Door() as door:
            await scene(door)

    asyncio.run(run())


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /quick HTTP/1.1\r\nHost: a\r\n"])
def test_a_connection_without_a_whole_request_is_closed(sent):
    async def scene(door):
        reader, writer = await door.enter(sent)
        door.look(FIRST)
        assert door.loiterers.closed == 0
        door.look(0.1)
        assert await is_cut(reader)
        assert door.loiterers.closed == 1
        writer.close()

    inside(scene)


def test_a_byte_a_while_does_not_help():
    async def scene(door):
        reader, writer = await door.enter(b"GET /quick HTTP/1.1\r\n")
        for letter in b"X-Slow":
            writer.write(bytes((letter,)))
            await writer.drain()
            door.look(2.0)
        assert await is_cut(reader)
        writer.close()

    inside(scene)


def test_who_has_asked_may_ask_again_for_as_long_as_connections_are_kept():
    async def scene(door):
        reader, writer = await door.enter(b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(3):
            assert (await reader.readuntil(b"yes")).startswith(b"HTTP/1.1 200 ")
            door.look(NEXT - 1.0)
            writer.write(b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"yes")
        door.look(NEXT + 1.0)
        assert await is_cut(reader)
        assert door.loiterers.closed == 1
        writer.close()

    inside(scene)


def test_who_is_being_answered_is_left_alone_and_who_is_gone_is_forgotten():
    async def scene(door):
        reader, writer = await door.enter(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await door.is_asked.wait()
        door.look(1000.0)
        door.is_open.set()
        await reader.readuntil(b"at last")
        writer.close()
        await writer.wait_closed()
        await until(lambda: not door.runner.server.connections)
        door.look()
        assert (len(door.loiterers), door.loiterers.closed) == (0, 0)

    inside(scene)
