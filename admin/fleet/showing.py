"""How the commands for a fleet ask, show and say: options, tables, JSON."""

import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec
import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from admin.errors import UsageError
from admin.fleet.asking import Desk, desk
from admin.reporting import reported

CODES: Final = (
    "Exit codes: 0 done; 1 something is not well, or not all appliances did it; 2 an argument can't be used; 7 steering"
    " or the appliance did not answer, or refused."
)
INTERRUPTED: Final = "interrupted"
_PAUSE: Final = 2.0

ValueT = TypeVar("ValueT")

Steering = Annotated[
    str | None,
    typer.Option("--steering", envvar="OCA_STEERING", metavar="URL", help="Where operators ask: http://host:9146."),
]
Force = Annotated[bool, typer.Option("--force", help="Also if the rest of the site can't carry the load.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show it anew every two seconds, until Ctrl-C.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Appliances.")]
Site = Annotated[str | None, typer.Option("--site", metavar="ID", help="All appliances of this site.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="Kept with the change, for whoever asks later.")]
Who = Annotated[str | None, typer.Option("--who", metavar="NAME", help="Who you are. Default: your login.")]


def show(
    command: str,
    steering: str | None,
    look: Callable[[Desk], Awaitable[tuple[RenderableType, Any]]],
    *,
    as_json: bool,
    again: bool = False,
) -> None:
    async def once(at: Desk) -> tuple[RenderableType, Any]:
        return await look(at)

    async def on_and_on(at: Desk) -> None:
        with Live(auto_refresh=False, screen=sys.stdout.isatty()) as live:
            while True:
                live.update((await look(at))[0], refresh=True)
                await asyncio.sleep(_PAUSE)

    with reported(command, interrupted=INTERRUPTED):
        if again and as_json:
            raise UsageError("--watch is for people, --json for programs: choose one")
        if again:
            run(steering, on_and_on)
            return
        shown, told = run(steering, once)
        if as_json:
            print_json(told)
        else:
            Console().print(shown)


def run(steering: str | None, act: Callable[[Desk], Coroutine[Any, Any, ValueT]]) -> ValueT:
    async def asked() -> ValueT:
        async with desk(steering) as at:
            return await act(at)

    return asyncio.run(asked())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> Table:
    table = Table(*columns, box=None)
    for place in right:
        table.columns[place].justify = "right"
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def login(given: str | None) -> str:
    return given or getpass.getuser()


def bits(bps: float) -> str:
    for unit, size in (("Tb/s", 1e12), ("Gb/s", 1e9), ("Mb/s", 1e6)):
        if bps >= size:
            return f"{bps / size:.1f} {unit}"
    return f"{bps / 1e3:.0f} kb/s"


def ago(seconds: float) -> str:
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"


def print_json(told: Any, *, in_one_line: bool = False) -> None:  # noqa: ANN401
    encoded = msgspec.json.encode(told)
    sys.stdout.write((encoded if in_one_line else msgspec.json.format(encoded)).decode() + "\n")
