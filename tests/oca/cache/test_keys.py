"""Names inside the cache: hashes, whatever the network said."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.keys import (
    BLOCK_BYTES,
    EXTENT_BLOCKS,
    EXTENT_BYTES,
    block_span,
    extent_key,
    file_name,
    group_of,
    grouped,
    key_of_file,
    object_key,
    split_extent_key,
    title_of,
)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_an_extent_key_and_its_file_name_are_taken_apart_again(key, generation, number):
    whole = extent_key(key, generation, number)
    assert len(whole) == 28
    assert split_extent_key(whole) == (key, generation, number)
    assert key_of_file(file_name(whole).rpartition("/")[2]) == whole


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)), min_size=2, max_size=10))
def test_sorted_extent_keys_stand_by_generation_then_number(pairs):
    assert sorted(extent_key(b"k" * 16, *pair) for pair in pairs) == [
        extent_key(b"k" * 16, *pair) for pair in sorted(pairs)
    ]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_no_letter_of_a_path_reaches_a_file_name(path):
    name = file_name(extent_key(object_key(path), 1, 0))
    assert set(name) <= set("0123456789abcdef/")
    assert [len(part) for part in name.split("/")] == [2, 2, 56]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "oca-device.json",
        "ab" * 27,
        "ab" * 29,
        "AB" * 28,
        "ab " * 28,
        "zz" * 28,
        "ab" * 28 + ".new",
        "\u0661" * 56,
    ],
)
def test_a_file_that_is_not_ours_has_no_key(name):
    assert key_of_file(name) is None


def test_the_key_of_a_path_never_changes():
    # It names files on disks that outlive this software.
    assert object_key("/titles/x/720p.mp4").hex() == "0524db2ce1024d8004d208f871c3ccaa"


@given(st.integers(1, 3 * EXTENT_BYTES))
def test_block_spans_cover_an_object_without_gap_or_overlap(size):
    spans = [block_span(block, size) for block in range(-(-size // BLOCK_BYTES))]
    assert spans[0][0] == 0
    assert spans[-1][1] == size
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(0 < stop - start <= BLOCK_BYTES for start, stop in spans)
    assert EXTENT_BYTES == EXTENT_BLOCKS * BLOCK_BYTES


def test_segments_of_a_rendition_are_one_group():
    assert group_of("/titles/x/720p.ab/1.m4s", 1000) == group_of("/titles/x/720p.ab/2.m4s", 2000)


def test_renditions_of_a_title_are_groups_of_one_title():
    low, high = group_of("/titles/x/360p.ab/1.m4s", 1000), group_of("/titles/x/720p.ab/1.m4s", 1000)
    whole = group_of("/titles/x/1080p.mp4", EXTENT_BYTES + 1)
    assert len({low, high, whole}) == 3
    assert title_of(low) == title_of(high) == title_of(whole) != title_of(group_of("/titles/y/720p.ab/1.m4s", 1000))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_group_has_32_bits(title, rendition):
    assert 0 <= grouped(title, rendition) < 2**32
    assert title_of(grouped(title, rendition)) == title_of(grouped(title, rendition + 1))
