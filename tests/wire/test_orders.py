"""Orders: signed by the planner, believed by nobody who can't check that."""

import base64

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wire.codec import WireError, encode
from wire.orders import (
    SCHEMA,
    Bring,
    FillOrder,
    Peer,
    Signed,
    opened,
    order_key,
    progress_key,
    public_key,
    public_key_text,
    signed,
    urgent_prefix,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = {"k1": KEY.public_key()}


def order(**fields):
    plain = {
        "appliance": "a1",
        "night": "2026-11-25",
        "version": 3,
        "issued_at": 1.0,
        "expires_at": 2.0,
        "pledged_until": 3.0,
        "budget_bytes": 4,
        "bring": (
            Bring(number=7, title="film", folder="/titles/film/720p.1f", size_bytes=5, tier="ssd", sources=("a2",)),
        ),
        "keep": b"\x01",
        "release": ("/titles/old/720p.2a",),
        "peers": (Peer(id="a2", url="http://a2.example:8080"),),
    }
    return FillOrder(**{**plain, **fields})


def test_an_order_comes_out_as_it_went_in():
    assert opened(signed(order(), KEY, "k1"), KEYS, FillOrder) == order()


def test_the_same_order_gives_the_same_bytes():
    assert signed(order(), KEY, "k1") == signed(order(), KEY, "k1")


def test_what_was_changed_on_its_way_is_refused():
    envelope = msgspec.json.decode(signed(order(), KEY, "k1"), type=Signed)
    changed = envelope.payload.replace(b'"version":3', b'"version":4')
    assert changed != envelope.payload
    with pytest.raises(WireError, match="changed on its way"):
        opened(encode(msgspec.structs.replace(envelope, payload=changed)), KEYS, FillOrder)


def test_an_unknown_key_is_named_with_those_that_are_known():
    with pytest.raises(WireError, match=r"'k2'; known: k1"):
        opened(signed(order(), KEY, "k2"), KEYS, FillOrder)
    with pytest.raises(WireError, match="known: none"):
        opened(signed(order(), KEY, "k1"), {}, FillOrder)


def test_another_key_of_the_same_name_does_not_do():
    with pytest.raises(WireError, match="does not fit"):
        opened(signed(order(), Ed25519PrivateKey.generate(), "k1"), KEYS, FillOrder)


def test_an_order_of_a_later_schema_asks_for_an_upgrade():
    with pytest.raises(WireError, match="upgrade"):
        opened(signed(order(schema=SCHEMA + 1), KEY, "k1"), KEYS, FillOrder)


@pytest.mark.parametrize(
    "wrong",
    [
        {"night": "tomorrow"},
        {"appliance": "../a1"},
        {"budget_bytes": -1},
        {"release": ("/titles/../x",)},
        {"release": ("/titles/x/..",)},
        {"peers": (Peer(id="a2", url="file:///etc/passwd"),)},
        {"bring": (Bring(number=1, title="film", folder="/etc/passwd", size_bytes=1),)},
        {"bring": (Bring(number=1, title="../film", folder="/titles/film/a", size_bytes=1),)},
    ],
)
def test_what_an_order_can_not_say_is_refused_even_if_it_is_signed(wrong):
    with pytest.raises(WireError, match="not a FillOrder"):
        opened(signed(order(**wrong), KEY, "k1"), KEYS, FillOrder)


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b'{"kid":"k1","signature":"","payload":""}', b"[" * 100_000])
def test_garbage_is_no_order(body):
    with pytest.raises(WireError):
        opened(body, KEYS, FillOrder)


def test_keys_travel_as_text():
    assert public_key(public_key_text(KEY.public_key())) == KEY.public_key()
    for wrong in ("", "x", base64.b64encode(b"short").decode()):
        with pytest.raises(ValueError, match=r"."):
            public_key(wrong)


def test_where_things_lie():
    assert order_key("a1") == "fill/orders/a1/current.json"
    assert urgent_prefix("a1") == "fill/orders/a1/urgent/"
    assert progress_key("a1") == "fill/progress/a1.json"
