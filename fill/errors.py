"""Failures of fill: one line for the reader, one exit code for the script.

Foreign errors (OSError, botocore, Arrow) are translated where they enter.
"""

from typing import ClassVar


class FillError(Exception):
    """Everything fill raises on purpose. The text is one line: what was wrong, and what is allowed."""

    exit_code: ClassVar[int] = 1


class SettingsError(FillError):
    """The settings, the operator's wishes or the command line can't be used. The operator's."""

    exit_code = 2


class InputError(FillError):
    """What a plan is made of can't be used: catalogue, demand, stock or fleet."""

    exit_code = 3


class BucketError(FillError):
    """The bucket did not do what was asked."""

    exit_code = 4


class BucketUnreachable(BucketError):
    """No answer in time. Asking again may help."""


class BucketRefused(BucketError):
    """The store said no: credentials, permissions, or a bucket that is not there. Asking again does not help."""


class SomebodyElse(BucketError):
    """A conditional write found that the object is there already, or has changed."""
