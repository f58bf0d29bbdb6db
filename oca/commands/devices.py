"""`oca device`: what the operator asks of the devices of a running appliance."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

import msgspec

from oca.cache.health import HEALS, Standing
from oca.commands.control import ControlClient, NoAnswer
from oca.commands.terminal import Progress, say, show, size, span, table
from oca.errors import OcaError
from oca.settings import Device, Settings, Tier
from wire.toml import Bytes

_FIRST_LOOK, _LAST_LOOK = 0.1, 2.0
_PATIENCE: Final = 60.0
"""Seconds without an answer after which waiting for a drain ends: a keeper that restarts is back sooner."""


class DeviceEntry(msgspec.Struct):
    """A device as the control API describes it. Unknown fields are skipped: the appliance may be newer."""

    path: str
    tier: str
    standing: str
    id: str | None = None
    """None if it could not be read."""
    reason: str | None = None
    since: float = 0.0
    wish: str = "serve"
    used_bytes: int = 0
    capacity_bytes: int = 0
    errors: dict[str, int] = {}
    left_bytes: int | None = None
    """While it drains: what is still to be moved."""
    detail: str | None = None

    @property
    def name(self) -> str:
        return f"{self.id} ({self.path})" if self.id else self.path


class Listing(msgspec.Struct):
    devices: list[DeviceEntry]
    health: float = 1.0


class DrainStopped(OcaError):
    """Waiting for a drain was in vain: it does not come to its end by itself."""


def list_devices(settings: Settings, *, as_json: bool) -> int:
    client = ControlClient(settings)
    if as_json:
        show(_packed(client.look("/v1/devices", dict)))
        return 0
    listing = client.look("/v1/devices", Listing)
    show(listed(listing, time.time()))
    return 0


def add_device(
    settings: Settings,
    path: str,
    *,
    tier: Tier | None,
    capacity: Bytes | None,
    dwpd: float | None,
    new: bool,
    adopt: bool,
    as_json: bool,
) -> int:
    path = _absolute(path)
    known = _in_settings(settings, path)
    order: dict[str, Any] = {"path": path}
    # The file may be newer than what the appliance has read: the operator wrote it there, and means it.
    if known is not None:
        order |= {"tier": known.tier.value, "capacity": int(known.capacity), "dwpd": known.dwpd}
    given = {"tier": tier and tier.value, "capacity": capacity and int(capacity), "dwpd": dwpd}
    order |= {name: value for name, value in given.items() if value is not None}
    order |= {name: True for name, is_so in {"new": new, "adopt": adopt}.items() if is_so}
    _answer(ControlClient(settings), "/v1/devices", order, "is in service", as_json=as_json)
    if known is None:
        # It is back after a restart, but an index that is lost knows nothing of it.
        say(f"oca: {path} is remembered in the index only: write it into the settings too, as a [[device]]")
    return 0


def drain_device(settings: Settings, device: str, *, wait: bool, as_json: bool) -> int:
    client = ControlClient(settings)
    entry = client.order("/v1/devices/drain", {"device": named(device)}, DeviceEntry)
    if wait:
        entry = _wait_until_drained(client, entry)
    if as_json:
        show(_packed(entry))
    elif _left(entry):
        show(f"{entry.name} drains: {size(_left(entry))} to move; `oca device list` shows how far it is")
    else:
        show(f"{entry.name} is drained: `oca device remove` takes it out, `oca device serve` takes it back")
    return 0


def serve_device(settings: Settings, device: str, *, as_json: bool) -> int:
    order = {"device": named(device)}
    _answer(ControlClient(settings), "/v1/devices/serve", order, "serves", as_json=as_json)
    return 0


def remove_device(settings: Settings, device: str, *, force: bool, as_json: bool) -> int:
    client = ControlClient(settings)
    name = named(device)
    before = _find(client.look("/v1/devices", Listing), name)
    given_up = before.used_bytes if before is not None else 0
    entry = client.order("/v1/devices/remove", {"device": name, "force": force}, DeviceEntry)
    if as_json:
        show(_packed(entry))
        return 0
    show(f"{entry.name} is out of service" + (f": {size(given_up)} of content given up" if given_up else ""))
    if _in_settings(settings, entry.path) is not None:
        say(f"oca: it stays out until `oca device add {entry.path}`; take it out of the settings if that will not be")
    return 0


def listed(listing: Listing, now: float) -> str:
    """The table of `oca device list`, and a sentence for each device about which there is one to say."""
    titles = ("ID", "PATH", "TIER", "STANDING", "REASON", "WISH", "USED", "CAPACITY", "ERRORS", "WAITS FOR")
    rows = [_row(entry, now) for entry in listing.devices]
    notes = [f"{entry.name}: {entry.detail}" for entry in listing.devices if entry.detail]
    return "\n".join([table(titles, rows), *notes, f"health: {listing.health:.0%}"])


def named(device: str) -> str:
    """An id as it is; whatever has a slash is a path."""
    return _absolute(device) if "/" in device else device


def _row(entry: DeviceEntry, now: float) -> tuple[str, ...]:
    lasting = f" for {span(now - entry.since)}" if entry.standing != Standing.ONLINE and entry.since else ""
    errors = " ".join(f"{fault}={count}" for fault, count in sorted(entry.errors.items()) if count)
    return (
        entry.id or "",
        entry.path,
        entry.tier,
        f"{entry.standing}{lasting}",
        entry.reason or "",
        entry.wish,
        size(entry.used_bytes),
        size(entry.capacity_bytes),
        errors,
        _waits_for(entry),
    )


def _waits_for(entry: DeviceEntry) -> str:
    """What has to happen next, and by whom."""
    if entry.standing != Standing.ONLINE:
        # What could not be known by its id is not probed either.
        return "good probes" if entry.id and entry.reason in HEALS else "oca device add"
    if entry.wish == "serve":
        return ""
    return f"{size(_left(entry))} to move" if _left(entry) else "oca device remove"


def _wait_until_drained(client: ControlClient, entry: DeviceEntry) -> DeviceEntry:
    """Look until nothing is left to move. Raises `DrainStopped` if it can't end, `NoAnswer` if nobody answers."""
    progress = Progress(sys.stderr)
    name = entry.id or entry.path
    heard_at = time.monotonic()
    pause = _FIRST_LOOK
    try:
        while _left(entry):
            progress.tell(f"{entry.name}: {size(_left(entry))} left")
            time.sleep(pause)
            pause = min(2 * pause, _LAST_LOOK)
            try:
                listing = client.look("/v1/devices", Listing)
            except NoAnswer:
                if time.monotonic() - heard_at > _PATIENCE:
                    raise
                continue
            heard_at = time.monotonic()
            found = _find(listing, name)
            if found is None:
                raise DrainStopped(f"{entry.name} is not known any more: somebody removed it")
            entry = found
            if obstacle := _obstacle(entry, listing):
                raise DrainStopped(f"{entry.name}: {size(_left(entry))} can't be moved: {obstacle}")
    finally:
        progress.end()
    return entry


def _answer(client: ControlClient, path: str, order: dict[str, Any], done: str, *, as_json: bool) -> None:
    entry = client.order(path, order, DeviceEntry)
    if as_json:
        show(_packed(entry))
        return
    why = f": {entry.detail}" if entry.detail else ""
    if entry.standing == Standing.ONLINE:
        show(f"{entry.name} {done}{why}")
    else:
        show(f"{entry.name} is {entry.standing}{why}")


def _obstacle(entry: DeviceEntry, listing: Listing) -> str:
    """Why a drain does not come to its end by itself; empty if it does."""
    if not _left(entry):
        return ""
    if entry.wish == "serve":
        return "somebody took it back"
    if entry.standing == Standing.OFFLINE:
        return "it is offline"
    return "" if any(_takes_content(other) for other in listing.devices) else "no other device is written to"


def _takes_content(entry: DeviceEntry) -> bool:
    return entry.standing == Standing.ONLINE and entry.wish == "serve"


def _left(entry: DeviceEntry) -> int:
    return entry.used_bytes if entry.left_bytes is None else entry.left_bytes


def _find(listing: Listing, name: str) -> DeviceEntry | None:
    return next((entry for entry in listing.devices if name in {entry.id, entry.path}), None)


def _in_settings(settings: Settings, path: str) -> Device | None:
    return next((device for device in settings.device if device.path == path), None)


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - a link is an operator's own name for a disk: it is not followed


def _packed(value: object) -> str:
    return msgspec.json.encode(value).decode()
