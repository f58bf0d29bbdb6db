"""What the NOC is told by real Prometheus and Alertmanager with the repository's files, of a fleet that loses boxes."""

import contextlib

import pytest

from admin.dashboards.board import Rare
from admin.dashboards.boards import BOARDS
from tests.docs.test_dashboards import filled
from tests.doubles.appliance import PATIENCE, wait_until
from tests.doubles.noc import BOXES, FILM
from tests.doubles.noc import noc as watched_fleet
from tests.doubles.prometheus import lacking

VIEWER = {"CMCD_Object": "br=3000,d=4000,ot=v", "CMCD_Request": "bl=8000", "CMCD_Session": 'sid="a-viewer"'}


@pytest.fixture(scope="module")
def noc(module_appliance, tmp_path_factory):
    if lacking():
        pytest.skip(f"not here: {', '.join(lacking())}; apt-get install prometheus prometheus-alertmanager")
    with watched_fleet(module_appliance, tmp_path_factory.mktemp("noc")) as fleet:
        yield fleet


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
