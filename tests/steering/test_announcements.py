"""Declared and learned prefixes, as inventory and reports come and go."""

import pytest

from steering.announcements import Announcements
from steering.errors import Unrecognised
from steering.inventory import (
    Appliance,
    Inventory,
    Operator,
    PutAppliance,
    PutOperator,
    PutSite,
    RemoveAppliance,
    Site,
    apply,
)
from steering.topology.acceptance import Rejection
from steering.topology.prefixes import Announced
from wire.prefixes import LearnedPrefix, Prefixes, Speaker

ALLOWED = ("198.18.0.0/15", "203.0.112.0/22")


def site(name="lis", prefixes=()):
    return PutSite(Site(id=name, operator="isp", latitude=38.7, longitude=-9.1, country="PT", prefixes=tuple(prefixes)))


def box(name="a1", of="lis"):
    return PutAppliance(Appliance(id=name, site=of, url=f"https://{name}.example"))


@pytest.fixture
def inventory():
    operator = PutOperator(Operator(id="isp", allowed=ALLOWED))
    return apply(Inventory(), operator, site(prefixes=["203.0.112.0/24"]), site("opo"), box())


@pytest.fixture
def announcements(inventory):
    made = Announcements(Announced())
    made.declare(inventory)
    return made


def learned(*texts, appliance="a1"):
    routes = tuple(LearnedPrefix(text) for text in texts)
    return Prefixes(appliance=appliance, version=1, kind=Speaker.KERNEL, prefixes=routes)


def report(announcements, message):
    accepted = announcements.judge(message)
    announcements.take(message.appliance, accepted)
    return accepted


def sites(announcements, *octets):
    found = announcements.announced.find(bytes(octets)).value
    return () if found is None else found.sites


def test_declared_and_learned_prefixes_both_count(announcements):
    accepted = report(announcements, learned("198.18.0.0/16", "8.8.8.0/24"))
    assert accepted.rejected == {Rejection.NOT_ALLOWED: 1}
    assert sites(announcements, 203, 0, 112, 1) == ("lis",)
    assert sites(announcements, 198, 18, 0, 1) == ("lis",)
    assert sites(announcements, 8, 8, 8, 8) == ()


def test_a_report_takes_the_place_of_the_one_before(announcements):
    report(announcements, learned("198.18.0.0/16"))
    report(announcements, learned("198.19.0.0/16"))
    assert (sites(announcements, 198, 18, 0, 1), sites(announcements, 198, 19, 0, 1)) == ((), ("lis",))


def test_a_judgement_alone_changes_nothing(announcements):
    announcements.judge(learned("198.18.0.0/16"))
    assert sites(announcements, 198, 18, 0, 1) == ()
    assert announcements.rejected() == {}


def test_what_one_withdraws_the_other_may_still_announce(announcements, inventory):
    announcements.declare(apply(inventory, box("a2")))
    report(announcements, learned("198.18.0.0/16"))
    report(announcements, learned("198.18.0.0/16", appliance="a2"))
    report(announcements, learned())
    assert sites(announcements, 198, 18, 0, 1) == ("lis",)


def test_prefixes_of_one_of_several_appliances_are_counted(announcements, inventory):
    report(announcements, learned("198.18.0.0/16", "198.19.0.0/16"))
    assert announcements.without_second() == 0, "alone at its site"
    announcements.declare(apply(inventory, box("a2")))
    assert announcements.without_second() == 2
    report(announcements, learned("198.18.0.0/16", "203.0.112.0/24", appliance="a2"))
    assert announcements.without_second() == 1, "one that the inventory declares stays, whoever goes"
    report(announcements, learned())
    assert announcements.without_second() == 1


def test_with_an_appliance_goes_what_it_learned(announcements, inventory):
    report(announcements, learned("198.18.0.0/16", "8.8.8.0/24"))
    announcements.declare(apply(inventory, RemoveAppliance("a1")))
    assert sites(announcements, 198, 18, 0, 1) == ()
    assert announcements.rejected().total() == 0
    with pytest.raises(Unrecognised, match="a1"):
        announcements.judge(learned("198.18.0.0/16"))


@pytest.mark.parametrize(
    "change", [PutOperator(Operator(id="isp", allowed=("203.0.112.0/22",))), box(of="opo")], ids=["rules", "site"]
)
def test_a_report_is_forgotten_when_what_it_was_judged_by_changes(announcements, inventory, change):
    report(announcements, learned("198.18.0.0/16"))
    announcements.declare(apply(inventory, change))
    assert sites(announcements, 198, 18, 0, 1) == ()


def test_other_changes_leave_reports_alone(announcements, inventory):
    report(announcements, learned("198.18.0.0/16"))
    announcements.declare(apply(inventory, site("fao"), box("a9", "fao")))
    assert sites(announcements, 198, 18, 0, 1) == ("lis",)


def test_a_declaration_that_is_taken_back_is_gone(announcements, inventory):
    announcements.declare(apply(inventory, site(prefixes=["203.0.113.0/24"])))
    assert sites(announcements, 203, 0, 112, 1) == ()
    assert sites(announcements, 203, 0, 113, 1) == ("lis",)
