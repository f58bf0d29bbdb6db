"""The processes that the demo starts, each ended and reaped when its block is left."""

import importlib.util
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from admin.errors import MachineError
from admin.processes import end, tethered
from admin.publish.encoder import Ffmpeg

_HOST: Final = "127.0.0.1"
_START_DEADLINE: Final = 60.0
# Longer than the appliance's own drain of a demo's few connections; then it is killed.
_STOP_PATIENCE: Final = 15.0
CLIP_SECONDS: Final = 40
_CLIP_DEADLINE: Final = 120.0
_TAIL_LINES: Final = 20
_MOST_ANSWER: Final = 64 * 1024


@dataclass(frozen=True)
class Origin:
    """A place in an S3 store; no `endpoint_url` is AWS. `session` and `environment` carry the credentials for it."""

    url: str
    endpoint_url: str | None
    session: boto3.Session | None
    environment: Mapping[str, str]


class Part:
    """A program of the demo that runs by itself: an appliance, or steering. It can be killed and started anew."""

    def __init__(
        self, name: str, command: Sequence[str], control: int, log: Path, environment: Mapping[str, str]
    ) -> None:
        """`control`: the port that answers /readyz or /healthz."""
        self.name = name
        self.control = control
        self._command = list(command)
        self._log = log
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_wanted = False

    def launch(self) -> None:
        """Start it, and do not wait until it is ready."""
        with self._log.open("ab") as sink:
            self._process = subprocess.Popen(
                tethered([sys.executable, "-m", *self._command], ending="TERM"),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=os.environ | self._environment,
                # Ctrl-C in the terminal is for us; we end it in our turn.
                start_new_session=True,
            )
        self._is_wanted = True

    def wait_until(self, path: str, holds: Callable[[Any], bool] = lambda _: True) -> None:
        """Until it answers this with 200 and a document of which `holds` is true. Raises MachineError."""
        until = time.monotonic() + _START_DEADLINE
        why = "no answer"
        while time.monotonic() < until:
            self.require_alive()
            try:
                status, body = _asked(self.control, path)
                if status == 200 and holds(json.loads(body)):
                    return
                why = f"{status} {body[:200].decode(errors='replace')}"
            except (OSError, HTTPException) as error:
                why = str(error)
            time.sleep(0.05)
        raise MachineError(
            f"{self.name} was not ready within {_START_DEADLINE:.0f} s ({why}); it said: {self.last_words()}"
        )

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def require_alive(self) -> None:
        """Raises MachineError, with its own last words, when it has ended without being told to."""
        if not self._is_wanted or self._process is None:
            return
        code = self._process.poll()
        if code is not None:
            raise MachineError(f"{self.name} ended by itself ({_ending(code)}); it said: {self.last_words()}")

    def last_words(self) -> str:
        """The end of what it wrote."""
        lines = self._log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return " | ".join(line.strip() for line in lines if line.strip()) or "nothing"

    def kill(self) -> None:
        """As a power cut would: it and all that it started, by SIGKILL."""
        self._is_wanted = False
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, SIGKILL)
            self._process.wait()

    def end(self) -> None:
        """Gently, and then all that is left of it."""
        self._is_wanted = False
        if self._process is not None:
            end(self._process, _STOP_PATIENCE)
            # Its workers stand in its own process group: none outlives it, even if it had to be killed.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, SIGKILL)


@contextmanager
def embedded_origin() -> Iterator[Origin]:
    """An S3 store in memory, with one empty bucket."""
    if importlib.util.find_spec("moto") is None:
        raise MachineError(
            "the demo's origin needs the package moto; pip install 'open-oca[demo]', or set OCA_DEMO_ORIGIN"
        )
    process = subprocess.Popen(
        tethered([sys.executable, "-m", "admin.demo.origin"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        port = _first_line(process)
        credentials = {"AWS_ACCESS_KEY_ID": "oca-demo", "AWS_SECRET_ACCESS_KEY": "oca-demo-secret"}
        session = boto3.Session(
            credentials["AWS_ACCESS_KEY_ID"], credentials["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1"
        )
        endpoint_url = f"http://{_HOST}:{port}"
        try:
            session.client("s3", endpoint_url=endpoint_url).create_bucket(Bucket="films")
        except (BotoCoreError, ClientError) as error:
            raise MachineError(f"the demo's origin at {endpoint_url} does not work: {error}") from error
        environment = credentials | {"AWS_DEFAULT_REGION": "us-east-1"}
        yield Origin("s3://films/catalogue", endpoint_url, session, environment)
    finally:
        end(process, patience=2)
        if process.stdout:
            process.stdout.close()


def make_clip(ffmpeg: Ffmpeg, path: Path) -> None:
    """A film that shows its own clock and frame number, with a beep each second."""
    picture = f"testsrc2=size=1280x720:rate=30:duration={CLIP_SECONDS}"
    sound = f"sine=frequency=220:beep_factor=4:sample_rate=48000:duration={CLIP_SECONDS}"
    command = [
        *(ffmpeg.path, "-hide_banner", "-nostdin", "-y", "-loglevel", "error"),
        *("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound),
        *("-c:v", "libx264", "-preset", "ultrafast", "-crf", "20", "-pix_fmt", "yuv420p", "-c:a", "aac", str(path)),
    ]
    try:
        made = subprocess.run(
            tethered(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=_CLIP_DEADLINE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"ffmpeg did not make the demo's clip within {_CLIP_DEADLINE:.0f} s") from error
    if made.returncode != 0:
        raise MachineError(f"ffmpeg could not make the demo's clip: {made.stderr.decode(errors='replace').strip()}")


def _asked(port: int, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection(_HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST_ANSWER)
    finally:
        connection.close()


def _first_line(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _START_DEADLINE)
    line = process.stdout.readline() if ready else b""
    if not line.strip().isdigit():
        raise MachineError("the demo's origin (moto) did not start; pip install 'open-oca[demo]' brings what it needs")
    return int(line)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((_HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
