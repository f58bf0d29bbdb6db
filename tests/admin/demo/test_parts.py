"""The demo's processes: there while they are needed, gone afterwards, and heard when they fail."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from admin.demo.parts import CLIP_SECONDS, Part, embedded_origin, free_ports, make_clip
from admin.errors import MachineError
from admin.publish.encoder import probe

# Stands where `oca` would: it says what it was given, and ends.
FAILING = """import sys
print("settings:", sys.argv[1:])
print("no such thing as a <device>", file=sys.stderr)
raise SystemExit(3)
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working folder in which `python -m oca` is ours to write."""
    (tmp_path / "oca").mkdir()
    (tmp_path / "oca" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)

    def write(program: str) -> Path:
        (tmp_path / "oca" / "__main__.py").write_text(program)
        return tmp_path

    return write


def part(folder: Path, control: int = 1) -> Part:
    return Part("lis-1", ["oca", str(control)], control, folder / "log", {"OCA_SAID": "hello"})


@pytest.fixture
def started(tmp_path):
    """Parts that are gone when the test is over."""
    made = []

    def start(*arguments):
        made.append(part(tmp_path, *arguments))
        made[-1].launch()
        return made[-1]

    yield start
    for one in made:
        one.kill()


def test_a_part_that_fails_to_start_is_quoted(elsewhere, started):
    elsewhere(FAILING)
    with pytest.raises(MachineError, match=r"lis-1 ended by itself \(exit code 3.*no such thing as a <device>"):
        started().wait_until("/readyz")


def test_a_part_that_dies_later_is_missed_and_one_that_was_killed_is_not(elsewhere, started):
    (elsewhere(READY) / "readyz").write_text("{}")
    running = started(free_ports(1)[0])
    running.wait_until("/readyz")
    running.require_alive()
    os.kill(running.process_id, signal.SIGKILL)
    os.waitid(os.P_PID, running.process_id, os.WEXITED | os.WNOWAIT)
    with pytest.raises(MachineError, match="signal 9"):
        running.require_alive()
    running.kill()
    running.require_alive()
    assert not running.is_alive


def test_a_part_that_was_killed_can_be_started_anew(elsewhere, started):
    (elsewhere(READY) / "readyz").write_text('{"ready": true}')
    running = started(free_ports(1)[0])
    running.wait_until("/readyz", lambda told: told["ready"])
    before = running.process_id
    running.kill()
    running.launch()
    running.wait_until("/readyz")
    assert running.process_id != before


# Stands where `oca` would: it answers /readyz and nothing else.
READY = """import http.server, os, sys
assert os.environ["OCA_SAID"] == "hello"
http.server.ThreadingHTTPServer.allow_reuse_address = True
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[-1]), bind="127.0.0.1")
"""


def test_a_part_is_gone_when_it_was_ended(elsewhere, started):
    (elsewhere(READY) / "readyz").write_text("{}")
    running = started(free_ports(1)[0])
    running.wait_until("/readyz")
    running.end()
    assert not Path(f"/proc/{running.process_id}").exists()


def test_the_embedded_origin_is_there_only_inside_its_block():
    with embedded_origin() as origin:
        client = origin.session.client("s3", endpoint_url=origin.endpoint_url)
        assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["films"]
        port = int(origin.endpoint_url.rpartition(":")[2])
    listening = f"0100007F:{port:04X} 00000000:0000 0A"
    assert listening not in Path("/proc/net/tcp").read_text()


def test_the_clip_is_a_film_with_sound(ffmpeg, tmp_path):
    make_clip(ffmpeg, tmp_path / "clip.mp4")
    source = probe(ffmpeg, tmp_path / "clip.mp4").source
    assert (source.width, source.height, len(source.tracks)) == (1280, 720, 1)
    assert CLIP_SECONDS - 1 <= source.duration <= CLIP_SECONDS + 1


def test_without_a_browser_smoke_says_what_is_missing(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "admin", "demo", "--smoke"],
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.startswith("oca-admin demo: --smoke needs Chromium on PATH")
    assert ran.stdout == ""


@pytest.mark.parametrize("player", ["hls.min.js", "dash.all.min.js"])
def test_a_vendored_player_is_what_its_notice_says(player):
    assets = Path(__file__).parents[3] / "admin" / "demo" / "assets"
    digest = hashlib.sha256((assets / player).read_bytes()).hexdigest()
    assert digest in (assets / "THIRD-PARTY.md").read_text()
    assert (assets / f"{player.partition('.')[0]}.LICENSE").is_file()
