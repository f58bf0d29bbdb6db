"""ffmpeg: found, asked about a file, and run to encode one rendition.

The video is opened with a whitelist of formats and protocols, by its `file:` name: no file name is taken for an option
or a URL, and no file can make ffmpeg open another one or call a host.
"""

import importlib
import importlib.util
import os
import re
import select
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, Final

from admin.errors import InputError, MachineError
from admin.processes import end, tethered
from admin.publish.chunks import SEGMENT_SECONDS, Chunk
from admin.publish.manifests import INIT, SHEET, WORDS
from admin.publish.renditions import (
    AUDIO_BPS,
    AUDIO_CHANNELS,
    AUDIO_HERTZ,
    ENCODERS,
    SHEET_SIDE,
    AudioPlan,
    Codec,
    ImagePlan,
    Plan,
    TextPlan,
    VideoPlan,
)
from admin.publish.source import FORMATS, Source, has_video, read_source

# 5.1 and 7.0, which were tried, write segments in which players miss the end of a film, shift subtitles by the delay of
# its sound, and break down over a part without pictures.
_OLDEST: Final = 9
_MIN_LINES: Final = 16
_ASK_DEADLINE: Final = 60.0
# An encode may take hours, but its progress never stands still this long, even on a network disk.
_STALL_DEADLINE: Final = 180.0
_LOOK: Final = 1.0
# Seconds decoded before a part: filters look back, and a picture is shown until the next one.
_PREROLL: Final = 2
_QUIET: Final = ("-hide_banner", "-nostdin")
_TEXT_FORMATS: Final = {"SubRip": "srt", "WebVTT": "webvtt", "ASS/SSA": "ass"}
_SOUND_FORMATS: Final = {"MP3": "mp3", "FLAC": "flac", "WAV": "wav", "AAC": "aac", "AC-3": "ac3", "E-AC-3": "eac3"}
# Sentences that go with every failure and explain none.
_HOLLOW: Final = re.compile(
    r"Conversion failed!|Error opening (in|out)put|Nothing was written into output|Format not on whitelist"
    r"|Format .* misdetection possible|Task finished with error|Terminating thread"
)
_COMPLAINT: Final = re.compile(r"(\[[^\]]+\] )+(.+)")


@dataclass(frozen=True)
class Ffmpeg:
    """An ffmpeg that has the encoders we need. `version` tells builds apart: two may encode to different bytes.

    `codecs` are those it can make.
    """

    path: str
    version: str
    codecs: frozenset[Codec] = frozenset({Codec.H264})


@dataclass(frozen=True)
class Film:
    """A video file, and what it is."""

    path: Path
    source: Source


def find_ffmpeg() -> Ffmpeg:
    """The ffmpeg on PATH if it is new enough and can encode H.264 and AAC, else that of the package imageio-ffmpeg."""
    on_path, why = shutil.which("ffmpeg"), "there is none on PATH"
    for path in (on_path, _bundled()):
        if path is None:
            continue
        found = _usable(path)
        if found and not _is_old(found):
            return found
        why = f"{path} lacks libx264 or aac" if found is None else f"{path} is {found.version[:40]}"
    raise MachineError(
        f"no usable ffmpeg: {why}; install ffmpeg {_OLDEST} or newer with libx264, or: pip install 'open-oca[encode]'"
    )


def _is_old(ffmpeg: Ffmpeg) -> bool:
    """Whether it is of a release before those that were tried; builds between releases say N- and a count."""
    told = re.match(r"ffmpeg version n?(\d+)\.", ffmpeg.version)
    return told is not None and int(told[1]) < _OLDEST


def probe(ffmpeg: Ffmpeg, video: Path) -> Film:
    """The film in this file. Raises InputError naming what is wrong with it."""
    _require_readable(video)
    look = ("-map", "0:V:0", "-frames:v", "1", "-vf", "showinfo=checksum=0", "-f", "null", "-")
    try:
        asked = subprocess.run(
            tethered([ffmpeg.path, *_QUIET, "-loglevel", "repeat+info", *_opened(video), *look]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{video}: ffmpeg could not say within {_ASK_DEADLINE:.0f} s what this file is") from error
    banner = asked.stderr.decode(errors="replace")
    source = read_source(banner)
    if asked.returncode == 0 and source is not None:
        return Film(video, source)
    if "Input #0" not in banner:
        raise InputError(f"{video}: not a video ({_reason(banner)}); allowed: {', '.join(FORMATS)}")
    if not has_video(banner):
        raise InputError(f"{video}: no video stream in it; a film needs one (sound is optional)")
    raise InputError(f"{video}: its first picture can't be decoded ({_reason(banner)})")


def encoding(source: Source, plan: Plan, chunk: Chunk | None = None) -> tuple[str, ...]:
    """ffmpeg's arguments for one rendition, or a part of one, between the input and the output.

    Every video rendition gets the same constant frame rate from time 0 on, and a keyframe at the first frame of each
    fourth second and nowhere else: so segments are aligned across renditions without being told of each other.
    """
    match plan:
        case VideoPlan():
            return (
                *("-map", "0:V:0", "-vf", _pictures(source, plan, chunk)),
                *_compression(plan, is_part=chunk is not None),
                *("-force_key_frames", f"expr:{_keyframes(source, chunk)}"),
                *(("-frames:v", str(chunk.pictures)) if chunk and chunk.pictures else ()),
            )
        case AudioPlan():
            # async fills gaps with silence, first_pts=0 starts with the picture: sound and lips stay together.
            sound = f"aresample={AUDIO_HERTZ}:async=1:first_pts=0"
            return (
                *("-map", f"0:a:{plan.track.index}", "-af", sound, "-ac", str(AUDIO_CHANNELS)),
                *("-c:a", "aac", "-b:a", str(AUDIO_BPS)),
            )
        case TextPlan():
            return ("-map", f"0:s:{plan.track.index}", "-c:s", "webvtt")
        case ImagePlan():
            pictures = (
                f"fps=1/{plan.interval}:start_time=0:round=up,scale={plan.width}:{plan.height}:flags=bicubic:out_range=pc"
                f",setsar=1,format=yuvj420p,tile={SHEET_SIDE}x{SHEET_SIDE}"
            )
            return ("-map", "0:V:0", "-vf", pictures, "-c:v", "mjpeg", "-q:v", "5", "-threads", "1")


def _pictures(source: Source, plan: VideoPlan, chunk: Chunk | None) -> str:
    # The deinterlacer leaves progressive pictures as they are, and refuses those of a few lines.
    weave = "bwdif=mode=send_frame:deint=interlaced," if min(source.width, source.height) >= _MIN_LINES else ""
    # Of a part, pictures keep the film's own times until the constant rate has its first; then it begins at 0.
    start = f"{float(chunk.first / source.rate):.9f},setpts=PTS-STARTPTS" if chunk else "0"
    return (
        f"{weave}fps={source.rate}:start_time={start}"
        f",scale={plan.width}:{plan.height}:flags=bicubic,setsar=1,format=yuv420p"
    )


def _keyframes(source: Source, chunk: Chunk | None) -> str:
    """At the first picture of each fourth second of the film, by its time; in a part by its number, which is exact."""
    if chunk is None:
        return f"gte(t,n_forced*{SEGMENT_SECONDS})"
    rate = source.rate
    number = f"ceil(({chunk.second}+n_forced*{SEGMENT_SECONDS})*{rate.numerator}/{rate.denominator}-0.000001)"
    return f"gte(n,{number}-{chunk.first})"


def _compression(plan: VideoPlan, *, is_part: bool) -> tuple[str, ...]:
    """Capped quality, a keyframe only where one is forced, and the same bytes on any number of cores."""
    capped = ("-maxrate", str(plan.peak_bps), "-bufsize", str(2 * plan.peak_bps))
    match plan.codec:
        case Codec.H264:
            # Without sync-lookahead=0, a rate cap and threads gave other bytes in 7 of 30 runs (0 of 30 with it):
            # a film published twice would not be known as the same.
            return (
                *("-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high", "-crf", "22", *capped),
                *("-x264-params", "keyint=infinite:scenecut=0:open-gop=0:sync-lookahead=0", "-forced-idr", "1"),
                *(("-threads", "1") if is_part else ()),
            )
        case Codec.HEVC:
            still = "log-level=error:keyint=-1:scenecut=0:open-gop=0:frame-threads=1:info=0"
            still += ":pools=none" if is_part else ""
            return (
                # hvc1: parameter sets stand in the initialisation segment only, as CMAF and Apple want.
                *("-c:v", "libx265", "-preset", "fast", "-tag:v", "hvc1", "-crf", "25", *capped),
                *("-x265-params", still, "-forced-idr", "1"),
            )
        case Codec.VP9:
            return (
                *("-c:v", "libvpx-vp9", "-deadline", "good", "-cpu-used", "4", "-row-mt", "0", "-threads", "1"),
                *("-crf", "33", "-b:v", str(plan.peak_bps * 9 // 10), *capped, "-g", "999999"),
            )
        case Codec.AV1:
            # It has no "never": a keyframe of its own accord comes after an hour.
            return (
                *("-c:v", "libsvtav1", "-preset", "8", "-crf", "35", *capped),
                *("-g", "99999", "-svtav1-params", "lp=1"),
            )


def encode(
    ffmpeg: Ffmpeg,
    film: Film,
    plan: Plan,
    folder: Path,
    on_progress: Callable[[float], None],
    chunk: Chunk | None = None,
    stop: Event | None = None,
) -> None:
    """Write the rendition's initialisation and media segments into `folder`, or those of one part. A part that begins
    behind the last picture leaves it empty. When `stop` is set, the work ends, unfinished.

    `on_progress` is told how many seconds of film are done. Raises InputError when ffmpeg can't make it from this file,
    MachineError when this machine is in the way.
    """
    aside = plan.file if isinstance(plan, AudioPlan | TextPlan) else None
    command = [
        *(ffmpeg.path, *_QUIET, "-y", "-loglevel", "error", "-progress", "pipe:1", "-nostats"),
        *(_sought(film.source, chunk) if chunk else ()),
        *(_opened(aside, _formats_beside(plan)) if aside else _opened(film.path)),
        *encoding(film.source, plan, chunk),
        *("-map_metadata", "-1", "-map_chapters", "-1"),
        *_written(plan, folder, chunk),
    ]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            tethered(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=os.environ | {"SVT_LOG": "1"},  # SVT-AV1 says a page of what it is before it says what is wrong.
        )
        try:
            assert process.stdout is not None
            _follow(process.stdout, on_progress, plan.name, stop)
            if stop and stop.is_set():
                process.kill()
            code = process.wait(_ASK_DEADLINE)
        except subprocess.TimeoutExpired as error:
            raise MachineError(f"ffmpeg made {plan.name} but did not end within {_ASK_DEADLINE:.0f} s") from error
        finally:
            end(process, patience=0)
            if process.stdout is not None:
                process.stdout.close()
        complaints.seek(0)
        said = complaints.read(1 << 20).decode(errors="replace")
    if "No space left on device" in said:
        raise MachineError(f"no space left on the disk of {folder.parent}; free some, or choose another --work-dir")
    if code < 0:
        raise MachineError(f"ffmpeg was ended by signal {-code} while it made {plan.name}")
    if stop and stop.is_set():
        return
    if code != 0 or (not any(folder.iterdir()) and not chunk):
        raise InputError(f"{aside or film.path}: ffmpeg could not make {plan.name} from it ({_reason(said)})")


def sample_command(
    ffmpeg: Ffmpeg, film: Film, plans: Sequence[VideoPlan], files: Sequence[Path], moment: float, seconds: int
) -> Sequence[str]:
    """ffmpeg's command that encodes so many seconds of the film from `moment` on, by each plan, into bare streams."""
    command = [ffmpeg.path, *_QUIET, "-y", "-loglevel", "error", "-ss", f"{moment:.3f}", *_opened(film.path)]
    for plan, file in zip(plans, files, strict=True):
        command += [*encoding(film.source, plan), "-t", str(seconds), "-f", "h264", str(file)]
    return command


def _sought(source: Source, chunk: Chunk) -> tuple[str, ...]:
    """From a little before the part on, in the times of the whole film."""
    moment = chunk.first / source.rate - _PREROLL
    return (*("-threads", "1", "-copyts", "-start_at_zero"), *(("-ss", f"{float(moment):.6f}") if chunk.number else ()))


def _written(plan: Plan, folder: Path, chunk: Chunk | None) -> tuple[str, ...]:
    match plan:
        case VideoPlan() | AudioPlan():
            # The manifest that ffmpeg writes beside the segments is not used (manifests.py says why).
            # A part may begin a picture after its second, and its segments be shorter by as much: each keyframe cuts.
            cut = SEGMENT_SECONDS - 0.1 if chunk else SEGMENT_SECONDS
            return (
                *("-f", "dash", "-dash_segment_type", "mp4", "-seg_duration", str(cut)),
                *(
                    "-format_options",
                    "movflags=+cmaf",
                    "-init_seg_name",
                    INIT,
                    "-media_seg_name",
                    "seg-$Number%05d$.m4s",
                ),
                str(folder / "ffmpeg.mpd"),
            )
        case TextPlan():
            return ("-f", "webvtt", str(folder / WORDS))
        case ImagePlan():
            return ("-f", "image2", str(folder / SHEET))


def require_aside(ffmpeg: Ffmpeg, plan: Plan) -> None:
    """Find out whether the file beside the film, if the plan names one, carries what it should. Raises InputError."""
    if not isinstance(plan, AudioPlan | TextPlan) or plan.file is None:
        return
    _require_readable(plan.file)
    kind = "a" if isinstance(plan, AudioPlan) else "s"
    look = ("-map", f"0:{kind}:0", "-t", "1", "-f", "null" if kind == "a" else "webvtt", "-")
    try:
        asked = subprocess.run(
            tethered(
                [ffmpeg.path, *_QUIET, "-loglevel", "repeat+error", *_opened(plan.file, _formats_beside(plan)), *look]
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{plan.file}: ffmpeg could not say within {_ASK_DEADLINE:.0f} s what this is") from error
    if asked.returncode != 0:
        what = "sound" if kind == "a" else "subtitles"
        why = _reason(asked.stderr.decode(errors="replace"))
        raise InputError(f"{plan.file}: no {what} in it ({why}); allowed: {', '.join(_formats_beside(plan))}")


def _formats_beside(plan: Plan) -> Mapping[str, str]:
    return (_TEXT_FORMATS if isinstance(plan, TextPlan) else _SOUND_FORMATS) | FORMATS


def _follow(report: IO[bytes], on_progress: Callable[[float], None], name: str, stop: Event | None) -> None:
    """Read ffmpeg's -progress lines to their end, or until `stop`. Raises MachineError when it stands still."""
    pending, last, moved_at = b"", b"", time.monotonic()
    while True:
        # A signal that comes just before the wait begins does not end it: Python hears of it when the wait is over.
        left = max(0.0, moved_at + _STALL_DEADLINE - time.monotonic())
        ready, _, _ = select.select([report], [], [], min(left, _LOOK))
        if stop and stop.is_set():
            return
        if not ready and left > _LOOK:
            continue
        if not ready:
            raise MachineError(f"ffmpeg stood still for {_STALL_DEADLINE:.0f} s while it made {name}")
        received = os.read(report.fileno(), 65536)
        if not received:
            return
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            key, _, value = line.partition(b"=")
            # It repeats itself twice a second; only a new value is progress.
            if key == b"out_time_us" and value != last and value.strip().isdigit():
                last, moved_at = value, time.monotonic()
                on_progress(int(value) / 1e6)


def _opened(video: Path, formats: Mapping[str, str] = FORMATS) -> Sequence[str]:
    allowed = ",".join(formats.values())
    return ("-protocol_whitelist", "file,pipe", "-format_whitelist", allowed, "-i", f"file:{video.absolute()}")


def _require_readable(video: Path) -> None:
    try:
        found = video.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{video}: not a regular file; a film is read several times, so it must be one")
        if found.st_size == 0:
            raise InputError(f"{video}: the file is empty")
        with video.open("rb"):
            pass
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{video}: can't be read ({why.lower()})") from error


def _usable(path: str) -> Ffmpeg | None:
    try:
        asked = subprocess.run(
            tethered([path, *_QUIET, "-encoders"]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_DEADLINE,
            check=False,
        )
        version = subprocess.run(
            tethered([path, "-version"]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    has = {words[1] for line in asked.stdout.decode(errors="replace").splitlines() if len(words := line.split()) > 1}
    if not {"libx264", "aac"} <= has:
        return None
    codecs = frozenset(codec for codec, encoder in ENCODERS.items() if encoder in has)
    return Ffmpeg(path, version.stdout.decode(errors="replace").partition("\n")[0], codecs)


def _bundled() -> str | None:
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        return None
    try:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except RuntimeError:  # its wheel for this platform carries no binary
        return None


def _reason(said: str) -> str:
    """The most telling of ffmpeg's words: the first complaint of one of its parts (which sign in brackets)."""
    complaints = [match[2].strip() for match in map(_COMPLAINT.match, said.splitlines()) if match]
    telling = [complaint for complaint in complaints if not _HOLLOW.match(complaint)]
    return (telling or ["ffmpeg knows no such kind of file"])[0][:200]
