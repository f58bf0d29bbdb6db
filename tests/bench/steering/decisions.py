"""Decisions in process, without any socket, over the whole fleet: all appliances serve, each with its own load."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from steering.decisions import Ask, Decider, Way
from steering.fleet import Fleet, content_of
from steering.inventory import Inventory, apply
from steering.neighbourhood import Neighbourhood
from steering.ranking import Rules
from steering.standing import Patience
from steering.topology.locator import Where
from steering.topology.reach import Reach
from tests.bench.report import median
from tests.bench.steering import fleet as made
from tests.bench.steering.fleet import Size
from wire.heartbeat import Heartbeat

LEAST_DECISIONS: Final = 15_000
_SEED: Final = 7
_CLIENTS: Final = 5_000
_TITLES: Final = 2_000
_ASKED: Final = 20_000
_ROUNDS: Final = 5
_NOW: Final = 1_000_000.0

Row = tuple[str, str, str]
"""What, how much, and what it was to be."""


def rows(size: Size) -> list[Row]:
    """CPU time of this process, which does nothing else."""
    fleet = Fleet(Patience(), _SEED)
    inventory = apply(Inventory(), *made.changes(Size(size.operators, size.sites, size.appliances, prefixes=0)))
    fleet.take(inventory, _NOW)
    heard = _heartbeats(fleet)
    now = _NOW + 20.0
    decider = Decider(fleet, Neighbourhood(inventory, _SEED), Rules(), _SEED, "bench", "https://origin.example", ())
    prepare = _cpu(decider.prepare)
    tick = _cpu(lambda: fleet.tick(now))
    dice = random.Random(5)
    clients = [_client(dice, size) for _ in range(_CLIENTS)]
    contents = [content_of(f"film-{number}", tuple(range(number * 10, number * 10 + 10))) for number in range(_TITLES)]

    def decide(number: int) -> None:
        where, address = clients[number * 7919 % _CLIENTS]
        ask = Ask(client=address, content=contents[number % _TITLES], way=Way.JSON, bps=5e6)
        decider.decide(ask, where, now)

    for number in range(_CLIENTS):
        decide(number)  # What is remembered of places is there.
    rates, each = [], []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for number in range(_ASKED):
            decide(number)
        rates.append(_ASKED / (time.process_time() - began))
    for number in range(_ASKED):
        began = time.perf_counter()
        decide(number)
        each.append(time.perf_counter() - began)
    each.sort()
    rate = median(rates)
    return [
        (
            "decisions a CPU-second",
            f"{rate:,.0f} ({min(rates):,.0f}-{max(rates):,.0f})",
            f">= {LEAST_DECISIONS:,}: {'reached' if rate >= LEAST_DECISIONS else 'missed'}",
        ),
        (
            "one decision, p50 and p99",
            f"{each[len(each) // 2] * 1e6:.0f} and {each[len(each) * 99 // 100] * 1e6:.0f} µs",
            "",
        ),
        ("a heartbeat, once parsed", f"{heard * 1e6:.1f} µs", ""),
        ("a tick, once a second", f"{tick * 1e3:.0f} ms", ""),
        ("the regions' lists, every 5 s", f"{prepare * 1e3:.0f} ms", ""),
    ]


def _heartbeats(fleet: Fleet) -> float:
    """All appliances speak until they serve. CPU seconds for each heartbeat."""
    dice = random.Random(6)
    messages = [
        [
            Heartbeat(
                appliance=name,
                boot="b",
                sequence=number,
                sent_at=_NOW,
                ready=True,
                egress_bps=dice.randrange(60) * 10**9,
                link_bps=100 * 10**9,
                connections=100,
                max_connections=40_000,
                hit_ratio=0.9,
            )
            for name in fleet.members
        ]
        for number in range(1, 5)
    ]
    began = time.process_time()
    for number, row in enumerate(messages):
        for heartbeat in row:
            fleet.hear(heartbeat, _NOW + 5.0 * number)
    return (time.process_time() - began) / sum(map(len, messages))


def _client(dice: random.Random, size: Size) -> tuple[Where, bytes]:
    """Most are in an announced prefix; of the others a database knows place and network, or nothing."""
    site = dice.randrange(size.sites)
    address = dice.getrandbits(32).to_bytes(4, "big")
    kind = dice.random()
    where = Where(
        reach=Reach.GLOBAL,
        network=f"{address[0]}.{address[1]}.{address[2]}.0/24" if kind < 0.8 else None,
        sites=(f"site-{site}",) if kind < 0.8 else (),
        asn=site % size.operators + 1 if kind < 0.95 else None,
        country="PT" if kind < 0.95 else None,
        latitude=dice.uniform(-55, 65) if kind < 0.95 else None,
        longitude=dice.uniform(-180, 180) if kind < 0.95 else None,
        scope=24,
    )
    return where, address


def _cpu(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


def _at(ordered: list[float], share: float) -> float:
    return ordered[int(len(ordered) * share)]
