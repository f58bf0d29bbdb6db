"""oca-admin maintenance: when appliances are away, planned before, and back by themselves."""

import time
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from admin.errors import UsageError
from admin.fleet.asking import Desk
from admin.fleet.known import Fleet, Window, chosen
from admin.fleet.moments import MOMENT_RULE, moment, span
from admin.fleet.showing import (
    CODES,
    INTERRUPTED,
    AsJson,
    Force,
    Names,
    Site,
    Steering,
    Who,
    Why,
    login,
    run,
    show,
    table,
)
from admin.progress import watcher
from admin.reporting import reported

app = typer.Typer(
    help="Plan when appliances are drained: they are back by themselves.", no_args_is_help=True, rich_markup_mode=None
)


@app.command(name="list", epilog=CODES)
def list_command(*, steering: Steering = None, json: AsJson = False) -> None:
    """List what is planned and what is under way."""

    async def look(at: Desk) -> tuple[RenderableType, Any]:
        rows = planned(await at.fleet(), time.time())
        shown = [(name, site, _local(window.start), _local(window.stop), how) for name, site, window, how in rows]
        told = [
            {"appliance": name, "site": site, "start": window.start, "stop": window.stop, "state": how}
            for name, site, window, how in rows
        ]
        return table(("appliance", "site", "from", "to", "state"), shown), told

    show("maintenance list", steering, look, as_json=json)


@app.command(name="plan", epilog=CODES)
def plan_command(
    *,
    names: Names = None,
    start: Annotated[str, typer.Option("--from", metavar="MOMENT", help=f"{MOMENT_RULE}.")],
    why: Why,
    stop: Annotated[str | None, typer.Option("--to", metavar="MOMENT", help="Likewise.")] = None,
    lasts: Annotated[
        str | None, typer.Option("--for", metavar="SPAN", help='Instead of --to: "90 min", "2 h".')
    ] = None,
    site: Site = None,
    steering: Steering = None,
    who: Who = None,
    force: Force = False,
) -> None:
    """Drain appliances from then until then.

    Refused where the rest of a site could not carry what it carried in these hours of last week (above 95 %). What is
    planned begins once the site can do without the appliance; --force does not wait for that.
    """

    async def act(at: Desk) -> str:
        now = datetime.now().astimezone()
        begins = moment(start, now)
        if (stop is None) == (lasts is None):
            raise UsageError("say when it ends: --to, or --for")
        ends = moment(stop, max(now, begins)) if stop is not None else begins + span(lasts or "")
        members = chosen(await at.fleet(), names or (), site)
        window = {"start": begins.timestamp(), "stop": ends.timestamp(), "forced": force}
        await at.change(
            [{"type": "plan-maintenance", "appliance": member.id, **window} for member in members],
            login(who),
            why,
            force=force,
        )
        which = ", ".join(member.id for member in members)
        return f"{which}: from {_local(window['start'])} to {_local(window['stop'])}"

    with reported("maintenance plan", interrupted=INTERRUPTED):
        watcher().say(f"planned: {run(steering, act)}")


@app.command(name="cancel", epilog=CODES)
def cancel_command(
    *, names: Names = None, why: Why, site: Site = None, steering: Steering = None, who: Who = None
) -> None:
    """Cancel what is planned of appliances. What is under way ends, and they serve again."""

    async def act(at: Desk) -> str:
        members = [member for member in chosen(await at.fleet(), names or (), site) if member.maintenance]
        if not members:
            raise UsageError("nothing is planned of these")
        await at.change([{"type": "cancel-maintenance", "appliance": member.id} for member in members], login(who), why)
        return ", ".join(member.id for member in members)

    with reported("maintenance cancel", interrupted=INTERRUPTED):
        watcher().say(f"cancelled: {run(steering, act)}")


def planned(fleet: Fleet, now: float) -> list[tuple[str, str, Window, str]]:
    """Appliance, site, window and how it stands, by start: what is not over."""
    rows = []
    for member in fleet.appliances:
        for window in member.maintenance:
            if window.stop <= now:
                continue
            how = "planned"
            if window.start <= now:
                how = member.standing if member.resting else f"waits: {member.put_off or 'begins'}"
            rows.append((member.id, member.site, window, how))
    return sorted(rows, key=lambda row: (row[2].start, row[0]))


def _local(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M %z")
