"""`python -m tests.bench.sim`: a day of players over a fleet, sent by steering, by the nearest and by a hash."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from steering.ranking import Rules
from tests.bench import machine
from tests.bench.report import table
from tests.bench.sim import lp, plots, policies, scenario, workload, world
from tests.bench.sim.engine import PROMISE, ROOM, Day, Outcome
from tests.bench.sim.policies import Policy, Ruler

_NAMES = ("ours", "nearest", "hashed")
_EPILOG = """
ours     steering's Fleet, Neighbourhood and Decider, as they run in a replica
nearest  the nearest site by GeoIP, of those that may serve the client; there any appliance
hashed   the cache group by prefix, network or place; there consistent hashing by title (Traffic Control's way)

All hear the same heartbeats, and their players fail over and ask again alike. What is simplified stands in
tests/bench/sim/engine.py. The same seed gives the same day. Targets are printed as reached or missed and do not change
the exit code: 0 simulated, 2 the command line is wrong.
"""
_EXTRA = 0.01
"""Distance beyond the optimum's, as a share of it."""


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _run(given)
    except KeyboardInterrupt:
        return 130


def _run(given: argparse.Namespace) -> int:
    given.dir.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    start, end = round(given.start * 3600), round(min(24.0, given.start + given.hours) * 3600)
    plan = scenario.Scenario(start=start, end=end)
    made = world.markets(given.scale, given.seed)
    played = workload.sessions(made, given.scale, plan.crowd, given.seed)
    there = world.world(made, workload.reads(made, played), given.scale, given.seed)
    print(
        f"{len(there.site_names):,} sites, {len(there.names):,} appliances, {there.capacity.sum() / 1e12:,.0f} Tb/s; "
        f"{len(made):,} markets, {int((played.start >= 0).sum()):,} sessions a day, "
        f"{workload.STREAMS * given.scale / 1e6:,.1f} M streams at the peak; seed {given.seed}",
        flush=True,
    )
    outcomes: dict[str, Outcome] = {}
    optima: dict[str, dict[str, lp.Optimum]] = {}
    for name in given.policies or _NAMES:
        # A ruler for each: what it remembers is made anew, and let go.
        ruler = Ruler(there, given.seed)
        policy = _policy(name, ruler, given.seed, start - workload.LEAD)
        # Twenty million objects that stay: looking for garbage among them takes a third of the time.
        gc.collect()
        gc.freeze()
        since = time.process_time()
        outcome = Day(
            ruler,
            played,
            policy,
            scenario.outages(plan, there),
            scenario.happenings(plan, there),
            plan.moments(),
            given.seed,
            start,
            end,
            ask_all=given.ask_all,
        ).run()
        outcomes[name] = outcome
        optima[name] = _optima(ruler, outcome, plan)
        print(
            f"{name}: {outcome.decisions:,} decisions, {outcome.questions:,} questions of playing players, "
            f"{time.process_time() - since:.0f} s of CPU",
            flush=True,
        )
        gc.unfreeze()
    print()
    print(_told(outcomes, optima))
    if "ours" in outcomes:
        print()
        print(_judged(outcomes["ours"], optima["ours"]))
    results = {
        "machine": machine.described(),
        "arguments": vars(given),
        "cpu_seconds": time.process_time() - began,
        "outcomes": {name: _plain(outcome) for name, outcome in outcomes.items()},
        "optima": {
            name: {label: dataclasses.asdict(best) for label, best in found.items()} for name, found in optima.items()
        },
    }
    file = given.dir / "results.json"
    file.write_text(json.dumps(results, indent=1, default=str) + "\n")
    drawn = plots.draw(outcomes, plan, given.dir)
    print(f"\n{time.process_time() - began:.0f} s of CPU; {file}, {', '.join(path.name for path in drawn)}")
    return 0


def _policy(name: str, ruler: Ruler, seed: int, start: float) -> Policy:
    made: dict[str, Callable[[], Policy]] = {
        "ours": lambda: policies.Ours(ruler, Rules(), seed, start),
        "nearest": lambda: policies.nearest(ruler, seed, start),
        "hashed": lambda: policies.hashed(ruler, seed, start),
    }
    return made[name]()


def _optima(ruler: Ruler, outcome: Outcome, plan: scenario.Scenario) -> dict[str, lp.Optimum]:
    """Against sites filled up to where steering stops sending new players."""
    found = {}
    for label, sample in plan.samples:
        if label not in outcome.samples:
            continue
        seen = outcome.samples[label]
        best = lp.optimum(ruler, seen, sample.countries, ROOM)
        if best is None:
            continue
        before = outcome.samples.get(scenario.before(label))
        if before is not None and outcome.course is not None:
            stayed = lp.staying(ruler, outcome.course, before, seen, sample.countries, ROOM)
            best = dataclasses.replace(best, staying=stayed)
        found[label] = best
    return found


def _told(outcomes: dict[str, Outcome], optima: dict[str, dict[str, lp.Optimum]]) -> str:
    rows: list[tuple[str, Callable[[Outcome], str]]] = [
        ("read from the client's own ISP", lambda one: f"{one.bits['own'] / one.bits['all']:.2%}"),
        ("served by no appliance", lambda one: f"{(one.bits['unserved'] + one.bits['origin']) / one.bits['all']:.4%}"),
        ("viewers refused (origin only)", lambda one: f"{one.refused / one.arrivals:.4%}"),
        ("highest utilisation", lambda one: f"{one.highest:.0%}"),
        (f"above {PROMISE:.0%}, appliance-minutes", lambda one: f"{one.over_seconds / 60:,.1f}"),
        ("- while others of the class had room", lambda one: f"{one.over_with_room / 60:,.1f}"),
        ("- longest, seconds", lambda one: f"{one.longest_over:,}"),
        ("round trip, ms (mean)", lambda one: f"{one.bits['ms'] / one.bits['known']:.3f}"),
        ("moved in mid-film, of 1,000 viewers", lambda one: f"{1000 * sum(one.moves.values()) / one.arrivals:.2f}"),
    ]
    lines = [[text, *(told(outcome) for outcome in outcomes.values())] for text, told in rows]
    for number, recovery in enumerate(next(iter(outcomes.values())).recoveries):
        found = [outcome.recoveries[number] for outcome in outcomes.values()]
        lines.append([f"{recovery.name} away: viewers on it", *(f"{one.viewers:,.0f}" for one in found)])
        lines.append(["- 99 % elsewhere after, s", *(str(one.seconds) for one in found)])
        lines.append(["- busiest appliance then", *(f"{one.highest:.0%}" for one in found)])
        lines.append(["- seconds anybody was above 95 %", *(str(one.over_seconds) for one in found)])
        lines.append(["- 90 % back after, s", *(str(one.back_seconds) for one in found)])
    labels = list(dict.fromkeys(label for found in optima.values() for label in found))
    for label in labels:
        cells = [f"{100 * optima[name][label].extra:+.2f} %" for name in outcomes]
        lines.append([f"distance beyond the optimum: {label}", *cells])
        lines.append(["- beyond one that moves nobody who plays", *(_beyond(optima[name][label]) for name in outcomes)])
    return table(["", *outcomes], lines)


def _beyond(best: lp.Optimum) -> str:
    return "" if best.staying is None else f"{100 * (best.ours / best.staying - 1.0):+.2f} %"


def _judged(ours: Outcome, optima: dict[str, lp.Optimum]) -> str:
    unreasoned = sum(weight for why, weight in ours.moves.items() if why in {"none", "unlisted"})
    worst = max((best.extra for best in optima.values()), default=0.0)
    lines = [
        _line(
            f"never above {PROMISE:.0%} while the class has room",
            "0 s",
            f"{ours.longest_over} s, {ours.highest_with_room:.0%}",
            is_reached=ours.over_with_room == 0,
        ),
        _line("distance beyond the optimum", f"{_EXTRA:.0%}", f"{worst:.2%}", is_reached=worst <= _EXTRA),
        _line("moves without a reason", "0", f"{unreasoned:,.0f}", is_reached=unreasoned == 0),
    ]
    moved = ", ".join(f"{why} {weight / ours.arrivals:.3%}" for why, weight in ours.moves.most_common())
    return table(["promise", "", "target", "here"], lines) + f"\nmoved, of all viewers: {moved or 'nobody'}"


def _line(promise: str, target: str, here: str, *, is_reached: bool) -> list[str]:
    return [promise, "reached" if is_reached else "missed", target, here]


def _plain(outcome: Outcome) -> dict:
    plain = {name: value for name, value in vars(outcome).items() if name not in {"samples", "recoveries", "course"}}
    plain["recoveries"] = [dataclasses.asdict(recovery) for recovery in outcome.recoveries]
    return plain


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.sim",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of fleet and audience (1: 5,000 sites, 2 M sessions)")
    parser.add_argument("--start", type=float, default=0.0, metavar="HOUR", help="of the day, UTC (0)")
    parser.add_argument("--hours", type=float, default=24.0, help="how long (24, or until midnight)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--policy", dest="policies", action="append", choices=_NAMES, help="only this one; repeatable (all)"
    )
    parser.add_argument(
        "--ask-all",
        action="store_true",
        help="put also questions whose answer is known to be 'stay' (30 times as many)",
    )
    parser.add_argument("--dir", type=Path, default=Path("build/sim"), help="for results.json and PNGs (build/sim)")
    given = parser.parse_args()
    if not 0.001 <= given.scale <= 1.0:
        parser.error(f"--scale {given.scale}: allowed are 0.001 to 1")
    if not 0.0 <= given.start < 24.0 or given.hours <= 0:
        parser.error("--start is 0 to 24, --hours more than 0")
    return given


if __name__ == "__main__":
    sys.exit(main())
