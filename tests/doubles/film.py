"""A film that ffmpeg makes, published as `oca-admin publish` does it."""

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from admin.bucket import Bucket
from admin.progress import Lines
from admin.publish.encoder import find_ffmpeg
from admin.publish.publication import Order, publish
from tests.doubles.origin import Origin
from tests.doubles.s3 import S3Server, moto

SEGMENT_SECONDS = 4


class Object(NamedTuple):
    body: bytes
    headers: dict[str, str]


def drawn(path: Path, seconds: int) -> Path:
    """A tiny picture that moves, with a tone."""
    lasts = f"duration={seconds}"
    subprocess.run(
        [
            *(find_ffmpeg().path, "-nostdin", "-loglevel", "error"),
            *("-f", "lavfi", "-i", f"testsrc2=size=320x180:rate=5:{lasts}", "-f", "lavfi", "-i", f"sine={lasts}"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", str(path)),
        ],
        check=True,
        timeout=60,
    )
    return path


def published(folder: Path, video: Path, titles: dict[str, dict[str, Any]]) -> dict[str, Object]:
    """What lies in a bucket once these titles, which all show this video, are published, by path. For each title: what
    its `Order` says besides the usual.
    """
    with moto(folder) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in S3Server.environment().items():
            patch.setenv(name, value)
        for title, more in titles.items():
            order = Order(video, title, (144,), folder / f"work-{title}", **{"is_replacement": False, **more})
            publish(order, Bucket("s3://films", store.endpoint_url), Lines())
        client = store.client()
        kept = {}
        for item in client.list_objects_v2(Bucket="films")["Contents"]:
            answer = client.get_object(Bucket="films", Key=item["Key"])
            headers = {"content_type": answer["ContentType"], "cache_control": answer["CacheControl"]}
            kept[f"/{item['Key']}"] = Object(answer["Body"].read(), headers)
        return kept


def put_all(origin: Origin, objects: dict[str, Object]) -> None:
    for path, (body, headers) in objects.items():
        origin.put(path, body, **headers)
