"""ffmpeg is asked safely, and what it can't do is said in one line."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from admin.errors import InputError, MachineError
from admin.progress import Lines
from admin.publish import encoder
from admin.publish.encoder import find_ffmpeg, probe
from admin.publish.publication import publish


def refused(ffmpeg, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        probe(ffmpeg, path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def written(folder: Path, name: str, body: bytes) -> Path:
    path = folder / name
    path.write_bytes(body)
    return path


def test_a_film_is_probed(ffmpeg, clip):
    assert probe(ffmpeg, clip).source.width == 426


def test_names_that_look_like_options_or_urls_are_files(ffmpeg, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-version", "http:x.mp4", "a b%05d'\".mp4", "pipe:0", "é\udcff.mp4"):
        Path(name).write_bytes(clip.read_bytes())
        assert probe(ffmpeg, Path(name)).source.width == 426


def test_a_file_that_is_not_there_is_named(ffmpeg, tmp_path):
    assert "no such file" in refused(ffmpeg, tmp_path / "absent.mp4")


def test_a_folder_is_no_film(ffmpeg, tmp_path):
    assert "not a regular file" in refused(ffmpeg, tmp_path)


def test_a_pipe_is_refused_before_anyone_waits_on_it(ffmpeg, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a regular file" in refused(ffmpeg, tmp_path / "pipe.mp4")


def test_an_empty_file_is_said_to_be_empty(ffmpeg, tmp_path):
    assert "empty" in refused(ffmpeg, written(tmp_path, "empty.mp4", b""))


def test_a_name_with_a_nul_is_refused(ffmpeg):
    with pytest.raises(InputError):
        probe(ffmpeg, Path("a\0b.mp4"))


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("noise.mp4", bytes(range(256)) * 100),
        ("words.txt", b"A film is not a text.\n" * 100),
        ("page.mp4", b"<!doctype html><title>404</title>"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(100)),
    ],
)
def test_what_is_no_film_is_refused_with_what_is_allowed(ffmpeg, tmp_path, name, body):
    said = refused(ffmpeg, written(tmp_path, name, body))
    assert "not a video" in said
    assert "MP4/MOV, Matroska/WebM" in said


def test_a_playlist_that_names_other_files_is_refused(ffmpeg, tmp_path, clip):
    secrets = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{clip}'\n"
    for name, text in (("list.m3u8", secrets), ("list.mp4", secrets), ("list.txt", concat)):
        assert "not a video" in refused(ffmpeg, written(tmp_path, name, text.encode()))


def test_a_song_has_no_video(ffmpeg, clip, make):
    song = make("-i", str(clip), "-vn", "-c:a", "copy", "song.m4a")
    assert "no video stream" in refused(ffmpeg, song)


def test_a_download_that_broke_off_before_the_index_is_no_video(ffmpeg, clip, make, tmp_path):
    late = make("-i", str(clip), "-c", "copy", "late.mp4")
    body = late.read_bytes()
    assert "moov atom not found" in refused(ffmpeg, written(tmp_path, "broken.mp4", body[: len(body) // 2]))


def test_a_file_we_may_not_read_is_said_so(clip, tmp_path):
    locked = written(tmp_path, "locked.mp4", clip.read_bytes())
    locked.chmod(0)
    if os.geteuid() != 0:
        assert "permission denied" in refused(find_ffmpeg(), locked)
        return
    # Root reads everything: ask as nobody, who must reach the file's folder.
    ffmpeg = find_ffmpeg()  # As root: it may lie in a checkout that nobody may enter.
    with pytest.raises(InputError, match="permission denied"):
        _as_nobody(tmp_path, lambda: probe(ffmpeg, locked))


def _as_nobody(folder: Path, ask) -> None:
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    os.seteuid(65534)
    try:
        ask()
    finally:
        os.seteuid(0)


def test_an_ffmpeg_on_the_path_is_preferred_if_it_can_encode(ffmpeg, tmp_path, monkeypatch):
    able = tmp_path / "able"
    able.mkdir()
    (able / "ffmpeg").symlink_to(ffmpeg.path)
    monkeypatch.setenv("PATH", str(able), prepend=os.pathsep)
    assert find_ffmpeg().path == str(able / "ffmpeg")


@pytest.mark.parametrize("script", ["exit 1", "echo ' V....D libx264rgb x'", "echo ' V....D libx264 x'"])
def test_an_ffmpeg_that_lacks_an_encoder_is_passed_over(tmp_path, monkeypatch, script):
    lame = tmp_path / "ffmpeg"
    lame.write_text(f"#!/bin/sh\n{script}\n")
    lame.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_ffmpeg().path != str(lame)


@pytest.mark.parametrize(
    ("version", "is_used"),
    [
        ("5.1.9-0+deb12u1", False),
        ("7.0.2-static", False),
        ("n8.1-3-gabc", False),
        ("9.0", True),
        ("n9.0.2-17-g2a571b6068", True),
        ("10.1", True),
        ("N-121000-gabcdef", True),
    ],
)
def test_an_ffmpeg_older_than_those_that_were_tried_is_passed_over(tmp_path, monkeypatch, version, is_used):
    told, known = f"ffmpeg version {version} (c)", "V....D libx264 x\nA....D aac x"
    path = tmp_path / "ffmpeg"
    path.write_text(f"#!/bin/sh\ncase $1 in -version) echo '{told}' ;; *) echo '{known}' ;; esac\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert (find_ffmpeg().path == str(path)) == is_used
    monkeypatch.setattr(encoder, "_bundled", lambda: None)
    if not is_used:
        with pytest.raises(
            MachineError, match=re.escape(f"{path} is ffmpeg version {version}") + ".*install ffmpeg 9 or newer"
        ):
            find_ffmpeg()


def test_an_encoder_that_dies_is_the_machines_fault(order, store, tmp_path, monkeypatch, ffmpeg):
    dying = tmp_path / "ffmpeg"
    dying.write_text(f'#!/bin/sh\ncase "$*" in *libx264*) kill -SEGV $$ ;; esac\nexec \'{ffmpeg.path}\' "$@"\n')
    dying.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(MachineError, match="signal 11"):
        publish(order, store.open(), Lines())


def test_the_version_tells_builds_apart(ffmpeg):
    said = subprocess.run([ffmpeg.path, "-version"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert ffmpeg.version == said.splitlines()[0]
