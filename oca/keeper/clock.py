"""What the kernel knows of its clock, by adjtimex(2): whether something keeps it in step, and how far it may be off."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from wire.probe import Clock

_UNSYNCHRONISED: Final = 0x0040
"""STA_UNSYNC of <sys/timex.h>."""
_ERROR: Final = 5
"""TIME_ERROR: the clock is not in step."""


class _Timex(ctypes.Structure):
    """struct timex of <sys/timex.h>, as far as it is read; the kernel writes all of it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def kernel_clock(now: float) -> Clock:
    """`now` is what the clock says. Nothing is changed, which needs no privilege; some containers forbid it."""
    libc = ctypes.CDLL(None, use_errno=True)
    read = _Timex()  # modes 0: only tell.
    state = libc.adjtimex(ctypes.byref(read))
    if state < 0:
        return Clock(now=now, trouble=f"adjtimex: {os.strerror(ctypes.get_errno())}")
    return Clock(
        now=now,
        is_synchronised=state != _ERROR and not read.status & _UNSYNCHRONISED,
        estimated_error=read.esterror / 1e6,
        most_error=read.maxerror / 1e6,
    )
