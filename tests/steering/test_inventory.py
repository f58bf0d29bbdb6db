"""What there is: changes that are taken and changes that are refused, and the file."""

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.errors import InventoryError
from steering.inventory import (
    Allowance,
    Appliance,
    CancelMaintenance,
    Inventory,
    InventoryFile,
    Operator,
    PlanMaintenance,
    PutAppliance,
    PutOperator,
    PutSite,
    RemoveAppliance,
    RemoveOperator,
    RemoveSite,
    SetWish,
    Site,
    Source,
    Window,
    Wish,
    apply,
    decode_change,
    encode_change,
    parents_first,
    parse_inventory,
    reconciled,
    subject,
)
from tests.steering.stock import GBIT, appliance, inventory, operator, site

BASIC = inventory(site(), appliance())


# --- Changes ---


def test_a_change_makes_another_inventory_and_leaves_the_old_one():
    after = apply(BASIC, PutAppliance(appliance("a2")))
    assert set(BASIC.appliances) == {"a1"}
    assert set(after.appliances) == {"a1", "a2"}
    assert after.version == BASIC.version + 1
    assert after.appliances["a1"] is BASIC.appliances["a1"]


def test_of_many_changes_all_are_made_or_none():
    with pytest.raises(InventoryError):
        apply(BASIC, PutAppliance(appliance("a2")), PutAppliance(appliance("a3", "nowhere")))
    assert set(BASIC.appliances) == {"a1"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (PutSite(site("porto", operator="who")), "site porto: there is no operator 'who'"),
        (PutSite(site("porto", parent="ixp")), "site porto: there is no site 'ixp'"),
        (PutSite(site("lisbon", parent="lisbon")), "site lisbon: its parents lead back to lisbon"),
        (PutAppliance(appliance("a2", "porto")), "appliance a2: there is no site 'porto'"),
        (SetWish("a9", Wish.DRAIN), "there is no appliance 'a9'"),
        (RemoveAppliance("a9"), "there is no appliance 'a9'"),
        (RemoveSite("porto"), "there is no site 'porto'"),
        (RemoveOperator("who"), "there is no operator 'who'"),
        (RemoveSite("lisbon"), "site lisbon is still used by 1: appliance a1; remove these first"),
        (RemoveOperator("isp"), "operator isp is still used by 1: site lisbon; remove these first"),
        (PutSite(site(prefixes=("192.0.2.1/24",))), "site lisbon: prefixes: '192.0.2.1/24' is not a network such as"),
        (PutOperator(operator(allowed=("here",))), "operator isp: allowed: 'here' is not a network such as"),
        (PutAppliance(appliance(ipv4=("2001:db8::1",))), "appliance a1: ipv4: '2001:db8::1' is not an IPv4 address"),
        (PutAppliance(appliance(ipv6=("192.0.2.1",))), "appliance a1: ipv6: '192.0.2.1' is not an IPv6 address"),
        (PutAppliance(appliance(ipv4=("a1.example",))), "appliance a1: ipv4: 'a1.example' is not an IPv4 address"),
        (PutAppliance(appliance(metrics="host")), "appliance a1: metrics: 'host' is not host:port"),
        (PutAppliance(appliance(metrics="host:99999")), "appliance a1: metrics: 'host:99999' is not host:port"),
        (PutAppliance(appliance(capacity=0)), "appliance a1: capacity must be more than 0"),
    ],
)
def test_a_change_that_can_not_be_is_refused_with_a_sentence(change, sentence):
    with pytest.raises(InventoryError) as refused:
        apply(BASIC, change)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a1.example",
        "ftp://a1.example",
        "https://",
        "https://a1.example/",
        "https://a1.example/films",
        "https://a1.example?x=1",
        "https://a1.example#x",
        "https://ana:pw@a1.example",
        "https://[::1",
        "https://a1.example:99999",
        "https://a1.exa\nmple",
    ],
)
def test_a_url_that_no_path_can_be_put_behind_is_refused(url):
    with pytest.raises(InventoryError, match="is not like https://host or http://host:port"):
        apply(BASIC, PutAppliance(appliance(url=url)))


@pytest.mark.parametrize("url", ["https://a1.example", "http://a1.example:8080", "http://[2001:db8::1]:80"])
def test_a_url_of_scheme_and_host_is_taken(url):
    assert apply(BASIC, PutAppliance(appliance(url=url))).appliances["a1"].url == url


def test_parents_that_lead_in_a_ring_are_refused_however_long_it_is():
    chain = apply(BASIC, PutSite(site("ixp")), PutSite(site("metro", parent="ixp")), PutSite(site(parent="metro")))
    with pytest.raises(InventoryError, match="its parents lead back to ixp"):
        apply(chain, PutSite(site("ixp", parent="lisbon")))


def test_who_is_used_by_many_names_the_first_few():
    crowd = apply(BASIC, *(PutAppliance(appliance(f"b{number}")) for number in range(9)))
    with pytest.raises(InventoryError, match=r"used by 10: appliance a1, appliance b0, .*b3, …; remove these first"):
        apply(crowd, RemoveSite("lisbon"))


def test_a_site_that_is_a_parent_stays():
    two = apply(BASIC, PutSite(site("ixp")), PutSite(site(parent="ixp")))
    with pytest.raises(InventoryError, match="site ixp is still used by 1: site lisbon"):
        apply(two, RemoveSite("ixp"))


def test_users_may_go_in_the_same_change_in_any_order():
    after = apply(BASIC, RemoveOperator("isp"), RemoveSite("lisbon"), RemoveAppliance("a1"))
    assert (after.operators, after.sites, after.appliances) == ({}, {}, {})


def test_an_appliance_may_move_away_from_a_site_that_goes():
    after = apply(BASIC, RemoveSite("lisbon"), PutSite(site("porto")), PutAppliance(appliance(at="porto")))
    assert set(after.sites) == {"porto"}


# --- Prefixes ---


@pytest.mark.parametrize(
    ("allowed", "prefix", "fits"),
    [
        ((), "192.0.2.0/24", True),
        (("192.0.2.0/24",), "192.0.2.0/24", True),
        (("192.0.2.0/24",), "192.0.2.128/25", True),
        (("192.0.2.0/24",), "192.0.2.0/23", False),
        (("192.0.2.0/24",), "192.0.3.0/24", False),
        (("192.0.2.0/24",), "2001:db8::/32", False),
        (("192.0.2.0/24", "2001:db8::/32"), "2001:db8:1::/48", True),
        (("192.0.2.0/25", "192.0.2.128/25"), "192.0.2.0/24", False),
        (("0.0.0.0/0",), "203.0.113.0/24", True),
        (("0.0.0.0/0",), "::/0", False),
    ],
)
def test_a_site_announces_only_within_what_its_operator_is_allowed(allowed, prefix, fits):
    changes = PutOperator(operator(allowed=allowed)), PutSite(site(prefixes=(prefix,)))
    if fits:
        assert apply(BASIC, *changes).sites["lisbon"].prefixes == (prefix,)
        return
    with pytest.raises(InventoryError, match=f"prefix {prefix} is outside of what operator isp is allowed"):
        apply(BASIC, *changes)


def test_an_operator_can_not_be_allowed_less_than_its_sites_announce():
    before = apply(BASIC, PutSite(site(prefixes=("192.0.2.0/24",))))
    narrower = PutOperator(operator(allowed=("198.51.100.0/24",)))
    with pytest.raises(InventoryError, match=r"prefix 192\.0\.2\.0/24 is outside"):
        apply(before, narrower)
    after = apply(before, narrower, PutSite(site(prefixes=("198.51.100.0/25",))))
    assert after.operators["isp"].allowed == ("198.51.100.0/24",)


IPV4 = st.builds(
    lambda number, length: ipaddress.ip_network((number, length), strict=False),
    st.integers(0xC0000000, 0xC00003FF),
    st.integers(20, 32),
)


@given(st.lists(IPV4, max_size=6), IPV4)
def test_an_allowance_contains_what_one_of_its_networks_contains(networks, prefix):
    assert (prefix in Allowance(networks)) == any(prefix.subnet_of(network) for network in networks)


def test_many_prefixes_of_many_allowed_are_checked_at_once():
    # 20,000 times 20,000 comparisons would not end within the time that a test has.
    allowed = tuple(f"10.{number >> 8}.{number & 255}.0/24" for number in range(20_000))
    after = apply(BASIC, PutOperator(operator(allowed=allowed)), PutSite(site(prefixes=allowed)))
    assert len(after.sites["lisbon"].prefixes) == 20_000


# --- Wishes ---


@pytest.mark.parametrize("source", Source)
def test_a_wish_is_kept_when_somebody_puts_the_appliance_anew(source):
    drained = apply(BASIC, SetWish("a1", Wish.DRAIN))
    after = apply(drained, PutAppliance(appliance(capacity=10 * GBIT)), source=source)
    assert after.appliances["a1"].wish is Wish.DRAIN
    assert after.appliances["a1"].capacity == 10 * GBIT


def test_a_new_appliance_has_the_wish_that_is_declared():
    assert apply(BASIC, PutAppliance(appliance("a2", wish=Wish.DISABLE))).appliances["a2"].wish is Wish.DISABLE


# --- Maintenance ---


def test_windows_are_kept_in_order_whoever_puts_the_appliance_anew():
    planned = apply(FILE, PlanMaintenance("a1", 200, 300), PlanMaintenance("a1", 100, 150, forced=True))
    windows = (Window(100, 150, forced=True), Window(200, 300))
    assert planned.appliances["a1"].maintenance == windows
    assert reconciled(planned, InventoryFile((operator(),), (site(),), (appliance(),)), "f") == ()
    anew = of_file(operator(), site(), appliance(capacity=GBIT), kept=planned)
    assert anew.appliances["a1"].maintenance == windows
    assert anew.appliances["a1"].capacity == GBIT


def test_a_window_that_begins_at_the_same_moment_is_replaced():
    planned = apply(BASIC, PlanMaintenance("a1", 100, 150), PlanMaintenance("a1", 100, 170))
    assert planned.appliances["a1"].maintenance == (Window(100, 170),)


def test_one_window_is_cancelled_or_all():
    planned = apply(BASIC, PlanMaintenance("a1", 100, 150), PlanMaintenance("a1", 200, 250))
    assert apply(planned, CancelMaintenance("a1", 100)).appliances["a1"].maintenance == (Window(200, 250),)
    assert apply(planned, CancelMaintenance("a1")).appliances["a1"].maintenance == ()


def test_what_is_over_is_forgotten_with_the_next_plan():
    planned = apply(BASIC, PlanMaintenance("a1", 100, 150), now=50)
    assert apply(planned, PlanMaintenance("a1", 300, 350), now=150).appliances["a1"].maintenance == (Window(300, 350),)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (PlanMaintenance("a9", 2000, 3000), "there is no appliance 'a9'"),
        (
            PlanMaintenance("a1", 3000, 3000),
            "appliance a1: maintenance has to end after it begins, and to last 31 days",
        ),
        (PlanMaintenance("a1", 2000, 2001 + 31 * 86400), "appliance a1: maintenance has to end after it begins"),
        (PlanMaintenance("a1", float("nan"), 3000), "appliance a1: maintenance has to end after it begins"),
        (PlanMaintenance("a1", 900, 990), "appliance a1: maintenance would be over already: it ended 10 s ago"),
        (CancelMaintenance("a1"), "appliance a1: no such maintenance is planned"),
        (CancelMaintenance("a9"), "there is no appliance 'a9'"),
    ],
)
def test_maintenance_that_can_not_be_is_refused_with_a_sentence(change, sentence):
    with pytest.raises(InventoryError) as refused:
        apply(BASIC, change, now=1000)
    assert str(refused.value).startswith(sentence)


def test_windows_have_a_bound():
    planned = apply(BASIC, *(PlanMaintenance("a1", 100 * number, 100 * number + 50) for number in range(50)))
    with pytest.raises(InventoryError, match="is planned 50 times already; cancel one first"):
        apply(planned, PlanMaintenance("a1", 9000, 9050))


# --- The file ---


def of_file(*entries, kept=None):
    kept = Inventory() if kept is None else kept
    declared = InventoryFile(
        operator=tuple(entry for entry in entries if type(entry).__name__ == "Operator"),
        site=tuple(entry for entry in entries if type(entry).__name__ == "Site"),
        appliance=tuple(entry for entry in entries if type(entry).__name__ == "Appliance"),
    )
    return apply(kept, *reconciled(kept, declared, "inventory.toml"), source=Source.FILE)


FILE = of_file(operator(), site(), appliance())


@pytest.mark.parametrize(
    "change",
    [
        PutOperator(operator(name="isp", asns=(1,))),
        PutSite(site(country="ES")),
        PutAppliance(appliance(url="https://other.example")),
        RemoveAppliance("a1"),
        RemoveSite("lisbon"),
        RemoveOperator("isp"),
    ],
)
def test_what_the_file_declares_is_changed_there_only(change):
    kind, name = subject(change)
    with pytest.raises(InventoryError, match=f"{kind} {name} is declared in the inventory file; change it there"):
        apply(FILE, change)


def test_what_the_file_declares_can_be_drained_by_api():
    assert apply(FILE, SetWish("a1", Wish.DRAIN)).appliances["a1"].wish is Wish.DRAIN


def test_a_file_that_says_the_same_changes_nothing_even_after_a_drain():
    drained = apply(FILE, SetWish("a1", Wish.DRAIN))
    assert reconciled(drained, InventoryFile((operator(),), (site(),), (appliance(),)), "f") == ()


def test_what_the_file_names_no_more_goes_and_what_the_api_put_stays():
    both = apply(FILE, PutAppliance(appliance("by-api")))
    both = of_file(operator(), site(), appliance("a2"), kept=both)
    assert set(both.appliances) == {"by-api", "a2"}


def test_what_the_api_put_becomes_the_files_once_it_is_declared_there():
    mixed = apply(FILE, PutAppliance(appliance("a2")), SetWish("a2", Wish.DISABLE))
    mixed = of_file(operator(), site(), appliance(), appliance("a2"), kept=mixed)
    assert mixed.appliances["a2"].wish is Wish.DISABLE
    with pytest.raises(InventoryError, match="declared in the inventory file"):
        apply(mixed, RemoveAppliance("a2"))
    assert set(of_file(operator(), site(), appliance(), kept=mixed).appliances) == {"a1"}


def test_what_is_removed_from_the_file_may_be_put_by_api_again():
    gone = of_file(operator(), site(), kept=FILE)
    assert apply(gone, PutAppliance(appliance())).appliances["a1"] == appliance()


def test_removals_come_in_an_order_that_can_be_applied_one_by_one():
    full = of_file(operator(), site("ixp"), site("metro", parent="ixp"), site(parent="metro"), appliance())
    changes = reconciled(full, InventoryFile(), "f")
    assert [subject(change)[1] for change in changes] == ["a1", "lisbon", "metro", "ixp", "isp"]
    for change in changes:
        full = apply(full, change, source=Source.FILE)
    assert not full.from_file


def test_children_may_stand_before_their_parents_in_the_file():
    shuffled = of_file(operator(), site(parent="metro"), site("metro", parent="ixp"), site("ixp"))
    assert list(shuffled.sites) == ["ixp", "metro", "lisbon"]


def test_parent_and_child_may_change_places():
    before = of_file(operator(), site("ixp"), site("metro", parent="ixp"))
    after = of_file(operator(), site("ixp", parent="metro"), site("metro"), kept=before)
    assert after.sites["ixp"].parent == "metro"


def test_a_ring_of_parents_in_the_file_is_refused():
    with pytest.raises(InventoryError, match="its parents lead back to"):
        of_file(operator(), site("ixp", parent="metro"), site("metro", parent="ixp"))


@pytest.mark.parametrize(
    ("declared", "name"),
    [
        (InventoryFile(operator=(operator(), operator())), "operator isp"),
        (InventoryFile(site=(site(), site(country="ES"))), "site lisbon"),
        (InventoryFile(appliance=(appliance(), appliance())), "appliance a1"),
    ],
)
def test_an_entry_that_is_declared_twice_is_refused(declared, name):
    with pytest.raises(InventoryError, match=f"inventory.toml: {name} is declared twice"):
        reconciled(Inventory(), declared, "inventory.toml")


NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@given(NAMES, st.data())
def test_parents_come_first_whatever_the_order(names, data):
    sites = []
    for place, name in enumerate(names):
        parent = data.draw(st.sampled_from([None, *names[:place]]))
        sites.append(site(name, parent=parent))
    order = [one.id for one in parents_first(tuple(data.draw(st.permutations(sites))))]
    assert sorted(order) == sorted(names)
    for one in sites:
        assert one.parent is None or order.index(one.parent) < order.index(one.id)


ENTRIES = st.tuples(NAMES, NAMES, st.randoms(use_true_random=False))


def _world(names, boxes, dice):
    sites = [site(name, parent=dice.choice([None, *names[:place]])) for place, name in enumerate(names)]
    return (
        operator(),
        *sites,
        *(appliance(f"x{box}", dice.choice(names), capacity=dice.choice([1, 2])) for box in boxes if names),
    )


@given(ENTRIES, ENTRIES)
def test_whatever_stood_in_the_file_before_the_inventory_says_what_it_says_now(one, other):
    now = _world(*other)
    after = of_file(*now, kept=of_file(*_world(*one)))
    fresh = of_file(*now)
    for kind in ("operators", "sites", "appliances", "from_file"):
        assert getattr(after, kind) == getattr(fresh, kind)


TEXT = """\
[[operator]]
id = "isp"
asns = [64500]
allowed = ["192.0.2.0/24"]

[[site]]
id = "lisbon"           # the old exchange
operator = "isp"
latitude = 38.7
longitude = -9.1
country = "PT"
serves = "everyone"

[[appliance]]
id = "a1"
site = "lisbon"
url = "https://a1.edge.example"
capacity = "100 Gbit/s"

[[appliance]]
id = "a2"
site = "lisbon"
url = "https://a2.edge.example"
"""


def test_a_file_is_read():
    file = parse_inventory(TEXT, "inventory.toml")
    assert [entry.id for entry in file.appliance] == ["a1", "a2"]
    assert file.appliance[0].capacity == 100 * GBIT


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "isp"', 'id = "9"', "line 2: operator.id: Expected `str` matching regex"),
        ("[64500]", "[64500, 0]", "line 3: operator.asns: Expected `int` >= 1; read 0"),
        ("latitude = 38.7", "latitude = 387", "line 9: site.latitude: Expected `float` <= 90.0; read 387"),
        ("latitude = 38.7", "latitude = nan", "line 9: site.latitude: Expected `float` >= -90.0; read nan"),
        ("latitude = 38.7\n", "", "line 6: site: Object missing required field `latitude`"),
        ('country = "PT"', 'country = "Portugal"', "line 11: site.country: Expected `str` matching regex"),
        ('"everyone"', '"all"', "line 12: site.serves: not one of the allowed values: announced, network, everyone"),
        ('"100 Gbit/s"', '"100 Gb"', 'line 18: appliance.capacity: Expected a rate such as "100 Gbit/s"'),
        ('id = "a2"', 'id = "a2"\nwisch = "drain"', "line 22: appliance.wisch: unknown key 'wisch'; allowed here: id,"),
        ('id = "a2"', "id = 2", "line 21: appliance.id: Expected `str`, got `int`; read 2"),
        ("[[operator]]", "[[oprator]]", "line 1: oprator: unknown key 'oprator'; allowed here: operator, site"),
        ("[[operator]]", "[[operator]", "Expected ']]' at the end of an array declaration (at line 1,"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_file_line_and_key(old, new, message):
    with pytest.raises(InventoryError) as refused:
        parse_inventory(TEXT.replace(old, new, 1), "inventory.toml")
    assert str(refused.value).startswith(f"inventory.toml: {message}")


# --- As JSON ---

CHANGES = [
    PutOperator(operator(asns=(1, 2), allowed=("192.0.2.0/24",))),
    PutSite(site(parent="ixp", prefixes=("192.0.2.0/24",))),
    PutAppliance(appliance(capacity=100 * GBIT, ipv4=("192.0.2.1",), token_sha256="0" * 64, metrics="h:1")),
    SetWish("a1", Wish.DRAIN),
    PlanMaintenance("a1", 100.5, 200, forced=True),
    CancelMaintenance("a1", 100.5),
    RemoveOperator("isp"),
    RemoveSite("lisbon"),
    RemoveAppliance("a1"),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: type(change).__name__)
def test_a_change_comes_back_from_json(change):
    assert decode_change(encode_change(change)) == change


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"type":"explode"}',
        b'{"type":"set-wish","appliance":"a1","wish":"burn"}',
        b'{"type":"set-wish","appliance":"a1","wish":"drain","when":"now"}',
        b'{"type":"remove-site","id":"../etc"}',
    ],
)
def test_what_is_no_change_is_refused(body):
    with pytest.raises(InventoryError, match="not a change"):
        decode_change(body)


def test_a_rate_may_be_written_with_its_unit():
    body = msgspec.json.encode(
        {"type": "put-appliance", "appliance": {"id": "a", "site": "s", "url": "https://a", "capacity": "2 Gbit/s"}}
    )
    assert decode_change(body).appliance.capacity == 2 * GBIT


@pytest.mark.parametrize("name", ["a..b", "a.", "a" * 64])
def test_an_appliance_that_could_not_be_a_host_name_is_refused(name):
    before = apply(Inventory(), PutOperator(Operator(id="isp")), PutSite(_lisbon()))
    with pytest.raises(InventoryError, match="1 to 63 characters"):
        apply(before, PutAppliance(Appliance(id=name, site="lis", url="https://x.example")))


def test_appliances_that_differ_only_in_case_are_refused():
    before = apply(Inventory(), PutOperator(Operator(id="isp")), PutSite(_lisbon()))
    one = apply(before, PutAppliance(Appliance(id="Box", site="lis", url="https://x.example")))
    with pytest.raises(InventoryError, match="only in case"):
        apply(one, PutAppliance(Appliance(id="bOX", site="lis", url="https://y.example")))


def _lisbon():
    return Site(id="lis", operator="isp", latitude=38.7, longitude=-9.1, country="PT")
