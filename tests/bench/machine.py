"""What the kernel says of this machine and of its processes."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


class BenchError(Exception):
    """A measurement could not be made, or bytes were wrong; the message says which."""


@dataclass(frozen=True)
class Cores:
    """Where servers run, and where clients and origins run."""

    server: frozenset[int]
    load: frozenset[int]
    all: frozenset[int]


def cores() -> Cores:
    """The first core for servers, the second for the load. On a machine with one core both share it."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(usable[:1]), frozenset(usable[1:2] or usable[:1]), frozenset(usable))


def described() -> dict[str, str]:
    """CPU, kernel and versions, for the reader of the numbers."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("uvloop", "lmdb", "msgspec", "aiohttp"))
    return {
        "cpu": f"{cpu[1] if cpu else platform.processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{int(memory[1]) / 1024**2:.0f} GiB" if memory else "?",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_version()} ({packages})",
        "tcp": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "nginx": _first_line("nginx", "-v"),
        "wrk": _first_line("wrk", "-v").partition(" [")[0],
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads, the ended ones too.

    The same as utime + stime in /proc/PID/stat, in nanoseconds where that has steps of 10 ms: the process's CPU clock,
    whose number is made as MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) in Linux's posix-timers.h makes it.
    """
    return time.clock_gettime(~pid << 3 | 2)


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


@dataclass(frozen=True)
class Memory:
    """Bytes. `anonymous` is what the process has for itself outside the page cache and shared memory."""

    rss: int
    pss: int
    anonymous: int


def memory(pid: int) -> Memory:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return Memory(kib["Rss"] * 1024, kib["Pss"] * 1024, kib["Anonymous"] * 1024)


def _first_line(*argv: str) -> str:
    """wrk and nginx tell their version on either stream, and wrk with exit code 1."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    return ((done.stdout or done.stderr).splitlines() or ["?"])[0].removeprefix("nginx version: ")
