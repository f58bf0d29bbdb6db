"""One device: its identity, and what a block is once it is written."""

import json
import os

import crc32c
import pytest

from oca.cache.keys import BLOCK_BYTES, extent_key, object_key
from oca.errors import ExtentDamaged, StoreError
from oca.store.device import DeviceFolder

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


def test_a_file_that_can_not_be_removed_is_named(folder):
    os.makedirs(folder.file_path(KEY))
    with pytest.raises(StoreError, match=KEY.hex()):
        folder.remove(KEY)


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
