"""`python -m tests.bench`: what the appliance costs, beside nginx, on this machine."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import access, cmcd, cold, hits, machine, memory, restart, tls
from tests.bench.appliance import REPOSITORY
from tests.bench.films import MIB, SHAPES
from tests.bench.load import BARE, REALISTIC
from tests.bench.million import write_state

_PARTS = ("hits", "tls", "access", "cmcd", "cold", "memory", "restart")
_OURS = "appliance"

_EPILOG = """
parts (all if none is named):
  hits     CPU per response of warm objects, against nginx static and nginx proxy_cache; needs wrk
  tls      CPU per response and GiB over TLS, and per handshake, against nginx; needs wrk
  access   CPU of signed access: of the gate alone, and of a response with and without it; needs wrk
  cmcd     CPU of a response to a player that says how it is, and to one that does not; needs wrk
  cold     first byte of a cold object, through the appliance against directly from the origin
  memory   RSS, PSS and anonymous memory of each process; RAM per index record
  restart  from exec of `oca serve` to the first hit, with many records

Targets are printed as reached or missed and do not change the exit code: 0 measured, 1 a measurement could not be
made or bytes were wrong, 2 the command line is wrong or a program is missing.

Before/after of a change: copy the oca package and name it, both run in the same rounds:
  cp -r oca /tmp/try/oca; (edit); python -m tests.bench hits --tree try=/tmp/try
"""


def main() -> int:
    given = _arguments()
    missing = [name for name, package in (("nginx", "nginx-light"), ("wrk", "wrk")) if shutil.which(name) is None]
    if missing:
        print(
            f"bench: not found on PATH: {', '.join(missing)}. On Debian: apt install nginx-light wrk", file=sys.stderr
        )
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parts = given.parts or list(_PARTS)
    results: dict = {"machine": machine.described(), "arguments": vars(given) | {"trees": dict(given.trees)}}
    for name, value in results["machine"].items():
        print(f"{name:12} {value}")
    cores = machine.cores()
    print(f"{'cores':12} servers on {sorted(cores.server)}, load and origin on {sorted(cores.load)}")
    if cores.server == cores.load:
        print("only one core: servers and load share it, and the numbers are worth less")
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="oca-bench-", dir=given.dir) as folder:
            _measure(Path(folder), cores, given, parts, results)
    except machine.BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    results["seconds"] = time.monotonic() - began
    print(f"\n{results['seconds']:.0f} s in all; load now {machine.described()['load before']}")
    if given.json:
        given.json.write_text(json.dumps(results, indent=2, default=str) + "\n")
    return 0


def _measure(folder: Path, cores: machine.Cores, given: argparse.Namespace, parts: list[str], results: dict) -> None:
    trees = {_OURS: REPOSITORY} | dict(given.trees)
    tree = REPOSITORY
    if "hits" in parts:
        plan = hits.Plan(
            given.rounds,
            given.seconds,
            given.connections,
            given.workers,
            REALISTIC if given.headers == "realistic" else BARE,
            tuple(shape for shape in SHAPES if shape.name in given.shapes),
            trees,
        )
        _title(
            f"CPU per response, warm: {plan.connections} connections, {plan.workers} worker(s) each, "
            f"{plan.rounds} rounds of {plan.seconds} s in turns, medians; {given.headers} request headers"
        )
        results["hits"] = hits.measure(_new(folder, "hits"), cores, plan)
        print(hits.told(results["hits"], plan))
        shutil.rmtree(folder / "hits")
    if "tls" in parts:
        _title(f"CPU over TLS, warm: {given.connections} connections, {given.rounds} rounds in turns, medians")
        whole = tuple(shape for shape in SHAPES if shape.name in given.shapes and shape.lengths is None)
        plan = tls.Plan(given.rounds, given.seconds, given.connections, REALISTIC, whole)
        results["tls"] = tls.measure(_new(folder, "tls"), cores, plan)
        print(tls.told(results["tls"]))
        shutil.rmtree(folder / "tls")
    if "access" in parts:
        _title(f"CPU of signed access: {given.connections} connections, {given.rounds} rounds in turns, medians")
        plan = access.Plan(given.rounds, given.seconds, given.connections)
        results["access"] = access.measure(_new(folder, "access"), cores, plan)
        print(access.told(results["access"]))
        shutil.rmtree(folder / "access")
    if "cmcd" in parts:
        _title(f"CPU of hearing players: {given.connections} connections, {given.rounds} rounds in turns, medians")
        plan = access.Plan(given.rounds, given.seconds, given.connections)
        results["cmcd"] = cmcd.measure(_new(folder, "cmcd"), cores, plan)
        print(cmcd.told(results["cmcd"]))
        shutil.rmtree(folder / "cmcd")
    if "cold" in parts:
        _title(f"First byte of {given.objects} cold objects of 1 MiB; target <= 1.2 x direct + 5 ms")
        results["cold"] = cold.measure(
            _new(folder, "cold"), cores, cold.Plan(given.objects + 1, (0.0, given.delay), tree)
        )
        print(cold.told(results["cold"]))
        shutil.rmtree(folder / "cold")
    if {"memory", "restart"} & set(parts):
        many = _new(folder, "many")
        content = bytes(range(256)) * (MIB // 256)
        began = time.monotonic()
        write_state(many, given.records, content)
        print(f"\n({given.records:,} records of each kind written in {time.monotonic() - began:.0f} s)")
    if "memory" in parts:
        _title("Memory")
        plan = memory.Plan(given.records, given.workers, tree)
        results["memory"] = memory.measure(_new(folder, "memory"), cores, plan, many)
        print(memory.told(results["memory"]))
    if "restart" in parts:
        _title(f"Restart with {given.records:,} objects and as many extents; {given.runs} runs")
        results["restart"] = restart.measure(many, content, cores, restart.Plan(given.runs, tree))
        print(restart.told(results["restart"]))


def _new(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _title(text: str) -> None:
    print(f"\n{text}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(_PARTS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a verdict")
    parser.add_argument("--rounds", type=int, help="of each server and size (7; quick 2)")
    parser.add_argument("--seconds", type=int, help="of one round, whole ones (1)")
    parser.add_argument("--connections", type=int, default=16, help="of the load (16)")
    parser.add_argument("--workers", type=int, default=1, help="processes of each server, all on one core (1)")
    parser.add_argument(
        "--headers", choices=("realistic", "bare"), default="realistic", help="as Chromium sends, or Host alone"
    )
    parser.add_argument(
        "--shapes",
        action="append",
        default=[],
        choices=[shape.name for shape in SHAPES],
        help="only these; repeatable (all; quick without 1 MiB)",
    )
    parser.add_argument("--objects", type=int, help="cold objects (120; quick 100)")
    parser.add_argument("--delay", type=float, default=0.020, help="of the far origin, there and back, in s (0.02)")
    parser.add_argument("--records", type=int, help="objects, and as many extents (1000000; quick 200000)")
    parser.add_argument("--runs", type=int, help="restarts (7; quick 3)")
    parser.add_argument(
        "--tree",
        dest="trees",
        action="append",
        default=[],
        type=_tree,
        metavar="NAME=DIR",
        help="measure hits also of the oca package in DIR; repeatable",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where temporary files go (3 GB; else $TMPDIR or /tmp)")
    given = parser.parse_args()
    for part in given.parts:
        if part not in _PARTS:
            parser.error(f"unknown part {part!r}; there are {', '.join(_PARTS)}")
    numbers = {
        "rounds": (2, 7),
        "seconds": (1, 1),
        "objects": (100, 120),
        "records": (200_000, 1_000_000),
        "runs": (3, 7),
    }
    for name, (quick, whole) in numbers.items():
        if getattr(given, name) is None:
            setattr(given, name, quick if given.quick else whole)
    given.shapes = given.shapes or [shape.name for shape in SHAPES if shape.in_quick or not given.quick]
    return given


def _tree(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    path = Path(folder).resolve()
    if not equals or not name or name == _OURS or not (path / "oca/__main__.py").is_file():
        raise argparse.ArgumentTypeError(f"read {text!r}; wanted NAME=DIR, where DIR holds an oca package")
    return name, path


if __name__ == "__main__":
    sys.exit(main())
