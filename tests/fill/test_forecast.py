"""What will be asked for: each step of the forecast, on arrays small enough to reckon by hand."""

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fill.forecast import UNIT, Catalogue, Release, Sums, calendar, launch_curve, of_region, of_site, weekday_levels
from fill.rules import Smoothing

TOMORROW = dt.date(2026, 11, 25)
EPOCH = dt.date(1970, 1, 1)
RULES = Smoothing()
DAYS = [TOMORROW - dt.timedelta(days=ago) for ago in range(1, 15)]
OLD = (TOMORROW - EPOCH).days - 1000


def catalogue(titles, rungs=1, size=1000, published=None):
    count = titles * rungs
    return Catalogue(
        number=np.arange(count),
        title=np.repeat(np.arange(titles), rungs),
        rung=np.tile(np.arange(rungs), titles),
        size_bytes=np.full(count, size, np.int64),
        published=np.full(count, OLD, np.int64) if published is None else np.array(published, np.int64),
    )


def when(pairs=(), rules=RULES, days=DAYS):
    return calendar(days, TOMORROW, pairs, 1000.0, rules)


def sums(days, table):
    """`table` says the bytes of each rendition on each day, the last day first; half of them in the peak."""
    seen = np.array(table, float)
    fast, slow = days.fast[::-1][: len(seen)] @ seen, days.slow[::-1][: len(seen)] @ seen
    return Sums(fast, slow, slow / 2)


def test_what_is_asked_for_evenly_is_forecast_as_it_was():
    there = catalogue(3)
    days = when()
    found = of_region(there, sums(days, [[90_000, 30_000, 6_000]] * 14), days, RULES)
    assert found.day_bytes == pytest.approx([90_000, 30_000, 6_000], rel=0.02)
    assert found.peak_bytes == pytest.approx(found.day_bytes / 2)


def test_what_rises_is_forecast_above_its_mean_and_not_above_the_bound():
    there = catalogue(2)
    days = when()
    rising = [[1000 * count, 50_000] for count in range(140, 0, -10)]
    found = of_region(there, sums(days, rising), days, RULES).day_bytes
    slow = sums(days, rising).slow[0] / UNIT
    assert slow < found[0] <= RULES.trend_most * slow
    sudden = [[500_000, 50_000]] + [[0, 50_000]] * 13
    most = of_region(there, sums(days, sudden), days, RULES).day_bytes
    assert most[0] <= RULES.trend_most * sums(days, sudden).slow[0] / UNIT * 1.01


def test_a_little_that_was_seen_of_a_title_counts_little():
    there = catalogue(20)
    days = when()
    table = [[20_000] * 19 + [0]] * 14
    found = of_region(there, sums(days, table), days, RULES).day_bytes
    # One that was never seen is not forecast at nothing, and not like those that were.
    assert 0 < found[19] < 0.2 * found[0]


def test_a_rendition_of_which_nothing_was_seen_has_the_share_of_its_rung():
    there = catalogue(30, rungs=2)
    days = when()
    usual = [30_000, 10_000] * 29
    found = of_region(there, sums(days, [[*usual, 300, 0]] * 14), days, RULES).day_bytes
    # Three tenths of a play were seen: that says something of the title, and next to nothing of how it splits.
    assert found[-1] / found[-2] == pytest.approx(1 / 3, rel=0.5)
    assert found[1] / found[0] == pytest.approx(1 / 3, rel=0.02)


def test_a_title_that_is_out_since_yesterday_is_judged_by_the_days_that_it_was_there():
    there = catalogue(2, published=[OLD, (TOMORROW - EPOCH).days - 1])
    days = when()
    table = [[50_000, 50_000]] + [[50_000, 0]] * 13
    found = of_region(there, sums(days, table), days, RULES).day_bytes
    assert found[1] == pytest.approx(found[0], rel=0.3)


def test_a_release_is_what_releases_are_times_its_strength():
    fresh = (TOMORROW - EPOCH).days
    there = catalogue(6, published=[OLD] * 3 + [fresh - 5, fresh, fresh])
    days = when()
    table = [[10_000] * 3 + [80_000, 0, 0]] * 5 + [[10_000] * 3 + [0, 0, 0]] * 9
    found = of_region(there, sums(days, table), days, RULES, [Release(5, 3.0)]).day_bytes
    assert found[4] > found[0]
    assert found[5] == pytest.approx(3 * found[4])


def test_what_launches_do_is_learned_from_those_that_were_seen():
    pairs = [(age, 1_000_000_000, int(1_000_000_000 * (0.5 if age < 2 else 1.0))) for age in range(10)]
    curve = launch_curve(pairs, 1000.0, RULES)
    assert curve[0] == pytest.approx(4.0, rel=0.01)
    assert curve[1] == pytest.approx(2.0, rel=0.01)
    assert curve[2] == pytest.approx(1.0, rel=0.01)
    assert curve[-1] == 1.0


def test_a_launch_of_which_little_was_seen_is_no_curve():
    assert launch_curve([(0, 2000, 0)], 1000.0, RULES)[0] < 1.01
    assert (launch_curve([], 1000.0, RULES) == 1.0).all()


def test_a_curve_is_bounded():
    pairs = [(age, 10**15, 10**12) for age in range(21)]
    assert launch_curve(pairs, 1000.0, RULES).max() == RULES.launch_most


def test_a_site_that_saw_little_is_like_its_region_and_one_that_saw_much_like_itself():
    there = catalogue(2)
    days = when()
    region = sums(days, [[1_000_000, 1_000_000]] * 14)
    whole = of_region(there, region, days, RULES)
    little = of_site(there, whole, region, sums(days, [[300, 0]] * 14), days, RULES)
    assert little.day_bytes[1] == pytest.approx(little.day_bytes[0], rel=0.1)
    much = of_site(there, whole, region, sums(days, [[900_000, 0]] * 14), days, RULES)
    assert much.day_bytes[1] < 0.1 * much.day_bytes[0]


def test_sites_share_what_their_region_is_forecast():
    there = catalogue(5)
    days = when()
    parts = [sums(days, [[scale * 10_000 * row for row in (5, 4, 3, 2, 1)]] * 14) for scale in (1, 3)]
    region = Sums(*(sum(getattr(part, name) for part in parts) for name in ("fast", "slow", "peak")))
    whole = of_region(there, region, days, RULES)
    sites = [of_site(there, whole, region, part, days, RULES).day_bytes for part in parts]
    assert sum(sites) == pytest.approx(whole.day_bytes)
    assert sites[1] == pytest.approx(3 * sites[0])


def test_a_site_without_any_demand_is_forecast_none():
    there = catalogue(2)
    days = when()
    region = sums(days, [[1000, 1000]] * 14)
    nothing = Sums(*(np.zeros(2) for _ in range(3)))
    assert not of_site(there, of_region(there, region, days, RULES), region, nothing, days, RULES).day_bytes.any()


def test_weekdays_are_levelled_from_two_weeks_on():
    totals = {day: 200 if day.weekday() == 5 else 100 for day in DAYS}
    levels = weekday_levels(totals, TOMORROW)  # a Wednesday
    assert {round(level, 3) for day, level in levels.items() if day.weekday() == 5} == {0.5}
    assert {round(level, 3) for day, level in levels.items() if day.weekday() != 5} == {1.0}
    few = dict(list(totals.items())[:13])
    assert set(weekday_levels(few, TOMORROW).values()) == {1.0}


def test_numbers_that_are_in_no_catalogue_count_for_nothing():
    some = np.array([1, 7], np.int64)
    one = Sums.of(catalogue(3), some, some, some, some)
    assert one.fast.tolist() == [0, 1, 0]


@given(st.lists(st.lists(st.integers(0, 10**9), min_size=4, max_size=4), min_size=1, max_size=14))
def test_a_forecast_is_never_negative_nor_without_a_number(table):
    there = catalogue(2, rungs=2)
    days = when(days=DAYS[: len(table)])
    found = of_region(there, sums(days, table), days, RULES)
    for some in (found.day_bytes, found.peak_bytes):
        assert np.isfinite(some).all()
        assert (some >= 0).all()
    assert (found.peak_bytes <= found.day_bytes * 1.0000001).all()
