"""What an appliance says of itself every few seconds, and what steering answers.

A heartbeat is a statement, not an event: the newest one replaces all before it, and losing one is harmless. The clock
in it is the appliance's own. Steering judges age by when it heard, never by what was claimed.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

APPLIANCE_ID_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9._-]{0,63}\Z"
ApplianceId = Annotated[str, Meta(pattern=APPLIANCE_ID_PATTERN)]
"""As `appliance.id` in the settings of the box."""

INTERVAL: Final = 5.0
"""Seconds between two heartbeats."""
MOST_BYTES: Final = 64 * 1024
"""Of one heartbeat as JSON: 36 devices with all their words are 5 KiB."""

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Word = Annotated[str, Meta(max_length=200)]


class DeviceState(Struct, frozen=True, kw_only=True):
    """One cache device."""

    id: Word
    tier: Word
    standing: Word
    """online, failing or offline."""
    reason: Word = ""
    capacity_bytes: Count = 0
    used_bytes: Count = 0


class Heartbeat(Struct, frozen=True, kw_only=True):
    """How one appliance is. Rates are of the seconds since its last heartbeat."""

    appliance: ApplianceId
    boot: Word
    """Drawn anew at each start of the keeper: under another one, numbers begin again."""
    sequence: Count
    """Grows with each heartbeat of one boot."""
    sent_at: float
    """Seconds since 1970 by the appliance's own clock."""
    version: Word = ""
    """Of its software."""
    ready: bool
    """Whether players may be sent here, by the appliance's own judgement; `reasons` says why not."""
    reasons: Annotated[tuple[Word, ...], Meta(max_length=32)] = ()
    draining: bool = False
    """It was told, by order or by its operator, to take no new players."""
    health: Share = 1.0
    """The share of its cache room that is well."""
    egress_bps: Count = 0
    """Bits a second that leave by the network cards towards players."""
    link_bps: Count = 0
    """What these cards can carry; 0 if they don't say."""
    connections: Count = 0
    max_connections: Count = 0
    cpu: Share = 0.0
    """Of all its cores."""
    hit_ratio: Share | None = None
    """Of the bytes of the last minutes; None while too few were served to tell."""
    holdings_version: Count = 0
    prefixes_version: Count = 0
    devices: Annotated[tuple[DeviceState, ...], Meta(max_length=256)] = ()


class HeartbeatAnswer(Struct, frozen=True, kw_only=True):
    """What steering wants of the appliance. Sent with every answer, so that what was lost is said again."""

    drain: bool = False
    """Take no new players: the operator drains or disabled this appliance."""
    wants_holdings: bool = False
    """The version we know is not the one in the heartbeat."""
    wants_prefixes: bool = False
    interval: Annotated[float, Meta(ge=1.0, le=60.0)] = INTERVAL
    """Seconds until the next heartbeat is expected."""
