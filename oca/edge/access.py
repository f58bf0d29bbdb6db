"""Who may watch: the worker's check of signed URIs, where `access.required` says so.

A signature costs more than a hit (120 to 170 microseconds against 5), so what a token says is remembered, in bounds.
What is remembered is never a yes: time, URL and network are compared with the claims on each request.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from oca.counters import Count
from oca.edge.tally import Tally
from oca.errors import KeysUnusable
from oca.http.refusal import Refused
from oca.http.request import Request
from oca.http.target import authority, canonical_path, path_and_query
from oca.settings import BindNetwork, Scheme, Settings, keys_file
from oca.store.key_files import OWN_KEY, read_own_key, read_public_keys
from wire.access import Refusal, cookie_token, split_path, split_query
from wire.token import (
    Address,
    Container,
    KeySet,
    Network,
    Opened,
    SigningKey,
    canonical_uri,
    client_address,
    container_of,
    is_within,
    mint,
    networks_of,
    open_token,
    out_of_time,
    renewal_cookie,
    renewal_due_at,
    renewed,
    unacceptable,
)

log = logging.getLogger(__name__)

_VERDICTS: Final = 8192
_REFUSALS: Final = 1024
_COVERED: Final = 16384
_NEVER: Final = float("inf")
_Found = TypeVar("_Found")


class Verdict:
    """What is remembered of a token that was verified."""

    __slots__ = ("begins_at", "container", "ends_at", "is_used", "networks", "opened", "renewal", "renews_at")

    def __init__(self, opened: Opened, container: Container, networks: tuple[Network, ...] | None, skew: float) -> None:
        claims = opened.claims
        self.opened = opened
        self.container = container
        self.networks = networks
        self.begins_at = claims.nbf - skew if claims.nbf is not msgspec.UNSET else 0.0
        until = _NEVER if opened.key.until is None else opened.key.until
        self.ends_at = min(until, claims.exp + skew if claims.exp is not msgspec.UNSET else _NEVER)
        self.renews_at = _NEVER
        self.renewal: tuple[str, Opened] | None = None
        """The token that follows this one, and what it says: one for all segments that are asked for at once."""
        self.is_used = False


class Gate:
    """`look` reads the files of keys; without any, nobody is let in."""

    def __init__(self, settings: Settings, tally: Tally, scheme: Scheme = Scheme.HTTP) -> None:
        """`scheme`: of the port that is asked, where the settings don't say what players' URLs begin with."""
        access = settings.access
        self._tally = tally
        self._scheme = (access.scheme or scheme).encode()
        self._is_secure = self._scheme == Scheme.HTTPS.encode()
        self._issuers = frozenset(access.issuers)
        self._audience = frozenset({settings.appliance.id, *access.audience})
        self._public = tuple(path.rstrip("/") + "/" for path in access.public_paths)
        self._trusted = tuple(ip_network(network) for network in access.trusted_networks)
        self._skew = access.clock_skew
        self._binding = access.bind_network
        self._renewal_limit = access.renewal_limit
        self._max_token_bytes = access.max_token_bytes
        self._key_file = _Watched(keys_file(settings), read_public_keys, self._count_fault)
        own = str(Path(settings.appliance.state_dir) / OWN_KEY)
        self._own_file = _Watched(own, _own_key, self._count_fault) if access.renewal_limit else None
        self._keys: KeySet = {}
        self._own: SigningKey | None = None
        self._verdicts: dict[bytes, Verdict] = {}
        self._covered: set[tuple[Container, bytes, bytes]] = set()
        """Containers with hosts and raw paths, without a query, that they were found to cover."""
        self._refusals: dict[bytes, Refusal] = {}
        """Of tokens that can't become good before the keys change."""

    # --- Keys -------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Take up files of keys that changed. Called once a second, between requests."""
        keys = self._key_file.look()
        if keys is not None:
            self.take_keys(keys)
        own = None if self._own_file is None else self._own_file.look()
        if own is not None:
            self._own = own
            self._forget()

    def take_keys(self, keys: KeySet) -> None:
        """Verify with these from now on, whoever brought them."""
        self._keys = keys
        self._forget()
        log.info("tokens are verified with %s", ", ".join(sorted(keys)))

    def _forget(self) -> None:
        self._verdicts.clear()
        self._refusals.clear()

    def _count_fault(self) -> None:
        self._tally.count(Count.KEY_FAULTS)

    # --- Requests ---------------------------------------------------------------------------------------------------

    def admit(self, request: Request, sock: socket.socket) -> tuple[bytes, bytes]:
        """The request's raw path without its token, and the header line that renews the token (mostly empty).

        Raises `Refused`: 401 or 403 if it is not let in, 400 for a target that is none.
        """
        raw, query = path_and_query(request.target)
        in_path, raw = split_path(raw)
        in_query = None
        if query:
            in_query, query = split_query(query)
        fields = request.fields
        in_cookie = None if fields.cookie is None else cookie_token(fields.cookie)
        host = authority(request.target, fields.host)
        now = time.time()
        refusal = Refusal.MISSING
        # A renewed token comes as a cookie, beside the one of the URL, whose time is over by then.
        for token in (in_path, in_query, in_cookie):
            if token is None:
                continue
            verdict = self._verdict(token, now)
            if isinstance(verdict, Refusal):
                found = verdict
            elif not verdict.begins_at <= now < verdict.ends_at:
                found = out_of_time(verdict.opened.claims, now, self._skew) or Refusal.UNKNOWN_KEY
            elif not self._covers(verdict.container, host, raw, query):
                found = Refusal.URI
            elif verdict.networks is not None and not self._is_bound(_peer(sock), verdict.networks):
                found = Refusal.NETWORK
            elif now < verdict.renews_at:
                return raw, b""
            else:
                return raw, self._renewal(verdict, canonical_path(raw), in_path or b"", now)
            if refusal is Refusal.MISSING:
                refusal = found
        if self._public and canonical_path(raw + b"/").startswith(self._public):
            return raw, b""
        if self._trusted and (peer := _peer(sock)) is not None and is_within(peer, self._trusted):
            return raw, b""
        self._tally.not_let_in(refusal)
        raise Refused(refusal.status, f"{refusal}: {refusal.sentence}", closes=False)

    def _covers(self, container: Container, host: bytes, raw: bytes, query: bytes) -> bool:
        """Whether a container covers a URL. What does is remembered: all viewers of a title have the same container."""
        if query:
            # CMCD makes each URL another one.
            return container.covers(canonical_uri(self._scheme, host, canonical_path(raw), query))
        asked = container, host, raw
        if asked in self._covered:
            return True
        if not container.covers(canonical_uri(self._scheme, host, canonical_path(raw), query)):
            return False
        if len(self._covered) >= _COVERED:
            self._covered.clear()
        self._covered.add(asked)
        return True

    def _verdict(self, token: bytes, now: float) -> Verdict | Refusal:
        """What is known of a token, or is found out now."""
        verdict = self._verdicts.get(token)
        if verdict is not None:
            verdict.is_used = True
            self._tally.words[Count.TOKENS_REMEMBERED] += 1
            return verdict
        refusal = self._refusals.get(token)
        if refusal is not None:
            self._tally.words[Count.TOKENS_REMEMBERED] += 1
            return refusal
        if len(token) > self._max_token_bytes:
            return Refusal.TOO_LARGE
        self._tally.words[Count.TOKENS_VERIFIED] += 1
        found = self._verified(token, now)
        if isinstance(found, Verdict):
            if len(self._verdicts) >= _VERDICTS:
                self._make_room()
            self._verdicts[token] = found
        else:
            # Apart from the good ones: whoever sends rubbish can't push those out.
            if len(self._refusals) >= _REFUSALS:
                self._refusals.clear()
            self._refusals[token] = found
        return found

    def _verified(self, token: bytes, now: float) -> Verdict | Refusal:
        opened = open_token(token, self._keys, now)
        own = self._own
        if opened is Refusal.UNKNOWN_KEY and own is not None:
            opened = self._opened_by_us(token, own, now)
        if isinstance(opened, Refusal):
            return opened
        refusal = unacceptable(opened.claims, self._issuers, self._audience)
        if refusal is not None:
            return refusal
        container = container_of(opened.claims.cdniuc)
        if container is None:
            return Refusal.CONTAINER
        networks = networks_of(opened.claims)
        if isinstance(networks, Refusal):
            return networks
        verdict = Verdict(opened, container, None if self._binding is BindNetwork.OFF else networks, self._skew)
        if own is not None:
            due_at = renewal_due_at(opened.claims)
            verdict.renews_at = _NEVER if due_at is None else due_at
        return verdict

    def _opened_by_us(self, token: bytes, own: SigningKey, now: float) -> Opened | Refusal:
        """A token that we renewed is good as long as the key that vouched for its first one is."""
        opened = open_token(token, {own.kid: own.public()}, now)
        if isinstance(opened, Refusal):
            return opened
        first = self._keys.get(str(opened.claims.oca_kid))
        if first is None or not first.is_honoured(now):
            return Refusal.UNKNOWN_KEY
        return Opened(opened.claims, own.public(first.until))

    def _is_bound(self, address: Address | None, networks: tuple[Network, ...]) -> bool:
        if address is None:
            return False
        if self._binding is BindNetwork.SAME_FAMILY:
            alike = [network for network in networks if network.version == address.version]
            return not alike or is_within(address, alike)
        return is_within(address, networks)

    def _renewal(self, verdict: Verdict, path: str, prefix: bytes, now: float) -> bytes:
        """The header lines that bring the token that follows; empty if there is none."""
        own = self._own
        assert own is not None
        following = verdict.renewal
        if following is None or now >= (renewal_due_at(following[1].claims) or 0.0):
            claims = renewed(verdict.opened, own.kid, now, self._renewal_limit)
            if claims is None:
                verdict.renews_at = _NEVER  # The chain ends here.
                return b""
            following = verdict.renewal = mint(claims, own), Opened(claims, own.public())
            self._tally.words[Count.TOKENS_RENEWED] += 1
        token, opened = following
        cookie = renewal_cookie(token, opened.claims, path, prefix, now=now, secure=self._is_secure)
        # No cache on the way may keep it for others (RFC 9111 section 5.2.2.4).
        return b'Set-Cookie: %b\r\nCache-Control: no-cache="Set-Cookie"\r\n' % cookie

    def _make_room(self) -> None:
        """Forget what was not used since the last time (a CLOCK with one hand and one bit)."""
        for token, verdict in list(self._verdicts.items()):
            if verdict.is_used:
                verdict.is_used = False
            else:
                del self._verdicts[token]
        if len(self._verdicts) >= _VERDICTS:
            self._verdicts.clear()


class _Watched(Generic[_Found]):
    """A file that is read when it changed. A broken one is reported once, and what was read before stays."""

    def __init__(self, path: str, read: Callable[[str], _Found], on_fault: Callable[[], None]) -> None:
        self._path = path
        self._read = read
        self._on_fault = on_fault
        self._seen: tuple[int, ...] | None = None

    def look(self) -> _Found | None:
        """What stands there now, if it changed and is good."""
        try:
            status = os.stat(self._path)
            seen: tuple[int, ...] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            seen = ()
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            return self._read(self._path)
        except KeysUnusable as error:
            log.error("%s; what was known before goes on", error)
            self._on_fault()
            return None


def _own_key(path: str) -> SigningKey | None:
    """None as long as the keeper has not made it: then nothing is renewed."""
    return read_own_key(path) if Path(path).exists() else None


def _peer(sock: socket.socket) -> Address | None:
    """Where the client is; None if it is gone already."""
    try:
        return client_address(sock.getpeername()[0])
    except OSError:
        return None
