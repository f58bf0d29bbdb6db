"""What is believed of appliances: by what they say, by their silence, by orders, and by what was sent to them."""

from collections import Counter
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from steering.errors import Unrecognised
from steering.fleet import Fleet, MemberState, Turn, Why, content_of, fullness_without
from steering.inventory import (
    CancelMaintenance,
    PlanMaintenance,
    PutAppliance,
    RemoveAppliance,
    SetWish,
    Wish,
    apply,
)
from steering.names import mixed
from steering.ranking import Bar, Rules
from steering.standing import Patience, Standing
from steering.topology.distance import Proximity
from tests.steering.stock import GBIT, appliance, heartbeat, inventory, site
from wire.holdings import Holdings

PATIENCE = Patience()


class Clockwork:
    """A fleet, its clock, and appliances that speak every five seconds unless they are told to be silent."""

    def __init__(self, patience=PATIENCE, *entries, **sites):
        self.fleet = Fleet(patience, seed=7)
        self.now = 1000.0
        if not entries and not sites:
            sites = {"lisbon": ["a1"]}
        self.fleet.take(inventory(*entries, **sites), self.now)
        self.said = {}
        self.sequences = dict.fromkeys(self.fleet.members, 0)
        self.silent = set()
        self.turns = []

    def __getitem__(self, name):
        return self.fleet.members[name]

    def beat(self, name="a1", **fields):
        self.sequences[name] = self.sequences.get(name, 0) + 1
        said = {**self.said.get(name, {}), **fields}
        answer, turns = self.fleet.hear(
            heartbeat(name, **{"sequence": self.sequences[name], "sent_at": self.now, **said}), self.now
        )
        self.turns += turns
        return answer

    def run(self, seconds):
        """A tick each second; each appliance speaks at a second of its own in five."""
        for _ in range(seconds):
            self.now += 1.0
            for place, name in enumerate(sorted(self.fleet.members)):
                if name not in self.silent and int(self.now) % 5 == place % 5:
                    self.beat(name)
            self.turns += self.fleet.tick(self.now)

    def serve(self):
        self.run(20)
        assert {member.standing for member in self.fleet.members.values()} == {Standing.SERVING}
        self.turns.clear()
        return self

    def order(self, name, wish):
        turns = self.fleet.take(apply(self.fleet.inventory, SetWish(name, wish)), self.now)
        self.turns += turns
        return turns

    def plan(self, name, start, stop, forced=False):
        """From so many seconds from now on."""
        change = PlanMaintenance(name, self.now + start, self.now + stop, forced)
        self.fleet.take(apply(self.fleet.inventory, change, now=self.now), self.now)

    def standing(self, name="a1"):
        return self[name].standing

    def rows(self, *near, renditions=(), current=None, enough=4, limit=0.9, within=0.0, family=None):
        near = near or [(name, Proximity.PLACE, 10.0) for name in self.fleet.inventory.sites]
        return self.fleet.candidates(near, content_of("t", renditions), current, enough, limit, within, family)


# --- Joining ---


def test_an_appliance_that_was_never_heard_gets_no_player():
    clock = Clockwork()
    assert clock["a1"].bar is Bar.UNHEARD
    assert clock.rows()[0].bar is Bar.UNHEARD
    clock.fleet.tick(1e9)
    assert clock["a1"].bar is Bar.UNHEARD


def test_the_third_heartbeat_in_a_row_that_is_well_makes_it_serve():
    clock = Clockwork()
    steps = []
    for _ in range(3):
        clock.beat()
        steps.append(clock.standing())
        clock.now += 5
    assert steps == [Standing.JOINING, Standing.JOINING, Standing.SERVING]
    assert [(turn.before, turn.after, turn.why) for turn in clock.turns] == [
        (Standing.LOST, Standing.JOINING, Why.HEARTBEAT),
        (Standing.JOINING, Standing.SERVING, Why.HEARTBEAT),
    ]


def test_a_bad_word_between_makes_it_begin_again():
    clock = Clockwork()
    for ready in (True, True, False, True, True):
        clock.beat(ready=ready)
        clock.now += 5
    assert clock.standing() is Standing.JOINING
    clock.beat()
    assert clock.standing() is Standing.SERVING


def test_who_speaks_too_seldom_never_serves():
    clock = Clockwork()
    for _ in range(10):
        clock.beat()
        clock.now += 9
        clock.fleet.tick(clock.now)
    assert clock.standing() is Standing.JOINING


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ({"ready": False}, "it is not ready"),
        ({"ready": False, "reasons": ("2 of 4 workers", "no index")}, "2 of 4 workers; no index"),
        ({"health": 0.24}, "it is ready"),
    ],
)
def test_who_says_it_is_unwell_gets_no_new_player_from_then_on(said, detail):
    clock = Clockwork().serve()
    clock.beat(**said)
    assert clock.turns == [Turn("a1", Standing.SERVING, Standing.SUSPECT, Why.HEARTBEAT, detail)]
    assert clock.rows()[0].bar is Bar.SUSPECT


def test_after_a_bad_word_it_joins_anew():
    clock = Clockwork().serve()
    clock.beat(ready=False)
    standings = []
    for _ in range(3):
        clock.now += 5
        clock.beat()
        standings.append(clock.standing())
    assert standings == [Standing.JOINING, Standing.JOINING, Standing.SERVING]


# --- Silence ---


def test_one_heartbeat_may_be_lost():
    clock = Clockwork().serve()
    clock.now = clock["a1"].heard_at
    for second in range(1, 9):
        clock.fleet.tick(clock.now + second)
    assert clock.standing() is Standing.SERVING


@given(st.floats(0.0, 0.999))
def test_who_falls_silent_is_lost_within_fifteen_seconds(phase):
    clock = Clockwork(PATIENCE, lisbon=["a1"], porto=["b1"], madrid=["c1"], paris=["d1"]).serve()
    heard_at = clock["a1"].heard_at
    lost_at = None
    for second in range(20):
        now = heard_at + phase + second
        for name in ("b1", "c1", "d1"):
            clock.now = now
            clock.beat(name)
        for turn in clock.fleet.tick(now):
            assert turn.appliance == "a1"
            if turn.after is Standing.LOST:
                lost_at = now
    assert lost_at is not None
    assert lost_at - heard_at < 15.0


def test_silence_is_first_doubted_then_believed():
    clock = Clockwork().serve()
    clock.silent.add("a1")
    clock.run(20)
    assert [(turn.before, turn.after, turn.why) for turn in clock.turns] == [
        (Standing.SERVING, Standing.SUSPECT, Why.SILENCE),
        (Standing.SUSPECT, Standing.LOST, Why.SILENCE),
    ]
    assert clock.rows(current="a1")[0].bar is Bar.LOST
    assert clock.turns[1].detail == "not heard for 14 s"


def test_a_lost_one_that_speaks_again_joins():
    clock = Clockwork().serve()
    clock.silent.add("a1")
    clock.run(20)
    clock.beat()
    assert clock.standing() is Standing.JOINING


# --- Heartbeats that lie or come at the wrong time ---


def test_a_heartbeat_of_an_unknown_appliance_is_refused():
    clock = Clockwork()
    with pytest.raises(Unrecognised, match="the inventory knows no appliance 'stranger'"):
        clock.fleet.hear(heartbeat("stranger"), clock.now)


@pytest.mark.parametrize("sequence", [1, 2, 3, 4])
def test_an_old_or_repeated_heartbeat_changes_nothing(sequence):
    clock = Clockwork().serve()
    assert clock["a1"].heartbeat.sequence == 4
    heard_at = clock["a1"].heard_at
    clock.now += 100
    answer, turns = clock.fleet.hear(heartbeat(sequence=sequence, ready=False, egress_bps=GBIT), clock.now)
    assert turns == []
    assert answer.drain is False
    assert (clock["a1"].heard_at, clock["a1"].utilisation, clock.standing()) == (heard_at, 0.0, Standing.SERVING)


def test_under_another_boot_numbers_begin_again_and_the_old_boot_is_heard_no_more():
    clock = Clockwork().serve()
    clock.beat(boot="b2", sequence=1, egress_bps=GBIT)
    assert clock["a1"].heartbeat.boot == "b2"
    clock.fleet.hear(heartbeat(boot="b1", sequence=99, ready=False), clock.now)
    assert clock["a1"].heartbeat.boot == "b2"
    assert clock.standing() is Standing.SERVING


def test_a_boot_that_was_before_is_heard_again_when_the_other_falls_silent():
    clock = Clockwork().serve()
    clock.beat(boot="b2", sequence=1)
    clock.now += 9
    clock.fleet.hear(heartbeat(boot="b1", sequence=1), clock.now)
    assert clock["a1"].heartbeat.boot == "b1"


def test_replayed_heartbeats_keep_nobody_alive():
    clock = Clockwork().serve()
    last = clock["a1"].heartbeat
    clock.silent.add("a1")
    for _ in range(16):
        clock.run(1)
        clock.fleet.hear(last, clock.now)
    assert clock.standing() is Standing.LOST


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1))
def test_in_whatever_order_heartbeats_come_the_newest_counts(beats):
    fleet = Fleet(PATIENCE, seed=7)
    fleet.take(inventory(lisbon=["a1"]), 0.0)
    words = {}
    for sequence, ready in beats:
        newest = max(words, default=0)
        if sequence > newest:
            words[sequence] = ready
        fleet.hear(heartbeat(sequence=sequence, ready=ready), 1.0)
    assert fleet.members["a1"].heartbeat.sequence == max(words)
    assert fleet.members["a1"].heartbeat.ready == words[max(words)]


@pytest.mark.parametrize("sent_at", [-1e12, 0.0, 1e12])
def test_a_wrong_clock_is_noted_and_moves_nobody(sent_at):
    clock = Clockwork()
    clock.said["a1"] = {"sent_at": sent_at}
    clock.serve()
    assert clock["a1"].is_clock_off
    assert clock["a1"].heard_at <= clock.now
    clock.silent.add("a1")
    clock.run(15)
    assert clock.standing() is Standing.LOST


def test_a_right_clock_is_not_off():
    assert not Clockwork().serve()["a1"].is_clock_off


@pytest.mark.parametrize(
    ("allowed", "said", "believed"),
    [
        (None, 0, 10 * GBIT),
        (None, 25 * GBIT, 25 * GBIT),
        (None, 2**63 - 1, 1000 * GBIT),
        (100 * GBIT, 0, 100 * GBIT),
        (100 * GBIT, 40 * GBIT, 40 * GBIT),
        (100 * GBIT, 2**63 - 1, 100 * GBIT),
    ],
)
def test_what_it_says_it_can_send_counts_up_to_what_it_may(allowed, said, believed):
    box = appliance("a1") if allowed is None else appliance("a1", capacity=allowed)
    clock = Clockwork(PATIENCE, site(), box)
    clock.beat(link_bps=said)
    assert clock["a1"].capacity_bps == believed


def test_who_claims_to_be_idle_carries_a_part_of_what_was_sent_there():
    clock = Clockwork(PATIENCE, site(), appliance(capacity=10 * GBIT)).serve()
    for _ in range(100):
        clock.fleet.assign("a1", GBIT // 10)
    assert clock["a1"].utilisation == pytest.approx(1.0)
    for _ in range(12):
        clock.run(5)
    assert 0.23 < clock["a1"].utilisation < 0.25
    clock.run(2400)
    assert clock["a1"].utilisation < 0.04


# --- Load ---


@pytest.mark.parametrize(
    ("said", "utilisation"),
    [
        ({"egress_bps": 5 * GBIT}, 0.5),
        ({"egress_bps": 15 * GBIT}, 1.5),
        ({"connections": 80, "max_connections": 100}, 0.8),
        ({"connections": 80}, 0.0),
        ({"cpu": 0.7}, 0.7),
        ({"egress_bps": 6 * GBIT, "connections": 50, "max_connections": 100, "cpu": 0.4}, 0.6),
    ],
)
def test_the_scarcest_counts(said, utilisation):
    clock = Clockwork(PATIENCE, site(), appliance(capacity=10 * GBIT))
    clock.beat(**said)
    assert clock["a1"].utilisation == pytest.approx(utilisation)


def test_processors_that_are_busy_for_a_moment_count_little_and_for_long_make_it_dear_but_never_full():
    clock = Clockwork(PATIENCE, site(), appliance()).serve()
    clock.now += 5
    clock.beat(cpu=1.0)
    assert clock["a1"].utilisation < 0.3
    for _ in range(12):
        clock.now += 5
        clock.beat(cpu=1.0)
    assert 0.8 < clock["a1"].utilisation < Rules().hard_limit


def test_what_was_assigned_is_counted_at_once_and_gives_way_to_what_is_reported():
    clock = Clockwork(PATIENCE, site(), appliance(capacity=10 * GBIT)).serve()
    clock.beat(egress_bps=0)
    clock.fleet.assign("a1", 2 * GBIT)
    assert clock["a1"].utilisation == pytest.approx(0.2)
    clock.now += 5
    clock.beat(egress_bps=GBIT)
    assert clock["a1"].utilisation == pytest.approx(0.1 + 0.1, abs=0.001), "half has not arrived yet"
    for _ in range(8):
        clock.now += 5
        clock.beat(egress_bps=2 * GBIT)
    assert clock["a1"].utilisation == pytest.approx(0.2, abs=0.001)


def test_who_is_sent_away_is_counted_off_but_not_on_the_word_of_players_alone():
    clock = Clockwork(PATIENCE, site(), appliance(capacity=10 * GBIT)).serve()
    clock.beat(egress_bps=8 * GBIT)
    clock.fleet.assign("a1", -GBIT)
    assert clock["a1"].utilisation == pytest.approx(0.7)
    for _ in range(1000):
        clock.fleet.assign("a1", -GBIT)
    assert clock["a1"].utilisation == pytest.approx(0.6)


@pytest.mark.parametrize(("reported", "after"), [(0.97, 0.87), (0.98, 0.98), (1.0, 1.0)])
def test_of_a_full_line_nobody_knows_how_much_more_was_asked_for(reported, after):
    clock = Clockwork(PATIENCE, site(), appliance(capacity=10 * GBIT)).serve()
    clock.beat(egress_bps=int(reported * 10 * GBIT))
    clock.fleet.assign("a1", -GBIT)
    assert clock["a1"].utilisation == pytest.approx(after)


@given(st.lists(st.floats(-1e12, 1e12), max_size=30), st.floats(0, 2e10))
def test_whatever_is_assigned_the_load_stays_a_number_from_zero(amounts, egress):
    clock = Clockwork(PATIENCE, site(), appliance(capacity=10 * GBIT))
    clock.beat(egress_bps=int(egress))
    for amount in amounts:
        clock.fleet.assign("a1", amount)
        assert clock["a1"].utilisation >= 0.0
        clock.now += 1.0
        clock.beat(egress_bps=int(egress))
        assert clock["a1"].utilisation >= 0.0


def test_assigning_to_one_who_is_gone_is_nothing():
    Clockwork().fleet.assign("stranger", 1.0)


def test_a_returned_appliance_gets_its_share_slowly():
    clock = Clockwork(PATIENCE, site(), appliance(capacity=100 * GBIT)).serve()
    began = clock["a1"].since
    weights = {}
    while clock.now - began < 70:
        clock.run(1)
        weights[clock.now - began] = clock["a1"].weight
    assert weights[30.0] == pytest.approx(55.0)
    assert weights[62.0] == weights[69.0] == 100.0
    assert sorted(weights.values()) == list(weights.values())


def test_siblings_share_one_guess_of_what_is_not_known_to_be_held():
    clock = Clockwork(PATIENCE, lisbon=["a1", "a2", "a3"], porto=["b1"])
    assert {row.hit_ratio for row in clock.rows()} == {0.5}
    clock.beat("a1", hit_ratio=0.9)
    clock.beat("a2", hit_ratio=0.8)
    clock.beat("a3", hit_ratio=None)
    assert {row.appliance: row.hit_ratio for row in clock.rows()} == pytest.approx(
        {"a1": 0.85, "a2": 0.85, "a3": 0.85, "b1": 0.5}
    )


# --- Orders ---


@pytest.mark.parametrize(
    ("connections", "wish", "expected"),
    [
        (10, Wish.DRAIN, Standing.DRAINING),
        (0, Wish.DRAIN, Standing.DRAINED),
        (10, Wish.DISABLE, Standing.DISABLED),
        (0, Wish.DISABLE, Standing.DISABLED),
    ],
)
@pytest.mark.parametrize("from_standing", [Standing.JOINING, Standing.SERVING, Standing.SUSPECT])
def test_an_order_takes_effect_at_once(from_standing, connections, wish, expected):
    clock = Clockwork()
    clock.said["a1"] = {"connections": connections}
    if from_standing is Standing.JOINING:
        clock.beat()
    else:
        clock.serve()
    if from_standing is Standing.SUSPECT:
        clock.beat(ready=False)
    assert clock.standing() is from_standing
    clock.order("a1", wish)
    assert clock.standing() is expected
    assert clock.turns[-1] == Turn("a1", from_standing, expected, Why.ORDER, wish)
    assert clock.rows(current="a1")[0].bar is Bar(expected.value)
    assert clock.beat().drain is True


@pytest.mark.parametrize("wish", [Wish.DRAIN, Wish.DISABLE])
def test_an_order_for_one_who_is_silent_holds_when_it_speaks_again(wish):
    clock = Clockwork().serve()
    clock.silent.add("a1")
    clock.run(20)
    clock.order("a1", wish)
    assert clock.standing() is (Standing.LOST if wish is Wish.DRAIN else Standing.DISABLED)
    clock.beat()
    assert clock.standing() is (Standing.DRAINING if wish is Wish.DRAIN else Standing.DISABLED)


@pytest.mark.parametrize("wish", [Wish.DRAIN, Wish.DISABLE])
def test_an_order_for_one_that_was_never_heard(wish):
    clock = Clockwork()
    clock.order("a1", wish)
    assert clock["a1"].bar is (Bar.UNHEARD if wish is Wish.DRAIN else Bar.DISABLED)
    clock.beat()
    assert clock["a1"].bar is (Bar.DRAINING if wish is Wish.DRAIN else Bar.DISABLED)
    clock.order("a1", Wish.SERVE)
    assert clock.standing() is Standing.JOINING


def test_a_ban_that_is_lifted_before_it_ever_spoke_leaves_it_unheard():
    clock = Clockwork()
    clock.order("a1", Wish.DISABLE)
    clock.order("a1", Wish.SERVE)
    assert clock["a1"].bar is Bar.UNHEARD


@pytest.mark.parametrize("wish", [Wish.DRAIN, Wish.DISABLE])
def test_an_order_that_is_lifted_makes_it_join_anew(wish):
    clock = Clockwork().serve()
    clock.order("a1", wish)
    clock.run(5)
    clock.order("a1", Wish.SERVE)
    assert clock.standing() is Standing.JOINING
    clock.run(15)
    assert clock.standing() is Standing.SERVING
    assert clock.beat().drain is False


def test_a_draining_one_is_drained_when_nobody_is_left_and_may_then_be_switched_off():
    clock = Clockwork().serve()
    clock.order("a1", Wish.DRAIN)
    clock.run(5)
    assert clock.standing() is Standing.DRAINING
    clock.said["a1"] = {"connections": 0}
    clock.run(5)
    assert clock.standing() is Standing.DRAINED
    clock.silent.add("a1")
    clock.run(60)
    assert clock.standing() is Standing.DRAINED


def test_one_that_dies_while_it_drains_is_lost():
    clock = Clockwork().serve()
    clock.order("a1", Wish.DRAIN)
    clock.silent.add("a1")
    clock.run(20)
    assert clock.standing() is Standing.LOST


def test_one_that_drains_by_its_own_word_is_not_told_to():
    clock = Clockwork().serve()
    answer = clock.beat(draining=True)
    assert clock.standing() is Standing.DRAINING
    assert answer.drain is False
    assert clock.turns[-1].detail == "it drains"


def test_a_disabled_one_stays_so_through_silence_and_bad_words():
    clock = Clockwork().serve()
    clock.order("a1", Wish.DISABLE)
    clock.beat(ready=False)
    clock.beat()
    clock.silent.add("a1")
    clock.run(60)
    assert clock.standing() is Standing.DISABLED


# --- The inventory changes ---


def test_an_inventory_that_is_read_anew_changes_nobodys_standing():
    clock = Clockwork(PATIENCE, lisbon=["a1", "a2"], porto=["b1"]).serve()
    clock.beat("a1", ready=False)
    clock.silent.add("b1")
    clock.run(9)
    before = {name: member.standing for name, member in clock.fleet.members.items()}
    assert set(before.values()) == {Standing.SUSPECT, Standing.SERVING, Standing.JOINING}
    assert clock.fleet.take(inventory(lisbon=["a1", "a2"], porto=["b1"]), clock.now) == []
    assert {name: member.standing for name, member in clock.fleet.members.items()} == before


def test_what_is_known_of_those_who_stay_is_kept_and_the_rest_is_forgotten():
    clock = Clockwork(PATIENCE, lisbon=["a1", "a2"]).serve()
    stays = clock["a1"]
    after = apply(clock.fleet.inventory, RemoveAppliance("a2"), PutAppliance(appliance("a3")))
    clock.fleet.take(after, clock.now)
    assert clock["a1"] is stays
    assert set(clock.fleet.members) == {"a1", "a3"}
    assert [member.entry.id for member in clock.fleet.at("lisbon")] == ["a1", "a3"]
    assert clock.fleet.at("nowhere") == ()


def test_a_new_capacity_counts_at_once():
    clock = Clockwork(PATIENCE, site(), appliance(capacity=100 * GBIT)).serve()
    clock.beat(egress_bps=40 * GBIT)
    clock.fleet.take(apply(clock.fleet.inventory, PutAppliance(appliance(capacity=50 * GBIT))), clock.now)
    assert clock["a1"].utilisation == pytest.approx(0.8)
    assert clock.standing() is Standing.SERVING


# --- The panic guard ---


def crowd(boxes=10, patience=PATIENCE):
    return Clockwork(patience, **{f"s{number}": [f"a{number}"] for number in range(boxes)}).serve()


def test_when_all_fall_silent_at_once_the_last_view_is_kept():
    clock = crowd()
    clock.silent.update(clock.fleet.members)
    clock.run(600)
    assert clock.fleet.panic_since is not None
    assert clock.turns == []
    assert {member.standing for member in clock.fleet.members.values()} == {Standing.SERVING}


def test_a_share_that_is_small_enough_is_believed():
    clock = crowd()
    clock.silent.update(["a0", "a1", "a2"])
    clock.run(20)
    assert clock.fleet.panic_since is None
    assert {name for name in clock.fleet.members if clock.standing(name) is Standing.LOST} == {"a0", "a1", "a2"}


def test_one_site_that_is_gone_is_believed_however_large_it_is():
    clock = Clockwork(PATIENCE, lisbon=["a1", "a2", "a3", "a4"], porto=["b1"]).serve()
    clock.silent.update(["a1", "a2", "a3", "a4"])
    clock.run(20)
    assert {clock.standing(name) for name in clock.silent} == {Standing.LOST}


def test_when_they_are_heard_again_nobody_is_thrown_out_who_had_no_turn_yet():
    clock = crowd()
    clock.silent.update(clock.fleet.members)
    clock.run(60)
    clock.silent.clear()
    clock.run(30)
    assert clock.fleet.panic_since is None
    assert clock.turns == []


def test_after_a_panic_those_that_stay_silent_are_lost():
    clock = crowd()
    clock.silent.update(clock.fleet.members)
    clock.run(60)
    clock.silent = {"a3", "a4"}
    clock.run(25)
    assert {turn.appliance for turn in clock.turns} == {"a3", "a4"}
    assert {clock.standing(name) for name in ("a3", "a4")} == {Standing.LOST}


def test_silence_that_lasts_too_long_is_believed_at_last():
    clock = crowd(patience=Patience(panic_longest=100.0))
    clock.silent.update(clock.fleet.members)
    clock.run(90)
    assert clock.turns == []
    clock.run(30)
    assert {member.standing for member in clock.fleet.members.values()} == {Standing.LOST}
    clock.run(2)
    assert clock.fleet.panic_since is None


def test_orders_are_followed_during_a_panic_and_nobody_else_is_lost_by_them():
    clock = crowd()
    clock.silent.update(clock.fleet.members)
    clock.run(60)
    clock.order("a1", Wish.DISABLE)
    clock.order("a2", Wish.DRAIN)
    assert clock.standing("a1") is Standing.DISABLED
    assert clock.standing("a2") is Standing.DRAINING


def test_a_bad_word_during_a_panic_is_believed():
    clock = crowd()
    clock.silent.update(clock.fleet.members)
    clock.run(60)
    clock.beat("a1", ready=False)
    assert clock.standing("a1") is Standing.SUSPECT


def test_those_who_were_lost_long_ago_do_not_count_as_silent_at_once():
    clock = crowd()
    for name in ("a0", "a1", "a2", "a3", "a4", "a5"):
        clock.silent.add(name)
        clock.run(20)
    assert {clock.standing(name) for name in clock.silent} == {Standing.LOST}
    assert clock.fleet.panic_since is None


# --- Holdings ---


def holdings(numbers, version=1, boot="b1", name="a1"):
    return Holdings(appliance=name, boot=boot, version=version, bitmap=BitMap(numbers).serialize())


def test_the_share_of_what_is_asked_for_that_is_held():
    clock = Clockwork()
    clock.fleet.learn(holdings([1, 2, 3]))
    assert clock.rows(renditions=(1, 2, 8, 9))[0].held == 0.5
    assert clock.rows(renditions=(1,))[0].held == 1.0
    assert clock.rows(renditions=(9,))[0].held == 0.0
    assert clock.rows(renditions=())[0].held == 0.0


def test_of_a_title_with_very_many_renditions_some_are_looked_up():
    clock = Clockwork()
    clock.fleet.learn(holdings(range(32)))
    assert clock.rows(renditions=tuple(range(1000)))[0].held == 1.0


def test_holdings_are_asked_for_while_the_version_is_another():
    clock = Clockwork()
    assert clock.beat(holdings_version=0).wants_holdings is False
    assert clock.beat(holdings_version=3).wants_holdings is True
    clock.fleet.learn(holdings([1], version=3))
    assert clock.beat(holdings_version=3).wants_holdings is False
    assert clock.beat(holdings_version=4).wants_holdings is True
    assert clock.beat(holdings_version=3, boot="b2").wants_holdings is True


def test_older_holdings_of_the_same_boot_change_nothing():
    clock = Clockwork()
    clock.fleet.learn(holdings([1, 2], version=5))
    clock.fleet.learn(holdings([9], version=4))
    assert set(clock["a1"].holdings) == {1, 2}
    clock.fleet.learn(holdings([9], version=1, boot="b2"))
    assert set(clock["a1"].holdings) == {9}


def test_holdings_of_an_unknown_appliance_are_refused():
    with pytest.raises(Unrecognised, match="the inventory knows no appliance 'stranger'"):
        Clockwork().fleet.learn(holdings([1], name="stranger"))


def test_learned_prefixes_are_asked_for_while_the_version_is_another():
    clock = Clockwork()
    assert clock.beat(prefixes_version=0).wants_prefixes is False
    assert clock.beat(prefixes_version=3).wants_prefixes is True
    clock.fleet.learned_prefixes("a1", 3)
    assert clock.beat(prefixes_version=3).wants_prefixes is False


# --- Refuges ---

ROW_OF_SITES = [(f"s{number}", Proximity.PLACE, 10.0 + number) for number in range(12)]


def refuges(clock, near=ROW_OF_SITES, current=None, limit=0.8, family=None):
    """How often each is drawn, of a thousand networks."""
    return Counter(clock.fleet.refuge(near, mixed(number), current, limit, family) for number in range(1000))


def row_of_sites(count=12, **loads):
    clock = Clockwork(Patience(ramp=0.0), **{f"s{number}": [f"a{number}"] for number in range(count)}).serve()
    for name, percent in loads.items():
        clock.beat(name, egress_bps=percent * GBIT)
    return clock


def test_the_players_of_a_site_are_spread_over_as_many_near_ones_as_it_takes_by_the_room_they_have():
    assert set(refuges(row_of_sites(a0=0))) == {"s1"}
    assert set(refuges(row_of_sites(a0=70))) == {"s1"}
    spread = refuges(row_of_sites(a0=80, a1=60, a2=50, a3=40))
    # 20 and 30 of the 80; of the third no more than what is left.
    assert set(spread) == {"s1", "s2", "s3"}
    assert [spread[name] / 1000 for name in ("s1", "s2", "s3")] == pytest.approx([20 / 80, 30 / 80, 30 / 80], abs=0.05)


def test_who_is_full_or_does_not_serve_is_no_refuge():
    clock = row_of_sites(a0=50, a1=80)
    clock.beat("a2", ready=False)
    assert set(refuges(clock)) == {"s3"}
    assert set(refuges(row_of_sites(1))) == {None}
    assert set(refuges(row_of_sites(2, a1=90))) == {None}


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-5, 1, 3, 20]), st.booleans()), max_size=30))
def test_whether_refuges_were_asked_for_before_makes_no_difference(events):
    """What is remembered of a site's room follows what is assigned, told and ordered."""
    often, once = row_of_sites(4, a0=60, a1=60), row_of_sites(4, a0=60, a1=60)
    for number, (box, percent, is_told) in enumerate(events):
        often.fleet.refuge(ROW_OF_SITES, number, None, 0.8)
        for clock in (often, once):
            clock.fleet.assign(f"a{box}", percent * GBIT)
            if is_told:
                clock.beat(f"a{box}", egress_bps=abs(percent) * GBIT, ready=number % 3 > 0)
    assert refuges(often) == refuges(once)


def test_refuges_are_bounded_in_number():
    loads = {f"a{number}": 79 for number in range(12)}
    assert set(refuges(row_of_sites(**loads))) == {f"s{number}" for number in range(1, 9)}


def test_who_plays_seeks_refuge_from_the_site_where_it_is():
    assert set(refuges(row_of_sites(a0=10, a2=50), current="a2")) == {"s0"}
    assert set(refuges(row_of_sites(a0=70, a2=50), current="a2")) == {"s0", "s1"}
    assert set(refuges(row_of_sites(), current="stranger")) == {"s1"}


def test_a_refuge_has_an_address_of_the_family():
    clock = Clockwork(
        PATIENCE,
        *(site(f"s{number}") for number in range(3)),
        appliance("a0", "s0", ipv4=("192.0.2.1",)),
        appliance("a1", "s1", ipv6=("2001:db8::1",)),
        appliance("a2", "s2", ipv4=("192.0.2.2",)),
    ).serve()
    assert set(refuges(clock, family=4)) == {"s2"}
    assert set(refuges(clock)) == {"s1"}


# --- Candidates ---


def test_sites_of_one_class_that_are_as_near_are_all_seen():
    clock = Clockwork(PATIENCE, **{f"s{number}": [f"a{number}-{k}" for k in range(4)] for number in range(6)}).serve()
    alike = [(f"s{number}", Proximity.PREFIX, 2.0) for number in range(6)]
    assert {row.site for row in clock.rows(*alike)} == {f"s{number}" for number in range(6)}
    apart = [(f"s{number}", Proximity.PLACE, 10.0 + 2.0 * number) for number in range(6)]
    assert [row.site for row in clock.rows(*apart)][::4] == ["s0", "s1"]
    assert [row.site for row in clock.rows(*apart, within=5.0)][::4] == ["s0", "s1", "s2"]


def test_farther_classes_are_left_out_when_there_are_enough_at_two_sites():
    clock = Clockwork(PATIENCE, own=["a1", "a2"], own2=["b1", "b2"], open1=["c1"], open2=["d1"]).serve()
    near = [
        ("own", Proximity.PREFIX, 1.0),
        ("own2", Proximity.NETWORK, 4.0),
        ("open1", Proximity.PLACE, 20.0),
        ("open2", Proximity.PLACE, 30.0),
    ]
    assert {row.site for row in clock.rows(*near)} == {"own", "own2"}
    clock.beat("b1", ready=False)
    assert {row.site for row in clock.rows(*near)} == {"own", "own2", "open1", "open2"}


def test_for_guests_those_count_that_have_room_for_guests():
    clock = Clockwork(PATIENCE, site("s1"), site("s2"), site("s3"), *(appliance(f"a{n}", f"s{n}") for n in (1, 2, 3)))
    clock.serve()
    clock.beat("a2", egress_bps=85 * GBIT)
    near = [("s1", Proximity.PREFIX, 1.0), ("s2", Proximity.NETWORK, 2.0), ("s3", Proximity.PLACE, 3.0)]

    def sites(guests):
        rows = clock.fleet.candidates(near, content_of("t"), None, 1, 0.9, guests=guests)
        return [row.site for row in rows]

    assert sites(0.9) == ["s1", "s2"]
    assert sites(0.8) == ["s1", "s2", "s3"]


def test_who_is_full_or_barred_is_a_row_but_does_not_count_as_enough():
    clock = Clockwork(PATIENCE, own=["a1", "a2"], own2=["b1", "b2"], open1=["c1"]).serve()
    near = [
        ("own", Proximity.PREFIX, 1.0),
        ("own2", Proximity.PREFIX, 1.0),
        ("open1", Proximity.PLACE, 20.0),
    ]
    clock.beat("a1", egress_bps=90 * GBIT)
    rows = clock.rows(*near)
    assert [row.appliance for row in rows] == ["a1", "a2", "b1", "b2", "c1"]
    assert rows[0].utilisation == pytest.approx(0.9)


def test_the_site_of_the_current_appliance_is_always_seen_if_it_may_serve_the_client():
    clock = Clockwork(PATIENCE, **{f"s{number}": [f"a{number}-{k}" for k in range(4)] for number in range(6)}).serve()
    near = [(f"s{number}", Proximity.PLACE, 10.0 + 10.0 * number) for number in range(6)]
    assert {row.site for row in clock.rows(*near, current="a5-0")} == {"s0", "s1", "s5"}
    assert {row.site for row in clock.rows(*near[:5], current="a5-0")} == {"s0", "s1"}
    assert {row.site for row in clock.rows(*near, current="stranger")} == {"s0", "s1"}


def test_the_refuge_is_always_seen_if_it_is_near():
    clock = Clockwork(PATIENCE, **{f"s{number}": [f"a{number}-{k}" for k in range(4)] for number in range(6)}).serve()
    near = [(f"s{number}", Proximity.PLACE, 10.0 + 10.0 * number) for number in range(6)]
    for refuge in ("s4", "gone"):
        rows = clock.fleet.candidates(near, content_of("t"), "a5-0", 4, 0.9, refuge=refuge)
        assert {row.site for row in rows} == {"s0", "s1", "s5"} | {refuge} - {"gone"}


def test_with_a_family_those_without_such_an_address_do_not_count():
    clock = Clockwork(
        PATIENCE,
        site("s0"),
        site("s1"),
        site("s2"),
        appliance("a0", "s0", ipv4=("192.0.2.1",)),
        appliance("a1", "s1", ipv4=("192.0.2.2",)),
        appliance("a2", "s2", ipv6=("2001:db8::1",)),
    ).serve()
    near = [("s0", Proximity.PREFIX, 1.0), ("s1", Proximity.PREFIX, 1.5), ("s2", Proximity.PLACE, 9.0)]
    assert [row.bar for row in clock.rows(*near, enough=2, family=6)] == [Bar.NO_ADDRESS, Bar.NO_ADDRESS, None]
    assert [row.bar for row in clock.rows(*near, enough=2, family=4)] == [None, None]


@pytest.mark.parametrize(
    ("make", "new", "current"),
    [
        ({}, None, None),
        ({"ready": False}, Bar.SUSPECT, None),
        ({"draining": True}, Bar.DRAINING, Bar.DRAINING),
        ({"draining": True, "connections": 0}, Bar.DRAINED, Bar.DRAINED),
    ],
)
def test_who_plays_already_may_stay_with_one_in_doubt(make, new, current):
    clock = Clockwork().serve()
    clock.beat(**make)
    assert clock.rows()[0].bar is new
    assert clock.rows(current="a1")[0].bar is current


# --- Snapshots ---


def restored(states, now=2000.0, patience=PATIENCE, *changes, **sites):
    fleet = Fleet(patience, seed=7)
    fleet.take(apply(inventory(**(sites or {"lisbon": ["a1", "a2", "a3"]})), *changes), now)
    fleet.restore(states, now)
    return fleet


def snapshot():
    clock = Clockwork(PATIENCE, lisbon=["a1", "a2", "a3"]).serve()
    clock.run(60)
    clock.beat("a1", egress_bps=40 * GBIT, hit_ratio=0.9)
    clock.beat("a2", ready=False)
    clock.order("a3", Wish.DISABLE)
    return list(clock.fleet.states())


def test_a_restarted_steering_has_the_view_of_the_one_before():
    states = snapshot()
    fleet = restored(msgspec.msgpack.decode(msgspec.msgpack.encode(states), type=list[MemberState]))
    one = fleet.members["a1"]
    assert (one.standing, one.utilisation, one.capacity_bps, one.hits_here) == (
        Standing.SERVING,
        0.4,
        100 * GBIT,
        0.9,
    )
    assert one.weight == 100.0
    assert not one.is_live
    assert fleet.members["a2"].standing is Standing.SUSPECT
    assert fleet.members["a3"].standing is Standing.LOST, "nobody bans it any more"


def test_what_was_never_heard_is_in_no_snapshot():
    assert list(Clockwork().fleet.states()) == []


def test_what_was_ordered_since_the_snapshot_holds():
    fleet = restored(snapshot(), 2000.0, PATIENCE, SetWish("a1", Wish.DRAIN), SetWish("a2", Wish.DISABLE))
    assert fleet.members["a1"].standing is Standing.DRAINING
    assert fleet.members["a2"].standing is Standing.DISABLED


def test_those_of_a_snapshot_have_the_usual_time_to_speak():
    fleet = restored(snapshot())
    assert fleet.tick(2008.0) == []
    assert [turn.appliance for turn in fleet.tick(2014.0)] == ["a1", "a2"]
    assert fleet.members["a1"].standing is Standing.LOST


def test_the_first_heartbeat_after_a_restart_keeps_who_served():
    fleet = restored(snapshot())
    fleet.hear(heartbeat("a1", 900), 2003.0)
    assert fleet.members["a1"].standing is Standing.SERVING
    assert fleet.members["a1"].is_live


def test_a_snapshot_says_nothing_of_those_who_spoke_already_or_are_gone():
    states = snapshot()
    fleet = Fleet(PATIENCE, seed=7)
    fleet.take(inventory(lisbon=["a1"]), 2000.0)
    fleet.hear(heartbeat("a1", egress_bps=0), 2000.0)
    assert fleet.restore(states, 2000.0) == 0
    assert fleet.members["a1"].standing is Standing.JOINING


STATES = st.builds(
    MemberState,
    appliance=st.sampled_from(["a1", "a2", "zz"]),
    standing=st.sampled_from(Standing),
    since=st.floats(-1e12, 1e12),
    utilisation=st.floats(-10, 10),
    capacity_bps=st.integers(-1, 2**62),
    hit_ratio=st.none() | st.floats(0, 1),
)


@given(STATES)
def test_a_state_comes_back_from_json_and_msgpack(state):
    assert msgspec.json.decode(msgspec.json.encode(state), type=MemberState) == state
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=MemberState) == state


@given(st.lists(STATES, max_size=5))
def test_whatever_a_snapshot_says_loads_are_numbers_from_zero(states):
    for member in restored(states).members.values():
        assert 0.0 <= member.utilisation <= 1.0
        assert member.weight >= 0.0


# --- Everything together ---


@given(st.randoms(use_true_random=False))
def test_whatever_happens_nobody_is_offered_who_should_not_be(dice):
    boxes = [f"a{number}" for number in range(6)]
    clock = Clockwork(PATIENCE, lisbon=boxes[:3], porto=boxes[3:])
    for _ in range(60):
        name = dice.choice(boxes)
        match dice.randrange(5):
            case 0:
                clock.order(name, dice.choice(list(Wish)))
            case 1:
                clock.silent.symmetric_difference_update([name])
            case 2:
                clock.said[name] = {
                    "ready": dice.random() < 0.7,
                    "health": dice.random(),
                    "draining": dice.random() < 0.2,
                    "connections": dice.choice([0, 5]),
                }
            case _:
                clock.run(dice.randrange(1, 12))
        for row in clock.rows():
            member = clock[row.appliance]
            if row.bar is None:
                assert member.standing is Standing.SERVING
                assert member.entry.wish is Wish.SERVE
                assert not member.heartbeat.draining
                assert member.heartbeat.ready
                assert member.heartbeat.health >= PATIENCE.least_health
                silence = clock.now - max(member.heard_at, clock.fleet._heard_again_at)
                assert silence <= PATIENCE.quiet_after + 1.0 or clock.fleet.panic_since is not None


def test_counts_by_standing_name_all_standings():
    counts = Clockwork(PATIENCE, lisbon=["a1", "a2"]).serve().fleet.by_standing()
    assert counts == {**dict.fromkeys(Standing, 0), Standing.SERVING: 2}


# --- Maintenance ---


def pair(a1=10, a2=10):
    """Two at one site, who send so many Gbit/s of 100 each."""
    clock = Clockwork(PATIENCE, lisbon=["a1", "a2"])
    clock.said = {"a1": {"egress_bps": a1 * GBIT}, "a2": {"egress_bps": a2 * GBIT}}
    return clock.serve()


def test_maintenance_begins_and_ends_by_itself():
    clock = pair()
    clock.plan("a1", 10, 100)
    clock.run(9)
    assert clock.standing() is Standing.SERVING
    clock.run(1)
    assert (clock.standing(), clock.standing("a2")) == (Standing.DRAINING, Standing.SERVING)
    clock.said["a1"] = {"connections": 0}
    assert clock.beat().drain is True
    assert clock.standing() is Standing.DRAINED
    clock.run(89)
    assert clock.standing() is Standing.DRAINED
    clock.run(1)
    assert clock.standing() is Standing.JOINING
    assert clock.beat(connections=10).drain is False
    clock.run(20)
    assert clock.standing() is Standing.SERVING
    assert [turn.why for turn in clock.turns if turn.appliance == "a1"] == [
        Why.MAINTENANCE,
        Why.HEARTBEAT,
        Why.MAINTENANCE,
        Why.HEARTBEAT,
    ]


def test_maintenance_waits_until_the_others_can_carry_the_load_unless_it_is_forced():
    clock = pair(60, 60)
    clock.plan("a1", 10, 100)
    clock.run(15)
    assert (clock.standing(), clock["a1"].put_off) == (Standing.SERVING, pytest.approx(1.2))
    clock.said["a2"] = {"egress_bps": 30 * GBIT}
    clock.run(10)
    assert (clock.standing(), clock["a1"].put_off) == (Standing.DRAINING, None)
    full = pair(60, 60)
    full.plan("a1", 10, 100, forced=True)
    full.run(10)
    assert full.standing() is Standing.DRAINING


def test_of_a_pair_one_rests_at_a_time():
    clock = pair()
    clock.plan("a1", 10, 100)
    clock.plan("a2", 10, 200)
    clock.run(50)
    assert (clock.standing("a1"), clock.standing("a2")) == (Standing.DRAINING, Standing.SERVING)
    assert clock["a2"].put_off == float("inf")
    clock.run(70)
    assert (clock.standing("a1"), clock.standing("a2")) == (Standing.SERVING, Standing.DRAINING)


def test_maintenance_that_waited_too_long_is_forgotten():
    clock = pair(60, 60)
    clock.plan("a1", 10, 20)
    clock.run(25)
    assert (clock.standing(), clock["a1"].put_off) == (Standing.SERVING, None)


def test_maintenance_that_is_cancelled_ends_at_once():
    clock = pair()
    clock.plan("a1", 0, 100)
    clock.run(1)
    assert clock.standing() is Standing.DRAINING
    clock.fleet.take(apply(clock.fleet.inventory, CancelMaintenance("a1")), clock.now)
    clock.run(1)
    assert clock.standing() is Standing.JOINING


def test_a_drain_by_hand_goes_on_when_maintenance_is_over():
    clock = pair()
    clock.plan("a1", 0, 10)
    clock.run(1)
    clock.order("a1", Wish.DRAIN)
    clock.run(20)
    assert clock.standing() is Standing.DRAINING


@pytest.mark.parametrize("is_by_hand", [False, True])
def test_who_was_switched_off_and_is_not_back_when_the_order_to_rest_is_over_is_lost(is_by_hand):
    clock = pair()
    if is_by_hand:
        clock.order("a1", Wish.DRAIN)
    else:
        clock.plan("a1", 0, 50)
        clock.run(1)
    clock.beat(connections=0)
    clock.silent.add("a1")
    clock.run(48)
    assert clock.standing() is Standing.DRAINED, "it may be switched off"
    if is_by_hand:
        clock.order("a1", Wish.SERVE)
    else:
        clock.run(2)
    assert clock.standing() is Standing.LOST


def test_a_restarted_steering_goes_on_with_maintenance_even_if_the_site_has_become_full():
    clock = pair()
    clock.plan("a1", 0, 1000)
    clock.run(1)
    clock.said = {"a1": {"egress_bps": 0, "connections": 0}, "a2": {"egress_bps": 97 * GBIT}}
    clock.run(10)
    assert clock.standing() is Standing.DRAINED
    anew = Fleet(PATIENCE, seed=7)
    anew.take(clock.fleet.inventory, clock.now)
    anew.restore(tuple(clock.fleet.states()), clock.now)
    anew.tick(clock.now + 1)
    assert anew.members["a1"].standing is Standing.DRAINED
    answer, _ = anew.hear(heartbeat("a1", 1000, connections=0), clock.now + 2)
    assert answer.drain is True
    anew.tick(clock.now + 1000)
    assert anew.members["a1"].standing is Standing.LOST, "silent, and its maintenance is over"


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from(Standing)), min_size=1, max_size=6))
def test_more_that_leave_never_make_it_easier(rows):
    inside = [
        SimpleNamespace(entry=SimpleNamespace(id=place), utilisation=full, capacity_bps=GBIT, standing=standing)
        for place, (full, standing) in enumerate(rows)
    ]
    shares = [fullness_without(inside, set(range(count))) for count in range(len(rows) + 1)]
    assert shares == sorted(shares)


def test_how_full_the_rest_would_be():
    clock = pair(30, 50)
    members = clock.fleet.at("lisbon")
    assert fullness_without(members, {"a1"}) == pytest.approx(0.8)
    assert fullness_without(members, {"a1"}, 20 * GBIT) == pytest.approx(0.2)
    assert fullness_without(members, {"a1", "a2"}) == float("inf")
    assert fullness_without(members, {"a1", "a2"}, 0.0) == 0.0, "nobody watches"
    clock.order("a1", Wish.DRAIN)
    assert fullness_without(members, {"a1"}) == 0.0, "it carries nothing that will be carried"
    assert clock.fleet.loads() == {"lisbon": pytest.approx(80 * GBIT)}
