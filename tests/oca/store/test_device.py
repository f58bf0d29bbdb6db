"""One device: its identity and whereabouts, and what a block is once it is written."""

import json
import os
import shutil
import tempfile

import crc32c
import pytest

from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES, extent_key, object_key
from oca.edge.kernel import cached_pages
from oca.errors import DeviceFault, ExtentDamaged, StoreError
from oca.store.device import LABEL, DeviceFolder

KEY = extent_key(object_key("/a"), 1, 0)
CONTENT = memoryview(os.urandom(10_000))


@pytest.fixture
def folder(tmp_path):
    device = DeviceFolder(str(tmp_path / "disk"))
    device.identify()
    return device


def test_a_new_device_gets_an_id_and_keeps_it_where_it_is_moved_to(tmp_path):
    first = DeviceFolder(str(tmp_path / "one")).identify()
    assert DeviceFolder(str(tmp_path / "one")).identify() == first
    assert DeviceFolder(str(tmp_path / "two")).identify() != first
    (tmp_path / "one").rename(tmp_path / "three")
    assert DeviceFolder(str(tmp_path / "three")).identify() == first


@pytest.mark.parametrize("found", ["", "{", "[]", "7", "{}", '"id"', "null", "\udcff"])
def test_a_wrong_identity_is_named_and_left_alone(tmp_path, found):
    identity = tmp_path / "oca-device.json"
    identity.write_bytes(found.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError, match=r"oca-device\.json: is not the identity of a device"):
        DeviceFolder(str(tmp_path)).identify()
    assert identity.read_bytes() == found.encode("utf-8", "surrogateescape")


def test_an_identity_that_was_not_finished_is_written_anew(tmp_path):
    (tmp_path / "oca-device.new").write_text("{")
    found = DeviceFolder(str(tmp_path)).identify()
    assert json.loads((tmp_path / "oca-device.json").read_text())["id"] == found


def test_a_folder_that_can_not_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        DeviceFolder(str(tmp_path / "file")).identify()


def test_a_written_block_lies_at_its_offset_and_its_sum_is_that_of_the_memory(folder):
    assert folder.write_block(KEY, BLOCK_BYTES, CONTENT, 0) == crc32c.crc32c(CONTENT)
    with open(folder.file_path(KEY), "rb") as file:
        file.seek(BLOCK_BYTES)
        assert file.read() == CONTENT


def test_blocks_of_an_extent_share_a_file(folder):
    folder.write_block(KEY, 0, CONTENT, 0)
    folder.write_block(KEY, len(CONTENT), CONTENT, len(CONTENT))
    with open(folder.file_path(KEY), "rb") as file:
        assert file.read() == bytes(CONTENT) * 2


@pytest.mark.parametrize("length", [None, 0, 9_999])
def test_a_file_that_lost_what_it_held_is_not_added_to(folder, length):
    # The holes of a file made anew would be served as the blocks that were lost.
    folder.write_block(KEY, 0, CONTENT, 0)
    if length is None:
        os.unlink(folder.file_path(KEY))
    else:
        os.truncate(folder.file_path(KEY), length)
    with pytest.raises(ExtentDamaged):
        folder.write_block(KEY, BLOCK_BYTES, CONTENT, 10_000)
    assert length is None or os.stat(folder.file_path(KEY)).st_size == length


def test_a_new_file_never_takes_the_place_of_another(folder):
    folder.write_block(KEY, 0, CONTENT, 0)
    with pytest.raises(StoreError):
        folder.write_block(KEY, BLOCK_BYTES, CONTENT, 0)


def test_a_removed_file_is_read_to_its_end_by_who_has_it_open(folder):
    folder.write_block(KEY, 0, CONTENT, 0)
    with open(folder.file_path(KEY), "rb") as file:
        folder.remove(KEY)
        assert file.read() == CONTENT
    assert not os.path.exists(folder.file_path(KEY))
    folder.remove(KEY)


def test_a_folder_where_a_file_belongs_is_somebody_elses_and_stays(folder):
    os.makedirs(folder.file_path(KEY))
    folder.remove(KEY)
    assert os.path.isdir(folder.file_path(KEY))


def test_a_file_that_can_not_be_removed_is_named(folder):
    folder.write_block(KEY, 0, CONTENT, 0)
    parent = os.path.dirname(os.path.dirname(folder.file_path(KEY)))
    os.rename(parent, parent + ".away")
    with open(parent, "w"):
        pass
    with pytest.raises(DeviceFault, match=KEY.hex()) as raised:
        folder.remove(KEY)
    assert raised.value.fault is Fault.UNUSABLE


def test_all_extents_are_listed_and_nothing_else(folder):
    keys = {extent_key(object_key(str(number)), 1, number) for number in range(20)}
    for key in keys:
        folder.write_block(key, 0, CONTENT[:10], 0)
    stranger = os.path.join(folder.path, "extents", "lost+found")
    os.makedirs(stranger)
    with open(os.path.join(stranger, "#1234"), "w"):
        pass
    assert set(folder.extents()) == keys


def test_bytes_that_the_disk_refuses_are_an_error_of_the_device(folder):
    with pytest.raises(StoreError, match=KEY.hex()):
        folder.write_block(KEY, 2**63 - 5000, CONTENT, 0)


# --- Labels -----------------------------------------------------------------------------------------------------------


def test_a_file_says_of_itself_what_it_was_given_with_its_block(folder):
    seen = []

    def label(crc):
        # Whatever it promises lies there already.
        with open(folder.file_path(KEY), "rb") as file:
            seen.append(file.read() == CONTENT)
        return b"sum %d" % crc

    crc = folder.write_block(KEY, 0, CONTENT, 0, label)
    assert seen == [True]
    assert os.getxattr(folder.file_path(KEY), LABEL) == b"sum %d" % crc
    assert folder.describe(KEY) == (len(CONTENT), b"sum %d" % crc)
    folder.write_block(KEY, len(CONTENT), CONTENT, len(CONTENT), lambda _: b"two")
    assert folder.describe(KEY) == (2 * len(CONTENT), b"two")


def test_a_file_without_a_label_says_nothing_and_one_that_is_gone_less(folder):
    assert folder.describe(KEY) is None
    folder.write_block(KEY, 0, CONTENT, 0)
    assert folder.describe(KEY) == (len(CONTENT), b"")


@pytest.mark.parametrize("length", [64 * 1024, 64 * 1024 + 1, 200_000])
def test_a_label_that_the_file_system_refuses_is_left_out(folder, length):
    folder.write_block(KEY, 0, CONTENT, 0, lambda _: bytes(length))
    size, label = folder.describe(KEY)
    assert size == len(CONTENT)
    assert label in (b"", bytes(length))


# --- Copies -----------------------------------------------------------------------------------------------------------


def test_a_copy_is_written_block_by_block_and_sealed(folder):
    folder.copy_block(KEY, BLOCK_BYTES, CONTENT, is_first=True)
    folder.copy_block(KEY, 0, CONTENT, is_first=False)
    folder.seal(KEY, b"label")
    assert folder.describe(KEY) == (BLOCK_BYTES + len(CONTENT), b"label")
    with open(folder.file_path(KEY), "rb") as file:
        assert file.read(len(CONTENT)) == CONTENT


def test_a_copy_never_takes_the_place_of_another_file_and_does_not_go_on_without_its_own(folder):
    folder.write_block(KEY, 0, CONTENT, 0)
    with pytest.raises(StoreError):
        folder.copy_block(KEY, 0, CONTENT, is_first=True)
    folder.remove(KEY)
    with pytest.raises(ExtentDamaged):
        folder.copy_block(KEY, 0, CONTENT, is_first=False)
    with pytest.raises(ExtentDamaged):
        folder.seal(KEY, b"label")
    assert folder.describe(KEY) is None


# --- Reading ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["disk", "memory"])
def anywhere(request, tmp_path):
    """A device on a file system that reads past the page cache, and one that is the page cache."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if request.param == "memory" else tmp_path) as path:
        device = DeviceFolder(path)
        device.identify()
        yield device


@pytest.mark.parametrize("length", [1, 4096, 10_000, 8192])
@pytest.mark.parametrize("more", [0, 1, 5000])
def test_a_block_is_read_and_compared(anywhere, length, more):
    crc = anywhere.write_block(KEY, BLOCK_BYTES, CONTENT[:length], 0)
    os.truncate(anywhere.file_path(KEY), BLOCK_BYTES + length + more)
    assert anywhere.read_block(KEY, BLOCK_BYTES, length, crc) == CONTENT[:length]
    anywhere.check_block(KEY, BLOCK_BYTES, length, crc)


def test_reading_brings_nothing_into_the_page_cache_and_takes_nothing_out(folder):
    content = memoryview(os.urandom(BLOCK_BYTES))
    crc = folder.write_block(KEY, 0, content, 0)
    with open(folder.file_path(KEY), "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert cached_pages(file.fileno(), 0, BLOCK_BYTES) <= 0
        assert folder.read_block(KEY, 0, BLOCK_BYTES, crc) == content
        assert cached_pages(file.fileno(), 0, BLOCK_BYTES) <= 0

        def takes_nothing_out():
            file.seek(0)
            file.read()
            before = cached_pages(file.fileno(), 0, BLOCK_BYTES)
            assert folder.read_block(KEY, 0, BLOCK_BYTES, crc) == content
            return cached_pages(file.fileno(), 0, BLOCK_BYTES) == before

        # The kernel may take a page back just then, for others; reading would do it each time.
        assert any(takes_nothing_out() for _ in range(5))


@pytest.mark.parametrize("how", [DeviceFolder.read_block, DeviceFolder.check_block])
def test_what_was_written_and_is_not_there_any_more_is_damaged(anywhere, how):
    folder = anywhere
    crc = folder.write_block(KEY, 0, CONTENT, 0)

    def fault_of_reading(length=10_000):
        with pytest.raises(ExtentDamaged, match=KEY.hex()) as raised:
            how(folder, KEY, 0, length, crc)
        return raised.value.fault

    assert fault_of_reading(len(CONTENT) + 1) is Fault.SHORT
    with open(folder.file_path(KEY), "r+b") as file:
        file.seek(5000)
        file.write(bytes([CONTENT[5000] ^ 4]))
    assert fault_of_reading() is Fault.ROTTEN
    os.truncate(folder.file_path(KEY), 9_999)
    assert fault_of_reading() is Fault.SHORT
    os.unlink(folder.file_path(KEY))
    assert fault_of_reading() is Fault.MISSING


# --- Where it is ------------------------------------------------------------------------------------------------------


def test_a_device_is_where_it_was_or_it_is_told_what_is_there(tmp_path):
    device = DeviceFolder(str(tmp_path / "slot"))
    own = device.identify()
    other = DeviceFolder(str(tmp_path / "other"))
    other.identify()
    assert device.whereabouts(own) is None
    (tmp_path / "slot").rename(tmp_path / "pulled")
    assert device.whereabouts(own) is Fault.VANISHED
    (tmp_path / "slot").mkdir()
    assert device.whereabouts(own) is Fault.VANISHED
    (tmp_path / "slot").rmdir()
    (tmp_path / "other").rename(tmp_path / "slot")
    assert device.whereabouts(own) is Fault.WRONG_DISK
    (tmp_path / "slot" / "oca-device.json").write_text("{")
    with pytest.raises(DeviceFault) as raised:
        device.whereabouts(own)
    assert raised.value.fault is Fault.UNUSABLE


def test_nothing_is_written_to_what_lies_at_the_path_of_a_device_that_is_gone(tmp_path):
    device = DeviceFolder(str(tmp_path / "slot"))
    own = device.identify()
    (tmp_path / "slot").rename(tmp_path / "pulled")
    (tmp_path / "slot").mkdir()
    device.write_block(KEY, 0, CONTENT, 0)
    device.probe()
    assert list((tmp_path / "slot").iterdir()) == []
    assert (tmp_path / "pulled" / "extents" / os.path.relpath(device.file_path(KEY), f"{device.path}/extents")).exists()
    assert device.whereabouts(own) is Fault.VANISHED


def test_a_device_that_is_mounted_anew_is_opened_anew(tmp_path):
    device = DeviceFolder(str(tmp_path / "slot"))
    own = device.identify()
    device.write_block(KEY, 0, CONTENT, 0)
    # The same content and identity, but not what was opened.
    shutil.copytree(tmp_path / "slot", tmp_path / "again")
    shutil.rmtree(tmp_path / "slot")
    assert list((tmp_path / "again").rglob(KEY.hex()))
    (tmp_path / "again").rename(tmp_path / "slot")
    assert device.whereabouts(own) is None
    assert device.describe(KEY) is not None


def test_a_probe_leaves_nothing_behind_and_says_when_a_device_is_not_written(folder):
    folder.probe()
    assert sorted(os.listdir(folder.path)) == ["extents", "oca-device.json"]
    os.mkdir(os.path.join(folder.path, "oca-probe"))
    with pytest.raises(StoreError):
        folder.probe()
    shutil.rmtree(folder.path)
    with pytest.raises(DeviceFault):
        folder.probe()


def test_a_new_device_gets_the_id_that_is_asked_for_and_an_old_one_keeps_its_own(tmp_path):
    assert DeviceFolder(str(tmp_path / "one")).identify("memory") == "memory"
    assert DeviceFolder(str(tmp_path / "one")).identify("another") == "memory"


def test_a_device_that_is_closed_is_not_reached(folder):
    folder.close()
    folder.close()
    with pytest.raises(StoreError):
        folder.write_block(KEY, 0, CONTENT, 0)
