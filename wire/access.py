"""Where a signed URI carries its token, and why one is refused.

RFC 9246 calls the token the URI Signing Package. It stands in one of three places:

    /titles/x/master.m3u8?URISigningPackage=<token>       a query parameter
    Cookie: URISigningPackage=<token>                     a cookie
    /URISigningPackage=<token>/titles/x/master.m3u8       the first segment of the path

The third is for players that follow relative URLs: what is found from a playlist below this prefix stays below it, with
no cookie and no rewriting of playlists. No object may be named so: the prefix is always taken off.
"""

import re
from enum import StrEnum
from http import HTTPStatus
from typing import Final

PACKAGE: Final = b"URISigningPackage"
PATH_PREFIX: Final = b"/" + PACKAGE + b"="

_NAMED: Final = PACKAGE + b"="
_AMPERSAND: Final = ord("&")
_PARAMETER: Final = re.compile(rb"(?:\A|&)" + PACKAGE + rb"=([^&]*)")
_COOKIE: Final = re.compile(rb"(?:\A|;)[ \t]*" + PACKAGE + rb'="?([^;"]*)')


class Refusal(StrEnum):
    """Why a request is not let in. The closed label set of `oca_access_refusals_total`."""

    MISSING = "missing"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    NOT_YET = "not_yet"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    VERSION = "version"
    CRITICAL = "critical"
    UNSUPPORTED = "unsupported"
    CONTAINER = "container"
    URI = "uri"
    NETWORK = "network"

    @property
    def status(self) -> HTTPStatus:
        """401: this is no good token, another one may help. 403: a good one, but not for this."""
        return HTTPStatus.UNAUTHORIZED if self in _ANOTHER_MAY_HELP else HTTPStatus.FORBIDDEN

    @property
    def sentence(self) -> str:
        """For a person, and safe to show to anybody: it says nothing that the token's bearer does not hold."""
        return _SENTENCES[self]


_ANOTHER_MAY_HELP: Final = frozenset(
    {
        Refusal.MISSING,
        Refusal.TOO_LARGE,
        Refusal.MALFORMED,
        Refusal.ALGORITHM,
        Refusal.UNKNOWN_KEY,
        Refusal.SIGNATURE,
        Refusal.EXPIRED,
    }
)
_SENTENCES: Final = {
    Refusal.MISSING: "a signed URL is needed: no URISigningPackage in the query, in a cookie or before the path",
    Refusal.TOO_LARGE: "the token is longer than is accepted here",
    Refusal.MALFORMED: "the token is not a signed JWT with the claims of RFC 9246",
    Refusal.ALGORITHM: "the token is not signed with ES256 or EdDSA",
    Refusal.UNKNOWN_KEY: "the token is signed with a key that is not, or no longer, accepted here",
    Refusal.SIGNATURE: "the token's signature does not fit its content",
    Refusal.EXPIRED: "the token's time is over: ask for a new one",
    Refusal.NOT_YET: "the token's time has not begun",
    Refusal.ISSUER: "the token's issuer is not accepted here",
    Refusal.AUDIENCE: "the token is meant for another service",
    Refusal.VERSION: "the token's cdniv is not 1",
    Refusal.CRITICAL: "the token insists on a claim that is not understood here (cdnicrit)",
    Refusal.UNSUPPORTED: "the token holds a claim that is not supported here (cdniip, jti or another cdnistt)",
    Refusal.CONTAINER: "the token's cdniuc is neither hash:sha-256;... nor a regex: that can be used",
    Refusal.URI: "the token does not cover this URL",
    Refusal.NETWORK: "the token is bound to another network than the one you come from",
}


def split_path(raw_path: bytes) -> tuple[bytes | None, bytes]:
    """The token that stands before a path, or None, and the path without it."""
    if not raw_path.startswith(PATH_PREFIX):
        return None, raw_path
    token, slash, rest = raw_path[len(PATH_PREFIX) :].partition(b"/")
    return token, slash + rest or b"/"


def split_query(query: bytes) -> tuple[bytes | None, bytes]:
    """The token in a query, or None, and the query without it. Of several the first counts, and none stays."""
    at = query.find(_NAMED)
    if at < 0:
        return None, query
    if at == 0 or query[at - 1] == _AMPERSAND:
        # As nearly every URL has it: a third of the regular expression's time.
        end = query.find(b"&", at)
        token = query[at + len(_NAMED) :] if end < 0 else query[at + len(_NAMED) : end]
        rest = query[: max(0, at - 1)] if end < 0 else query[:at] + query[end + 1 :]
        if _NAMED not in rest:
            return token, rest
    found = _PARAMETER.search(query)
    if found is None:
        return None, query
    return found[1], _PARAMETER.sub(b"", query).lstrip(b"&")


def cookie_token(cookie: bytes) -> bytes | None:
    """The token in a Cookie header. Of several the first counts: browsers send that of the longest path first."""
    if cookie.startswith(_NAMED) and b'"' not in cookie:
        return cookie[len(_NAMED) :].partition(b";")[0]
    found = _COOKIE.search(cookie)
    return None if found is None else found[1]
