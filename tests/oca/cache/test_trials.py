"""Trials: a short memory is chosen where recency rules, a long one where popularity does."""

import random

import pytest

from oca.cache.trials import HALF_LIVES, Trials

NOW = 1_750_000_000.0


def chosen(trace, capacity: int, seconds: float) -> float:
    trials = Trials(1.0)
    for number, film in enumerate(trace):
        # Names that take part: their low bits are zero.
        trials.read((film * 0x9E3779B1 & 0xFFFFFF) << 8, 1, capacity << 5, NOW + number * seconds)
    return trials.half_life


def test_popular_films_are_counted_for_long():
    dice = random.Random(1)
    films = range(5000)
    trace = dice.choices(films, [1 / (rank + 1) for rank in films], k=20_000)
    assert chosen(trace, 200, 60.0) >= 13 * 3600


def test_what_goes_round_is_forgotten_soon():
    dice = random.Random(1)
    stack, trace = list(range(100)), []
    for number in range(20_000):
        item = 1000 + number if dice.random() < 0.3 else stack.pop(-1 - int(min(dice.expovariate(1 / 40), 90)))
        stack.append(item)
        trace.append(item)
        del stack[:-200]
    assert chosen(trace, 100, 60.0) <= 1.5 * 3600


def test_a_cache_that_grows_is_tried_on_a_smaller_sample():
    trials = Trials(1.0)
    before = trials.mask
    for number in range(6000):
        trials.read(number << 8, 1, 1 << 40, NOW + number)
    assert trials.mask > before
    assert max(len(trial) for trial in trials._trials) <= 4096


def test_a_cache_too_small_for_a_sample_chooses_nothing():
    trials = Trials(1.0)
    for number in range(1000):
        trials.read(number % 7 << 8, 10, 64, NOW + number)
    assert trials.half_life == HALF_LIVES[3]


@pytest.mark.parametrize(
    ("missed", "chosen"),
    [
        ((0.95, 0.95, 0.98, 1.0), 0),
        ((0.97, 0.97, 0.98, 1.0), 3),
        ((1.2, 1.1, 0.95, 1.0), 3),
        ((1.2, 1.1, 0.85, 1.0), 2),
    ],
)
def test_from_a_long_memory_to_a_short_one_a_little_better_is_enough(missed, chosen):
    trials = Trials(1.0)
    trials.restore(3, tuple(1e6 * share for share in missed))
    for number in range(1024):
        trials.read(number << 8, 1, 1 << 30, NOW + number)
    assert trials.chosen == chosen
