"""Signs the URLs that players are given (RFC 9246), with keys that lie as PEM files in one folder.

The name of a file is its key's id. A new file is published at once, signs after `publish_ahead`, when every appliance
has heard of it, and the one before is honoured for `grace` after that: rotation is dropping a file into the folder, and
removing an old one when its time is over. Age counts from the file's modification time.

One token covers a title on every appliance, so it is signed once a minute and title, not once a player (100 µs each).
"""

from __future__ import annotations

import ipaddress
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cachetools import LRUCache
from msgspec import UNSET, Struct

from steering.answers.clients import network_of
from steering.errors import SettingsError
from steering.settings import Tokens, TokenWay
from wire.access import PACKAGE, PATH_PREFIX
from wire.codec import WireError
from wire.token import Claims, PublicKey, SigningKey, Transport, folder_container, key_set, mint, signing_key

log = logging.getLogger(__name__)

_MOST_PEM: Final = 16 * 1024
_MOST_FILES: Final = 64
_TOKENS: Final = 50_000
_STEP: Final = 60.0
"""Seconds for which one token is given out."""


class KeyFile(Struct, frozen=True):
    """One key, and since when its file is there."""

    key: SigningKey
    since: float


class Ring(Struct, frozen=True):
    """Which key signs now, and which are published."""

    signing: SigningKey
    published: tuple[PublicKey, ...]


def ring_of(files: tuple[KeyFile, ...], now: float, ahead: float, grace: float) -> Ring:
    """Of key files, in any order: the newest that is old enough signs; a younger one is published already; an older one
    is honoured until `grace` after its successor began. If all are young, the oldest signs.
    """
    oldest_first = sorted(files, key=lambda file: (file.since, file.key.kid))
    able = [file for file in oldest_first if file.since + ahead <= now] or oldest_first[:1]
    signing = able[-1]
    published = [file.key.public() for file in oldest_first if file is signing or file not in able]
    for file, successor in itertools.pairwise(able):
        until = successor.since + ahead + grace
        if now < until:
            published.append(file.key.public(until))
    return Ring(signing.key, tuple(published))


class Signer:
    """Holds the keys, and the tokens of this minute."""

    def __init__(self, settings: Tokens, clock: Callable[[], float], ipv4_prefix: int, ipv6_prefix: int) -> None:
        """Raises `SettingsError` if the folder has no key that can be used."""
        self._settings = settings
        self._clock = clock
        self._prefixes = ipv4_prefix, ipv6_prefix
        self._tokens: LRUCache[tuple[str, bytes], tuple[float, str]] = LRUCache(_TOKENS)
        self._files = read_keys(settings.folder)
        self._ring = self._new_ring()
        self.failures = 0

    def look(self) -> None:
        """Read the folder anew, now and then. A folder that can't be used is logged, and the keys stay."""
        try:
            self._files = read_keys(self._settings.folder)
        except SettingsError as error:
            self.failures += 1
            log.error("the keys stay as they were: %s", error)
        ring = self._new_ring()
        if ring.signing.kid != self._ring.signing.kid:
            log.info("tokens are signed with key %s from now on", ring.signing.kid)
            self._tokens.clear()
        self._ring = ring

    def key_set(self) -> bytes:
        """The JWKS for appliances."""
        return key_set(self._ring.published)

    def signed(self, base: str, path: str, client: bytes) -> str:
        """The URL of `path` at `base`, with a token for all of its title."""
        token = self._token(folder_of(path), client)
        if self._settings.way is TokenWay.PATH:
            return f"{base}{PATH_PREFIX.decode()}{token}{path}"
        return f"{base}{path}?{PACKAGE.decode()}={token}"

    def signed_base(self, base: str, folder: str, client: bytes) -> str:
        """The URL of a folder, which ends with a slash. Where tokens stand in the query it carries none: what is
        relative to it would lose it.
        """
        if self._settings.way is TokenWay.PATH:
            return f"{base}{PATH_PREFIX.decode()}{self._token(folder_of(folder), client)}{folder}"
        return base + folder

    def _token(self, folder: str, client: bytes) -> str:
        settings = self._settings
        network = network_of(client, *self._prefixes) if settings.bind_network else b""
        now = self._clock()
        known = self._tokens.get((folder, network))
        if known is not None and now < known[0]:
            return known[1]
        renews = settings.renew > 0
        claims = Claims(
            cdniuc=folder_container(folder),
            iss=settings.issuer,
            exp=now + settings.lifetime,
            iat=now,
            cdniets=int(settings.renew) if renews else UNSET,
            cdnistt=Transport.COOKIE if renews else Transport.NONE,
            cdnistd=folder.count("/") if renews else 0,
            oca_net=_network_text(client, *self._prefixes) if settings.bind_network else UNSET,
        )
        token = mint(claims, self._ring.signing)
        self._tokens[folder, network] = now + min(_STEP, settings.lifetime / 10), token
        return token

    def _new_ring(self) -> Ring:
        return ring_of(self._files, self._clock(), self._settings.publish_ahead, self._settings.grace)


def folder_of(path: str) -> str:
    """What one token covers: a title's folder; of other paths the folder they lie in."""
    parts = path.split("/")
    return "/".join(parts[:3]) if len(parts) > 3 and parts[1] == "titles" else path.rpartition("/")[0]


def read_keys(folder: str) -> tuple[KeyFile, ...]:
    """All keys of a folder. Raises `SettingsError`: one that can't be read is named, not passed over."""
    try:
        paths = sorted(Path(folder).glob("*.pem"))[: _MOST_FILES + 1]
        if not paths or len(paths) > _MOST_FILES:
            raise SettingsError(f"tokens.folder: {folder} holds {len(paths)} *.pem files; allowed: 1 to {_MOST_FILES}")
        return tuple(_read_key(path) for path in paths)
    except OSError as error:
        raise SettingsError(f"tokens.folder: {error.filename or folder}: {error.strerror}") from error


def _read_key(path: Path) -> KeyFile:
    with path.open("rb") as file:
        pem = file.read(_MOST_PEM)
    try:
        return KeyFile(signing_key(pem, path.stem), path.stat().st_mtime)
    except WireError as error:
        raise SettingsError(f"tokens.folder: {path}: {error}") from error


def _network_text(client: bytes, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """As `oca_net` wants it: 192.0.2.0/24."""
    length = ipv4_prefix if len(client) == 4 else ipv6_prefix
    return str(ipaddress.ip_network((client, length), strict=False))
