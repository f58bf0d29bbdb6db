"""Decisions as addresses for DNS: both families of one decision, kept for a breath."""

import ipaddress

import pytest

from steering.answers.chooser import DnsChooser
from steering.decisions import Ask, Decider, Way
from steering.fleet import Fleet, content_of
from steering.inventory import PutAppliance, Serves, apply
from steering.neighbourhood import Neighbourhood
from steering.ranking import Rules
from steering.settings import Static
from steering.standing import Patience
from tests.steering.stock import GBIT, appliance, heartbeat, inventory, site, where

CLIENT = b"\x0a\x01\x02\x00"
OTHER = b"\x0a\x01\x03\x00"
MBIT = 1e6


class Desk:
    """Two appliances of one site, and clients that are all next to it. Remembers what it was asked."""

    is_hurried = False

    def __init__(self, place=None):
        self.place = where((), 64500, "PT", (38.7, -9.1)) if place is None else place
        self.fleet = Fleet(Patience(ramp=0.0), seed=7)
        self.asked = []
        self.take(
            inventory(
                site("lisbon", serves=Serves.EVERYONE),
                appliance("a1", ipv4=("192.0.2.1",), ipv6=("2001:db8::1",), capacity=GBIT),
                appliance("a2", ipv4=("192.0.2.2",), ipv6=("2001:db8::2",), capacity=GBIT),
            )
        )
        for number in range(1, 4):
            for name in self.fleet.members:
                self.fleet.hear(heartbeat(name, number, link_bps=GBIT), 5.0 * number)

    def take(self, entries):
        self.inventory = entries
        self.fleet.take(entries, 0.0)
        self.decider = Decider(self.fleet, Neighbourhood(entries, 7), Rules(), 7, "r1", None, ())

    def content(self, path):
        return content_of(path)

    def decide(self, ask, *, hurried=False):
        self.asked.append(ask)
        return self.decider.decide(ask, self.place, 100.0, hurried=hurried)


@pytest.fixture
def desk():
    return Desk()


def chooser_of(desk, static=()):
    return DnsChooser(desk, desk.fleet, static, ttl=30, session_bps=5 * MBIT)


def texts(addresses):
    return [str(ipaddress.ip_address(packed)) for packed in addresses]


def last_digits(addresses):
    return [text[-1] for text in texts(addresses)]


def test_both_families_name_the_same_appliances_in_the_same_order(desk):
    choice = chooser_of(desk).choose("films", "t1", CLIENT, 24, 100.0)
    assert sorted(texts(choice.ipv4)) == ["192.0.2.1", "192.0.2.2"]
    assert last_digits(choice.ipv6) == last_digits(choice.ipv4)
    assert (choice.ttl, choice.scope) == (30, 24)
    assert desk.asked == [Ask(CLIENT, content_of("/titles/t1/"), Way.DNS, bps=5 * MBIT)]


def test_who_asks_for_both_families_is_decided_for_once_and_counted_once(desk):
    chooser = chooser_of(desk)
    first = chooser.choose("films", "t1", CLIENT, 24, 100.0)
    assert chooser.choose("films", "t1", CLIENT, 24, 100.9) is first
    assert len(desk.asked) == 1
    assert sum(member.assigned_bps for member in desk.fleet.members.values()) == 5 * MBIT


@pytest.mark.parametrize(
    ("title", "client", "now"),
    [
        pytest.param("t2", CLIENT, 100.0, id="another title"),
        pytest.param(None, CLIENT, 100.0, id="no title"),
        pytest.param("t1", OTHER, 100.0, id="another network"),
        pytest.param("t1", CLIENT, 101.1, id="a second later"),
        pytest.param("t1", CLIENT, 90.0, id="a clock set back"),
    ],
)
def test_everything_else_is_a_question_of_its_own(desk, title, client, now):
    chooser = chooser_of(desk)
    chooser.choose("films", "t1", CLIENT, 24, 100.0)
    chooser.choose("films", title, client, 24, now)
    assert len(desk.asked) == 2


def test_what_was_kept_is_forgotten_when_told_so_and_when_the_inventory_changes(desk):
    chooser = chooser_of(desk)
    chooser.choose("films", "t1", CLIENT, 24, 100.0)
    chooser.forget()
    chooser.choose("films", "t1", CLIENT, 24, 100.0)
    assert len(desk.asked) == 2
    moved = appliance("a1", ipv4=("192.0.2.7",), capacity=GBIT)
    desk.take(apply(desk.inventory, PutAppliance(moved)))
    assert sorted(texts(chooser.choose("films", "t1", CLIENT, 24, 100.0).ipv4)) == ["192.0.2.2", "192.0.2.7"]
    assert texts(chooser.host("a1").ipv4) == ["192.0.2.7"]


def test_no_more_choices_are_kept_than_fit(desk, monkeypatch):
    monkeypatch.setattr("steering.answers.chooser._MOST_KEPT", 2)
    chooser = chooser_of(desk)
    for number in range(5):
        chooser.choose("films", f"t{number}", CLIENT, 24, 100.0)
    chooser.choose("films", "t4", CLIENT, 24, 100.0)
    chooser.choose("films", "t0", CLIENT, 24, 100.0)
    assert [ask.content.name for ask in desk.asked] == [f"/titles/t{number}/" for number in (0, 1, 2, 3, 4, 0)]


def test_where_nobody_knows_the_place_an_answer_is_for_one_network(desk):
    desk.place = where(scope=0)
    assert chooser_of(desk).choose("films", "t1", CLIENT, 24, 100.0).scope == 24
    assert chooser_of(desk).choose("films", "t1", bytes(16), 56, 100.0).scope == 48


def test_without_an_appliance_the_static_list_answers():
    desk = Desk()
    desk.take(inventory(site("lisbon", serves=Serves.EVERYONE)))
    static = Static(id="last", url="https://last.example", addresses=("198.51.100.9", "2001:db8::9"))
    choice = chooser_of(desk, (static,)).choose("films", "t1", CLIENT, 24, 100.0)
    assert (texts(choice.ipv4), texts(choice.ipv6)) == (["198.51.100.9"], ["2001:db8::9"])


def test_names_of_appliances_and_those_above_them_exist(desk):
    desk.take(inventory(site("lisbon"), appliance("Box1.ams", ipv4=("192.0.2.1",))))
    chooser = chooser_of(desk)
    assert texts(chooser.host("box1.ams").ipv4) == ["192.0.2.1"]
    assert chooser.host("ams").ipv4 == ()
    assert chooser.host("box2.ams") is None
