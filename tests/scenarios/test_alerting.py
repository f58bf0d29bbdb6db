"""What the NOC is told by real Prometheus and Alertmanager with the repository's files, of a fleet that loses boxes."""

import pytest

from tests.doubles.appliance import wait_until
from tests.doubles.prometheus import lacking, running
from tests.doubles.steering import SECRET, Replica, site
from tests.doubles.steering import appliance as entry

BOXES = ("lis-1", "lis-2", "mad-1")


@pytest.fixture
def noc(make_appliance, origin, tmp_path):
    """Three appliances at two sites, steering, and who watches them."""
    if lacking():
        pytest.skip(f"not here: {', '.join(lacking())}; apt-get install prometheus prometheus-alertmanager")
    boxes = {name: make_appliance(name=name) for name in BOXES}
    fleet = {
        "operator": [{"id": "isp"}],
        "site": [site("lis", "isp", 38.7, -9.1, "PT"), site("mad", "isp", 40.4, -3.7, "ES", serves="everyone")],
        "appliance": [
            entry(name, name[:3], url=box.url, metrics=f"127.0.0.1:{box.control_port}") for name, box in boxes.items()
        ],
    }
    token = tmp_path / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    replica = Replica(tmp_path / "steering", fleet).start()
    try:
        for box in boxes.values():
            told = {"urls": [f"http://127.0.0.1:{replica.fleet_port}"], "token_file": str(token), "interval": "1 s"}
            box.launch(listen={"workers": 1}, steering=told | {"interfaces": ["lo"], "link_speed": "10 Gbit/s"})
        for box in boxes.values():
            box.wait_ready()
        with running(tmp_path, replica.admin_port) as (prometheus, told):
            yield boxes, prometheus, told
    finally:
        replica.kill()


def test_a_fleet_is_found_watched_and_its_losses_told_to_the_right_people(noc, origin, path):
    boxes, prometheus, told = noc

    def up():
        return {one["metric"]["appliance"] for one in prometheus.query('up{job="oca"} == 1')}

    wait_until(lambda: up() == set(BOXES), "all three are found and scraped")
    (found,) = prometheus.query('up{appliance="mad-1"}')
    assert (found["metric"]["site"], found["metric"]["operator"], found["metric"]["country"]) == ("mad", "isp", "ES")
    origin.put(path, 10_000)
    for box in boxes.values():
        for _ in range(3):
            assert box.get(path).status == 200
    wait_until(lambda: len(prometheus.query("site:oca_requests:rate5m > 0")) == 2, "rates are recorded by site")
    assert len(prometheus.query("site:oca_link_utilisation:ratio")) == 2
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
