"""The demo's country, as steering reads it."""

import json
import tomllib

import maxminddb

from admin.console.settings import read_settings as read_console
from admin.demo.login import AUDIENCE, ISSUER, LogIn
from admin.demo.parts import Origin
from admin.demo.settings import appliance_settings, console_settings, steering_settings
from admin.demo.town import BOXES, PLACES, fleet, write_cities
from oca.settings import parse_settings as parse_appliance
from steering.inventory import parse_inventory
from steering.settings import parse_settings as parse_steering
from steering.viewers import Viewer, Wanted, let_in, read_keys
from tests.doubles.console import password_hash

ORIGIN = Origin("s3://films/catalogue", "http://127.0.0.1:1", None, {})


def test_the_database_knows_where_each_viewer_is(tmp_path):
    write_cities(tmp_path / "cities.mmdb")
    with maxminddb.open_database(tmp_path / "cities.mmdb") as cities:
        for place in PLACES:
            assert cities.get(place.address)["city"]["names"]["en"] == place.name
        assert cities.get("192.0.2.1") is None


def test_four_appliances_stand_in_three_cities():
    inventory = parse_inventory(
        fleet(
            {box.id: f"http://127.0.0.1:{8000 + at}" for at, box in enumerate(BOXES)},
            {box.id: 9000 + at for at, box in enumerate(BOXES)},
            "t",
        ),
        "",
    )
    assert len(inventory.appliance) == 4
    assert len(inventory.site) == 3
    assert {box.site for box in BOXES} == {site.id for site in inventory.site}


def test_settings_are_what_the_programs_accept(tmp_path):
    text = steering_settings(tmp_path, (1001, 1002, 1003), ORIGIN, "http://127.0.0.1:1000")
    assert parse_steering(text, "").playback.audience == AUDIENCE
    parent = appliance_settings("ixp-1", tmp_path, 1004, 1005, ORIGIN)
    assert not parse_appliance(parent, "").access.required
    box = appliance_settings(
        "a", tmp_path, 1, 2, ORIGIN, parent="http://127.0.0.1:1004", steering="http://127.0.0.1:1002"
    )
    assert parse_appliance(box, "").parents[0].url == "http://127.0.0.1:1004"


def test_the_console_accepts_its_settings(tmp_path):
    path = tmp_path / "console.toml"
    path.write_text(console_settings(tmp_path, 1006, "http://127.0.0.1:1003", ORIGIN, password_hash()))
    settings = read_console(path)
    assert [(one.name, one.role) for one in settings.account] == [("noc", "admin")]
    assert settings.fill.bucket == "s3://films/catalogue/demo-control"


def test_who_logs_in_is_let_in(tmp_path):
    login = LogIn(tmp_path / "viewers.json")
    keys = read_keys((tmp_path / "viewers.json").read_bytes())
    viewers = {let_in(login.token(), keys, Wanted(ISSUER, AUDIENCE, None, 0), 0.0) for _ in range(2)}
    assert len(viewers) == 2
    assert all(isinstance(viewer, Viewer) for viewer in viewers)
    assert "d" not in json.loads((tmp_path / "viewers.json").read_text())["keys"][0]


def test_any_path_and_url_survive_the_settings_file(tmp_path):
    for text in ('a"b', "a\\b", "ä\x7f", "line\nbreak"):
        read = tomllib.loads(appliance_settings("a", tmp_path / "x", 1, 2, Origin(text, text, None, {})))
        assert read["origin"] == {"url": text, "endpoint_url": text}
