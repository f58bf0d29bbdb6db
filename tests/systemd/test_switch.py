"""`/opt/oca/switch`: one command forward, one command back, and nothing half-way."""

import os
import subprocess
from pathlib import Path

import pytest

SWITCH = Path(__file__).parents[2] / "systemd" / "switch"

# Answers as systemctl does, writes down what it was asked for, and refuses to reload what the test says.
SYSTEMCTL = """#!/bin/sh
case "$*" in
*is-active*) case "$ACTIVE" in *" ${3} "*) exit 0 ;; *) exit 3 ;; esac ;;
esac
echo "$*" >> "$SAID"
case "$*" in "reload oca.service") [ -z "${REFUSES:-}" ] ;; esac
"""


class Machine:
    def __init__(self, folder):
        self.root = folder / "opt"
        self.said = folder / "said"
        self.said.touch()
        tools = folder / "bin"
        tools.mkdir(parents=True)
        (tools / "systemctl").write_text(SYSTEMCTL)
        (tools / "systemctl").chmod(0o755)
        self.env = {"PATH": f"{tools}:{os.environ['PATH']}", "OCA_ROOT": str(self.root), "SAID": str(self.said)}
        self.active = ("oca.service", "oca-fill-agent.service")

    def install(self, version):
        program = self.root / version / "bin" / "oca"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)

    def switch(self, *words, **env):
        active = {"ACTIVE": f" {' '.join(self.active)} "}
        return subprocess.run(
            [SWITCH, *words], check=False, env={**self.env, **active, **env}, capture_output=True, text=True, timeout=30
        )

    def runs(self):
        return os.readlink(self.root / "current")


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    for version in ("0.1.0", "0.2.0"):
        machine.install(version)
    assert machine.switch("0.1.0").returncode == 0
    machine.said.write_text("")
    return machine


def test_another_version_runs_and_the_appliance_is_reloaded_not_restarted(machine):
    told = machine.switch("0.2.0")
    assert (told.returncode, told.stdout) == (0, "0.2.0 runs; before it was 0.1.0\n")
    assert machine.runs() == "0.2.0"
    assert machine.said.read_text().splitlines() == ["reload oca.service", "restart oca-fill-agent.service"]


def test_one_command_goes_back(machine):
    machine.switch("0.2.0")
    assert machine.switch("--back").stdout == "0.1.0 runs; before it was 0.2.0\n"
    assert machine.runs() == "0.1.0"
    machine.switch("--back")
    assert machine.runs() == "0.2.0"


def test_a_version_that_the_appliance_refuses_is_not_kept(machine):
    told = machine.switch("0.2.0", REFUSES="yes")
    assert told.returncode == 1
    assert "the appliance stays with 0.1.0" in told.stderr
    assert machine.runs() == "0.1.0"
    assert "restart" not in machine.said.read_text()
    assert machine.switch("--back").returncode == 1


def test_it_says_which_versions_there_are(machine):
    machine.switch("0.2.0")
    (machine.root / "unfinished").mkdir()
    assert machine.switch().stdout == "0.1.0  ran before\n0.2.0  runs\n"


def test_the_version_that_runs_is_left_alone(machine):
    assert machine.switch("0.1.0").stdout == "0.1.0 runs already\n"
    assert machine.said.read_text() == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [(["0.3.0"], 1), (["--back"], 1), (["../0.1.0"], 2), (["current"], 2), (["--forth"], 2), (["0.1.0", "0.2.0"], 2)],
    ids=["not there", "none before", "a path", "a link", "unknown word", "two words"],
)
def test_what_can_not_be_done_changes_nothing(machine, words, code):
    told = machine.switch(*words)
    assert told.returncode == code
    assert told.stderr
    assert machine.runs() == "0.1.0"
    assert machine.said.read_text() == ""
