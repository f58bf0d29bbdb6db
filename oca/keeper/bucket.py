"""An S3 bucket as a source of bytes.

It is asked by aiohttp on URLs that botocore signed. obstore would be the other way, but it hides the head of an answer,
and a 206 whose head can't be judged can't be trusted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
from botocore.config import Config

from oca.errors import FetchReason, RequestRefused, SettingsError, SourceError
from oca.settings import Origin

_SIGNED_FOR: Final = 3600
_SIGNED_KEPT: Final = 1800.0
_SIGNED_ENTRIES: Final = 10_000


class S3Source:
    """A bucket. Credentials come the ordinary boto3 way and are asked for at each signing, so they may rotate."""

    is_s3 = True
    is_peer = False
    fields: Mapping[str, str] = {}

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
