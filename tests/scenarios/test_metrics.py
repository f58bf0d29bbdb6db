"""/metrics: what Prometheus reads is well-formed, named as agreed, and exact."""

import os
import shutil
import signal
import subprocess

from tests.doubles.appliance import BLOCK, wait_until
from tests.scenarios.test_cold_reads import forget_pages

OF_AN_AGENT = 40
"""Series of the fill agent beside it, at most."""
AGREED = {
    "oca_requests_total": {"outcome", "status_class"},
    "oca_egress_bytes_total": {"tier"},
    "oca_hits_total": set(),
    "oca_misses_total": set(),
    "oca_hit_bytes_total": set(),
    "oca_miss_bytes_total": set(),
    "oca_first_byte_seconds_bucket": {"outcome", "le"},
    "oca_first_byte_seconds_count": {"outcome"},
    "oca_first_byte_seconds_sum": {"outcome"},
    "oca_open_connections": set(),
    "oca_flights": set(),
    "oca_fetch_bytes_total": {"source"},
    "oca_breaker_state": {"source"},
    "oca_device_used_bytes": {"device", "tier"},
    "oca_device_capacity_bytes": {"device", "tier"},
    "oca_device_up": {"device", "tier"},
    "oca_worker_up": {"worker"},
    "oca_build_info": {"version", "python"},
}


def test_everything_agreed_is_there_with_its_labels_and_help(appliance):
    metrics = appliance.metrics()
    for name, labels in AGREED.items():
        found = [s for family in metrics.families.values() for s in family.samples if s.name == name]
        assert found, name
        assert all(set(sample.labels) == labels for sample in found), name
    for name, family in metrics.families.items():
        assert name.startswith("oca_")
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}


def test_it_says_what_format_it_is(appliance):
    assert appliance.control("GET", "/metrics")["Content-Type"].startswith("text/plain; version=")


# Not a skip: where Prometheus' own tool is not installed, there is nothing to ask.
if shutil.which("promtool"):

    def test_promtool_finds_nothing_to_complain_about(appliance):
        ended = subprocess.run(
            ["promtool", "check", "metrics"],
            input=appliance.metrics().text,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_labels_never_come_from_requests(appliance, origin):
    def ask(number):
        appliance.get(f"/labels/{number}?x={number}", User_Agent=f"agent-{number}", CMCD_Request="bl=1", Host="evil")
        appliance.get(f"/labels/{number}", "DELETE")

    def shown():
        families = appliance.metrics().families.values()
        return {(s.name, *sorted(s.labels.items())) for family in families for s in family.samples}

    ask(0)
    before = shown()
    for number in range(1, 6):
        ask(number)
    assert shown() == before


def test_an_appliance_of_twelve_devices_that_does_everything_stays_below_300_series(make_appliance, origin, path):
    one = make_appliance()
    devices = [
        {"path": str(one.folder / f"device-{number}"), "tier": tier, "capacity": "200 MiB"}
        for number, tier in enumerate(["nvme"] * 4 + ["hdd"] * 8)
    ]
    one.start(device=devices, parents=[{"url": origin.url}], listen={"workers": 2}, store={"probation": 0})
    for number in range(12):
        origin.put(f"{path}/{number}", BLOCK)
        one.get(f"{path}/{number}")
        one.wait_stored(f"{path}/{number}")
    one.get(path + "/none")
    forget_pages(one)
    for number in range(12):
        assert one.get(f"{path}/{number}").is_hit
    families = one.metrics().families
    assert sum(len(family.samples) for family in families.values()) < 300 - OF_AN_AGENT
    assert len({sample.labels["device"] for sample in families["oca_device_used_bytes"].samples}) == 12


def test_counts_are_exact_over_all_workers_and_over_the_death_of_one(make_appliance, origin, path):
    one = make_appliance().start(listen={"workers": 3})
    size = BLOCK + 1000
    origin.put(path, size)
    origin.put(path + "/small", 500)
    one.get(path)
    one.get(path + "/small")
    one.wait_stored(path)
    one.wait_stored(path + "/small")

    def one_round():
        """Twenty-two requests in connections of their own: the kernel spreads them."""
        for _ in range(10):
            assert one.get(path + "/small").status == 200
        for _ in range(5):
            assert one.get(path, Range="bytes=100-1099").status == 206
        for _ in range(4):
            assert one.get(path, If_None_Match="*").status == 304
        assert one.get(path).status == 200
        assert one.get(path, Range="bytes=99999999-").status == 416
        assert one.get(path, "DELETE").status == 405

    def expect(rounds):
        metrics = one.metrics()
        requests = {
            (s.labels["outcome"], s.labels["status_class"]): s.value
            for s in metrics.families["oca_requests"].samples
            if s.name == "oca_requests_total" and s.value
        }
        assert requests == {
            ("miss", "2xx"): 2,
            ("hit", "2xx"): 16 * rounds,
            ("hit", "3xx"): 4 * rounds,
            ("hit", "4xx"): rounds,
            ("refused", "4xx"): rounds,
        }
        assert metrics.value("oca_hits_total") == 21 * rounds
        assert metrics.value("oca_misses_total") == 2
        assert metrics.value("oca_hit_bytes_total") == (10 * 500 + 5 * 1000 + size) * rounds
        assert metrics.value("oca_egress_bytes_total", tier="nvme") == metrics.value("oca_hit_bytes_total")
        assert metrics.value("oca_miss_bytes_total") == size + 500
        assert metrics.value("oca_first_byte_seconds_count", outcome="hit") == 21 * rounds
        assert metrics.value("oca_first_byte_seconds_bucket", outcome="hit", le="+Inf") == 21 * rounds
        assert metrics.value("oca_fetch_bytes_total", source="origin") == size + 500
        assert metrics.value("oca_connections_total") == 2 + 22 * rounds
        assert metrics.value("oca_flights") == 0

    one_round()
    expect(1)
    one_round()
    victim = next(iter(one.workers().values()))
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in one.workers().values() and len(one.workers()) == 3, "it is replaced")
    expect(2)
    one_round()
    (keeper,) = one.keeper_pids
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: len(one.workers()) == 3 and one.keeper_pids != [keeper], "the keeper is replaced")
    # What the keeper itself counts begins anew, as Prometheus expects of a process that was restarted.
    metrics = one.metrics()
    assert metrics.value("oca_hits_total") == 21 * 3
    assert metrics.value("oca_connections_total") == 2 + 22 * 3


def test_open_connections_follow_the_clients(make_appliance, origin, hold, path):
    one = make_appliance().start()
    wires = [hold(one.wire()) for _ in range(5)]
    wait_until(lambda: one.metric("oca_open_connections") == 5, "all are counted")
    for wire in wires[:3]:
        wire.close()
    wait_until(lambda: one.metric("oca_open_connections") == 2, "those that left are not")
    killed = one.workers().values()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: one.metric("oca_open_connections") == 0, "the dead have none")
    wait_until(lambda: len(set(one.workers().values()) - set(killed)) == 2, "they are replaced")
    assert one.metric("oca_worker_up") == 2
    assert one.metric("oca_open_connections") == 0


def test_devices_and_flights_are_told_as_they_are(appliance, origin, path):
    origin.put(path, BLOCK)
    gate = origin.gate(path, 100)
    used = appliance.metric("oca_device_used_bytes")
    with appliance.wire() as viewer:
        viewer.ask(path)
        gate.wait_reached()
        assert appliance.metric("oca_flights") == 1
        gate.open()
        viewer.answer()
    appliance.wait_landed()
    metrics = appliance.metrics()
    assert metrics.value("oca_flights") == 0
    assert metrics.value("oca_device_used_bytes") == used + BLOCK
    assert metrics.value("oca_device_capacity_bytes") == 1024**3
    assert metrics.value("oca_device_up") == 1
    assert metrics.value("oca_worker_up") == 2
    assert metrics.value("oca_breaker_state") == 0
