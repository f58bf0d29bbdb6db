"""A whole replica with a whole fleet: how it starts, what it takes, and what an answer costs."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Final

from steering.registry.embedded import EmbeddedRegistry
from tests.bench.machine import BenchError, cores, cpu_seconds, memory
from tests.bench.processes import Process, accepts, ending, free_port, wait_until
from tests.bench.report import median, spread, table
from tests.bench.steering import dns, fleet
from tests.bench.steering.fleet import Size

LEAST_ANSWERS: Final = 5_000
"""A second, on one core."""
MOST_START: Final = 10.0
MOST_MEMORY: Final = 2 * 1024**3
_CONNECTIONS: Final = 32
_TITLES: Final = 2_000
_SCRIPT: Final = """
local paths = {}
local n = 0
for line in io.lines(LIST) do n = n + 1; paths[n] = line end
local at = 0
request = function()
  at = at % n + 1
  return wrk.format("GET", paths[at])
end
"""
KINDS: Final = {
    "json": "/v1/steer?path=/titles/film-{title}/master.m3u8&client={client}",
    "content steering": "/v1/content-steering?path=/titles/film-{title}/master.m3u8&client={client}"
    "&_HLS_pathway=a-{site}-1&_HLS_throughput=7500000",
    "redirect": "/redirect/titles/film-{title}/master.m3u8?client={client}",
}


def measure(folder: Path, size: Size, seconds: int, rounds: int) -> dict:
    """Raises `BenchError` if the replica does not start, or answers wrongly."""
    state_dir = folder / "state"
    state_dir.mkdir(parents=True)

    async def prepared() -> None:
        async with EmbeddedRegistry(str(state_dir / "registry.sqlite"), time.time) as registry:
            await registry.change(*fleet.changes(size), who="bench", why="bench")
        await fleet.saved(state_dir / "view", size)

    asyncio.run(prepared())
    public, appliances, admin, resolvers = free_port(), free_port(), free_port(), free_port()
    config = folder / "steering.toml"
    config.write_text(fleet.settings(folder, public, appliances, admin, resolvers))
    began = time.monotonic()
    server = Process(
        "steering",
        [sys.executable, "-m", "steering", "serve", "--config", str(config)],
        on=cores().server,
        log=folder / "steering.log",
    )
    with ending(server):
        wait_until("steering answers", lambda: accepts(public), server, 120.0)
        result: dict = {"start": time.monotonic() - began, "start_cpu": cpu_seconds(server.pid)}
        for name, pattern in KINDS.items():
            urls = folder / "urls"
            lines = _asked(pattern, size)
            urls.write_text("\n".join(lines) + "\n")
            _check(public, lines[0], name)
            _load(folder, urls, public, 2)
            runs = []
            for _ in range(rounds):
                before = cpu_seconds(server.pid)
                answers, p50, p99 = _load(folder, urls, public, seconds)
                runs.append((answers / (cpu_seconds(server.pid) - before), p50, p99))
            result[name] = runs
        result["dns"] = [dns.loaded(resolvers, server.pid, seconds) for _ in range(rounds)]
        result["memory"] = memory(server.pid).rss
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        result["decisions"] = sum(
            float(value) for value in re.findall(r"^oca_steering_decisions_total\{.*\} (\S+)$", text, re.MULTILINE)
        )
    return result


def told(result: dict) -> str:
    rows = []
    for name in KINDS:
        rates = [rate for rate, _, _ in result[name]]
        rate = median(rates)
        rows.append(
            (
                name,
                f"{rate:,.0f}",
                spread(rates, 0),
                f"{median([p50 for _, p50, _ in result[name]]):.2f}",
                f"{median([p99 for _, _, p99 in result[name]]):.2f}",
                "reached" if rate >= LEAST_ANSWERS else "missed",
            )
        )
    answers = [load.answers for load in result["dns"]]
    rows.append(
        (
            "DNS",
            f"{median(answers):,.0f}",
            spread(answers, 0),
            f"{median([load.p50 for load in result['dns']]):.2f}",
            f"{median([load.p99 for load in result['dns']]):.2f}",
            f"{'reached' if median(answers) >= dns.LEAST_ANSWERS else 'missed'} (≥ {dns.LEAST_ANSWERS:,})",
        )
    )
    head = ("asked by", "answers a CPU-second", "min-max", "p50 ms", "p99 ms", f"≥ {LEAST_ANSWERS:,}")
    start, taken = result["start"], result["memory"]
    return (
        table(head, rows)
        + f"\nstart: {start:.1f} s (≤ {MOST_START:.0f}: {'reached' if start <= MOST_START else 'missed'})"
        + f"; memory: {taken / 2**30:.2f} GiB (≤ 2: {'reached' if taken <= MOST_MEMORY else 'missed'})"
        + f"; {_CONNECTIONS} connections, which wait in line: p50 and p99 are of a full server"
    )


def _asked(pattern: str, size: Size) -> list[str]:
    lines = []
    for number in range(20_000):
        index = number * 7919 % (size.sites * size.prefixes)
        lines.append(pattern.format(title=number % _TITLES, client=fleet.address(index), site=index // size.prefixes))
    return lines


def _check(port: int, path: str, kind: str) -> None:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=10) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        if kind != "redirect" or error.code != 302 or ".edge.example/" not in error.headers["Location"]:
            raise BenchError(f"{kind}: {path}: status {error.code}") from error
        return
    said = json.loads(body)
    names = said.get("PATHWAY-PRIORITY") or [option["id"] for option in said["options"]]
    if len(names) < 4 or names[-1] != "origin":
        raise BenchError(f"{kind}: {path}: answered {names}")


def _load(folder: Path, urls: Path, port: int, seconds: int) -> tuple[int, float, float]:
    """Answers, and the 50th and 99th percentile in milliseconds."""
    script = folder / "load.lua"
    script.write_text(_SCRIPT.replace("LIST", json.dumps(str(urls))))
    argv = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script)]
    load = min(cores().load)
    done = subprocess.run(
        ["taskset", "-c", str(load), *argv, f"http://127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if done.returncode or "Non-2xx" in done.stdout:
        raise BenchError(f"wrk saw failing answers:\n{done.stdout}{done.stderr}")
    answers = int(re.search(r"(\d+) requests in", done.stdout)[1])
    return answers, _ms(done.stdout, "50%"), _ms(done.stdout, "99%")


def _ms(text: str, percentile: str) -> float:
    found = re.search(rf"^\s*{percentile}\s+([\d.]+)(us|ms|s)", text, re.MULTILINE)
    assert found is not None
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]
