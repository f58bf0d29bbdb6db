import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.topology.acceptance import EXAMPLES, Gate, Rejection, Rules
from steering.topology.prefixes import PrefixError, network_of, text_of
from wire.prefixes import AS_SET, LearnedPrefix

RULES = Rules(
    allowed=("45.0.0.0/12", "2a00:1000::/24", "10.0.0.0/8", "100.0.0.0/8"),
    first_as=(64500, 64501),
    origin_as=(64500, 64510),
    required_communities=("64500:100", "64500:1:2"),
    forbidden_communities=("64500:666",),
)
GOOD = {"as_path": (64500, 64510), "communities": ("64500:100",)}


@pytest.mark.parametrize(
    ("prefix", "fields", "reason"),
    [
        ("45.1.0.0/16", {}, None),
        ("45.1.2.0/24", {}, None),
        ("45.0.0.0/12", {}, None),
        ("2a00:1000::/32", {}, None),
        ("2a00:1000:1::/48", {}, None),
        ("10.4.0.0/16", {}, None),
        ("rubbish", {}, Rejection.MALFORMED),
        ("45.1.0.1/16", {}, Rejection.MALFORMED),
        ("0.0.0.0/0", {}, Rejection.DEFAULT_ROUTE),
        ("::/0", {}, Rejection.DEFAULT_ROUTE),
        ("44.0.0.0/7", {}, Rejection.TOO_WIDE),
        ("2a00::/12", {}, Rejection.TOO_WIDE),
        ("45.1.2.128/25", {}, Rejection.TOO_NARROW),
        ("2a00:1000:1:2::/64", {}, Rejection.TOO_NARROW),
        ("192.168.0.0/16", {}, Rejection.BOGON),
        ("100.64.0.0/10", {}, Rejection.BOGON),
        ("100.0.0.0/8", {}, Rejection.BOGON),
        ("127.0.0.0/8", {}, Rejection.BOGON),
        ("fc00::/16", {}, Rejection.BOGON),
        ("2001:db8::/32", {}, Rejection.BOGON),
        ("46.0.0.0/16", {}, Rejection.NOT_ALLOWED),
        ("45.0.0.0/8", {}, Rejection.NOT_ALLOWED),
        ("2a00:2000::/32", {}, Rejection.NOT_ALLOWED),
        ("45.1.0.0/16", {"as_path": (64500, AS_SET)}, Rejection.AS_SET),
        ("45.1.0.0/16", {"as_path": (64510, 64500)}, Rejection.FIRST_AS),
        ("45.1.0.0/16", {"as_path": (64501, 64502)}, Rejection.ORIGIN_AS),
        ("45.1.0.0/16", {"as_path": (64500, 64500, 64999, 64510)}, None),
        ("45.1.0.0/16", {"as_path": ()}, None),
        ("45.1.0.0/16", {"as_path": None}, None),
        ("45.1.0.0/16", {"communities": ()}, Rejection.NO_COMMUNITY),
        ("45.1.0.0/16", {"communities": None}, Rejection.NO_COMMUNITY),
        ("45.1.0.0/16", {"communities": ("1:1", "64500:1:2")}, None),
        ("45.1.0.0/16", {"communities": ("64500:100", "64500:666")}, Rejection.FORBIDDEN_COMMUNITY),
    ],
)
def test_a_route_is_accepted_or_refused_with_its_reason(prefix, fields, reason):
    verdict = Gate(RULES).judge(LearnedPrefix(prefix, **(GOOD | fields)))
    assert verdict == (reason or network_of(prefix))


def test_without_rules_nothing_is_accepted():
    assert Gate(Rules()).judge(LearnedPrefix("45.1.0.0/16")) is Rejection.NOT_ALLOWED


def test_all_the_world_does_not_hold_what_is_private():
    gate = Gate(Rules(allowed=("0.0.0.0/0", "::/0")))
    assert gate.judge(LearnedPrefix("10.0.0.0/8")) is Rejection.BOGON
    assert gate.judge(LearnedPrefix("fc00::/16")) is Rejection.BOGON
    assert gate.judge(LearnedPrefix("45.1.0.0/16")) == network_of("45.1.0.0/16")


def test_a_rule_that_is_no_prefix_is_refused():
    with pytest.raises(PrefixError, match=r"10\.0\.0\.1/8"):
        Gate(Rules(allowed=("10.0.0.1/8",)))


def test_refusals_are_counted_by_reason_and_some_are_shown():
    routes = [LearnedPrefix(f"46.{number}.0.0/16") for number in range(EXAMPLES + 3)]
    accepted = Gate(Rules(allowed=("45.0.0.0/12",))).accept([*routes, LearnedPrefix("?"), LearnedPrefix("45.1.0.0/16")])
    assert accepted.networks == (network_of("45.1.0.0/16"),)
    assert accepted.rejected == {Rejection.NOT_ALLOWED: EXAMPLES + 3, Rejection.MALFORMED: 1}
    assert accepted.examples[Rejection.NOT_ALLOWED] == tuple(route.prefix for route in routes[:EXAMPLES])


def test_a_prefix_is_accepted_once_if_one_of_its_routes_is_good():
    bad = LearnedPrefix("45.1.0.0/16", as_path=(1, 2))
    good = LearnedPrefix("45.1.0.0/16", as_path=(64500, 2))
    accepted = Gate(Rules(allowed=("45.0.0.0/12",), first_as=(64500,))).accept([bad, good, good])
    assert accepted.networks == (network_of("45.1.0.0/16"),)
    assert accepted.rejected == {Rejection.FIRST_AS: 1}


def test_of_too_many_the_widest_are_kept_in_whatever_order_they_come():
    routes = [LearnedPrefix(text) for text in ("45.1.2.0/24", "45.2.0.0/16", "45.1.0.0/16", "45.3.0.0/20")]
    gate = Gate(Rules(allowed=("45.0.0.0/12",), most=3))
    accepted = gate.accept(routes)
    assert [text_of(network) for network in accepted.networks] == ["45.1.0.0/16", "45.2.0.0/16", "45.3.0.0/20"]
    assert accepted.rejected == {Rejection.TOO_MANY: 1}
    assert gate.accept(reversed(routes)).networks == accepted.networks


texts = st.builds(
    lambda number, length: f"{number >> 24}.{number >> 16 & 255}.0.0/{length}",
    st.integers(44 << 24, 47 << 24),
    st.integers(6, 26),
) | st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "2a00:1000::/32", "2a00::/20", "x"])
routes = st.builds(
    LearnedPrefix,
    texts,
    st.none() | st.lists(st.sampled_from([0, 64500, 64501, 64510]), max_size=3).map(tuple),
    st.none() | st.lists(st.sampled_from(["64500:100", "64500:666"]), max_size=2).map(tuple),
)


@given(st.lists(routes, max_size=30), st.integers(1, 5), st.booleans())
def test_accepting_what_was_accepted_changes_nothing(reported, most, strict):
    gate = Gate(Rules(allowed=RULES.allowed, most=most, first_as=RULES.first_as if strict else ()))
    once = gate.accept(reported)
    assert len(once.networks) <= most
    again = gate.accept([route for route in reported if gate.judge(route) in once.networks])
    assert set(again.networks) == set(once.networks)
    assert not again.rejected
    good = sum(not isinstance(gate.judge(route), Rejection) for route in reported)
    refused = sum(count for reason, count in once.rejected.items() if reason is not Rejection.TOO_MANY)
    assert good + refused == len(reported)
