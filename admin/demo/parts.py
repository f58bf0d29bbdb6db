"""The processes that the demo starts, each ended and reaped when its block is left."""

import importlib.util
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGKILL
from typing import Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from admin.errors import MachineError
from admin.processes import end, tethered
from admin.publish.encoder import Ffmpeg

APPLIANCE_ID: Final = "oca-demo-1"

_HOST: Final = "127.0.0.1"
_START_DEADLINE: Final = 60.0
# Longer than the appliance's own drain of a demo's few connections; then it is killed.
_STOP_PATIENCE: Final = 15.0
_CLIP_SECONDS: Final = 24
_CLIP_DEADLINE: Final = 120.0
_TAIL_LINES: Final = 20


@dataclass(frozen=True)
class Origin:
    """A place in an S3 store; no `endpoint_url` is AWS. `session` and `environment` carry the credentials for it."""

    url: str
    endpoint_url: str | None
    session: boto3.Session | None
    environment: Mapping[str, str]


class Appliance:
    """One running `oca serve`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, http: int, control: int) -> None:
        self._process = process
        self._log = log
        self.process_id = process.pid
        self.url = f"http://{_HOST}:{http}"
        self.control = control

    def require_alive(self) -> None:
        """Raises MachineError, with its own last words, when the appliance has ended."""
        code = self._process.poll()
        if code is not None:
            raise MachineError(f"the appliance ended by itself ({_ending(code)}); it said: {self.last_words()}")

    def last_words(self) -> str:
        """The end of what it wrote."""
        lines = self._log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return " | ".join(line.strip() for line in lines if line.strip()) or "nothing"


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
    """A film of 24 s that shows its own clock and frame number, with a beep each second."""
    picture = f"testsrc2=size=1280x720:rate=30:duration={_CLIP_SECONDS}"
    sound = f"sine=frequency=220:beep_factor=4:sample_rate=48000:duration={_CLIP_SECONDS}"
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


@contextmanager
def appliance(folder: Path, origin: Origin) -> Iterator[Appliance]:
    """One appliance on embedded defaults that fetches from `origin`, ready to serve."""
    http, control = _free_ports(2)
    settings = folder / "oca.toml"
    device = folder / "nvme0"
    device.mkdir()
    settings.write_text(_settings(folder, device, origin, http, control))
    log = folder / "oca.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            tethered([sys.executable, "-m", "oca", "serve", "--config", str(settings)], ending="TERM"),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=os.environ | origin.environment,
            # Ctrl-C in the terminal is for us; we end the appliance in our turn.
            start_new_session=True,
        )
        try:
            running = Appliance(process, log, http, control)
            _wait_until_ready(running)
            yield running
        finally:
            end(process, _STOP_PATIENCE)
            # Its workers stand in its own process group: none outlives it, even if it had to be killed.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, SIGKILL)


def _settings(folder: Path, device: Path, origin: Origin, http: int, control: int) -> str:
    endpoint = f"endpoint_url = {_quoted(origin.endpoint_url)}\n" if origin.endpoint_url else ""
    return f"""\
[appliance]
id = {_quoted(APPLIANCE_ID)}
state_dir = {_quoted(str(folder / "state"))}
[listen]
http = "{_HOST}:{http}"
control = "{_HOST}:{control}"
workers = 2
[origin]
url = {_quoted(origin.url)}
{endpoint}[[device]]
path = {_quoted(str(device))}
tier = "nvme"
capacity = "4 GiB"
"""


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, but for surrogate pairs (so no \\u escapes) and DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _wait_until_ready(running: Appliance) -> None:
    until = time.monotonic() + _START_DEADLINE
    why = "no answer"
    while time.monotonic() < until:
        running.require_alive()
        try:
            status, why = _asked(running.control, "/readyz")
            if status == 200:
                return
        except (OSError, HTTPException) as error:
            why = str(error)
        time.sleep(0.05)
    raise MachineError(
        f"the appliance was not ready within {_START_DEADLINE:.0f} s ({why}); it said: {running.last_words()}"
    )


def _asked(port: int, path: str) -> tuple[int, str]:
    connection = HTTPConnection(_HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, f"{answer.status} {answer.read(200).decode(errors='replace')}"
    finally:
        connection.close()


def _first_line(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _START_DEADLINE)
    line = process.stdout.readline() if ready else b""
    if not line.strip().isdigit():
        raise MachineError("the demo's origin (moto) did not start; pip install 'open-oca[demo]' brings what it needs")
    return int(line)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((_HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
