"""The test content is the same bytes everywhere, and lies where it was put, whole."""

import hashlib

import pytest

from admin.bucket import Bucket
from admin.errors import MachineError, UsageError
from admin.turnup.content import PATH, SHA256, SIZE_BYTES, content, put


def test_it_is_known_by_its_sum():
    made = content()
    assert (len(made), hashlib.sha256(made).hexdigest()) == (SIZE_BYTES, SHA256)


def test_it_is_put_into_a_folder_and_what_is_right_there_is_left_alone(tmp_path):
    where = put(str(tmp_path), None)
    file = tmp_path / PATH.lstrip("/")
    assert where == str(file)
    assert file.read_bytes() == content()
    assert file.stat().st_mode & 0o777 == 0o644
    before = file.stat().st_ino
    put(str(tmp_path), None)
    assert file.stat().st_ino == before
    file.write_bytes(b"broken")
    put(str(tmp_path), None)
    assert file.read_bytes() == content()
    assert [one.name for one in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("where", ["/nowhere/at/all", "http://origin.example", "ftp://x/y"])
def test_what_is_no_place_is_refused(where):
    with pytest.raises(UsageError, match="allowed: s3://bucket/prefix, or a folder"):
        put(where, None)


def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    (tmp_path / "turn-up").write_text("a file where a folder should be")
    with pytest.raises(MachineError, match="can't be written"):
        put(str(tmp_path), None)


def test_it_is_put_into_a_bucket(store):
    assert put(store.url, store.endpoint_url) == f"{store.url}{PATH}"
    assert put(store.url, store.endpoint_url) == f"{store.url}{PATH}"
    assert Bucket(store.url, store.endpoint_url).read(PATH).body == content()
