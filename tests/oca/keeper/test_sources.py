"""What a source may do to the connection that is kept to it."""

import asyncio

import aiohttp
import pytest

from oca.keeper.sources import ask

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfilm"


class Here:
    """A source as `ask` wants it."""

    name = "here"

    def __init__(self, port):
        self.port = port

    async def url(self, _method, path):
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
async def spoken():
    """Starts a server that says these, one to each request on a connection; gives a source and the connections."""
    servers = []

    async def start(*connections):
        waiting, opened = list(connections), []

        async def serve(reader, writer):
            answers = waiting.pop(0)
            opened.append(answers)
            for answer in answers:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        return Here(server.sockets[0].getsockname()[1]), opened

    yield start
    for server in servers:
        server.close()


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_content_that_comes_late_behind_an_answer_without_any_spoils_no_other_answer(spoken, session, status):
    # It is read where the head of the next answer is awaited.
    source, opened = await spoken((b"HTTP/1.1 " + status + b"\r\n\r\n", b"sorry" + GOOD), (GOOD,))
    first = await ask(session, source, "GET", "/a", {})
    assert first.status == int(status[:3])
    first.close()
    second = await ask(session, source, "GET", "/b", {})
    assert await second.read() == b"film"
    assert len(opened) == 2


async def test_who_never_speaks_http_is_asked_twice_and_no_more(spoken, session):
    source, opened = await spoken((b"sorry\r\n\r\n",), (b"sorry\r\n\r\n",))
    with pytest.raises(aiohttp.ClientResponseError):
        await ask(session, source, "GET", "/a", {})
    assert len(opened) == 2
