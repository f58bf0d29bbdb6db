from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.dns.answerer import MOST_ADDRESSES, Choice, Count, Transport
from steering.dns.settings import NameServer
from tests.steering.dns.asking import RESOLVER, Desk, packed, query, records, subnet_in
from tests.steering.dns.test_packets import names_in_the_zone, packets

# --- What names are answered with. ---


def test_a_service_is_answered_with_the_best_appliances_in_their_order() -> None:
    desk = Desk()
    answer = desk.ask("films")
    assert records(answer, "A") == ["192.0.2.1", "192.0.2.2"]
    assert answer.answer[0].ttl == 30
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.flags & dns.flags.AA
    assert not answer.flags & dns.flags.RA
    assert desk.fleet.asked == [("films", None, RESOLVER, 32)]


def test_a_title_is_answered_for_that_title() -> None:
    desk = Desk()
    assert records(desk.ask("nosferatu-1922.trailers", "AAAA"), "AAAA") == ["2001:db8::1"]
    assert desk.fleet.asked == [("trailers", "nosferatu-1922", RESOLVER, 32)]


@pytest.mark.parametrize(
    ("name", "kind", "addresses", "ttl"),
    [
        ("box1.edge", "A", ["192.0.2.1"], 60),
        ("BOX1.edge", "AAAA", ["2001:db8::1"], 60),
        ("box2.ams.edge", "A", ["192.0.2.2"], 60),
        ("ns1", "A", ["192.0.2.53"], 3600),
        ("ns1", "AAAA", ["2001:db8::53"], 3600),
        ("b.dns", "A", ["192.0.2.54"], 3600),
    ],
)
def test_hosts_have_their_own_addresses(name: str, kind: str, addresses: list[str], ttl: int) -> None:
    answer = Desk().ask(name, kind)
    assert records(answer, kind) == addresses
    assert answer.answer[0].ttl == ttl


def test_the_apex_names_its_servers_with_the_addresses_that_are_ours() -> None:
    answer = Desk().ask("@", "NS")
    assert records(answer, "NS") == ["ns1.steer.example.net.", "b.dns.steer.example.net.", "ns.elsewhere.example."]
    assert [rrset.to_text() for rrset in answer.additional] == [
        "ns1.steer.example.net. 3600 IN A 192.0.2.53",
        "ns1.steer.example.net. 3600 IN AAAA 2001:db8::53",
        "b.dns.steer.example.net. 3600 IN A 192.0.2.54",
    ]
    assert answer.flags & dns.flags.AA


def test_the_apex_has_its_soa() -> None:
    answer = Desk().ask("@", "SOA")
    assert records(answer, "SOA") == [r"ns1.steer.example.net. dns\.people.example.net. 7 7200 900 1209600 30"]
    assert not answer.authority


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("films", "TXT"),
        ("films", "HTTPS"),
        ("films", "SOA"),
        ("films", "NS"),
        ("nosferatu-1922.films", "MX"),
        ("@", "A"),
        ("@", "TXT"),
        ("edge", "A"),
        ("edge", "NS"),
        ("dns", "A"),
        ("b.dns", "AAAA"),
        ("ns1", "TXT"),
        ("box1.edge", "TXT"),
        ("box2.ams.edge", "AAAA"),
        ("ams.edge", "A"),
    ],
)
def test_a_name_that_exists_without_this_type_is_no_data_and_never_no_name(name: str, kind: str) -> None:
    answer = Desk().ask(name, kind)
    assert answer.rcode() == dns.rcode.NOERROR
    assert not answer.answer
    assert answer.authority[0].to_text().startswith("steer.example.net. 30 IN SOA ns1.steer.example.net.")
    assert answer.flags & dns.flags.AA


def test_the_other_family_of_a_fleet_without_it_is_no_data() -> None:
    desk = Desk()
    desk.fleet.choice = Choice(packed("192.0.2.1"), (), 30, 24)
    answer = desk.ask("films", "AAAA", subnet="203.0.113.0/24")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert answer.authority
    assert subnet_in(answer) == "203.0.113.0/24/0"


@pytest.mark.parametrize("kind", ["A", "AAAA", "ANY", "SOA", "TXT"])
@pytest.mark.parametrize("name", ["series", "a_b.films", "x.y.films", "box9.edge", "x.box1.edge", "x.ns1", "c.dns"])
def test_a_name_that_does_not_exist_is_denied_whatever_is_asked_of_it(name: str, kind: str) -> None:
    answer = Desk().ask(name, kind)
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert answer.authority[0].to_text().startswith("steer.example.net. 30 IN SOA")
    assert answer.flags & dns.flags.AA


@pytest.mark.parametrize("name", ["films", "@", "edge", "box1.edge", "ns1"])
def test_a_question_for_everything_gets_a_small_answer(name: str) -> None:
    assert records(Desk().ask(name, "ANY"), "ANY") == []
    assert records(Desk().ask(name, "ANY"), "HINFO") == ['"RFC8482" ""']


@pytest.mark.parametrize(
    ("name", "kind", "cls"),
    [
        ("example.net.", "A", "IN"),
        (".", "NS", "IN"),
        ("www.example.org.", "AAAA", "IN"),
        ("films", "A", "CH"),
        ("version.bind.", "TXT", "CH"),
        ("films", "A", "ANY"),
        ("@", "AXFR", "IN"),
        ("@", "IXFR", "IN"),
        ("series", "AXFR", "IN"),
    ],
)
@pytest.mark.parametrize("transport", Transport)
def test_what_is_not_ours_to_answer_is_refused(name: str, kind: str, cls: str, transport: Transport) -> None:
    desk = Desk()
    answer = desk.ask(name, kind, transport, rdclass=cls)
    assert answer.rcode() == dns.rcode.REFUSED
    assert not answer.flags & dns.flags.AA
    assert answer.sections[1:] == [[], [], []]
    assert desk.fleet.asked == []


def test_a_service_that_the_ranking_does_not_know_is_our_own_failure() -> None:
    desk = Desk()
    desk.fleet.choice = None
    assert desk.ask("films").rcode() == dns.rcode.SERVFAIL


# --- The form of answers. ---


def test_the_spelling_of_the_question_comes_back() -> None:
    reply = Desk().send(query("fIlMs", "A"))
    assert reply is not None
    assert b"\x05fIlMs\x05steer" in reply


@pytest.mark.parametrize("name", ["NS1", "@", "fIlMs"])
def test_records_stand_under_the_name_as_it_was_asked(name: str) -> None:
    reply = Desk().send(query(name, "ANY"))
    assert reply is not None
    message = dns.message.from_wire(reply)
    assert message.answer[0].name.to_text() == message.question[0].name.to_text()


@pytest.mark.parametrize("wanted", [True, False])
def test_the_wish_for_recursion_is_repeated_and_not_granted(*, wanted: bool) -> None:
    packet = bytearray(query("films"))
    packet[2] = 1 if wanted else 0
    reply = Desk().send(bytes(packet))
    assert reply is not None
    flags = dns.message.from_wire(reply).flags
    assert bool(flags & dns.flags.RD) is wanted
    assert not flags & dns.flags.RA


def test_edns_is_answered_with_edns_and_nothing_with_nothing() -> None:
    desk = Desk()
    assert desk.ask("films").edns == -1
    answer = desk.ask("films", use_edns=0, payload=4096, want_dnssec=True)
    assert (answer.edns, answer.payload) == (0, 1232)
    assert answer.ednsflags == dns.flags.DO
    assert answer.options == ()
    assert desk.ask("www.example.org.", use_edns=0).edns == 0


def test_an_answer_that_does_not_fit_into_a_datagram_is_had_by_tcp() -> None:
    desk = Desk()
    desk.fleet.choice = Choice(tuple(bytes((10, 0, 0, last)) for last in range(60)), (), 30, 0)
    short = desk.ask("films")
    assert short.flags & dns.flags.TC
    assert not short.answer
    assert len(records(desk.ask("films", use_edns=0, payload=1232), "A")) == 60
    assert len(records(desk.ask("films", transport=Transport.TCP), "A")) == 60
    assert desk.answerer.counts[Count.TRUNCATED] == 1


def test_the_apex_truncates_as_well() -> None:
    desk = Desk(
        name_servers=tuple(
            NameServer(f"{'n' * 40}{number}.steer.example.net", (f"192.0.2.{number}", f"2001:db8::{number}"))
            for number in range(13)
        )
    )
    assert desk.ask("@", "NS").flags & dns.flags.TC
    assert len(records(desk.ask("@", "NS", Transport.TCP), "NS")) == 13


def test_no_answer_names_more_appliances_than_help_anybody() -> None:
    desk = Desk()
    desk.fleet.choice = Choice(tuple(number.to_bytes(4, "big") for number in range(5000)), (), 30, 0)
    assert len(records(desk.ask("films", transport=Transport.TCP), "A")) == MOST_ADDRESSES


# --- Client subnets. ---


@pytest.mark.parametrize(
    ("subnet", "client", "prefix", "answered"),
    [
        ("203.0.113.0/24", "203.0.113.0", 24, "203.0.113.0/24/20"),
        ("203.0.0.0/16", "203.0.0.0", 16, "203.0.0.0/16/20"),
        ("203.0.113.9/32", "203.0.113.9", 32, "203.0.113.9/32/20"),
        ("2001:db8:7::/56", "2001:db8:7::", 56, "2001:db8:7::/56/20"),
    ],
)
def test_the_client_s_subnet_decides_and_comes_back_with_the_scope(
    subnet: str, client: str, prefix: int, answered: str
) -> None:
    desk = Desk()
    assert subnet_in(desk.ask("films", subnet=subnet)) == answered
    assert desk.fleet.asked == [("films", None, packed(client)[0], prefix)]
    assert desk.answerer.counts[Count.SUBNET] == 1


@pytest.mark.parametrize("subnet", ["0.0.0.0/0", "::/0"])
def test_a_client_that_wishes_to_stay_unknown_is_answered_for_its_resolver(subnet: str) -> None:
    desk = Desk()
    assert subnet_in(desk.ask("films", subnet=subnet)) == f"{subnet}/0"
    assert desk.fleet.asked == [("films", None, RESOLVER, 32)]


@pytest.mark.parametrize("name", ["box1.edge", "ns1", "@", "series", "edge", "www.example.org."])
def test_what_is_the_same_for_everybody_has_scope_0(name: str) -> None:
    assert subnet_in(Desk().ask(name, "NS", subnet="203.0.113.0/24")) == "203.0.113.0/24/0"


@pytest.mark.parametrize(
    "option",
    ["", "0001", "0001 18 00", "0001 18 18 c00002", "0001 17 00 c00003", "0001 21 00 c000020100", "0009 08 00 c0"],
)
def test_a_subnet_that_breaks_the_rules_is_a_format_error(option: str) -> None:
    desk = Desk()
    broken = dns.edns.GenericOption(dns.edns.OptionType.ECS, bytes.fromhex(option))
    answer = desk.ask("films", options=[broken])
    assert answer.rcode() == dns.rcode.FORMERR
    assert answer.question
    assert (answer.edns, answer.options) == (0, ())
    assert desk.fleet.asked == []


def test_two_subnets_are_a_format_error() -> None:
    twice = [dns.edns.ECSOption("203.0.113.0", 24)] * 2
    assert Desk().ask("films", options=twice).rcode() == dns.rcode.FORMERR


def test_where_subnets_are_switched_off_they_are_as_though_they_had_not_come() -> None:
    desk = Desk(ecs=False)
    answer = desk.ask("films", subnet="203.0.113.0/24")
    assert subnet_in(answer) is None
    assert answer.edns == 0
    assert desk.fleet.asked == [("films", None, RESOLVER, 32)]
    broken = dns.edns.GenericOption(dns.edns.OptionType.ECS, b"")
    assert desk.ask("films", options=[broken]).rcode() == dns.rcode.NOERROR


def test_options_that_mean_nothing_here_are_read_over() -> None:
    options = [
        dns.edns.CookieOption(b"12345678", b""),
        dns.edns.GenericOption(12, bytes(80)),
        dns.edns.GenericOption(65001, b"x"),
    ]
    answer = Desk().ask("films", options=options)
    assert (answer.rcode(), answer.options) == (dns.rcode.NOERROR, ())


# --- Faults and silence. ---


def _with_header(packet: bytes, flags: int, counts: tuple[int, int, int, int]) -> bytes:
    return packet[:2] + b"".join(value.to_bytes(2, "big") for value in (flags, *counts)) + packet[12:]


@pytest.mark.parametrize("opcode", range(1, 16))
@pytest.mark.parametrize("rest", [b"", query("films")[12:], b"\xff" * 40])
def test_another_opcode_is_not_implemented(opcode: int, rest: bytes) -> None:
    packet = _with_header(query("films")[:12] + rest, opcode << 11 | 0x0100, (9, 9, 9, 9))
    reply = Desk().send(packet)
    assert reply == packet[:2] + bytes((0x81 | opcode << 3, dns.rcode.NOTIMP)) + b"\0" * 8


@pytest.mark.parametrize("questions", [0, 2, 65535])
def test_other_than_one_question_is_a_format_error(questions: int) -> None:
    packet = _with_header(query("films"), 0x0100, (questions, 0, 0, 0))
    reply = Desk().send(packet)
    assert reply == packet[:2] + b"\x81\x01" + b"\0" * 8


@pytest.mark.parametrize("size", range(12))
def test_less_than_a_header_is_met_with_silence(size: int) -> None:
    desk = Desk()
    assert desk.send(query("films")[:size]) is None
    assert desk.answerer.counts[Count.SILENT] == 1


@pytest.mark.parametrize("opcode", [0, 4, 5])
def test_an_answer_is_never_answered(opcode: int) -> None:
    packet = _with_header(query("films"), 0x8000 | opcode << 11, (1, 0, 0, 0))
    assert Desk().send(packet) is None
    assert Desk().send(packet, transport=Transport.TCP) is None


def test_our_own_answers_end_every_exchange() -> None:
    desk = Desk()
    for packet in (query("films"), query("series"), query("@", "NS"), query("films")[:-1]):
        reply = desk.send(packet)
        assert reply is not None
        assert desk.send(reply) is None


@pytest.mark.parametrize("version", [1, 255])
def test_another_version_of_edns_is_a_bad_version(version: int) -> None:
    desk = Desk()
    answer = desk.ask("films", use_edns=version)
    assert answer.rcode() == dns.rcode.BADVERS
    assert (answer.edns, answer.payload) == (0, 1232)
    assert answer.question
    assert not answer.answer
    assert desk.answerer.counts[Count.BADVERS] == 1


def test_a_malformed_packet_gets_its_own_id_and_a_format_error() -> None:
    packet = query("films")[:-1]
    reply = Desk().send(packet)
    assert reply == packet[:2] + b"\x81\x01" + b"\0" * 8


def test_a_query_on_which_our_own_code_fails_gets_servfail() -> None:
    packet = query("films")
    desk = Desk()
    assert desk.answerer.failed(packet) == packet[:2] + b"\x81\x02" + b"\0" * 8
    assert desk.answerer.counts[Count.FAILED] == 1


# --- Limits. ---


def _outcomes(desk: Desk, packet: bytes, times: int, transport: Transport = Transport.UDP) -> list[str]:
    found = []
    for _ in range(times):
        reply = desk.send(packet, transport=transport)
        if reply is None:
            found.append("dropped")
        else:
            found.append("slipped" if dns.message.from_wire(reply).flags & dns.flags.TC else "sent")
    return found


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (query("films", use_edns=0), dns.rcode.NOERROR),
        (query("series"), dns.rcode.NOERROR),
        (query("@", "NS"), dns.rcode.NOERROR),
        (query("www.example.org."), dns.rcode.REFUSED),
        (query("films", rdclass="CH"), dns.rcode.REFUSED),
    ],
)
def test_a_flood_gets_its_rate_and_then_empty_answers_no_larger_than_the_questions(packet: bytes, rcode: int) -> None:
    desk = Desk(rate_limit=3)
    assert _outcomes(desk, packet, 7) == ["sent", "sent", "sent", "dropped", "slipped", "dropped", "slipped"]
    desk.send(packet)
    slipped = desk.send(packet)
    assert slipped is not None
    assert len(slipped) <= len(packet)
    assert dns.message.from_wire(slipped).rcode() == rcode
    assert desk.answerer.counts[Count.LIMITED] == 3
    assert desk.answerer.counts[Count.SLIPPED] == 3


def test_errors_are_limited_and_do_not_slip() -> None:
    desk = Desk(rate_limit=3)
    assert _outcomes(desk, query("films")[:-1], 7) == ["sent"] * 3 + ["dropped"] * 4


def test_the_ranking_is_not_asked_for_what_will_not_be_sent() -> None:
    desk = Desk(rate_limit=3)
    _outcomes(desk, query("films"), 20)
    assert len(desk.fleet.asked) == 3


def test_who_asks_by_tcp_owns_its_address_and_is_not_limited() -> None:
    desk = Desk(rate_limit=3)
    assert _outcomes(desk, query("films"), 20, Transport.TCP) == ["sent"] * 20


def test_a_flood_for_appliances_that_do_not_exist_leaves_the_account_for_answers_alone() -> None:
    desk = Desk(rate_limit=3)
    _outcomes(desk, query("nobody.edge"), 50)
    assert _outcomes(desk, query("films"), 1) == ["sent"]


# --- Laws. ---

_HOSTILE = Desk()
_COUNTED_DESK = Desk(rate_limit=2, rate_accounts=1000)
transports = st.sampled_from(Transport)
peers = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))


def _check(packet: bytes, peer: bytes, transport: Transport) -> None:
    reply = _HOSTILE.send(packet, peer, transport)
    if reply is None:
        assert len(packet) < 12 or packet[2] & 0x80
        return
    assert reply[:2] == packet[:2]
    answer = dns.message.from_wire(reply)
    assert answer.flags & dns.flags.QR
    assert not answer.flags & dns.flags.RA
    if transport is Transport.UDP:
        assert len(reply) <= 1232
        assert answer.edns >= 0 or len(reply) <= 512


@given(st.binary(max_size=600), peers, transports)
def test_any_bytes_get_silence_or_a_readable_answer_within_bounds(
    packet: bytes, peer: bytes, transport: Transport
) -> None:
    _check(packet, peer, transport)


@given(st.binary(max_size=300), st.integers(0, 3), peers, transports)
def test_any_bytes_behind_a_good_header_do_too(
    rest: bytes, additionals: int, peer: bytes, transport: Transport
) -> None:
    _check(b"\0\1\1\0\0\1\0\0\0\0\0" + bytes((additionals,)) + rest, peer, transport)


@given(st.data(), packets(names_in_the_zone), peers, transports)
def test_damaged_queries_do_too(data: st.DataObject, packet: bytes, peer: bytes, transport: Transport) -> None:
    damaged = bytearray(packet)
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    start = data.draw(st.integers(0, len(damaged)))
    _check(bytes(damaged), peer, transport)
    _check(bytes(damaged[:start]), peer, transport)
    _check(bytes(damaged) + bytes(damaged[start:]), peer, transport)


@given(packets(names_in_the_zone), peers)
def test_everybody_is_counted_once_and_what_happened_adds_up(packet: bytes, peer: bytes) -> None:
    before = dict(_COUNTED_DESK.answerer.counts)
    _COUNTED_DESK.send(packet, peer)
    grown = {what: now - before[what] for what, now in _COUNTED_DESK.answerer.counts.items() if now != before[what]}
    assert grown.pop(Count.UDP) == 1
    for beside in (Count.SUBNET, Count.UNCOMMON, Count.TRUNCATED):
        grown.pop(beside, None)
    assert list(grown.values()) == [1]
