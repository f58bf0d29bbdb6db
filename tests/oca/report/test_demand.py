"""Demand by the hour: how counts add up, what is bounded, and that a table says what was counted."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.report.demand import (
    COUNTS,
    HIT_REQUESTS,
    Gathering,
    Part,
    Timetable,
    begins_play,
    counted_folder,
    decode_part,
    encode_part,
    folders_of,
    hour_of,
    hour_of_part,
    key_of,
    merged,
    over_bound,
    part_name,
    table_of,
)
from wire.demand import COLUMNS

# Hits: requests, plays, nvme, ssd, hdd, memory; misses: requests, plays, bytes; told: stalls, ms played, kilobits.
ROW = [5, 2, 100, 20, 3, 1, 4, 1, 60, 2, 8000, 24_000]
HOUR = 494_444  # 2026-05-28, 20:00 UTC
GIB = 2**30


@pytest.mark.parametrize(
    ("path", "size", "begins"),
    [
        ("/titles/x/720p.1f/init.mp4", 800, True),
        ("/titles/x/720p.1f/init-stream0.m4s", 800, True),
        ("/titles/x/720p.1f/init1.m4i", 800, True),
        ("/titles/x/720p.1f/index.m3u8", 20_000, False),
        ("/titles/x/720p.1f/seg-00001.m4s", 2_000_000, False),
        ("/titles/x/720p.1f/initial.m4s", 2_000_000, False),
        ("/titles/init/720p.1f/seg-1.m4s", 2_000_000, False),
        ("/titles/x/master.m3u8", 900, False),
        ("/titles/x/movie.mp4", 2 * GIB, True),
    ],
)
def test_a_play_begins_with_what_every_player_asks_for_once(path, size, begins):
    assert begins_play(path, size) is begins


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/titles/x/720p.1f/seg-1.m4s", "/titles/x/720p.1f"),
        ("/titles/x/master.m3u8", "/titles/x"),
        ("/catalogue/titles/x.json", ""),
        (f"/titles/x/{'y' * 245}/s", f"/titles/x/{'y' * 245}"),
        (f"/titles/x/{'y' * 246}/s", ""),
        (f"/titles/x/{'é' * 123}/s", ""),
    ],
)
def test_folders_with_names_that_are_not_ours_have_none(path, folder):
    assert counted_folder(path) == folder


def test_what_workers_tell_adds_up():
    gathering = Gathering("a", HOUR)
    assert gathering.is_empty
    gathering.add([("/titles/x/a", ROW), ("/titles/y/b", ROW)])
    gathering.add([("/titles/x/a", ROW)])
    assert gathering.part() == Part("a", HOUR, {"/titles/x/a": [2 * count for count in ROW], "/titles/y/b": ROW})
    assert gathering.sums == [3 * count for count in ROW]


def test_a_worker_of_another_version_may_count_other_things_beside_ours():
    gathering = Gathering("a", HOUR)
    gathering.add([("/titles/x/a", [*ROW, 7]), ("/titles/x/a", [1])])
    assert gathering.part().folders == {"/titles/x/a": [6, *ROW[1:]]}


def test_beyond_the_most_folders_nothing_is_lost_but_the_name():
    gathering = Gathering("a", HOUR, most_folders=2)
    for name in ("/titles/x/a", "/titles/x/b", "/titles/x/c", "/titles/x/d", "/titles/x/a"):
        gathering.add([(name, ROW)])
    part = gathering.part()
    assert part.folders["/titles/x/a"] == part.folders[""] == [2 * count for count in ROW]
    assert gathering.unnamed == 2
    assert gathering.folders == 3


@pytest.mark.parametrize(
    ("moment", "key"),
    [
        (datetime(2026, 11, 25, 20, 59, 59, tzinfo=UTC), "demand/date=2026-11-25/hour=20/box.parquet"),
        (datetime(2026, 11, 25, 21, tzinfo=UTC), "demand/date=2026-11-25/hour=21/box.parquet"),
        (datetime(2027, 1, 1, tzinfo=UTC), "demand/date=2027-01-01/hour=00/box.parquet"),
    ],
)
def test_an_hour_lies_where_the_clock_in_utc_says(moment, key):
    assert key_of(hour_of(moment.timestamp()), "box") == key


def test_it_is_shipped_after_the_start_and_after_each_hour_each_time_a_bit_later():
    dice = iter([0.5, 0.25, 1.0])
    timetable = Timetable(HOUR, 1000.0, 300.0, lambda: next(dice))
    assert not timetable.is_due(HOUR, 1149.0)
    assert timetable.is_due(HOUR, 1150.0)
    timetable.succeeded()
    assert not timetable.is_due(HOUR, 4000.0)
    assert not timetable.is_due(HOUR + 1, 5000.0)
    assert not timetable.is_due(HOUR + 1, 5000.0 + 2 + 74)
    assert timetable.is_due(HOUR + 1, 5000.0 + 2 + 75)
    timetable.succeeded()
    # A clock that is set back ends an hour as well.
    assert not timetable.is_due(HOUR - 5, 6000.0)
    assert timetable.is_due(HOUR - 5, 6302.0)


def test_after_a_failure_it_is_tried_again_ever_later_and_the_next_hour_is_not_waited_for_longer():
    timetable = Timetable(HOUR, 0.0, 100.0, lambda: 0.5)
    now = 0.0
    pauses = []
    for _ in range(9):
        timetable.failed(now)
        pauses.append(timetable.due_at - now)
        now = timetable.due_at
    assert pauses == [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]
    timetable.failed(now)
    assert not timetable.is_due(HOUR + 1, now + 10)
    assert not timetable.is_due(HOUR + 1, now + 61)
    assert timetable.is_due(HOUR + 1, now + 10 + 2 + 50)
    timetable.succeeded()
    timetable.failed(now)
    assert timetable.due_at - now == 30


def test_a_part_outlives_a_file_and_what_is_none_is_told():
    part = Part("0a1b", HOUR, {"/titles/x/é": ROW, "": ROW})
    packed = encode_part(part)
    assert decode_part(packed) == part
    for broken in (b"", packed[:-1], b"\0" * 100, b"x", packed + b"\0"):
        with pytest.raises(ValueError):
            decode_part(broken)


def test_names_of_parts_sort_by_their_hours_and_nothing_else_has_one():
    names = [part_name(hour, identity) for hour, identity in ((99_999, "ff"), (HOUR, "aa"), (1_000_000, "00"))]
    assert sorted(names) == names
    assert [hour_of_part(name) for name in names] == [99_999, HOUR, 1_000_000]
    for other in ("stock.json", "0494444.aa.part.new", "aa.part", "0494444.part", "..part", "0494444.AA.part"):
        assert hour_of_part(other) is None


@pytest.mark.parametrize(
    ("most", "given_up"),
    [
        (100, []),
        (60, []),
        (59, ["1.a.part"]),
        (30, ["1.a.part", "2.a.part"]),
        (0, ["1.a.part", "2.a.part", "3.a.part"]),
    ],
)
def test_the_oldest_hours_go_when_there_is_too_much(most, given_up):
    assert over_bound({"3.a.part": 30, "1.a.part": 10, "2.a.part": 20}, most) == given_up


def test_a_table_has_a_row_for_each_folder_and_outcome():
    missed = [0] * COUNTS
    missed[6:9] = [4, 1, 60]
    table = table_of("box", HOUR, {"/titles/x/a": ROW, "/titles/x": missed, "": [0] * COUNTS})
    assert list(table) == [name for name, _ in COLUMNS]
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    assert [(row["title"], row["folder"], row["outcome"]) for row in rows] == [
        ("x", "/titles/x", "miss"),
        ("x", "/titles/x/a", "hit"),
        ("x", "/titles/x/a", "miss"),
    ]
    hit = rows[1]
    assert (hit["schema"], hit["hour"], hit["appliance"]) == (1, datetime(2026, 5, 28, 20, tzinfo=UTC), "box")
    assert [hit[name] for name in ("requests", "bytes", "sessions", "first_byte_ms", "stalls")] == [
        5,
        124,
        2,
        None,
        2,
    ]
    assert [hit[f"bytes_{tier}"] for tier in ("nvme", "ssd", "hdd", "memory")] == [100, 20, 3, 1]
    assert [rows[2][name] for name in ("requests", "bytes", "bytes_memory", "bytes_nvme", "sessions")] == [
        4,
        60,
        60,
        0,
        1,
    ]


COUNTED = st.lists(st.integers(0, 2**50), min_size=COUNTS, max_size=COUNTS)
FOLDERS = st.dictionaries(st.sampled_from(["", "/titles/x", "/titles/x/a", "/titles/y/b"]), COUNTED)


def said(folders):
    """Without what a table leaves out: what was played or told without a request."""
    kept = {}
    for folder, counts in folders.items():
        hit = counts[:6] if counts[HIT_REQUESTS] or any(counts[2:6]) else [0] * 6
        miss = counts[6:9] if counts[6] or counts[8] else [0] * 3
        if any(hit + miss):
            kept[folder] = hit + miss + counts[9:]
    return kept


@given(FOLDERS)
def test_what_was_counted_can_be_read_from_the_table(folders):
    assert folders_of(table_of("box", HOUR, folders)) == said(folders)


@given(FOLDERS, FOLDERS, FOLDERS)
def test_parts_may_be_merged_in_any_order_and_through_tables(one, two, three):
    whole = merged(one, two, three)
    assert merged(three, merged(two, one)) == whole
    through = folders_of(table_of("box", HOUR, merged(one, two)))
    assert said(merged(through, said(three))) == said(merged(said(merged(one, two)), said(three)))
    sums = [sum(counts[place] for part in (one, two, three) for counts in part.values()) for place in range(COUNTS)]
    assert [sum(counts[place] for counts in whole.values()) for place in range(COUNTS)] == sums


def test_counts_of_an_older_version_are_added_with_what_they_have():
    assert merged({"/titles/x/a": ROW}, {"/titles/x/a": [1, 1]})["/titles/x/a"] == [6, 3, *ROW[2:]]


def test_what_players_told_stands_once_in_the_first_row_of_a_folder():
    table = table_of("box", HOUR, {"/titles/x/a": ROW, "/titles/x/b": [*ROW[:9], 0, 0, 0]})
    assert table["stalls"] == [2, None, None, None]
    assert table["played_ms"] == [8000, None, None, None]
    assert table["played_kilobits"] == [24_000, None, None, None]


def test_counts_and_tables_of_an_older_version_say_nothing_of_players():
    table = table_of("box", HOUR, {"/titles/x/a": ROW[:9]})
    assert table["stalls"] == [None, None]
    for name in ("played_ms", "played_kilobits"):
        del table[name]
    assert folders_of(table) == {"/titles/x/a": [*ROW[:9], 0, 0, 0]}
