import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.topology.databases import Database, Kind
from steering.topology.locator import NOWHERE, Locator, Where
from steering.topology.prefixes import Announced, Source, network_of
from steering.topology.reach import Reach
from tests.doubles.geoip import ASN, CITY, asn, city, write_database

NOW = 4e9

CITIES = {
    "45.1.0.0/16": city("DE", 50.94, 6.96, name="Cologne", radius=10, subdivision="NW"),
    "45.2.0.0/16": city("DE", 51.0, 9.0, name=None, radius=700),
    "45.1.64.0/26": city("FR", 48.85, 2.35, name="Paris", radius=5),
    "10.0.0.0/8": city("US", 37.4, -122.1),
    "2a00:1000::/32": city("NL", 52.37, 4.9, name="Amsterdam", radius=20),
}
ASNS = {"45.0.0.0/10": asn(64500), "2a00:1000::/30": asn(64501)}
ANNOUNCED = {
    Source("cologne"): ["45.1.0.0/17", "10.0.0.0/8", "100.64.0.0/10"],
    Source("bonn", "bn-1"): ["45.1.0.0/17", "45.1.128.0/17", "2a00:1000:5::/48"],
    Source("paris", "pa-1"): ["45.1.64.0/24"],
}


def _packed(text):
    return ipaddress.ip_address(text).packed


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("geoip")
    found = (
        Database(Kind.ASN, str(write_database(folder / "asn.mmdb", ASN, ASNS))),
        Database(Kind.CITY, str(write_database(folder / "city.mmdb", CITY, CITIES))),
    )
    for database in found:
        database.refresh(NOW)
    return found


@pytest.fixture(scope="module")
def announced():
    table = Announced()
    for source, prefixes in ANNOUNCED.items():
        table.replace(source, map(network_of, prefixes))
    return table


@pytest.fixture
def locator(announced, databases):
    return Locator(announced, *databases)


COLOGNE = {"country": "DE", "subdivision": "NW", "latitude": 50.94, "longitude": 6.96, "radius_km": 10.0}


@pytest.mark.parametrize(
    ("address", "where"),
    [
        ("45.1.1.1", Where(reach=Reach.GLOBAL, network="45.1.0.0/17", sites=("bonn", "cologne"), asn=64500, **COLOGNE,
                           scope=18)),
        ("45.1.200.1", Where(reach=Reach.GLOBAL, network="45.1.128.0/17", sites=("bonn",), asn=64500, **COLOGNE,
                             scope=17)),
        ("45.1.64.100", Where(reach=Reach.GLOBAL, network="45.1.64.0/24", sites=("paris",), asn=64500, **COLOGNE,
                              scope=26)),
        ("45.1.64.1", Where(reach=Reach.GLOBAL, network="45.1.64.0/24", sites=("paris",), asn=64500, country="FR",
                            latitude=48.85, longitude=2.35, radius_km=5.0, scope=26)),
        ("45.2.1.1", Where(reach=Reach.GLOBAL, asn=64500, country="DE", scope=16)),
        ("45.63.1.1", Where(reach=Reach.GLOBAL, asn=64500, scope=11)),
        ("8.8.8.8", Where(reach=Reach.GLOBAL, scope=7)),
        ("10.9.9.9", Where(reach=Reach.PRIVATE, network="10.0.0.0/8", sites=("cologne",), scope=8)),
        ("100.100.1.1", Where(reach=Reach.SHARED, network="100.64.0.0/10", sites=("cologne",), scope=10)),
        ("192.168.1.1", Where(reach=Reach.PRIVATE, scope=16)),
        ("127.0.0.1", Where(reach=Reach.LOOPBACK, scope=8)),
        ("203.0.113.1", Where(reach=Reach.DOCUMENTATION, scope=24)),
        ("0.0.0.0", Where(reach=Reach.UNSPECIFIED, scope=8)),
        ("::1", Where(reach=Reach.LOOPBACK, scope=128)),
        ("fe80::1", Where(reach=Reach.LINK_LOCAL, scope=10)),
        ("2a00:1000:5::1", Where(reach=Reach.GLOBAL, network="2a00:1000:5::/48", sites=("bonn",), asn=64501,
                                 country="NL", latitude=52.37, longitude=4.9, radius_km=20.0, scope=48)),
        ("2a00:1001::1", Where(reach=Reach.GLOBAL, asn=64501, scope=32)),
        ("::ffff:10.9.9.9", Where(reach=Reach.PRIVATE, network="10.0.0.0/8", sites=("cologne",), scope=104)),
        ("2002:a09:909::1", Where(reach=Reach.PRIVATE, network="10.0.0.0/8", sites=("cologne",), scope=24)),
        ("64:ff9b::45.2.1.1", Where(reach=Reach.GLOBAL, asn=64500, country="DE", scope=112)),
    ],
)  # fmt: skip
def test_each_address_has_its_answer(locator, address, where):
    assert locator.locate(_packed(address)) == where
    assert locator.locate(_packed(address)) == where


def test_a_client_without_an_address_is_nowhere():
    assert Where(reach=Reach.UNKNOWN) == NOWHERE


@pytest.mark.parametrize("address", [b"", b"\x2d\1\1", b"\x2d\1\1\1\1\1"])
def test_what_is_no_address_is_refused_even_where_its_block_is_remembered(locator, address):
    locator.locate(b"\x2d\1\1\1")
    with pytest.raises(ValueError, match="4 or 16"):
        locator.locate(address)


def test_without_databases_and_prefixes_an_address_is_only_of_its_kind():
    locator = Locator(Announced(), Database(Kind.ASN, None), Database(Kind.CITY, None))
    assert locator.locate(_packed("45.1.1.1")) == Where(
        reach=Reach.GLOBAL, scope=locator.locate(_packed("45.1.1.1")).scope
    )


def test_addresses_of_one_block_share_what_is_remembered(locator):
    first = locator.locate(_packed("45.1.1.1"))
    assert locator.locate(_packed("45.1.1.200")) is first
    assert len(locator) == 1
    # This block is split by a city: each address is remembered by itself.
    assert locator.locate(_packed("45.1.64.1")).country == "FR"
    assert locator.locate(_packed("45.1.64.100")).country == "DE"
    assert len(locator) == 3


def test_a_change_of_any_table_is_seen_at_once(tmp_path):
    announced = Announced()
    path = write_database(tmp_path / "city.mmdb", CITY, CITIES)
    cities = Database(Kind.CITY, str(path))
    numbers = tmp_path / "asn.mmdb"
    asns = Database(Kind.ASN, str(numbers))
    locator = Locator(announced, asns, cities)
    address = _packed("45.1.1.1")
    assert locator.locate(address).country is None
    cities.refresh(NOW)
    assert locator.locate(address).country == "DE"
    assert locator.locate(address).asn is None
    write_database(numbers, ASN, ASNS)
    asns.refresh(NOW)
    assert locator.locate(address).asn == 64500
    announced.replace(Source("cologne"), [network_of("45.1.0.0/16")])
    assert locator.locate(address).sites == ("cologne",)
    announced.replace(Source("cologne"), [])
    assert locator.locate(address).sites == ()


def test_what_is_remembered_has_a_bound_and_what_is_asked_for_stays(announced, databases):
    locator = Locator(announced, *databases, most=10)
    often = _packed("45.1.1.1")
    first = locator.locate(often)
    for number in range(200):
        locator.locate(_packed(f"45.3.{number}.1"))
        assert locator.locate(often) is first
        assert len(locator) <= 10


@st.composite
def clients(draw):
    v4 = draw(
        st.integers(0x2D000000, 0x2D03FFFF) | st.integers(0x2D014000, 0x2D0140FF) | st.integers(0, 2**32 - 1)
    ).to_bytes(4)
    form = draw(st.sampled_from(["v4", "mapped", "nat64", "6to4", "v6", "low"]))
    match form:
        case "v4":
            return v4
        case "mapped":
            return bytes(10) + b"\xff\xff" + v4
        case "nat64":
            return b"\0\x64\xff\x9b" + bytes(8) + v4
        case "6to4":
            return b"\x20\x02" + v4 + bytes(10)
        case "low":
            return draw(st.integers(0, 2**50)).to_bytes(16)
    return draw(st.integers(0x2A000FF << 100, 0x2A00101 << 100) | st.integers(0, 2**128 - 1)).to_bytes(16)


@given(clients(), st.data())
def test_every_address_within_the_scope_has_the_very_same_answer(announced, databases, address, data):
    locator = Locator(announced, *databases)
    where = locator.locate(address)
    free = 8 * len(address) - where.scope
    assert free >= 0
    other = int.from_bytes(address) ^ data.draw(st.integers(0, (1 << free) - 1))
    # Asked of one that remembers nothing.
    assert Locator(announced, *databases).locate(other.to_bytes(len(address))) == where
    assert locator.locate(other.to_bytes(len(address))) == where
