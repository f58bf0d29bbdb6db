"""Devices come and go by the operator's commands while viewers watch, and every byte stays right."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tests.doubles.appliance import BLOCK, PATIENCE, wait_until
from tests.doubles.audience import Audience
from tests.doubles.faulty import Act, faulty_disk
from tests.doubles.mounts import mounted, wait_released

MIB = 1024 * 1024
CAPACITY = 256 * MIB
FILM = BLOCK + 4097


@dataclass
class Said:
    """What a command answered."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


class Box:
    """An appliance and its operator."""

    def __init__(self, appliance):
        self.appliance = appliance

    def oca(self, *words: str) -> Said:
        """`oca WORDS --config ...` as a process."""
        done = subprocess.run(
            [sys.executable, "-m", "oca", *map(str, words), "--config", str(self.appliance.config)],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def done(self, *words: str) -> Any:
        """A command that works; its answer."""
        said = self.oca("device", *words, "--json")
        assert said.code == 0, said.errors
        return said.json

    def refused(self, *words: str) -> str:
        """A command that does not; its sentence."""
        said = self.oca("device", *words)
        assert said.code == 1, said
        assert said.output == ""
        return said.errors

    def devices(self) -> dict[str, Any]:
        """All that are listed, by path."""
        return {entry["path"]: entry for entry in self.done("list")["devices"]}

    def device(self, path) -> Any:
        return self.devices()[str(path)]

    def wait_device(self, path, **fields: Any) -> Any:
        """Until the device is listed with these fields."""

        def is_so():
            found = self.control_devices().get(str(path))
            return found if found is not None and all(found[name] == value for name, value in fields.items()) else None

        return wait_until(is_so, f"{path} is {fields}")

    def control_devices(self) -> dict[str, Any]:
        """As `devices`, without a process."""
        return {entry["path"]: entry for entry in self.appliance.control("GET", "/v1/devices").json()["devices"]}

    def fetch(self, films) -> None:
        """Watch each film once and wait until it is kept."""
        for path, content in films.items():
            assert self.appliance.get(path).body == content
            self.appliance.wait_stored(path)

    def places(self, path) -> set[str]:
        """Ids of the devices on which an object's extents lie."""
        return {extent["device"] for extent in self.appliance.held(path)["extents"]}


def listed(*devices):
    """Tables of the settings: (path, tier)."""
    return [{"path": str(path), "tier": tier, "capacity": CAPACITY} for path, tier in devices]


@pytest.fixture
def films(origin, path):
    """So many films that of two devices alike each gets some, whatever their random ids: all on one is 1 in 500,000."""
    return {f"{path}/{number}": origin.put(f"{path}/{number}", FILM) for number in range(20)}


@pytest.fixture
def folders(tmp_path):
    """Three folders for devices."""
    made = [tmp_path / f"disk-{number}" for number in range(3)]
    for folder in made:
        folder.mkdir()
    return made


@pytest.fixture
def box_of(make_appliance):
    """Makes a box with the given devices in its settings, and starts it. No newcomers wait in memory."""

    def box_of(*devices, **tables):
        appliance = make_appliance()
        appliance.devices = [path for path, _ in devices]
        tables.setdefault("store", {"probation": 0})
        return Box(appliance.start(device=listed(*devices), **tables))

    return box_of


def extents_on(folder):
    return sum(path.is_file() for path in (folder / "extents").rglob("*"))


# --- In and out while viewers watch -----------------------------------------------------------------------------------


def test_a_device_that_is_added_under_load_serves_at_once_and_is_remembered(box_of, folders, origin, films, path):
    first, second, _ = folders
    box = box_of((first, "nvme"))
    box.fetch(films)
    with Audience(box.appliance.port, films, viewers=20) as audience:
        audience.wait_answers(20)
        entry = box.done("add", second, "--tier", "nvme", "--capacity", "256 MiB")
        assert (entry["path"], entry["tier"], entry["standing"]) == (str(second), "nvme", "online")
        newcomers = {f"{path}/new/{number}": origin.put(f"{path}/new/{number}", FILM) for number in range(12)}
        audience.premiere(newcomers)
        for name in newcomers:
            wait_until(lambda name=name: box.appliance.held(name)["held"], f"somebody watched {name}")
            box.appliance.wait_stored(name)
        audience.wait_answers(100)
    audience.assert_content()
    assert extents_on(second) > 0, "one of two alike gets its share"
    assert all(entry["id"] not in box.places(name) for name in films), "what lay elsewhere stays there"
    asked = len(origin.asked)
    box.appliance.stop()
    box.appliance.start()
    assert box.device(second)["id"] == entry["id"]
    box.appliance.wait_ready()
    for name, content in (films | newcomers).items():
        answer = box.appliance.get(name)
        assert answer.body == content
        assert answer.is_hit
    assert len(origin.asked) == asked


@pytest.mark.parametrize("tier", ["hdd", *(pytest.param(one, marks=pytest.mark.soak) for one in ("nvme", "ssd"))])
def test_what_is_drained_moves_to_the_others_byte_for_byte_while_it_is_watched(box_of, folders, origin, films, tier):
    tiers = dict(zip(("nvme", "ssd", "hdd"), folders, strict=True))
    leaving = tiers[tier]
    box = box_of((leaving, tier))
    box.fetch(films)
    assert extents_on(leaving) == len(films)
    for other, folder in tiers.items():
        if other != tier:
            box.done("add", folder, "--tier", other, "--capacity", CAPACITY)
    identity = box.device(leaving)["id"]
    asked = len(origin.asked)
    with Audience(box.appliance.port, films, viewers=20) as audience:
        audience.wait_answers(20)
        said = box.oca("device", "drain", leaving, "--wait")
        assert said.code == 0, said.errors
        assert "is drained" in said.output
        entry = box.device(leaving)
        assert (entry["wish"], entry["used_bytes"], entry["left_bytes"]) == ("drain", 0, 0)
        assert box.done("remove", identity)["id"] == identity
        audience.wait_answers(100)
    audience.assert_content()
    assert len(origin.asked) == asked, "nothing was fetched again"
    assert extents_on(leaving) == 0
    assert str(leaving) not in box.devices() or box.device(leaving)["standing"] == "offline"
    for name, content in films.items():
        assert box.places(name)
        assert identity not in box.places(name)
        assert box.appliance.get(name).body == content


def test_a_drain_goes_on_after_a_restart_and_is_undone_by_serve(box_of, folders, films):
    first, second, _ = folders
    # Slow enough to be seen.
    box = box_of((first, "nvme"), (second, "nvme"), store={"probation": 0, "move_rate": 1024})
    box.fetch(films)
    assert box.done("drain", first)["wish"] == "drain"
    box.appliance.stop()
    box.appliance.start()
    entry = box.device(first)
    assert entry["wish"] == "drain"
    assert entry["left_bytes"] is not None
    assert box.done("serve", entry["id"])["wish"] == "serve"
    box.appliance.stop()
    box.appliance.start()
    assert box.device(first)["wish"] == "serve"


def test_while_it_drains_nothing_new_is_put_there(box_of, folders, origin, films, path):
    first, second, _ = folders
    box = box_of((first, "nvme"), (second, "nvme"))
    box.done("drain", first)
    box.fetch(films)
    assert extents_on(first) == 0
    assert extents_on(second) == len(films)


def test_a_device_with_content_is_removed_only_by_force_and_its_content_is_fetched_again(box_of, folders, films):
    first, second, _ = folders
    box = box_of((first, "nvme"), (second, "nvme"))
    box.fetch(films)
    # Which device an object lies on hangs on the device's random id: the fuller one goes.
    first, second = sorted((first, second), key=extents_on, reverse=True)
    told = box.refused("remove", first)
    assert "--force" in told
    assert "drain" in told
    with Audience(box.appliance.port, films, viewers=20) as audience:
        audience.wait_answers(20)
        said = box.oca("device", "remove", first, "--force")
        assert said.code == 0, said.errors
        assert "MiB of content given up" in said.output
        audience.wait_answers(100)
    audience.assert_content()
    box.fetch(films)
    assert all(box.places(name) == {box.device(second)["id"]} for name in films)


def test_what_was_removed_stays_out_after_a_restart_until_it_is_added_again_and_again(box_of, folders, films):
    first, second, _ = folders
    box = box_of((first, "nvme"), (second, "nvme"))
    identity = box.device(first)["id"]
    box.done("remove", first, "--force")
    box.appliance.stop()
    box.appliance.start()
    left_out = box.devices().get(str(first))
    assert left_out is None or left_out["standing"] == "offline"
    entry = box.done("add", first)
    assert (entry["id"], entry["standing"], entry["wish"]) == (identity, "online", "serve")
    box.appliance.stop()
    box.appliance.start()
    assert box.device(first)["standing"] == "online"
    box.fetch(films)
    assert extents_on(first) > 0


def test_what_is_refused_says_why(box_of, folders, tmp_path):
    first, second, _ = folders
    box = box_of((first, "nvme"))
    assert "is no device" in box.refused("drain", "nobody")
    assert "is no device" in box.refused("serve", tmp_path / "nowhere")
    assert "is no device" in box.refused("remove", "nobody", "--force")
    assert "tier and capacity" in box.refused("add", second)
    assert list(box.devices()) == [str(first)]


def test_two_commands_at_once_make_one_device(box_of, folders):
    first, second, _ = folders
    box = box_of((first, "nvme"))
    words = ["device", "add", str(second), "--tier", "ssd", "--capacity", "256 MiB", "--config"]
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "oca", *words, str(box.appliance.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]
    for command in commands:
        command.wait(PATIENCE)
    found = [entry for entry in box.done("list")["devices"] if entry["path"] == str(second)]
    assert len(found) == 1
    box.appliance.stop()
    box.appliance.start()
    found = [entry for entry in box.done("list")["devices"] if entry["path"] == str(second)]
    assert len(found) == 1


# --- Disks in slots ---------------------------------------------------------------------------------------------------


@pytest.fixture
def disks(tmp_path, hold):
    """Two disks: one in its slot, one elsewhere."""
    return hold(mounted(tmp_path / "slot")), hold(mounted(tmp_path / "elsewhere"))


def swap(slot, out, into):
    """Take one disk out of a slot and put another in. It may be mounted again only when nobody uses it any more."""
    into.unmount()
    out.pull()
    into.mount(at=slot)


@pytest.mark.mounts
def test_a_disk_that_vanished_is_offline_and_comes_back_by_one_command_with_its_content(
    box_of, disks, folders, origin, films
):
    disk, _ = disks
    box = box_of((disk.path, "hdd"), (folders[0], "nvme"))
    identity = box.device(disk.path)["id"]
    box.fetch(films)
    # What nobody asks for meanwhile is still there afterwards; what is watched is fetched again and kept elsewhere.
    name = next(name for name in films if box.places(name) == {identity})
    quiet = films.pop(name)
    with Audience(box.appliance.port, films, viewers=20) as audience:
        audience.wait_answers(20)
        disk.pull()
        entry = box.wait_device(disk.path, standing="offline")
        assert entry["reason"] == "vanished"
        audience.wait_answers(100)
        assert "was expected" in box.refused("add", disk.path)
        # XFS refuses to mount what is still in use, so the appliance must let go of it.
        wait_released(disk)
        disk.mount()
        entry = box.done("add", disk.path)
        assert (entry["id"], entry["standing"], entry["reason"]) == (identity, "online", "")
        audience.wait_answers(100)
    audience.assert_content()
    asked = origin.count(name)
    answer = box.appliance.get(name)
    assert (answer.body, answer.is_hit, origin.count(name)) == (quiet, True, asked)
    box.fetch(films)


@pytest.mark.mounts
def test_a_slot_that_is_empty_at_the_start_is_named_and_nothing_is_written_into_the_bare_folder(
    box_of, disks, folders, films
):
    disk, _ = disks
    box = box_of((disk.path, "nvme"), (folders[0], "nvme"))
    box.fetch(films)
    box.appliance.stop()
    disk.unmount()
    box.appliance.start()
    entry = box.device(disk.path)
    assert (entry["standing"], entry["reason"]) == ("offline", "vanished")
    assert box.done("list")["health"] == pytest.approx(0.5)
    box.fetch(films)
    assert list(disk.path.iterdir()) == []
    disk.mount()
    assert box.done("add", disk.path)["standing"] == "online"
    box.fetch(films)


@pytest.mark.mounts
def test_the_wrong_disk_in_a_slot_is_left_alone_until_it_is_adopted(box_of, disks, folders, films):
    right, wrong = disks
    slot = right.path
    box = box_of((slot, "nvme"), (folders[0], "nvme"))
    identity = box.device(slot)["id"]
    # The other one was a device elsewhere once.
    other = box.done("add", wrong.path, "--tier", "nvme", "--capacity", CAPACITY)["id"]
    box.done("remove", other)
    box.fetch(films)
    swap(slot, right, wrong)
    entry = box.wait_device(slot, standing="offline")
    assert entry["reason"] == "wrong_disk"
    assert entry["id"] == identity
    box.appliance.stop()
    box.appliance.start()
    assert box.device(slot)["reason"] == "wrong_disk"
    assert "--adopt" in box.refused("add", slot)
    assert json.loads((slot / "oca-device.json").read_text())["id"] == other
    entry = box.done("add", slot, "--adopt")
    assert (entry["id"], entry["standing"]) == (other, "online")
    assert set(box.devices()) == {str(slot), str(folders[0])}
    box.fetch(films)
    box.appliance.stop()
    box.appliance.start()
    assert (box.device(slot)["id"], box.device(slot)["standing"]) == (other, "online")
    box.fetch(films)


@pytest.mark.mounts
def test_an_empty_disk_in_the_place_of_a_broken_one_needs_to_be_said_to_be_new(box_of, disks, folders, films):
    old, empty = disks
    slot = old.path
    box = box_of((slot, "nvme"), (folders[0], "nvme"))
    identity = box.device(slot)["id"]
    box.fetch(films)
    swap(slot, old, empty)
    entry = box.wait_device(slot, standing="offline")
    assert entry["reason"] == "vanished"
    told = box.refused("add", slot)
    assert "--new" in told
    assert not (slot / "oca-device.json").exists()
    entry = box.done("add", slot, "--new")
    assert entry["id"] != identity
    assert entry["standing"] == "online"
    with Audience(box.appliance.port, films, viewers=20) as audience:
        audience.wait_answers(100)
    audience.assert_content()
    box.fetch(films)
    assert {entry["standing"] for entry in box.devices().values()} == {"online"}
    assert len(box.devices()) == 2
    # From now on this one is expected there.
    box.appliance.stop()
    empty.unmount()
    box.appliance.start()
    vanished = box.device(slot)
    assert (vanished["id"], vanished["standing"], vanished["reason"]) == (entry["id"], "offline", "vanished")
    assert list(slot.iterdir()) == []
    assert len(box.devices()) == 2


@pytest.mark.mounts
def test_a_disk_that_moved_to_another_slot_is_known_by_its_id(box_of, disks, tmp_path, folders, films, origin):
    disk, _ = disks
    box = box_of((disk.path, "nvme"))
    box.fetch(films)
    identity = box.device(disk.path)["id"]
    box.appliance.stop()
    asked = len(origin.asked)
    disk.unmount()
    disk.mount(at=folders[1])
    box.appliance.start(device=listed((folders[1], "nvme")), store={"probation": 0})
    assert box.device(folders[1])["id"] == identity
    for name, content in films.items():
        answer = box.appliance.get(name)
        assert answer.body == content
        assert answer.is_hit
    assert len(origin.asked) == asked
    # Mounts are taken away in the place where they were made.
    box.appliance.stop()
    disk.unmount()


@pytest.mark.mounts
def test_a_read_only_disk_is_still_read_and_comes_back_by_one_command(box_of, disks, origin, films, path):
    disk, _ = disks
    box = box_of((disk.path, "nvme"))
    box.fetch(films)
    box.appliance.wait_landed()
    disk.remount_read_only()
    with Audience(box.appliance.port, films, viewers=20) as audience:
        # It is noticed when something is to be written; whoever watches it gets it all the same.
        newcomer = origin.put(f"{path}/new", FILM)
        assert box.appliance.get(f"{path}/new").body == newcomer
        entry = box.wait_device(disk.path, standing="failing")
        assert entry["reason"] == "read_only"
        assert box.done("list")["health"] == pytest.approx(0.5)
        asked = len(origin.asked)
        audience.wait_answers(100)
        assert len(origin.asked) == asked, "it is read"
        assert "Read-only file system" in box.refused("add", disk.path)
        subprocess.run(["mount", "-o", "remount,rw", str(disk.path)], check=True)
        assert box.done("add", disk.path)["standing"] == "online"
    audience.assert_content()
    box.fetch({f"{path}/new": newcomer})


@pytest.mark.mounts
def test_a_disk_with_bad_sectors_waits_for_the_operator_also_over_a_restart_and_comes_back_by_one_command(
    box_of, hold, tmp_path, folders, films
):
    disk = hold(faulty_disk(tmp_path / "faulty"))
    box = box_of((disk.path, "hdd"), (folders[0], "nvme"))
    identity = box.device(disk.path)["id"]
    box.done("drain", folders[0])
    box.fetch(films)
    assert all(box.places(name) == {identity} for name in films)
    box.done("serve", folders[0])
    # Only content is unreadable: every probe is good.
    disk.fail(Act.READ, where="*/extents/*")

    def watch_anew():
        disk.forget()
        for name, content in films.items():
            assert box.appliance.get(name).body == content
        return box.control_devices()[str(disk.path)]["reason"] == "io"

    wait_until(watch_anew, "the disk is known to fail")
    disk.mend()
    entry = box.device(disk.path)
    assert entry["errors"]["io"] >= 3
    assert "oca device add" in box.oca("device", "list").output
    box.appliance.stop()
    box.appliance.start()
    again = box.device(disk.path)
    assert (again["standing"], again["reason"], again["since"]) == (entry["standing"], "io", entry["since"])
    back = box.done("add", disk.path)
    assert (back["id"], back["standing"], back["reason"], back["errors"]) == (identity, "online", "", {})
    box.appliance.stop()
    box.appliance.start()
    assert box.device(disk.path)["standing"] == "online"
    box.fetch(films)
