"""Visits: which of its renditions the viewers of a title take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.keys import grouped
from oca.cache.visits import Visits

NOW = 1_750_000_000
HOUR = 3600
USUAL, OTHER = grouped(7, 1), grouped(7, 2)


def visited(*groups: int) -> Visits:
    """An hour apart."""
    visits = Visits()
    for number, group in enumerate(groups):
        visits.read(group, NOW + number * HOUR)
    return visits


def test_the_first_that_is_taken_is_usual():
    assert visited(USUAL).is_usual(USUAL)


def test_what_is_taken_less_than_half_as_often_is_not_usual():
    visits = visited(USUAL, USUAL, OTHER)
    assert visits.is_usual(USUAL)
    assert not visits.is_usual(OTHER)


def test_what_catches_up_is_usual_again():
    assert visited(USUAL, USUAL, OTHER, OTHER).is_usual(OTHER)


def test_of_a_title_that_changes_its_rendition_the_new_one_is_usual_soon():
    visits = visited(*[USUAL] * 100, *[OTHER] * 8)
    assert visits.is_usual(OTHER)


def test_a_visit_counts_once_however_much_is_read():
    visits = visited(USUAL)
    for second in range(0, HOUR, 4):
        visits.read(USUAL, NOW + second)
    visits.read(OTHER, NOW + HOUR)
    assert visits.is_usual(OTHER)


def test_titles_do_not_know_of_each_other():
    visits = visited(*[USUAL] * 10, grouped(8, 2))
    assert visits.is_usual(grouped(8, 2))


def test_what_is_not_known_is_usual():
    assert visited(*[USUAL] * 10).is_usual(OTHER)


def test_of_three_on_one_pair_of_places_the_one_left_alone_for_longest_is_given_up():
    places = len(Visits())
    groups = [grouped(7, 2) + number * places for number in range(3)]
    rivals = [group + 4 * (number + 1) for number, group in enumerate(groups)]
    # Each stands behind a rival of its title; one that is not known any more is not.
    visits = visited(*rivals, *rivals, *groups)
    assert [visits.is_usual(group) for group in groups] == [True, False, False]


def test_all_count_half_after_many_visits():
    visits = visited(*[USUAL] * 12, *[OTHER] * 2)
    assert not visits.is_usual(OTHER)
    visits._left = 1
    visits.read(grouped(9, 9), NOW)
    for hour in range(20, 22):
        visits.read(OTHER, NOW + hour * HOUR)
    assert not visits.is_usual(OTHER)
    visits.read(OTHER, NOW + 23 * HOUR)
    assert visits.is_usual(OTHER)


def test_a_table_that_grows_forgets_nothing():
    visits = visited(USUAL, USUAL, OTHER)
    visits.hold(3 * len(visits))
    assert visits.is_usual(USUAL)
    assert not visits.is_usual(OTHER)


def test_a_dump_brings_them_back():
    visits, later = visited(USUAL, USUAL, OTHER), Visits()
    visits.hold(2 * len(visits))
    later.restore(*visits.dump())
    assert later.dump() == visits.dump()
    assert not later.is_usual(OTHER)


@pytest.mark.parametrize("lost", range(4))
def test_a_dump_of_another_size_is_refused(lost):
    columns = list(Visits().dump())
    columns[lost] = columns[lost][:-2]
    with pytest.raises(ValueError, match="places"):
        Visits().restore(*columns)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 7200)), max_size=60))
def test_of_every_title_that_is_watched_some_rendition_is_usual(plays):
    visits = Visits()
    second = NOW
    seen: dict[int, set[int]] = {}
    for title, rendition, later in plays:
        second += later
        group = grouped(title, rendition)
        visits.read(group, second)
        seen.setdefault(title, set()).add(group)
        assert all(any(map(visits.is_usual, groups)) for groups in seen.values())
