"""Pressing play: a viewer's token and a title become places, manifests and renditions.

In this order, each with an answer of its own: who asks too often (429), what is badly asked (400), who may not (401,
403), what is not published (404) or withdrawn (410), what may not be shown where the viewer is (451), what the device
can't play (406).
Only then a decision is made, by the same ladder as all others, so there is always a list of places. 503: the catalogue,
or the viewers' keys, were never had.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from enum import StrEnum
from hashlib import blake2b
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from steering.answers.desk import Desk
from steering.answers.door import JSON, Door, Refused, encode, too_often
from steering.answers.questions import Questions
from steering.catalogue import Catalogue, CatalogueError, Listing
from steering.codecs import MOST_NAMED, can_play, is_codec
from steering.decisions import Decision, Target, Way
from steering.limits import Buckets
from steering.settings import PlaybackAccess
from steering.viewer_keys import ViewerKeys
from steering.viewers import Viewer, ViewerRefusal, Wanted, bearer, kid_of, let_in
from wire.catalog import TITLE_ID_RULE, Kind, is_title_id, title_folder
from wire.playback import Place, PlayableRendition, Playback

_AGAIN: Final = 5
"""Seconds after which who met an outage may ask again."""
_ASIDES: Final = {Kind.TEXT, Kind.IMAGE}
"""The page shows them itself: no decoder of the device is asked."""
_PIXELS: Final = re.compile(r"[0-9]{1,5}")


class Pressed(StrEnum):
    """What became of a press on play. The closed label set of `oca_steering_playbacks_total`."""

    STARTED = "started"
    LIMITED = "limited"
    BAD_QUESTION = "bad_question"
    NOT_LET_IN = "not_let_in"
    UNKNOWN_TITLE = "unknown_title"
    WITHDRAWN = "withdrawn"
    NOT_HERE = "not_here"
    NOT_PLAYABLE = "not_playable"
    NO_KEYS = "no_keys"
    NO_CATALOGUE = "no_catalogue"


_STATUS: Final = {
    Pressed.BAD_QUESTION: HTTPStatus.BAD_REQUEST,
    Pressed.UNKNOWN_TITLE: HTTPStatus.NOT_FOUND,
    Pressed.WITHDRAWN: HTTPStatus.GONE,
    Pressed.NOT_HERE: HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS,
    Pressed.NOT_PLAYABLE: HTTPStatus.NOT_ACCEPTABLE,
    Pressed.NO_KEYS: HTTPStatus.SERVICE_UNAVAILABLE,
    Pressed.NO_CATALOGUE: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Player:
    """Answers `GET /v1/playback`."""

    def __init__(
        self,
        settings: PlaybackAccess,
        base_url: str,
        door: Door,
        desk: Desk,
        questions: Questions,
        catalogue: Catalogue,
        keys: ViewerKeys,
        clock: Callable[[], float],
    ) -> None:
        """`clock`: of the wall, as tokens have it."""
        self._wanted = Wanted(settings.issuer, settings.audience, settings.scope, settings.leeway)
        self._buckets = Buckets(settings.rate, settings.burst, settings.viewers)
        self._base = base_url.rstrip("/")
        self._door = door
        self._desk = desk
        self._questions = questions
        self._catalogue = catalogue
        self._keys = keys
        self._clock = clock
        self.pressed = dict.fromkeys(Pressed, 0)
        self.turned_away = dict.fromkeys(ViewerRefusal, 0)

    async def playback(self, request: web.Request) -> web.Response:
        client = self._door.client(request)
        try:
            self._door.limit(client)
        except Refused:
            self.pressed[Pressed.LIMITED] += 1
            raise
        query = request.query
        title = query.get("title", "")
        if not is_title_id(title):
            raise self._refused(Pressed.BAD_QUESTION, f'"title" is missing or no title: {TITLE_ID_RULE}')
        able = self._codecs(query)
        most = self._pixels(query, "max_width"), self._pixels(query, "max_height")
        self._limit_viewer(await self._viewer(request.headers.get(hdrs.AUTHORIZATION)))
        listing = await self._listing(title)
        if listing.is_withdrawn:
            raise self._refused(Pressed.WITHDRAWN, f"{title} is withdrawn: nobody may begin to play it")
        country = self._desk.country(client)
        if not listing.availability.allows(country):
            where = "where you are, which is not known," if country is None else f"in {country}"
            raise self._refused(Pressed.NOT_HERE, f"{title} may not be shown {where} by its licence")
        renditions = self._playable(title, listing, able, most)
        path = listing.hls or listing.dash or f"{title_folder(title)}/"
        decision, ttl = self._questions.decided(query, client, path, Way.PLAYBACK)
        self.pressed[Pressed.STARTED] += 1
        answer = Playback(
            session=secrets.token_urlsafe(16),
            decision=decision.id,
            title=title,
            duration=listing.duration,
            ttl=ttl,
            places=self._places(decision, title, listing, client),
            content_steering=f"{self._base}/v1/content-steering?path={path}",
            renditions=renditions,
            reason=decision.reason,
        )
        return web.Response(body=encode(answer), headers=JSON)

    async def _viewer(self, header: str | None) -> Viewer:
        token = bearer(header)
        if isinstance(token, ViewerRefusal):
            raise self._turned_away(token)
        keys = await self._keys.keys_for(kid_of(token))
        if keys is None:
            raise self._refused(Pressed.NO_KEYS, "the keys of viewers' tokens can't be had now")
        viewer = let_in(token, keys, self._wanted, self._clock())
        if isinstance(viewer, ViewerRefusal):
            raise self._turned_away(viewer)
        return viewer

    def _limit_viewer(self, viewer: Viewer) -> None:
        if not viewer.subject:
            return
        wait = self._buckets.take(blake2b(viewer.subject.encode(), digest_size=12).digest(), self._clock())
        if wait:
            self.pressed[Pressed.LIMITED] += 1
            raise too_often("this viewer", wait)

    async def _listing(self, title: str) -> Listing:
        try:
            listing = await self._catalogue.listing(title)
        except CatalogueError as error:
            raise self._refused(Pressed.NO_CATALOGUE, f"what there is of {title} can't be said now: {error}") from error
        if listing is None:
            raise self._refused(Pressed.UNKNOWN_TITLE, f"there is no title {title}")
        return listing

    def _playable(
        self, title: str, listing: Listing, able: tuple[str, ...], most: tuple[int | None, int | None]
    ) -> tuple[PlayableRendition, ...]:
        """What the device can play. Raises `Refused` if it has no picture, or no sound where there is some."""
        fitting = tuple(
            one
            for one in listing.renditions
            if one.kind in _ASIDES or (can_play(one.codecs, able) and _fits(one, most))
        )
        kinds = {one.kind for one in fitting}
        missing = [
            kind for kind in (Kind.VIDEO, Kind.AUDIO) if kind in {one.kind for one in listing.renditions} - kinds
        ]
        if missing:
            there = ", ".join(sorted({one.codecs for one in listing.renditions if one.kind is missing[0]}))
            raise self._refused(
                Pressed.NOT_PLAYABLE, f"{title} has no {missing[0].value} that this device can play; there is: {there}"
            )
        return fitting

    def _places(self, decision: Decision, title: str, listing: Listing, client: bytes) -> tuple[Place, ...]:
        def at(path: str | None) -> list[str | None]:
            if path is None:
                return [None] * len(decision.targets)
            return [url for _, url in self._desk.urls(decision, path, client)]

        targets: tuple[Target, ...] = decision.targets
        folders = self._desk.bases(decision, f"{title_folder(title)}/", client)
        rows = zip(targets, folders, at(listing.hls), at(listing.dash), strict=True)
        return tuple(Place(id=target.id, base_url=base, hls=hls, dash=dash) for target, base, hls, dash in rows)

    def _codecs(self, query: Mapping[str, str]) -> tuple[str, ...]:
        """What the device names; nothing: it plays all."""
        named = tuple(part.strip() for part in query.get("codecs", "").split(",") if part.strip())
        if len(named) > MOST_NAMED or not all(is_codec(one) for one in named):
            raise self._refused(
                Pressed.BAD_QUESTION, f'"codecs" is no list of at most {MOST_NAMED} such as "avc1.640028,mp4a.40.2"'
            )
        return named

    def _pixels(self, query: Mapping[str, str], name: str) -> int | None:
        said = query.get(name)
        if said is None:
            return None
        if not _PIXELS.fullmatch(said) or not int(said):
            raise self._refused(Pressed.BAD_QUESTION, f'"{name}" is no number of pixels from 1 to 99999')
        return int(said)

    def _refused(self, why: Pressed, sentence: str) -> Refused:
        self.pressed[why] += 1
        status = _STATUS[why]
        return Refused(status, sentence, _AGAIN if status is HTTPStatus.SERVICE_UNAVAILABLE else None)

    def _turned_away(self, why: ViewerRefusal) -> Refused:
        self.pressed[Pressed.NOT_LET_IN] += 1
        self.turned_away[why] += 1
        return Refused(why.status, why.sentence, challenge=why.challenge)


def _fits(rendition: PlayableRendition, most: tuple[int | None, int | None]) -> bool:
    """Whether the screen has room for it. What has no picture always fits."""
    sizes = (rendition.width, rendition.height)
    return all(size is None or limit is None or size <= limit for size, limit in zip(sizes, most, strict=True))
