"""The plumbing: policies that everybody knows miss in it what libcachesim's miss; one that cheats is caught."""

from __future__ import annotations

import pytest

from oca.cache.policy import Level, Policy
from tests.bench.machine import BenchError
from tests.bench.store import baselines, restart
from tests.bench.store.baselines import LRU, S3_FIFO
from tests.bench.store.plain import PlainLru, PlainS3Fifo
from tests.bench.store.replay import Device, Replay, flash_box, replayed, tiered_box
from tests.bench.store.workload import Family, Unit, trace

SCALE = 0.01


@pytest.fixture(scope="module", params=list(Family))
def small(request):
    return trace(request.param, Unit.EXTENTS, 1, SCALE)


@pytest.mark.parametrize(("name", "plain"), [(LRU, PlainLru), (S3_FIFO, PlainS3Fifo)])
@pytest.mark.parametrize("size", [0.05, 0.3])
def test_a_plain_policy_misses_what_libcachesims_does(small, name, plain, size):
    capacity = int(small.footprint_bytes * size)
    ours = replayed(plain(), small, (Device(Level.NVME, capacity),))
    with baselines.written(small) as file:
        theirs = baselines.replayed(name, small, file, capacity)
    assert (ours.missed, ours.missed_bytes) == (theirs.requests, theirs.bytes)


def test_nobody_misses_fewer_than_belady(small):
    capacity = small.footprint_bytes // 10
    with baselines.written(small) as file:
        missed = {name: baselines.replayed(name, small, file, capacity).bytes for name in baselines.BASELINES}
    assert min(missed, key=missed.__getitem__) == baselines.BELADY


@pytest.mark.parametrize("box", [flash_box, tiered_box])
def test_the_policys_books_are_the_replays(small, box):
    outcome = replayed(Policy(), small, box(small.footprint_bytes // 10))
    assert outcome.served_bytes == small.counted_bytes
    assert sum(outcome.read_bytes.values()) + outcome.missed_bytes == outcome.served_bytes
    assert 0 < outcome.bmr < 1


class Stuffed(PlainLru):
    """Gives up nothing, and says so of something else."""

    def victims(self, shelf, size_bytes, pinned, now):
        yield 1 << 20


def test_a_victim_that_is_not_there_ends_the_bench(small):
    with pytest.raises(BenchError, match="given up"):
        replayed(Stuffed(), small, (Device(Level.NVME, small.footprint_bytes // 10),))


class Boastful(PlainLru):
    """Says that it holds more than it was given."""

    def used_bytes(self, shelf):
        return super().used_bytes(shelf) + 4096


def test_books_that_differ_end_the_bench(small):
    with pytest.raises(BenchError, match="device 0"):
        replayed(Boastful(), small, (Device(Level.NVME, small.footprint_bytes // 10),))


def test_the_policy_takes_up_where_it_was_after_a_restart(small):
    run = Replay(Policy(), small, flash_box(small.footprint_bytes // 10))
    run.run(len(small) // 2)
    restart.restart(run, Policy(), restart.dumped(run))
    run.run()
    assert run.outcome().bmr < 1
