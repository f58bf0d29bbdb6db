"""Turning up boxes: against a steering that wants proofs, appliances that run, and things that are really broken."""

import json
import threading
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from admin.__main__ import app
from admin.demo.login import write_signing_key
from admin.turnup import content
from tests.doubles.appliance import wait_until
from tests.doubles.origin import Origin
from tests.doubles.steering import SECRET, Replica, site
from tests.doubles.steering import appliance as entry
from tests.scenarios.test_probing import certificate

BOXES = ("lis-1", "lis-2", "mad-1")
QUICK = ("--write", "16", "--speeds", "nvme=0/0", "--patience", "30")
FILM = "/titles/x/master.m3u8"
CHECKS = ["network", "families", "prefixes", "devices", "clock", "certificate", "sources", "fill", "read-back"]


@pytest.fixture(scope="module")
def fleet(module_appliance, tmp_path_factory):
    folder = tmp_path_factory.mktemp("turn-up")
    keys = folder / "keys"
    keys.mkdir()
    write_signing_key(keys / "one.pem")
    with Origin() as origin:
        origin.put(content.PATH, content.content())
        boxes = {name: module_appliance(origin.url, name=name) for name in BOXES}
        declared = {
            "operator": [{"id": "isp", "allowed": ["198.18.0.0/15", "127.0.0.0/8"]}],
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
            replica.start(
                turn_up={"required": True},
                tokens={"folder": str(keys), "issuer": "steer", "publish_ahead": "0 s"},
                patience={"rise": 1, "ramp": 1, "interval": 1, "quiet_after": 13, "silent_after": 14},
            )
            for box in boxes.values():
                told = {"urls": [f"http://127.0.0.1:{replica.fleet_port}"], "token_file": str(token), "interval": "1 s"}
                more = {"interfaces": ["lo"], "link_speed": "1000 Gbit/s"}
                box.launch(listen={"workers": 1}, access={"required": True}, steering=told | more)
            for box in boxes.values():
                box.wait_ready()
            wait_until(lambda: all(row["heard"] is not None for row in members(replica).values()), "all are heard")
            # They fetch the keys of tokens from steering.
            wait_until(lambda: all((box.state_dir / "steering-keys.json").exists() for box in boxes.values()), "keys")
            yield SimpleNamespace(boxes=boxes, replica=replica, origin=origin, folder=folder, token=token)
        finally:
            replica.kill()


@pytest.fixture(autouse=True)
def desk(fleet, monkeypatch):
    monkeypatch.setenv("OCA_STEERING", f"http://127.0.0.1:{fleet.replica.admin_port}")
    monkeypatch.setenv("COLUMNS", "250")


def members(replica):
    return {one["id"]: one for one in replica.admin("GET", "/v1/fleet").json()["appliances"]}


def turned_up(*words):
    return CliRunner().invoke(app, ["turn-up", *QUICK, *words])


def found(*words, code=0):
    """Of one box: outcomes and sentences by check."""
    ran = turned_up(*words, "--json")
    assert ran.exit_code == code, ran.output + ran.stderr
    (report,) = json.loads(ran.stdout)["reports"]
    return report


def sentences(report, check, outcome="failed"):
    return " | ".join(
        one["sentence"] for one in report["findings"] if (one["check"], one["outcome"]) == (check, outcome)
    )


def proof(fleet, name):
    return members(fleet.replica)[name]["proof"]


def serving(fleet, name):
    return members(fleet.replica)[name]["standing"] == "serving"


# --- Before and after the first pass ---


def test_an_unproven_box_has_no_viewers_and_everybody_says_why(fleet):
    wait_until(lambda: members(fleet.replica)["mad-1"]["bar"] == "unproven", "it is heard")
    told = fleet.replica.explain(FILM, "127.0.0.1")
    assert {row["appliance"]: row["why"] for row in told["rejected"]} == {"mad-1": "unproven"}
    assert [place["id"] for place in told["answer"]] == ["origin"]
    assert "mad-1: no viewers before oca-admin turn-up passes" in CliRunner().invoke(app, ["status"]).stdout
    ran = CliRunner().invoke(app, ["explain", "127.0.0.1", FILM])
    assert "unproven" in ran.stdout


def test_a_dry_run_looks_at_everything_and_records_nothing(fleet):
    report = found("mad-1", "--dry-run")
    assert (report["passed"], report["recorded"], report["failed"]) == (True, False, [])
    assert list(dict.fromkeys(one["check"] for one in report["findings"])) == CHECKS
    assert proof(fleet, "mad-1") is None


def test_one_check_alone_proves_nothing(fleet):
    report = found("mad-1", "--only", "clock", "--only", "sources")
    assert {one["check"] for one in report["findings"]} == {"clock", "sources"}
    assert (report["is_whole"], report["recorded"]) == (False, False)
    assert proof(fleet, "mad-1") is None


def test_a_box_that_passes_gets_viewers_and_its_report_is_for_the_isp(fleet, tmp_path):
    file = tmp_path / "report.md"
    ran = turned_up("mad-1", "--report", str(file), "--who", "ana")
    assert ran.exit_code == 0, ran.output + ran.stderr
    assert "mad-1: passed" in ran.stdout
    kept = proof(fleet, "mad-1")
    assert (kept["passed"], kept["failed"], kept["by"].split()[0]) == (True, [], "ana")
    assert kept["version"]
    wait_until(lambda: serving(fleet, "mad-1"), "it serves")
    assert fleet.replica.steer(FILM, "127.0.0.1")[0] == "mad-1"
    text = file.read_text()
    assert text.startswith("# Turn-up report\n\n## mad-1\n")
    assert "| read-back | passed | IPv4 127.0.0.1:" in text
    assert "to the byte" in text
    (latest, *_) = json.loads(CliRunner().invoke(app, ["changes", "--json"]).stdout)
    assert (latest["id"], latest["change"]["type"]) == ("mad-1", "record-proof")


def test_a_proof_outlives_a_restart_of_steering(fleet):
    assert turned_up("mad-1").exit_code == 0
    fleet.replica.stop()
    fleet.replica.start()
    wait_until(lambda: serving(fleet, "mad-1"), "it serves")
    assert members(fleet.replica)["lis-1"]["proof"] is None


def test_a_check_that_fails_later_takes_no_viewers_away_and_alarms(fleet):
    assert turned_up("mad-1").exit_code == 0
    wait_until(lambda: serving(fleet, "mad-1"), "it serves")
    assert fleet.replica.metric("oca_steering_turn_up_failed") == 0
    fleet.origin.put(content.PATH, b"x" * content.SIZE_BYTES)
    try:
        report = found("mad-1", code=1)
    finally:
        fleet.origin.put(content.PATH, content.content())
    assert report["failed"] == ["read-back"]
    assert serving(fleet, "mad-1")
    assert fleet.replica.steer(FILM, "127.0.0.1")[0] == "mad-1"
    assert fleet.replica.metric("oca_steering_turn_up_failed") == 1
    kept = proof(fleet, "mad-1")
    assert (kept["passed"], kept["failed"], kept["passed_at"] < kept["at"]) == (False, ["read-back"], True)
    assert "mad-1: its turn-up checks fail: read-back" in CliRunner().invoke(app, ["status"]).stdout
    assert turned_up("mad-1").exit_code == 0
    assert fleet.replica.metric("oca_steering_turn_up_failed") == 0


def test_a_box_that_fails_at_first_still_has_no_viewers(fleet):
    fleet.origin.remove(content.PATH)
    try:
        report = found("lis-2", code=1)
    finally:
        fleet.origin.put(content.PATH, content.content())
    assert report["failed"] == ["fill", "read-back"]
    assert "--put-content puts it" in sentences(report, "sources", "warned")
    assert (members(fleet.replica)["lis-2"]["bar"], proof(fleet, "lis-2")["passed"]) == ("unproven", False)


# --- What each check finds ---


def test_wrong_bytes_are_found_where_they_begin(fleet):
    wrong = bytearray(content.content())
    wrong[5_000_000] ^= 1
    fleet.origin.put(content.PATH, bytes(wrong))
    try:
        report = found("lis-1", "--only", "fill", "--only", "read-back", code=1)
    finally:
        fleet.origin.put(content.PATH, content.content())
    assert report["failed"] == ["read-back"]
    assert f"byte 5000000 of {content.PATH} is not the one" in sentences(report, "read-back")


def test_content_of_another_size_is_named_by_the_fill(fleet):
    fleet.origin.put(content.PATH, content.content()[:1000])
    try:
        report = found("lis-1", "--only", "fill", code=1)
    finally:
        fleet.origin.put(content.PATH, content.content())
    assert "is of 1000 bytes at the origin; allowed: 33554432" in sentences(report, "fill")


def test_what_it_fills_comes_anew_from_the_origin_each_time(fleet):
    for _ in range(2):
        before = fleet.origin.count(content.PATH)
        found("lis-1", "--only", "fill")
        assert fleet.origin.count(content.PATH) > before


def test_an_origin_that_is_down_is_named_by_sources_and_fill(fleet, module_appliance):
    box = fleet.boxes["lis-1"]
    box.stop()
    text = box.config.read_text()
    box.config.write_text(text.replace(fleet.origin.url, "http://127.0.0.1:9"))
    box.start()
    try:
        report = found("lis-1", "--only", "sources", "--only", "fill", code=1)
        assert report["failed"] == ["sources", "fill"]
        assert "origin can't be reached from the box" in sentences(report, "sources")
    finally:
        box.stop()
        box.config.write_text(text)
        box.start()


def test_a_certificate_near_its_end_is_named(fleet):
    box = fleet.boxes["lis-1"]
    pem, key, _ = certificate(fleet.folder, days=5)
    box.stop()
    text = box.config.read_text()
    shown = f'token_file = "{fleet.token}"\nclient_cert = "{pem}"\nclient_key = "{key}"'
    box.config.write_text(text.replace(f'token_file = "{fleet.token}"', shown))
    box.start()
    try:
        report = found("lis-1", "--only", "certificate", code=1)
        assert "steering.client_cert ends in 5 days; allowed: 7 days" in sentences(report, "certificate")
    finally:
        box.stop()
        box.config.write_text(text)
        box.start()


def test_a_device_that_somebody_else_has_filled_is_named(fleet):
    # Its capacity is more than the file system has.
    box = fleet.boxes["lis-1"]
    box.stop()
    text = box.config.read_text()
    box.config.write_text(text.replace('"1 GiB"', '"900 TiB"'))
    box.start()
    try:
        report = found("lis-1", "--only", "devices", code=1)
        assert "has less room than its capacity of" in sentences(report, "devices")
    finally:
        box.stop()
        box.config.write_text(text)
        box.start()


def test_a_device_slower_than_its_tier_is_named(fleet):
    report = found("lis-1", "--only", "devices", "--speeds", "nvme=999999/999999", code=1)
    assert "allowed: 1000.0 GB/s and 1000.0 GB/s at least" in sentences(report, "devices")


def test_a_clock_that_is_off_is_named(fleet):
    # Another start of the box, as steering sees it, whose clock is wrong; the real one is an old one for 13 s.
    speaker = fleet.replica.speaker("lis-1")
    speaker.beat(sent_at=1.0)
    report = found("lis-1", "--only", "clock", code=1)
    assert "s from steering's; allowed: 5 s" in sentences(report, "clock")
    wait_until(lambda: abs(members(fleet.replica)["lis-1"]["clock_offset"]) < 5, "the real one is heard again")


def test_a_prefix_that_is_missing_is_named_and_who_has_more(fleet):
    both = [["198.18.0.0/24"], ["198.18.1.0/24"]]
    for name, routes in (("lis-1", both), ("lis-2", both)):
        learn(fleet, name, 7, routes)
    assert "2 accepted, the same as at lis-2" in sentences(found("lis-1", "--only", "prefixes"), "prefixes", "passed")
    learn(fleet, "lis-1", 8, both[:1])
    report = found("lis-1", "--only", "prefixes", code=1)
    assert "1 accepted, and not the same as at its site: lis-2 has 2" in sentences(report, "prefixes")
    learn(fleet, "lis-1", 9, [["45.1.0.0/16"]])
    report = found("lis-1", "--only", "prefixes", code=1)
    assert "none of what it learned is accepted: 1 not_allowed" in sentences(report, "prefixes")


def learn(fleet, name, version, routes):
    message = {"appliance": name, "version": version, "kind": "kernel", "prefixes": routes}
    assert fleet.replica.speaker(name).tell("/v1/prefixes", message).status == 200


def test_an_address_that_does_not_answer_is_named_by_its_family(fleet):
    declare(fleet, "lis-1", ipv4=["127.0.0.1", "127.0.0.9"])
    try:
        report = found("lis-1", "--only", "families", "--only", "read-back", code=1)
    finally:
        declare(fleet, "lis-1")
    assert report["failed"] == ["families", "read-back"]
    assert "IPv4 127.0.0.9:" in sentences(report, "families")
    assert "IPv4 127.0.0.1:" in sentences(report, "families", "passed")
    assert "IPv6: no address is declared" in sentences(report, "families", "warned")


def test_cards_that_carry_less_than_is_declared_are_not_judged_where_they_do_not_say(fleet):
    report = found("lis-1", "--only", "network")
    assert "lo: the speed is not known" in sentences(report, "network", "warned")


def declare(fleet, name, **more):
    """Another declaration of a box in the inventory file, which steering reads anew."""
    before = members(fleet.replica)
    version = fleet.replica.admin("GET", "/v1/inventory").json()["version"]
    for one in fleet.replica.fleet["appliance"]:
        if one["id"] == name:
            for key in ("ipv4", "ipv6"):
                one.pop(key, None)
            one.update(more)
    fleet.replica.write_inventory()
    fleet.replica.process.send_signal(1)
    wait_until(
        lambda: fleet.replica.admin("GET", "/v1/inventory").json()["version"] > version, "the inventory is read anew"
    )
    assert members(fleet.replica)[name]["proof"] == before[name]["proof"]


# --- Two at once, none at all, and what can't be ---


def test_of_two_who_turn_up_a_box_at_once_one_is_told_to_wait(fleet, path):
    box = fleet.boxes["lis-1"]
    fleet.origin.put(path, 1000)
    gate = fleet.origin.gate(path, 0)
    order = {"parts": ["sources"], "size_bytes": 16 << 20, "path": path}
    asking = threading.Thread(target=lambda: box.control("POST", "/v1/probe", order))
    asking.start()
    gate.wait_reached()
    ran = turned_up("lis-1", "--only", "clock")
    gate.open()
    asking.join()
    assert (ran.exit_code, "under way already" in ran.stderr) == (2, True)
    assert turned_up("lis-1", "--only", "clock").exit_code == 0


def test_a_dead_box_is_named_and_the_others_are_checked_all_the_same(fleet):
    box = fleet.boxes["lis-2"]
    before = proof(fleet, "lis-2")
    box.kill_all()
    try:
        ran = turned_up("--site", "lis", "--only", "clock", "--json")
        told = json.loads(ran.stdout)
        assert (ran.exit_code, list(told["unanswered"])) == (7, ["lis-2"])
        assert [report["appliance"] for report in told["reports"]] == ["lis-1"]
        assert "oca-admin turn-up: lis-2: http://127.0.0.1:" in ran.stderr
        assert turned_up("lis-2").exit_code == 7
        assert proof(fleet, "lis-2") == before, "of what gave no answer nothing is known"
    finally:
        box.start()


def test_all_boxes_are_turned_up_in_one_run(fleet):
    learn(fleet, "lis-1", 11, [["198.18.0.0/24"]])
    learn(fleet, "lis-2", 11, [["198.18.0.0/24"]])
    wait_until(
        lambda: all(one["heard"] is not None and one["heard"] < 5 for one in members(fleet.replica).values()),
        "all speak",
    )
    ran = turned_up("--all", "--json")
    assert ran.exit_code == 0, ran.stdout + ran.stderr
    assert [(one["appliance"], one["recorded"]) for one in json.loads(ran.stdout)["reports"]] == [
        (name, True) for name in BOXES
    ]
    wait_until(lambda: all(serving(fleet, name) for name in BOXES), "all serve")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "say which: ids of appliances, --site, or --all"),
        (["lis-1", "--all"], 2, "say which"),
        (["lis-9"], 2, "no appliance 'lis-9'"),
        (["--put-content"], 2, "--put-content and --to go together"),
        (["--put-content", "--to", "/nowhere/at/all"], 2, "allowed: s3://bucket/prefix, or a folder that is there"),
        (["lis-1", "--speeds", "tape=1/1"], 2, "allowed: such as hdd=80/120"),
        (["lis-1", "--steering", "http://127.0.0.1:9"], 7, "no answer"),
        (["lis-1", "--only", "clock", "--report", "/nowhere/at/all.md"], 6, "--report /nowhere/at/all.md: can't be"),
    ],
)
def test_what_can_not_be_done_is_said_in_one_line(words, code, says):
    ran = turned_up(*words)
    assert ran.exit_code == code, ran.output
    assert says in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_signed_urls_are_for_boxes_that_there_are(fleet):
    ask = fleet.replica.admin
    got = ask("GET", f"/v1/signed?appliance=lis-1&path={content.PATH}&client=127.0.0.1").json()
    assert got["signed"]
    assert got["url"].startswith(f"{fleet.boxes['lis-1'].url}/URISigningPackage=")
    assert ask("GET", f"/v1/signed?appliance=lis-9&path={content.PATH}&client=127.0.0.1").status == 404
    assert ask("GET", f"/v1/signed?appliance=lis-1&path={content.PATH}&client=nobody").status == 400
    assert ask("GET", "/v1/signed?appliance=lis-1&path=relative&client=127.0.0.1").status == 400
