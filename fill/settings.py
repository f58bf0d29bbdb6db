"""The planner's settings: a TOML file, checked before anything is read or sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Meta, Struct

from fill.errors import SettingsError
from fill.rules import PeakHours, Placing, Smoothing, Window
from wire.toml import Bytes, Document, Mistake, leads_somewhere

_KEY_RULE: Final = "an Ed25519 key in PEM without a password, as openssl genpkey -algorithm ed25519 writes it"


class Store(Struct, frozen=True, forbid_unknown_fields=True):
    """A bucket, or a prefix in one."""

    bucket: str
    """s3://bucket/prefix"""
    endpoint_url: str | None = None
    """Of an S3 server that is not Amazon's."""
    region: str | None = None


class FleetSource(Struct, frozen=True, forbid_unknown_fields=True):
    """Where sites and appliances are known: steering's inventory."""

    steering: str | None = None
    """http(s)://host:port of steering's admin listener."""
    file: str | None = None
    """Or a file with what GET /v1/inventory of it said."""
    timezones: dict[str, str] = {}
    """By site or country: {"PT" = "Europe/Lisbon"}. Evenings of other sites are judged by their longitude."""


class Signing(Struct, frozen=True, forbid_unknown_fields=True):
    """Orders are signed; agents know the public key by `kid`."""

    key: str
    """A file with an Ed25519 private key (PEM)."""
    kid: Annotated[str, Meta(min_length=1, max_length=100)]


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    state_dir: str
    """Where the lake (what was fetched of demand and catalogue) and plans are kept; an absolute path."""
    control: Store
    """Demand, stock, orders and plans."""
    fleet: FleetSource
    signing: Signing
    catalogue: Store | None = None
    """What the publisher writes to; None: the control bucket."""
    wishes: str | None = None
    """A TOML file with [[pin]], [[block]] and [[release]] (fill/wishes.py)."""
    forecast: Smoothing = Smoothing()
    placement: Placing = Placing()
    peak: PeakHours = PeakHours()
    window: Window = Window()
    memory: Bytes = Bytes(2 << 30)
    """That the planner's database uses at most; the rest goes to disk."""

    @property
    def days(self) -> int:
        """Of demand that a plan goes by."""
        return self.forecast.days


def read_settings(path: str) -> Settings:
    """Read and check the settings file. Raises `SettingsError`, whose message is written for the operator."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text") from error
    return parse_settings(text, path)


def parse_settings(text: str, path: str) -> Settings:
    """Turn TOML into `Settings`. `path` stands in messages only. Raises `SettingsError`."""
    try:
        document = Document(text, path)
        settings = document.read(Settings)
        _check(settings, document)
    except Mistake as error:
        raise SettingsError(str(error)) from error
    return settings


def signing_key(signing: Signing) -> Ed25519PrivateKey:
    """The key of the file. Raises `SettingsError`."""
    try:
        key = load_pem_private_key(Path(signing.key).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"signing.key: {signing.key} can't be used: {error}; allowed: {_KEY_RULE}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"signing.key: {signing.key} holds another kind of key; allowed: {_KEY_RULE}")
    return key


def _check(settings: Settings, document: Document) -> None:
    """What types can't say."""
    refuse = document.refused
    if not settings.state_dir.startswith("/"):
        raise refuse(["state_dir"], f"read {settings.state_dir!r}; allowed: an absolute path")
    for name in ("control", "catalogue"):
        store: Store | None = getattr(settings, name)
        if store is None:
            continue
        if not leads_somewhere(store.bucket, ("s3",)):
            raise refuse([name, "bucket"], f"read {store.bucket!r}; allowed: s3://bucket or s3://bucket/prefix")
        if store.endpoint_url is not None and not leads_somewhere(store.endpoint_url, ("http", "https")):
            raise refuse([name, "endpoint_url"], f"read {store.endpoint_url!r}; allowed: http(s)://host:port")
    if settings.peak.start >= settings.peak.stop:
        raise refuse(["peak", "stop"], f"read {settings.peak.stop}; allowed: later than start ({settings.peak.start})")
    fleet = settings.fleet
    if (fleet.steering is None) == (fleet.file is None):
        raise refuse(["fleet"], "give either steering or file")
    if fleet.steering is not None and (
        not leads_somewhere(fleet.steering, ("http", "https")) or urlsplit(fleet.steering).path.strip("/")
    ):
        raise refuse(["fleet", "steering"], f"read {fleet.steering!r}; allowed: http(s)://host:port")
    for place, zone in fleet.timezones.items():
        if zone not in available_timezones():
            raise refuse(["fleet", "timezones", place], f"read {zone!r}; allowed: a zone such as Europe/Lisbon")
