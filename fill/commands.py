"""What `oca-fill` does for whoever plans: one function for each command, with what was given on the command line."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pyroaring import BitMap
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from fill import catalogue, fleet, lake
from fill import demand as demanded
from fill.bucket import Bucket
from fill.errors import InputError, SettingsError
from fill.plans import Name, Plans, Record
from fill.settings import Settings, Store, read_settings, signing_key
from fill.sizes import size_text
from fill.wishes import read_wishes
from wire.codec import encode
from wire.orders import public_key_text

_console: Final = Console(highlight=False)


def sync(given: argparse.Namespace) -> None:
    settings = read_settings(given.config)
    synced(settings, dt.datetime.now(dt.UTC).date())
    where = Path(settings.state_dir) / "lake"
    there = lake.hours(where)
    _console.print(
        f"{where}: {len(there)} hours of {len({hour.appliance for hour in there})} appliances"
        + (f", {there[0].date} to {there[-1].date}" if there else "")
    )


def synced(settings: Settings, last: dt.date, days: int | None = None) -> str:
    """Bring the lake up to date with the bucket, the catalogue and the fleet; the catalogue's digest. Raises
    `FillError`.
    """
    where = Path(settings.state_dir) / "lake"
    control = bucket_of(settings.control)
    first = last - dt.timedelta(days=(days or settings.days) - 1)
    with _bar("demand and stock") as reached:
        done = lake.sync(control, where, first, last, reached)
    if done.strange:
        _say(f"oca-fill: {done.strange} objects in the bucket are no demand and no stock, and were left where they are")
    films = control if settings.catalogue is None else bucket_of(settings.catalogue)
    with _bar("catalogue") as reached:
        digest = catalogue.refresh(films, where, reached)
    fleet.save(fleet.fleet_of(settings.fleet), where)
    return digest


def demand(given: argparse.Namespace) -> None:
    settings = read_settings(given.config)
    where = Path(settings.state_dir) / "lake"
    last = dt.datetime.now(dt.UTC).date()
    with _bar("demand and stock") as reached:
        lake.sync(bucket_of(settings.control), where, last - dt.timedelta(days=given.days - 1), last, reached)
    table = Table("day (UTC)", "appliances", "hours", "missing", "requests", "sessions", "sent", "hits", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for day in demanded.days(where):
        hits = f"{day.hit_bytes / day.bytes:.1%}" if day.bytes else "-"
        counts = (day.appliances, day.hours, day.missing, day.requests, day.sessions)
        table.add_row(str(day.date), *(f"{count:,}" for count in counts), size_text(day.bytes), hits)
    _console.print(table)
    top = demanded.most_watched(where, given.top, renditions=given.renditions)
    if not top:
        _console.print("nothing was watched, or no appliance has written its demand yet")
        return
    watched = Table("rendition" if given.renditions else "title", "sent", "sessions", box=None)
    for one in top:
        watched.add_row(one.name, size_text(one.bytes), f"{one.sessions:,}")
    _console.print(watched)


def plan(given: argparse.Namespace) -> None:
    # What plans loads half a second of libraries, which the other commands and agents need not wait for.
    from fill import planning, report  # noqa: PLC0415

    settings = read_settings(given.config)
    key = None if given.dry_run else signing_key(settings.signing)
    wished = read_wishes(settings.wishes)
    now = time.time()
    night = given.night or _next_night(now)
    where = Path(settings.state_dir) / "lake"
    if given.offline:
        catalogue_digest = catalogue.digest_of(where)
    else:
        # Whatever zone a site is in, its last whole day has begun two days ago at the latest.
        catalogue_digest = synced(settings, night + dt.timedelta(days=1), settings.days + 2)
    plans = Plans(bucket_of(settings.control))
    stocks, complaints = planning.stocks_in(where)
    with _bars() as reached:
        plan = planning.planned(
            planning.Inputs(
                lake=where,
                night=night,
                now=now,
                settings=settings,
                fleet=fleet.load(where),
                wishes=wished,
                stocks=stocks,
                promised=plans.promised(plans.applied()),
                catalogue=catalogue_digest,
                warnings=tuple(complaints),
            ),
            reached,
        )
    text = report.as_text(plan.report)
    files = {"report.json": encode(plan.report), "report.txt": text.encode()}
    if key is not None or given.out is not None:
        files |= report.plots(plan.report)
    if given.out is not None:
        _write_all(given.out, files)
    if key is not None:
        name = plans.begin(str(night), now)
        with _bar("orders") as reached_one:
            record = plans.save(
                name, plan.orders(name.version), files, plan.promised, key, settings.signing.kid, now, reached_one
            )
        say = f"plan {record.name} is written; oca-fill apply {night}/{name.version} has agents work on it\n"
    else:
        say = "nothing was written: this was a dry run\n"
    _console.print(encode(plan.report).decode() if given.json else text, markup=False, soft_wrap=True, end="")
    _say(say.rstrip())


def _next_night(now: float) -> dt.date:
    """Windows that begin within the next day: tonight's, after noon in UTC tomorrow's."""
    return (dt.datetime.fromtimestamp(now, dt.UTC) + dt.timedelta(hours=12)).date()


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, body in files.items():
            (folder / name).write_bytes(body)
    except OSError as error:
        raise SettingsError(f"--out: {folder}: can't be written: {error.strerror}") from error


def diff(given: argparse.Namespace) -> None:
    plans = _opened(given)
    if given.before is None:
        applied = plans.applied()
        before = None if applied is None else applied.name
    else:
        before = given.before
    after = _chosen(plans, given.after).name
    there = catalogue.renditions(Path(read_settings(given.config).state_dir) / "lake")
    old = {} if before is None else plans.promised_by(before)
    new = plans.promised_by(after)
    _console.print(f"from {before or 'nothing'} to {after}")
    table = Table("appliance", "gains", "", "loses", "", "stays", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    gained: Counter[str] = Counter()
    for appliance in sorted(old.keys() | new.keys()):
        one, other = old.get(appliance, BitMap()), new.get(appliance, BitMap())
        sizes = [
            sum(there[number].size_bytes for number in some if number in there) for some in (other - one, one - other)
        ]
        gained.update(there[number].title for number in other - one if number in there)
        gained.subtract(there[number].title for number in one - other if number in there)
        counts = f"{len(other - one):,}", size_text(sizes[0]), f"{len(one - other):,}", size_text(sizes[1])
        table.add_row(appliance, *counts, f"{len(one & other):,}")
    _console.print(table)
    for words, titles in (("gain most", gained.most_common(10)), ("lose most", gained.most_common()[:-11:-1])):
        shown = [f"{title} {count:+}" for title, count in titles if (count > 0) == (words == "gain most") and count]
        if shown:
            _console.print(f"{words}: " + ", ".join(shown), markup=False)


def urgent(given: argparse.Namespace) -> None:
    from fill import urgent as urgently  # noqa: PLC0415 - as in `plan`

    settings = read_settings(given.config)
    key = signing_key(settings.signing)
    plans = Plans(bucket_of(settings.control))
    digest = synced(settings, dt.datetime.now(dt.UTC).date(), 1)
    where = Path(settings.state_dir) / "lake"
    wish = urgently.Wish(
        given.title,
        None if given.rendition is None else tuple(given.rendition),
        None if given.site is None else tuple(given.site),
        None if given.appliance is None else tuple(given.appliance),
    )
    orders = urgently.orders(wish, catalogue.renditions(where), fleet.load(where), time.time(), given.days, digest)
    for order in orders:
        plans.urge(order, key, settings.signing.kid)
    moved = sum(bring.size_bytes for order in orders for bring in order.bring)
    _console.print(f"{given.title}: {len(orders):,} appliances were told to bring {size_text(moved)} in all")


def plans(given: argparse.Namespace) -> None:
    plans = _opened(given)
    applied = plans.applied()
    names = plans.names()
    for name in names:
        try:
            record = plans.record(name)
        except InputError:
            _console.print(f"{name.night}/{name.version}  broken off")
            continue
        mark = "  applied" if applied is not None and applied.name == name else ""
        _console.print(
            f"{name.night}/{name.version}  {len(record.orders):,} orders,"
            f" {record.bring_renditions:,} renditions, {size_text(record.bring_bytes)}{mark}"
        )
    if not names:
        _console.print("there is no plan")


def show(given: argparse.Namespace) -> None:
    plans = _opened(given)
    record = _chosen(plans, given.plan)
    if given.appliance is None:
        report = plans.file(record.name, "report.txt")
        _console.print((report or b"this plan has no report").decode(), markup=False)
        return
    order = plans.order(record, given.appliance)
    _console.print(
        f"{order.appliance}: plan {record.name}, {len(order.bring):,} renditions to bring"
        f" ({size_text(sum(bring.size_bytes for bring in order.bring))} of {size_text(order.budget_bytes)}),"
        f" {len(order.release):,} to release"
    )
    table = Table("to bring", "size", "tier", "value", "from", box=None)
    for bring in order.bring:
        table.add_row(
            bring.folder,
            size_text(bring.size_bytes),
            bring.tier or "-",
            f"{bring.value:.3g}",
            ", ".join(bring.sources) or "outside",
        )
    _console.print(table)


def apply(given: argparse.Namespace) -> None:
    plans = _opened(given)
    record = _chosen(plans, given.plan)
    with _bar("orders") as reached:
        plans.apply(record, getpass.getuser(), time.time(), back=given.back, reached=reached)
    _console.print(f"plan {record.name} is applied: {len(record.orders):,} orders")


def status(given: argparse.Namespace) -> None:
    plans = _opened(given)
    applied = plans.applied()
    if applied is None:
        _console.print("no plan is applied")
        return
    table = Table("appliance", "does", "plan", "done", "of", "failed", "heard", box=None)
    for appliance in plans.record(applied.name).orders:
        progress = plans.progress(appliance)
        if progress is None:
            table.add_row(appliance, "never heard")
            continue
        does = progress.phase + (", behind schedule" if progress.behind_schedule else "")
        table.add_row(
            appliance,
            does + (f": {progress.reason}" if progress.reason else ""),
            f"{progress.night}/{progress.version}",
            size_text(progress.done_bytes),
            size_text(progress.order_bytes),
            f"{progress.failed_renditions:,}",
            dt.datetime.fromtimestamp(progress.at, dt.UTC).isoformat(timespec="seconds"),
        )
    _console.print(table)


def keygen(given: argparse.Namespace) -> None:
    key = Ed25519PrivateKey.generate()
    body = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with os.fdopen(os.open(given.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(body)
    except OSError as error:
        raise SettingsError(f"{given.file}: can't be written: {error.strerror}") from error
    _console.print(
        f'[order_keys]\n"{dt.datetime.now(dt.UTC).date()}" = "{public_key_text(key.public_key())}"', markup=False
    )


# --- Parts ---


def bucket_of(store: Store) -> Bucket:
    return Bucket(store.bucket, store.endpoint_url, store.region)


def _opened(given: argparse.Namespace) -> Plans:
    return Plans(bucket_of(read_settings(given.config).control))


def _chosen(plans: Plans, name: Name | None) -> Record:
    if name is not None:
        return plans.record(name)
    latest = plans.latest()
    if latest is None:
        raise InputError("there is no plan")
    return latest


@contextmanager
def _bar(name: str) -> Iterator[lake.Reached]:
    """A bar where standard error is a terminal; else nothing until something takes long."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """As `_bar`, for work of several kinds."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def reached(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=of)
            progress.update(tasks[what], completed=done, total=of)

        yield reached


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
