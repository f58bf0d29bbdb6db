"""From what lies in the lake to orders and a report: small fleets of which one knows what a plan must say."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from pyroaring import BitMap

from fill import planning
from fill.errors import InputError
from fill.fleet import Fleet, Site
from fill.plans import Plans
from fill.report import Source, as_text, plots
from fill.wishes import Block, Pin, Release, Wishes
from tests.fill.lakes import GB, NIGHT, NOW, Lake, brought, folder, kept, orders
from wire.codec import encode
from wire.demand import Stock


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


def titles(lake, count, **more):
    for number in range(count):
        lake.title(f"t{number}", **more)


def evenly(count, unit=GB):
    """The lower the number the more it is watched."""
    return {f"t{number}": unit * (count - number) for number in range(count)}


def test_what_was_watched_is_brought_where_it_was_watched(lake):
    titles(lake, 6)
    for site, name, watched in (("lis", "a", {"t0": 5 * GB, "t1": 4 * GB}), ("opo", "b", {"t2": 5 * GB, "t3": 4 * GB})):
        lake.site(site, parent=None, country=site)
        lake.appliance(name, site, room=2 * GB, used=0)
        lake.evenings(name, **watched)
    told = orders(lake.plan())
    assert brought(told["a"]) == ["t0", "t1"]
    assert brought(told["b"]) == ["t2", "t3"]


def test_an_order_says_all_that_an_agent_must_know(lake):
    titles(lake, 3)
    lake.site("lis", timezone="Europe/Lisbon")
    lake.appliance("a", "lis", room=10 * GB, used=0, share=0.8)
    lake.evenings("a", t1=3 * GB)
    order = orders(lake.plan(), version=7)["a"]
    opens = dt.datetime(2026, 11, 25, 2, tzinfo=ZoneInfo("Europe/Lisbon")).timestamp()
    assert (order.appliance, order.night, order.version) == ("a", str(NIGHT), 7)
    assert (order.issued_at, order.expires_at, order.pledged_until) == (NOW, opens + 3 * 86400, opens + 7 * 86400)
    assert order.catalogue == "c1"
    assert not order.is_urgent
    first = order.bring[0]
    assert (first.number, first.title, first.folder, first.size_bytes, first.tier) == (1, "t1", folder("t1"), GB, "hdd")
    assert first.value > 0


def test_what_a_small_site_did_not_see_yet_is_known_from_its_region(lake):
    titles(lake, 10)
    lake.site("ixp")
    for site in ("small", "large"):
        lake.site(site, parent="ixp")
        lake.appliance(site, site, room=3 * GB, used=0)
    lake.evenings("large", **evenly(10, 100 * GB))
    lake.evenings("small", t9=GB // 10)
    assert set(brought(orders(lake.plan())["small"])) & {"t0", "t1", "t2"}


def test_what_becomes_more_wanted_overtakes_what_was(lake):
    titles(lake, 2)
    lake.site("lis")
    lake.appliance("a", "lis", room=GB, used=0)
    for ago in range(1, 11):
        lake.watched(NIGHT - dt.timedelta(days=ago), 20, "a", t0=50 * GB, t1=max(1, 100 - 30 * (ago - 1)) * GB)
    assert brought(orders(lake.plan())["a"]) == ["t1"]


def test_a_release_is_brought_before_anybody_saw_it(lake):
    titles(lake, 8)
    for ago in (20, 15, 10):
        day = NIGHT - dt.timedelta(days=ago)
        lake.title(f"new{ago}", published=str(day))
    lake.title("tonight", published=str(NIGHT))
    lake.site("lis")
    lake.appliance("a", "lis", room=4 * GB, used=0)
    for ago in range(1, 28):
        watched = {f"t{number}": 2 * GB for number in range(8)}
        for first in (20, 15, 10):
            age = first - ago
            if age >= 0:
                watched[f"new{first}"] = (200 - 15 * min(age, 12)) * GB
        lake.watched(NIGHT - dt.timedelta(days=ago), 20, "a", **watched)
    assert "tonight" in brought(orders(lake.plan())["a"])


def test_what_the_operator_knows_of_a_release_counts(lake):
    titles(lake, 4)
    lake.title("quiet", published=str(NIGHT))
    lake.title("loud", published=str(NIGHT))
    lake.site("lis")
    lake.appliance("a", "lis", room=GB, used=0)
    lake.evenings("a", **evenly(4))
    lake.wishes = Wishes(release=(Release("loud", 100.0),))
    assert brought(orders(lake.plan())["a"]) == ["loud"]


def test_evenings_count_and_mornings_do_not(lake):
    titles(lake, 2)
    lake.site("nyc", timezone="America/New_York")
    lake.appliance("a", "nyc", room=GB, used=0)
    for ago in range(1, 8):
        day = NIGHT - dt.timedelta(days=ago)
        lake.watched(day, 1, "a", t0=500 * GB)  # 20:00 of the day before in New York
        lake.watched(day, 13, "a", t1=600 * GB)  # 8:00
    assert brought(orders(lake.plan())["a"]) == ["t0"]


def test_what_is_held_and_was_promised_stays_and_what_goes_is_named(lake):
    titles(lake, 4)
    lake.site("lis")
    lake.appliance("a", "lis", room=2 * GB, held=[0, 3], promised=[0, 3])
    lake.evenings("a", t0=50 * GB, t1=40 * GB)
    order = orders(lake.plan())["a"]
    assert (kept(order), brought(order), order.release) == ([0, 3], [], ())  # 5 % of 2 GB bring nothing
    lake.settings = Lake(lake.here, more="[placement]\nchurn = 0.5").settings
    order = orders(lake.plan())["a"]
    assert (kept(order), brought(order), order.release) == ([0], ["t1"], (folder("t3"),))


def _fields(stock):
    return {name: getattr(stock, name) for name in stock.__struct_fields__}


def test_what_was_promised_and_never_came_is_brought_anew(lake):
    titles(lake, 2)
    lake.site("lis")
    lake.appliance("a", "lis", room=5 * GB, used=0, held=[1], promised=[0, 1])
    lake.evenings("a", t0=5 * GB, t1=4 * GB)
    order = orders(lake.plan())["a"]
    assert (brought(order), kept(order)) == (["t0"], [1])


def test_an_appliance_that_does_not_say_what_it_holds_is_believed_to_hold_what_it_was_told(lake):
    titles(lake, 2)
    lake.site("lis")
    lake.appliance("a", "lis", room=5 * GB, used=0, promised=[0])
    lake.stocks["a"] = Stock(**{**_fields(lake.stocks["a"]), "holdings": b""})
    lake.evenings("a", t0=5 * GB)
    plan = lake.plan()
    assert kept(orders(plan)["a"]) == [0]
    assert any("does not say what it holds" in warning for warning in plan.report.warnings)


def test_devices_that_are_not_well_get_nothing(lake):
    titles(lake, 2)
    lake.site("lis")
    lake.appliance("a", "lis", room=5 * GB, used=0)
    (device,) = lake.stocks["a"].devices
    failing = type(device)(**{**_fields(device), "standing": "failing"})
    lake.stocks["a"] = Stock(**{**_fields(lake.stocks["a"]), "devices": (failing,)})
    lake.evenings("a", t0=5 * GB)
    assert orders(lake.plan()) == {}


def test_an_appliance_without_stock_gets_no_order_and_the_report_says_so(lake):
    titles(lake, 2)
    lake.site("lis")
    lake.appliance("a", "lis", used=0)
    lake.appliance("b", "lis", used=0)
    del lake.stocks["b"]
    lake.evenings("a", t0=5 * GB)
    plan = lake.plan()
    assert set(orders(plan)) == {"a"}
    assert "b never said what room it has: it gets no order" in plan.report.warnings


def test_pins_and_blocks_hold_where_and_as_long_as_they_are_meant(lake):
    titles(lake, 4)
    for site, name in (("lis", "a"), ("opo", "b")):
        lake.site(site)
        lake.appliance(name, site, room=GB, used=0)
        lake.evenings(name, t0=9 * GB, t1=8 * GB)
    lake.wishes = Wishes(
        pin=(Pin("t3", sites=("lis",)), Pin("t2", until=NIGHT - dt.timedelta(days=1))),
        block=(Block("t0", sites=("opo",), until=NIGHT),),
    )
    told = orders(lake.plan())
    assert brought(told["a"]) == ["t3"]
    assert brought(told["b"]) == ["t1"]


def test_wishes_for_what_is_not_there_are_told(lake):
    titles(lake, 1)
    lake.site("lis")
    lake.appliance("a", "lis", used=0)
    lake.wishes = Wishes(pin=(Pin("nobody"), Pin("t0", ("8k",), ("mars",))), release=(Release("later"),))
    told = [warning for warning in lake.plan().report.warnings if warning.startswith("wishes")]
    assert told == [
        "wishes: later is in no catalogue",
        "wishes: nobody is in no catalogue",
        "wishes: t0: mars is no site",
        "wishes: t0 has no rendition 8k",
    ]


def test_without_any_demand_pins_are_brought_and_the_report_says_why_nothing_else_is(lake):
    titles(lake, 3)
    lake.site("lis")
    lake.appliance("a", "lis", used=0)
    lake.wishes = Wishes(pin=(Pin("t2"),))
    plan = lake.plan()
    assert brought(orders(plan)["a"]) == ["t2"]
    assert any("there is no demand" in warning for warning in plan.report.warnings)


def test_an_empty_catalogue_is_no_plan(lake):
    lake.site("lis")
    with pytest.raises(InputError, match="the catalogue is empty"):
        lake.plan()


def test_demand_of_what_is_in_no_catalogue_is_told(lake):
    titles(lake, 1)
    lake.site("lis")
    lake.appliance("a", "lis", used=0)
    lake.evenings("a", t0=GB, gone=GB)
    plan = lake.plan()
    assert plan.report.unknown_folder_bytes == 3 * GB
    assert any("50% of the demand" in warning for warning in plan.report.warnings)


def test_an_hour_that_is_no_demand_is_named(lake):
    titles(lake, 1)
    lake.site("lis")
    lake.appliance("a", "lis", used=0)
    lake.evenings("a", t0=GB)
    (lake.here / "demand/date=2026-11-24/hour=20/a.parquet").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="demand of 2026-11-24 can't be read"):
        lake.plan()


def test_the_same_lake_gives_the_same_plan_to_the_bit(lake, tmp_path):
    titles(lake, 12)
    lake.site("ixp")
    for site in ("x", "y"):
        lake.site(site, parent="ixp")
        for at in (1, 2):
            lake.appliance(f"{site}{at}", site, room=4 * GB, used=0)
            lake.evenings(f"{site}{at}", **evenly(12, GB + at))
    first, again = lake.plan(), lake.plan()
    assert [encode(order) for order in first.orders(1)] == [encode(order) for order in again.orders(1)]
    assert encode(first.report) == encode(again.report)
    assert plots(first.report) == plots(again.report)
    # And so does one that sums everything anew.
    for path in (lake.here / "digests").glob("*"):
        path.unlink()
    assert [encode(order) for order in lake.plan().orders(1)] == [encode(order) for order in first.orders(1)]


def test_days_are_summed_once_and_again_when_an_hour_comes_late(lake):
    titles(lake, 2)
    lake.site("lis")
    lake.appliance("a", "lis", room=GB, used=0)
    lake.evenings("a", t0=5 * GB)
    lake.plan()
    before = {path.name: path.stat().st_mtime_ns for path in (lake.here / "digests").glob("*")}
    assert len(before) == 3
    lake.watched(NIGHT - dt.timedelta(days=1), 21, "a", t1=500 * GB)
    assert brought(orders(lake.plan())["a"]) == ["t1"]
    after = {path.name: path.stat().st_mtime_ns for path in (lake.here / "digests").glob("*")}
    assert [name for name in after if after[name] != before[name]] == ["date=2026-11-24.parquet"]


def test_digests_of_days_that_went_go_and_broken_ones_are_made_anew(lake):
    titles(lake, 1)
    lake.site("lis")
    lake.appliance("a", "lis", room=GB, used=0)
    lake.evenings("a", t0=5 * GB)
    lake.plan()
    (lake.here / "digests/date=2026-11-24.parquet").write_bytes(b"nonsense")
    (lake.here / "digests/date=2020-01-01.parquet").write_bytes(b"old")
    assert brought(orders(lake.plan())["a"]) == ["t0"]
    assert not (lake.here / "digests/date=2020-01-01.parquet").exists()


def test_the_report_says_what_will_be_served_moved_and_left_out(lake):
    titles(lake, 10)
    lake.site("ixp")
    lake.appliance("top", "ixp", room=2 * GB, used=0)
    lake.site("lis", parent="ixp")
    for name in ("a", "b"):
        lake.appliance(name, "lis", room=2 * GB, used=0)
        lake.evenings(name, **evenly(10))
    plan = lake.plan()
    (site,) = [site for site in plan.report.sites if site.id == "lis"]
    assert site.region == "ixp"
    assert site.pledged_before == 0
    assert 0.6 < site.pledged_after < 0.7  # the four hottest of ten: 34 of 55
    assert [one.folder for one in site.missed] == [folder(f"t{number}") for number in (4, 5, 6, 7, 8, 9)]
    assert {one.reason for one in site.missed} == {"room"}
    moved = {kind: sum(one.by_source[kind] for one in plan.report.appliances) for kind in Source}
    # Two at each of three: the parent is filled before it was asked for anything.
    assert sum(moved.values()) == sum(one.bring_bytes for one in plan.report.appliances) == 6 * GB
    text = as_text(plan.report)
    assert "Night of 2026-11-25: 3 appliances at 2 sites, 10 renditions" in text
    assert folder("t4") in text
    assert {name: body[:4] for name, body in plots(plan.report).items()} == {
        "served.png": b"\x89PNG",
        "moved.png": b"\x89PNG",
    }


def test_peers_of_an_order_are_those_that_its_renditions_name(lake):
    titles(lake, 3)
    lake.site("lis")
    for name in ("a", "b"):
        lake.appliance(name, "lis", room=5 * GB, used=0)
        # So much at the peak that it needs two copies.
        lake.evenings(name, **dict.fromkeys(("t0", "t1", "t2"), 9_000 * GB))
    told = orders(lake.plan())
    for number in range(3):
        both = [bring for order in told.values() for bring in order.bring if bring.number == number]
        assert sorted(len(bring.sources) for bring in both) == [0, 1]
    for order in told.values():
        named = {source for bring in order.bring for source in bring.sources}
        assert {peer.id: peer.url for peer in order.peers} == {name: f"http://{name}" for name in named}


def test_regions_are_trees_of_sites_and_lone_sites_go_with_their_country():
    sites = (
        Site(id="a", country="PT", timezone="UTC"),
        Site(id="b", country="PT", timezone="UTC"),
        Site(id="ixp", country="DE", timezone="UTC"),
        Site(id="c", country="DE", timezone="UTC", parent="ixp"),
        Site(id="d", country="PL", timezone="UTC", parent="c"),
    )
    found = {
        region.id: [site.id for site in region.sites]
        for region in planning.regions_of(Fleet(sites=sites, appliances=()))
    }
    assert found == {"country PT": ["a", "b"], "ixp": ["ixp", "c", "d"]}


def test_stock_that_can_not_be_read_or_speaks_for_others_is_left_out_and_told(lake):
    lake.site("lis")
    lake.appliance("a", "lis")
    lake.write()
    (lake.here / "stock/b.json").write_bytes(encode(lake.stocks["a"]))
    (lake.here / "stock/c.json").write_bytes(b"nonsense")
    found, told = planning.stocks_in(lake.here)
    assert set(found) == {"a"}
    assert [sentence.split(",")[0] for sentence in told] == ["stock of b speaks for a", "stock of c can't be read"]


def test_a_plan_is_saved_in_the_bucket_order_by_order(lake, bucket):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    titles(lake, 4)
    lake.site("lis")
    for at in range(20):
        lake.appliance(f"a{at}", "lis", room=2 * GB, used=0)
    lake.evenings("a0", **evenly(4))
    plan = lake.plan()
    plans = Plans(bucket)
    name = plans.begin(str(NIGHT), NOW)
    key = Ed25519PrivateKey.generate()
    record = plans.save(name, plan.orders(name.version), {}, plan.promised, key, "k", NOW)
    assert len(record.orders) == 20
    assert record.bring_renditions == 4
    held = plans.promised_by(name)
    assert {number for one in held.values() for number in one} == {0, 1, 2, 3}
    assert all(isinstance(one, BitMap) for one in held.values())


def test_a_new_site_is_filled_with_what_its_region_watches_before_its_first_viewer(lake):
    titles(lake, 6)
    lake.site("ixp")
    for site in ("old", "new"):
        lake.site(site, parent="ixp")
        lake.appliance(site, site, room=2 * GB, used=0)
    lake.evenings("old", **evenly(6))
    assert brought(orders(lake.plan())["new"]) == ["t0", "t1"]
