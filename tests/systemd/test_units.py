"""The units as systemd reads them: no word that it does not know, and as little power as each program needs."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from oca import supervisor
from oca.settings import Http

FOLDER = Path(__file__).parents[2] / "systemd"
UNITS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in {".service", ".socket", ".timer"})
SERVICES = [name for name in UNITS if name.endswith(".service")]
PROGRAMS = ("oca", "oca-admin", "oca-fill", "oca-steering")
MOST_EXPOSURE = 2.0

if shutil.which("systemd-analyze") is None or not Path("/lib/systemd/system").is_dir():
    pytest.skip("systemd's programs and units are not here", allow_module_level=True)


def analyze(*words):
    return subprocess.run(["systemd-analyze", *words], check=False, capture_output=True, text=True, timeout=60)


def settings_of(unit):
    """Settings of a unit, by key; what is said several times in its order."""
    lines = [line for line in (FOLDER / unit).read_text().splitlines() if "=" in line and not line.startswith("#")]
    found = {}
    for line in lines:
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value)
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A machine with systemd's own units, ours, and programs where ours look for them."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree("/lib/systemd/system", root / "lib/systemd/system", symlinks=True)
    (root / "etc/systemd/system").mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(FOLDER / unit, root / "etc/systemd/system")
    for program in (*(f"opt/oca/current/bin/{name}" for name in PROGRAMS), "bin/kill"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", root / program)
    return root


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_nothing_to_say_against_a_unit(root, unit):
    # It exits with 0 on words that it does not know.
    verdict = analyze("verify", f"--root={root}", unit)
    assert (verdict.returncode, verdict.stderr) == (0, "")


def test_a_misspelt_word_would_be_told(root):
    unit = root / "etc/systemd/system/misspelt.service"
    unit.write_text((FOLDER / "oca.service").read_text().replace("ProtectHome", "ProtektHome"))
    assert "ProtektHome" in analyze("verify", f"--root={root}", unit.name).stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_a_service_is_exposed_no_more_than_it_must_be(unit):
    verdict = analyze("security", "--offline=true", str(FOLDER / unit))
    assert float(re.search(r"exposure level for \S+: ([\d.]+)", verdict.stdout)[1]) <= MOST_EXPOSURE


def test_the_security_verdict_can_fail(tmp_path):
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    findings = json.loads(analyze("security", "--offline=true", "--json=short", str(bare)).stdout)
    assert any(float(finding["exposure"] or 0) > 0 for finding in findings)
    assert "UNSAFE" in analyze("security", "--offline=true", str(bare)).stdout


def test_systemd_waits_as_long_as_an_appliance_takes_to_leave():
    drain = float(Http().drain_timeout) + supervisor._ENDS_AFTER_DRAIN + supervisor._KILLED
    longest = drain + supervisor._KEEPER_END + supervisor._KILLED
    (waits,) = settings_of("oca.service")["TimeoutStopSec"]
    assert float(waits) > longest


def test_programs_and_users_are_those_that_are_installed():
    users = {line.split()[1] for line in (FOLDER / "sysusers.d/oca.conf").read_text().splitlines() if line[:2] == "u "}
    for unit in SERVICES:
        settings = settings_of(unit)
        assert set(settings["User"]) | set(settings["Group"]) <= users
        for command in settings["ExecStart"] + settings.get("ExecStartPre", []):
            assert Path(command.split()[0]).relative_to("/opt/oca/current/bin").name in PROGRAMS


def test_viewers_come_before_fill():
    for key in ("CPUWeight", "IOWeight"):
        (viewers,), (fill,) = settings_of("oca.service")[key], settings_of("oca-fill-agent.service")[key]
        assert int(viewers) >= 10 * int(fill)


def test_every_service_has_bounds():
    for unit in SERVICES:
        assert settings_of(unit).keys() >= {"MemoryHigh", "TasksMax"}
        assert settings_of(unit).keys() & {"TimeoutStopSec", "TimeoutStartSec"}


@pytest.mark.parametrize("unit", [name for name in UNITS if name.endswith(".timer")])
def test_a_timer_says_a_time_that_systemd_knows(unit):
    settings = settings_of(unit)
    (when,) = settings["OnCalendar"]
    assert analyze("calendar", "--iterations=2", when).returncode == 0
    assert settings["Persistent"] == ["yes"]
    assert settings["RandomizedDelaySec"]
