"""The demo, watched by a browser."""

import re
import subprocess
import sys

import pytest

from admin.demo.smoke import Delivery


@pytest.mark.parametrize(
    ("cache_status", "is_hit"),
    [
        ("oca-demo-1; hit", True),
        ("oca-demo-1; hit; ttl=5", True),
        ("ixp-1; fwd=miss; stored, oca-demo-1; hit", True),
        ("ixp-1; hit, oca-demo-1; fwd=miss; stored", False),
        ("oca-demo-1; fwd=miss; stored", False),
        ('oca-demo-1; fwd=stale; detail="hit"', False),
        ("hit", False),
        ("", False),
        (None, False),
    ],
)
def test_only_what_the_nearest_cache_had_is_a_hit(cache_status, is_hit):
    assert Delivery("/titles/a/x", "segment", 1, cache_status, 1.0).is_hit is is_hit


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_a_browser_plays_the_film_and_feels_nothing_when_what_it_plays_from_is_killed(make):
    # Of fewer pixels than the demo's own, for it is encoded and decoded beside other tests.
    video = make(
        *("-f", "lavfi", "-i", "testsrc2=size=640x360:rate=15:duration=40", "-f", "lavfi", "-i", "sine=duration=40"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "smoke.mp4"),
    )
    ran = subprocess.run(
        [sys.executable, "-m", "admin", "demo", "--smoke", "--video", str(video)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "the second viewing was all hits, as was the first after a night, and a killed appliance" in ran.stdout
    assert re.search(r"a night: 4 agents brought [1-9]", ran.stdout), ran.stdout
    for player in ("hls.js, its appliance killed", "dash.js, its appliance and steering killed"):
        assert re.search(rf"{re.escape(player)}: from \S+ to \S+, never less than .* no stall", ran.stdout), ran.stdout
