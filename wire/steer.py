"""What steering answers to players and to whoever asks on their behalf: JSON, and content-steering manifests."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

STEERING_TYPE: Final = "application/vnd.apple.steering-list"
"""Media type of content-steering manifests (IANA)."""


class Option(Struct, frozen=True, kw_only=True):
    """One place to fetch from, the best first."""

    id: str
    """The appliance, or "origin". Content steering calls it a pathway."""
    url: str
    """Absolute, signed if tokens are on. For a manifest: what it names relatively is fetched from the same place."""


class SteerAnswer(Struct, frozen=True, kw_only=True):
    """Answer of `GET /v1/steer?path=/titles/...`."""

    decision: str
    """Names the decision in logs."""
    ttl: int
    """Seconds for which the list is good."""
    options: tuple[Option, ...]
    reason: str
    """A code of the closed set in steering/decisions.py."""


class UriReplacement(Struct, frozen=True, kw_only=True, rename={"host": "HOST"}):
    host: str
    """A host name without a port: players ignore or mistake one."""


class PathwayClone(Struct, frozen=True, kw_only=True, rename={"base": "BASE-ID", "id": "ID", "uri": "URI-REPLACEMENT"}):
    base: str
    id: str
    uri: UriReplacement


class SteeringManifest(
    Struct,
    frozen=True,
    kw_only=True,
    rename={
        "version": "VERSION",
        "ttl": "TTL",
        "reload_uri": "RELOAD-URI",
        "priority": "PATHWAY-PRIORITY",
        "clones": "PATHWAY-CLONES",
    },
    omit_defaults=True,
):
    """draft-pantos-content-steering and ETSI TS 103 998. DASH players of today read the same names.

    VERSION and TTL are always written: without TTL hls.js asks again at once, for ever.
    """

    version: Literal[1]
    ttl: Annotated[int, Meta(ge=1)]
    reload_uri: str
    """Absolute: Shaka throws on a relative one."""
    priority: tuple[str, ...]
    clones: tuple[PathwayClone, ...] = field(default=())


class Problem(Struct, frozen=True, kw_only=True):
    """Body of every refusal."""

    error: str
    """A sentence that names what was wrong and what is allowed."""
