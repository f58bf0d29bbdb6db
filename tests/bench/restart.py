"""From exec of `oca serve` to the first served hit, with many records; and where the time goes."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.bench.appliance import REPOSITORY, serve_command, write_settings
from tests.bench.client import Client
from tests.bench.machine import BenchError, Cores
from tests.bench.million import REAL_PATH
from tests.bench.processes import Process, ending, free_port, wait_until
from tests.bench.report import median, reached, spread, table

TARGET = 1.0
_LIMIT = 60.0
_IMPORTS = ("oca.__main__", "oca.keeper.__main__", "oca.edge.__main__")
_MARKS = {"keeper is up": r"keeper \d+ is up", "all workers ready": r"appliance \S+ serves"}
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ")


@dataclass(frozen=True)
class Plan:
    runs: int
    tree: Path = REPOSITORY


def measure(many: Path, content: bytes, cores: Cores, plan: Plan) -> dict:
    """`many` is the folder of an appliance with many records. The page cache is warm, as after a restart."""
    runs = [_run(many, content, cores, plan.tree) for _ in range(plan.runs)]
    parts = {name: [run[name] for run in runs] for name in runs[0]}
    alone = {"python alone": _timed(plan, "pass")}
    alone |= {f"import {module}": _timed(plan, f"import {module}") for module in _IMPORTS}
    return {"runs": parts, "alone": alone}


def told(results: dict) -> str:
    rows = [
        ("since exec", name, f"{median(times) * 1e3:.0f}", spread([t * 1e3 for t in times], 0), "")
        for name, times in results["runs"].items()
    ]
    first_hit = median(results["runs"]["first hit"])
    rows[-1] = (*rows[-1][:4], f"<= {TARGET:.1f} s {reached(first_hit, TARGET)}")
    rows += [
        ("by itself", name, f"{median(times) * 1e3:.0f}", spread([t * 1e3 for t in times], 0), "")
        for name, times in results["alone"].items()
    ]
    return table(("", "what", "median ms", "spread", "target"), rows)


def _run(many: Path, content: bytes, cores: Cores, tree: Path) -> dict[str, float]:
    port, control = free_port(), free_port()
    # Nothing is fetched: port 9 of the origin would refuse.
    settings = write_settings(many, port=port, control=control, origin=9)
    log = many / "output.log"
    began_at = time.time()
    began = time.perf_counter()
    with ending(Process("appliance", serve_command(settings), on=cores.all, log=log, cwd=tree)) as process:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=_LIMIT).close()
                break
            except ConnectionRefusedError:
                if not process.is_running or time.perf_counter() - began > _LIMIT:
                    raise BenchError(f"the appliance does not listen\n{process.told()}") from None
                time.sleep(0.002)
        listens = time.perf_counter() - began
        with Client(port) as client:
            answer = client.get(REAL_PATH)
        hit = time.perf_counter() - began
        if answer.body != content or not answer.field("Cache-Status").endswith("; hit"):
            raise BenchError(f"the first answer is no hit, or has wrong bytes:\n{answer.head.decode()}")
        # Serving does not wait for the keeper, which says a little later that it is up.
        wait_until("it says that all is up", lambda: None not in _marks(log, began_at).values(), process)
        marks = _marks(log, began_at)
    return {"listens": listens} | marks | {"first hit": hit}


def _marks(log: Path, began_at: float) -> dict[str, float | None]:
    return {name: _moment(log, pattern, began_at) for name, pattern in _MARKS.items()}


def _moment(log: Path, pattern: str, began_at: float) -> float | None:
    """When a line was logged, in seconds since `began_at`. None if it was not."""
    for line in log.read_text().splitlines():
        stamp = _STAMP.match(line)
        if stamp and re.search(pattern, line):
            return datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S,%f").timestamp() - began_at  # noqa: DTZ007
    return None


def _timed(plan: Plan, code: str) -> list[float]:
    times = []
    for _ in range(plan.runs):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=plan.tree, env={"PYTHONPATH": str(plan.tree)})
        times.append(time.perf_counter() - began)
    return times
