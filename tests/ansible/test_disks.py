"""Only what is listed and empty is formatted; everything else is left as it is, byte for byte."""

import hashlib
import subprocess

import pytest

from tests.ansible.conftest import write_inventory

pytestmark = [pytest.mark.racking, pytest.mark.timeout(600)]
SIZE = 400 * 1024 * 1024


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture
def disks(tmp_path):
    """Three loop devices: empty, one with a file system of somebody else, one that nobody lists."""
    made = {}
    for name in ("empty", "foreign", "unlisted"):
        image = tmp_path / name
        with image.open("wb") as file:
            file.truncate(SIZE)
        if name == "foreign":
            run("mkfs.ext4", "-q", "-F", str(image))
        made[name] = run("losetup", "--find", "--show", str(image))
    yield made
    for device in made.values():
        run("losetup", "--detach", device)


@pytest.fixture
def box(shelf, disks):
    with shelf.box("disks", *(f"--bind={device}" for device in disks.values())) as box:
        box.run("useradd --system oca")
        yield box
        box.run("umount /srv/oca/d0 || true")


@pytest.fixture
def play(shelf, box, tmp_path):
    playbook = tmp_path / "disks.yml"
    playbook.write_text("- hosts: all\n  roles: [disks]\n")
    inventory = write_inventory(tmp_path / "inventory.yml", {"appliances": {box: {}}})
    return lambda *words, **more: shelf.play(str(playbook), *words, inventory=inventory, **more)


def entry(name, device):
    return {"name": name, "device": device, "tier": "nvme", "capacity": "300 MiB"}


def sums(device):
    with open(device, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_an_empty_disk_is_formatted_mounted_and_given_to_the_cache(box, disks, play):
    listed = [entry("d0", disks["empty"])]
    before = {name: sums(disks[name]) for name in ("foreign", "unlisted")}
    checked = play("--check", "--diff", oca_devices=listed).assert_good()
    assert any("Make the folders" in task for task in checked.changed())
    assert box.ssh("findmnt /srv/oca/d0", check=False).returncode != 0
    play(oca_devices=listed).assert_good()
    assert box.run("findmnt --noheadings --output FSTYPE,OPTIONS /srv/oca/d0").split()[0] == "xfs"
    assert "noatime" in box.run("findmnt --noheadings --output OPTIONS /srv/oca/d0")
    assert box.run("stat -c '%U %G %a' /srv/oca/d0").split() == ["oca", "oca", "750"]
    assert box.run("grep /srv/oca/d0 /etc/fstab").startswith("UUID=")
    box.run("echo film > /srv/oca/d0/film")
    assert play(oca_devices=listed).assert_good().changed() == []
    assert {name: sums(disks[name]) for name in before} == before
    # Unmounted, and found again by its label with what it holds.
    box.run("umount /srv/oca/d0")
    assert "Mount them" in play(oca_devices=listed).assert_good().changed()[-1]
    assert box.run("cat /srv/oca/d0/film") == "film\n"


def test_a_disk_that_holds_something_else_stops_the_play_before_any_is_touched(box, disks, play):
    before = {name: sums(device) for name, device in disks.items()}
    played = play(oca_devices=[entry("d0", disks["empty"]), entry("d1", disks["foreign"])])
    assert played.returncode != 0
    told = " ".join(played.failures()) + played.text
    assert "d1" in told
    assert "ext4" in told
    assert {name: sums(device) for name, device in disks.items()} == before
    assert box.ssh("findmnt /srv/oca/d0", check=False).returncode != 0


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (lambda disks: [entry("d0", disks["empty"]), entry("d1", disks["empty"])], "two entries are one disk"),
        (lambda disks: [entry("d0", "/dev/nothing")], "it is not there"),
        (lambda disks: [entry("d0", "/etc/hostname")], "no block device"),
        (lambda disks: [entry("a long name", disks["empty"])], "1 to 8 letters and digits"),
    ],
    ids=["one disk twice", "not there", "a file", "a name that makes no label"],
)
def test_a_list_that_can_not_be_right_is_refused(box, disks, play, listed, words):
    before = sums(disks["empty"])
    played = play(oca_devices=listed(disks))
    assert played.returncode != 0
    assert words in played.text
    assert sums(disks["empty"]) == before
