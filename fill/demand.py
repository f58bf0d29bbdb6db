"""What the lake has of demand, for people: which hours are there, who is missing, what was watched."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import duckdb
from msgspec import Struct

from fill.errors import InputError
from fill.lake import Hour, hours


class Day(Struct, frozen=True, kw_only=True):
    """One day in UTC."""

    date: dt.date
    appliances: int
    hours: int
    """Files: an appliance that was up all day has 24."""
    missing: int
    """Hours for which an appliance that spoke on this day has no file, up to the last hour that anybody has."""
    requests: int
    bytes: int
    hit_bytes: int
    sessions: int


class Watched(Struct, frozen=True, kw_only=True):
    """A title, or a rendition of it."""

    name: str
    bytes: int
    sessions: int


def days(lake: Path) -> list[Day]:
    """The days of which there is something, in order. Raises `InputError` for a file that is no demand."""
    of_day: dict[dt.date, list[Hour]] = {}
    for hour in hours(lake):
        of_day.setdefault(hour.date, []).append(hour)
    if not of_day:
        return []
    last = max((hour.date, hour.hour) for inside in of_day.values() for hour in inside)
    sums = {
        row[0]: row[1:]
        for row in _asked(
            lake,
            """
            select date, sum(requests), sum(bytes), sum(bytes) filter (outcome = 'hit'), sum(sessions)
            from demand group by date order by date
            """,
        )
    }
    found = []
    for date, inside in sorted(of_day.items()):
        appliances = {hour.appliance for hour in inside}
        until = last[1] + 1 if date == last[0] else 24
        requests, total, hits, sessions = (int(value or 0) for value in sums.get(date, (0, 0, 0, 0)))
        found.append(
            Day(
                date=date,
                appliances=len(appliances),
                hours=len(inside),
                missing=len(appliances) * until - len(inside),
                requests=requests,
                bytes=total,
                hit_bytes=hits,
                sessions=sessions,
            )
        )
    return found


def most_watched(lake: Path, count: int, *, renditions: bool = False) -> list[Watched]:
    """Those of which most bytes were sent. Raises `InputError`."""
    if not hours(lake):
        return []
    by = "folder" if renditions else "title"
    rows = _asked(
        lake,
        f"""
        select {by}, sum(bytes) as sent, sum(sessions) from demand
        where title <> '' group by {by} order by sent desc, {by} limit {int(count)}
        """,  # noqa: S608 - one of two words, and a number
    )
    return [Watched(name=name, bytes=int(sent), sessions=int(sessions or 0)) for name, sent, sessions in rows]


def _asked(lake: Path, question: str) -> list[tuple[Any, ...]]:
    """Of the table `demand`, which has the columns of wire.demand and `date`."""
    files = str(lake / "demand" / "*" / "*" / "*.parquet").replace("'", "''")
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        try:
            connection.execute(
                f"""
                create temporary view demand as
                select * replace (date::date as date)
                from read_parquet('{files}', hive_partitioning = true, union_by_name = true)
                """  # noqa: S608 - a path of ours, quoted
            )
            return connection.execute(question).fetchall()
        except duckdb.Error as error:
            raise InputError(f"{lake}: demand can't be read: {str(error).splitlines()[0]}") from error
