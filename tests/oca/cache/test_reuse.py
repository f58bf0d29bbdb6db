"""Reuse: a rule about newcomers is followed where it holds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.reuse import Reuse

NOW = 1_750_000_000
STAY = 1000


def followed(promising: float, doubtful: float, count: int = 1000) -> Reuse:
    """So many of each kind are read again in time."""
    dice = random.Random(1)
    reuse = Reuse()
    for number in range(count):
        kind = bool(number % 2)
        reuse.come(number << 8, kind, NOW + number, STAY)
        if dice.random() < (promising if kind else doubtful):
            reuse.read(number << 8)
    return reuse


def test_doubt_is_right_where_the_doubtful_are_read_again_less():
    assert followed(0.5, 0.2).is_doubt_right


def test_doubt_is_wrong_where_they_are_read_again_as_often():
    assert not followed(0.5, 0.5).is_doubt_right


def test_doubt_is_wrong_where_nothing_is_read_again():
    assert not followed(0.0, 0.0).is_doubt_right


def test_a_few_prove_nothing():
    assert not followed(0.5, 0.0, count=60).is_doubt_right


def test_what_was_right_once_is_given_up_when_it_is_not_any_more():
    reuse = followed(0.5, 0.1)
    for number in range(4000):
        reuse.come(1 << 20 | number << 8, bool(number % 2), NOW + 1000 + number, STAY)
        if number % 4 < 2:
            reuse.read(1 << 20 | number << 8)
    assert not reuse.is_doubt_right


def test_what_is_read_when_it_would_have_gone_does_not_count():
    reuse = Reuse()
    for number in range(1000):
        kind = bool(number % 2)
        reuse.come(number << 8, kind, NOW + number, 10)
        if kind and number > 20:
            reuse.read(number - 20 << 8)
    assert not reuse.is_doubt_right
    assert len(reuse) <= 11


def came_twice(seconds: int) -> Reuse:
    reuse = Reuse()
    for number in range(400):
        reuse.come(number << 8, bool(number % 2), NOW + number * 200, 1000)
        if number % 2:
            reuse.come(number << 8, True, NOW + number * 200 + seconds, 1000)
    return reuse


def test_one_that_comes_again_was_read_again():
    assert came_twice(150).is_doubt_right


def test_the_blocks_of_an_extent_are_one_newcomer():
    assert not came_twice(4).is_doubt_right


def test_what_was_concluded_survives_a_restart():
    later = Reuse()
    later.restore(followed(0.5, 0.2).dump())
    assert later.is_doubt_right
    with pytest.raises(ValueError, match="read again"):
        later.restore(b"")


@given(st.integers(1, 40_000))
def test_however_long_they_stay_a_bounded_number_is_followed(count):
    reuse = Reuse()
    for number in range(count):
        name = number * 0x9E3779B1 & 0xFFFFFFFF
        if not name & reuse.mask:
            reuse.come(name, True, NOW + number, 1 << 30)
    assert len(reuse) <= 4096
