"""`python -m tests.bench.crowd`: a crowd watches the demo's house, with everything on this one machine."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from admin.bucket import Bucket
from admin.crowd.account import Report
from admin.crowd.app import Plan, run, source_of, told
from admin.crowd.viewer import Habits
from admin.demo.house import furnished
from admin.demo.parts import embedded_origin, make_clip
from admin.demo.town import PLACES
from admin.errors import AdminError
from admin.progress import watcher
from admin.publish.encoder import find_ffmpeg
from admin.publish.publication import Order, publish
from tests.bench import machine

_TITLE = "oca-bench"
_START = 1.0
"""Seconds: 95 of 100 viewers shall see a picture by then."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench-crowd ARGS=...",
        description="500 viewers of a film in 240p, 360p and 720p: four appliances, their parent, steering, an S3"
        " origin and the crowd itself share this machine. The boxes are empty at first.",
    )
    parser.add_argument("--viewers", type=int, default=500, help="at once (500)")
    parser.add_argument("--minutes", type=float, default=3.0, help="for how long (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them")
    given = parser.parse_args()
    for name, value in machine.described().items():
        print(f"{name:12} {value}")
    try:
        report = _measured(given.viewers, given.minutes * 60, given.json, given.plot)
    except AdminError as error:
        print(f"bench-crowd: {error}", file=sys.stderr)
        return 1
    start = report.start_p95
    verdicts = {
        "no errors": not report.failures,
        f"start-up p95 <= {_START:.0f} s": start is not None and start <= _START,
        "no stalls": not report.stalls,
    }
    for name, is_reached in verdicts.items():
        print(f"{'reached' if is_reached else 'missed'}: {name}")
    return 0


def _measured(viewers: int, seconds: float, json: Path | None, plot: Path | None) -> Report:
    watching = watcher()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oca-bench-")))
        origin = stack.enter_context(embedded_origin())
        make_clip(find_ffmpeg(), folder / "clip.mp4")
        order = Order(folder / "clip.mp4", _TITLE, (240, 360, 720), folder / "work", is_replacement=False)
        publish(order, Bucket(origin.url, origin.endpoint_url, origin.session), watching)
        house = stack.enter_context(furnished(folder, origin, None))
        tokens = folder / "tokens"
        tokens.write_text("\n".join(house.login.token() for _ in range(viewers)))
        source = source_of(house.public_url, _TITLE, (), tokens, [place.network for place in PLACES], 0)
        report, account = run(Plan(viewers, seconds, seconds / 10, Habits(0.1, 20.0)), source, watching)
        told(report, account, watching, json, plot)
    return report


if __name__ == "__main__":
    sys.exit(main())
