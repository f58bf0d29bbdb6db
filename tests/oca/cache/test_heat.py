"""Heat: a logarithm of readings that fade, and the laws of adding them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.heat import DOUBLING, steps_a_second, together, warmed


def test_readings_at_once_are_counted():
    heat = 0
    for count in range(2, 40):
        heat = warmed(heat)
        assert heat == pytest.approx(DOUBLING * math.log2(count), abs=count)


def test_after_a_half_life_a_reading_counts_half():
    assert warmed(-DOUBLING) == pytest.approx(DOUBLING * math.log2(1.5), abs=1)
    assert warmed(DOUBLING - DOUBLING) == DOUBLING


def test_what_is_long_ago_counts_nothing_and_what_is_very_hot_stays():
    assert warmed(-(10**9)) == 0
    assert warmed(50_000) == 50_000


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_together_is_hotter_than_each_and_at_most_twice(value, other):
    both = together(value, other)
    assert max(value, other) <= both <= max(value, other) + DOUBLING
    assert both == pytest.approx(together(other, value), abs=1)


def test_values_of_a_short_half_life_are_in_the_order_of_the_last_reading():
    rate = steps_a_second(600)
    often, lately = 10_000 * rate + warmed(warmed(warmed(0))), 13_000 * rate
    assert lately > often
    rate = steps_a_second(86400)
    often, lately = 10_000 * rate + warmed(warmed(warmed(0))), 13_000 * rate
    assert often > lately
