"""oca-admin turn-up: whether boxes are fit for viewers, before they have any and daily after."""

import asyncio
import re
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from msgspec import Struct, field
from rich.console import Console
from rich.markup import escape

from admin.errors import AdminError, MachineError, UsageError
from admin.fleet.asking import Desk
from admin.fleet.known import Fleet, Inventory, Member, chosen
from admin.fleet.showing import INTERRUPTED, AsJson, Names, Site, Steering, Who, login, print_json, run, table
from admin.progress import Silence, Watcher, watcher
from admin.reporting import reported
from admin.turnup import content
from admin.turnup.checks import FLOORS, Floor, findings
from admin.turnup.looking import Plan, look
from admin.turnup.report import Report, markdown, rows, told
from admin.turnup.seen import Check
from wire.probe import LEAST_BYTES, MOST_BYTES

CODES: Final = (
    "Exit codes: 0 all passed; 1 a check failed, which is named; 2 an argument can't be used, steering refused it, or a"
    " box is being probed already; 4 the bucket can't be used; 6 a file can't be written; 7 steering or a box did not"
    " answer."
)
_MIB: Final = 1024 * 1024
_AT_ONCE: Final = 4
"""Boxes: all of them bring and give back the test content by the line of where the command runs."""
_TOGETHER: Final = 64
"""Boxes whose results are recorded as one change: each is a new inventory, which steering goes through."""
_MOST_WHO: Final = 100
"""Letters that steering keeps of who did something."""
_SPEEDS: Final = re.compile(r"(nvme|ssd|hdd)=(\d{1,6})/(\d{1,6})")
_FLOORS: Final = ", ".join(f"{tier}={one.write / 1e6:.0f}/{one.read / 1e6:.0f}" for tier, one in FLOORS.items())


class Results(Struct):
    """Of a run."""

    reports: list[Report] = field(default_factory=list)
    troubles: dict[str, AdminError] = field(default_factory=dict)
    """By box: why it was not looked at."""
    recorded: list[str] = field(default_factory=list)
    unrecorded: AdminError | None = None
    """Why steering did not take what was found."""

    @property
    def exit_code(self) -> int:
        codes = [error.exit_code for error in self.troubles.values()]
        codes += [1 for report in self.reports if not report.passed]
        codes += [] if self.unrecorded is None else [self.unrecorded.exit_code]
        return max(codes, default=0)


def turn_up_command(
    *,
    names: Names = None,
    site: Site = None,
    everybody: Annotated[bool, typer.Option("--all", help="All appliances of the inventory.")] = False,
    only: Annotated[
        list[Check] | None,
        typer.Option(metavar="CHECK", help=f"Only this ({', '.join(Check)}); may be repeated. Nothing is recorded."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and record nothing at steering.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report there as Markdown, for the ISP.")
    ] = None,
    json: AsJson = False,
    put_content: Annotated[
        bool,
        typer.Option("--put-content", help="First put the test content to the origin (--to); boxes may be left out."),
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(metavar="PLACE", help="Of --put-content: s3://bucket/prefix, or an HTTP origin's folder."),
    ] = None,
    endpoint_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Of --to: the store, if it is not AWS.")
    ] = None,
    speeds: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIER=WRITE/READ",
            help=f"The least that devices do, in MB/s ({_FLOORS}); may be repeated.",
        ),
    ] = None,
    write: Annotated[
        int,
        typer.Option(
            metavar="MIB",
            min=LEAST_BYTES // _MIB,
            max=MOST_BYTES // _MIB,
            help="Written to each device and read again; a twentieth of its free room at most.",
        ),
    ] = 256,
    patience: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=5, max=3600, help="For the test content to come, and to be read back."),
    ] = 120.0,
    steering: Steering = None,
    who: Who = None,
) -> None:
    """Check whether boxes are fit for viewers, and record the result: a box has none before it has passed once.

    Looks at network cards, both families, prefixes, devices (each writes and reads a file that is gone at once), clock,
    certificates, and the way to parents and origin; has the box fill test content, and reads it back through the film
    port from here, byte by byte, whole and in ranges, with a URL signed as viewers' are. So run it from outside of the
    box's own network where you can. Run daily it finds what has become worse: that alarms, and takes no viewers away.
    """
    with reported("turn-up", interrupted=INTERRUPTED):
        if put_content != (to is not None):
            raise UsageError("--put-content and --to go together: what to do, and where")
        watching = Silence() if json else watcher()
        if to is not None:
            watching.say(f"the test content lies at {content.put(to, endpoint_url)}")
            if not names and not site and not everybody:
                return
        if sum(map(bool, (names, site, everybody))) != 1:
            raise UsageError("say which: ids of appliances, --site, or --all")
        floors = _floors(speeds or ())
        wanted = frozenset(only or Check)
        plan = Plan(wanted, content.content() if Check.READ_BACK in wanted else b"", write * _MIB, patience)
        by = f"{login(who)} on {socket.gethostname()}"[:_MOST_WHO]
        records = not dry_run and wanted == frozenset(Check)

        async def act(at: Desk) -> Results:
            return await _checked(at, (names or (), site), plan, floors, by, watching, records=records)

        results = run(steering, act)
        _show(results, as_json=json, records=records)
        if report is not None:
            _write(report, markdown(results.reports, _words(results.troubles)))
    if results.exit_code:
        raise typer.Exit(results.exit_code)


def add_commands(app: typer.Typer) -> None:
    app.command(name="turn-up", epilog=CODES)(turn_up_command)


async def _checked(
    at: Desk,
    which: tuple[Sequence[str], str | None],
    plan: Plan,
    floors: Mapping[str, Floor],
    by: str,
    watching: Watcher,
    *,
    records: bool,
) -> Results:
    """Look at all of them, several at once, and record what was found. Raises FleetError for steering."""
    fleet, inventory = await at.fleet(), await at.inventory()
    names, site = which
    members = chosen(fleet, names, site) if names or site else fleet.appliances
    if not members:
        raise UsageError("the inventory has no appliances")
    results, turn, done = Results(), asyncio.Semaphore(_AT_ONCE), 0

    async def one(member: Member) -> None:
        nonlocal done
        async with turn:
            try:
                results.reports.append(await _reported(at, member, fleet, inventory, plan, floors, by))
            except AdminError as error:
                results.troubles[member.id] = error
            done += 1
            step.reach(done)

    with watching.step("turn-up", len(members)) as step:
        for start in range(0, len(members), _TOGETHER):
            together = members[start : start + _TOGETHER]
            await asyncio.gather(*map(one, together))
            if records:
                try:
                    await _record(at, results, by)
                except AdminError as error:
                    results.unrecorded = error
        step.note(f"{sum(report.passed for report in results.reports)} of {len(members)} passed")
    results.reports.sort(key=lambda report: report.appliance)
    return results


async def _reported(
    at: Desk, member: Member, fleet: Fleet, inventory: Inventory, plan: Plan, floors: Mapping[str, Floor], by: str
) -> Report:
    address = next((box.metrics for box in inventory.appliance if box.id == member.id), None)
    if address is None:
        raise UsageError(f"the inventory has no address (`metrics`) of {member.id}")
    seen = await look(at, address, member, fleet, inventory, plan)
    return Report(
        appliance=member.id,
        site=member.site,
        at=seen.at,
        version=seen.probe.version if seen.probe is not None else "",
        by=by,
        findings=findings(seen, plan.wanted, floors),
        is_whole=plan.wanted == frozenset(Check),
    )


async def _record(at: Desk, results: Results, by: str) -> None:
    """Those that are not recorded yet, as one change."""
    new = [report for report in results.reports if report.appliance not in results.recorded]
    if not new:
        return
    changes = [
        {
            "type": "record-proof",
            "appliance": report.appliance,
            "at": report.at,
            "failed": report.failed,
            "version": report.version,
            "by": by,
        }
        for report in new
    ]
    await at.change(changes, by, "turn-up checks")
    results.recorded += [report.appliance for report in new]


def _show(results: Results, *, as_json: bool, records: bool) -> None:
    if as_json:
        print_json(told(results.reports, _words(results.troubles), results.recorded))
    else:
        console = Console()
        for report in results.reports:
            console.print(table((report.appliance, "outcome", "what was seen"), rows(report)))
            console.print(escape(report.verdict))
        if results.reports and not records:
            console.print("nothing is recorded at steering")
    for name, error in sorted(results.troubles.items()):
        sys.stderr.write(f"oca-admin turn-up: {name}: {' '.join(str(error).split())}\n")
    if results.unrecorded is not None:
        sys.stderr.write(f"oca-admin turn-up: not recorded: {' '.join(str(results.unrecorded).split())}\n")


def _words(troubles: Mapping[str, AdminError]) -> dict[str, str]:
    return {name: str(error) for name, error in troubles.items()}


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MachineError(f"--report {file}: can't be written: {error.strerror or error}") from error


def _floors(texts: Iterable[str]) -> dict[str, Floor]:
    floors = dict(FLOORS)
    for text in texts:
        found = _SPEEDS.fullmatch(text)
        if found is None:
            raise UsageError(
                f"--speeds {text!r} can't be used; allowed: such as hdd=80/120, in MB/s to write and to read"
            )
        floors[found[1]] = Floor(int(found[2]) * 1e6, int(found[3]) * 1e6)
    return floors
