from __future__ import annotations

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.dns.zone import Kind, Zone, wire_name
from tests.steering.dns.asking import SERIAL, packed, settings

_ZONE = Zone(settings(), SERIAL)


def _wire(text: str) -> bytes:
    return dns.name.from_text(text).to_digestable()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("steer.example.net.", Kind.APEX),
        ("films.steer.example.net.", Kind.SERVICE),
        ("trailers.steer.example.net.", Kind.SERVICE),
        ("nosferatu-1922.films.steer.example.net.", Kind.TITLE),
        ("-nosferatu.films.steer.example.net.", Kind.ABSENT),
        ("a--b.films.steer.example.net.", Kind.ABSENT),
        ("a_b.films.steer.example.net.", Kind.ABSENT),
        ("x.nosferatu-1922.films.steer.example.net.", Kind.ABSENT),
        (r"\195\164.films.steer.example.net.", Kind.ABSENT),
        ("*.films.steer.example.net.", Kind.ABSENT),
        ("series.steer.example.net.", Kind.ABSENT),
        ("edge.steer.example.net.", Kind.BETWEEN),
        ("box1.edge.steer.example.net.", Kind.APPLIANCE),
        ("box2.ams.edge.steer.example.net.", Kind.APPLIANCE),
        (r"box2\.ams.edge.steer.example.net.", Kind.ABSENT),
        ("*.edge.steer.example.net.", Kind.ABSENT),
        ("ns1.steer.example.net.", Kind.NAME_SERVER),
        ("x.ns1.steer.example.net.", Kind.ABSENT),
        ("b.dns.steer.example.net.", Kind.NAME_SERVER),
        ("dns.steer.example.net.", Kind.BETWEEN),
        ("c.dns.steer.example.net.", Kind.ABSENT),
        ("ns.elsewhere.example.", Kind.OUTSIDE),
        ("example.net.", Kind.OUTSIDE),
        ("net.", Kind.OUTSIDE),
        (".", Kind.OUTSIDE),
        ("xsteer.example.net.", Kind.OUTSIDE),
        # The zone's bytes at the end, but inside of a label.
        (r"xx\005steer\007example\003net.", Kind.OUTSIDE),
        (r"films\005steer.example.net.", Kind.OUTSIDE),
    ],
)
def test_a_name_means(name: str, kind: Kind) -> None:
    assert _ZONE.meaning(_wire(name)).kind is kind


def test_words_and_titles_are_told_as_they_are_called() -> None:
    title = _ZONE.meaning(_wire("Nosferatu-1922.FILMS.steer.example.net."))
    assert (title.word, title.title) == ("films", "nosferatu-1922")
    assert _ZONE.meaning(_wire("trailers.steer.example.net.")).word == "trailers"
    assert _ZONE.meaning(_wire("Box2.AMS.edge.steer.example.net.")).word == "box2.ams"


def test_a_name_server_has_its_addresses_by_family() -> None:
    meaning = _ZONE.meaning(_wire("ns1.steer.example.net."))
    assert meaning.ipv4 == packed("192.0.2.53")
    assert meaning.ipv6 == packed("2001:db8::53")


def test_the_zone_s_own_records_read_as_they_are_meant() -> None:
    soa = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.SOA, _ZONE.soa.data, 0, len(_ZONE.soa.data))
    assert soa.to_text() == r"ns1.steer.example.net. dns\.people.example.net. 7 7200 900 1209600 30"
    assert [record.data for record in _ZONE.servers] == [
        wire_name("ns1.steer.example.net"),
        wire_name("b.dns.steer.example.net"),
        wire_name("ns.elsewhere.example"),
    ]
    assert [record.data for record in _ZONE.glue] == list(packed("192.0.2.53", "2001:db8::53", "192.0.2.54"))


def test_a_denial_is_remembered_no_longer_than_the_settings_say() -> None:
    assert _ZONE.denial.ttl == 30


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3), st.sampled_from(["", "films", "edge", "dns", "ns1"]))
def test_every_name_below_the_zone_means_something_in_it(labels: list[bytes], below: str) -> None:
    parent = [below.encode()] if below else []
    name = dns.name.Name([*labels, *parent, b"steer", b"example", b"net", b""])
    assert _ZONE.meaning(name.to_digestable()).kind is not Kind.OUTSIDE


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3))
def test_every_name_elsewhere_means_nothing(labels: list[bytes]) -> None:
    name = dns.name.Name([*labels, b"steer", b"example", b"org", b""])
    assert _ZONE.meaning(name.to_digestable()).kind is Kind.OUTSIDE
