"""The settings of one steering replica: one typed value, read once from TOML, checked whole, never changed after."""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from steering.dns.settings import DnsSettings
from steering.errors import SettingsError
from steering.ranking import Rules
from steering.standing import Patience
from wire.heartbeat import ApplianceId
from wire.toml import BitsPerSecond, Document, Mistake, Seconds, host_and_port, leads_somewhere

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]


class Replica(Struct, frozen=True, forbid_unknown_fields=True):
    id: ApplianceId
    """Names this replica in decisions, logs and metrics."""
    state_dir: str = "/var/lib/oca-steering"
    """Registry, snapshot, and what is learned. On a local disk."""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """Turns all hashing. The same on all replicas, or they send one film to two homes."""


class Listen(Struct, frozen=True, forbid_unknown_fields=True):
    base_url: str
    """How players reach `public`: https://steer.example. Reload addresses begin with it."""
    public: str = "0.0.0.0:8080"
    """Players: steer, content steering, redirects. Behind TLS, its own (`tls`) or a proxy's."""
    fleet: str = "0.0.0.0:8444"
    """Appliances: heartbeats and holdings. Only what carries an appliance's token is heard."""
    dns: str = "0.0.0.0:53"
    """Resolvers, by UDP and TCP, where there is a [dns]."""
    admin: str = "127.0.0.1:9146"
    """Metrics, explain, and the admin API. Never a public address: it has no password."""


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files, read at the start and at each SIGHUP. Without them a listener speaks plain HTTP."""

    public_cert: str | None = None
    public_key: str | None = None
    fleet_cert: str | None = None
    fleet_key: str | None = None
    fleet_client_ca: str | None = None
    """With it, appliances must show a certificate of this authority. Its common name says who they are; with another
    one, they need their token as well."""


class Content(Struct, frozen=True, forbid_unknown_fields=True):
    """Where films come from when no appliance can serve, and where it is written what there is."""

    origin: str | None = None
    """http(s)://host that players are sent to as the last choice; None: the list ends with appliances."""
    catalogue: str | None = None
    """What lies above `catalogue/`: http(s)://host/base, s3://bucket/prefix, or an absolute path. An appliance will do.
    None: nobody's holdings count, only hit ratios."""
    endpoint_url: str | None = None
    """Of an S3 server that is not Amazon's."""
    region: str | None = None
    refresh: Seconds = Seconds(300)
    """After which a title's document is read again."""


class Geo(Struct, frozen=True, forbid_unknown_fields=True):
    """MaxMind databases (GeoLite2, GeoIP2 and the like). Replaced while it runs: the new file is opened and checked
    before the old one goes."""

    city: str | None = None
    asn: str | None = None
    check: Seconds = Seconds(10)
    """Between two looks at the files."""
    centroid_radius: Positive = 500.0
    """Kilometres; a place that is known less exactly is only a country."""


class Answers(Struct, frozen=True, forbid_unknown_fields=True):
    ttl: Seconds = Seconds(60)
    """For which a list is good, by JSON and redirect."""
    steering_ttl: Seconds = Seconds(60)
    """Between two questions of a playing player."""
    jitter: Share = 0.15
    """Of these, each client's own, so that a fleet of players does not ask in step."""
    hurried_factor: Annotated[float, Meta(ge=1.0, le=100.0)] = 4.0
    """TTLs are so many times as long while there is no time to rank, or a client asks too often."""
    session: BitsPerSecond = BitsPerSecond(5_000_000)
    """What a player is expected to read if it does not say."""


class TokenWay(StrEnum):
    """Where a signed URL carries its token."""

    PATH = "path"
    """Before the path: what a playlist names relatively stays below it, without cookies."""
    QUERY = "query"
    """A parameter. Relative URLs lose it, so `renew` should hand it on as a cookie."""


class Tokens(Struct, frozen=True, forbid_unknown_fields=True):
    """Signed URLs (RFC 9246)."""

    folder: str
    """Of private keys: `<key id>.pem`, Ed25519 or P-256. A new file is a new key; see `publish_ahead` and `grace`."""
    issuer: Annotated[str, Meta(min_length=1, max_length=200)]
    """Appliances name it in access.issuers."""
    way: TokenWay = TokenWay.PATH
    lifetime: Seconds = Seconds(6 * 3600)
    renew: Seconds = Seconds(0)
    """Seconds that a renewed token is good for, which an appliance sends as a cookie during a film; 0: none."""
    bind_network: bool = False
    """Good only in the client's network (limits.ipv4_prefix, ipv6_prefix). Phones change networks: off."""
    publish_ahead: Seconds = Seconds(600)
    """After its file appeared a key is published at once, and signs after this: appliances read keys every minute."""
    grace: Seconds = Seconds(86400)
    """For which the key before is honoured after that; longer than `lifetime`, or films stop."""


class PlaybackAccess(Struct, frozen=True, forbid_unknown_fields=True):
    """Pressing play (`GET /v1/playback`): whose tokens of viewers are believed."""

    keys: str
    """The JWK set (RFC 7517) of the operator's log-in service: http(s)://... or an absolute path."""
    issuer: Annotated[str, Meta(min_length=1, max_length=200)]
    """`iss` of its tokens."""
    audience: Annotated[str, Meta(min_length=1, max_length=200)]
    """That `aud` names."""
    scope: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """That `scope` contains; None: none is needed."""
    leeway: Seconds = Seconds(60)
    """By which two machines' clocks may differ."""
    refresh: Seconds = Seconds(300)
    """After which the key set is read again."""
    rate: Positive = 0.5
    """Presses a second of one viewer (`sub`), in the long run."""
    burst: Positive = 20.0
    viewers: Annotated[int, Meta(ge=1000, le=10_000_000)] = 100_000
    """Counted at once; the longest unseen is forgotten."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What strangers may ask of this service."""

    rate: Positive = 50.0
    """Questions a second from one client network, in the long run."""
    burst: Positive = 200.0
    ipv4_prefix: Annotated[int, Meta(ge=8, le=32)] = 24
    ipv6_prefix: Annotated[int, Meta(ge=16, le=128)] = 56
    networks: Annotated[int, Meta(ge=1000, le=10_000_000)] = 100_000
    """Counted at once; the longest unseen is forgotten."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks of peers whose X-Forwarded-For, and `client` parameter, are believed."""
    head: Seconds = Seconds(10)
    """Within which a new connection has sent a whole request, bodies apart; else it is closed."""
    lag: Seconds = Seconds(0.05)
    """Answers come from ready-made lists while the loop is so late."""


class Static(Struct, frozen=True, forbid_unknown_fields=True):
    """One of the list that is answered when nothing else is known."""

    id: ApplianceId
    url: str
    addresses: tuple[str, ...] = ()
    """IPv4 and IPv6, for DNS."""


class DecisionLog(Struct, frozen=True, forbid_unknown_fields=True):
    path: str | None = None
    """A line of JSON for each decision, with all that is needed to make it again; None: none. SIGHUP opens it anew."""
    share: Share = 1.0
    """Of the decisions, drawn by their number."""


class TurnUp(Struct, frozen=True, forbid_unknown_fields=True):
    """The checks of `oca-admin turn-up`, before an appliance has viewers and daily after."""

    required: bool = True
    """An appliance that has never passed them has no viewers. One that has keeps them, whatever a later check says."""
    overdue: Seconds = Seconds(50 * 3600)
    """After which the last checks are too long ago: two days and some hours, for checks that run daily."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    steering: Replica
    listen: Listen
    inventory: str | None = None
    """A TOML file with [[operator]], [[site]] and [[appliance]]; read at the start and at SIGHUP."""
    tls: Tls = Tls()
    content: Content = Content()
    geo: Geo = Geo()
    answers: Answers = Answers()
    limits: Limits = Limits()
    ranking: Rules = Rules()
    patience: Patience = Patience()
    turn_up: TurnUp = TurnUp()
    fallback: tuple[Static, ...] = ()
    decisions: DecisionLog = DecisionLog()
    tokens: Tokens | None = None
    """Absent: URLs are not signed."""
    playback: PlaybackAccess | None = None
    """Absent: nobody can press play here; who asks by path is answered."""
    dns: DnsSettings | None = None
    """A zone that is delegated to this service; absent: none. See steering/dns/settings.py."""


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


def _check(settings: Settings, document: Document) -> None:
    """What types can't say."""
    refuse = document.refused
    for name in ("public", "fleet", "dns", "admin"):
        try:
            host_and_port(getattr(settings.listen, name))
        except ValueError as error:
            raise refuse(["listen", name], f'{error}; allowed: "0.0.0.0:8080" or "[::]:8080"') from error
    if not _is_base(settings.listen.base_url):
        raise refuse(["listen", "base_url"], f"read {settings.listen.base_url!r}; allowed: https://host")
    if settings.content.origin is not None and not _is_base(settings.content.origin):
        raise refuse(["content", "origin"], f"read {settings.content.origin!r}; allowed: https://host")
    where = settings.content.catalogue
    if where is not None and not where.startswith("/") and not leads_somewhere(where, ("http", "https", "s3")):
        raise refuse(
            ["content", "catalogue"], f"read {where!r}; allowed: http(s)://host/base, s3://bucket/prefix or /a/path"
        )
    for number, static in enumerate(settings.fallback):
        if not _is_base(static.url):
            raise refuse(["fallback", str(number), "url"], f"read {static.url!r}; allowed: https://host")
        for text in static.addresses:
            try:
                ipaddress.ip_address(text)
            except ValueError as error:
                raise refuse(["fallback", str(number), "addresses"], f"{error}; allowed: addresses") from error
    for text in settings.limits.trusted_proxies:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise refuse(["limits", "trusted_proxies"], f"{error}; allowed: networks such as 192.0.2.0/24") from error
    for first, second in (("public_cert", "public_key"), ("fleet_cert", "fleet_key")):
        if (getattr(settings.tls, first) is None) != (getattr(settings.tls, second) is None):
            raise refuse(["tls", first], f"{first} and {second} are given both or not at all")
    if settings.tls.fleet_client_ca is not None and settings.tls.fleet_cert is None:
        raise refuse(["tls", "fleet_client_ca"], "certificates can be asked for only where fleet_cert is given")
    if not settings.steering.state_dir.startswith("/"):
        raise refuse(["steering", "state_dir"], f"read {settings.steering.state_dir!r}; allowed: an absolute path")
    if settings.tokens is not None and not 60 <= settings.tokens.lifetime <= settings.tokens.grace:
        raise refuse(["tokens", "lifetime"], "allowed: 60 s up to tokens.grace, or films stop when keys change")
    if settings.turn_up.overdue < 3600:
        raise refuse(["turn_up", "overdue"], f"read {float(settings.turn_up.overdue):g} s; allowed: 1 h and more")
    if settings.answers.ttl < 1 or settings.answers.steering_ttl < 1:
        raise refuse(["answers"], "ttl and steering_ttl are at least 1 s: players ask again after them")
    _check_playback(settings, document)
    _check_rules(settings.ranking, document)
    _check_patience(settings.patience, document)


def _check_playback(settings: Settings, document: Document) -> None:
    playback = settings.playback
    if playback is None:
        return
    if not playback.keys.startswith("/") and not leads_somewhere(playback.keys, ("http", "https")):
        raise document.refused(["playback", "keys"], f"read {playback.keys!r}; allowed: http(s)://host/path or /a/path")
    if settings.content.catalogue is None:
        raise document.refused(["playback"], "content.catalogue says what can be played: it is needed with [playback]")
    if playback.refresh < 10 or playback.burst < 1:
        raise document.refused(["playback"], "allowed: refresh from 10 s, burst from 1")


def _check_rules(rules: Rules, document: Document) -> None:
    for name in ("fetch_penalty", "load_delay", "near", "beside", "spread", "move_gain"):
        if not 0 <= getattr(rules, name) <= 100_000:
            raise document.refused(["ranking", name], f"read {getattr(rules, name)}; allowed: 0 to 100000")
    if not 0 < rules.idle <= rules.return_limit <= rules.hard_limit <= rules.leave_limit < 1:
        raise document.refused(
            ["ranking", "hard_limit"],
            "allowed: 0 < idle <= return_limit <= hard_limit <= leave_limit < 1 (shares of the capacity)",
        )
    if not rules.idle <= rules.guest_limit <= rules.hard_limit:
        raise document.refused(
            ["ranking", "guest_limit"], "allowed: idle <= guest_limit <= hard_limit (shares of the capacity)"
        )
    if not 1 <= rules.options <= 16:
        raise document.refused(["ranking", "options"], f"read {rules.options}; allowed: 1 to 16")


def _check_patience(patience: Patience, document: Document) -> None:
    if not 1 <= patience.interval < patience.quiet_after < patience.silent_after <= 14:
        raise document.refused(
            ["patience", "silent_after"],
            "allowed: 1 <= interval < quiet_after < silent_after <= 14 s: lost is known within 15 s",
        )
    if not 1 <= patience.rise <= 100:
        raise document.refused(["patience", "rise"], f"read {patience.rise}; allowed: 1 to 100 heartbeats")
    for name in ("least_health", "ramp_from", "panic_share"):
        if not 0 <= getattr(patience, name) <= 1:
            raise document.refused(["patience", name], f"read {getattr(patience, name)}; allowed: 0 to 1")
    if patience.ramp < 0 or patience.panic_longest < 0 or patience.panic_least < 1:
        raise document.refused(["patience"], "ramp and panic_longest are seconds from 0; panic_least is 1 or more")


def _is_base(url: str) -> bool:
    """Whether it is a scheme and a host, and nothing after these."""
    if not leads_somewhere(url, ("http", "https")):
        return False
    parts = urlsplit(url)
    return parts.path in {"", "/"} and not parts.query and not parts.fragment and parts.username is None


def described(settings: Settings) -> str:
    """One line for `oca-steering check`."""
    databases = [name for name in ("city", "asn") if getattr(settings.geo, name)]
    return (
        f"replica {settings.steering.id}, players on {settings.listen.public}, appliances on {settings.listen.fleet}, "
        f"inventory {settings.inventory or 'by the admin API only'}, databases: {', '.join(databases) or 'none'}, "
        f"origin {settings.content.origin or 'none'}, {len(settings.fallback)} fallback(s), "
        f"viewers' tokens of {settings.playback.issuer if settings.playback else 'nobody'}"
    )
