"""Memory of each process: idle, after load, and for a million index records outside the page cache."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench import nginx
from tests.bench.appliance import REPOSITORY, Appliance, appliance
from tests.bench.films import KIB, MIB, Films, Shape
from tests.bench.load import REALISTIC, Load
from tests.bench.machine import Cores, Memory, memory
from tests.bench.report import reached, table

TARGET = 150.0
_SETTLE = 1.0
"""Seconds for a start's last work to end."""
_FILES = 64
_CONNECTIONS = 256
_SECONDS = 2


@dataclass(frozen=True)
class Plan:
    records: int
    workers: int = 1
    tree: Path = REPOSITORY


def measure(folder: Path, cores: Cores, plan: Plan, many: Path) -> dict:
    """`many` is a folder with the state of `plan.records` records (see `million`)."""
    root = folder / "source"
    films = [Films(root, size, _FILES) for size in (16 * KIB, MIB)]
    alike = {"on": cores.all, "workers": plan.workers, "tree": plan.tree}
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(nginx.static("origin", folder / "origin", root, workers=1, on=cores.all)).port
        with appliance("appliance", folder / "oca-empty", origin, **alike) as empty:
            time.sleep(_SETTLE)
            idle = _parts(empty)
            load = Load(folder / "load", on=cores.load, connections=_CONNECTIONS, headers=REALISTIC)
            for some in films:
                empty.fill(some)
                shape = Shape("", some.file(some.paths[0]).stat().st_size)
                load.run(empty.port, some, shape, _SECONDS, seed=1)
            loaded = _parts(empty)
        with appliance("appliance", many, origin, **alike) as full:
            time.sleep(_SETTLE)
            status = full.status()
            with_records = _parts(full)
    records = status["objects"] + status["extents"]
    more = {name: with_records[name].anonymous - idle[name].anonymous for name in idle}
    return {
        "idle": _plain(idle),
        "after_load": _plain(loaded),
        "with_records": _plain(with_records),
        "objects": status["objects"],
        "extents": status["extents"],
        "bytes_per_record": sum(more.values()) / records,
        "bytes_per_object_with_extent": sum(more.values()) / status["extents"],
        "keeper_bytes_per_record": more["keeper"] / records,
    }


def told(results: dict) -> str:
    def mib(count: int) -> str:
        return f"{count / MIB:.1f}"

    rows = []
    for state in ("idle", "after_load", "with_records"):
        for name, numbers in results[state].items():
            rows.append(
                (state.replace("_", " "), name, mib(numbers["rss"]), mib(numbers["pss"]), mib(numbers["anonymous"]))
            )
    per_record = results["bytes_per_record"]
    sentence = (
        f"{results['objects']:,} objects + {results['extents']:,} extents: {per_record:.0f} bytes of RAM per record "
        f"outside the page cache, all processes together (keeper alone {results['keeper_bytes_per_record']:.0f}; "
        f"per object with its one extent {results['bytes_per_object_with_extent']:.0f}); "
        f"target <= {TARGET:.0f}: {reached(per_record, TARGET)}"
    )
    return table(("when", "process", "RSS MiB", "PSS MiB", "anonymous MiB"), rows) + "\n" + sentence


def _parts(running: Appliance) -> dict[str, Memory]:
    parts = {"supervisor": memory(running.process.pid), "keeper": memory(running.keeper)}
    for number, pid in enumerate(running.workers):
        parts[f"worker {number}"] = memory(pid)
    return parts


def _plain(parts: dict[str, Memory]) -> dict:
    return {name: {"rss": m.rss, "pss": m.pss, "anonymous": m.anonymous} for name, m in parts.items()}
