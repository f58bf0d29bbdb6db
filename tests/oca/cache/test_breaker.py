"""The breaker's table: every state with every signal, and what holds for any history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.breaker import Breaker, Limits, State

LIMITS = Limits(window=10, min_calls=4, failure_ratio=0.5, open_for=30)
CLOSED, HALF_OPEN, OPEN = State.CLOSED, State.HALF_OPEN, State.OPEN


def closed() -> Breaker:
    return Breaker(LIMITS)


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(LIMITS)
    for _ in range(4):
        assert breaker.admits(at)
        breaker.report(at, succeeded=False)
    assert breaker.state is OPEN
    return breaker


def probing(at: float = 30.0) -> Breaker:
    breaker = opened()
    assert breaker.admits(at)
    assert breaker.state is HALF_OPEN
    return breaker


@pytest.mark.parametrize(
    ("before", "signal", "answer", "after"),
    [
        (closed, lambda b: b.admits(1.0), True, CLOSED),
        (closed, lambda b: b.report(1.0, succeeded=True), None, CLOSED),
        (closed, lambda b: b.report(1.0, succeeded=False), None, CLOSED),
        (closed, lambda b: [b.report(1.0, succeeded=False) for _ in range(4)][-1], None, OPEN),
        (opened, lambda b: b.admits(0.0), False, OPEN),
        (opened, lambda b: b.admits(29.9), False, OPEN),
        (opened, lambda b: b.admits(30.0), True, HALF_OPEN),
        (opened, lambda b: b.admits(1e9), True, HALF_OPEN),
        # Calls that were admitted before it opened report late; only a probe closes it.
        (opened, lambda b: b.report(1.0, succeeded=True), None, OPEN),
        (opened, lambda b: b.report(1.0, succeeded=False), None, OPEN),
        (probing, lambda b: b.admits(30.0), False, HALF_OPEN),
        (probing, lambda b: b.admits(59.9), False, HALF_OPEN),
        # A probe that never reported does not hold the door shut for ever.
        (probing, lambda b: b.admits(60.0), True, HALF_OPEN),
        (probing, lambda b: b.report(31.0, succeeded=True), None, CLOSED),
        (probing, lambda b: b.report(31.0, succeeded=False), None, OPEN),
    ],
)
def test_every_state_with_every_signal(before, signal, answer, after):
    breaker = before()
    assert signal(breaker) is answer
    assert breaker.state is after


@pytest.mark.parametrize(
    ("succeeded", "failed", "after"),
    [
        (0, 3, CLOSED),  # Fewer than min_calls.
        (0, 4, OPEN),
        (2, 2, CLOSED),  # Half is not more than half.
        (2, 3, OPEN),
        (50, 50, CLOSED),
        (50, 51, OPEN),
    ],
)
def test_it_opens_when_more_than_the_ratio_of_enough_calls_failed(succeeded, failed, after):
    breaker = closed()
    for _ in range(succeeded):
        breaker.report(0.0, succeeded=True)
    for _ in range(failed):
        breaker.report(0.0, succeeded=False)
    assert breaker.state is after


def test_what_is_older_than_the_window_is_forgotten():
    breaker = closed()
    for _ in range(3):
        breaker.report(0.0, succeeded=False)
    breaker.report(10.0, succeeded=False)
    assert breaker.state is CLOSED


def test_old_successes_do_not_hide_new_failures():
    breaker = closed()
    for _ in range(100):
        breaker.report(0.0, succeeded=True)
    for moment in (11.0, 11.1, 11.2, 11.3):
        breaker.report(moment, succeeded=False)
    assert breaker.state is OPEN


def test_after_a_good_probe_the_memory_is_empty():
    breaker = probing()
    breaker.report(31.0, succeeded=True)
    for _ in range(3):
        breaker.report(31.0, succeeded=False)
    assert breaker.state is CLOSED


def test_after_a_bad_probe_the_wait_begins_anew():
    breaker = probing(30.0)
    breaker.report(40.0, succeeded=False)
    assert not breaker.admits(69.9)
    assert breaker.admits(70.0)


steps = st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["ask", "good", "bad"])), max_size=60)


@given(steps)
def test_for_any_history_an_open_breaker_lets_one_probe_through_per_open_for(history):
    breaker = closed()
    now = 0.0
    last_let_through = None
    for pause, what in history:
        now += pause
        before = breaker.state
        if what == "ask":
            if breaker.admits(now) and before is not CLOSED:
                if before is HALF_OPEN:
                    assert now - last_let_through >= LIMITS.open_for
                last_let_through = now
        else:
            breaker.report(now, succeeded=what == "good")
    # Whatever happened, it opens again some day: nobody is shut out for ever. (One second for the rounding of floats.)
    assert breaker.admits(now + LIMITS.open_for + 1)
