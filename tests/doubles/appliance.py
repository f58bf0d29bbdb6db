"""A real appliance: `python -m oca serve` in a folder of its own, with its processes, ports, metrics and log."""

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.doubles.wire import Wire

PATIENCE = 30.0
"""Seconds until a condition that never comes fails the test. No test says how fast something is."""
_FIRST_LOOK, _LAST_LOOK = 0.005, 0.1
BLOCK = 4 * 1024 * 1024
EXTENT = 16 * BLOCK

DEFAULTS: dict[str, dict[str, Any]] = {
    "http": {"drain_timeout": "20 s"},
    # Gates hold bodies back for as long as a busy machine takes over a test's next line.
    "fetch": {"connect_timeout": "2 s", "stall_timeout": "20 s", "total_deadline": "40 s", "retry_delay": "10 ms"},
    # Tests lie a lot: the breaker has tests of its own.
    "breaker": {"min_calls": 100_000},
}


def wait_until(holds: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Look again and again until `holds()` is true; returns what it said."""
    deadline = time.monotonic() + patience
    pause = _FIRST_LOOK
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if found := holds():
                return found
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(pause)
        pause = min(2 * pause, _LAST_LOOK)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@dataclass
class Got:
    """A whole answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        return self.headers[name]

    @property
    def cache_status(self) -> str:
        return self.headers["Cache-Status"] or ""

    @property
    def is_hit(self) -> bool:
        return self.cache_status.endswith("; hit")

    def json(self) -> Any:
        return json.loads(self.body)


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum over all samples of this name with these labels."""
        return sum(s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items())

    def has(self, name: str) -> bool:
        return any(s.name == name for s in self._samples)


class Appliance:
    """`overrides` are tables of the settings file: {"http": {"idle_timeout": "1 s"}, "parents": [{"url": ...}]}."""

    def __init__(self, folder: Path, origin: str, *, name: str = "oca-test", env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.name = name
        self.port = free_port()
        self.control_port = free_port()
        self.devices = [folder / "device"]
        self.config = folder / "oca.toml"
        self.log = folder / "log"
        self.tls: ssl.SSLContext | None = None
        """How films are asked for by `get` and `wire`, at `tls_port`; None: without TLS."""
        self.tls_port = free_port()
        self.fleet_port = free_port()
        self.program = [sys.executable, "-m", "oca"]
        self.process: subprocess.Popen[bytes] | None = None
        self._origin = origin
        self._env = {**os.environ, **(env or {})}
        self._known_pids: set[int] = set()
        self._sessions: set[int] = set()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    # --- Settings and life --------------------------------------------------------------------------------------------

    def write_settings(self, **overrides: Any) -> None:
        tables: dict[str, Any] = {
            "appliance": {"id": self.name, "state_dir": str(self.state_dir)},
            "listen": {"http": f"127.0.0.1:{self.port}", "control": f"127.0.0.1:{self.control_port}", "workers": 2},
            "origin": {"url": self._origin},
            "device": [{"path": str(path), "tier": "nvme", "capacity": "1 GiB"} for path in self.devices],
        }
        for name in dict.fromkeys((*DEFAULTS, *overrides)):
            given = overrides.get(name, {})
            if isinstance(given, list):
                tables[name] = given
            else:
                tables[name] = {**tables.get(name, {}), **DEFAULTS.get(name, {}), **given}
        self.config.write_text(as_toml(tables))

    def start(self, **overrides: Any) -> "Appliance":
        """Start and wait until /readyz says that players may come."""
        self.launch(**overrides)
        self.wait_ready()
        return self

    def launch(self, **overrides: Any) -> None:
        """Start, and wait for nothing."""
        if overrides or not self.config.exists():
            self.write_settings(**overrides)
        with self.log.open("ab") as log:
            # A session of its own: whatever it leaves behind can be found and ended.
            self.process = subprocess.Popen(
                [*self.program, "serve", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )
        self._sessions.add(self.process.pid)

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.tail()}"
            # Of an appliance whose supervisor was killed, the orphans may still answer for a moment.
            return self.control("GET", "/readyz").status == 200 and all(
                _parent_of(pid) == self.process.pid for pid in self.workers().values()
            )

        wait_until(is_ready, "the appliance is ready")

    def stop(self) -> None:
        """End it gently, and insist on a clean end and a clean log."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        assert code == 0, f"exit code {code}:\n{self.tail()}"
        self.process = None
        wait_until(lambda: not self.session_pids(), "no process is left behind")
        self.assert_clean_log()

    def assert_clean_log(self) -> None:
        text = self.log.read_text(errors="replace")
        assert "Traceback" not in text, self.tail()

    def kill_all(self) -> None:
        """As a power cut would: every process at once."""
        for _ in range(100):
            pids = self.session_pids()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.process is not None:
                self.process.wait(PATIENCE)
                self.process = None
            if not pids:
                return
            time.sleep(_FIRST_LOOK)

    def tail(self, lines: int = 60) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    # --- Processes ----------------------------------------------------------------------------------------------------

    def session_pids(self) -> set[int]:
        """All living processes that this appliance started."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if fields[0] != "Z" and int(fields[3]) in self._sessions:
                    found.add(int(stat.parent.name))
        return found

    def _running(self, module: str) -> list[int]:
        found = []
        for pid in self.session_pids():
            with contextlib.suppress(OSError):
                if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    found.append(pid)
        return sorted(found)

    @property
    def keeper_pids(self) -> list[int]:
        return self._running("oca.keeper")

    @property
    def worker_pids(self) -> list[int]:
        """All edge processes, those that only finish their responses included."""
        return self._running("oca.edge")

    def accepts(self, pid: int) -> bool:
        """Whether a process has a listening socket of the film port open."""
        address = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}:{self.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = {f"socket:[{row[9]}]" for row in rows if row[1] == address and row[3] == "0A"}
        with contextlib.suppress(FileNotFoundError):
            return any(os.readlink(fd) in listening for fd in Path(f"/proc/{pid}/fd").iterdir())
        return False

    def workers(self) -> dict[str, int]:
        """Process ids of the workers that the keeper knows, by number."""
        return {number: worker["pid"] for number, worker in self.status()["workers"].items()}

    # --- Talking to it ------------------------------------------------------------------------------------------------

    def control(self, method: str, path: str, body: Any = None) -> Got:
        """Ask the control listener; a body that is not bytes is sent as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        return exchange(self.control_port, method, path, {}, body)

    def status(self) -> Any:
        return self.control("GET", "/v1/status").json()

    def metrics(self) -> Metrics:
        return Metrics(self.control("GET", "/metrics").body.decode())

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics().value(name, **labels)

    def held(self, path: str) -> Any:
        return self.control("GET", f"/v1/objects?path={path}").json()

    def get(self, path: str, method: str = "GET", **headers: str) -> Got:
        """One request on a connection of its own. Header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.tls is not None:
            return exchange(self.tls_port, method, path, named, tls=self.tls)
        return exchange(self.port, method, path, named, None)

    def span(self, path: str, start: int, stop: int) -> Got:
        return self.get(path, Range=f"bytes={start}-{stop - 1}")

    def wire(self, receive_buffer: int | None = None) -> Wire:
        """A raw connection to the film port."""
        return Wire(self.port if self.tls is None else self.tls_port, receive_buffer, self.tls)

    def purge(self, path: str) -> None:
        assert self.control("POST", "/v1/purge", {"path": path}).status == 200

    def wait_stored(self, path: str) -> None:
        """Until every block of an object lies on a device."""

        def is_stored() -> bool:
            found = self.held(path)
            return found["held"] and found["blocks"] == found["blocks_held"]

        wait_until(is_stored, f"{path} is stored")

    def wait_landed(self) -> None:
        wait_until(lambda: self.status()["flights"] == 0, "nothing is in flight")

    def extent_files(self) -> list[Path]:
        return [path for device in self.devices for path in (device / "extents").rglob("*") if path.is_file()]


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def exchange(
    port: int,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> Got:
    connection = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=tls)
    )
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return Got(response.status, response.headers, response.read())
    finally:
        connection.close()


def as_toml(tables: dict[str, Any]) -> str:
    """Tables of plain values, and arrays of such tables, as TOML."""
    lines: list[str] = []
    for name, table in tables.items():
        for one in table if isinstance(table, list) else [table]:
            lines.append(f"[[{name}]]" if isinstance(table, list) else f"[{name}]")
            lines += [f"{key} = {_toml_value(value)}" for key, value in one.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    """A JSON string, number, boolean or list of these is written alike in TOML; a table in a list is not."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml_value(one)}' for key, one in value.items())} }}"
    return json.dumps(value)


def command(appliance: Appliance, *words: str) -> tuple[int, str, str]:
    """`oca` with these words, as an operator runs it: its exit code, what it printed, and its complaints."""
    done = subprocess.run(
        [sys.executable, "-m", "oca", *words, "--config", str(appliance.config)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr
