"""Plans in a real bucket: made, compared and applied as separate steps, each of which can be broken off."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pyroaring import BitMap

from fill.errors import BucketError, InputError, SomebodyElse
from fill.plans import Applied, Name, Plans
from wire.codec import encode
from wire.orders import Bring, FillOrder, Phase, Progress, opened, order_key, progress_key

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEYS = {"k": KEY.public_key()}
NIGHT = "2026-11-25"


def order(appliance, name=None, **fields):
    plain = {
        "night": name.night if name else NIGHT,
        "version": name.version if name else 1,
        "issued_at": 10.0,
        "expires_at": 20.0,
        "pledged_until": 30.0,
        "budget_bytes": 100,
        "catalogue": "c1",
        "bring": (Bring(number=1, title="t", folder="/titles/t/v", size_bytes=70),),
    }
    return FillOrder(appliance=appliance, **{**plain, **fields})


@pytest.fixture
def plans(bucket):
    return Plans(bucket)


def made(plans, night=NIGHT, appliances=("a1", "a2")):
    name = plans.begin(night, 1.0)
    promised = {one: BitMap([1]).serialize() for one in appliances}
    orders = [order(one, name) for one in appliances]
    return plans.save(name, orders, {"report.txt": b"well"}, promised, KEY, "k", 2.0)


def test_a_plan_comes_back_as_it_was_made(plans):
    record = made(plans)
    assert plans.record(record.name) == record == plans.latest()
    assert (record.bring_bytes, record.bring_renditions, record.catalogue) == (140, 2, "c1")
    assert plans.order(record, "a2") == order("a2", record.name)
    assert plans.file(record.name, "report.txt") == b"well"
    assert plans.file(record.name, "report.json") is None
    assert plans.promised_by(record.name) == {"a1": BitMap([1]), "a2": BitMap([1])}


def test_what_was_promised_last_is_what_the_applied_plan_says(plans):
    assert plans.promised(plans.applied()) == {}
    record = made(plans)
    assert plans.promised(plans.applied()) == {}
    plans.apply(record, "me", 3.0)
    assert plans.promised(plans.applied()) == {"a1": BitMap([1]), "a2": BitMap([1])}


def test_a_plan_that_does_not_say_what_it_promised_is_named(plans, bucket):
    record = made(plans)
    bucket.write(f"{record.name.prefix}promised.json", b"{}")
    with pytest.raises(InputError, match=r"promised\.json"):
        plans.promised_by(record.name)


def test_each_plan_of_a_night_has_a_version_of_its_own(plans):
    first = plans.begin(NIGHT, 1.0)
    assert (first, plans.begin(NIGHT, 1.0)) == (Name(NIGHT, 1), Name(NIGHT, 2))
    assert plans.begin("2026-11-26", 1.0) == Name("2026-11-26", 1)
    assert plans.names() == [Name(NIGHT, 1), Name(NIGHT, 2), Name("2026-11-26", 1)]


def test_two_planners_at_once_make_two_plans(plans, bucket, monkeypatch):
    plans.begin(NIGHT, 1.0)
    # What was listed before the other one began.
    listings = iter([[], bucket.folders(f"fill/plans/{NIGHT}/")])
    monkeypatch.setattr(bucket, "folders", lambda _prefix: next(listings))
    assert plans.begin(NIGHT, 1.0) == Name(NIGHT, 2)


def test_a_plan_that_was_broken_off_is_none(plans):
    whole = made(plans)
    broken = plans.begin(NIGHT, 3.0)
    assert plans.latest() == whole
    with pytest.raises(InputError, match="broken off"):
        plans.record(broken)


def test_an_applied_plan_is_what_agents_find(plans, bucket):
    record = made(plans)
    assert plans.applied() is None
    told = []
    plans.apply(record, "ana", 5.0, reached=lambda *at: told.append(at))
    assert plans.applied() == Applied(night=NIGHT, version=1, at=5.0, who="ana")
    for appliance in ("a1", "a2"):
        assert opened(bucket.read(order_key(appliance), 10**6), KEYS, FillOrder) == order(appliance, record.name)
    assert told == [(1, 2), (2, 2)]


def test_applying_twice_changes_nothing_and_going_back_must_be_meant(plans):
    first, second = made(plans), made(plans)
    plans.apply(second, "ana", 5.0)
    plans.apply(second, "ana", 6.0)
    with pytest.raises(InputError, match=r"version 2 is applied, which is later than .* version 1; --back"):
        plans.apply(first, "ana", 7.0)
    assert plans.applied().version == 2
    plans.apply(first, "ana", 8.0, back=True)
    assert plans.applied().version == 1


def test_an_order_that_was_changed_in_the_bucket_is_not_applied(plans, bucket):
    record = made(plans)
    bucket.write(f"{record.name.prefix}orders/a2.json", b"{}")
    with pytest.raises(InputError, match="order for a2 is not the one that was written"):
        plans.apply(record, "ana", 5.0)
    assert bucket.read(order_key("a1"), 10**6) is None
    assert plans.applied() is None


def test_an_appliance_without_an_order_is_named(plans):
    with pytest.raises(InputError, match="no order for 'a9'; it has 2 others"):
        plans.order(made(plans), "a9")


def test_an_urgent_order_lies_beside_the_current_one(plans, bucket):
    urgent = order("a1", is_urgent=True)
    place = plans.urge(urgent, KEY, "k")
    assert place == "fill/orders/a1/urgent/0000000010000.json"
    assert opened(bucket.read(place, 10**6), KEYS, FillOrder) == urgent
    with pytest.raises(SomebodyElse):
        plans.urge(urgent, KEY, "k")


def test_progress_is_what_an_agent_said_last(plans, bucket):
    assert plans.progress("a1") is None
    said = Progress(appliance="a1", at=3.0, phase=Phase.WORKING, order_bytes=10, done_bytes=4)
    bucket.write(progress_key("a1"), encode(said))
    assert plans.progress("a1") == said
    bucket.write(progress_key("a1"), b"{}")
    with pytest.raises(InputError, match="not a Progress"):
        plans.progress("a1")


def test_a_bucket_that_fails_leaves_no_plan(plans, bucket, monkeypatch):
    name = plans.begin(NIGHT, 1.0)
    real = bucket.write

    def write(key, body, kind="application/json", *, is_new=False):
        if key.endswith("a2.json"):
            raise BucketError("full")
        real(key, body, kind, is_new=is_new)

    monkeypatch.setattr(bucket, "write", write)
    with pytest.raises(BucketError, match="full"):
        plans.save(name, [order("a1", name), order("a2", name)], {}, {}, KEY, "k", 2.0)
    assert plans.latest() is None
