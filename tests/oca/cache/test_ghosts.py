"""Ghosts: what went is known with its heat, the hot for longer than the cold."""

import random

from hypothesis import given
from hypothesis import strategies as st

from oca.cache.ghosts import Ghosts

NOW = 1_750_000_000
RATE = 256 / 86400


def names(count, seed=1):
    dice = random.Random(seed)
    return [(dice.getrandbits(32), dice.getrandbits(32)) for _ in range(count)]


def remember(ghosts, pairs, heat=0, now=NOW):
    for name, group in pairs:
        ghosts.remember(name, group, heat, now, now, RATE)


def known(ghosts, pairs):
    return sum(ghosts.place_of(*pair) >= 0 for pair in pairs)


def test_what_went_is_known_with_its_heat_until_it_returns():
    ghosts = Ghosts(1 << 15)
    ghosts.remember(7, 1, 512, NOW - 3600, NOW, RATE)
    place = ghosts.place_of(7, 1)
    assert ghosts.heat(place) == 512
    assert 3500 <= ghosts.age(place, NOW) <= 3700
    ghosts.forget(place)
    assert ghosts.place_of(7, 1) < 0


def test_the_same_name_in_another_group_is_another():
    ghosts = Ghosts(1 << 15)
    remember(ghosts, [(7, 1)])
    assert ghosts.place_of(7, 2) < 0
    assert ghosts.place_of(8, 1) < 0


def test_a_crowd_of_cold_names_does_not_drive_out_the_hot():
    ghosts = Ghosts(1 << 15)
    hot = names(2000)
    remember(ghosts, hot, heat=1024)
    remember(ghosts, names(200_000, seed=2))
    assert known(ghosts, hot) > 1800


def test_the_hot_are_forgotten_once_they_have_cooled():
    ghosts = Ghosts(1 << 15)
    hot = names(2000)
    remember(ghosts, hot, heat=512)
    remember(ghosts, names(200_000, seed=2), now=NOW + 9 * 86400)
    assert known(ghosts, hot) < 200


def test_a_larger_table_knows_what_the_smaller_one_knew():
    ghosts = Ghosts(1 << 15)
    gone = names(5000)
    remember(ghosts, gone)
    before = known(ghosts, gone)
    ghosts.hold(200_000)
    assert ghosts.places == 262_144
    assert known(ghosts, gone) >= before
    more = names(100_000, seed=2)
    remember(ghosts, more)
    assert known(ghosts, more) > 85_000


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), unique=True, min_size=1, max_size=50))
def test_a_name_may_be_lost_but_is_not_made_up(pairs):
    ghosts = Ghosts(1 << 15)
    remember(ghosts, pairs[:-1])
    name, group = pairs[-1]
    if ghosts.place_of(name, group) >= 0:
        assert name >> 16 or 1 in {other >> 16 or 1 for other, _ in pairs[:-1]}


def test_a_dump_brings_them_back():
    ghosts, later = Ghosts(1 << 15), Ghosts(1 << 15)
    gone = names(5000)
    remember(ghosts, gone, heat=300)
    later.restore(*ghosts.dump())
    assert [later.place_of(*pair) for pair in gone] == [ghosts.place_of(*pair) for pair in gone]
