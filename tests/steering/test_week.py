"""What sites carried, by hours of the week."""

import msgspec
import pytest

from steering.week import HOURS, Week

HOUR = 3600.0
MONDAY = 1_800_000_000 // HOUR * HOUR


def test_the_next_week_is_expected_to_be_as_the_last_one():
    week = Week()
    for hour in range(HOURS):
        week.note({"lis": 100.0 + hour}, MONDAY + hour * HOUR)
    assert week.expected("lis", MONDAY + (HOURS + 3) * HOUR, MONDAY + (HOURS + 4) * HOUR) == 103.0
    assert week.expected("lis", MONDAY + (HOURS + 3.5) * HOUR, MONDAY + (HOURS + 5.5) * HOUR) == 105.0
    assert week.expected("lis", MONDAY, MONDAY + 10 * HOURS * HOUR) == 267.0


def test_of_an_hour_the_largest_counts():
    week = Week()
    for load in (10.0, 30.0, 20.0):
        week.note({"lis": load}, MONDAY)
    assert week.expected("lis", MONDAY, MONDAY + 60) == 30.0


def test_what_was_a_week_ago_is_replaced_by_what_is_now():
    week = Week()
    week.note({"lis": 30.0}, MONDAY)
    week.note({"lis": 10.0}, MONDAY + HOURS * HOUR)
    assert week.expected("lis", MONDAY, MONDAY + 60) == 10.0


def test_hours_in_which_nobody_looked_say_nothing():
    week = Week()
    week.note({"lis": 30.0}, MONDAY)
    week.note({"lis": 10.0}, MONDAY + (HOURS + 5) * HOUR)
    assert week.expected("lis", MONDAY, MONDAY + 60) is None, "it is more than a week ago"
    assert week.expected("lis", MONDAY + 5 * HOUR, MONDAY + 6 * HOUR) == 10.0
    assert week.expected("ams", MONDAY, MONDAY + 60) is None


def test_sites_that_are_gone_are_forgotten():
    week = Week()
    week.note({"lis": 30.0, "ams": 1.0}, MONDAY)
    week.note({"ams": 1.0}, MONDAY)
    assert week.expected("lis", MONDAY, MONDAY + 60) is None


def test_a_clock_that_was_set_back_breaks_nothing():
    week = Week()
    week.note({"lis": 30.0}, MONDAY + 5 * HOUR)
    week.note({"lis": 20.0}, MONDAY)
    assert week.expected("lis", MONDAY, MONDAY + 6 * HOUR) == 30.0


def test_it_outlives_a_restart():
    week = Week()
    week.note({"lis": 30.0, "ams": 1.0}, MONDAY)
    anew = Week()
    anew.unpack(week.packed(), ["lis"])
    assert anew.expected("lis", MONDAY, MONDAY + 60) == 30.0
    assert anew.expected("ams", MONDAY, MONDAY + 60) is None
    anew.note({"lis": 5.0}, MONDAY + HOURS * HOUR)
    assert anew.expected("lis", MONDAY, MONDAY + 60) == 5.0


@pytest.mark.parametrize("packed", [b"", b"nonsense", msgspec.msgpack.encode({"format": 1, "hour": "x", "sites": {}})])
def test_what_is_no_week_is_refused(packed):
    with pytest.raises(msgspec.DecodeError):
        Week().unpack(packed, ["lis"])


def test_of_another_format_or_size_nothing_is_believed():
    week = Week()
    week.unpack(msgspec.msgpack.encode({"format": 2, "hour": 1, "sites": {}}), ["lis"])
    week.unpack(msgspec.msgpack.encode({"format": 1, "hour": 1, "sites": {"lis": b"1234"}}), ["lis"])
    assert week.expected("lis", 0, 60) is None
