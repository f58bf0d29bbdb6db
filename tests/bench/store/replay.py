"""A trace through a policy, as the keeper drives it: admit, victims, place; touch on hits; moves as the mover does.

No bytes are moved, but the books are kept a second time here, and a policy that would overfill a device, evict what is
not there or move to nowhere ends the bench.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, Protocol

from oca.cache.policy import Admission, AdmitReason, Level, Move
from tests.bench.machine import BenchError
from tests.bench.store.workload import Trace

MOVE_RATE: Final = 200e6
"""Bytes per second: `[store] move_rate`."""
MOVE_BURST: Final = 128 << 20
_LOOKS: Final = 1.0
"""Seconds between the mover's looks for something to move."""
_NONE: Final[AbstractSet[int]] = frozenset()


class Policy(Protocol):
    """What the replay asks and tells: oca.cache.policy.Policy, and the plain ones that check the plumbing."""

    def add_shelf(
        self, number: int, level: Level, capacity_bytes: int, writes_per_day: float | None = None
    ) -> None: ...
    def admit(self, name: int, group: int, size_bytes: int, now: float) -> Admission: ...
    def place(self, slot: int, name: int, group: int, shelf: int, size_bytes: int, now: float) -> None: ...
    def touch(self, slot: int, now: float) -> None: ...
    def victims(self, shelf: int, size_bytes: int, pinned: AbstractSet[int], now: float) -> Iterable[int]: ...
    def next_move(self, now: float) -> Move | None: ...
    def move(self, slot: int, shelf: int, now: float, keeps_below: bool = False) -> None: ...
    def moved_not(self, slot: int) -> None: ...
    def shelf_of(self, slot: int) -> int | None: ...
    def below_of(self, slot: int) -> int | None: ...
    def used_bytes(self, shelf: int) -> int: ...


@dataclass(frozen=True)
class Device:
    level: Level
    capacity_bytes: int
    writes_per_day: float | None = None


Box = tuple[Device, ...]


def flash_box(capacity_bytes: int, memory_share: float = 0.01, dwpd: float | None = None) -> Box:
    """Nothing but NVMe, and probation in memory: both together are `capacity_bytes`."""
    memory = int(capacity_bytes * memory_share)
    flash = capacity_bytes - memory
    budget = None if dwpd is None else dwpd * flash
    devices = (Device(Level.MEMORY, memory), Device(Level.NVME, flash, budget))
    return devices if memory else devices[1:]


def tiered_box(capacity_bytes: int, dwpd: float | None = None) -> Box:
    """NVMe, SSD and HDD: 10, 20 and 70 %."""
    nvme, ssd = capacity_bytes // 10, capacity_bytes // 5
    return (
        Device(Level.NVME, nvme, None if dwpd is None else dwpd * nvme),
        Device(Level.SSD, ssd, None if dwpd is None else dwpd * ssd),
        Device(Level.HDD, capacity_bytes - nvme - ssd),
    )


@dataclass
class Outcome:
    """`missed` and bytes are counted after the warm-up; `hits` and `levels` hold one byte for each access."""

    requests: int
    missed: int
    served_bytes: int
    missed_bytes: int
    written_bytes: dict[Level, int]
    """By admissions and moves."""
    moved_bytes: dict[Level, int]
    """By moves alone."""
    read_bytes: dict[Level, int]
    """From each tier, by viewers."""
    reasons: dict[str, int]
    """Admissions, and moves, by reason: in the whole trace."""
    cpu_seconds: float
    """Of the whole replay."""
    accesses: int
    hits: bytearray = field(repr=False)

    @property
    def omr(self) -> float:
        return self.missed / self.requests

    @property
    def bmr(self) -> float:
        return self.missed_bytes / self.served_bytes

    def written(self, *levels: Level) -> float:
        """Bytes written there per byte served."""
        return sum(self.written_bytes.get(level, 0) for level in levels) / self.served_bytes

    @property
    def flash_written(self) -> float:
        return self.written(Level.NVME, Level.SSD)


class Replay:
    """One run; it can be stopped between accesses, for a restart of the policy."""

    def __init__(self, policy: Policy, trace: Trace, box: Box) -> None:
        self.policy = policy
        self.trace = trace
        self.box = box
        self.times: list[float] = trace.times.tolist()
        self.objects: list[int] = trace.objects.tolist()
        self.sizes: list[int] = trace.sizes.tolist()
        self.groups = trace.cache_groups()
        self.names: list[int] = trace.names.tolist()
        self.slot_of = array("i", [-1]) * len(self.sizes)
        self.object_in: list[int] = []
        """By slot; -1 if it is free."""
        self.lies_on = bytearray()
        self.below = bytearray()
        """By slot: one more than the number of the device, or of the one with the copy below; 0: none."""
        self.used = [0] * len(box)
        self.hits = bytearray(len(trace))
        """One more than the level that it is read from; 0 is a miss."""
        self.written_bytes = [0] * len(box)
        self.moved_bytes = [0] * len(box)
        self.reasons: dict[str, int] = {}
        self.cpu_seconds = 0.0
        self._free: list[int] = []
        self.at = 0
        self._looks_at = 0.0
        self._pace = float(MOVE_BURST)
        self._paced_at = self.times[0]
        for number, device in enumerate(box):
            policy.add_shelf(number, device.level, device.capacity_bytes, device.writes_per_day)

    def run(self, until: int | None = None) -> None:
        """On to the access `until`, or to the end."""
        began = time.process_time()
        stop = len(self.trace) if until is None else until
        warm = self.trace.warm
        if self.at < warm <= stop:
            self._step(warm)
            self.written_bytes = [0] * len(self.box)
            self.moved_bytes = [0] * len(self.box)
        self._step(stop)
        self.cpu_seconds += time.process_time() - began

    def outcome(self) -> Outcome:
        self.check_books()
        trace = self.trace
        counted = self.objects[trace.warm :]
        read = [0] * (len(Level) + 1)
        missed = 0
        for number, hit in zip(counted, self.hits[trace.warm :], strict=True):
            read[hit] += self.sizes[number]
            missed += not hit
        levels = [device.level for device in self.box]
        return Outcome(
            requests=len(counted),
            missed=missed,
            served_bytes=sum(read),
            missed_bytes=read[0],
            written_bytes=_by_level(levels, self.written_bytes),
            moved_bytes=_by_level(levels, self.moved_bytes),
            read_bytes={level: read[level + 1] for level in levels},
            reasons=dict(self.reasons),
            cpu_seconds=self.cpu_seconds,
            accesses=len(trace),
            hits=self.hits,
        )

    def check_books(self) -> None:
        """The policy believes what we know."""
        for number, used in enumerate(self.used):
            if self.policy.used_bytes(number) != used:
                raise BenchError(
                    f"device {number} holds {used} bytes, the policy says {self.policy.used_bytes(number)}"
                )
        for slot, number in enumerate(self.lies_on):
            told = self.policy.shelf_of(slot), self.policy.below_of(slot)
            if told != (number - 1 if number else None, self.below[slot] - 1 if self.below[slot] else None):
                raise BenchError(
                    f"slot {slot} lies on {number - 1}, below {self.below[slot] - 1}; the policy says {told}"
                )

    def _step(self, stop: int) -> None:
        # The keeper's hot path, so to say: locals, and no call but the policy's.
        policy, touch, admit, place = self.policy, self.policy.touch, self.policy.admit, self.policy.place
        slot_of, lies_on, sizes, hits = self.slot_of, self.lies_on, self.sizes, self.hits
        mark = [0, *(device.level + 1 for device in self.box)]
        shelf_on = {device.level: number for number, device in enumerate(self.box)}
        reasons = self.reasons
        looks_at = self._looks_at
        times = self.times
        objects = self.objects
        for i in range(self.at, stop):
            now = times[i]
            number = objects[i]
            slot = slot_of[number]
            if slot >= 0:
                touch(slot, now)
                hits[i] = mark[lies_on[slot]]
            else:
                size = sizes[number]
                admission = admit(self.names[number], self.groups[number], size, now)
                reasons[admission.reason] = reasons.get(admission.reason, 0) + 1
                if admission.level is not None:
                    shelf = shelf_on[admission.level]
                    if self._makes_room(shelf, size, _NONE, now):
                        slot = self._take(number)
                        place(slot, self.names[number], self.groups[number], shelf, size, now)
                        slot_of[number] = slot
                        lies_on[slot] = shelf + 1
                        self.used[shelf] += size
                        self.written_bytes[shelf] += size
            if now >= looks_at:
                looks_at = now + _LOOKS
                self._pace = min(float(MOVE_BURST), self._pace + (now - self._paced_at) * MOVE_RATE)
                self._paced_at = now
                while self._pace > 0:
                    move = policy.next_move(now)
                    if move is None:
                        break
                    self._pace -= self._follow(move, shelf_on, now)
        self.at = stop
        self._looks_at = looks_at

    def _take(self, number: int) -> int:
        if self._free:
            slot = self._free.pop()
            self.object_in[slot] = number
            return slot
        self.object_in.append(number)
        self.lies_on.append(0)
        self.below.append(0)
        return len(self.object_in) - 1

    def _makes_room(self, shelf: int, size: int, pinned: AbstractSet[int], now: float) -> bool:
        for victim in self.policy.victims(shelf, size, pinned, now):
            lies_here = victim < len(self.lies_on) and shelf + 1 in (self.lies_on[victim], self.below[victim])
            if not lies_here or victim in pinned:
                raise BenchError(f"slot {victim} is given up on device {shelf}, where it is not, or is pinned")
            number = self.object_in[victim]
            self.used[shelf] -= self.sizes[number]
            if self.lies_on[victim] == shelf + 1:
                self.lies_on[victim] = self.below[victim]
            self.below[victim] = 0
            if not self.lies_on[victim]:
                self.slot_of[number] = -1
                self.object_in[victim] = -1
                self._free.append(victim)
        return self.used[shelf] + size <= self.box[shelf].capacity_bytes

    def _follow(self, move: Move, shelf_on: dict[Level, int], now: float) -> int:
        """As the mover does. Returns how many bytes were copied."""
        slot = move.slot
        source, target = self.lies_on[slot] - 1, shelf_on[move.level]
        if source < 0 or source == target:
            raise BenchError(f"slot {slot} should move from device {source} to {target}")
        number = self.object_in[slot]
        size = self.sizes[number]
        if self.below[slot] == target + 1:
            # Going down to where a copy lies already is dropping the upper one.
            self.policy.move(slot, target, now)
            self.used[source] -= size
            self.lies_on[slot], self.below[slot] = target + 1, 0
            self._counted(move)
            return 0
        if not self._makes_room(target, size, frozenset((slot,)), now):
            self.policy.moved_not(slot)
            return 0
        keeps_below = self.box[source].level is Level.HDD
        self.policy.move(slot, target, now, keeps_below)
        self.used[target] += size
        if keeps_below:
            self.below[slot] = source + 1
        else:
            self.used[source] -= size
        self.lies_on[slot] = target + 1
        self.written_bytes[target] += size
        self.moved_bytes[target] += size
        self._counted(move)
        return size

    def _counted(self, move: Move) -> None:
        self.reasons[move.reason] = self.reasons.get(move.reason, 0) + 1


def replayed(policy: Policy, trace: Trace, box: Box) -> Outcome:
    run = Replay(policy, trace, box)
    run.run()
    return run.outcome()


def microseconds(trace: Trace, box: Box, outcome: Outcome) -> tuple[float, float]:
    """What the policy alone cost for each access, and the rest: the same loop over the same hits and misses, with a
    policy that does nothing. The rest tells how fast the machine is just now."""
    idle = Replay(Nothing(), trace, box)
    began = time.process_time()
    _idle_loop(idle, outcome.hits)
    rest = time.process_time() - began
    return (outcome.cpu_seconds - rest) / outcome.accesses * 1e6, rest / outcome.accesses * 1e6


def _idle_loop(run: Replay, was_hit: bytearray) -> None:
    """As `Replay._step`, with what is known to come."""
    policy, touch, admit, place = run.policy, run.policy.touch, run.policy.admit, run.policy.place
    slot_of, lies_on, sizes, hits = run.slot_of, bytearray(1), run.sizes, run.hits
    mark = [0, *(device.level + 1 for device in run.box)]
    shelf_on = {device.level: number for number, device in enumerate(run.box)}
    reasons = run.reasons
    looks_at = 0.0
    for i in range(len(run.trace)):
        now = run.times[i]
        number = run.objects[i]
        slot = slot_of[number]
        if was_hit[i]:
            touch(slot, now)
            hits[i] = mark[lies_on[0]]
        else:
            size = sizes[number]
            admission = admit(run.names[number], run.groups[number], size, now)
            reasons[admission.reason] = reasons.get(admission.reason, 0) + 1
            shelf = shelf_on[run.box[0].level]
            run._makes_room(shelf, size, _NONE, now)
            run.used[shelf] += size
            place(0, run.names[number], run.groups[number], shelf, size, now)
        if now >= looks_at:
            looks_at = now + _LOOKS
            policy.next_move(now)


class Nothing:
    """A policy that keeps nothing and costs next to nothing."""

    _ADMISSION: Final = Admission(None, AdmitReason.CLOSED)

    def add_shelf(self, number: int, level: Level, capacity_bytes: int, writes_per_day: float | None = None) -> None:
        pass

    def admit(self, name: int, group: int, size_bytes: int, now: float) -> Admission:
        return self._ADMISSION

    def place(self, slot: int, name: int, group: int, shelf: int, size_bytes: int, now: float) -> None:
        pass

    def touch(self, slot: int, now: float) -> None:
        pass

    def victims(self, shelf: int, size_bytes: int, pinned: AbstractSet[int], now: float) -> Iterable[int]:
        return ()

    def next_move(self, now: float) -> Move | None:
        return None

    def move(self, slot: int, shelf: int, now: float, keeps_below: bool = False) -> None:
        pass

    def moved_not(self, slot: int) -> None:
        pass

    def shelf_of(self, slot: int) -> int | None:
        return None

    def below_of(self, slot: int) -> int | None:
        return None

    def used_bytes(self, shelf: int) -> int:
        return 0


def _by_level(levels: Sequence[Level], values: Sequence[int]) -> dict[Level, int]:
    sums: dict[Level, int] = {}
    for level, value in zip(levels, values, strict=True):
        sums[level] = sums.get(level, 0) + value
    return sums
