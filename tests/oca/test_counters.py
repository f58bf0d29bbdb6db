"""The places of the counters: no two share a word, and whatever the edge may answer has one."""

import ast
import os
from http import HTTPStatus
from pathlib import Path

import pytest

import oca
from oca.counters import (
    BUFFER_AT,
    BUFFER_BUCKETS,
    CLASSES,
    COUNTERS_BYTES,
    DEVICE_BUCKETS_OFFSET,
    DEVICE_READ_BUCKETS,
    DEVICES,
    EGRESS_AT,
    FIRST_BYTE_BUCKETS,
    OUTCOMES,
    PLACES,
    REFUSALS,
    REFUSALS_AT,
    ROWS,
    SUM_OFFSET,
    WORDS,
    Count,
    DeviceCount,
    Outcome,
    Place,
    bucket_of,
    buffer_bucket_of,
    device_bucket_of,
    device_words,
    first_byte_words,
    request_word,
)
from oca.edge.tally import Tally
from oca.settings import Tier
from oca.store.board import new_memory

ROOT = Path(oca.__file__).parent


def test_no_two_counters_share_a_word_and_none_lies_outside():
    words = [int(count) for count in Count]
    words += [EGRESS_AT + place for place in range(len(PLACES))]
    words += [request_word(outcome, 100 * (2 + number)) for outcome in OUTCOMES for number in range(len(CLASSES))]
    words += [first_byte_words(outcome) + at for outcome in OUTCOMES for at in range(SUM_OFFSET + 1)]
    words += [REFUSALS_AT + place for place in range(len(REFUSALS))]
    words += [BUFFER_AT + buffer_bucket_of(seconds) for seconds in (*BUFFER_BUCKETS, float("inf"))]
    words += [device_words(device) + int(count) for device in range(DEVICES) for count in DeviceCount]
    words += [
        device_words(device) + DEVICE_BUCKETS_OFFSET + device_bucket_of(seconds)
        for device in range(DEVICES)
        for seconds in (*DEVICE_READ_BUCKETS, float("inf"))
    ]
    assert sorted(words) == list(range(WORDS))


def test_statuses_of_a_class_share_a_word():
    assert request_word(Outcome.HIT, 200) == request_word(Outcome.HIT, 206)
    assert request_word(Outcome.HIT, 200) != request_word(Outcome.HIT, 304)


def test_every_tier_is_a_place():
    assert {Place(tier) for tier in Tier} == set(Place) - {Place.MEMORY}


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0, 0), (0.0001, 0), (0.00011, 1), (5, 14), (5.1, 15), (1e9, 15), (-1, 0)]
)
def test_a_bucket_holds_what_is_at_most_its_bound(seconds, bucket):
    assert bucket_of(seconds) == bucket
    assert bucket <= len(FIRST_BYTE_BUCKETS) < SUM_OFFSET + 1


@pytest.fixture
def rows():
    fd = new_memory("test-counters", COUNTERS_BYTES)
    yield [Tally(fd, row) for row in (0, 1, ROWS - 1)]
    os.close(fd)


def test_each_worker_counts_in_its_own_row(rows):
    for number, tally in enumerate(rows, start=1):
        tally.count(Count.LOOKUPS, number)
        tally.answered(OUTCOMES[-1], 504, 1e6)
        tally.count(Count.HITS, number)
    assert [tally.words[Count.LOOKUPS] for tally in rows] == [1, 2, 3]
    assert [sum(tally.words[EGRESS_AT : EGRESS_AT + len(PLACES)]) for tally in rows] == [0, 0, 0]
    assert all(len(tally.words) == WORDS for tally in rows)


def statuses_in(source: str) -> set[int]:
    """Every status that a module names: HTTPStatus.X and plain numbers where a status may stand."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "HTTPStatus":
            found.add(int(HTTPStatus[node.attr]))
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in HTTPStatus._value2member_map_:
            found.add(node.value)
    return found


def test_every_status_that_may_be_answered_has_its_word(rows):
    sources = [*sorted((ROOT / "http").glob("*.py")), *sorted((ROOT / "edge").glob("*.py")), ROOT / "keeper/library.py"]
    statuses = set().union(*(statuses_in(path.read_text()) for path in sources))
    # Numbers that are no statuses here (451 is a system call), or not of answers to clients.
    statuses -= {100, 101, 102, 103, 302, 451}
    assert {200, 206, 304, 400, 404, 408, 412, 416, 431, 502, 504, 508} <= statuses
    for status in statuses:
        for outcome in OUTCOMES:
            rows[0].answered(outcome, status, 0.001)
    assert rows[0].words[request_word(Outcome.REFUSED, 400)] > 0


def test_hits_and_misses_are_told_apart(rows):
    tally = rows[0]
    for outcome in OUTCOMES:
        tally.answered(outcome, 200, 0.002)
    assert (tally.words[Count.HITS], tally.words[Count.MISSES]) == (1, 2)
    at = first_byte_words(Outcome.MISS)
    assert tally.words[at + bucket_of(0.002)] == 1
    assert tally.words[at + SUM_OFFSET] == 2000
    for place, name in enumerate(PLACES):
        tally.sent(place, 10 + place)
        assert tally.words[EGRESS_AT + place] == 10 + place, name
    # What lies on tmpfs is a hit; what passes through the memory of a flight is not.
    tally.passed_on(7)
    assert tally.words[EGRESS_AT + PLACES.index(Place.MEMORY)] == 20
    assert (tally.words[Count.HIT_BYTES], tally.words[Count.MISS_BYTES]) == (46, 7)


def test_each_refusal_is_counted_by_its_reason_and_its_status_has_a_word(rows):
    tally = rows[0]
    for times, reason in enumerate(REFUSALS, start=1):
        for _ in range(times):
            tally.not_let_in(reason)
        tally.answered(Outcome.REFUSED, reason.status, 0.001)
    assert list(tally.words[REFUSALS_AT : REFUSALS_AT + len(REFUSALS)]) == list(range(1, len(REFUSALS) + 1))


def test_reads_are_counted_for_each_device(rows):
    tally = rows[0]
    tally.device_read(63, 4096, 0.002, is_slow=False, failed=False)
    tally.device_read(63, 4096, 20.0, is_slow=True, failed=True)
    tally.device_read(64, 4096, 0.1, is_slow=False, failed=False)
    at = device_words(63)
    assert list(tally.words[at : at + len(DeviceCount)]) == [2, 4096, 1, 1, 20_002_000]
    buckets = list(tally.words[at + DEVICE_BUCKETS_OFFSET : at + DEVICE_BUCKETS_OFFSET + len(DEVICE_READ_BUCKETS) + 1])
    assert buckets == [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
