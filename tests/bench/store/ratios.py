"""Byte misses and bytes written: ours beside the policies everybody knows, on the same traces, in the same run.

Runs are shared among as many processes as there are cores. Traces and their files are made once, before these fork.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oca.cache.policy import Level, Policy
from tests.bench.machine import BenchError, cores
from tests.bench.report import table
from tests.bench.store import baselines
from tests.bench.store.baselines import BASELINES, BELADY, LRU, S3_FIFO
from tests.bench.store.plain import PlainLru, PlainS3Fifo
from tests.bench.store.replay import Box, Device, flash_box, microseconds, replayed, tiered_box
from tests.bench.store.workload import Family, Trace, Unit, trace

SIZES: Final = (0.01, 0.05, 0.1, 0.3)
"""Of the footprint."""
FLASH: Final = "ours"
TIERED: Final = "ours, tiers"
PLAIN_LRU: Final = "plain LRU"
PLAIN_S3_FIFO: Final = "plain S3-FIFO"
PLAIN: Final = (PLAIN_LRU, PLAIN_S3_FIFO)
_CHECKED: Final = 0.1
"""The size (or the nearest) at which the plumbing is checked in every workload."""
_WITHIN: Final = 0.005
"""How near our plumbing's S3-FIFO must come to libcachesim's."""
MOST_WRITTEN: Final = {Family.POPULARITY: 1 / 5, Family.RECENCY: 1 / 2}
"""Of what LRU writes to flash."""
MOST_MICROSECONDS: Final = 4.0


@dataclass(frozen=True)
class Plan:
    families: tuple[Family, ...] = tuple(Family)
    units: tuple[Unit, ...] = tuple(Unit)
    sizes: tuple[float, ...] = SIZES
    seed: int = 1
    scale: float = 1.0
    memory_share: float = 0.01
    dwpd: float | None = None
    baselines: tuple[str, ...] = tuple(BASELINES)


Key = tuple[Family, Unit, float]
Row = dict[str, float]

_traces: dict[tuple[Family, Unit], tuple[Trace, Path]] = {}
"""Filled before the processes fork: they inherit it."""


def measure(plan: Plan, folder: Path) -> dict[str, dict]:
    """For each workload: what it is, and for each size and policy a row of numbers. Raises `BenchError` if our plumbing
    differs from libcachesim's, or the policy breaks its word."""
    with _made(plan, folder):
        rows = _run(plan)
        results = {}
        for family, unit in itertools.product(plan.families, plan.units):
            made, _ = _traces[family, unit]
            results[f"{family} {unit}"] = {
                "family": family,
                "accesses": len(made),
                "sessions": made.sessions,
                "objects": len(made.sizes),
                "footprint_bytes": made.footprint_bytes,
                "served_bytes_a_day": made.served_bytes_a_day,
                "days": float(made.times[-1] - made.times[0]) / 86400,
                "sizes": {
                    size: {name: row for (*key, name), row in rows.items() if tuple(key) == (family, unit, size)}
                    for size in plan.sizes
                },
            }
    for name, result in results.items():
        _check(name, result)
    return results


@contextlib.contextmanager
def _made(plan: Plan, folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as files:
        for family, unit in itertools.product(plan.families, plan.units):
            made = trace(family, unit, plan.seed, plan.scale)
            _traces[family, unit] = made, files.enter_context(baselines.written(made, folder))
            print(f"made: {family} {unit}, {len(made):,} accesses", file=sys.stderr, flush=True)
        yield
        _traces.clear()


def _run(plan: Plan) -> dict[tuple[Family, Unit, float, str], Row]:
    # The longest first, so that both cores end together.
    names = [FLASH, TIERED, *PLAIN, *plan.baselines]
    checked = min(plan.sizes, key=lambda size: abs(size - _CHECKED))
    rows = {}
    began = time.monotonic()
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(len(cores().all), forked, _end_at_once) as processes:
        futures: dict[Future[Row], tuple[Family, Unit, float, str]] = {
            processes.submit(_row, family, unit, size, name, plan): (family, unit, size, name)
            for name in names
            for family, unit, size in itertools.product(plan.families, plan.units, plan.sizes)
            if name not in PLAIN or size == checked
        }
        try:
            for future in as_completed(futures):
                rows[futures[future]] = future.result()
                family, unit, size, name = futures[future]
                print(
                    f"{len(rows)}/{len(futures)} {time.monotonic() - began:.0f} s: {name}, {family} {unit}, "
                    f"{size:.0%}: byte misses {rows[futures[future]]['bmr']:.4f}",
                    file=sys.stderr,
                    flush=True,
                )
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return rows


def _end_at_once() -> None:
    """In a process of the pool, which inherits what we do on SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _row(family: Family, unit: Unit, size: float, name: str, plan: Plan) -> Row:
    made, file = _traces[family, unit]
    capacity = int(made.footprint_bytes * size)
    if name == FLASH:
        return _ours(made, flash_box(capacity, plan.memory_share, plan.dwpd))
    if name == TIERED:
        return _ours(made, tiered_box(capacity, plan.dwpd))
    if name in PLAIN:
        plain = PlainLru() if name == PLAIN_LRU else PlainS3Fifo()
        outcome = replayed(plain, made, (Device(Level.NVME, capacity),))
        return {
            "missed": outcome.missed,
            "missed_bytes": outcome.missed_bytes,
            "omr": outcome.omr,
            "bmr": outcome.bmr,
        }
    missed = baselines.replayed(name, made, file, capacity)
    return {
        "missed": missed.requests,
        "missed_bytes": missed.bytes,
        "omr": missed.requests / (len(made) - made.warm),
        "bmr": missed.bytes / made.counted_bytes,
    }


def _ours(made: Trace, box: Box) -> Row:
    outcome = replayed(Policy(), made, box)
    cost, rest = microseconds(made, box, outcome)
    row: Row = {
        "missed": outcome.missed,
        "missed_bytes": outcome.missed_bytes,
        "omr": outcome.omr,
        "bmr": outcome.bmr,
        "flash_written": outcome.flash_written,
        "microseconds": cost,
        "rest": rest,
    }
    for level in outcome.written_bytes:
        row[f"written {level.name.lower()}"] = outcome.written(level)
        row[f"moved {level.name.lower()}"] = outcome.moved_bytes[level] / outcome.served_bytes
        row[f"read {level.name.lower()}"] = outcome.read_bytes[level] / outcome.served_bytes
    return row | {f"count {reason}": count for reason, count in outcome.reasons.items()}


def _check(workload: str, result: dict) -> None:
    """Our plumbing is libcachesim's."""
    for size, rows in result["sizes"].items():
        if PLAIN_LRU not in rows or LRU not in rows:
            continue
        for key in ("missed", "missed_bytes"):
            if rows[PLAIN_LRU][key] != rows[LRU][key]:
                raise BenchError(
                    f"{workload}, {size:.0%}: an LRU in our plumbing has {key} {rows[PLAIN_LRU][key]:,}, "
                    f"libcachesim's {rows[LRU][key]:,}"
                )
        if S3_FIFO in rows:
            off = rows[PLAIN_S3_FIFO]["missed_bytes"] / rows[S3_FIFO]["missed_bytes"] - 1
            if abs(off) > _WITHIN:
                raise BenchError(
                    f"{workload}, {size:.0%}: an S3-FIFO in our plumbing misses {off:+.2%} bytes of libcachesim's"
                )


def best_of(rows: dict[str, Row]) -> str:
    """The baseline that misses the fewest bytes; Belady knows the future and is none."""
    return min((name for name in BASELINES if name in rows and name != BELADY), key=lambda name: rows[name]["bmr"])


# --- Told ---


def told(results: dict[str, dict]) -> str:
    parts = []
    for name, result in results.items():
        parts.append(
            f"\n{name}: {result['accesses']:,} accesses of {result['sessions']:,} plays in {result['days']:.0f} days, "
            f"{result['objects']:,} objects, {result['footprint_bytes'] / 1e12:.2f} TB"
        )
        parts += [_all_ratios(result), "", _against(result), "", _tiers(result)]
    return "\n".join([*parts, "", *_plumbing(results), *verdicts(results)])


def _all_ratios(result: dict) -> str:
    sizes = result["sizes"]
    rows = [
        (name, "", *(f"{row[name]['omr']:.3f} / {row[name]['bmr']:.3f}" for row in sizes.values()))
        for name in [*BASELINES, FLASH, TIERED]
        if all(name in row for row in sizes.values())
    ]
    return table(("objects / bytes missed", "", *(f"{size:.0%}" for size in sizes)), rows)


def _against(result: dict) -> str:
    head = ("cache", "best", "misses", "ours", "differs", "Belady", "LRU writes", "ours", "share", "DWPD", "us")
    lines = []
    for size, rows in result["sizes"].items():
        best, ours = best_of(rows), rows[FLASH]
        belady = f"{rows[BELADY]['bmr']:.4f}" if BELADY in rows else ""
        lines.append(
            (
                f"{size:.0%}",
                best,
                f"{rows[best]['bmr']:.4f}",
                f"{ours['bmr']:.4f}",
                f"{ours['bmr'] / rows[best]['bmr'] - 1:+.1%}",
                belady,
                f"{rows[LRU]['bmr']:.3f}",
                f"{ours['flash_written']:.3f}",
                f"{ours['flash_written'] / rows[LRU]['bmr']:.2f}",
                f"{ours['flash_written'] * _turnover(result, size):.1f}",
                f"{ours['microseconds']:.1f}",
            )
        )
    return table(head, lines)


def _turnover(result: dict, size: float) -> float:
    """How often a day the capacity is served."""
    return result["served_bytes_a_day"] / (size * result["footprint_bytes"])


def _tiers(result: dict) -> str:
    head = (
        "three tiers",
        "",
        "bytes missed",
        *(f"{what} {t}" for t in ("nvme", "ssd", "hdd") for what in ("w", "r")),
        "us",
    )
    lines = []
    for size, rows in result["sizes"].items():
        row = rows[TIERED]
        figures = [f"{row[f'{what} {t}']:.3f}" for t in ("nvme", "ssd", "hdd") for what in ("written", "read")]
        lines.append((f"{size:.0%}", "", f"{row['bmr']:.4f}", *figures, f"{row['microseconds']:.1f}"))
    return table(head, lines) + "\n(w: written, r: read there, per byte served)"


def _plumbing(results: dict[str, dict]) -> list[str]:
    rows = [
        row for result in results.values() for row in result["sizes"].values() if {*PLAIN, LRU, S3_FIFO} <= set(row)
    ]
    if not rows:
        return []
    off = max(abs(row[PLAIN_S3_FIFO]["missed_bytes"] / row[S3_FIFO]["missed_bytes"] - 1) for row in rows)
    line = f"plumbing: LRU's hits and missed bytes are libcachesim's in all {len(rows)}; S3-FIFO's within {off:.4%}"
    return [line]


def verdicts(results: dict[str, dict]) -> list[str]:
    """One line for each target."""
    cells = [
        (name, result["family"], size, row) for name, result in results.items() for size, row in result["sizes"].items()
    ]
    lines = []
    if all(set(BASELINES) <= set(row) for *_, row in cells):
        worse = [
            f"{name} {size:.0%} {row[FLASH]['bmr'] / row[best_of(row)]['bmr'] - 1:+.1%}"
            for name, _, size, row in cells
            if row[FLASH]["bmr"] > row[best_of(row)]["bmr"]
        ]
        lines.append(_verdict("byte misses no more than the best", len(cells), worse))
    for family, most in MOST_WRITTEN.items():
        own = [cell for cell in cells if cell[1] == family]
        over = [
            f"{name} {size:.0%} {row[FLASH]['flash_written'] / row[LRU]['bmr']:.2f}"
            for name, _, size, row in own
            if row[FLASH]["flash_written"] > most * row[LRU]["bmr"]
        ]
        if own:
            lines.append(_verdict(f"flash writes at most {most:.1f} of LRU's, {family}", len(own), over))
    costs = [row[box]["microseconds"] for *_, row in cells for box in (FLASH, TIERED)]
    mean = sum(costs) / len(costs)
    word = "reached" if mean <= MOST_MICROSECONDS else "missed"
    rests = [row[box]["rest"] for *_, row in cells for box in (FLASH, TIERED)]
    lines.append(
        f"{word}: policy {mean:.1f} us of CPU per access (<= {MOST_MICROSECONDS:.0f}), dearest {max(costs):.1f}; "
        f"the replay itself {sum(rests) / len(rests):.2f}"
    )
    return lines


def _verdict(what: str, count: int, exceptions: list[str]) -> str:
    if not exceptions:
        return f"reached: {what}, in all {count}"
    return f"missed: {what}, in {len(exceptions)} of {count}: " + "; ".join(exceptions)
