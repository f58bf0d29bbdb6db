"""What a player is told when a viewer presses play: `GET /v1/playback?title=...`."""

from typing import Final

from msgspec import Struct

from wire.catalog import Kind

PLAYBACK_PATH: Final = "/v1/playback"


class Place(Struct, frozen=True, kw_only=True):
    """One place to play from, the best first. All URLs are absolute, and signed if tokens are on."""

    id: str
    """The appliance, or "origin". Content steering calls it a pathway."""
    base_url: str
    """The title's folder, with a slash at its end. Where tokens stand in the query (`tokens.way`), it carries none."""
    hls: str | None
    dash: str | None
    """The manifests there; None where the title has none of the kind."""


class PlayableRendition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One that the device said it can play. As in the catalogue (wire/catalog.py)."""

    name: str
    kind: Kind
    codecs: str
    bandwidth_bps: int
    average_bps: int
    width: int | None = None
    height: int | None = None
    frame_rate: str | None = None
    language: str | None = None
    channels: int | None = None


class Playback(Struct, frozen=True, kw_only=True):
    """All that a player needs to begin, and to go on when where it began is gone."""

    session: str
    """128 bits of chance: what a player names in CMCD as its session (`sid`)."""
    decision: str
    """Names the decision in steering's log."""
    title: str
    duration: float
    """Seconds."""
    ttl: int
    """Seconds for which the list of places is good."""
    places: tuple[Place, ...]
    content_steering: str
    """Where to ask for the list again while it plays."""
    renditions: tuple[PlayableRendition, ...]
    reason: str
    """A code of the closed set in steering/ranking.py."""
