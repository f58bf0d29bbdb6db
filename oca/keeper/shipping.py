"""What the keeper and the process that ships demand say to each other: an order in, then a line for each thing done."""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Order(Struct, frozen=True, kw_only=True):
    """Ship these files of `folder`, then end."""

    appliance: str
    folder: str
    parts: tuple[str, ...]
    """Names of closed parts, in any order."""
    stock: str
    """The name of a `wire.demand.Stock`."""
    bucket: str
    """s3://bucket/prefix."""
    endpoint_url: str | None = None
    region: str | None = None


class HourShipped(Struct, frozen=True, tag="hour"):
    """The bucket has confirmed an object that holds these parts."""

    key: str
    parts: tuple[str, ...]


class StockShipped(Struct, frozen=True, tag="stock"):
    key: str


class PartUnreadable(Struct, frozen=True, tag="unreadable"):
    """A file is not what was written: there is nothing in it to be shipped, now or later."""

    part: str
    reason: str


class NotShipped(Struct, frozen=True, tag="failed"):
    """It stays in the spool."""

    reason: str


Told = HourShipped | StockShipped | PartUnreadable | NotShipped

MOST_LINE: Final = 1024 * 1024
"""Bytes. An hour of ten thousand parts is 300 KB."""
