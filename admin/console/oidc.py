"""Log-in at the operator's OpenID Connect provider: authorization code with PKCE (RFC 7636), state and nonce.

What comes back is believed only as OpenID Connect Core 1.0, section 3.1.3.7, has it: the ID token's signature by a key
of the provider's set, its issuer, its audience, its time, and our nonce. PyJWT does the checking.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import jwt
import msgspec
from cachetools import TTLCache
from msgspec import Struct

from admin.console.accounts import Role
from admin.console.settings import Oidc
from admin.errors import AdminError

ALGORITHMS: Final = ["RS256", "PS256", "ES256", "EdDSA"]
_DEADLINE: Final = 10.0
_MOST_BYTES: Final = 1024 * 1024
_MOST_PENDING: Final = 1000
_PENDING_FOR: Final = 600.0
_KNOWN_FOR: Final = 3600.0
_LEEWAY: Final = 30.0


class ProviderError(AdminError):
    """The provider did not do what was asked, or what came from it can't be believed."""

    exit_code = 7


class NotLetIn(AdminError):
    """Somebody the provider vouches for, and who has no role here."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Begun(Struct, frozen=True):
    url: str
    """Where the browser goes."""
    state: str


class Person(Struct, frozen=True):
    name: str
    role: Role


class _Metadata(Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class _Tokens(Struct, frozen=True):
    id_token: str


class _Waiting(Struct, frozen=True):
    nonce: str
    verifier: str
    back: str


class Provider:
    def __init__(
        self, settings: Oidc, secret: str | None, session: aiohttp.ClientSession, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._session = session
        self._clock = clock
        self._waiting: TTLCache[str, _Waiting] = TTLCache(_MOST_PENDING, _PENDING_FOR, clock)
        self._metadata: tuple[float, _Metadata] | None = None

    async def begin(self, back: str) -> Begun:
        """Raises ProviderError."""
        metadata = await self._known()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        self._waiting[state] = _Waiting(nonce, verifier, back)
        challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": back,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if urlsplit(metadata.authorization_endpoint).query else "?"
        return Begun(f"{metadata.authorization_endpoint}{joint}{urlencode(query)}", state)

    async def finish(self, state: str, query: Mapping[str, str]) -> Person:
        """Who came back. Raises ProviderError, and NotLetIn."""
        waiting = self._waiting.pop(state, None)
        if waiting is None:
            raise ProviderError("this log-in was not begun here, or too long ago: try again")
        if "error" in query:
            said = query.get("error_description", query["error"])[:200]
            raise ProviderError(f"the provider did not let you in: {said}")
        claims = await self._claims(query.get("code", ""), waiting)
        name = claims.get(self._settings.name_claim) or claims.get("sub")
        if not isinstance(name, str) or not name:
            raise ProviderError(f"the provider does not say who you are: no claim {self._settings.name_claim!r}")
        role = role_of(claims, self._settings)
        if role is None:
            raise NotLetIn(name, f"{name} has no role here: none of {self._settings.roles_claim!r} is in [oidc.roles]")
        return Person(name[:100], role)

    async def _claims(self, code: str, waiting: _Waiting) -> dict[str, Any]:
        metadata = await self._known()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": waiting.back,
            "code_verifier": waiting.verifier,
            "client_id": self._settings.client_id,
        }
        headers = {}
        if self._secret is not None:
            # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
            joined = f"{quote(self._settings.client_id, safe='')}:{quote(self._secret, safe='')}"
            headers["Authorization"] = aiohttp.encode_basic_auth(*joined.split(":", 1))
        body = await self._asked("POST", metadata.token_endpoint, data=form, headers=headers)
        keys = await self._asked("GET", metadata.jwks_uri)
        try:
            token = msgspec.json.decode(body, type=_Tokens).id_token
            key_set = jwt.PyJWKSet.from_json(keys.decode())
            kid = jwt.get_unverified_header(token).get("kid")
            key = key_set[kid] if kid is not None else key_set.keys[0]
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._settings.client_id,
                issuer=metadata.issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, msgspec.DecodeError, UnicodeDecodeError, KeyError) as error:
            raise ProviderError(f"what the provider says of you can't be believed: {error}") from error
        if claims.get("nonce") != waiting.nonce:
            raise ProviderError("what the provider says of you is of another log-in")
        return claims

    async def _known(self) -> _Metadata:
        now = self._clock()
        if self._metadata is not None and now - self._metadata[0] < _KNOWN_FOR:
            return self._metadata[1]
        issuer = self._settings.issuer.rstrip("/")
        body = await self._asked("GET", f"{issuer}/.well-known/openid-configuration")
        try:
            metadata = msgspec.json.decode(body, type=_Metadata)
        except msgspec.DecodeError as error:
            raise ProviderError(f"{issuer}: what it says of itself can't be read: {error}") from error
        if metadata.issuer.rstrip("/") != issuer:
            raise ProviderError(f"{issuer}: it calls itself {metadata.issuer!r}")
        self._metadata = now, metadata
        return metadata

    async def _asked(self, method: str, url: str, **more: Any) -> bytes:  # noqa: ANN401 aiohttp's own keywords
        try:
            async with (
                asyncio.timeout(_DEADLINE),
                self._session.request(method, url, allow_redirects=False, **more) as answer,
            ):
                body = await answer.content.read(_MOST_BYTES + 1)
                while not answer.content.at_eof() and len(body) <= _MOST_BYTES:
                    body += await answer.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ProviderError(f"{urlsplit(url).netloc}: no answer of the log-in provider") from error
        if answer.status != 200 or len(body) > _MOST_BYTES:
            raise ProviderError(f"{urlsplit(url).netloc}: the log-in provider answered {answer.status}")
        return body


def role_of(claims: Mapping[str, Any], settings: Oidc) -> Role | None:
    """The highest that the claim gives; `groups.noc` looks into an object."""
    value: Any = claims
    for part in settings.roles_claim.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    values = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    held = {one for one in values if isinstance(one, str)}
    for role in (Role.ADMIN, Role.OPERATOR, Role.VIEWER):
        if held & set(settings.roles.get(role, ())):
            return role
    return None
