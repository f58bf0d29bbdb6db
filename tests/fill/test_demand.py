"""What there is of demand: days, gaps, and what was watched."""

import datetime as dt

import pytest

from fill.demand import Day, Watched, days, most_watched
from fill.errors import InputError
from tests.fill.stock import row, write

FILM, OTHER = "/titles/film/video.0001", "/titles/other/video.0002"


def test_a_day_says_who_was_heard_and_what_is_missing(tmp_path):
    write(tmp_path, "2026-11-01", 0, "a1", row(bytes=100, requests=2, sessions=1), row(outcome="miss", bytes=50))
    write(tmp_path, "2026-11-01", 1, "a2", row(bytes=10))
    write(tmp_path, "2026-11-02", 0, "a1", row(bytes=1))
    write(tmp_path, "2026-11-02", 2, "a1", row(bytes=1))
    assert days(tmp_path) == [
        Day(
            date=dt.date(2026, 11, 1),
            appliances=2,
            hours=2,
            missing=46,
            requests=4,
            bytes=160,
            hit_bytes=110,
            sessions=1,
        ),
        Day(date=dt.date(2026, 11, 2), appliances=1, hours=2, missing=1, requests=2, bytes=2, hit_bytes=2, sessions=0),
    ]


def test_what_was_watched_most_comes_first(tmp_path):
    write(tmp_path, "2026-11-01", 0, "a1", row(FILM, bytes=5, sessions=2), row(OTHER, bytes=7), row("", bytes=100))
    write(tmp_path, "2026-11-01", 1, "a1", row(FILM, bytes=6))
    assert most_watched(tmp_path, 5) == [
        Watched(name="film", bytes=11, sessions=2),
        Watched(name="other", bytes=7, sessions=0),
    ]
    assert most_watched(tmp_path, 1, renditions=True) == [Watched(name=FILM, bytes=11, sessions=2)]


def test_of_an_empty_lake_there_is_nothing_to_say(tmp_path):
    assert days(tmp_path) == []
    assert most_watched(tmp_path, 5) == []


def test_a_file_that_is_no_demand_is_named(tmp_path):
    write(tmp_path, "2026-11-01", 0, "a1", row())
    (tmp_path / "demand/date=2026-11-01/hour=00/a2.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match=r"demand can't be read: .*a2\.parquet"):
        days(tmp_path)
