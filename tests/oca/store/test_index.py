"""The index against a dict: what it says, what it drops, what other processes see, and what is left after a death."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import lmdb
import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oca.cache.keys import extent_key, object_key
from oca.cache.records import DeviceRecord, ExtentRecord, ObjectRecord, with_block
from oca.errors import IndexUnusable
from oca.store.index import (
    AddBlock,
    AdoptExtent,
    DropCopy,
    DropExtent,
    DropObject,
    Index,
    IndexLoader,
    IndexReader,
    MoveExtent,
    Pledge,
    PutObject,
)
from tests.oca.store import committer
from tests.oca.store.onlooker import ROOT, Onlooker

PATH = "/titles/x/720p.mp4"
KEY = object_key(PATH)
RECORD = ObjectRecord(PATH, 1, 10_000_000, etag=b'"v"')
FIRST = extent_key(KEY, 1, 0)


@pytest.fixture
async def index(tmp_path):
    async with Index(str(tmp_path / "index")) as opened:
        yield opened


async def test_an_empty_index_knows_nothing(index):
    assert index.object(KEY) is None
    assert index.extent(FIRST) is None
    assert index.extents_of(KEY, 1) == []
    assert index.paths_starting("", 10) == []
    assert list(index.scan_extents(10)) == []
    assert index.counts() == (0, 0)


async def test_what_is_put_is_found(index):
    assert await index.apply(PutObject(KEY, RECORD), AddBlock(FIRST, 2, 7, 3, 99, 4096)) == []
    assert index.object(KEY) == RECORD
    assert index.extent(FIRST) == ExtentRecord(2, 7, 0b1000, bytes(12) + (99).to_bytes(4, "big"), 4096)


async def test_an_extent_that_moves_is_given_up_where_it_was(index):
    await index.apply(AddBlock(FIRST, 0, 7, 0, 1, 4096))
    before = index.extent(FIRST)
    assert await index.apply(AddBlock(FIRST, 1, 8, 1, 2, 4096)) == [(FIRST, before)]
    assert index.extent(FIRST) == ExtentRecord(1, 8, 0b10, bytes(4) + (2).to_bytes(4, "big"), 4096)


async def test_the_last_extent_takes_its_object_with_it(index):
    second = extent_key(KEY, 1, 1)
    await index.apply(PutObject(KEY, RECORD), AddBlock(FIRST, 0, 0, 0, 1, 4096), AddBlock(second, 0, 1, 0, 1, 4096))
    await index.apply(DropExtent(FIRST))
    assert index.object(KEY) == RECORD
    await index.apply(DropExtent(second))
    assert index.object(KEY) is None
    assert index.paths_starting("/", 10) == []


async def test_an_extent_that_got_another_slot_is_not_dropped_by_the_old_one(index):
    await index.apply(AddBlock(FIRST, 0, 7, 0, 1, 4096))
    assert await index.apply(DropExtent(FIRST, 6)) == []
    assert [key for key, _ in await index.apply(DropExtent(FIRST, 7))] == [FIRST]


async def test_the_spared_generation_and_its_record_stay(index):
    old, new = extent_key(KEY, 1, 0), extent_key(KEY, 2, 0)
    await index.apply(PutObject(KEY, RECORD), AddBlock(old, 0, 0, 0, 1, 4096), AddBlock(new, 0, 1, 0, 1, 4096))
    assert [key for key, _ in await index.apply(DropObject(KEY, unless=2))] == [old]
    assert index.object(KEY) == RECORD
    assert index.extent(new) is not None


async def test_neighbours_of_a_dropped_object_stay(index):
    keys = [b"\x00" * 16, b"\x00" * 15 + b"\x01", b"\xff" * 16]
    for slot, key in enumerate(keys):
        await index.apply(
            PutObject(key, ObjectRecord(f"/{slot}", 1, 1)), AddBlock(key + b"\xff" * 12, 0, slot, 0, 1, 1)
        )
    await index.apply(DropObject(keys[1]))
    assert [index.object(key) is not None for key in keys] == [True, False, True]
    assert index.counts() == (2, 2)


async def test_changes_that_wait_together_are_answered_each_with_its_own(index):
    keys = [extent_key(KEY, 1, number) for number in range(20)]
    await asyncio.gather(*(index.apply(AddBlock(key, 0, slot, 0, 1, 1)) for slot, key in enumerate(keys)))
    answers = await asyncio.gather(*(index.apply(DropExtent(key)) for key in keys))
    assert [[key for key, _ in answer] for answer in answers] == [[key] for key in keys]


@pytest.mark.parametrize(
    ("path", "prefix", "found"),
    [
        ("/a/b", "/a", True),
        ("/a/b", "/a/", True),
        ("/a/b", "/a/b", True),
        ("/a/b", "/a/bc", False),
        ("/a/b", "/b", False),
        ("/a/b", "", True),
        ("/f\u00ebte/\u6620\u753b", "/f\u00eb", True),
        ("/f\u00ebte/\u6620\u753b", "/fe", False),
        # Only the first 400 bytes of a path are sorted by; the rest is compared.
        ("/" + "a" * 500 + "/x", "/" + "a" * 500 + "/", True),
        ("/" + "a" * 500 + "/x", "/" + "a" * 500 + "/y", False),
        ("/" + "a" * 398 + "bcd", "/" + "a" * 398 + "b", True),
        ("/" + "a" * 398 + "bcd", "/" + "a" * 398 + "c", False),
        ("/" + "a" * 398 + "b", "/" + "a" * 398 + "bc", False),
        # Cut in the middle of a letter.
        ("/" + "\u6620" * 200 + "/x", "/" + "\u6620" * 140, True),
        ("/" + "\u6620" * 200 + "/x", "/" + "\u6620" * 132 + "\u753b", False),
    ],
)
async def test_objects_below_a_prefix(index, path, prefix, found):
    await index.apply(PutObject(object_key(path), ObjectRecord(path, 1, 1)))
    assert index.paths_starting(prefix, 10) == ([object_key(path)] if found else [])


async def test_a_shorter_path_is_not_below_a_prefix_whatever_its_hash(index):
    # A hash may begin with the very letters that are missing.
    key = b"/everything-else"
    await index.apply(PutObject(key, ObjectRecord("/a", 1, 1)))
    assert index.paths_starting("/a/every", 10) == []
    assert index.paths_starting("/a", 10) == [key]


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_folders_are_found_without_looking_at_everything_in_them(index, limit):
    paths = ["/titles/a/1", "/titles/a/2/3", "/titles/a-b/1", "/titles/ab/1/1", "/titles/b", "/titles", "/titlesc/d/e"]
    for path in paths:
        await index.apply(PutObject(object_key(path), ObjectRecord(path, 1, 1)))
    found, after = [], ""
    while names := index.folders_below("/titles/", after, limit):
        found += names
        after = names[-1]
    assert found == ["a-b", "a", "ab"]


async def test_what_lies_below_a_prefix_is_counted_by_group_and_by_where_it_lies(index):
    lying = [
        ("/t/f/a", 5, 0, 4096),
        ("/t/f/b", 5, 0, 8192),
        ("/t/f/c", 5, 1, 100),
        ("/t/f/d", 6, 0, 1),
        ("/t/g", 5, 0, 1),
    ]
    for slot, (path, group, device, size) in enumerate(lying):
        key = object_key(path)
        await index.apply(
            PutObject(key, ObjectRecord(path, 1, 1)), AddBlock(extent_key(key, 1, 0), device, slot, 0, 1, size, group)
        )
    moved = extent_key(object_key("/t/f/b"), 1, 0)
    await index.apply(MoveExtent(moved, index.extent(moved), 2, keeps_below=True))
    assert index.lying_below("/t/f/", 5) == {(0, -1): 4096, (2, 0): 8192, (1, -1): 100}
    assert index.lying_below("/t/f/d", 6) == {(0, -1): 1}
    assert index.lying_below("/t/none/", 5) == {}


async def test_a_listener_hears_of_objects_and_of_commits_that_were_made(index):
    heard = []

    class Ear:
        def heard(self, paths, extents):
            heard.append((list(paths), list(extents)))

    index.listener = Ear()
    await index.apply(PutObject(KEY, RECORD), AddBlock(FIRST, 2, 7, 3, 99, 4096))
    extent = index.extent(FIRST)
    with pytest.raises(IndexUnusable):
        await index.apply(DropExtent(FIRST), PutObject(bytes(600), RECORD))  # No key is so long.
    await index.apply(DropExtent(FIRST))
    assert heard == [([PATH], [(None, extent)]), ([], [(extent, None)])]


async def test_a_purge_goes_on_from_batch_to_batch(index):
    for number in range(7):
        await index.apply(PutObject(object_key(f"/p/{number}"), ObjectRecord(f"/p/{number}", 1, 1)))
    seen = []
    while keys := index.paths_starting("/p/", 3):
        seen.append(len(keys))
        await index.apply(*(DropObject(key) for key in keys))
    assert seen == [3, 3, 1]


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
async def test_a_scan_gives_every_extent_once(index, batch):
    keys = sorted(extent_key(object_key(str(number)), number, number) for number in range(5))
    for slot, key in enumerate(keys):
        await index.apply(AddBlock(key, 0, slot, 0, 1, 4096))
    batches = list(index.scan_extents(batch))
    assert [key for found in batches for key, _ in found] == keys
    assert all(len(found) <= batch for found in batches)


async def test_a_scan_goes_on_behind_a_key_and_passes_over_what_can_not_be_read(index):
    keys = sorted(extent_key(object_key(str(number)), 1, 0) for number in range(6))
    for slot, key in enumerate(keys):
        await index.apply(AddBlock(key, 0, slot, 0, 1, 4096))
    assert [key for key, _ in index.scan_from(b"", 2)] == keys[:2]
    assert [key for key, _ in index.scan_from(keys[1], 9)] == keys[2:]
    assert index.scan_from(keys[5], 9) == []
    with index._env.begin(write=True) as txn:
        txn.put(keys[2], b"\xc1", db=index._extents)
        txn.put(keys[3], b"", db=index._extents)
    assert [key for key, _ in index.scan_from(keys[1], 2)] == keys[4:]
    assert [key for found in index.scan_extents(1) for key, _ in found] == [*keys[:2], *keys[4:]]


async def test_a_note_is_kept_until_it_is_written_over(tmp_path):
    async with Index(str(tmp_path)) as index:
        assert index.note("scrub one") is None
        await index.put_note("scrub one", b"here")
        await index.put_note("scrub two", b"there")
        await index.put_note("scrub one", b"further")
    async with Index(str(tmp_path)) as index:
        assert (index.note("scrub one"), index.note("scrub two")) == (b"further", b"there")


# --- Extents that move and have copies --------------------------------------------------------------------------------


async def lying(index, *, device: int = 0, below: int | None = None, slot: int = 7) -> ExtentRecord:
    """Two blocks of `FIRST` on a device, with a copy on another."""
    await index.apply(
        PutObject(KEY, RECORD), AddBlock(FIRST, 0 if below is None else below, slot, 0, 11, 4096, 5, 99.0)
    )
    await index.apply(AddBlock(FIRST, 0 if below is None else below, slot, 1, 12, 4096))
    if below is not None:
        await index.apply(MoveExtent(FIRST, index.extent(FIRST), device, keeps_below=True))
    elif device:
        await index.apply(MoveExtent(FIRST, index.extent(FIRST), device, keeps_below=False))
    extent = index.extent(FIRST)
    assert (extent.device, extent.below, extent.present, extent.group, extent.pledged_until) == (
        device,
        below,
        0b11,
        5,
        99.0,
    )
    return extent


def places(dropped) -> list[tuple[int, int | None]]:
    return [(extent.device, extent.below) for _, extent in dropped]


async def test_a_move_frees_the_old_place_or_keeps_it_below(index):
    extent = await lying(index)
    assert places(await index.apply(MoveExtent(FIRST, extent, 1, keeps_below=True))) == []
    assert index.extent(FIRST) == msgspec.structs.replace(extent, device=1, below=0)
    extent = index.extent(FIRST)
    # Up once more: of three places the lowest goes.
    assert places(await index.apply(MoveExtent(FIRST, extent, 2, keeps_below=True))) == [(0, None)]
    extent = index.extent(FIRST)
    assert (extent.device, extent.below) == (2, 1)
    # Down to where its copy lies already.
    assert places(await index.apply(MoveExtent(FIRST, extent, 1, keeps_below=False))) == [(2, None)]
    extent = index.extent(FIRST)
    assert (extent.device, extent.below) == (1, None)
    assert places(await index.apply(MoveExtent(FIRST, extent, 3, keeps_below=False))) == [(1, None)]
    assert index.extent(FIRST) == msgspec.structs.replace(extent, device=3)


@pytest.mark.parametrize(
    "changed",
    [
        AddBlock(FIRST, 0, 7, 2, 13, 4096),
        AddBlock(FIRST, 0, 7, 1, 99, 4096),
        AddBlock(FIRST, 1, 8, 0, 11, 4096),
        DropExtent(FIRST),
        DropObject(KEY),
    ],
)
async def test_what_is_not_what_was_copied_does_not_move(index, changed):
    copied = await lying(index)
    await index.apply(changed)
    before = index.extent(FIRST)
    assert await index.apply(MoveExtent(FIRST, copied, 4, keeps_below=True)) == []
    assert index.extent(FIRST) == before


async def test_of_two_copies_the_other_one_is_read_when_one_is_lost(index):
    extent = await lying(index, device=1, below=0)
    assert places(await index.apply(DropCopy(FIRST, 9))) == []
    assert places(await index.apply(DropCopy(FIRST, 0, 6))) == []
    assert index.extent(FIRST) == extent
    assert places(await index.apply(DropCopy(FIRST, 0, 7))) == [(0, None)]
    assert index.extent(FIRST) == msgspec.structs.replace(extent, below=None)
    await index.apply(MoveExtent(FIRST, index.extent(FIRST), 2, keeps_below=True))
    assert places(await index.apply(DropCopy(FIRST, 2))) == [(2, None)]
    assert index.extent(FIRST) == msgspec.structs.replace(extent, below=None)


async def test_the_last_copy_takes_its_extent_and_its_object_with_it(index):
    extent = await lying(index)
    assert await index.apply(DropCopy(FIRST, 0)) == [(FIRST, extent)]
    assert index.extent(FIRST) is None
    assert index.object(KEY) is None


async def test_a_block_more_makes_the_copy_below_none(index):
    extent = await lying(index, device=1, below=0)
    assert places(await index.apply(AddBlock(FIRST, 1, 7, 2, 13, 4096))) == [(0, None)]
    assert index.extent(FIRST) == with_block(extent, 2, 13, 4096)
    assert index.extent(FIRST).below is None


async def test_a_dropped_extent_frees_both_places(index):
    extent = await lying(index, device=1, below=0)
    assert await index.apply(DropExtent(FIRST)) == [(FIRST, extent)]


async def test_a_pledge_holds_for_one_generation_and_is_taken_back(index):
    old, new = extent_key(KEY, 1, 0), extent_key(KEY, 2, 0)
    await index.apply(PutObject(KEY, RECORD), AddBlock(old, 0, 0, 0, 1, 1), AddBlock(new, 0, 1, 0, 1, 1))
    assert await index.apply(Pledge(KEY, 2, 1e9)) == []
    assert (index.extent(old).pledged_until, index.extent(new).pledged_until) == (0.0, 1e9)
    await index.apply(AddBlock(new, 0, 1, 1, 2, 1))
    assert index.extent(new).pledged_until == 1e9
    await index.apply(Pledge(KEY, 2, 0.0))
    assert index.extent(new).pledged_until == 0.0


# --- Extents that are found on a device -------------------------------------------------------------------------------

FOUND = ExtentRecord(3, 8, 0b1, b"\0\0\0\1", 4096, 5)


async def test_an_extent_that_is_found_is_known_with_its_object(index):
    assert await index.apply(AdoptExtent(FIRST, None, FOUND, RECORD)) == []
    assert index.extent(FIRST) == FOUND
    assert index.object(KEY) == RECORD
    assert index.paths_starting("/titles/", 9) == [KEY]


async def test_what_is_found_does_not_count_if_the_index_says_something_else_by_then(index):
    extent = await lying(index)
    assert await index.apply(AdoptExtent(FIRST, None, FOUND, RECORD)) == []
    assert index.extent(FIRST) == extent
    await index.apply(DropExtent(FIRST))
    assert await index.apply(AdoptExtent(FIRST, extent, FOUND, RECORD)) == []
    assert index.extent(FIRST) is None


async def test_a_better_one_that_is_found_takes_the_place_of_what_is_known(index):
    extent = await lying(index, device=1, below=0)
    found = msgspec.structs.replace(FOUND, slot=extent.slot, below=1)
    assert places(await index.apply(AdoptExtent(FIRST, extent, found, RECORD))) == [(0, None)]
    assert index.extent(FIRST) == found


@pytest.mark.parametrize(("generation", "stays"), [(2, True), (1, True), (3, False)])
async def test_the_newer_generation_counts(index, generation, stays):
    known = extent_key(KEY, 2, 0)
    held = msgspec.structs.replace(RECORD, generation=2, generated_at=50.0)
    await index.apply(PutObject(KEY, held), AddBlock(known, 0, 1, 0, 1, 4096))
    key = extent_key(KEY, generation, 1)
    record = msgspec.structs.replace(RECORD, generation=generation, generated_at=40.0)
    dropped = await index.apply(AdoptExtent(key, None, FOUND, record))
    assert (index.extent(known) is not None) is stays
    assert [key for key, _ in dropped] == ([] if stays else [known])
    assert index.object(KEY) == (held if stays else record)
    assert index.extent(key) == (FOUND if generation >= 2 else None)


async def test_of_the_same_generation_the_record_that_was_validated_last_counts(index):
    await index.apply(PutObject(KEY, RECORD), AddBlock(extent_key(KEY, 1, 5), 0, 1, 0, 1, 4096))
    later = msgspec.structs.replace(RECORD, generated_at=RECORD.generated_at + 1)
    await index.apply(AdoptExtent(FIRST, None, FOUND, later))
    assert index.object(KEY) == later


# --- Devices ----------------------------------------------------------------------------------------------------------


async def test_a_device_has_its_number_until_it_is_dropped(tmp_path):
    records = [DeviceRecord(name, f"/{name}", "nvme", 10**12, home=f"/{name}") for name in ("one", "two", "three")]
    async with Index(str(tmp_path)) as index:
        for record in records:
            index.put_device(index.new_device_number(), record)
        assert index.devices() == dict(enumerate(records))
        index.drop_device(1)
        assert index.new_device_number() == 1
        failing = msgspec.structs.replace(records[2], path="", standing="offline", reason="io", foreign=True)
        index.put_device(2, failing)
        onlooker = Onlooker()
        onlooker.open(str(tmp_path))
        assert onlooker.devices() == {0: records[0], 2: failing}
        onlooker.close()
    async with Index(str(tmp_path)) as index:
        assert index.devices() == {0: records[0], 2: failing}


# --- Loading ----------------------------------------------------------------------------------------------------------


async def test_a_loaded_index_is_like_one_that_was_written_commit_by_commit(tmp_path):
    paths = [f"/{number}" for number in range(20)]
    records = {object_key(path): ObjectRecord(path, 1, 10) for path in paths}
    keys = sorted(records)
    loader = IndexLoader(str(tmp_path / "new"))
    for part in (keys[:7], keys[7:7], keys[7:]):
        loader.append(
            [(key, records[key]) for key in part],
            [(extent_key(key, 1, number), FOUND) for key in part for number in (0, 1)],
        )
    loader.put_devices({3: DeviceRecord("one", "/one", "nvme")})
    loader.close()
    async with Index(str(tmp_path / "new")) as index:
        assert index.counts() == (20, 40)
        assert {key: index.object(key) for key in keys} == records
        assert {extent for found in index.scan_extents(7) for _, extent in found} == {FOUND}
        assert set(index.paths_starting("/1", 99)) == {key for key in keys if records[key].path.startswith("/1")}
        assert index.devices() == {3: DeviceRecord("one", "/one", "nvme")}
        await index.apply(DropObject(keys[0]))
        assert index.counts() == (19, 38)


def test_a_loader_does_not_go_on_with_what_lies_there(tmp_path):
    with pytest.raises(FileExistsError):
        IndexLoader(str(tmp_path))


# --- What can't be used -----------------------------------------------------------------------------------------------


def test_a_file_that_is_no_index_is_named(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"this is not LMDB" * 1000)
    with pytest.raises(IndexUnusable, match=str(tmp_path)):
        Index(str(tmp_path))


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(IndexUnusable, match="state/index"):
        Index(str(tmp_path / "state" / "index"))


def test_a_reader_does_not_make_an_index(tmp_path):
    with pytest.raises(IndexUnusable):
        IndexReader(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


async def test_an_index_of_another_format_is_refused_and_may_be_opened_again_by_who_knows_it(tmp_path):
    async with Index(str(tmp_path)):
        pass
    with lmdb.open(str(tmp_path), max_dbs=8) as env, env.begin(write=True) as txn:
        txn.put(b"format", b"99", db=env.open_db(b"meta", txn=txn))
    for _ in range(2):
        with pytest.raises(IndexUnusable, match="format 99"):
            Index(str(tmp_path))


async def test_a_rotten_record_fails_who_meets_it_and_nobody_after(tmp_path):
    async with Index(str(tmp_path)) as index:
        await index.apply(PutObject(KEY, RECORD), AddBlock(FIRST, 0, 0, 0, 1, 4096))
    with lmdb.open(str(tmp_path), max_dbs=8) as env, env.begin(write=True) as txn:
        txn.put(FIRST, b"\xc1rotten", db=env.open_db(b"extents", txn=txn))
    async with Index(str(tmp_path)) as index:
        async with asyncio.timeout(20):
            with pytest.raises(IndexUnusable):
                await index.apply(AddBlock(FIRST, 0, 0, 1, 1, 4096))
            other = extent_key(KEY, 2, 0)
            await index.apply(AddBlock(other, 0, 1, 0, 1, 4096))
        assert index.extent(other) is not None


async def test_a_failed_commit_leaves_nothing_behind(tmp_path):
    async with Index(str(tmp_path)) as index:
        await index.apply(PutObject(KEY, RECORD))
        with pytest.raises(IndexUnusable):
            # The path's lone surrogate can't be written; what stood before it in the same commit goes too.
            await index.apply(DropObject(KEY), PutObject(b"x" * 16, ObjectRecord("/\ud800", 1, 1)))
        assert index.object(KEY) == RECORD
        assert index.counts() == (1, 0)


# --- Deaths -----------------------------------------------------------------------------------------------------------


def state_of(index: Index) -> tuple[dict, dict]:
    objects = {object_key(path): index.object(object_key(path)) for path in committer.PATHS}
    extents = dict(pair for batch in index.scan_extents(100) for pair in batch)
    return {key: record for key, record in objects.items() if record is not None}, extents


def killed_after(folder: Path, acknowledged: int) -> int:
    """How many commits a writer had told of when it was killed: at least one more than `acknowledged`."""
    child = subprocess.Popen(
        [sys.executable, committer.__file__, str(folder), "100000"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    for _ in range(acknowledged + 1):
        assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    told = acknowledged + 1 + len(child.stdout.read().splitlines())
    child.wait()
    child.stdout.close()
    return told


@pytest.mark.parametrize("acknowledged", [0, 7, 60])
async def test_a_killed_writer_leaves_what_it_had_committed(tmp_path, acknowledged):
    told = killed_after(tmp_path / "index", acknowledged)
    async with Index(str(tmp_path / "index")) as index:
        found = state_of(index)
    async with Index(str(tmp_path / "model")) as model:
        states = []
        for number, change in enumerate(committer.changes(told + 1), start=1):
            await model.apply(*change)
            if number >= told:
                states.append(state_of(model))
    # All that was acknowledged, and the commit under way either whole or not at all.
    assert found in states


def at(extent: ExtentRecord, device: int) -> ExtentRecord:
    """As if it lay on this device alone."""
    return msgspec.structs.replace(extent, device=device, below=None)


class IndexMachine(RuleBasedStateMachine):
    """Random commits against dicts; the index is closed and opened, copied as after a power cut, and looked at."""

    paths = ("/a", "/a/b", "/a/bc", "/" + "l" * 500 + "/1", "/" + "l" * 500 + "/2", "/\u6620" * 120, "/b")
    keys = st.sampled_from(paths).map(object_key)
    generations = st.integers(1, 2)
    onlooker: Onlooker | None = None

    @initialize()
    def start(self):
        self.runner = asyncio.Runner()
        self.folder = tempfile.mkdtemp(prefix="oca-index-")
        self.objects = {}
        self.extents = {}
        self.told = Counter()
        self.open()
        if IndexMachine.onlooker is None:
            IndexMachine.onlooker = Onlooker()
        IndexMachine.onlooker.open(self.folder)

    def open(self):
        async def begin():
            index = Index(self.folder)
            index.listener = self
            return await index.__aenter__()

        self.index = self.runner.run(begin())

    def heard(self, paths, extents):
        """As the index's listener."""
        for before, after in extents:
            self.told[before] -= 1
            self.told[after] += 1
            assert before is not None or after is not None

    def close(self):
        self.runner.run(self.index.__aexit__(None, None, None))

    def teardown(self):
        if hasattr(self, "runner"):
            self.close()
            self.runner.close()
            shutil.rmtree(self.folder)

    def commit(self, *changes):
        async def apply():
            return await self.index.apply(*changes)

        return self.runner.run(apply())

    def drop_from_model(self, key, gone):
        if not any(extent[:16] == key for extent in self.extents) or gone:
            self.objects.pop(key, None)

    @rule(path=st.sampled_from(paths), generation=generations, size=st.integers(0, 9))
    def put(self, path, generation, size):
        record = ObjectRecord(path, generation, size)
        assert self.commit(PutObject(object_key(path), record)) == []
        self.objects[object_key(path)] = record

    @rule(
        key=keys,
        generation=generations,
        number=st.integers(0, 1),
        place=st.sampled_from([(0, 1), (0, 2), (1, 1)]),
        block=st.integers(0, 15),
        crc=st.integers(0, 2**32 - 1),
    )
    def add_block(self, key, generation, number, place, block, crc):
        extent = extent_key(key, generation, number)
        known = self.extents.get(extent)
        moved = known is not None and (known.device, known.slot) != place
        gone = []
        if moved:
            gone = [(extent, known)]
        elif known is not None and known.below is not None:
            gone = [(extent, at(known, known.below))]
        assert self.commit(AddBlock(extent, *place, block, crc, 4096)) == gone
        before = ExtentRecord(*place, 0, b"", 0) if known is None or moved else known
        self.extents[extent] = with_block(before, block, crc, 4096)

    @precondition(lambda self: self.extents)
    @rule(data=st.data(), slot=st.sampled_from([None, 1, 2]))
    def drop_extent(self, data, slot):
        extent = data.draw(st.sampled_from([*sorted(self.extents), extent_key(object_key("/b"), 3, 0)]))
        known = self.extents.get(extent)
        dropped = self.commit(DropExtent(extent, slot))
        if known is None or (slot is not None and known.slot != slot):
            assert dropped == []
            return
        assert dropped == [(extent, known)]
        del self.extents[extent]
        if not any(other[:16] == extent[:16] for other in self.extents):
            self.objects.pop(extent[:16], None)

    @precondition(lambda self: self.extents)
    @rule(data=st.data(), device=st.integers(0, 3), keeps_below=st.booleans(), is_as_copied=st.booleans())
    def move_extent(self, data, device, keeps_below, is_as_copied):
        extent = data.draw(st.sampled_from(sorted(self.extents)))
        known = self.extents[extent]
        if device == known.device:
            return
        copied = known if is_as_copied else with_block(known, 0, known.present, 4096)
        dropped = self.commit(MoveExtent(extent, copied, device, keeps_below))
        if copied.sums != known.sums or copied.present != known.present:
            assert dropped == []
            return
        places = {known.device, known.below} - {None}
        below = known.device if keeps_below else None if known.below == device else known.below
        self.extents[extent] = msgspec.structs.replace(known, device=device, below=below)
        assert {(key, record.device) for key, record in dropped} == {
            (extent, place) for place in places - {device, below}
        }

    @precondition(lambda self: self.extents)
    @rule(data=st.data(), device=st.integers(0, 3), slot=st.sampled_from([None, 1, 2]))
    def drop_copy(self, data, device, slot):
        extent = data.draw(st.sampled_from(sorted(self.extents)))
        known = self.extents[extent]
        dropped = self.commit(DropCopy(extent, device, slot))
        if device not in (known.device, known.below) or slot not in (None, known.slot):
            assert dropped == []
            return
        assert dropped == [(extent, at(known, device))]
        left = known.below if device == known.device else known.device
        if left is not None:
            self.extents[extent] = at(known, left)
            return
        del self.extents[extent]
        self.drop_from_model(extent[:16], gone=False)

    @rule(key=keys, generation=generations, until=st.sampled_from([0.0, 1e9]))
    def pledge(self, key, generation, until):
        assert self.commit(Pledge(key, generation, until)) == []
        for extent, known in self.extents.items():
            if extent.startswith(key + generation.to_bytes(8, "big")):
                self.extents[extent] = msgspec.structs.replace(known, pledged_until=until)

    @rule(
        path=st.sampled_from(paths),
        generation=generations,
        number=st.integers(0, 1),
        slot=st.integers(1, 2),
        is_as_known=st.booleans(),
    )
    def adopt_extent(self, path, generation, number, slot, is_as_known):
        key = object_key(path)
        extent = extent_key(key, generation, number)
        known, held = self.extents.get(extent), self.objects.get(key)
        found = with_block(ExtentRecord(2, slot, 0, b"", 0), 3, slot, 4096)
        record = ObjectRecord(path, generation, 99, generated_at=1.0)
        dropped = self.commit(AdoptExtent(extent, known if is_as_known else found, found, record))
        if (not is_as_known and known != found) or (held is not None and held.generation > generation):
            assert dropped == []
            return
        older = {
            other: self.extents.pop(other)
            for other in sorted(self.extents)
            if held is not None and held.generation < generation and other[:16] == key and other[:24] != extent[:24]
        }
        gone = [] if known is None else [place for place in (known.device, known.below) if place not in (None, 2)]
        assert dropped == [*older.items(), *((extent, at(known, place)) for place in gone)]
        self.extents[extent] = found
        if held is None or held.generation < generation or held.generated_at < 1.0:
            self.objects[key] = record

    @rule(key=keys, unless=st.sampled_from([None, 1, 2]))
    def drop_object(self, key, unless):
        dropped = self.commit(DropObject(key, unless))
        gone = {
            extent: record
            for extent, record in self.extents.items()
            if extent[:16] == key and (unless is None or extent[16:24] != unless.to_bytes(8, "big"))
        }
        assert dropped == sorted(gone.items())
        for extent in gone:
            del self.extents[extent]
        if unless is None:
            self.objects.pop(key, None)

    @rule()
    def close_and_open(self):
        self.close()
        self.open()

    @rule()
    def cut_the_power(self):
        with tempfile.TemporaryDirectory(prefix="oca-copy-") as copy:
            shutil.copy(Path(self.folder) / "data.mdb", copy)
            ours, self.folder, index = self.folder, copy, self.index
            self.open()
            self.says_what_the_model_says()
            self.close()
            self.folder, self.index = ours, index

    @invariant()
    def says_what_the_model_says(self):
        if not hasattr(self, "index"):
            return
        assert self.index.counts() == (len(self.objects), len(self.extents))
        assert {key: self.index.object(key) for key in self.objects} == self.objects
        assert [pair for batch in self.index.scan_extents(3) for pair in batch] == sorted(self.extents.items())
        # What was told of each commit adds up to what there is.
        del self.told[None]
        assert +self.told == Counter(self.extents.values())
        assert not -self.told

    @precondition(lambda self: hasattr(self, "index"))
    @rule(path=st.sampled_from(paths), number=st.integers(0, 1), generation=generations)
    def is_seen_by_others(self, path, number, generation):
        key = object_key(path)
        assert self.onlooker.object(key) == self.objects.get(key)
        extent = extent_key(key, generation, number)
        assert self.onlooker.extent(extent) == self.extents.get(extent)
        assert self.index.extents_of(key, generation) == sorted(
            (other, record) for other, record in self.extents.items() if other.startswith(extent[:24])
        )

    @precondition(lambda self: hasattr(self, "index"))
    @rule(prefix=st.sampled_from(["", "/", "/a", "/a/b", "/" + "l" * 500, "/" + "l" * 500 + "/1", "/\u6620" * 110]))
    def finds_by_prefix(self, prefix):
        found = self.index.paths_starting(prefix, 100)
        assert len(set(found)) == len(found)
        assert set(found) == {key for key, record in self.objects.items() if record.path.startswith(prefix)}


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(max_examples=20, stateful_step_count=25)


@pytest.fixture(scope="module", autouse=True)
def onlooker_ends():
    yield
    if IndexMachine.onlooker is not None:
        IndexMachine.onlooker.close()
        IndexMachine.onlooker = None
