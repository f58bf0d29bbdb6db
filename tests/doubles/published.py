"""A small film in the catalogue of an origin: renditions of some segments, and the document that tells of them."""

import datetime as dt
import hashlib

from tests.doubles.origin import Origin
from wire.catalog import CatalogObject, Kind, Rendition, Title, title_folder, title_path
from wire.codec import encode


def rendition(title: str, number: int, sizes: dict[str, int], folder: str = "") -> Rendition:
    """Objects of these sizes, by their names in the rendition's folder."""
    folder = f"{title_folder(title)}/{folder or f'video.{number:04x}'}"
    objects = tuple(
        CatalogObject(f"{folder}/{name}", size, hashlib.sha256(name.encode()).hexdigest(), "video/mp4")
        for name, size in sizes.items()
    )
    return Rendition(
        number=number,
        name=f"video-{number}",
        kind=Kind.VIDEO,
        codecs="avc1.640015",
        bandwidth_bps=1,
        average_bps=1,
        size_bytes=sum(sizes.values()),
        duration=4.0,
        objects=objects,
    )


def document(title: str, *renditions: Rendition) -> Title:
    return Title(
        title=title,
        published_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        duration=4.0,
        manifests=(),
        renditions=renditions,
    )


def publish(origin: Origin, title: str, *renditions: Rendition) -> Title:
    """Objects first, the document last."""
    for one in renditions:
        for item in one.objects:
            origin.put(item.path, item.size_bytes)
    published = document(title, *renditions)
    origin.put(title_path(title), encode(published), cache_control="max-age=60")
    return published
