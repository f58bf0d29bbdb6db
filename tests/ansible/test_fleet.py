"""A NOC and an ISP's appliances, set up as documented: from BGP to where a viewer is sent, and over to another version
in waves that stop where something is wrong.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
from http.client import HTTPConnection

import pytest

from admin.turnup.content import PATH as TURN_UP
from admin.turnup.content import content as turn_up_content
from tests.ansible.conftest import NEW, OLD, Viewers, write_inventory
from tests.doubles.appliance import wait_until
from tests.doubles.networks import announcer, bird, connect, machine
from tests.doubles.racking import PATIENCE, ROOT

pytestmark = [pytest.mark.racking, pytest.mark.timeout(900)]
SUBSCRIBERS = [f"100.{64 + number // 256}.{number % 256}.0/24" for number in range(1000)]
NONSENSE = [
    "0.0.0.0/0",
    "127.3.0.0/16",
    "100.90.1.128/25",
    "198.18.7.0/24",
    "::/0",
    "2001:db8:77::/48",
    "2a00:1:2:3::/64",
]
HERE = ["2a00:1234::/32"]
TOKEN = "a-token-of-lis-1"
SPEEDS = ["--speeds", "nvme=1/1", "--write", "16"]


@pytest.fixture(scope="module")
def noc(shelf):
    with shelf.box("noc-1") as box:
        yield box


@pytest.fixture(scope="module")
def appliances(shelf):
    with shelf.box("lis-1") as one, shelf.box("opo-1") as other:
        for box in (one, other):
            box.run("mkdir -p /srv/oca/d0 && chmod 777 /srv/oca/d0")
        yield {"lis-1": one, "opo-1": other}


@pytest.fixture(scope="module")
def router(appliances):
    """Of the ISP: it knows where the subscribers are, and says much more than it should."""
    with machine() as router:
        connect(router, appliances["lis-1"].at, ["10.80.0.1/30", "fd80::1/64"], ["10.80.0.2/30", "fd80::2/64"])
        yield router


@pytest.fixture(scope="module")
def inventory(shelf, noc, appliances, router, origin, dists):
    origin.put(TURN_UP, turn_up_content())
    entries = [
        {
            "id": name,
            "site": name.partition("-")[0],
            "url": f"http://{box.address}",
            "ipv4": [box.address],
            "metrics": f"{box.address}:9145",
            "token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
        }
        for name, box in appliances.items()
    ]
    own = {name: {"oca_control": f"{box.address}:9145"} for name, box in appliances.items()}
    own["lis-1"] |= {
        "bird_peers": [{"name": "edge", "address": "10.80.0.1", "as": 64500, "password": "a secret"}],
        "bird_router_id": "10.80.0.2",
        "oca_routes_kernel_table": 4999,
        "oca_settings": {"routes": {"poll": "1 s"}, "steering": {"interval": "1 s", "link_speed": "10 Gbit/s"}},
    }
    own["opo-1"] |= {"oca_settings": {"steering": {"interval": "1 s", "link_speed": "10 Gbit/s"}}}
    sites = [
        {"id": "lis", "operator": "isp-a", "latitude": 38.72, "longitude": -9.14, "country": "PT"},
        {"id": "opo", "operator": "isp-a", "latitude": 41.15, "longitude": -8.61, "country": "PT"},
    ]
    return write_inventory(
        shelf.folder / "fleet.yml",
        {
            "steering": {noc: {}},
            "noc": {noc: {}},
            "monitoring": {noc: {}},
            "appliances": {box: own[name] for name, box in appliances.items()},
        },
        oca_origin_url="http://10.77.1.1:8000",
        oca_workers=2,
        oca_devices=[{"path": "/srv/oca/d0", "tier": "nvme", "capacity": "1 GiB"}],
        oca_steering_urls=[f"http://{noc.address}:8444"],
        oca_steering_token=TOKEN,
        steering_base_url=f"http://{noc.address}:8080",
        steering_admin=f"{noc.address}:9146",
        steering_public="0.0.0.0:8080",
        steering_fleet="0.0.0.0:8444",
        steering_settings={"patience": {"interval": 1, "quiet_after": 4, "silent_after": 8, "rise": 1}},
        steering_inventory={
            "operator": [{"id": "isp-a", "asns": [64500], "allowed": ["100.64.0.0/10", *HERE]}],
            "site": sites,
            "appliance": entries,
        },
        admin_steering=f"http://{noc.address}:9146",
        admin_accounts=[{"name": "ana", "role": "operator", "password": HASH}],
        monitoring_steering=[f"{noc.address}:9146"],
        upgrade_turn_up=SPEEDS,
        upgrade_drain=5,
        upgrade_force=True,
        software_dist=str(dists[OLD]),
        software_version=OLD,
    )


HASH = "$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHRzYWx0c2FsdA$q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s"


@pytest.fixture(scope="module")
def fleet(shelf, inventory):
    return shelf.play("site.yml", inventory=inventory).assert_good()


@pytest.fixture(scope="module")
def speaker(router, shelf, fleet):
    text = announcer([*SUBSCRIBERS, *HERE, *NONSENSE], "10.80.0.2", 64500, 64496, "fd80::1")
    text = text.replace("connect delay time 1;", 'password "a secret"; connect delay time 1;')
    with bird(router, shelf.folder / "isp", text) as speaker:
        yield speaker


def admin(noc, *words):
    told = noc.ssh(
        f"/opt/oca/current/bin/oca-admin {' '.join(words)} --steering http://{noc.address}:9146", check=False
    )
    return told.returncode, told.stdout, told.stderr


def asked(shelf, noc, path):
    """What operators are told by steering."""
    with shelf.noc.entered():
        connection = HTTPConnection(noc.address, 9146, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def test_everything_runs_and_a_second_run_changes_nothing(shelf, noc, appliances, fleet, inventory):
    # Not chrony: a container may not set the clock, and it does not start there.
    for unit in ("oca-steering", "oca-admin", "prometheus", "prometheus-alertmanager"):
        assert noc.run(f"systemctl is-active {unit}.service").strip() == "active"
    assert noc.run("systemctl is-active oca-turn-up.timer").strip() == "active"
    again = shelf.play("site.yml", inventory=inventory).assert_good().changed()
    assert again == []
    assert shelf.play("site.yml", "--check", "--diff", inventory=inventory).assert_good().changed() == []


def test_a_new_appliance_has_viewers_after_its_turn_up_checks(shelf, noc, appliances, fleet):
    for name in appliances:

        def is_heard(name=name):
            return asked(shelf, noc, f"/v1/fleet/{name}")["standing"] in ("joining", "serving")

        wait_until(is_heard, "steering hears it", PATIENCE)
        code, said, wrong = admin(noc, "turn-up", name, *SPEEDS)
        assert code == 0, said + wrong


def test_what_the_isps_router_announces_decides_where_a_viewer_is_sent(shelf, noc, appliances, fleet, speaker):
    box = appliances["lis-1"]
    box.wait_for("test $(ip route show table 4999 | wc -l) -ge 1000")
    learned = {
        line.split()[1] if line.startswith("blackhole") else line.split()[0]
        for line in box.run("ip route show table 4999").splitlines()
    }
    assert learned == set(SUBSCRIBERS)
    box.wait_for("ip -6 route show table 4999 | grep -q 2a00:1234::/32")
    assert len(box.run("ip -6 route show table 4999").splitlines()) == 1
    # Nothing is forwarded by it.
    assert "4999" not in box.run("ip rule; ip -6 rule")

    def decision():
        return asked(shelf, noc, "/v1/explain?client=100.66.7.9&path=/titles/x/master.m3u8")

    def is_known():
        told = json.dumps(decision())
        return "lis-1" in told and "prefix" in told

    wait_until(is_known, "a viewer in such a prefix is sent to the ISP's own appliance", PATIENCE)
    # By its prefix, though the other site of the ISP has room as well.
    best = wait_until(lambda: decision()["ranked"], "somebody can serve", PATIENCE)[0]
    assert (best["appliance"], best["proximity"]) == ("lis-1", "prefix")


def test_prometheus_watches_what_steering_knows(shelf, noc, appliances, fleet):
    def targets():
        told = json.loads(noc.run("curl -s http://127.0.0.1:9090/api/v1/targets?state=active"))
        found = {
            (t["labels"]["job"], t["labels"].get("appliance", "")): t["health"] for t in told["data"]["activeTargets"]
        }
        return found if set(found.values()) == {"up"} and ("oca", "lis-1") in found else None

    assert set(wait_until(targets, "all are scraped", PATIENCE)) == {
        ("oca-steering", ""),
        ("oca", "lis-1"),
        ("oca", "opo-1"),
    }
    rules = json.loads(noc.run("curl -s http://127.0.0.1:9090/api/v1/rules"))
    names = {rule["name"] for group in rules["data"]["groups"] for rule in group["rules"]}
    assert {"ApplianceLost", "TurnUpOverdue", "site:oca_requests:rate5m"} <= names
    assert "ok" in noc.run("amtool --alertmanager.url http://127.0.0.1:9093 config show >/dev/null && echo ok")


@pytest.fixture(scope="module")
def broken(dists, tmp_path_factory):
    """A version that can't use the settings of any appliance."""
    folder = tmp_path_factory.mktemp("broken")
    version = "0.1.2"
    source = folder / "source"
    for name in ("wire", "oca", "steering", "fill", "admin"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    text = (ROOT / "pyproject.toml").read_text().replace('version = "0.1.0"', f'version = "{version}"', 1)
    (source / "pyproject.toml").write_text(text)
    settings = (source / "oca/settings.py").read_text()
    (source / "oca/settings.py").write_text(
        settings.replace("    dwpd: Annotated", "    made_by: str\n    dwpd: Annotated", 1)
    )
    uv = str(ROOT / ".venv/bin/uv") if (ROOT / ".venv/bin/uv").exists() else "uv"
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", folder, source], check=True, timeout=300)
    house = folder / "wheels"
    shutil.copytree(dists[OLD] / "wheels", house)
    for old in house.glob("open_oca-*"):
        old.unlink()
    shutil.copy(folder / f"open_oca-{version}-py3-none-any.whl", house)
    with tarfile.open(folder / f"open-oca-{version}.tar", "w") as tar:
        tar.add(house, arcname=".")
    return {"software_version": version, "software_dist": str(folder)}


def test_a_version_that_appliances_refuse_stops_at_the_first_of_them(
    shelf, noc, appliances, fleet, inventory, origin, broken
):
    films = {"/fleet/refused": origin.put("/fleet/refused", 100_000)}
    with Viewers(shelf, appliances["lis-1"], films) as viewers:
        played = shelf.play("upgrade.yml", inventory=inventory, **broken)
        viewers.wait_for(20)
    assert played.returncode != 0
    assert "lis-1 did not take 0.1.2" in " ".join(played.failures())
    # Drained, its connections are closed after each answer; nobody is cut.
    assert viewers.faults == []
    versions = [box.run("readlink /opt/oca/current").strip() for box in (*appliances.values(), noc)]
    assert versions == [OLD, OLD, OLD]
    assert asked(shelf, noc, "/v1/fleet/lis-1")["wish"] == "drain"
    assert asked(shelf, noc, "/v1/fleet/opo-1")["wish"] == "serve"
    assert admin(noc, "resume", "lis-1", "--why", "test")[0] == 0


def test_a_good_version_goes_through_all_waves(shelf, noc, appliances, fleet, inventory, origin, dists):
    films = {"/fleet/good": origin.put("/fleet/good", 100_000)}
    version = {"software_version": NEW, "software_dist": str(dists[NEW])}
    with Viewers(shelf, appliances["opo-1"], films) as viewers:
        shelf.play("upgrade.yml", inventory=inventory, **version).assert_good()
        viewers.wait_for(20)
    assert viewers.faults == []
    for box in (*appliances.values(), noc):
        assert box.run("readlink /opt/oca/current").strip() == NEW
    for name in appliances:
        known = asked(shelf, noc, f"/v1/fleet/{name}")
        assert known["wish"] == "serve"
    # Who went over, when and why stands in the changes that operators see.
    assert f"upgrade to {NEW}" in json.dumps(asked(shelf, noc, "/v1/changes"))


def test_prometheus_stops_an_upgrade_that_viewers_would_feel(shelf, noc, appliances, fleet, inventory, dists):
    before = [box.run("readlink /opt/oca/current") for box in appliances.values()]
    played = shelf.play(
        "upgrade.yml",
        inventory=inventory,
        software_version=OLD,
        software_dist=str(dists[OLD]),
        upgrade_prometheus="http://127.0.0.1:9090",
        upgrade_stops=["vector(1) > 0"],
    )
    assert played.returncode != 0
    assert "no further: vector(1) > 0" in " ".join(played.failures()) + played.text
    assert [box.run("readlink /opt/oca/current") for box in appliances.values()] == before
