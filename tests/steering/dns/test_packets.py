"""The common case by hand, held against the same through dnspython."""

from __future__ import annotations

import dns.edns
import dns.message
import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.dns.packets import (
    AAAA,
    HEADER_BYTES,
    Builder,
    Edns,
    Query,
    Rcode,
    Subnet,
    Verdict,
    is_truncated,
    options_of,
    read_common,
    room,
    subnet_of,
)
from steering.dns.uncommon import build_uncommon, read_uncommon
from steering.dns.zone import Zone
from tests.steering.dns.asking import SERIAL, ZONE, packed, query, settings

_DENIAL = Zone(settings(), SERIAL).denial
_OURS = 1232
_BUILDER = Builder(_DENIAL, _OURS)

labels = st.binary(min_size=1, max_size=63)
names = st.lists(labels, max_size=3).map(lambda found: dns.name.Name([*found, b""]))
names_in_the_zone = st.lists(labels, max_size=2).map(
    lambda found: dns.name.Name([*found, b"Steer", b"example", b"net", b""])
)
options = st.lists(
    st.one_of(
        st.builds(
            dns.edns.ECSOption, st.ip_addresses(v=4).map(str), st.integers(0, 32), st.integers(0, 32)
        ),
        st.builds(dns.edns.ECSOption, st.ip_addresses(v=6).map(str), st.integers(0, 128)),
        st.builds(dns.edns.GenericOption, st.integers(9, 65535), st.binary(max_size=40)),
    ),
    max_size=3,
)  # fmt: skip


@st.composite
def packets(draw: st.DrawFn, of: st.SearchStrategy[dns.name.Name]) -> bytes:
    message = dns.message.make_query(draw(of), draw(st.integers(1, 65535)), draw(st.sampled_from([1, 3, 254, 255, 77])))
    message.id = draw(st.integers(0, 65535))
    message.flags = draw(st.sampled_from([0, 0x0100, 0x0120, 0x0130]))
    if draw(st.booleans()):
        message.use_edns(0, draw(st.sampled_from([0, 0x8000, 0x8001])), draw(st.integers(0, 65535)))
        message.use_edns(0, message.ednsflags, message.payload, options=draw(options))
    return message.to_wire()


@given(packets(names))
def test_a_common_query_reads_the_same_by_hand_and_through_dnspython(packet: bytes) -> None:
    read = read_common(packet)
    assert read == read_uncommon(packet)


@given(st.data(), packets(names))
def test_a_damaged_query_is_read_by_hand_only_if_dnspython_reads_the_same(data: st.DataObject, packet: bytes) -> None:
    damaged = bytearray(packet)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(HEADER_BYTES, len(damaged) - 1))
        damaged[at] = data.draw(st.sampled_from([0, 1, 2, 4, 8, 11, 41, 63, 64, 128, 192, 255]))
    cut = data.draw(st.integers(HEADER_BYTES, len(damaged)))
    for candidate in (bytes(damaged), bytes(damaged[:cut]), bytes(damaged) + b"\0"):
        read = read_common(candidate)
        if read is not None:
            assert read == read_uncommon(candidate)


@pytest.mark.parametrize("cut", range(HEADER_BYTES, len(query("films", subnet="192.0.2.0/24"))))
def test_a_query_that_is_cut_short_is_not_common(cut: int) -> None:
    assert read_common(query("films", subnet="192.0.2.0/24")[:cut]) is None


def test_the_longest_name_is_common_and_a_longer_one_is_not() -> None:
    longest = b"".join(bytes((63,)) + b"a" * 63 for _ in range(3)) + b"\x3d" + b"a" * 61 + b"\0"
    assert len(longest) == 255
    head, tail = query("films")[:HEADER_BYTES], b"\0\1\0\1"
    assert read_common(head + longest + tail) is not None
    assert read_common(head + b"\1a" + longest + tail) is None


def test_a_query_keeps_its_spelling_beside_the_name_in_lower_case() -> None:
    read = read_common(query("fIlMs"))
    assert read is not None
    assert read.question.startswith(b"\x05fIlMs\x05steer")
    assert read.name.startswith(b"\x05films\x05steer")


verdicts = st.one_of(
    st.builds(
        Verdict,
        st.just(Rcode.NOERROR),
        addresses=st.lists(st.binary(min_size=4, max_size=4), unique=True, max_size=64).map(tuple),
        ttl=st.integers(0, 86400),
        scope=st.integers(0, 32),
    ),
    st.builds(
        Verdict,
        st.sampled_from([Rcode.NOERROR, Rcode.NXDOMAIN]),
        scope=st.just(0),
        denies=st.just(True),
    ),
    st.builds(Verdict, st.sampled_from([Rcode.REFUSED, Rcode.SERVFAIL]), is_authoritative=st.just(False)),
)  # fmt: skip


@given(packets(names_in_the_zone), verdicts, st.sampled_from([512, 700, 1232, 65535]))
def test_answers_by_hand_say_what_dnspython_says(packet: bytes, verdict: Verdict, most_bytes: int) -> None:
    asked = read_common(packet)
    assert asked is not None
    asked = Query(asked.id, asked.wants_recursion, asked.question[:-4] + b"\0\1\0\1", asked.name, 1, 1, asked.edns)
    ours = _BUILDER.build(asked, verdict, most_bytes)
    theirs = build_uncommon(asked, verdict, _DENIAL, _OURS, most_bytes)
    assert len(ours) <= most_bytes
    # A TC that one of them needs and the other does not would be a difference in compression.
    assert len(ours) == len(theirs)
    one, other = dns.message.from_wire(ours), dns.message.from_wire(theirs)
    assert one == other
    assert (one.flags, one.ednsflags, one.payload, one.options) == (
        other.flags, other.ednsflags, other.payload, other.options,
    )  # fmt: skip
    for section in range(3):
        assert [rrset.to_text() for rrset in one.sections[section]] == [
            rrset.to_text() for rrset in other.sections[section]
        ]
    assert ours[HEADER_BYTES : HEADER_BYTES + len(asked.question)] == asked.question


def test_ipv6_addresses_are_answered_in_their_order() -> None:
    asked = read_common(query("films", "AAAA"))
    assert asked is not None
    assert asked.type == AAAA
    addresses = packed("2001:db8::2", "2001:db8::1")
    answer = dns.message.from_wire(_BUILDER.build(asked, Verdict(Rcode.NOERROR, addresses=addresses, ttl=9), 512))
    assert [record.to_text() for record in answer.answer[0]] == ["2001:db8::2", "2001:db8::1"]
    assert answer.answer[0].ttl == 9


def test_what_does_not_fit_says_so_and_is_no_larger_than_the_question() -> None:
    packet = query("films")
    asked = read_common(packet)
    assert asked is not None
    verdict = Verdict(Rcode.NOERROR, addresses=tuple(bytes((10, 0, 0, last)) for last in range(60)), ttl=30)
    answer = _BUILDER.build(asked, verdict, 512)
    assert is_truncated(answer)
    assert len(answer) == len(packet)


@pytest.mark.parametrize(
    ("said", "ours", "expected"),
    [(None, 1232, 512), (0, 1232, 512), (511, 1232, 512), (800, 1232, 800), (4096, 1232, 1232), (4096, 512, 512)],
)
def test_room_is_what_both_sides_allow(said: int | None, ours: int, expected: int) -> None:
    assert room(None if said is None else Edns(said), ours) == expected


@pytest.mark.parametrize(
    ("option", "address", "prefix"),
    [
        ("0001 18 00 c00002", "192.0.2.0", 24),
        ("0001 20 00 c0000201", "192.0.2.1", 32),
        ("0001 01 00 80", "128.0.0.0", 1),
        ("0001 15 00 c00008", "192.0.8.0", 21),
        ("0002 38 00 20010db8000100", "2001:db8:1::", 56),
        ("0002 80 00 20010db8000000000000000000000001", "2001:db8::1", 128),
    ],
)
def test_a_client_subnet_is_read(option: str, address: str, prefix: int) -> None:
    assert subnet_of(Edns(512, ecs=(bytes.fromhex(option),))) == Subnet(packed(address)[0], prefix)


@pytest.mark.parametrize("option", ["0001 00 00", "0002 00 00", "0000 00 00"])
def test_a_prefix_of_nothing_keeps_the_client_s_network_back(option: str) -> None:
    assert subnet_of(Edns(512, ecs=(bytes.fromhex(option),))) is None


@pytest.mark.parametrize(
    "option",
    [
        "",
        "0001 18",
        "0001 18 00",  # no address
        "0001 18 00 c000",  # too short
        "0001 18 00 c0000200",  # too long
        "0001 00 00 c0",
        "0001 21 00 c000020100",  # more than 32 bits
        "0002 81 00 20010db800000000000000000000000100",
        "0001 18 18 c00002",  # a scope
        "0001 17 00 c00003",  # a bit beyond the prefix
        "0001 01 00 c0",
        "0000 08 00 c0",
        "0003 08 00 c0",
        "0101 18 00 c00002",
    ],
)
def test_a_client_subnet_that_breaks_the_rules_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        subnet_of(Edns(512, ecs=(bytes.fromhex(option),)))


def test_two_client_subnets_are_refused() -> None:
    one = bytes.fromhex("0001 18 00 c00002")
    with pytest.raises(ValueError, match=r"."):
        subnet_of(Edns(512, ecs=(one, one)))


@given(st.ip_addresses(), st.data())
def test_every_subnet_that_dnspython_writes_is_read_as_it_was_meant(address: object, data: st.DataObject) -> None:
    bits = 32 if "." in str(address) else 128
    prefix = data.draw(st.integers(1, bits))
    written = dns.edns.ECSOption(str(address), prefix).to_wire()
    assert written is not None
    subnet = subnet_of(Edns(512, ecs=(written,)))
    kept = int.from_bytes(packed(str(address))[0], "big") >> (bits - prefix) << (bits - prefix)
    assert subnet == Subnet(kept.to_bytes(bits // 8, "big"), prefix)


@given(st.binary(max_size=60))
def test_options_whose_lengths_do_not_add_up_are_none(body: bytes) -> None:
    found = options_of(body)
    if found is not None:
        again = b"".join(code.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value for code, value in found)
        assert again == body


def test_zone_is_where_the_pointers_lead() -> None:
    # The pointer in a denial leads to the zone inside the question, in the spelling of whoever asked.
    asked = read_common(query("a.b.c"))
    assert asked is not None
    answer = _BUILDER.build(asked, Verdict(Rcode.NXDOMAIN, denies=True), 512)
    assert dns.message.from_wire(answer).authority[0].name == dns.name.from_text(ZONE)
    assert len(answer) < HEADER_BYTES + len(asked.question) + len(_DENIAL.data) + 12
