"""Who holds what: laws and tables. Renditions are rows 0 to n; sizes are units, not bytes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fill.placement import Box, Reason, Room, copies, placed, preferences, sources
from fill.rules import Placing

HOUR = 3600.0


def rows(*some):
    return np.array(some, np.int64)


def box(name="a", room=10, *, pledged=(), held=None, storage=None, free=0, window=10**9, tiers=("hdd",)):
    return Box(
        id=name,
        rooms=tuple(Room(tier, room // len(tiers)) for tier in tiers),
        storage_bytes=room if storage is None else storage,
        free_bytes=free,
        link_bps=10**12,
        window_bytes=window,
        pledged=rows(*pledged),
        held=rows(*(pledged if held is None else held)),
    )


def place(worth, boxes, *, sizes=None, rules=None, pins=(), blocks=()):
    count = len(worth)
    return placed(
        np.arange(count),
        np.ones(count, np.int64) if sizes is None else np.array(sizes, np.int64),
        np.array(worth, float),
        HOUR,
        boxes,
        Placing(churn=1.0) if rules is None else rules,
        rows(*pins),
        rows(*blocks),
    )


def one(worth, there, **more):
    (chosen,) = place(worth, [there], **more)
    return chosen


# --- What ---


def test_the_densest_fill_the_room():
    chosen = one([5, 1, 4, 2, 3], box(room=3))
    assert chosen.bring.tolist() == [0, 2, 4]
    assert chosen.value.tolist() == [5, 4, 3]
    assert chosen.refused == {Reason.ROOM: 2}


def test_density_is_worth_by_size():
    assert one([10, 9, 6], box(room=10), sizes=[10, 3, 3]).bring.tolist() == [1, 2]


def test_what_is_too_large_makes_way_for_what_fits():
    assert one([90, 80, 7], box(room=10), sizes=[9, 8, 1]).bring.tolist() == [0, 2]


def test_what_nobody_will_ask_for_is_not_brought():
    assert one([0, 0, 1], box(room=3)).bring.tolist() == [2]


def test_what_is_held_by_pledge_stays_until_something_is_denser_by_more_than_the_hysteresis():
    there = box(room=1, pledged=[0])
    rules = Placing(churn=1.0, hysteresis=0.3)
    kept = one([10, 12], there, rules=rules)
    assert (kept.keep.tolist(), kept.bring.tolist(), kept.release.tolist()) == ([0], [], [])
    moved = one([10, 14], there, rules=rules)
    assert (moved.keep.tolist(), moved.bring.tolist(), moved.release.tolist()) == ([], [1], [0])


def test_a_night_replaces_no_more_than_the_churn_that_is_allowed_the_densest_first():
    there = box(room=10, pledged=range(10))
    chosen = one([1] * 10 + [9, 8, 7], there, rules=Placing(churn=0.2))
    assert chosen.bring.tolist() == [10, 11]
    assert chosen.cost_bytes == 2
    assert len(chosen.keep) == 8
    assert len(chosen.release) == 2
    assert chosen.refused == {Reason.BUDGET: 1}


def test_what_is_held_already_is_pledged_without_cost():
    chosen = one([5, 4, 3], box(room=3, held=[1, 2], pledged=[]), rules=Placing(churn=0.0))
    assert chosen.bring.tolist() == [1, 2]
    assert chosen.cost_bytes == 0


def test_filling_what_is_empty_is_no_replacing():
    assert len(one([1] * 5, box(room=5, free=4), rules=Placing(churn=0.0)).bring) == 4


def test_no_more_comes_than_the_window_lets_in():
    assert one([3, 2, 1], box(room=3, free=3, window=2)).bring.tolist() == [0, 1]


def test_the_hottest_go_to_the_fastest_tier():
    chosen = one([6, 5, 4, 3, 2, 1], box(room=6, tiers=("nvme", "ssd", "hdd")))
    assert list(zip(chosen.bring.tolist(), chosen.tiers, strict=True)) == [
        (0, "nvme"), (1, "nvme"), (2, "ssd"), (3, "ssd"), (4, "hdd"), (5, "hdd"),
    ]  # fmt: skip


def test_releases_begin_with_the_least_valuable():
    chosen = one([1, 3, 2, 90, 80, 70], box(room=3, pledged=[0, 1, 2]))
    assert chosen.release.tolist() == [0, 2, 1]


# --- Wishes ---


def test_a_pin_comes_before_what_is_denser():
    chosen = one([9, 8, 0], box(room=2), pins=[2])
    assert sorted(chosen.bring.tolist()) == [0, 2]
    assert chosen.bring[0] == 2


def test_pins_may_cost_more_than_the_churn_but_not_more_than_the_window():
    there = box(room=4, pledged=[0, 1, 2, 3], window=2)
    chosen = one([9] * 4 + [0, 0, 0], there, rules=Placing(churn=0.0), pins=[4, 5, 6])
    assert chosen.bring.tolist() == [4, 5]
    assert chosen.budget_bytes == 2


def test_what_is_blocked_is_not_brought_and_is_given_up():
    chosen = one([9, 8, 7], box(room=2, pledged=[0]), blocks=[0])
    assert chosen.bring.tolist() == [1, 2]
    assert chosen.release.tolist() == [0]


def test_a_block_is_stronger_than_a_pin():
    assert one([9, 8], box(room=2), pins=[0], blocks=[0]).bring.tolist() == [1]


# --- Where ---


def test_each_rendition_lies_on_as_many_appliances_as_its_viewers_need():
    assert copies(np.array([0.0, 1.0, 10.0, 11.0, 25.0, 900.0]), 10.0, 3).tolist() == [1, 1, 1, 2, 3, 3]


def test_what_has_one_copy_lies_once_at_a_site():
    parts = place([1] * 40, [box(name, room=20) for name in "abc"])
    held = sorted(row for chosen in parts for row in chosen.pledged.tolist())
    assert held == list(range(40))


def test_weights_share_renditions_in_proportion():
    order = preferences(np.arange(20_000), ["small", "large"], [1.0, 3.0])
    assert np.mean(order[:, 0] == 1) == pytest.approx(0.75, abs=0.01)


def test_an_appliance_that_comes_takes_only_what_becomes_its_own():
    numbers = np.arange(5_000)
    before = preferences(numbers, ["a", "b", "c"], [1.0, 1.0, 1.0])[:, 0]
    after = preferences(numbers, ["a", "b", "c", "d"], [1.0, 1.0, 1.0, 1.0])[:, 0]
    moved = before != after
    assert set(after[moved].tolist()) == {3}
    assert moved.mean() == pytest.approx(0.25, abs=0.02)


def test_a_heavier_appliance_only_gains():
    numbers = np.arange(5_000)
    before = preferences(numbers, ["a", "b"], [1.0, 1.0])[:, 0]
    after = preferences(numbers, ["a", "b"], [1.0, 2.0])[:, 0]
    assert not ((before == 1) & (after == 0)).any()


def test_what_has_no_room_where_it_belongs_is_offered_to_the_next():
    parts = place([1] * 30, [box("full", room=0), box("empty", room=30)])
    assert len(parts[1].bring) == 30


def test_sites_without_appliances_need_no_plan():
    assert place([1.0], []) == []


# --- Laws ---


@st.composite
def nights(draw):
    count = draw(st.integers(1, 30))
    sizes = draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    worth = draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
    boxes = []
    for name in "abc"[: draw(st.integers(1, 3))]:
        room = draw(st.integers(0, 60))
        pledged, used = [], 0
        for row in draw(st.permutations(range(count))):
            if used + sizes[row] <= room and draw(st.booleans()):
                pledged.append(row)
                used += sizes[row]
        held = sorted(set(pledged) | draw(st.sets(st.integers(0, count - 1))))
        free, window = draw(st.integers(0, 20)), draw(st.integers(0, 40))
        boxes.append(box(name, room, pledged=sorted(pledged), held=held, free=free, window=window))
    some = st.sets(st.integers(0, count - 1), max_size=4)
    return sizes, worth, boxes, sorted(draw(some)), sorted(draw(some)), draw(st.sampled_from([0.0, 0.1, 1.0]))


@settings(max_examples=300)
@given(nights())
def test_whatever_is_there_a_plan_keeps_its_word(night):
    sizes, worth, boxes, pins, blocks, churn = night
    parts = place(worth, boxes, sizes=sizes, rules=Placing(churn=churn), pins=pins, blocks=blocks)
    of = np.array(sizes)
    for there, chosen in zip(boxes, parts, strict=True):
        bring, keep, release = (set(some.tolist()) for some in (chosen.bring, chosen.keep, chosen.release))
        # Each thing that was pledged stays or goes, and nothing is two things at once.
        assert keep | release == set(there.pledged.tolist())
        assert not keep & release
        assert not bring & set(there.pledged.tolist())
        assert not (bring | keep) & set(blocks)
        # It fits, and costs no more than it may.
        assert of[sorted(bring | keep)].sum() <= there.room_bytes
        cost = of[sorted(bring - set(there.held.tolist()))].sum()
        assert cost == chosen.cost_bytes <= min(there.window_bytes, chosen.budget_bytes)
        if not bring & set(pins):
            assert cost <= there.budget_bytes(Placing(churn=churn))
        # Only what comes makes anything go.
        if not bring and not set(blocks) & set(there.pledged.tolist()):
            assert not release
        assert len(chosen.tiers) == len(chosen.value) == len(chosen.bring)
    again = place(worth, boxes, sizes=sizes, rules=Placing(churn=churn), pins=pins, blocks=blocks)
    assert [(one.bring.tolist(), one.keep.tolist()) for one in parts] == [
        (one.bring.tolist(), one.keep.tolist()) for one in again
    ]


@settings(max_examples=200)
@given(nights())
def test_a_second_night_of_the_same_demand_changes_nothing_that_was_there(night):
    """Without a limit, the first night finds the place of everything."""
    sizes, worth, boxes, *_ = night
    empty = [box(one.id, one.room_bytes, free=10**6) for one in boxes]
    first = place(worth, empty, sizes=sizes)
    come = [row for chosen in first for row in chosen.bring.tolist()]
    assert len(come) == len(set(come)), "one copy of each is wanted"
    there = [
        box(one.id, one.room_bytes, pledged=sorted(chosen.pledged.tolist()))
        for one, chosen in zip(empty, first, strict=True)
    ]
    for chosen in place(worth, there, sizes=sizes):
        assert not len(chosen.release)


# --- Who brings it in ---


def asked(*appliances, parent=None, count=50):
    """Of (name, site, rows to bring, rows held)."""
    given_ = [(name, site, rows(*bring), rows(*held)) for name, site, bring, held in appliances]
    return sources(np.arange(count), given_, parent)


EVERYTHING = tuple(range(50))


def test_one_appliance_of_a_site_brings_in_what_all_of_it_shall_hold():
    told = asked(*((name, "s", EVERYTHING, ()) for name in "abc"))
    for row in range(50):
        outside = [name for name in "abc" if not told[name][row]]
        assert len(outside) == 1
        assert all(told[name][row] == (outside[0],) for name in "abc" if name != outside[0])
    # And not always the same one.
    assert {name for name in "abc" for row in range(50) if not told[name][row]} == set("abc")


def test_one_site_of_a_region_brings_it_in_and_the_others_ask_it():
    told = asked(*((f"{site}{at}", site, EVERYTHING, ()) for site, at in itertools.product("xyz", (1, 2))))
    for row in range(50):
        outside = [name for name in told if not told[name][row]]
        assert len(outside) == 1
        for site in "xyz":
            own = [told[f"{site}{at}"][row] for at in (1, 2)]
            if outside[0].startswith(site):
                assert sorted(map(len, own)) == [0, 1]
            else:
                # One asks the region; the other its own site first, then the region.
                assert sorted(map(len, own)) == [1, 2]
                assert all(one[-1] == outside[0] for one in own)


def test_who_holds_it_already_is_asked():
    told = asked(("a", "s", EVERYTHING, ()), ("b", "s", EVERYTHING, ()), ("c", "s", (), EVERYTHING))
    assert told["a"] == told["b"] == [("c",)] * 50
    assert told["c"] == []


def test_the_parents_own_appliance_is_asked_before_its_sites():
    told = asked(("top", "ixp", EVERYTHING, ()), ("a", "s", EVERYTHING, ()), ("b", "t", EVERYTHING, ()), parent="ixp")
    assert told["top"] == [()] * 50
    assert told["a"] == told["b"] == [("top",)] * 50


def test_nobody_is_asked_for_what_only_one_shall_hold():
    assert asked(("a", "s", (1, 2), ()), ("b", "s", (3,), ()))["a"] == [(), ()]


@settings(max_examples=100)
@given(st.data())
def test_no_two_appliances_wait_for_each_other(data):
    names = [f"a{at}" for at in range(data.draw(st.integers(1, 6)))]
    some = st.sets(st.integers(0, 9)).map(sorted)
    appliances = []
    for name in names:
        held = data.draw(some)
        bring = [row for row in data.draw(some) if row not in held]
        appliances.append((name, data.draw(st.sampled_from("xyz")), bring, held))
    told = asked(*appliances, parent=data.draw(st.sampled_from(["x", None])), count=10)
    holds = {name: set(held) for name, _, _, held in appliances}
    bring_of = {name: list(bring) for name, _, bring, _ in appliances}
    for row in range(10):
        waits = {
            name: told[name][bring_of[name].index(row)]
            for name in names
            if row in bring_of[name] and row not in holds[name]
        }
        # Following whoever is asked last always ends with a holder, or with one who asks its own ladder.
        for name in waits:
            seen, at = {name}, name
            while waits.get(at):
                at = waits[at][-1]
                assert at not in seen
                seen.add(at)
            assert at in waits or row in holds[at]
