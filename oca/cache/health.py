"""The health of one device: a table of standings, signals and thresholds. Time is an argument."""

from __future__ import annotations

from enum import StrEnum


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
