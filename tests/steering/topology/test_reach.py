import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.topology.prefixes import network_of
from steering.topology.reach import Reach, reach_of, reach_of_all, unwrapped


def _bytes(text):
    return ipaddress.ip_address(text).packed


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("8.8.8.8", Reach.GLOBAL),
        ("192.0.1.1", Reach.GLOBAL),
        ("2a00:1450::1", Reach.GLOBAL),
        ("2001:4860::1", Reach.GLOBAL),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.31.255.255", Reach.PRIVATE),
        ("172.32.0.0", Reach.GLOBAL),
        ("192.168.0.1", Reach.PRIVATE),
        ("fd12::1", Reach.PRIVATE),
        ("64:ff9b:1::1", Reach.PRIVATE),
        ("100.64.0.1", Reach.SHARED),
        ("100.128.0.1", Reach.GLOBAL),
        ("127.0.0.1", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("169.254.1.1", Reach.LINK_LOCAL),
        ("fe80::1", Reach.LINK_LOCAL),
        ("203.0.113.7", Reach.DOCUMENTATION),
        ("2001:db8::1", Reach.DOCUMENTATION),
        ("3fff:fff::1", Reach.DOCUMENTATION),
        ("198.19.1.1", Reach.BENCHMARK),
        ("2001:2::1", Reach.BENCHMARK),
        ("239.1.1.1", Reach.MULTICAST),
        ("ff02::1", Reach.MULTICAST),
        ("0.0.0.0", Reach.UNSPECIFIED),
        ("::", Reach.UNSPECIFIED),
        ("255.255.255.255", Reach.RESERVED),
        ("192.0.0.8", Reach.RESERVED),
        ("2001::1", Reach.RESERVED),
        ("4000::1", Reach.RESERVED),
        ("fec0::1", Reach.RESERVED),
    ],
)
def test_each_kind_of_address_is_known(address, reach):
    assert reach_of(_bytes(address)).value is reach


@pytest.mark.parametrize(
    ("prefix", "reach"),
    [
        ("8.0.0.0/8", Reach.GLOBAL),
        ("10.0.0.0/8", Reach.PRIVATE),
        ("10.1.0.0/16", Reach.PRIVATE),
        ("100.0.0.0/8", None),
        ("192.0.0.0/16", None),
        ("0.0.0.0/0", None),
        ("2a00::/16", Reach.GLOBAL),
        ("2001::/16", None),
        ("fc00::/7", Reach.PRIVATE),
    ],
)
def test_a_network_has_a_reach_if_all_of_it_has_the_same(prefix, reach):
    assert reach_of_all(network_of(prefix)) is reach


@pytest.mark.parametrize(
    ("address", "inside", "bits"),
    [
        ("::ffff:198.51.100.7", "198.51.100.7", 96),
        ("64:ff9b::198.51.100.7", "198.51.100.7", 96),
        ("2002:c633:6407::1", "198.51.100.7", 16),
        ("198.51.100.7", "198.51.100.7", 0),
        ("2001:db8::1", "2001:db8::1", 0),
        ("64:ff9b:1::198.51.100.7", "64:ff9b:1::198.51.100.7", 0),
        ("::198.51.100.7", "::198.51.100.7", 0),
    ],
)
def test_an_address_that_carries_an_ipv4_address_is_unwrapped(address, inside, bits):
    assert unwrapped(_bytes(address)) == (_bytes(inside), bits)


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_what_is_called_global_python_calls_global_too(address):
    if reach_of(address).value is Reach.GLOBAL:
        assert ipaddress.ip_address(address).is_global
