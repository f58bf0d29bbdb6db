"""The load: Debian's wrk with a script, one thread, keep-alive connections."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.films import Films, Shape
from tests.bench.machine import BenchError
from tests.bench.processes import pinned

_SCRIPT = Path(__file__).with_name("load.lua")

# What Chromium 130 sends when hls.js asks for a segment.
REALISTIC = (
    "Host: 127.0.0.1:8080",
    "Connection: keep-alive",
    'sec-ch-ua-platform: "Linux"',
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
    'sec-ch-ua: "Chromium";v="130", "Google Chrome";v="130", "Not?A_Brand";v="99"',
    "sec-ch-ua-mobile: ?0",
    "Accept: */*",
    "Origin: https://play.example",
    "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Mode: cors",
    "Sec-Fetch-Dest: empty",
    "Referer: https://play.example/",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.9",
)
BARE = ("Host: 127.0.0.1:8080",)


@dataclass(frozen=True)
class Told:
    """What wrk counted."""

    requests: int
    bytes: int
    seconds: float
    median: float
    """Seconds for one response."""
    p99: float


class Load:
    """Runs wrk. `folder` is for the lists that its script reads."""

    def __init__(self, folder: Path, *, on: frozenset[int], connections: int, headers: tuple[str, ...]) -> None:
        folder.mkdir()
        self._folder = folder
        self._on = on
        self._connections = connections
        self._fields = folder / "fields"
        self._fields.write_text("\n".join(headers) + "\n")

    def run(self, port: int, films: Films, shape: Shape, seconds: int, seed: int, scheme: str = "http") -> Told:
        """Raises `BenchError` if a response failed or was too short."""
        paths = self._folder / f"paths-{shape.size}"
        paths.write_text("\n".join(films.paths) + "\n")
        shortest, longest = shape.lengths or (0, 0)
        argv = ["wrk", "-t1", f"-c{self._connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(_SCRIPT)]
        argv += [f"{scheme}://127.0.0.1:{port}", "--", str(paths), str(self._fields)]
        argv += [str(shape.size), str(shortest), str(longest), str(seed)]
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, check=True, timeout=seconds + 60, preexec_fn=pinned(self._on)
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"wrk failed: {error}\n{error.stdout}\n{error.stderr}") from error
        line = next(line for line in done.stdout.splitlines() if line.startswith("TOLD "))
        told = json.loads(line.removeprefix("TOLD "))
        if told["errors"] or not told["requests"]:
            raise BenchError(f"wrk saw failing responses:\n{done.stdout}")
        if told["bytes"] < told["requests"] * (shortest or shape.size):
            raise BenchError(f"responses were shorter than {shape.name}:\n{done.stdout}")
        return Told(
            told["requests"],
            told["bytes"],
            told["microseconds"] / 1e6,
            told["median"] / 1e6,
            told["p99"] / 1e6,
        )
