"""One viewer: presses play, fetches segment after segment over HTTP, and is shown nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp
from msgspec import Struct
from yarl import URL

from admin.crowd.account import Account, Failure, Visit
from admin.crowd.film import MOST_PLAYLIST_BYTES, FilmError, Part, Track, Variant, read_master, read_track
from admin.crowd.model import AHEAD, Screen, Throughput, next_step
from admin.crowd.places import Places, PressFailed, Source, read_order

ReadT = TypeVar("ReadT")

_ROUNDS: Final = 2
"""Times that all places are tried for one file."""
_PAUSE: Final = 1.0
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, sock_connect=4, sock_read=8)
_STEERING: Final = aiohttp.ClientTimeout(total=5)
_MOST_STEERING: Final = 64 * 1024


class Habits(Struct, frozen=True):
    """How viewers are."""

    seeks_a_minute: float
    stays_minutes: float
    """Mean; after a time that is exponentially distributed around it a viewer has had enough."""


class Failed(Exception):
    """The viewer can't go on."""

    def __init__(self, failure: Failure, why: str) -> None:
        super().__init__(why)
        self.failure = failure


class Viewer:
    """One visit of one viewer."""

    def __init__(
        self, number: int, source: Source, account: Account, habits: Habits, dice: random.Random, ends_at: float
    ) -> None:
        """`ends_at`: of the crowd, by the clock of time.monotonic()."""
        self._number = number
        self._source = source
        self._account = account
        self._habits = habits
        self._dice = dice
        self._visit = Visit()
        self._line = Throughput()
        self._leaves_at = min(ends_at, time.monotonic() + dice.expovariate(1 / (60 * habits.stays_minutes)))
        self.screen = Screen(time.monotonic())
        self._client: aiohttp.ClientSession
        self._places: Places

    async def watch(self) -> None:
        """From pressing play until the viewer leaves, or can't go on. What was seen is in the account then."""
        connector = aiohttp.TCPConnector(limit_per_host=2)
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, read_bufsize=2**18) as client:
            self._client = client
            try:
                await self._see_film()
            except Failed as error:
                self._visit.failure, self._visit.failed_because = error.failure, str(error)
            finally:
                self._note()

    def _note(self) -> None:
        visit, screen = self._visit, self.screen
        screen.buffer(time.monotonic())
        visit.start_seconds = screen.start_seconds
        visit.stalls = screen.stalls
        visit.stalled_seconds = screen.stalled_seconds
        visit.played_seconds = screen.played_seconds
        self._account.visits.append(visit)

    async def _see_film(self) -> None:
        try:
            self._places = await self._source.press(self._client, self._number)
        except (PressFailed, aiohttp.ClientError, TimeoutError) as error:
            raise Failed(Failure.PLAYBACK, str(error) or "no answer in time") from error
        steering = asyncio.ensure_future(self._heed_steering())
        try:
            variants = await self._read(self._places.master, _master)
            tracks: dict[str, Track] = {}
            await self._play(variants, tracks)
        finally:
            steering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await steering

    async def _play(self, variants: tuple[Variant, ...], tracks: dict[str, Track]) -> None:
        rates = [variant.bandwidth_bps for variant in variants]
        step = 0
        shown: Variant | None = None
        at = 0
        while time.monotonic() < self._leaves_at:
            now = time.monotonic()
            step = next_step(rates, step, self._line.bps, self.screen.buffer(now))
            variant = variants[step]
            if variant is not shown:
                self._visit.steps += shown is not None
                await self._take_up(variant, tracks)
                shown = variant
            picture = tracks[variant.playlist]
            if at >= len(picture.segments):
                await self._see_out()
                return
            await self._fetch_segment(variant, tracks, at)
            at += 1
            self.screen.is_last_fetched = at == len(picture.segments)
            self.screen.fetched(picture.durations[at - 1], time.monotonic())
            if self._dice.random() < self._habits.seeks_a_minute * picture.durations[at - 1] / 60:
                self.screen.seek(time.monotonic())
                at = self._dice.randrange(len(picture.segments))
            await self._wait_for_room()

    async def _take_up(self, variant: Variant, tracks: dict[str, Track]) -> None:
        """What a player fetches once of a rendition: its playlist and its initialisation segment."""
        for playlist in (variant.playlist, variant.audio):
            if playlist is None or playlist in tracks:
                continue
            track = await self._read(playlist, partial(_track, path=playlist))
            if track.init is not None:
                await self._fetch(track.init, f"ot=i,{self._who()}")
            tracks[playlist] = track

    async def _fetch_segment(self, variant: Variant, tracks: dict[str, Track], at: int) -> None:
        """A segment of the picture, and that of the sound beside it."""
        picture = tracks[variant.playlist]
        sound = None if variant.audio is None else tracks[variant.audio]
        began = time.monotonic()
        told = self._told(variant.bandwidth_bps, picture, at, "v")
        if sound is not None and at < len(sound.segments):
            size, _ = await asyncio.gather(
                self._fetch(picture.segments[at], told),
                self._fetch(sound.segments[at], self._told(128_000, sound, at, "a")),
            )
        else:
            size = await self._fetch(picture.segments[at], told)
        self._line.measured(size, time.monotonic() - began)
        self._visit.megabits += variant.bandwidth_bps * picture.durations[at] / 1e6
        self._visit.fetched_seconds += picture.durations[at]

    def _told(self, bitrate_bps: int, track: Track, at: int, kind: str) -> str:
        """CMCD of a segment's request, keys in order (CTA-5004)."""
        now = time.monotonic()
        words = [f"bl={int(self.screen.buffer(now) * 10) * 100}", f"br={bitrate_bps // 1000}"]
        if kind == "v" and self.screen.starved():
            words.append("bs")
        words.append(f"d={int(track.durations[at] * 1000)}")
        bps = self._line.bps
        if bps is not None:
            words.append(f"mtp={max(1, round(bps / 100_000)) * 100}")
        if at + 1 < len(track.segments):
            following = track.segments[at + 1]
            words.append(f'nor="{quote(following.path.rpartition("/")[2], safe="")}"')
            if following.span is not None:
                words.append(f'nrr="{following.span}"')
        words += [f"ot={kind}", "sf=v", self._who(), "st=v"]
        if self.screen.start_seconds is None:
            words.append("su")
        return ",".join(words)

    def _who(self) -> str:
        return f'sid="{self._places.session}"'

    async def _wait_for_room(self) -> None:
        """Until the buffer wants more, or the viewer leaves."""
        now = time.monotonic()
        over = self.screen.buffer(now) - AHEAD
        if over > 0:
            await asyncio.sleep(min(over, max(0.0, self._leaves_at - now)))

    async def _see_out(self) -> None:
        """The end of the film is in the buffer."""
        now = time.monotonic()
        await asyncio.sleep(min(self.screen.buffer(now), max(0.0, self._leaves_at - now)))

    # --- Files ---

    async def _read(self, path: str, read: Callable[[str], ReadT]) -> ReadT:
        """A playlist, from whoever has it."""
        body = await self._tried(Part(path), f"ot=m,{self._who()}", Failure.PLAYLIST, keep=MOST_PLAYLIST_BYTES)
        try:
            return read(body.decode())
        except (FilmError, UnicodeDecodeError) as error:
            raise Failed(Failure.PLAYLIST, f"{path}: {error}") from error

    async def _fetch(self, part: Part, told: str) -> int:
        """A part of the film; how large it is."""
        return len(await self._tried(part, told, Failure.SEGMENT, keep=0))

    async def _tried(self, part: Part, told: str, failure: Failure, *, keep: int) -> Body:
        """From the current place, or else from the next."""
        places = self._places
        query = quote(told, safe="")
        why = ""
        for attempt in range(_ROUNDS * len(places.spots)):
            spot = places.current
            if attempt and attempt % len(places.spots) == 0:
                await asyncio.sleep(_PAUSE)
            try:
                return await self._got(f"{spot.base_url}{part.path}?CMCD={query}", part.span, spot.id, keep)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = f"{spot.id}: {str(error) or 'too slow'}"
            self._visit.retries += 1
            self._visit.moves += places.failed(spot, time.monotonic())
        raise Failed(failure, f"{part.path}: {why}")

    async def _got(self, url: str, span: str | None, place: str, keep: int) -> Body:
        """A file, or those bytes of it. Raises aiohttp's errors, also for another status than asked for."""
        began = time.monotonic()
        headers = {} if span is None else {"Range": f"bytes={span}"}
        async with self._client.get(URL(url, encoded=True), headers=headers) as answer:
            first_byte = time.monotonic() - began
            if answer.status != (200 if span is None else 206):
                raise aiohttp.ClientResponseError(
                    answer.request_info, answer.history, status=answer.status, message=answer.reason or ""
                )
            body = Body(keep)
            async for piece in answer.content.iter_any():
                body.add(piece)
        self._account.received(place, body.size, first_byte)
        return body

    # --- Steering ---

    async def _heed_steering(self) -> None:
        """Ask again, for as long as the film goes on. Without an answer everything stays as it is."""
        places = self._places
        ttl = places.ttl
        while places.question is not None:
            await asyncio.sleep(max(1.0, ttl))
            bps = self._line.bps
            url = f"{places.question}&current={places.current.id}" + ("" if bps is None else f"&bps={bps:.0f}")
            try:
                asked = self._client.get(
                    URL(url, encoded=True), headers=self._source.headers(self._number), timeout=_STEERING
                )
                async with asked as answer:
                    if answer.status == 200:
                        order, ttl = read_order(await answer.content.read(_MOST_STEERING))
                        self._visit.moves += places.heed(order, time.monotonic())
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                continue


class Body:
    """What came, counted; the first `keep` bytes of it are kept."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._kept = bytearray()
        self.size = 0

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if len(self._kept) < self._keep:
            self._kept += piece

    def __len__(self) -> int:
        return self.size

    def decode(self) -> str:
        """Raises `FilmError` if there was more than was to be kept."""
        if self.size > self._keep:
            raise FilmError(f"is larger than {self._keep} bytes")
        return self._kept.decode()


@lru_cache(maxsize=64)
def _master(text: str) -> tuple[Variant, ...]:
    """All viewers of a film read the same: a large playlist is taken apart once."""
    return read_master(text)


@lru_cache(maxsize=256)
def _track(text: str, path: str) -> Track:
    return read_track(text, path)
