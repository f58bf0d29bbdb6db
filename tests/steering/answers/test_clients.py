"""Who is asking: only listed proxies may say."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.answers.clients import BadClient, Proxies, network_of, packed

PROXY, INNER, STRANGER, CLIENT = "10.0.0.1", "10.0.0.2", "203.0.113.5", "198.51.100.7"
PROXIES = Proxies(("10.0.0.0/24", "fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "named", "client"),
    [
        (STRANGER, None, None, STRANGER),
        (STRANGER, CLIENT, None, STRANGER),
        (STRANGER, None, CLIENT, STRANGER),
        (PROXY, CLIENT, None, CLIENT),
        (PROXY, f"{STRANGER}, {CLIENT}", None, CLIENT),
        (PROXY, f"{STRANGER}, {CLIENT}, {INNER}", None, CLIENT),
        (PROXY, f"{INNER}", None, INNER),
        (PROXY, None, None, PROXY),
        (PROXY, "", None, PROXY),
        (PROXY, f"{STRANGER},", None, PROXY),
        (PROXY, STRANGER, CLIENT, CLIENT),
        ("fd00::1", "2001:db8::1", None, "2001:db8::1"),
        ("::ffff:10.0.0.1", CLIENT, None, CLIENT),
    ],
)
def test_the_client_is_the_last_that_a_listed_proxy_saw(peer, forwarded, named, client):
    assert PROXIES.client(peer, forwarded, named) == ipaddress.ip_address(client).packed


@pytest.mark.parametrize("forwarded", ["nobody", "198.51.100.7:8080", "1.2.3", "::g", "x" * 5000])
def test_a_proxy_that_names_no_address_is_told(forwarded):
    with pytest.raises(BadClient):
        PROXIES.client(PROXY, forwarded, None)


def test_a_header_without_end_is_read_from_its_end():
    assert PROXIES.client(PROXY, "1.1.1.1, " * 100_000 + CLIENT, None) == packed(CLIENT)


def test_without_listed_proxies_nobody_is_believed():
    assert Proxies(()).client(PROXY, CLIENT, CLIENT) == packed(PROXY)


@given(st.ip_addresses(), st.integers(8, 32), st.integers(16, 128))
def test_a_network_is_that_of_the_address(address, length_4, length_6):
    length = length_4 if address.version == 4 else length_6
    network = ipaddress.ip_network((address.packed, length), strict=False)
    cut = network_of(address.packed, length_4, length_6)
    assert cut == network.network_address.packed[: -(-length // 8)]
