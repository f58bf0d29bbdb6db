"""The commands for a fleet: argv in, tables or JSON out."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape

from admin.fleet import boxes, maintenance
from admin.fleet.asking import Desk, FleetError
from admin.fleet.boxes import addresses
from admin.fleet.known import Fleet, Member, chosen, sites_of
from admin.fleet.showing import (
    CODES,
    INTERRUPTED,
    AsJson,
    Force,
    Names,
    Site,
    Steering,
    Watch,
    Who,
    Why,
    ago,
    bits,
    login,
    print_json,
    run,
    show,
    table,
)
from admin.progress import Silence, watcher
from admin.reporting import reported


def add_commands(app: typer.Typer) -> None:
    app.add_typer(maintenance.app, name="maintenance")
    for name, command in (
        ("status", status_command),
        ("sites", sites_command),
        ("appliances", appliances_command),
        ("explain", explain_command),
        ("drain", drain_command),
        ("resume", resume_command),
        ("changes", changes_command),
        ("purge", purge_command),
        ("prefetch", prefetch_command),
    ):
        app.command(name=name, epilog=CODES)(command)
    boxes.add_commands(app)


def status_command(*, steering: Steering = None, json: AsJson = False, watch: Watch = False) -> None:
    """Say in a few lines how the fleet is, and name all that is not well. Exit code 1 if anything is not."""
    ill = False

    async def look(at: Desk) -> tuple[RenderableType, Any]:
        nonlocal ill
        fleet, inventory = await at.fleet(), await at.inventory()
        rows = sites_of(inventory, fleet)
        troubles = [(row.id, trouble) for row in rows for trouble in row.troubles]
        ill = bool(troubles) or fleet.panic_since is not None
        capacity, load = sum(row.capacity_bps for row in rows), sum(row.load_bps for row in rows)
        standing: dict[str, int] = {}
        for member in fleet.appliances:
            standing[member.standing] = standing.get(member.standing, 0) + 1
        told = {
            "sites": len(rows),
            "appliances": len(fleet.appliances),
            "standing": standing,
            "load_bps": load,
            "capacity_bps": capacity,
            "panic_since": fleet.panic_since,
            "troubles": [{"site": site, "what": what} for site, what in troubles],
        }
        lines = [
            f"{len(fleet.appliances)} appliances at {len(rows)} sites: "
            + (", ".join(f"{count} {name}" for name, count in sorted(standing.items())) or "none"),
            f"{bits(load)} to viewers of {bits(capacity)}" + (f" ({load / capacity:.0%})" if capacity else ""),
        ]
        if fleet.panic_since is not None:
            lines.append(
                f"much fell silent at once {ago(time.time() - fleet.panic_since)}: steering does not believe it"
            )
        shown: list[RenderableType] = ["\n".join(map(escape, lines))]
        if troubles:
            shown.append(table(("site", "not well"), troubles))
        return Group(*shown), told

    show("status", steering, look, as_json=json, again=watch)
    if ill:
        raise typer.Exit(1)


def sites_command(*, steering: Steering = None, json: AsJson = False, watch: Watch = False) -> None:
    """List sites: how many of their appliances serve, and how full they are."""

    async def look(at: Desk) -> tuple[RenderableType, Any]:
        rows = sites_of(await at.inventory(), await at.fleet())
        shown = table(
            ("site", "operator", "country", "serving", "load", "capacity", "full", "not well"),
            [
                (
                    row.id,
                    row.operator,
                    row.country or "-",
                    f"{row.serving} of {row.appliances}",
                    bits(row.load_bps),
                    bits(row.capacity_bps),
                    "-" if row.utilisation is None else f"{row.utilisation:.0%}",
                    "; ".join(row.troubles),
                )
                for row in rows
            ],
            right=(3, 4, 5, 6),
        )
        return shown, [msgspec.to_builtins(row) | {"utilisation": row.utilisation} for row in rows]

    show("sites", steering, look, as_json=json, again=watch)


def appliances_command(
    *,
    steering: Steering = None,
    site: Site = None,
    standing: Annotated[str | None, typer.Option(help="Only those that stand so: serving, suspect, lost, ...")] = None,
    json: AsJson = False,
    watch: Watch = False,
) -> None:
    """List appliances: how each stands, when it was heard, how full it is and what it has of what is asked for."""
    query = {name: value for name, value in (("site", site), ("standing", standing)) if value is not None}

    async def look(at: Desk) -> tuple[RenderableType, Any]:
        fleet = await at.read("/v1/fleet", Fleet, query)
        members = sorted(fleet.appliances, key=lambda member: (member.site, member.id))
        shown = table(
            ("appliance", "site", "standing", "wish", "heard", "load", "full", "hits", "clock"),
            [
                (
                    member.id,
                    member.site,
                    member.standing,
                    member.wish,
                    "never" if member.heard is None else f"{member.heard:.1f} s",
                    bits(member.load_bps),
                    f"{member.utilisation:.0%}",
                    "-" if member.hit_ratio is None else f"{member.hit_ratio:.0%}",
                    f"{member.clock_offset:+.1f} s" if member.is_clock_off else "",
                )
                for member in members
            ],
            right=(4, 5, 6, 7),
        )
        return shown, [msgspec.to_builtins(member) for member in members]

    show("appliances", steering, look, as_json=json, again=watch)


def explain_command(
    *,
    client: Annotated[str, typer.Argument(metavar="ADDRESS", help="Of a viewer.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="Such as /titles/big-film/master.m3u8.")],
    steering: Steering = None,
    current: Annotated[str | None, typer.Option(metavar="ID", help="The appliance it plays from.")] = None,
    json: AsJson = False,
) -> None:
    """Show the decision that this viewer would get now: each candidate, each term of its cost, and who was left out."""
    query = {"client": client, "path": path} | ({} if current is None else {"current": current})

    async def look(at: Desk) -> tuple[RenderableType, Any]:
        told: dict[str, Any] = await at.read("/v1/explain", dict[str, Any], query)
        ranked = [
            (
                row["appliance"],
                row["site"],
                row["proximity"],
                *(f"{row[name]:.3f}" for name in ("cost", "rtt", "fetch", "load")),
                f"{row['utilisation']:.0%}",
            )
            for row in told["ranked"]
        ]
        rejected = [(row["appliance"], row["site"], row["proximity"], row["why"]) for row in told["rejected"]]
        answered = ", ".join(place["id"] for place in told["answer"]) or "nobody"
        shown: list[RenderableType] = [
            escape(f"{told['reason']} ({told['fallback']}): {answered}"),
            table(("ranked", "site", "by", "cost ms", "rtt", "fetch", "load", "full"), ranked, right=(3, 4, 5, 6, 7)),
        ]
        if rejected:
            shown.append(table(("left out", "site", "by", "why"), rejected))
        return Group(*shown), told

    show("explain", steering, look, as_json=json)


def drain_command(
    *,
    names: Names = None,
    why: Why,
    site: Site = None,
    steering: Steering = None,
    who: Who = None,
    force: Force = False,
) -> None:
    """Send no new viewers to these appliances, and have those that are there leave.

    Refused where what is left of a site could not carry its load (above 95 %), unless it is forced.
    """

    async def act(at: Desk) -> str:
        members = chosen(await at.fleet(), names or (), site)
        await at.wish([member.id for member in members], "drain", login(who), why, force=force)
        return _listed(members)

    with reported("drain", interrupted=INTERRUPTED):
        watcher().say(f"draining: {run(steering, act)}")


def resume_command(
    *, names: Names = None, why: Why, site: Site = None, steering: Steering = None, who: Who = None
) -> None:
    """Let these appliances serve again."""

    async def act(at: Desk) -> str:
        members = chosen(await at.fleet(), names or (), site)
        await at.wish([member.id for member in members], "serve", login(who), why)
        return _listed(members)

    with reported("resume", interrupted=INTERRUPTED):
        watcher().say(f"serving again, as soon as they are well: {run(steering, act)}")


def changes_command(
    *,
    steering: Steering = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many of the last ones.")] = 20,
    json: AsJson = False,
) -> None:
    """Show who changed what of the inventory, when and why: the latest first."""

    async def look(at: Desk) -> tuple[RenderableType, Any]:
        told = (await at.read("/v1/changes", dict[str, Any], {"limit": str(limit)}))["changes"]
        rows = [
            (
                time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one["at"])),
                one["who"],
                f"{one['kind']} {one['id']}",
                _changed(one["change"]),
                one["why"],
            )
            for one in told
        ]
        return table(("UTC", "who", "of", "change", "why"), rows), told

    show("changes", steering, look, as_json=json)


def purge_command(
    *,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Of one object; with --prefix, of all that begin so.")],
    prefix: Annotated[bool, typer.Option("--prefix", help="All objects whose path begins so.")] = False,
    site: Site = None,
    steering: Steering = None,
    json: AsJson = False,
) -> None:
    """Have all appliances (or those of a site) forget an object, or all below a path.

    Each has forgotten it, in all of its workers, before it answers. Those that could not be reached are named: purge
    again when they are back. Appliances are reached at the `metrics` address that the inventory has of them.
    """
    order = {"prefix" if prefix else "path": path}
    _tell_fleet("purge", "/v1/purge", order, site, steering, lambda said: f"{said['purged']} objects", as_json=json)


def prefetch_command(
    *,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Of one object.")],
    site: Site = None,
    steering: Steering = None,
    json: AsJson = False,
) -> None:
    """Have all appliances (or those of a site) bring an object now. (Whole titles: oca-fill urgent.)"""
    _tell_fleet("prefetch", "/v1/prefetch", {"path": path}, site, steering, lambda _: "on its way", as_json=json)


# --- How they are told ---


def _tell_fleet(
    command: str,
    where: str,
    order: Mapping[str, str],
    site: str | None,
    steering: str | None,
    in_words: Callable[[Any], str],
    *,
    as_json: bool,
) -> None:
    watching = Silence() if as_json else watcher()

    async def act(at: Desk) -> dict[str, Any]:
        asked = addresses(await at.inventory(), site)
        with watching.step(command, len(asked)) as step:
            answers = await at.tell_all(asked, where, order, step.reach)
            failed = sum(isinstance(said, FleetError) for said in answers.values())
            step.note(f"{len(answers) - failed} of {len(answers)} appliances")
        return answers

    with reported(command, interrupted=INTERRUPTED):
        answers = run(steering, act)
    failed = {name: str(said) for name, said in answers.items() if isinstance(said, FleetError)}
    done = {name: said for name, said in answers.items() if name not in failed}
    if as_json:
        print_json({"done": done, "failed": failed})
    else:
        Console().print(table(("appliance", command), [(name, in_words(said)) for name, said in sorted(done.items())]))
    for name, words in sorted(failed.items()):
        sys.stderr.write(f"oca-admin {command}: {name}: {words}\n")
    if failed:
        raise typer.Exit(1)


def _changed(change: dict[str, Any]) -> str:
    """A change as the registry keeps it, in a line."""
    rest = {name: value for name, value in change.items() if name not in ("type", "appliance") or name == "wish"}
    words = ", ".join(f"{name} {value}" for name, value in rest.items() if not isinstance(value, dict))
    return f"{change.get('type', '?')} {words}".strip()[:200]


def _listed(members: Sequence[Member]) -> str:
    return ", ".join(member.id for member in members)
