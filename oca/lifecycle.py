"""How a child process of the appliance begins: logging, settings, and dying with its parent."""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import logging
import os
import signal
import sys
import time
from typing import Final

from logging_journald import JournaldLogHandler, check_journal_stream

from oca.errors import OcaError
from oca.logs import Ring, RingHandler
from oca.settings import Settings, unpack_settings

_PR_SET_PDEATHSIG: Final = 1
_LOCK_PATIENCE: Final = 30.0
_LOCK_LOOK: Final = 0.02


class StateDirBusy(OcaError):
    """Another process still writes the index."""


def configure_logging(name: str) -> None:
    """One event, one line on stderr; or, where that is the journal, one entry with its level and where in the code it
    was said, and the process in EXTRA_ROLE.
    """
    level = os.environ.get("OCA_LOG_LEVEL", "INFO").upper()
    if check_journal_stream():
        handler = JournaldLogHandler("oca", use_message_id=False)
        # Nobody who serves viewers waits for the journal: what it can't take at once goes to stderr.
        handler.transport.socket.setblocking(False)
        handler.addFilter(_Named(name))
        logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
    else:
        line = f"%(asctime)s {name}[%(process)d] %(levelname)s %(message)s"
        logging.basicConfig(level=level, format=line, stream=sys.stderr)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


class _Named(logging.Filter):
    """Adds the field EXTRA_ROLE to each entry."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def filter(self, record: logging.LogRecord) -> bool:
        record.role = self._role
        return True


def keep_log(name: str, log_fd: int) -> Ring:
    """From now on, keep in the appliance's ring what is logged."""
    ring = Ring(log_fd)
    logging.getLogger().addHandler(RingHandler(ring, name))
    return ring


def begin_child(name: str, supervisor: int, lock_fd: int | None = None) -> None:
    """Set up the process. With `lock_fd`, wait until no other keeper writes the index.

    If the supervisor is killed, SIGTERM reaches us: an appliance without a supervisor drains and ends.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor:
        sys.exit(0)  # It died before the line above.
    faulthandler.enable()
    configure_logging(name)
    if lock_fd is not None:
        _take_lock(lock_fd)


def _take_lock(lock_fd: int) -> None:
    # A lock of the open file would be shared with the supervisor and its other children: lock our own opening of it.
    own = os.open(f"/proc/self/fd/{lock_fd}", os.O_RDWR | os.O_CLOEXEC)
    patience = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > patience:
                raise StateDirBusy("another keeper holds the index and does not end") from None
            time.sleep(_LOCK_LOOK)
        else:
            return


def read_settings_from(fd: int) -> Settings:
    """The settings that the supervisor checked, so that all processes of one generation agree."""
    return unpack_settings(os.pread(fd, os.fstat(fd).st_size, 0))
