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
BELADY: Final = "Belady"

_Maker = Callable[..., libcachesim.LRU]
BASELINES: Final[dict[str, _Maker]] = {
    LRU: libcachesim.LRU,
    "FIFO": libcachesim.FIFO,
    "S3-FIFO": libcachesim.S3FIFO,
    "ARC": libcachesim.ARC,
    "SIEVE": libcachesim.Sieve,
    "W-TinyLFU": libcachesim.WTinyLFU,
    "GDSF": libcachesim.GDSF,
    BELADY: libcachesim.Belady,
}


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
    cache = BASELINES[name](cache_size=capacity_bytes, hashpower=_HASH_BITS)
    return counted(cache, trace, file)


def counted(cache: libcachesim.LRU, trace: Trace, file: Path) -> Missed:
    """libcachesim tells ratios; they are of whole numbers, which come back exactly."""
    reader = libcachesim.TraceReader(str(file), libcachesim.TraceType.ORACLE_GENERAL_TRACE)
    cache.process_trace(reader, max_req=trace.warm)
    after = len(trace) - trace.warm
    requests, missed_bytes = cache.process_trace(reader, start_req=trace.warm, max_req=after)
    return Missed(round(requests * after), round(missed_bytes * trace.counted_bytes))
