"""Ghosts: the lately gone are known by name, those gone long ago are not."""

import random

from hypothesis import given
from hypothesis import strategies as st

from oca.cache.ghosts import Ghosts


def names(count, seed=1):
    dice = random.Random(seed)
    return [(dice.getrandbits(32), dice.getrandbits(32)) for _ in range(count)]


def test_what_went_is_known_until_it_returns():
    ghosts = Ghosts()
    ghosts.remember(7, 1, 100)
    assert ghosts.knows(7, 1)
    ghosts.forget(7, 1)
    assert not ghosts.knows(7, 1)


def test_the_same_name_in_another_group_is_another():
    ghosts = Ghosts()
    ghosts.remember(7, 1, 100)
    assert not ghosts.knows(7, 2)
    assert not ghosts.knows(8, 1)


def test_the_last_ones_are_known_and_the_first_ones_not():
    ghosts = Ghosts()
    gone = names(20_000)
    for name, group in gone:
        ghosts.remember(name, group, 1024)
    # One in five falls on the place of another.
    assert sum(ghosts.knows(*pair) for pair in gone[-1000:]) > 750
    assert not any(ghosts.knows(*pair) for pair in gone[:10_000])


def test_more_entries_make_the_next_table_larger():
    ghosts = Ghosts()
    gone = names(200_000)
    for name, group in gone:
        ghosts.remember(name, group, 50_000)
    assert sum(ghosts.knows(*pair) for pair in gone[-50_000:]) > 35_000


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), unique=True, min_size=1, max_size=50))
def test_a_name_may_be_lost_but_is_not_made_up(pairs):
    ghosts = Ghosts()
    for name, group in pairs[:-1]:
        ghosts.remember(name, group, 100)
    if ghosts.knows(*pairs[-1]):
        rows = {(name or 1, (name ^ group) & 1023) for name, group in pairs[:-1]}
        name, group = pairs[-1]
        assert (name or 1, (name ^ group) & 1023) in rows


def test_a_dump_brings_them_back():
    ghosts, later = Ghosts(), Ghosts()
    gone = names(5000)
    for name, group in gone:
        ghosts.remember(name, group, 4096)
    later.restore(*ghosts.dump())
    assert [later.knows(*pair) for pair in gone] == [ghosts.knows(*pair) for pair in gone]
