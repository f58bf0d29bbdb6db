"""`oca device` against a control API that answers as it is told: what is asked, what is said, with which exit code."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from oca.__main__ import main
from tests.doubles.appliance import free_port
from tests.doubles.control import ControlDouble

SETTINGS = """\
[appliance]
id = "oca-1"
[listen]
control = "{address}"
[origin]
url = "s3://films/catalogue"
[[device]]
path = "/srv/oca/nvme0/"
tier = "nvme"
capacity = "1 TiB"
dwpd = 3
"""
GIB = 1024**3


@dataclass
class Result:
    exit_code: int
    output: str
    stderr: str


@pytest.fixture
def control():
    with ControlDouble() as control:
        yield control


@pytest.fixture
def config(tmp_path, control):
    (tmp_path / "oca.toml").write_text(SETTINGS.format(address=control.address))
    return str(tmp_path / "oca.toml")


@pytest.fixture
def run(monkeypatch, capsys, config):
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words, config=config):
        monkeypatch.setattr(sys, "argv", ["oca", "device", *words, "--config", config])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Result(ended.value.code, said.out, said.err)

    return run


def run_process(*words):
    done = subprocess.run(
        [sys.executable, "-m", "oca", "device", *words], capture_output=True, text=True, timeout=60, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


# --- list -------------------------------------------------------------------------------------------------------------


def test_list_shows_each_device_with_what_it_waits_for(run, control):
    control.device("/srv/oca/nvme0", used_bytes=512 * GIB, errors={"io": 2, "slow": 0})
    control.device("/srv/a", tier="hdd", wish="drain", used_bytes=5 * GIB, left_bytes=3 * GIB)
    control.device("/srv/b", tier="ssd", wish="drain", left_bytes=0)
    control.device("/srv/c", standing="failing", reason="full", detail="its file system has no room")
    control.device("/srv/d", id=None, standing="offline", reason="wrong_disk", detail="another disk is mounted there")
    control.health = 0.7
    result = run("list")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    rows = [line.split("  ") for line in lines[:6]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["ID", "PATH", "TIER", "STANDING", "REASON", "WISH", "USED", "CAPACITY", "ERRORS", "WAITS FOR"],
        ["id-1", "/srv/oca/nvme0", "nvme", "online", "-", "serve", "512.0 GiB", "1.0 TiB", "io=2", "-"],
        ["id-2", "/srv/a", "hdd", "online", "-", "drain", "5.0 GiB", "1.0 TiB", "-", "3.0 GiB to move"],
        ["id-3", "/srv/b", "ssd", "online", "-", "drain", "0 B", "1.0 TiB", "-", "oca device remove"],
        ["id-4", "/srv/c", "nvme", "failing", "full", "serve", "0 B", "1.0 TiB", "-", "good probes"],
        ["-", "/srv/d", "nvme", "offline", "wrong_disk", "serve", "0 B", "1.0 TiB", "-", "oca device add"],
    ]
    assert lines[6:] == [
        "id-4 (/srv/c): its file system has no room",
        "/srv/d: another disk is mounted there",
        "health: 70%",
    ]


def test_list_tells_for_how_long_a_device_has_not_been_well(run, control):
    control.device("/srv/a", standing="failing", reason="slow", since=1_700_000_000.0)
    row = run("list").output.splitlines()[1]
    assert "failing for " in row
    assert " d " in row


def test_a_field_that_is_new_or_null_does_not_disturb_the_list(run, control):
    control.devices.append({"path": "/srv/a", "tier": "tape", "standing": "resting", "reason": None, "colour": 1})
    result = run("list")
    assert result.exit_code == 0
    assert "resting" in result.output


def test_list_as_json_is_what_the_appliance_said(run, control):
    control.device("/srv/a", colour="red")
    assert json.loads(run("list", "--json").output) == {"devices": control.devices, "health": 1.0}


# --- add --------------------------------------------------------------------------------------------------------------


def test_a_device_of_the_settings_is_added_by_its_path_alone(run, control):
    control.device("/srv/oca/nvme0")
    result = run("add", "/srv/oca/../oca/nvme0")
    assert result.exit_code == 0
    assert control.asked == [
        ("POST", "/v1/devices", {"path": "/srv/oca/nvme0", "tier": "nvme", "capacity": 2**40, "dwpd": 3.0})
    ]
    assert result.output == "id-1 (/srv/oca/nvme0) is in service\n"
    assert result.stderr == ""


def test_what_is_given_counts_more_than_the_settings(run, control):
    control.device("/srv/oca/nvme0")
    run("add", "/srv/oca/nvme0", "--capacity", "64 GiB", "--dwpd", "0.5", "--new")
    assert control.asked[0][2] == {
        "path": "/srv/oca/nvme0",
        "tier": "nvme",
        "capacity": 64 * GIB,
        "dwpd": 0.5,
        "new": True,
    }


def test_a_device_that_the_settings_do_not_name_is_to_be_written_there(run, control):
    control.device("/srv/x")
    result = run("add", "/srv/x", "--tier", "hdd", "--capacity", "1000000000", "--adopt")
    assert control.asked[0][2] == {"path": "/srv/x", "tier": "hdd", "capacity": 10**9, "adopt": True}
    assert "write it into the settings too" in result.stderr


def test_a_path_is_the_one_where_the_operator_stands(run, control, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("add", "disk", "--tier", "hdd", "--capacity", "1 TB")
    assert control.asked[0][2]["path"] == str(tmp_path / "disk")


def test_a_device_that_is_taken_in_but_is_not_well_is_said_to_be_so(run, control):
    control.device("/srv/oca/nvme0", standing="failing", reason="read_only", detail="its file system is read-only")
    assert run("add", "/srv/oca/nvme0").output == "id-1 (/srv/oca/nvme0) is failing: its file system is read-only\n"


# --- drain, serve, remove ---------------------------------------------------------------------------------------------


def test_drain_returns_at_once_and_says_how_much_there_is_to_move(run, control):
    control.device("/srv/a", wish="drain", left_bytes=3 * GIB)
    result = run("drain", "id-1")
    assert result.exit_code == 0
    assert control.asked == [("POST", "/v1/devices/drain", {"device": "id-1"})]
    assert result.output.startswith("id-1 (/srv/a) drains: 3.0 GiB to move")


def test_drain_with_wait_ends_when_nothing_is_left(run, control):
    entry = control.device("/srv/a", wish="drain")
    other = control.device("/srv/b")
    looks = [{**entry, "left_bytes": left} for left in (3 * GIB, GIB, 0)]
    control.answers = [(200, looks[0])] + [(200, {"devices": [look, other], "health": 1}) for look in looks[1:]]
    result = run("drain", "/srv/a/", "--wait")
    assert result.exit_code == 0
    assert [asked[:2] for asked in control.asked] == [("POST", "/v1/devices/drain")] + [("GET", "/v1/devices")] * 2
    assert control.asked[0][2] == {"device": "/srv/a"}
    assert "id-1 (/srv/a): 3.0 GiB left" in result.stderr
    assert result.output.startswith("id-1 (/srv/a) is drained")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"wish": "serve"}, "3.0 GiB can't be moved: somebody took it back"),
        ({"standing": "offline", "reason": "io"}, "3.0 GiB can't be moved: it is offline"),
        ({"left_bytes": GIB}, "1.0 GiB can't be moved: no other device is written to"),
        (None, "is not known any more"),
    ],
)
def test_waiting_for_a_drain_that_can_not_end_ends_with_1(run, control, change, told):
    entry = {**control.device("/srv/a", wish="drain"), "left_bytes": 3 * GIB}
    found = [] if change is None else [{**entry, **change}]
    control.answers = [(200, entry), (200, {"devices": found, "health": 1})]
    result = run("drain", "id-1", "--wait")
    assert result.exit_code == 1
    assert told in result.stderr
    assert result.output == ""


def test_a_drain_is_undone(run, control):
    control.device("/srv/a")
    result = run("serve", "id-1")
    assert control.asked == [("POST", "/v1/devices/serve", {"device": "id-1"})]
    assert result.output == "id-1 (/srv/a) serves\n"


def test_remove_with_force_says_what_is_given_up(run, control):
    control.device("/srv/oca/nvme0", used_bytes=7 * GIB)
    result = run("remove", "/srv/oca/nvme0/", "--force")
    assert control.asked[-1] == ("POST", "/v1/devices/remove", {"device": "/srv/oca/nvme0", "force": True})
    assert result.output == "id-1 (/srv/oca/nvme0) is out of service: 7.0 GiB of content given up\n"
    assert "it stays out until `oca device add /srv/oca/nvme0`" in result.stderr


def test_a_drained_device_is_removed_without_further_words(run, control):
    control.device("/srv/a")
    result = run("remove", "id-1")
    assert control.asked[-1][2] == {"device": "id-1", "force": False}
    assert (result.exit_code, result.output, result.stderr) == (0, "id-1 (/srv/a) is out of service\n", "")


@pytest.mark.parametrize("verb", ["drain", "serve", "remove", "add"])
def test_every_order_answers_in_json_when_asked(run, control, verb):
    control.device("/srv/oca/nvme0", used_bytes=1)
    answer = json.loads(run(verb, "/srv/oca/nvme0", "--json").output)
    assert answer["id"] == "id-1"
    assert answer["standing"] == "online"


# --- When it does not work --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["add", "/srv/x"], ["drain", "x"], ["serve", "x"], ["remove", "x"], ["list"]])
def test_a_refusal_ends_with_1_and_the_sentence_of_the_appliance(run, control, words):
    control.answers = [(409, {"error": "the slot holds another device; --adopt takes it"})] * 2
    result = run(*words)
    assert (result.exit_code, result.output) == (1, "")
    assert result.stderr == "oca: the slot holds another device; --adopt takes it\n"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((500, b"oops"), "status 500"),
        ((200, b"<html>"), "is no appliance, or another version"),
        ((200, {"devices": [{"path": 3}]}), "is no appliance, or another version"),
    ],
)
def test_what_is_no_appliance_is_named(run, control, answer, told):
    control.answers = [answer]
    result = run("list")
    assert result.exit_code == 1
    assert told in result.stderr
    assert control.address in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["add"],
        ["drain"],
        ["lst"],
        ["add", "/x", "--tier", "tape"],
        ["add", "/x", "--capacity", "much"],
        ["add", "/x", "--capacity", "-1"],
        ["add", "/x", "--dwpd", "0"],
        ["add", "/x", "--new", "--adopt"],
    ],
)
def test_a_wrong_command_line_ends_with_2_and_asks_nothing(run, control, words):
    assert run(*words).exit_code == 2
    assert control.asked == []


def test_a_size_that_is_none_is_told_with_what_is_allowed(run):
    told = run("add", "/x", "--capacity", "2 parsecs").stderr
    assert 'such as "2 TiB"' in told
    assert "2 parsecs" in told


# --- As real processes ------------------------------------------------------------------------------------------------


def test_the_command_as_a_process(control, config):
    control.device("/srv/a")
    result = run_process("list", "--config", config)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "/srv/a" in result.output


def test_nobody_answers(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "oca.toml").write_text(SETTINGS.format(address=address))
    result = run_process("list", "--config", str(tmp_path / "oca.toml"))
    assert (result.exit_code, result.output) == (1, "")
    assert result.stderr == f"oca: {address}: Connection refused: is the appliance running?\n"


def test_settings_that_are_wrong_end_with_2(tmp_path):
    result = run_process("list", "--config", str(tmp_path / "none.toml"))
    assert result.exit_code == 2
    assert "can't be read" in result.stderr


def test_the_command_does_not_load_what_only_the_appliance_needs(control, config):
    """It runs on a busy box, perhaps in a loop of a monitor."""
    code = "import sys; import oca.__main__; print(sorted({'aiohttp', 'boto3', 'rich', 'uvloop'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
