"""The health of one device: a table of standings, signals and thresholds. Time is an argument.

- Down fast: each signal says after how many of its kind, within its window, the device stands worse. What can be told
  at once (another disk, an empty mount point, a read-only file system) takes one.
- Up slowly: only a reason that heals, only by probes, and only when they were good for `settle` seconds in which
  nothing bad was heard. Every other reason sticks until the operator's command: a probe of one small file does not know
  that the extents next to it are unreadable.
- A device stands no better than its worst reason allows: who fails with input/output errors and is then pulled does not
  come back by itself when it is put in again.
- Standing, reason and moment are persisted with the device's id, so that a restart forgets none of it.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple


class Standing(StrEnum):
    """What may be done with a device."""

    ONLINE = "online"
    """Read and written."""
    FAILING = "failing"
    """Read, not written."""
    OFFLINE = "offline"
    """Neither."""


class Fault(StrEnum):
    """What is wrong with a device, or with one extent on it: the closed label set of status, metrics and log."""

    IO = "io"
    """The kernel reports an input/output error."""
    WRITE = "write"
    """It was a write, and the first for long: the device rests, and probes say whether it can be written again."""
    STALLED = "stalled"
    """No answer within the deadline."""
    SLOW = "slow"
    READ_ONLY = "read_only"
    FULL = "full"
    """The file system has no room although the capacity says so."""
    VANISHED = "vanished"
    """The mount point is empty: nothing is mounted there, or no longer."""
    WRONG_DISK = "wrong_disk"
    """Another device is mounted there."""
    UNUSABLE = "unusable"
    """The folder can't be opened, or its identity can't be read."""
    MISSING = "missing"
    """An extent's file is gone; the device is well."""
    SHORT = "short"
    """An extent's file is shorter than what the index says lies in it."""
    ROTTEN = "rotten"
    """Bytes that were read do not have the sum they were stored with."""


class Signal(StrEnum):
    """What is heard of a device. Errors are counted by extents: a hundred viewers of one bad extent are one error."""

    GOOD = "good"
    """A read or write as it should be."""
    READ_ERROR = "read_error"
    WRITE_ERROR = "write_error"
    ROTTEN = "rotten"
    STALL = "stall"
    """A read, write or probe that passed its deadline."""
    SLOW_READ = "slow_read"
    FULL = "full"
    READ_ONLY = "read_only"
    VANISHED = "vanished"
    WRONG_DISK = "wrong_disk"
    UNUSABLE = "unusable"
    PROBE_GOOD = "probe_good"
    """The identity was the right one, and a small file was written and came back the same."""
    PROBE_BAD = "probe_bad"
    """The probe met an input/output error or got other bytes back. Whatever else it finds is a signal of its own."""
    OPERATOR = "operator"
    """The operator's command to take it into service again."""


class Step(NamedTuple):
    """Where a signal leads, and for what reason."""

    standing: Standing
    reason: Fault
    after: int = 1
    """So many of the signal within its window."""
    share: float = 0.0
    """And they are more than this share of all reads within it."""


class Limits(NamedTuple):
    settle: float = 120.0
    """Seconds that probes must have been good, and nothing bad heard, before a device that heals is back."""


class Change(NamedTuple):
    """What a signal changed: for the log, and to be persisted."""

    before: Standing
    after: Standing
    reason: Fault | None


ONLINE, FAILING, OFFLINE = Standing.ONLINE, Standing.FAILING, Standing.OFFLINE

WINDOWS: Final = {
    # An ageing disk has a bad sector now and then; several within an hour are the disk.
    Signal.READ_ERROR: 3600.0,
    Signal.ROTTEN: 3600.0,
    # Whoever needs a rest every few hours is not getting better.
    Signal.WRITE_ERROR: 86400.0,
    # Each stall is a viewer who waited for the whole deadline.
    Signal.STALL: 60.0,
    Signal.SLOW_READ: 120.0,
    Signal.GOOD: 120.0,
    Signal.PROBE_BAD: 600.0,
}
"""Seconds for which a signal is remembered; what is not here counts at once."""

_SOME: Final = 3
_MANY: Final = 12

_FACTS: Final = {
    Signal.FULL: (Step(FAILING, Fault.FULL),),
    Signal.READ_ONLY: (Step(FAILING, Fault.READ_ONLY),),
    Signal.VANISHED: (Step(OFFLINE, Fault.VANISHED),),
    Signal.WRONG_DISK: (Step(OFFLINE, Fault.WRONG_DISK),),
    Signal.UNUSABLE: (Step(OFFLINE, Fault.UNUSABLE),),
}
_COUNTED: Final = {
    Signal.READ_ERROR: (Step(OFFLINE, Fault.IO, _MANY), Step(FAILING, Fault.IO, _SOME)),
    Signal.ROTTEN: (Step(OFFLINE, Fault.ROTTEN, _MANY), Step(FAILING, Fault.ROTTEN, _SOME)),
    Signal.WRITE_ERROR: (Step(FAILING, Fault.IO, _SOME), Step(FAILING, Fault.WRITE)),
    Signal.STALL: (Step(OFFLINE, Fault.STALLED, 3),),
}
TRANSITIONS: Final[dict[Standing, dict[Signal, tuple[Step, ...]]]] = {
    ONLINE: {
        **_FACTS,
        **_COUNTED,
        Signal.SLOW_READ: (Step(FAILING, Fault.SLOW, 10, share=0.2),),
    },
    FAILING: {
        **_FACTS,
        **_COUNTED,
        Signal.SLOW_READ: (Step(FAILING, Fault.SLOW, 10, share=0.2),),
        Signal.PROBE_BAD: (Step(OFFLINE, Fault.IO, 4),),
    },
    OFFLINE: {
        # It stands as low as it can: only why may change. Room, and being writable, are not asked of it.
        **{signal: steps for signal, steps in _FACTS.items() if steps[0].standing is OFFLINE},
        Signal.READ_ERROR: (Step(OFFLINE, Fault.IO, _MANY),),
        Signal.ROTTEN: (Step(OFFLINE, Fault.ROTTEN, _MANY),),
        Signal.PROBE_BAD: (Step(OFFLINE, Fault.IO, 4),),
    },
}
"""The first step that is due is taken, if it leads to a worse standing, or to a worse reason for the same one."""

HEALS: Final = (
    Fault.SLOW,
    Fault.FULL,
    Fault.READ_ONLY,
    Fault.WRITE,
    Fault.UNUSABLE,
    Fault.STALLED,
    Fault.VANISHED,
)
"""Reasons that end by good probes, the mildest first."""
STICKS: Final = (Fault.WRONG_DISK, Fault.ROTTEN, Fault.IO)
"""Reasons that only the operator's command ends. Worse than all that heal."""

_DEPTH: Final = {ONLINE: 0, FAILING: 1, OFFLINE: 2}
_WEIGHT: Final = {ONLINE: 1.0, FAILING: 0.5, OFFLINE: 0.0}
_GRAVITY: Final = {fault: gravity for gravity, fault in enumerate((*HEALS, *STICKS))}
_SLICES: Final = 32


class Health:
    """The health of one device. Hand in each signal; a `Change` that comes back is logged, persisted and acted upon."""

    def __init__(
        self, limits: Limits, standing: Standing = ONLINE, reason: Fault | None = None, since: float = 0.0
    ) -> None:
        self._limits = limits
        self.standing = standing
        self.reason = None if standing is ONLINE else reason
        self.since = since
        """The moment of the last change."""
        self._heard = {signal: _Tally(window) for signal, window in WINDOWS.items()}
        self._well_since: float | None = None

    @property
    def can_read(self) -> bool:
        return self.standing is not OFFLINE

    @property
    def can_write(self) -> bool:
        return self.standing is ONLINE

    @property
    def heals(self) -> bool:
        """Whether good probes bring it back; if not, the operator's command does. False while it is well."""
        return self.reason in HEALS

    @property
    def weight(self) -> float:
        """Its part in the health of the box."""
        return _WEIGHT[self.standing]

    def signal(self, now: float, signal: Signal, count: int = 1) -> Change | None:
        """Hear `count` signals of one kind. Returns what changed, None if nothing did."""
        if signal is Signal.OPERATOR:
            self._forget()
            return self._stand(now, ONLINE, None)
        if signal in self._heard:
            self._heard[signal].add(now, count)
        if signal is Signal.GOOD:
            return None
        if signal is Signal.PROBE_GOOD:
            return self._settle(now)
        step = self._due_step(now, signal)
        # A slow read now and then is no reason to wait longer; everything else that is bad is.
        if step is not None or signal is not Signal.SLOW_READ:
            self._well_since = None
        return None if step is None else self._sink(now, step)

    def _due_step(self, now: float, signal: Signal) -> Step | None:
        for step in TRANSITIONS[self.standing].get(signal, ()):
            heard = self._heard[signal].total(now) if signal in self._heard else step.after
            reads = heard + self._heard[Signal.GOOD].total(now)
            if heard >= step.after and heard > step.share * reads:
                return step
        return None

    def _sink(self, now: float, step: Step) -> Change | None:
        reason = step.reason if self.reason is None or _is_worse(step.reason, self.reason) else self.reason
        standing = step.standing if _DEPTH[step.standing] > _DEPTH[self.standing] else self.standing
        return self._stand(now, standing, reason)

    def _settle(self, now: float) -> Change | None:
        self._heard[Signal.PROBE_BAD].clear()
        if not self.heals:
            return None
        if self._well_since is None:
            self._well_since = now
        return self._stand(now, ONLINE, None) if now - self._well_since >= self._limits.settle else None

    def _stand(self, now: float, standing: Standing, reason: Fault | None) -> Change | None:
        if (standing, reason) == (self.standing, self.reason):
            return None
        change = Change(self.standing, standing, reason)
        self.standing, self.reason, self.since = standing, reason, now
        self._well_since = None
        return change

    def _forget(self) -> None:
        for tally in self._heard.values():
            tally.clear()


def box_health(devices: Iterable[tuple[int, Standing]]) -> float:
    """The share of the capacity that is well, in 0..1: what fails counts half, what is offline not at all.

    `devices` are capacities in bytes with their standing; without any there is no health.
    """
    well = total = 0.0
    for capacity, standing in devices:
        well += capacity * _WEIGHT[standing]
        total += capacity
    return well / total if total else 0.0


def explanation(reason: Fault | None) -> str:
    """One sentence for the operator: what is wrong, and what ends it. Empty if nothing is."""
    if reason is None:
        return ""
    ends = "it comes back by itself when probes are good" if reason in HEALS else "`oca device add` brings it back"
    return f"{_EXPLAINED.get(reason, 'it was left out')}; {ends}"


def fault_of(error_number: int) -> Fault | None:
    """What an errno of a read or write says of the device. None: nothing, it is our own shortage."""
    # Whatever is not named is what a block device reports: EIO, or for some EREMOTEIO, ENODATA, EILSEQ, EUCLEAN.
    return _FAULTS.get(error_number, Fault.IO)


def signal_of(fault: Fault) -> Signal | None:
    """The signal that a fault met in reading is to its device. None: it is the extent's alone.

    In writing `Fault.IO` is a WRITE_ERROR instead, in probing a PROBE_BAD.
    """
    return _SIGNALS.get(fault)


_EXPLAINED: Final = {
    Fault.IO: "the kernel reports input/output errors: see the kernel log, and replace the disk if they go on",
    Fault.WRITE: "a write failed: it rests from writing while probes try it",
    Fault.STALLED: "it did not answer within the deadline",
    Fault.SLOW: "too many of its reads are slow",
    Fault.READ_ONLY: "its file system is read-only: see the kernel log, repair and mount it again",
    Fault.FULL: "its file system has no room although its capacity says so: something else lies on it",
    Fault.VANISHED: "nothing is mounted at its path",
    Fault.WRONG_DISK: "another disk is mounted at its path",
    Fault.UNUSABLE: "its folder can't be opened, or its identity can't be read",
    Fault.ROTTEN: "what is read from it is not what was written: replace the disk, its cable or its controller",
}
_FAULTS: Final[dict[int, Fault | None]] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), Fault.FULL),
    **dict.fromkeys((errno.EROFS,), Fault.READ_ONLY),
    **dict.fromkeys((errno.ENOENT,), Fault.MISSING),
    **dict.fromkeys((errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ENOMEDIUM), Fault.VANISHED),
    **dict.fromkeys((errno.ETIMEDOUT,), Fault.STALLED),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP), Fault.UNUSABLE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EINTR, errno.EAGAIN), None),
    # A descriptor that was closed under the one who used it is our own mistake.
    **dict.fromkeys((errno.EBADF,), None),
}
_SIGNALS: Final = {
    Fault.IO: Signal.READ_ERROR,
    Fault.WRITE: Signal.WRITE_ERROR,
    Fault.STALLED: Signal.STALL,
    Fault.SLOW: Signal.SLOW_READ,
    Fault.READ_ONLY: Signal.READ_ONLY,
    Fault.FULL: Signal.FULL,
    Fault.VANISHED: Signal.VANISHED,
    Fault.WRONG_DISK: Signal.WRONG_DISK,
    Fault.UNUSABLE: Signal.UNUSABLE,
    Fault.ROTTEN: Signal.ROTTEN,
}


def _is_worse(reason: Fault, than: Fault) -> bool:
    """Whether `reason` outranks `than`. One that is unknown here came from a record: nothing is milder than it."""
    return _GRAVITY[reason] > _GRAVITY.get(than, len(_GRAVITY))


class _Tally:
    """How many within the last `window` seconds, kept in a bounded number of slices of it."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._slices: deque[tuple[float, int]] = deque(maxlen=_SLICES + 1)

    def add(self, now: float, count: int) -> None:
        if self._slices and now - self._slices[-1][0] < self._window / _SLICES:
            begun, so_far = self._slices.pop()
            self._slices.append((begun, so_far + count))
        else:
            self._slices.append((now, count))

    def total(self, now: float) -> int:
        while self._slices and self._slices[0][0] <= now - self._window:
            self._slices.popleft()
        return sum(count for _, count in self._slices)

    def clear(self) -> None:
        self._slices.clear()
