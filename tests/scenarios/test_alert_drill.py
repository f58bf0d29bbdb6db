"""An alert drill: twelve things are broken in a fleet that runs, one after another, and the right alert fires.

And only that: whatever else fires then is a fault of the rules. Afterwards it is mended, and the alert is over. What
the alert's runbook has the NOC look at is really asked, while it is broken. Real Prometheus and Alertmanager with the
repository's rules, which wait for nothing here: how long each waits is for promtool (tests/docs/test_alerts.py).
"""

import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import promql_parser
import pytest
from typer.testing import CliRunner

from admin.__main__ import app
from tests.docs.test_alerts import ADMIN
from tests.doubles.appliance import exchange, wait_until
from tests.doubles.authority import Authority
from tests.doubles.geoip import CITY, city, write_database
from tests.doubles.noc import BOXES, FILM
from tests.doubles.noc import noc as watched_fleet
from tests.doubles.prometheus import lacking
from tests.doubles.steering import appliance

pytestmark = pytest.mark.timeout(300)

VIEWER, PLACES = "192.0.2.1", {"192.0.2.0/24": city("PT", 38.7, -9.1)}
LOST = "/titles/lost/720p.1f/seg-%d.m4s"


@pytest.fixture(scope="module")
def noc(module_appliance, tmp_path_factory):
    if lacking():
        pytest.skip(f"not here: {', '.join(lacking())}; apt-get install prometheus prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("drill")
    cities = write_database(folder / "cities.mmdb", CITY, PLACES)
    with watched_fleet(module_appliance, folder, geo={"city": str(cities), "check": "1 s"}) as fleet:
        fleet.folder, fleet.cities = folder, cities
        wait_until(
            lambda: {one["metric"]["appliance"] for one in fleet.prometheus.query("oca_cpu_ratio")} == set(BOXES),
            "all are seen",
        )
        wait_until(lambda: fleet.prometheus.query('up{job="oca-steering"} == 1'), "steering is seen")
        fleet.prometheus.wait_judged()
        yield fleet


# --- What is broken, and how it is mended ---


def lose(name):
    return lambda noc: noc.boxes[name].kill_all()


def bring_back(name):
    def act(noc):
        noc.boxes[name].launch()
        noc.boxes[name].wait_ready()

    return act


def take_disk(noc):
    (device,) = noc.boxes["lis-2"].devices
    device.rename(device.with_name("pulled"))


def put_disk_back(noc):
    (device,) = noc.boxes["lis-2"].devices
    device.with_name("pulled").rename(device)
    assert noc.boxes["lis-2"].control("POST", "/v1/devices", {"path": str(device)}).status == 200


def fail_origin(noc):
    """Nobody watches: a prefetch finds out."""
    for number in range(20):
        noc.origin.put(LOST % number, 10, status=503)
        noc.boxes["lis-1"].control("POST", "/v1/prefetch", {"path": LOST % number})


def mend_origin(noc):
    noc.origin.put("/titles/new/720p.1f/seg-1.m4s", 10)

    def is_tried():
        noc.boxes["lis-1"].control("POST", "/v1/prefetch", {"path": "/titles/new/720p.1f/seg-1.m4s"})
        return noc.boxes["lis-1"].status()["sources"][0]["breaker"] == "closed"

    wait_until(is_tried, "the origin is believed again")


def lose_worker(noc):
    """And nobody replaces it: the supervisor is stopped."""
    box = noc.boxes["lis-2"]
    os.kill(box.process.pid, signal.SIGSTOP)
    for pid in box.worker_pids:
        os.kill(pid, signal.SIGKILL)


def let_supervisor_go_on(noc):
    os.kill(noc.boxes["lis-2"].process.pid, signal.SIGCONT)
    noc.boxes["lis-2"].wait_ready()


def add_one_whose_clock_is_off(noc):
    entry = appliance("lis-9", "lis")
    assert noc.replica.change({"type": "put-appliance", "appliance": entry}).status == 200
    assert noc.replica.speaker("lis-9").beat(sent_at=time.time() - 60).status == 200


def remove_it(noc):
    assert noc.replica.change({"type": "remove-appliance", "id": "lis-9"}).status == 200


def announce(*prefixes):
    def act(noc):
        version = time.time_ns() // 1000
        message = {"appliance": "lis-1", "version": version, "kind": "kernel", "prefixes": [[one] for one in prefixes]}
        got = noc.replica.speaker("lis-1").tell("/v1/prefixes", message)
        assert (got.status, got.json()["accepted"]) == (200, len(prefixes)), got.body

    return act


def start_steering(noc):
    noc.replica.start()
    noc.replica.serving()


def let_certificate_run_out(noc):
    """It is good for a day, and nobody renewed it."""
    pem = Authority(noc.folder).sign("steering", "steering.pem")
    text = noc.replica.config.read_text()
    noc.replica.stop()
    noc.replica.config.write_text(f'{text}\n[tls]\npublic_cert = "{pem}"\npublic_key = "{pem}"\n')
    noc.replica.start()


def renew_certificate(noc):
    text = noc.replica.config.read_text()
    noc.replica.stop()
    noc.replica.config.write_text(text.partition("\n[tls]")[0])
    noc.replica.start()


def database_of(age):
    return lambda noc: write_database(noc.cities, CITY, PLACES, built_at=time.time() - age)


def disable_all(noc):
    for name in BOXES:
        noc.replica.change({"type": "set-wish", "appliance": name, "wish": "disable"})


def press_play(noc):
    for _ in range(5):
        noc.replica.public(f"/v1/steer?path={FILM}&client={VIEWER}")


def serve_again(noc):
    for name in BOXES:
        noc.replica.change({"type": "set-wish", "appliance": name, "wish": "serve"})


def fail_viewers(noc):
    """Who ask for films that the origin can't give."""
    for number in range(20):
        assert noc.boxes["lis-1"].get(LOST % number).status >= 500


@dataclass
class Fault:
    what: str
    fires: set[tuple[str, str]]
    """Alerts, and of whom."""
    place: str
    """To whom the first of these goes: a page, or a ticket."""
    act: Callable
    mend: Callable
    meanwhile: Callable = lambda noc: None
    """What viewers go on doing."""
    lingers: bool = False
    """For the minutes that its rule looks back on."""


FAULTS = [
    Fault("an appliance loses its power", {("ApplianceLost", "lis-2")}, "/ticket", lose("lis-2"), bring_back("lis-2")),
    Fault("all of a site loses it", {("SiteLost", "mad")}, "/page", lose("mad-1"), bring_back("mad-1")),
    Fault("a disk is pulled", {("DeviceNotWell", "lis-2")}, "/ticket", take_disk, put_disk_back),
    Fault("a supervisor hangs", {("WorkerDown", "lis-2")}, "/ticket", lose_worker, let_supervisor_go_on),
    Fault("the origin fails", {("SourceDown", "lis-1")}, "/ticket", fail_origin, mend_origin),
    Fault("a clock is off", {("ClockOff", "")}, "/ticket", add_one_whose_clock_is_off, remove_it),
    Fault("a BGP session is lost", {("PrefixesWithoutSecond", "")}, "/ticket", announce("85.88.130.0/24"), announce()),
    Fault("a database is old", {("GeoDatabaseOld", "city")}, "/ticket", database_of(90 * 86400), database_of(0)),
    Fault("steering is gone", {("SteeringLost", "")}, "/page", lambda noc: noc.replica.kill(), start_steering),
    Fault("a certificate ends", {("CertificateEnds", "public")}, "/page", let_certificate_run_out, renew_certificate),
    Fault(
        "nobody is left to serve",
        {("SteeringFallsBack", "")},
        "/page",
        disable_all,
        serve_again,
        meanwhile=press_play,
        lingers=True,
    ),
    Fault(
        "the origin fails, and viewers feel it",
        {("AvailabilityBudgetBurnsFast", "lis"), ("SourceDown", "lis-1")},
        "/page",
        fail_origin,
        mend_origin,
        meanwhile=fail_viewers,
        lingers=True,
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_the_right_alert_fires_and_only_that_and_its_runbook_is_of_use(noc, fault, monkeypatch):
    monkeypatch.setenv("OCA_STEERING", f"http://127.0.0.1:{noc.replica.admin_port}")
    monkeypatch.setenv("COLUMNS", "200")
    before = noc.prometheus.firing()
    assert not before & fault.fires
    (first, _), *_ = sorted(fault.fires)
    told_before = len(noc.told.of(first))
    fault.act(noc)
    try:

        def is_told():
            fault.meanwhile(noc)
            return fault.fires <= noc.prometheus.firing()

        wait_until(is_told, f"{first} fires", 60)
        noc.prometheus.wait_judged()
        assert noc.prometheus.firing() - before == fault.fires
        wait_until(lambda: len(noc.told.of(first)) > told_before, f"somebody is told of {first}")
        assert noc.told.of(first)[-1][0] == fault.place
        look_at(noc, first, fault)
    finally:
        fault.mend(noc)
    if not fault.lingers:
        wait_until(lambda: not fault.fires & noc.prometheus.firing(), f"{first} is over")
        noc.prometheus.wait_judged()
        assert noc.prometheus.firing() <= before, "and nothing is left of it"


def test_ten_things_at_least_are_broken_and_each_alert_once():
    alerts = [min(fault.fires)[0] for fault in FAULTS]
    assert len(alerts) == len(set(alerts)) >= 10


# --- Runbooks ---


def look_at(noc, alert, fault):
    """Ask what the runbook has one look at, as far as that is asked from the NOC."""
    where = {of for _, of in fault.fires}
    name = next((of for of in where if of in noc.boxes), "lis-1")
    asked = 0
    for command in commands_of(alert):
        for word, value in (("SITE", name[:3]), ("ADDRESS", VIEWER), ("ID", name)):
            command = re.sub(rf"\b{word}\b", value, command)
        if command.startswith("oca-admin ") and noc.replica.process is not None:
            ran = CliRunner().invoke(app, shlex.split(command)[1:])
            # Of a box that is gone, nobody can say anything.
            allowed = {0, 1, 7} if noc.boxes[name].process is None else {0, 1}
            assert ran.exit_code in allowed, (command, ran.output)
            asked += 1
        elif command.startswith("curl http://BOX:9145/"):
            path = command.removeprefix("curl http://BOX:9145")
            assert exchange(noc.boxes[name].control_port, "GET", path, {}).status == 200, command
            asked += 1
        elif is_query(command):
            assert noc.prometheus.ask(command), command
            asked += 1
    assert asked or alert in {"SteeringLost", "CertificateEnds"}, "what is looked at there is on the machines"


def commands_of(alert: str) -> Iterable[str]:
    """In a runbook's section "Look at": lines of code, and code within a line."""
    part = (ADMIN / "runbooks" / f"{alert}.md").read_text().partition("## Look at\n")[2].partition("\n## ")[0]
    for block in re.findall(r"```\n(.*?)```", part, re.DOTALL):
        yield from block.strip().splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", part, flags=re.DOTALL))


def is_query(command: str) -> bool:
    if not re.search(r"\boca_", command):
        return False
    promql_parser.parse(command)
    return True
