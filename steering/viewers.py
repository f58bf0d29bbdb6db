"""Who may press play: the viewer's token, a JWT that the operator's own log-in service signed. Pure: `now` is given.

| step | refused as |
|---|---|
| `Authorization: Bearer <token>` (RFC 6750 section 2.1), at most 8 KiB | missing, malformed |
| algorithm: RS256, PS256, ES256 or EdDSA, the one of the key (RFC 8725 section 3.1) | algorithm |
| key by `kid`; a token without one may mean the only key there is | unknown_key |
| signature | signature |
| `exp`, which must be there, and `nbf`, with `leeway` | expired, not_yet |
| `iss`, `aud` (RFC 7519 section 4.1) | issuer, audience |
| `scope` (RFC 8693 section 4.2) or `scp` | scope |
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

import jwt
import msgspec
from msgspec import UNSET, Struct, UnsetType

from steering.errors import SteeringError

MOST_TOKEN: Final = 8 * 1024
MOST_KEYS: Final = 64
MOST_KEY_SET_BYTES: Final = 256 * 1024
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
_ALGORITHMS_OF: Final = {
    ("RSA", "None"): frozenset({"RS256", "PS256"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
"""By a key's type and curve."""
_LEAST_RSA_BITS: Final = 2048
"""RFC 7518 section 3.3."""
_MOST_SUBJECT: Final = 256


class ViewerRefusal(StrEnum):
    """Why a viewer is not let in. A closed set, for answers and metrics."""

    MISSING = "missing"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    SCOPE = "scope"

    @property
    def status(self) -> HTTPStatus:
        """403 for a good token that does not allow this, else 401 (RFC 6750 section 3.1)."""
        return HTTPStatus.FORBIDDEN if self is ViewerRefusal.SCOPE else HTTPStatus.UNAUTHORIZED

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]

    @property
    def challenge(self) -> str:
        """The value of WWW-Authenticate. Who brought no token at all is told no error (RFC 6750 section 3.1)."""
        if self is ViewerRefusal.MISSING:
            return "Bearer"
        code = "insufficient_scope" if self is ViewerRefusal.SCOPE else "invalid_token"
        return f'Bearer error="{code}", error_description="{self.sentence}"'


_SENTENCES: Final = {
    ViewerRefusal.MISSING: "a viewer's token is needed: Authorization: Bearer and a JWT",
    ViewerRefusal.MALFORMED: "the viewer's token is not a signed JWT of at most 8 KiB",
    ViewerRefusal.ALGORITHM: "the viewer's token is not signed with RS256, PS256, ES256 or EdDSA, as its key is for",
    ViewerRefusal.UNKNOWN_KEY: "the viewer's token is signed with a key that is not in the operator's key set",
    ViewerRefusal.SIGNATURE: "the signature of the viewer's token does not fit its content",
    ViewerRefusal.EXPIRED: "the viewer's token has no exp, or its time is over: log in anew",
    ViewerRefusal.NOT_YET: "the time of the viewer's token has not begun (nbf)",
    ViewerRefusal.ISSUER: "the viewer's token is of another issuer (iss)",
    ViewerRefusal.AUDIENCE: "the viewer's token is meant for another service (aud)",
    ViewerRefusal.SCOPE: "the viewer's token does not have the scope that playback needs",
}


class Wanted(Struct, frozen=True):
    """What a viewer's token must say."""

    issuer: str
    audience: str
    scope: str | None
    leeway: float
    """Seconds by which the clocks of two machines may differ."""


class Viewer(Struct, frozen=True):
    """One who was let in."""

    subject: str
    """Who it is to the operator, or "" if the token does not say."""


class _Claims(Struct, frozen=True):
    exp: float | UnsetType = UNSET
    nbf: float | UnsetType = UNSET
    iss: str | UnsetType = UNSET
    aud: str | tuple[str, ...] | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    scp: str | tuple[str, ...] | UnsetType = UNSET
    """As some log-in services say it."""
    sub: str = ""


class _Header(Struct, frozen=True):
    alg: str
    kid: str | None = None
    crit: tuple[str, ...] | UnsetType = UNSET


class BadKeySet(SteeringError):
    """The operator's key set can't be used."""


class Key(Struct, frozen=True):
    """One public key of the operator's."""

    verifier: Any
    """What `cryptography` made of it."""
    algorithms: frozenset[str]
    """That it may verify."""


class Keys:
    """The operator's keys, by their ids."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, kid: str | None) -> Key | None:
        """The key of this id; without one the only key there is."""
        if kid is not None:
            return self._keys.get(kid)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None


def read_keys(body: bytes) -> Keys:
    """Of a JWK set (RFC 7517): the public keys that can verify tokens; others, such as those for encryption, are passed
    over. Raises `BadKeySet` if none is left.
    """
    try:
        said: Any = msgspec.json.decode(body)
        listed = said["keys"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as error:
        raise BadKeySet("not a JWK set (RFC 7517)") from error
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise BadKeySet(f'"keys" is no list of at most {MOST_KEYS} keys')
    keys = {}
    for at, one in enumerate(listed):
        key = _usable(one)
        if key is not None:
            kid = one.get("kid")
            keys[kid if isinstance(kid, str) else f"#{at}"] = key
    if not keys:
        raise BadKeySet(f"none of its {len(listed)} keys can verify {', '.join(ALGORITHMS)}")
    return Keys(keys)


def _usable(said: Any) -> Key | None:  # noqa: ANN401 - anything, from a network
    if not isinstance(said, dict) or said.get("use", "sig") != "sig" or "d" in said:
        return None
    algorithms = _ALGORITHMS_OF.get((str(said.get("kty")), str(said.get("crv"))), frozenset())
    named = said.get("alg")
    if named is not None:
        algorithms &= {str(named)}
    if not algorithms:
        return None
    try:
        verifier = jwt.PyJWK(said).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if said["kty"] == "RSA" and verifier.key_size < _LEAST_RSA_BITS:
        return None
    return Key(verifier, algorithms)


def bearer(header: str | None) -> str | ViewerRefusal:
    """The token in the value of an Authorization header."""
    if not header:
        return ViewerRefusal.MISSING
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        return ViewerRefusal.MISSING
    token = token.strip()
    return token if 0 < len(token) <= MOST_TOKEN and token.isascii() else ViewerRefusal.MALFORMED


def kid_of(token: str) -> str | None:
    """The id of the key that a token says it is signed with; None if it names none, or is no token."""
    header = _header(token)
    return None if header is None else header.kid


def let_in(token: str, keys: Keys, wanted: Wanted, now: float) -> Viewer | ViewerRefusal:
    """Who this is, or why they are not let in."""
    header = _header(token)
    if header is None or header.crit is not UNSET:
        return ViewerRefusal.MALFORMED
    if header.alg not in ALGORITHMS:
        return ViewerRefusal.ALGORITHM
    key = keys.of(header.kid)
    if key is None:
        return ViewerRefusal.UNKNOWN_KEY
    if header.alg not in key.algorithms:
        return ViewerRefusal.ALGORITHM
    try:
        payload = _JWS.decode(token, key.verifier, algorithms=[header.alg])
        claims = _CLAIMS.decode(payload)
    except jwt.InvalidSignatureError:
        return ViewerRefusal.SIGNATURE
    except (jwt.PyJWTError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return ViewerRefusal.MALFORMED
    return _refused(claims, wanted, now) or Viewer(claims.sub[:_MOST_SUBJECT])


def _refused(claims: _Claims, wanted: Wanted, now: float) -> ViewerRefusal | None:
    if claims.exp is UNSET or now >= claims.exp + wanted.leeway:
        return ViewerRefusal.EXPIRED
    if claims.nbf is not UNSET and now < claims.nbf - wanted.leeway:
        return ViewerRefusal.NOT_YET
    if claims.iss != wanted.issuer:
        return ViewerRefusal.ISSUER
    audiences = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
    if audiences is UNSET or wanted.audience not in audiences:
        return ViewerRefusal.AUDIENCE
    if wanted.scope is not None and wanted.scope not in _scopes(claims):
        return ViewerRefusal.SCOPE
    return None


def _scopes(claims: _Claims) -> tuple[str, ...]:
    said = claims.scope if claims.scope is not UNSET else claims.scp
    if said is UNSET:
        return ()
    return tuple(said.split(" ")) if isinstance(said, str) else said


def _header(token: str) -> _Header | None:
    text = token.partition(".")[0]
    try:
        return _HEADERS.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None


_HEADERS: Final = msgspec.json.Decoder(_Header)
_CLAIMS: Final = msgspec.json.Decoder(_Claims)
_JWS: Final = jwt.PyJWS()
