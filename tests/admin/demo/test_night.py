"""A night on a button: one at a time, and what goes wrong is said. (test_smoke.py sees one through to the morning.)"""

import asyncio
import datetime as dt
import io

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.demo.evening import an_hour, hours_beside
from admin.demo.night import Night, Phase
from admin.demo.parts import Origin, Part
from admin.errors import UsageError
from wire.demand import COLUMNS

SIZES = {"/titles/film/240p.1f": 1000, "/titles/film/audio.2e": 300}


def night_of(store, folder, admin_url="http://127.0.0.1:9"):
    """Beside two appliances that were killed."""
    parts = {name: Part(name, [], 1, folder / "log", {}) for name in ("lis-1", "mad-1")}
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    return Night(folder / "night", Origin(store.url, store.endpoint_url, None, credentials), parts, admin_url)


async def over(night):
    async with asyncio.timeout(60):
        await night.over()


async def test_a_night_without_steering_fails_and_says_why_and_another_may_follow(store, tmp_path):
    night = night_of(store, tmp_path)
    for _ in range(2):
        night.begin(SIZES)
        await over(night)
        assert night.told.phase is Phase.FAILED
        assert night.told.trouble.startswith("oca-fill plan: ")
        assert "127.0.0.1:9" in night.told.trouble
        assert night.told.away == ("lis-1", "mad-1")
    await night.close()


async def test_there_is_one_night_at_a_time_and_leaving_ends_it(store, tmp_path):
    night = night_of(store, tmp_path)
    night.begin(SIZES)
    with pytest.raises(UsageError, match="under way"):
        night.begin(SIZES)
    await night.close()
    assert night.told.phase not in (Phase.DONE, Phase.FAILED)


async def test_what_is_made_up_lies_where_appliances_would_have_put_it(store, tmp_path):
    night = night_of(store, tmp_path)
    night.begin(SIZES)
    await over(night)
    found = [path for path in store.paths() if path.startswith("/demo-control/demand/")]
    assert len(found) == 10
    assert {path.rpartition("/")[2] for path in found} == {"lis-1.parquet", "mad-1.parquet"}


def test_an_hour_is_as_an_appliance_tells_it():
    at = dt.datetime(2026, 11, 27, 20, tzinfo=dt.UTC)
    table = pq.read_table(io.BytesIO(an_hour("lis-1", at, SIZES)))
    assert table.schema.names == [name for name, _ in COLUMNS]
    rows = table.to_pylist()
    assert {row["hour"] for row in rows} == {at}
    assert {row["title"] for row in rows} == {"film"}
    assert [row["folder"] for row in rows] == list(SIZES)
    for row in rows:
        assert row["bytes"] == row["sessions"] * SIZES[row["folder"]] > 0
        tiers = ("bytes_nvme", "bytes_ssd", "bytes_hdd", "bytes_memory")
        assert row["bytes"] == sum(row[tier] for tier in tiers)


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_hours_are_of_the_day_and_none_that_appliances_write_now_or_next(now):
    hours = hours_beside(now)
    assert len(set(hours)) == 5
    for at in hours:
        assert at.date() == now.date()
        assert (at.hour - now.hour) % 24 not in (0, 1)
        assert (at.minute, at.second, at.microsecond) == (0, 0, 0)
