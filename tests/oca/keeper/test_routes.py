"""Feeds and the keeper's side of them, over real sockets and processes; BGP between machines at the end."""

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest
import uvloop

from oca.keeper.exabgp_feed import Feed
from oca.keeper.feeds import Heard, write_heard
from oca.keeper.routes import Routes
from oca.settings import Routes as RouteSettings
from oca.settings import Seconds
from tests.doubles.networks import announcer, bird, connect, learner, machine
from wire.prefixes import LearnedPrefix, Speaker

RECORDING = Path(__file__).with_name("exabgp") / "version-5.jsonl"
LINES = RECORDING.read_bytes().splitlines(keepends=True)
UNTIL_UP = 8
"""Lines until all is announced; the next takes 100.71.0.0/16 back."""
UP = ["100.70.0.0/16", "100.71.0.0/16", "100.72.0.0/24", "2a00:1234::/32"]
DEADLINE = 60


@pytest.fixture
def path(tmp_path):
    return tmp_path / "exabgp.sock"


@contextlib.asynccontextmanager
async def _listening(path):
    routes = Routes(RouteSettings(exabgp_feed=str(path)), "box-1")
    async with asyncio.timeout(DEADLINE):
        running = asyncio.create_task(routes.run())
        try:
            yield routes
        finally:
            running.cancel()
            await asyncio.wait([running])


@contextlib.asynccontextmanager
async def _feeding(path):
    """A feed, and the stream into which its exabgp writes."""
    lines = asyncio.StreamReader()
    running = asyncio.create_task(Feed(str(path), 1000, settle=0.0).run(lines))
    try:
        yield lines
    finally:
        running.cancel()
        await asyncio.wait([running])


async def _prefixes(routes, wanted):
    """Wait until these are learned."""
    version = 0
    while True:
        message = await routes.wait_for_other_than(version)
        if [route.prefix for route in message.prefixes] == wanted:
            return message
        version = message.version


@contextlib.asynccontextmanager
async def _connected(path):
    """A feed of the test's own."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(str(path))
            break
        await asyncio.sleep(0)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_what_exabgp_says_is_learned_and_taken_back(path):
    async with _listening(path) as routes, _feeding(path) as exabgp:
        assert routes.version == 0
        assert routes.message is None
        exabgp.feed_data(b"".join(LINES[:UNTIL_UP]))
        message = await _prefixes(routes, UP)
        assert (message.appliance, message.kind, message.version) == ("box-1", Speaker.EXABGP, routes.version)
        assert message.prefixes[0] == LearnedPrefix("100.70.0.0/16", (65001, 65001, 65010), ("65001:100", "65001:1:2"))
        exabgp.feed_data(LINES[UNTIL_UP])
        await _prefixes(routes, [UP[0], UP[2], UP[3]])
        exabgp.feed_data(b"".join(LINES[UNTIL_UP + 1 : UNTIL_UP + 4]))
        await _prefixes(routes, [])


async def test_when_exabgp_ends_its_routes_are_withdrawn(path):
    async with _listening(path) as routes, _feeding(path) as exabgp:
        exabgp.feed_data(b"".join(LINES[:UNTIL_UP]))
        await _prefixes(routes, UP)
        exabgp.feed_eof()
        await _prefixes(routes, [])


async def test_a_keeper_that_starts_again_is_told_everything_and_the_version_is_the_same(path):
    async with _feeding(path) as exabgp:
        exabgp.feed_data(b"".join(LINES[:UNTIL_UP]))
        async with _listening(path) as routes:
            before = await _prefixes(routes, UP)
        async with _listening(path) as routes:
            assert routes.version == 0
            assert await _prefixes(routes, UP) == before


async def test_several_feeds_add_up_and_each_takes_its_own_away(path):
    one, two = LearnedPrefix("10.1.0.0/16"), LearnedPrefix("10.2.0.0/16")
    async with _listening(path) as routes, _connected(path) as (_, first):
        async with _connected(path) as (_, second):
            await write_heard(second, Heard((one, two)))
            await write_heard(first, Heard((two,)))
            await _prefixes(routes, ["10.1.0.0/16", "10.2.0.0/16"])
        await _prefixes(routes, ["10.2.0.0/16"])
        first.close()
        await _prefixes(routes, [])


RUBBISH = [b"\xff\xff\xff\xff", b"\0\0\0\2[]", b"\0\0\0\1{", b"GET / HTTP/1.1\r\n\r\n", b"\0"]


@pytest.mark.parametrize("rubbish", RUBBISH)
async def test_a_feed_that_talks_nonsense_is_closed_and_believed_no_more(path, rubbish):
    async with _listening(path) as routes, _connected(path) as (reader, writer):
        await write_heard(writer, Heard((LearnedPrefix("10.1.0.0/16"),)))
        await _prefixes(routes, ["10.1.0.0/16"])
        writer.write(rubbish)
        writer.write_eof()
        assert await reader.read() == b""
        await _prefixes(routes, [])


async def test_what_a_feed_overflowed_or_misread_is_known_while_it_lives(path):
    async with _listening(path) as routes:
        async with _connected(path) as (_, writer):
            await write_heard(writer, Heard((), ("10.0.0.1",), 3))
            await _prefixes(routes, [])
            assert (routes.overflowed, routes.misread) == (("10.0.0.1",), 3)
        async with _connected(path) as (_, writer):
            await write_heard(writer, Heard((LearnedPrefix("10.1.0.0/16"),)))
            await _prefixes(routes, ["10.1.0.0/16"])
            assert (routes.overflowed, routes.misread) == ((), 0)


async def test_a_socket_that_a_killed_keeper_left_is_no_hindrance_and_not_everybody_s(path):
    path.touch()
    async with _listening(path) as routes, _connected(path) as (_, writer):
        await write_heard(writer, Heard((LearnedPrefix("10.1.0.0/16"),)))
        await _prefixes(routes, ["10.1.0.0/16"])
        assert path.stat().st_mode & 0o777 == 0o660


async def test_without_a_speaker_nothing_runs_and_nothing_is_known():
    routes = Routes(RouteSettings(), "box-1")
    await routes.run()
    assert routes.version == 0


def test_the_process_that_exabgp_starts_works_on_the_keepers_own_loop(path):
    async def scenario():
        async with _listening(path) as routes:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "oca.keeper.exabgp_feed", str(path)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            process.stdin.write(b"".join(LINES[:UNTIL_UP]))
            await _prefixes(routes, UP)
            process.stdin.close()
            await _prefixes(routes, [])
            # exabgp takes what its process writes for commands.
            assert await process.stdout.read() == b""
            assert await process.wait() == 0

    uvloop.run(scenario())


# --- BGP between machines ---

TABLE = 1000
THOUSAND = sorted(
    [f"45.{number // 250}.{number % 250}.0/24" for number in range(900)]
    + [f"2a00:{number + 1:x}::/32" for number in range(100)]
)


@pytest.fixture
def machines():
    with machine() as isp, machine() as box:
        connect(isp, box, ("10.255.0.1/30", "2001:db8:ffff::1/64"), ("10.255.0.2/30", "2001:db8:ffff::2/64"))
        yield isp, box


def _from_the_kernel(box, settings, scenario):
    """Run `scenario(routes)` beside a keeper's routes that are read on this machine, on the keeper's own loop."""

    async def run():
        routes = Routes(settings, "box-1")
        async with asyncio.timeout(DEADLINE):
            running = asyncio.create_task(routes.run())
            try:
                await scenario(routes)
            finally:
                running.cancel()
                await asyncio.wait([running])

    with box.entered():
        uvloop.run(run())


@pytest.mark.networks
def test_a_thousand_prefixes_that_bird_learned_are_seen_and_so_is_that_they_are_withdrawn(machines, tmp_path):
    isp, box = machines
    speaks = announcer(THOUSAND, "10.255.0.2", 64500, 64999, "2001:db8:ffff::1")
    with (
        bird(isp, tmp_path / "isp", speaks) as speaker,
        bird(box, tmp_path / "box", learner(TABLE, "10.255.0.1", 64999, 64500)) as ours,
    ):

        async def scenario(routes):
            message = await _prefixes(routes, THOUSAND)
            assert message.kind is Speaker.KERNEL
            assert message.prefixes[0] == LearnedPrefix(THOUSAND[0])
            speaker.configure(announcer(THOUSAND[300:], "10.255.0.2", 64500, 64999, "2001:db8:ffff::1"))
            await _prefixes(routes, THOUSAND[300:])
            # The session goes down, and with it everything.
            ours.tell("disable", "peer")
            await _prefixes(routes, [])
            ours.tell("enable", "peer")
            await _prefixes(routes, THOUSAND[300:])

        _from_the_kernel(box, RouteSettings(kernel_table=TABLE, poll=Seconds(1)), scenario)
        # Steering input, never forwarding: the machine's own table knows nothing of it.
        assert "45." not in box.run("ip", "route", "show", "table", "main")


@pytest.mark.networks
def test_of_the_kernel_only_the_table_that_was_named_is_read(machines):
    _, box = machines
    for line in (
        "blackhole 45.1.0.0/16 table 1000",
        "unreachable 45.2.0.0/16 table 1000",
        "45.3.0.0/16 via 10.255.0.1 table 1000",
        "default via 10.255.0.1 table 1000",
        "local 45.4.0.0/16 dev lo table 1000",
        "blackhole 45.5.0.0/16 table 1001",
        "blackhole 45.6.0.0/16",
    ):
        box.run("ip", "route", "add", *line.split())
    box.run("ip", "-6", "route", "add", "blackhole", "default", "table", "1000")

    async def scenario(routes):
        await _prefixes(routes, ["0.0.0.0/0", "45.1.0.0/16", "45.2.0.0/16", "45.3.0.0/16", "::/0"])

    _from_the_kernel(box, RouteSettings(kernel_table=TABLE), scenario)


@pytest.mark.networks
def test_a_table_with_too_much_in_it_is_not_believed(machines):
    _, box = machines
    for number in range(3):
        box.run("ip", "route", "add", "blackhole", f"45.{number}.0.0/16", "table", str(TABLE))

    async def scenario(routes):
        await _prefixes(routes, [])
        assert routes.overflowed == (f"table {TABLE}",)
        box.run("ip", "route", "del", "blackhole", "45.0.0.0/16", "table", str(TABLE))
        await _prefixes(routes, ["45.1.0.0/16", "45.2.0.0/16"])
        assert routes.overflowed == ()

    _from_the_kernel(box, RouteSettings(kernel_table=TABLE, most=2, poll=Seconds(1)), scenario)
