"""What was seen of one box: values for checks, from the box, steering and the film port. Pure.

None stands for what was not looked at. Durations are seconds, sizes bytes, moments seconds since 1970.
"""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from admin.fleet.known import Box, Member, Place
from wire.probe import Certificate, Part, Probe


class Check(StrEnum):
    """What is checked, in this order."""

    NETWORK = "network"
    FAMILIES = "families"
    PREFIXES = "prefixes"
    DEVICES = "devices"
    CLOCK = "clock"
    CERTIFICATE = "certificate"
    SOURCES = "sources"
    FILL = "fill"
    READ_BACK = "read-back"


PARTS: Final = {
    Check.NETWORK: Part.NETWORK,
    Check.DEVICES: Part.DEVICES,
    Check.CLOCK: Part.CLOCK,
    Check.CERTIFICATE: Part.CERTIFICATES,
    Check.SOURCES: Part.SOURCES,
}
"""What the box itself is asked for them."""


class Way(Struct, frozen=True):
    """One address of the film port, tried from here."""

    family: int
    """4 or 6."""
    address: str
    port: int
    client: str = ""
    """Our own address on that way; empty: it could not be gone."""
    trouble: str = ""
    is_ours: bool = False
    """The trouble is that this machine has no way to addresses of that family at all."""


class Filled(Struct, frozen=True):
    """What became of the order to bring the test content."""

    size_bytes: int = 0
    seconds: float = 0.0
    trouble: str = ""


class Read(Struct, frozen=True):
    """The test content read back by one way."""

    way: Way
    first_byte: float = 0.0
    """Until the first byte of the whole."""
    seconds: float = 0.0
    """For the whole."""
    ranges: int = 0
    """Ranges that were compared after that."""
    is_hit: bool = False
    """The box had it, by its own word (Cache-Status)."""
    trouble: str = ""
    """The first thing that was not as it should be."""


class Seen(Struct, frozen=True, kw_only=True):
    member: Member
    """As steering sees it."""
    box: Box
    """As it is declared."""
    place: Place
    siblings: tuple[Member, ...]
    """Appliances of the same site, without itself."""
    at: float
    probe: Probe | None = None
    ways: tuple[Way, ...] | None = None
    certificates: tuple[Certificate, ...] | None = None
    """Those that the film port shows; none where it speaks plain HTTP."""
    filled: Filled | None = None
    reads: tuple[Read, ...] | None = None
