"""Decisions: the answer to one question, its four fallbacks, and its line in the log."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.decisions import Ask, Decider, Fallback, Logged, Target, Way, again, logged, proximity_of
from steering.fleet import Fleet, MemberState, content_of
from steering.inventory import PutAppliance, RemoveAppliance, Serves, SetWish, Wish, apply
from steering.neighbourhood import Neighbourhood
from steering.ranking import Reason, Rules
from steering.standing import Patience, Standing
from steering.topology.distance import Proximity
from tests.steering.stock import GBIT, appliance, heartbeat, inventory, operator, site, where

LISBON, PORTO, MADRID, PARIS = (38.7, -9.1), (41.2, -8.6), (40.4, -3.7), (48.9, 2.4)
CLIENT = b"\x0a\x01\x02\x03"
STATIC = (Target("static-1", "https://static.example"),)
RULES = Rules()
INSIDE = where(["lisbon"], 64500, "PT", LISBON, "10.1.2.0/24")
OUTSIDE = where((), 64999, "ES", MADRID, "198.51.100.0/24")
NOWHERE = where()


def world():
    """An ISP with two sites, an exchange in Madrid and one in Paris: two appliances at each."""
    places = {"lisbon": LISBON, "porto": PORTO, "madrid": MADRID, "paris": PARIS}
    sites = [
        site(
            name,
            latitude=place[0],
            longitude=place[1],
            country={"madrid": "ES", "paris": "FR"}.get(name, "PT"),
            operator="isp" if name in {"lisbon", "porto"} else "ixp",
            serves=Serves.NETWORK if name in {"lisbon", "porto"} else Serves.EVERYONE,
        )
        for name, place in places.items()
    ]
    boxes = [
        appliance(
            f"{name}-{number}",
            name,
            capacity=10 * GBIT,
            ipv4=(f"192.0.2.{number}",),
            ipv6=("2001:db8::1",) if name == "madrid" else (),
        )
        for name in places
        for number in (1, 2)
    ]
    return inventory(operator(asns=(64500,)), operator("ixp"), *sites, *boxes)


class Desk:
    """A decider over a world whose appliances have spoken."""

    def __init__(self, entries=None, *, heard=True, origin="https://origin.example", static=STATIC, rules=RULES):
        self.now = 0.0
        self.rules = rules
        self.fleet = Fleet(Patience(ramp=0.0), seed=7)
        self.inventory = world() if entries is None else entries
        self.fleet.take(self.inventory, 0.0)
        self.decider = Decider(self.fleet, Neighbourhood(self.inventory, seed=7), rules, 7, "r1", origin, static)
        self.sequence = 0
        if heard:
            for _ in range(3):
                self.beat(*self.fleet.members)
        self.decider.prepare()

    def beat(self, *names, **fields):
        self.now += 5.0
        self.sequence += 1
        for name in names:
            self.fleet.hear(heartbeat(name, self.sequence, **fields), self.now)

    def order(self, *changes):
        self.inventory = apply(self.inventory, *changes)
        self.fleet.take(self.inventory, self.now)

    def ask(self, place=INSIDE, *, title="t", current=None, way=Way.JSON, bps=0.0, family=None, hurried=False):
        question = Ask(CLIENT, content_of(title), way, current, bps, family)
        return self.decider.decide(question, place, self.now, hurried=hurried)


def ids(decision):
    return [target.id for target in decision.targets]


# --- The answer ---


@pytest.mark.parametrize("way", Way)
def test_all_ways_of_asking_agree(way):
    desk = Desk()
    assert ids(desk.ask(way=way)) == ids(desk.ask())


def test_an_answer_names_the_nearest_class_first_two_sites_at_least_and_the_origin_last():
    decision = Desk().ask()
    assert {name.split("-")[0] for name in ids(decision)[:2]} == {"lisbon"}
    assert {name.split("-")[0] for name in ids(decision)[2:4]} == {"porto"}
    assert ids(decision)[-1] == "origin"
    assert decision.targets[-1].url == "https://origin.example"
    assert decision.fallback is Fallback.RANKED
    assert decision.reason is Reason.HOME
    assert proximity_of(decision) is Proximity.PREFIX


def test_without_an_origin_none_is_named():
    assert "origin" not in ids(Desk(origin=None).ask())


def test_each_decision_has_an_id_of_its_own():
    desk = Desk()
    assert [desk.ask().id for _ in range(3)] == ["r1-1", "r1-2", "r1-3"]


def test_a_client_of_another_network_gets_the_exchanges_only():
    names = ids(Desk().ask(OUTSIDE))
    assert {name.split("-")[0] for name in names[:-1]} == {"madrid", "paris"}
    assert names[0].startswith("madrid")


def test_only_appliances_with_an_address_of_the_family_are_named_for_dns():
    decision = Desk().ask(family=6, way=Way.DNS)
    assert set(ids(decision)) == {"madrid-1", "madrid-2", "origin"}
    assert decision.reason is not Reason.OVERFLOW


def test_when_the_nearer_are_full_the_next_class_answers():
    desk = Desk()
    desk.beat("lisbon-1", "lisbon-2", egress_bps=9 * GBIT)
    decision = desk.ask()
    assert decision.reason is Reason.OVERFLOW
    assert proximity_of(decision) is Proximity.NETWORK


# --- Counting ---


def load(desk, name):
    return desk.fleet.members[name].utilisation


def test_who_is_chosen_carries_the_player_from_then_on():
    desk = Desk()
    first = ids(desk.ask(bps=GBIT))[0]
    assert load(desk, first) == pytest.approx(0.1)


def test_a_player_that_moves_is_counted_off_where_it_was():
    desk = Desk()
    desk.beat("madrid-1", egress_bps=5 * GBIT)
    first = ids(desk.ask(current="madrid-1", bps=GBIT))[0]
    assert first.startswith("lisbon")
    assert load(desk, first) == pytest.approx(0.1)
    assert load(desk, "madrid-1") == pytest.approx(0.4)


def test_a_player_that_stays_and_one_who_only_wants_to_know_count_for_nothing():
    desk = Desk()
    first = ids(desk.ask(way=Way.EXPLAIN, bps=GBIT))[0]
    desk.ask(current=first, bps=GBIT)
    assert {load(desk, name) for name in desk.fleet.members} == {0.0}


def test_many_new_players_of_one_title_fill_nobody_while_others_are_idle():
    desk = Desk()
    for _ in range(1000):
        desk.ask(bps=15e6)
    loads = {name: load(desk, name) for name in ("lisbon-1", "lisbon-2")}
    assert sum(loads.values()) == pytest.approx(1.5)
    assert max(loads.values()) < 0.9


# --- The four fallbacks, each by taking the one above away ---


def test_first_the_full_ranking():
    assert Desk().ask().fallback is Fallback.RANKED


@pytest.mark.parametrize(
    ("place", "nearest"), [(INSIDE, {"lisbon"}), (OUTSIDE, {"madrid"}), (NOWHERE, {"madrid", "paris"})]
)
def test_without_time_to_rank_the_regions_list_answers(place, nearest):
    decision = Desk().ask(place, hurried=True)
    assert decision.fallback is Fallback.REGION
    assert decision.reason is Reason.LISTED
    assert decision.ranking is None
    sites = [name.split("-")[0] for name in ids(decision)[:-1]]
    assert sites[0] in nearest
    assert len(set(sites)) >= 2


def test_the_list_of_a_network_is_that_of_its_own_sites():
    first = ids(Desk().ask(where((), 64500, "FR"), hurried=True))[0]
    assert first.split("-")[0] in {"lisbon", "porto"}


def test_when_nobody_near_enough_to_be_ranked_can_the_list_answers():
    many = [site(f"s{number:02}", operator="ixp", serves=Serves.EVERYONE) for number in range(30)]
    boxes = [appliance(f"b{number:02}", f"s{number:02}", capacity=10 * GBIT) for number in range(30)]
    desk = Desk(inventory(operator("ixp"), *many, *boxes))
    near = {name for name, _, _ in desk.decider.neighbourhood.near(where(place=LISBON))}
    desk.beat(*(f"b{name[1:]}" for name in near), ready=False)
    desk.decider.prepare()
    decision = desk.ask(where(place=LISBON, country="PT"))
    assert decision.fallback is Fallback.REGION
    assert set(ids(decision)[:-1]).isdisjoint(f"b{name[1:]}" for name in near)


def test_before_any_appliance_was_heard_the_snapshot_answers():
    before = Desk()
    desk = Desk(heard=False)
    assert desk.ask().fallback is Fallback.STATIC
    states = msgspec.json.decode(msgspec.json.encode(list(before.fleet.states())), type=list[MemberState])
    assert desk.fleet.restore(states, 0.0) == 8
    decision = desk.ask()
    assert decision.fallback is Fallback.SNAPSHOT
    assert ids(decision) == ids(before.ask())
    for _ in range(2):
        desk.beat(*desk.fleet.members)
    assert desk.ask().fallback is Fallback.RANKED


@pytest.mark.parametrize("hurried", [False, True])
def test_when_nobody_is_known_that_could_the_static_list_answers(hurried):
    decision = Desk(heard=False).ask(hurried=hurried)
    assert decision.fallback is Fallback.STATIC
    assert decision.reason is Reason.ONLY_ORIGIN
    assert ids(decision) == ["static-1", "origin"]
    assert proximity_of(decision) is None


@pytest.mark.parametrize("hurried", [False, True])
def test_and_at_last_the_origin_alone(hurried):
    assert ids(Desk(heard=False, static=()).ask(hurried=hurried)) == ["origin"]


# --- The region's lists ---


def test_a_list_names_nobody_who_fell_away_since_it_was_made():
    desk = Desk()
    desk.beat("lisbon-1", ready=False)
    desk.beat("porto-1", egress_bps=9 * GBIT)
    desk.order(RemoveAppliance("madrid-1"), SetWish("madrid-2", Wish.DRAIN))
    decision = desk.ask(hurried=True)
    assert set(ids(decision)) == {"lisbon-2", "porto-2", "paris-1", "paris-2", "origin"}


def test_one_that_was_removed_and_put_anew_is_listed_when_it_serves():
    desk = Desk()
    desk.order(RemoveAppliance("madrid-1"))
    desk.order(PutAppliance(appliance("madrid-1", "madrid")))
    assert "madrid-1" not in ids(desk.ask(OUTSIDE, hurried=True))


def test_other_titles_begin_with_others_of_the_list():
    desk = Desk()
    firsts = Counter(ids(desk.ask(title=f"t{number}", hurried=True))[0] for number in range(400))
    assert set(firsts) == {"lisbon-1", "lisbon-2"}
    assert min(firsts.values()) > 150


def test_in_a_hurry_too_who_plays_stays():
    desk = Desk()
    for name in ("lisbon-1", "lisbon-2", "madrid-2"):
        assert ids(desk.ask(current=name, hurried=True))[0] == name
    desk.beat("lisbon-1", ready=False)
    assert ids(desk.ask(current="lisbon-1", hurried=True))[0] == "lisbon-1"
    desk.beat("lisbon-1", egress_bps=int(9.5 * GBIT))
    assert ids(desk.ask(current="lisbon-1", hurried=True))[0] == "lisbon-2"


@pytest.mark.parametrize("current", ["lisbon-1", "stranger", "origin", ""])
def test_in_a_hurry_too_nobody_stays_who_may_not_be_there(current):
    assert ids(Desk().ask(OUTSIDE, current=current, hurried=True))[0].startswith("madrid")


def test_the_list_for_dns_has_addresses_of_the_family_only():
    assert set(ids(Desk().ask(family=6, hurried=True))) == {"madrid-1", "madrid-2", "origin"}


@pytest.mark.parametrize("options", [1, 2, 3, 4, 8])
def test_a_list_is_as_long_as_an_answer_and_spans_two_sites(options):
    names = ids(Desk(rules=Rules(options=options)).ask(where(["lisbon"]), hurried=True))[:-1]
    assert len(names) == min(options, 6)
    assert options == 1 or len({name.split("-")[0] for name in names}) >= 2


def test_when_a_site_goes_the_lists_of_its_players_fill_nobody():
    desk = Desk()
    for name, load in (("lisbon", 6), ("porto", 5), ("madrid", 4), ("paris", 1)):
        desk.beat(f"{name}-1", f"{name}-2", egress_bps=load * GBIT)
    arriving: Counter[str] = Counter()
    for number in range(1000):
        client = number.to_bytes(3, "big") + b"\1"
        decision = desk.decider.decide(Ask(client, content_of(f"t{number % 200}"), Way.EXPLAIN), INSIDE, desk.now)
        assert ids(decision)[0].startswith("lisbon")
        arriving[next(name for name in ids(decision) if not name.startswith("lisbon"))] += 12 * GBIT // 1000
    for name, bps in arriving.items():
        assert desk.fleet.members[name].utilisation + bps / (10 * GBIT) < RULES.leave_limit
    assert {name.split("-")[0] for name in arriving} == {"porto", "madrid"}


# --- The log ---

PLACES = st.sampled_from([INSIDE, OUTSIDE, NOWHERE, where(["gone"], 1, "XX", (0.0, 0.0))])


@given(
    PLACES,
    st.text(max_size=8),
    st.sampled_from([None, "lisbon-1", "madrid-2", "paris-1", "stranger"]),
    st.sampled_from([None, 4, 6]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_a_logged_decision_is_the_same_when_it_is_made_again(place, title, current, family, hurried, dice):
    desk = Desk()
    for name in dice.sample(sorted(desk.fleet.members), 5):
        desk.beat(name, egress_bps=dice.randrange(10 * GBIT), hit_ratio=dice.random(), ready=dice.random() < 0.8)
    decision = desk.ask(place, title=title, current=current, family=family, hurried=hurried, bps=1e6)
    line = logged(decision, RULES, 7)
    read = msgspec.json.decode(msgspec.json.encode(line), type=Logged)
    assert read == line
    assert read.chosen == tuple(ids(decision))
    reason, best = again(read)
    if decision.fallback in {Fallback.RANKED, Fallback.SNAPSHOT}:
        assert reason is decision.reason
        assert [row.candidate.appliance for row in best] == ids(decision)[:-1]
    else:
        assert reason is Reason.ONLY_ORIGIN
        assert best == ()


def test_of_the_client_only_its_network_is_logged():
    line = msgspec.json.encode(logged(Desk().ask(), RULES, 7))
    assert b"10.1.2.0/24" in line
    assert b"10.1.2.3" not in line


# --- The laws, over whole fleets ---


@given(st.randoms(use_true_random=False))
def test_no_answer_names_an_ineligible_appliance_and_each_spans_two_sites_if_it_can(dice):
    desk = Desk()
    for name in desk.fleet.members:
        if dice.random() < 0.5:
            desk.beat(
                name,
                ready=dice.random() < 0.7,
                draining=dice.random() < 0.1,
                egress_bps=int(dice.random() * 10 * GBIT),
            )
    desk.order(SetWish(dice.choice(sorted(desk.fleet.members)), dice.choice(list(Wish))))
    for place in (INSIDE, OUTSIDE, NOWHERE):
        for hurried in (False, True):
            decision = desk.ask(place, title=str(dice.random()), hurried=hurried)
            members = [desk.fleet.members[name] for name in ids(decision) if name in desk.fleet.members]
            assert all(member.standing is Standing.SERVING for member in members)
            assert all(member.utilisation < RULES.hard_limit for member in members)
            allowed = {"lisbon", "porto", "madrid", "paris"} if place is INSIDE else {"madrid", "paris"}
            assert {member.entry.site for member in members} <= allowed
            able = {
                member.entry.site
                for member in desk.fleet.members.values()
                if member.standing is Standing.SERVING
                and member.utilisation < RULES.hard_limit
                and member.entry.site in allowed
            }
            assert len({member.entry.site for member in members}) >= min(2, len(able))


def test_with_a_new_appliance_only_its_share_of_the_titles_moves():
    desk = Desk()
    titles = [f"t{number}" for number in range(600)]
    before = {title: ids(desk.ask(title=title))[0] for title in titles}
    desk.order(PutAppliance(appliance("lisbon-3", "lisbon", capacity=10 * GBIT)))
    for _ in range(3):
        desk.beat(*desk.fleet.members)
    after = {title: ids(desk.ask(title=title))[0] for title in titles}
    moved = {title for title in titles if after[title] != before[title]}
    assert {after[title] for title in moved} == {"lisbon-3"}
    assert len(moved) / len(titles) == pytest.approx(1 / 3, abs=0.06)
