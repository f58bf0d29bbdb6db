"""What signed access costs: the gate alone, and a response with and without it, in turns in one run."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from oca.counters import COUNTERS_BYTES
from oca.edge.access import Gate
from oca.edge.tally import Tally
from oca.http.request import parse_head
from oca.settings import parse_settings
from oca.store.board import new_memory
from tests.bench import nginx
from tests.bench.appliance import Appliance, appliance
from tests.bench.films import KIB, Films, Shape
from tests.bench.load import REALISTIC, Load
from tests.bench.machine import BenchError, Cores, cpu_seconds
from tests.bench.report import median, spread, table
from tests.doubles.keys import new_key, token_for
from wire.token import Algorithm, SigningKey, key_set, open_token

_VIEWERS = 64
"""Tokens in turns: nobody's is the one that was looked at last."""
_SEGMENT = "/titles/big-film/video-720p.abc/seg_00012.m4s"
LOADED = Shape("16 KiB", 16 * KIB)
_REMEMBERED = 20_000
_VERIFIED = 500

_SETTINGS = """
[appliance]
id = "oca-bench-1"
state_dir = "{folder}"
[origin]
url = "http://127.0.0.1:1"
[[device]]
path = "/nowhere"
tier = "nvme"
capacity = "1 GiB"
"""
_ACCESS = """
[access]
required = true
keys = "{folder}/keys.json"
public_paths = ["/posters"]
"""


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: int
    connections: int


def measure(folder: Path, cores: Cores, plan: Plan) -> dict:
    """Raises `BenchError`."""
    keys = {algorithm: new_key(f"key-{algorithm}", algorithm) for algorithm in Algorithm}
    (folder / "keys.json").write_bytes(key_set([key.public() for key in keys.values()]))
    return {"gate": _gate(folder, keys, plan), "responses": _responses(folder, keys[Algorithm.ES256], cores, plan)}


def told(results: dict) -> str:
    gate = table(
        ("the gate alone, a request", "", "CPU-us", "spread"),
        [(name, "", f"{median(rounds):.2f}", spread(rounds)) for name, rounds in results["gate"].items()],
    )
    plain = results["responses"]["no token needed"]
    responses = table(
        (f"a warm response of {LOADED.name}", "", "CPU-us", "spread", "/ no token needed"),
        [
            (name, "", f"{median(rounds):.1f}", spread(rounds, 1), f"{ratio(rounds, plain):.2f}")
            for name, rounds in results["responses"].items()
        ],
    )
    return f"{gate}\n\n{responses}"


def ratio(rounds: list[float], plain: list[float]) -> float:
    return median([one / other for one, other in zip(rounds, plain, strict=True)])


# --- The gate alone ---------------------------------------------------------------------------------------------------


def _gate(folder: Path, keys: dict[Algorithm, SigningKey], plan: Plan) -> dict[str, list[float]]:
    """CPU-microseconds by what is asked."""
    counters = new_memory("bench-counters", COUNTERS_BYTES)
    gate = Gate(parse_settings((_SETTINGS + _ACCESS).format(folder=folder), ""), Tally(counters, 0))
    gate.look()
    public = {key.kid: key.public() for key in keys.values()}
    es256, eddsa = keys[Algorithm.ES256], keys[Algorithm.EDDSA]
    tokens = [token_for("/titles/big-film", es256, sub=f"viewer-{viewer}") for viewer in range(_VIEWERS)]
    bound = [token_for("/titles/big-film", es256, sub=f"v-{v}", oca_net="127.0.0.0/8") for v in range(_VIEWERS)]
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        sock, _ = server.accept()

        def admitting(targets: list[str], *cookies: str) -> Callable[[int], object]:
            fields = [f"Host: oca.example:8080\r\n{cookie}" for cookie in cookies or ("",)]
            heads = [
                f"GET {target} HTTP/1.1\r\n{fields[number % len(fields)]}\r\n" for number, target in enumerate(targets)
            ]
            requests = [parse_head(head.encode(), 100) for head in heads]
            return lambda number: gate.admit(requests[number % len(requests)], sock)

        def verifying(key: SigningKey) -> Callable[[int], object]:
            token = token_for("/titles/big-film", key).encode()
            return lambda _: open_token(token, public, time.time())

        cookies = [f"Cookie: URISigningPackage={token}\r\n" for token in tokens]
        ways = {
            "public path": (_REMEMBERED, admitting(["/posters/big-film.jpg"])),
            "remembered, in the query": (_REMEMBERED, admitting([f"{_SEGMENT}?URISigningPackage={t}" for t in tokens])),
            "remembered, before the path": (
                _REMEMBERED,
                admitting([f"/URISigningPackage={token}{_SEGMENT}" for token in tokens]),
            ),
            "remembered, in a cookie": (_REMEMBERED, admitting([_SEGMENT] * _VIEWERS, *cookies)),
            "remembered, bound to a network": (
                _REMEMBERED,
                admitting([f"{_SEGMENT}?URISigningPackage={token}" for token in bound]),
            ),
            "verified anew, ES256": (_VERIFIED, verifying(es256)),
            "verified anew, EdDSA": (_VERIFIED, verifying(eddsa)),
        }
        results: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(plan.rounds):
            for name, (count, way) in ways.items():
                results[name].append(_cpu(way, count))
        sock.close()
        client.close()
    os.close(counters)
    return results


def _cpu(way: Callable[[int], object], count: int) -> float:
    for number in range(_VIEWERS):
        way(number)
    began = time.process_time()
    for number in range(count):
        way(number)
    return (time.process_time() - began) / count * 1e6


def cpu_of(ways: Mapping[str, tuple[Appliance, Load, Films]], shape: Shape, plan: Plan) -> dict[str, list[float]]:
    """CPU-microseconds of all processes for a response, for each way of asking, in turns. Raises `BenchError`."""
    results: dict[str, list[float]] = {name: [] for name in ways}
    for running, way, asked in ways.values():
        way.run(running.port, asked, shape, 1, seed=0)
    for number in range(plan.rounds):
        for name, (running, way, asked) in ways.items():
            family = running.processes()
            before = sum(cpu_seconds(pid) for pid in family)
            done = way.run(running.port, asked, shape, plan.seconds, seed=number + 1)
            if running.processes() != family:
                raise BenchError(f"{name}: a process ended under load\n{running.process.told()}")
            results[name].append((sum(cpu_seconds(pid) for pid in family) - before) / done.requests * 1e6)
    return results


# --- Whole responses --------------------------------------------------------------------------------------------------


def _responses(folder: Path, key: SigningKey, cores: Cores, plan: Plan) -> dict[str, list[float]]:
    """CPU-microseconds of all processes for a response, by where the token is."""
    root = folder / "source"
    films = Films(root, LOADED.size, _VIEWERS)
    tokens = [token_for("/films", key, sub=path) for path in films.paths]
    shared = token_for("/films", key)
    cookie = f"Cookie: URISigningPackage={shared}"
    pairs = list(zip(films.paths, tokens, strict=True))
    in_query = films.asked_as([f"{path}?URISigningPackage={token}" for path, token in pairs])
    in_path = films.asked_as([f"/URISigningPackage={token}{path}" for path, token in pairs])
    load = Load(folder / "load", on=cores.load, connections=plan.connections, headers=REALISTIC)
    with_cookie = Load(
        folder / "load-cookie", on=cores.load, connections=plan.connections, headers=(*REALISTIC, cookie)
    )
    alike = {"on": cores.server}
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(nginx.static("origin", folder / "origin", root, workers=1, on=cores.load)).port
        public = stack.enter_context(appliance("public", folder / "oca-public", origin, **alike))
        public.fill(films)
        more = _ACCESS.format(folder=folder)
        guarded = stack.enter_context(appliance("guarded", folder / "oca-guarded", origin, more=more, **alike))
        guarded.fill(in_path)
        ways = {
            "no token needed": (public, load, films),
            "token in the query": (guarded, load, in_query),
            "token before the path": (guarded, load, in_path),
            "token in a cookie": (guarded, with_cookie, films),
        }
        return cpu_of(ways, LOADED, plan)
