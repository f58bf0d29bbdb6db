"""What has left the page cache is read by its device's own threads, compared with its sum, and is right."""

import os
import subprocess

import pytest

from oca.edge.kernel import cached_pages
from tests.doubles.appliance import BLOCK, wait_until


@pytest.fixture(autouse=True)
def a_file_system_that_lets_go(tmp_path):
    """What lies on tmpfs is never cold."""
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True
    ).stdout.strip()
    if kind in ("tmpfs", "ramfs"):
        pytest.skip(f"{tmp_path} is a {kind}: its pages stay in memory")


def forget_pages(appliance):
    """Have the kernel drop what it remembers of all extents. A socket with a page on its way still holds it fast."""
    wait_until(lambda: are_forgotten(appliance), "the pages of all extents are let go")


def are_forgotten(appliance):
    """The kernel was asked to drop them, and did."""
    one_byte = bytearray(1)
    for path in appliance.extent_files():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            # A look that finds nothing makes the kernel read it, and as much behind it as it is wont to.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            try:
                os.preadv(file.fileno(), [one_byte], 0, os.RWF_NOWAIT)
            except BlockingIOError:
                continue
            return False
    return True


def in_memory(appliance, block=0):
    """How many pages of this block of the only extent are in the page cache."""
    (path,) = appliance.extent_files()
    with path.open("rb") as file:
        return cached_pages(file.fileno(), block * BLOCK, BLOCK)


def flip_a_bit(appliance, offset):
    """Of the only extent, where it lies; it is read from there the next time."""
    (path,) = appliance.extent_files()
    with path.open("r+b") as file:
        (byte,) = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([byte ^ 8]), offset)
    forget_pages(appliance)


@pytest.fixture
def stored(make_appliance, origin, path):
    """Starts an appliance of one worker that holds one film, and no page of it in memory. Gives both."""

    def start(size, **tables):
        appliance = make_appliance().start(listen={"workers": 1}, store={"probation": 0}, **tables)
        content = origin.put(path, size)
        appliance.get(path)
        appliance.wait_stored(path)
        forget_pages(appliance)
        return appliance, content

    return start


@pytest.mark.parametrize("size", [16_384, 100_000, 3 * BLOCK + 1])
def test_cold_pages_are_read_and_sent_right(stored, path, size):
    appliance, content = stored(size)
    answer = appliance.get(path)
    assert answer.is_hit
    assert answer.body == content
    blocks = -(-size // BLOCK)
    metrics = appliance.metrics()
    assert metrics.value("oca_cold_reads_total") == blocks
    # Each block was read once, whole.
    device = {"device": appliance.status()["devices"][0]["id"], "tier": "nvme"}
    assert metrics.value("oca_device_reads_total", **device) == blocks
    assert metrics.value("oca_device_busy_seconds_total", **device) > 0
    assert metrics.value("oca_device_read_bytes_total", tier="nvme") == size
    assert metrics.value("oca_device_read_seconds_count", tier="nvme") == blocks
    assert metrics.value("oca_device_read_seconds_bucket", tier="nvme", le="+Inf") == blocks
    assert metrics.value("oca_device_read_seconds_sum", tier="nvme") > 0
    assert metrics.value("oca_device_read_errors_total", **device) == 0


def test_what_was_read_stays_in_memory_for_the_next_viewer(stored, path):
    appliance, content = stored(BLOCK)
    for _ in range(2):
        assert appliance.span(path, 10, 1_000_000).body == content[10:1_000_000]
    assert appliance.metric("oca_cold_reads_total") == 1
    assert in_memory(appliance) > BLOCK // 4096 // 2


@pytest.mark.parametrize("offset", [0, BLOCK - 1, BLOCK, 2 * BLOCK + 4], ids=["first", "end", "second", "last"])
def test_a_bit_that_flipped_at_rest_reaches_no_viewer_and_is_healed(stored, origin, path, offset):
    appliance, content = stored(2 * BLOCK + 5)
    flip_a_bit(appliance, offset)
    asked = origin.count(path)
    answer = appliance.get(path)
    assert answer.status == 200
    assert answer.body == content
    metrics = appliance.metrics()
    assert metrics.value("oca_device_read_errors_total") == 1
    assert metrics.value("oca_healed_reads_total") == 1
    assert origin.count(path) > asked
    # On disk it is right again, too. (The extent went as a whole, with what had been sent from it already.)
    assert appliance.get(path).body == content
    appliance.wait_stored(path)
    forget_pages(appliance)
    asked = origin.count(path)
    assert appliance.get(path).body == content
    assert appliance.metric("oca_device_read_errors_total") == 1
    assert origin.count(path) == asked


def test_a_bit_that_flipped_beside_what_is_asked_for_is_found_as_well(stored, path):
    """Blocks are read whole: the sum says nothing about a part."""
    appliance, content = stored(BLOCK)
    flip_a_bit(appliance, BLOCK // 2)
    assert appliance.span(path, 0, 10).body == content[:10]
    assert appliance.metric("oca_device_read_errors_total") == 1


def test_pages_that_one_viewer_read_are_given_back(stored, path):
    appliance, content = stored(BLOCK + 100_000)
    assert appliance.get(path).body == content
    wait_until(lambda: in_memory(appliance, 0) + in_memory(appliance, 1) == 0, "the pages are given back")


def test_pages_that_two_viewers_read_stay(stored, origin, path):
    appliance, content = stored(BLOCK)
    for _ in range(2):
        assert appliance.get(path).body == content
    # When the pages of another film are given back, these had their time.
    other = origin.put(path + "/other", BLOCK)
    appliance.get(path + "/other")
    appliance.wait_stored(path + "/other")
    first, second = sorted(appliance.extent_files(), key=lambda file: file.stat().st_mtime_ns)
    with first.open("rb") as kept, second.open("rb") as given:
        os.fsync(given.fileno())
        os.posix_fadvise(given.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert appliance.get(path + "/other").body == other
        wait_until(lambda: cached_pages(given.fileno(), 0, BLOCK) == 0, "the other's pages are given back")
        # Not all: the kernel takes some back of its own accord.
        assert cached_pages(kept.fileno(), 0, BLOCK) > BLOCK // 4096 // 2


def test_a_disk_with_one_head_is_read_on_while_a_viewer_watches(make_appliance, origin, path):
    appliance = make_appliance()
    device = {"path": str(appliance.devices[0]), "tier": "hdd", "capacity": "1 GiB"}
    appliance.start(listen={"workers": 1}, device=[device])
    content = origin.put(path, 6 * BLOCK)
    appliance.get(path)
    appliance.wait_stored(path)
    forget_pages(appliance)
    assert appliance.get(path).body == content
    metrics = appliance.metrics()
    assert metrics.value("oca_device_read_seconds_count", tier="hdd") >= 6
    assert metrics.value("oca_device_read_errors_total") == 0
    assert metrics.value("oca_healed_reads_total") == 0
