"""`oca-admin titles`: argv in, tables or JSON out."""

import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from admin.bucket import Bucket
from admin.errors import UsageError
from admin.licence import availability_of, in_words
from admin.progress import Silence, Watcher, watcher
from admin.reporting import reported
from admin.titles.documents import all_titles, damages, license_title, one_title, restore, withdraw
from wire.catalog import Title

app = typer.Typer(
    help="What was published: look at it, withdraw and restore it, and say where it may be shown.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_CODES = (
    "Exit codes: 0 done; 1 list: a title could not be read, show --verify: an object is not as it should be; 2 an"
    " argument can't be used, or there is no such title; 4 the bucket can't be used; 5 others changed it all the time."
)
_INTERRUPTED = "interrupted"

At = Annotated[str, typer.Option("--at", metavar="S3_URL", help="Where it was published to: s3://bucket/prefix.")]
Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint-url", metavar="URL", help="The store, if it is not AWS (or AWS_ENDPOINT_URL)."),
]
Name = Annotated[str, typer.Argument(metavar="ID", help="The title's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


@app.command(name="list", epilog=_CODES)
def list_command(*, at: At, endpoint_url: Endpoint = None, json: AsJson = False) -> None:
    """List all titles: when they were published, how large they are, where they may be shown, and whether they may."""
    with reported("titles list", interrupted=_INTERRUPTED):
        found = all_titles(Bucket(at, endpoint_url), _watcher(as_json=json))
        if json:
            _print_json([_summary(title) for title in found.titles.values()])
        else:
            table = Table("title", "published", "length", "renditions", "size", "may be shown", "state")
            for title in found.titles.values():
                table.add_row(*map(escape, _row(title)))
            Console().print(table)
    for name, why in found.unreadable.items():
        sys.stderr.write(f"oca-admin titles list: {name} can't be read: {why}\n")
    if found.unreadable:
        raise typer.Exit(1)


@app.command(name="show", epilog=_CODES)
def show_command(
    *,
    title: Name,
    at: At,
    endpoint_url: Endpoint = None,
    json: AsJson = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare each object's size and checksum with the bucket's.")
    ] = False,
) -> None:
    """Show all that is known of a title."""
    wrong: list[str] = []
    with reported("titles show", interrupted=_INTERRUPTED):
        bucket = Bucket(at, endpoint_url)
        found = one_title(bucket, title)
        if verify:
            wrong = damages(bucket, found, _watcher(as_json=json))
        if json:
            _print_json(_summary(found) | {"damages": wrong} if verify else _summary(found))
        else:
            _show(found)
    for damage in () if json else wrong:
        sys.stderr.write(f"oca-admin titles show: {damage}\n")
    if wrong:
        raise typer.Exit(1)


@app.command(name="withdraw", epilog=_CODES)
def withdraw_command(
    *,
    title: Name,
    at: At,
    endpoint_url: Endpoint = None,
    reason: Annotated[str | None, typer.Option(help="Kept with the title, for operators.")] = None,
) -> None:
    """Let nobody begin to play a title any more. Whoever plays it finishes; its files stay, and may be restored.

    Steering heeds it within its refresh of the catalogue (content.refresh), the planner with its next plan.
    """
    with reported("titles withdraw", interrupted=_INTERRUPTED):
        found, is_new = withdraw(Bucket(at, endpoint_url), title, reason)
        watcher().say(f"{title}: {'' if is_new else 'was already '}{_state(found)}")


@app.command(name="restore", epilog=_CODES)
def restore_command(*, title: Name, at: At, endpoint_url: Endpoint = None) -> None:
    """Take a withdrawal back."""
    with reported("titles restore", interrupted=_INTERRUPTED):
        _, is_new = restore(Bucket(at, endpoint_url), title)
        watcher().say(f"{title}: {'may be played again' if is_new else 'was not withdrawn'}")


@app.command(name="licence", epilog=_CODES)
def licence_command(
    *,
    title: Name,
    at: At,
    endpoint_url: Endpoint = None,
    only_in: Annotated[str | None, typer.Option(metavar="PT,ES", help="The only countries where it may be.")] = None,
    not_in: Annotated[str | None, typer.Option(metavar="RU", help="Countries where it may not be.")] = None,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="It may be shown everywhere.")] = False,
) -> None:
    """Say in which countries a title may be shown, in place of what was said before."""
    with reported("titles licence", interrupted=_INTERRUPTED):
        if everywhere == bool(only_in or not_in):
            raise UsageError("say where: --everywhere, or --only-in and --not-in")
        found, is_new = license_title(Bucket(at, endpoint_url), title, availability_of(only_in, not_in))
        watcher().say(f"{title}: may{'' if is_new else ' (as before)'} be shown {in_words(found.availability)}")


def _watcher(*, as_json: bool) -> Watcher:
    return Silence() if as_json else watcher()


def _state(title: Title) -> str:
    if title.withdrawn_at is None:
        return "published"
    return f"withdrawn since {title.withdrawn_at:%Y-%m-%d %H:%M} UTC" + (
        f" ({title.withdrawal_reason})" if title.withdrawal_reason else ""
    )


def _row(title: Title) -> tuple[str, ...]:
    return (
        title.title,
        f"{title.published_at:%Y-%m-%d %H:%M}",
        _clock(title.duration),
        str(len(title.renditions)),
        _size(sum(rendition.size_bytes for rendition in title.renditions)),
        in_words(title.availability),
        _state(title),
    )


def _show(title: Title) -> None:
    console = Console()
    console.print(
        escape(
            f"{title.title}: {_state(title)}, {_clock(title.duration)}, published"
            f" {title.published_at:%Y-%m-%d %H:%M} UTC, may be shown {in_words(title.availability)}"
        )
    )
    for manifest in title.manifests:
        console.print(escape(f"  {manifest.path} ({manifest.content_type})"))
    table = Table(
        "number", "rendition", "kind", "codecs", "shape", "language", "mean", "peak", "size", "objects", "key"
    )
    for one in title.renditions:
        shape = f"{one.width}x{one.height}" if one.width else ""
        rates = (f"{bps / 1e6:.2f} Mbit/s" for bps in (one.average_bps, one.bandwidth_bps))
        key = f"{one.protection.scheme} {one.protection.kid}" if one.protection else ""
        cells = (str(one.number), one.name, str(one.kind), one.codecs, shape, one.language or "", *rates)
        table.add_row(*map(escape, (*cells, _size(one.size_bytes), str(len(one.objects)), key)))
    console.print(table)


def _summary(title: Title) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(title)
    for rendition in told["renditions"]:
        rendition["objects"] = len(rendition["objects"])
    return told


def _print_json(what: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(what), indent=2).decode() + "\n")


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
