"""What an appliance is to hold by morning: the planner's order, signed.

Objects of the control bucket:

    fill/plans/<night>/<version>/...                the plan as it was made: report, plots, all orders, not applied yet
    fill/orders/<appliance>/current.json            `Signed` `FillOrder`: the agent works on this one
    fill/orders/<appliance>/urgent/<id>.json        more of them, out of cycle; each is worked on once, at once
    fill/progress/<appliance>.json                  `Progress`, written by the agent

An order says all that the appliance shall hold by pledge (`bring` and `keep`), so a lost one is replaced by the next.
What it no longer names (`release`) is given up when what replaces it is there. It names renditions; their objects, with
sizes and SHA-256, stand in the documents of the catalogue. Orders are signed by the planner (Ed25519): to be able to
write to the bucket is not enough to command an appliance.
"""

import base64
from enum import StrEnum
from typing import Annotated, Final, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct

from wire.catalog import TitleId
from wire.codec import WireError, decode, encode
from wire.heartbeat import ApplianceId, Count
from wire.holdings import MOST_BITMAP_BYTES

#: Raised only when a field that older readers know changes its meaning; new fields do not raise it.
SCHEMA: Final = 1

MOST_ORDER_BYTES: Final = 64 * 1024 * 1024
"""Of a signed order: a hundred thousand renditions are 20 MiB."""

Night = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}\Z")]
"""The local date on which the window begins."""
Folder = Annotated[str, Meta(pattern=r"^/titles/[a-z0-9-]{1,64}/(?!\.{1,2}\Z)[^/?#]+\Z")]
FillTier = Annotated[str, Meta(pattern=r"^(nvme|ssd|hdd)\Z")]


class Bring(Struct, frozen=True, kw_only=True, gc=False):
    """One rendition that is to be fetched. They stand in an order with the most valuable bytes first."""

    number: Count
    title: TitleId
    folder: Folder
    size_bytes: Count
    tier: FillTier | None = None
    """Where it goes; None: wherever the store puts what is pledged."""
    value: Annotated[float, Meta(ge=0)] = 0.0
    """Bytes that it is predicted to serve in the next day's peak hours, for each byte of it."""
    sources: tuple[ApplianceId, ...] = ()
    """Whom to ask before the appliance's own ladder, the nearest first: the one of its site that brings it in, then the
    one of its region. Empty: this appliance is the one that brings it in."""


class Peer(Struct, frozen=True, kw_only=True, gc=False):
    id: ApplianceId
    url: Annotated[str, Meta(pattern=r"^https?://[^/?#]+\Z")]


class FillOrder(Struct, frozen=True, kw_only=True):
    schema: int = SCHEMA
    appliance: ApplianceId
    night: Night
    version: Count
    """Of the plan; of two orders for one appliance the one with the later night, then the greater version, counts."""
    issued_at: float
    """Seconds since 1970, as all times here."""
    expires_at: float
    """After which it is not worked on any more."""
    pledged_until: float
    """What it brings and keeps is not evicted before this, unless a later order says otherwise."""
    catalogue: str = ""
    """Digest of the catalogue that it was made from."""
    budget_bytes: Count
    """The most that may be brought."""
    bring: tuple[Bring, ...] = ()
    keep: Annotated[bytes, Meta(max_length=MOST_BITMAP_BYTES)] = b""
    """Numbers of renditions that are held and stay pledged: a portable roaring bitmap."""
    release: tuple[Folder, ...] = ()
    """Folders of renditions whose pledge ends, the least valuable first."""
    peers: tuple[Peer, ...] = ()
    """Whoever is named in `Bring.sources`."""
    is_urgent: bool = False
    """Outside the window, beside the current one; it releases nothing."""


class Signed(Struct, frozen=True, kw_only=True):
    """A message as bytes, with a signature over them."""

    kid: Annotated[str, Meta(min_length=1, max_length=100)]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]
    payload: bytes


class Phase(StrEnum):
    """What an agent does."""

    IDLE = "idle"
    """There is nothing to do."""
    WAITING = "waiting"
    """For the window to open, or for viewers to need less."""
    WORKING = "working"
    STOPPED = "stopped"
    """It can't go on; `reason` says why."""


class Progress(Struct, frozen=True, kw_only=True):
    """How far an appliance is with its order."""

    schema: int = SCHEMA
    appliance: ApplianceId
    at: float
    phase: Phase
    reason: Annotated[str, Meta(max_length=1000)] = ""
    night: str = ""
    version: Count = 0
    order_bytes: Count = 0
    done_bytes: Count = 0
    order_renditions: Count = 0
    done_renditions: Count = 0
    failed_renditions: Count = 0
    source_bytes: dict[str, Count] = {}
    """By kind of source: peer, parent, origin."""
    behind_schedule: bool = False
    finished_at: float | None = None


MessageT = TypeVar("MessageT", bound=Struct)


def signed(message: Struct, key: Ed25519PrivateKey, kid: str) -> bytes:
    """The message with its signature, as JSON bytes."""
    payload = encode(message)
    return encode(Signed(kid=kid, signature=key.sign(payload), payload=payload))


def opened(body: bytes, keys: dict[str, Ed25519PublicKey], kind: type[MessageT]) -> MessageT:
    """The message whose signature one of `keys` confirms. Raises WireError, which says what is wrong."""
    envelope = decode(body, Signed)
    key = keys.get(envelope.kid)
    if key is None:
        raise WireError(f"signed with key {envelope.kid!r}; known: {', '.join(sorted(keys)) or 'none'}")
    try:
        key.verify(envelope.signature, envelope.payload)
    except InvalidSignature as error:
        raise WireError(f"the signature of key {envelope.kid!r} does not fit: it was changed on its way") from error
    message = decode(envelope.payload, kind)
    schema: int = getattr(message, "schema", SCHEMA)
    if schema > SCHEMA:
        raise WireError(f"{kind.__name__} is in schema {schema}; this version reads up to {SCHEMA}: upgrade")
    return message


def public_key_text(key: Ed25519PublicKey) -> str:
    """As it stands in settings: base64 of 32 bytes."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def public_key(text: str) -> Ed25519PublicKey:
    """Raises ValueError for what is no key."""
    return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))


def order_key(appliance: str) -> str:
    return f"fill/orders/{appliance}/current.json"


def urgent_prefix(appliance: str) -> str:
    return f"fill/orders/{appliance}/urgent/"


def progress_key(appliance: str) -> str:
    return f"fill/progress/{appliance}.json"
