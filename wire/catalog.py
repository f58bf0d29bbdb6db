"""The catalogue: what was published, one document per title, beside the films at the origin.

Keys, below the origin's prefix:

    titles/<title>/master.m3u8               short-lived: they point at the current renditions
    titles/<title>/manifest.mpd
    titles/<title>/<folder>/...              immutable: the folder's name carries a digest of its content
    catalogue/titles/<title>.json            `Title`, written last: a title is published when this exists
    catalogue/rendition-numbers.json         `RenditionNumbers`, changed only by conditional writes
"""

import datetime as dt
import re
from enum import StrEnum
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from wire.codec import MessageT, WireError, decode

#: Raised only when a field that older readers know changes its meaning; new fields do not raise it.
SCHEMA: Final = 1

#: A title names a folder in URLs and a file in the catalogue: one spelling everywhere, nothing to escape.
TITLE_ID_RULE: Final = "1 to 64 of a-z, 0-9 and single hyphens between them, for example nosferatu-1922"
TITLE_ID_PATTERN: Final = r"^(?=.{1,64}\Z)[a-z0-9]+(-[a-z0-9]+)*\Z"

TitleId = Annotated[str, Meta(pattern=TITLE_ID_PATTERN)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0)]

NUMBERS_PATH: Final = "/catalogue/rendition-numbers.json"


HLS_TYPE: Final = "application/vnd.apple.mpegurl"
DASH_TYPE: Final = "application/dash+xml"


class Kind(StrEnum):
    """What a rendition carries."""

    VIDEO = "video"
    AUDIO = "audio"
    TEXT = "text"
    """Subtitles, in WebVTT."""
    IMAGE = "image"
    """Thumbnails, many in one picture."""


class CatalogObject(Struct, frozen=True):
    """One file at the origin. `path` is its URL path on an appliance, and its key below the origin's prefix."""

    path: Annotated[str, Meta(pattern=r"^/[^?#]+$")]
    size_bytes: Count
    sha256: Sha256
    content_type: str


class Protection(Struct, frozen=True, kw_only=True):
    """How a rendition is encrypted (Common Encryption, ISO/IEC 23001-7). The key itself is nobody's but the licence
    server's.
    """

    scheme: Literal["cenc", "cbcs"]
    kid: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    """Names the key, in hex."""


class Rendition(Struct, frozen=True, kw_only=True):
    """One encode of a title: the unit of popularity, fill and holdings.

    `number` is dense and belongs to these bytes for ever: a title published anew with other bytes gets new numbers,
    so that an appliance's holdings can never speak of content that was replaced.
    `bandwidth_bps` is the rate of the fullest segment, `average_bps` that of the whole.
    """

    number: Count
    name: str
    kind: Kind
    codecs: str
    bandwidth_bps: Count
    average_bps: Count
    size_bytes: Count
    duration: Annotated[float, Meta(gt=0)]
    objects: tuple[CatalogObject, ...]
    width: Count | None = None
    height: Count | None = None
    frame_rate: str | None = None
    """A fraction such as 30000/1001; None for audio."""
    language: str | None = None
    """As the source says it (ISO 639-2 or BCP 47); None where it does not."""
    channels: Count | None = None
    protection: Protection | None = None
    """None: it is in the clear."""


CountryCode = Annotated[str, Meta(pattern=r"^[A-Z]{2}$")]
"""ISO 3166-1 alpha-2."""


class Availability(Struct, frozen=True, kw_only=True):
    """In which countries a title may be played. A viewer of no known country is outside of `only`, and not in `never`:
    a licence names where something may be shown.
    """

    only: tuple[CountryCode, ...] | None = None
    """None: everywhere."""
    never: tuple[CountryCode, ...] = ()

    def allows(self, country: str | None) -> bool:
        return (self.only is None or country in self.only) and country not in self.never


class Title(Struct, frozen=True, kw_only=True):
    """One film or episode, as it is published now."""

    schema: int = SCHEMA
    title: TitleId
    published_at: Annotated[dt.datetime, Meta(tz=True)]
    duration: Annotated[float, Meta(gt=0)]
    manifests: tuple[CatalogObject, ...]
    renditions: tuple[Rendition, ...]
    availability: Availability = Availability()
    withdrawn_at: Annotated[dt.datetime, Meta(tz=True)] | None = None
    """From then on nobody begins to play it, and nobody fills it. Whoever plays it finishes: all files stay."""
    withdrawal_reason: Annotated[str, Meta(max_length=200)] | None = None


class RenditionNumbers(Struct, frozen=True, kw_only=True):
    """The next free rendition number, and those given out for titles that are not in the catalogue yet.

    `claims` maps a rendition's folder (`/titles/<title>/<folder>`) to its number. A publisher that died takes its
    claim up again, so numbers stay dense.
    """

    schema: int = SCHEMA
    next: Count = 0
    claims: dict[str, Count] = {}


def is_title_id(text: str) -> bool:
    """Whether `text` may name a title (TITLE_ID_RULE says it in words)."""
    return re.search(TITLE_ID_PATTERN, text) is not None


def title_folder(title: str) -> str:
    """The URL path of everything a player fetches for this title."""
    return f"/titles/{title}"


def title_path(title: str) -> str:
    """The path of the title's document in the catalogue."""
    return f"/catalogue/titles/{title}.json"


def read_title(body: bytes) -> Title:
    """The title's document. Raises WireError, also when it is written in a schema later than ours."""
    return _current(decode(body, Title))


def read_numbers(body: bytes) -> RenditionNumbers:
    """The document of rendition numbers. Raises WireError, also when it is in a schema later than ours."""
    return _current(decode(body, RenditionNumbers))


def _current(message: MessageT) -> MessageT:
    schema: int = getattr(message, "schema", SCHEMA)
    if schema > SCHEMA:
        raise WireError(f"{type(message).__name__} is in schema {schema}; this version reads up to {SCHEMA}: upgrade")
    return message
