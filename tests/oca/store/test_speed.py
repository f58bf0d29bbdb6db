"""How fast a device is: what is written is read again, viewers go first, and nothing is left behind."""

import contextlib
import fcntl
import os
import tempfile

import pytest

from oca.cache.keys import BLOCK_BYTES
from oca.errors import DeviceFault
from oca.store.device import DeviceFolder
from oca.store.speed import LEAST_BYTES, affordable, measured

HOUR = 3600.0


@pytest.fixture
def folder(tmp_path):
    made = DeviceFolder(str(tmp_path / "device"))
    made.identify()
    return made


def always():
    return contextlib.nullcontext(True)


def files(folder):
    return sorted(path.name for path in os.scandir(folder.path))


def test_what_was_asked_for_is_written_and_read_and_no_file_is_left(folder):
    before = files(folder)
    speed = measured(folder, 3 * BLOCK_BYTES, HOUR, always)
    assert speed.size_bytes == 3 * BLOCK_BYTES
    assert speed.write_bytes_per_second > 0
    assert speed.read_bytes_per_second > 0
    assert files(folder) == before


def test_the_file_has_no_name_while_it_is_written(folder):
    seen = []

    def looking():
        seen.append(files(folder))
        return contextlib.nullcontext(True)

    measured(folder, BLOCK_BYTES, HOUR, looking)
    assert seen
    assert all("oca-speed" not in names for names in seen)


def test_who_waits_for_a_device_goes_first(folder):
    turns = iter([False, False, True] + [False] * 5 + [True] * 10)
    speed = measured(folder, 2 * BLOCK_BYTES, HOUR, lambda: contextlib.nullcontext(next(turns)))
    assert speed.size_bytes == 2 * BLOCK_BYTES


def test_where_viewers_wait_all_the_time_nothing_is_measured(folder):
    speed = measured(folder, BLOCK_BYTES, 0.0, lambda: contextlib.nullcontext(False))
    assert speed.size_bytes == 0


def test_a_file_system_that_keeps_to_its_cache_is_measured_and_said():
    # A folder in memory: tmpfs knows no way past the page cache, which is where it is.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = DeviceFolder(name)
        folder.identify()
        speed = measured(folder, BLOCK_BYTES, HOUR, always)
        fd = os.open(name, os.O_TMPFILE | os.O_RDWR)
        can = True
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            can = False
        finally:
            os.close(fd)
        assert (speed.size_bytes, speed.is_direct) == (BLOCK_BYTES, can)
        folder.close()


def test_a_device_that_is_gone_is_said_to_be_so(folder):
    folder.close()
    with pytest.raises(DeviceFault, match="not open"):
        measured(folder, BLOCK_BYTES, HOUR, always)
    with pytest.raises(DeviceFault):
        folder.free_bytes()


@pytest.mark.parametrize(
    ("free", "wanted", "size"),
    [
        (10**12, 64 * 1024 * 1024, 64 * 1024 * 1024),
        (20 * 64 * 1024 * 1024, 10**12, 64 * 1024 * 1024),
        (10**12, 70_000_000, 16 * BLOCK_BYTES),
        (20 * LEAST_BYTES - 1, 10**12, 0),
        (0, 10**12, 0),
    ],
    ids=["as asked", "a twentieth", "whole blocks", "too little", "full"],
)
def test_no_more_than_a_share_of_the_free_room_is_taken(free, wanted, size):
    assert affordable(free, wanted) == size
