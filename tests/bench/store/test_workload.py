"""The generator: the same arguments give the same trace, and it looks like viewers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.store.workload import (
    EXTENT_BYTES,
    PAGE,
    Family,
    Unit,
    arrivals,
    mixed,
    restacked,
    trace,
)

SCALE = 0.02
KINDS = [(family, unit) for family in Family for unit in Unit]


@pytest.mark.parametrize(("family", "unit"), KINDS)
def test_the_same_seed_gives_the_same_trace_and_another_gives_another(family, unit):
    first, again, other = (trace(family, unit, seed, SCALE) for seed in (1, 1, 2))
    for column in ("times", "objects", "sizes", "groups", "names"):
        assert np.array_equal(getattr(first, column), getattr(again, column))
    assert not np.array_equal(first.objects[:1000], other.objects[:1000])


@pytest.mark.parametrize(("family", "unit"), KINDS)
def test_accesses_are_in_order_and_every_object_is_asked_for(family, unit):
    made = trace(family, unit, 1, SCALE)
    assert len(made) > 3000
    assert (np.diff(made.times) >= 0).all()
    assert np.array_equal(np.unique(made.objects), np.arange(len(made.sizes)))
    assert len(np.unique(made.names)) == len(made.names)


@pytest.mark.parametrize(("family", "unit"), KINDS)
def test_sizes_are_whole_pages_of_an_extent_at_most(family, unit):
    made = trace(family, unit, 1, SCALE)
    assert (made.sizes % PAGE == 0).all()
    assert made.sizes.min() >= PAGE
    assert made.sizes.max() <= EXTENT_BYTES


def test_a_session_reads_segments_of_one_rendition_in_order():
    made = trace(Family.POPULARITY, Unit.SEGMENTS, 1, SCALE)
    # Parts of one rendition are numbered upwards, so that reading on shows as steps of one.
    by_group = np.argsort(made.groups[made.objects], kind="stable")
    steps = np.diff(made.objects[by_group])
    assert np.mean(steps == 1) > 0.5


def test_few_titles_take_most_of_the_popular_plays():
    made = trace(Family.POPULARITY, Unit.EXTENTS, 1, 0.1)
    plays = np.sort(np.bincount(made.objects))[::-1]
    assert plays[: len(plays) // 10].sum() > 0.35 * plays.sum()


def test_recency_asks_again_soon_or_not_at_all():
    made = trace(Family.RECENCY, Unit.EXTENTS, 1, 0.1)
    order = np.argsort(made.objects, kind="stable")
    gaps = np.diff(made.times[order])[np.diff(made.objects[order]) == 0]
    span = made.times[-1] - made.times[0]
    assert np.median(gaps) < span / 20
    assert np.mean(np.bincount(made.objects) == 1) > 0.4


def test_arrivals_are_dense_in_the_evening():
    hours = arrivals(50_000, 3, np.random.default_rng(1)) // 3600 % 24
    counts = np.bincount(hours.astype(int), minlength=24)
    assert counts[20] > 4 * counts[4]


def test_mixing_is_one_to_one_and_leaves_no_order():
    names = mixed(np.arange(10_000, dtype=np.uint64))
    assert len(np.unique(names)) == 10_000
    assert abs(np.mean(names >> np.uint64(63)) - 0.5) < 0.03


def test_a_stack_gives_what_lies_at_the_depth_and_puts_it_on_top():
    is_new = np.array([True, True, True, False, False])
    depth = np.array([0, 0, 0, 2, 1])
    assert restacked(is_new, depth).tolist() == [0, 1, 2, 0, 2]


def test_a_depth_below_the_stack_is_new():
    assert restacked(np.array([False, False, False]), np.array([0, 1, 0])).tolist() == [0, 1, 1]
