"""What single appliances say of themselves: devices, fill orders, logs."""

import asyncio
import sys
import time
from typing import Annotated, Any, Final

import typer
from rich.console import RenderableType

from admin.errors import UsageError
from admin.fleet.asking import Desk, FleetError
from admin.fleet.known import Inventory
from admin.fleet.showing import CODES, INTERRUPTED, AsJson, Site, Steering, Watch, print_json, run, show, table
from admin.reporting import reported

_DEADLINE: Final = 5.0
_PAUSE: Final = 1.0
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

One = Annotated[str, typer.Argument(metavar="ID", help="The appliance.")]


def add_commands(app: typer.Typer) -> None:
    for name, command in (("devices", devices_command), ("orders", orders_command), ("logs", logs_command)):
        app.command(name=name, epilog=CODES)(command)


def devices_command(*, name: One, steering: Steering = None, json: AsJson = False) -> None:
    """List the devices of an appliance: how each stands, why, and how full it is."""

    async def look(at: Desk) -> tuple[RenderableType, Any]:
        told = await at.of_appliance(addresses(await at.inventory(), None, name)[name], "/v1/devices")
        rows = [
            (
                str(one["path"]),
                str(one["tier"]),
                str(one["standing"]),
                str(one.get("reason") or ""),
                f"{one.get('used_bytes', 0) / 1e9:.1f} GB",
                f"{one['capacity_bytes'] / 1e9:.1f} GB",
            )
            for one in told["devices"]
        ]
        return table(("device", "tier", "standing", "why", "used", "of"), rows, right=(4, 5)), told["devices"]

    show("devices", steering, look, as_json=json)


def orders_command(*, site: Site = None, steering: Steering = None, json: AsJson = False, watch: Watch = False) -> None:
    """Say how far each appliance's fill agent is with its order.

    Exit code 1 if one is behind, lacks renditions, or does not answer.
    """
    ill = False

    async def look(at: Desk) -> tuple[RenderableType, Any]:
        nonlocal ill
        boxes = [box for box in (await at.inventory()).appliance if site in (None, box.site)]
        asked = {box.id: box.agent_metrics for box in boxes if box.agent_metrics is not None}
        if not asked:
            raise UsageError(f"the inventory has no agents (`agent_metrics`){f' at {site!r}' if site else ''}")
        answers = await at.ask_all(asked, "/v1/status", _DEADLINE)
        told = [_order(box.id, box.site, answers[box.id]) for box in sorted(boxes, key=_id) if box.id in asked]
        ill = any(one["error"] or one["is_behind"] or one["failed"] for one in told)
        columns = ("appliance", "site", "night", "is", "has", "of", "failed", "why")
        return table(columns, [_shown(one) for one in told], right=(4, 5, 6)), told

    show("orders", steering, look, as_json=json, again=watch)
    if ill:
        raise typer.Exit(1)


def logs_command(
    *,
    name: One,
    lines: Annotated[int, typer.Option(min=1, max=2000, help="So many of the last ones.")] = 100,
    level: Annotated[str, typer.Option(metavar="LEVEL", help=f"And above: {', '.join(LEVELS)}.")] = "INFO",
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what is logged anew, until Ctrl-C.")] = False,
    steering: Steering = None,
    json: AsJson = False,
) -> None:
    """Show what an appliance logged last: supervisor, keeper and workers (512 KiB; the journal has all)."""

    async def look(at: Desk) -> None:
        if level.upper() not in LEVELS:
            raise UsageError(f"--level: read {level!r}; allowed: {', '.join(LEVELS)}")
        address = addresses(await at.inventory(), None, name)[name]
        place, wanted = 0, lines
        while True:
            query = f"?lines={wanted}&level={level.upper()}&since={place}"
            told = await at.of_appliance(address, f"/v1/logs{query}", _DEADLINE)
            if json and not follow:
                print_json(told["lines"])
                return
            for one in told["lines"]:
                if json:
                    print_json(one, in_one_line=True)
                else:
                    sys.stdout.write(_line(one))
            sys.stdout.flush()
            if not follow:
                return
            place, wanted = told["next"], 2000
            await asyncio.sleep(_PAUSE)

    with reported("logs", interrupted=INTERRUPTED):
        run(steering, look)


def addresses(inventory: Inventory, site: str | None, name: str | None = None) -> dict[str, str]:
    """Where appliances' control listeners are. Raises UsageError if there is nobody to tell."""
    boxes = [box for box in inventory.appliance if site in (None, box.site) and name in (None, box.id)]
    if not boxes:
        raise UsageError(f"there is no appliance{f' {name!r}' if name else ''}{f' at {site!r}' if site else ''}")
    found = {box.id: box.metrics for box in boxes if box.metrics is not None}
    silent = [box.id for box in boxes if box.id not in found]
    if silent:
        raise UsageError(f"the inventory has no address (`metrics`) of {', '.join(silent[:5])}; nobody was told")
    return found


def _id(box: Any) -> str:  # noqa: ANN401
    return str(box.id)


def _order(name: str, site: str, said: Any) -> dict[str, Any]:  # noqa: ANN401 as an agent says it, or a FleetError
    silent = isinstance(said, FleetError)
    fields = {
        "phase": "",
        "reason": "",
        "night": "",
        "version": 0,
        "order_bytes": 0,
        "done_bytes": 0,
        "order_renditions": 0,
        "done_renditions": 0,
        "failed": {},
        "is_behind": False,
        "finished_at": None,
    }
    told = {} if silent else {field: said.get(field, usual) for field, usual in fields.items()}
    return {"id": name, "site": site, "error": str(said) if silent else None, **fields, **told}


def _shown(one: dict[str, Any]) -> tuple[str, ...]:
    if one["error"]:
        return one["id"], one["site"], "", "silent", "", "", "", one["error"]
    return (
        one["id"],
        one["site"],
        one["night"],
        f"{one['phase']}, behind" if one["is_behind"] else one["phase"],
        f"{one['done_bytes'] / 1e9:.1f} GB",
        f"{one['order_bytes'] / 1e9:.1f} GB",
        str(sum(one["failed"].values())),
        one["reason"],
    )


def _line(one: dict[str, Any]) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one["at"]))
    # Whoever's bytes stand in a log must not reach a terminal as commands.
    text = "".join(char if char.isprintable() or char == "\n" else "?" for char in one["text"])
    return f"{at}Z {one['process']}[{one['pid']}] {one['level']} {text}\n"
