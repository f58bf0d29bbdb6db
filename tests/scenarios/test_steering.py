"""A steering replica as players, appliances and operators meet it."""

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import dns.edns
import dns.message
import dns.query
import dns.rcode
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pyroaring import BitMap

from tests.doubles.appliance import exchange, free_port, wait_until
from tests.doubles.authority import Authority
from tests.doubles.steering import SECRET, Replica, appliance, small_fleet
from wire.access import split_path
from wire.token import container_of, open_token, read_key_set

FILM = "/titles/film/master.m3u8"
INSIDE, OUTSIDE = "10.1.2.3", "192.0.2.9"
EVERYONE = ["lis-1", "lis-2", "mad-1"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """For tests that leave it as they found it. All appliances serve, and are kept serving by whoever needs it."""
    replica = Replica(tmp_path_factory.mktemp("steering")).start(patience={"quiet_after": 13, "silent_after": 14})
    try:
        yield replica
        replica.stop()
    finally:
        replica.kill()


@pytest.fixture
def steering(shared):
    shared.serving()
    return shared


@pytest.fixture
def make(tmp_path):
    made = []

    def one(fleet=None, **overrides):
        made.append(Replica(tmp_path / f"steering-{len(made)}", fleet))
        return made[-1].start(**overrides)

    yield one
    for replica in made:
        replica.kill()


# --- Players ---


def test_a_player_is_sent_to_its_own_provider_first_and_to_the_origin_last(steering):
    assert set(steering.steer(FILM, INSIDE)[:2]) == {"lis-1", "lis-2"}
    assert steering.steer(FILM, INSIDE)[2:] == ["mad-1", "origin"]


def test_a_player_of_another_network_is_never_sent_to_a_site_that_is_not_for_it(steering):
    assert steering.steer(FILM, OUTSIDE) == ["mad-1", "origin"]


def test_all_ways_of_asking_agree(steering):
    by_json = steering.public(f"/v1/steer?path={FILM}&client={INSIDE}").json()["options"]
    by_redirect = steering.public(f"/redirect{FILM}?client={INSIDE}")
    by_manifest = steering.steering_manifest(FILM, INSIDE)
    explained = steering.explain(FILM, INSIDE)
    names = [option["id"] for option in by_json]
    assert by_manifest["PATHWAY-PRIORITY"] == names
    assert [place["id"] for place in explained["answer"]] == names
    assert by_redirect.status == 302
    assert by_redirect["Location"].startswith(by_json[0]["url"])
    assert by_redirect["Cache-Control"] == "no-store"


def test_urls_lead_to_the_path_that_was_asked_for(steering):
    options = steering.public(f"/v1/steer?path=/titles/a/b%20c/d.m4s&client={INSIDE}").json()["options"]
    assert all(option["url"].endswith(".example/titles/a/b%20c/d.m4s") for option in options)


def test_an_hls_player_is_left_where_it_began_by_the_first_answer_and_led_on_by_the_next(steering):
    names = steering.steer(FILM, INSIDE)
    first = steering.steering_manifest(FILM, INSIDE, "&_HLS_pathway=.")
    assert first["PATHWAY-PRIORITY"] == [".", *names]
    again = urlsplit(first["RELOAD-URI"])
    got = steering.public(f"{again.path}?{again.query}&client={INSIDE}&_HLS_pathway=.")
    assert got.json()["PATHWAY-PRIORITY"] == names


def test_a_content_steering_manifest_is_what_players_can_bear(steering):
    got = steering.public(f"/v1/content-steering?path={FILM}&client={INSIDE}", Origin="https://page.example")
    manifest = got.json()
    assert manifest["VERSION"] == 1
    assert 1 <= manifest["TTL"] <= 60
    assert manifest["RELOAD-URI"].startswith(f"http://127.0.0.1:{steering.public_port}/v1/content-steering?path=")
    assert got["Content-Type"] == "application/vnd.apple.steering-list"
    assert got["Access-Control-Allow-Origin"] == "*"
    assert got["Cache-Control"] == "no-store"
    for clone in manifest["PATHWAY-CLONES"]:
        assert clone["BASE-ID"] == "."
        assert clone["URI-REPLACEMENT"]["HOST"] == (
            "origin.example" if clone["ID"] == "origin" else f"{clone['ID']}.edge.example"
        )


@pytest.mark.parametrize(
    "said",
    [
        "_HLS_pathway=lis-2&_HLS_throughput=5000000",
        "_DASH_pathway=%22lis-2,mad-1%22&_DASH_throughput=578350666,1107670000",
        "_DASH_pathway=lis-2&_DASH_throughput=1",
    ],
)
def test_a_playing_client_stays_where_it_is_while_that_is_well(steering, said):
    assert steering.steering_manifest(FILM, INSIDE, f"&{said}")["PATHWAY-PRIORITY"][0] == "lis-2"


@pytest.mark.parametrize(
    "said", ["_HLS_pathway=%00%ff", "_HLS_pathway=" + "x" * 5000, "_HLS_throughput=-1e999", "base=a/b"]
)
def test_hostile_words_of_a_player_are_passed_over(steering, said):
    assert steering.steering_manifest(FILM, INSIDE, f"&{said}")["PATHWAY-PRIORITY"][-1] == "origin"


@pytest.mark.parametrize("path", ["", "no-slash", "//host/x", "/a/../b", "/a%25zz", "/" + "x" * 3000, "/a%0d%0ab"])
def test_a_bad_path_is_refused_with_a_sentence_and_content_steering_answers_all_the_same(steering, path):
    got = steering.public(f"/v1/steer?path={path}&client={INSIDE}")
    assert got.status == 400
    assert "path" in got.json()["error"]
    assert steering.steering_manifest(path, INSIDE)["TTL"] >= 1


def test_a_page_of_any_site_may_ask(steering):
    preflight = exchange(steering.public_port, "OPTIONS", "/v1/steer", {"Origin": "https://page.example"}, None)
    assert preflight.status == 204
    assert preflight["Access-Control-Allow-Origin"] == "*"
    assert int(preflight["Access-Control-Max-Age"]) > 0


# --- Who is asking ---


def test_a_listed_proxy_is_believed_as_far_as_listed_proxies_wrote(steering):
    def answer(**headers):
        return [one["id"] for one in steering.public(f"/v1/steer?path={FILM}", **headers).json()["options"]]

    assert answer(X_Forwarded_For=INSIDE)[0].startswith("lis")
    assert answer(X_Forwarded_For=f"{INSIDE}, {OUTSIDE}") == ["mad-1", "origin"], "the client wrote the first itself"
    assert answer(X_Forwarded_For=f"{OUTSIDE}, {INSIDE}, 127.0.0.1")[0].startswith("lis")


def test_whoever_is_not_a_listed_proxy_can_not_say_who_it_is(make):
    replica = make(limits={"trusted_proxies": []})
    replica.serving()
    got = replica.public(f"/v1/steer?path={FILM}&client={INSIDE}", X_Forwarded_For=INSIDE)
    assert [option["id"] for option in got.json()["options"]] == ["mad-1", "origin"]


def test_a_proxy_that_names_nonsense_gets_a_sentence(steering):
    got = steering.public(f"/v1/steer?path={FILM}&client=nobody")
    assert got.status == 400
    assert "nobody" in got.json()["error"]


def test_who_asks_too_often_waits_and_a_playing_client_is_told_to_ask_later(make):
    replica = make(limits={"rate": 0.001, "burst": 3}, answers={"jitter": 0.0, "hurried_factor": 4})
    replica.serving()
    answers = [replica.public(f"/v1/steer?path={FILM}&client={INSIDE}").status for _ in range(5)]
    assert answers == [200, 200, 200, 429, 429]
    refused = replica.public(f"/redirect{FILM}?client={INSIDE}")
    assert refused.status == 429
    assert int(refused["Retry-After"]) > 0
    manifest = replica.steering_manifest(FILM, INSIDE, "&_HLS_pathway=lis-2")
    assert manifest["TTL"] == 240
    assert manifest["PATHWAY-PRIORITY"][0] == "lis-2", "who asks too often is not moved for it"
    assert replica.steering_manifest(FILM, "10.9.9.9")["TTL"] == 60, "another network asks for itself"
    assert replica.metric("oca_steering_limited_total") == 4


def test_whoever_opens_a_connection_and_never_ends_its_question_is_shown_out(make):
    replica = make(limits={"head": "0.5 s"})
    doors = (replica.public_port, replica.fleet_port, replica.admin_port)
    with contextlib.ExitStack() as stack:
        for door in doors:
            idler = stack.enter_context(socket.create_connection(("127.0.0.1", door), timeout=30))
            idler.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
            assert idler.recv(1) == b""
    assert replica.metric("oca_steering_loiterers_total") == len(doors)


# --- Appliances ---


def test_an_appliance_that_says_it_is_unwell_gets_no_player_from_then_on(steering):
    speakers = steering.speakers()
    speakers["lis-1"].boot = "boot-unwell"
    speakers["lis-1"].beat(ready=False, reasons=["2 of 4 workers are not up"])
    assert steering.standing("lis-1") == "suspect"
    assert steering.steer(FILM, INSIDE)[0] == "lis-2"
    rejected = steering.explain(FILM, INSIDE)["rejected"]
    assert [(row["appliance"], row["why"]) for row in rejected] == [("lis-1", "suspect")]


def test_a_silent_appliance_is_lost_and_its_players_move(make):
    replica = make(patience={"interval": 1, "quiet_after": 1.5, "silent_after": 2, "panic_least": 100})
    speakers = replica.serving()

    def is_lost():
        speakers["lis-2"].beat()
        speakers["mad-1"].beat()
        return replica.standing("lis-1") == "lost"

    wait_until(is_lost, "the silent one is lost")
    assert replica.steering_manifest(FILM, INSIDE, "&_HLS_pathway=lis-1")["PATHWAY-PRIORITY"] == [
        "lis-2",
        "mad-1",
        "origin",
    ]
    assert "lis-1: suspect -> lost" in replica.log.read_text()


def test_when_everybody_falls_silent_at_once_the_last_view_is_kept(make):
    replica = make(patience={"interval": 1, "quiet_after": 1.5, "silent_after": 2})
    replica.serving()
    wait_until(lambda: replica.metric("oca_steering_panic") == 1, "silence is suspected to be ours")
    assert set(replica.steer(FILM, INSIDE)[:2]) == {"lis-1", "lis-2"}
    assert replica.admin("GET", "/readyz").status == 503


def test_an_appliance_speaks_for_itself_only(steering):
    speaker = steering.speaker("lis-1")
    message = {"appliance": "lis-2", "boot": "b", "sequence": 1, "sent_at": 0, "ready": True}
    other = speaker.tell("/v1/heartbeat", message)
    assert other.status == 403
    assert "lis-1" in other.json()["error"]


@pytest.mark.parametrize(
    ("name", "token"), [("lis-1", "wrong"), ("stranger", "wrong"), ("", ""), ("lis-1", "x" * 5000)]
)
def test_without_its_token_nobody_is_heard(steering, name, token):
    got = steering.speaker(name, token=token).beat(ready=False)
    assert got.status == 401
    assert got["WWW-Authenticate"] == "Bearer"
    assert steering.standing("lis-1") == "serving"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"appliance":"lis-1"}',
        b'{"appliance":"lis-1","boot":"b","sequence":-1,"sent_at":0,"ready":true}',
        b'{"appliance":"lis-1","boot":"b","sequence":1,"sent_at":0,"ready":true,"cpu":7}',
        b'{"appliance":"lis-1","boot":"\xff","sequence":1,"sent_at":0,"ready":true}',
    ],
)
def test_a_heartbeat_that_is_none_is_refused_with_what_is_wrong(steering, body):
    got = steering.speaker("lis-1").tell("/v1/heartbeat", body)
    assert got.status == 400
    assert "Heartbeat" in got.json()["error"]


def test_a_heartbeat_of_a_megabyte_is_not_read(steering):
    got = steering.speaker("lis-1").tell("/v1/heartbeat", b" " * 1_000_000)
    assert got.status == 413


def test_holdings_decide_among_equals(steering):

    home = steering.steer(FILM, INSIDE)[0]
    message = {
        "appliance": home,
        "boot": "boot-1",
        "version": 1,
        "bitmap": base64.b64encode(BitMap([1, 5, 9]).serialize()).decode(),
    }
    assert steering.speaker(home).tell("/v1/holdings", message).status == 200
    assert steering.admin("GET", f"/v1/fleet/{home}").json()["holdings"]["renditions"] == 3
    assert steering.speaker(home).tell("/v1/holdings", {**message, "bitmap": "AAAA", "version": 2}).status == 403


def test_a_heartbeat_with_newer_holdings_is_asked_for_them(steering):
    speaker = steering.speaker("mad-1", boot="boot-of-holdings")
    assert speaker.beat(holdings_version=7).json()["wants_holdings"] is True


# --- Operators ---


def test_a_drain_is_ordered_kept_with_who_and_why_and_taken_back(make):
    replica = make()
    speakers = replica.serving()
    drain = {"type": "set-wish", "appliance": "lis-1", "wish": "drain"}
    assert replica.change(drain, who="ana", why="disk").status == 200
    assert replica.standing("lis-1") == "draining"
    assert speakers["lis-1"].beat().json()["drain"] is True
    assert replica.steer(FILM, INSIDE)[0] == "lis-2"
    speakers["lis-1"].beat(connections=0)
    assert replica.standing("lis-1") == "drained"
    kept = replica.admin("GET", "/v1/changes?limit=1").json()["changes"][0]
    assert (kept["who"], kept["why"], kept["source"]) == ("ana", "disk", "api")
    assert kept["change"] == drain
    replica.change({"type": "set-wish", "appliance": "lis-1", "wish": "serve"})
    assert speakers["lis-1"].beat().json()["drain"] is False
    assert replica.standing("lis-1") == "joining", "trust is earned anew"


def test_who_can_not_be_spared_is_drained_by_force_only(make):
    replica = make()
    speakers = replica.serving()
    for name in ("lis-1", "lis-2"):
        speakers[name].beat(egress_bps=6_000_000_000)
    drain = {"type": "set-wish", "appliance": "lis-1", "wish": "drain"}
    both = [{"type": "set-wish", "appliance": name, "wish": "disable"} for name in ("lis-1", "lis-2")]
    got = replica.change(drain, force=False)
    said = "nothing was changed: lis would be 120% full; with force it is done all the same"
    assert (got.status, got.json()["error"]) == (409, said)
    assert "lis has no other appliance for its viewers" in replica.change(*both, force=False).json()["error"]
    assert replica.standing("lis-1") == "serving"
    assert replica.admin("GET", "/v1/changes?limit=1").json()["changes"][0]["source"] == "file"
    speakers["lis-2"].beat(egress_bps=3_000_000_000)
    assert replica.change(drain, force=False).status == 200


def test_maintenance_is_planned_begins_and_is_cancelled(make):
    replica = make()
    replica.serving()
    now = time.time()
    window = {"start": now - 60, "stop": now + 3600}
    assert replica.change({"type": "plan-maintenance", "appliance": "lis-1", **window}, force=False).status == 200
    wait_until(lambda: replica.standing("lis-1") == "draining", "it begins")
    told = replica.admin("GET", "/v1/fleet/lis-1").json()
    assert (told["resting"], told["wish"], told["put_off"]) == (True, "serve", None)
    assert told["maintenance"] == [{**window, "forced": False}]
    other = {"type": "plan-maintenance", "appliance": "lis-2", "start": now + 1800, "stop": now + 7200}
    got = replica.change(other, force=False)
    assert "lis has no other appliance for its viewers" in got.json()["error"], "both at once"
    assert replica.change({**other, "start": now + 3600}, force=False).status == 200, "one after the other"
    replica.stop()
    replica.start()
    assert replica.standing("lis-1") == "draining"
    assert replica.change({"type": "cancel-maintenance", "appliance": "lis-1"}).status == 200
    wait_until(lambda: replica.standing("lis-1") != "draining", "it is over")
    assert replica.admin("GET", "/v1/fleet/lis-1").json()["maintenance"] == []


def test_what_is_made_by_api_outlives_a_restart_and_goes_by_api(make):
    replica = make()
    new = {"type": "put-appliance", "appliance": appliance("lis-3", "lis")}
    assert replica.change(new).status == 200
    replica.stop()
    replica.start()
    assert replica.standing("lis-3") == "lost"
    assert replica.change({"type": "remove-appliance", "id": "lis-3"}).status == 200
    assert replica.admin("GET", "/v1/fleet/lis-3").status == 404


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"type": "put-appliance", "appliance": appliance("x", "nowhere")}, "nowhere"),
        ({"type": "put-appliance", "appliance": appliance("lis-1", "lis", url="ftp://x")}, "inventory file"),
        ({"type": "remove-site", "id": "lis"}, "inventory file"),
        ({"type": "set-wish", "appliance": "nobody", "wish": "drain"}, "nobody"),
    ],
)
def test_a_change_that_can_not_be_is_refused_and_nothing_has_changed(steering, change, says):
    before = steering.admin("GET", "/v1/inventory").json()
    got = steering.change(change)
    assert got.status == 409
    assert says in got.json()["error"]
    assert steering.admin("GET", "/v1/inventory").json() == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"who": "", "why": "x", "changes": []},
        {"who": "a", "why": "b", "changes": [{"type": "explode"}]},
        {"who": "a", "why": "b", "changes": [{"type": "set-wish", "appliance": "lis-1", "wish": "fly"}]},
    ],
)
def test_an_order_that_is_none_is_refused_with_what_is_wrong(steering, body):
    assert steering.admin("POST", "/v1/changes", body).status == 400


def test_a_new_token_is_good_at_once_and_the_old_one_no_more(make):
    replica = make()
    order = {"who": "ana", "why": "stolen", "appliance": "lis-1"}
    refused = replica.admin("POST", "/v1/tokens", order)
    assert refused.status == 409, "it is declared in the file"
    replica.change({"type": "put-appliance", "appliance": appliance("lis-9", "lis")})
    token = replica.admin("POST", "/v1/tokens", {**order, "appliance": "lis-9"}).json()["token"]
    assert replica.speaker("lis-9").beat().status == 401
    assert replica.speaker("lis-9", token=token).beat().status == 200
    assert token not in (replica.folder / "state" / "registry.sqlite").read_bytes().decode("latin-1")


def test_the_file_is_read_anew_by_sighup_and_a_mistake_in_it_changes_nothing(make):
    replica = make()
    replica.fleet["appliance"].append(appliance("lis-3", "lis"))
    replica.write_inventory()
    replica.process.send_signal(signal.SIGHUP)
    wait_until(lambda: replica.admin("GET", "/v1/fleet/lis-3").status == 200, "the new one is known")
    replica.inventory.write_text('[[site]]\nid = "lis"\noperator = "isp"\nlatitude = 95\n')
    replica.process.send_signal(signal.SIGHUP)
    wait_until(lambda: replica.metric("oca_steering_reload_failures_total") == 1, "the mistake is noticed")
    assert "line 4" in replica.log.read_text()
    assert replica.admin("GET", "/v1/fleet/lis-3").status == 200


def test_prometheus_finds_appliances_and_their_agents(make):
    fleet = small_fleet()
    fleet["appliance"][0] |= {"metrics": "10.0.0.1:9145", "agent_metrics": "10.0.0.1:9146"}
    fleet["appliance"][1]["metrics"] = "[2001:db8::1]:9145"
    replica = make(fleet)
    first, second = ({"appliance": one["id"], "site": one["site"]} for one in fleet["appliance"][:2])
    place = {"operator": "isp", "country": "PT"}
    assert replica.admin("GET", "/v1/prometheus-targets").json() == [
        {"targets": ["10.0.0.1:9145"], "labels": first | place},
        {"targets": ["[2001:db8::1]:9145"], "labels": second | place},
    ]
    assert replica.admin("GET", "/v1/prometheus-targets?of=agents").json() == [
        {"targets": ["10.0.0.1:9146"], "labels": first | place}
    ]
    refused = replica.admin("GET", "/v1/prometheus-targets?of=mice")
    assert (refused.status, b"appliances or agents" in refused.body) == (400, True)


def test_an_explanation_adds_up(steering):
    explained = steering.explain(FILM, INSIDE)
    assert {row["appliance"] for row in explained["ranked"]} == set(EVERYONE)
    for row in explained["ranked"]:
        assert row["cost"] == pytest.approx(row["rtt"] + row["fetch"] + row["load"], abs=0.002)
    assert explained["client"]["network"] == "10.0.0.0/8"
    assert explained["reason"] in {"home", "spread", "nearest"}


# --- Never without an answer ---


def test_before_any_appliance_was_heard_the_static_list_answers(make):
    replica = make(fallback=[{"id": "static-1", "url": "http://static.example"}])
    assert replica.steer(FILM, INSIDE) == ["static-1", "origin"]
    assert replica.metric("oca_steering_decisions_total", fallback="static") == 1
    assert replica.admin("GET", "/readyz").status == 503


def test_a_restarted_steering_has_a_view_at_once(make):
    replica = make()
    replica.serving()
    before = replica.steer(FILM, INSIDE)
    replica.stop()
    replica.start()
    assert replica.steer(FILM, INSIDE) == before
    assert replica.metric("oca_steering_decisions_total", fallback="snapshot") == 1
    replica.serving()
    replica.steer(FILM, INSIDE)
    assert replica.metric("oca_steering_decisions_total", fallback="ranked") == 1


def test_a_view_that_can_not_be_read_is_left_out(make):
    replica = make()
    replica.stop()
    (replica.folder / "state" / "view").write_bytes(os.urandom(1000))
    replica.start()
    assert replica.steer(FILM, INSIDE) == ["origin"]


def test_without_time_to_rank_the_regions_list_answers(make):
    replica = make(limits={"lag": "0 s"})
    replica.serving()

    def is_listed():
        return "lis-1" in replica.steer(FILM, INSIDE)

    wait_until(is_listed, "the region's list is made")
    assert replica.metric("oca_steering_decisions_total", fallback="region") >= 1
    assert replica.steer(FILM, OUTSIDE)[-1] == "origin"


# --- What is written, and read again ---


def test_decisions_are_made_again_from_their_log(make):
    replica = make()
    speakers = replica.serving()
    for number in range(40):
        replica.steer(f"/titles/film-{number}/master.m3u8", INSIDE)
        speakers["lis-1"].beat(egress_bps=number * 250_000_000)
    replica.stop()
    lines = [json.loads(line) for line in replica.decisions.read_text().splitlines()]
    assert len(lines) == 40
    assert all("10.1.2.3" not in json.dumps(line) for line in lines), "the client's address is not kept"
    done = _command("replay", str(replica.decisions))
    assert done.returncode == 0, done.stdout
    assert "40 the same, 0 different" in done.stdout
    lines[3]["chosen"] = ["mad-1", "lis-1", "origin"]
    replica.decisions.write_text("\n".join(map(json.dumps, lines)))
    done = _command("replay", str(replica.decisions))
    assert done.returncode == 1
    assert "line 4" in done.stdout


@pytest.mark.parametrize("text", ["{", '{"id": 3}', "\xff"])
def test_a_log_that_is_none_is_named_with_its_line(tmp_path, text):
    log = tmp_path / "log"
    log.write_text(text, encoding="latin-1")
    done = _command("replay", str(log))
    assert done.returncode == 1
    assert "line 1" in done.stderr


def test_check_says_what_settings_mean_and_what_is_wrong_with_them(tmp_path):
    replica = Replica(tmp_path)
    replica.write_settings()
    assert "2 sites, 3 appliances" in _command("check", "--config", str(replica.config)).stdout
    replica.fleet["appliance"][0]["site"] = "nowhere"
    replica.write_inventory()
    done = _command("check", "--config", str(replica.config))
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    replica.write_settings(ranking={"hard_limit": 1.5})
    done = _command("check", "--config", str(replica.config))
    assert done.returncode == 2
    assert "hard_limit" in done.stderr


def test_an_address_that_is_taken_stops_the_start_with_a_sentence(tmp_path, shared):
    replica = Replica(tmp_path)
    replica.admin_port, replica.fleet_port, replica.public_port = free_port(), free_port(), shared.public_port
    replica.write_settings()
    done = _command("serve", "--config", str(replica.config))
    assert done.returncode == 1
    assert f"127.0.0.1:{shared.public_port}" in done.stderr
    assert "Traceback" not in done.stderr


def _command(*words):
    return subprocess.run(
        [sys.executable, "-m", "steering", *words], capture_output=True, text=True, timeout=60, check=False
    )


# --- DNS ---

ZONE = {
    "zone": "steer.example",
    "hostmaster": "noc@steer.example",
    "name_servers": [{"name": "ns1.steer.example", "addresses": ["192.0.2.53"]}],
}


@pytest.fixture
def resolver(make):
    """A replica with a zone, all of whose appliances serve, and a function that asks it."""
    fleet = small_fleet()
    for number, entry in enumerate(fleet["appliance"], start=1):
        entry["ipv4"] = [f"198.51.100.{number}"]
    fleet["appliance"][2]["ipv6"] = ["2001:db8::3"]
    port = free_port()
    replica = make(fleet, dns=ZONE, listen={"dns": f"127.0.0.1:{port}"})
    replica.serving()

    def ask(name, kind="A", subnet=None, by=dns.query.udp):
        options = [] if subnet is None else [dns.edns.ECSOption.from_text(subnet)]
        question = dns.message.make_query(f"{name}.steer.example", kind, use_edns=0, options=options)
        return by(question, "127.0.0.1", timeout=30, port=port)

    ask.replica = replica
    return ask


def addresses(answer):
    return [record.to_text() for records in answer.answer for record in records]


def test_dns_gives_the_addresses_of_the_same_decision(resolver):
    inside = resolver("film.films", subnet="10.1.2.0/24")
    names = resolver.replica.explain("/titles/film/", "10.1.2.0")["ranked"]
    of = {"lis-1": "198.51.100.1", "lis-2": "198.51.100.2", "mad-1": "198.51.100.3"}
    assert sorted(addresses(inside)) == sorted(of[row["appliance"]] for row in names)
    assert {of["lis-1"], of["lis-2"]} < set(addresses(inside))
    assert addresses(resolver("films", subnet="192.0.2.0/24")) == [of["mad-1"]]


@pytest.mark.parametrize("by", [dns.query.udp, dns.query.tcp])
def test_dns_tells_a_resolver_for_whom_the_answer_is(resolver, by):
    answer = resolver("films", subnet="10.1.2.0/24", by=by)
    (subnet,) = [option for option in answer.options if option.otype == dns.edns.OptionType.ECS]
    assert 1 <= subnet.scopelen <= 24, "10.0.0.0/8 is announced: all of it has this answer, or its database's part"
    assert answer.answer[0].ttl == 30


def test_dns_has_no_data_for_a_family_that_nobody_has_and_no_name_for_what_does_not_exist(resolver):
    assert addresses(resolver("lis-1.edge", "AAAA")) == []
    assert resolver("lis-1.edge", "AAAA").rcode() == dns.rcode.NOERROR
    assert addresses(resolver("mad-1.edge", "AAAA")) == ["2001:db8::3"]
    assert addresses(resolver("lis-1.edge")) == ["198.51.100.1"]
    assert resolver("nobody.edge").rcode() == dns.rcode.NXDOMAIN
    assert resolver.replica.metric("oca_steering_dns_total", reason="nxdomain") == 1
    assert resolver.replica.metric("oca_steering_decisions_total", way="dns") == 0


def test_dns_names_nobody_who_gets_no_players(resolver):
    replica = resolver.replica
    replica.change({"type": "set-wish", "appliance": "mad-1", "wish": "disable"})
    assert addresses(resolver("films", subnet="192.0.2.0/24")) == []
    assert addresses(resolver("mad-1.edge")) == ["198.51.100.3"], "who plays there still finds it"


# --- Prefixes that appliances learned ---


def test_learned_prefixes_count_within_what_the_operator_is_allowed(make):
    fleet = small_fleet()
    fleet["site"][0].pop("prefixes")
    fleet["operator"][0]["allowed"] = ["203.0.112.0/22", "198.18.0.0/15"]
    replica = make(fleet)
    speakers = replica.serving()
    assert replica.steer(FILM, "198.18.7.7") == ["mad-1", "origin"]
    assert speakers["lis-1"].beat(prefixes_version=5).json()["wants_prefixes"] is True
    message = {
        "appliance": "lis-1",
        "version": 5,
        "kind": "kernel",
        "prefixes": [["198.18.0.0/16"], ["0.0.0.0/0"], ["8.8.8.0/24"], ["nonsense"]],
    }
    got = speakers["lis-1"].tell("/v1/prefixes", message)
    assert got.status == 200
    assert got.json()["accepted"] == 1
    assert got.json()["rejected"] == {"default_route": 1, "not_allowed": 1, "malformed": 1}
    assert speakers["lis-1"].beat().json()["wants_prefixes"] is False
    assert replica.steer(FILM, "198.18.7.7")[0].startswith("lis")
    assert replica.explain(FILM, "198.18.7.7")["client"]["network"] == "198.18.0.0/16"
    assert replica.metric("oca_steering_prefixes_refused", reason="not_allowed") == 1
    speakers["lis-1"].tell("/v1/prefixes", {**message, "version": 6, "prefixes": []})
    assert replica.steer(FILM, "198.18.7.7") == ["mad-1", "origin"]


def test_an_appliance_can_not_announce_for_another(steering):
    message = {"appliance": "mad-1", "version": 1, "kind": "kernel", "prefixes": []}
    assert steering.speaker("lis-1").tell("/v1/prefixes", message).status == 403


# --- Tokens ---


@pytest.fixture
def signing(make, tmp_path):
    """A replica that signs URLs, and the folder of its keys."""
    folder = tmp_path / "keys"
    folder.mkdir()
    write_key(folder / "one.pem")
    replica = make(tokens={"folder": str(folder), "issuer": "steer", "publish_ahead": "0 s"})
    replica.serving()
    replica.keys = folder
    return replica


def write_key(path):
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)


def keys_of(replica):
    got = exchange(
        replica.fleet_port, "GET", "/v1/keys", {"X-Appliance": "lis-1", "Authorization": f"Bearer {SECRET}"}, None
    )
    assert got.status == 200
    return read_key_set(got.body)


def test_urls_are_signed_for_the_title_on_every_appliance_and_not_for_the_origin(signing):
    options = signing.public(f"/v1/steer?path={FILM}&client={INSIDE}").json()["options"]
    assert options[-1] == {"id": "origin", "url": f"http://origin.example{FILM}"}
    for option in options[:-1]:
        token, path = split_path(urlsplit(option["url"]).path.encode())
        assert path == FILM.encode()
        opened = open_token(token, keys_of(signing), time.time())
        assert opened.claims.iss == "steer"
        container = container_of(opened.claims.cdniuc)
        assert container.covers(b"http://any.example/titles/film/720p/seg-1.m4s")
        assert not container.covers(b"http://any.example/titles/other/720p/seg-1.m4s")


def test_a_new_key_signs_and_the_old_one_is_honoured_on(signing):
    before = split_path(urlsplit(signing.public(f"/redirect{FILM}?client={INSIDE}")["Location"]).path.encode())[0]
    write_key(signing.keys / "two.pem")
    wait_until(lambda: "two" in keys_of(signing), "the new key is published")
    after = split_path(urlsplit(signing.public(f"/redirect{FILM}?client={INSIDE}")["Location"]).path.encode())[0]
    keys = keys_of(signing)
    assert open_token(before, keys, time.time()).key.kid == "one"
    assert open_token(after, keys, time.time()).key.kid == "two"


def test_keys_are_for_appliances(signing):
    assert exchange(signing.fleet_port, "GET", "/v1/keys", {}, None).status == 401


# --- TLS ---


@pytest.fixture
def guarded(make, tmp_path):
    """A replica whose fleet listener wants certificates of an authority, and a function that speaks to it."""
    authority = Authority(tmp_path)
    server = authority.sign("steering", "server.pem")
    replica = make(tls={"fleet_cert": server, "fleet_key": server, "fleet_client_ca": str(authority.path)})

    def connected(certificate):
        context = ssl.create_default_context(cafile=str(authority.path))
        if certificate is not None:
            context.load_cert_chain(certificate)
        return http.client.HTTPSConnection("127.0.0.1", replica.fleet_port, context=context, timeout=30)

    def beat(certificate, name, sequence=1, token=None):
        message = {"appliance": name, "boot": "b", "sequence": sequence, "sent_at": 0, "ready": True}
        headers = {"X-Appliance": name, **({} if token is None else {"Authorization": f"Bearer {token}"})}
        with contextlib.closing(connected(certificate)) as connection:
            connection.request("POST", "/v1/heartbeat", json.dumps(message), headers)
            return connection.getresponse().status

    return SimpleNamespace(replica=replica, authority=authority, beat=beat, connected=connected)


def test_prometheus_is_told_when_a_listeners_certificate_ends(guarded):
    shown = x509.load_pem_x509_certificate(Path(guarded.authority.sign("other", "other.pem")).read_bytes())
    ends = guarded.replica.metric("oca_steering_certificate_end_timestamp_seconds", listener="fleet")
    assert abs(ends - shown.not_valid_after_utc.timestamp()) < 60


def test_a_certificate_speaks_for_whom_it_names_and_for_no_other(guarded):
    own = guarded.authority.sign("lis-1", "own.pem")
    assert guarded.beat(own, "lis-1") == 200
    assert guarded.beat(own, "lis-2") == 401
    assert guarded.beat(own, "lis-2", token=SECRET) == 200, "its token speaks for it too"


def test_without_a_certificate_of_the_authority_nobody_gets_in(guarded, tmp_path):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        guarded.beat(None, "lis-1", token=SECRET)
    (tmp_path / "other").mkdir()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        guarded.beat(Authority(tmp_path / "other").sign("lis-1", "own.pem"), "lis-1", token=SECRET)


def test_a_new_certificate_is_shown_after_sighup_and_a_broken_one_is_not(guarded):
    own = guarded.authority.sign("lis-1", "own.pem")

    def shown():
        with contextlib.closing(guarded.connected(own)) as connection:
            connection.connect()
            return connection.sock.getpeercert()["serialNumber"]

    before = shown()
    guarded.authority.sign("steering", "server.pem")
    guarded.replica.process.send_signal(signal.SIGHUP)
    wait_until(lambda: shown() != before, "the new certificate is shown")
    after = shown()
    (guarded.authority.folder / "server.pem").write_text("half a certificate")
    guarded.replica.process.send_signal(signal.SIGHUP)
    wait_until(lambda: guarded.replica.metric("oca_steering_reload_failures_total") == 1, "the mistake is noticed")
    assert shown() == after
