"""A crowd over real HTTP: what it fetches, what it says, what it feels when things fail."""

import json
import re
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from admin.__main__ import app
from admin.crowd.account import Account, Failure, Visit, report_of
from tests.doubles.origin import Origin

FOLDER = "/titles/film"
SEGMENTS = 6


def put_film(origin, seconds=1.0, size=20_000):
    """A film of two renditions and a sound, whose segments are short."""
    lines = ["#EXTM3U", '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="en",URI="sound/index.m3u8"']
    for name, rate in (("low", 200_000), ("high", 800_000)):
        lines += [f'#EXT-X-STREAM-INF:BANDWIDTH={rate},AUDIO="a"', f"{name}/index.m3u8"]
    origin.put(f"{FOLDER}/master.m3u8", "\n".join(lines).encode())
    for name in ("low", "high", "sound"):
        track = ["#EXTM3U", '#EXT-X-MAP:URI="init.mp4"']
        for number in range(1, SEGMENTS + 1):
            track += [f"#EXTINF:{seconds},", f"seg-{number}.m4s"]
            origin.put(f"{FOLDER}/{name}/seg-{number}.m4s", size)
        origin.put(f"{FOLDER}/{name}/index.m3u8", "\n".join([*track, "#EXT-X-ENDLIST"]).encode())
        origin.put(f"{FOLDER}/{name}/init.mp4", 800)


@pytest.fixture
def origin():
    with Origin() as one:
        put_film(one)
        yield one


def crowd(*words):
    return CliRunner().invoke(app, ["crowd", "--ramp", "0", *words])


def watched(tmp_path, *words):
    """What a crowd of three for three seconds says in its report."""
    ran = crowd("--viewers", "3", "--minutes", "0.05", "--seeks", "0", "--json", str(tmp_path / "j"), *words)
    assert ran.exit_code == 0, ran.stderr
    return json.loads((tmp_path / "j").read_text())


def test_viewers_watch_and_say_how_they_are(origin, tmp_path):
    told = watched(tmp_path, "--manifest", f"{origin.url}{FOLDER}/master.m3u8")
    report = told["report"]
    assert report["visits"] >= 3
    assert report["started"] == report["visits"]
    assert (report["failures"], report["stalls"]) == ({}, 0)
    assert report["watched_hours"] > 0
    assert [moment["watching"] for moment in told["moments"]] == [3, 3, 3]
    assert report["requests"] == {origin.host: len(origin.asked)}
    queries = [unquote(asked.query.removeprefix("CMCD=")) for asked in origin.asked]
    segments = [query for query in queries if "ot=v" in query]
    assert len(segments) >= 3
    assert all(re.search(r"bl=\d+,br=\d+,(bs,)?d=1000,", query) for query in segments)
    assert len({re.search('sid="([^"]+)"', query)[1] for query in queries}) == report["visits"]
    assert any('nor="seg-2.m4s"' in query for query in segments)


def test_viewers_of_a_film_in_single_files_fetch_ranges_and_say_which_is_next(origin, tmp_path):
    for name in ("low", "high", "sound"):
        track = ["#EXTM3U", '#EXT-X-MAP:URI="track.mp4",BYTERANGE="800@0"']
        for number in range(SEGMENTS):
            track += ["#EXTINF:1,", f"#EXT-X-BYTERANGE:20000@{800 + number * 20_000}", "track.mp4"]
        origin.put(f"{FOLDER}/{name}/index.m3u8", "\n".join([*track, "#EXT-X-ENDLIST"]).encode())
        origin.put(f"{FOLDER}/{name}/track.mp4", 800 + SEGMENTS * 20_000)
    report = watched(tmp_path, "--manifest", f"{origin.url}{FOLDER}/master.m3u8")["report"]
    assert (report["failures"], report["stalls"], report["started"]) == ({}, 0, report["visits"])
    asked = [one for one in origin.asked if one.path.endswith("track.mp4")]
    assert {"bytes=0-799", "bytes=800-20799", "bytes=20800-40799"} <= {one.range for one in asked}
    first = [unquote(one.query) for one in asked if one.range == "bytes=800-20799"]
    assert first
    assert all('nor="track.mp4",nrr="20800-40799"' in query for query in first)


def test_viewers_go_up_where_the_line_carries_it(origin, tmp_path):
    watched(tmp_path, "--manifest", f"{origin.url}{FOLDER}/master.m3u8")
    assert any("/high/seg-" in asked.path for asked in origin.asked)


def test_a_box_that_is_away_costs_its_viewers_a_move_and_no_error(origin, tmp_path):
    with Origin() as gone:
        away = gone.url
    told = watched(
        tmp_path, "--manifest", f"{away}{FOLDER}/master.m3u8", "--manifest", f"{origin.url}{FOLDER}/master.m3u8"
    )
    assert told["report"]["failures"] == {}
    assert told["report"]["moves"] >= 1
    assert told["report"]["retries"] >= 1
    assert list(told["report"]["bytes"]) == [origin.host]


def test_a_file_that_nobody_has_is_an_error_that_is_named(origin, tmp_path):
    origin.remove(f"{FOLDER}/low/seg-1.m4s")
    told = watched(tmp_path, "--manifest", f"{origin.url}{FOLDER}/master.m3u8")
    assert set(told["report"]["failures"]) == {"segment"}
    assert any("low/seg-1.m4s" in why for why in told["report"]["failed_because"])


def test_strict_says_by_its_exit_code_that_something_was_wrong(origin):
    origin.remove(f"{FOLDER}/low/index.m3u8")
    ran = crowd("--viewers", "2", "--minutes", "0.05", "--strict", "--manifest", f"{origin.url}{FOLDER}/master.m3u8")
    assert ran.exit_code == 1
    assert "errors" in ran.stderr
    assert "playlist" in ran.stdout


def test_a_plot_is_drawn(origin, tmp_path):
    watched(tmp_path, "--manifest", f"{origin.url}{FOLDER}/master.m3u8", "--plot", str(tmp_path / "crowd.png"))
    assert (tmp_path / "crowd.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--steering with --title, or --manifest"),
        (("--steering", "http://x", "--manifest", "http://x/a.m3u8"), "one of them"),
        (("--steering", "http://x"), "--title is missing"),
        (("--steering", "x", "--title", "film"), "no address"),
        (("--manifest", "http://x/a.mpd"), "no address of an HLS playlist"),
        (("--manifest", "http://x/a.m3u8", "--title", "film"), "go with --steering"),
        (("--steering", "http://x", "--title", "film", "--from", "nowhere"), "allowed: networks"),
        (("--steering", "http://x", "--title", "film", "--tokens", "/nowhere"), "can't be read"),
        (("--manifest", "http://x/a.m3u8", "--viewers", "20001"), "allowed: 1 to 20000"),
    ],
)
def test_a_bad_order_is_told_what_is_allowed(words, says):
    ran = crowd(*words)
    assert ran.exit_code == 2
    assert says in ran.stderr


def test_figures_add_up():
    account = Account()
    account.visits = [
        Visit(start_seconds=0.1 * at, played_seconds=1800, megabits=3600, fetched_seconds=1800, steps=2)
        for at in range(1, 21)
    ]
    account.visits += [Visit(failure=Failure.PLAYBACK, failed_because="no"), Visit(stalls=3, stalled_seconds=360)]
    report = report_of(account)
    assert (report.visits, report.started, report.watched_hours) == (22, 20, 10)
    assert report.start_p50 == pytest.approx(1.1)
    assert report.start_p95 == pytest.approx(2.0)
    assert report.stalls_an_hour == pytest.approx(0.3)
    assert report.stalled_ratio == pytest.approx(0.01 / 1.01)
    assert report.mean_bitrate_bps == pytest.approx(2_000_000)
    assert (report.failures, report.failed_because) == ({"playback": 1}, {"no": 1})


def test_of_nobody_there_are_no_figures():
    report = report_of(Account())
    assert (report.start_p95, report.mean_bitrate_bps, report.stalls_an_hour) == (None, None, None)
