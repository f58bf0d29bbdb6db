"""What systemd does for us: it opens sockets (sd_listen_fds(3)), keeps them over our death, and watches us.

With systemd's sockets a restart of the whole appliance refuses nobody: connections wait in their queue.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Final

_FIRST: Final = 3
_MOST_AT_ONCE: Final = 200
"""Descriptors in one message; the kernel takes 253."""


def passed() -> dict[str, list[int]]:
    """Descriptors by name: a socket's is its unit's FileDescriptorName=, and what we had kept has the name we gave it.

    Empty if none were passed to this very process. The environment variables are removed: they are not for children.
    """
    count = os.environ.pop("LISTEN_FDS", "0")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, list[int]] = {}
    for i in range(int(count)):
        os.set_inheritable(_FIRST + i, False)
        found.setdefault(names[i] if i < len(names) else "", []).append(_FIRST + i)
    return found


def keep(name: str, fds: Sequence[int]) -> None:
    """Have systemd keep descriptors, and pass them to the process that comes after this one. Without any: forget those
    that it keeps under the name. Nothing happens where FileDescriptorStoreMax= is not set.
    """
    if not fds:
        notify(f"FDSTOREREMOVE=1\nFDNAME={name}")
    for at in range(0, len(fds), _MOST_AT_ONCE):
        notify(f"FDSTORE=1\nFDNAME={name}", fds[at : at + _MOST_AT_ONCE])


def notify(state: str, fds: Sequence[int] = ()) -> None:
    """Tell systemd "READY=1", "RELOADING=1", "WATCHDOG=1" or "STOPPING=1"; nothing happens where no one listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        socket.send_fds(sock, [state.encode()], list(fds))


def watchdog_interval() -> float:
    """Seconds within which systemd wants to hear of this process (WatchdogSec=); 0: it does not."""
    if os.environ.get("WATCHDOG_PID", "") not in ("", str(os.getpid())):
        return 0.0
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0
