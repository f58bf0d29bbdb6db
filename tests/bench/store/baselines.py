"""The policies that ours is measured against, from libcachesim, on the same trace: all that is missed is admitted."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import libcachesim
import numpy as np

from tests.bench.store.workload import Trace

_HASH_BITS: Final = 20
"""libcachesim's 24 are 128 MiB of empty table for each cache."""
_RECORD: Final = np.dtype([("time", "<u4"), ("object", "<u8"), ("size", "<u4"), ("next", "<i8")])
"""oracleGeneral: `next` is the number of the next access to the object, for Belady's; -1 if there is none."""

LRU: Final = "LRU"
S3_FIFO: Final = "S3-FIFO"
BELADY: Final = "Belady"

_TINY: Final = "W-TinyLFU"
_SKETCH_ENTRIES: Final = 1 << 22

_Maker = Callable[..., libcachesim.LRU]
BASELINES: Final[dict[str, _Maker]] = {
    LRU: libcachesim.LRU,
    "FIFO": libcachesim.FIFO,
    S3_FIFO: libcachesim.S3FIFO,
    "S3-FIFO 1": lambda **given: libcachesim.S3FIFO(move_to_main_threshold=1, **given),
    "ARC": libcachesim.ARC,
    "SIEVE": libcachesim.Sieve,
    _TINY: libcachesim.WTinyLFU,
    "GDSF": libcachesim.GDSF,
    BELADY: libcachesim.Belady,
}
"""S3-FIFO twice: an object enters the main queue after two reads, as is libcachesim's default, or after one."""


@dataclass(frozen=True)
class Missed:
    """After the warm-up."""

    requests: int
    bytes: int


@contextlib.contextmanager
def written(trace: Trace, folder: Path | None = None) -> Iterator[Path]:
    """The trace as libcachesim reads it."""
    with tempfile.NamedTemporaryFile(prefix="oca-trace-", suffix=".oracleGeneral", dir=folder) as file:
        rows = np.empty(len(trace), _RECORD)
        rows["time"] = trace.times - trace.times[0]
        rows["object"] = trace.objects
        rows["size"] = trace.sizes[trace.objects]
        rows["next"] = next_accesses(trace)
        rows.tofile(file)
        file.flush()
        yield Path(file.name)


def next_accesses(trace: Trace) -> np.ndarray:
    """libcachesim counts accesses from 1."""
    order = np.argsort(trace.objects, kind="stable")
    following = np.full(len(trace), -1, np.int64)
    is_same = trace.objects[order][1:] == trace.objects[order][:-1]
    following[order[:-1][is_same]] = order[1:][is_same] + 1
    return following


def replayed(name: str, trace: Trace, file: Path, capacity_bytes: int) -> Missed:
    if name == _TINY:
        return _tiny(trace, capacity_bytes)
    cache = BASELINES[name](cache_size=capacity_bytes, hashpower=_HASH_BITS)
    reader = libcachesim.TraceReader(str(file), libcachesim.TraceType.ORACLE_GENERAL_TRACE)
    cache.process_trace(reader, max_req=trace.warm)
    after = len(trace) - trace.warm
    # Told are ratios, which are of whole numbers: these come back exactly.
    requests, missed_bytes = cache.process_trace(reader, start_req=trace.warm, max_req=after)
    return Missed(round(requests * after), round(missed_bytes * trace.counted_bytes))


def _tiny(trace: Trace, capacity_bytes: int) -> Missed:
    """libcachesim gives W-TinyLFU's sketch 57 bytes for every *byte* of the cache, and with more than 2 GiB the number
    overflows: 8 GiB of sketch, or one of 20 counters. So its sizes are counted in larger units, rounded up, of a cache
    that is as large a share of the footprint; what it misses is counted in true bytes.
    """
    unit = max(1, -(-capacity_bytes // _SKETCH_ENTRIES))
    units = -(-trace.sizes // unit)
    capacity = int(capacity_bytes / trace.footprint_bytes * int(units.sum()))
    cache = BASELINES[_TINY](cache_size=capacity, hashpower=_HASH_BITS)
    request, get = libcachesim.Request(), cache.get
    sizes: list[int] = units.tolist()
    missed = np.zeros(len(trace), bool)
    for i, number in enumerate(trace.objects.tolist()):
        request.obj_id = number
        request.obj_size = sizes[number]
        missed[i] = not get(request)
    after = missed[trace.warm :]
    return Missed(int(after.sum()), int(trace.sizes[trace.objects[trace.warm :][after]].sum()))
