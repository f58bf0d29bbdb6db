"""What was asked for, summed: ibis expressions over demand and catalogue, for DuckDB today and Spark later.

Only exact functions: sums of whole numbers come out the same in whatever order an engine adds them up, and what is
computed in floating point is computed row by row and rounded before it is summed. So the same lake gives the same plan
on every machine. What can't be said that way (forecast.py) is done afterwards, on arrays in order of the catalogue.

Two steps. `digest` turns an hour's rows into days of the sites' own time zones: it is kept, so that a night reads the
hours of one day and the digests of those before. `weighted` sums the days to one row for each region (or site) and
rendition.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from fill.rules import PeakHours

#: Of `digest`. Days are those of the site.
DIGEST = ibis.schema({"site": "string", "day": "date", "number": "int64", "bytes": "int64", "peak_bytes": "int64"})

_HOUR = dt.timedelta(hours=1)


def local_hours(zones: Iterable[str], first: dt.datetime, hours: int, peak: PeakHours) -> ir.Table:
    """For each time zone and hour in UTC from `first`: the day there, and whether it is of the peak.

    A table to join with, because engines differ in what they know of time zones, and on the two nights on which clocks
    are changed. An hour of a zone that is half an hour off belongs to where it begins.
    """
    rows = [
        {"timezone": zone, "hour": at.replace(tzinfo=None), "day": local.date(), "is_peak": local.hour in peak}
        for zone in sorted(set(zones))
        for at in (first.astimezone(dt.UTC) + step * _HOUR for step in range(hours))
        for local in (at.astimezone(ZoneInfo(zone)),)
    ]
    columns = {"timezone": pa.string(), "hour": pa.timestamp("us"), "day": pa.date32(), "is_peak": pa.bool_()}
    return ibis.memtable(pa.Table.from_pylist(rows, pa.schema(columns)))


def sites_of(appliances: Mapping[str, tuple[str, str]]) -> ir.Table:
    """To join demand with: appliance -> (site, time zone)."""
    rows = [{"appliance": a, "site": site, "timezone": zone} for a, (site, zone) in sorted(appliances.items())]
    columns = dict.fromkeys(("appliance", "site", "timezone"), pa.string())
    return ibis.memtable(pa.Table.from_pylist(rows, pa.schema(columns)))


def digest(demand: ir.Table, sites: ir.Table, renditions: ir.Table, hours: ir.Table) -> ir.Table:
    """As DIGEST, sorted. What is in no catalogue, or from an appliance in no fleet, is left out (`strangers`)."""
    asked = demand.select("appliance", "folder", "bytes", hour=demand.hour.cast("timestamp"))
    named = (
        asked.join(sites, "appliance")
        .join(renditions.select("folder", "number"), "folder")
        .join(hours, ["timezone", "hour"])
    )
    days = named.group_by("site", "day", "number").aggregate(
        bytes=named.bytes.sum().cast("int64"),
        peak_bytes=named.bytes.sum(where=named.is_peak).fill_null(0).cast("int64"),
    )
    return days.order_by("site", "day", "number")


def strangers(demand: ir.Table, sites: ir.Table, renditions: ir.Table) -> ir.Table:
    """One row: bytes in all, those of renditions in no catalogue (manifests are of none), of appliances in no fleet."""
    demand = demand.mutate(is_rendition=demand.folder.re_search("^/titles/[^/]+/[^/]+$"))
    marked = demand.left_join(renditions.select("folder", "number"), "folder").left_join(
        sites.select("appliance", "site"), "appliance"
    )
    return marked.aggregate(
        bytes=marked.bytes.sum().fill_null(0).cast("int64"),
        unknown_folders=marked.bytes.sum(where=marked.number.isnull() & marked.is_rendition).fill_null(0).cast("int64"),
        unknown_appliances=marked.bytes.sum(where=marked.site.isnull()).fill_null(0).cast("int64"),
    )


def totals(days: ir.Table) -> ir.Table:
    """Bytes of each day."""
    return (
        days.group_by("day")
        .aggregate(bytes=days.bytes.sum().cast("int64"), peak_bytes=days.peak_bytes.sum().cast("int64"))
        .order_by("day")
    )


def launches(days: ir.Table, published: ir.Table, last: dt.date, ages: int) -> ir.Table:
    """What titles served on a day and on the day after, by the days since they were published: rows of `age`, `before`
    and `after` for ages below `ages`. `published` says number -> title, published (a date)."""
    aged = days.join(published, "number")
    aged = aged.mutate(age=aged.day.delta(aged.published, unit="day").cast("int64"))
    of_title = aged.filter(aged.age >= 0, aged.age <= ages).group_by("title", "age", "published")
    of_title = of_title.aggregate(bytes=aged.bytes.sum().cast("int64"))
    # Only where the day after is in the past.
    before = of_title.filter(
        of_title.age < ages, ibis.date(last).delta(of_title.published, unit="day").cast("int64") > of_title.age
    )
    after = of_title.select("title", next_bytes="bytes", age=of_title.age - 1)
    pairs = before.left_join(after, ["title", "age"])
    return (
        pairs.group_by("age")
        .aggregate(
            before=pairs.bytes.sum().cast("int64"),
            after=pairs.next_bytes.fill_null(0).sum().cast("int64"),
        )
        .order_by("age")
    )


def weighted(days: ir.Table, published: ir.Table, weights: ir.Table, curve: ir.Table, by: str) -> ir.Table:
    """One row for each `by` and rendition, in order: `fast` and `slow`, the sums of bytes by weight, with what the
    launch and the weekday made of them taken out, and `peak`, as `slow` of the peak hours alone.

    `weights` says region, day -> fast, slow (whole numbers), level (a factor). `curve` says age -> lift, how much more
    is asked for a title of that age than later; older ones are those of the greatest age. `days` says region, too.
    """
    oldest = curve.age.max().as_scalar()
    known = days.join(weights, ["region", "day"]).join(published, "number")
    known = known.mutate(
        age=ibis.least(ibis.greatest(known.day.delta(known.published, unit="day").cast("int64"), 0), oldest)
    ).join(curve, "age")
    known = known.mutate(
        even=(known.bytes * known.level / known.lift).round().cast("int64"),
        even_peak=(known.peak_bytes * known.level / known.lift).round().cast("int64"),
    )
    return (
        known.group_by(by, "number")
        .aggregate(
            fast=(known.even * known.fast).sum().cast("int64"),
            slow=(known.even * known.slow).sum().cast("int64"),
            peak=(known.even_peak * known.slow).sum().cast("int64"),
        )
        .order_by(by, "number")
    )
