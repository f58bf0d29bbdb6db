"""An appliance's state with many records, one of which has a real file behind it. Written in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from oca.cache.keys import extent_key, object_key
from oca.cache.records import DeviceRecord, ExtentRecord, ObjectRecord, encode, on_disk, with_block
from oca.store.device import DeviceFolder
from oca.store.index import Index, _path_key

REAL_PATH = "/titles/real/v1/seg-00000.m4s"
_GENERATED_AT = 1_700_000_000.0
_YEARS = 20 * 365 * 86400.0


def write_state(folder: Path, records: int, content: bytes) -> None:
    """Objects, extents and paths, `records` of each, below `folder` (laid out as `appliance.write_settings` says)."""
    device = DeviceFolder(str(folder / "device"))
    (folder / "device").mkdir(parents=True, exist_ok=True)
    identity = device.identify()
    objects, extents, paths = [], [], []
    for number in range(records):
        is_real = number == 0
        path = REAL_PATH if is_real else f"/titles/t{number // 5000:05}/v{number % 5}/seg-{number:07}.m4s"
        key = object_key(path)
        place = extent_key(key, number + 1, 0)
        size = len(content) if is_real else 1_500_000 + number % 1_000_000
        crc = device.write_block(place, 0, memoryview(content), holds=0) if is_real else number
        described = ObjectRecord(
            path,
            number + 1,
            size,
            etag=b'"%08x-%x"' % (number, size),
            last_modified=int(_GENERATED_AT),
            kept={"Content-Type": "video/iso.segment", "Cache-Control": "public, max-age=31536000, immutable"},
            generated_at=_GENERATED_AT,
            lifetime=_YEARS,
        )
        objects.append((key, encode(described)))
        paths.append((_path_key(path, key), b""))
        extents.append((place, encode(with_block(ExtentRecord(0, number, 0, b"", 0), 0, crc, on_disk(size)))))
    record = DeviceRecord(identity, device.path, "nvme", home=device.path)
    asyncio.run(_put(folder / "state/index", record, objects, extents, paths))


async def _put(folder: Path, device: DeviceRecord, *tables: Iterable[tuple[bytes, bytes]]) -> None:
    async with Index(str(folder)) as index:
        index.put_device(0, device)
        with index._env.begin(write=True) as txn:
            for items, db in zip(tables, (index._objects, index._extents, index._paths), strict=True):
                with txn.cursor(db=db) as cursor:
                    cursor.putmulti(sorted(items), append=True)
