"""Sources of bytes: parent appliances and the origin, asked over HTTP without blocking the loop.

S3 is asked by aiohttp on URLs that botocore signed. obstore would be the other way, but it hides the head of an answer,
and a 206 whose head can't be judged can't be trusted.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol
from urllib.parse import quote, urljoin, urlsplit

import aiohttp
import boto3
import botocore.exceptions
from botocore.config import Config
from yarl import URL

from oca.errors import FetchReason, RequestRefused, SettingsError, SourceError
from oca.settings import Fetch, Origin, Settings

_HOPS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SIGNED_FOR: Final = 3600
_SIGNED_KEPT: Final = 1800.0
_SIGNED_ENTRIES: Final = 10_000
# What RFC 3986 allows raw in a path, besides what quote() leaves alone.
_PATH_SAFE: Final = "/:@!$&'()*+,;=~"


class Source(Protocol):
    """One rung of the ladder. `name` is its label in metrics: "origin", "parent-1", "parent-2" and so on."""

    name: str
    is_s3: bool

    async def url(self, method: str, path: str) -> str:
        """Where `path` is asked for with `method`."""
        ...

    def may_redirect_to(self, url: str) -> bool: ...


class HttpSource:
    """A parent appliance or an HTTP origin."""

    is_s3 = False

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


class S3Source:
    """A bucket. Credentials come the ordinary boto3 way and are asked for at each signing, so they may rotate."""

    is_s3 = True

    def __init__(self, name: str, origin: Origin) -> None:
        self.name = name
        parts = urlsplit(origin.url)
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._hosts = {host.lower() for host in origin.redirect_hosts}
        self._signed: dict[tuple[str, str], tuple[float, str]] = {}
        try:
            self._client: Any = boto3.client(
                "s3",
                endpoint_url=origin.endpoint_url,
                region_name=origin.region,
                config=Config(
                    signature_version="s3v4", s3={"addressing_style": "path" if origin.endpoint_url else "auto"}
                ),
            )
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            raise SettingsError(f"origin.url {origin.url}: {error}") from error
        if origin.endpoint_url:
            self._hosts.add(urlsplit(origin.endpoint_url).netloc.lower())

    async def url(self, method: str, path: str) -> str:
        now = asyncio.get_running_loop().time()
        known = self._signed.get((method, path))
        if known is not None and now - known[0] < _SIGNED_KEPT:
            return known[1]
        key = f"{self._prefix}{path}" if self._prefix else path[1:]
        try:
            # In a thread: finding credentials may read files or ask a metadata server.
            signed = await asyncio.to_thread(
                self._client.generate_presigned_url,
                "head_object" if method == "HEAD" else "get_object",
                Params={"Bucket": self._bucket, "Key": key},
                ExpiresIn=_SIGNED_FOR,
            )
        except botocore.exceptions.ParamValidationError as error:
            raise RequestRefused(FetchReason.REFUSED, f"{self.name}: {key!r} is no key: {error}") from error
        except botocore.exceptions.BotoCoreError as error:
            raise SourceError(FetchReason.REFUSED, f"{self.name}: can't sign: {error}") from error
        if len(self._signed) >= _SIGNED_ENTRIES:
            self._signed.clear()
        self._signed[method, path] = (now, signed)
        return str(signed)

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


async def ask(
    session: aiohttp.ClientSession, source: Source, method: str, path: str, headers: dict[str, str]
) -> aiohttp.ClientResponse:
    """Send one request and follow at most three redirects, to the allowed hosts only.

    Raises `SourceError` for a redirect elsewhere; aiohttp's errors and TimeoutError as they come.
    """
    url = await source.url(method, path)
    for _ in range(_HOPS + 1):
        response = await session.request(
            method, URL(url, encoded=True), headers=headers, allow_redirects=False, raise_for_status=False
        )
        if response.status not in _REDIRECTS:
            return response
        location = response.headers.get("Location", "")
        response.close()
        url = urljoin(url, location)
        if not location or not source.may_redirect_to(url):
            raise SourceError(FetchReason.REDIRECT, f"{source.name}: redirect to {url[:200]!r}, a host not allowed")
    raise SourceError(FetchReason.REDIRECT, f"{source.name}: more than {_HOPS} redirects")
