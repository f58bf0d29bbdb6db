"""Where orders come from: the bucket, and the last one from a file when the bucket is away.

What is not signed by a key of the settings, is for another appliance, has expired, or comes from the future is refused
with a reason, and never worked on. Of orders for a night the later one counts; going back is not possible from outside.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fill.agent.journal import Name
from fill.bucket import Entry
from fill.errors import BucketError, FillError
from wire.codec import WireError
from wire.orders import MOST_ORDER_BYTES, FillOrder, opened, order_key, urgent_prefix

log = logging.getLogger(__name__)

_LAST: Final = "order.json"
_FUTURE: Final = 86400.0
"""Seconds that an order may be ahead of our clock."""
_MOST_URGENT: Final = 100


class Refusal(StrEnum):
    """Why an order is not worked on: the closed label set of `oca_fill_orders_refused_total`."""

    SIGNATURE = "signature"
    """Nobody whom the settings trust has signed it, or it is no order."""
    FOREIGN = "foreign"
    EXPIRED = "expired"
    CLOCK = "clock"
    """It was issued in the future: one of the two clocks is wrong."""


class OrderRefused(FillError):
    def __init__(self, why: Refusal, message: str) -> None:
        super().__init__(message)
        self.why = why


class Store(Protocol):
    """The control bucket (fill/bucket.py)."""

    def entries(self, prefix: str) -> Iterable[Entry]: ...
    def read(self, key: str, most_bytes: int) -> bytes | None: ...


def checked(body: bytes, keys: Mapping[str, Ed25519PublicKey], appliance: str, now: float) -> FillOrder:
    """The order, if it may be worked on now. Raises `OrderRefused`."""
    try:
        order = opened(body, dict(keys), FillOrder)
    except WireError as error:
        raise OrderRefused(Refusal.SIGNATURE, f"an order can't be believed: {error}") from error
    if order.appliance != appliance:
        raise OrderRefused(
            Refusal.FOREIGN, f"an order for {order.appliance} lies where ours should; we are {appliance}"
        )
    if order.issued_at > now + _FUTURE:
        raise OrderRefused(
            Refusal.CLOCK,
            f"the order for {order.night} was issued {(order.issued_at - now) / 3600:.0f} hours from now: "
            "the planner's clock or this one is wrong",
        )
    if order.expires_at <= now:
        raise OrderRefused(
            Refusal.EXPIRED, f"the order for {order.night} expired {(now - order.expires_at) / 3600:.1f} hours ago"
        )
    return order


def name_of(order: FillOrder, body: bytes) -> Name:
    return Name(order.night, order.version, hashlib.sha256(body).hexdigest()[:16])


class Mailbox:
    """Blocking, for a thread. `refused` counts and keeps the last sentence, so that nothing is only in a log."""

    def __init__(self, store: Store, keys: Mapping[str, Ed25519PublicKey], appliance: str, folder: Path) -> None:
        self._store = store
        self._keys = dict(keys)
        self._appliance = appliance
        self._folder = folder
        self._etag = ""
        self._body: bytes | None = None
        self._complained: dict[str, str] = {}
        self.refused: dict[Refusal, int] = dict.fromkeys(Refusal, 0)
        self.trouble = ""
        """What is wrong with the current order, or with the bucket; empty if nothing is."""
        self.heard_at: float | None = None
        """When the bucket answered last."""

    def current(self, now: float) -> tuple[Name, FillOrder] | None:
        """The order to work on: the bucket's, or while it is away the last one. None: there is none, or it is
        refused."""
        key = order_key(self._appliance)
        away = ""
        try:
            entry = next((one for one in self._store.entries(key) if one.key == key), None)
            if entry is not None and entry.etag != self._etag:
                self._body = self._store.read(key, MOST_ORDER_BYTES)
                self._etag = entry.etag if self._body is not None else ""
            elif entry is None:
                self._body, self._etag = None, ""
            self.heard_at = now
        except BucketError as error:
            away = f"orders can't be had: {error}"
            if self._body is None:
                self._body = self._last()
        body = self._body
        if body is None:
            self._say(key, away)
            return None
        try:
            order = checked(body, self._keys, self._appliance, now)
        except OrderRefused as error:
            self._refuse(key, error)
            return None
        self._say(key, away)
        if not away:
            self._keep(body)
        return name_of(order, body), order

    def urgent(self, now: float, known: set[str]) -> list[tuple[str, FillOrder]]:
        """Orders out of cycle that are not `known`, with their keys, the earliest first."""
        found: list[tuple[str, FillOrder]] = []
        try:
            for entry in list(self._store.entries(urgent_prefix(self._appliance)))[:_MOST_URGENT]:
                if entry.key in known:
                    continue
                body = self._store.read(entry.key, MOST_ORDER_BYTES)
                if body is None:
                    continue
                try:
                    order = checked(body, self._keys, self._appliance, now)
                except OrderRefused as error:
                    self._refuse(entry.key, error)
                    continue
                if order.is_urgent:
                    found.append((entry.key, order))
        except BucketError:
            return found  # `current` has told it.
        return found

    def _refuse(self, key: str, error: OrderRefused) -> None:
        if self._complained.get(key) != str(error.why):
            self.refused[error.why] += 1
            log.error("%s", error)
        self._complained[key] = str(error.why)
        if key == order_key(self._appliance):
            self.trouble = str(error)

    def _say(self, key: str, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("%s", trouble)
        self.trouble = trouble
        self._complained.pop(key, None)

    def _keep(self, body: bytes) -> None:
        path = self._folder / _LAST
        try:
            if path.exists() and path.read_bytes() == body:
                return
            beside = path.with_name(path.name + ".new")
            with beside.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            log.warning("%s: the order can't be kept for when the bucket is away: %s", path, error.strerror)

    def _last(self) -> bytes | None:
        try:
            with (self._folder / _LAST).open("rb") as file:
                body = file.read(MOST_ORDER_BYTES + 1)
        except OSError:
            return None
        return body if len(body) <= MOST_ORDER_BYTES else None
