"""Files of keys: what is wrong is named, and this box's own key is its own."""

import pytest

from oca.errors import KeysUnusable
from oca.store.key_files import make_own_key, read_own_key, read_public_keys
from tests.doubles.keys import new_key
from wire.token import MAX_KEY_SET_BYTES, key_set


def test_public_keys_are_read(tmp_path):
    key = new_key("k1").public()
    (tmp_path / "keys.json").write_bytes(key_set([key]))
    assert read_public_keys(str(tmp_path / "keys.json")) == {"k1": key}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "keys.json: can't be read: No such file"),
        (b"{", "keys.json: not a"),
        (b'{"keys": []}', "keys.json: no key"),
        (b" " * (MAX_KEY_SET_BYTES + 100), "keys.json: a key set of"),
    ],
    ids=["missing", "torn", "empty", "huge"],
)
def test_a_file_that_can_not_be_used_is_named_with_what_is_wrong(tmp_path, body, words):
    if body is not None:
        (tmp_path / "keys.json").write_bytes(body)
    with pytest.raises(KeysUnusable, match=words):
        read_public_keys(str(tmp_path / "keys.json"))


def test_a_box_makes_its_own_key_once_and_nobody_else_may_read_it(tmp_path):
    path = tmp_path / "own.pem"
    make_own_key(str(path))
    first = read_own_key(str(path))
    make_own_key(str(path))
    again = read_own_key(str(path))
    assert (again.kid, again.public()) == (first.kid, first.public())
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["own.pem"]


def test_a_key_file_that_a_crash_left_half_written_is_written_anew(tmp_path):
    (tmp_path / "own.pem.new").write_bytes(b"half")
    make_own_key(str(tmp_path / "own.pem"))
    assert read_own_key(str(tmp_path / "own.pem")).kid.startswith("own-")


def test_two_boxes_have_two_keys(tmp_path):
    for name in ("a", "b"):
        make_own_key(str(tmp_path / name))
    assert read_own_key(str(tmp_path / "a")).kid != read_own_key(str(tmp_path / "b")).kid


def test_an_own_key_that_can_not_be_used_or_written_is_named(tmp_path):
    (tmp_path / "own.pem").write_bytes(b"rubbish")
    with pytest.raises(KeysUnusable, match=r"own\.pem: not a private key"):
        read_own_key(str(tmp_path / "own.pem"))
    with pytest.raises(KeysUnusable, match="can't be read"):
        read_own_key(str(tmp_path / "none.pem"))
    with pytest.raises(KeysUnusable, match="can't be written"):
        make_own_key(str(tmp_path / "none" / "own.pem"))
