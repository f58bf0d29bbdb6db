"""DNS answers: CPU time of each over loopback and in process, with a ranking that costs nothing.

`python -m tests.bench.steering.dns` prints the rows. `loaded` measures any server that answers for `ZONE`, a whole
replica too. The load is a process of its own: many resolvers, each in a /24 of its own and with one question under way,
that send the subnets of many clients.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import dns.edns
import dns.message
import uvloop

from steering.dns.answerer import Answerer, Choice, Transport
from steering.dns.limiter import Limiter
from steering.dns.packets import Query, Rcode, Verdict
from steering.dns.server import Server, udp_socket
from steering.dns.settings import DnsSettings, NameServer
from steering.dns.uncommon import build_uncommon, read_uncommon
from steering.dns.zone import Zone
from tests.bench.appliance import REPOSITORY
from tests.bench.machine import BenchError, cores, cpu_seconds
from tests.bench.processes import Process, ending, pinned, wait_until
from tests.bench.report import median, spread, table

ZONE: Final = "steer.example.net"
LEAST_ANSWERS: Final = 8_000
"""A second, on one core, the ranking included."""
QUERIES: Final = 20_000
RESOLVERS: Final = 32
_MODULE: Final = "tests.bench.steering.dns"
_TITLES: Final = 2_000
_NETWORKS: Final = 1_000_000
"""Clients live in /24s from 16.0.0.0 upward."""
_ROUNDS: Final = 5
_REPLY_DEADLINE: Final = 5.0

Row = tuple[str, str, str]
"""What, how much, and what it was to be."""


@dataclass(frozen=True)
class Load:
    """One run: answers for each second of the server's CPU time, and milliseconds from question to answer."""

    answers: float
    p50: float
    p99: float


def settings() -> DnsSettings:
    """The rate limit is on and counts, and is never reached."""
    return DnsSettings(
        zone=ZONE,
        name_servers=(NameServer(f"ns1.{ZONE}", ("127.0.0.1",)),),
        hostmaster="people@example.net",
        rate_limit=1_000_000,
    )


def queries() -> list[bytes]:
    """Titles, each for the subnet of another client, as a large resolver sends them."""
    made = []
    for number in range(QUERIES):
        network = number * 7919 % _NETWORKS
        subnet = dns.edns.ECSOption(f"{16 + (network >> 16)}.{network >> 8 & 255}.{network & 255}.0", 24)
        name = f"film-{number % _TITLES}.films.{ZONE}"
        made.append(dns.message.make_query(name, "A", id=number, payload=1232, options=[subnet]).to_wire())
    return made


def rows(seconds: int = 3, rounds: int = _ROUNDS) -> list[Row]:
    """Raises `BenchError`."""
    by_hand, through_dnspython = _in_process(rounds)
    with TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        argv = [sys.executable, "-m", _MODULE, "--serve"]
        server = Process("dns", argv, on=cores().server, log=log, cwd=REPOSITORY)
        with ending(server):
            wait_until("the DNS server told its port", lambda: log.read_text().strip().isdecimal(), server)
            port = int(log.read_text())
            loaded(port, server.pid, 1)
            runs = [loaded(port, server.pid, seconds) for _ in range(rounds)]
    rates = [run.answers for run in runs]
    waits = f"{median([run.p50 for run in runs]):.2f} and {median([run.p99 for run in runs]):.2f} ms"
    return [
        ("in process, by hand", _rate(by_hand), f">= {LEAST_ANSWERS:,} a second"),
        ("in process, reading and building by dnspython", _rate(through_dnspython), ""),
        ("over UDP, a second of the server's CPU", _rate(rates), f">= {LEAST_ANSWERS:,} a second"),
        (f"p50 and p99, {RESOLVERS} questions always under way", waits, ""),
    ]


def loaded(port: int, pid: int, seconds: int) -> Load:
    """Ask the server on this port of loopback, whose process is `pid`. Raises `BenchError` for a wrong answer."""
    before = cpu_seconds(pid)
    argv = [sys.executable, "-m", _MODULE, "--ask", str(port), str(seconds)]
    done = subprocess.run(
        argv,
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        preexec_fn=pinned(cores().load),
    )
    if done.returncode:
        raise BenchError(f"the load on DNS failed: {done.stderr.strip()[-1000:]}")
    # CPU time of the server while the load only prepares is that of an idle loop: nothing to speak of.
    answers, p50, p99 = json.loads(done.stdout)
    return Load(answers / (cpu_seconds(pid) - before), p50, p99)


def _rate(rates: list[float]) -> str:
    return f"{median(rates):,.0f} ({spread(rates, 0)})"


# --- In process. ---


class _Nearest:
    """A ranking that is done already."""

    def __init__(self) -> None:
        self._choice = Choice(tuple(bytes((198, 18, 0, last)) for last in range(1, 5)), (), 30, 24)

    def choose(self, service: str, title: str | None, client: bytes, prefix: int, now: float) -> Choice | None:
        return self._choice

    def host(self, appliance: str) -> Choice | None:
        return None


def _answerer() -> Answerer:
    chosen = settings()
    limiter = Limiter(chosen.rate_limit, chosen.rate_window, chosen.slip, chosen.rate_accounts)
    return Answerer(Zone(chosen, 1), _Nearest(), chosen, limiter)


def _in_process(rounds: int) -> tuple[list[float], list[float]]:
    """Answers for a second of CPU time, the rounds of both by turns."""
    asked = queries()
    answerer = _answerer()
    zone = Zone(settings(), 1)
    verdict = Verdict(Rcode.NOERROR, addresses=tuple(bytes((198, 18, 0, last)) for last in range(1, 5)), ttl=30)

    def by_hand(number: int) -> None:
        answerer.answer(asked[number], (number * 7919 & 0xFFFFFFFF).to_bytes(4, "big"), Transport.UDP, 0.0)

    def through_dnspython(number: int) -> None:
        query = read_uncommon(asked[number])
        if not isinstance(query, Query):
            raise BenchError(f"dnspython does not read {asked[number].hex()}")
        build_uncommon(query, verdict, zone.denial, 1232, 1232)

    fast, slow = [], []
    for _ in range(rounds):
        fast.append(_each(by_hand, QUERIES))
        slow.append(_each(through_dnspython, QUERIES // 10))
    return fast, slow


def _each(what: Callable[[int], None], times: int) -> float:
    began = time.process_time()
    for number in range(times):
        what(number)
    return times / (time.process_time() - began)


# --- The server, and the load. ---


async def _serve() -> None:
    """Tell the port, then answer until the end."""
    sock = udp_socket("127.0.0.1", 0)
    port = sock.getsockname()[1]
    server = Server(_answerer(), settings(), asyncio.get_running_loop().time)
    await server.start([sock], [])
    print(port, flush=True)
    await asyncio.Event().wait()


def _ask(port: int, seconds: float) -> tuple[int, float, float]:
    """Answers, and the 50th and 99th percentile in milliseconds."""
    asked = queries()
    poll = select.epoll()
    resolvers: dict[int, socket.socket] = {}
    sent_at: dict[int, tuple[float, int]] = {}
    for number in range(RESOLVERS):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((f"127.1.{number}.1", 0))
        sock.connect(("127.0.0.1", port))
        resolvers[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
    next_query = 0
    waits: list[float] = []

    def ask(resolver: int) -> None:
        nonlocal next_query
        next_query = (next_query + 1) % QUERIES
        sent_at[resolver] = time.perf_counter(), next_query
        resolvers[resolver].send(asked[next_query])

    for resolver in resolvers:
        ask(resolver)
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        ready = poll.poll(_REPLY_DEADLINE)
        if not ready:
            raise BenchError(f"no answer within {_REPLY_DEADLINE:.0f} s")
        for resolver, _ in ready:
            reply = resolvers[resolver].recv(4096)
            at, number = sent_at[resolver]
            waits.append(time.perf_counter() - at)
            # Id, no TC, NOERROR, and at least one address.
            if reply[:2] != asked[number][:2] or reply[2] & 2 or reply[3] & 15 or reply[6:8] == b"\0\0":
                raise BenchError(f"{asked[number].hex()} was answered with {reply.hex()}")
            ask(resolver)
    poll.close()
    for sock in resolvers.values():
        sock.close()
    waits.sort()
    return len(waits), 1000 * waits[len(waits) // 2], 1000 * waits[len(waits) * 99 // 100]


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(_serve())
    elif sys.argv[1:2] == ["--ask"]:
        print(json.dumps(_ask(int(sys.argv[2]), float(sys.argv[3]))))
    else:
        print(table(("DNS", "measured", "to be"), rows()))


if __name__ == "__main__":
    main()
