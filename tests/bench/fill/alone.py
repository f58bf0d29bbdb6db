"""One agent: how fast it fills its appliance beside curl from the same source, and what viewers feel of it meanwhile.

curl fetches the same files from the same nginx, four at a time, to the same file system, and syncs it. The agent does
more: its appliance compares sums, writes durably, reads all of it back and compares SHA-256. Rounds alternate.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fill.agent.journal import Journal
from fill.bucket import Bucket
from tests.bench import nginx
from tests.bench.client import Client
from tests.bench.fill.orders import Library
from tests.bench.machine import BenchError, cores
from tests.bench.report import spread
from tests.doubles import networks
from tests.doubles.agents import Agent
from tests.doubles.appliance import Appliance
from tests.doubles.s3 import S3Server, moto

LEAST_OF_CURL: Final = 0.8
MOST_FIRST_BYTE: Final = 1.2
_FILMS: Final = 8
_OBJECTS: Final = (16 << 20,) * 8
_CAP: Final = "200 Mbit/s"
"""Of the fill that viewers feel."""
_LINK: Final = "1gbit"
_SECONDS: Final = 10.0
_RATE: Final = 100.0
"""Viewers' requests a second."""


def measure(folder: Path, rounds: int) -> dict:
    for program in ("nginx", "curl"):
        if shutil.which(program) is None:
            raise BenchError(f"not found on PATH: {program}. On Debian: apt install {program}")
    films = Library()
    for at in range(_FILMS):
        films.make(f"film-{at}", _OBJECTS)
    root = folder / "root"
    for path, content in (films.contents | films.documents).items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    os.environ.update(S3Server.environment())
    found: dict = {"bytes": films.bytes}
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(nginx.static("source", folder / "nginx", root, workers=1, on=cores().all))
        server = stack.enter_context(moto(folder))
        bucket = Bucket("s3://films", server.endpoint_url)
        found["loopback"] = _rounds(folder, f"http://127.0.0.1:{source.port}", films, bucket, server, rounds)
        url = f"http://127.0.0.1:{source.port}"
        found["quiet"], found["busy"] = _viewers(folder / "viewed", url, films, bucket, server, rounds)
    if os.geteuid() == 0 and not networks.lacking():
        found["link"] = _over_a_link(folder / "linked", root, films, rounds)
    return found


def _rounds(
    folder: Path, url: str, films: Library, bucket: Bucket, server: S3Server, rounds: int
) -> dict[str, list[float]]:
    """Bytes a second of curl and agent, in turns."""
    curls, agents = [], []
    for at in range(rounds):
        curls.append(films.bytes / _curl(folder / f"curl-{at}", url, films))
        agents.append(films.bytes / _agent(folder / f"box-{at}", url, films, bucket, server))
    return {"curl": curls, "agent": agents}


def _over_a_link(folder: Path, root: Path, films: Library, rounds: int) -> dict[str, list[float]]:
    """The same with the source on a machine of its own, behind a cable of a gigabit a second."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        far, near = stack.enter_context(networks.machine()), stack.enter_context(networks.machine())
        networks.connect(far, near, ["10.8.0.1/30"], ["10.8.0.2/30"])
        far.run(*f"tc qdisc add dev cable0 root tbf rate {_LINK} burst 256kb latency 20ms".split())
        with far.entered():
            more = {"workers": 1, "on": cores().all, "address": "0.0.0.0"}
            source = stack.enter_context(nginx.static("far", folder / "nginx", root, **more))
        with near.entered():
            server = stack.enter_context(moto(folder))
            bucket = Bucket("s3://films", server.endpoint_url)
            return _rounds(folder, f"http://10.8.0.1:{source.port}", films, bucket, server, rounds)


def _curl(folder: Path, url: str, films: Library) -> float:
    """Seconds."""
    folder.mkdir()
    config = folder / "config"
    config.write_text(
        "".join(f'url = "{url}{path}"\noutput = "{folder}/{at}"\n' for at, path in enumerate(films.contents))
    )
    began = time.monotonic()
    subprocess.run(
        [
            "curl",
            "--silent",
            "--no-progress-meter",
            "--fail",
            "--parallel",
            "--parallel-max",
            "4",
            "--config",
            str(config),
        ],
        check=True,
    )
    subprocess.run(["sync", "--file-system", str(folder)], check=True)
    seconds = time.monotonic() - began
    shutil.rmtree(folder)
    return seconds


@contextlib.contextmanager
def _box(folder: Path, url: str) -> Iterator[Appliance]:
    box = Appliance(folder, url, name="box")
    try:
        box.devices = [folder / "device"]
        box.start(device=[{"path": str(folder / "device"), "tier": "nvme", "capacity": "8 GiB"}], listen={"workers": 1})
        yield box
    finally:
        box.kill_all()


def _agent(folder: Path, url: str, films: Library, bucket: Bucket, server: S3Server) -> float:
    """Seconds from when it began with its order until it was done."""
    with _box(folder, url) as box:
        films.order(bucket, {"box": ("s", box.url)}, "s")
        agent = _agent_of(folder / "agent", box, server, "100 Gbit/s")
        if agent.once():
            raise BenchError(f"the agent failed:\n{agent.told()[-2000:]}")
        journal = Journal(folder / "agent" / "agent" / "journal")
        journal.close()
        state = journal.state
        if state.finished_at is None or len(state.done) != _FILMS:
            raise BenchError(f"the agent did not bring all:\n{agent.told()[-2000:]}")
        seconds = state.finished_at - state.began_at
    shutil.rmtree(folder)
    return seconds


def _agent_of(folder: Path, box: Appliance, server: S3Server, most: str) -> Agent:
    return Agent(
        folder,
        "box",
        f"http://127.0.0.1:{box.control_port}",
        "s3://films",
        server.endpoint_url,
        rate={"most": most, "renditions": 2, "objects": 4},
    )


def _viewers(
    folder: Path, url: str, films: Library, bucket: Bucket, server: S3Server, rounds: int
) -> tuple[list[float], list[float]]:
    """First bytes of warm hits, in seconds: the 99th of a hundred, without and with fill, round by round."""
    quiet, busy = [], []
    with _box(folder, url) as box:
        warm = next(iter(films.contents))
        with Client(box.port) as client:
            client.get(warm)
        box.wait_stored(warm)
        for at in range(rounds):
            quiet.append(_p99(box, warm))
            # All of it comes anew.
            for path in films.contents:
                if path != warm:
                    box.purge(path)
            films.order(bucket, {"box": ("s", box.url)}, "s", night=f"2026-01-{1 + at:02}")
            agent = _agent_of(folder / f"agent-{at}", box, server, _CAP).start("--once")
            try:
                while "renditions to bring" not in agent.told():
                    time.sleep(0.05)
                busy.append(_p99(box, warm))
                assert agent.process is not None
                if agent.process.poll() is not None:
                    raise BenchError("the fill was over before the viewers were")
            finally:
                agent.stop()
    return quiet, busy


def _p99(box: Appliance, path: str) -> float:
    found: list[float] = []
    lock = threading.Lock()

    def watch(seed: int) -> None:
        with Client(box.port) as client:
            began = time.monotonic()
            for at in range(int(_SECONDS * _RATE / 4)):
                due = began + (at + seed / 4) * 4 / _RATE
                time.sleep(max(0.0, due - time.monotonic()))
                start = (at * 7919 % 200) << 16
                answer = client.get(path, Range=f"bytes={start}-{start + 65535}")
                with lock:
                    found.append(answer.first_byte)

    viewers = [threading.Thread(target=watch, args=(seed,)) for seed in range(4)]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    return statistics.quantiles(found, n=100)[98]


def told(row: dict) -> str:
    lines = [f"{row['bytes'] / 1e6:,.0f} MB in {_FILMS} renditions"]
    for name, words in (("link", f"over a cable of {_LINK}"), ("loopback", "over loopback, as fast as it can")):
        if name not in row:
            lines.append(f"{words}: not measured (needs root and network namespaces)")
            continue
        curl, agent = row[name]["curl"], row[name]["agent"]
        ratios = [mine / its for mine, its in zip(agent, curl, strict=True)]
        ratio = statistics.median(ratios)
        lines.append(
            f"{'reached' if ratio >= LEAST_OF_CURL else 'missed'}: {words}: curl {_mb(curl)}, agent {_mb(agent)}:"
            f" {ratio:.2f} (>= {LEAST_OF_CURL}), {spread(ratios)}"
        )
    slower = [busy / quiet for busy, quiet in zip(row["busy"], row["quiet"], strict=True)]
    slow = statistics.median(slower)
    lines.append(
        f"{'reached' if slow <= MOST_FIRST_BYTE else 'missed'}: viewers' 99th first byte"
        f" {statistics.median(row['quiet']) * 1e3:.2f} ms without fill, {statistics.median(row['busy']) * 1e3:.2f} ms"
        f" while it runs at {_CAP}: {slow:.2f} times as long (<= {MOST_FIRST_BYTE}), {spread(slower)}"
    )
    return "\n".join(lines)


def _mb(rates: list[float]) -> str:
    return f"{statistics.median(rates) / 1e6:,.0f} MB/s"
