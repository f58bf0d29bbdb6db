"""`python -m tests.bench.fill`: what fill is worth, what planning costs, and how the agent does beside curl."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import machine

_PARTS = ("policy", "planner", "region", "agent")
_EPILOG = """
parts (all if none is named):
  policy    byte misses with and without fill, at ten sites: on demand alone, yesterday's ranking, ours, an oracle
  planner   a plan for 0.5 M renditions, 200 sites and 1,000 appliances: time and memory
  region    eight appliances in network namespaces: bytes from the origin beside unique bytes ordered (needs root)
  agent     one agent beside curl from the same source, and viewers' first byte while it works (needs nginx)

Targets are printed as reached or missed and do not change the exit code: 0 measured, 1 a measurement could not be made,
2 the command line is wrong.
"""


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    described = machine.described()
    for name in ("cpu", "memory", "kernel", "python", "load before"):
        print(f"{name:12} {described[name]}")
    results: dict = {"machine": described}
    for part in given.parts or _PARTS:
        began = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="oca-bench-", dir=given.scratch) as folder:
                words, results[part] = _measured(part, Path(folder), given)
        except machine.BenchError as error:
            print(f"bench: {part}: {error}", file=sys.stderr)
            return 1
        print(f"\n{part} ({time.monotonic() - began:.0f} s)\n{words}", flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(results, indent=1, default=vars))
    return 0


def _measured(part: str, folder: Path, given: argparse.Namespace) -> tuple[str, object]:
    """What to say, and the numbers."""
    # Each part loads what it needs: the planner's memory is measured.
    if part == "policy":
        from tests.bench.fill import policy  # noqa: PLC0415

        shares = (0.1,) if given.quick else policy.Plan.shares
        plan = policy.Plan(given.seed, 0.3 if given.quick else 1.0, 4 if given.quick else 10, shares)
        found = policy.measure(plan)
        return policy.told(found), {
            str(share): {str(who): list(map(vars, some)) for who, some in by_who.items()}
            for share, by_who in found.items()
        }
    if part == "planner":
        from tests.bench.fill import planner  # noqa: PLC0415

        size = planner.Size() if not given.quick else planner.Size(50_000, 20, 100, 3_000, 300)
        row = planner.measure(size, folder)
        return planner.told(size, row), row
    if part == "region":
        from tests.bench.fill import together  # noqa: PLC0415

        row = together.measure(folder)
        return together.told(row), row
    from tests.bench.fill import alone  # noqa: PLC0415

    row = alone.measure(folder, given.rounds)
    return alone.told(row), row


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench-fill ARGS=...",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(_PARTS)}")
    parser.add_argument("--quick", action="store_true", help="smaller: to see that it works, not to be quoted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="of agent and curl, interleaved; default 5")
    parser.add_argument("--scratch", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    given = parser.parse_args()
    for part in given.parts:
        if part not in _PARTS:
            parser.error(f"no part {part!r}; allowed: {', '.join(_PARTS)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
