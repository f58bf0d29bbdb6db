"""What an appliance says of itself when it is looked at."""

import msgspec
import pytest

from wire.codec import encode
from wire.probe import Card, Part, Probe, ProbeOrder


def test_an_order_that_says_nothing_looks_at_everything():
    order = msgspec.json.decode(b"{}", type=ProbeOrder)
    assert order.parts == tuple(Part)


@pytest.mark.parametrize(
    "body",
    [
        b'{"size_bytes": 1}',
        b'{"size_bytes": 100000000000}',
        b'{"parts": ["moon"]}',
        b'{"path": "no/slash"}',
        b'{"path": "/with space"}',
        b'{"disks": 1}',
    ],
)
def test_an_order_out_of_bounds_is_refused(body):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=ProbeOrder)


def test_a_newer_appliance_may_say_more():
    found = Probe(appliance="a1", version="1", at=5.0, cards=(Card(name="eth0", is_up=True, speed_bps=10**10),))
    more = msgspec.json.encode(msgspec.json.decode(encode(found)) | {"weather": "fine"})
    assert msgspec.json.decode(more, type=Probe) == found
