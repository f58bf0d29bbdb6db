"""The lake: what the bucket has, here, and fetched once."""

import datetime as dt

from fill.lake import Hour, hour_of, hours, sync
from wire.demand import demand_key, stock_key

FIRST, LAST = dt.date(2026, 11, 1), dt.date(2026, 11, 3)


def filled(bucket, *days):
    for day in days:
        for hour in (0, 23):
            bucket.write(demand_key(f"2026-11-{day:02}", hour, "a1"), f"{day} {hour}".encode())
    bucket.write(stock_key("a1"), b"{}")


def test_the_days_that_are_asked_for_come_and_come_once(bucket, tmp_path):
    filled(bucket, 1, 3, 4)
    told = []
    synced = sync(bucket, tmp_path, FIRST, LAST, lambda *at: told.append(at))
    assert (synced.files, synced.fetched, synced.removed, synced.strange) == (5, 5, 0, 0)
    assert told[-1] == (5, 5)
    assert hours(tmp_path) == [Hour(dt.date(2026, 11, day), hour, "a1") for day in (1, 3) for hour in (0, 23)]
    assert (tmp_path / demand_key("2026-11-03", 23, "a1")).read_bytes() == b"3 23"
    assert sync(bucket, tmp_path, FIRST, LAST).fetched == 0


def test_an_hour_that_was_written_again_is_fetched_again(bucket, tmp_path):
    filled(bucket, 1)
    sync(bucket, tmp_path, FIRST, LAST)
    bucket.write(demand_key("2026-11-01", 0, "a1"), b"more")
    assert sync(bucket, tmp_path, FIRST, LAST).fetched == 1
    assert (tmp_path / demand_key("2026-11-01", 0, "a1")).read_bytes() == b"more"


def test_a_file_that_was_lost_here_is_fetched_again(bucket, tmp_path):
    filled(bucket, 1)
    sync(bucket, tmp_path, FIRST, LAST)
    (tmp_path / stock_key("a1")).unlink()
    (tmp_path / ".etags.json").write_bytes(b"{broken")
    assert sync(bucket, tmp_path, FIRST, LAST).fetched == 3


def test_what_is_older_than_a_plan_goes_by_and_what_the_bucket_has_no_more_goes(bucket, tmp_path):
    filled(bucket, 1, 2)
    sync(bucket, tmp_path, FIRST, LAST)
    bucket.remove(demand_key("2026-11-02", 23, "a1"))
    synced = sync(bucket, tmp_path, dt.date(2026, 11, 2), LAST)
    assert (synced.files, synced.removed) == (2, 3)
    assert hours(tmp_path) == [Hour(dt.date(2026, 11, 2), 0, "a1")]
    assert not (tmp_path / "demand" / "date=2026-11-01").exists()


def test_names_that_say_nothing_stay_where_they_are(bucket, tmp_path):
    filled(bucket, 1)
    for key in (
        "demand/date=2026-11-01/hour=24/a1.parquet",
        "demand/date=2026-11-01/hour=03/a1.csv",
        "demand/date=2026-11-01/hour=03/-.parquet",
        "demand/date=tomorrow/hour=03/a1.parquet",
        "stock/a1.txt",
        "stock/deep/a1.json",
    ):
        bucket.write(key, b"?")
    synced = sync(bucket, tmp_path, FIRST, LAST)
    assert (synced.files, synced.strange) == (3, 5)


def test_the_name_of_an_hour_says_which():
    assert hour_of(demand_key("2026-11-25", 4, "a1")) == Hour(dt.date(2026, 11, 25), 4, "a1")
    assert hour_of("demand/date=2026-02-30/hour=04/a1.parquet") is None
    assert hour_of("demand/date=2026-11-25/hour=04/../a1.parquet") is None


def test_an_empty_bucket_makes_an_empty_lake(bucket, tmp_path):
    assert sync(bucket, tmp_path, FIRST, LAST).files == 0
    assert hours(tmp_path) == []
