"""Power goes in the middle of fills. Whatever the index says after that is there, and is what the origin has.

The file system of the device, of the index, or of both is shut down at a moment that no write awaits; then every
process is killed. XFS keeps of it what was synced, and nothing else. It is mounted again (its log is read, as after any
crash), and everything that is marked present is compared: in the files, as the index names them, and then by asking the
appliance.
"""

import asyncio
import contextlib
import random
import subprocess
from pathlib import Path

import crc32c
import pytest

from oca.cache.keys import BLOCK_BYTES, EXTENT_BLOCKS
from oca.store.device import DeviceFolder
from oca.store.index import Index
from tests.doubles.appliance import BLOCK, wait_until
from tests.doubles.audience import Audience
from tests.doubles.mounts import mounted

pytestmark = pytest.mark.mounts

MIB = 1024 * 1024
CAPACITY = 80 * MIB
SIZES = (1, 4097, 300_000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, 5 * BLOCK)
VIEWERS = 30


class Box:
    """An appliance whose device and index each lie on a disk that can lose power, or on one that does not."""

    def __init__(self, appliance, device, state):
        self.appliance = appliance
        self.state = state
        self.device = device
        appliance.devices = [device]
        appliance.write_settings(
            appliance={"state_dir": str(state)},
            device=[{"path": str(device), "tier": "nvme", "capacity": CAPACITY}],
            store={"probation": 0},
            http={"drain_timeout": "5 s"},
        )

    def start(self):
        self.appliance.start()
        (entry,) = self.appliance.status()["devices"]
        if entry["standing"] != "online":
            # It was known to fail before the end. One command brings it back.
            assert self.appliance.control("POST", "/v1/devices", {"path": str(self.device)}).status == 200
            (entry,) = self.appliance.status()["devices"]
        assert (entry["standing"], entry["reason"]) == ("online", "")

    def die(self, disk):
        """After the disk lost power: the processes go, the disk is mounted again."""
        self.appliance.kill_all()
        wait_until(lambda: is_unmounted(disk), "nobody uses the disk any more")
        disk.mount()

    def is_half_full(self):
        return self.appliance.metric("oca_device_used_bytes") > CAPACITY / 2

    def marked_present(self):
        """Every block that the index says is held: path, number in the object, and what lies in the file."""

        extents, objects, devices = asyncio.run(self._read_index())
        for key, extent in extents:
            content = Path(DeviceFolder(devices[extent.device].home).file_path(key)).read_bytes()
            first = int.from_bytes(key[24:], "big") * EXTENT_BLOCKS
            for place in range(EXTENT_BLOCKS):
                if extent.present >> place & 1:
                    block = content[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES]
                    yield objects[key].path, first + place, block, extent.sum_of(place)

    async def _read_index(self):
        async with Index(str(self.state / "index")) as index:
            extents = [one for batch in index.scan_extents(1000) for one in batch]
            return extents, {key: index.object(key[:16]) for key, _ in extents}, index.devices()


def is_unmounted(disk):
    try:
        disk.unmount()
    except subprocess.CalledProcessError:
        return False
    return True


@pytest.fixture
def power(tmp_path):
    with mounted(tmp_path / "power") as disk:
        yield disk


@pytest.fixture
def films(origin, path):
    """Half as much again as there is room for, so that extents go all the time while others come."""
    dice = random.Random(5)
    names = [f"{path}/{number}" for number in range(30)]
    made = {name: origin.put(name, dice.choice(SIZES) + number) for number, name in enumerate(names)}
    size = sum(len(content) for content in made.values())
    assert size > 1.5 * CAPACITY
    return made


def lose_power_again_and_again(box, disk, films, rounds, seed, during=lambda audience: None):
    """`during` looks at the audience between the loss of power and the death of the processes. In the last round they
    die at once, with much on the device: the box noticed nothing, and its index says all that it said before."""
    dice = random.Random(seed)
    present = hits = 0
    for number in range(rounds):
        is_last = number == rounds - 1
        box.start()
        with Audience(box.appliance.port, films, viewers=VIEWERS, seed=seed * 1000 + number) as audience:
            audience.wait_answers(dice.randrange(1, 400))
            if is_last:
                wait_until(box.is_half_full, "much is stored")
            disk.lose_power()
            if not is_last:
                during(audience)
            box.die(disk)
        assert audience.faults == []
        found = set()
        for path, block, content, crc in box.marked_present():
            expected = films[path][block * BLOCK : (block + 1) * BLOCK]
            is_right = content[: len(expected)] == expected and crc32c.crc32c(expected) == crc
            assert is_right, f"round {number}: {path}, block {block}"
            present += 1
            found.add(path)
        box.start()
        for name in sorted(found):
            answer = box.appliance.get(name)
            is_right = answer.body == films[name]
            assert is_right, f"round {number}: {name} after the loss of power"
            hits += answer.is_hit
        box.appliance.wait_landed()
        assert box.appliance.metric("oca_device_used_bytes") <= CAPACITY
        box.appliance.stop()
    # Something was kept, and was given to viewers: else all this says nothing.
    assert present > 2 * rounds
    assert hits


def served_on(audience):
    """A box that lost a device, or its index, serves on: the bytes come from elsewhere."""
    audience.wait_answers(2 * VIEWERS)
    audience.assert_content()


PLACES = {
    "device and index": lambda power, healthy: (power / "device", power / "state"),
    "device alone": lambda power, healthy: (power / "device", healthy / "state"),
    "index alone": lambda power, healthy: (healthy / "device", power / "state"),
}


def run(appliance, disk, films, where, rounds, seed, tmp_path):
    device, state = PLACES[where](disk.path, tmp_path)
    box = Box(appliance, device, state)
    during = served_on if where == "device alone" else lambda audience: None
    with contextlib.suppress(FileExistsError):
        state.mkdir()
    lose_power_again_and_again(box, disk, films, rounds, seed, during)


@pytest.mark.parametrize(("where", "rounds"), [("device and index", 3), ("device alone", 2), ("index alone", 2)])
def test_what_is_marked_present_is_right_after_a_loss_of_power(power, make_appliance, films, tmp_path, where, rounds):
    run(make_appliance(), power, films, where, rounds, 42, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("seed", [1, 2])
def test_twenty_losses_of_power(power, make_appliance, films, tmp_path, where, seed):
    run(make_appliance(), power, films, where, 20, seed, tmp_path)
