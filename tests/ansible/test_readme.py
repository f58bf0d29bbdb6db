"""The ten commands of ansible/README.md, as they stand there, by somebody with a checkout and a bare Debian."""

import hashlib
import json
import os
import re
import subprocess

import pytest
import yaml

from admin.turnup.content import PATH as TURN_UP
from admin.turnup.content import content as turn_up_content
from tests.doubles.appliance import wait_until
from tests.doubles.networks import announcer, bird, connect, machine
from tests.doubles.racking import PATIENCE, ROOT

pytestmark = [pytest.mark.racking, pytest.mark.timeout(900)]
README = ROOT / "ansible" / "README.md"
TOKEN = "a-token"
SUBSCRIBERS = ["100.64.0.0/22", "100.64.4.0/22"]

# What a person does with an editor, to the files that are named to it.
EDITOR = """#!/usr/bin/env python3
import json, os, pathlib, sys, yaml
edits = json.loads(pathlib.Path(os.environ["EDITS"]).read_text())
for name in sys.argv[1:]:
    path = pathlib.Path(name)
    said = yaml.safe_load(path.read_text()) or {}
    for place, value in edits[path.name].items():
        *above, last = place.split("/")
        at = said
        for part in above:
            at = at[part]
        at[last] = value
    path.write_text(yaml.safe_dump(said))
"""


def commands():
    """Those of the first block, without the words behind the sharp."""
    block = re.search(r"```\n(.*?)```", README.read_text(), re.DOTALL)[1]
    return [re.split(r"\s+#\s+\d", line)[0].strip() for line in block.strip().splitlines()]


def test_there_are_ten_of_them():
    assert len(commands()) == 10


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    image = tmp_path_factory.mktemp("disk") / "image"
    with image.open("wb") as file:
        file.truncate(600 * 1024 * 1024)
    made = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True, timeout=60
    )
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True, timeout=60)


@pytest.fixture(scope="module")
def world(shelf, disk, origin):
    """The box, bare; the machine of the NOC; the ISP's router."""
    origin.put(TURN_UP, turn_up_content())
    with shelf.box("noc-1") as noc, shelf.box("lis-1", f"--bind={disk}") as box, machine() as router:
        connect(router, box.at, ["10.80.0.1/30", "fd80::1/64"], ["10.80.0.2/30", "fd80::2/64"])
        text = announcer(SUBSCRIBERS, "10.80.0.2", 64500, 64496, "fd80::1")
        with bird(router, shelf.folder / "isp", text):
            yield noc, box
        box.run("umount /srv/oca/nvme0 || true")


@pytest.fixture(scope="module")
def home(shelf, world, disk, tmp_path_factory):
    """Of that somebody: ssh knows the machines by their names, and the editor what has to be edited."""
    noc, box = world
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir(mode=0o700)
    options = [f"  {name} {value}" for name, value in SSH.items()] + [f"  IdentityFile {shelf.folder / 'id'}"]
    hosts = [line for one in world for line in (f"Host {one.name}", f"  HostName {one.address}")]
    (home / ".ssh/config").write_text("\n".join([*hosts, "Host *", *options, ""]))
    editor = home / "bin/editor"
    editor.parent.mkdir()
    editor.write_text(EDITOR.replace("/usr/bin/env python3", str(ROOT / ".venv/bin/python")))
    editor.chmod(0o755)
    lisbon = "all/children/appliances/children/lisbon/hosts/lis-1/ansible_host"
    edits = {
        "hosts.yml": {lisbon: box.address, "all/children/steering/hosts/noc-1/ansible_host": noc.address},
        "appliances.yml": {
            "ansible_user": "root",
            "oca_origin_url": "http://10.77.1.1:8000",
            "fill_bucket": "",
            "oca_demand_bucket": "",
            "oca_control": f"{box.address}:9145",
            "oca_workers": 2,
            "oca_steering_urls": [f"http://{noc.address}:8444"],
            "oca_steering_token": TOKEN,
            "oca_settings": {"steering": {"interval": "1 s"}},
            "bird_router_id": "10.80.0.2",
            "bird_peers": [{"name": "edge", "address": "10.80.0.1", "as": 64500}],
            "network_management": ["10.77.0.0/16"],
            "network_monitoring": ["10.77.0.0/16", f"{box.address}/32"],
        },
        "lis-1.yml": {
            "oca_devices": [{"name": "nvme0", "device": disk, "tier": "nvme", "capacity": "500 MiB", "dwpd": 1.0}]
        },
    }
    (home / "edits").write_text(json.dumps(edits))
    return home


ROLES = {"admin": ["noc-leads"]}
SSH = {
    "User": "root",
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
    "BatchMode": "yes",
}


@pytest.fixture(scope="module")
def steering(shelf, world, home, dists):
    """What the NOC has set up before, by the same playbooks."""
    noc, box = world
    entry = {
        "id": "lis-1",
        "site": "lis",
        "url": f"http://{box.address}",
        "ipv4": [box.address],
        "metrics": f"{box.address}:9145",
        "token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest(),
    }
    site = {"id": "lis", "operator": "isp-a", "latitude": 38.72, "longitude": -9.14, "country": "PT"}
    inventory = shelf.folder / "noc.yml"
    variables = {
        "software_dist": str(next(iter(dists.values()))),
        "steering_base_url": "https://steer.example",
        "steering_fleet": "0.0.0.0:8444",
        "steering_inventory": {
            "operator": [{"id": "isp-a", "asns": [64500], "allowed": ["100.64.0.0/10"]}],
            "site": [site],
            "appliance": [entry],
        },
        "admin_accounts": [],
        "admin_settings": {"oidc": {"issuer": "https://id.example", "client_id": "oca-console", "roles": ROLES}},
    }
    hosts = {"noc-1": {"ansible_host": noc.address, "ansible_user": "root"}}
    tree = {"all": {"children": {name: {"hosts": hosts} for name in ("steering", "noc")}, "vars": variables}}
    inventory.write_text(yaml.safe_dump(tree))
    shelf.play("site.yml", inventory=inventory).assert_good()
    noc.run("echo 'OCA_STEERING=http://127.0.0.1:9146' >> /etc/environment")


def test_followed_to_the_letter_they_take_a_bare_debian_to_a_serving_box(shelf, world, home, steering):
    _, box = world
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE")},
        "HOME": str(home),
        "PATH": f"{home}/bin:{os.environ['PATH']}",
        "EDITS": str(home / "edits"),
        "ANSIBLE_SSH_ARGS": f"-F {home}/.ssh/config",
    }
    said = {}
    folder = str(ROOT)
    for number, command in enumerate(commands(), start=1):
        if number == 4:
            continue  # Loop devices have no names there; the editor knows the path.
        if number == 8:
            box.wait_for(f"curl -fs http://{box.address}:9145/readyz")
            command = command.replace("127.0.0.1", box.address)  # The NOC watches it from outside.
        if number == 9:
            box.wait_for("ip route show table 4999 | grep -q 100.64.4.0/22")
        if number == 10:
            _wait_until_heard(shelf, world)
            command += " --speeds nvme=1/1 --write 16"  # A loop device is no NVMe.
        # Up to the third, the internet is needed; ssh finds its settings by the user's entry, not by HOME.
        command = command.replace("ssh ", f"ssh -F {home}/.ssh/config ", 1) if command.startswith("ssh ") else command
        words = ["bash", "-c", f"cd {folder} && {command} && pwd > {home}/pwd"]
        done = subprocess.run(
            words if number <= 3 else shelf.argv(*words),
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{number}: {command}\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
        said[number] = done.stdout
        folder = (home / "pwd").read_text().strip()
    assert '"ready": true' in said[8]
    assert all(prefix in said[9] for prefix in SUBSCRIBERS)
    assert "lis-1" in said[10]
    assert box.run("findmnt --noheadings --output FSTYPE /srv/oca/nvme0").strip() == "xfs"
    assert "drop" in box.run("nft list chain inet oca input")


def _wait_until_heard(shelf, world):
    noc, _ = world

    def is_heard():
        told = noc.run("curl -s http://127.0.0.1:9146/v1/fleet/lis-1 || true")
        return json.loads(told or "{}").get("standing") in ("joining", "serving")

    wait_until(is_heard, "steering hears the box", PATIENCE)
