"""Sources of bytes: parent appliances and the origin, asked over HTTP without blocking the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import quote, urljoin, urlsplit

import aiohttp
from yarl import URL

from oca.errors import FetchReason, SourceError
from oca.settings import Fetch, Settings

_HOPS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# What RFC 3986 allows raw in a path, besides what quote() leaves alone.
_PATH_SAFE: Final = "/:@!$&'()*+,;=~"


class Source(Protocol):
    """One rung of the ladder. `name` is its label in metrics: "origin", "parent-1", "parent-2" and so on."""

    name: str
    is_s3: bool
    is_peer: bool
    fields: Mapping[str, str]
    """Header fields of every request to it."""

    async def url(self, method: str, path: str) -> str:
        """Where `path` is asked for with `method`."""
        ...

    def may_redirect_to(self, url: str) -> bool: ...


class HttpSource:
    """A parent appliance or an HTTP origin."""

    is_s3 = False
    is_peer = False
    fields: Mapping[str, str] = {}

    def __init__(self, name: str, base: str, redirect_hosts: tuple[str, ...] = ()) -> None:
        self.name = name
        self._base = base.rstrip("/")
        self._hosts = {urlsplit(base).netloc.lower(), *(host.lower() for host in redirect_hosts)}

    async def url(self, method: str, path: str) -> str:
        del method
        return self._base + quote(path, safe=_PATH_SAFE)

    def may_redirect_to(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and parts.netloc.lower() in self._hosts


def build_sources(settings: Settings) -> list[Source]:
    """The ladder in its order. Blocks for a moment (boto3 reads its models); raises `SettingsError`."""
    sources: list[Source] = [
        HttpSource(f"parent-{number}", parent.url) for number, parent in enumerate(settings.parents, start=1)
    ]
    origin = settings.origin
    if origin.url.startswith("s3:"):
        # boto3 takes a third of a keeper's start: only where it is used.
        from oca.keeper.bucket import S3Source  # noqa: PLC0415

        sources.append(S3Source("origin", origin))
    else:
        sources.append(HttpSource("origin", origin.url, origin.redirect_hosts))
    return sources


def new_session(fetch: Fetch, appliance_id: str) -> aiohttp.ClientSession:
    """The client for all sources: no cookies, no decompression, nothing that waits for ever."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=512, ttl_dns_cache=30),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=fetch.connect_timeout, sock_read=fetch.stall_timeout, connect=fetch.stall_timeout
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=512 * 1024,
        max_line_size=16 * 1024,
        max_field_size=16 * 1024,
        headers={"User-Agent": "oca", "Accept-Encoding": "identity", "Via": f"1.1 {appliance_id}"},
    )


def fields_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Header fields with lower-case names, repeated ones joined by ", ".

    Bytes are kept as they are, one character each (Latin-1), so that a replayed line is the line that came.
    """
    fields: dict[str, str] = {}
    for raw_name, raw_value in response.raw_headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


async def _asked(
    session: aiohttp.ClientSession, method: str, url: URL, headers: dict[str, str]
) -> aiohttp.ClientResponse:
    """Once more, if what comes is no HTTP. A source may send content behind an answer that has none (204, 304, HEAD):
    where it comes late, the connection was kept already, and the next request on it reads the rest of the last answer.
    """
    try:
        return await session.request(method, url, headers=headers, allow_redirects=False, raise_for_status=False)
    except aiohttp.ClientResponseError:
        return await session.request(method, url, headers=headers, allow_redirects=False, raise_for_status=False)


async def ask(
    session: aiohttp.ClientSession, source: Source, method: str, path: str, headers: dict[str, str]
) -> aiohttp.ClientResponse:
    """Send one request and follow at most three redirects, to the allowed hosts only.

    Raises `SourceError` for a redirect elsewhere; aiohttp's errors and TimeoutError as they come.
    """
    url = await source.url(method, path)
    for _ in range(_HOPS + 1):
        response = await _asked(session, method, URL(url, encoded=True), headers)
        if response.status not in _REDIRECTS:
            return response
        location = response.headers.get("Location", "")
        response.close()
        url = urljoin(url, location)
        if not location or not source.may_redirect_to(url):
            raise SourceError(FetchReason.REDIRECT, f"{source.name}: redirect to {url[:200]!r}, a host not allowed")
    raise SourceError(FetchReason.REDIRECT, f"{source.name}: more than {_HOPS} redirects")
