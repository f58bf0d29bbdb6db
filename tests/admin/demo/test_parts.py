"""The demo's processes: there while they are needed, gone afterwards, and heard when they fail."""

import hashlib
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.demo.parts import Origin, _settings, appliance, embedded_origin, make_clip
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


def test_an_appliance_that_fails_to_start_is_quoted(elsewhere, tmp_path):
    elsewhere(FAILING)
    with (
        pytest.raises(MachineError, match=r"exit code 3.*no such thing as a <device>"),
        appliance(tmp_path, Origin("s3://films/x", None, None, {})),
    ):
        pass


def test_an_appliance_that_dies_later_is_missed(elsewhere, tmp_path):
    (elsewhere(READY) / "readyz").write_text("ready")
    with appliance(tmp_path, Origin("s3://films/x", None, None, {})) as running:
        running.require_alive()
        os.kill(running.process_id, signal.SIGKILL)
        os.waitid(os.P_PID, running.process_id, os.WEXITED | os.WNOWAIT)
        with pytest.raises(MachineError, match="signal 9"):
            running.require_alive()


# Stands where `oca` would: it answers /readyz and nothing else.
READY = """import http.server, sys, tomllib
control = tomllib.load(open(sys.argv[-1], "rb"))["listen"]["control"]
host, port = control.split(":")
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(port), bind=host)
"""


def test_an_appliance_is_gone_when_its_block_is_left(elsewhere, tmp_path):
    (elsewhere(READY) / "readyz").write_text("ready")
    with appliance(tmp_path, Origin("s3://films/x", None, None, {})) as running:
        process_id = running.process_id
    assert not Path(f"/proc/{process_id}").exists()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_path_and_url_survive_the_settings_file(text):
    origin = Origin(text, text, None, {})
    read = tomllib.loads(_settings(Path(text), Path(text) / "nvme0", origin, 1, 2))
    assert read["origin"] == {"url": text, "endpoint_url": text}
    assert read["device"][0]["path"] == str(Path(text) / "nvme0")


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
    assert 20 <= source.duration <= 30


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


def test_the_vendored_player_is_what_its_notice_says():
    assets = Path(__file__).parents[3] / "admin" / "demo" / "assets"
    digest = hashlib.sha256((assets / "hls.min.js").read_bytes()).hexdigest()
    assert digest in (assets / "THIRD-PARTY.md").read_text()
    assert "Apache License" in (assets / "hls.LICENSE").read_text()
