"""What players say of themselves is heard, at the worker and by the keeper, and they are told something in return."""

import itertools
import re
import subprocess
from urllib.parse import quote

import pytest

from tests.doubles.appliance import BLOCK, wait_until

SEGMENT = 200_000
_titles = itertools.count(1)


@pytest.fixture
def film(origin):
    """The path of a segment, by its number, of a title of the test's own."""
    title = f"cmcd-{next(_titles)}"

    def segment(number, rendition="720p.1f", size=SEGMENT):
        path = f"/titles/{title}/{rendition}/seg-{number:05}.m4s"
        if path not in origin.paths():
            origin.put(path, size)
        return path

    return segment


def said(path, **keys):
    """The path with what a player says: a number or True as it is, text as a string."""
    words = []
    for key, value in keys.items():
        if value is True:
            words.append(key)
        elif isinstance(value, int):
            words.append(f"{key}={value}")
        else:
            words.append(f"{key}={value}" if key in {"ot", "sf", "st"} else f'{key}="{value}"')
    return f"{path}?CMCD={quote(','.join(words), safe='')}"


def counted(appliance, *names):
    return {name: appliance.metric(name) for name in names}


# --- What is counted ---

QUALITY = (
    "oca_cmcd_requests_total",
    "oca_viewer_stalls_total",
    "oca_viewer_played_seconds_total",
    "oca_viewer_rated_seconds_total",
    "oca_viewer_rated_bytes_total",
    "oca_viewer_buffer_seconds_count",
    "oca_viewer_buffer_seconds_sum",
)


def test_how_well_viewers_are_served_is_counted(appliance, film):
    before = counted(appliance, *QUALITY)
    path = film(1)
    appliance.get(said(path, br=3000, d=4000, bl=12_000, ot="v", sid="one"))
    appliance.get(said(path, br=3000, d=4000, bl=0, bs=True, ot="v", sid="one"))
    appliance.get(said(path, d=2000, bl=0, bs=True, su=True, ot="v", sid="one"))
    appliance.get(said(path, br=128, d=4000, bl=12_000, bs=True, ot="a", sid="one"))
    appliance.get(path)
    now = counted(appliance, *QUALITY)
    assert {name: now[name] - before[name] for name in QUALITY} == {
        "oca_cmcd_requests_total": 4,
        "oca_viewer_stalls_total": 1,
        "oca_viewer_played_seconds_total": pytest.approx(10),
        "oca_viewer_rated_seconds_total": pytest.approx(8),
        "oca_viewer_rated_bytes_total": 2 * 3_000_000 * 4 / 8,
        "oca_viewer_buffer_seconds_count": 3,
        "oca_viewer_buffer_seconds_sum": pytest.approx(12),
    }


def test_headers_say_the_same_as_the_query(appliance, film):
    before = counted(appliance, *QUALITY)
    lines = {"CMCD_Object": "br=3000,d=4000,ot=v", "CMCD_Request": "bl=7000", "CMCD_Status": "bs"}
    appliance.get(film(1), **lines, cmcd_session='sid="x"')
    now = counted(appliance, *QUALITY)
    assert now["oca_viewer_stalls_total"] - before["oca_viewer_stalls_total"] == 1
    assert now["oca_viewer_played_seconds_total"] - before["oca_viewer_played_seconds_total"] == pytest.approx(4)
    assert now["oca_viewer_buffer_seconds_sum"] - before["oca_viewer_buffer_seconds_sum"] == pytest.approx(7)


def test_sessions_are_counted_once_whatever_worker_they_come_to(make_appliance, film):
    appliance = make_appliance().start(listen={"workers": 2})
    path = film(1)
    for _ in range(12):
        for name in ("ana", "ben", "cleo"):
            appliance.get(said(path, sid=name))
    wait_until(lambda: appliance.metric("oca_viewer_sessions_total") == 3, "three sessions are known")
    assert appliance.metric("oca_viewers") == 3
    for _ in range(12):
        appliance.get(said(path, sid="dora"))
    wait_until(lambda: appliance.metric("oca_viewer_sessions_total") == 4, "the fourth is known")


def test_no_session_id_is_written_anywhere(make_appliance, film):
    """Not to a log, not to the index, not to what is shipped."""
    appliance = make_appliance().start()
    secret = "a-name-by-which-somebody-could-be-found"
    appliance.get(said(film(1), sid=secret, cid=secret, br=1))
    wait_until(lambda: appliance.metric("oca_viewer_sessions_total") == 1, "the session is known")
    appliance.stop()
    for file in appliance.folder.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file


# --- What is asked for next ---


def test_on_a_cold_path_the_next_object_is_there_before_it_is_asked_for(appliance, origin, film):
    here, following = film(1), film(2)
    assert not appliance.get(said(here, nor=following.rpartition("/")[2])).is_hit
    appliance.wait_stored(following)
    assert appliance.get(following).is_hit
    assert origin.count(following) == 1


def test_the_first_viewer_of_a_cold_box_waits_once(appliance, origin, film):
    names = [film(number) for number in range(1, 7)]
    for here, following in itertools.pairwise(names):
        assert appliance.get(said(here, nor=following.rpartition("/")[2])).is_hit == (here != names[0])
        appliance.wait_stored(following)
    assert all(origin.count(name) == 1 for name in names)


def test_of_one_large_file_the_next_range_is_brought(appliance, film):
    whole = film(1, size=3 * BLOCK)
    following = f"{2 * BLOCK}-{2 * BLOCK + 99}"
    assert appliance.get(said(whole, nrr=following), Range="bytes=0-99").status == 206
    wait_until(lambda: appliance.held(whole).get("blocks_held") == 2, "the blocks of both ranges are held")
    assert appliance.get(whole, Range=f"bytes={following}").is_hit


def test_what_is_held_is_not_brought_again(appliance, origin, film):
    here, following = film(1), film(2)
    appliance.get(following)
    appliance.wait_stored(following)
    before = appliance.metric("oca_prefetches_total")
    appliance.get(said(here, nor=following.rpartition("/")[2]))
    assert appliance.metric("oca_prefetches_total") == before
    assert origin.count(following) == 1


@pytest.mark.parametrize("named", ["../../other/720p/seg-00001.m4s", "https://elsewhere.example/x", "%00", "/"])
def test_nobody_makes_an_appliance_fetch_what_is_of_another_title(appliance, film, named):
    before = appliance.metric("oca_prefetches_total")
    assert appliance.get(said(film(1), nor=quote(named, safe=""))).status == 200
    assert appliance.metric("oca_prefetches_total") == before


def test_a_next_object_that_is_not_there_harms_nobody(appliance, film):
    assert appliance.get(said(film(1), nor="seg-99999.m4s")).status == 200
    appliance.wait_landed()
    assert appliance.get(said(film(3), nor="seg-99999.m4s")).status == 200


def test_where_it_is_switched_off_nothing_is_brought_and_nothing_paced(make_appliance, origin, film):
    appliance = make_appliance().start(viewers={"prefetch": False, "pace": False})
    here, following = film(1), film(2)
    with appliance.wire() as wire:
        wire.get(said(here, nor=following.rpartition("/")[2], rtp=8000))
        assert pacing_of(wire) is None
    appliance.wait_landed()
    assert origin.count(following) == 0


# --- Pacing ---


def pacing_of(wire):
    """Bits a second to which the kernel bounds what the appliance sends here; None: no bound."""
    port, ours = wire._sock.getpeername()[1], wire._sock.getsockname()[1]
    asked = ["ss", "-tin", f"( sport = :{port} and dport = :{ours} )"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
    assert "rtt:" in found, found
    rate = re.search(r"pacing_rate [0-9.]+[GMK]?bps/([0-9]+)bps", found)
    return None if rate is None else int(rate[1])


def test_an_answer_goes_out_as_fast_as_its_player_wants(appliance, film):
    path = film(1)
    with appliance.wire() as wire:
        wire.get(path)
        assert pacing_of(wire) is None
        assert len(wire.get(said(path, rtp=80_000)).body) == SEGMENT
        assert pacing_of(wire) == 80_000_000
        wire.get(said(path, rtp=80_000, br=100_000))
        assert pacing_of(wire) == 125_000_000
        wire.get(path)
        assert pacing_of(wire) is None, "the next one on the connection may be somebody else"


def test_a_player_that_hurries_is_not_held_back_by_what_it_measured(appliance, film):
    path = film(1)
    with appliance.wire() as wire:
        wire.get(said(path, mtp=40_000, bl=2000))
        assert pacing_of(wire) is None
        wire.get(said(path, mtp=40_000, bl=30_000))
        assert pacing_of(wire) == 80_000_000
        wire.get(said(path, mtp=40_000, bl=30_000, bs=True))
        assert pacing_of(wire) is None


# --- What players are told ---


def test_who_says_something_is_told_the_round_trip_and_what_the_way_carries(appliance, film):
    path = film(1)
    cold = appliance.get(said(path, br=1))
    appliance.wait_stored(path)
    warm = appliance.get(said(path, br=1))
    assert warm.is_hit
    for answer in (cold, warm):
        assert re.fullmatch(r'"oca-test";rtt=\d+;etp=\d+', answer["CMSD-Dynamic"])
    assert "CMSD-Dynamic" in warm["Access-Control-Expose-Headers"]
    assert appliance.get(path)["CMSD-Dynamic"] is None


def test_what_the_origin_says_of_an_object_is_passed_on(appliance, origin, film):
    path = film(1)
    origin.put(path, 1000, cmsd_static="ot=v,sf=h,br=3000,d=4000")
    for _ in range(2):
        assert appliance.get(path)["CMSD-Static"] == "ot=v,sf=h,br=3000,d=4000"
        appliance.wait_stored(path)


# --- Who says anything ---


@pytest.mark.parametrize(
    "query",
    ["CMCD=", "CMCD=%", "CMCD=%22", "CMCD=" + "%28" * 3000, "CMCD=br%3D" + "9" * 4000, "CMCD=%00%ff", "CMCD=a&CMCD=b"],
)
def test_nonsense_is_as_if_it_had_not_been_said(appliance, film, query):
    path = film(1)
    whole = appliance.get(path).body
    assert appliance.get(f"{path}?{query}").body == whole


def test_what_is_said_is_no_part_of_the_name(appliance, origin, film):
    path = film(1)
    for number in range(5):
        appliance.get(said(path, bl=number, sid=f"s{number}"))
    appliance.wait_stored(path)
    assert origin.count(path) == 1
