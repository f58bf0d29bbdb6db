"""Who has not passed its turn-up checks has no viewers; who has keeps them."""

import msgspec
import pytest

from steering.decisions import Ask, Decider, Target, Way
from steering.errors import InventoryError
from steering.fleet import Fleet, content_of
from steering.inventory import (
    Inventory,
    Order,
    Proof,
    PutAppliance,
    RecordProof,
    RemoveAppliance,
    SetWish,
    Source,
    Wish,
    apply,
    decode_change,
    encode_change,
    parse_inventory,
    reconciled,
)
from steering.neighbourhood import Neighbourhood
from steering.ranking import Bar, Rules
from steering.standing import Patience, Standing
from steering.topology.acceptance import digest_of
from steering.topology.distance import Proximity
from steering.topology.prefixes import network_of
from tests.steering.stock import appliance, heartbeat, inventory, where

NEAR = [("lisbon", Proximity.PLACE, 10.0)]


class Turned:
    """A fleet of which proofs are wanted, and appliances that speak every five seconds."""

    def __init__(self, *changes, required=True, boxes=("a1",)):
        self.now = 1000.0
        self.fleet = Fleet(Patience(ramp=0.0), seed=7, proof_required=required)
        self.fleet.take(apply(inventory(lisbon=list(boxes)), *changes, now=self.now), self.now)
        self._said = 0

    def order(self, *changes):
        self.fleet.take(apply(self.fleet.inventory, *changes, now=self.now), self.now)

    def check(self, *failed, name="a1"):
        self.order(RecordProof(name, self.now, tuple(failed)))

    def speak(self, times=5):
        for _ in range(times):
            self.now += 5.0
            self._said += 1
            for name in self.fleet.members:
                self.fleet.hear(heartbeat(name, self._said, sent_at=self.now), self.now)
            self.fleet.tick(self.now)

    def standing(self, name="a1"):
        return self.fleet.members[name].standing

    def bar(self, name="a1", current=None):
        rows = self.fleet.candidates(NEAR, content_of("t"), current, 4, 0.9)
        return {row.appliance: row.bar for row in rows}[name]


# --- What is recorded ---


def test_what_checks_found_is_kept_with_who_and_when():
    after = apply(
        inventory(lisbon=["a1"]), RecordProof("a1", 90.0, ("clock",), version="1.2", by="ana on noc-1"), now=100.0
    )
    assert after.appliances["a1"].proof == Proof(
        at=90.0, passed=False, passed_at=None, version="1.2", failed=("clock",), by="ana on noc-1"
    )
    assert not after.appliances["a1"].is_proven


def test_who_passed_once_stays_proven_and_when_that_was_is_kept():
    passed = apply(inventory(lisbon=["a1"]), RecordProof("a1", 90.0), now=100.0)
    later = apply(passed, RecordProof("a1", 95.0, ("devices",)), now=100.0).appliances["a1"]
    assert (later.proof.passed, later.proof.passed_at, later.is_proven) == (False, 90.0, True)
    again = apply(passed, RecordProof("a1", 96.0), now=100.0).appliances["a1"]
    assert (again.proof.passed, again.proof.passed_at, again.proof.failed) == (True, 96.0, ())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (RecordProof("a9", 90.0), "no appliance 'a9'"),
        (RecordProof("a1", 10_000.0), "9900 s from now"),
        (RecordProof("a1", float("nan")), "nan s from now"),
        (RecordProof("a1", 40.0), "was checked again 10 s after that"),
    ],
)
def test_checks_that_can_not_be_are_refused(change, says):
    known = apply(inventory(lisbon=["a1"]), RecordProof("a1", 50.0), now=100.0)
    with pytest.raises(InventoryError, match=says):
        apply(known, change, now=100.0)


def test_it_is_an_order_so_boxes_of_the_inventory_file_can_be_proven_too():
    change = decode_change(b'{"type": "record-proof", "appliance": "a1", "at": 5, "failed": ["clock"]}')
    assert isinstance(change, Order)
    assert decode_change(encode_change(change)) == change


def test_neither_a_new_declaration_nor_the_file_takes_a_proof_away_or_gives_one():
    text = """
[[operator]]
id = "isp"
[[site]]
id = "lisbon"
operator = "isp"
latitude = 38.7
longitude = -9.1
country = "PT"
[[appliance]]
id = "a1"
site = "lisbon"
url = "https://a1.example"
"""
    declared = parse_inventory(text, "fleet.toml")
    known = apply(Inventory(), *reconciled(Inventory(), declared, "fleet.toml"), source=Source.FILE)
    proven = apply(known, RecordProof("a1", 50.0), now=100.0)
    assert reconciled(proven, declared, "fleet.toml") == ()
    moved = parse_inventory(text.replace("a1.example", "a2.example"), "fleet.toml")
    after = apply(proven, *reconciled(proven, moved, "fleet.toml"), source=Source.FILE)
    assert after.appliances["a1"].url == "https://a2.example"
    assert after.appliances["a1"].is_proven
    claimed = msgspec.structs.replace(appliance("a7", "lisbon"), proof=Proof(at=1.0, passed=True, passed_at=1.0))
    assert not apply(proven, PutAppliance(claimed)).appliances["a7"].is_proven


# --- What follows for viewers ---


def test_an_unproven_appliance_is_heard_and_has_no_viewers_until_it_passes():
    turned = Turned()
    assert turned.bar() is Bar.UNHEARD
    turned.speak()
    assert (turned.standing(), turned.bar()) == (Standing.JOINING, Bar.UNPROVEN)
    turned.check("devices")
    turned.speak()
    assert turned.bar() is Bar.UNPROVEN
    turned.check()
    turned.speak(1)
    assert (turned.standing(), turned.bar()) == (Standing.SERVING, None)


def test_who_says_that_it_plays_from_an_unproven_appliance_is_not_left_there():
    turned = Turned()
    turned.speak()
    assert turned.bar(current="a1") is Bar.UNPROVEN
    assert not turned.fleet.members["a1"].keeps_old


def test_no_fallback_leads_to_an_unproven_appliance():
    turned = Turned(RecordProof("a2", 1000.0), boxes=("a1", "a2"))
    turned.speak()
    decider = Decider(
        turned.fleet, Neighbourhood(turned.fleet.inventory, 7), Rules(), 7, "r", None, [Target("s", "https://s")]
    )
    decider.prepare()
    for hurried in (False, True):
        for current in (None, "a1"):
            ask = Ask(client=bytes(4), content=content_of("t"), way=Way.JSON, current=current)
            answered = decider.decide(ask, where(country="PT"), turned.now, hurried=hurried)
            assert [place.id for place in answered.targets] == ["a2"]


def test_a_check_that_fails_later_takes_nobody_away():
    turned = Turned()
    turned.check()
    turned.speak()
    turned.check("devices", "read-back")
    turned.speak()
    assert (turned.standing(), turned.bar()) == (Standing.SERVING, None)
    assert turned.fleet.failed_turn_ups() == 1


def test_where_no_proof_is_required_nothing_is_asked_of_anybody():
    turned = Turned(required=False)
    turned.speak()
    assert (turned.standing(), turned.bar()) == (Standing.SERVING, None)


def test_orders_go_before_a_missing_proof():
    turned = Turned()
    turned.speak()
    turned.order(SetWish("a1", Wish.DISABLE))
    assert turned.bar() is Bar.DISABLED


def test_another_box_under_the_name_of_one_that_was_removed_is_unproven():
    turned = Turned()
    turned.check()
    turned.speak()
    entry = turned.fleet.inventory.appliances["a1"]
    turned.order(RemoveAppliance("a1"), PutAppliance(entry))
    turned.speak()
    assert turned.bar() is Bar.UNPROVEN


@pytest.mark.parametrize(("passed", "standing"), [(True, Standing.SERVING), (False, Standing.JOINING)])
def test_a_view_that_was_saved_proves_nothing(passed, standing):
    before = Turned(required=False)
    before.speak()
    after = Turned(*([RecordProof("a1", 1000.0)] if passed else []))
    after.fleet.restore(before.fleet.states(), after.now)
    assert after.standing() is standing


# --- What is counted ---


def test_checks_that_failed_or_are_overdue_are_counted_for_those_that_shall_serve():
    turned = Turned(boxes=("a1", "a2", "a3"))
    fleet = turned.fleet
    assert (fleet.failed_turn_ups(), fleet.overdue_turn_ups(turned.now)) == (0, 0)
    turned.check(name="a1")
    turned.check("clock", name="a2")
    assert (fleet.failed_turn_ups(), fleet.overdue_turn_ups(turned.now)) == (1, 0)
    assert fleet.overdue_turn_ups(turned.now + 1) == 1, "who never passed is not overdue: it has no viewers"
    turned.order(SetWish("a1", Wish.DRAIN), SetWish("a2", Wish.DRAIN))
    assert (fleet.failed_turn_ups(), fleet.overdue_turn_ups(turned.now + 1)) == (0, 0), "these are being worked on"


# --- Prefixes of one site are compared by their digest ---


def test_equal_sets_of_prefixes_have_equal_digests_and_others_have_others():
    some = [network_of(text) for text in ("198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")]
    assert digest_of(some) == digest_of(reversed(some))
    others = [some[:2], [*some[:2], network_of("2001:db8::/33")], [*some, network_of("198.51.100.0/25")], []]
    assert len({digest_of(one) for one in (some, *others)}) == 5
