"""What players say of themselves, and what hostile strangers say instead."""

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.http.cmcd import MOST_BYTES, Said, cmcd_of, dynamic_line, next_path, pace_bps

# The example of CTA-5004, section 3.
ALL = (
    b'bl=21300,br=3200,bs,cid="faec5fc2-ac30-11ea-bb37-0242ac130002",d=4004,dl=18500,mtp=48100,'
    b'nor="..%2F300kbps%2Ftrack.m4v",nrr="12323-48763",ot=v,pr=1.08,rtp=12000,sf=d,'
    b'sid="6e2fb550-c457-11e9-bb97-0800200c9a66",st=v,su,tb=6000'
)
READ = Said(
    bitrate_bps=3_200_000,
    duration_ms=4004,
    buffer_ms=21_300,
    wanted_bps=12_000_000,
    measured_bps=48_100_000,
    is_starved=True,
    is_starting=True,
    session=b"6e2fb550-c457-11e9-bb97-0800200c9a66",
    next_object=b"..%2F300kbps%2Ftrack.m4v",
    next_start=12_323,
)


def in_query(text):
    return b"CMCD=" + quote(text, safe="").encode()


def test_the_standards_example_is_read_from_the_query_and_from_headers():
    assert cmcd_of(in_query(ALL), None) == READ
    assert cmcd_of(b"a=b&" + in_query(ALL) + b"&c=d", None) == READ
    assert cmcd_of(b"", ALL) == READ


@pytest.mark.parametrize("query", [b"", b"a=b", b"XCMCD=bl%3D1", b"a=CMCD=", b"CMCD=", b"a=b&CMCD=&c=d"])
def test_who_says_nothing_said_nothing(query):
    assert cmcd_of(query, None) is None


def test_the_query_comes_before_the_headers():
    assert cmcd_of(in_query(b"br=1"), b"br=2").bitrate_bps == 1000
    assert cmcd_of(b"a=b", b"br=2").bitrate_bps == 2000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"br=(3000;v 128;a)", Said(bitrate_bps=3_000_000)),
        (b"bl=(8600;v 6600;a),ot=v", Said(buffer_ms=8600)),
        (b'nor=("seg-2.m4s";r="100-200" "seg-3.m4s")', Said(next_object=b"seg-2.m4s", next_start=100)),
        (b"bs=?1,su=?0", Said(is_starved=True)),
        (b'cid="a,bs,su",br=5', Said(bitrate_bps=5000)),
        (b'cid="a\\",bs",br=5', Said(bitrate_bps=5000)),
        (b"br=5, bl=7", Said(bitrate_bps=5000, buffer_ms=7)),
        (b"com.example-hello=5,br=5", Said(bitrate_bps=5000)),
        (b'nrr="500-"', Said(next_object=b".", next_start=500)),
        (b'nor="a.m4s"', Said(next_object=b"a.m4s")),
        (b'nrr="-500"', Said()),
        (b"ot=a,d=4000", Said(duration_ms=4000, has_picture=False)),
        (b"ot=av", Said()),
        (b"ot=m", Said(has_picture=False)),
    ],
)
def test_versions_and_spellings(text, said):
    assert cmcd_of(in_query(text), None) == said
    assert cmcd_of(b"", text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"br=999999999999999999999", Said(bitrate_bps=10_000_000_000)),
        (b"br=-5,bl=-1,d=1e9", Said(duration_ms=1)),
        (b"d=999999999", Said(duration_ms=600_000)),
        (b"br=,bl=abc,rtp=None", Said()),
        (b"sid=" + b'"' + b"x" * 1000 + b'"', Said(session=b"x" * 64)),
        (b"nor=unquoted", Said()),
        (b'nor="unclosed', Said()),
        (b"br=\xd9\xa3", Said()),
    ],
)
def test_no_number_is_believed_beyond_its_bound_and_nonsense_is_as_if_not_said(text, said):
    assert cmcd_of(b"", text) == said


@given(st.binary(max_size=300))
def test_anything_may_come(text):
    for said in (cmcd_of(b"CMCD=" + text, None), cmcd_of(b"", text), cmcd_of(in_query(text), None)):
        assert said is None or len(said.session) <= 64
        if said is not None:
            next_path("/titles/film/a/seg-1.m4s", said.next_object)


@pytest.mark.parametrize("piece", [b"(", b'"', b'"a', b'"a,', b"\\", b'a="', b'nor="\\', b",", b"%", b" "])
def test_length_costs_no_more_than_length(piece):
    """What is too long is not looked at, and no pattern tries again and again."""
    assert cmcd_of(b"", piece * 100_000) == cmcd_of(b"", (piece * 100_000)[:MOST_BYTES])
    cmcd_of(b"CMCD=" + piece * 100_000, None)


# --- What comes next ---

HERE = "/titles/film/720p.1f/seg-00001.m4s"


@pytest.mark.parametrize(
    ("named", "path"),
    [
        (b"seg-00002.m4s", "/titles/film/720p.1f/seg-00002.m4s"),
        (b"..%2F1080p.2a%2Fseg-00002.m4s", "/titles/film/1080p.2a/seg-00002.m4s"),
        (b"../1080p.2a/seg-00002.m4s?CMCD=x", "/titles/film/1080p.2a/seg-00002.m4s"),
        (b"/titles/film/720p.1f/seg-00002.m4s", "/titles/film/720p.1f/seg-00002.m4s"),
        (b".", HERE),
    ],
)
def test_the_next_object_is_named_relatively(named, path):
    assert next_path(HERE, named) == path


@pytest.mark.parametrize(
    "named",
    [
        b"",
        b"../../other/720p/seg-1.m4s",
        b"/titles/other/720p/seg-1.m4s",
        b"/titles/filmstar/720p/seg-1.m4s",
        b"/etc/passwd",
        b"../../../../etc/passwd",
        b"https://elsewhere.example/x",
        b"//elsewhere.example/x",
        b"%00",
        b"%ff%fe",
        b"./",
        b"a%0d%0aX: y",
        b"x" * 5000,
    ],
)
def test_what_is_of_another_title_or_no_path_is_not_brought(named):
    assert next_path(HERE, named) is None


# --- Pacing ---


@pytest.mark.parametrize(
    ("said", "bps"),
    [
        (Said(), None),
        (Said(wanted_bps=8_000_000), 8_000_000),
        (Said(wanted_bps=8_000_000, bitrate_bps=10_000_000), 12_500_000),
        (Said(wanted_bps=1), 500_000),
        (Said(wanted_bps=8_000_000, is_starved=True), 8_000_000),
        (Said(measured_bps=8_000_000), None),
        (Said(measured_bps=8_000_000, buffer_ms=9_999), None),
        (Said(measured_bps=8_000_000, buffer_ms=10_000), 16_000_000),
        (Said(measured_bps=8_000_000, buffer_ms=30_000, is_starved=True), None),
        (Said(measured_bps=8_000_000, buffer_ms=30_000, is_starting=True), None),
        (Said(measured_bps=1_000_000, buffer_ms=30_000, bitrate_bps=4_000_000), 10_000_000),
    ],
)
def test_an_answer_is_as_fast_as_its_player_wants_and_never_so_slow_that_it_stalls(said, bps):
    assert pace_bps(said, 500_000) == bps


# --- What players are told ---


def test_players_are_told_the_round_trip_and_what_the_way_carries():
    assert dynamic_line(b"lis-1", 8400, 96_040_000, 0) == b'CMSD-Dynamic: "lis-1";rtt=8;etp=96000\r\n'
    assert dynamic_line(b"lis-1", 499, 0, 5_123_456) == b'CMSD-Dynamic: "lis-1";rtt=0;mb=5100\r\n'
    assert dynamic_line(b"lis-1", 0, 1, 1) == b'CMSD-Dynamic: "lis-1";rtt=0;etp=100;mb=100\r\n'


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.integers(0, 2**40))
def test_what_players_are_told_is_one_line(rtt, bps, most):
    assert re.fullmatch(rb'CMSD-Dynamic: "lis-1"(;[a-z]+=[0-9]+)+\r\n', dynamic_line(b"lis-1", rtt, bps, most))
