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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oca.cache.keys import EXTENT_BLOCKS, EXTENT_BYTES, ExtentKey, ObjectKey, extent_key, group_of, object_key
from oca.cache.records import DeviceRecord, ExtentRecord, Label, ObjectRecord, encode, on_disk, with_block
from oca.store.device import DeviceFolder
from oca.store.index import Index, IndexLoader
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
_BATCH: Final = 5000
"""Objects in one transaction."""
_STRIDE: Final = (1 << 31) - 1
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
[store]
scrub_days = 3650
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
    paths = {object_key(path): path for path in (f"/titles/t{n:06}.mp4" for n in range(extents // EXTENT_BLOCKS))}
    paths[object_key(_PATH)] = _PATH
    keys = sorted(paths)
    slots = len(keys) * EXTENT_BLOCKS
    devices = {}
    for number, path in enumerate(_device_paths(folder)):
        Path(path).mkdir()
        device = DeviceFolder(path)
        devices[number] = DeviceRecord(device.identify(), path, "hdd", _CAPACITY, home=path)
        if not number:
            real = _real_extent(device, keys.index(object_key(_PATH)) * EXTENT_BLOCKS * _STRIDE % slots)
        device.close()
    loader = IndexLoader(f"{folder}/state/index")
    loader.put_devices(devices)
    for first in range(0, len(keys), _BATCH):
        batch = keys[first : first + _BATCH]
        objects = [(key, _described(paths[key])) for key in batch]
        loader.append(objects, _extents(first, objects, slots, real))
    loader.close()
    asyncio.run(_calm(folder, devices))


async def _calm(folder: Path, devices: dict[int, DeviceRecord]) -> None:
    """The files are not there, and the scrubber need not find out: its next round is years away."""
    async with Index(f"{folder}/state/index") as index:
        for device in devices.values():
            await index.put_note(f"scrub {device.id}", encode((time.time() + 3000 * 86400, b"")))


def _described(path: str) -> ObjectRecord:
    size = len(_CONTENT) if path == _PATH else EXTENT_BLOCKS * EXTENT_BYTES
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


def _real_extent(device: DeviceFolder, slot: int) -> ExtentRecord:
    """Of the one object that is there."""
    described, size = _described(_PATH), on_disk(len(_CONTENT))
    bare = ExtentRecord(0, slot, 0, b"", 0, group_of(_PATH, len(_CONTENT)))

    def label(crc: int) -> bytes:
        return encode(Label(described, with_block(bare, 0, crc, size)))

    crc = device.write_block(extent_key(object_key(_PATH), 1, 0), 0, memoryview(_CONTENT), 0, label)
    return with_block(bare, 0, crc, size)


def _extents(
    first: int, objects: list[tuple[ObjectKey, ObjectRecord]], slots: int, real: ExtentRecord
) -> Iterator[tuple[ExtentKey, ExtentRecord]]:
    """All extents of the objects that are numbered from `first` on, on all devices in turn."""
    present = (1 << EXTENT_BLOCKS) - 1
    for number, (key, record) in enumerate(objects, first):
        if record.path == _PATH:
            yield extent_key(key, 1, 0), real
            continue
        group = group_of(record.path, record.size)
        for part in range(EXTENT_BLOCKS):
            slot = (number * EXTENT_BLOCKS + part) * _STRIDE % slots
            yield extent_key(key, 1, part), ExtentRecord(slot % _DEVICES, slot, present, key * 4, EXTENT_BYTES, group)
