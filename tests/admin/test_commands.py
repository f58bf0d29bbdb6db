"""oca-admin as an operator meets it: one line when it fails, an exit code, and a run that can be killed."""

import hashlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from threading import Event

import pytest
from typer.testing import CliRunner

from admin.__main__ import app
from wire.catalog import NUMBERS_PATH, read_numbers

COMMAND = [sys.executable, "-m", "admin"]


@pytest.fixture
def oca_admin():
    def run(*arguments: str):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def arguments(short, tmp_path):
    """For one film and a store."""

    def made(store, video=short, title="metropolis", heights="144,240") -> list[str]:
        return [
            *("publish", str(video), "--title", title, "--to", store.url, "--endpoint-url", store.endpoint_url),
            *("--work-dir", str(tmp_path / "work"), "--heights", heights, "--no-thumbnails"),
        ]

    return made


def test_a_film_is_published_and_the_urls_are_told(oca_admin, arguments, store):
    ran = oca_admin(*arguments(store))
    assert ran.exit_code == 0
    steps = [line.removesuffix(" ...") for line in ran.stdout.splitlines() if line.endswith(" ...")]
    assert re.search(r"^made 3 renditions, 0\.\d MB, in \d+ CPU-seconds: \d+\.\d\d for each", ran.stdout, re.MULTILINE)
    assert steps == ["probe", "bucket", "encode audio", "encode 144p", "encode 180p", "upload", "catalogue"]
    assert ran.stdout.splitlines()[-1].startswith(f"published: {store.url}/titles/metropolis/master.m3u8")


def test_what_the_operator_says_of_languages_codecs_and_countries_is_done(oca_admin, arguments, store, tmp_path):
    words = tmp_path / "pt.vtt"
    words.write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nBoa noite\n")
    more = ("--thumbnails", "--subtitles", f"pt={words}", "--only-in", "pt,ES", "--not-in", "RU", "--ladder", "table")
    ran = oca_admin(*arguments(store, heights="144"), *more)
    assert ran.exit_code == 0, ran.stderr
    title = store.title("metropolis")
    assert [rendition.name for rendition in title.renditions] == ["subtitles", "audio", "144p", "thumbnails"]
    assert (title.availability.only, title.availability.never) == (("PT", "ES"), ("RU",))


def test_a_film_is_encrypted_with_the_keys_that_were_made_for_it(oca_admin, arguments, store, tmp_path):
    file = tmp_path / "keys.json"
    made = oca_admin("keys", file, "--scheme", "cenc")
    assert made.exit_code == 0
    ran = oca_admin(*arguments(store, heights="144"), "--keys", file)
    assert ran.exit_code == 0, ran.stderr
    keys = json.loads(file.read_text())
    told = {rendition.name: rendition.protection for rendition in store.title("metropolis").renditions}
    assert {name: (each.scheme, each.kid) for name, each in told.items()} == {
        "audio": ("cenc", keys["audio"]["kid"]),
        "144p": ("cenc", keys["video"]["kid"]),
    }
    for path in store.paths():
        for pair in (keys["audio"], keys["video"]):
            assert bytes.fromhex(pair["key"]) not in store.body(path)
            assert pair["key"].encode() not in store.body(path)
    assert oca_admin(*arguments(store, title="other"), "--keys", file, "--codecs", "h264,hevc").exit_code == 2
    assert oca_admin("keys", file).exit_code == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--codecs", "h264,divx"), "codecs 'h264,divx' can't be used; allowed: any of h264, hevc, vp9, av1"),
        (("--subtitles", "pt.srt"), "allowed: LANG=FILE, where LANG is a language tag"),
        (("--audio", "p/t=x.mp3"), "allowed: LANG=FILE"),
        (("--only-in", "Portugal"), "'PORTUGAL' is no country; allowed: ISO 3166-1 codes"),
    ],
)
def test_what_can_not_be_understood_is_refused_with_what_is_allowed(oca_admin, arguments, store, more, said):
    ran = oca_admin(*arguments(store), *more)
    assert ran.exit_code == 2
    assert said in ran.stderr
    assert store.paths() == []


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"video": "/absent.mp4"}, 3, "/absent.mp4: can't be read (no such file or directory)"),
        ({"video": "/dev/null"}, 3, "/dev/null: not a regular file"),
        ({"video": __file__}, 3, "not a video"),
        ({"title": "No Title"}, 2, "title 'No Title' can't be used; allowed: 1 to 64 of a-z"),
        ({"heights": "240,x"}, 2, "heights '240,x' are no numbers"),
        ({"heights": "99"}, 2, "heights '99' can't be used; allowed: any of 144, 240"),
    ],
)
def test_what_can_not_be_used_gets_one_line_and_leaves_nothing(
    oca_admin, arguments, store, tmp_path, change, code, said
):
    ran = oca_admin(*arguments(store, **change))
    assert ran.exit_code == code
    assert ran.stderr.startswith("oca-admin publish: ")
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert store.paths() == []
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_can_not_be_used_gets_one_line_before_anything_is_encoded(oca_admin, arguments, store):
    store.client.delete_bucket(Bucket=store.bucket)
    ran = oca_admin(*arguments(store))
    assert ran.exit_code == 4
    assert ran.stderr.splitlines() == [
        f"oca-admin publish: {store.url}: there is no bucket {store.bucket} at {store.endpoint_url}; create it first"
    ]
    assert "encode" not in ran.stdout


def test_a_work_dir_that_can_not_be_used_is_the_machines_fault(oca_admin, arguments, store, tmp_path):
    (tmp_path / "work").write_text("in the way")
    ran = oca_admin(*arguments(store))
    assert ran.exit_code == 6
    assert "--work-dir" in ran.stderr


def test_without_any_ffmpeg_the_operator_is_told_how_to_get_one(oca_admin, arguments, store, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "absent"))
    ran = oca_admin(*arguments(store))
    assert ran.exit_code == 6
    assert "install ffmpeg" in ran.stderr


def test_the_exit_codes_are_in_the_help(oca_admin):
    said = " ".join(oca_admin("publish", "--help").stdout.split())
    assert "Exit codes: 0 done;" in said
    assert "3 the video can't be used" in said


def test_on_a_terminal_each_step_has_a_bar(arguments, store):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments(store)],
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = bytearray()
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # Linux's way of saying that the other end is closed
        pass
    os.close(ours)
    assert process.wait(30) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    for step in ("encode 144p", "upload", "catalogue"):
        assert re.search(rf"{step} +━+ +100%", text)


@pytest.fixture
def held_ffmpeg(ffmpeg, tmp_path, monkeypatch):
    """An ffmpeg on PATH that writes down what it is asked for, and waits for ever at the second size."""
    gate, log = tmp_path / "gate", tmp_path / "asked"
    os.mkfifo(gate)
    script = tmp_path / "bin" / "ffmpeg"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/sh\n"
        f"""case "$*" in *aresample=*) echo audio >> '{log}' ;; *scale=256*) echo 144p >> '{log}' ;; *scale=320*)\n"""
        f"""  echo 180p >> '{log}'; [ -p '{gate}' ] && exec cat '{gate}' ;;\n"""
        "esac\n"
        f"exec '{ffmpeg.path}' \"$@\"\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    return gate, log


def test_killed_while_encoding_it_goes_on_where_it_was(arguments, store, held_ffmpeg, oca_admin):
    gate, log = held_ffmpeg
    process = subprocess.Popen([*COMMAND, *arguments(store)], stdout=subprocess.DEVNULL)
    held = os.open(gate, os.O_WRONLY)  # Opens when the encoder of the second size waits at the other end.
    process.kill()
    process.wait(10)
    watch = select.poll()
    watch.register(held, 0)
    assert watch.poll(10_000), "the encoder outlived the run that was killed"
    os.close(held)
    gate.unlink()
    assert store.paths() == ["/catalogue/conditional-writes-probe"]

    ran = oca_admin(*arguments(store))
    assert ran.exit_code == 0, ran.stderr
    assert log.read_text().split() == ["audio", "144p", "180p", "180p"]
    assert len(store.title("metropolis").renditions) == 3


def test_killed_while_uploading_it_sends_no_file_twice(arguments, watched, oca_admin):
    held, let_go = Event(), Event()

    def hold(path):
        if not path.startswith("/titles/") or len(watched.films) < 3:
            return None
        held.set()
        let_go.wait(60)
        return 503

    watched.on_put = hold
    process = subprocess.Popen([*COMMAND, *arguments(watched.store)], stdout=subprocess.DEVNULL)
    assert held.wait(60)
    process.kill()
    process.wait(10)
    watched.on_put = lambda _path: None
    let_go.set()
    watched.wait_until_idle()
    assert not [path for path in watched.store.paths() if path.startswith("/catalogue/titles/")]

    ran = oca_admin(*arguments(watched.store))
    assert ran.exit_code == 0, ran.stderr
    assert re.search(r"[3-9] files were there", ran.stdout)
    assert len(watched.films) == len(set(watched.films))
    title = watched.store.title("metropolis")
    for each in (each for rendition in title.renditions for each in rendition.objects):
        assert hashlib.sha256(watched.store.body(each.path)).hexdigest() == each.sha256


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_encoder_and_says_how_to_go_on(arguments, store, held_ffmpeg, number):
    gate, _ = held_ffmpeg
    # A shell that runs these tests in the background has SIGINT ignored, which a child inherits; a handler it does not.
    before = signal.signal(number, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*COMMAND, *arguments(store)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(number, before)
    held = os.open(gate, os.O_WRONLY)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "oca-admin publish: interrupted; the same command continues it\n")
    watch = select.poll()
    watch.register(held, 0)
    assert watch.poll(10_000)
    os.close(held)


def test_two_runs_at_once_number_their_renditions_apart(arguments, store, other_clip, tmp_path):
    runs = [
        subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, env=os.environ)
        for words in (arguments(store, title="metropolis"), arguments(store, video=other_clip, title="nosferatu-1922"))
    ]
    assert [run.wait(60) for run in runs] == [0, 0]
    numbers = [
        rendition.number for title in ("metropolis", "nosferatu-1922") for rendition in store.title(title).renditions
    ]
    assert sorted(numbers) == [0, 1, 2, 3]
    assert read_numbers(store.body(NUMBERS_PATH)).claims == {}
