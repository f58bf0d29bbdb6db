"""What it costs to hear what players say of themselves (CMCD): a warm response with and without it, in one run."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import quote

from tests.bench import nginx
from tests.bench.access import LOADED, Plan, cpu_of, ratio
from tests.bench.appliance import appliance
from tests.bench.films import Films
from tests.bench.load import REALISTIC, Load
from tests.bench.machine import Cores
from tests.bench.report import median, spread, table

_FILMS = 64
_PLAIN = "nothing said"


def measure(folder: Path, cores: Cores, plan: Plan) -> dict[str, list[float]]:
    """CPU-microseconds of all processes for a response, by what is said. Raises `BenchError`."""
    root = folder / "source"
    films = Films(root, LOADED.size, _FILMS)
    usual = films.asked_as([f"{path}?CMCD={_said(number)}" for number, path in enumerate(films.paths)])
    paced = films.asked_as([f"{path}?CMCD={_said(number)}%2Crtp%3D900000" for number, path in enumerate(films.paths)])
    load = Load(folder / "load", on=cores.load, connections=plan.connections, headers=REALISTIC)
    lines = ("CMCD-Object: br=3200,d=4004,ot=v,tb=6000", "CMCD-Request: bl=5300,mtp=48100", 'CMCD-Session: sid="one"')
    in_lines = Load(folder / "load-lines", on=cores.load, connections=plan.connections, headers=(*REALISTIC, *lines))
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(nginx.static("origin", folder / "origin", root, workers=1, on=cores.load)).port
        running = stack.enter_context(appliance("appliance", folder / "oca", origin, on=cores.server))
        running.fill(films)
        ways = {
            _PLAIN: (running, load, films),
            "in the query": (running, load, usual),
            "in the query, paced at 900 Mbit/s": (running, load, paced),
            "in headers": (running, in_lines, films),
        }
        return cpu_of(ways, LOADED, plan)


def told(results: dict[str, list[float]]) -> str:
    plain = results[_PLAIN]
    return table(
        (f"a warm response of {LOADED.name}", "", "CPU-us", "spread", "/ nothing said"),
        [
            (name, "", f"{median(rounds):.1f}", spread(rounds, 1), f"{ratio(rounds, plain):.2f}")
            for name, rounds in results.items()
        ],
    )


def _said(viewer: int) -> str:
    """As hls.js writes it. The buffer is too small for an answer to be paced by `mtp`."""
    first = f'bl={5_000 + viewer * 10},br=3200,cid="film-{viewer}",d=4004,mtp=48100,'
    return quote(f'{first}ot=v,sf=v,sid="{viewer:036}",st=v,tb=6000', safe="")
