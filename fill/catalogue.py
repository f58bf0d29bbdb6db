"""The catalogue as a table: what there is to hold, one row for each rendition, for queries.

The publisher writes a document for each title. Here they become `catalogue/renditions.parquet` of the lake. Documents
are large (each names every segment) and seldom change, so only those are read again whose ETag is another one; rows of
titles that are gone go. A document that can't be read keeps the rows it had, and is reported.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import Struct

from fill.bucket import AT_ONCE, Entry
from fill.errors import InputError
from wire.catalog import Title, read_title, title_folder
from wire.codec import WireError

log = logging.getLogger(__name__)

TITLES: Final = "catalogue/titles/"
RENDITIONS: Final = "catalogue/renditions.parquet"
_MOST_BYTES: Final = 64 * 1024 * 1024
"""Of a document: a film of three hours in twenty renditions is 11 MB."""
_ETAG: Final = "etag"
SCHEMA: Final = pa.schema(
    [
        ("number", pa.int32()),
        ("title", pa.string()),
        ("folder", pa.string()),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("size_bytes", pa.int64()),
        ("duration", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("codecs", pa.string()),
        ("bandwidth_bps", pa.int64()),
        ("objects", pa.int32()),
        ("published_at", pa.timestamp("ms", tz="UTC")),
        (_ETAG, pa.string()),  # of the document it comes from
    ]
)


class Shelf(Protocol):
    """Where the documents lie (fill/bucket.py)."""

    def entries(self, prefix: str) -> Iterable[Entry]: ...
    def read(self, key: str, most_bytes: int) -> bytes | None: ...


def rows_of(document: Title, etag: str) -> list[dict[str, object]]:
    """A title's renditions. One whose objects lie in several folders, or outside the title's, has no row: nobody could
    tell its demand or ask for it. A title that is withdrawn has none: nobody wishes for it.
    """
    if document.withdrawn_at is not None:
        return []
    above = title_folder(document.title) + "/"
    rows: list[dict[str, object]] = []
    for rendition in document.renditions:
        folders = {item.path.rpartition("/")[0] for item in rendition.objects}
        if len(folders) != 1:
            continue
        (folder,) = folders
        if not folder.startswith(above) or "/" in folder.removeprefix(above):
            continue
        rows.append(
            {
                "number": rendition.number,
                "title": document.title,
                "folder": folder,
                "kind": rendition.kind.value,
                "name": rendition.name,
                "size_bytes": rendition.size_bytes,
                "duration": rendition.duration,
                "width": rendition.width,
                "height": rendition.height,
                "codecs": rendition.codecs,
                "bandwidth_bps": rendition.bandwidth_bps,
                "objects": len(rendition.objects),
                "published_at": document.published_at.replace(microsecond=0),
                _ETAG: etag,
            }
        )
    return rows


def refresh(shelf: Shelf, lake: Path, reached: Callable[[int, int], None] = lambda _done, _of: None) -> str:
    """Bring the lake's table up to date, and return the digest of what it says. `reached`: documents read, of how many.

    Raises `BucketError`, and `InputError` if two renditions claim one number.
    """
    path = lake / RENDITIONS
    path.parent.mkdir(parents=True, exist_ok=True)
    known = _known(path)
    before: dict[str, str] = dict(zip(known["title"].to_pylist(), known[_ETAG].to_pylist(), strict=True))
    now = {
        entry.key.removeprefix(TITLES).removesuffix(".json"): entry.etag
        for entry in shelf.entries(TITLES)
        if entry.key.endswith(".json")
    }
    changed = sorted(title for title, etag in now.items() if before.get(title) != etag)
    fresh: list[dict[str, object]] = []
    done: set[str] = set()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for title, rows in pool.map(lambda title: (title, _read(shelf, title, now[title])), changed):
            if rows is not None:
                fresh += rows
                done.add(title)
            reached(len(done), len(changed))
    stays = [title in now and title not in done for title in known["title"].to_pylist()]
    table = pa.concat_tables([known.filter(pa.array(stays, pa.bool_())), pa.Table.from_pylist(fresh, SCHEMA)])
    table = table.sort_by("number").combine_chunks()
    _require_distinct(table)
    beside = path.with_name(f".{path.name}.new")
    pq.write_table(table, beside, compression="zstd")
    beside.replace(path)
    return _digest(dict(zip(table["title"].to_pylist(), table[_ETAG].to_pylist(), strict=True)))


class Known(Struct, frozen=True, gc=False):
    """A rendition, for whoever asks by its number."""

    number: int
    title: str
    name: str
    folder: str
    size_bytes: int


def renditions(lake: Path) -> dict[int, Known]:
    """All of the lake's table, by number. Raises `InputError`."""
    try:
        table = pq.read_table(lake / RENDITIONS, columns=["number", "title", "name", "folder", "size_bytes"])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{lake / RENDITIONS}: can't be read: {error}") from error
    columns = (table[name].to_pylist() for name in ("number", "title", "name", "folder", "size_bytes"))
    return {row[0]: Known(*row) for row in zip(*columns, strict=True)}


def digest_of(lake: Path) -> str:
    """Of the table as it lies there, as `refresh` gave it. Raises `InputError`."""
    try:
        table = pq.read_table(lake / RENDITIONS, columns=["title", _ETAG])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{lake / RENDITIONS}: can't be read; run oca-fill sync: {error}") from error
    return _digest(dict(zip(table["title"].to_pylist(), table[_ETAG].to_pylist(), strict=True)))


def _digest(etags: dict[str, str]) -> str:
    text = "\n".join(f"{title} {etag}" for title, etag in sorted(etags.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _known(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        return SCHEMA.empty_table()
    except (OSError, pa.ArrowInvalid) as error:
        log.warning("%s can't be read, and is made anew: %s", path, error)
        return SCHEMA.empty_table()
    # A table of another version of ours is made anew.
    return table if table.schema.equals(SCHEMA) else SCHEMA.empty_table()


def _read(shelf: Shelf, title: str, etag: str) -> list[dict[str, object]] | None:
    """None: the document can't be read, or is gone since it was listed."""
    try:
        body = shelf.read(f"{TITLES}{title}.json", _MOST_BYTES)
        return None if body is None else rows_of(read_title(body), etag)
    except WireError as error:
        log.warning("the catalogue's document of %s is left out: %s", title, error)
        return None


def _require_distinct(table: pa.Table) -> None:
    numbers = table["number"]
    if len(pc.unique(numbers)) == len(numbers):
        return
    counts = pc.value_counts(numbers.combine_chunks())
    twice = sorted(row["values"] for row in counts.to_pylist() if row["counts"] > 1)
    titles = sorted(set(table.filter(pc.equal(numbers, twice[0]))["title"].to_pylist()))
    raise InputError(
        f"the catalogue gives number {twice[0]} to renditions of {' and '.join(titles)}; each has one of its own"
    )
