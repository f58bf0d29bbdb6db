"""Tokens of CDNI URI Signing (RFC 9246): minting, opening, and what their claims allow. Pure: `now` is an argument.

A token is a JWT signed with ES256 or EdDSA, so whoever verifies holds public keys only. What is checked, in this order:

| step | function | refused as |
|---|---|---|
| shape, algorithm, key, signature, claims' types | `open_token` | malformed, algorithm, unknown_key, signature |
| what does not change with time or URL | `unacceptable` | issuer, audience, version, critical, unsupported |
| exp and nbf | `out_of_time` | expired, not_yet |
| cdniuc against the URL | `container_of`, then `covers` | container, uri |
| oca_net against the client | `is_within` | network |

Claims of ours, beside those of RFC 9246: `oca_net` binds a token to networks and stands in `cdnicrit`, so that a CDN
that does not know it refuses the token. `oca_kid` and `oca_since` count in renewed tokens only: the key that vouched
for the viewer in the first place, and since when.
"""

import binascii
import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from enum import IntEnum, StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Final, TypeAlias
from urllib.parse import quote

import jwt
import msgspec
import re2
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from msgspec import UNSET, Meta, Struct, UnsetType

from wire.access import PACKAGE, PATH_PREFIX, Refusal
from wire.codec import WireError, decode

MAX_KEY_SET_BYTES: Final = 64 * 1024
MAX_KEYS: Final = 64
MAX_PATTERN_BYTES: Final = 1024
"""Of a regex: container. RE2 takes time linear in the URL for any pattern; this bounds its memory and compilation."""
_MAX_NETWORKS: Final = 16
_PATTERN_MEMORY: Final = 1024 * 1024
_CONTAINERS: Final = 1024
"""Compiled ones remembered: all viewers of a title share one."""
_ADDRESSES: Final = 4096
_PREFIX_COOKIE_BYTES: Final = 1024
"""Browsers ignore a longer Path (RFC 6265bis section 5.6)."""

PublicCryptoKey: TypeAlias = EllipticCurvePublicKey | Ed25519PublicKey
PrivateCryptoKey: TypeAlias = EllipticCurvePrivateKey | Ed25519PrivateKey
Network: TypeAlias = IPv4Network | IPv6Network
Address: TypeAlias = IPv4Address | IPv6Address

_COMPACT: Final = re.compile(rb"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/]*")
_PATH_SAFE: Final = "/!$&'()*+,;=:@"
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_SPECIAL: Final = re.compile(r"[.()*+$]")
"""What means something in a pattern and may stand in a path that is percent-encoded."""
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_EXTENSIONS: Final = frozenset({"oca_net"})
"""Claims outside RFC 9246 that we understand when `cdnicrit` names them."""
_JWS: Final = jwt.PyJWS()


class Algorithm(StrEnum):
    """Asymmetric only: RFC 9246 section 7 does not recommend shared keys, and forbids handing them on."""

    ES256 = "ES256"
    EDDSA = "EdDSA"


class Transport(IntEnum):
    """How a renewed token reaches the player (cdnistt)."""

    NONE = 0
    COOKIE = 1
    QUERY = 2
    """In the Location of a redirection. An answer that holds the bytes has no place for it."""


_TRANSPORTS: Final = frozenset(int(transport) for transport in Transport)


class Claims(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token says. Moments are seconds since 1970. A claim that is there must have a value: null is refused."""

    cdniuc: str
    """The URLs it is good for: `hash:` or `regex:`."""
    iss: str | UnsetType = UNSET
    sub: str | UnsetType = UNSET
    aud: str | tuple[str, ...] | UnsetType = UNSET
    exp: float | UnsetType = UNSET
    nbf: float | UnsetType = UNSET
    iat: float | UnsetType = UNSET
    jti: str | UnsetType = UNSET
    cdniv: int = 1
    cdnicrit: str | UnsetType = UNSET
    """Claims that must be understood, separated by commas."""
    cdniip: str | UnsetType = UNSET
    cdniets: Annotated[int, Meta(gt=0, le=366 * 86400)] | UnsetType = UNSET
    """Seconds that a renewed token is good for, from the moment the old one was verified."""
    cdnistt: int = Transport.NONE
    cdnistd: Annotated[int, Meta(ge=0)] = 0
    """Segments of the path that the renewed token's cookie is for."""
    oca_net: str | tuple[str, ...] | UnsetType = UNSET
    """Networks, of which the client must come from one."""
    oca_kid: str | UnsetType = UNSET
    oca_since: float | UnsetType = UNSET


class PublicKey(Struct, frozen=True):
    """A key that tokens are verified with, until a moment if it is on its way out."""

    kid: str
    algorithm: Algorithm
    key: PublicCryptoKey
    until: float | None = None

    def is_honoured(self, now: float) -> bool:
        return self.until is None or now < self.until


class SigningKey(Struct, frozen=True):
    kid: str
    algorithm: Algorithm
    key: PrivateCryptoKey

    def public(self, until: float | None = None) -> PublicKey:
        return PublicKey(self.kid, self.algorithm, self.key.public_key(), until)


class KeyRing(Struct, frozen=True):
    """What a minter holds: the key it signs with, and those it signed with before."""

    signing: SigningKey
    retired: tuple[PublicKey, ...] = ()

    def rotated(self, new: SigningKey, now: float, grace: float) -> "KeyRing":
        """Sign with `new` from now on; the old key is honoured for `grace` seconds more.

        Publish the new key first (`key_set` takes any keys): an appliance that never heard of it refuses its tokens.
        """
        still = tuple(key for key in self.retired if key.is_honoured(now))
        return KeyRing(new, (self.signing.public(now + grace), *still))

    def public_keys(self, now: float) -> tuple[PublicKey, ...]:
        return (self.signing.public(), *(key for key in self.retired if key.is_honoured(now)))


KeySet: TypeAlias = Mapping[str, PublicKey]
"""By kid."""


class Opened(Struct, frozen=True):
    """A token whose signature is right."""

    claims: Claims
    key: PublicKey


# --- Keys -------------------------------------------------------------------------------------------------------------


class _Jwk(Struct, frozen=True):
    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    crv: str | None = None
    x: str | None = None
    y: str | None = None
    key_ops: tuple[str, ...] | None = None
    exp: float | None = None
    d: str | None = None
    k: str | None = None


class _JwkSet(Struct, frozen=True):
    keys: tuple[_Jwk, ...]


_ALGORITHMS: Final = {("EC", "P-256"): Algorithm.ES256, ("OKP", "Ed25519"): Algorithm.EDDSA}


def read_key_set(body: bytes) -> dict[str, PublicKey]:
    """The public keys of a JWKS (RFC 7517) that can verify tokens, by kid.

    Keys of other kinds or uses are passed over, as the RFC wants it. Raises WireError for a secret in the set (a shared
    or a private key), a key without a kid or with a taken one, one that is no point of its curve, or no key of use.
    A member `exp` is the moment from which the key is not honoured any more.
    """
    if len(body) > MAX_KEY_SET_BYTES:
        raise WireError(f"a key set of {len(body)} bytes; allowed: {MAX_KEY_SET_BYTES}")
    found: dict[str, PublicKey] = {}
    members = decode(body, _JwkSet).keys
    if len(members) > MAX_KEYS:
        raise WireError(f"{len(members)} keys; allowed: {MAX_KEYS}")
    for number, jwk in enumerate(members):
        name = f"key {number} ({jwk.kid!r})"
        if jwk.kty == "oct" or jwk.k is not None:
            raise WireError(f"{name} is a shared secret: only public keys may stand here")
        if jwk.d is not None:
            raise WireError(f"{name} is a private key: only public keys may stand here")
        algorithm = _ALGORITHMS.get((jwk.kty, jwk.crv or ""))
        if algorithm is None or not _is_for_tokens(jwk, algorithm):
            continue
        if not jwk.kid or len(jwk.kid) > 128:
            raise WireError(f"{name} needs a kid of 1 to 128 characters")
        if jwk.kid in found:
            raise WireError(f"{name}: the kid stands there twice")
        found[jwk.kid] = PublicKey(jwk.kid, algorithm, _crypto_key(jwk, algorithm, name), jwk.exp)
    if not found:
        raise WireError("no key for ES256 (EC P-256) or EdDSA (OKP Ed25519) in the set")
    return found


def _is_for_tokens(jwk: _Jwk, algorithm: Algorithm) -> bool:
    return (
        jwk.use in (None, "sig")
        and jwk.alg in (None, algorithm, "Ed25519" if algorithm is Algorithm.EDDSA else algorithm)
        and (jwk.key_ops is None or "verify" in jwk.key_ops)
    )


def _crypto_key(jwk: _Jwk, algorithm: Algorithm, name: str) -> PublicCryptoKey:
    members = {"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x, "y": jwk.y}
    given = {member: value for member, value in members.items() if value is not None}
    try:
        key = (ECAlgorithm if algorithm is Algorithm.ES256 else OKPAlgorithm).from_jwk(given)
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError) as error:
        raise WireError(f"{name} is not a public key: {error}") from error
    assert isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey)
    return key


def key_set(keys: Iterable[PublicKey]) -> bytes:
    """The JWKS that `read_key_set` reads, for appliances and other CDNs."""
    members = []
    for key in keys:
        if isinstance(key.key, EllipticCurvePublicKey):
            jwk = ECAlgorithm.to_jwk(key.key, as_dict=True)
        else:
            jwk = OKPAlgorithm.to_jwk(key.key, as_dict=True)
        ends = {} if key.until is None else {"exp": key.until}
        members.append({**jwk, "kid": key.kid, "alg": key.algorithm, "use": "sig", **ends})
    return msgspec.json.encode({"keys": members}, order="sorted")


def signing_key(pem: bytes, kid: str) -> SigningKey:
    """A private key from PEM without a password. Raises WireError, whose text shows nothing of it."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise WireError("not a private key in PEM without a password") from None
    if isinstance(key, Ed25519PrivateKey):
        return SigningKey(kid, Algorithm.EDDSA, key)
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return SigningKey(kid, Algorithm.ES256, key)
    raise WireError("a private key of another kind than Ed25519 or EC P-256")


# --- Minting and opening ----------------------------------------------------------------------------------------------


def mint(claims: Claims, key: SigningKey) -> str:
    """The token that says `claims`. With `oca_net`, `cdnicrit` names it (RFC 9246 section 2.1.9)."""
    if claims.oca_net is not UNSET:
        listed = [] if claims.cdnicrit is UNSET else claims.cdnicrit.split(",")
        if "oca_net" not in listed:
            claims = msgspec.structs.replace(claims, cdnicrit=",".join([*listed, "oca_net"]))
    payload = msgspec.json.encode(claims, order="deterministic")
    return _JWS.encode(payload, key.key, algorithm=key.algorithm, headers={"kid": key.kid})


class _Header(Struct, frozen=True):
    alg: str
    kid: str | None = None
    crit: msgspec.Raw | UnsetType = UNSET


def open_token(token: bytes, keys: KeySet, now: float) -> Opened | Refusal:
    """What a token says, if a key that is honoured now signed it. The claims themselves are not judged here."""
    compact = _COMPACT.fullmatch(token)
    if compact is None:
        return Refusal.MALFORMED
    try:
        header = decode(urlsafe_b64decode(compact[1] + b"=="), _Header)
    except (WireError, binascii.Error):
        return Refusal.MALFORMED
    if header.crit is not UNSET:
        return Refusal.CRITICAL
    if header.alg not in Algorithm.__members__.values():
        return Refusal.ALGORITHM
    key = keys.get(header.kid) if header.kid is not None else None
    if key is None or not key.is_honoured(now):
        return Refusal.UNKNOWN_KEY
    if header.alg != key.algorithm:
        return Refusal.ALGORITHM
    try:
        payload = _JWS.decode_complete(token, key.key, algorithms=[key.algorithm])["payload"]
    except jwt.InvalidSignatureError:
        return Refusal.SIGNATURE
    except jwt.PyJWTError:
        return Refusal.MALFORMED
    try:
        return Opened(decode(payload, Claims), key)
    except WireError:
        return Refusal.MALFORMED


def unacceptable(claims: Claims, issuers: frozenset[str], audience: frozenset[str]) -> Refusal | None:
    """What forbids a token at any time and for any URL. No issuers: any whose key is known. RFC 9246 section 2.1."""
    if claims.cdniv != 1:
        return Refusal.VERSION
    if issuers and claims.iss not in issuers:
        return Refusal.ISSUER
    if claims.aud is not UNSET:
        named = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
        if audience.isdisjoint(named):
            return Refusal.AUDIENCE
    if claims.cdnicrit is not UNSET and not _is_understood(claims.cdnicrit, claims):
        return Refusal.CRITICAL
    # cdniip is encrypted to somebody; a nonce (jti) would have to be remembered by every appliance.
    if claims.cdniip is not UNSET or claims.jti is not UNSET:
        return Refusal.UNSUPPORTED
    if claims.cdnistt not in _TRANSPORTS:
        return Refusal.UNSUPPORTED
    if claims.cdnistt != Transport.NONE and claims.cdniets is UNSET:
        return Refusal.MALFORMED
    return None


def _is_understood(listed: str, claims: Claims) -> bool:
    """Each name once, an extension that we know, and there (RFC 9246 section 2.1.9)."""
    names = listed.split(",")
    return len(set(names)) == len(names) and all(
        name in _EXTENSIONS and getattr(claims, name) is not UNSET for name in names
    )


def out_of_time(claims: Claims, now: float, skew: float) -> Refusal | None:
    """RFC 7519 sections 4.1.4 and 4.1.5, with clocks that may differ by `skew`."""
    if claims.exp is not UNSET and now >= claims.exp + skew:
        return Refusal.EXPIRED
    if claims.nbf is not UNSET and now < claims.nbf - skew:
        return Refusal.NOT_YET
    return None


# --- Which URLs -------------------------------------------------------------------------------------------------------


def canonical_uri(scheme: bytes, host: bytes, path: str, query: bytes) -> bytes:
    """The URL that a container is matched against: without the token, normalised (RFC 3986 section 6.2).

    `path` is decoded and free of dot segments, as it names the object: what is matched is what is served, however it
    was spelled. (So `%2F` is a slash here, where RFC 3986 would tell them apart.)
    """
    host = host.lower()
    if host.endswith(b":80" if scheme == b"http" else b":443"):
        host = host.rpartition(b":")[0]
    elif host.endswith(b":"):
        host = host[:-1]
    if _PLAIN_PATH.fullmatch(path) is None:
        path = quote(path, safe=_PATH_SAFE)
    if not query:
        return b"%b://%b%b" % (scheme, host, path.encode())
    if b"%" in query:
        query = _ESCAPE.sub(_normal_escape, query)
    return b"%b://%b%b?%b" % (scheme, host, path.encode(), query)


def _normal_escape(found: re.Match[bytes]) -> bytes:
    octet = int(found[1], 16)
    return bytes((octet,)) if octet in _UNRESERVED else b"%%%02X" % octet


class HashContainer(Struct, frozen=True):
    """One URL, by its SHA-256."""

    digest: bytes

    def covers(self, uri: bytes) -> bool:
        return hashlib.sha256(uri).digest() == self.digest


class PatternContainer:
    """All URLs that match an extended regular expression of POSIX, from end to end."""

    __slots__ = ("_fullmatch",)

    def __init__(self, pattern: bytes) -> None:
        options = re2.Options()
        options.posix_syntax = True
        options.one_line = True
        options.never_capture = True
        options.log_errors = False
        options.max_mem = _PATTERN_MEMORY
        options.encoding = re2.Options.Encoding.LATIN1  # A URL is ASCII.
        self._fullmatch = re2.compile(pattern, options).fullmatch

    def covers(self, uri: bytes) -> bool:
        return self._fullmatch(uri) is not None


Container: TypeAlias = HashContainer | PatternContainer


@lru_cache(maxsize=_CONTAINERS)
def container_of(cdniuc: str) -> Container | None:
    """The container that a cdniuc describes; None if it can't be used."""
    form, colon, rest = cdniuc.partition(":")
    if form == "hash":
        return _hash_container(rest)
    if form != "regex" or not colon or len(rest) > MAX_PATTERN_BYTES or not rest.isascii():
        return None
    try:
        return PatternContainer(rest.encode())
    except re2.error:
        return None


def _hash_container(text: str) -> HashContainer | None:
    """RFC 6920 section 3, the part behind `ni:///`: algorithm, semicolon, base64url without padding."""
    algorithm, _, value = text.partition(";")
    if algorithm != "sha-256" or not re.fullmatch(r"[A-Za-z0-9_-]{43}", value):
        return None
    return HashContainer(urlsafe_b64decode(value + "="))


def hash_container(uri: bytes) -> str:
    """The cdniuc for this one URL, as `canonical_uri` spells it."""
    return "hash:sha-256;" + urlsafe_b64encode(hashlib.sha256(uri).digest()).rstrip(b"=").decode()


def folder_container(path: str) -> str:
    """The cdniuc for everything below a folder (`/titles/x`) on any host, whatever the query (CMCD) says."""
    folder = quote(path.rstrip("/") + "/", safe=_PATH_SAFE)
    return "regex:https?://[^/?#]*" + _SPECIAL.sub(r"[\g<0>]", folder) + "[^?#]*([?].*)?"


# --- Which clients ----------------------------------------------------------------------------------------------------


def networks_of(claims: Claims) -> tuple[Network, ...] | Refusal | None:
    """The networks that a token is bound to; None if to none."""
    if claims.oca_net is UNSET:
        return None
    named = (claims.oca_net,) if isinstance(claims.oca_net, str) else claims.oca_net
    if not 0 < len(named) <= _MAX_NETWORKS:
        return Refusal.MALFORMED
    try:
        return tuple(ip_network(name) for name in named)
    except ValueError:
        return Refusal.MALFORMED


@lru_cache(maxsize=_ADDRESSES)
def client_address(text: str) -> Address:
    """The address behind what a socket says: an IPv4 client of an IPv6 socket is an IPv4 client."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


# --- Renewal ----------------------------------------------------------------------------------------------------------


def renewal_due_at(claims: Claims) -> float | None:
    """From when on an answer brings a new token: when half of what a new one lives is left. None: never.

    A film asks for a segment every few seconds; a signature for each would cost more than the segment.
    """
    if claims.cdnistt == Transport.NONE or claims.cdniets is UNSET or claims.exp is UNSET:
        return None
    return claims.exp - claims.cdniets / 2


def renewed(opened: Opened, own_kid: str, now: float, limit: float) -> Claims | None:
    """The claims of the token that follows a verified one; None if there is none. `own_kid` is what it is signed with.

    It lives for cdniets from the moment of validation, never from the old token's end: else a player that asks often
    would collect a token for years. The chain ends `limit` seconds after its first token was minted.
    """
    old = opened.claims
    if old.cdniets is UNSET or old.exp is UNSET:
        return None
    if opened.key.kid == own_kid and old.oca_kid is not UNSET and old.oca_since is not UNSET:
        kid, since = old.oca_kid, old.oca_since
    else:
        kid, since = opened.key.kid, now if old.iat is UNSET else min(now, old.iat)
    exp = min(now + old.cdniets, since + limit)
    if exp <= old.exp:
        return None
    return msgspec.structs.replace(old, exp=exp, nbf=UNSET, iat=now, oca_kid=kid, oca_since=since)


def renewal_cookie(token: str, claims: Claims, path: str, prefix: bytes, *, now: float, secure: bool) -> bytes:
    """The value of the Set-Cookie that brings a renewed token (RFC 9246 section 3).

    Its Path is the first `cdnistd` segments of the path: below the token's own prefix, if the player uses one. Pages of
    other sites may use the cookie only over https: browsers want `SameSite=None` to be `Secure`.
    """
    assert claims.exp is not UNSET
    segments = quote(path, safe=_PATH_SAFE).split("/")[1 : 1 + claims.cdnistd]
    base = (PATH_PREFIX + prefix if prefix else b"") + "".join(f"/{segment}" for segment in segments).encode()
    if len(base) > _PREFIX_COOKIE_BYTES or b";" in base:
        base = b"/"
    return b"%b=%b; Path=%b; Max-Age=%d; HttpOnly%b" % (
        PACKAGE,
        token.encode(),
        base or b"/",
        max(1, int(claims.exp - now)),
        b"; Secure; SameSite=None" if secure else b"",
    )
