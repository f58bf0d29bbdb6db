"""What the database sums, beside the same sums made by hand."""

import datetime as dt
import random

import ibis
import pyarrow as pa
import pytest

from fill import history
from fill.rules import PeakHours
from tests.fill import stock

DAY = dt.date(2026, 11, 24)
PUBLISHED = {0: dt.date(2026, 1, 1), 1: dt.date(2026, 11, 20), 2: dt.date(2026, 11, 23)}
REGION = {"lis": "ixp", "opo": "ixp", "nyc": "far"}


@pytest.fixture(scope="module")
def database():
    connection = ibis.duckdb.connect()
    connection.raw_sql("set TimeZone = 'UTC'")
    yield connection
    connection.disconnect()


@pytest.fixture(scope="module")
def days():
    dice = random.Random(3)
    return [
        {
            "site": site,
            "region": REGION[site],
            "day": DAY - dt.timedelta(days=ago),
            "number": number,
            "bytes": (sent := dice.randrange(10**12)),
            "peak_bytes": sent // 3,
        }
        for site in REGION
        for ago in range(6)
        for number in (0, 1, 2, 9)
        if dice.random() < 0.7 and DAY - dt.timedelta(days=ago) >= PUBLISHED.get(number, DAY)
    ]


def table(rows):
    return ibis.memtable(pa.Table.from_pylist(rows))


def published():
    rows = [{"number": number, "title": number // 2, "published": day} for number, day in PUBLISHED.items()]
    return table(rows)


def test_hours_belong_to_the_day_that_the_wall_clock_shows():
    lisbon = history.local_hours(["Europe/Lisbon"], dt.datetime(2026, 10, 25, tzinfo=dt.UTC), 24, PeakHours())
    rows = {row["hour"].hour: row for row in lisbon.to_pyarrow().to_pylist()}
    # Until one o'clock in UTC the clocks are an hour ahead.
    assert [rows[hour]["is_peak"] for hour in (17, 18, 22, 23)] == [False, True, True, True]
    before = history.local_hours(["America/New_York"], dt.datetime(2026, 11, 25, tzinfo=dt.UTC), 24, PeakHours())
    rows = {row["hour"].hour: row for row in before.to_pyarrow().to_pylist()}
    assert (rows[4]["day"], rows[5]["day"]) == (dt.date(2026, 11, 24), dt.date(2026, 11, 25))
    assert [rows[hour]["is_peak"] for hour in (0, 4, 5, 22, 23)] == [True, True, False, False, True]


def test_a_day_is_summed_by_site_and_rendition_and_strangers_are_counted(database):
    demand = ibis.memtable(
        stock.table(
            "2026-11-24",
            20,
            "a",
            stock.row("/titles/x/720p.1", bytes=5),
            stock.row("/titles/x/720p.1", "miss", bytes=7),
            stock.row("/titles/x", bytes=100),
            stock.row("/titles/gone/720p.2", bytes=11),
        )
    )
    morning = ibis.memtable(stock.table("2026-11-24", 8, "b", stock.row("/titles/x/720p.1", bytes=2)))
    foreign = ibis.memtable(stock.table("2026-11-24", 8, "z", stock.row("/titles/x/720p.1", bytes=3)))
    asked = demand.union(morning).union(foreign)
    sites = history.sites_of({"a": ("lis", "Etc/UTC"), "b": ("lis", "Etc/UTC")})
    renditions = table([{"folder": "/titles/x/720p.1", "number": 4}])
    hours = history.local_hours(["Etc/UTC"], dt.datetime(2026, 11, 24, tzinfo=dt.UTC), 24, PeakHours())
    digest = database.to_pyarrow(history.digest(asked, sites, renditions, hours)).to_pylist()
    assert digest == [{"site": "lis", "day": DAY, "number": 4, "bytes": 14, "peak_bytes": 12}]
    (left_out,) = database.to_pyarrow(history.strangers(asked, sites, renditions)).to_pylist()
    # Manifests are of no rendition: they are no loss.
    assert left_out == {"bytes": 128, "unknown_folders": 11, "unknown_appliances": 3}


def test_days_are_summed_with_their_weights_and_without_what_launch_and_weekday_made_of_them(database, days):
    weights = [
        {
            "region": region,
            "day": DAY - dt.timedelta(days=ago),
            "fast": 4000 - 700 * ago,
            "slow": 900 - 100 * ago,
            "level": 1.0 + 0.1 * ago,
        }
        for region in set(REGION.values())
        for ago in range(5)  # The sixth day is older than what is looked at.
    ]
    curve = [{"age": age, "lift": lift} for age, lift in enumerate((4.0, 2.0, 1.5, 1.0))]
    summed = history.weighted(table(days), published(), table(weights), table(curve), "site")
    found = {(row["site"], row["number"]): row for row in database.to_pyarrow(summed).to_pylist()}
    by_day = {(row["region"], row["day"]): row for row in weights}
    expected = {}
    for row in days:
        weight = by_day.get((row["region"], row["day"]))
        if weight is None or row["number"] not in PUBLISHED:
            continue
        age = min((row["day"] - PUBLISHED[row["number"]]).days, 3)
        even, peak = (round(row[name] * weight["level"] / curve[age]["lift"]) for name in ("bytes", "peak_bytes"))
        sums = expected.setdefault((row["site"], row["number"]), {"fast": 0, "slow": 0, "peak": 0})
        sums["fast"] += even * weight["fast"]
        sums["slow"] += even * weight["slow"]
        sums["peak"] += peak * weight["slow"]
    assert found.keys() == expected.keys()
    for key, sums in expected.items():
        # One byte more or less for each day, where rounding meets a half.
        for name, value in sums.items():
            assert found[key][name] == pytest.approx(value, abs=6 * 4000), (key, name)
    order = [(row["site"], row["number"]) for row in database.to_pyarrow(summed).to_pylist()]
    assert order == sorted(order)


def test_launches_are_pairs_of_days_of_which_both_are_over(database, days):
    found = {
        row["age"]: row for row in database.to_pyarrow(history.launches(table(days), published(), DAY, 4)).to_pylist()
    }
    by_title = {}
    for row in days:
        if row["number"] in PUBLISHED:
            age = (row["day"] - PUBLISHED[row["number"]]).days
            title = row["number"] // 2, PUBLISHED[row["number"]]
            by_title[title, age] = by_title.get((title, age), 0) + row["bytes"]
    for age in range(4):
        titles = {title for title, at in by_title if at == age and (DAY - title[1]).days > age}
        before = sum(by_title[title, age] for title in titles)
        after = sum(by_title.get((title, age + 1), 0) for title in titles)
        assert (found[age]["before"], found[age]["after"]) == (before, after) if titles else age not in found


def test_totals_are_of_whole_days(database, days):
    found = database.to_pyarrow(history.totals(table(days))).to_pylist()
    assert [row["day"] for row in found] == sorted({row["day"] for row in days})
    assert sum(row["bytes"] for row in found) == sum(row["bytes"] for row in days)
