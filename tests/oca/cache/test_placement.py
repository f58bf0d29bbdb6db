"""Weighted rendezvous: shares in proportion, and little moves when a device comes or goes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.placement import ranked_devices

KEYS = [number.to_bytes(28, "big") for number in range(4000)]


@pytest.mark.parametrize("weights", [{0: 1.0, 1: 1.0}, {0: 1.0, 1: 2.0, 2: 5.0}, {3: 8e12, 7: 2e12}])
def test_a_device_wins_its_share(weights):
    wins = Counter(ranked_devices(key, weights)[0] for key in KEYS)
    total = sum(weights.values())
    for number, weight in weights.items():
        assert wins[number] / len(KEYS) == pytest.approx(weight / total, abs=0.025)


def test_a_new_device_takes_only_its_share_and_nothing_moves_among_the_others():
    before = {key: ranked_devices(key, {0: 1.0, 1: 1.0, 2: 2.0})[0] for key in KEYS}
    after = {key: ranked_devices(key, {0: 1.0, 1: 1.0, 2: 2.0, 3: 1.0})[0] for key in KEYS}
    moved = {key for key in KEYS if before[key] != after[key]}
    assert {after[key] for key in moved} == {3}
    assert len(moved) / len(KEYS) == pytest.approx(1 / 5, abs=0.025)


def test_the_keys_of_a_lost_device_go_to_their_second_choice():
    for key in KEYS[:200]:
        first, *others = ranked_devices(key, {0: 1.0, 1: 3.0, 2: 2.0})
        left = {number: weight for number, weight in {0: 1.0, 1: 3.0, 2: 2.0}.items() if number != first}
        assert ranked_devices(key, left) == others


def test_the_places_of_known_keys_never_change():
    # Another answer here would mean that an update of the software moves every extent.
    weights = {0: 1.0, 1: 1.0, 2: 2.0}
    assert [ranked_devices(key, weights)[0] for key in KEYS[:12]] == [1, 2, 1, 0, 2, 1, 2, 0, 1, 1, 2, 1]


@given(st.binary(min_size=28, max_size=28), st.dictionaries(st.integers(0, 65535), st.floats(0, 1e15), max_size=8))
def test_all_devices_with_weight_are_ranked_once_and_always_alike(key, weights):
    ranked = ranked_devices(key, weights)
    assert sorted(ranked) == sorted(number for number, weight in weights.items() if weight > 0)
    assert ranked_devices(key, dict(reversed(weights.items()))) == ranked


def test_without_devices_there_is_no_place():
    assert ranked_devices(KEYS[0], {}) == []
