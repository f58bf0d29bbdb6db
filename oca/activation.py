"""Sockets that systemd opened for us (sd_listen_fds(3)), and telling it that we are ready (sd_notify(3)).

With systemd's sockets a restart of the whole appliance refuses nobody: connections wait in their queue.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

_FIRST: Final = 3


def passed_sockets() -> dict[str, list[socket.socket]]:
    """Listening sockets by the name of their unit's FileDescriptorName=: "http" and "control" are used.

    Empty if none were passed to this very process. The environment variables are removed: they are not for children.
    """
    count = os.environ.pop("LISTEN_FDS", "0")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, list[socket.socket]] = {}
    for i in range(int(count)):
        sock = socket.socket(fileno=_FIRST + i)
        sock.set_inheritable(False)
        sock.setblocking(False)
        found.setdefault(names[i] if i < len(names) else "", []).append(sock)
    return found


def notify(state: str) -> None:
    """Tell systemd "READY=1", "RELOADING=1" or "STOPPING=1"; nothing happens where no one listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)
