"""A key file is read strictly, and says no key when it is wrong."""

import base64
import json

import pytest

from admin.errors import UsageError
from admin.publish.keys import Scheme, read_keys, write_new_keys
from wire.catalog import Kind

PAIR = {"kid": "00112233445566778899aabbccddeeff", "key": "ffeeddccbbaa99887766554433221100"}
PSSH = base64.b64encode(b"\0\0\0\x24pssh\0\0\0\0" + bytes(16) + b"\0\0\0\4data").decode()


@pytest.fixture
def written(tmp_path):
    def write(said, mode=0o600):
        path = tmp_path / "keys.json"
        path.write_text(said if isinstance(said, str) else json.dumps(said))
        path.chmod(mode)
        return path

    return write


def test_a_key_file_is_read(written):
    keys = read_keys(written({"scheme": "cbcs", "video": PAIR, "pssh": [PSSH]}))
    assert keys.scheme is Scheme.CBCS
    assert keys.of(Kind.VIDEO) == keys.of(Kind.AUDIO)
    assert keys.video.kid.hex() == PAIR["kid"]
    assert keys.video.pssh == (base64.b64decode(PSSH),)
    assert keys.of(Kind.TEXT) is None
    assert PAIR["key"] not in repr(keys)
    assert repr(keys.video.key) not in repr(keys)


def test_new_keys_are_of_chance_and_only_ours(tmp_path):
    first, second = (write_new_keys(tmp_path / name, Scheme.CENC) for name in ("one", "two"))
    assert len({each.key for each in (first.video, first.audio, second.video, second.audio)}) == 4
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="never overwritten"):
        write_new_keys(tmp_path / "one", Scheme.CENC)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("", "truncated"),
        ("{}", "scheme"),
        ({"scheme": "aes", "video": PAIR}, "aes"),
        ({"scheme": "cenc", "video": PAIR | {"key": "12"}}, "video.key"),
        ({"scheme": "cenc", "video": PAIR | {"iv": "12"}}, "iv"),
        ({"scheme": "cenc", "video": PAIR, "pssh": ["!"]}, "no base64"),
        ({"scheme": "cenc", "video": PAIR, "pssh": ["AAAA"]}, "no whole box"),
        ({"scheme": "cenc", "video": PAIR, "audio": PAIR | {"key": "0" * 32}}, "one kid and two keys"),
        (" " * (1 << 20) + "{}", "larger"),
    ],
)
def test_what_is_no_key_file_is_refused_by_name(written, said, wrong):
    with pytest.raises(UsageError, match=wrong) as caught:
        read_keys(written(said))
    assert "keys.json" in str(caught.value)
    assert PAIR["key"] not in str(caught.value)


def test_a_key_file_that_others_may_read_is_refused(written):
    with pytest.raises(UsageError, match="chmod 600"):
        read_keys(written({"scheme": "cenc", "video": PAIR}, 0o640))


def test_a_key_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.json: can't be read"):
        read_keys(tmp_path / "absent.json")
