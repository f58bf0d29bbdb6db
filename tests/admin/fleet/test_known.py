"""What follows from what steering says of a fleet."""

import pytest

from admin.errors import UsageError
from admin.fleet.known import Box, Fleet, Inventory, Member, Place, chosen, sites_of


def member(name, site="lis", standing="serving", full=0.5, capacity=100e9, **more):
    said = {"wish": "serve", "heard": 1.0, "utilisation": full, "load_bps": full * capacity, "hit_ratio": 0.9}
    return Member(name, site, f"https://{name}.example", standing=standing, capacity_bps=capacity, **{**said, **more})


FLEET = Fleet((member("lis-1"), member("lis-2"), member("mad-1", "mad")))
INVENTORY = Inventory(
    1,
    (Place("lis", "isp", "PT"), Place("mad", "ix", "ES"), Place("opo", "isp", "PT")),
    (Box("lis-1", "lis"), Box("lis-2", "lis"), Box("mad-1", "mad")),
)


def test_sites_are_the_sum_of_their_appliances_and_empty_ones_are_shown():
    lis, mad, opo = sites_of(INVENTORY, FLEET)
    assert (lis.id, lis.operator, lis.country, lis.serving, lis.appliances) == ("lis", "isp", "PT", 2, 2)
    assert (lis.load_bps, lis.capacity_bps, lis.utilisation) == (100e9, 200e9, 0.5)
    assert (mad.appliances, mad.troubles) == (1, ())
    assert (opo.appliances, opo.utilisation) == (0, None)


def test_what_does_not_serve_has_no_capacity_and_is_named():
    fleet = Fleet((member("lis-1"), member("lis-2", standing="lost")))
    lis, *_ = sites_of(INVENTORY, fleet)
    assert (lis.serving, lis.capacity_bps) == (1, 100e9)
    assert lis.troubles == ("lis-2: lost, heard 1 s ago",)


@pytest.mark.parametrize(
    ("standing", "wish", "trouble"),
    [
        ("serving", "serve", ""),
        ("drained", "drain", ""),
        ("disabled", "disable", ""),
        ("draining", "serve", "draining, heard 1 s ago"),
        ("suspect", "serve", "suspect, heard 1 s ago"),
        ("lost", "drain", "lost, heard 1 s ago"),
    ],
)
def test_who_rests_as_it_was_told_to_is_well(standing, wish, trouble):
    assert member("lis-1", standing=standing, wish=wish).trouble == trouble


def test_who_is_not_ready_says_why_itself():
    one = member("lis-1", standing="suspect", reasons=("a device is failing", "no source answers"))
    assert one.trouble.startswith("suspect (a device is failing; no source answers), heard ")


def test_a_clock_that_is_off_is_a_trouble_of_one_that_serves():
    assert member("lis-1", is_clock_off=True).trouble == "its clock is off"


def test_who_rests_for_maintenance_is_well_and_whose_maintenance_waits_is_not():
    assert member("lis-1", standing="drained", resting=True).trouble == ""
    waits = member("lis-1", put_off="lis would be 120% full")
    assert waits.trouble == "its maintenance waits: lis would be 120% full"


def test_appliances_are_chosen_by_id_or_by_site():
    assert [one.id for one in chosen(FLEET, ["lis-2", "lis-1", "lis-2"])] == ["lis-2", "lis-1"]
    assert [one.id for one in chosen(FLEET, [], "lis")] == ["lis-1", "lis-2"]


@pytest.mark.parametrize(
    ("names", "site", "says"),
    [
        ([], None, "say which"),
        (["lis-1"], "lis", "say which"),
        (["lis-9"], None, "no appliance 'lis-9'"),
        ([], "opo", "no appliance at 'opo'"),
    ],
)
def test_nobody_is_chosen_by_mistake(names, site, says):
    with pytest.raises(UsageError, match=says):
        chosen(FLEET, names, site)
