"""Where orders come from: only those that are ours, believed, and of now are worked on."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fill.agent.mailbox import Mailbox, OrderRefused, Refusal, checked
from fill.bucket import Bucket
from wire.orders import FillOrder, order_key, signed, urgent_prefix

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"1")
KEYS = {"k": KEY.public_key()}
NOW = 1_000_000.0
HOUR = 3600.0


def order(**fields):
    plain = {
        "appliance": "a",
        "night": "2026-11-25",
        "version": 1,
        "issued_at": NOW - HOUR,
        "expires_at": NOW + HOUR,
        "pledged_until": NOW + 24 * HOUR,
        "budget_bytes": 1,
    }
    return FillOrder(**{**plain, **fields})


@pytest.mark.parametrize(
    ("body", "why", "words"),
    [
        (signed(order(), KEY, "stranger"), Refusal.SIGNATURE, "signed with key 'stranger'; known: k"),
        (signed(order(), OTHER, "k"), Refusal.SIGNATURE, "does not fit"),
        (b"nonsense", Refusal.SIGNATURE, "can't be believed"),
        (signed(order(appliance="b"), KEY, "k"), Refusal.FOREIGN, "for b"),
        (signed(order(expires_at=NOW), KEY, "k"), Refusal.EXPIRED, "expired 0.0 hours ago"),
        (signed(order(issued_at=NOW + 25 * HOUR, expires_at=NOW + 90 * HOUR), KEY, "k"), Refusal.CLOCK, "25 hours"),
        (signed(order(schema=2), KEY, "k"), Refusal.SIGNATURE, "upgrade"),
    ],
)
def test_what_may_not_be_worked_on_is_refused_with_a_reason(body, why, words):
    with pytest.raises(OrderRefused, match=words) as refused:
        checked(body, KEYS, "a", NOW)
    assert refused.value.why is why


def test_clocks_may_differ_by_less_than_a_day():
    later = order(issued_at=NOW + 23 * HOUR, expires_at=NOW + 90 * HOUR)
    assert checked(signed(later, KEY, "k"), KEYS, "a", NOW) == later


@pytest.fixture
def mailbox(bucket, tmp_path):
    return Mailbox(bucket, KEYS, "a", tmp_path)


def test_an_empty_mailbox_is_no_trouble(mailbox):
    assert mailbox.current(NOW) is None
    assert (mailbox.trouble, mailbox.heard_at) == ("", NOW)


def test_the_order_that_lies_there_is_had_until_another_one_does(mailbox, bucket):
    bucket.write(order_key("a"), signed(order(), KEY, "k"))
    name, first = mailbox.current(NOW)
    assert (name.night, name.version, first) == ("2026-11-25", 1, order())
    assert mailbox.current(NOW)[0] == name
    bucket.write(order_key("a"), signed(order(version=2), KEY, "k"))
    assert mailbox.current(NOW)[0].version == 2
    bucket.remove(order_key("a"))
    assert mailbox.current(NOW) is None


def test_an_order_of_the_same_name_with_other_bytes_is_another(mailbox, bucket):
    bucket.write(order_key("a"), signed(order(), KEY, "k"))
    before, _ = mailbox.current(NOW)
    bucket.write(order_key("a"), signed(order(budget_bytes=2), KEY, "k"))
    after, _ = mailbox.current(NOW)
    assert before != after
    assert not after.is_before(before)


def test_what_is_refused_is_counted_once_and_said(mailbox, bucket):
    bucket.write(order_key("a"), signed(order(appliance="b"), KEY, "k"))
    for _ in range(3):
        assert mailbox.current(NOW) is None
    assert mailbox.refused[Refusal.FOREIGN] == 1
    assert "for b" in mailbox.trouble
    bucket.write(order_key("a"), signed(order(), KEY, "k"))
    assert mailbox.current(NOW) is not None
    assert mailbox.trouble == ""


def test_an_order_that_expires_while_it_lies_there_is_refused_then(mailbox, bucket):
    bucket.write(order_key("a"), signed(order(), KEY, "k"))
    assert mailbox.current(NOW) is not None
    assert mailbox.current(NOW + HOUR) is None
    assert mailbox.refused[Refusal.EXPIRED] == 1


def test_while_the_bucket_is_away_the_last_order_is_kept_to_also_over_a_restart(mailbox, bucket, tmp_path, credentials):
    bucket.write(order_key("a"), signed(order(), KEY, "k"))
    mailbox.current(NOW)
    away = Bucket("s3://films", "http://127.0.0.1:1")
    again = Mailbox(away, KEYS, "a", tmp_path)
    name, one = again.current(NOW)
    assert one == order()
    assert "orders can't be had" in again.trouble
    assert again.heard_at is None
    # What lies in the file is believed no more than what lies in the bucket.
    (tmp_path / "order.json").write_bytes(signed(order(), OTHER, "k"))
    assert Mailbox(away, KEYS, "a", tmp_path).current(NOW) is None
    del name


def test_urgent_orders_are_had_once_each_the_earliest_first(mailbox, bucket):
    for at in (2, 1, 3):
        urgent = order(version=at, is_urgent=True)
        bucket.write(f"{urgent_prefix('a')}{at}.json", signed(urgent, KEY, "k"))
    bucket.write(f"{urgent_prefix('a')}4.json", signed(order(is_urgent=True), OTHER, "k"))
    bucket.write(f"{urgent_prefix('a')}5.json", signed(order(), KEY, "k"))
    found = mailbox.urgent(NOW, {f"{urgent_prefix('a')}1.json"})
    assert [one.version for _, one in found] == [2, 3]
    assert mailbox.refused[Refusal.SIGNATURE] == 1
