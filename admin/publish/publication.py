"""Publishing one film, step by step; each step can be killed and done again.

What is written, and in which order: first the renditions, each in a folder whose name carries a digest of its bytes (so
what a cache keeps for ever is never overwritten), then their numbers, then the two manifests, and last the title's
document in the catalogue. Until the manifests are there, no player and no planner can see any of it.

Manifests and the title's document are written only if they are still as they were when this run began: of two runs that
publish one title, the second to finish stops and says so.
"""

import datetime as dt
import hashlib
import math
import os
import random
import re
import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Final

from admin.bucket import UPLOADS_AT_ONCE, WHOLE_BYTES, Bucket, FileUpload, Upload
from admin.errors import ConditionFailed, InputError, MachineError, StoreError, StoreRefused, TitleTaken, UsageError
from admin.progress import Step, Watcher
from admin.publish.chunks import Chunk, chunks_of
from admin.publish.complexity import fitted
from admin.publish.encoder import Ffmpeg, Film, encode, find_ffmpeg, probe, require_aside
from admin.publish.keys import Keys
from admin.publish.manifests import DASH, HLS, Shown, Steered, dash_manifest, hls_master
from admin.publish.numbers import claimed, settled
from admin.publish.renditions import (
    AUDIO_CHANNELS,
    ENCODERS,
    PEAK_BPS,
    Aside,
    AudioPlan,
    Codec,
    ImagePlan,
    Packaging,
    Plan,
    TextPlan,
    VideoPlan,
    Wanted,
    planned,
)
from admin.publish.source import LANGUAGE_RULE, is_language
from admin.publish.workshop import File, Finished, Workshop
from wire.catalog import (
    DASH_TYPE,
    HLS_TYPE,
    NUMBERS_PATH,
    TITLE_ID_RULE,
    Availability,
    CatalogObject,
    Protection,
    Rendition,
    RenditionNumbers,
    Title,
    is_title_id,
    read_numbers,
    read_title,
    title_folder,
    title_path,
)
from wire.codec import WireError
from wire.codec import encode as encode_message

FOR_EVER: Final = "public, max-age=31536000, immutable"
#: Short, so that a film published anew is seen at once; stale ones are right as well (their segments stay), and better
#: than none when the origin is away.
BRIEFLY: Final = "public, max-age=5, stale-while-revalidate=30, stale-if-error=604800"
_NEVER: Final = "no-cache"
_JSON: Final = "application/json"
# What may stand in a playlist's quoted string and in a host name.
_BASE_URL: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")

# A file may end a little before its header says; one that breaks off ends much before.
_MISSING_SECONDS: Final = 1.0
_MISSING_SHARE: Final = 0.005
# Publishers meet for milliseconds, a few at a time; far beyond this, something else is wrong.
_CLAIM_DEADLINE: Final = 60.0


@dataclass(frozen=True)
class Order:
    """What the operator asked for. `is_replacement`: the title may be published already. Of the two URLs, see
    `manifests.Steered`; without `steering_url` players are not told of steering.
    """

    video: Path
    title: str
    heights: tuple[int, ...]
    work_dir: Path
    is_replacement: bool
    steering_url: str | None = None
    films_url: str | None = None
    codecs: tuple[Codec, ...] = (Codec.H264,)
    audio: tuple[Aside, ...] = ()
    subtitles: tuple[Aside, ...] = ()
    has_thumbnails: bool = False
    is_measured: bool = False
    """The film's own complexity chooses the ladder's rates, if it is long enough to say."""
    keys: Keys | None = None
    """None: it stays in the clear."""
    packaging: Packaging = Packaging.SEGMENTS
    availability: Availability | None = None
    """None: as the title had it, or everywhere."""

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.heights, self.codecs, self.audio, self.subtitles, self.has_thumbnails)

    @property
    def steered(self) -> Steered | None:
        if self.steering_url is None:
            return None
        return Steered(title_folder(self.title), self.steering_url, self.films_url)


@dataclass(frozen=True)
class Standing:
    """How the title stood in the bucket when this run began: ETags, None for what was not there."""

    title: Title | None
    etags: dict[str, str | None]


def publish(order: Order, bucket: Bucket, watcher: Watcher) -> Title:
    """Publish the film and return its entry in the catalogue. Raises AdminError; then no player sees any of it."""
    _require_sense(order)
    ffmpeg = find_ffmpeg()
    _require_encoders(order, ffmpeg)
    with watcher.step("probe", None) as step:
        film = probe(ffmpeg, order.video)
        plans = planned(film.source, order.wanted)
        for plan in plans:
            require_aside(ffmpeg, plan)
        step.note(_description(film))
    with watcher.step("bucket", None) as step:
        bucket.require_usable()
        bucket.require_conditional_writes()
        standing = _standing(order.title, bucket)
        step.note(bucket.url)
    if order.is_measured:
        plans = fitted(ffmpeg, film, plans, order.work_dir, watcher)
    with Workshop(order.work_dir, order.title, ffmpeg, film, plans, order.keys, order.packaging) as workshop:
        if standing.title and not order.is_replacement:
            return _resumed_at_the_end(standing.title, plans, workshop, bucket)
        made = _encode_all(ffmpeg, film, plans, workshop, watcher)
        watcher.say(_cost(made))
        with watcher.step("upload", sum(rendition.size_bytes for rendition in made)) as step:
            _upload_all(order.title, made, bucket, step)
        with watcher.step("catalogue", None) as step:
            title = _enter(order, made, standing, bucket)
            step.note(f"renditions {', '.join(str(rendition.number) for rendition in title.renditions)}")
        workshop.discard()
    return title


def _require_sense(order: Order) -> None:
    if not is_title_id(order.title):
        raise UsageError(f"title {order.title!r} can't be used; allowed: {TITLE_ID_RULE}")
    if not order.heights or not set(order.heights) <= PEAK_BPS.keys():
        asked = ",".join(map(str, order.heights))
        raise UsageError(f"heights {asked!r} can't be used; allowed: any of {', '.join(map(str, PEAK_BPS))}")
    if order.keys and order.codecs != (Codec.H264,):
        raise UsageError("only H.264 and AAC can be encrypted; leave the other codecs, or the keys, out")
    for aside in (*order.audio, *order.subtitles):
        if not is_language(aside.language):
            raise UsageError(f"language {aside.language!r} can't be used; allowed: {LANGUAGE_RULE}")
    for url in (order.steering_url, order.films_url):
        if url is not None and not _BASE_URL.fullmatch(url):
            raise UsageError(f"{url!r} can't be used; allowed: http(s)://host or http(s)://host:port")
    if order.films_url is not None and order.steering_url is None:
        raise UsageError("--films-url says where films are until --steering says better; give both")


def _require_encoders(order: Order, ffmpeg: Ffmpeg) -> None:
    lacking = [ENCODERS[codec] for codec in order.codecs if codec not in ffmpeg.codecs]
    if lacking:
        able = ", ".join(codec for codec in Codec if codec in ffmpeg.codecs)
        raise MachineError(f"{ffmpeg.path} lacks {', '.join(lacking)}; it can make: {able}")


def _standing(title: str, bucket: Bucket) -> Standing:
    document = bucket.read(title_path(title))
    etags = {path: bucket.etag(path) for path in (_manifest_path(title, HLS), _manifest_path(title, DASH))}
    if document is None:
        return Standing(None, etags | {title_path(title): None})
    try:
        return Standing(read_title(document.body), etags | {title_path(title): document.etag})
    except WireError as error:
        raise StoreRefused(f"{bucket.url}{title_path(title)}: {error}") from error


def _resumed_at_the_end(published: Title, plans: tuple[Plan, ...], workshop: Workshop, bucket: Bucket) -> Title:
    """The title, if it was published by the run that this one continues, killed before it could clear up."""
    made = [workshop.finished(plan) for plan in plans]
    folders = [_folder(published.title, rendition) for rendition in made if rendition]
    if len(folders) != len(plans) or sorted(folders) != sorted(map(_folder_of, published.renditions)):
        workshop.discard_if_empty()
        raise TitleTaken(
            f"{published.title} is published already ({published.published_at:%Y-%m-%d %H:%M} UTC);"
            " choose another --title, or --replace it"
        )
    _change_numbers(bucket, lambda numbers: settled(numbers, folders))
    workshop.discard()
    return published


def _encode_all(
    ffmpeg: Ffmpeg, film: Film, plans: tuple[Plan, ...], workshop: Workshop, watcher: Watcher
) -> tuple[Finished, ...]:
    made: list[Finished] = []
    for plan in plans:
        with watcher.step(f"encode {plan.name}", film.source.duration) as step:
            rendition = workshop.finished(plan)
            if rendition:
                step.note(f"made before, {_size(rendition.size_bytes)}")
            else:
                chunks = chunks_of(film.source)
                if chunks and isinstance(plan, VideoPlan):
                    making = _encode_in_parts(ffmpeg, film, plan, chunks, workshop, step)
                else:
                    making = workshop.begin()
                    encode(ffmpeg, film, plan, making, step.reach)
                rendition = workshop.finish(plan, making)
                step.note(f"{_shape(rendition)}, {_size(rendition.size_bytes)}")
        made.append(rendition)
        if isinstance(plan, VideoPlan):
            _require_not_broken_off(film, made)
    _require_aligned(made)
    return tuple(made)


def _encode_in_parts(
    ffmpeg: Ffmpeg, film: Film, plan: VideoPlan, chunks: tuple[Chunk, ...], workshop: Workshop, step: Step
) -> Path:
    """As many parts at once as there are cores, then all of them joined in one folder."""
    reached = dict.fromkeys(chunks, 0.0)
    stop, lock = Event(), Lock()

    def make(chunk: Chunk) -> None:
        def reach(seconds: float) -> None:
            with lock:
                reached[chunk] = seconds
                done = sum(reached.values())
            step.reach(done)

        if not workshop.has_part(plan, chunk) and not stop.is_set():
            making = workshop.begin()
            encode(ffmpeg, film, plan, making, reach, chunk, stop)
            if not stop.is_set():
                workshop.keep_part(plan, chunk, making)
        if chunk.pictures:
            reach(float(chunk.pictures / film.source.rate))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        pending = {pool.submit(make, chunk) for chunk in chunks}
        try:
            while pending:
                # Not for ever: a signal that comes just before a wait begins would not end it.
                done, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return workshop.join(plan, chunks)


def _require_not_broken_off(film: Film, made: list[Finished]) -> None:
    said, found = film.source.duration, max(rendition.ends_at for rendition in made if rendition.is_media)
    if said is not None and found < said - max(_MISSING_SECONDS, said * _MISSING_SHARE):
        raise InputError(
            f"{film.path}: breaks off at {found:.1f} s of {said:.1f} s: truncated or damaged; a film must be whole"
        )


def _require_aligned(made: list[Finished]) -> None:
    videos = [rendition for rendition in made if isinstance(rendition.plan, VideoPlan)]
    for video in videos[1:]:
        if [piece.timing for piece in video.encoded.pieces] != [piece.timing for piece in videos[0].encoded.pieces]:
            raise MachineError(f"ffmpeg cut {video.plan.name} otherwise than {videos[0].plan.name}")


def _upload_all(title: str, made: tuple[Finished, ...], bucket: Bucket, step: Step) -> None:
    """Write every rendition's files that are not there yet with the same size and checksum."""
    total = sum(rendition.size_bytes for rendition in made)
    lock = Lock()
    done = kept = 0

    def reach(more: int) -> None:
        nonlocal done
        with lock:
            done += more
            step.reach(done)

    def upload(rendition: Finished, place: int, sizes: dict[str, int]) -> None:
        nonlocal kept
        file = rendition.files[place]
        path = f"{_folder(title, rendition)}/{file.name}"
        is_there = sizes.get(path) == file.size_bytes and bucket.sha256(path) == file.sha256
        if is_there:
            reach(file.size_bytes)
        else:
            _send(rendition.path / file.name, path, file, bucket, reach)
        with lock:
            kept += is_there
            step.note(f"{_size(done)} of {_size(total)}" + (f", {kept} files were there" if kept else ""))

    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        pending = [
            pool.submit(upload, rendition, place, sizes)
            for rendition in made
            for sizes in [bucket.sizes(_folder(title, rendition))]
            for place in range(len(rendition.files))
        ]
        try:
            wait(pending, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    for future in pending:
        if not future.cancelled():
            future.result()


def _enter(order: Order, made: tuple[Finished, ...], standing: Standing, bucket: Bucket) -> Title:
    """Number the renditions, write the manifests and, last, the catalogue's document."""
    title = order.title
    folders = {rendition.folder: _folder(title, rendition) for rendition in made}
    held = {_folder_of(old): old.number for old in standing.title.renditions} if standing.title else {}
    given = claim_numbers(bucket, tuple(folders.values()), held)
    shown = Shown(
        tuple(rendition.encoded for rendition in made if rendition.is_media),
        tuple(rendition.words for rendition in made if isinstance(rendition.plan, TextPlan)),
        next((rendition.sheets for rendition in made if isinstance(rendition.plan, ImagePlan)), None),
    )
    manifests = (
        Upload(_manifest_path(title, DASH), dash_manifest(shown, order.steered).encode(), DASH_TYPE, BRIEFLY),
        Upload(_manifest_path(title, HLS), hls_master(shown, order.steered).encode(), HLS_TYPE, BRIEFLY),
    )
    entry = Title(
        title=title,
        published_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        duration=max(rendition.ends_at for rendition in made if rendition.is_media),
        manifests=tuple(
            CatalogObject(manifest.path, len(manifest.body), manifest.sha256, manifest.content_type)
            for manifest in manifests
        ),
        renditions=tuple(
            _rendition(title, rendition, given[folders[rendition.folder]], float(shown.duration)) for rendition in made
        ),
        availability=_availability(order, standing),
        # Other bytes are no right to show them.
        withdrawn_at=standing.title.withdrawn_at if standing.title else None,
        withdrawal_reason=standing.title.withdrawal_reason if standing.title else None,
    )
    for manifest in manifests:
        _write_if_unchanged(manifest, standing, bucket, title)
    document = Upload(title_path(title), encode_message(entry), _JSON, _NEVER)
    _write_if_unchanged(document, standing, bucket, title)
    _change_numbers(bucket, lambda numbers: settled(numbers, folders.values()))
    return entry


def claim_numbers(bucket: Bucket, folders: tuple[str, ...], held: Mapping[str, int]) -> dict[str, int]:
    """The number of each rendition folder, claimed in the bucket; `held` are those that the catalogue gives already."""
    given: dict[str, int] = {}

    def claim(numbers: RenditionNumbers) -> RenditionNumbers:
        nonlocal given
        numbers, given = claimed(numbers, folders, held)
        return numbers

    _change_numbers(bucket, claim)
    return given


def _write_if_unchanged(upload: Upload, standing: Standing, bucket: Bucket, title: str) -> None:
    etag = standing.etags[upload.path]
    try:
        if etag is None:
            bucket.create(upload)
        else:
            bucket.replace(upload, etag)
    except ConditionFailed as error:
        # A write that was repeated because its answer was lost meets itself.
        if bucket.sha256(upload.path) != upload.sha256:
            raise TitleTaken(
                f"{title} was published by another run meanwhile; run again with --replace if yours counts"
            ) from error


def _change_numbers(bucket: Bucket, change: Callable[[RenditionNumbers], RenditionNumbers]) -> None:
    """Change the document of rendition numbers, however many publishers do so at once."""
    until = time.monotonic() + _CLAIM_DEADLINE
    while True:
        stored = bucket.read(NUMBERS_PATH)
        try:
            numbers = read_numbers(stored.body) if stored else RenditionNumbers()
        except WireError as error:
            raise StoreRefused(f"{bucket.url}{NUMBERS_PATH}: {error}") from error
        changed = change(numbers)
        if changed == numbers:
            return
        upload = Upload(NUMBERS_PATH, encode_message(changed), _JSON, _NEVER)
        try:
            if stored:
                bucket.replace(upload, stored.etag)
            else:
                bucket.create(upload)
        except ConditionFailed as error:
            if time.monotonic() > until:
                raise StoreError(
                    f"{bucket.url}{NUMBERS_PATH}: changed by others for {_CLAIM_DEADLINE:.0f} s"
                ) from error
            time.sleep(random.uniform(0.01, 0.2))
        else:
            return


def _availability(order: Order, standing: Standing) -> Availability:
    if order.availability is not None:
        return order.availability
    # A licence is of the film, not of its bytes.
    return Availability() if standing.title is None else standing.title.availability


def _rendition(title: str, made: Finished, number: int, longest: float) -> Rendition:
    encoded = made.encoded if made.is_media else None
    duration = float(encoded.duration) if encoded else longest
    average = encoded.average_bps if encoded else max(1, math.ceil(made.size_bytes * 8 / duration))
    plan = made.plan
    return Rendition(
        number=number,
        name=plan.name,
        kind=plan.kind,
        codecs=made.codecs,
        bandwidth_bps=encoded.peak_bps if encoded else average,
        average_bps=average,
        size_bytes=made.size_bytes,
        duration=duration,
        objects=tuple(
            CatalogObject(f"{_folder(title, made)}/{file.name}", file.size_bytes, file.sha256, file.content_type)
            for file in made.files
        ),
        width=plan.width if isinstance(plan, VideoPlan | ImagePlan) else None,
        height=plan.height if isinstance(plan, VideoPlan | ImagePlan) else None,
        frame_rate=str(encoded.frame_rate) if encoded and encoded.frame_rate else None,
        language=plan.track.language if isinstance(plan, AudioPlan | TextPlan) else None,
        channels=AUDIO_CHANNELS if isinstance(plan, AudioPlan) else None,
        protection=Protection(scheme=made.key.scheme.value, kid=made.key.kid.hex()) if made.key else None,
    )


def _send(made: Path, path: str, file: File, bucket: Bucket, reach: Callable[[int], None]) -> None:
    """Write one file; `reach` gets every count of bytes that went."""
    try:
        if file.size_bytes > WHOLE_BYTES:
            with made.open("rb") as body:
                found = hashlib.file_digest(body, "sha256").hexdigest()
        else:
            entry = Upload(path, made.read_bytes(), file.content_type, FOR_EVER)
            found = entry.sha256
    except OSError as error:
        raise MachineError(f"{made} can't be read ({error.strerror}); run again to make it anew") from error
    if found != file.sha256:
        raise MachineError(f"{made} changed while we worked; run again to make it anew")
    if file.size_bytes > WHOLE_BYTES:
        bucket.put_file(FileUpload(path, made, file.sha256, file.content_type, FOR_EVER), reach)
    else:
        bucket.put(entry)
        reach(file.size_bytes)


def _folder(title: str, made: Finished) -> str:
    return f"{title_folder(title)}/{made.folder}"


def _folder_of(rendition: Rendition) -> str:
    return rendition.objects[0].path.rpartition("/")[0]


def _manifest_path(title: str, name: str) -> str:
    return f"{title_folder(title)}/{name}"


def _description(film: Film) -> str:
    source = film.source
    length = f"{source.duration:.1f} s" if source.duration else "of unknown length"
    tracks = {0: "no sound", 1: "1 audio track"}.get(len(source.tracks), f"{len(source.tracks)} audio tracks")
    return f"{source.width}x{source.height}, {float(source.rate):.5g} pictures/s, {length}, {tracks}"


def _shape(made: Finished) -> str:
    match made.plan:
        case VideoPlan() as plan:
            return f"{plan.width}x{plan.height}, {len(made.encoded.pieces)} segments"
        case AudioPlan():
            return f"{len(made.encoded.pieces)} segments"
        case TextPlan() as plan:
            return plan.track.language or "of unknown language"
        case ImagePlan() as plan:
            return f"{plan.width}x{plan.height} each {plan.interval} s, {made.sheets.count} sheets"


def _cost(made: tuple[Finished, ...]) -> str:
    """What all of it took so far: CPU time of every ffmpeg of this run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    length = max(rendition.ends_at for rendition in made if rendition.is_media)
    size = sum(rendition.size_bytes for rendition in made)
    return (
        f"made {len(made)} renditions, {_size(size)}, in {seconds:.0f} CPU-seconds:"
        f" {seconds / length:.2f} for each second of film"
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
