import pytest

from wire.codec import WireError, decode, encode
from wire.prefixes import LearnedPrefix, Prefixes, Speaker

ROUTES = (
    LearnedPrefix("192.0.2.0/24"),
    LearnedPrefix("2001:db8::/32", (64500, 64510), ("64500:100", "64500:1:2")),
    LearnedPrefix("198.51.100.0/24", (), ()),
)


def test_a_message_survives_the_wire():
    message = Prefixes(appliance="cgn-1", version=7, kind=Speaker.EXABGP, prefixes=ROUTES)
    assert decode(encode(message), Prefixes) == message


def test_a_reader_skips_what_a_later_version_adds():
    body = b'{"appliance":"a","version":1,"kind":"kernel","prefixes":[["192.0.2.0/24",null,null,"new"]],"more":1}'
    assert decode(body, Prefixes).prefixes == (LearnedPrefix("192.0.2.0/24"),)


@pytest.mark.parametrize(
    "body",
    [
        b'{"appliance":"a","version":1,"kind":"smoke","prefixes":[]}',
        b'{"appliance":"a","version":-1,"kind":"kernel","prefixes":[]}',
        b'{"appliance":"a","version":1,"kind":"kernel","prefixes":[["192.0.2.0/24",[4294967296]]]}',
        b'{"appliance":"a b","version":1,"kind":"kernel","prefixes":[]}',
        b'{"appliance":"a","version":1,"kind":"kernel","prefixes":[["' + b"1" * 44 + b'"]]}',
        b'{"appliance":"a","version":1,"kind":"kernel","prefixes":['
        + b",".join([b'["192.0.2.0/24"]'] * 200_001)
        + b"]}",
    ],
    ids=["kind", "version", "as", "appliance", "prefix", "too many"],
)
def test_what_breaks_a_bound_is_refused(body):
    with pytest.raises(WireError):
        decode(body, Prefixes)
