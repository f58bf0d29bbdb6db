"""What an appliance says of itself: read within bounds, whatever is in it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.codec import WireError, decode, encode
from wire.heartbeat import DeviceState, Heartbeat, HeartbeatAnswer

LEAST = {"appliance": "a1", "boot": "b", "sequence": 1, "sent_at": 0.0, "ready": True}

COUNTS = st.integers(0, 2**63 - 1)
SHARES = st.floats(0, 1)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
DEVICES = st.builds(
    DeviceState, id=WORDS, tier=WORDS, standing=WORDS, reason=WORDS, capacity_bytes=COUNTS, used_bytes=COUNTS
)
HEARTBEATS = st.builds(
    Heartbeat,
    appliance=st.just("a1"),
    boot=WORDS,
    sequence=COUNTS,
    sent_at=st.floats(allow_nan=False, allow_infinity=False),
    version=WORDS,
    ready=st.booleans(),
    reasons=st.lists(WORDS, max_size=4).map(tuple),
    draining=st.booleans(),
    health=SHARES,
    egress_bps=COUNTS,
    link_bps=COUNTS,
    connections=COUNTS,
    max_connections=COUNTS,
    cpu=SHARES,
    hit_ratio=st.none() | SHARES,
    holdings_version=COUNTS,
    prefixes_version=COUNTS,
    devices=st.lists(DEVICES, max_size=3).map(tuple),
)


@given(HEARTBEATS)
def test_a_heartbeat_comes_back_as_it_was(heartbeat):
    assert decode(encode(heartbeat), Heartbeat) == heartbeat


def test_what_is_left_out_says_nothing_bad():
    heartbeat = decode(msgspec.json.encode(LEAST), Heartbeat)
    assert (heartbeat.draining, heartbeat.health, heartbeat.cpu, heartbeat.hit_ratio) == (False, 1.0, 0.0, None)


def test_fields_of_a_later_version_are_skipped():
    body = msgspec.json.encode(
        {**LEAST, "mood": "good", "devices": [{"id": "d", "tier": "x", "standing": "y", "n": 1}]}
    )
    assert decode(body, Heartbeat).devices[0].standing == "y"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("appliance", ""),
        ("appliance", "../etc"),
        ("appliance", "a1\n"),
        ("appliance", "1a"),
        ("appliance", "a" * 65),
        ("boot", "b" * 201),
        ("sequence", -1),
        ("sequence", 2**63),
        ("sequence", 1.5),
        ("sent_at", "now"),
        ("sent_at", None),
        ("ready", 1),
        ("reasons", ["x"] * 33),
        ("health", 1.01),
        ("health", -0.01),
        ("egress_bps", -1),
        ("link_bps", 2**64),
        ("cpu", 7),
        ("hit_ratio", 1.5),
        ("devices", [{"id": "d", "tier": "ssd", "standing": "online"}] * 257),
        ("devices", [{"id": "d"}]),
    ],
)
def test_what_is_out_of_bounds_is_refused_and_named(field, value):
    with pytest.raises(WireError, match=f"not a Heartbeat: .*{field}"):
        decode(msgspec.json.encode({**LEAST, field: value}), Heartbeat)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
def test_a_clock_that_is_no_number_is_refused(number):
    body = msgspec.json.encode(LEAST).replace(b'"sent_at":0.0', b'"sent_at":' + number)
    with pytest.raises(WireError, match="not a Heartbeat"):
        decode(body, Heartbeat)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff", b'{"appliance":"a1"}', b'"' * 1000])
def test_what_is_no_heartbeat_is_refused(body):
    with pytest.raises(WireError, match="not a Heartbeat"):
        decode(body, Heartbeat)


def test_an_answer_says_what_is_wanted_and_nothing_by_default():
    assert decode(b"{}", HeartbeatAnswer) == HeartbeatAnswer()
    assert HeartbeatAnswer().drain is HeartbeatAnswer().wants_holdings is HeartbeatAnswer().wants_prefixes is False
    answer = HeartbeatAnswer(drain=True, wants_holdings=True, wants_prefixes=True, interval=10.0)
    assert decode(encode(answer), HeartbeatAnswer) == answer


@pytest.mark.parametrize("interval", [0, 0.9, 61])
def test_an_interval_that_would_flood_or_silence_is_refused(interval):
    with pytest.raises(WireError):
        decode(msgspec.json.encode({"interval": interval}), HeartbeatAnswer)
