"""Long films are encoded in parts at once, and nobody can tell."""

import os
import subprocess
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.errors import MachineError
from admin.progress import Lines
from admin.publish.boxes import BoxError, retimed, segment_timing
from admin.publish.chunks import chunks_of
from admin.publish.publication import publish
from admin.publish.source import Source
from wire.catalog import Kind

TITLE = "long"
SECONDS = 135
RATES = [Fraction(24), Fraction(25), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(5, 2)]


def film(duration, rate=Fraction(25), *, has_index=True):
    return Source(320, 180, rate, duration, (), (), has_index)


@pytest.fixture(scope="module")
def long_film(make):
    """Each picture is of one grey, which says its number; 30000/1001 a second. Its sound is longer."""
    grey = f"color=black:size=32x24:rate=30000/1001:duration={SECONDS},geq=lum=40+mod(N*37\\,180):cb=128:cr=128"
    return make(
        *("-f", "lavfi", "-i", grey, "-f", "lavfi", "-i", f"sine=duration={SECONDS + 70}"),
        *("-c:v", "libx264", "-qp", "4", "-g", "200", "-preset", "ultrafast", "-c:a", "aac", "long.mp4"),
    )


@pytest.fixture
def order(order, long_film):
    return replace(order, video=long_film, title=TITLE, heights=(144,))


def greys(ffmpeg, path):
    """The mean of each picture of this file, whole numbers."""
    command = [ffmpeg.path, "-v", "error", "-i", path, "-map", "0:v", "-vf", "scale=1:1:flags=area,format=gray"]
    return list(subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True, check=True, timeout=60).stdout)


def test_every_picture_is_where_it_was_across_all_seams(ffmpeg, store, order, long_film, tmp_path):
    title = publish(order, store.open(), Lines())
    video = next(one for one in title.renditions if one.kind == Kind.VIDEO)
    folder = store.download(tmp_path / "got") / video.objects[0].path[1:].rpartition("/")[0]
    before, after = greys(ffmpeg, long_film), greys(ffmpeg, folder / "index.m3u8")
    assert len(before) == len(after) == 4046
    assert max(abs(one - other) for one, other in zip(before, after, strict=True)) <= 6
    segments = [(folder / f"seg-{number:05d}.m4s").read_bytes() for number in range(1, 35)]
    timings = [segment_timing(segment) for segment in segments]
    # As it would be in one piece: each begins with the first picture at or behind its second.
    assert [timing.start // 1001 for timing in timings] == [-(-number * 4 * 30000 // 1001) for number in range(34)]
    numbers = [int.from_bytes(segment[segment.index(b"mfhd") + 8 :][:4]) for segment in segments]
    assert numbers == sorted(set(numbers))


def test_a_run_that_failed_keeps_the_parts_it_had(ffmpeg, store, order, tmp_path, monkeypatch):
    log, broken = tmp_path / "asked", tmp_path / "broken"
    script = tmp_path / "bin" / "ffmpeg"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/sh
        case "$*" in
            *' -ss 118.'*libx264*) echo third >> '{log}'; [ -e '{broken}' ] && kill -KILL $$ ;;
            *' -ss 58.'*libx264*) echo second >> '{log}' ;;
        esac
        exec '{ffmpeg.path}' "$@"
        """
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0})  # One part after the other.
    broken.touch()
    with pytest.raises(MachineError, match="signal 9"):
        publish(order, store.open(), Lines())
    broken.unlink()
    publish(order, store.open(), Lines())
    assert log.read_text().split() == ["second", "third", "third"]
    assert not order.work_dir.exists()


@given(st.floats(1, 30_000), st.sampled_from(RATES))
def test_parts_cover_a_film_and_begin_where_segments_do(duration, rate):
    chunks = chunks_of(film(duration, rate))
    assert bool(chunks) == (duration >= 68)
    assert len(chunks) != 1
    for chunk, following in pairwise(chunks):
        assert chunk.first + chunk.pictures == following.first
    for chunk in chunks:
        assert 0 <= chunk.first / rate - chunk.second < 1 / rate
        assert chunk.second == chunk.segments * 4
        assert (chunk.pictures is None) == (chunk is chunks[-1])
        assert duration - chunk.second >= 8


def test_a_film_whose_moments_can_not_be_found_exactly_is_encoded_whole():
    assert chunks_of(film(7200.0, has_index=False)) == ()
    assert chunks_of(film(None)) == ()


@given(st.binary(max_size=200))
def test_what_is_no_segment_can_not_be_moved(body):
    with pytest.raises(BoxError):
        retimed(body, 1, 1)
