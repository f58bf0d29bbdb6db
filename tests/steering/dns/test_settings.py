from __future__ import annotations

import msgspec
import pytest

from steering.dns.settings import DnsSettings
from tests.steering.dns.asking import settings

_PLAIN = {
    "zone": "steer.example.net",
    "name_servers": [{"name": "ns1.steer.example.net", "addresses": ["192.0.2.1"]}],
    "hostmaster": "people@example.net",
}


def test_a_zone_its_servers_and_its_people_are_enough() -> None:
    read = msgspec.convert(_PLAIN, DnsSettings)
    assert read.services == ("films",)
    assert read.payload_bytes == 1232


@pytest.mark.parametrize(
    "change",
    [
        {"zone": "net"},
        {"zone": "steer..example.net"},
        {"zone": "-steer.example.net"},
        {"name_servers": []},
        {"name_servers": [{"name": "ns1.steer.example.net"}]},  # in the zone, and no address
        {"name_servers": [{"name": "ns1.other.example", "addresses": ["192.0.2.1"]}]},
        {"name_servers": [{"name": "steer.example.net", "addresses": ["192.0.2.1"]}]},
        {"name_servers": [{"name": "films.steer.example.net", "addresses": ["192.0.2.1"]}]},
        {"name_servers": [{"name": "ns.films.steer.example.net", "addresses": ["192.0.2.1"]}]},
        {"name_servers": [{"name": "ns.edge.steer.example.net", "addresses": ["192.0.2.1"]}]},
        {"name_servers": [{"name": "ns1.steer.example.net", "addresses": ["192.0.2"]}]},
        {"hostmaster": "people"},
        {"services": []},
        {"services": ["edge"]},
        {"services": ["Films"]},
        {"services": ["a.b"]},
        {"services": ["films-"]},
        {"unlimited": ["192.0.2.1/24"]},  # bits beyond the prefix
        {"payload_bytes": 511},
        {"rate_limti": 5},
    ],
)
def test_what_could_not_be_answered_is_refused_at_the_start(change: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(_PLAIN | change, DnsSettings)


def test_a_name_server_may_stand_in_another_zone() -> None:
    assert settings().name_servers[2].addresses == ()
