"""Token buckets: what a network may ask, whatever the others do."""

from hypothesis import given
from hypothesis import strategies as st

from steering.limits import Buckets


def test_a_burst_is_let_through_and_then_the_rate():
    buckets = Buckets(rate=2.0, burst=3.0, most=10)
    assert [buckets.take(b"a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take(b"a", 0.0) == 0.5
    assert buckets.take(b"a", 0.5) == 0.0
    assert buckets.take(b"a", 0.5) == 0.5


def test_one_network_does_not_use_up_anothers():
    buckets = Buckets(rate=1.0, burst=1.0, most=10)
    assert buckets.take(b"a", 0.0) == 0.0
    assert buckets.take(b"a", 0.0) > 0.0
    assert buckets.take(b"b", 0.0) == 0.0


def test_a_bucket_never_holds_more_than_a_burst_however_long_it_rests():
    buckets = Buckets(rate=100.0, burst=2.0, most=10)
    buckets.take(b"a", 0.0)
    assert [buckets.take(b"a", 1e9) for _ in range(3)] == [0.0, 0.0, 0.01]


def test_beyond_the_most_the_longest_unused_is_forgotten():
    buckets = Buckets(rate=0.001, burst=1.0, most=2)
    buckets.take(b"a", 0.0)
    buckets.take(b"b", 1.0)
    assert buckets.take(b"a", 2.0) > 0.0
    buckets.take(b"c", 3.0)
    assert len(buckets) == 2
    assert buckets.take(b"a", 4.0) > 0.0, "a was used later than b"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.floats(0.5, 50), st.floats(1, 20))
def test_nobody_ever_gets_more_than_a_burst_and_the_rate(moments, rate, burst):
    buckets = Buckets(rate, burst, 10)
    moments.sort()
    given_out = sum(buckets.take(b"a", moment) == 0.0 for moment in moments)
    assert given_out <= burst + rate * (moments[-1] - moments[0]) + 1e-6


def test_a_clock_that_goes_back_takes_nothing_away():
    buckets = Buckets(rate=1.0, burst=2.0, most=10)
    buckets.take(b"a", 100.0)
    assert buckets.take(b"a", 50.0) == 0.0
