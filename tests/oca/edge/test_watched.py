"""What a worker counts of what it sent, until the keeper was told."""

import gc

from oca.counters import PLACES
from oca.edge.watched import Audience, unwatched
from oca.report.demand import TIERS


def told(audience, most=10_000_000):
    return dict(audience.take(most))


def test_the_places_of_bytes_are_those_of_the_counters():
    assert tuple(PLACES) == TIERS


def test_objects_of_a_folder_are_counted_together_and_from_0_after_they_were_told():
    audience = Audience()
    one, other = audience.of("/titles/x/720p/init.mp4"), audience.of("/titles/x/720p/seg-1.m4s")
    one.hit(0, 100, 1)
    other.hit(2, 50, 0)
    other.hit_began(0)
    other.sent(3, 7)
    other.miss_began(1)
    other.passed_on(9)
    assert told(audience) == {"/titles/x/720p": [3, 1, 100, 0, 50, 7, 1, 1, 9, 0, 0, 0]}
    assert told(audience) == {}
    other.sent(0, 1)
    assert told(audience) == {"/titles/x/720p": [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]}
    other.told(1, 4000, 12_000)
    one.told(0, 2000, 6000)
    assert told(audience) == {"/titles/x/720p": [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 6000, 18_000]}


def test_what_was_told_does_not_change_afterwards():
    audience = Audience()
    watched = audience.of("/titles/x/720p/a")
    watched.hit(0, 1, 0)
    before = told(audience)
    watched.hit(0, 1, 0)
    assert before["/titles/x/720p"][0] == 1


def test_what_is_no_film_is_counted_without_a_name():
    audience = Audience()
    for path in ("/posters/x.jpg", "/", "/titles/", "/titles/UPPER/x", f"/titles/x/{'y' * 300}/z"):
        audience.of(path).hit(0, 1, 0)
    assert told(audience) == {"": [5, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]}


def test_a_folder_is_not_forgotten_before_it_was_told():
    audience = Audience()
    audience.of("/titles/x/720p/a").hit(0, 1, 0)
    gc.collect()
    audience.of("/titles/x/720p/b").hit(0, 1, 0)
    assert told(audience) == {"/titles/x/720p": [2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]}
    gc.collect()
    assert len(audience._known) == 0


def test_more_folders_than_can_wait_are_added_up_without_a_name():
    audience = Audience()
    for number in range(50_100):
        audience.of(f"/titles/{number}/720p/a").hit(0, 1, 0)
    counted = told(audience)
    assert len(counted) == 50_001
    assert counted[""][0] == 100


def test_where_demand_is_not_shipped_nothing_piles_up():
    watched = unwatched("/titles/x/720p/a")
    watched.hit(0, 1, 1)
    watched.passed_on(1)
    assert watched is unwatched("/titles/y/720p/a")
    assert watched._untold == []
