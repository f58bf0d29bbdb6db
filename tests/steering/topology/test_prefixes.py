import ipaddress
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.topology.prefixes import (
    _CHUNK,
    Announced,
    Change,
    PrefixError,
    PrefixTable,
    Source,
    _SortedKeys,
    network_of,
    text_of,
)

# Few bits, in a corner of each family, so that prefixes nest, touch and repeat.
V4 = int(ipaddress.IPv4Address("10.20.0.0"))
V6 = int(ipaddress.IPv6Address("2001:db8:7::"))


@st.composite
def v4_networks(draw):
    length = draw(st.integers(0, 32) | st.integers(20, 32))
    return _network(V4 + draw(st.integers(0, 4095)), length, 4)


@st.composite
def v6_networks(draw):
    length = draw(st.integers(0, 128) | st.integers(118, 128))
    return _network(V6 + draw(st.integers(0, 1023)), length, 16)


def _network(address, length, size):
    bits = size * 8 - length
    return (address >> bits << bits).to_bytes(size), length


networks = v4_networks() | v6_networks()
addresses = st.one_of(
    st.integers(V4 - 64, V4 + 4200).map(lambda n: n.to_bytes(4)),
    st.binary(min_size=4, max_size=4),
    st.integers(V6 - 64, V6 + 1100).map(lambda n: n.to_bytes(16)),
    st.binary(min_size=16, max_size=16),
)


def _is_in(address, network):
    packed, length = network
    return len(packed) == len(address) and _network(int.from_bytes(address), length, len(packed)) == network


def _naive(entries, address):
    found = [network for network in entries if _is_in(address, network)]
    return max(found, key=lambda network: network[1], default=None)


def _filled(entries):
    table = PrefixTable()
    for number, network in enumerate(entries):
        table.put(network, number)
    return table


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.0/24", (b"\xc0\0\x02\0", 24)),
        ("0.0.0.0/0", (bytes(4), 0)),
        ("10.1.2.3/32", (b"\x0a\x01\x02\x03", 32)),
        ("2001:db8::/32", (b"\x20\x01\x0d\xb8" + bytes(12), 32)),
        ("::/0", (bytes(16), 0)),
    ],
)
def test_a_prefix_is_read_and_written(text, network):
    assert network_of(text) == network
    assert text_of(network) == text


NO_PREFIXES = [
    "10.0.0.0",
    "10.0.0.0/",
    "10.0.0.0/33",
    "10.0.0.1/8",
    "010.0.0.0/8",
    "10.0.0.0/+8",
    "10.0.0.0/٨",
    "10/8",
    "0.0.0.0/-1",
    "10.0.0.0/08888",
    "/8",
    "a/8",
    "2001:db8::1/32",
    "fe80::%eth0/64",
    "::/129",
    "::/0/0",
    "2001:db8::",
]


@pytest.mark.parametrize("text", ["", " 10.0.0.0/8", "10.0.0.0/8 ", *NO_PREFIXES])
def test_what_is_no_prefix_is_refused(text):
    with pytest.raises(PrefixError):
        network_of(text)


@given(networks)
def test_any_network_survives_being_written_and_read(network):
    assert network_of(text_of(network)) == network
    assert str(ipaddress.ip_network(text_of(network))) == text_of(network)


@given(st.sets(networks, max_size=40), st.lists(addresses, min_size=1, max_size=20))
def test_the_match_is_the_longest_that_a_search_through_all_finds(entries, asked):
    entries = sorted(entries)
    table = _filled(entries)
    for address in asked:
        expected = _naive(entries, address)
        found = table.find(address)
        assert found.network == expected
        assert found.value == (None if expected is None else entries.index(expected))


@given(st.sets(networks, max_size=40), addresses)
def test_within_the_scope_all_is_alike_and_one_bit_shorter_it_is_not(entries, address):
    found = _filled(sorted(entries)).find(address)
    width = 8 * len(address)
    assert 0 <= found.scope <= width
    assert _is_alike(entries, _network(int.from_bytes(address), found.scope, len(address)), found.network)
    if found.scope:
        wider = _network(int.from_bytes(address), found.scope - 1, len(address))
        assert not _is_alike(entries, wider, found.network)


def _is_alike(entries, block, match):
    """Whether every address of the block has this match: it is the block's own, and nothing is announced below it."""
    packed, length = block
    below = [n for n in entries if n[1] >= length and _is_in(n[0], block) and n != match]
    return not below and _naive([n for n in entries if n[1] <= length], packed) == match


@given(st.lists(st.tuples(st.booleans(), networks), max_size=60), st.lists(addresses, min_size=1, max_size=10))
def test_a_table_that_lived_is_like_one_made_anew(steps, asked):
    table = PrefixTable()
    left = {}
    for number, (comes, network) in enumerate(steps):
        if comes:
            table.put(network, number)
            left[network] = number
        elif network in left:
            table.remove(network)
            del left[network]
    anew = PrefixTable()
    for network, number in left.items():
        anew.put(network, number)
    assert len(table) == len(anew) == len(left)
    for address in asked:
        assert table.find(address) == anew.find(address)
    for network in {network for _, network in steps}:
        assert table.get(network) == left.get(network)


def test_what_is_not_there_can_not_be_removed():
    table = _filled([network_of("10.0.0.0/8")])
    with pytest.raises(KeyError):
        table.remove(network_of("10.0.0.0/9"))
    assert len(table) == 1


@pytest.mark.parametrize("empty", [array("Q"), []])
def test_sorted_keys_split_join_and_find_their_neighbours(empty):
    keys = _SortedKeys(empty)
    numbers = [number * 7919 % 20011 for number in range(1, 20011)][: _CHUNK * 6]
    for number in numbers:
        keys.add(number)
    present = sorted(numbers)
    for point in (0, 1, 5000, present[0], present[-1], 30000, *present[::500]):
        _check_around(keys, present, point)
    # The lower half goes from below, then the rest from above, until nothing is left.
    for number in [*present[: len(present) // 2], *reversed(present[len(present) // 2 :])]:
        keys.remove(number)
        present.remove(number)
        if len(present) % 300 == 0:
            for point in (0, 5000, 10000, 19000):
                _check_around(keys, present, point)
    assert keys.around(10000) == (-1, -1)


def _check_around(keys, present, point):
    before = max((key for key in present if key <= point), default=-1)
    after = min((key for key in present if key > point), default=-1)
    assert keys.around(point) == (before, after)


# --- Who announces what ---

CONFIGURED = Source("cologne")
LEARNED = Source("cologne", "cgn-1")
ALSO = Source("cologne", "cgn-2")
ELSEWHERE = Source("bonn", "bn-1")
NET = network_of("198.51.100.0/24")
CLIENT = bytes((198, 51, 100, 9))


def _sites(announced):
    found = announced.find(CLIENT).value
    return () if found is None else found.sites


def test_a_prefix_has_all_the_sites_that_announce_it():
    announced = Announced()
    announced.replace(LEARNED, [NET])
    announced.replace(ELSEWHERE, [NET])
    assert _sites(announced) == ("bonn", "cologne")
    assert announced.find(CLIENT).value.sources == (ELSEWHERE, LEARNED)


def test_what_one_appliance_withdraws_another_of_the_site_may_still_announce():
    announced = Announced()
    for source in (CONFIGURED, LEARNED, ALSO):
        announced.replace(source, [NET])
    before = announced.generation
    announced.replace(LEARNED, [])
    announced.replace(CONFIGURED, [])
    assert _sites(announced) == ("cologne",)
    assert announced.generation == before
    announced.replace(ALSO, [])
    assert _sites(announced) == ()
    assert announced.generation > before
    assert len(announced) == 0
    assert not announced.sources


def test_a_new_set_replaces_the_old_one_and_says_what_changed():
    announced = Announced()
    other = network_of("2001:db8::/32")
    assert announced.replace(LEARNED, [NET, other]) == Change(came=2)
    assert announced.replace(LEARNED, [other]) == Change(gone=1)
    assert list(announced.said_by(LEARNED)) == [other]
    generation = announced.generation
    assert announced.replace(LEARNED, [other]) == Change()
    assert announced.generation == generation


def test_a_full_table_refuses_what_is_new_and_still_learns_who_else_announces_what_it_has():
    announced = Announced(most=1)
    assert announced.replace(LEARNED, [NET]) == Change(came=1)
    other = network_of("192.0.2.0/24")
    assert announced.replace(ELSEWHERE, [NET, other]) == Change(came=1, refused=1)
    assert list(announced.said_by(ELSEWHERE)) == [NET]
    announced.replace(LEARNED, [])
    announced.replace(ELSEWHERE, [])
    assert announced.replace(ELSEWHERE, [other]) == Change(came=1)


SOURCES = [CONFIGURED, LEARNED, ALSO, ELSEWHERE]


@given(st.lists(st.tuples(st.sampled_from(SOURCES), st.sets(networks, max_size=8)), max_size=12), addresses)
def test_whatever_the_history_the_answer_is_that_of_the_last_word_of_each_source(history, address):
    announced = Announced()
    last = {}
    for source, said in history:
        before = announced.generation
        answer = announced.find(address)
        announced.replace(source, said)
        last[source] = said
        after = announced.find(address)
        if announced.generation == before:
            assert (after.network, after.scope) == (answer.network, answer.scope)
            assert getattr(after.value, "sites", ()) == getattr(answer.value, "sites", ())
    match = _naive(set().union(*last.values()), address)
    found = announced.find(address)
    assert found.network == match
    expected = sorted(source for source, said in last.items() if match in said)
    assert ([] if found.value is None else list(found.value.sources)) == expected
    for source, said in last.items():
        assert set(announced.said_by(source)) == said
    held = sum(announcers.prefixes for announcers in announced._announcers.values())
    assert held == len(announced)
