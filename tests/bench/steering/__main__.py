"""`python -m tests.bench.steering`: what steering costs, in process and over the wire."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import machine
from tests.bench.report import table
from tests.bench.steering import decisions, dns, http, topology
from tests.bench.steering.fleet import Size

_PARTS = ("decisions", "topology", "dns", "replica")
_EPILOG = """
parts (all if none is named):
  decisions  ranking over the whole fleet in process
  topology   a million prefixes: build, memory, look-ups; with --city and --asn real databases
  dns        DNS answers with a ranking that costs nothing, in process and over loopback
  replica    a whole `oca-steering serve`: its start, memory, and answers by JSON, content steering, redirect and DNS
             (needs wrk)

Targets are printed as reached or missed and do not change the exit code: 0 measured, 1 a measurement could not be made,
2 the command line is wrong.
"""


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parts = given.parts or _PARTS
    if "replica" in parts and shutil.which("wrk") is None:
        print("bench: not found on PATH: wrk. On Debian: apt install wrk", file=sys.stderr)
        return 1
    results: dict = {"machine": machine.described()}
    for name in ("cpu", "memory", "kernel", "python", "load before"):
        print(f"{name:12} {results['machine'][name]}")
    size = Size() if not given.quick else Size(operators=100, sites=500, prefixes=20)
    began = time.monotonic()
    head = ("what", "measured", "target")
    try:
        if "decisions" in parts:
            results["decisions"] = decisions.rows(size)
            _show("Decisions in process", table(head, results["decisions"]))
        if "topology" in parts:
            real = [path for path in (given.city, given.asn) if path is not None]
            results["topology"] = topology.rows(size.sites * size.prefixes, real)
            _show("Where clients are", table(head, results["topology"]))
        if "dns" in parts:
            results["dns"] = dns.rows(given.seconds, given.rounds)
            _show("DNS, with a ranking that costs nothing", table(head, results["dns"]))
        if "replica" in parts:
            with tempfile.TemporaryDirectory(prefix="oca-bench-") as folder:
                results["replica"] = http.measure(Path(folder), size, given.seconds, given.rounds)
            _show("A whole replica", http.told(results["replica"]))
    except machine.BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{time.monotonic() - began:.0f} s in all; load now {machine.described()['load before']}")
    if given.json:
        given.json.write_text(json.dumps(results, indent=2, default=str) + "\n")
    return 0


def _show(title: str, text: str) -> None:
    print(f"\n{title}\n{text}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.steering",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", choices=(*_PARTS, []), metavar="part", help=", ".join(_PARTS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the fleet, a hundredth of the prefixes")
    parser.add_argument("--seconds", type=int, default=4, help="of load for each run (default 4)")
    parser.add_argument("--rounds", type=int, default=5, help="runs for each kind (default 5)")
    parser.add_argument("--city", type=Path, help="a real city database in MaxMind's format")
    parser.add_argument("--asn", type=Path, help="a real ASN database")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    given = parser.parse_args()
    if (given.city is None) != (given.asn is None):
        parser.error("--city and --asn are given both or not at all")
    return given


if __name__ == "__main__":
    sys.exit(main())
