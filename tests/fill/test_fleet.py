"""The fleet: from what steering says, to what a plan needs."""

import datetime as dt
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from zoneinfo import ZoneInfo

import pytest

from fill.errors import InputError
from fill.fleet import Appliance, Site, fleet_of, load, save, zone_at
from fill.settings import FleetSource

INVENTORY = {
    "version": 3,
    "operator": [{"id": "isp", "asns": [64500]}],
    "site": [
        {"id": "porto", "operator": "isp", "country": "PT", "latitude": 41.2, "longitude": -8.6, "parent": "lisbon"},
        {"id": "lisbon", "operator": "isp", "country": "PT", "latitude": 38.7, "longitude": -9.1},
        {"id": "tokyo", "operator": "isp", "country": "JP", "latitude": 35.7, "longitude": 139.7},
    ],
    "appliance": [
        {"id": "p1", "site": "porto", "url": "https://p1.example/", "capacity": 10**10, "from_file": True},
        {"id": "l1", "site": "lisbon", "url": "https://l1.example"},
    ],
}


def written(tmp_path, inventory=None, **changes):
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps({**(inventory or INVENTORY), **changes}))
    return FleetSource(file=str(path), timezones={"PT": "Europe/Lisbon", "porto": "Atlantic/Azores"})


def test_a_plan_learns_who_is_where_and_behind_whom(tmp_path):
    fleet = fleet_of(written(tmp_path))
    assert fleet.sites == (
        Site(id="lisbon", country="PT", timezone="Europe/Lisbon"),
        Site(id="porto", country="PT", timezone="Atlantic/Azores", parent="lisbon"),
        Site(id="tokyo", country="JP", timezone="Etc/GMT-9"),
    )
    assert fleet.appliances == (
        Appliance(id="l1", site="lisbon", url="https://l1.example"),
        Appliance(id="p1", site="porto", url="https://p1.example", capacity_bps=10**10),
    )
    save(fleet, tmp_path)
    assert load(tmp_path) == fleet


def test_steering_is_asked_where_it_is_named():
    asked = []

    class Admin(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(INVENTORY).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Admin) as server:
        threading.Thread(target=server.handle_request).start()
        fleet = fleet_of(FleetSource(steering=f"http://127.0.0.1:{server.server_port}/"))
    assert asked == ["/v1/inventory"]
    assert len(fleet.appliances) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"site": [{**INVENTORY["site"][0], "parent": "nowhere"}], "appliance": []}, "'nowhere', which is no site"),
        (
            {"site": [INVENTORY["site"][0], {**INVENTORY["site"][1], "parent": "porto"}], "appliance": []},
            "go in a circle",
        ),
        ({"site": []}, "'porto', which is no site"),
        ({"site": "many"}, "not a _Inventory"),
    ],
)
def test_what_makes_no_fleet_is_named(tmp_path, changes, says):
    with pytest.raises(InputError, match=says):
        fleet_of(written(tmp_path, **changes))


def test_without_steering_there_is_no_fleet(tmp_path):
    with pytest.raises(InputError, match="can't be had"):
        fleet_of(FleetSource(file=str(tmp_path / "nothing")))
    with pytest.raises(InputError, match="can't be had"):
        fleet_of(FleetSource(steering="http://127.0.0.1:1"))
    with pytest.raises(InputError, match="can't be read"):
        load(tmp_path)


@pytest.mark.parametrize("longitude", [-180.0, -122.4, -9.1, -7.4, 0.0, 7.6, 139.7, 180.0])
def test_evenings_follow_the_sun_where_nobody_says_otherwise(longitude):
    offset = dt.datetime(2026, 1, 1, tzinfo=ZoneInfo(zone_at(longitude))).utcoffset()
    assert abs(offset.total_seconds() / 3600 - longitude / 15) <= 0.5
