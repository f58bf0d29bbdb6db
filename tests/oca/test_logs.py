"""The ring of what was logged: whole lines, in their order, whoever writes, whatever is over."""

import json
import logging
import multiprocessing
import os
import signal

import pytest

from oca.logs import RING_BYTES, Ring, RingBusy, RingHandler, told
from oca.store.board import new_memory


@pytest.fixture
def fd():
    made = new_memory("test-log", RING_BYTES)
    yield made
    os.close(made)


def test_lines_come_back_in_their_order_and_from_where_one_left_off(fd):
    ring = Ring(fd)
    assert ring.since(0) == ([], 0)
    for line in (b"one", b"two"):
        ring.add(line)
    lines, place = ring.since(0)
    assert lines == [b"one", b"two"]
    ring.add(b"three")
    assert ring.since(place)[0] == [b"three"]


def test_only_whole_lines_are_left_when_it_has_gone_round(fd):
    ring = Ring(fd)
    written = [b"line %d %s" % (number, b"x" * (number % 700)) for number in range(5000)]
    for line in written:
        ring.add(line)
    lines, place = ring.since(0)
    assert len(lines) > 1000
    assert lines == written[-len(lines) :]
    assert sum(len(line) + 1 for line in lines) <= RING_BYTES
    assert ring.since(place) == ([], place)


@pytest.mark.parametrize("place", [10**18, 1])
def test_a_place_of_another_life_is_answered_with_all_that_is_left(fd, place):
    ring = Ring(fd)
    for number in range(3000):
        ring.add(b"%d %s" % (number, b"x" * 500))
    assert ring.since(place)[0][-1].startswith(b"2999 ")
    assert len(ring.since(place)[0]) == len(ring.since(0)[0])


def test_a_line_that_is_far_too_long_is_cut_and_keeps_the_others(fd):
    ring = Ring(fd)
    ring.add(b"before")
    ring.add(b"x" * RING_BYTES)
    ring.add(b"after")
    lines, _ = ring.since(0)
    assert (lines[0], lines[-1]) == (b"before", b"after")


def _write(fd, name):
    ring = Ring(fd)
    for number in range(2000):
        with_patience(lambda number=number: ring.add(b"%s %d" % (name, number)))


def with_patience(act):
    while True:
        try:
            return act()
        except RingBusy:
            os.sched_yield()


def test_processes_that_write_at_once_do_not_tear_each_others_lines(fd):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(fd, name)) for name in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    lines, _ = Ring(fd).since(0)
    assert len(lines) == 6000
    for name in (b"a", b"b", b"c"):
        own = [line for line in lines if line.startswith(name)]
        assert own == [b"%s %d" % (name, number) for number in range(2000)]


def _hold(fd, held):
    ring = Ring(fd)
    with ring._locked():
        os.write(held, b"x")
        signal.pause()


def test_nobody_waits_for_one_that_holds_the_ring_and_its_death_frees_it(fd):
    held, told_of = os.pipe()
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(fd, told_of))
    holder.start()
    os.read(held, 1)
    ring = Ring(fd)
    with pytest.raises(RingBusy):
        ring.add(b"left out")
    handler = RingHandler(ring, "test")
    handler.emit(logging.makeLogRecord({"msg": "left out, and nobody is told"}))
    holder.kill()
    holder.join()
    ring.add(b"kept")
    assert ring.since(0)[0] == [b"kept"]
    os.close(held)
    os.close(told_of)


def test_what_is_logged_is_kept_with_who_when_and_how_grave(fd):
    ring = Ring(fd)
    log = logging.getLogger("test of the ring")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(RingHandler(ring, "keeper"))
    log.info("a %s", "line")
    log.warning("two\nlines")
    try:
        raise ValueError("a mistake")
    except ValueError:
        log.exception("it failed")
    log.error("x" * 5000)
    lines = told(ring, 0, "DEBUG", 100)["lines"]
    assert [(one["process"], one["pid"], one["level"]) for one in lines] == [
        ("keeper", os.getpid(), level) for level in ("INFO", "WARNING", "ERROR", "ERROR")
    ]
    assert [one["text"] for one in lines[:2]] == ["a line", "two\nlines"]
    assert lines[2]["text"].endswith("ValueError: a mistake")
    assert len(lines[3]["text"]) == 2000
    assert [one["level"] for one in told(ring, 0, "WARNING", 2)["lines"]] == ["ERROR", "ERROR"]
    assert json.dumps(lines)
