"""A night's plan: from what lies in the lake to an order for each appliance and a report. Writes nothing.

    demand, catalogue -> digests -> sums by region -> forecast by region and site -> placement -> orders, report

The same lake, wishes and settings give the same plan; the moment it is made at is an argument.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import duckdb
import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from pyroaring import BitMap

from fill import digests, forecast, history, placement
from fill.catalogue import RENDITIONS
from fill.errors import InputError
from fill.fleet import Appliance, Fleet, Site
from fill.forecast import Calendar, Catalogue, Floats, Forecast, Sums, Whole
from fill.placement import Box, Chosen, Reason, Room
from fill.report import ApplianceReport, Missed, Report, SiteReport, Source
from fill.settings import Settings
from fill.wishes import Block, Pin, Wishes
from wire.codec import WireError
from wire.demand import MOST_STOCK_BYTES, Stock, read_stock, stock_key
from wire.orders import Bring, FillOrder, Peer

_EPOCH: Final = dt.date(1970, 1, 1)
_TIERS: Final = ("nvme", "ssd", "hdd")
_ONLINE: Final = "online"
_LINK_BPS: Final = 10_000_000_000
"""Of an appliance that does not say, at a fleet that does not say either."""
_MOST_MISSED: Final = 20
"""Renditions that a site's report names, of those that did not fit."""
_NEW_SITE: Final = 0.01
"""Of a mean site's demand: what a site is forecast of which nothing was heard yet."""
_STALE_STOCK: Final = 2 * 86400.0
"""Seconds after which what an appliance said it holds is told to be old."""

Reached = Callable[[str, int, int], None]
"""What is done, how much of it, of how much."""


@dataclass
class Names:
    """What a row of the catalogue is called."""

    title: list[str]
    folder: list[str]
    name: list[str]
    title_row: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Region:
    """Sites that are forecast together: those below one root of the tree of parents, or of one country."""

    id: str
    sites: tuple[Site, ...]


@dataclass(frozen=True)
class Inputs:
    """All that a plan is made of, beside the demand."""

    lake: Path
    night: dt.date
    now: float
    """Seconds since 1970: when the plan is made."""
    settings: Settings
    fleet: Fleet
    wishes: Wishes
    stocks: Mapping[str, Stock]
    promised: Mapping[str, BitMap]
    """By appliance, the numbers that it was told to hold last."""
    catalogue: str
    """Digest."""
    warnings: tuple[str, ...] = ()
    """Of whoever brought it here."""


@dataclass(frozen=True)
class Plan:
    """What `orders` yields is made one by one: a fleet's orders are gigabytes."""

    orders: Callable[[int], Iterator[FillOrder]]
    """For a version."""
    promised: dict[str, bytes]
    """By appliance, the numbers that it holds or is to hold by pledge: serialized roaring bitmaps."""
    report: Report


def stocks_in(lake: Path) -> tuple[dict[str, Stock], list[str]]:
    """What appliances said they have and hold, and sentences about those that can't be read."""
    found, warnings = {}, []
    for path in sorted((lake / "stock").glob("*.json")):
        if path.stat().st_size > MOST_STOCK_BYTES:
            warnings.append(f"stock of {path.stem} is larger than a stock can be, and was left out")
            continue
        try:
            stock = read_stock(path.read_bytes())
        except (OSError, WireError) as error:
            warnings.append(f"stock of {path.stem} can't be read, and was left out: {error}")
            continue
        if stock_key(stock.appliance) != f"stock/{path.name}":
            warnings.append(f"stock of {path.stem} speaks for {stock.appliance}, and was left out")
            continue
        found[stock.appliance] = stock
    return found, warnings


def catalogue_in(lake: Path) -> tuple[Catalogue, Names]:
    """The renditions that can be planned, in order of their numbers. Raises `InputError`."""
    try:
        table = pq.read_table(lake / RENDITIONS)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{lake / RENDITIONS}: can't be read: {error}") from error
    table = table.filter(pa.compute.greater(table["size_bytes"], 0)).sort_by("number")
    titles = table["title"].combine_chunks().dictionary_encode()
    rungs = pa.compute.binary_join_element_wise(table["kind"], table["name"], table["codecs"], "\0")
    rungs = rungs.combine_chunks().dictionary_encode()
    published = table["published_at"].cast(pa.timestamp("s", tz="UTC")).cast(pa.int64()).to_numpy() // 86400
    catalogue = Catalogue(
        number=table["number"].to_numpy().astype(np.int64),
        title=titles.indices.to_numpy().astype(np.int64),
        rung=rungs.indices.to_numpy().astype(np.int64),
        size_bytes=table["size_bytes"].to_numpy().astype(np.int64),
        published=published.astype(np.int64),
    )
    names = Names(table["title"].to_pylist(), table["folder"].to_pylist(), table["name"].to_pylist())
    for row, title in enumerate(names.title):
        names.title_row.setdefault(title, []).append(row)
    return catalogue, names


def regions_of(fleet: Fleet) -> list[Region]:
    """In the order of their names. A site that is nobody's parent and has none is pooled with its country."""
    parent = {site.id: site.parent for site in fleet.sites}
    parents = {site.parent for site in fleet.sites if site.parent is not None}
    found: dict[str, list[Site]] = {}
    for site in fleet.sites:
        root = site.id
        while (above := parent[root]) is not None:
            root = above
        name = f"country {site.country}" if root == site.id and site.id not in parents else root
        found.setdefault(name, []).append(site)
    return [Region(name, tuple(sites)) for name, sites in sorted(found.items())]


def planned(inputs: Inputs, reached: Reached = lambda _what, _done, _of: None) -> Plan:
    """Make the plan. Raises `InputError`."""
    catalogue, names = catalogue_in(inputs.lake)
    if not len(catalogue):
        raise InputError(f"{inputs.lake}: the catalogue is empty: there is nothing to plan")
    with digests.database(inputs.lake, inputs.settings.memory) as connection:
        account = digests.refresh(
            connection, inputs.lake, inputs.fleet, inputs.settings.peak, inputs.catalogue, _step(reached, "demand")
        )
        night = _Night(inputs, catalogue, names, connection, account)
        return night.plan(reached)


def _step(reached: Reached, what: str) -> Callable[[int, int], None]:
    return lambda done, of: reached(what, done, of)


@dataclass
class _Part:
    """An appliance's part of the plan, as it is kept until orders are written."""

    box: Box
    site: Site
    chosen: Chosen
    sources: list[tuple[str, ...]] = field(default_factory=list)


class _Night:
    """One plan in the making."""

    def __init__(
        self,
        inputs: Inputs,
        catalogue: Catalogue,
        names: Names,
        connection: Backend,
        account: digests.Account,
    ) -> None:
        self._inputs = inputs
        self._catalogue = catalogue
        self._names = names
        self._connection = connection
        self._account = account
        self._rules = inputs.settings.forecast
        self._warnings: list[str] = list(inputs.warnings)
        self._regions = regions_of(inputs.fleet)
        self._appliances: dict[str, list[Appliance]] = {}
        for appliance in inputs.fleet.appliances:
            self._appliances.setdefault(appliance.site, []).append(appliance)

    def plan(self, reached: Reached) -> Plan:
        self._look_at_inputs()
        tables = self._tables()
        parts: dict[str, _Part] = {}
        sites: list[SiteReport] = []
        total = len(self._inputs.fleet.sites)
        for region in self._regions:
            for site, predicted in self._forecasts(region, tables):
                own, told = self._place(site, region, predicted)
                parts |= {part.box.id: part for part in own}
                sites.append(told)
                reached("sites", len(sites), total)
        self._ask_peers(parts)
        appliances = [self._told(parts[one.id]) for one in self._inputs.fleet.appliances if one.id in parts]
        report = Report(
            night=str(self._inputs.night),
            catalogue=self._inputs.catalogue,
            renditions=len(self._catalogue),
            demand_bytes=self._account.bytes,
            unknown_folder_bytes=self._account.unknown_folders,
            unknown_appliance_bytes=self._account.unknown_appliances,
            sites=tuple(sorted(sites, key=lambda site: site.id)),
            appliances=tuple(appliances),
            warnings=tuple(self._warnings),
        )
        numbers = self._catalogue.number
        promised = {
            name: BitMap(numbers[part.chosen.pledged].tolist()).serialize() for name, part in sorted(parts.items())
        }
        return Plan(lambda version: self._orders(parts, version), promised, report)

    # --- What is there ---

    def _look_at_inputs(self) -> None:
        inputs, say = self._inputs, self._warnings.append
        known = {one.id for one in inputs.fleet.appliances}
        for appliance in sorted(set(inputs.stocks) - known):
            say(f"{appliance} ships demand, and is in no fleet")
        for appliance in sorted(known - set(inputs.stocks)):
            say(f"{appliance} never said what room it has: it gets no order")
        for appliance, stock in sorted(inputs.stocks.items()):
            if appliance in known and inputs.now - stock.at > _STALE_STOCK:
                say(f"{appliance} said {(inputs.now - stock.at) / 86400:.0f} days ago what it holds")
            if appliance in known and not stock.holdings:
                say(f"{appliance} does not say what it holds: all that it was ordered to hold counts as held")
        if not self._account.bytes:
            say("there is no demand: a plan goes by pins and by what is held")
        lost = self._account.unknown_folders
        if lost > 0.05 * self._account.bytes:
            say(f"{lost / self._account.bytes:.0%} of the demand is of renditions that are in no catalogue")
        sites = {site.id for site in inputs.fleet.sites}
        wished = {wish.title for wish in inputs.wishes.pin} | {wish.title for wish in inputs.wishes.block}
        for title in sorted(wished | {wish.title for wish in inputs.wishes.release}):
            if title not in self._names.title_row:
                say(f"wishes: {title} is in no catalogue")
        wishes: list[Pin | Block] = [*inputs.wishes.pin, *inputs.wishes.block]
        for wish in wishes:
            for site in sorted(set(wish.sites or ()) - sites):
                say(f"wishes: {wish.title}: {site} is no site")
            for name in sorted(set(wish.renditions or ()) - {self._names.name[row] for row in self._rows(wish.title)}):
                say(f"wishes: {wish.title} has no rendition {name}")

    def _rows(self, title: str) -> list[int]:
        return self._names.title_row.get(title, [])

    def _wished(self, wishes: Sequence[Pin] | Sequence[Block], site: str) -> Whole:
        """Rows that a pin or a block is about at a site tonight."""
        rows = {
            row
            for wish in wishes
            if (wish.until is None or wish.until >= self._inputs.night) and (wish.sites is None or site in wish.sites)
            for row in self._rows(wish.title)
            if wish.renditions is None or self._names.name[row] in wish.renditions
        }
        return np.array(sorted(rows), np.int64)

    # --- What will be asked for ---

    def _tables(self) -> dict[str, ir.Table] | None:
        """What the forecast asks the database for; None without any demand."""
        files = sorted((self._inputs.lake / digests.DIGESTS).glob("date=*.parquet"))
        if not files or not self._account.bytes:
            return None
        connection = self._connection
        days = connection.read_parquet([str(path) for path in files], table_name="digests")
        day = np.array([_EPOCH + dt.timedelta(days=int(one)) for one in self._catalogue.published], "datetime64[D]")
        published = pa.table(
            {
                "number": self._catalogue.number,
                "title": self._catalogue.title,
                "published": pa.array(day),
            }
        )
        return {"days": days, "published": ibis.memtable(published)}

    def _forecasts(self, region: Region, tables: dict[str, ir.Table] | None) -> Iterator[tuple[Site, Forecast]]:
        catalogue, rules = self._catalogue, self._rules
        nothing = np.zeros(len(catalogue))
        if tables is None:
            yield from ((site, Forecast(nothing, nothing)) for site in region.sites)
            return
        last = self._inputs.night
        days = tables["days"]
        # By sites before anything is joined: then only their parts of the files are read.
        days = days.filter(
            days.site.isin([site.id for site in region.sites]),
            days.day < ibis.literal(last),
            days.day >= ibis.literal(last - dt.timedelta(rules.days)),
        ).mutate(region=ibis.literal(region.id))
        totals = {row["day"]: int(row["bytes"]) for row in self._asked(history.totals(days)).to_pylist()}
        if not any(totals.values()):
            yield from ((site, Forecast(nothing, nothing)) for site in region.sites)
            return
        launches = self._asked(history.launches(days, tables["published"], max(totals), rules.launch_days)).to_pylist()
        pairs = [(int(row["age"]), int(row["before"]), int(row["after"])) for row in launches]
        play = float(np.average(catalogue.size_bytes))
        when = forecast.calendar(list(totals), last, pairs, play, rules)
        levels = forecast.weekday_levels(totals, last)
        weights = pa.Table.from_pylist(
            [
                {
                    "region": region.id,
                    "day": _EPOCH + dt.timedelta(days=day),
                    "fast": fast,
                    "slow": slow,
                    "level": levels[_EPOCH + dt.timedelta(days=day)],
                }
                for day, fast, slow in zip(when.days.tolist(), when.fast.tolist(), when.slow.tolist(), strict=True)
            ]
        )
        curve = pa.table({"age": np.arange(len(when.curve)), "lift": when.curve})
        sums = self._asked(
            history.weighted(days, tables["published"], ibis.memtable(weights), ibis.memtable(curve), "site")
        )
        yield from self._by_site(region, sums, when)

    def _by_site(self, region: Region, sums: pa.Table, when: Calendar) -> Iterator[tuple[Site, Forecast]]:
        catalogue, rules = self._catalogue, self._rules
        site_of = sums["site"].to_numpy(zero_copy_only=False)
        columns = [sums[name].to_numpy() for name in ("number", "fast", "slow", "peak")]

        def of(site: str) -> Sums:
            here = slice(int(np.searchsorted(site_of, site)), int(np.searchsorted(site_of, site, side="right")))
            return Sums.of(catalogue, *(column[here] for column in columns))

        # Whole numbers below 2^53 would add up exactly in any order; larger ones do so in this one.
        total = Sums(*(np.zeros(len(catalogue)) for _ in range(3)))
        for site in region.sites:
            one = of(site.id)
            total = Sums(total.fast + one.fast, total.slow + one.slow, total.peak + one.peak)
        releases = [
            forecast.Release(int(catalogue.title[rows[0]]), wish.strength)
            for wish in self._inputs.wishes.release
            if (rows := self._rows(wish.title))
        ]
        whole = forecast.of_region(catalogue, total, when, rules, releases)
        for site in region.sites:
            least = _NEW_SITE / len(region.sites)
            yield site, forecast.of_site(catalogue, whole, total, of(site.id), when, rules, least)

    def _asked(self, table: ir.Table) -> pa.Table:
        try:
            return self._connection.to_pyarrow(table)
        except (duckdb.Error, ibis.IbisError) as error:
            raise InputError(f"{self._inputs.lake}: can't be summed: {str(error).splitlines()[0]}") from error

    # --- Who holds it ---

    def _box(self, appliance: Appliance) -> Box | None:
        stock = self._inputs.stocks.get(appliance.id)
        if stock is None:
            return None
        settings = self._inputs.settings
        online = [device for device in stock.devices if device.standing == _ONLINE and device.tier in _TIERS]
        rooms = tuple(
            Room(tier, sum(int(one.capacity_bytes * stock.pledge_share) for one in online if one.tier == tier))
            for tier in _TIERS
            if any(one.tier == tier for one in online)
        )
        promised = self._inputs.promised.get(appliance.id, BitMap())
        holdings = BitMap.deserialize(stock.holdings) if stock.holdings else promised
        return Box(
            id=appliance.id,
            rooms=rooms,
            storage_bytes=sum(one.capacity_bytes for one in online),
            free_bytes=sum(max(0, one.capacity_bytes - one.used_bytes) for one in online),
            link_bps=appliance.capacity_bps or stock.link_bps or _LINK_BPS,
            window_bytes=settings.window.bytes_of(len(online)),
            pledged=self._rows_of(promised & holdings),
            held=self._rows_of(holdings),
        )

    def _rows_of(self, numbers: BitMap) -> Whole:
        """Those that are in the catalogue."""
        wanted = np.fromiter(numbers, np.int64, len(numbers))
        at = np.searchsorted(self._catalogue.number, wanted)
        at = at[at < len(self._catalogue)] if len(at) else at
        wanted = wanted[: len(at)]
        rows: Whole = at[self._catalogue.number[at] == wanted]
        return rows

    def _place(self, site: Site, region: Region, predicted: Forecast) -> tuple[list[_Part], SiteReport]:
        settings = self._inputs.settings
        boxes = [box for one in self._appliances.get(site.id, []) if (box := self._box(one)) is not None and box.rooms]
        pins = self._wished(self._inputs.wishes.pin, site.id)
        blocks = self._wished(self._inputs.wishes.block, site.id)
        parts = placement.placed(
            self._catalogue.number,
            self._catalogue.size_bytes,
            predicted.peak_bytes,
            settings.peak.seconds,
            boxes,
            settings.placement,
            pins,
            blocks,
        )
        own = [_Part(box, site, chosen) for box, chosen in zip(boxes, parts, strict=True)]
        return own, self._told_of(site, region, predicted, own, pins, blocks)

    def _told_of(
        self, site: Site, region: Region, predicted: Forecast, own: list[_Part], pins: Whole, blocks: Whole
    ) -> SiteReport:
        ours, before = np.zeros(len(self._catalogue), bool), np.zeros(len(self._catalogue), bool)
        for part in own:
            ours[part.chosen.pledged] = True
            before[part.box.pledged] = True
        peak, day = float(predicted.peak_bytes.sum()), float(predicted.day_bytes.sum())
        rest = predicted.peak_bytes.copy()
        rest[ours] = 0.0
        density = rest / self._catalogue.size_bytes
        # All that are as dense as the last of those that are named, so that equals do not depend on the sorting.
        least = np.partition(density, -_MOST_MISSED)[-_MOST_MISSED] if len(density) > _MOST_MISSED else 0.0
        densest = np.flatnonzero(density >= max(least, np.finfo(float).tiny))[: 10 * _MOST_MISSED]
        left_out = np.union1d(pins[~ours[pins]], densest)
        missed = [
            Missed(
                folder=self._names.folder[row],
                size_bytes=int(self._catalogue.size_bytes[row]),
                peak_bytes=int(predicted.peak_bytes[row]),
                reason=Reason.BLOCKED if row in blocks else self._why(own, row),
                is_pin=bool(row in pins),
            )
            for row in left_out.tolist()
            if rest[row] > 0 or row in pins
        ]
        missed.sort(key=lambda one: (not one.is_pin, -one.peak_bytes / one.size_bytes, one.folder))
        return SiteReport(
            id=site.id,
            region=region.id,
            appliances=len(own),
            predicted_day_bytes=int(day),
            predicted_peak_bytes=int(peak),
            pledged_before=_share(predicted.peak_bytes[before], peak),
            pledged_after=_share(predicted.peak_bytes[ours], peak),
            storage_bytes=sum(part.box.storage_bytes for part in own),
            room_bytes=sum(part.box.room_bytes for part in own),
            missed=tuple(missed[:_MOST_MISSED]),
        )

    def _why(self, own: list[_Part], row: int) -> Reason:
        """The nearest of the reasons: where a night's bytes ran out, more nights would bring it."""
        size = int(self._catalogue.size_bytes[row])
        for part in own:
            chosen = part.chosen
            used = int(self._catalogue.size_bytes[chosen.pledged].sum())
            if chosen.cost_bytes + size > chosen.budget_bytes and used + size <= part.box.room_bytes:
                return Reason.BUDGET
        return Reason.BUDGET if any(Reason.BUDGET in part.chosen.refused for part in own) else Reason.ROOM

    # --- Who brings it ---

    def _ask_peers(self, parts: dict[str, _Part]) -> None:
        groups: dict[str, list[_Part]] = {}
        for part in parts.values():
            groups.setdefault(part.site.parent or part.site.id, []).append(part)
        for parent, group in sorted(groups.items()):
            above = [part for part in parts.values() if part.site.id == parent and part not in group]
            asked = placement.sources(
                self._catalogue.number,
                [(part.box.id, part.site.id, self._missing(part), part.box.held) for part in [*group, *above]],
                parent,
            )
            for part in group:
                by_row = dict(zip(self._missing(part).tolist(), asked[part.box.id], strict=True))
                part.sources = [by_row.get(row, ()) for row in part.chosen.bring.tolist()]

    def _missing(self, part: _Part) -> Whole:
        """What an appliance really has to bring."""
        held = np.zeros(len(self._catalogue), bool)
        held[part.box.held] = True
        return part.chosen.bring[~held[part.chosen.bring]]

    # --- What is said ---

    def _told(self, part: _Part) -> ApplianceReport:
        sizes = self._catalogue.size_bytes
        site_of = {one.id: one.site for one in self._inputs.fleet.appliances}
        by_source = dict.fromkeys(Source, 0)
        held = set(part.box.held.tolist())
        for row, sources in zip(part.chosen.bring.tolist(), part.sources, strict=True):
            if row in held:
                continue
            kind = (
                Source.OUTSIDE if not sources else Source.SITE if site_of[sources[0]] == part.site.id else Source.REGION
            )
            by_source[kind] += int(sizes[row])
        return ApplianceReport(
            id=part.box.id,
            site=part.site.id,
            bring_renditions=len(part.chosen.bring),
            bring_bytes=part.chosen.cost_bytes,
            budget_bytes=part.chosen.budget_bytes,
            keep_renditions=len(part.chosen.keep),
            release_renditions=len(part.chosen.release),
            release_bytes=int(sizes[part.chosen.release].sum()),
            room_bytes=part.box.room_bytes,
            pledged_bytes=int(sizes[part.chosen.pledged].sum()),
            churn=part.chosen.cost_bytes / part.box.storage_bytes if part.box.storage_bytes else 0.0,
            by_source=by_source,
            refused={reason.value: count for reason, count in part.chosen.refused.items()},
        )

    def _orders(self, parts: dict[str, _Part], version: int) -> Iterator[FillOrder]:
        inputs, rules = self._inputs, self._inputs.settings.placement
        urls = {one.id: one.url for one in inputs.fleet.appliances}
        numbers, sizes, names = self._catalogue.number, self._catalogue.size_bytes, self._names
        for name, part in sorted(parts.items()):
            chosen = part.chosen
            opens = dt.datetime.combine(
                inputs.night, dt.time.fromisoformat(inputs.settings.window.start), ZoneInfo(part.site.timezone)
            ).timestamp()
            yield FillOrder(
                appliance=name,
                night=str(inputs.night),
                version=version,
                issued_at=inputs.now,
                expires_at=opens + rules.order_days * 86400,
                pledged_until=opens + rules.pledge_days * 86400,
                catalogue=inputs.catalogue,
                budget_bytes=chosen.budget_bytes,
                bring=tuple(
                    Bring(
                        number=number,
                        title=names.title[row],
                        folder=names.folder[row],
                        size_bytes=size,
                        tier=tier,
                        value=value,
                        sources=sources,
                    )
                    for row, number, size, tier, value, sources in zip(
                        chosen.bring.tolist(),
                        numbers[chosen.bring].tolist(),
                        sizes[chosen.bring].tolist(),
                        chosen.tiers,
                        np.round(chosen.value, 9).tolist(),
                        part.sources,
                        strict=True,
                    )
                ),
                keep=BitMap(numbers[chosen.keep].tolist()).serialize(),
                release=tuple(names.folder[row] for row in chosen.release.tolist()),
                peers=tuple(
                    Peer(id=peer, url=urls[peer]) for peer in sorted({one for row in part.sources for one in row})
                ),
            )


def _share(some: Floats, whole: float) -> float:
    return float(some.sum()) / whole if whole else 0.0


def _link(sources: tuple[str, ...], site: str, site_of: Mapping[str, str]) -> Source:
    """Over which bytes come, if those who are asked have them in time."""
    if not sources:
        return Source.OUTSIDE
    return Source.SITE if site_of[sources[0]] == site else Source.REGION
