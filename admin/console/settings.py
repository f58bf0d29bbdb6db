"""The settings of `oca-admin serve`: a TOML file, read once. Every key has a type, bounds and a sentence."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field

from admin.console.accounts import Account, Role, is_hash
from admin.errors import UsageError
from wire.toml import Document, Mistake, Seconds, host_and_port, leads_somewhere

_MOST_FILE: Final = 1024 * 1024


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    cert: str
    """PEM, with the chain."""
    key: str


class Oidc(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Log-in at the operator's OpenID Connect provider (authorization code with PKCE)."""

    issuer: str
    """Below it lies `.well-known/openid-configuration`."""
    client_id: str
    client_secret_file: str | None = None
    """None: a public client."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "email"
    """Who it is, in the audit log."""
    roles_claim: str = "groups"
    roles: dict[Role, tuple[str, ...]] = field(default_factory=dict)
    """Which values of that claim give which role. The highest counts; who has none is not let in."""
    title: str = "Single sign-on"
    """On the button."""


class Sessions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    idle: Seconds = Seconds(8 * 3600)
    """A session that was not used for so long ends."""
    longest: Seconds = Seconds(24 * 3600)
    """And every one after that."""


class Source(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prometheus, or Alertmanager."""

    url: str


class Fill(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the planner's bucket is, to tell what a night is expected to bring. Credentials the ordinary boto3 ways."""

    bucket: str
    endpoint_url: str | None = None


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    state_dir: str
    """Sessions, acknowledgements and the audit log."""
    steering: str
    """Its operators' listener: http://host:9146."""
    listen: str = "127.0.0.1:9180"
    public_url: str | None = None
    """Where browsers find the console; None: http(s) and `listen`. With https, cookies go over TLS only."""
    tls: Tls | None = None
    proxies: tuple[str, ...] = ()
    """Networks of proxies whose X-Forwarded-For is believed."""
    prometheus: Source | None = None
    alertmanager: Source | None = None
    fill: Fill | None = None
    oidc: Oidc | None = None
    account: Annotated[tuple[Account, ...], Meta(max_length=1000)] = ()
    sessions: Sessions = Sessions()

    @property
    def origin(self) -> str:
        """Scheme, host and port as browsers see them."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        return f"{'https' if self.tls is not None else 'http'}://{self.listen}"


def read_settings(path: Path) -> Settings:
    """Raises UsageError, which names file, line and key."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_FILE).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: can't be read: {error}") from error
    try:
        document = Document(text, str(path))
        settings = document.read(Settings)
        _check(settings, document)
    except Mistake as error:
        raise UsageError(str(error)) from error
    return settings


def _check(settings: Settings, document: Document) -> None:
    refuse = document.refused
    if not settings.state_dir.startswith("/"):
        raise refuse(["state_dir"], f"read {settings.state_dir!r}; allowed: an absolute path")
    try:
        host_and_port(settings.listen)
    except ValueError as error:
        raise refuse(["listen"], f"read {settings.listen!r}; allowed: host:port") from error
    for keys, url in (
        (["steering"], settings.steering),
        (["public_url"], settings.public_url),
        (["prometheus", "url"], None if settings.prometheus is None else settings.prometheus.url),
        (["alertmanager", "url"], None if settings.alertmanager is None else settings.alertmanager.url),
        (["oidc", "issuer"], None if settings.oidc is None else settings.oidc.issuer),
        (["fill", "endpoint_url"], None if settings.fill is None else settings.fill.endpoint_url),
    ):
        if url is not None and not leads_somewhere(url, ("http", "https")):
            raise refuse(keys, f"read {url!r}; allowed: http(s)://host:port")
    if settings.public_url is not None and urlsplit(settings.public_url).path not in {"", "/"}:
        raise refuse(["public_url"], f"read {settings.public_url!r}; allowed: no path, as cookies name the whole host")
    if settings.fill is not None and not leads_somewhere(settings.fill.bucket, ("s3",)):
        raise refuse(["fill", "bucket"], f"read {settings.fill.bucket!r}; allowed: s3://bucket or s3://bucket/prefix")
    for network in settings.proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise refuse(["proxies"], f"{network!r} is not a network such as 192.0.2.0/24") from error
    seen = set()
    for place, account in enumerate(settings.account):
        if account.name in seen:
            raise refuse(["account", str(place), "name"], f"{account.name!r} stands twice")
        if not is_hash(account.password):
            raise refuse(["account", str(place), "password"], "is no hash; oca-admin password makes one")
        seen.add(account.name)
    if not settings.account and settings.oidc is None:
        raise refuse(["account"], "nobody could log in; allowed: an [[account]] (oca-admin password), or [oidc]")
    if settings.oidc is not None and not any(settings.oidc.roles.values()):
        raise refuse(["oidc", "roles"], 'nobody would have a role; allowed: such as admin = ["noc-leads"]')
