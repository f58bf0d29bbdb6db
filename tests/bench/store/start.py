"""The start of an appliance with many extents in its index: the first hit, and when it knows again what it holds.

The index is a real one, filled in bulk: films of 16 extents on a dozen slow disks, all of them present, one real. The
appliance is started twice: without what the policy remembered, and with it, as the first one left it when it ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oca.cache.keys import EXTENT_BLOCKS, EXTENT_BYTES, ExtentKey, ObjectKey, extent_key, group_of, object_key
from oca.cache.records import DeviceRecord, ExtentRecord, Label, ObjectRecord, encode, on_disk, with_block
from oca.store.device import DeviceFolder
from oca.store.index import Index, _path_key
from tests.bench.appliance import Appliance, serve_command
from tests.bench.client import Client
from tests.bench.machine import BenchError, Cores, cpu_seconds
from tests.bench.processes import Process, ending, free_port
from tests.bench.report import reached, table

FIRST_HIT: Final = 1.0
WARM: Final = 60.0
_LIMIT: Final = 900.0
_DEVICES: Final = 12
_CAPACITY: Final = 100 * 1000**4
_PATH: Final = "/titles/real/v1/seg-00000.m4s"
_CONTENT: Final = bytes(range(256)) * 4096
_BATCH: Final = 500_000
_STRIDE: Final = 7_654_321
"""Prime: slots come in another order than keys, as in an index that was long in use."""
_GENERATED_AT: Final = 1_700_000_000.0
_YEARS: Final = 20 * 365 * 86400.0

_SETTINGS = """
[appliance]
id = "oca-bench-1"
state_dir = "{folder}/state"
[listen]
http = "127.0.0.1:{port}"
control = "127.0.0.1:{control}"
workers = 1
[origin]
# Nothing is fetched: port 9 would refuse.
url = "http://127.0.0.1:9"
"""
_DEVICE = """
[[device]]
path = "{path}"
tier = "hdd"
capacity = {capacity}
"""


@dataclass(frozen=True)
class Plan:
    extents: int


def measure(plan: Plan, folder: Path, cores: Cores) -> dict:
    began = time.monotonic()
    write_state(folder, plan.extents)
    size = (folder / "state/index/data.mdb").stat().st_blocks * 512
    print(f"({plan.extents:,} records written in {time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    runs = {"without": _run(folder, cores), "with": _run(folder, cores)}
    return {"extents": plan.extents, "index_bytes": size, "runs": runs}


def told(results: dict) -> str:
    rows = [
        (
            f"{name} the policy's memory",
            "",
            f"{run['listens']:.2f}",
            f"{run['first hit']:.2f}",
            f"{run['loaded']:.1f}",
            f"{run['keeper seconds']:.1f}",
            f"{run['keeper bytes'] / results['extents']:.1f}",
            f"{run['ends']:.1f}",
        )
        for name, run in results["runs"].items()
    ]
    hit = max(run["first hit"] for run in results["runs"].values())
    warm = max(run["loaded"] for run in results["runs"].values())
    return "\n".join(
        (
            table(
                (
                    "seconds since exec",
                    "",
                    "listens",
                    "first hit",
                    "all loaded",
                    "keeper's CPU",
                    "its bytes each",
                    "ends in",
                ),
                rows,
            ),
            f"the index: {results['index_bytes'] / results['extents']:.0f} bytes an extent",
            f"{reached(hit, FIRST_HIT)}: first hit within {FIRST_HIT:.0f} s of the start: {hit:.2f}",
            f"{reached(warm, WARM)}: policy warm within {WARM:.0f} s: {warm:.1f}",
        )
    )


def _run(folder: Path, cores: Cores) -> dict[str, float]:
    port, control = free_port(), free_port()
    settings = folder / "oca.toml"
    settings.write_text(
        _SETTINGS.format(folder=folder, port=port, control=control)
        + "".join(_DEVICE.format(path=path, capacity=_CAPACITY) for path in _device_paths(folder))
    )
    began = time.perf_counter()
    with ending(Process("appliance", serve_command(settings), on=cores.all, log=folder / "output.log")) as process:
        appliance = Appliance(process, port, control)

        def until(what: str, holds: Callable[[], bool], poll: float) -> float:
            while not holds():
                if not process.is_running or time.perf_counter() - began > _LIMIT:
                    raise BenchError(f"not so within {_LIMIT:.0f} s: {what}\n{process.told()}")
                time.sleep(poll)
            return time.perf_counter() - began

        listens = until("it listens", lambda: _accepts(port), 0.002)
        with Client(port) as client:
            answer = client.get(_PATH)
        hit = time.perf_counter() - began
        if answer.body != _CONTENT or not answer.field("Cache-Status").endswith("; hit"):
            raise BenchError(f"the first answer is no hit, or has wrong bytes:\n{answer.head.decode()}")
        loaded = until("the shelves are loaded", lambda: _is_loaded(appliance), 0.2)
        resident, worked = _resident_bytes(appliance.keeper), cpu_seconds(appliance.keeper)
        ends = time.perf_counter()
        os.kill(process.pid, signal.SIGTERM)
        while process.is_running:
            if time.perf_counter() - ends > _LIMIT:
                raise BenchError(f"it does not end\n{process.told()}")
            time.sleep(0.02)
        ended = time.perf_counter() - ends
    return {
        "listens": listens,
        "first hit": hit,
        "loaded": loaded,
        "keeper seconds": worked,
        "keeper bytes": resident,
        "ends": ended,
    }


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _is_loaded(appliance: Appliance) -> bool:
    try:
        return bool(appliance.status()["loaded"])
    except (OSError, BenchError):
        return False


def _resident_bytes(pid: int) -> int:
    """Memory of its own: the index's pages are the kernel's."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"process {pid} has no RssAnon")


# --- The state ---


def _device_paths(folder: Path) -> list[str]:
    return [f"{folder}/disk{number:02}" for number in range(_DEVICES)]


def write_state(folder: Path, extents: int) -> None:
    """`extents` records below `folder`; what is not of the real object is not there."""
    for path in (f"{folder}/state/index", *_device_paths(folder)):
        Path(path).mkdir(parents=True)
    asyncio.run(_write(folder, extents))


async def _write(folder: Path, extents: int) -> None:
    films = {
        object_key(path): path for path in (f"/titles/t{n:06}/v{n % 5}.mp4" for n in range(extents // EXTENT_BLOCKS))
    }
    real = object_key(_PATH)
    async with Index(str(folder / "state/index")) as index:
        for number, path in enumerate(_device_paths(folder)):
            device = DeviceFolder(path)
            index.put_device(number, DeviceRecord(device.identify(), path, "hdd", _CAPACITY, home=path))
            if not number:
                described = _described(_PATH, len(_CONTENT))
                extent = _real_extent(device, real, described, len(films) * EXTENT_BLOCKS)
            device.close()
        keys = sorted([*films, real])
        paths = {**films, real: _PATH}
        _append(index, index._objects, ((key, _object(paths[key])) for key in keys))
        _append(index, index._paths, ((packed, b"") for packed in sorted(_path_key(paths[key], key) for key in keys)))
        _append(index, index._extents, _extents(keys, paths, real, encode(extent)))


def _append(index: Index, db: object, items: Iterable[tuple[bytes, bytes]]) -> None:
    """In transactions that are not too large. `items` are in order."""
    rows: list[tuple[bytes, bytes]] = []

    def put() -> None:
        with index._env.begin(write=True) as txn, txn.cursor(db=db) as cursor:
            cursor.putmulti(rows, append=True)
        rows.clear()

    for item in items:
        rows.append(item)
        if len(rows) == _BATCH:
            put()
    put()


def _described(path: str, size: int) -> ObjectRecord:
    return ObjectRecord(
        path,
        1,
        size,
        etag=b'"%x"' % size,
        last_modified=int(_GENERATED_AT),
        kept={"Content-Type": "video/mp4", "Cache-Control": "public, max-age=31536000, immutable"},
        generated_at=_GENERATED_AT,
        lifetime=_YEARS,
    )


def _object(path: str) -> bytes:
    return encode(_described(path, len(_CONTENT) if path == _PATH else EXTENT_BLOCKS * EXTENT_BYTES))


def _real_extent(device: DeviceFolder, key: ObjectKey, described: ObjectRecord, slot: int) -> ExtentRecord:
    size = on_disk(len(_CONTENT))
    bare = ExtentRecord(0, slot, 0, b"", 0, group_of(_PATH, len(_CONTENT)))

    def label(crc: int) -> bytes:
        return encode(Label(described, with_block(bare, 0, crc, size)))

    crc = device.write_block(extent_key(key, 1, 0), 0, memoryview(_CONTENT), 0, label)
    return with_block(bare, 0, crc, size)


def _extents(
    keys: list[ObjectKey], paths: dict[ObjectKey, str], real: ObjectKey, packed: bytes
) -> Iterator[tuple[ExtentKey, bytes]]:
    count = (len(keys) - 1) * EXTENT_BLOCKS
    number = 0
    present = (1 << EXTENT_BLOCKS) - 1
    for key in keys:
        if key == real:
            yield extent_key(key, 1, 0), packed
            continue
        group = group_of(paths[key], EXTENT_BLOCKS * EXTENT_BYTES)
        for part in range(EXTENT_BLOCKS):
            slot = number * _STRIDE % count
            number += 1
            record = ExtentRecord(slot % _DEVICES, slot, present, key * 4, EXTENT_BYTES, group)
            yield extent_key(key, 1, part), encode(record)
