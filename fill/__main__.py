"""The `oca-fill` command."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fill import catalogue, demand, fleet, lake
from fill.bucket import Bucket
from fill.errors import FillError, InputError, SettingsError
from fill.plans import Name, Plans, Record
from fill.settings import Settings, Store, read_settings
from wire.orders import public_key_text

_EXIT_CODES: Final = """
exit codes:
  0  done
  1  something failed; the message says what
  2  the command line or the settings are wrong; the message names the line or key
  3  what a plan is made of can't be used: catalogue, demand, stock or fleet
  4  the bucket did not do what was asked
"""
_SYNC: Final = """Bring here what a plan is made of: demand, stock, the catalogue as a table, and the fleet.

The other commands do it by themselves; this one shows what is there.
"""
_DEMAND: Final = "Show what there is of demand: each day, who is missing, and what was watched most."
_PLANS: Final = "List plans, and say which one is applied."
_SHOW: Final = "Show a plan's report, or one appliance's order."
_APPLY: Final = """Have agents work on a plan.

Nothing is applied by itself: a plan is made, looked at (show, diff), and applied. Applying can be broken off and done
again.
"""
_STATUS: Final = "Show how far appliances are with their orders."
_KEYGEN: Final = """Make the key that orders are signed with, and print what agents' settings need to trust it.

FILE must not exist. Keep it where only the planner can read it.
"""

_console: Final = Console(highlight=False)


def main() -> None:
    """Exits the process with one of the codes above."""
    given = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        given.run(given)
    except FillError as error:
        _say(f"oca-fill: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)  # As a shell reports it.
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oca-fill",
        description="Tomorrow's films on the right disks before breakfast.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, words: str, act: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=words.splitlines()[0],
            description=words,
            epilog=_EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=act)
        if name != "keygen":
            made.add_argument("--config", required=True, metavar="FILE", help="the planner's settings in TOML")
        return made

    command("sync", _SYNC, _sync)
    watched = command("demand", _DEMAND, _demand)
    watched.add_argument("--days", type=_days, default=7, metavar="N", help="days to show, today included; default 7")
    watched.add_argument("--top", type=_days, default=10, metavar="N", help="titles to show; default 10")
    watched.add_argument("--renditions", action="store_true", help="renditions in place of titles")
    command("plans", _PLANS, _plans)
    show = command("show", _SHOW, _show)
    show.add_argument("plan", nargs="?", type=_name, metavar="NIGHT/VERSION", help="default: the latest")
    show.add_argument("--appliance", metavar="ID", help="show its order")
    apply = command("apply", _APPLY, _apply)
    apply.add_argument("plan", nargs="?", type=_name, metavar="NIGHT/VERSION", help="default: the latest")
    apply.add_argument("--back", action="store_true", help="though a later plan is applied")
    command("status", _STATUS, _status)
    command("keygen", _KEYGEN, _keygen).add_argument("file", metavar="FILE", help="to write, in PEM")
    return parser


# --- What is asked ---


def _sync(given: argparse.Namespace) -> None:
    settings = read_settings(given.config)
    where = synced(settings, dt.datetime.now(dt.UTC).date())
    there = lake.hours(where)
    _console.print(
        f"{where}: {len(there)} hours of {len({hour.appliance for hour in there})} appliances"
        + (f", {there[0].date} to {there[-1].date}" if there else "")
    )


def synced(settings: Settings, last: dt.date, days: int | None = None) -> Path:
    """The lake, up to date with the bucket, the catalogue and the fleet. Raises `FillError`."""
    where = Path(settings.state_dir) / "lake"
    control = bucket_of(settings.control)
    first = last - dt.timedelta(days=(days or settings.days) - 1)
    with _bar("demand and stock") as reached:
        done = lake.sync(control, where, first, last, reached)
    if done.strange:
        _say(f"oca-fill: {done.strange} objects in the bucket are no demand and no stock, and were left where they are")
    films = control if settings.catalogue is None else bucket_of(settings.catalogue)
    with _bar("catalogue") as reached:
        catalogue.refresh(films, where, reached)
    fleet.save(fleet.fleet_of(settings.fleet), where)
    return where


def _demand(given: argparse.Namespace) -> None:
    settings = read_settings(given.config)
    where = Path(settings.state_dir) / "lake"
    last = dt.datetime.now(dt.UTC).date()
    with _bar("demand and stock") as reached:
        lake.sync(bucket_of(settings.control), where, last - dt.timedelta(days=given.days - 1), last, reached)
    table = Table("day (UTC)", "appliances", "hours", "missing", "requests", "sessions", "sent", "hits", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for day in demand.days(where):
        hits = f"{day.hit_bytes / day.bytes:.1%}" if day.bytes else "-"
        counts = (day.appliances, day.hours, day.missing, day.requests, day.sessions)
        table.add_row(str(day.date), *(f"{count:,}" for count in counts), size_text(day.bytes), hits)
    _console.print(table)
    top = demand.most_watched(where, given.top, renditions=given.renditions)
    if not top:
        _console.print("nothing was watched, or no appliance has written its demand yet")
        return
    watched = Table("rendition" if given.renditions else "title", "sent", "sessions", box=None)
    for one in top:
        watched.add_row(one.name, size_text(one.bytes), f"{one.sessions:,}")
    _console.print(watched)


def _plans(given: argparse.Namespace) -> None:
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


def _show(given: argparse.Namespace) -> None:
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


def _apply(given: argparse.Namespace) -> None:
    plans = _opened(given)
    record = _chosen(plans, given.plan)
    with _bar("orders") as reached:
        plans.apply(record, getpass.getuser(), time.time(), back=given.back, reached=reached)
    _console.print(f"plan {record.name} is applied: {len(record.orders):,} orders")


def _status(given: argparse.Namespace) -> None:
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


def _keygen(given: argparse.Namespace) -> None:
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


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 366:
        raise argparse.ArgumentTypeError(f"read {text!r}; allowed: 1 to 366")
    return int(text)


def _name(text: str) -> Name:
    night, _, version = text.partition("/")
    try:
        dt.date.fromisoformat(night)
    except ValueError:
        version = ""
    if not version.isdecimal():
        raise argparse.ArgumentTypeError(f"read {text!r}; allowed: a plan such as 2026-11-25/1")
    return Name(night, int(version))


def size_text(count: int) -> str:
    """Bytes as people say them, in powers of ten as disks and links are sold."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


@contextmanager
def _bar(name: str) -> Iterator[lake.Reached]:
    """A bar where standard error is a terminal; else nothing until something takes long."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
