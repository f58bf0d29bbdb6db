"""`python -m tests.bench.store`: what the store's policy misses, writes, costs and remembers."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import machine
from tests.bench.store import memory, ratios, restart, start, tiers
from tests.bench.store.baselines import BASELINES, LRU
from tests.bench.store.workload import Family, Unit

_PARTS = ("ratios", "restart", "memory", "start", "tiers")
_EPILOG = """
parts (all if none is named):
  ratios   byte and object misses and bytes written per tier, beside libcachesim's policies and Belady's bound
  restart  the hit ratio after a restart of the policy in mid-trace, against none
  memory   RAM of slots and policy for each extent
  start    a whole appliance with as many extents in its index: first hit, and when the policy is warm
  tiers    first bytes of nvme hits while the hdd stalls for seconds (needs root, loop devices, XFS and FUSE)

Targets are printed as reached or missed and do not change the exit code: 0 measured, 1 a measurement could not be
made (an LRU in our plumbing differs from libcachesim's, the policy overfills a device), 2 the command line is wrong.
"""


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results: dict = {"machine": machine.described(), "arguments": vars(given)}
    for name in ("cpu", "memory", "kernel", "python", "load before"):
        print(f"{name:12} {results['machine'][name]}")
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="oca-bench-", dir=given.dir) as folder:
            _measure(Path(folder), given, results)
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


def _measure(folder: Path, given: argparse.Namespace, results: dict) -> None:
    parts = given.parts or _PARTS
    if "ratios" in parts:
        plan = ratios.Plan(
            families=tuple(given.families or Family),
            units=tuple(given.units or Unit),
            sizes=tuple(given.sizes or ratios.SIZES),
            seed=given.seed,
            scale=given.scale,
            memory_share=given.memory_share,
            dwpd=given.dwpd,
            baselines=(LRU,) if given.policy_only else tuple(BASELINES),
        )
        _title(
            f"Misses and writes after a warm-up of 30 %; seed {plan.seed}; probation in memory is "
            f"{plan.memory_share:.1%} of the cache"
        )
        results["ratios"] = ratios.measure(plan, folder)
        print(ratios.told(results["ratios"]))
    if "restart" in parts:
        _title("A restart of the policy in the evening; extents, cache of 10 %")
        plan = restart.Plan(seed=given.seed, scale=given.scale, memory_share=given.memory_share, dwpd=given.dwpd)
        results["restart"] = restart.measure(plan)
        print(restart.told(results["restart"]))
    if "memory" in parts:
        _title("Memory")
        results["memory"] = memory.measure(given.extents, folder)
        print(memory.told(results["memory"]))
    if "start" in parts:
        _title("Start of an appliance")
        (folder / "start").mkdir()
        results["start"] = start.measure(start.Plan(given.extents), folder / "start", machine.cores())
        print(start.told(results["start"]))
    if "tiers" in parts:
        plan = tiers.Plan(rounds=3 if given.quick else 7)
        _title(f"An hdd that stalls: {plan.viewers} viewers of it, {plan.rounds} rounds, medians")
        (folder / "tiers").mkdir()
        results["tiers"] = tiers.measure(plan, folder / "tiers", machine.cores())
        print(tiers.told(results["tiers"]))


def _title(text: str) -> None:
    print(f"\n{text}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.store",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(_PARTS))
    parser.add_argument("--quick", action="store_true", help="a smaller site: a look, not a verdict")
    parser.add_argument("--seed", type=int, default=1, help="of the traces and of the policy (1)")
    parser.add_argument("--policy-only", action="store_true", help="ratios: of the baselines only LRU")
    parser.add_argument(
        "--workload",
        dest="families",
        action="append",
        type=Family,
        choices=list(Family),
        help="ratios: only this one; repeatable",
    )
    parser.add_argument(
        "--unit", dest="units", action="append", type=Unit, choices=list(Unit), help="ratios: only these; repeatable"
    )
    parser.add_argument(
        "--size",
        dest="sizes",
        action="append",
        type=_share,
        metavar="PERCENT",
        help="ratios: caches of so much of the footprint; repeatable (1, 5, 10, 30)",
    )
    parser.add_argument(
        "--memory",
        dest="memory_share",
        type=_share,
        default=0.01,
        metavar="PERCENT",
        help="of the cache that is memory, for probation, on the box without hdd (1, as [store] probation)",
    )
    parser.add_argument("--dwpd", type=float, help="write budget of flash: capacities a day (none)")
    parser.add_argument("--scale", type=float, help="size of the sites (1; quick 0.2)")
    parser.add_argument("--extents", type=int, help="for memory and start (10000000; quick 1000000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where temporary files go (5 GB; else $TMPDIR or /tmp)")
    given = parser.parse_args()
    for part in given.parts:
        if part not in _PARTS:
            parser.error(f"unknown part {part!r}; there are {', '.join(_PARTS)}")
    for name, (quick, whole) in {"scale": (0.2, 1.0), "extents": (1_000_000, 10_000_000)}.items():
        if getattr(given, name) is None:
            setattr(given, name, quick if given.quick else whole)
    return given


def _share(text: str) -> float:
    share = float(text.removesuffix("%")) / 100
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"read {text!r}; wanted a percentage")
    return share


if __name__ == "__main__":
    sys.exit(main())
