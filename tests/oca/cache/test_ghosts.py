"""Ghosts: what went is known with its heat, the hot for longer than the cold."""

import random

from hypothesis import given
from hypothesis import strategies as st

from oca.cache import ghosts as known_as
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
    return sum(ghosts.known(*pair) > 0 for pair in pairs)


def test_what_went_is_known_with_its_heat_until_it_returns():
    ghosts = Ghosts(1 << 15)
    ghosts.remember(7, 1, 512, NOW - 3600, NOW, RATE)
    known = ghosts.known(7, 1)
    assert known_as.heat(known) == 512
    assert 3400 <= known_as.age(known, NOW) <= 3800
    assert ghosts.take(7, 1) == known
    assert not ghosts.known(7, 1)
    assert not ghosts.take(7, 1)


@given(st.integers(0, 4000))
def test_a_heat_is_kept_to_the_nearest_sixteenth_of_a_doubling(heat):
    ghosts = Ghosts(1 << 4)
    ghosts.remember(7, 1, heat, NOW, NOW, RATE)
    assert abs(known_as.heat(ghosts.known(7, 1)) - heat) <= 16


def test_the_same_name_in_another_group_is_another():
    ghosts = Ghosts(1 << 15)
    remember(ghosts, [(7, 1)])
    assert not ghosts.known(7, 2)
    assert not ghosts.known(8, 1)


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
    for names_held in range(40_000, 200_001, 10_000):
        ghosts.hold(names_held)
        assert names_held <= ghosts.places < 1.13 * names_held
        assert known(ghosts, gone) >= before
    more = names(100_000, seed=2)
    remember(ghosts, more)
    assert known(ghosts, more) > 80_000


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), unique=True, min_size=1, max_size=50))
def test_a_name_may_be_lost_but_is_not_made_up(pairs):
    ghosts = Ghosts(1 << 15)
    remember(ghosts, pairs[:-1])
    name, group = pairs[-1]
    if ghosts.known(name, group):
        assert (name >> 22 or 1) in {other >> 22 or 1 for other, _ in pairs[:-1]}


def test_a_dump_brings_them_back():
    ghosts, later = Ghosts(1 << 15), Ghosts(1 << 15)
    ghosts.hold(50_000)
    gone = names(5000)
    remember(ghosts, gone, heat=300)
    later.restore(b"".join(ghosts.dump(ghosts.places)))
    assert [later.known(*pair) for pair in gone] == [ghosts.known(*pair) for pair in gone]
