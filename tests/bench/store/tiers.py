"""First bytes of nvme hits while the hdd stalls for seconds and viewers ask for what lies on it.

Three devices, each an XFS on a loop device. The image of the hdd lies on a FUSE file system of the tests' own, on
which every request takes as long as a head needs, and which gives no answer at all while it stalls. One viewer reads
what lies on the nvme device, from memory and from the disk; a crowd reads the hdd, past the page cache. Spans with a
stall, spans in which the hdd gives what it is asked for, and spans in which nobody asks it follow on each other in one
run of the appliance, each time in another order. What counts is the comparison with the better of the last two: bytes
from the hdd cost the same two cores, and would make a stall look like a relief.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oca.cache.keys import extent_key, group_of, object_key
from oca.cache.records import ExtentRecord, Label, ObjectRecord, encode, on_disk, with_block
from oca.store.device import DeviceFolder
from tests.bench.appliance import REPOSITORY, Appliance, serve_command
from tests.bench.client import Client
from tests.bench.films import KIB, MIB
from tests.bench.machine import BenchError, Cores
from tests.bench.processes import Process, ending, free_port, wait_until
from tests.bench.report import median, reached, spread, table
from tests.doubles.faulty import Act, FaultyDisk, faulty_disk
from tests.doubles.mounts import lacking, mounted

MOST: Final = 1.2
"""How many times the p99 without a stall, at the most."""
_SPANS: Final = ("unasked", "busy", "stalled")
_SEEK: Final = 0.0115
"""Seconds that each request to the hdd takes at least: a seek and half a turn."""
_FILMS: Final = {"nvme": (64, MIB), "ssd": (8, MIB), "hdd": (80, 4 * MIB)}
"""How many lie on each device, and how large."""
_PART: Final = 256 * KIB
_WARM_UP: Final = 200
_YEARS: Final = 20 * 365 * 86400.0

# The disk must stay in service: by default a read is given up after 5 s, and after three of those nobody asks it.
_SETTINGS = """
[appliance]
id = "oca-bench-1"
state_dir = "{folder}/state"
[listen]
http = "127.0.0.1:{port}"
control = "127.0.0.1:{control}"
workers = 1
[origin]
# Nothing is fetched: port 9 would refuse.
url = "http://127.0.0.1:9"
[store]
read_timeout = "1 h"
slow_read = "1 h"
"""
_DEVICE = """
[[device]]
path = "{path}"
tier = "{tier}"
capacity = "400 MiB"
"""


@dataclass(frozen=True)
class Plan:
    rounds: int = 7
    warm: int = 1500
    """Hits from memory in each span."""
    cold: int = 200
    """Hits from the disk in each span."""
    viewers: int = 16
    """Of the hdd."""
    least_stall: float = 2.0
    """Seconds."""


@dataclass(frozen=True)
class Film:
    path: str
    content: bytes
    file: Path


def measure(plan: Plan, folder: Path, cores: Cores) -> dict:
    if missing := lacking():
        raise BenchError(f"this machine lacks {missing}")
    with contextlib.ExitStack() as stack:
        slow = stack.enter_context(faulty_disk(folder / "slow"))
        slow.delay(Act.READ, seconds=_SEEK)
        films = {}
        for tier, (count, size) in _FILMS.items():
            on_slow = {"image": slow.path / "image", "direct": True} if tier == "hdd" else {}
            stack.enter_context(mounted(folder / tier, **on_slow))
            films[tier] = list(_written(folder / tier, tier, count, size))
        appliance = stack.enter_context(_appliance(folder, films, cores))
        crowd = stack.enter_context(_crowd(appliance.port, films["hdd"], plan.viewers, folder, cores))
        return _measured(plan, appliance, crowd, slow, films["nvme"])


def told(results: dict) -> str:
    rows = []
    verdicts = []
    for kind in ("warm", "cold"):
        p99 = {}
        for span in _SPANS:
            found = results[kind][span]
            p99[span] = median([one["p99"] for one in found])
            rows.append(
                (
                    f"nvme hits, {kind}",
                    f"the hdd is {span}",
                    f"{median([one['p50'] for one in found]) * 1e3:.2f}",
                    f"{p99[span] * 1e3:.2f}",
                    spread([one["p99"] * 1e3 for one in found]),
                    f"{max(one['most'] for one in found) * 1e3:.1f}",
                )
            )
        ratio = p99["stalled"] / min(p99["unasked"], p99["busy"])
        verdicts.append(f"{reached(ratio, MOST)}: {kind}, p99 <= {MOST} times that without a stall: {ratio:.2f}")
    head = ("first byte, ms", "", "p50", "p99", "p99 of rounds", "longest")
    asked = (
        f"the crowd had {results['answers']} answers from the hdd; {results['held']} of its reads waited for the end "
        f"of a stall; stalls took {spread(results['stalls'], 1)} s"
    )
    return "\n".join((table(head, rows), asked, *verdicts))


def _measured(plan: Plan, appliance: Appliance, crowd: Process, slow: FaultyDisk, films: list[Film]) -> dict:
    results: dict = {kind: {span: [] for span in _SPANS} for kind in ("warm", "cold")}
    stalls, held = [], 0
    dice = random.Random(1)
    with Client(appliance.port) as client, contextlib.ExitStack() as stack:
        viewer = _Viewer(client, films, dice, stack)
        viewer.watch(_WARM_UP, cold=False)
        viewer.watch(_WARM_UP, cold=True)
        for _ in range(plan.rounds):
            for span in dice.sample(_SPANS, len(_SPANS)):
                if span == "unasked":
                    with _standing_still(crowd):
                        wait_until("the hdd has done what it was asked", lambda: not slow.held(Act.READ), crowd)
                        _measure_span(results, span, plan, viewer)
                    continue
                if span == "busy":
                    _measure_span(results, span, plan, viewer)
                    continue
                began = time.monotonic()
                stall = slow.hold(Act.READ)
                wait_until("reads of the hdd wait", lambda: slow.held(Act.READ) > 0, crowd)
                while not (taken := time.monotonic() - began) > plan.least_stall:
                    _measure_span(results, span, plan, viewer)
                held += slow.held(Act.READ)
                slow.mend(stall)
                stalls.append(taken)
                before = _lines(crowd)
                wait_until("all have what they waited for", lambda n=before: _lines(crowd) >= n + plan.viewers, crowd)
    devices = {entry["tier"]: entry["standing"] for entry in appliance.status()["devices"]}
    if set(devices.values()) != {"online"}:
        raise BenchError(f"a device was taken out of service: {devices}")
    return {**results, "stalls": stalls, "held": held, "answers": _lines(crowd)}


def _measure_span(results: dict, span: str, plan: Plan, viewer: _Viewer) -> None:
    results["warm"][span].append(_numbers(viewer.watch(plan.warm, cold=False)))
    results["cold"][span].append(_numbers(viewer.watch(plan.cold, cold=True)))


def _numbers(seconds: list[float]) -> dict[str, float]:
    ranked = sorted(seconds)
    return {"p50": median(ranked), "p99": ranked[len(ranked) * 99 // 100], "most": ranked[-1]}


class _Viewer:
    """Of what lies on the nvme device: one connection, one request after another."""

    def __init__(self, client: Client, films: list[Film], dice: random.Random, stack: contextlib.ExitStack) -> None:
        self._client = client
        self._dice = dice
        self._films = [(film, os.open(film.file, os.O_RDONLY)) for film in films]
        for _, fd in self._films:
            stack.callback(os.close, fd)

    def watch(self, count: int, *, cold: bool) -> list[float]:
        """Seconds to the first byte of each hit."""
        seconds = []
        for _ in range(count):
            film, fd = self._dice.choice(self._films)
            at = self._dice.randrange(0, len(film.content) - _PART)
            if cold:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            answer = self._client.get(film.path, Range=f"bytes={at}-{at + _PART - 1}")
            if answer.status != 206 or answer.body != film.content[at : at + _PART]:
                raise BenchError(f"{film.path}: wrong bytes:\n{answer.head.decode()}")
            if not answer.field("Cache-Status").endswith("; hit"):
                raise BenchError(f"{film.path} is no hit: {answer.field('Cache-Status')}")
            seconds.append(answer.first_byte)
        return seconds


# --- What runs ---


@contextlib.contextmanager
def _appliance(folder: Path, films: dict[str, list[Film]], cores: Cores) -> Iterator[Appliance]:
    """It finds the devices filled, and takes over what lies there."""
    port, control = free_port(), free_port()
    settings = folder / "oca.toml"
    devices = "".join(_DEVICE.format(path=folder / tier, tier=tier) for tier in films)
    settings.write_text(_SETTINGS.format(folder=folder, port=port, control=control) + devices)
    with ending(Process("appliance", serve_command(settings), on=cores.server, log=folder / "output.log")) as process:
        appliance = Appliance(process, port, control)
        wait_until("it is ready", appliance.is_ready, process, limit=60)
        extents = sum(len(listed) for listed in films.values())
        wait_until("all is taken over", lambda: appliance.status()["extents"] == extents, process)
        yield appliance


@contextlib.contextmanager
def _crowd(port: int, films: list[Film], viewers: int, folder: Path, cores: Cores) -> Iterator[Process]:
    listed = folder / "crowd.txt"
    listed.write_text("".join(f"{film.path} {film.file}\n" for film in films))
    script = f"exec {sys.executable} -m tests.bench.store.crowd {port} {viewers} <{listed}"
    argv = ["sh", "-c", script]
    with ending(Process("crowd", argv, on=cores.load, log=folder / "crowd.log", cwd=REPOSITORY)) as crowd:
        wait_until("the crowd watches", lambda: _lines(crowd) >= viewers, crowd)
        yield crowd


@contextlib.contextmanager
def _standing_still(crowd: Process) -> Iterator[None]:
    os.kill(crowd.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(crowd.pid, signal.SIGCONT)


def _lines(crowd: Process) -> int:
    return crowd.log.read_bytes().count(b"\n")


# --- What lies on the devices ---


def _written(path: Path, tier: str, count: int, size: int) -> Iterator[Film]:
    """Films on a new device, as an appliance leaves them: what is found there is taken over."""
    device = DeviceFolder(str(path))
    device.identify()
    dice = random.Random(tier)
    for number in range(count):
        name = f"/titles/{tier}-{number:03}/v1.mp4"
        content = dice.randbytes(size)
        key = extent_key(object_key(name), 1, 0)
        described = ObjectRecord(
            name,
            1,
            size,
            etag=b'"%x"' % number,
            last_modified=1_700_000_000,
            kept={"Content-Type": "video/mp4", "Cache-Control": "public, max-age=31536000, immutable"},
            generated_at=1_700_000_000.0,
            lifetime=_YEARS,
        )
        bare = ExtentRecord(0, number, 0, b"", 0, group_of(name, size))

        def label(crc: int, described: ObjectRecord = described, bare: ExtentRecord = bare) -> bytes:
            return encode(Label(described, with_block(bare, 0, crc, on_disk(size))))

        device.write_block(key, 0, memoryview(content), 0, label)
        yield Film(name, content, Path(device.file_path(key)))
    device.close()
