"""Failures of the operator's tools: one line for the reader, one exit code for the script.

Raise a leaf, catch a family. Foreign errors (OSError, botocore, a process's exit code) are translated where they enter.
"""

from typing import ClassVar


class AdminError(Exception):
    """Everything our commands raise on purpose. The text is one line: what was wrong, and what is allowed."""

    exit_code: ClassVar[int] = 1


class UsageError(AdminError):
    """An argument can't be used. The operator's."""

    exit_code = 2


class InputError(AdminError):
    """The video can't be used: not there, not readable, not a film, or damaged. The operator's."""

    exit_code = 3


class StoreError(AdminError):
    """The bucket did not do what was asked."""

    exit_code = 4


class StoreUnreachable(StoreError):
    """No answer from the store in time. Asking again may help."""


class StoreRefused(StoreError):
    """The store said no: credentials, permissions, or a bucket that is not there. Asking again does not help."""


class ConditionFailed(StoreError):
    """A conditional write found that the object has changed: someone else wrote first."""


class TitleTaken(AdminError):
    """The title is published already, or another run is publishing it. Asking again does not help."""

    exit_code = 5


class MachineError(AdminError):
    """This machine lacks something (ffmpeg, disk space, a package), or an encoder failed on it."""

    exit_code = 6
