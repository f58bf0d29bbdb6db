"""Each alert fires when it should and is quiet when it should be, as Prometheus' own tool sees it; and each has what
somebody needs at night.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.docs.metrics import DOCUMENT

ADMIN = Path(__file__).parents[2] / "admin"
RULES = tuple(ADMIN / "prometheus" / name for name in ("recording.yml", "alerts.yml"))
DOCS = {"runbooks": "https://docs.example/runbooks", "grafana": "https://grafana.example"}
PLACE = {"site": "lis", "operator": "isp", "country": "PT"}
BOX = {"job": "oca", "instance": "10.0.0.1:9145", "appliance": "lis-1", **PLACE}
OTHER = BOX | {"instance": "10.0.0.2:9145", "appliance": "lis-2"}
AGENT = BOX | {"job": "oca-agent", "instance": "10.0.0.1:9146"}
STEERING = {"job": "oca-steering", "instance": "10.1.0.1:9146"}
REPLICA = {"job": "oca-steering", "instance": "10.1.0.2:9146"}
SITE = {"site": "lis"}


class Series(NamedTuple):
    """A metric with its labels, and its values minute by minute as promtool writes them."""

    name: str
    labels: dict[str, str]
    values: str


class Case(NamedTuple):
    """What is fed, and after how many minutes the alert fires for whom; and what is fed when it is quiet."""

    alert: str
    minutes: int
    fires_for: dict[str, str]
    ill: tuple[Series, ...]
    well: tuple[Series, ...]


def requests(good: str, bad: str, late: str = "") -> tuple[Series, ...]:
    """Of a site: answers well begun and failed, and first bytes within half a second (as good as all, if not said)."""
    return (
        Series("oca_requests_total", BOX | {"outcome": "hit", "status_class": "2xx"}, good),
        Series("oca_requests_total", BOX | {"outcome": "failed", "status_class": "5xx"}, bad),
        Series("oca_cut_responses_total", BOX, "0x500"),
        Series("oca_first_byte_seconds_count", BOX | {"outcome": "hit"}, good),
        Series("oca_first_byte_seconds_bucket", BOX | {"outcome": "hit", "le": "0.5"}, late or good),
    )


def gauge(name: str, labels: dict[str, str], ill: str, well: str) -> tuple[tuple[Series, ...], tuple[Series, ...]]:
    return (Series(name, labels, ill),), (Series(name, labels, well),)


CASES = [
    # One in fifty fails: twenty times the budget. One in two thousand is within it.
    Case("AvailabilityBudgetBurnsFast", 70, SITE, requests("0+588x500", "0+12x500"), requests("0+5997x500", "0+3x500")),
    # Nobody is woken by the only viewer of a small site.
    Case("AvailabilityBudgetBurnsFast", 70, SITE, requests("0+588x500", "0+12x500"), requests("0+1x500", "0+1x500")),
    Case(
        "AvailabilityBudgetBurnsFast",
        70,
        SITE,
        (*requests("0+600x500", "0x500")[:2], Series("oca_cut_responses_total", BOX, "0+12x500")),
        requests("0+600x500", "0x500"),
    ),
    Case(
        "AvailabilityBudgetBurnsSlowly", 400, SITE, requests("0+996x500", "0+4x500"), requests("0+9999x500", "0+1x500")
    ),
    Case(
        "FirstByteBudgetBurnsFast",
        70,
        SITE,
        requests("0+600x500", "0x500", "0+480x500"),
        requests("0+600x500", "0x500", "0+597x500"),
    ),
    Case(
        "FirstByteBudgetBurnsSlowly",
        400,
        SITE,
        requests("0+600x500", "0x500", "0+576x500"),
        requests("0+600x500", "0x500", "0+597x500"),
    ),
    Case(
        "ViewersStall",
        45,
        PLACE,
        (
            Series("oca_viewer_stalls_total", BOX, "0+1x60"),
            Series("oca_viewer_played_seconds_total", BOX, "0+600x60"),
        ),
        (
            Series("oca_viewer_stalls_total", BOX, "0+1x60"),
            Series("oca_viewer_played_seconds_total", BOX, "0+6000x60"),
        ),
    ),
    Case(
        "ByteHitRatioFallen",
        1600,
        PLACE,
        (
            Series("oca_egress_bytes_total", BOX | {"tier": "nvme"}, "0+6e8x1700"),
            Series("oca_hit_bytes_total", BOX, "0+95x1500 142500+60x200"),
            Series("oca_miss_bytes_total", BOX, "0+5x1500 7500+40x200"),
        ),
        (
            Series("oca_egress_bytes_total", BOX | {"tier": "nvme"}, "0+6e8x1700"),
            Series("oca_hit_bytes_total", BOX, "0+95x1500 142500+90x200"),
            Series("oca_miss_bytes_total", BOX, "0+5x1500 7500+10x200"),
        ),
    ),
    Case(
        "SiteNearCapacity",
        15,
        PLACE,
        (
            Series("oca_link_egress_bytes_per_second", BOX, "95x60"),
            Series("oca_link_egress_bytes_per_second", OTHER, "90x60"),
            Series("oca_link_capacity_bytes_per_second", BOX, "100x60"),
            Series("oca_link_capacity_bytes_per_second", OTHER, "100x60"),
        ),
        (
            Series("oca_link_egress_bytes_per_second", BOX, "99x60"),
            Series("oca_link_egress_bytes_per_second", OTHER, "50x60"),
            Series("oca_link_capacity_bytes_per_second", BOX, "100x60"),
            Series("oca_link_capacity_bytes_per_second", OTHER, "100x60"),
        ),
    ),
    Case(
        "SiteWillBeFull",
        90,
        PLACE,
        (
            Series("oca_link_egress_bytes_per_second", BOX, "50+0.25x100"),
            Series("oca_link_capacity_bytes_per_second", BOX, "100x100"),
        ),
        (
            Series("oca_link_egress_bytes_per_second", BOX, "70+0.01x100"),
            Series("oca_link_capacity_bytes_per_second", BOX, "100x100"),
        ),
    ),
    Case(
        "PrefixesWithoutSecond",
        40,
        STEERING,
        *gauge("oca_steering_prefixes_without_second", STEERING, "7x60", "7x20 0x40"),
    ),
    Case(
        "SiteLost",
        10,
        PLACE,
        (Series("up", BOX, "1x5 0x10"), Series("up", OTHER, "1x5 0x10")),
        (Series("up", BOX, "1x5 0x10"), Series("up", OTHER, "1x15")),
    ),
    Case("ApplianceLost", 10, BOX, *gauge("up", BOX, "1x5 0x10", "1x8 0x0 1x8")),
    Case(
        "WorkerDown",
        10,
        BOX | {"worker": "1"},
        *gauge("oca_worker_up", BOX | {"worker": "1"}, "1x5 0x10", "1x8 0x0 1x8"),
    ),
    Case(
        "DeviceNotWell",
        12,
        BOX | {"device": "d0", "tier": "hdd", "standing": "failing"},
        (Series("oca_device_standing", BOX | {"device": "d0", "tier": "hdd", "standing": "failing"}, "_x5 1x10"),),
        (Series("oca_device_standing", BOX | {"device": "d0", "tier": "hdd", "standing": "online"}, "1x15"),),
    ),
    Case(
        "SourceDown",
        12,
        BOX | {"source": "parent-1"},
        *gauge("oca_breaker_state", BOX | {"source": "parent-1"}, "0x5 2x10", "0x5 2x4 1x10"),
    ),
    Case(
        "SteeringDoesNotHear",
        20,
        BOX | {"outcome": "refused"},
        (
            Series("oca_reports_total", BOX | {"outcome": "refused"}, "0+10x30"),
            Series("oca_reports_total", BOX | {"outcome": "ok"}, "5x30"),
        ),
        (
            Series("oca_reports_total", BOX | {"outcome": "refused"}, "0+10x30"),
            Series("oca_reports_total", BOX | {"outcome": "ok"}, "0+10x30"),
        ),
    ),
    Case("FillBehindSchedule", 25, AGENT, *gauge("oca_fill_behind_schedule", AGENT, "0x5 1x30", "0x5 1x10 0x30")),
    # Moments are those of promtool's clock, which begins at 0.
    Case(
        "FillStale",
        3000,
        AGENT,
        *gauge("oca_fill_last_success_timestamp_seconds", AGENT, "60x3100", "60x1000 60000x2100"),
    ),
    Case("DemandSpoolGrows", 30, BOX, *gauge("oca_demand_spooled_hours", BOX, "9x40", "2x40")),
    Case(
        "SteeringLost",
        5,
        {},
        (Series("up", STEERING, "1 0x10"), Series("up", REPLICA, "1 0x10")),
        (Series("up", STEERING, "1 0x10"), Series("up", REPLICA, "1x11")),
    ),
    # Nobody is scraped at all: that is no reason to be quiet.
    Case("SteeringLost", 5, {"job": "oca-steering"}, (), (Series("up", REPLICA, "1x11"),)),
    Case("SteeringReplicaLost", 5, STEERING, *gauge("up", STEERING, "1 0x10", "1x10")),
    Case(
        "SteeringFallsBack",
        20,
        {},
        (
            Series("oca_steering_decisions_total", STEERING | {"fallback": "ranked"}, "0+90x30"),
            Series("oca_steering_decisions_total", STEERING | {"fallback": "static"}, "0+10x30"),
        ),
        (
            Series("oca_steering_decisions_total", STEERING | {"fallback": "ranked"}, "0+990x30"),
            Series("oca_steering_decisions_total", STEERING | {"fallback": "static"}, "0+10x30"),
        ),
    ),
    Case("FleetSilent", 5, STEERING, *gauge("oca_steering_panic", STEERING, "0 1x10", "0x10")),
    Case(
        "RegistryStale",
        20,
        {"instance": STEERING["instance"]},
        (
            Series("oca_steering_heartbeats_total", STEERING, "100x30"),
            Series("oca_steering_appliances", STEERING | {"standing": "serving"}, "3x30"),
        ),
        (
            Series("oca_steering_heartbeats_total", STEERING, "100+10x30"),
            Series("oca_steering_appliances", STEERING | {"standing": "serving"}, "3x30"),
        ),
    ),
    Case(
        "ReplicasDisagree",
        20,
        {},
        (
            Series("oca_steering_inventory_version", STEERING, "5x30"),
            Series("oca_steering_inventory_version", REPLICA, "4x30"),
        ),
        (
            Series("oca_steering_inventory_version", STEERING, "5x30"),
            Series("oca_steering_inventory_version", REPLICA, "4x5 5x30"),
        ),
    ),
    Case("ClockOff", 15, STEERING, *gauge("oca_steering_clocks_off", STEERING, "1x20", "0x20")),
    Case("TurnUpFailed", 20, STEERING, *gauge("oca_steering_turn_up_failed", STEERING, "0x5 2x30", "0x5 1x6 0x30")),
    Case("TurnUpOverdue", 90, STEERING, *gauge("oca_steering_turn_up_overdue", STEERING, "1x100", "1x50 0x50")),
    Case(
        "CertificateEndsSoon",
        90,
        STEERING | {"listener": "public"},
        *gauge(
            "oca_steering_certificate_end_timestamp_seconds",
            STEERING | {"listener": "public"},
            f"{10 * 86400}x100",
            f"{30 * 86400}x100",
        ),
    ),
    Case(
        "CertificateEndsSoon",
        90,
        {"job": "oca", "instance": "box:9145", "listener": "https"},
        *gauge(
            "oca_certificate_end_timestamp_seconds",
            {"job": "oca", "instance": "box:9145", "listener": "https"},
            f"{10 * 86400}x100",
            f"{30 * 86400}x100",
        ),
    ),
    Case(
        "CertificateEnds",
        15,
        STEERING | {"listener": "public"},
        *gauge(
            "oca_steering_certificate_end_timestamp_seconds",
            STEERING | {"listener": "public"},
            f"{86400}x100",
            f"{10 * 86400}x100",
        ),
    ),
    Case(
        "GeoDatabaseOld",
        90,
        STEERING | {"database": "city"},
        *gauge(
            "oca_steering_database_build_timestamp_seconds",
            STEERING | {"database": "city"},
            f"-{70 * 86400}x100",
            f"-{10 * 86400}x100",
        ),
    ),
]


def rules():
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def rendered(text: str, labels: dict[str, str]) -> str:
    for kind, known in (("labels", labels), ("externalLabels", DOCS)):
        for name, value in known.items():
            text = text.replace(f"{{{{ ${kind}.{name} }}}}", value)
    return text


def spelled(series: Series) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in series.labels.items())
    return f"{series.name}{{{labels}}}"


def asked(case: Case) -> list[dict]:
    """The case as two of promtool's tests."""
    rule = alerts()[case.alert]
    told = {
        "exp_labels": case.fires_for | rule["labels"],
        "exp_annotations": {name: rendered(text, case.fires_for) for name, text in rule["annotations"].items()},
    }
    return [
        {
            "interval": "1m",
            "external_labels": DOCS,
            "input_series": [{"series": spelled(one), "values": one.values} for one in series],
            "alert_rule_test": [{"eval_time": f"{case.minutes}m", "alertname": case.alert, "exp_alerts": expected}],
        }
        for series, expected in ((case.ill, [told]), (case.well, []))
    ]


@pytest.fixture(scope="module")
def promtool():
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not here; apt-get install prometheus")
    return path


def ran(promtool, *words):
    return subprocess.run([promtool, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)


def test_the_rules_are_well_formed(promtool):
    checked = ran(promtool, "check", "rules", *RULES)
    assert (checked.returncode, checked.stderr) == (0, ""), checked


@pytest.mark.parametrize(("step", "minutes"), [("1m", range(300)), ("10m", range(300, 5000))], ids=["quick", "slow"])
def test_every_alert_fires_when_it_should_and_is_quiet_when_it_should_be(promtool, tmp_path, step, minutes):
    # Days, minute by minute, would take minutes.
    tests = [test for case in CASES if case.minutes in minutes for test in asked(case)]
    given = {
        "rule_files": [str(path) for path in RULES],
        "evaluation_interval": step,
        # Else it takes them in any order, and an alert may miss what is recorded.
        "group_eval_order": [group["name"] for path in RULES for group in yaml.safe_load(path.read_text())["groups"]],
        "tests": tests,
    }
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(given))
    tested = ran(promtool, "test", "rules", tmp_path / "alerts.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_case():
    assert {case.alert for case in CASES} == set(alerts())


def test_every_alert_says_how_bad_it_is_what_it_means_and_what_to_do():
    for name, rule in alerts().items():
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}, name
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert set(rule["annotations"]) == {"summary", "runbook_url", "dashboard_url"}, name
        assert rule["annotations"]["summary"].endswith("."), name
        assert rule["annotations"]["runbook_url"] == "{{ $externalLabels.runbooks }}/" + name + ".md"


def test_rules_ask_only_for_what_is_shown():
    told = dict(re.findall(r"^\| `(oca_\w+)` \| \w+ \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE))
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        for name in re.findall(r"\b(?:site:)?oca_\w+(?::\w+)?", rule["expr"]):
            base = re.sub(r"_(bucket|count|sum)$", "", name) if "first_byte" in name else name
            assert name in recorded or base in told, name


@pytest.mark.parametrize("part", ["What it means", "What viewers feel", "Look at", "Do", "Escalate"])
def test_every_alert_has_a_runbook_with_all_its_parts(part):
    for name in alerts():
        runbook = (ADMIN / "runbooks" / f"{name}.md").read_text()
        assert runbook.startswith(f"# {name}\n"), name
        assert f"\n## {part}\n" in runbook, (name, part)


def test_there_is_no_runbook_without_an_alert():
    names = {path.stem for path in (ADMIN / "runbooks").glob("*.md")} - {"README"}
    assert names == set(alerts())
