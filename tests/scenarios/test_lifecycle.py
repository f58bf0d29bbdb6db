"""Processes die, settings change, the appliance ends: whoever is being served does not notice."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import oca
from tests.doubles.appliance import BLOCK, PATIENCE, wait_until
from tests.doubles.wire import Cut

SIZE = 2 * BLOCK
HELD_BACK = BLOCK + 5


def bytes_of(wire, count):
    """How many of `count` bytes come before the connection ends, and what they are."""
    try:
        return wire.read(count)
    except Cut as cut:
        return cut.body


class Load:
    """Keeps asking over connections that are kept, on threads, and compares every answer; counts what went wrong."""

    def __init__(self, appliance, films, viewers=6):
        self._appliance = appliance
        self._films = films
        self._over = threading.Event()
        self.answers = 0
        self.faults = []
        self._threads = [threading.Thread(target=self._view, args=(n,)) for n in range(viewers)]

    def _view(self, number):
        paths = sorted(self._films)
        wire = None
        turn = number
        while not self._over.is_set():
            path = paths[turn % len(paths)]
            turn += 1
            try:
                if wire is None:
                    wire = self._appliance.wire()
                answer = wire.get(path)
            except (Cut, OSError) as error:
                self.faults.append(repr(error))
                wire = None
                continue
            self.answers += 1
            if answer.status != 200 or answer.body != self._films[path]:
                self.faults.append(f"{path}: {answer.status}, {len(answer.body)} bytes")
            if answer["Connection"] == "close":
                wire.close()
                wire = None
        if wire is not None:
            wire.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_for(self, more):
        """Until `more` further answers have come."""
        goal = self.answers + more
        wait_until(lambda: self.answers >= goal, f"{more} more answers")


@pytest.fixture
def films(origin, path):
    return {f"{path}/{size}": origin.put(f"{path}/{size}", size) for size in (100, 70_000, BLOCK + 10)}


@pytest.fixture(scope="module")
def mortal(module_appliance, origin):
    """An appliance whose processes may be killed; it is up again after each test."""
    return module_appliance(origin.url).start()


# --- Death ------------------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_no_other_connection_notices(mortal, origin, hold, path):
    content = origin.put(path, SIZE)
    gate = origin.gate(path, HELD_BACK)
    before = mortal.workers()
    viewers = [hold(mortal.wire()) for _ in range(12)]
    for viewer in viewers:
        viewer.ask(path)
        assert viewer.head().status == 200
    gate.wait_reached()
    victim = min(before.values())
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(mortal.workers()) == 2 and victim not in mortal.workers().values(), "the worker is replaced")
    gate.open()
    got = [bytes_of(viewer, len(content)) for viewer in viewers]
    whole = sum(body == content for body in got)
    # Its own connections end, and can't be mistaken for whole; all others are whole.
    assert all(content.startswith(body) for body in got)
    assert 0 < whole < 12
    assert mortal.get(path).body == content
    wait_until(lambda: mortal.control("GET", "/readyz").status == 200, "it is ready again")


def test_a_viewer_is_served_to_the_end_though_the_keeper_is_killed_in_the_middle_of_its_miss(mortal, origin, path):
    content = origin.put(path, 3 * BLOCK)
    gate = origin.gate(path, BLOCK + 100_000)
    with mortal.wire() as viewer:
        viewer.ask(path)
        assert viewer.head().status == 200
        assert viewer.read(BLOCK + 50_000) == content[: BLOCK + 50_000]
        gate.wait_reached()
        (keeper,) = mortal.keeper_pids
        os.kill(keeper, signal.SIGKILL)
        origin.open_gates(path)
        assert viewer.read(2 * BLOCK - 50_000) == content[BLOCK + 50_000 :]
        # On the same connection, all goes on.
        assert viewer.get(path, Range="bytes=5-9").body == content[5:10]
    wait_until(lambda: len(mortal.workers()) == 2, "the workers know the new keeper")
    assert mortal.keeper_pids != [keeper]
    mortal.wait_landed()
    assert mortal.get(path).body == content


def test_hits_go_on_while_there_is_no_keeper(mortal, origin, path):
    content = origin.put(path, 50_000)
    mortal.get(path)
    mortal.wait_stored(path)
    with mortal.wire() as viewer:
        (keeper,) = mortal.keeper_pids
        os.kill(keeper, signal.SIGSTOP)
        try:
            for _ in range(20):
                assert viewer.get(path).body == content
        finally:
            os.kill(keeper, signal.SIGCONT)


def test_a_request_that_waits_for_its_first_byte_survives_the_keeper(mortal, origin, path):
    content = origin.put(path, 1000)
    gate = origin.gate(path, 0)
    with mortal.wire() as viewer:
        viewer.ask(path)
        gate.wait_reached()
        (keeper,) = mortal.keeper_pids
        os.kill(keeper, signal.SIGKILL)
        origin.open_gates(path)
        answer = viewer.answer()
        assert (answer.status, answer.body) == (200, content)
    wait_until(lambda: mortal.control("GET", "/readyz").status == 200, "it is ready again")


def test_what_was_being_written_when_everything_was_killed_is_not_believed(make_appliance, origin, path):
    one = make_appliance().start()
    content = origin.put(path, 4 * BLOCK)
    gate = origin.gate(path, 3 * BLOCK + 17)
    with one.wire() as viewer:
        viewer.ask(path)
        viewer.head()
        gate.wait_reached()
        wait_until(lambda: one.held(path).get("blocks_held", 0) >= 1, "something lies on disk")
        one.kill_all()
    origin.open_gates(path)
    one.start()
    held = one.held(path)
    assert 1 <= held["blocks_held"] <= 3
    assert one.get(path).body == content
    one.wait_stored(path)
    # A file that no record names is swept away.
    stray = one.devices[0] / "extents" / "aa" / "bb"
    stray.mkdir(parents=True, exist_ok=True)
    name = "aabb" + "00" * 26
    (stray / name).write_bytes(b"unfinished")
    one.kill_all()
    one.start()
    wait_until(lambda: not (stray / name).exists(), "the stray file is swept")
    assert one.get(path).body == content


# --- Reload -----------------------------------------------------------------------------------------------------------


def test_a_reload_under_load_refuses_and_cuts_nobody_and_counts_everybody_once(make_appliance, origin, films, path):
    one = make_appliance().start()
    old_workers = set(one.worker_pids)
    (old_keeper,) = one.keeper_pids
    slow = origin.put(path, SIZE)
    gate = origin.gate(path, HELD_BACK)
    with one.wire() as long, Load(one, films) as load:
        long.ask(path)
        assert long.head().status == 200
        load.wait_for(50)
        one.write_settings(http={"max_ranges": 2, "drain_timeout": "20 s"})
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: one.get(films_path(films), Range="bytes=0-1,5-6,9-9").status == 416, "the settings rule")
        wait_until(lambda: not old_workers & set(one.workers().values()), "all new workers are known")
        load.wait_for(50)
        gate.wait_reached()
        origin.open_gates(path)
        assert long.read(len(slow)) == slow
    assert load.faults == []
    wait_until(lambda: not old_workers & set(one.worker_pids), "the old workers have ended")
    assert old_keeper not in one.keeper_pids
    wait_until(lambda: one.metric("oca_open_connections") == 0, "no connection is counted that is not there")
    assert "Traceback" not in one.log.read_text()


def films_path(films):
    return min(films)


def test_counts_are_exact_over_a_reload(make_appliance, origin, hold, path):
    one = make_appliance().start()
    content = origin.put(path, 1000)
    one.get(path)
    one.wait_stored(path)
    idle = [hold(one.wire()) for _ in range(8)]
    for wire in idle:
        assert wire.get(path).body == content
    old = set(one.worker_pids)
    assert one.metric("oca_requests_total") == 9
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(old & set(one.worker_pids)) == 0 or len(one.worker_pids) == 4, "the new workers are up")
    wait_until(lambda: not set(one.workers().values()) <= old, "the new keeper knows them")
    wait_until(lambda: not any(map(one.accepts, old)), "the old ones have heard that they are replaced")
    assert one.metric("oca_requests_total") == 9
    assert one.metric("oca_open_connections") == 8
    # Idle connections may send one more request, are told to close, and then the old workers end.
    for wire in idle:
        answer = wire.get(path)
        assert (answer.body, answer["Connection"]) == (content, "close")
        wire.close()
    wait_until(lambda: not old & set(one.worker_pids), "the old workers have ended")
    assert one.metric("oca_requests_total") == 17
    wait_until(lambda: one.metric("oca_open_connections") == 0, "all connections are gone")
    # Once more, with nobody there: the old workers end at once.
    old = set(one.worker_pids)
    one.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not old & set(one.worker_pids), "the old workers have ended")
    wait_until(lambda: len(one.workers()) == 2, "the new keeper is up")
    assert one.metric("oca_requests_total") == 17


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("drain_timeout", "drain_time"), "http.drain_time: unknown key"),
        (lambda text: text.replace('"1 GiB"', '"1 Gib"'), "device.capacity: Expected a size"),
        (lambda text: text + "\n[broken", "Expected ']' at the end of a table declaration"),
        (lambda text: text.replace("listen]\nhttp", "listen]\nxttp"), "xttp"),
    ],
    ids=["unknown key", "bad unit", "syntax", "another key"],
)
def test_bad_settings_are_refused_on_reload_and_the_old_ones_go_on(mortal, origin, films, damage, message):
    good = mortal.config.read_text()
    pids = (mortal.keeper_pids, mortal.worker_pids)
    said = mortal.log.read_text().count("not reloaded")
    try:
        mortal.config.write_text(damage(good))
        mortal.process.send_signal(signal.SIGHUP)
        wait_until(lambda: mortal.log.read_text().count("not reloaded") > said, "the refusal is logged")
    finally:
        mortal.config.write_text(good)
    assert message in mortal.tail(3)
    assert (mortal.keeper_pids, mortal.worker_pids) == pids
    for path, content in films.items():
        assert mortal.get(path).body == content


def test_what_can_not_change_while_running_is_refused_on_reload(mortal):
    good = mortal.config.read_text()
    said = mortal.log.read_text().count("not reloaded")
    try:
        mortal.config.write_text(good.replace(f":{mortal.port}", ":1"))
        mortal.process.send_signal(signal.SIGHUP)
        wait_until(lambda: mortal.log.read_text().count("not reloaded") > said, "the refusal is logged")
    finally:
        mortal.config.write_text(good)
    assert "listen.http can't change while running" in mortal.tail(3)
    assert mortal.control("GET", "/readyz").status == 200


def test_workers_may_become_more_and_fewer_on_reload(make_appliance, origin, films):
    one = make_appliance().start(listen={"workers": 1})
    with Load(one, films, viewers=3) as load:
        for workers in (3, 1):
            load.wait_for(10)
            one.write_settings(listen={"workers": workers})
            one.process.send_signal(signal.SIGHUP)
            wait_until(
                lambda workers=workers: len(one.workers()) == workers == len(one.worker_pids), f"there are {workers}"
            )
        load.wait_for(10)
    assert load.faults == []


# --- The end ----------------------------------------------------------------------------------------------------------


def test_sigterm_lets_running_answers_finish_and_refuses_newcomers(make_appliance, origin, hold, path):
    one = make_appliance().start()
    content = origin.put(path, SIZE)
    gate = origin.gate(path, HELD_BACK)
    idle = hold(one.wire())
    with one.wire() as viewer:
        viewer.ask(path)
        assert viewer.head().status == 200
        gate.wait_reached()
        one.process.send_signal(signal.SIGTERM)
        idle.wait_closed()

        def is_refused():
            with contextlib.suppress(ConnectionRefusedError):
                one.wire().close()
                return False
            return True

        wait_until(is_refused, "newcomers are refused")
        assert one.process.poll() is None
        gate.open()
        assert viewer.read(len(content)) == content
        viewer.wait_closed()
    one.stop()


def test_sigterm_soon_after_a_reload_lets_the_old_workers_finish_too(make_appliance, origin, path):
    one = make_appliance().start()
    content = origin.put(path, SIZE)
    gate = origin.gate(path, HELD_BACK)
    old = set(one.worker_pids)
    with one.wire() as viewer:
        viewer.ask(path)
        assert viewer.head().status == 200
        gate.wait_reached()
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "workers replaced" in one.log.read_text(), "the reload is done")
        assert old & set(one.worker_pids)
        one.process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(one.worker_pids) == 1, "the new workers have ended")
        origin.open_gates(path)
        assert viewer.read(len(content)) == content
    one.stop()


def test_a_response_that_never_ends_is_cut_at_the_drain_deadline(make_appliance, origin, path):
    one = make_appliance().start(http={"drain_timeout": "200 ms"}, fetch={"stall_timeout": "60 s"})
    origin.put(path, BLOCK)
    gate = origin.gate(path, 10)
    with one.wire() as viewer:
        viewer.ask(path)
        viewer.head()
        gate.wait_reached()
        one.stop()
        assert len(viewer.rest()) == 10
    origin.open_gates(path)


def test_when_the_supervisor_is_killed_nothing_is_left_behind_and_it_can_start_again(make_appliance, origin, films):
    one = make_appliance().start()
    for path, content in films.items():
        assert one.get(path).body == content
    one.process.kill()
    one.process.wait(PATIENCE)
    one.process = None
    one.start()
    for path, content in films.items():
        assert one.get(path).body == content
    wait_until(lambda: len(one.session_pids()) == 4, "the orphans have ended")


def test_two_appliances_on_one_state_dir_are_refused(mortal):
    other_config = mortal.folder / "other.toml"
    text = mortal.config.read_text()
    other_config.write_text(text.replace(f":{mortal.port}", ":0").replace(f":{mortal.control_port}", ":0"))
    ended = run_oca("serve", other_config)
    assert ended.returncode == 1
    assert f"{mortal.state_dir}: another appliance runs on it" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert mortal.control("GET", "/readyz").status == 200


def test_a_port_that_is_taken_stops_the_start_and_is_named(make_appliance):
    one = make_appliance()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", one.port))
        taken.listen()
        one.write_settings()
        ended = run_oca("serve", one.config)
    assert ended.returncode == 1
    assert f"listen.http 127.0.0.1:{one.port}: Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not one.session_pids()


def test_a_state_dir_that_can_not_be_made_stops_the_start_and_is_named(make_appliance, tmp_path):
    one = make_appliance()
    (tmp_path / "file").write_text("no folder")
    one.write_settings(appliance={"state_dir": str(tmp_path / "file" / "state")})
    ended = run_oca("serve", one.config)
    assert ended.returncode == 1
    assert f"appliance.state_dir {tmp_path}/file/state: Not a directory" in ended.stderr


# --- oca check --------------------------------------------------------------------------------------------------------


def run_oca(command, config):
    return subprocess.run(
        [sys.executable, "-m", "oca", command, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


OVERLAPPING = """[[device]]
path = "/a/b"
tier = "ssd"
capacity = "1 GiB"
[[device]]
path = "/a"
tier = "ssd"
capacity = "1 GiB"
[[device]]"""


def test_check_says_what_the_settings_mean(make_appliance):
    one = make_appliance()
    one.write_settings()
    ended = run_oca("check", one.config)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "good: appliance oca-test, 2 workers" in ended.stdout
    assert not one.state_dir.exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("workers", "wrokers", ["line 7", "listen.wrokers", "unknown key", "workers"]),
        ('"1 GiB"', '"1 Gigs"', ["device.capacity", "1 Gigs", "2 TiB"]),
        ('"1 GiB"', '"1 MiB"', ["device.capacity", "64 MiB and more"]),
        ('"nvme"', '"floppy"', ["device.tier", "floppy", "nvme, ssd, hdd"]),
        ("http://", "gopher://", ["origin.url", "gopher://", "s3://"]),
        ("[listen]", "[listen", ["line 4"]),
        ("workers = 2", "workers = 0", ["line 7", "listen.workers", ">= 1"]),
        ('"20 s"', '"20 parsecs"', ["http.drain_timeout", "20 parsecs", "75 s"]),
        ("id = ", "# id = ", ["appliance", "id"]),
        ("[[device]]", OVERLAPPING, ["device.path", "/a/b", "overlap"]),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_check_names_the_line_the_key_what_was_read_and_what_is_allowed(make_appliance, old, new, words):
    one = make_appliance()
    one.write_settings()
    text = one.config.read_text()
    assert old in text
    one.config.write_text(text.replace(old, new, 1))
    ended = run_oca("check", one.config)
    assert ended.returncode == 2
    assert str(one.config) in ended.stderr
    for word in words:
        assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_bad_settings_stop_the_start_with_the_same_words(make_appliance):
    one = make_appliance()
    one.write_settings(http={"max_rangers": 5})
    checked, served = run_oca("check", one.config), run_oca("serve", one.config)
    assert served.returncode == 2
    assert served.stderr == checked.stderr
    assert not one.state_dir.exists()


def test_a_settings_file_that_is_not_there_is_named(tmp_path):
    ended = run_oca("check", tmp_path / "nowhere.toml")
    assert ended.returncode == 2
    assert f"{tmp_path}/nowhere.toml: can't be read: No such file" in ended.stderr


# --- Another version --------------------------------------------------------------------------------------------------

# What a package manager installs, of one version: the same code that is tested, and a word of its own on the log.
PROGRAM = """#!{python}
import sys
from oca import __main__, supervisor
supervisor.log.warning("this is {word}")
if "check" in sys.argv and {is_broken}:
    sys.exit("oca: this version can not start here")
__main__.main()
"""


def install(folder, word, *, is_broken=False):
    program = folder / word / "bin" / "oca"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.format(python=sys.executable, word=word, is_broken=is_broken))
    program.chmod(0o755)


def switch(folder, word):
    new = folder / "new"
    new.symlink_to(word)
    new.replace(folder / "current")


@pytest.fixture
def installed(make_appliance, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(oca.__file__).parents[1]))
    for word in ("one", "two"):
        install(tmp_path, word)
    install(tmp_path, "broken", is_broken=True)
    switch(tmp_path, "one")
    appliance = make_appliance()
    appliance.program = [str(tmp_path / "current" / "bin" / "oca")]
    return appliance.start()


def reload(appliance, *more):
    return subprocess.run(
        [sys.executable, "-m", "oca", "reload", "--config", str(appliance.config), *more],
        check=False,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )


def test_another_version_takes_over_and_a_viewer_notices_nothing(installed, tmp_path, origin, films, path):
    supervisor = installed.process.pid
    old = set(installed.worker_pids)
    slow = origin.put(path, SIZE)
    gate = origin.gate(path, HELD_BACK)
    with installed.wire() as long, Load(installed, films) as load:
        long.ask(path)
        assert long.head().status == 200
        gate.wait_reached()
        load.wait_for(50)
        switch(tmp_path, "two")
        told = reload(installed)
        assert (told.returncode, told.stdout) == (0, "reloaded\n"), told.stderr
        assert "this is two" in installed.log.read_text()
        load.wait_for(50)
        origin.open_gates(path)
        assert long.read(len(slow)) == slow
        # And back.
        switch(tmp_path, "one")
        assert reload(installed).returncode == 0
        load.wait_for(50)
    assert load.faults == []
    assert installed.process.pid == supervisor
    wait_until(lambda: not old & set(installed.worker_pids), "the workers of before have ended")


def test_a_version_that_can_not_use_the_settings_takes_nothing_over(installed, tmp_path, films):
    pids = (installed.keeper_pids, installed.worker_pids)
    switch(tmp_path, "broken")
    told = reload(installed)
    assert told.returncode == 1
    assert "not reloaded: " in told.stderr
    assert "this version can not start here" in told.stderr
    (tmp_path / "current" / "bin" / "oca").chmod(0o644)
    told = reload(installed)
    assert told.returncode == 1
    assert "not reloaded: " in told.stderr
    assert (installed.keeper_pids, installed.worker_pids) == pids
    for path, content in films.items():
        assert installed.get(path).body == content
    switch(tmp_path, "two")
    assert reload(installed).returncode == 0


def test_reloads_that_come_at_once_are_done_one_after_the_other(installed, films):
    with Load(installed, films) as load:
        for _ in range(5):
            installed.process.send_signal(signal.SIGHUP)
        assert reload(installed).returncode == 0
        load.wait_for(50)
    assert load.faults == []
    installed.wait_ready()


def test_a_worker_that_dies_after_another_version_took_over_is_replaced(installed, films):
    assert reload(installed).returncode == 0
    wait_until(lambda: len(installed.worker_pids) == 2, "the old workers have ended")
    victim = installed.worker_pids[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(installed.worker_pids) == 2 and victim not in installed.worker_pids, "it is replaced")
    for path, content in films.items():
        assert installed.get(path).body == content


def test_where_nothing_runs_a_reload_says_so(make_appliance):
    appliance = make_appliance()
    appliance.write_settings()
    told = reload(appliance)
    assert (told.returncode, told.stderr) == (1, f"oca: no appliance runs on {appliance.state_dir}\n")
    # The number in the lock may be another process's by now, which a signal would end.
    appliance.state_dir.mkdir()
    (appliance.state_dir / "appliance.lock").write_text(f"{os.getpid()}\n")
    assert reload(appliance).stderr == told.stderr
