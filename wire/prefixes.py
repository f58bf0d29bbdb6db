"""The prefixes that an appliance's BGP speaker learned: steering input, never forwarding.

A message is the whole set, sent when it changed; the newest one replaces all before it. What it says is a claim:
steering accepts a prefix only within what the site's operator is allowed.
"""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from wire.heartbeat import ApplianceId

MOST_PREFIXES: Final = 200_000
"""Routes in one message. All of an eyeball network is some thousands; a whole Internet table is a mistake."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one message as JSON, after decompression: 200,000 routes with paths and communities are about 20 MB."""
AS_SET: Final = 0
"""Stands in a path for a set of AS numbers, of which none answers for the route (RFC 9774). No AS has it (RFC 7607)."""

PrefixText = Annotated[str, Meta(max_length=43)]
AsNumber = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Community = Annotated[str, Meta(max_length=64)]


class Speaker(StrEnum):
    """Where the appliance has them from."""

    KERNEL = "kernel"
    """A table of the kernel's, into which a speaker such as BIRD exports: prefixes and nothing else."""
    EXABGP = "exabgp"
    """With AS path and communities."""


class LearnedPrefix(Struct, frozen=True, array_like=True):
    """One route. A prefix that came by several routes stands here once for each."""

    prefix: PrefixText
    as_path: Annotated[tuple[AsNumber, ...], Meta(max_length=255)] | None = None
    """Nearest AS first; empty if it begins in the speaker's own AS; None where the source does not know."""
    communities: Annotated[tuple[Community, ...], Meta(max_length=255)] | None = None
    """"65001:100", large ones "65001:1:2" (RFC 8092); None where the source does not know."""


class Prefixes(Struct, frozen=True, kw_only=True):
    """All that one appliance learned: one message, the whole set."""

    appliance: ApplianceId
    version: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    """Equal sets have equal versions, also after a restart; 0 stands for "not known yet" and is never sent."""
    kind: Speaker
    prefixes: Annotated[tuple[LearnedPrefix, ...], Meta(max_length=MOST_PREFIXES)]
