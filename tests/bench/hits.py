"""CPU per response of a hit: nginx static, nginx's proxy_cache and the appliance, in turns, in one run.

Every server has a folder of its own with the same files, the same number of worker processes, and one core that it
shares with nobody but the others while they are idle. The load runs on another core. Each round asks each server the
same random requests; ratios are taken within a round, so that a neighbour's noise falls on both sides.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import nginx
from tests.bench.appliance import Appliance, appliance
from tests.bench.client import Answer, Client
from tests.bench.films import Films, Shape
from tests.bench.load import Load, Told
from tests.bench.machine import BenchError, Cores, cpu_seconds
from tests.bench.processes import wait_until
from tests.bench.report import median, reached, spread, table

STATIC = "static"
CACHES = {"proxy_cache": False, "proxy_cache-nopush": True}
"""nginx as a cache, without and with tcp_nopush. Ratios are to the one that costs less."""
_FILES = 64
_SAMPLE = 6
_WARM_UP = 1


@dataclass
class Server:
    """One of those that are compared."""

    name: str
    running: nginx.Nginx | Appliance
    rounds: dict[str, list[Round]] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.running.port

    def is_hit(self, answer: Answer) -> bool:
        if isinstance(self.running, Appliance):
            return answer.field("Cache-Status").endswith("; hit")
        return self.name == STATIC or answer.field("X-Cache-Status") == "HIT"

    def fill(self, films: Films) -> None:
        if isinstance(self.running, Appliance):
            self.running.fill(films)
            return
        with Client(self.port) as client:
            for path in films.paths:
                client.get(path)
            wait_until(
                "everything is a hit",
                lambda: all(self.is_hit(client.get(path)) for path in films.paths),
                self.running.process,
            )


@dataclass(frozen=True)
class Round:
    told: Told
    cpu: float
    """Seconds of CPU of all its processes."""
    keeper_cpu: float
    """Of these, the appliance's keeper and supervisor."""

    @property
    def cost(self) -> float:
        """CPU-milliseconds per response."""
        return self.cpu / self.told.requests * 1e3


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: int
    connections: int
    workers: int
    headers: tuple[str, ...]
    shapes: tuple[Shape, ...]
    trees: dict[str, Path]
    """Packages to measure as appliances, by the name in the table."""


def measure(folder: Path, cores: Cores, plan: Plan) -> dict:
    """Raises `BenchError`. Prints each table row as it is known."""
    root = folder / "source"
    load = Load(folder / "load", on=cores.load, connections=plan.connections, headers=plan.headers)
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(nginx.static("origin", folder / "origin", root, workers=1, on=cores.load)).port
        alike = {"workers": plan.workers, "on": cores.server}
        servers = [
            Server(STATIC, stack.enter_context(nginx.static(STATIC, folder / "static", root, **alike))),
        ]
        for name, nopush in CACHES.items():
            cached = stack.enter_context(nginx.cache(name, folder / name, origin, nopush=nopush, **alike))
            servers.append(Server(name, cached))
        for name, tree in plan.trees.items():
            running = stack.enter_context(appliance(name, folder / f"oca-{name}", origin, tree=tree, **alike))
            servers.append(Server(name, running))
        films = {size: Films(root, size, _FILES) for size in {shape.size for shape in plan.shapes}}
        for server in servers:
            for some in films.values():
                server.fill(some)
        results = {}
        for shape in plan.shapes:
            for server in servers:
                _check(server, films[shape.size], shape)
                load.run(server.port, films[shape.size], shape, _WARM_UP, seed=0)
            for number in range(plan.rounds):
                for server in servers:
                    done = _round(server, load, films[shape.size], shape, plan.seconds, seed=number + 1)
                    server.rounds.setdefault(shape.name, []).append(done)
            for server in servers:
                _check(server, films[shape.size], shape)
            results[shape.name] = {server.name: _result(server, servers, shape) for server in servers}
            print(f"  {shape.name} measured", flush=True)
    return results


def told(results: dict, plan: Plan) -> str:
    head = ("object", "server", "CPU-ms", "spread", "of keeper", "responses/s", "GB/s", "p99 ms")
    head += ("/ static", "/ best proxy_cache", "target")
    rows = []
    for shape in plan.shapes:
        for name, row in results[shape.name].items():
            is_ours = name in plan.trees
            rows.append(
                (
                    shape.name,
                    name,
                    f"{row['cpu_ms']:.4f}",
                    spread(row["cpu_ms_rounds"], 4),
                    f"{row['keeper_cpu_ms']:.4f}" if is_ours else "",
                    f"{row['responses_per_second']:,.0f}",
                    f"{row['gigabytes_per_second']:.2f}",
                    f"{row['p99_ms']:.2f}",
                    f"{row['ratio_static']:.2f}",
                    f"{row['ratio_proxy_cache']:.2f} ({spread(row['ratio_proxy_cache_rounds'])})",
                    f"<= {shape.target:.1f} {reached(row['ratio_proxy_cache'], shape.target)}" if is_ours else "",
                )
            )
    return table(head, rows)


def _round(server: Server, load: Load, films: Films, shape: Shape, seconds: int, seed: int) -> Round:
    family = server.running.processes()
    workers = set(server.running.workers) if isinstance(server.running, Appliance) else set(family)
    before = {pid: cpu_seconds(pid) for pid in family}
    done = load.run(server.port, films, shape, seconds, seed)
    if server.running.processes() != family:
        raise BenchError(f"{server.name}: a process ended under load\n{server.running.process.told()}")
    spent = {pid: cpu_seconds(pid) - before[pid] for pid in family}
    return Round(done, sum(spent.values()), sum(spent[pid] for pid in family if pid not in workers))


def _check(server: Server, films: Films, shape: Shape) -> None:
    """A sample byte for byte, whole or in ranges as the load asks for it; each answer must be a hit."""
    dice = random.Random(f"{server.name} {shape.name}")
    with Client(server.port) as client:
        for path in dice.sample(films.paths, _SAMPLE):
            content = films.content(path)
            if shape.lengths is None:
                answer = client.get(path)
                is_right = answer.status == 200 and answer.body == content
            else:
                length = dice.randint(*shape.lengths)
                start = dice.randint(0, shape.size - length)
                answer = client.get(path, Range=f"bytes={start}-{start + length - 1}")
                is_right = answer.status == 206 and answer.body == content[start : start + length]
            if not is_right:
                raise BenchError(f"{server.name}: {path} ({shape.name}) has wrong bytes:\n{answer.head.decode()}")
            if not server.is_hit(answer):
                raise BenchError(f"{server.name}: {path} ({shape.name}) is not a hit:\n{answer.head.decode()}")


def _result(server: Server, servers: list[Server], shape: Shape) -> dict:
    rounds = server.rounds[shape.name]
    costs = {other.name: [r.cost for r in other.rounds[shape.name]] for other in servers}

    def ratios(name: str) -> list[float]:
        return [ours / theirs for ours, theirs in zip(costs[server.name], costs[name], strict=True)]

    best = min(CACHES, key=lambda name: median(costs[name]))
    return {
        "cpu_ms": median(costs[server.name]),
        "cpu_ms_rounds": costs[server.name],
        "keeper_cpu_ms": median([r.keeper_cpu / r.told.requests * 1e3 for r in rounds]),
        "responses_per_second": median([r.told.requests / r.told.seconds for r in rounds]),
        "gigabytes_per_second": median([r.told.bytes / r.told.seconds / 1e9 for r in rounds]),
        "p99_ms": median([r.told.p99 * 1e3 for r in rounds]),
        "ratio_static": median(ratios(STATIC)),
        "ratio_proxy_cache": median(ratios(best)),
        "ratio_proxy_cache_rounds": ratios(best),
        "best_proxy_cache": best,
    }
