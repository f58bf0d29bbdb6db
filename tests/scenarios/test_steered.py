"""Steering and appliances together, as real processes: what is promised to a player when one of them goes."""

import contextlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.doubles.appliance import exchange, wait_until
from tests.doubles.steering import SECRET, Replica, site
from tests.doubles.steering import appliance as entry

PLAYLIST = "/titles/film/720p/index.m3u8"
SEGMENT = "/titles/film/720p/seg-1.m4s"
VIEWER = "10.1.2.3"


@pytest.fixture
def fleet(make_appliance, origin, tmp_path):
    """Makes a replica and two appliances at two sites that report to it, all serving."""
    replicas = []
    origin.put(PLAYLIST, 300)
    origin.put(SEGMENT, 200_000)

    def make(access=None, **steering):
        boxes = {name: make_appliance(name=name) for name in ("near", "far")}
        declared = {
            "operator": [{"id": "isp"}, {"id": "ix"}],
            "site": [
                site("lis", "isp", 38.7, -9.1, "PT", prefixes=["10.0.0.0/8"]),
                site("mad", "ix", 40.4, -3.7, "ES", serves="everyone"),
            ],
            "appliance": [
                entry("near", "lis", url=boxes["near"].url),
                entry("far", "mad", url=boxes["far"].url),
            ],
        }
        replica = Replica(tmp_path / "steering", declared)
        replicas.append(replica)
        replica.start(
            patience={"rise": 2, "interval": 1, "quiet_after": 4, "silent_after": 6, "panic_least": 3}, **steering
        )
        token = tmp_path / "token"
        token.write_text(SECRET)
        token.chmod(0o600)
        for box in boxes.values():
            box.start(
                steering={
                    "urls": [f"http://127.0.0.1:{replica.fleet_port}"],
                    "token_file": str(token),
                    "interval": "1 s",
                    "interfaces": ["lo"],
                    "link_speed": "10 Gbit/s",
                },
                **({} if access is None else {"access": access}),
            )
        wait_until(lambda: all(replica.standing(name) == "serving" for name in boxes), "both serve")
        return replica, boxes

    yield make
    for replica in replicas:
        replica.kill()


def fetched(url):
    """A whole answer by an absolute URL."""
    host, _, path = url.removeprefix("http://").partition("/")
    return exchange(int(host.rpartition(":")[2]), "GET", f"/{path}", {}, None)


def options(replica, path=PLAYLIST):
    return replica.public(f"/v1/steer?path={path}&client={VIEWER}").json()["options"]


def test_what_steering_names_plays(fleet, origin):
    replica, _ = fleet()
    near, far, last = options(replica, SEGMENT)
    assert (near["id"], far["id"], last["id"]) == ("near", "far", "origin")
    assert fetched(near["url"]).body == fetched(far["url"]).body == origin.content(SEGMENT)
    shown = replica.admin("GET", "/v1/fleet/near").json()
    assert shown["heartbeat"]["ready"] is True
    assert shown["heartbeat"]["devices"][0]["standing"] == "online"
    assert abs(shown["clock_offset"]) < 60


def test_a_killed_appliance_is_lost_and_a_playing_client_is_sent_to_the_other(fleet):
    replica, boxes = fleet()
    on_near = "&_HLS_pathway=near"
    assert replica.steering_manifest(PLAYLIST, VIEWER, on_near)["PATHWAY-PRIORITY"][0] == "near"
    boxes["near"].kill_all()
    wait_until(lambda: replica.standing("near") == "lost", "it is lost")
    assert replica.steering_manifest(PLAYLIST, VIEWER, on_near)["PATHWAY-PRIORITY"] == ["far", "origin"]
    assert fetched(options(replica, SEGMENT)[0]["url"]).status == 200
    boxes["near"].start()
    wait_until(lambda: replica.standing("near") == "serving", "it serves again")
    assert options(replica)[0]["id"] == "near"


def test_a_drain_ordered_by_an_operator_reaches_the_box_and_is_taken_back(fleet):
    replica, boxes = fleet()
    replica.change({"type": "set-wish", "appliance": "near", "wish": "drain"})
    wait_until(lambda: boxes["near"].control("GET", "/readyz").status == 503, "the box drains")
    wait_until(lambda: replica.standing("near") == "drained", "nobody is left")
    assert options(replica)[0]["id"] == "far"
    replica.change({"type": "set-wish", "appliance": "near", "wish": "serve"})
    wait_until(lambda: boxes["near"].control("GET", "/readyz").status == 200, "the box takes players again")
    wait_until(lambda: replica.standing("near") == "serving", "steering sends them")


def test_appliances_go_on_serving_without_steering_and_are_heard_again_after_it(fleet):
    replica, boxes = fleet()
    url = options(replica, SEGMENT)[0]["url"]
    replica.kill()
    assert fetched(url).status == 200
    assert boxes["near"].control("GET", "/readyz").status == 200
    replica.start()
    wait_until(lambda: replica.standing("near") == "serving", "it is heard again")


def test_signed_urls_are_let_in_and_others_are_not_also_while_steering_is_away(fleet, origin, tmp_path):
    keys = tmp_path / "keys"
    keys.mkdir()
    write_key(keys / "one.pem")
    access = {"required": True, "issuers": ["steer"]}
    tokens = {"folder": str(keys), "issuer": "steer", "publish_ahead": "0 s"}
    replica, boxes = fleet(access, tokens=tokens)
    near = options(replica)[0]["url"]
    wait_until(lambda: fetched(near).status == 200, "the keys have come")
    assert boxes["near"].get(PLAYLIST).status == 401
    segment = near.removesuffix("index.m3u8") + "seg-1.m4s"
    assert fetched(segment).body == origin.content(SEGMENT), "a relative URL stays below the token"
    assert fetched(near.replace("/titles/film/", "/titles/other/")).status == 403
    replica.kill()
    boxes["near"].stop()
    with contextlib.ExitStack() as stack:
        boxes["near"].start()
        stack.callback(boxes["near"].kill_all)
        assert fetched(segment).status == 200, "keys outlive steering, and a restart"
        assert boxes["near"].get(PLAYLIST).status == 401


def write_key(path):
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
