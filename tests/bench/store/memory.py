"""RAM of the keeper's books for each extent: slots and policy with many extents placed, in a process of their own.

`python -m tests.bench.store.memory loaded|restored EXTENTS DUMP` prints what the kernel says of that process, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from oca.cache.policy import Level, Policy
from oca.cache.slots import Slots
from tests.bench.appliance import REPOSITORY
from tests.bench.report import table

MOST_BYTES: Final = 64
_DEVICES: Final = 36
_NOW: Final = 1_750_000_000.0
_SIZE: Final = 64 << 20
_EVICTED: Final = 500
"""From each device."""
_STRIDE: Final = (1 << 31) - 1
"""Prime: slots come in another order than keys, as in an index that was long in use."""


def measure(extents: int, folder: Path) -> dict[str, float]:
    dump = folder / "policy.dump"
    results: dict[str, float] = {"extents": extents}
    for what in ("loaded", "restored"):
        command = [sys.executable, "-m", __name__, what, str(extents), str(dump)]
        done = subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.PIPE)
        results |= json.loads(done.stdout)
    dump.unlink()
    return results


def told(results: dict[str, float]) -> str:
    count = results["extents"]
    per_extent = (results["evicting"] - results["before"]) / count
    rows = [
        (what, "", f"{(results[key] - results['before']) / count:.1f}", f"{results[seconds]:.1f}")
        for what, key, seconds in (
            ("loaded", "loaded", "loaded seconds"),
            ("remembering what was evicted", "evicting", "evicting seconds"),
            ("while it is dumped, at most", "dumping", "dump seconds"),
            ("restored from the dump and loaded", "restored", "restored seconds"),
        )
    ]
    word = "reached" if per_extent <= MOST_BYTES else "missed"
    return (
        table((f"{count:,.0f} extents", "", "bytes of RAM each", "s of CPU"), rows)
        + f"\n{word}: at most {MOST_BYTES} bytes of RAM for each extent: {per_extent:.1f}"
    )


def _books(extents: int, packed: bytes) -> tuple[Slots, Policy]:
    slots, policy = Slots(), Policy()
    if packed:
        policy.restore(memoryview(packed))
    each = extents * _SIZE // _DEVICES + (1 << 40)
    for number in range(_DEVICES):
        policy.add_shelf(number, Level.HDD, each)
    for i in range(extents):
        slot = i * _STRIDE % extents
        name = i * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        # Keys are 28 bytes; where they differ doesn't matter to the slots.
        slots.restore(slot, name.to_bytes(28, "big"))
        policy.place(slot, name, name >> 36, slot % _DEVICES, _SIZE, _NOW, is_written=False)
    slots.settle()
    return slots, policy


def _evict(slots: Slots, policy: Policy) -> None:
    """As many as it takes until what is remembered of them has its full size."""
    for number in range(_DEVICES):
        wanted = policy.free_bytes(number) + _EVICTED * _SIZE
        for slot in policy.victims(number, wanted, frozenset(), _NOW):
            slots.give_back(slot)


def _resident_bytes(field: str = "VmRSS") -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _main() -> None:
    what, extents, dump = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    results = {"before": _resident_bytes()}
    began = time.process_time()
    packed = dump.read_bytes() if what == "restored" else b""
    slots, policy = _books(extents, packed)
    del packed
    results[f"{what} seconds"] = time.process_time() - began
    results[what] = _resident_bytes()
    assert len(slots) == extents
    if what == "loaded":
        began = time.process_time()
        _evict(slots, policy)
        results["evicting seconds"] = time.process_time() - began
        results["evicting"] = _resident_bytes()
        _forget_peak()
        began = time.process_time()
        with dump.open("wb") as file:
            for piece in policy.dump():
                file.write(piece)
        results["dump seconds"] = time.process_time() - began
        results["dumping"] = _resident_bytes("VmHWM")
        results["dump bytes"] = dump.stat().st_size
    print(json.dumps(results))


if __name__ == "__main__":
    _main()
