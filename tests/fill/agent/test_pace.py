"""How fast the agent may go: never above its cap for long, and less while viewers need more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fill.agent.pace import Pace, is_pressed

MB = 1_000_000


def spent(pace, until, count=MB, step=0.1):
    """Bytes that may be asked for until then, by one who asks whenever it may."""
    now, total = 0.0, 0
    while now < until:
        while pace.take(count, now) == 0:
            total += count
        now += step
    return total


def test_over_time_it_is_the_cap_and_no_more():
    assert spent(Pace(10 * MB, 0.0), 100) == pytest.approx(1000 * MB, rel=0.03)


def test_what_may_not_be_asked_for_yet_costs_nothing_and_says_when():
    pace = Pace(10 * MB, 0.0)
    assert pace.take(70 * MB, 0.0) == 0
    wait = pace.take(MB, 0.0)
    assert wait == pytest.approx(6.75, abs=0.01)
    assert pace.take(MB, wait) == 0


def test_what_was_held_already_is_given_back():
    pace = Pace(10 * MB, 0.0)
    assert pace.take(70 * MB, 0.0) == 0
    pace.give_back(70 * MB, 0.0)
    assert pace.take(MB, 0.0) == 0


def test_it_gives_way_at_once_and_comes_back_slowly():
    pace = Pace(10 * MB, 0.0)
    for _ in range(3):
        pace.give_way(0.0)
    assert pace.share == 1 / 8
    shares = []
    for _ in range(12):
        pace.go_on(0.0)
        shares.append(round(pace.share, 3))
    assert shares == [0.225, 0.325, 0.425, 0.525, 0.625, 0.725, 0.825, 0.925, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("rate", "span"), [(1, 4), (39, 4), (80, 8), (99, 8), (10**6, 64)])
def test_what_is_asked_for_at_a_time_is_a_tenth_of_a_second_within_bounds(rate, span):
    assert Pace(rate, 0.0).span(4, 64) == span


def test_it_never_stops():
    pace = Pace(64 * MB, 0.0)
    for _ in range(100):
        pace.give_way(0.0)
    assert pace.rate == MB
    assert spent(pace, 1000, step=1.0) >= 1000 * MB


def test_a_clock_that_goes_back_gives_nothing_twice():
    pace = Pace(10 * MB, 100.0)
    assert pace.take(30 * MB, 100.0) == 0
    wait = pace.take(MB, 50.0)
    assert wait == pytest.approx(2.75, abs=0.01)
    assert pace.take(MB, 100.0) > 0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50), st.sampled_from(["take", "way", "on"])), max_size=60))
def test_whatever_happens_no_more_than_cap_and_burst_and_one_span_goes_out(steps):
    pace, now, out = Pace(10.0, 0.0), 0.0, 0
    for pause, count, what in steps:
        now += pause
        if what == "way":
            pace.give_way(now)
        elif what == "on":
            pace.go_on(now)
        elif pace.take(count, now) == 0:
            out += count
        assert out <= 10 * now + 20 + 50


@pytest.mark.parametrize(
    ("egress", "link", "waited_for", "pressed"),
    [
        (0, 0, 0, False),
        (10**9, 0, 0, False),
        (70, 100, 0, False),
        (71, 100, 0, True),
        (0, 100, 1, True),
        (0, 0, 2, True),
    ],
)
def test_viewers_need_more_when_the_link_is_theirs_or_a_disk_is_waited_for(egress, link, waited_for, pressed):
    assert is_pressed(egress, link, 0.7, waited_for) is pressed
