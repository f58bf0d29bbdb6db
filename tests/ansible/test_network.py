"""From outside: films for everybody, ssh and metrics for those who are listed, nothing else."""

import socket

import pytest

from tests.ansible.conftest import write_inventory
from tests.doubles.networks import connect, machine

pytestmark = [pytest.mark.racking, pytest.mark.timeout(600)]
PORTS = (22, 80, 179, 8443, 9145, 9999)
LISTENERS = """
import socket, sys, time
kept = [socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True) for port in sys.argv[1:]]
time.sleep(9999)
"""


@pytest.fixture(scope="module")
def box(shelf):
    with shelf.box("walls") as box:
        # Somebody listens everywhere, over both families: only the firewall decides.
        (box.root / "root/listeners.py").write_text(LISTENERS)
        box.run(f"systemd-run --unit listeners python3 /root/listeners.py {' '.join(map(str, PORTS[1:]))}")
        box.wait_for(f"test $(ss -ltnH | wc -l) -ge {len(PORTS)}")
        yield box


@pytest.fixture(scope="module")
def outside(box):
    """Machines on cables of their own: a viewer, the Prometheus of a NOC, and a router."""
    made = {}
    with machine() as viewer, machine() as prometheus, machine() as router:
        for number, (name, one) in enumerate({"viewer": viewer, "prometheus": prometheus, "router": router}.items()):
            connect(
                one,
                box.at,
                [f"10.80.{number}.1/24", f"fd80:{number}::1/64"],
                [f"10.80.{number}.2/24", f"fd80:{number}::2/64"],
            )
            made[name] = (one, number)
        yield made


@pytest.fixture(scope="module")
def settings():
    return {
        "network_management": ["10.77.0.0/16"],
        "network_monitoring": ["10.80.1.0/24", "fd80:1::/64"],
        "network_bgp_peers": ["10.80.2.1", "fd80:2::1"],
        "network_fleet": ["10.80.2.0/24"],
        "oca_fleet_port": 8443,
    }


@pytest.fixture(scope="module")
def play(shelf, box, settings):
    playbook = shelf.folder / "network.yml"
    playbook.write_text("- hosts: all\n  roles: [network]\n")
    inventory = write_inventory(shelf.folder / "network-inventory.yml", {"appliances": {box: {}}})
    return lambda *words, **more: shelf.play(str(playbook), *words, inventory=inventory, **{**settings, **more})


@pytest.fixture(scope="module")
def walls(play, outside):
    return play().assert_good()


def reached(outside, name, family):
    """The ports of the box that answer somebody."""
    one, number = outside[name]
    address = f"10.80.{number}.2" if family == 4 else f"fd80:{number}::2"
    found = set()
    with one.entered():
        for port in PORTS:
            try:
                # What is dropped is never answered; what is open, within a millisecond.
                socket.create_connection((address, port), timeout=1).close()
            except ConnectionRefusedError:
                pytest.fail(f"{port} is closed, and not dropped: nobody listens there")
            except OSError:
                continue
            found.add(port)
    return found


def test_without_walls_everything_would_be_reached(outside):
    assert reached(outside, "viewer", 4) == set(PORTS)


@pytest.mark.parametrize("family", [4, 6])
def test_a_viewer_reaches_films_and_nothing_else(walls, outside, family):
    assert reached(outside, "viewer", family) == {80}


@pytest.mark.parametrize("family", [4, 6])
def test_prometheus_reaches_metrics_besides(walls, outside, family):
    assert reached(outside, "prometheus", family) == {80, 9145}


def test_a_router_speaks_bgp_and_the_fleets_port_is_for_its_network(walls, outside):
    assert reached(outside, "router", 4) == {80, 179, 8443}
    assert reached(outside, "router", 6) == {80, 179}


def test_a_second_run_changes_nothing(walls, play):
    assert play().assert_good().changed() == []
    assert play("--check", "--diff").assert_good().changed() == []


def test_who_would_shut_himself_out_is_stopped(walls, play, box):
    before = box.run("nft list ruleset")
    for management in (["192.0.2.0/24"], []):
        played = play(network_management=management)
        assert played.returncode != 0
    assert "you come from 10.77." in played.text
    assert box.run("nft list ruleset") == before


def test_other_rules_replace_these_at_once_and_cut_nobody(walls, play, outside, box):
    one, _ = outside["viewer"]
    with one.entered():
        kept = socket.create_connection(("10.80.0.2", 80), timeout=5)
    play(oca_http_port=9999).assert_good()
    assert reached(outside, "viewer", 4) == {9999}
    kept.settimeout(5)
    kept.sendall(b"still here")
    assert "ESTAB" in box.run("ss -tn state established '( sport = :80 )' | grep -q 10.80.0.1 && echo ESTAB")
    kept.close()
    play().assert_good()


def test_a_network_that_is_none_is_named(walls, play):
    played = play(network_monitoring=["10.80.1.0/24", "10.80.1.7/24"])
    assert played.returncode != 0
    assert "10.80.1.7/24" in played.text


def test_a_bond_of_two_cards_is_written_for_networkd(walls, play, box):
    bond = {
        "name": "bond0",
        "members": ["eth8", "eth9"],
        "addresses": ["198.51.100.11/24"],
        "gateways": ["198.51.100.1"],
    }
    play(network_bond=bond).assert_good()
    assert "Mode=802.3ad" in box.run("cat /etc/systemd/network/10-oca-bond.netdev")
    assert "Name=eth8 eth9\n" in box.run("cat /etc/systemd/network/10-oca-members.network")
    assert "Address=198.51.100.11/24" in box.run("cat /etc/systemd/network/10-oca-bond.network")
