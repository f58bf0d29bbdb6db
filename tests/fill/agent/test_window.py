"""When an appliance may be filled: on every change of clocks that the next ten years have."""

import datetime as dt
import itertools
from zoneinfo import ZoneInfo, available_timezones

import pytest

from fill.agent.window import Window, shown_at

HOUR = 3600


def window(start, stop, zone):
    return Window(dt.time.fromisoformat(start), dt.time.fromisoformat(stop), ZoneInfo(zone))


def utc(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("zone", "night", "opens", "closes", "hours"),
    [
        ("Europe/Lisbon", "2026-11-25", "2026-11-25 02:00", "2026-11-25 14:00", 12),
        ("America/New_York", "2026-11-25", "2026-11-25 07:00", "2026-11-25 19:00", 12),
        # Two o'clock is leapt over: the window opens with the leap.
        ("America/New_York", "2026-03-08", "2026-03-08 07:00", "2026-03-08 18:00", 11),
        ("Europe/Berlin", "2026-03-29", "2026-03-29 01:00", "2026-03-29 12:00", 11),
        # Two o'clock is shown twice: the window opens with the first.
        ("Europe/Berlin", "2026-10-25", "2026-10-25 00:00", "2026-10-25 13:00", 13),
        # Half past two is within the half hour that Lord Howe leaps.
        ("Australia/Lord_Howe", "2026-10-04", "2026-10-03 15:30", "2026-10-04 03:00", 11.5),
        ("Asia/Kathmandu", "2026-11-25", "2026-11-24 20:15", "2026-11-25 08:15", 12),
    ],
)
def test_a_night_has_the_hours_that_the_wall_clock_shows(zone, night, opens, closes, hours):
    span = window("02:00", "14:00", zone).of(dt.date.fromisoformat(night))
    assert (span.opens, span.closes) == (utc(opens), utc(closes))
    assert span.closes - span.opens == hours * HOUR


def test_a_window_over_midnight_belongs_to_the_evening():
    night = window("22:00", "04:30", "Etc/UTC")
    span = night.of(dt.date(2026, 11, 25))
    assert (span.opens, span.closes) == (utc("2026-11-25 22:00"), utc("2026-11-26 04:30"))
    assert night.at(utc("2026-11-26 03:00")) == span
    assert night.at(utc("2026-11-26 04:30")).night == dt.date(2026, 11, 26)


def test_from_a_time_to_itself_is_always():
    always = window("02:00", "02:00", "Europe/Berlin")
    for text in ("2026-10-25 00:30", "2026-10-25 01:30", "2026-03-29 01:00", "2026-11-25 12:00"):
        assert utc(text) in always.at(utc(text))


def test_a_date_that_a_place_does_not_have_has_no_window():
    samoa = window("02:00", "14:00", "Pacific/Apia")
    span = samoa.of(dt.date(2011, 12, 30))
    assert span.opens == span.closes
    now = samoa.of(dt.date(2011, 12, 29)).closes
    assert samoa.at(now).night == dt.date(2011, 12, 31)


def test_before_a_window_the_next_one_is_told_and_in_it_itself():
    lisbon = window("02:00", "14:00", "Europe/Lisbon")
    span = lisbon.of(dt.date(2026, 11, 25))
    assert lisbon.at(span.opens - 1) == lisbon.at(span.opens) == lisbon.at(span.closes - 1) == span
    assert span.opens - 1 not in span
    assert span.opens in span
    assert span.closes not in span
    assert lisbon.at(span.closes).night == dt.date(2026, 11, 26)


def _changes():
    """(zone, date) of all changes of clocks, once for zones that change alike."""
    known = set()
    first = dt.date(2026, 1, 1)
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        noons = [dt.datetime.combine(first + dt.timedelta(days=day), dt.time(12), zone) for day in range(3653)]
        offsets = [noon.utcoffset() for noon in noons]
        found = tuple(
            (noons[at].date(), offsets[at - 1], offsets[at])
            for at in range(1, len(noons))
            if offsets[at] != offsets[at - 1]
        )
        if found and found not in known:
            known.add(found)
            yield from ((name, date) for date, _, _ in found)


def test_whenever_clocks_change_a_window_opens_and_closes_when_the_clock_first_shows_it():
    windows = [("02:00", "14:00"), ("22:00", "02:30"), ("01:30", "01:45"), ("00:00", "00:00"), ("23:30", "00:30")]
    checked = 0
    for name, change in _changes():
        zone = ZoneInfo(name)
        for start, stop in windows:
            one = window(start, stop, name)
            spans = [one.of(change + dt.timedelta(days=days)) for days in (-2, -1, 0, 1)]
            for span in spans:
                opens = dt.datetime.combine(span.night, dt.time.fromisoformat(start))
                closes = dt.datetime.combine(span.night + dt.timedelta(days=start >= stop), dt.time.fromisoformat(stop))
                for moment, expected in ((span.opens, opens), (span.closes, closes)):
                    shown = dt.datetime.fromtimestamp(moment, zone).replace(tzinfo=None)
                    before = dt.datetime.fromtimestamp(moment - 1, zone).replace(tzinfo=None)
                    assert before < expected <= shown, (name, span)
            for one_night, next_night in itertools.pairwise(spans):
                assert one_night.opens <= one_night.closes <= next_night.opens
            checked += 1
    assert checked > 1000


def test_a_time_is_first_shown_once_whatever_the_fold():
    berlin = ZoneInfo("Europe/Berlin")
    wall = dt.datetime.fromisoformat("2026-10-25 02:30")
    assert shown_at(wall, berlin) == utc("2026-10-25 00:30")
    assert shown_at(wall.replace(fold=1), berlin) == utc("2026-10-25 00:30")
