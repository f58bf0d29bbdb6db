"""Disks: never more than the capacity, never a byte that was not verified, and no viewer hears of a disk that fails."""

import contextlib
import os
import random
import resource
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from tests.doubles.appliance import BLOCK, PATIENCE, wait_until

MIB = 1024 * 1024
CAPACITY = 80 * MIB
LEAST = 64 * MIB


def extent_of(appliance, path):
    """The one extent file of an object, found as the newest: its name is a hash."""
    return max(appliance.extent_files(), key=lambda file: file.stat().st_mtime_ns)


def small_device(appliance, **more):
    return [{"path": str(appliance.devices[0]), "tier": "nvme", "capacity": CAPACITY, **more}]


# --- Room -------------------------------------------------------------------------------------------------------------


class Watch:
    """Samples what lies on a device, all the time."""

    def __init__(self, appliance):
        self._appliance = appliance
        self._over = threading.Event()
        self.most = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._over.is_set():
            # Files come and go during a walk: what two walks agree on was there at one moment.
            first, second = self._walk(), self._walk()
            self.most = max(self.most, sum(size for file, size in first.items() if second.get(file) == size))

    def _walk(self):
        found = {}
        for file in self._appliance.extent_files():
            with contextlib.suppress(FileNotFoundError):
                found[file] = file.stat().st_blocks * 512
        return found

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(PATIENCE)


@pytest.fixture
def memory_disk():
    """On tmpfs a file takes its pages and nothing else: ext4 adds its own maps, and what it will write later."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_a_store_never_outgrows_its_capacity_and_a_full_one_serves_and_lets_misses_through(
    memory_disk, make_appliance, origin, path
):
    one = make_appliance()
    one.devices = [memory_disk]
    one.start(device=small_device(one))
    dice = random.Random(11)
    sizes = [dice.choice([1, 4097, 100_000, MIB, BLOCK, BLOCK + 1, 2 * BLOCK]) for _ in range(40)]
    sizes += [17 * BLOCK]  # More than an extent, more than there is room for.
    names = [f"{path}/{number}" for number in range(len(sizes))]
    films = {name: origin.put(name, size) for name, size in zip(names, sizes, strict=True)}
    assert sum(sizes) > 2 * CAPACITY
    with Watch(one) as watch:

        def view(seed):
            own = random.Random(seed)
            for name in own.sample(names, len(names)):
                answer = one.get(name)
                if answer.body != films[name]:
                    faults.append((name, answer.status, len(answer.body)))

        faults = []
        viewers = [threading.Thread(target=view, args=(seed,)) for seed in range(3)]
        for viewer in viewers:
            viewer.start()
        for viewer in viewers:
            viewer.join(2 * PATIENCE)
        one.wait_landed()
    assert faults == []
    assert watch.most <= CAPACITY
    used = one.metric("oca_device_used_bytes")
    assert 0 < used <= CAPACITY
    on_disk = sum(file.stat().st_blocks * 512 for file in one.extent_files())
    assert on_disk <= used
    # What is read again and again stays; a scan of newcomers does not drive it out.
    held = origin.put(f"{path}/hot", 100_000)
    for _ in range(5):
        assert one.get(f"{path}/hot").body == held
        one.wait_landed()
    wait_until(lambda: one.held(f"{path}/hot")["held"], "it is kept")
    assert one.get(f"{path}/hot").is_hit
    # A capacity that was lowered is kept to as well, before anything else.
    one.stop()
    one.start(device=small_device(one, capacity=LEAST))
    wait_until(lambda: one.status()["loaded"], "it knows what it holds")
    assert 0 < one.metric("oca_device_used_bytes") <= LEAST
    for name in names[:10]:
        assert one.get(name).body == films[name]


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 24 MiB: smaller than what the settings promise."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _may_mount():
    """Whether we hold CAP_SYS_ADMIN: root in most containers does not."""
    lines = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return bool(int(lines["CapEff"], 16) >> 21 & 1)


def test_a_disk_that_fails_to_write_lets_the_bytes_through_and_is_still_read(make_appliance, origin, path):
    one = make_appliance().start()
    held = origin.put(path, 100_000)
    one.get(path)
    one.wait_stored(path)
    (keeper,) = one.keeper_pids
    # The index and a flight's memory are smaller than that; an extent's second block ends beyond it.
    resource.prlimit(keeper, resource.RLIMIT_FSIZE, (5 * MIB, 5 * MIB))
    for number in range(3):
        content = origin.put(f"{path}/{number}", 2 * BLOCK + number)
        for _ in range(2):
            assert one.get(f"{path}/{number}").body == content
    wait_until(lambda: one.metric("oca_device_up") == 0, "the device is known to fail")
    assert one.metric("oca_device_faults_total") >= 1
    assert one.metric("oca_requests_total", status_class="5xx") == 0
    answer = one.get(path)
    assert answer.is_hit
    assert answer.body == held


# Not a skip: the test above says nearly the same where mounting is not allowed.
if _may_mount():

    def test_a_disk_that_is_full_before_its_time_lets_the_bytes_through(tiny_disk, make_appliance, origin, path):
        one = make_appliance()
        one.devices = [tiny_disk]
        one.start(device=small_device(one))
        for number in range(10):
            name = f"{path}/{number}"
            content = origin.put(name, BLOCK + number)
            assert one.get(name).body == content
        one.wait_landed()
        for number in range(10):
            assert one.get(f"{path}/{number}").body == origin.content(f"{path}/{number}")
        metrics = one.metrics()
        assert metrics.value("oca_device_faults_total") >= 1
        assert metrics.value("oca_requests_total", status_class="5xx") == 0
        one.stop()

    def test_a_disk_that_turns_read_only_is_still_read_and_bytes_pass(tiny_disk, make_appliance, origin, path):
        one = make_appliance()
        one.devices = [tiny_disk]
        one.start(device=small_device(one))
        held = origin.put(path, BLOCK)
        one.get(path)
        one.wait_stored(path)
        subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
        other = origin.put(path + "/other", 2 * BLOCK)
        assert one.get(path + "/other").body == other
        answer = one.get(path)
        assert answer.is_hit
        assert answer.body == held
        wait_until(lambda: one.metric("oca_device_up") == 0, "it is known to be down")
        assert one.metric("oca_device_faults_total") >= 1
        # No device is up any more: everything passes through.
        third = origin.put(path + "/third", 2 * BLOCK)
        for _ in range(2):
            assert one.get(path + "/third").body == third
        one.stop()


def test_a_folder_that_vanishes_is_not_missed_by_viewers(make_appliance, origin, path):
    one = make_appliance().start()
    films = {f"{path}/{number}": origin.put(f"{path}/{number}", BLOCK + number) for number in range(3)}
    for name, content in films.items():
        assert one.get(name).body == content
        one.wait_stored(name)
    one.devices[0].rename(one.folder / "gone")
    one.devices[0].write_text("a file where the folder was")
    for _ in range(2):
        for name, content in films.items():
            answer = one.get(name)
            assert (answer.status, answer.body) == (200, content)
    one.stop()


def test_of_two_devices_one_may_fail(make_appliance, origin, path):
    one = make_appliance()
    one.devices = [one.folder / "first", one.folder / "second"]
    one.start()
    names = [f"{path}/{number}" for number in range(16)]
    for name in names:
        origin.put(name, 100_000)
        one.get(name)
        one.wait_stored(name)
    homes = {name: one.held(name)["extents"][0]["device"] for name in names}
    assert len(set(homes.values())) == 2
    (one.devices[0] / "extents").rename(one.folder / "gone")
    (one.devices[0] / "extents").write_text("")
    for name in names:
        assert one.get(name).body == origin.content(name)
    one.wait_landed()
    for name in names:
        assert one.get(name).body == origin.content(name)
    one.stop()


# --- Files that are not what the index says ---------------------------------------------------------------------------


def _delete(file):
    file.unlink()


def _truncate(file):
    os.truncate(file, 100_000)


def _empty(file):
    os.truncate(file, 0)


@pytest.mark.parametrize("damage", [_delete, _truncate, _empty])
@pytest.mark.parametrize("size", [30_000, BLOCK + 500_000])
def test_a_damaged_file_is_healed_with_the_right_bytes(appliance, origin, path, damage, size):
    content = origin.put(path, size)
    appliance.get(path)
    appliance.wait_stored(path)
    with appliance.wire() as used:
        # This worker holds the file open; the others will open what is left.
        assert used.get(path).body == content
        damage(extent_of(appliance, path))
        assert used.get(path).body == content
        for _ in range(6):
            answer = appliance.get(path)
            assert (answer.status, answer.body) == (200, content)
        assert used.get(path, Range="bytes=-10").body == content[-10:]
    appliance.wait_stored(path)
    asked = origin.count(path)
    for _ in range(6):
        assert appliance.get(path).body == content
    assert origin.count(path) == asked
    assert appliance.metric("oca_healed_reads_total") >= 1


def test_a_new_block_does_not_hide_that_the_old_ones_are_gone(make_appliance, origin, path):
    """The file is lost, then a missing block is written: what lies before it in the new file is a hole of zeros."""
    one = make_appliance().start(listen={"workers": 1})
    damages = {f"{path}/{damage.__name__}": damage for damage in (_delete, _truncate, _empty)}
    files = {}
    for name in damages:
        content = origin.put(name, 3 * BLOCK)
        assert one.span(name, 0, BLOCK + 5).body == content[: BLOCK + 5]
        one.wait_landed()
        assert one.held(name)["blocks_held"] == 2
        files[name] = extent_of(one, name)
    # Nobody has the files open.
    one.stop()
    one.start()
    for name, damage in damages.items():
        damage(files[name])
        content = origin.content(name)
        assert one.span(name, 2 * BLOCK, 3 * BLOCK).body == content[2 * BLOCK :]
        one.wait_landed()
        for _ in range(3):
            assert one.get(name).body == content
            one.wait_landed()


def test_files_that_were_lost_while_it_was_down_are_fetched_anew(make_appliance, origin, path):
    one = make_appliance().start()
    films = {f"{path}/{number}": origin.put(f"{path}/{number}", BLOCK + 100_000) for number in range(4)}
    for name in films:
        one.get(name)
        one.wait_stored(name)
    one.stop()
    for number, file in enumerate(sorted(one.extent_files())):
        [_delete, _truncate, _empty, lambda file: None][number](file)
    one.start()
    for _ in range(2):
        for name, content in films.items():
            assert one.get(name).body == content
    for name in films:
        one.wait_stored(name)
    one.stop()


def test_a_device_is_known_by_its_id_and_not_by_its_path(make_appliance, origin, path):
    one = make_appliance().start()
    content = origin.put(path, BLOCK + 5)
    one.get(path)
    one.wait_stored(path)
    one.stop()
    moved = one.folder / "another-slot"
    one.devices[0].rename(moved)
    one.devices = [moved]
    one.write_settings()
    one.start()
    answer = one.get(path)
    assert answer.is_hit
    assert answer.body == content
    one.stop()
    # Gone with its extents: what it held is fetched anew, onto another one.
    one.devices = [one.folder / "new"]
    one.write_settings()
    one.start()
    assert one.get(path).body == content
    wait_until(lambda: one.get(path).is_hit, "it lies on the new device")


def test_the_same_device_twice_is_refused_by_its_id(make_appliance, origin, path):
    """Two paths to one folder look like two devices to the settings."""
    one = make_appliance().start()
    one.stop()
    alias = one.folder / "alias"
    alias.symlink_to(one.devices[0])
    one.devices = [one.devices[0], alias]
    one.write_settings()
    one.launch()
    wait_until(lambda: "same device" in one.log.read_text() or one.process.poll() is not None, "it is noticed")
    content = origin.put(path, 100)
    if one.process.poll() is None:
        wait_until(lambda: one.get(path).body == content, "it serves")
        assert "same device" in one.log.read_text()
