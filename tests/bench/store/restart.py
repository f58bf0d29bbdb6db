"""A restart in the middle of a trace: what the policy remembers, and what it loses.

At the stop the policy is dumped, a new one takes the dump up, and everything that is held is placed in the order of the
index's keys, as the keeper does at its start. The hour after, and the next accesses, are compared with the same trace
replayed without a stop. For contrast also without the dump: what is held is known, what was wanted is not.
"""

from __future__ import annotations

import bisect
import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

from oca.cache.policy import Policy
from tests.bench.machine import cores
from tests.bench.report import table
from tests.bench.store.replay import Replay, flash_box, tiered_box
from tests.bench.store.workload import BEGINS_AT, DAY, Family, Trace, Unit, trace

_AFTER: Final = 0.6
"""Of the trace; then the next evening, when most is asked for in an hour."""
_EVENING: Final = 20 * 3600.0
_HOUR: Final = 3600.0
_NEXT: Final = 50_000
MOST_LOST: Final = 0.01
"""Of the hit ratio of the hour after."""


@dataclass(frozen=True)
class Plan:
    size: float = 0.1
    seed: int = 1
    scale: float = 1.0
    memory_share: float = 0.01
    dwpd: float | None = None


def measure(plan: Plan) -> list[dict]:
    with ProcessPoolExecutor(max(1, len(cores().all)), multiprocessing.get_context("fork")) as processes:
        rows = [
            processes.submit(_row, family, box, plan) for family, box in itertools.product(Family, ("flash", "tiers"))
        ]
        return [row.result() for row in rows]


def told(rows: list[dict]) -> str:
    head = ("after a restart", "", "bytes hit", "restarted", "differs", "without dump", "differs")
    lines = []
    for row in rows:
        for span in ("hour", "next"):
            without, with_dump, bare = (row[span][name] for name in ("uninterrupted", "restarted", "bare"))
            lines.append(
                (
                    row["name"],
                    f"the hour ({row['hour']['accesses']:,})"
                    if span == "hour"
                    else f"{row['next']['accesses']:,} more",
                    f"{without:.4f}",
                    f"{with_dump:.4f}",
                    f"{with_dump / without - 1:+.2%}",
                    f"{bare:.4f}",
                    f"{bare / without - 1:+.2%}",
                )
            )
    worst = max(1 - row[span]["restarted"] / row[span]["uninterrupted"] for row in rows for span in ("hour", "next"))
    word = "reached" if worst <= MOST_LOST else "missed"
    size = max(row["dump_bytes"] / row["held"] for row in rows)
    return (
        table(head, lines)
        + f"\nthe dump has up to {size:.0f} bytes for each extent that is held"
        + f"\n{word}: at most {MOST_LOST:.0%} of the hit ratio lost by a restart; at worst {max(worst, 0):.2%}"
    )


def _row(family: Family, kind: str, plan: Plan) -> dict:
    made = trace(family, Unit.EXTENTS, plan.seed, plan.scale)
    capacity = int(made.footprint_bytes * plan.size)
    box = flash_box(capacity, plan.memory_share, plan.dwpd) if kind == "flash" else tiered_box(capacity, plan.dwpd)
    stop = _evening(made)
    hour = bisect.bisect_left(made.times, made.times[stop] + _HOUR)
    spans = {"hour": (stop, hour), "next": (stop, min(stop + _NEXT, len(made)))}
    last = max(end for _, end in spans.values())

    def until_last(run: Replay) -> dict[str, float]:
        run.run(last)
        run.check_books()
        return {name: _byte_hits(run, *span) for name, span in spans.items()}

    uninterrupted = until_last(Replay(Policy(), made, box))
    stopped = Replay(Policy(), made, box)
    stopped.run(stop)
    packed = dumped(stopped)
    restart(stopped, Policy(), packed)
    held = sum(map(bool, stopped.lies_on))
    restarted = until_last(stopped)
    bare = Replay(Policy(), made, box)
    bare.run(stop)
    restart(bare, Policy(), b"")
    lost = until_last(bare)
    return {
        "name": f"{family}, {kind}",
        "held": held,
        "dump_bytes": len(packed),
        **{
            span: {
                "accesses": end - start,
                "uninterrupted": uninterrupted[span],
                "restarted": restarted[span],
                "bare": lost[span],
            }
            for span, (start, end) in spans.items()
        },
    }


def _evening(made: Trace) -> int:
    """The first access after eight in the evening."""
    at = made.times[int(len(made) * _AFTER)] - BEGINS_AT
    days = -(-(at - _EVENING) // DAY)
    return bisect.bisect_left(made.times, BEGINS_AT + days * DAY + _EVENING)


def dumped(run: Replay) -> bytes:
    assert isinstance(run.policy, Policy)
    return b"".join(run.policy.dump())


def restart(run: Replay, policy: Policy, packed: bytes) -> None:
    """The same books, another policy. With nothing `packed`, as if the file with the dump was lost."""
    if packed:
        policy.restore(memoryview(packed))
    for number, device in enumerate(run.box):
        policy.add_shelf(number, device.level, device.capacity_bytes, device.writes_per_day)
    now = run.times[run.at]
    held = [slot for slot, number in enumerate(run.lies_on) if number]
    for slot in sorted(held, key=lambda slot: run.names[run.object_in[slot]]):
        number = run.object_in[slot]
        name, group, size = run.names[number], run.groups[number], run.sizes[number]
        shelf, below = run.lies_on[slot] - 1, run.below[slot] - 1
        if below >= 0:
            policy.place(slot, name, group, below, size, now, is_written=False)
            policy.move(slot, shelf, now, keeps_below=True, is_written=False)
        else:
            policy.place(slot, name, group, shelf, size, now, is_written=False)
    run.policy = policy
    run.check_books()


def _byte_hits(run: Replay, start: int, stop: int) -> float:
    served = hit = 0
    for i in range(start, stop):
        size = run.sizes[run.objects[i]]
        served += size
        hit += size if run.hits[i] else 0
    return hit / served
