"""Whom fill asks before the ladder."""

import pytest

from oca.cache.breaker import Breaker, Limits
from oca.keeper.peers import MOST, Climb, Peers, Route
from oca.keeper.sources import HttpSource

LIMITS = Limits(window=10, min_calls=1, failure_ratio=0.5, open_for=30)


@pytest.fixture
def peers():
    return Peers(LIMITS)


def climbed(route, attempts=3):
    """The names of those that are asked, until nobody is left."""
    own = [HttpSource("parent-1", "http://p"), HttpSource("origin", "http://o")]
    climb = Climb(own, [Breaker(LIMITS), Breaker(LIMITS)], attempts, route)
    asked = []
    while (source := climb.next_source(0.0)) is not None:
        asked.append(source.name)
    return asked, climb.has_wrapped


def test_peers_are_asked_once_and_before_the_ladder(peers):
    route = Route(peers.named(["http://a", "http://b"]))
    assert climbed(route) == (["peer", "peer", "parent-1", "origin", "parent-1"], True)


def test_without_a_route_the_ladder_alone_is_climbed():
    assert climbed(None, attempts=2) == (["parent-1", "origin"], False)


def test_peers_alone_are_asked_where_the_ladder_shall_wait(peers):
    assert climbed(Route(peers.named(["http://a"]), only_peers=True)) == (["peer"], False)


def test_a_peer_that_failed_lately_is_passed_over(peers):
    (bad, good) = peers.named(["http://bad", "http://good"])
    bad.breaker.report(0.0, succeeded=False)
    climb = Climb([], [], 0, Route((bad, good)))
    assert climb.next_source(1.0) is good
    assert climb.next_source(1.0) is None


def test_what_is_known_of_a_peer_outlives_a_question(peers):
    assert peers.named(["http://a/"]) == peers.named(["http://a"])


def test_a_peer_that_is_named_twice_is_asked_once(peers):
    assert len(peers.named(["http://a", "http://a"])) == 1


@pytest.mark.parametrize("url", ["a", "ftp://a", "http://", "http://a/films", "http://a?x=1"])
def test_what_is_no_appliance_is_named(peers, url):
    with pytest.raises(ValueError, match="allowed: http"):
        peers.named([url])


def test_no_more_peers_than_allowed(peers):
    with pytest.raises(ValueError, match=f"allowed: {MOST}"):
        peers.named([f"http://p{at}" for at in range(MOST + 1)])


def test_the_memory_of_peers_is_bounded(peers):
    for at in range(1000):
        peers.named([f"http://p{at}"])
    assert len(peers._known) == 256
