"""How a viewer of a crowd chooses, and what it sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.crowd.model import Screen, Showing, Throughput, next_step

RATES = [400_000, 1_000_000, 3_000_000]


def test_before_anything_was_measured_nothing_is_known():
    assert Throughput().bps is None


@given(st.lists(st.tuples(st.integers(1, 10_000_000), st.floats(0.001, 60)), min_size=1, max_size=20))
def test_the_estimate_lies_within_what_was_measured(files):
    line = Throughput()
    for size, seconds in files:
        line.measured(size, seconds)
    rates = [size * 8 / seconds for size, seconds in files]
    assert min(rates) * 0.999 <= line.bps <= max(rates) * 1.001


def test_a_line_that_breaks_down_is_noticed_sooner_than_one_that_recovers():
    line = Throughput()
    for _ in range(20):
        line.measured(1_000_000, 2.0)
    line.measured(100_000, 4.0)
    fallen = line.bps
    assert fallen < 3_000_000
    line.measured(2_000_000, 2.0)
    assert line.bps < 8_000_000


@pytest.mark.parametrize(
    ("current", "bps", "buffer", "step"),
    [
        (1, None, 0, 1),
        (0, 50_000_000, 20, 1),
        (1, 50_000_000, 20, 2),
        (2, 500_000, 20, 0),
        (2, 100_000, 20, 0),
        (2, 3_200_000, 20, 2),
        (2, 3_200_000, 5, 1),
        (1, 3_000_000, 20, 1),
    ],
)
def test_what_is_fetched_next(current, bps, buffer, step):
    assert next_step(RATES, current, bps, buffer) == step


@given(st.integers(0, 2), st.floats(1, 1e9), st.floats(0, 60), st.floats(0, 60))
def test_a_fuller_buffer_never_asks_for_less(current, bps, one, other):
    less, more = sorted((one, other))
    assert next_step(RATES, current, bps, less) <= next_step(RATES, current, bps, more) <= current + 1


def test_a_film_starts_with_its_first_segment_and_plays_it():
    screen = Screen(100.0)
    screen.fetched(4.0, 100.5)
    assert (screen.start_seconds, screen.state) == (0.5, Showing.PLAYING)
    assert screen.buffer(102.5) == pytest.approx(2.0)
    assert screen.played_seconds == pytest.approx(2.0)


def test_what_has_nothing_left_to_show_stalls_once_until_there_is_enough():
    screen = Screen(0.0)
    screen.fetched(4.0, 0.0)
    assert screen.buffer(5.0) == 0
    assert (screen.state, screen.stalls) == (Showing.STALLED, 1)
    screen.fetched(1.0, 6.0)
    assert screen.state is Showing.STALLED
    screen.fetched(1.0, 7.0)
    assert screen.state is Showing.PLAYING
    assert screen.stalled_seconds == pytest.approx(3.0)
    assert [screen.starved(), screen.starved()] == [True, False]


def test_the_end_of_the_film_is_no_stall():
    screen = Screen(0.0)
    screen.is_last_fetched = True
    screen.fetched(4.0, 0.0)
    screen.buffer(60.0)
    assert (screen.stalls, screen.played_seconds) == (0, 4.0)


def test_who_goes_elsewhere_in_the_film_does_not_stall():
    screen = Screen(0.0)
    screen.fetched(4.0, 0.0)
    screen.seek(1.0)
    assert screen.buffer(3.0) == 0
    screen.fetched(1.0, 3.0)
    assert (screen.state, screen.stalls) == (Showing.PLAYING, 0)
    assert screen.played_seconds == pytest.approx(1.0)


@given(st.lists(st.tuples(st.floats(0, 10), st.sampled_from([0.0, 2.0, 4.0])), max_size=30))
def test_time_is_played_stalled_or_waited_for_and_never_twice(steps):
    screen, now, fetched = Screen(0.0), 0.0, 0.0
    for wait, seconds in steps:
        now += wait
        if seconds:
            screen.fetched(seconds, now)
            fetched += seconds
        left = screen.buffer(now)
        assert screen.played_seconds + left == pytest.approx(fetched)
    assert screen.played_seconds + screen.stalled_seconds + (screen.start_seconds or 0) <= now + 1e-6
