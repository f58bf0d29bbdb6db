"""Records: the block map, freshness and versions, and that packing loses nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.keys import EXTENT_BLOCKS
from oca.cache.records import (
    DeviceRecord,
    ExtentRecord,
    ObjectRecord,
    decode_device,
    decode_extent,
    decode_object,
    encode,
    on_disk,
    with_block,
)

EMPTY = ExtentRecord(device=3, slot=9, present=0, sums=b"", used_bytes=0)
blocks = st.integers(0, EXTENT_BLOCKS - 1)
sums = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4 * 1024 * 1024)


@given(st.lists(st.tuples(blocks, sums, sizes), max_size=40))
def test_the_block_map_equals_a_dict_of_blocks(writes):
    record = EMPTY
    model = {}
    for block, crc, size in writes:
        record = with_block(record, block, crc, on_disk(size))
        # A block's length never changes within a generation; what counts is what it took first.
        model[block] = (crc, model[block][1] if block in model else on_disk(size))
    assert {block for block in range(64) if record.present >> block & 1} == set(model)
    assert {block: record.sum_of(block) for block in model} == {block: crc for block, (crc, _) in model.items()}
    assert record.used_bytes == sum(used for _, used in model.values())
    assert len(record.sums) == 4 * (max(model, default=-1) + 1)
    assert (record.device, record.slot) == (3, 9)
    absent = set(range(len(record.sums) // 4)) - set(model)
    assert all(record.sum_of(block) == 0 for block in absent)


@given(st.permutations(range(EXTENT_BLOCKS)))
def test_the_order_in_which_blocks_land_does_not_matter(order):
    record = EMPTY
    for block in order:
        record = with_block(record, block, block * 7919, 4096)
    assert record == ExtentRecord(
        3, 9, 0xFFFF, b"".join((block * 7919).to_bytes(4, "big") for block in range(16)), 65536
    )


@pytest.mark.parametrize(("length", "taken"), [(0, 0), (1, 4096), (4096, 4096), (4097, 8192), (4194304, 4194304)])
def test_a_block_takes_whole_pages(length, taken):
    assert on_disk(length) == taken


tags = st.sampled_from([b"", b'"a"', b'"b"'])
times = st.sampled_from([None, 0, 1_700_000_000])
records = st.builds(
    ObjectRecord,
    path=st.text(st.characters(exclude_categories=["Cs"])),
    generation=st.integers(0, 2**63),
    size=st.integers(0, 2**50),
    status=st.sampled_from([200, 404]),
    etag=tags,
    last_modified=times,
    kept=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])), max_size=4
    ),
    generated_at=st.floats(0, 1e12),
    lifetime=st.floats(0, 1e12),
    stale_while_revalidate=st.floats(0, 1e9),
    stale_if_error=st.floats(0, 1e9),
    storable=st.booleans(),
    ranged=st.booleans(),
)


@given(records)
def test_an_object_record_survives_packing(record):
    assert decode_object(encode(record)) == record


@given(st.builds(ExtentRecord, st.integers(0, 65535), st.integers(0, 2**32 - 1), sums, st.binary(max_size=64), sizes))
def test_an_extent_record_survives_packing(record):
    assert decode_extent(encode(record)) == record


def test_a_device_record_survives_packing():
    record = DeviceRecord("0123456789abcdef", "/srv/oca/nvme0", "nvme")
    assert decode_device(encode(record)) == record


def test_a_record_of_an_older_version_is_read_with_defaults_for_what_it_lacks():
    packed = encode(["/a", 7, 100])
    assert decode_object(packed) == ObjectRecord("/a", 7, 100)


def test_a_record_of_a_newer_version_is_read_without_what_it_adds():
    known = DeviceRecord("d", "/srv", "nvme", 5, "failing", "io", 1.0, "drain", 0.3, "/srv")
    packed = encode([*(getattr(known, field) for field in known.__struct_fields__), "something new"])
    assert decode_device(packed) == known


def version(size=10, etag=b"", last_modified=None, status=200):
    return ObjectRecord("/a", 1, size, status, etag, last_modified)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (version(etag=b'"a"'), version(etag=b'"a"'), True),
        (version(etag=b'"a"'), version(etag=b'"b"'), False),
        (version(etag=b'"a"', size=11), version(etag=b'"a"'), False),
        (version(etag=b'"a"', last_modified=5), version(etag=b'"a"', last_modified=6), True),
        # One has a tag and the other not: the time alone does not prove it.
        (version(etag=b'"a"', last_modified=5), version(last_modified=5), False),
        (version(last_modified=5), version(last_modified=5), True),
        (version(last_modified=5), version(last_modified=6), False),
        (version(last_modified=0), version(last_modified=0), True),
        # Without a strong validator nothing is known to be the same, not even itself.
        (version(), version(), False),
        (version(etag=b'"a"'), version(etag=b'"a"', status=404), False),
    ],
)
def test_what_counts_as_the_same_bytes(one, other, same):
    assert one.is_same_version(other) is same
    assert other.is_same_version(one) is same


@given(records, st.floats(0, 1e12))
def test_a_record_is_fresh_for_its_lifetime_and_never_negative_in_age(record, now):
    assert record.is_fresh(now) == (now < record.generated_at + record.lifetime)
    assert record.age(now) >= 0
    assert record.age(record.generated_at + 1.9) in (1, 2)
