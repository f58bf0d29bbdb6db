"""Which sites could serve a client, the nearest kind first."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.inventory import Serves
from steering.neighbourhood import Neighbourhood
from steering.topology.distance import Proximity, great_circle_km, rtt_ms
from tests.steering.stock import inventory, operator, site, where

LISBON, PORTO, MADRID, SYDNEY = (38.7, -9.1), (41.2, -8.6), (40.4, -3.7), (-33.9, 151.2)


def at(name, place, **fields):
    return site(name, latitude=place[0], longitude=place[1], **fields)


def near(entries, client, spread=0):
    return Neighbourhood(inventory(*entries), seed=7).near(client, spread)


def found(rows):
    return [(name, proximity.name) for name, proximity, _ in rows]


ISP = operator(asns=(64500, 64501))
IXP = operator("ixp")


@pytest.mark.parametrize(
    ("serves", "sites", "asn", "expected"),
    [
        (Serves.ANNOUNCED, ("lisbon",), 64500, "PREFIX"),
        (Serves.ANNOUNCED, (), 64500, None),
        (Serves.ANNOUNCED, (), None, None),
        (Serves.NETWORK, ("lisbon",), None, "PREFIX"),
        (Serves.NETWORK, (), 64500, "NETWORK"),
        (Serves.NETWORK, (), 64501, "NETWORK"),
        (Serves.NETWORK, (), 64999, None),
        (Serves.NETWORK, (), None, None),
        (Serves.EVERYONE, ("lisbon",), 64500, "PREFIX"),
        (Serves.EVERYONE, (), 64500, "NETWORK"),
        (Serves.EVERYONE, (), 64999, "PLACE"),
    ],
)
def test_whom_a_site_is_for(serves, sites, asn, expected):
    rows = near([ISP, at("lisbon", LISBON, serves=serves)], where(sites, asn, place=LISBON))
    assert found(rows) == ([] if expected is None else [("lisbon", expected)])


def test_the_kinds_come_in_their_order_and_each_site_once():
    entries = [
        ISP,
        IXP,
        at("lisbon", LISBON, serves=Serves.EVERYONE),
        at("porto", PORTO),
        at("madrid", MADRID, operator="ixp", serves=Serves.EVERYONE),
        at("sydney", SYDNEY, operator="ixp", serves=Serves.EVERYONE),
    ]
    rows = near(entries, where(["lisbon"], 64500, place=LISBON))
    assert found(rows) == [("lisbon", "PREFIX"), ("porto", "NETWORK"), ("madrid", "PLACE"), ("sydney", "PLACE")]


def test_a_site_that_is_gone_from_the_inventory_is_left_out():
    assert near([ISP, at("lisbon", LISBON)], where(["gone", "lisbon"]))[0][0] == "lisbon"


def test_round_trips_are_estimated_from_the_middle_of_the_clients_cell():
    rows = near([ISP, at("madrid", MADRID, serves=Serves.EVERYONE)], where(place=LISBON))
    assert rows[0][2] == rtt_ms(great_circle_km(*MADRID, 38.75, -9.25), Proximity.PLACE)


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_of_sites_that_are_open_to_everyone_the_nearest_come_first(latitude, longitude):
    places = {"lisbon": LISBON, "porto": PORTO, "madrid": MADRID, "sydney": SYDNEY}
    entries = [ISP, *(at(name, place, serves=Serves.EVERYONE) for name, place in places.items())]
    rows = near(entries, where(place=(latitude, longitude)))
    trips = [rtt for _, _, rtt in rows]
    assert {name for name, _, _ in rows} == set(places)
    assert trips == sorted(trips)


@pytest.mark.parametrize("place", [(90.0, 180.0), (-90.0, -180.0), (0.0, 0.0), (0.0, None), (None, 0.0)])
def test_any_place_has_an_answer(place):
    assert len(near([ISP, at("lisbon", LISBON, serves=Serves.EVERYONE)], where(place=place))) == 1


# --- Nobody knows where the client is ---

MANY = [ISP, *(site(f"s{number:02}", serves=Serves.EVERYONE) for number in range(40))]


def test_clients_of_unknown_place_are_spread_and_each_network_keeps_to_its_own():
    neighbourhood = Neighbourhood(inventory(*MANY), seed=7)
    firsts = {neighbourhood.near(where(), spread)[0][0] for spread in range(64)}
    assert len(firsts) > 20
    assert neighbourhood.near(where(), 5) == neighbourhood.near(where(), 5) == neighbourhood.near(where(), 5 + 64)


def test_a_place_in_the_order_costs_more_than_the_ranking_takes_for_the_same():
    trips = [rtt for _, _, rtt in near(MANY, where())]
    assert all(later - earlier == 4.0 for earlier, later in itertools.pairwise(trips))


def test_sites_of_the_clients_country_come_first():
    entries = [ISP, *(site(f"s{n:02}", serves=Serves.EVERYONE, country="ES" if n < 3 else "PT") for n in range(40))]
    rows = near(entries, where(country="ES"), 9)
    assert {name for name, _, _ in rows[:3]} == {"s00", "s01", "s02"}
    assert len(rows) == 24
    assert {proximity for _, proximity, _ in rows} == {Proximity.ANYWHERE}


def test_a_new_site_moves_only_those_that_it_gets():
    before = Neighbourhood(inventory(*MANY), seed=7)
    after = Neighbourhood(inventory(*MANY, site("new", serves=Serves.EVERYONE)), seed=7)
    gained = 0
    for spread in range(64):
        first, now = before.near(where(), spread)[0][0], after.near(where(), spread)[0][0]
        assert now in {first, "new"}
        gained += now == "new"
    assert gained


@pytest.mark.parametrize("sites_asn", [(True, None), (False, 64500)])
def test_of_very_many_sites_of_its_own_not_the_same_few_serve_all(sites_asn):
    announced, asn = sites_asn
    entries = [ISP, *(site(f"s{number:02}") for number in range(40))]
    neighbourhood = Neighbourhood(inventory(*entries), seed=7)
    client = where([f"s{number:02}" for number in range(40)] if announced else (), asn)
    seen = [{name for name, _, _ in neighbourhood.near(client, spread)} for spread in range(64)]
    assert all(len(some) == 24 for some in seen)
    assert len(set.union(*seen)) == 40


def test_of_sites_that_announce_the_same_none_comes_before_the_others():
    rows = near([ISP, at("lisbon", LISBON), at("porto", PORTO)], where(["lisbon", "porto"]))
    assert rows[0][2] == rows[1][2]


# --- What is remembered ---


def test_the_same_place_gives_the_same_answer_whatever_was_asked_before():
    entries = [ISP, *MANY[1:], at("lisbon", LISBON)]
    neighbourhood = Neighbourhood(inventory(*entries), seed=7)
    clients = [
        where(),
        where(country="PT"),
        where(["lisbon"], 64500, "PT", LISBON),
        where(["lisbon"], None, "PT", LISBON),
        where((), 64500, "PT", LISBON),
        where((), 64999, "PT", PORTO),
        where(["s00"], None, None, PORTO),
    ]
    first = [neighbourhood.near(client, 3) for client in clients]
    assert [neighbourhood.near(client, 3) for client in clients] == first
    assert [near(entries, client, 3) for client in clients] == first
