"""`oca reload`: tells the running appliance to begin anew, and waits until it says what came of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

from oca.commands.terminal import say, show
from oca.errors import OcaError
from oca.reloads import Reloads
from oca.settings import Settings

_LOOK: Final = 0.05
_MOST_BYTES: Final = 32
_LOCKS: Final = Path("/proc/locks")


class NotRunning(OcaError):
    """No appliance runs on this state directory."""


class NoOutcome(OcaError):
    """It was told, and did not say in time what came of it."""


def reload_appliance(settings: Settings, patience: float) -> int:
    """Returns the exit code. Raises `NotRunning` and `NoOutcome`."""
    state = Path(settings.appliance.state_dir)
    reloads = Reloads(state / "run")
    before = reloads.number
    pid = _supervisor(state)
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise NotRunning(f"process {pid}, which runs on {state}, can't be told: {error.strerror}") from error
    deadline = time.monotonic() + patience
    while (last := reloads.last()).number == before:
        if time.monotonic() > deadline:
            raise NoOutcome(
                f"the appliance on {state} did not say within {patience:.0f} s what came of it; its log may"
            )
        time.sleep(_LOOK)
    if last.error:
        say(f"oca: not reloaded: {last.error}")
        return 1
    show("reloaded")
    return 0


def _supervisor(state: Path) -> int:
    """The process that holds the lock of the state directory. Raises `NotRunning`."""
    path = state / "appliance.lock"
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode(errors="replace").strip()
        inode = path.stat().st_ino
        # The number may be another process's by now, which SIGHUP would end: ours holds the lock.
        is_ours = text.isdecimal() and any(_is_lock(line, text, inode) for line in _LOCKS.read_text().splitlines())
    except FileNotFoundError:
        is_ours = False
    except OSError as error:
        raise NotRunning(f"{error.filename}: {error.strerror}: run this as the appliance's user, or as root") from error
    if not is_ours:
        raise NotRunning(f"no appliance runs on {state}")
    return int(text)


def _is_lock(line: str, pid: str, inode: int) -> bool:
    """Whether a line of /proc/locks (proc(5)), such as "1: FLOCK ADVISORY WRITE 12 fd:00:99 …", says that a process has
    locked a file. Its descriptors would say so too, but systemd runs this in a user namespace of its own, from where
    they can't be seen.
    """
    fields = line.split()
    return len(fields) > 5 and fields[1] == "FLOCK" and fields[4] == pid and fields[5].endswith(f":{inode}")
