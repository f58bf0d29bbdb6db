"""The ladder: parents in their order, then the origin, then again from below."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.breaker import Breaker, Limits, State
from oca.cache.ladder import Ladder, retry_delay

LIMITS = Limits(window=10, min_calls=1, failure_ratio=0.5, open_for=30)


def breakers(*are_open):
    found = []
    for is_open in are_open:
        breaker = Breaker(LIMITS)
        if is_open:
            breaker.report(0.0, succeeded=False)
        found.append(breaker)
    return found


def climb(ladder, now=1.0):
    rungs = []
    while (rung := ladder.next_rung(now)) is not None:
        rungs.append((rung, ladder.has_wrapped))
    return rungs


@pytest.mark.parametrize(
    ("are_open", "attempts", "rungs"),
    [
        ([False], 3, [(0, False), (0, True), (0, True)]),
        ([False, False], 4, [(0, False), (1, False), (0, True), (1, True)]),
        ([False, False, False], 2, [(0, False), (1, False)]),
        ([True, False], 3, [(1, False), (1, True), (1, True)]),
        ([False, True], 2, [(0, False), (0, True)]),
        ([True, False, True], 2, [(1, False), (1, True)]),
        ([True, True], 4, []),
        ([False], 0, []),
    ],
)
def test_a_climb(are_open, attempts, rungs):
    assert climb(Ladder(breakers(*are_open), attempts)) == rungs


def test_a_breaker_that_opens_during_the_climb_is_passed_over():
    known = breakers(False, False)
    ladder = Ladder(known, 4)
    assert ladder.next_rung(1.0) == 0
    known[0].report(1.0, succeeded=False)
    assert [ladder.next_rung(1.0) for _ in range(4)] == [1, 1, 1, None]


def test_a_source_that_is_not_asked_does_not_lose_its_probe():
    known = breakers(False, True)
    assert Ladder(known, 1).next_rung(100.0) == 0
    assert known[1].state is State.OPEN
    assert Ladder(known[1:], 1).next_rung(100.0) == 0
    assert Ladder(known[1:], 1).next_rung(100.0) is None


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(1, 20))
def test_no_climb_makes_more_attempts_than_allowed_or_asks_an_open_source(are_open, attempts):
    rungs = [rung for rung, _ in climb(Ladder(breakers(*are_open), attempts))]
    assert len(rungs) == (0 if all(are_open) else attempts)
    assert not any(are_open[rung] for rung in rungs)


@pytest.mark.parametrize(
    ("tries", "jitter", "delay"), [(1, 0.5, 0.1), (2, 0.5, 0.2), (4, 0.5, 0.8), (1, 0.0, 0.05), (40, 0.5, 5.0)]
)
def test_waiting_is_doubled_up_to_five_seconds(tries, jitter, delay):
    assert retry_delay(tries, 0.1, jitter) == pytest.approx(delay)
