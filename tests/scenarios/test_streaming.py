"""Misses are shared: everybody reads behind one watermark, each block crosses the line once, and goes on when its first
viewer leaves.
"""

import asyncio

from tests.doubles.appliance import BLOCK, PATIENCE, wait_until

SHORT_OF_A_BLOCK = 100_000


def test_a_second_viewer_reads_what_has_come_while_the_first_ones_miss_is_still_arriving(appliance, origin, path):
    content = origin.put(path, BLOCK)
    gate = origin.gate(path, SHORT_OF_A_BLOCK)
    with appliance.wire() as first, appliance.wire() as second:
        first.ask(path)
        assert first.head().status == 200
        assert first.read(SHORT_OF_A_BLOCK) == content[:SHORT_OF_A_BLOCK]
        gate.wait_reached()
        second.ask(path)
        assert second.head().status == 200
        assert second.read(SHORT_OF_A_BLOCK) == content[:SHORT_OF_A_BLOCK]
        assert first.is_silent()
        assert second.is_silent()
        gate.open()
        for viewer in (first, second):
            assert viewer.read(BLOCK - SHORT_OF_A_BLOCK) == content[SHORT_OF_A_BLOCK:]
    assert len(origin.ranges(path)) == 1


def test_a_range_behind_the_watermark_waits_and_one_before_it_does_not(appliance, origin, path):
    content = origin.put(path, BLOCK)
    gate = origin.gate(path, SHORT_OF_A_BLOCK)
    with appliance.wire() as late, appliance.wire() as early:
        late.ask(path, Range=f"bytes={BLOCK - 10}-")
        gate.wait_reached()
        early.ask(path, Range="bytes=10-19")
        answer = early.answer()
        assert (answer.status, answer.body) == (206, content[10:20])
        assert late.is_silent()
        gate.open()
        assert late.answer().body == content[-10:]


def test_every_worker_shares_one_flight(appliance, origin, path):
    content = origin.put(path, BLOCK)
    gate = origin.gate(path, SHORT_OF_A_BLOCK)
    # The kernel spreads connections over the workers: of twenty, some land on each.
    viewers = [appliance.wire() for _ in range(20)]
    for viewer in viewers:
        viewer.ask(path)
    for viewer in viewers:
        assert viewer.head().status == 200
        assert viewer.read(SHORT_OF_A_BLOCK) == content[:SHORT_OF_A_BLOCK]
    gate.open()
    for viewer in viewers:
        assert viewer.read(BLOCK - SHORT_OF_A_BLOCK) == content[SHORT_OF_A_BLOCK:]
        viewer.close()
    assert len(origin.ranges(path)) == 1


async def _view(port, path, content):
    """Fetch the whole object and compare it as it comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        at = 0
        while piece := await reader.read(2**20):
            assert piece == content[at : at + len(piece)]
            at += len(piece)
        assert at == len(content)
    finally:
        writer.close()


async def test_two_hundred_viewers_of_a_cold_object_fetch_each_block_once_and_get_every_byte(appliance, origin, path):
    content = origin.put(path, BLOCK + 1000)
    gate = origin.gate(path, SHORT_OF_A_BLOCK)
    async with asyncio.timeout(2 * PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(200):
            group.create_task(_view(appliance.port, path, content))
        await asyncio.to_thread(gate.wait_reached)
        gate.open()
    assert sorted(origin.ranges(path)) == [f"bytes=0-{BLOCK - 1}", f"bytes={BLOCK}-{BLOCK + 999}"]


async def test_many_viewers_of_an_object_without_validators_share_one_answer(appliance, origin, path):
    content = origin.put(path, 2 * BLOCK + 1000, etag=None, last_modified=None)
    async with asyncio.timeout(2 * PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(_view(appliance.port, path, content))
    assert len(origin.ranges(path)) == 2  # The first answer showed that parts can't be joined.


def test_a_flight_goes_on_and_lands_when_its_viewer_has_left(appliance, origin, path):
    content = origin.put(path, BLOCK)
    gate = origin.gate(path, SHORT_OF_A_BLOCK)
    with appliance.wire() as viewer:
        viewer.ask(path)
        viewer.head()
        gate.wait_reached()
    wait_until(lambda: appliance.status()["flights"] == 1, "only the flight is left")
    gate.open()
    appliance.wait_stored(path)
    answer = appliance.get(path)
    assert answer.is_hit
    assert answer.body == content
    assert len(origin.ranges(path)) == 1


def test_reading_ahead_keeps_several_blocks_in_flight(appliance, origin, path):
    content = origin.put(path, 8 * BLOCK)
    gates = [origin.gate(path, block * BLOCK + 1) for block in range(8)]
    with appliance.wire() as viewer:
        viewer.ask(path)
        viewer.head()
        for gate in gates[:2]:
            gate.wait_reached()
        in_flight = wait_until(
            lambda: (n := len(set(origin.ranges(path)))) >= 4 and n, "several blocks are asked for at once"
        )
        # Ahead by what the settings say (four blocks), not by the whole film.
        assert in_flight < 8
        for gate in gates:
            gate.open()
        assert viewer.read(8 * BLOCK) == content
    assert len(origin.ranges(path)) == 8


def test_reading_ahead_ends_where_the_viewers_range_does(appliance, origin, path):
    content = origin.put(path, 8 * BLOCK)
    assert appliance.span(path, 10, 2 * BLOCK).body == content[10 : 2 * BLOCK]
    appliance.wait_landed()
    assert appliance.held(path)["blocks_held"] == 2
    assert len(origin.ranges(path)) == 2


def test_a_viewer_whose_miss_dies_is_cut_and_never_sees_a_clean_end(appliance, origin, path):
    content = origin.put(path, BLOCK)
    gate = origin.gate(path, SHORT_OF_A_BLOCK)
    with appliance.wire() as viewer:
        viewer.ask(path)
        viewer.head()
        gate.wait_reached()
        # No more of it will come: the origin holds another film from now on.
        origin.put(path, BLOCK, version=2)
        origin.drop_connections()
        origin.come_back()
        got = viewer.rest()
    assert len(got) < BLOCK
    assert content.startswith(got)
    origin.open_gates(path)
    assert appliance.get(path).body == origin.content(path)


def test_a_miss_whose_source_breaks_off_goes_on_where_it_was(appliance, origin, path):
    content = origin.put(path, BLOCK)
    gate = origin.gate(path, SHORT_OF_A_BLOCK)
    with appliance.wire() as viewer:
        viewer.ask(path)
        viewer.head()
        gate.wait_reached()
        origin.drop_connections()
        origin.open_gates(path)
        origin.come_back()
        assert viewer.read(BLOCK) == content
    first, second = origin.ranges(path)
    assert first == f"bytes=0-{BLOCK - 1}"
    assert second == f"bytes={SHORT_OF_A_BLOCK}-{BLOCK - 1}"


def test_an_object_that_may_not_be_stored_streams_to_its_viewer(appliance, origin, path):
    content = origin.put(path, 3 * BLOCK, cache_control="no-store")
    gate = origin.gate(path, SHORT_OF_A_BLOCK)
    with appliance.wire() as viewer:
        viewer.ask(path)
        viewer.head()
        assert viewer.read(SHORT_OF_A_BLOCK) == content[:SHORT_OF_A_BLOCK]
        gate.open()
        assert viewer.read(3 * BLOCK - SHORT_OF_A_BLOCK) == content[SHORT_OF_A_BLOCK:]


def test_a_whole_answer_that_never_ends_is_given_up_at_the_deadline_of_a_block(make_appliance, origin, path):
    appliance = make_appliance().start(fetch={"stall_timeout": "10 min", "total_deadline": "1 s"})
    content = origin.put(path, 3 * BLOCK, etag=None, last_modified=None)
    origin.gate(path, BLOCK + SHORT_OF_A_BLOCK)
    with appliance.wire() as viewer:
        viewer.ask(path)
        got = viewer.rest().partition(b"\r\n\r\n")[2]
    assert len(got) < len(content)
    assert content.startswith(got)
    # The flight ended as well, and with it what it held.
    appliance.wait_landed()
    origin.open_gates(path)
    assert appliance.get(path).body == content
