"""Gauges on the machine that runs the tests."""

import logging
import socket

from oca.keeper.gauges import Gauges
from oca.settings import Steering
from wire.toml import BitsPerSecond

PATIENCE = 30.0
"""A heartbeat waits for a second; what is told is the same however busy the machine is."""
URLS = ("http://127.0.0.1:9",)


def send(count):
    """So many bytes over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            left = count
            while left:
                near.sendall(bytes(min(left, 65536)))
                left -= min(left, 65536)
                far.recv(65536, socket.MSG_WAITALL if left else 0)


async def test_what_a_card_sends_is_seen():
    gauges = Gauges(Steering(URLS, interfaces=("lo",)))
    first = await gauges.read(PATIENCE)
    assert first.egress_bps == 0
    send(20 * 65536)
    second = await gauges.read(PATIENCE)
    assert second.egress_bps > 0
    assert second.link_bps == 0  # Loopback has no speed.
    assert 0 <= second.cpu <= 1


async def test_the_speed_of_the_settings_goes_before_that_of_the_cards():
    gauges = Gauges(Steering(URLS, interfaces=("lo",), link_speed=BitsPerSecond(10**10)))
    assert (await gauges.read(PATIENCE)).link_bps == 10**10


async def test_a_card_that_is_not_there_is_named_once_and_the_others_count(caplog):
    gauges = Gauges(Steering(URLS, interfaces=("lo", "oca-none")))
    with caplog.at_level(logging.WARNING):
        await gauges.read(PATIENCE)
        send(65536)
        assert (await gauges.read(PATIENCE)).egress_bps > 0
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "there is no network card oca-none"
    ]


async def test_without_settings_loopback_does_not_count():
    gauges = Gauges(Steering(URLS))
    await gauges.read(PATIENCE)
    assert "lo" not in gauges._egress._sent
