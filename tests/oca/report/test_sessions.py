"""Sessions, by numbers that name nobody."""

from hypothesis import given
from hypothesis import strategies as st

from oca.report.sessions import USED_WITHIN, Sessions


def test_a_session_begins_once_and_is_in_use_for_a_minute():
    sessions = Sessions()
    sessions.heard([1, 2, 1], 0.0)
    sessions.heard([1], 50.0)
    assert sessions.begun == 2
    assert sessions.in_use(USED_WITHIN) == 2
    assert sessions.in_use(USED_WITHIN + 1) == 1
    assert sessions.in_use(USED_WITHIN + 51) == 0


def test_who_comes_back_after_half_an_hour_begins_anew():
    sessions = Sessions()
    sessions.heard([1], 0.0)
    sessions.heard([2], 1801.0)
    sessions.heard([1], 1802.0)
    assert sessions.begun == 3


def test_sessions_that_go_on_over_midnight_do_not_begin_again():
    sessions = Sessions()
    sessions.heard([1, 2, 3], 0.0)
    sessions.renumber(10.0)
    sessions.heard([11, 12, 13], 11.0)
    assert sessions.begun == 3
    sessions.heard([14], 12.0)
    assert sessions.begun == 4
    assert sessions.in_use(12.0) == 4


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100))))
def test_never_more_are_in_use_than_began(steps):
    sessions, now = Sessions(), 0.0
    for number, wait in steps:
        now += wait
        sessions.heard([number], now)
        assert 1 <= sessions.in_use(now) <= min(6, sessions.begun)
