"""What the NOC is told by real Prometheus and Alertmanager with the repository's files, of a fleet that loses boxes."""

import contextlib
from types import SimpleNamespace

import pytest

from admin.dashboards.board import Rare
from admin.dashboards.boards import BOARDS
from tests.docs.test_dashboards import filled
from tests.doubles.agents import Agent
from tests.doubles.appliance import PATIENCE, free_port, wait_until
from tests.doubles.origin import Origin
from tests.doubles.prometheus import lacking, running
from tests.doubles.s3 import S3Server, moto
from tests.doubles.steering import SECRET, Replica, site
from tests.doubles.steering import appliance as entry

BOXES = ("lis-1", "lis-2", "mad-1")
FILM = "/titles/film/720p.1f/seg-1.m4s"
VIEWER = {"CMCD_Object": "br=3000,d=4000,ot=v", "CMCD_Request": "bl=8000", "CMCD_Session": 'sid="a-viewer"'}


@pytest.fixture(scope="module")
def noc(module_appliance, tmp_path_factory):
    """Three appliances at two sites, an agent beside one, steering, and who watches them."""
    if lacking():
        pytest.skip(f"not here: {', '.join(lacking())}; apt-get install prometheus prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("noc")
    with contextlib.ExitStack() as stack:
        origin, store = stack.enter_context(Origin()), stack.enter_context(moto(folder))
        boxes = {name: module_appliance(origin.url, name=name, env=S3Server.environment()) for name in BOXES}
        agent = Agent(
            folder / "agent",
            "lis-1",
            f"http://127.0.0.1:{boxes['lis-1'].control_port}",
            "s3://films/control",
            store.endpoint_url,
        )
        stack.callback(agent.stop)
        fleet = {
            "operator": [{"id": "isp"}],
            "site": [site("lis", "isp", 38.7, -9.1, "PT"), site("mad", "isp", 40.4, -3.7, "ES", serves="everyone")],
            "appliance": [
                entry(name, name[:3], url=box.url, metrics=f"127.0.0.1:{box.control_port}")
                for name, box in boxes.items()
            ],
        }
        fleet["appliance"][0]["agent_metrics"] = f"127.0.0.1:{agent.port}"
        token = folder / "token"
        token.write_text(SECRET)
        token.chmod(0o600)
        replica = Replica(folder / "steering", fleet)
        stack.callback(replica.kill)
        replica.start(
            listen={"dns": f"127.0.0.1:{free_port()}"},
            patience={"rise": 1, "ramp": 1, "interval": 1, "quiet_after": 13, "silent_after": 14},
        )
        for box in boxes.values():
            told = {"urls": [f"http://127.0.0.1:{replica.fleet_port}"], "token_file": str(token), "interval": "1 s"}
            box.launch(
                listen={"workers": 1},
                steering=told | {"interfaces": ["lo"], "link_speed": "10 Gbit/s"},
                demand={"bucket": "s3://films/control", "endpoint_url": store.endpoint_url, "region": "us-east-1"},
            )
        for box in boxes.values():
            box.wait_ready()
        agent.start().wait_up()
        origin.put(FILM, 10_000)
        prometheus, told = stack.enter_context(running(folder, replica.admin_port))
        yield SimpleNamespace(boxes=boxes, prometheus=prometheus, told=told, replica=replica)


def up(noc):
    """Who answers Prometheus."""
    return {one["metric"]["appliance"] for one in noc.prometheus.query('up{job="oca"} == 1')}


def test_appliances_and_agents_are_found_by_asking_steering(noc):
    wait_until(lambda: up(noc) == set(BOXES), "all three are found and scraped")
    (found,) = noc.prometheus.query('up{appliance="mad-1"}')
    assert (found["metric"]["site"], found["metric"]["operator"], found["metric"]["country"]) == ("mad", "isp", "ES")
    wait_until(lambda: noc.prometheus.query('up{job="oca-agent", appliance="lis-1"} == 1'), "the agent is found")


def test_every_query_of_every_dashboard_gets_an_answer(noc):
    left = {query for board in BOARDS for query in board.queries if not isinstance(query, Rare)}
    assert len(left) > 50

    def are_answered():
        """Viewers go on watching until there is something to say of them."""
        for box in noc.boxes.values():
            assert box.get(FILM, **VIEWER).status == 200
        assert noc.replica.public(f"/v1/steer?path={FILM}").status == 200
        left.difference_update([query for query in left if is_answered(query)])
        return not left

    def is_answered(query):
        return any(one["value"][1] != "NaN" for one in noc.prometheus.query(filled(query)))

    with contextlib.suppress(AssertionError):
        wait_until(are_answered, "all are answered", 2 * PATIENCE)
    assert not left
    for board in BOARDS:
        for query in board.queries:
            noc.prometheus.query(filled(query))  # Those that may be empty are understood, too.


def test_losses_are_told_to_the_right_people(noc):
    boxes, told = noc.boxes, noc.told
    assert not told.of("ApplianceLost")
    boxes["lis-1"].kill_all()
    wait_until(lambda: told.of("ApplianceLost"), "the loss is told")
    (place, alert), *_ = told.of("ApplianceLost")
    assert (place, alert["labels"]["appliance"], alert["labels"]["site"]) == ("/ticket", "lis-1", "lis")
    assert alert["annotations"]["summary"] == "lis-1 at lis does not answer."
    assert alert["annotations"]["runbook_url"].endswith("/admin/runbooks/ApplianceLost.md")
    assert not told.of("SiteLost")
    boxes["mad-1"].kill_all()
    wait_until(lambda: told.of("SiteLost"), "the loss of a site is told")
    (place, alert), *_ = told.of("SiteLost")
    assert (place, alert["labels"]["site"]) == ("/page", "mad")
    boxes["lis-1"].launch()
    wait_until(lambda: told.of("ApplianceLost", "resolved"), "its return is told")
    assert {alert["labels"]["appliance"] for _, alert in told.of("ApplianceLost", "resolved")} == {"lis-1"}
