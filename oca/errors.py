"""Failures of the appliance: whose fault, and whether asking again can help.

Raise a leaf, catch a family. Foreign errors (OSError, aiohttp, botocore, lmdb) are translated where they enter.
"""

from __future__ import annotations

from enum import StrEnum


class OcaError(Exception):
    """Everything the appliance raises on purpose."""


class SettingsError(OcaError):
    """The settings file can't be used. The operator's; asking again does not help."""


class KeysUnusable(OcaError):
    """A file of keys can't be read or used. The operator's; the keys that were known go on."""


class StoreError(OcaError):
    """A device or the index did not do what was asked. Viewers are served from the ladder meanwhile."""


class DeviceFull(StoreError):
    """No room could be made: the block passes through without being kept."""


class DeviceFault(StoreError):
    """A device did not do what was asked. `fault` is a `Fault` of oca.cache.health."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class ExtentDamaged(DeviceFault):
    """An extent's file is gone, shorter than what the index says lies in it, or rotten. The device may well be well."""


class OrderRefused(StoreError):
    """What the operator asked for can't be done as things are. `status` is that of the HTTP answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class IndexUnusable(StoreError):
    """The index can't be opened or is not ours."""


class FetchReason(StrEnum):
    """Why a fetch from a source failed: the closed label set of `oca_fetch_errors_total`."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    STATUS = "status"
    NOT_PARTIAL = "not_partial"
    WRONG_RANGE = "wrong_range"
    WRONG_SIZE = "wrong_size"
    WRONG_VALIDATOR = "wrong_validator"
    ENCODED = "encoded"
    TRUNCATED = "truncated"
    OVERLONG = "overlong"
    REDIRECT = "redirect"
    REFUSED = "refused"
    LOOP = "loop"
    NOT_HELD = "not_held"
    """A peer was asked for what it does not hold."""


class SourceError(OcaError):
    """A source did not give the bytes. The source's or the network's; another source or a later try may help."""

    def __init__(self, reason: FetchReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class GenerationChanged(SourceError):
    """The source now has other bytes under this name. What was begun with the old ones can't be finished from it."""

    def __init__(self, message: str) -> None:
        super().__init__(FetchReason.WRONG_VALIDATOR, message)


class RequestRefused(SourceError):
    """The source will not answer this one request. It is well: others are answered, so its breaker stays closed."""


class NoSourceAnswered(OcaError):
    """The whole ladder was climbed in vain, or the deadline passed. `status` is what a client is told: 502 or 504."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
