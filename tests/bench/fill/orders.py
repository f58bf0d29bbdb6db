"""Films in a bucket and signed orders for them, as a plan would have made them: for the benches that look at agents."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fill import placement
from fill.bucket import Bucket
from tests.doubles.agents import KEY, KID
from tests.doubles.published import document
from wire.catalog import CatalogObject, Kind, Rendition, title_path
from wire.codec import encode
from wire.orders import Bring, FillOrder, Peer, order_key, signed


@dataclass
class Library:
    """Films that were made here: contents by path, and what an order says of each."""

    contents: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    brings: list[Bring] = field(default_factory=list)

    def make(self, title: str, sizes: Iterable[int]) -> None:
        """One rendition of objects of these sizes."""
        number = len(self.brings)
        folder = f"/titles/{title}/1080p.{number:04x}"
        objects = []
        for at, size in enumerate(sizes):
            path = f"{folder}/seg-{at:05}.m4s"
            self.contents[path] = os.urandom(size)
            digest = hashlib.sha256(self.contents[path]).hexdigest()
            objects.append(CatalogObject(path, size, digest, "video/mp4"))
        total = sum(item.size_bytes for item in objects)
        rendition = Rendition(
            number=number,
            name="1080p",
            kind=Kind.VIDEO,
            codecs="avc1",
            bandwidth_bps=1,
            average_bps=1,
            size_bytes=total,
            duration=60.0,
            objects=tuple(objects),
        )
        self.documents[title_path(title)] = encode(document(title, rendition))
        self.brings.append(Bring(number=number, title=title, folder=folder, size_bytes=total))

    @property
    def bytes(self) -> int:
        return sum(map(len, self.contents.values()))

    def order(self, bucket: Bucket, places: Mapping[str, tuple[str, str]], parent: str, night: str = "") -> None:
        """Have each appliance, with its site and URL, hold all of it."""
        numbers = np.array([bring.number for bring in self.brings], np.int64)
        rows, nothing = np.arange(len(numbers)), np.empty(0, np.int64)
        asked = placement.sources(numbers, [(name, site, rows, nothing) for name, (site, _) in places.items()], parent)
        now = time.time()
        for name in places:
            bring = tuple(
                Bring(number=one.number, title=one.title, folder=one.folder, size_bytes=one.size_bytes, sources=sources)
                for one, sources in zip(self.brings, asked[name], strict=True)
            )
            order = FillOrder(
                appliance=name,
                night=night or str(dt.datetime.now(dt.UTC).date()),
                version=1,
                issued_at=now,
                expires_at=now + 86400,
                pledged_until=now + 7 * 86400,
                budget_bytes=2 * self.bytes,
                bring=bring,
                peers=tuple(
                    Peer(id=peer, url=places[peer][1]) for peer in sorted({one for row in bring for one in row.sources})
                ),
            )
            bucket.write(order_key(name), signed(order, KEY, KID))
