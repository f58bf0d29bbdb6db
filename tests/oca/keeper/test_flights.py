"""Flights: every reader sees every byte in order and exactly one end, whenever it joins."""

import asyncio
import contextlib
import gc
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oca.cache.keys import BLOCK_BYTES
from oca.cache.records import ObjectRecord
from oca.keeper.flights import Flight, Stage

SIZE = 1000
CONTENT = bytes(number % 251 for number in range(SIZE))


class Along:
    """Reads along as a worker does: copies what lies below the watermark."""

    def __init__(self) -> None:
        self.seen = b""
        self.ends: list[object] = []
        self.arrivals = 0

    def arriving(self, flight: Flight) -> None:
        assert not self.ends
        self.arrivals += 1
        self._read(flight)

    def progress(self, flight: Flight) -> None:
        assert self.arrivals
        self._read(flight)

    def landed(self, flight: Flight, *, kept: bool) -> None:
        self.ends.append(("landed", kept))

    def failed(self, flight: Flight, *, unknown: bool, reason: str) -> None:
        self.ends.append(("failed", unknown, reason))

    def _read(self, flight: Flight) -> None:
        assert len(self.seen) <= flight.watermark
        self.seen += os.pread(flight.fd, flight.watermark - len(self.seen), len(self.seen))


def flight_of(block: int = 0, size: int = SIZE) -> Flight:
    return Flight(b"k" * 16, ObjectRecord("/a", 1, size), block)


@pytest.mark.parametrize(
    ("block", "size", "length"),
    [(0, 1000, 1000), (0, BLOCK_BYTES, BLOCK_BYTES), (1, BLOCK_BYTES + 1, 1), (0, BLOCK_BYTES + 1, BLOCK_BYTES)],
)
def test_a_flight_is_as_long_as_its_block(block, size, length):
    flight = flight_of(block, size)
    assert flight.length == length
    assert flight.start == block * BLOCK_BYTES


def test_who_joins_before_the_start_is_told_when_it_takes_off():
    flight, reader = flight_of(), Along()
    flight.join(reader)
    assert flight.wanted.is_set()
    assert reader.arrivals == 0
    flight.take_off()
    assert reader.arrivals == 1
    flight.fail("over")


def test_who_joins_late_gets_all():
    flight, late = flight_of(), Along()
    flight.take_off()
    flight.receive(CONTENT)
    assert flight.stage is Stage.WHOLE
    flight.join(late)
    assert late.seen == CONTENT
    flight.land(kept=True)
    assert late.ends == [("landed", True)]


def test_who_left_hears_nothing_more():
    flight, gone, stays = flight_of(), Along(), Along()
    flight.take_off()
    flight.join(gone)
    flight.join(stays)
    flight.receive(CONTENT[:10])
    flight.leave(gone)
    flight.leave(gone)
    flight.receive(CONTENT[10:])
    flight.land(kept=False)
    assert (gone.seen, gone.ends) == (CONTENT[:10], [])
    assert (stays.seen, stays.ends) == (CONTENT, [("landed", False)])


@pytest.mark.parametrize("progress", [0, 10, SIZE])
def test_a_failure_is_told_whatever_the_stage(progress):
    flight, reader = flight_of(), Along()
    flight.join(reader)
    if progress:
        flight.take_off()
        flight.receive(CONTENT[:progress])
    flight.fail("the source broke off", unknown=True)
    assert reader.ends == [("failed", True, "the source broke off")]
    assert flight.is_over
    assert flight.fd == -1


def test_more_than_a_block_is_an_error_of_the_caller():
    flight = flight_of()
    flight.take_off()
    with pytest.raises(AssertionError):
        flight.receive(CONTENT + b"x")
    assert flight.watermark == 0
    flight.fail("over")


def test_the_content_outlives_the_flight():
    flight = flight_of()
    flight.take_off()
    flight.receive(memoryview(CONTENT))
    content = flight.content()
    flight.land(kept=True)
    assert content == CONTENT
    with pytest.raises(TypeError):
        content[0] = 1


def test_a_reader_may_read_on_in_its_copy_after_the_end():
    flight = flight_of()
    flight.take_off()
    flight.receive(CONTENT)
    copy = os.dup(flight.fd)
    flight.land(kept=False)
    assert os.pread(copy, SIZE, 0) == CONTENT
    os.close(copy)


def flights_memory():
    """How many descriptors of flights' memory are open; what other tests leave to the collector does not count."""
    open_now = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            open_now.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum("oca-flight" in name for name in open_now)


def test_no_memory_is_left_over():
    gc.collect()
    before = flights_memory()
    for number in range(20):
        flight = flight_of()
        flight.take_off()
        flight.receive(CONTENT)
        content = flight.content()
        flight.land(kept=True) if number % 2 else flight.fail("over")
        del content, flight
    gc.collect()
    assert flights_memory() == before


async def test_who_waits_to_be_wanted_is_woken_by_the_first_reader():
    flight = flight_of()
    waits = asyncio.ensure_future(flight.wanted.wait())
    await asyncio.sleep(0)
    assert not waits.done()
    flight.join(Along())
    assert await waits
    flight.fail("over")


moves = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 3)),
        st.tuples(st.just("leave"), st.integers(0, 3)),
        st.tuples(st.just("receive"), st.integers(1, 400)),
    ),
    max_size=25,
)


@given(moves, moves, st.sampled_from(["land", "fail"]))
@settings(max_examples=60)
def test_for_any_history_who_stays_sees_every_byte_and_one_end(before, during, end):
    flight = flight_of()
    readers = [Along() for _ in range(4)]
    joined: set[int] = set()
    sent = 0

    def play(what: str, number: int) -> None:
        nonlocal sent
        if what == "join" and number not in joined and not readers[number].arrivals:
            joined.add(number)
            flight.join(readers[number])
        elif what == "leave":
            joined.discard(number)
            flight.leave(readers[number])
        elif what == "receive" and flight.stage is Stage.ARRIVING:
            part = CONTENT[sent : sent + number]
            sent += len(part)
            flight.receive(part)

    for move in before:
        play(*move)
    flight.take_off()
    for move in during:
        play(*move)
    if end == "land":
        if flight.stage is Stage.ARRIVING:
            flight.receive(CONTENT[sent:])
            sent = SIZE
        flight.land(kept=True)
    else:
        flight.fail("over")
    for number, reader in enumerate(readers):
        if number in joined:
            assert reader.seen == CONTENT[:sent]
            assert len(reader.ends) == 1
        else:
            assert reader.seen == CONTENT[: len(reader.seen)]
            assert reader.ends == []
