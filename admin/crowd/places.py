"""Where a viewer's film is played from: how it learns of the places, and how it moves between them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from wire.codec import WireError, decode
from wire.playback import PLAYBACK_PATH, Playback
from wire.steer import SteeringManifest

SHUNNED: Final = 20.0
"""Seconds for which a place that failed is not gone to, unless all have."""
_MOST_ANSWER: Final = 256 * 1024


class PressFailed(Exception):
    """Pressing play had no answer that one could play by. The text says why."""


class Spot(Struct, frozen=True):
    """One place."""

    id: str
    base_url: str
    """The film's folder, with a slash at its end."""


class Places:
    """One viewer's, the best first. Time is given."""

    def __init__(self, spots: Sequence[Spot], master: str, session: str, question: str | None, ttl: float) -> None:
        """`master` is the playlist's name; `question` the content-steering address, None if nobody is to be asked."""
        self.spots = list(spots)
        self.current = self.spots[0]
        self.master = master
        self.session = session
        self.question = question
        self.ttl = ttl
        self._failed_at: dict[str, float] = {}

    def failed(self, spot: Spot, now: float) -> bool:
        """A request there failed. Whether the viewer has moved to another place by it."""
        self._failed_at[spot.id] = now
        if spot is not self.current:
            return False
        others = [each for each in self.spots if each is not spot]
        if not others:
            return False
        self.current = next((each for each in others if self._is_fit(each, now)), others[0])
        return True

    def heed(self, ids: Sequence[str], now: float) -> bool:
        """Steering's order. Whether the viewer moves by it."""
        rank = {name: at for at, name in enumerate(ids)}
        self.spots.sort(key=lambda spot: rank.get(spot.id, len(rank)))
        best = next((spot for spot in self.spots if self._is_fit(spot, now)), self.current)
        moves = best is not self.current
        self.current = best
        return moves

    def _is_fit(self, spot: Spot, now: float) -> bool:
        failed_at = self._failed_at.get(spot.id)
        return failed_at is None or now - failed_at > SHUNNED


class Source(Protocol):
    """How viewers come to their film."""

    async def press(self, client: aiohttp.ClientSession, viewer: int) -> Places:
        """Press play. Raises `PressFailed`, aiohttp's errors and TimeoutError."""

    def headers(self, viewer: int) -> Mapping[str, str]:
        """That questions to steering carry."""


class Steered:
    """By steering's playback API."""

    def __init__(self, steering: str, title: str, tokens: Sequence[str], addresses: Sequence[str]) -> None:
        """`addresses`: where viewers pretend to be (X-Forwarded-For); steering must trust this machine for it."""
        self._url = f"{steering.rstrip('/')}{PLAYBACK_PATH}?title={quote(title)}&codecs=avc1,mp4a"
        self._tokens = tokens
        self._addresses = addresses

    def headers(self, viewer: int) -> Mapping[str, str]:
        found: dict[str, str] = {}
        if self._tokens:
            found["Authorization"] = f"Bearer {self._tokens[viewer % len(self._tokens)]}"
        if self._addresses:
            found["X-Forwarded-For"] = self._addresses[viewer % len(self._addresses)]
        return found

    async def press(self, client: aiohttp.ClientSession, viewer: int) -> Places:
        async with client.get(self._url, headers=self.headers(viewer)) as answer:
            body = await answer.content.read(_MOST_ANSWER)
            if answer.status != 200:
                raise PressFailed(f"playback: {answer.status} {body[:200].decode(errors='replace')}")
        try:
            said = decode(body, Playback)
        except WireError as error:
            raise PressFailed(f"playback: {error}") from error
        spots = [Spot(place.id, place.base_url) for place in said.places if place.hls]
        if not spots:
            raise PressFailed("playback: no place has the film as HLS")
        hls = next(place.hls for place in said.places if place.hls)
        return Places(spots, _name_in(hls), said.session, said.content_steering, said.ttl)


class Direct:
    """From these boxes, without steering: viewers are spread over them, and move to the next when one fails."""

    def __init__(self, manifests: Sequence[str]) -> None:
        self._spots = [Spot(urlsplit(url).netloc, url.rpartition("/")[0] + "/") for url in manifests]
        self._master = _name_in(manifests[0])

    def headers(self, viewer: int) -> Mapping[str, str]:
        del viewer
        return {}

    async def press(self, client: aiohttp.ClientSession, viewer: int) -> Places:
        del client
        first = viewer % len(self._spots)
        spots = self._spots[first:] + self._spots[:first]
        return Places(spots, self._master, f"crowd-{viewer:08x}-{random.getrandbits(64):016x}", None, 0)


def read_order(body: bytes) -> tuple[Sequence[str], float]:
    """A content-steering manifest's places, and seconds until the next question. Raises ValueError."""
    said = msgspec.json.decode(body, type=SteeringManifest)
    return said.priority, float(said.ttl)


def _name_in(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]
