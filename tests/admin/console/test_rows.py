"""The fleet as rows: rounded to what eyes see, so that a fleet at rest is a quiet one."""

from typing import Any

import pytest

from admin.console.rows import changed, places_of, rows_of
from admin.fleet.known import Fleet, Inventory, Member, Place, Window


def row(**said: Any) -> dict[str, Any]:
    member = Member("lis-1", "lis", "http://x", **{"wish": "serve", "standing": "serving", **said})
    return rows_of(Fleet((member,)))["lis-1"]


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({}, "well"),
        ({"is_clock_off": True}, "warning"),
        ({"put_off": "lis would be 120% full"}, "warning"),
        ({"standing": "drained", "wish": "drain"}, "resting"),
        ({"standing": "draining", "resting": True}, "resting"),
        ({"standing": "suspect", "heard": 9.0}, "warning"),
        ({"standing": "joining"}, "warning"),
        ({"standing": "lost", "heard": 40.0}, "bad"),
        ({"standing": "lost", "wish": "drain"}, "bad"),
    ],
)
def test_how_an_appliance_is_follows_from_its_standing_and_what_was_ordered(said, state):
    assert row(**said)["state"] == state


def test_numbers_are_rounded_to_what_is_seen():
    told = row(utilisation=0.32345, load_bps=1.2345e9, hit_ratio=0.98765)
    assert (told["full"], told["load"], told["hits"]) == (0.32, 1.2e9, 0.99)
    assert row(load_bps=0.0)["load"] == 0.0


def test_silence_that_only_grows_longer_is_no_news():
    before, now = (rows_of(Fleet((Member("a", "s", "u", "serve", "lost", heard=at),))) for at in (20.0, 31.0))
    assert now["a"]["trouble"] == "lost"
    assert changed(before, now) == ({}, [])


def test_only_the_fields_that_differ_are_told():
    before, now = {"a": row(), "b": row(), "c": row()}, {"a": row(), "b": row(standing="lost"), "d": row()}
    different, gone = changed(before, now)
    assert different == {"b": {"standing": "lost", "state": "bad", "trouble": "lost"}, "d": row()}
    assert gone == ["c"]


def test_windows_of_maintenance_go_along():
    told = row(maintenance=(Window(1.0, 2.0, True),), resting=True, standing="drained")
    assert told["maintenance"] == [{"start": 1.0, "stop": 2.0, "forced": True}]
    assert (told["resting"], told["state"], told["trouble"]) == (True, "resting", "")


def test_places_are_ordered_and_have_a_name():
    places = places_of(Inventory(1, (Place("mad", "isp"), Place("lis", "isp", "PT", "Lisbon", 38.7, -9.1))))
    assert [(one["id"], one["name"]) for one in places] == [("lis", "Lisbon"), ("mad", "mad")]
