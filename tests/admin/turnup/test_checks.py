"""What follows from what was seen of a box: a table for each check."""

import msgspec
import pytest

from admin.fleet.known import Box, Learned, Member, Place
from admin.turnup.checks import FLOORS, Floor, Outcome, failed, findings
from admin.turnup.content import PATH, SIZE_BYTES
from admin.turnup.seen import Check, Filled, Read, Seen, Way
from wire.probe import Card, Certificate, Clock, DeviceSpeed, Probe, Reached

NOW = 1_800_000_000.0
DAY = 86400.0
GBIT = 10**9
TB = 10**12
P, W, S, F = Outcome.PASSED, Outcome.WARNED, Outcome.SKIPPED, Outcome.FAILED
V4, V6 = Way(4, "192.0.2.1", 443, "198.51.100.7"), Way(6, "2001:db8::1", 443, "2001:db8:f::7")


def card(**more):
    plain = {"name": "eth0", "is_up": True, "speed_bps": 25 * GBIT, "duplex": "full", "packets": 10**9}
    return Card(**{**plain, **more})


def device(**more):
    plain = {
        "id": "d0",
        "path": "/srv/d0",
        "tier": "nvme",
        "standing": "online",
        "capacity_bytes": TB,
        "used_bytes": TB // 2,
        "free_bytes": TB // 2,
        "size_bytes": 256 << 20,
        "write_bytes_per_second": 2e9,
        "read_bytes_per_second": 3e9,
        "is_direct": True,
    }
    return DeviceSpeed(**{**plain, **more})


def probe(**more):
    plain = {
        "cards": (card(),),
        "devices": (device(),),
        "sources": (Reached(name="origin", status=206, first_byte=0.02),),
        "clock": Clock(now=NOW, is_synchronised=True, estimated_error=0.001),
        "certificates": (),
    }
    return Probe(appliance="lis-1", version="1.2", at=NOW, **{**plain, **more})


def member(name="lis-1", **more):
    return Member(name, "lis", f"https://{name}.example", "serve", "joining", heard=1.0, **more)


def seen(**more):
    """A box with which all is well."""
    plain = {
        "member": member(prefixes=Learned(2, "aa")),
        "box": Box("lis-1", "lis", ipv4=("192.0.2.1",), ipv6=("2001:db8::1",)),
        "place": Place("lis", "isp"),
        "siblings": (member("lis-2", prefixes=Learned(2, "aa")),),
        "at": NOW,
        "probe": probe(),
        "ways": (V4, V6),
        "certificates": (Certificate(name="the film port's certificate at 192.0.2.1", ends_at=NOW + 60 * DAY),),
        "filled": Filled(SIZE_BYTES, 2.0),
        "reads": (Read(V4, 0.01, 1.0, 4, is_hit=True), Read(V6, 0.01, 1.0, 4, is_hit=True)),
    }
    return Seen(**{**plain, **more})


def said(check, box, **more):
    """Outcomes of a check, and its sentences together."""
    found = findings(box, [check], **more)
    return [one.outcome for one in found], " | ".join(one.sentence for one in found)


def test_a_box_with_which_all_is_well_passes_every_check():
    found = findings(seen())
    assert {one.outcome for one in found} == {P}
    assert list(dict.fromkeys(one.check for one in found)) == list(Check)
    assert failed(found) == ()


def test_of_a_box_of_which_nothing_was_seen_every_check_says_something():
    nothing = seen(member=member(), siblings=(), probe=None, ways=None, certificates=None, filled=None, reads=None)
    for check in Check:
        outcomes, words = said(check, nothing)
        assert outcomes, check
        assert words, check
        assert P not in outcomes or check is Check.CLOCK, check


def test_a_check_that_failed_twice_is_named_once():
    found = findings(seen(probe=probe(devices=(device(trouble="broken"), device(standing="failing")))))
    assert failed(found) == ("devices",)


@pytest.mark.parametrize(
    ("cards", "capacity", "outcomes", "words"),
    [
        ((card(errors=9),), None, [P], "eth0: 25.0 Gb/s, 9 errors and 0 drops in 1000000000 packets"),
        (
            (card(errors=2000),),
            None,
            [F],
            "2000 errors and 0 drops in 1000000000 packets; allowed: 1 error in a million",
        ),
        ((card(errors=3, new_errors=1),), None, [F], "1 of these errors during the check"),
        ((card(drops=2_000_000),), None, [W], "more than 1 drop in a thousand"),
        ((card(is_up=False),), None, [F], "eth0 is down"),
        ((card(duplex="half"),), None, [F], "half duplex; allowed: full"),
        ((card(speed_bps=None),), 40e9, [P, W], "eth0: the speed is not known"),
        ((card(),), 40e9, [P, F], "the cards carry 25.0 Gb/s together; the inventory's capacity is 40.0 Gb/s"),
        ((card(), card(name="eth1")), 40e9, [P, P], "eth1: 25.0 Gb/s"),
        ((card(), card(name="eth1", is_up=False)), 40e9, [P, F, F], "the cards carry 25.0 Gb/s"),
        ((), None, [F], "no network card carries a film address"),
    ],
)
def test_network_cards_carry_what_is_declared_without_errors(cards, capacity, outcomes, words):
    box = seen(probe=probe(cards=cards), box=Box("lis-1", "lis", capacity=capacity))
    found, sentences = said(Check.NETWORK, box)
    assert found == outcomes
    assert words in sentences


def test_cards_that_can_not_be_told_are_no_pass():
    assert said(Check.NETWORK, seen(probe=probe(cards=(), cards_trouble="netlink: no"))) == ([F], "netlink: no")


@pytest.mark.parametrize(
    ("ways", "outcomes", "words"),
    [
        ((V4,), [P, W], "IPv6: no address is declared, and the film URL's name has none"),
        (
            (V4, msgspec.structs.replace(V6, trouble="Connection refused")),
            [P, F],
            "[2001:db8::1]:443: the film port can't",
        ),
        ((V4, msgspec.structs.replace(V6, trouble="no", is_ours=True)), [P, S], "this machine has no IPv6"),
        ((), [W, W], "IPv4: no address is declared"),
    ],
)
def test_each_family_is_reached(ways, outcomes, words):
    found, sentences = said(Check.FAMILIES, seen(ways=ways))
    assert found == outcomes
    assert words in sentences


LEARNED = Learned(2, "aa")
OTHER = Learned(3, "bb")


@pytest.mark.parametrize(
    ("own", "others", "outcome", "words"),
    [
        (LEARNED, [LEARNED], P, "2 accepted, the same as at lis-2"),
        (LEARNED, [], P, "2 accepted"),
        (LEARNED, [None], P, "2 accepted"),
        (LEARNED, [OTHER], F, "2 accepted, and not the same as at its site: lis-2 has 3; allowed: the same set"),
        (LEARNED, [OTHER, OTHER], F, "lis-2 has 3; lis-3 has 3"),
        (LEARNED, [LEARNED, OTHER], W, "as at most boxes of the site, but not all: lis-3 has 3"),
        (None, [OTHER], F, "of some from lis-2"),
        (Learned(0, "ee", {"not_allowed": 4}), [], F, "none of what it learned is accepted: 4 not_allowed"),
    ],
)
def test_prefixes_are_those_of_the_site(own, others, outcome, words):
    siblings = tuple(member(f"lis-{place}", prefixes=one) for place, one in enumerate(others, start=2))
    found, sentences = said(Check.PREFIXES, seen(member=member(prefixes=own), siblings=siblings))
    assert found == [outcome]
    assert words in sentences


def test_prefixes_that_are_refused_beside_others_are_warned_of():
    own = Learned(2, "aa", {"too_narrow": 3, "bogon": 1})
    found, sentences = said(Check.PREFIXES, seen(member=member(prefixes=own)))
    assert found == [P, W]
    assert "1 bogon, 3 too_narrow" in sentences


@pytest.mark.parametrize(
    ("place", "outcome"),
    [
        (Place("lis", "isp", prefixes=("192.0.2.0/24",)), P),
        (Place("lis", "isp", serves="announced"), F),
        (Place("lis", "isp", serves="everyone"), S),
    ],
)
def test_a_site_without_bgp_is_judged_by_what_it_serves(place, outcome):
    box = seen(member=member(), siblings=(member("lis-2"),), place=place)
    assert said(Check.PREFIXES, box)[0] == [outcome]


@pytest.mark.parametrize(
    ("told", "outcome", "words"),
    [
        (device(), P, "/srv/d0 (nvme): writes 2.0 GB/s, reads 3.0 GB/s"),
        (device(write_bytes_per_second=399e6), F, "allowed: 400.0 MB/s and 1.0 GB/s at least"),
        (device(read_bytes_per_second=999e6), F, "reads 999.0 MB/s"),
        (device(tier="hdd", write_bytes_per_second=90e6, read_bytes_per_second=90e6), P, "(hdd)"),
        (device(read_bytes_per_second=1.0, is_direct=False), W, "through the page cache"),
        (device(standing="failing", reason="io"), F, "is failing (io); allowed: online"),
        (device(standing="offline", reason="vanished", id=None), F, "is offline (vanished)"),
        (device(wish="drain", standing="offline"), S, "its operator wants it to drain"),
        (device(trouble="Read-only file system"), F, "Read-only file system"),
        (device(free_bytes=TB // 4), F, "has less room than its capacity of 1.0 TB: 250.0 GB free and 500.0 GB used"),
        (
            device(write_bytes_per_second=None, read_bytes_per_second=None, skipped="viewers waited"),
            W,
            "viewers waited",
        ),
    ],
)
def test_devices_stand_well_have_their_room_and_are_as_fast_as_their_tier(told, outcome, words):
    found, sentences = said(Check.DEVICES, seen(probe=probe(devices=(told,))))
    assert found == [outcome]
    assert words in sentences


def test_what_devices_have_to_do_can_be_said():
    slow = seen(probe=probe(devices=(device(write_bytes_per_second=1.0, read_bytes_per_second=1.0),)))
    assert said(Check.DEVICES, slow, floors={**FLOORS, "nvme": Floor(1.0, 1.0)})[0] == [P]
    assert said(Check.DEVICES, slow, floors={**FLOORS, "nvme": Floor(1.0, 2.0)})[0] == [F]


@pytest.mark.parametrize(("offset", "outcome"), [(0.2, P), (-0.9, P), (1.1, W), (-4.9, W), (5.1, F), (-100.0, F)])
def test_a_clock_is_compared_with_steerings(offset, outcome):
    assert said(Check.CLOCK, seen(member=member(clock_offset=offset)))[0] == [outcome, P]


@pytest.mark.parametrize(
    ("clock", "outcome", "words"),
    [
        (Clock(now=NOW, is_synchronised=True, estimated_error=0.004), P, "within 0.004 s"),
        (Clock(now=NOW, is_synchronised=False), W, "does chrony run?"),
        (Clock(now=NOW, trouble="adjtimex: Operation not permitted"), S, "Operation not permitted"),
    ],
)
def test_what_the_kernel_says_of_its_clock_is_told(clock, outcome, words):
    found, sentences = said(Check.CLOCK, seen(probe=probe(clock=clock)))
    assert found == [P, outcome]
    assert words in sentences


def test_a_box_that_steering_never_heard_has_no_clock_to_compare():
    silent = msgspec.structs.replace(member(), heard=None)
    assert said(Check.CLOCK, seen(member=silent))[0] == [F, P]


@pytest.mark.parametrize(
    ("days", "outcome", "words"),
    [(60, P, "ends in 60 days"), (20, W, "ends in 20 days"), (6, F, "allowed: 7 days"), (-1, F, "has ended")],
)
def test_certificates_last_for_a_week_at_least(days, outcome, words):
    shown = (Certificate(name="steering.client_cert", ends_at=NOW + days * DAY),)
    found, sentences = said(Check.CERTIFICATE, seen(probe=probe(certificates=shown), certificates=()))
    assert found == [outcome]
    assert words in sentences


def test_a_certificate_that_can_not_be_seen_fails_and_none_at_all_is_said():
    broken = (Certificate(name="the film port's", trouble="is not trusted here"),)
    assert said(Check.CERTIFICATE, seen(certificates=broken)) == ([F], "the film port's: is not trusted here")
    assert said(Check.CERTIFICATE, seen(certificates=()))[0] == [S]


@pytest.mark.parametrize(
    ("source", "outcome", "words"),
    [
        (Reached(name="origin", status=206, first_byte=0.03), P, "origin: first byte after 30 ms"),
        (Reached(name="origin", status=206, first_byte=1.5), W, "films begin late"),
        (Reached(name="origin", status=404, first_byte=0.03), W, f"{PATH} is not there"),
        (Reached(name="origin", status=200, first_byte=0.03), W, "answers a range with 200"),
        (Reached(name="origin", status=403, first_byte=0.03), F, "origin refuses the box: 403"),
        (Reached(name="parent-1", status=502, first_byte=0.03), F, "parent-1 answers 502"),
        (Reached(name="parent-1", trouble="no route"), F, "parent-1 can't be reached from the box: no route"),
    ],
)
def test_sources_answer_the_box(source, outcome, words):
    found, sentences = said(Check.SOURCES, seen(probe=probe(sources=(source,))))
    assert found == [outcome]
    assert words in sentences


@pytest.mark.parametrize(
    ("filled", "outcome", "words"),
    [
        (Filled(SIZE_BYTES, 2.0), P, "33.6 MB came in 2.0 s (134.2 Mb/s)"),
        (Filled(1000, 2.0), F, "is of 1000 bytes at the origin"),
        (Filled(0, 2.0, "nothing came within 120 s"), F, "did not come: nothing came within 120 s"),
    ],
)
def test_the_test_content_is_brought_whole(filled, outcome, words):
    found, sentences = said(Check.FILL, seen(filled=filled))
    assert found == [outcome]
    assert words in sentences


@pytest.mark.parametrize(
    ("reads", "outcomes", "words"),
    [
        ((Read(V4, 0.01, 1.0, 4, is_hit=True),), [P], "33.6 MB and 4 ranges are right to the byte, 268.4 Mb/s"),
        ((Read(V4, 0.01, 1.0, 4),), [P], "fetched for us"),
        ((Read(V4, trouble="byte 7 is not"),), [F], "IPv4 192.0.2.1:443: byte 7 is not"),
        (
            (Read(V4, 0.01, 1.0, 4), Read(msgspec.structs.replace(V6, is_ours=True), trouble="no way")),
            [P, S],
            "this machine has no IPv6",
        ),
        ((Read(msgspec.structs.replace(V6, is_ours=True), trouble="no"),), [S, F], "by any way from here"),
        ((), [F], "by any way from here"),
    ],
)
def test_what_is_read_back_is_what_was_published(reads, outcomes, words):
    found, sentences = said(Check.READ_BACK, seen(reads=reads))
    assert found == outcomes
    assert words in sentences
