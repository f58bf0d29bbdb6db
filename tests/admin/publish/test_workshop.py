"""Finished renditions are found again, if they are whole, by one run at a time."""

from dataclasses import replace

import pytest

from admin.errors import TitleTaken
from admin.publish.encoder import encode, probe
from admin.publish.renditions import video_plans
from admin.publish.workshop import Workshop, default_work_dir


@pytest.fixture(scope="module")
def film(ffmpeg, other_clip):
    return probe(ffmpeg, other_clip)


@pytest.fixture
def plans(film):
    return video_plans(film.source, (144,))


@pytest.fixture
def workshop(ffmpeg, film, plans, tmp_path):
    return Workshop(tmp_path, "metropolis", ffmpeg, film, plans)


@pytest.fixture
def made(workshop, ffmpeg, film, plans):
    with workshop:
        making = workshop.begin()
        encode(ffmpeg, film, plans[0], making, lambda _seconds: None)
        return workshop.finish(plans[0], making)


def test_a_finished_rendition_is_found_by_the_next_run(made, workshop, plans):
    with workshop:
        found = workshop.finished(plans[0])
    assert (found.folder, found.encoded) == (made.folder, made.encoded)


@pytest.mark.parametrize("name", ["seg-00002.m4s", "init.mp4", "index.m3u8", "record.json"])
def test_a_rendition_that_was_damaged_is_not_used_again(made, workshop, plans, name):
    body = (made.path / name).read_bytes()
    for damage in (body[:-1], bytes([body[0] ^ 1]) + body[1:], None):
        if damage is None:
            (made.path / name).unlink()
        else:
            (made.path / name).write_bytes(damage)
        with workshop:
            assert workshop.finished(plans[0]) is None


def test_what_a_killed_run_began_is_thrown_away(workshop):
    with workshop:
        first = workshop.begin()
        (first / "seg-00001.m4s").write_bytes(b"half")
    with workshop:
        assert not first.exists()
        assert list(workshop.begin().iterdir()) == []


def test_two_runs_do_not_work_in_one_folder(workshop, ffmpeg, film, plans, tmp_path):
    with workshop, pytest.raises(TitleTaken, match="another run"):
        Workshop(tmp_path, "metropolis", ffmpeg, film, plans).__enter__()


def test_another_file_other_sizes_or_another_ffmpeg_are_another_job(ffmpeg, film, plans, clip, tmp_path):
    one = Workshop(tmp_path, "metropolis", ffmpeg, film, plans)
    others = [
        Workshop(tmp_path, "metropolis", replace(ffmpeg, version="ffmpeg version 0"), film, plans),
        Workshop(tmp_path, "metropolis", ffmpeg, film, video_plans(film.source, (240,))[:0]),
        Workshop(tmp_path, "metropolis", ffmpeg, replace(film, path=clip), plans),
    ]
    assert one.path not in {other.path for other in others}


def test_the_folder_is_gone_when_all_is_published(made, workshop, tmp_path):
    with workshop:
        workshop.discard()
    assert not workshop.path.exists()


def test_the_work_dir_follows_the_operators_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_work_dir() == tmp_path / "oca-admin"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/op")
    assert str(default_work_dir()) == "/home/op/.cache/oca-admin"
