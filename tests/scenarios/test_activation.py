"""Sockets opened by systemd: a restart of the whole appliance refuses nobody, their queue waits."""

import os
import socket
import subprocess
import sys

from tests.doubles.appliance import PATIENCE
from tests.doubles.wire import Wire

# What systemd does between fork and exec: descriptors from 3 on, and the process's own number in LISTEN_PID.
AS_SYSTEMD = """
import os, sys
http, control, notify, *command = sys.argv[1:]
os.dup2(int(http), 103); os.dup2(int(control), 104)
os.dup2(103, 3); os.dup2(104, 4)
os.environ |= dict(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="http:control", NOTIFY_SOCKET=notify)
os.execv(command[0], command)
"""


def listening(port):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(64)
    return sock


def start_as_systemd(appliance, http, control, notify):
    as_systemd = [sys.executable, "-c", AS_SYSTEMD, str(http.fileno()), str(control.fileno()), notify]
    with appliance.log.open("ab") as log:
        appliance.process = subprocess.Popen(
            [*as_systemd, sys.executable, "-m", "oca", "serve", "--config", str(appliance.config)],
            pass_fds=(http.fileno(), control.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    appliance._sessions.add(appliance.process.pid)


def test_with_systemds_sockets_a_restart_refuses_nobody(make_appliance, origin, path):
    appliance = make_appliance()
    appliance.write_settings()
    content = origin.put(path, 50_000)
    address = f"\0oca-notify-{os.getpid()}"
    with (
        listening(appliance.port) as http,
        listening(appliance.control_port) as control,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        notified.bind(address)
        notified.settimeout(PATIENCE)
        start_as_systemd(appliance, http, control, "@" + address[1:])
        assert notified.recv(100) == b"READY=1"
        appliance.wait_ready()
        assert appliance.get(path).body == content
        appliance.stop()
        assert notified.recv(100) == b"STOPPING=1"
        # Nobody is there, and yet nobody is refused.
        with Wire(appliance.port) as waiting:
            waiting.ask(path)
            start_as_systemd(appliance, http, control, "@" + address[1:])
            assert waiting.answer().body == content
        appliance.wait_ready()
