"""The settings of one appliance: one typed value, read once from TOML, checked whole, and never changed after.

A misspelt key, a bad unit or overlapping devices stop the start; the message names the file, the line or key, what was
read and what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct, field

from oca.errors import SettingsError
from oca.http.replies import EXPOSED
from wire.heartbeat import ApplianceId
from wire.toml import BitsPerSecond, Bytes, Document, Mistake, Seconds, host_and_port, leads_somewhere, quantity

_STEERING_INTERVALS: Final = (1.0, 60.0)
PORTS: Final = ("http", "https", "fleet")
"""Settings of `listen` under which film bytes are served."""
_SYSTEM_TABLES: Final = (253, 254, 255)
"""default, main and local."""
_LEAST_SPOOL: Final = 64 * 1024 * 1024
_MOST_JITTER: Final = 3000.0


class Tier(StrEnum):
    """What a device is made of, fastest first."""

    NVME = "nvme"
    SSD = "ssd"
    HDD = "hdd"


class Appliance(Struct, frozen=True, forbid_unknown_fields=True):
    id: ApplianceId
    """Names this box in Cache-Status, CDN-Loop, metrics and steering."""
    state_dir: str = "/var/lib/oca"
    """Index and run-time files. On a local disk; as durable as the cache should be."""


class Listen(Struct, frozen=True, forbid_unknown_fields=True):
    http: str | None = None
    """Film bytes. host:port; an IPv6 address stands in brackets. Default: 0.0.0.0:8080, but nowhere where there is
    `https`."""
    https: str | None = None
    """Film bytes over TLS. Needs a [[certificate]]."""
    fleet: str | None = None
    """The same for other appliances, which show the certificate that they got when they were enrolled, and need no
    token. Needs an enrolled appliance (`oca enrol`)."""
    control: str = "127.0.0.1:9145"
    """/metrics, /healthz, /readyz and the control API. Never a public address: it has no password."""
    workers: Annotated[int, Meta(ge=1, le=256)] = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Edge processes; default one per core."""

    def __post_init__(self) -> None:
        if self.http is None and self.https is None:
            msgspec.structs.force_setattr(self, "http", "0.0.0.0:8080")

    @property
    def ports(self) -> dict[str, str]:
        """Where film bytes are served, by name of the setting: "http", "https", "fleet"."""
        named = ((name, getattr(self, name)) for name in PORTS)
        return {name: address for name, address in named if address is not None}


class Certificate(Struct, frozen=True, forbid_unknown_fields=True):
    """Which one a player gets is chosen by the name that it asks for (SNI); for other names, the first. Looked at once
    a second: new files count from then on for whoever comes, broken ones are reported, and the old pair stays."""

    cert: str
    """PEM: the certificate, and those between it and its authority."""
    key: str
    """Its key (PEM). Others than owner and group may not read it. Of P-256, a handshake costs a fifth of RSA's."""


class TlsVersion(StrEnum):
    V1_2 = "1.2"
    V1_3 = "1.3"


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """Of `listen.https`."""

    minimum: TlsVersion = TlsVersion.V1_2
    ticket_rotation: Seconds = Seconds(6 * 3600)
    """After which the key changes that session tickets are encrypted with; those of the key before are honoured. It is
    never on a disk. 0: no tickets."""


class Origin(Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    """s3://bucket/prefix, or http(s)://host/base."""
    endpoint_url: str | None = None
    """Of an S3 server that is not Amazon's. Else the ordinary boto3 ways (AWS_ENDPOINT_URL_S3 and so on)."""
    region: str | None = None
    redirect_hosts: tuple[str, ...] = ()
    """Hosts (host or host:port) that a 302 of the origin may lead to, besides its own."""


class Parent(Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    """http(s)://host:port of an appliance that is asked before the origin."""


class Device(Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    """A folder on a mounted file system of its own."""
    tier: Tier
    capacity: Bytes
    """What the cache may use of it."""
    dwpd: Annotated[float, Meta(gt=0, le=100)] = 1.0
    """Drive writes per day that its maker allows: the write budget of flash is this times the capacity."""

    def __post_init__(self) -> None:
        # A device is asked for by its path: with a slash at the end, or two in front, it is the same folder.
        if self.path.startswith("/"):
            msgspec.structs.force_setattr(self, "path", "/" + os.path.normpath(self.path).lstrip("/"))


class Store(Struct, frozen=True, forbid_unknown_fields=True):
    """How content is kept, moved and watched."""

    probation: Bytes | None = None
    """Memory in which newcomers wait until they are asked for again, on boxes without hdd; default 1/8 of the memory
    and at most 1 % of the flash. 0: they wait on flash."""
    probation_dir: str = "/dev/shm"  # noqa: S108 - memory is what is wanted
    """A tmpfs."""
    nvme_queue: Annotated[int, Meta(ge=1, le=256)] = 16
    """Cold reads in flight at once for each nvme device, over all workers."""
    ssd_queue: Annotated[int, Meta(ge=1, le=256)] = 8
    hdd_queue: Annotated[int, Meta(ge=1, le=16)] = 1
    """One head: reads in a row are faster than reads at once."""
    read_timeout: Seconds = Seconds(5)
    """For a cold read, waiting in line included; then the bytes come from another copy or a source."""
    slow_read: Seconds = Seconds(2)
    """A device whose reads take longer than this again and again is failing."""
    move_rate: Bytes = Bytes(200 * 1000 * 1000)
    """Bytes per second that content may move between devices, over all of them."""
    scrub_days: Annotated[float, Meta(gt=0, le=3650)] = 30.0
    """Days within which every byte that is held is read again and compared with its sum."""
    pledge_share: Annotated[float, Meta(ge=0, le=1)] = 0.8
    """The most of a device that may be pledged by nightly fill."""


class Http(Struct, frozen=True, forbid_unknown_fields=True):
    max_connections: Annotated[int, Meta(ge=1)] = 20_000
    """Per worker. Beyond it the newest connection is closed at once."""
    max_header_bytes: Bytes = Bytes(16 * 1024)
    max_header_fields: Annotated[int, Meta(ge=8, le=1000)] = 100
    max_ranges: Annotated[int, Meta(ge=1, le=1000)] = 32
    """Ranges in one request; more get 416."""
    header_timeout: Seconds = Seconds(10)
    """From the first byte of a request to the end of its head; then 408."""
    idle_timeout: Seconds = Seconds(60)
    """Between requests on one connection; then it is closed."""
    min_send_rate: Bytes = Bytes(16 * 1024)
    """Bytes per second that a client must take, measured over `min_send_window`; 0 switches it off."""
    min_send_window: Seconds = Seconds(20)
    drain_timeout: Seconds = Seconds(75)
    """From SIGTERM to the end of the last response. systemd sends SIGKILL at TimeoutStopSec=105."""


class Viewers(Struct, frozen=True, forbid_unknown_fields=True):
    """What is done with what players say of themselves (CMCD, CTA-5004)."""

    pace: bool = True
    """Answers go out no faster than the player wants (rtp), or twice as fast as it measured (mtp)."""
    prefetch: bool = True
    """What a player says that it asks for next (nor, nrr) is brought if it is not here."""


class CorsRules(Struct, frozen=True, forbid_unknown_fields=True):
    allow_origins: tuple[str, ...] = ("*",)
    """Pages that may read films: "*" or a list of origins such as "https://play.example"."""
    expose_headers: str = EXPOSED
    timing_allow_origin: str = "*"


class Fetch(Struct, frozen=True, forbid_unknown_fields=True):
    connect_timeout: Seconds = Seconds(3)
    stall_timeout: Seconds = Seconds(10)
    """Without a byte from a source; then the next try."""
    total_deadline: Seconds = Seconds(60)
    """For one block or one object's head, over all tries."""
    attempts: Annotated[int, Meta(ge=1, le=10)] = 4
    retry_delay: Seconds = Seconds(0.1)
    """Before the second try; doubled each time, with jitter."""
    read_ahead_blocks: Annotated[int, Meta(ge=0, le=64)] = 4
    """Blocks of 4 MiB kept in flight ahead of a sequential viewer."""
    max_flights: Annotated[int, Meta(ge=1, le=4096)] = 64
    """Blocks in flight at once; each holds 4 MiB of memory until it lies on disk."""


class Breaker(Struct, frozen=True, forbid_unknown_fields=True):
    window: Seconds = Seconds(10)
    min_calls: Annotated[int, Meta(ge=1)] = 10
    """Fewer calls within the window never open the breaker."""
    failure_ratio: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """Above it the breaker opens."""
    open_for: Seconds = Seconds(30)
    """Then one probe is let through."""


class Freshness(Struct, frozen=True, forbid_unknown_fields=True):
    """Lifetimes of what comes without Cache-Control."""

    film: Seconds = Seconds(365 * 86400)
    """Film bytes are immutable by convention: a year."""
    manifest: Seconds = Seconds(5)
    manifest_suffixes: tuple[str, ...] = (".m3u8", ".mpd")
    negative: Seconds = Seconds(10)
    """404, 410 and 403 from the origin."""
    stale_if_error: Seconds = Seconds(7 * 86400)
    """How long past its time an object is still served while no source answers, unless the origin forbids it."""


class Scheme(StrEnum):
    """What players' URLs begin with."""

    HTTP = "http"
    HTTPS = "https"


class BindNetwork(StrEnum):
    """How far a token that names networks binds its bearer to them."""

    STRICT = "strict"
    SAME_FAMILY = "same_family"
    OFF = "off"


class Access(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may watch. By default anybody; else whoever brings a token of CDNI URI Signing (RFC 9246)."""

    required: bool = False
    """Whether requests need a token. Off, tokens are taken off the URL and not looked at."""
    keys: str | None = None
    """A JWKS file with the public keys that tokens are signed with. Looked at once a second; a new one counts at once,
    a broken one is reported, and the old keys stay. A key with a member `exp` is honoured until then. Not given: the
    keys that steering publishes, where there is a [steering]; they are kept in the state directory."""
    issuers: tuple[str, ...] = ()
    """Accepted `iss`; empty: any, and none, whose key is known."""
    audience: tuple[str, ...] = ()
    """Names of this service in `aud`, besides appliance.id. A token without `aud` is for everybody."""
    public_paths: tuple[str, ...] = ()
    """Paths, and all below them, that need no token: ["/posters"]."""
    trusted_networks: tuple[str, ...] = ()
    """Where the appliances are that fetch from this one as their parent: they need no token."""
    scheme: Scheme | None = None
    """Of the URLs that tokens are for. Default: that of the port which was asked; "https" where something in front of
    this appliance speaks TLS."""
    clock_skew: Seconds = Seconds(5)
    """That the clock of whoever mints tokens may differ from ours."""
    bind_network: BindNetwork = BindNetwork.STRICT
    """Of tokens with `oca_net`: "same_family" does not hold an IPv4 network against a client that comes by IPv6, nor
    the other way round; "off" ignores the claim, for boxes behind an address translator."""
    renewal_limit: Seconds = Seconds(12 * 3600)
    """The most that renewals may add up to, counted from the first token; 0 renews nothing, and this box has no private
    key then."""
    max_token_bytes: Bytes = Bytes(4096)


class Steering(Struct, frozen=True, forbid_unknown_fields=True):
    """Whom the appliance tells how it is and what it holds, so that players are sent to it."""

    urls: tuple[str, ...]
    """http(s)://host:port where steering listens for the fleet; all replicas, each is told for itself."""
    token_file: str | None = None
    """A file with the token that proves who we are, on one line. Others than owner and group may not read it."""
    ca_file: str | None = None
    """Certificates (PEM) of the authorities that steering's own is checked with, in place of the system's."""
    client_cert: str | None = None
    """Our certificate (PEM), for steering that wants mutual TLS."""
    client_key: str | None = None
    """Its key, likewise."""
    interval: Seconds = Seconds(5)
    """Between two heartbeats; steering may ask for fewer. 1 to 60 s."""
    holdings_interval: Seconds = Seconds(30)
    """What is held is counted up, and sent when it changed, no more often than this. 1 s and more."""
    holding_share: Annotated[float, Meta(gt=0, le=1)] = 0.98
    """A rendition counts as held when at least this share of its bytes lies on devices that can be read."""
    interfaces: tuple[str, ...] = ()
    """Network cards towards players. Default: that of the default route; without one, all physical ones."""
    link_speed: BitsPerSecond | None = None
    """What these cards can carry together, where they don't say, or say more than is paid for."""


class Routes(Struct, frozen=True, forbid_unknown_fields=True):
    """Prefixes that this box's BGP speaker learned, which steering is told. They are never used for forwarding."""

    kernel_table: Annotated[int, Meta(ge=1, le=2**32 - 1)] | None = None
    """Number of a routing table of its own into which a speaker such as BIRD exports what it learned, and for which
    there is no `ip rule`. Paths and communities are not known then."""
    exabgp_feed: str | None = None
    """Unix socket where exabgp tells its routes, with paths and communities: it runs `python -m oca.keeper.exabgp_feed
    SOCKET` (see there), as a user who may enter the socket's folder and write to it."""
    poll: Seconds = Seconds(30)
    """Between two readings of the kernel's table. A large one is read less often: a tenth of a core is the most.
    Steering is told of changes as often, and every 30 s at least."""
    most: Annotated[int, Meta(ge=1, le=200_000)] = 50_000
    """Routes. A table or session that brings more is not believed at all: it has leaked what it should not."""


class Demand(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the appliance ships what its viewers asked for and what it holds, for whoever plans the nightly fill."""

    bucket: str
    """s3://bucket/prefix, below which demand/ and stock/ are read and written. Credentials: the ordinary boto3 ways."""
    endpoint_url: str | None = None
    """Of an S3 server that is not Amazon's. Else the ordinary boto3 ways (AWS_ENDPOINT_URL_S3 and so on)."""
    region: str | None = None
    checkpoint: Seconds = Seconds(60)
    """The running hour is written to disk this often: what a killed keeper forgets. 1 s to 1 h."""
    spool: Bytes = Bytes(256 * 1024 * 1024)
    """The most that waits on disk (in the state directory) while the bucket is away; then the oldest hours go."""
    jitter: Seconds = Seconds(300)
    """An hour is shipped within this time after its end, so that a fleet does not come at once. At most 50 min."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    appliance: Appliance
    origin: Origin
    device: tuple[Device, ...]
    listen: Listen = Listen()
    certificate: tuple[Certificate, ...] = ()
    tls: Tls = Tls()
    parents: tuple[Parent, ...] = ()
    http: Http = Http()
    access: Access = Access()
    viewers: Viewers = Viewers()
    cors: CorsRules = CorsRules()
    fetch: Fetch = Fetch()
    breaker: Breaker = Breaker()
    freshness: Freshness = Freshness()
    store: Store = Store()
    routes: Routes = Routes()
    steering: Steering | None = None
    """Without this section nothing is reported to anybody."""
    demand: Demand | None = None
    """Without this section demand is not counted."""


STEERING_KEYS: Final = "steering-keys.json"
"""In the state directory."""


def keys_file(settings: Settings) -> str:
    """The file of the public keys that tokens are verified with."""
    return settings.access.keys or f"{settings.appliance.state_dir}/{STEERING_KEYS}"


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
    """Turn TOML into `Settings`. `path` stands in messages only."""
    try:
        document = Document(text, path)
        settings = document.read(Settings)
        _check(settings, document)
    except Mistake as error:
        raise SettingsError(str(error)) from error
    return settings


def pack_settings(settings: Settings) -> bytes:
    """For a child process; `unpack_settings` turns it back."""
    return msgspec.msgpack.encode(
        settings, enc_hook=lambda value: int(value) if isinstance(value, int) else float(value)
    )


def unpack_settings(packed: bytes) -> Settings:
    return msgspec.msgpack.decode(packed, type=Settings, dec_hook=quantity)


def _check(settings: Settings, document: Document) -> None:
    """What types can't say."""
    refuse = document.refused
    for name, address in (*settings.listen.ports.items(), ("control", settings.listen.control)):
        try:
            host_and_port(address)
        except ValueError as error:
            raise refuse(["listen", name], f'{error}; allowed: "0.0.0.0:8080" or "[::]:8080"') from error
    if not leads_somewhere(settings.origin.url, ("s3", "http", "https")):
        raise refuse(
            ["origin", "url"],
            f"read {settings.origin.url!r}; allowed: s3://bucket/prefix, http://host/base or https://host/base",
        )
    for number, parent in enumerate(settings.parents):
        if not leads_somewhere(parent.url, ("http", "https")):
            raise refuse(["parents", str(number), "url"], f"read {parent.url!r}; allowed: http(s)://host:port")
    if not settings.device:
        raise refuse(["device"], "at least one [[device]] is needed: a cache without a disk keeps nothing")
    folders: list[PurePosixPath] = []
    for number, device in enumerate(settings.device):
        if not device.path.startswith("/"):
            raise refuse(["device", str(number), "path"], f"read {device.path!r}; allowed: an absolute path")
        folder = PurePosixPath(device.path)
        for other in folders:
            if folder == other or folder in other.parents or other in folder.parents:
                raise refuse(
                    ["device", str(number), "path"],
                    f"{device.path} and {other} overlap; allowed: folders of which none holds another",
                )
        folders.append(folder)
        if device.capacity < 64 * 1024 * 1024:
            raise refuse(
                ["device", str(number), "capacity"],
                f"read {int(device.capacity)} bytes; allowed: 64 MiB and more (one extent)",
            )
    # Above, because a path and a CDN-Loop header must fit into one packet to the keeper.
    if not 1024 <= settings.http.max_header_bytes <= 64 * 1024:
        raise refuse(
            ["http", "max_header_bytes"], f"read {int(settings.http.max_header_bytes)}; allowed: 1 KiB to 64 KiB"
        )
    _check_tls(settings, refuse)
    _check_access(settings, refuse)
    if not settings.appliance.state_dir.startswith("/"):
        raise refuse(["appliance", "state_dir"], f"read {settings.appliance.state_dir!r}; allowed: an absolute path")
    _check_routes(settings.routes, document)
    if settings.steering is not None:
        _check_steering(settings.steering, document)
    if settings.demand is not None:
        _check_demand(settings.demand, document)


def _check_tls(settings: Settings, refuse: Callable[[list[str], str], Mistake]) -> None:
    if settings.listen.https is not None and not settings.certificate:
        raise refuse(["listen", "https"], "needs a certificate: give at least one [[certificate]]")
    if settings.certificate and settings.listen.https is None:
        raise refuse(["certificate"], "is for listen.https, which is not given")
    for number, certificate in enumerate(settings.certificate):
        for key in ("cert", "key"):
            path: str = getattr(certificate, key)
            if not path.startswith("/"):
                raise refuse(["certificate", str(number), key], f"read {path!r}; allowed: an absolute path")
    if settings.tls.ticket_rotation and not 60 <= settings.tls.ticket_rotation <= 7 * 86400:
        raise refuse(
            ["tls", "ticket_rotation"],
            f"read {float(settings.tls.ticket_rotation):g} s; allowed: 1 min to 7 d, or 0 for no tickets",
        )


def _check_access(settings: Settings, refuse: Callable[[list[str], str], Mistake]) -> None:
    access = settings.access
    if access.required and access.keys is None and settings.steering is None:
        raise refuse(
            ["access", "keys"], "a JWKS file, or a [steering] that has keys, is needed where tokens are required"
        )
    if access.keys is not None and not access.keys.startswith("/"):
        raise refuse(["access", "keys"], f"read {access.keys!r}; allowed: an absolute path")
    for path in access.public_paths:
        if not path.startswith("/") or os.path.normpath(path) != path.rstrip("/"):
            raise refuse(
                ["access", "public_paths"], f'read {path!r}; allowed: a path such as "/posters", but not all of them'
            )
    for network in access.trusted_networks:
        try:
            ip_network(network)
        except ValueError as error:
            raise refuse(
                ["access", "trusted_networks"], f'{error}; allowed: "192.0.2.0/24", "2001:db8::/32"'
            ) from error
    if not 256 <= access.max_token_bytes <= settings.http.max_header_bytes:
        raise refuse(
            ["access", "max_token_bytes"],
            f"read {int(access.max_token_bytes)}; allowed: 256 bytes to http.max_header_bytes",
        )


def _check_steering(steering: Steering, document: Document) -> None:
    def refused(key: str, sentence: str) -> Mistake:
        return document.refused(["steering", key], sentence)

    if not steering.urls:
        raise refused("urls", "is empty; allowed: at least one http(s)://host:port")
    for url in steering.urls:
        # A query or fragment would swallow the path that is put behind it.
        if not leads_somewhere(url, ("http", "https")) or "?" in url or "#" in url:
            raise refused("urls", f"read {url!r}; allowed: http(s)://host:port")
    if len(set(steering.urls)) < len(steering.urls):
        raise refused("urls", "names a replica twice; allowed: each once")
    if (steering.client_cert is None) != (steering.client_key is None):
        raise refused("client_cert", "a certificate and its key go together: give client_cert and client_key")
    if steering.token_file is None and steering.client_cert is None:
        raise refused("token_file", "is missing: steering must know who we are; give it, or client_cert and client_key")
    for key in ("token_file", "ca_file", "client_cert", "client_key"):
        path = getattr(steering, key)
        if path is not None and not path.startswith("/"):
            raise refused(key, f"read {path!r}; allowed: an absolute path")
    least, most = _STEERING_INTERVALS
    if not least <= steering.interval <= most:
        raise refused("interval", f"read {float(steering.interval):g} s; allowed: {least:.0f} s to {most:.0f} s")
    if steering.holdings_interval < least:
        raise refused(
            "holdings_interval", f"read {float(steering.holdings_interval):g} s; allowed: {least:.0f} s and more"
        )
    if steering.link_speed == 0:
        raise refused("link_speed", 'read 0; allowed: a rate such as "100 Gbit/s", or leave it out')


def _check_demand(demand: Demand, document: Document) -> None:
    def refused(key: str, sentence: str) -> Mistake:
        return document.refused(["demand", key], sentence)

    if not leads_somewhere(demand.bucket, ("s3",)):
        raise refused("bucket", f"read {demand.bucket!r}; allowed: s3://bucket/prefix")
    if demand.endpoint_url is not None and not leads_somewhere(demand.endpoint_url, ("http", "https")):
        raise refused("endpoint_url", f"read {demand.endpoint_url!r}; allowed: http(s)://host:port")
    if not 1 <= demand.checkpoint <= 3600:
        raise refused("checkpoint", f"read {float(demand.checkpoint):g} s; allowed: 1 s to 1 h")
    # An hour of as many folders as are counted at all must find room.
    if demand.spool < _LEAST_SPOOL:
        raise refused("spool", f"read {int(demand.spool)} bytes; allowed: 64 MiB and more")
    if demand.jitter > _MOST_JITTER:
        raise refused("jitter", f"read {float(demand.jitter):g} s; allowed: 50 min at most")


def _check_routes(routes: Routes, document: Document) -> None:
    refuse = document.refused
    if routes.kernel_table is not None and routes.exabgp_feed is not None:
        raise refuse(["routes", "exabgp_feed"], "kernel_table is set too; allowed: one of them, whichever knows more")
    if routes.kernel_table in _SYSTEM_TABLES:
        raise refuse(
            ["routes", "kernel_table"],
            f"read {routes.kernel_table}, by which this machine forwards; allowed: any but 253, 254 and 255",
        )
    if routes.exabgp_feed is not None and not routes.exabgp_feed.startswith("/"):
        raise refuse(["routes", "exabgp_feed"], f"read {routes.exabgp_feed!r}; allowed: an absolute path")
    if not 1 <= routes.poll <= 3600:
        raise refuse(["routes", "poll"], f"read {float(routes.poll):g} s; allowed: 1 s to 1 h")
