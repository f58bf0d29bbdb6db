"""The settings of the DNS answerer: a zone, who serves it, and how far a stranger may go."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final

from msgspec import Meta, Struct

#: Below this label stand the host names of single appliances. No service and no name server may use it.
EDGE: Final = "edge"

_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_HOST_NAME: Final = r"^(?=.{1,250}\Z)((?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)+(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.?\Z"
_MAILBOX: Final = r"^[A-Za-z0-9._+-]{1,63}@[A-Za-z0-9.-]{1,150}\Z"

HostName = Annotated[str, Meta(pattern=_HOST_NAME)]
Ttl = Annotated[int, Meta(ge=1, le=86400)]


class NameServer(Struct, frozen=True, forbid_unknown_fields=True):
    name: HostName
    """As the parent zone delegates to it. In our zone or elsewhere."""
    addresses: tuple[str, ...] = ()
    """Needed for a name in our zone, refused for one elsewhere: its own zone answers for it."""


class DnsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    zone: HostName
    """Delegated to us by its parent, for example steer.example.net."""
    name_servers: Annotated[tuple[NameServer, ...], Meta(min_length=1, max_length=13)]
    """All that answer for the zone; the first stands in the SOA record."""
    hostmaster: Annotated[str, Meta(pattern=_MAILBOX)]
    """Mail address of the people behind the zone."""
    serial: Annotated[int, Meta(ge=1, le=2**32 - 1)] | None = None
    """Of the SOA record. None: the second in which the process started. Nobody transfers this zone, so it only tells a
    reader which configuration answers."""
    services: Annotated[tuple[str, ...], Meta(min_length=1)] = ("films",)
    """<service>.<zone> and <title>.<service>.<zone> are answered with the best appliances for whoever asks."""
    ttl: Ttl = 30
    """Seconds for which an answer of the ranking may be kept, and so for which a lost appliance is still named."""
    negative_ttl: Ttl = 30
    """The same for "no such name" and "no address of this family"."""
    ecs: bool = True
    """Use the client's network where the resolver sends it (RFC 7871). Off: the resolver's own address decides."""
    payload_bytes: Annotated[int, Meta(ge=512, le=4096)] = 1232
    """The largest UDP answer. 1232 fits every IPv6 path unfragmented (DNS flag day 2020)."""

    rate_limit: Annotated[int, Meta(ge=0, le=1_000_000)] = 500
    """UDP answers per second to one network (/24, /56) in one class of answers. A large resolver that sends client
    subnets asks once per subnet and TTL, so a low limit sends it to TCP. 0: no limit."""
    rate_window: Annotated[int, Meta(ge=1, le=3600)] = 5
    """Seconds of silence after which a network that asked far too much is fully answered again."""
    slip: Annotated[int, Meta(ge=0, le=10)] = 2
    """Every how many limited answers one goes out empty with TC, so that a resolver whose address is abused comes by
    TCP. 1: all of them, 0: none."""
    rate_accounts: Annotated[int, Meta(ge=1000, le=10_000_000)] = 100_000
    """Networks and classes remembered at once; the one that asked least recently is forgotten first. About 220 bytes
    each."""
    unlimited: tuple[str, ...] = ()
    """Networks that are never limited: resolvers you know."""

    tcp_connections: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    tcp_per_network: Annotated[int, Meta(ge=1, le=100_000)] = 50
    """Connections from one /24 or /56."""
    tcp_idle: Annotated[float, Meta(gt=0, le=600)] = 10.0
    """Seconds within which a connection has to bring its next whole query, and to take an answer."""

    def __post_init__(self) -> None:
        for service in self.services:
            if not _LABEL.fullmatch(service) or service == EDGE:
                raise ValueError(f"service {service!r}: a label of a-z, 0-9 and hyphens is needed, and not {EDGE!r}")
        for network in self.unlimited:
            ipaddress.ip_network(network)
        for server in self.name_servers:
            self._refuse_misplaced(server)

    def _refuse_misplaced(self, server: NameServer) -> None:
        for address in server.addresses:
            ipaddress.ip_address(address)
        name = server.name.lower().rstrip(".")
        zone = self.zone.lower().rstrip(".")
        if not name.endswith(f".{zone}"):
            if name == zone:
                raise ValueError(f"name server {server.name!r}: it needs a name below the zone, or elsewhere")
            if server.addresses:
                raise ValueError(f"name server {server.name!r} is not in the zone, so its addresses stand elsewhere")
            return
        if not server.addresses:
            raise ValueError(f"name server {server.name!r} is in the zone, so its addresses are needed")
        parent = name.removesuffix(f".{zone}").rpartition(".")[2]
        if parent == EDGE or parent in self.services:
            raise ValueError(f"name server {server.name!r}: names at and below {parent!r} mean something else")
