"""The appliance under test: `oca serve` with a settings file of its own, on loopback."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.client import Client
from tests.bench.films import Films
from tests.bench.machine import BenchError, command
from tests.bench.processes import Process, ending, free_port, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]

_SETTINGS = """
[appliance]
id = "oca-bench-1"
state_dir = "{folder}/state"
[listen]
http = "127.0.0.1:{port}"
control = "127.0.0.1:{control}"
workers = {workers}
{listen}
[origin]
url = "http://127.0.0.1:{origin}"
[[device]]
path = "{folder}/device"
tier = "nvme"
# More than is ever written: a million records name 2 TB.
capacity = "8 TiB"
"""


class Appliance:
    """One running appliance: a supervisor, a keeper and its workers."""

    def __init__(self, process: Process, port: int, control: int) -> None:
        self.process = process
        self.port = port
        self._control = control

    def processes(self) -> list[int]:
        return self.process.family()

    def status(self) -> dict:
        with Client(self._control) as client:
            answer = client.get("/v1/status")
        if answer.status != 200:
            raise BenchError(f"/v1/status answered {answer.status}")
        return json.loads(answer.body)

    @property
    def workers(self) -> list[int]:
        return [pid for pid in self.process.family() if "oca.edge" in command(pid)]

    @property
    def keeper(self) -> int:
        return next(pid for pid in self.process.family() if "oca.keeper" in command(pid))

    def is_ready(self) -> bool:
        """All workers are connected, and the shelves have learnt what they hold."""
        with Client(self._control) as client:
            if client.get("/readyz").status != 200:
                return False
        return bool(self.status()["loaded"])

    def fill(self, films: Films) -> None:
        """Fetch everything, and wait until it is on disk and every answer is a hit."""
        with Client(self.port) as client:
            for path in films.paths:
                if client.get(path).body != films.content(path):
                    raise BenchError(f"{self.process.name}: {path} differs from the origin's while it is fetched")

            def all_hit() -> bool:
                return all(client.get(path).field("Cache-Status").endswith("; hit") for path in films.paths)

            wait_until("everything is a hit", all_hit, self.process)


def write_settings(
    folder: Path, *, port: int, control: int, origin: int, workers: int = 1, more: str = "", listen: str = ""
) -> Path:
    (folder / "device").mkdir(parents=True, exist_ok=True)
    settings = folder / "oca.toml"
    common = _SETTINGS.format(folder=folder, port=port, control=control, origin=origin, workers=workers, listen=listen)
    settings.write_text(common + more)
    return settings


def serve_command(settings: Path) -> list[str]:
    return [sys.executable, "-m", "oca", "serve", "--config", str(settings)]


@contextlib.contextmanager
def appliance(
    name: str,
    folder: Path,
    origin: int,
    *,
    on: frozenset[int],
    workers: int = 1,
    more: str = "",
    listen: str = "",
    tree: Path = REPOSITORY,
) -> Iterator[Appliance]:
    """`tree` is the folder that holds the `oca` package to run, `more` are settings besides the common ones, `listen`
    those of its table.
    """
    port, control = free_port(), free_port()
    settings = write_settings(
        folder, port=port, control=control, origin=origin, workers=workers, more=more, listen=listen
    )
    with ending(Process(name, serve_command(settings), on=on, log=folder / "output.log", cwd=tree)) as process:
        running = Appliance(process, port, control)
        wait_until("it is ready", running.is_ready, process, limit=60)
        yield running
