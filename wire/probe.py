"""What an appliance finds when it looks at itself (POST /v1/probe of its control listener), for turn-up checks.

Nothing is judged here: what is seen is told, and what could not be seen is told as that, with the reason. Moments are
seconds since 1970, durations seconds, sizes bytes.
"""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

LEAST_BYTES: Final = 16 * 1024 * 1024
MOST_BYTES: Final = 1024 * 1024 * 1024
MOST_ANSWER: Final = 1024 * 1024
"""Of a probe as JSON: 36 devices, 64 cards and 8 sources are 20 KiB."""


class Part(StrEnum):
    """What can be looked at."""

    NETWORK = "network"
    DEVICES = "devices"
    SOURCES = "sources"
    CLOCK = "clock"
    CERTIFICATES = "certificates"


class ProbeOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """What to look at."""

    parts: tuple[Part, ...] = tuple(Part)
    size_bytes: Annotated[int, Meta(ge=LEAST_BYTES, le=MOST_BYTES)] = 256 * 1024 * 1024
    """Written to each device and read again, at most."""
    path: Annotated[str, Meta(pattern=r"^/[\x21-\x7e]{1,500}\Z")] = "/turn-up/1.bin"
    """Whose first byte is asked of each source."""


class Card(Struct, frozen=True, kw_only=True):
    """A network card that carries film addresses. Counts are since it came up, sums of both directions."""

    name: str
    is_up: bool
    speed_bps: int | None = None
    """Bits a second; None: it does not say, as virtual ones don't."""
    duplex: str = "unknown"
    """full, half or unknown."""
    addresses: tuple[str, ...] = ()
    packets: int = 0
    errors: int = 0
    drops: int = 0
    new_errors: int = 0
    """That came while the probe ran."""


class DeviceSpeed(Struct, frozen=True, kw_only=True):
    """A cache device: how it stands, what room it has, and how fast it wrote and read a file in one piece."""

    id: str | None
    """None: it is in the settings and could not be used."""
    path: str
    tier: str
    standing: str
    reason: str = ""
    wish: str = "serve"
    capacity_bytes: int = 0
    used_bytes: int = 0
    free_bytes: int | None = None
    """Of its file system, for us; None: it was not asked."""
    size_bytes: int = 0
    """So much was written and read; 0: nothing was."""
    write_bytes_per_second: float | None = None
    """With making it durable."""
    read_bytes_per_second: float | None = None
    is_direct: bool = False
    """Past the page cache (O_DIRECT); else a part of the speed may be that of memory."""
    skipped: str = ""
    """Why it was not measured, although nothing failed."""
    trouble: str = ""
    """What failed."""


class Reached(Struct, frozen=True, kw_only=True):
    """A source of the ladder: a parent or the origin."""

    name: str
    status: int | None = None
    """Of its answer; None: there was none."""
    first_byte: float | None = None
    """Seconds to the first byte of the answer's body, or to its end if it has none."""
    trouble: str = ""


class Clock(Struct, frozen=True, kw_only=True):
    """What the kernel knows of its clock (adjtimex(2))."""

    now: float
    is_synchronised: bool | None = None
    """By NTP or PTP; None: the kernel does not tell us."""
    estimated_error: float | None = None
    most_error: float | None = None
    trouble: str = ""


class Certificate(Struct, frozen=True, kw_only=True):
    """One that the appliance shows to others."""

    name: str
    """The key of the settings that names its file."""
    ends_at: float | None = None
    trouble: str = ""


class Probe(Struct, frozen=True, kw_only=True):
    """Parts that were not asked for are None."""

    appliance: str
    version: str
    """Of its software."""
    at: float
    """When it ended."""
    cards: tuple[Card, ...] | None = None
    cards_trouble: str = ""
    """Why the cards can't be told."""
    devices: tuple[DeviceSpeed, ...] | None = None
    sources: tuple[Reached, ...] | None = None
    clock: Clock | None = None
    certificates: tuple[Certificate, ...] | None = None
