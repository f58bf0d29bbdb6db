"""The folder on this machine where renditions are made, and found again by a run that continues another.

    <work dir>/<title>-<digest of file, plans and ffmpeg>/
        lock                    held by the run that works here
        making-<letters>/       the rendition under way; thrown away by the next run
        <name>.parts/00003/     a finished part of the rendition under way, of a long film
        <name>/                 a finished rendition: segments, playlist and record.json, moved here whole

A finished rendition is used again only if every file still has the checksum in its record: a folder that a power cut
left half-written is made anew.
"""

import fcntl
import hashlib
import hmac
import json
import os
import shutil
import tempfile
from contextlib import suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import msgspec
from msgspec import Struct

from admin.errors import InputError, MachineError, TitleTaken
from admin.publish.boxes import BoxError, Timing, file_index, fragment_of, retimed, segment_timing, video_codec
from admin.publish.chunks import SEGMENT_SECONDS, Chunk, chunks_of
from admin.publish.encoder import Ffmpeg, Film, encoding
from admin.publish.encryption import Encryptor
from admin.publish.keys import Keys, TrackKey
from admin.publish.manifests import (
    CUES,
    INIT,
    PLAYLIST,
    SHEET,
    TRACK,
    WORDS,
    Encoded,
    OneFile,
    Piece,
    Sheets,
    Words,
    hls_playlist,
    segment_name,
    thumbnail_cues,
    words_playlist,
)
from admin.publish.renditions import SHEET_SIDE, AudioPlan, ImagePlan, Packaging, Plan, TextPlan, VideoPlan
from wire.catalog import HLS_TYPE

# AAC-LC, the only profile we encode (RFC 6381, ISO/IEC 14496-3 object type 2).
_AUDIO_CODEC: Final = "mp4a.40.2"
_RECORD: Final = "record.json"
_DIGEST_LETTERS: Final = 16
_WORDS_TYPE: Final = "text/vtt"
_NO_LENGTH: Final = 1.0
"""Seconds, of a film whose file doesn't say how long it is: one thumbnail for a sheet, at least."""


class File(Struct, frozen=True):
    """One file of a finished rendition."""

    name: str
    size_bytes: int
    sha256: str
    content_type: str


class Record(Struct, frozen=True):
    """What is to be known of a finished rendition. Of each segment, `timings` are (start, duration, timescale) and
    `sizes` bytes; subtitles and thumbnails have none.
    """

    codecs: str
    files: tuple[File, ...]
    timings: tuple[tuple[int, int, int], ...] = ()
    sizes: tuple[int, ...] = ()
    one_file: OneFile | None = None


class Finished:
    """A rendition that is made. `folder` is its name at the origin: it carries a digest of every byte in it."""

    def __init__(self, plan: Plan, path: Path, record: Record, rate: Fraction, key: TrackKey | None) -> None:
        self.plan = plan
        self.path = path
        self.files = record.files
        self.codecs = record.codecs
        digest = hashlib.sha256()
        for file in record.files:
            digest.update(f"{file.name} {file.sha256}\n".encode())
        self.folder = f"{plan.name}.{digest.hexdigest()[:_DIGEST_LETTERS]}"
        self.size_bytes = sum(file.size_bytes for file in record.files)
        self._record = record
        self._rate = rate
        self.key = key

    @property
    def encoded(self) -> Encoded:
        """What manifests say of pictures in motion, and of sound."""
        plan, record = self.plan, self._record
        assert isinstance(plan, VideoPlan | AudioPlan)
        return Encoded(
            name=plan.name,
            kind=plan.kind,
            folder=self.folder,
            codecs=record.codecs,
            pieces=tuple(
                Piece(Timing(*timing, starts_clean=True), size)
                for timing, size in zip(record.timings, record.sizes, strict=True)
            ),
            width=plan.width if isinstance(plan, VideoPlan) else None,
            height=plan.height if isinstance(plan, VideoPlan) else None,
            frame_rate=self._rate if isinstance(plan, VideoPlan) else None,
            language=plan.track.language if isinstance(plan, AudioPlan) else None,
            key=self.key,
            one_file=record.one_file,
        )

    @property
    def words(self) -> Words:
        """What manifests say of subtitles."""
        assert isinstance(self.plan, TextPlan)
        (size,) = (file.size_bytes for file in self.files if file.name == WORDS)
        return Words(self.plan.name, self.folder, self.plan.track.language, size)

    @property
    def sheets(self) -> Sheets:
        """What manifests say of thumbnails."""
        plan = self.plan
        assert isinstance(plan, ImagePlan)
        sizes = [file.size_bytes for file in self.files if file.content_type == "image/jpeg"]
        return Sheets(self.folder, plan.width, plan.height, SHEET_SIDE, plan.interval, len(sizes), sum(sizes))

    @property
    def is_media(self) -> bool:
        """Whether it has segments: the others are at most as long as those."""
        return isinstance(self.plan, VideoPlan | AudioPlan)

    @property
    def ends_at(self) -> float:
        """The moment of the film, in seconds, where the last segment ends."""
        start, duration, timescale = self._record.timings[-1]
        return (start + duration) / timescale


class Workshop:
    """The work folder of one job, for one run at a time. A context manager: inside, the folder is locked."""

    def __init__(
        self,
        work_dir: Path,
        title: str,
        ffmpeg: Ffmpeg,
        film: Film,
        plans: tuple[Plan, ...],
        keys: Keys | None = None,
        packaging: Packaging = Packaging.SEGMENTS,
    ) -> None:
        self._film = film
        self._keys = keys
        self._packaging = packaging
        self.path = work_dir / f"{title}-{_job_digest(ffmpeg, film, plans, keys, packaging)}"
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("wb")
        except OSError as error:
            raise MachineError(f"the work dir {self.path} can't be used ({error.strerror}): see --work-dir") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise TitleTaken(
                f"another run on this machine is publishing this film (it works in {self.path})"
            ) from error
        self._lock = lock
        for leftover in self.path.glob("making-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        if isinstance(error, InputError):
            self.discard()  # This file will never be published.
        self._lock.close()

    def finished(self, plan: Plan) -> Finished | None:
        """The rendition that an earlier run finished; None when there is none, or it is not whole."""
        path = self.path / plan.name
        try:
            record = msgspec.json.decode((path / _RECORD).read_bytes(), type=Record)
            for file in record.files:
                if _sha256(path / file.name) != file.sha256:
                    return None
        except (OSError, msgspec.DecodeError):
            return None
        return Finished(plan, path, record, self._film.source.rate, self._key(plan))

    def _key(self, plan: Plan) -> TrackKey | None:
        return self._keys.of(plan.kind) if self._keys else None

    def begin(self) -> Path:
        """An empty folder to make a rendition, or a part of one, in."""
        try:
            # A new name each time: an encoder that outlived its run can't write among ours.
            return Path(tempfile.mkdtemp(prefix="making-", dir=self.path))
        except OSError as error:
            raise MachineError(f"{self.path} can't be written ({error.strerror}): see --work-dir") from error

    def has_part(self, plan: Plan, chunk: Chunk) -> bool:
        """Whether an earlier run, or this one, finished that part, and it is whole."""
        path = self._part(plan, chunk)
        try:
            files = msgspec.json.decode((path / _RECORD).read_bytes(), type=tuple[File, ...])
            return all(_sha256(path / file.name) == file.sha256 for file in files)
        except (OSError, msgspec.DecodeError):
            return False

    def keep_part(self, plan: Plan, chunk: Chunk, making: Path) -> None:
        """The part is encoded: it is moved into its place."""
        try:
            files = tuple(_file(path, "") for path in sorted(making.iterdir()) if path.suffix in (".m4s", ".mp4"))
            (making / _RECORD).write_bytes(msgspec.json.encode(files))
            path = self._part(plan, chunk)
            path.parent.mkdir(exist_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            making.rename(path)
        except OSError as error:
            raise MachineError(f"{self.path} can't be written ({error.strerror}): see --work-dir") from error

    def join(self, plan: Plan, chunks: tuple[Chunk, ...]) -> Path:
        """A folder like one that was encoded whole, of all parts. Raises MachineError if they don't fit together."""
        making = self.begin()
        rate, written = self._film.source.rate, 0
        try:
            for chunk in chunks:
                part = self._part(plan, chunk)
                segments = sorted(path for path in part.iterdir() if path.suffix == ".m4s")
                if segments and written != chunk.segments:
                    raise MachineError(f"ffmpeg left a gap in {plan.name} before part {chunk.number + 1}")
                if segments and (part / INIT).read_bytes() != (self._part(plan, chunks[0]) / INIT).read_bytes():
                    raise MachineError(
                        f"ffmpeg encoded part {chunk.number + 1} of {plan.name} otherwise than the first"
                    )
                for path in segments:
                    segment = path.read_bytes()
                    ticks = chunk.first / rate * segment_timing(segment).timescale
                    if ticks.denominator != 1:
                        raise MachineError(f"ffmpeg's clock of {plan.name} does not know the film's pictures")
                    written += 1
                    (making / segment_name(written)).write_bytes(retimed(segment, int(ticks), chunk.segments))
            shutil.copyfile(self._part(plan, chunks[0]) / INIT, making / INIT)
        except BoxError as error:
            raise MachineError(f"ffmpeg wrote {plan.name} in a form we do not expect: {error}") from error
        except OSError as error:
            raise MachineError(f"{self.path} can't be written ({error.strerror}): see --work-dir") from error
        return making

    def _part(self, plan: Plan, chunk: Chunk) -> Path:
        return self.path / f"{plan.name}.parts" / f"{chunk.number:05d}"

    def finish(self, plan: Plan, making: Path) -> Finished:
        """The rendition encoded into `making`: checked, measured, given its playlist, and moved into its place."""
        try:
            record = self._record(plan, making)
            (making / _RECORD).write_bytes(msgspec.json.encode(record))
            path = self.path / plan.name
            shutil.rmtree(path, ignore_errors=True)
            making.rename(path)
            shutil.rmtree(self.path / f"{plan.name}.parts", ignore_errors=True)
        except OSError as error:
            raise MachineError(f"{self.path} can't be written ({error.strerror}): see --work-dir") from error
        return Finished(plan, path, record, self._film.source.rate, self._key(plan))

    def discard(self) -> None:
        """Everything made here is published: remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        # The folder above only if it is ours and empty.
        with suppress(OSError):
            self.path.parent.rmdir()

    def discard_if_empty(self) -> None:
        """Leave nothing behind of a run that made nothing."""
        if [path.name for path in self.path.iterdir()] == ["lock"]:
            self.discard()

    def _record(self, plan: Plan, making: Path) -> Record:
        match plan:
            case VideoPlan() | AudioPlan():
                return self._measure(plan, making)
            case TextPlan():
                words = (making / WORDS).read_text(encoding="utf-8", errors="replace")
                if "-->" not in words:
                    raise InputError(f"{plan.file or self._film.path}: no words in the subtitles for {plan.name}")
                (making / PLAYLIST).write_text(words_playlist(Fraction(self._length).limit_denominator(1000)))
                types = [(PLAYLIST, HLS_TYPE), (WORDS, _WORDS_TYPE)]
                return Record("wvtt", tuple(_file(making / name, kind) for name, kind in types))
            case ImagePlan():
                return self._sheets(plan, making)

    @property
    def _length(self) -> float:
        return self._film.source.duration or _NO_LENGTH

    def _sheets(self, plan: ImagePlan, making: Path) -> Record:
        sheets = sorted(path.name for path in making.iterdir() if path.suffix == ".jpg")
        if not sheets or sheets != [SHEET % number for number in range(1, len(sheets) + 1)]:
            raise InputError(f"{self._film.path}: nothing in it could be decoded for {plan.name}")
        full = len(sheets) * SHEET_SIDE * SHEET_SIDE * plan.interval
        shape = (plan.width, plan.height, SHEET_SIDE, plan.interval)
        (making / CUES).write_text(thumbnail_cues(*shape, min(self._film.source.duration or full, full)))
        types = [(CUES, _WORDS_TYPE), *((name, "image/jpeg") for name in sheets)]
        return Record("jpeg", tuple(_file(making / name, kind) for name, kind in types))

    def _measure(self, plan: VideoPlan | AudioPlan, making: Path) -> Record:
        segments = sorted(path for path in making.iterdir() if path.suffix == ".m4s")
        if not segments:
            raise InputError(f"{self._film.path}: nothing in it could be decoded for {plan.name}")
        if [path.name for path in segments] != [segment_name(number) for number in range(1, len(segments) + 1)]:
            raise MachineError(f"ffmpeg left gaps among the segments of {plan.name}")
        try:
            timings = tuple(segment_timing(path.read_bytes()) for path in segments)
            is_video = isinstance(plan, VideoPlan)
            codecs = video_codec((making / INIT).read_bytes()) if is_video else _AUDIO_CODEC
        except BoxError as error:
            raise MachineError(f"ffmpeg wrote {plan.name} in a form we do not expect: {error}") from error
        _require_whole(plan, timings)
        key = self._key(plan)
        if key:
            _encrypt(key, making / INIT, segments)
        one_file, names = None, [INIT, *(path.name for path in segments)]
        sizes = tuple(path.stat().st_size for path in segments)
        if self._packaging is Packaging.SINGLE_FILE:
            one_file, sizes = _in_one_file(making, segments, timings)
            names = [TRACK]
        pieces = tuple(Piece(timing, size) for timing, size in zip(timings, sizes, strict=True))
        (making / PLAYLIST).write_text(hls_playlist(pieces, key, one_file))
        media_type = f"{plan.kind}/mp4"
        return Record(
            codecs=codecs,
            files=(*(_file(making / name, media_type) for name in names), _file(making / PLAYLIST, HLS_TYPE)),
            timings=tuple((timing.start, timing.duration, timing.timescale) for timing in timings),
            sizes=sizes,
            one_file=one_file,
        )


def _require_whole(plan: Plan, timings: tuple[Timing, ...]) -> None:
    """Segments that start with a keyframe and follow each other without gap, each but the last about 4 s."""
    for number, (timing, following) in enumerate(pairwise(timings), start=1):
        joined = timing.start + timing.duration == following.start
        if not (joined and timing.starts_clean and SEGMENT_SECONDS - 1 <= timing.seconds <= SEGMENT_SECONDS + 1):
            raise MachineError(f"ffmpeg cut {plan.name} wrongly at segment {number}: {float(timing.seconds):.3f} s")


def _encrypt(key: TrackKey, init: Path, segments: list[Path]) -> None:
    """In place: a run that is killed meanwhile leaves a folder that no run uses."""
    digest = hashlib.sha256()
    for path in (init, *segments):
        digest.update(bytes.fromhex(_sha256(path)))
    try:
        encryptor = Encryptor(key, init.read_bytes(), digest.digest())
        for path in segments:
            path.write_bytes(encryptor.segment(path.read_bytes()))
    except BoxError as error:
        raise MachineError(f"{init.parent.name} can't be encrypted: {error}") from error
    init.write_bytes(encryptor.init)


def _in_one_file(making: Path, segments: list[Path], timings: tuple[Timing, ...]) -> tuple[OneFile, tuple[int, ...]]:
    """Initialisation, index and all segments, in the folder's TRACK; they themselves are removed. How the file begins,
    and the size of each segment in it.
    """
    init = (making / INIT).read_bytes()
    try:
        sizes = tuple(len(fragment_of(path.read_bytes())) for path in segments)
        index = file_index(timings, sizes)
        with (making / TRACK).open("wb") as track:
            track.write(init + index)
            for path in segments:
                track.write(fragment_of(path.read_bytes()))
                path.unlink()
    except BoxError as error:
        raise MachineError(f"{making.name} can't be put in one file: {error}") from error
    (making / INIT).unlink()
    return OneFile(len(init), len(index)), sizes


def _job_digest(ffmpeg: Ffmpeg, film: Film, plans: tuple[Plan, ...], keys: Keys | None, packaging: Packaging) -> str:
    found = film.path.stat()
    recipes = [encoding(film.source, plan, *chunks_of(film.source)[:1]) for plan in plans]
    asides = [plan.file for plan in plans if isinstance(plan, AudioPlan | TextPlan) and plan.file]
    beside = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in asides]
    job = [str(film.path.resolve()), found.st_size, found.st_mtime_ns, ffmpeg.version, recipes, beside, packaging]
    # Of a key itself, nothing that a folder's name could be tried against.
    job += [
        [key.scheme, key.kid.hex(), hmac.new(key.key, b"job", hashlib.sha256).hexdigest(), *map(bytes.hex, key.pssh)]
        for key in ((keys.video, keys.audio) if keys else ())
    ]
    return hashlib.sha256(json.dumps(job).encode(errors="surrogateescape")).hexdigest()[:12]


def _file(path: Path, content_type: str) -> File:
    return File(path.name, path.stat().st_size, _sha256(path), content_type)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_work_dir() -> Path:
    """Where renditions are made unless told otherwise: on a disk, not in memory as /tmp may be."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "oca-admin"
