"""Replicas of steering: when each is told, what is news, and what all of them together order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.report.replicas import Outcome, Replica, drains
from wire.heartbeat import HeartbeatAnswer


def replica(*, interval=5.0):
    return Replica(0, "http://steer/", interval)


def test_a_replica_is_told_at_once_and_then_in_its_interval():
    one = replica()
    assert one.is_due(0.0)
    one.answered(HeartbeatAnswer(), 100.0)
    assert not one.is_due(101.0)
    assert one.is_due(104.99)


def test_steering_may_ask_for_fewer_heartbeats_but_not_for_more():
    one = replica()
    one.answered(HeartbeatAnswer(interval=20.0), 100.0)
    assert not one.is_due(110.0)
    assert one.is_due(119.99)
    one.answered(HeartbeatAnswer(interval=1.0), 200.0)
    assert not one.is_due(201.0)


@pytest.mark.parametrize(
    ("outcome", "early", "due"),
    [(Outcome.LATE, 101.0, 105.0), (Outcome.FAILED, 101.0, 105.0), (Outcome.REFUSED, 120.0, 130.0)],
)
def test_who_refuses_is_asked_less_often(outcome, early, due):
    one = replica()
    one.failed(outcome, "no", 100.0)
    assert not one.is_due(early)
    assert one.is_due(due)


def test_news_is_what_changes():
    one = replica()
    assert one.failed(Outcome.LATE, "no answer", 0.0)
    assert not one.failed(Outcome.LATE, "no answer within 4 s", 5.0)
    assert one.failed(Outcome.REFUSED, "401", 10.0)
    assert one.answered(HeartbeatAnswer(), 15.0)
    assert one.error == ""
    assert not one.answered(HeartbeatAnswer(), 20.0)
    assert one.failed(Outcome.LATE, "no answer", 25.0)


def said(*words):
    """Replicas that last answered at a moment, with a drain or not; None never did."""
    replicas = []
    for word in words:
        one = replica()
        if word is not None:
            one.answered(HeartbeatAnswer(drain=word[1]), word[0])
        replicas.append(one)
    return replicas


@pytest.mark.parametrize(
    ("words", "before", "after"),
    [
        ((), True, True),
        ((None, None), True, True),
        ((None, None), False, False),
        (((0, True),), False, True),
        (((0, False),), True, False),
        (((0, True), (5, False)), False, True),
        (((0, False), (5, True)), False, True),
        # The first has not been heard for more than a minute: the second knows better.
        (((0, True), (61, False)), True, False),
        (((0, False), (61, True)), False, True),
        # All are silent: what was last said holds.
        (((0, True), None), True, True),
        (((0, True), (30, True)), False, True),
    ],
)
def test_what_all_together_order(words, before, after):
    assert drains(said(*words), before=before) is after


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), min_size=1), st.booleans())
def test_what_the_newest_word_orders_is_done(words, before):
    newest = max(at for at, _ in words)
    if any(drain for at, drain in words if at == newest):
        assert drains(said(*words), before=before)
    if not any(drain for _, drain in words):
        assert not drains(said(*words), before=before)
