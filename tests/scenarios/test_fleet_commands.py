"""`oca-admin` for the NOC: against a steering that runs, and appliances that do."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from admin.__main__ import app
from tests.doubles.agents import Agent
from tests.doubles.appliance import wait_until
from tests.doubles.origin import Origin
from tests.doubles.steering import SECRET, Replica, site
from tests.doubles.steering import appliance as entry

BOXES = ("lis-1", "lis-2", "mad-1")


@pytest.fixture(scope="module")
def fleet(module_appliance, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    with Origin() as origin:
        boxes = {name: module_appliance(origin.url, name=name) for name in BOXES}
        declared = {
            "operator": [{"id": "isp"}],
            "site": [site("lis", "isp", 38.7, -9.1, "PT"), site("mad", "isp", 40.4, -3.7, "ES", serves="everyone")],
            "appliance": [
                entry(name, name[:3], url=box.url, metrics=f"127.0.0.1:{box.control_port}")
                for name, box in boxes.items()
            ],
        }
        token = folder / "token"
        token.write_text(SECRET)
        token.chmod(0o600)
        replica = Replica(folder / "steering", declared)
        try:
            replica.start(patience={"rise": 1, "ramp": 1, "interval": 1, "quiet_after": 13, "silent_after": 14})
            for box in boxes.values():
                told = {"urls": [f"http://127.0.0.1:{replica.fleet_port}"], "token_file": str(token), "interval": "1 s"}
                more = {"interfaces": ["lo"], "link_speed": "1000 Gbit/s"}
                box.launch(listen={"workers": 1}, steering=told | more)
            for box in boxes.values():
                box.wait_ready()
            yield SimpleNamespace(boxes=boxes, replica=replica, origin=origin)
        finally:
            replica.kill()


@pytest.fixture(autouse=True)
def all_serve(fleet, monkeypatch):
    monkeypatch.setenv("OCA_STEERING", f"http://127.0.0.1:{fleet.replica.admin_port}")
    monkeypatch.setenv("COLUMNS", "200")
    for name in BOXES:
        fleet.replica.change({"type": "set-wish", "appliance": name, "wish": "serve"})
    wait_until(lambda: standings(fleet) == dict.fromkeys(BOXES, "serving"), "all serve")


def standings(fleet):
    return {one["id"]: one["standing"] for one in fleet.replica.admin("GET", "/v1/fleet").json()["appliances"]}


def typed(*words):
    return CliRunner().invoke(app, words)


def said(*words):
    """What a command says to programs."""
    ran = typed(*words, "--json")
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def test_a_fleet_that_is_well_is_said_to_be_so_in_a_few_lines(fleet):
    ran = typed("status")
    assert ran.exit_code == 0, ran.output
    assert "3 appliances at 2 sites: 3 serving" in ran.stdout
    told = said("status")
    assert (told["appliances"], told["sites"], told["troubles"]) == (3, 2, [])
    assert told["capacity_bps"] == 3e12


def test_what_is_not_well_is_named_and_the_exit_code_says_so(fleet):
    fleet.boxes["lis-1"].control("POST", "/v1/drain")
    try:
        wait_until(lambda: typed("status").exit_code == 1, "it is noticed")
        ran = typed("status")
        assert "lis-1: " in ran.stdout
        assert "not well" in ran.stdout
    finally:
        fleet.boxes["lis-1"].control("POST", "/v1/resume")


def test_sites_and_appliances_are_listed_for_people_and_for_programs(fleet):
    lis, mad = said("sites")
    assert (lis["id"], lis["serving"], lis["country"], mad["operator"]) == ("lis", 2, "PT", "isp")
    assert [one["id"] for one in said("appliances")] == list(BOXES)
    assert [one["id"] for one in said("appliances", "--site", "mad")] == ["mad-1"]
    table = typed("appliances").stdout.splitlines()
    assert table[0].split() == ["appliance", "site", "standing", "wish", "heard", "load", "full", "hits", "clock"]
    assert table[1].split()[:4] == ["lis-1", "lis", "serving", "serve"]
    assert typed("sites").stdout.splitlines()[1].split()[:6] == ["lis", "isp", "PT", "2", "of", "2"]


def test_a_decision_is_explained_with_all_its_terms(fleet):
    told = said("explain", "127.0.0.1", "/titles/x/master.m3u8")
    ran = typed("explain", "127.0.0.1", "/titles/x/master.m3u8")
    assert ran.exit_code == 0, ran.output
    assert told["ranked"]
    for row in told["ranked"]:
        assert row["appliance"] in ran.stdout


def test_who_is_drained_gets_no_viewers_and_who_asked_and_why_is_kept(fleet):
    # All share the cores of this machine: where others are busy, steering takes each of them for full.
    ran = typed("drain", "lis-1", "--why", "a disk swap", "--who", "ana", "--force")
    assert (ran.exit_code, ran.stdout.strip()) == (0, "draining: lis-1"), ran.stderr
    wait_until(lambda: standings(fleet)["lis-1"] in ("draining", "drained"), "it is drained")
    assert typed("status").exit_code == 0, "one that rests as it was told to is well"
    (latest, *_) = said("changes")
    assert (latest["who"], latest["why"], latest["id"]) == ("ana", "a disk swap", "lis-1")
    line = typed("changes").stdout.splitlines()[1]
    assert "ana" in line
    assert "wish drain" in line
    assert typed("resume", "lis-1", "--why", "done").stdout.strip().endswith(": lis-1")
    wait_until(lambda: standings(fleet)["lis-1"] == "serving", "it serves again")


def test_a_drain_that_leaves_viewers_nowhere_is_refused_unless_it_is_forced(fleet):
    fleet.origin.put("/titles/a/load.mp4", 1_000_000)

    def is_loaded():
        fleet.boxes["mad-1"].get("/titles/a/load.mp4")
        return all(one["utilisation"] > 0 for one in said("appliances"))

    wait_until(is_loaded, "there is some load")
    ran = typed("drain", "--site", "mad", "--why", "test")
    assert ran.exit_code == 2
    assert "mad has no other appliance for its viewers; with force" in " ".join(ran.stderr.split())
    assert standings(fleet)["mad-1"] == "serving"
    assert typed("drain", "--site", "mad", "--why", "test", "--force").exit_code == 0
    wait_until(lambda: standings(fleet)["mad-1"] in ("draining", "drained"), "it is drained")


def test_maintenance_is_planned_listed_and_cancelled(fleet):
    ran = typed("maintenance", "plan", "lis-1", "--from", "now", "--for", "2 h", "--why", "a fan", "--force")
    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout.startswith("planned: lis-1: from ")
    typed("maintenance", "plan", "lis-2", "--from", "2099-01-01 02:00", "--to", "03:00", "--why", "a fan", "--force")
    wait_until(lambda: standings(fleet)["lis-1"] in ("draining", "drained"), "it begins")
    assert typed("status").exit_code == 0, "one that rests as it was told to is well"
    first, second = said("maintenance", "list")
    assert (first["appliance"], first["state"], first["stop"] - first["start"]) == (
        "lis-1",
        standings(fleet)["lis-1"],
        7200,
    )
    assert (second["appliance"], second["state"], second["stop"] - second["start"]) == ("lis-2", "planned", 3600)
    assert typed("maintenance", "list").stdout.splitlines()[2].split()[:4] == ["lis-2", "lis", "2099-01-01", "02:00"]
    assert typed("maintenance", "cancel", "--site", "lis", "--why", "done").stdout.strip() == "cancelled: lis-1, lis-2"
    wait_until(lambda: standings(fleet)["lis-1"] == "serving", "it serves again")
    assert said("maintenance", "list") == []


def test_an_object_is_forgotten_by_all_and_brought_back(fleet):
    path = "/titles/a/240p.1f/seg-1.m4s"
    fleet.origin.put(path, 50_000)
    for box in fleet.boxes.values():
        box.get(path)
        box.wait_stored(path)
    told = said("purge", path)
    assert told == {"done": {name: {"purged": 1} for name in BOXES}, "failed": {}}
    for box in fleet.boxes.values():
        assert box.control("GET", f"/v1/objects?path={path}").status == 404
    ran = typed("prefetch", path, "--site", "lis")
    assert ran.exit_code == 0, ran.output
    for name in ("lis-1", "lis-2"):
        fleet.boxes[name].wait_stored(path)
    assert fleet.boxes["mad-1"].control("GET", f"/v1/objects?path={path}").status == 404
    told = said("purge", "/titles/a/240p.1f/", "--prefix")
    assert {name: one["purged"] for name, one in told["done"].items()} == {"lis-1": 1, "lis-2": 1, "mad-1": 0}


def test_who_could_not_be_told_is_named_and_the_others_are_told_all_the_same(fleet):
    fleet.boxes["mad-1"].kill_all()
    try:
        ran = typed("purge", "/titles/none", "--json")
        assert ran.exit_code == 1
        told = json.loads(ran.stdout)
        assert set(told["done"]) == {"lis-1", "lis-2"}
        assert "no answer" in told["failed"]["mad-1"]
        assert "oca-admin purge: mad-1: http://127.0.0.1:" in ran.stderr
    finally:
        fleet.boxes["mad-1"].start()


def test_devices_of_an_appliance_are_listed(fleet):
    (device,) = said("devices", "lis-1")
    assert (device["tier"], device["standing"]) == ("nvme", "online")
    assert typed("devices", "lis-1").stdout.splitlines()[1].split()[1:3] == ["nvme", "online"]
    refused = typed("devices", "lis-9")
    assert (refused.exit_code, "no appliance 'lis-9'" in refused.stderr) == (2, True)


def test_how_far_fill_orders_are_is_told_and_who_is_silent_is_named(fleet, tmp_path):
    assert "no agents" in typed("orders").stderr, "the inventory names none yet"
    store = {"endpoint_url": "http://127.0.0.1:9", "bucket": "s3://films/control"}
    agent = Agent(tmp_path, "lis-1", f"http://127.0.0.1:{fleet.boxes['lis-1'].control_port}", **store).start().wait_up()
    entries = {one["id"]: one for one in fleet.replica.fleet["appliance"]}
    entries["lis-1"]["agent_metrics"] = f"127.0.0.1:{agent.port}"
    entries["mad-1"]["agent_metrics"] = "127.0.0.1:9"
    try:
        fleet.replica.write_inventory()
        fleet.replica.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "no agents" not in typed("orders").stderr, "the agents are known")
        ran = typed("orders")
        assert ran.exit_code == 1, "one is silent"
        assert ran.stdout.splitlines()[0].split() == ["appliance", "site", "night", "is", "has", "of", "failed", "why"]
        told = json.loads(typed("orders", "--json").stdout)
        assert [(one["id"], one["site"]) for one in told] == [("lis-1", "lis"), ("mad-1", "mad")]
        assert (told[0]["error"], told[0]["order_bytes"], told[0]["phase"]) == (None, 0, "idle")
        assert "no answer" in told[1]["error"]
        assert typed("orders", "--site", "lis").exit_code == 0
    finally:
        agent.stop()
        for one in entries.values():
            one.pop("agent_metrics", None)
        fleet.replica.write_inventory()
        fleet.replica.process.send_signal(signal.SIGHUP)


def test_what_an_appliance_logged_is_read_from_afar(fleet):
    ran = typed("logs", "lis-1")
    assert ran.exit_code == 0, ran.output
    assert " oca[" in ran.stdout
    assert "INFO appliance lis-1 serves " in ran.stdout
    assert "] INFO keeper " in ran.stdout
    told = said("logs", "lis-1", "--lines", "1")
    assert len(told) == 1
    assert {one["level"] for one in said("logs", "lis-1", "--level", "warning")} <= {"WARNING", "ERROR"}


def test_logs_are_followed_as_they_come(fleet):
    box = fleet.boxes["lis-2"]
    command = [sys.executable, "-m", "admin", "logs", "lis-2", "--follow", "--json", "--lines", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        try:
            first = json.loads(following.stdout.readline())
            (keeper,) = box.keeper_pids
            os.kill(keeper, signal.SIGKILL)
            came = [first]
            while came[-1]["level"] != "ERROR":
                came.append(json.loads(following.stdout.readline()))
            assert (came[-1]["process"], f"(pid {keeper})" in came[-1]["text"]) == ("oca", True)
            assert [one["at"] for one in came] == sorted(one["at"] for one in came)
        finally:
            following.send_signal(signal.SIGINT)
    box.wait_ready()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["logs", "lis-1", "--level", "loud"], 2, "allowed: DEBUG"),
        (["logs", "lis-9"], 2, "no appliance 'lis-9'"),
        (["orders", "--site", "nowhere"], 2, "no agents"),
        (["status", "--steering", "http://127.0.0.1:9"], 7, "no answer"),
        (["status", "--steering", "steer.example"], 2, "allowed: http(s)://host:port"),
        (["drain", "--why", "x"], 2, "say which"),
        (["drain", "lis-9", "--why", "x"], 2, "no appliance 'lis-9'"),
        (["explain", "nobody", "/x"], 7, '"client"'),
        (["appliances", "--standing", "asleep"], 7, "allowed: joining"),
        (["status", "--watch", "--json"], 2, "choose one"),
        (["maintenance", "plan", "lis-1", "--from", "soon", "--for", "1 h", "--why", "x"], 2, "is no moment; allowed:"),
        (["maintenance", "plan", "lis-1", "--from", "now", "--for", "long", "--why", "x"], 2, "is no duration"),
        (["maintenance", "plan", "lis-1", "--from", "now", "--why", "x"], 2, "--to, or --for"),
        (["maintenance", "plan", "lis-1", "--from", "now", "--for", "40 d", "--why", "x"], 2, "31 days at most"),
        (["maintenance", "cancel", "lis-1", "--why", "x"], 2, "nothing is planned of these"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_line(words, code, says):
    ran = typed(*words)
    assert ran.exit_code == code, ran.output
    assert says in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_without_an_address_of_steering_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("OCA_STEERING")
    ran = typed("status")
    assert (ran.exit_code, "OCA_STEERING" in ran.stderr) == (2, True)
