"""`python -m tests.bench.publish`: what a publisher pays besides encoding, on one core: encryption, and single files.

A film of a test picture is encoded once; its segments are then encrypted again and again, by each scheme in turns,
beside SHA-256 of the same bytes, which every object pays anyway.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from admin.publish.boxes import fragment_of
from admin.publish.encoder import encode, find_ffmpeg, probe
from admin.publish.encryption import Encryptor
from admin.publish.keys import Scheme, TrackKey
from admin.publish.manifests import INIT
from admin.publish.renditions import Plan, Wanted, planned
from tests.bench import machine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.publish", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=40, help="of film; default %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default %(default)s")
    given = parser.parse_args()
    for name, value in machine.described().items():
        print(f"{name:12} {value}")
    with tempfile.TemporaryDirectory(prefix="oca-bench-") as folder:
        renditions = _encoded(Path(folder), given.seconds)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"\n{given.rounds} rounds in turns on one core, medians, of CPU time\n")
    print(f"{'rendition':<12}{'MB':>8}{'segments':>10}" + "".join(f"{name:>14}" for name in _WORKS))
    for plan, init, segments in renditions:
        size = sum(map(len, segments)) / 1e6
        taken: dict[str, list[float]] = {name: [] for name in _WORKS}
        for _ in range(given.rounds):
            for name, work in _WORKS.items():
                began = time.process_time()
                work(init, segments)
                taken[name].append(time.process_time() - began)
        rates = "".join(f"{size / statistics.median(taken[name]):>9.0f} MB/s" for name in _WORKS)
        print(f"{plan.name:<12}{size:>8.1f}{len(segments):>10}{rates}")
    return 0


def _encrypting(scheme: Scheme) -> Callable[[bytes, list[bytes]], None]:
    key = TrackKey(scheme, secrets.token_bytes(16), secrets.token_bytes(16))

    def work(init: bytes, segments: list[bytes]) -> None:
        encryptor = Encryptor(key, init, b"bench")
        for segment in segments:
            encryptor.segment(segment)

    return work


def _digesting(_: bytes, segments: list[bytes]) -> None:
    digest = hashlib.sha256()
    for segment in segments:
        digest.update(segment)


def _joining(_: bytes, segments: list[bytes]) -> None:
    for segment in segments:
        fragment_of(segment)


_WORKS = {
    "cenc": _encrypting(Scheme.CENC),
    "cbcs": _encrypting(Scheme.CBCS),
    "SHA-256": _digesting,
    "single file": _joining,
}


def _encoded(folder: Path, seconds: int) -> list[tuple[Plan, bytes, list[bytes]]]:
    """Of each rendition its initialisation and its segments."""
    ffmpeg, video = find_ffmpeg(), folder / "film.mp4"
    noise = f"testsrc2=size=1280x720:rate=30:duration={seconds},noise=alls=12:allf=t"
    command = [ffmpeg.path, "-v", "error", "-f", "lavfi", "-i", noise, "-f", "lavfi", "-i", f"sine=duration={seconds}"]
    subprocess.run([*command, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", str(video)], check=True)
    film = probe(ffmpeg, video)
    made = []
    for plan in planned(film.source, Wanted((240, 720))):
        making = folder / plan.name
        making.mkdir()
        encode(ffmpeg, film, plan, making, lambda _seconds: None)
        segments = [path.read_bytes() for path in sorted(making.glob("*.m4s"))]
        made.append((plan, (making / INIT).read_bytes(), segments))
    return made


if __name__ == "__main__":
    sys.exit(main())
