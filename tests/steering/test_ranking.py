"""Who is first and why: eligibility, classes, costs in milliseconds, shares, and what keeps a player where it is."""

from collections import Counter
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steering.names import mixed, mixed_name
from steering.ranking import Bar, Candidate, Question, Ranking, Reason, Rules, chosen, rank, refuge
from steering.topology.distance import Proximity
from tests.steering.stock import candidate

RULES = Rules()
SEED = 7
TITLES = [mixed_name(f"title-{number}") for number in range(4000)]


def ranked(*rows, content=1, current=None, rules=RULES, seed=SEED):
    return rank(Question(content, current), rows, rules, seed)


def names(ranking):
    return [row.candidate.appliance for row in ranking.ranked]


def box(name, **fields):
    return candidate(name, mix=mixed_name(name), **fields)


def home(rows, content, **more):
    return ranked(*rows, content=content, **more).ranked[0].candidate.appliance


# --- Eligibility ---


@pytest.mark.parametrize("bar", Bar)
def test_who_is_barred_is_not_ranked_and_the_reason_is_kept(bar):
    ranking = ranked(box("a1", bar=bar), box("b1"))
    assert names(ranking) == ["b1"]
    assert [(row.appliance, why) for row, why in ranking.rejected] == [("a1", bar)]


@pytest.mark.parametrize(
    ("utilisation", "current", "is_full"),
    [(0.8999, None, False), (0.90, None, True), (0.90, "a1", False), (0.9499, "a1", False), (0.95, "a1", True)],
)
def test_the_hard_limit_is_for_new_players_and_a_higher_one_for_those_that_are_there(utilisation, current, is_full):
    ranking = ranked(box("a1", utilisation=utilisation), current=current)
    assert bool(ranking.rejected) is is_full
    if is_full:
        assert ranking.rejected[0][1] is Bar.FULL


def test_without_anyone_there_is_only_the_origin():
    assert ranked() == Ranking((), (), Reason.ONLY_ORIGIN)
    assert ranked(box("a1", bar=Bar.LOST)).reason is Reason.ONLY_ORIGIN


def test_who_is_rejected_is_listed_from_the_nearest_class_on():
    far, near = box("a1", bar=Bar.LOST, proximity=Proximity.PLACE), box("b1", bar=Bar.LOST, proximity=Proximity.PREFIX)
    assert ranked(far, near) == ranked(near, far)
    assert [row.appliance for row, _ in ranked(far, near).rejected] == ["b1", "a1"]


# --- Classes before cost ---


@pytest.mark.parametrize("nearer", list(Proximity)[:-1])
def test_a_nearer_class_comes_first_whatever_it_costs(nearer):
    farther = Proximity(nearer + 1)
    dear = box("a1", proximity=nearer, rtt=500.0, utilisation=0.89, hit_ratio=0.0)
    cheap = box("b1", proximity=farther, rtt=0.0, held=1.0)
    assert names(ranked(cheap, dear)) == ["a1", "b1"]


# --- The formula ---


@pytest.mark.parametrize(
    ("fields", "miss", "fetch", "load", "cost"),
    [
        ({"rtt": 10.0, "hit_ratio": 0.5}, "1/2", 40, 0, 50),
        ({"rtt": 10.0, "hit_ratio": 0.96}, "1/25", "16/5", 0, "66/5"),
        ({"rtt": 10.0, "hit_ratio": 0.5, "held": 1.0}, 0, 0, 0, 10),
        ({"rtt": 10.0, "hit_ratio": 0.5, "held": 0.75}, "1/8", 10, 0, 20),
        ({"rtt": 10.0, "hit_ratio": 0.0}, 1, 80, 0, 90),
        ({"rtt": 3.5, "hit_ratio": 1.0}, 0, 0, 0, "7/2"),
        ({"rtt": 10.0, "hit_ratio": 1.0, "utilisation": 0.5}, 0, 0, 1, 11),
        ({"rtt": 10.0, "hit_ratio": 1.0, "utilisation": 0.75}, 0, 0, 3, 13),
        ({"rtt": 10.0, "hit_ratio": 1.0, "utilisation": 0.875}, 0, 0, 7, 17),
        ({"rtt": 10.0, "hit_ratio": 0.5, "held": 0.5, "utilisation": 0.8}, "1/4", 20, 4, 34),
    ],
)
def test_each_term_is_in_milliseconds(fields, miss, fetch, load, cost):
    row = ranked(box("a1", **fields)).ranked[0]
    expected = [float(Fraction(term)) for term in (miss, fetch, load, cost)]
    assert [row.miss, row.fetch, row.load, row.cost] == pytest.approx(expected, abs=1e-9)


@given(st.floats(0, 500), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.8999), st.floats(0, 500), st.floats(0, 100))
def test_the_terms_add_up(rtt, hits, held, utilisation, penalty, delay):
    rules = Rules(fetch_penalty=penalty, load_delay=delay)
    fields = {"rtt": rtt, "hit_ratio": hits, "held": held, "utilisation": utilisation}
    row = ranked(box("a1", **fields), rules=rules).ranked[0]
    assert row.cost == rtt + row.fetch + row.load
    assert row.fetch == pytest.approx((1 - held) * (1 - hits) * penalty)
    assert row.load == pytest.approx(delay * utilisation / (1 - utilisation))


@given(st.floats(0, 0.89), st.floats(0, 0.89))
def test_who_carries_more_makes_players_wait_longer(one, other):
    loads = [ranked(box("a1", utilisation=value)).ranked[0].load for value in sorted([one, other])]
    assert loads == sorted(loads)


def test_those_that_differ_by_more_come_in_the_order_of_their_cost():
    rows = [box(name, rtt=rtt) for name, rtt in (("a1", 30.0), ("b1", 10.0), ("c1", 20.0), ("d1", 10.0 + 3.1))]
    assert names(ranked(*rows)) == ["b1", "d1", "c1", "a1"]


@pytest.mark.parametrize(("farther", "is_equal"), [(0.0, True), (0.3, True), (0.31, False), (2.0, False)])
def test_who_is_twenty_kilometres_farther_is_not_an_equal(farther, is_equal):
    ranking = ranked(box("a1", rtt=10.0, hit_ratio=1.0), box("b1", rtt=10.0 + farther, hit_ratio=1.0))
    assert {row.equal for row in ranking.ranked} == {is_equal}
    homes = {home([row.candidate for row in ranking.ranked], title) for title in TITLES[:50]}
    assert homes == ({"a1", "b1"} if is_equal else {"a1"})


# --- Reasons ---

P, N, L = Proximity.PREFIX, Proximity.NETWORK, Proximity.PLACE


@pytest.mark.parametrize(
    ("rows", "current", "first", "reason"),
    [
        ([box("a1")], None, "a1", Reason.NEAREST),
        ([box("a1", rtt=10), box("b1", rtt=20)], None, "a1", Reason.NEAREST),
        ([box("a1", held=1), box("b1", rtt=9)], None, "a1", Reason.HOLDS),
        ([box("a1", proximity=P, bar=Bar.LOST), box("b1", proximity=L)], None, "b1", Reason.OVERFLOW),
        ([box("a1", proximity=P, utilisation=0.91), box("b1", proximity=N)], None, "b1", Reason.OVERFLOW),
        ([box("a1", proximity=P, bar=Bar.NO_ADDRESS), box("b1", proximity=L)], None, "b1", Reason.NEAREST),
        ([box("a1", proximity=P), box("b1", proximity=P, bar=Bar.LOST)], None, "a1", Reason.NEAREST),
        ([box("a1", rtt=10), box("b1", rtt=20)], "b1", "b1", Reason.STAYS),
        ([box("a1", rtt=10), box("b1", rtt=49.9)], "b1", "b1", Reason.STAYS),
        ([box("a1", rtt=10), box("b1", rtt=50.1)], "b1", "a1", Reason.NEAREST),
        ([box("a1", rtt=10), box("b1", rtt=20)], "a1", "a1", Reason.NEAREST),
        ([box("a1", rtt=10, proximity=N), box("b1", rtt=1)], "b1", "a1", Reason.NEAREST),
        ([box("a1", proximity=N, utilisation=0.79), box("b1")], "b1", "a1", Reason.NEAREST),
        ([box("a1", proximity=N, utilisation=0.80), box("b1")], "b1", "b1", Reason.STAYS),
        ([box("a1", proximity=N, utilisation=0.80), box("b1")], None, "a1", Reason.NEAREST),
        ([box("a1", rtt=10, utilisation=0.85), box("b1", rtt=90)], "b1", "b1", Reason.STAYS),
        ([box("a1", rtt=10), box("b1", rtt=20, utilisation=0.95)], "b1", "a1", Reason.NEAREST),
        ([box("a1", rtt=10), box("b1", rtt=20)], "gone", "a1", Reason.NEAREST),
        ([box("a1", bar=Bar.DRAINING)], "a1", None, Reason.ONLY_ORIGIN),
    ],
)
def test_each_decision_has_a_reason(rows, current, first, reason):
    ranking = ranked(*rows, current=current)
    assert ranking.reason is reason
    assert (names(ranking) or [None])[0] == first


def test_among_equals_the_home_of_the_content_is_first_and_who_is_too_busy_gives_way():
    rows = [box(name) for name in ("a1", "b1", "c1")]
    ranking = ranked(*rows, content=TITLES[0])
    first, second, third = names(ranking)
    assert ranking.reason is Reason.HOME
    loads = {first: 0.5, second: 0.1, third: 0.1}
    busy = ranked(*(box(name, utilisation=loads[name]) for name in loads), content=TITLES[0])
    assert names(busy) == [second, third, first]
    assert busy.reason is Reason.SPREAD
    assert [row.busy for row in busy.ranked] == [False, False, True]


def test_who_is_called_back_goes_to_the_next_that_has_room_if_the_home_has_not():
    rows = [box(name, proximity=N) for name in ("a1", "b1", "c1")]
    first, second, third = names(ranked(*rows, content=TITLES[0]))
    loads = {first: 0.81, second: 0.79, third: 0.79}
    filled = [box(name, proximity=N, utilisation=loads[name]) for name in loads]
    anew = ranked(*filled, box("d1"), content=TITLES[0])
    assert (names(anew)[0], anew.reason) == (first, Reason.HOME)
    called = ranked(*filled, box("d1"), content=TITLES[0], current="d1")
    assert (names(called), called.reason) == ([second, first, third, "d1"], Reason.SPREAD)


def test_while_all_are_idle_nobody_is_too_busy():
    rows = [box("a1", utilisation=0.29), box("b1"), box("c1")]
    assert not any(row.busy for row in ranked(*rows).ranked)


@given(st.lists(st.tuples(st.floats(0, 0.89), st.floats(0.001, 1000)), min_size=1, max_size=12))
def test_not_all_equals_are_busier_than_their_mean(loads):
    rows = [
        box(f"a{number}", utilisation=used, weight=weight, hit_ratio=1.0) for number, (used, weight) in enumerate(loads)
    ]
    assert not ranked(*rows, rules=Rules(load_delay=0.0)).ranked[0].busy


def test_an_appliance_without_weight_comes_after_its_equals():
    assert names(ranked(box("a1", weight=0.0), box("b1"), box("c1", weight=0.0)))[0] == "b1"
    assert ranked(box("a1", weight=0.0), box("c1", weight=0.0)).reason is Reason.HOME


# --- Shares ---


@pytest.mark.parametrize("weights", [(1, 1), (10, 10, 10, 10), (1, 2, 5), (100, 10, 40, 10)])
def test_equals_share_contents_by_their_weight(weights):
    rows = [box(f"a{number}", weight=float(weight)) for number, weight in enumerate(weights)]
    wins = Counter(home(rows, title) for title in TITLES)
    for number, weight in enumerate(weights):
        assert wins[f"a{number}"] / len(TITLES) == pytest.approx(weight / sum(weights), abs=0.03)


def test_another_seed_shares_anew():
    rows = [box(f"a{number}") for number in range(4)]
    moved = sum(home(rows, title) != home(rows, title, seed=8) for title in TITLES)
    assert moved / len(TITLES) == pytest.approx(0.75, abs=0.03)


WEIGHTS = st.lists(st.sampled_from([1.0, 4.0, 10.0, 40.0, 100.0]), min_size=2, max_size=7)


@given(WEIGHTS, st.integers(0, 2**32))
@settings(max_examples=25)
def test_who_comes_or_goes_moves_only_its_own_share(weights, salt):
    rows = [box(f"a{salt}-{number}", weight=weight) for number, weight in enumerate(weights)]
    *others, newcomer = rows
    for title in TITLES[:200]:
        before, after = home(others, title), home(rows, title)
        assert after in {before, newcomer.appliance}
        if before != after:
            # And who loses it again goes back to where it was.
            assert names(ranked(*rows, content=title))[1] == before


@given(WEIGHTS, st.integers(1, 100))
@settings(max_examples=25)
def test_who_gets_a_greater_weight_loses_nothing(weights, percent):
    rows = [box(f"a{number}", weight=weight) for number, weight in enumerate(weights)]
    grown = [box("a0", weight=weights[0] * (1 + percent / 100)), *rows[1:]]
    for title in TITLES[:200]:
        before, after = home(rows, title), home(grown, title)
        assert after in {before, "a0"}


# --- Laws ---

ROWS = st.lists(
    st.builds(
        Candidate,
        appliance=st.sampled_from([f"a{number}" for number in range(12)]),
        site=st.sampled_from(["lisbon", "porto", "madrid"]),
        proximity=st.sampled_from(Proximity),
        rtt=st.sampled_from([1.0, 2.0, 3.9, 10.0, 60.0]),
        utilisation=st.floats(0.0, 1.2),
        weight=st.floats(0.0, 400.0),
        hit_ratio=st.floats(0, 1),
        held=st.floats(0, 1),
        mix=st.integers(0, 2**64 - 1),
        bar=st.none() | st.none() | st.sampled_from(Bar),
    ),
    max_size=12,
    unique_by=lambda row: row.appliance,
)
QUESTIONS = st.builds(
    Question,
    st.integers(0, 2**64 - 1),
    st.none() | st.sampled_from([f"a{number}" for number in range(12)]),
    st.none() | st.sampled_from(["lisbon", "porto", "madrid", "gone"]),
)


@given(QUESTIONS, ROWS)
def test_each_row_is_ranked_or_rejected_once_and_nobody_ineligible_is_ranked(question, rows):
    ranking = rank(question, rows, RULES, SEED)
    assert sorted(names(ranking) + [row.appliance for row, _ in ranking.rejected]) == sorted(
        row.appliance for row in rows
    )
    for row in ranking.ranked:
        assert row.candidate.bar is None
        is_current = row.candidate.appliance == question.current
        assert row.candidate.utilisation < (RULES.leave_limit if is_current else RULES.hard_limit)
    assert (ranking.reason is Reason.ONLY_ORIGIN) == (not ranking.ranked)


@given(QUESTIONS, ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(question, rows, dice):
    shuffled = dice.sample(rows, len(rows))
    assert rank(question, rows, RULES, SEED) == rank(question, shuffled, RULES, SEED)


@given(QUESTIONS, ROWS)
def test_no_farther_class_stands_before_a_nearer_one_but_where_a_player_stays_or_would_be_a_guest(question, rows):
    ranking = rank(question, rows, RULES, SEED)
    nearest = min((row.proximity for row in rows if row.bar is None), default=Proximity.PREFIX)
    places = [
        (
            row.candidate.proximity > nearest and row.candidate.utilisation >= RULES.guest_limit,
            row.candidate.proximity,
        )
        for row in ranking.ranked
    ]
    if ranking.reason is Reason.STAYS:
        assert names(ranking)[0] == question.current
        del places[0]
    elif question.current in names(ranking) and places != sorted(places):
        # A player that moves is not called to a nearer class that has no room to keep it.
        first = places.pop(0)
        nearer = [row.candidate for row in ranking.ranked if row.candidate.proximity < first[1]]
        assert all(candidate.utilisation >= RULES.return_limit for candidate in nearer)
    assert places == sorted(places)


def test_whom_their_own_site_cannot_take_go_farther_before_they_take_the_last_room_of_others():
    own = box("a1", proximity=Proximity.PREFIX, utilisation=0.92)
    next_city = box("b1", site="next", proximity=Proximity.NETWORK, utilisation=0.82)
    exchange = box("c1", site="exchange", proximity=Proximity.PLACE, utilisation=0.5)
    assert names(ranked(own, next_city, exchange)) == ["c1", "b1"]
    busy = msgspec.structs.replace(exchange, utilisation=0.85)
    assert names(ranked(own, next_city, busy)) == ["b1", "c1"]
    # Who plays there is no new guest, and whose own site is away is none at all.
    assert names(ranked(own, next_city, exchange, current="b1"))[0] == "b1"
    away = msgspec.structs.replace(own, bar=Bar.LOST)
    assert names(ranked(away, next_city, exchange)) == ["b1", "c1"]


@given(st.integers(0, 2**64 - 1), ROWS)
def test_a_player_is_moved_only_for_a_reason(content, rows):
    anew = rank(Question(content), rows, RULES, SEED)
    for current in rows:
        ranking = rank(Question(content, current.appliance), rows, RULES, SEED)
        mine = next((row for row in ranking.ranked if row.candidate.appliance == current.appliance), None)
        if mine is None:
            assert current.bar is not None or current.utilisation >= RULES.leave_limit
            continue
        best = ranking.ranked[0]
        if best is not mine:
            is_nearer = best.candidate.proximity < mine.candidate.proximity
            is_as_near = best.candidate.proximity == mine.candidate.proximity
            assert is_nearer or (is_as_near and mine.cost - best.cost >= RULES.move_gain)
            assert best.candidate.utilisation < RULES.return_limit
        elif names(anew)[:1] == [current.appliance]:
            assert ranking.reason is anew.reason


@given(QUESTIONS, ROWS, st.integers(1, 8))
def test_an_answer_spans_two_sites_whenever_two_are_eligible(question, rows, count):
    ranking = rank(question, rows, RULES, SEED)
    best = chosen(question, ranking, Rules(options=count), SEED)
    assert len(best) == min(count, len(ranking.ranked))
    assert best[:1] == ranking.ranked[:1]
    eligible = {row.candidate.site for row in ranking.ranked}
    if count >= 2 and len(eligible) >= 2:
        assert len({row.candidate.site for row in best}) >= 2


def test_the_last_gives_way_to_the_best_of_another_site():
    rows = [box(f"a{number}", rtt=10.0 + 5 * number) for number in range(5)] + [
        box("b1", site="porto", rtt=90.0),
        box("b2", site="porto", rtt=80.0),
    ]
    best = [row.candidate.appliance for row in chosen(Question(1), ranked(*rows), RULES, SEED)]
    assert best == ["a0", "a1", "a2", "b2"]


@given(QUESTIONS, ROWS)
def test_after_the_site_of_the_first_the_refuge_comes_next(question, rows):
    ranking = rank(question, rows, RULES, SEED)
    sites = [row.candidate.site for row in chosen(question, ranking, RULES, SEED)]
    if question.refuge in {row.candidate.site for row in ranking.ranked} - set(sites[:1]):
        assert next(site for site in sites if site != sites[0]) == question.refuge


def test_at_a_refuge_players_are_shared_by_the_room_that_is_there():
    here = box("a1", proximity=P)
    there = [
        box("b1", site="porto", utilisation=0.7),
        box("b2", site="porto", utilisation=0.1),
        box("b3", site="porto", utilisation=0.8),
    ]
    wins: Counter[str] = Counter()
    for title in TITLES:
        question = Question(title, None, "porto")
        first, second, *_ = chosen(question, rank(question, [here, *there], RULES, SEED), RULES, SEED)
        assert first.candidate.appliance == "a1"
        wins[second.candidate.appliance] += 1
    assert set(wins) == {"b1", "b2"}
    assert wins["b1"] / len(TITLES) == pytest.approx(0.1 / 0.8, abs=0.03)


def test_at_a_refuge_too_who_has_the_title_comes_before_those_who_have_not():
    rows = [box("a1", proximity=P), *(box(f"b{number}", site="porto", held=float(number == 2)) for number in range(4))]
    for title in TITLES[:50]:
        question = Question(title, None, "porto")
        assert chosen(question, rank(question, rows, RULES, SEED), RULES, SEED)[1].candidate.appliance == "b2"


# --- Refuges ---

ROOMS = [
    ("porto", mixed_name("porto"), 10.0),
    ("madrid", mixed_name("madrid"), 30.0),
    ("paris", mixed_name("paris"), 60.0),
]
NETWORKS = [mixed(number) for number in range(4000)]


def test_networks_are_shared_among_refuges_by_their_room():
    drawn = Counter(refuge(network, ROOMS) for network in NETWORKS)
    for name, _, room in ROOMS:
        assert drawn[name] / len(NETWORKS) == pytest.approx(room / 100, abs=0.03)


def test_a_refuge_that_comes_or_goes_moves_only_its_own_share():
    for network in NETWORKS[:500]:
        before, after = refuge(network, ROOMS[:2]), refuge(network, ROOMS)
        assert after in {before, "paris"}
        assert refuge(network, reversed(ROOMS)) == after


def test_where_there_is_no_room_is_no_refuge():
    assert refuge(1, []) is None
    assert refuge(1, [("porto", 5, 0.0)]) is None


@given(QUESTIONS, ROWS)
def test_rows_and_questions_come_back_from_json(question, rows):
    assert msgspec.json.decode(msgspec.json.encode(rows), type=list[Candidate]) == rows
    assert msgspec.json.decode(msgspec.json.encode(question), type=Question) == question


def test_the_homes_of_known_contents_never_change():
    # Another answer here would mean that an update of the software moves every title.
    rows = [box(f"a{number}", weight=10.0 * (1 + number % 2)) for number in range(4)]
    assert [home(rows, title) for title in TITLES[:8]] == ["a1", "a3", "a0", "a0", "a1", "a2", "a3", "a0"]


def test_mixes_are_spread_like_dice():
    assert len({mixed(mixed_name(f"a{number}")) >> 56 for number in range(2000)}) == 256
