"""The first byte of a cold object: through the appliance against directly from the origin, in turns."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench import nginx
from tests.bench.appliance import REPOSITORY, appliance
from tests.bench.client import Answer, Client
from tests.bench.films import MIB, Films
from tests.bench.machine import BenchError, Cores
from tests.bench.processes import Process, accepts, ending, free_port, wait_until
from tests.bench.report import median, reached, table

_FACTOR = 1.2
_ALLOWANCE = 0.005


@dataclass(frozen=True)
class Plan:
    objects: int
    delays: tuple[float, ...]
    """Seconds that the origin's bytes need, there and back."""
    tree: Path = REPOSITORY


def measure(folder: Path, cores: Cores, plan: Plan) -> dict:
    root = folder / "source"
    films = Films(root, MIB, plan.objects)
    with nginx.static("origin", folder / "origin", root, workers=1, on=cores.all) as origin:
        results = {}
        for delay in plan.delays:
            with contextlib.ExitStack() as stack:
                port = origin.port
                if delay:
                    port = stack.enter_context(_delayed(folder, port, delay, cores))
                ours = appliance("appliance", folder / f"oca-{delay * 1e3:.0f}", port, on=cores.all, tree=plan.tree)
                results[f"{delay * 1e3:.0f} ms"] = _compared(films, port, stack.enter_context(ours).port)
    return results


def told(results: dict) -> str:
    head = ("origin at", "asked", "first byte ms", "p90", "whole ms", "p90", "limit", "target")
    rows = []
    for name, row in results.items():
        direct = row["direct"]
        limit = direct["first_byte_ms"] * _FACTOR + _ALLOWANCE * 1e3
        for way in ("direct", "appliance"):
            numbers = row[way]
            is_ours = way == "appliance"
            rows.append(
                (
                    name,
                    way,
                    f"{numbers['first_byte_ms']:.2f}",
                    f"{numbers['first_byte_p90_ms']:.2f}",
                    f"{numbers['whole_ms']:.2f}",
                    f"{numbers['whole_p90_ms']:.2f}",
                    f"{limit:.2f}" if is_ours else "",
                    reached(numbers["first_byte_ms"], limit) if is_ours else "",
                )
            )
    return table(head, rows)


def _compared(films: Films, origin: int, ours: int) -> dict:
    direct: list[Answer] = []
    through: list[Answer] = []
    with Client(origin) as to_origin, Client(ours) as to_appliance:
        # Not counted: the first request opens connections on the way.
        to_origin.get(films.paths[0])
        to_appliance.get(films.paths[0])
        for number, path in enumerate(films.paths[1:]):
            # In turns also who is first: the second finds the origin's caches warmer.
            pair = [(to_origin, direct), (to_appliance, through)]
            for client, answers in pair if number % 2 else reversed(pair):
                answer = client.get(path)
                if answer.status != 200 or answer.body != films.content(path):
                    raise BenchError(f"{path}: wrong bytes of a cold object:\n{answer.head.decode()}")
                answers.append(answer)
            if "fwd=miss" not in through[-1].field("Cache-Status"):
                raise BenchError(f"{path} was not cold: {through[-1].field('Cache-Status')}")
    return {"direct": _numbers(direct), "appliance": _numbers(through)}


def _numbers(answers: list[Answer]) -> dict:
    first = sorted(answer.first_byte * 1e3 for answer in answers)
    whole = sorted(answer.whole * 1e3 for answer in answers)
    at = len(answers) * 9 // 10
    return {
        "objects": len(answers),
        "first_byte_ms": median(first),
        "first_byte_p90_ms": first[at],
        "whole_ms": median(whole),
        "whole_p90_ms": whole[at],
    }


@contextlib.contextmanager
def _delayed(folder: Path, port: int, delay: float, cores: Cores):
    """A port behind which the origin stands `delay` further away."""
    listen = free_port()
    argv = [sys.executable, "-m", "tests.bench.delay", str(listen), str(port), str(delay / 2)]
    log = folder / f"delay-{delay}.log"
    with ending(Process("delaying proxy", argv, on=cores.all, log=log, cwd=REPOSITORY)) as process:
        wait_until("it accepts connections", lambda: accepts(listen), process)
        yield listen
