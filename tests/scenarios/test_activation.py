"""What systemd does for an appliance: it opens sockets, keeps them over a death, and watches."""

import array
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.doubles.appliance import PATIENCE, wait_until
from tests.doubles.wire import Wire

# What systemd does between fork and exec: descriptors from 3 on, and the process's own number in LISTEN_PID.
AS_SYSTEMD = """
import os, sys
names, fds, notify, watchdog, *command = sys.argv[1:]
fds = [int(fd) for fd in fds.split(",") if fd]
for place, fd in enumerate(fds): os.dup2(fd, 200 + place)
for place in range(len(fds)): os.dup2(200 + place, 3 + place)
os.closerange(3 + len(fds), 300)
os.environ |= dict(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names, NOTIFY_SOCKET=notify)
if watchdog: os.environ |= dict(WATCHDOG_USEC=watchdog, WATCHDOG_PID=str(os.getpid()))
os.execv(command[0], command)
"""


class Systemd:
    """The part of it that an appliance speaks with."""

    def __init__(self):
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = f"@oca-notify-{os.getpid()}-{self._notified.fileno()}"
        self._notified.bind("\0" + self.address[1:])
        self._notified.settimeout(PATIENCE)
        self.kept: list[tuple[str, int]] = []

    def start(self, appliance, passed=(), watchdog=None):
        """`passed`: (name, descriptor); what is kept comes after it."""
        given = [*passed, *self.kept]
        names = ":".join(name for name, _ in given)
        fds = [fd for _, fd in given]
        as_systemd = [sys.executable, "-c", AS_SYSTEMD, names, ",".join(map(str, fds)), self.address]
        command = [sys.executable, "-m", "oca", "serve", "--config", str(appliance.config)]
        with appliance.log.open("ab") as log:
            appliance.process = subprocess.Popen(
                [*as_systemd, "" if watchdog is None else str(int(watchdog * 1e6)), *command],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        appliance._sessions.add(appliance.process.pid)

    def said(self):
        """What it is told next; what it is to keep or forget it does meanwhile."""
        while True:
            words, control, _, _ = self._notified.recvmsg(1000, 4096)
            lines = words.decode().split("\n")
            if lines[0] == "FDSTORE=1":
                name = lines[1].removeprefix("FDNAME=")
                fds = array.array("i")
                for _, _, content in control:
                    fds.frombytes(content)
                self.kept += [(name, fd) for fd in fds]
            elif lines[0] == "FDSTOREREMOVE=1":
                name = lines[1].removeprefix("FDNAME=")
                for fd in [fd for known, fd in self.kept if known == name]:
                    os.close(fd)
                self.kept = [(known, fd) for known, fd in self.kept if known != name]
            else:
                return words.decode()

    def close(self):
        self._notified.close()
        for _, fd in self.kept:
            os.close(fd)


@pytest.fixture
def systemd():
    systemd = Systemd()
    yield systemd
    systemd.close()


def listening(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(64)
    return sock


def test_with_systemds_sockets_a_restart_refuses_nobody(make_appliance, origin, path, systemd):
    appliance = make_appliance()
    appliance.write_settings()
    content = origin.put(path, 50_000)
    with listening(appliance.port) as http, listening(appliance.control_port) as control:
        passed = [("http", http.fileno()), ("control", control.fileno())]
        systemd.start(appliance, passed)
        assert systemd.said() == "READY=1"
        appliance.wait_ready()
        assert appliance.get(path).body == content
        appliance.stop()
        assert systemd.said() == "STOPPING=1"
        # Nobody is there, and yet nobody is refused.
        with Wire(appliance.port) as waiting:
            waiting.ask(path)
            systemd.start(appliance, passed)
            assert waiting.answer().body == content
        appliance.wait_ready()


def test_each_socket_of_systemds_has_a_worker_though_the_settings_want_fewer(make_appliance, origin, path, systemd):
    appliance = make_appliance()
    appliance.write_settings(listen={"workers": 1})
    content = origin.put(path, 1000)
    socks = [listening(appliance.port) for _ in range(3)]
    with listening(appliance.control_port) as control:
        passed = [*(("http", sock.fileno()) for sock in socks), ("control", control.fileno())]
        systemd.start(appliance, passed)
        assert systemd.said() == "READY=1"
        appliance.wait_ready()
        assert len(appliance.workers()) == 3
        # The kernel spreads connections over the three queues.
        for _ in range(30):
            assert appliance.get(path).body == content
        appliance.stop()
    for sock in socks:
        sock.close()


def test_when_all_is_killed_systemd_has_kept_sockets_and_what_was_counted(make_appliance, origin, path, systemd):
    appliance = make_appliance()
    appliance.write_settings()
    content = origin.put(path, 50_000)
    systemd.start(appliance)
    assert systemd.said() == "READY=1"
    appliance.wait_ready()
    assert appliance.get(path).body == content
    assert [name for name, _ in systemd.kept].count("kept-http") == 2
    appliance.kill_all()
    with Wire(appliance.port) as waiting:
        waiting.ask(path)
        systemd.start(appliance)
        assert waiting.answer().body == content
    assert systemd.said() == "READY=1"
    appliance.wait_ready()
    wait_until(lambda: appliance.metric("oca_requests_total") == 2, "both requests are counted")
    wait_until(lambda: appliance.metric("oca_open_connections") == 0, "and no connection that is not there")


def test_kept_sockets_of_an_address_that_is_not_ours_any_more_are_let_go(make_appliance, origin, path, systemd):
    appliance = make_appliance()
    appliance.write_settings()
    systemd.start(appliance)
    assert systemd.said() == "READY=1"
    appliance.kill_all()
    old = appliance.port
    appliance.port = make_appliance().port
    appliance.write_settings(listen={"workers": 1})
    systemd.start(appliance)
    assert systemd.said() == "READY=1"
    appliance.wait_ready()
    assert [name for name, _ in systemd.kept].count("kept-http") == 1
    with pytest.raises(ConnectionRefusedError):
        Wire(old)


def test_a_reload_goes_on_with_the_watchdog_fed_and_nothing_kept_twice(make_appliance, origin, path, systemd):
    appliance = make_appliance()
    appliance.write_settings()
    content = origin.put(path, 1000)
    systemd.start(appliance, watchdog=20.0)
    assert systemd.said() == "READY=1"
    assert systemd.said() == "WATCHDOG=1"
    kept = [name for name, _ in systemd.kept]
    appliance.process.send_signal(signal.SIGHUP)
    wait_until(lambda: systemd.said() == "RELOADING=1", "it reloads")
    assert systemd.said() == "READY=1"
    assert systemd.said() == "WATCHDOG=1"
    assert [name for name, _ in systemd.kept] == kept
    assert appliance.get(path).body == content


def test_a_worker_that_gives_no_answer_is_replaced(make_appliance, origin, path, systemd):
    appliance = make_appliance()
    appliance.write_settings()
    content = origin.put(path, 1000)
    systemd.start(appliance, watchdog=4.0)
    assert systemd.said() == "READY=1"
    appliance.wait_ready()
    workers = appliance.worker_pids
    os.kill(workers[0], signal.SIGSTOP)
    wait_until(lambda: len(appliance.worker_pids) == 2 and workers[0] not in appliance.worker_pids, "it is replaced")
    assert "gives no answer; it is replaced" in appliance.log.read_text()
    assert workers[1] in appliance.worker_pids
    assert systemd.said() == "WATCHDOG=1"
    for _ in range(10):
        assert appliance.get(path).body == content


def test_while_no_worker_answers_the_watchdog_goes_hungry(make_appliance, systemd):
    appliance = make_appliance()
    appliance.write_settings(listen={"workers": 1})
    systemd.start(appliance, watchdog=PATIENCE)
    assert systemd.said() == "READY=1"
    assert systemd.said() == "WATCHDOG=1"
    (worker,) = appliance.worker_pids
    os.kill(worker, signal.SIGSTOP)
    try:
        systemd._notified.settimeout(3 * PATIENCE / 8)
        # What it had answered before may still come.
        with pytest.raises(TimeoutError):
            assert [systemd.said(), systemd.said()] == []
    finally:
        os.kill(worker, signal.SIGCONT)
    systemd._notified.settimeout(PATIENCE)
    assert systemd.said() == "WATCHDOG=1"
