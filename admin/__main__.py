"""oca-admin: the operator's commands. Argv in, exit code out."""

import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from admin.bucket import Bucket
from admin.console import commands as console
from admin.crowd.app import NotFlawless, Plan, run, source_of, told
from admin.crowd.viewer import Habits
from admin.demo.app import demo, demo_smoke
from admin.errors import UsageError
from admin.fleet.app import add_commands
from admin.licence import availability_of
from admin.progress import watcher
from admin.publish.keys import Scheme, read_keys, write_new_keys
from admin.publish.publication import Order, publish
from admin.publish.renditions import HEIGHTS, Aside, Codec, Packaging
from admin.publish.source import LANGUAGE_RULE, is_language
from admin.publish.workshop import default_work_dir
from admin.reporting import reported
from admin.titles import app as titles
from admin.turnup import app as turnup
from wire.catalog import TITLE_ID_RULE, title_folder

EXIT_CODES = (
    "Exit codes: 0 done; 2 an argument can't be used; 3 the video can't be used; 4 the"
    " bucket can't be used (not there, refused, no answer, no conditional writes); 5 the title is taken; 6 this machine"
    " lacks something (ffmpeg, disk space, a package); 130 interrupted."
)

DEMO_EXIT_CODES = (
    "Exit codes: 0 it was ended, or --smoke saw what it should; 1 anything else; 130 interrupted while starting."
)


class Ladder(StrEnum):
    """Where the rates of a film's ladder come from."""

    MEASURED = "measured"
    TABLE = "table"


app = typer.Typer(
    help="The operator's tools of an open, self-hosted Open Connect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.add_typer(titles.app, name="titles")
add_commands(app)
console.add_commands(app)
turnup.add_commands(app)


@app.callback()
def commands() -> None:
    """The operator's tools of an open, self-hosted Open Connect."""


@app.command(name="publish", epilog=EXIT_CODES)
def publish_command(
    *,
    video: Annotated[
        Path, typer.Argument(metavar="VIDEO", help="The film: MP4, MOV, Matroska, MPEG-TS, AVI, MXF, ...")
    ],
    title: Annotated[str, typer.Option(metavar="ID", help=f"The title's id: {TITLE_ID_RULE}.")],
    to: Annotated[str, typer.Option(metavar="S3_URL", help="Where appliances fetch from: s3://bucket/prefix.")],
    endpoint_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The store, if it is not AWS (or AWS_ENDPOINT_URL in the environment)."),
    ] = None,
    heights: Annotated[
        str, typer.Option(help="The steps of the ladder; those larger than the film are left out.")
    ] = ",".join(map(str, HEIGHTS)),
    work_dir: Annotated[
        Path | None,
        typer.Option(help="Where renditions are made; a killed run is continued there. Default: ~/.cache/oca-admin."),
    ] = None,
    steering: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where players reach steering: they ask it while they play, and move."),
    ] = None,
    films_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="With --steering: where films are until it says better, such as the name its DNS answers for."
            " DASH is steered only with it.",
        ),
    ] = None,
    codecs: Annotated[
        str,
        typer.Option(
            help=f"How pictures are encoded: h264, which is always made, and any of {', '.join(list(Codec)[1:])}, as"
            " far as the ffmpeg at hand can. Beside the CPU time of h264, at 720p, av1 took 1.4, hevc 2.6, vp9 3.6"
            " times as much."
        ),
    ] = "h264",
    ladder: Annotated[
        Ladder,
        typer.Option(
            help="Rates of the ladder: measured in samples of the film (of a minute and more, in MP4, MOV or Matroska),"
            " or from the table that is there for all films."
        ),
    ] = Ladder.MEASURED,
    audio: Annotated[
        list[str] | None,
        typer.Option(metavar="LANG=FILE", help="A dubbing beside the film's own sound; may be repeated."),
    ] = None,
    subtitles: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LANG=FILE", help="SubRip, WebVTT or ASS beside the film's own subtitles; may be repeated."
        ),
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails/--no-thumbnails", help="Small pictures for the bar in which viewers seek.")
    ] = True,
    packaging: Annotated[
        Packaging,
        typer.Option(
            help="How segments lie at the origin: each in a file of its own, or all of a rendition in one, of which"
            " players fetch ranges."
        ),
    ] = Packaging.SEGMENTS,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Encrypt pictures and sound with these (oca-admin keys makes such a file)."),
    ] = None,
    only_in: Annotated[
        str | None, typer.Option(metavar="PT,ES", help="The only countries where it may be shown (ISO 3166-1).")
    ] = None,
    not_in: Annotated[str | None, typer.Option(metavar="RU", help="Countries where it may not be shown.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Publish a title that is published already anew.")] = False,
) -> None:
    """Encode a film, upload it, and enter it in the catalogue.

    Makes H.264 and AAC in 4 s CMAF segments under HLS and DASH manifests, the film's audio tracks and subtitles in all
    their languages, and thumbnails. A run that was interrupted, even by kill -9,
    is continued by giving the same command again: finished renditions are not encoded again, uploaded files not sent
    again. Players see the film when all of it is there, and not before.

    With --replace, viewers who watch finish on the segments they began with (those are kept, in folders named by their
    content); whoever starts later gets the new ones.
    """
    with reported("publish", interrupted="interrupted; the same command continues it"):
        order = Order(
            *(video, title, _numbers(heights), work_dir or default_work_dir()),
            is_replacement=replace,
            steering_url=steering,
            films_url=films_url,
            codecs=_codecs(codecs),
            audio=tuple(map(_aside, audio or ())),
            subtitles=tuple(map(_aside, subtitles or ())),
            has_thumbnails=thumbnails,
            is_measured=ladder is Ladder.MEASURED,
            keys=read_keys(keys) if keys else None,
            packaging=packaging,
            availability=availability_of(only_in, not_in) if only_in or not_in else None,
        )
        watching = watcher()
        publish(order, Bucket(to, endpoint_url), watching)
        watching.say(f"published: {to.rstrip('/')}{title_folder(title)}/master.m3u8 (HLS), manifest.mpd (DASH)")


@app.command(name="keys", epilog="Exit codes: 0 done; 2 the file can't be written, or is there already.")
def keys_command(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; it must not exist yet.")],
    scheme: Annotated[
        Scheme,
        typer.Option(help="cenc: AES-CTR, for Widevine and PlayReady. cbcs: AES-CBC, for FairPlay and newer ones."),
    ] = Scheme.CBCS,
) -> None:
    """Make a key file for publish --keys: a key for pictures and one for sound, of chance.

    Keep it safe, and give its keys to your licence server: without them nobody will see the film again. To use a DRM
    service's own keys, write them there; its "pssh" boxes (base64, in a list) are put into films as they are.
    """
    with reported("keys", interrupted="interrupted"):
        made = write_new_keys(file, scheme)
        watcher().say(f"{file}: {scheme}, video key {made.video.kid.hex()}, audio key {made.audio.kid.hex()}")


@app.command(name="demo", epilog=DEMO_EXIT_CODES)
def demo_command(
    *,
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A film of yours, instead of the generated clip.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The page's port; 0 takes a free one.")] = 0,
    encrypted: Annotated[
        bool, typer.Option("--encrypted", help="Encrypt the film (CBCS); the page has its keys (ClearKey).")
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke", help="Let a headless Chromium watch it, and kill what plays; exit 0 if it saw what it should."
        ),
    ] = False,
) -> None:
    """Show it all on this machine: origin, film, appliances in three cities, steering, and a page to press play.

    The origin is in memory unless OCA_DEMO_ORIGIN=s3://bucket/prefix names a real one (with the usual AWS_* variables).
    Runs until Ctrl-C; then processes and temporary files are gone.
    """
    with reported("demo", interrupted="interrupted; everything it began is ended", failed=1):
        if smoke and encrypted:
            raise UsageError("--smoke looks at the picture, which no page may do with an encrypted one: choose one")
        if smoke:
            demo_smoke(video, port, watcher())
        else:
            demo(video, port, watcher(), is_encrypted=encrypted)


@app.command(
    name="crowd",
    epilog="Exit codes: 0 done; 1 with --strict: there were stalls or errors; 2 an argument can't be used; 6 this"
    " machine lacks something (file descriptors, a package); 130 interrupted.",
)
def crowd_command(
    *,
    viewers: Annotated[int, typer.Option(min=1, help="How many watch at once.")] = 100,
    minutes: Annotated[float, typer.Option(min=0.05, max=24 * 60, help="For how long.")] = 5.0,
    ramp: Annotated[float | None, typer.Option(min=0, help="Seconds over which they come; else a tenth.")] = None,
    steering: Annotated[
        str | None, typer.Option(metavar="URL", help="They press play here (GET /v1/playback), and are steered.")
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="ID", help="With --steering: what they watch.")] = None,
    tokens: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --steering: viewers' tokens, one a line, used in turns.")
    ] = None,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="NETWORK",
            help="With --steering: where they pretend to be (X-Forwarded-For); may be repeated. Steering has to list"
            " this machine in limits.trusted_proxies.",
        ),
    ] = None,
    manifest: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Without steering: a box's own master.m3u8; may be repeated."),
    ] = None,
    seeks: Annotated[float, typer.Option(min=0, max=60, help="Of one viewer, a minute.")] = 0.1,
    stays: Annotated[float, typer.Option(min=0.05, help="Minutes that a viewer stays, in the mean.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the dice: who seeks and leaves when.")] = 0,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures there, by the second too.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw them (.png, .svg); needs matplotlib.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anybody stalled or met an error.")] = False,
) -> None:
    """Let a crowd of viewers watch over real HTTP, and say what they felt: to test a new box, or a whole service.

    Each viewer presses play, chooses renditions by what the line carries and how full its buffer is, fetches segments
    one after the other, says how it is (CMCD), follows content steering, goes to the next place when one fails, seeks,
    and leaves; a new one takes its seat. Nothing is decoded.
    """
    with reported("crowd", interrupted="interrupted"):
        source = source_of(steering, title, manifest or (), tokens, from_ or (), seed)
        seconds = minutes * 60
        plan = Plan(viewers, seconds, seconds / 10 if ramp is None else ramp, Habits(seeks, stays), seed)
        watching = watcher()
        report, account = run(plan, source, watching)
        told(report, account, watching, json, plot)
        if strict and not report.is_flawless:
            raise NotFlawless(f"{report.stalls} stalls and {sum(report.failures.values())} errors")


@app.command(
    name="fill",
    epilog="Exit codes: as oca-fill urgent has them.",
)
def fill_command(
    *,
    urgent: Annotated[
        str, typer.Option("--urgent", metavar="TITLE", help="The title that appliances bring at once, out of cycle.")
    ],
    config: Annotated[Path, typer.Option(metavar="FILE", help="The planner's settings: they name bucket and key.")],
    rendition: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only these; may be repeated.")] = None,
    site: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only these; may be repeated.")] = None,
    appliance: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only these; may be repeated.")] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="That it stays pledged.")] = 7,
) -> None:
    """Have appliances bring a title now, outside their windows and beside their orders: oca-fill urgent.

    What has no room beside what is pledged is not brought; oca-fill status and the agents' metrics say so.
    """
    words = ["urgent", "--config", str(config), "--title", urgent, "--days", str(days)]
    for name, values in (("rendition", rendition), ("site", site), ("appliance", appliance)):
        for value in values or ():
            words += [f"--{name}", value]
    # Machines meet in messages only: the planner signs, so the planner's own command is run.
    os.execv(sys.executable, [sys.executable, "-m", "fill", *words])  # noqa: S606 - a list, and our own module


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"heights {text!r} are no numbers; allowed: such as 240,360,720") from error


def _codecs(text: str) -> tuple[Codec, ...]:
    try:
        named = {Codec(part.strip().lower()) for part in text.split(",")}
    except ValueError as error:
        raise UsageError(f"codecs {text!r} can't be used; allowed: any of {', '.join(Codec)}") from error
    return tuple(codec for codec in Codec if codec in named | {Codec.H264})


def _aside(text: str) -> Aside:
    language, _, path = text.partition("=")
    if not path or not is_language(language):
        raise UsageError(f"{text!r} can't be used; allowed: LANG=FILE, where LANG is {LANGUAGE_RULE}")
    return Aside(language, Path(path))


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """The console script."""
    # What Ctrl-C does, a service manager's TERM does too: children are ended and temporary files removed.
    signal.signal(signal.SIGTERM, _interrupt)
    app()


if __name__ == "__main__":
    main()
