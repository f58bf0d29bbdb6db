import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.keeper.rib import NotUnderstood, Rib
from wire.prefixes import AS_SET, LearnedPrefix

# What exabgp 4.2.25 and 5.0.15 wrote while BIRD 2.0.12 brought a session up, withdrew two prefixes, was shut down, came
# up again, and exabgp was ended.
RECORDED = [Path(__file__).with_name("exabgp") / f"version-{version}.jsonl" for version in (4, 5)]

BEGUN = LearnedPrefix("100.70.0.0/16", (65001, 65001, 65010), ("65001:100", "65001:1:2"))
GOING = LearnedPrefix("100.71.0.0/16", (65001, 65001), ())
STAYING = LearnedPrefix("100.72.0.0/24", (65001,), ())
SIX = LearnedPrefix("2a00:1234::/32", (65001,), ("65001:666",))


def _line(message, peer="10.0.0.1", **neighbor):
    addresses = {"address": {"local": "10.0.0.2", "peer": peer}}
    return json.dumps(
        {"type": "update", "neighbor": addresses | {"direction": "receive", "message": message} | neighbor}
    ).encode()


def _announce(*prefixes, family="ipv4 unicast", peer="10.0.0.1", **attributes):
    nlri = [prefix if isinstance(prefix, dict) else {"nlri": prefix} for prefix in prefixes]
    return _line({"update": {"attribute": attributes, "announce": {family: {"10.0.0.1": nlri}}}}, peer)


def _withdraw(*prefixes, peer="10.0.0.1"):
    return _line({"update": {"withdraw": {"ipv4 unicast": [{"nlri": prefix} for prefix in prefixes]}}}, peer)


def _state(state, peer="10.0.0.1"):
    return json.dumps({"type": "state", "neighbor": {"address": {"local": "10.0.0.2", "peer": peer}, "state": state}})


def _heard(*lines, most=1000):
    rib = Rib(most)
    for line in lines:
        rib.hear(line if isinstance(line, bytes) else line.encode())
    return rib


def _prefixes(rib):
    return [route.prefix for route in rib.routes()]


@pytest.mark.parametrize("recording", RECORDED, ids=["exabgp 4", "exabgp 5"])
def test_a_recorded_session_is_followed_from_its_beginning_to_its_end(recording):
    rib = Rib(1000)
    after = [rib.routes() for line in recording.read_bytes().splitlines() if rib.hear(line)]
    assert after == [
        (BEGUN,),
        (BEGUN, GOING),
        (BEGUN, GOING, STAYING),
        (BEGUN, GOING, STAYING, SIX),
        (BEGUN, STAYING, SIX),
        (BEGUN, STAYING),
        (),  # The peer shut the session down.
        (BEGUN,),
        (BEGUN, STAYING),
        (),  # exabgp ends.
    ]
    assert len(rib) == 0


def test_a_session_that_goes_down_takes_its_own_routes_with_it_and_no_others():
    rib = _heard(_announce("10.1.0.0/16", peer="a"), _announce("10.2.0.0/16", peer="b"))
    assert rib.hear(_state("down", "a").encode())
    assert _prefixes(rib) == ["10.2.0.0/16"]


def test_a_session_that_comes_up_begins_with_nothing():
    rib = _heard(_announce("10.1.0.0/16"))
    assert not rib.hear(_state("connected").encode())
    assert _prefixes(rib) == ["10.1.0.0/16"]
    assert rib.hear(_state("up").encode())
    assert _prefixes(rib) == []


def test_the_end_of_exabgp_is_the_end_of_all_sessions():
    rib = _heard(_announce("10.1.0.0/16", peer="a"), _announce("10.2.0.0/16", peer="b"))
    assert rib.hear(b'{"type": "notification", "notification": "shutdown"}')
    assert rib.routes() == ()
    assert len(rib) == 0


def test_a_new_announcement_of_a_prefix_replaces_the_one_before():
    rib = _heard(_announce("10.1.0.0/16", **{"as-path": [1, 2]}), _announce("10.1.0.0/16", **{"as-path": [1, 3]}))
    assert rib.routes() == (LearnedPrefix("10.1.0.0/16", (1, 3), ()),)


def test_several_routes_to_a_prefix_are_all_told_but_each_once():
    rib = _heard(
        _announce("10.1.0.0/16", peer="a", **{"as-path": [1]}),
        _announce("10.1.0.0/16", peer="b", **{"as-path": [2]}),
        _announce("10.1.0.0/16", peer="c", **{"as-path": [2]}),
    )
    assert [route.as_path for route in rib.routes()] == [(1,), (2,)]


def test_routes_that_differ_in_their_path_identifier_are_withdrawn_one_by_one():
    one, two = ({"nlri": "10.1.0.0/16", "path-information": f"0.0.0.{number}"} for number in (1, 2))
    rib = _heard(_announce(one, **{"as-path": [1]}), _announce(two, **{"as-path": [2]}))
    assert rib.hear(_line({"update": {"withdraw": {"ipv4 unicast": [one]}}}))
    assert [route.as_path for route in rib.routes()] == [(2,)]


@pytest.mark.parametrize(
    "attributes",
    [
        {"as-path": [1, 2], "as-set": [7, 8]},
        {"as-path": {"0": {"element": "as-sequence", "value": [1, 2]}, "1": {"element": "as-set", "value": [7, 8]}}},
        {
            "as-path": {
                "1": {"element": "as-sequence", "value": [1, 2]},
                "0": {"element": "as-confed-sequence", "value": [65001]},
                "2": {"element": "as-set", "value": [7]},
            }
        },
    ],
    ids=["4", "5", "confederation"],
)
def test_a_set_in_the_path_is_marked(attributes):
    assert _heard(_announce("10.1.0.0/16", **attributes)).routes()[0].as_path == (1, 2, AS_SET)


def test_well_known_communities_may_have_names():
    rib = _heard(_announce("10.1.0.0/16", community=["no-export", [1, 2]]))
    assert rib.routes()[0].communities == ("1:2", "no-export")


@pytest.mark.parametrize(
    "line",
    [
        _announce("10.1.0.0/16", family="ipv4 flow"),
        _announce("10.1.0.0/16", family="ipv4 mpls-vpn"),
        _line({"eor": {"afi": "ipv4", "safi": "unicast"}}),
        _line({"update": {"announce": {"ipv4 unicast": {"x": [{"nlri": "10.1.0.0/16"}]}}}}, direction="send"),
        _line({"keepalive": {}}),
    ],
    ids=["flow", "vpn", "end of rib", "sent", "keepalive"],
)
def test_what_is_no_route_of_ours_changes_nothing(line):
    assert not _heard().hear(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"neighbor 10.0.0.1 announced route 10.1.0.0/16",
        b"[]",
        b'{"type": "update", "neighbor": {}}',
        b"\xff",
        _line({"update": {"announce": {"ipv4 unicast": []}}}),
        _line({"update": {"announce": {"ipv4 unicast": {"10.0.0.1": [{"prefix": "10.1.0.0/16"}]}}}}),
        _announce("10.1.0.0/16", **{"as-path": {"x": 1}}),
        _announce("10.1.0.0/16", **{"as-path": ["AS1"]}),
        _announce("10.1.0.0/16", community=[7]),
    ],
)
def test_a_line_that_is_not_understood_is_said_and_changes_nothing(line):
    rib = _heard(_announce("10.9.0.0/16"))
    with pytest.raises(NotUnderstood):
        rib.hear(line)
    assert _prefixes(rib) == ["10.9.0.0/16"]


def test_a_session_that_brings_too_much_is_not_heard_until_it_begins_anew():
    rib = _heard(_announce("10.1.0.0/16", peer="good"), most=3)
    rib.hear(_announce(*(f"11.{number}.0.0/16" for number in range(3)), peer="leak"))
    assert rib.overflowed == ("leak",)
    assert _prefixes(rib) == ["10.1.0.0/16"]
    assert not rib.hear(_announce("11.1.0.0/16", peer="leak"))
    rib.hear(_state("down", "leak").encode())
    assert rib.overflowed == ()
    assert rib.hear(_announce("11.1.0.0/16", peer="leak"))
    assert _prefixes(rib) == ["10.1.0.0/16", "11.1.0.0/16"]


peers = st.sampled_from(["a", "b"])
numbers = st.integers(0, 5)
steps = st.one_of(
    st.tuples(st.just("announce"), peers, st.lists(numbers, min_size=1, max_size=3), st.integers(1, 3)),
    st.tuples(st.just("withdraw"), peers, st.lists(numbers, min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["down", "up"]), peers),
)


@given(st.lists(steps, max_size=40))
def test_whatever_was_said_the_routes_are_those_not_taken_back(history):
    rib = Rib(1000)
    model = {"a": {}, "b": {}}
    for what, peer, *rest in history:
        before = rib.routes()
        match what:
            case "announce":
                texts = [f"10.{number}.0.0/16" for number in rest[0]]
                changed = rib.hear(_announce(*texts, peer=peer, **{"as-path": [rest[1]]}))
                model[peer] |= dict.fromkeys(texts, rest[1])
            case "withdraw":
                texts = [f"10.{number}.0.0/16" for number in rest[0]]
                changed = rib.hear(_withdraw(*texts, peer=peer))
                for text in texts:
                    model[peer].pop(text, None)
            case state:
                changed = rib.hear(_state(state, peer).encode())
                model[peer].clear()
        assert changed or rib.routes() == before
        expected = {(text, (path,)) for routes in model.values() for text, path in routes.items()}
        assert [(route.prefix, route.as_path) for route in rib.routes()] == sorted(expected)
        assert len(rib) == sum(map(len, model.values()))
