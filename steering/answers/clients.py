"""Who is asking: the client's address, from the connection or, where the peer is a listed proxy, from what it says.

Anybody can write a header. One open override moves players where an attacker wants them (Traffic Control's issue 1404),
so X-Forwarded-For is read from its end, and only as far as listed proxies wrote it.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from steering.errors import SteeringError

_MOST_HOPS: Final = 16
_MOST_CHARACTERS: Final = 1024


class BadClient(SteeringError):
    """A trusted proxy named a client that is no address."""


class Proxies:
    """The peers that are believed."""

    def __init__(self, networks: tuple[str, ...]) -> None:
        self._networks = [ipaddress.ip_network(text) for text in networks]
        self._known: dict[str, bool] = {}

    def is_trusted(self, address: str) -> bool:
        """Whether this peer, an address as text, is in one of the networks."""
        if not self._networks:
            return False
        known = self._known.get(address)
        if known is None:
            try:
                parsed = ipaddress.ip_address(address)
            except ValueError:
                return False
            parsed = getattr(parsed, "ipv4_mapped", None) or parsed
            known = any(parsed.version == network.version and parsed in network for network in self._networks)
            if len(self._known) >= 4096:
                self._known.clear()
            self._known[address] = known
        return known

    def client(self, peer: str, forwarded: str | None, named: str | None) -> bytes:
        """The packed address of the client. `forwarded` is the value of X-Forwarded-For, `named` the parameter
        `client`; both count only from a trusted peer. Raises `BadClient`.
        """
        if not self.is_trusted(peer):
            return packed(peer)
        if named:
            return packed(named)
        address = peer
        for hop in reversed((forwarded or "")[-_MOST_CHARACTERS:].split(",")[-_MOST_HOPS:]):
            if not hop.strip():
                break
            address = hop.strip()
            if not self.is_trusted(address):
                break
        return packed(address)


def packed(text: str) -> bytes:
    """4 or 16 bytes. Raises `BadClient`."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text.partition("%")[0])
    except (OSError, ValueError) as error:
        raise BadClient(f"{text[:64]!r} is not an IP address") from error


def network_of(client: bytes, ipv4_prefix: int, ipv6_prefix: int) -> bytes:
    """The network that limits are counted for: the packed address with the host's bits cleared."""
    length = ipv4_prefix if len(client) == 4 else ipv6_prefix
    whole, rest = divmod(length, 8)
    if not rest:
        return client[:whole]
    return client[:whole] + bytes([client[whole] & (0xFF << (8 - rest)) & 0xFF])
