"""The scrubber: everything is read again in time, what is damaged goes and comes back, viewers come first."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from oca.cache.health import Fault, Signal
from oca.cache.keys import BLOCK_BYTES, object_key
from oca.errors import NoSourceAnswered
from oca.store.index import MoveExtent
from oca.store.scrub import Scrubber
from tests.doubles.faulty import Act, faulty_disk
from tests.oca.store.stock import Stock, flip

DAY = 86400.0


class Ladder:
    """Where bytes are fetched anew: the store's own content, kept again."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self.asked: list[tuple[str, list[int]]] = []
        self.answers = True

    async def __call__(self, path: str, blocks: list[int]) -> None:
        self.asked.append((path, blocks))
        if not self.answers:
            raise NoSourceAnswered(504, "nobody is there")
        await self.stock.keep(path, blocks, size=8 * BLOCK_BYTES)


@pytest.fixture
async def stock(tmp_path, board):
    async with Stock(tmp_path, board, {"disk": "nvme"}) as started:
        yield started


def scrubber_of(stock, days=30.0, **others):
    ladder = Ladder(stock)
    return Scrubber(stock.shelves, stock.index, days, ladder, lambda: stock.now, stock.sleep, **others), ladder


async def test_a_round_reads_every_block_that_is_held(stock):
    await stock.keep("/a", [0, 1, 5], size=8 * BLOCK_BYTES)
    await stock.keep("/b", [0], size=4096)
    scrubber, ladder = scrubber_of(stock)
    assert await scrubber.round(stock.shelf("disk"))
    assert (scrubber.blocks, scrubber.bytes) == (4, 3 * BLOCK_BYTES + 4096)
    assert not scrubber.damaged
    assert ladder.asked == []


async def test_a_round_takes_the_days_it_may_take_and_not_more(stock):
    for number in range(10):
        await stock.keep(f"/{number}", [0, 1], size=8 * BLOCK_BYTES)
    scrubber, _ = scrubber_of(stock, days=10.0)
    began = stock.now
    seen = []

    async def sleep(seconds):
        stock.now += seconds
        seen.append(scrubber.rounds[0].expected_end)

    scrubber._sleep = sleep
    assert await scrubber.round(stock.shelf("disk"))
    assert 6 * DAY < stock.now - began <= 10 * DAY
    assert all(began + 5 * DAY < end <= began + 12 * DAY for end in seen)
    assert scrubber.rounds[0].share == 1.0
    # The next one begins when this one's days are over.
    assert await scrubber.round(stock.shelf("disk"))
    assert stock.now - began > 15 * DAY


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda file: flip(file, BLOCK_BYTES + 7), Fault.ROTTEN),
        (lambda file: os.truncate(file, BLOCK_BYTES + 7), Fault.SHORT),
        (lambda file: file.unlink(), Fault.MISSING),
    ],
)
async def test_what_is_damaged_goes_and_is_fetched_anew(stock, damage, fault):
    await stock.keep("/a", [0, 1, 4], size=8 * BLOCK_BYTES)
    await stock.keep("/b", [0], size=8 * BLOCK_BYTES)
    before = stock.extent("/a")
    damage(stock.file("/a"))
    scrubber, ladder = scrubber_of(stock)
    assert await scrubber.round(stock.shelf("disk"))
    assert scrubber.damaged == {fault: 1}
    assert ladder.asked == [("/a", [0, 1, 4])]
    assert scrubber.replaced == 3
    after = stock.extent("/a")
    assert (after.present, after.sums) == (before.present, before.sums)
    again, ladder = scrubber_of(stock)
    assert await again.round(stock.shelf("disk"))
    assert not again.damaged


async def test_what_was_pledged_is_pledged_again_when_it_is_replaced(stock):
    await stock.keep("/a", [0], size=8 * BLOCK_BYTES)
    await stock.shelves.pledge(object_key("/a"), 1, stock.now + 90 * DAY)
    until = stock.extent("/a").pledged_until
    flip(stock.file("/a"), 3)
    scrubber, _ = scrubber_of(stock)
    assert await scrubber.round(stock.shelf("disk"))
    assert scrubber.replaced == 1
    assert stock.extent("/a").pledged_until == until


async def test_what_no_source_gives_is_gone_and_the_round_goes_on(stock):
    for name in ("/a", "/b", "/c"):
        await stock.keep(name, [0, 1], size=8 * BLOCK_BYTES)
    flip(stock.file("/b"), 9)
    scrubber, ladder = scrubber_of(stock)
    ladder.answers = False
    assert await scrubber.round(stock.shelf("disk"))
    assert scrubber.damaged == {Fault.ROTTEN: 1}
    assert scrubber.replaced == 0
    assert stock.extent("/b") is None
    assert scrubber.blocks == 4


async def test_of_two_copies_both_are_read_and_the_good_one_stays(tmp_path, board):
    async with Stock(tmp_path, board, {"slow": "hdd", "fast": "nvme"}) as stock:
        await stock.keep("/a", [0, 1], size=8 * BLOCK_BYTES)
        extent = stock.extent("/a")
        slow, fast = stock.shelf("slow"), stock.shelf("fast")
        assert extent.device == slow.number
        name = stock.key("/a")
        copy = Path(fast.folder.file_path(name))
        copy.parent.mkdir(parents=True)
        shutil.copy(slow.folder.file_path(name), copy)
        await stock.index.apply(MoveExtent(name, extent, fast.number, keeps_below=True))
        stock.shelves.policy.move(extent.slot, fast.number, stock.now, keeps_below=True)
        scrubber, ladder = scrubber_of(stock)
        assert await scrubber.round(slow)
        assert await scrubber.round(fast)
        assert scrubber.blocks == 4
        flip(copy, 5)
        assert await scrubber.round(fast)
        assert scrubber.damaged == {Fault.ROTTEN: 1}
        assert ladder.asked == []
        assert (stock.extent("/a").device, stock.extent("/a").below) == (slow.number, None)


async def test_a_round_goes_on_where_it_was_left(tmp_path, board):
    async with Stock(tmp_path, board, {"disk": "nvme"}) as stock:
        for number in range(12):
            await stock.keep(f"/{number}", [0], size=8 * BLOCK_BYTES)
        scrubber, _ = scrubber_of(stock)
        began = stock.now

        async def sleep(seconds):
            stock.now += seconds
            if scrubber.blocks == 6:
                raise killed

        killed = RuntimeError("the keeper is killed")
        scrubber._sleep = sleep
        with pytest.raises(RuntimeError):
            await scrubber.round(stock.shelf("disk"))
    async with Stock(tmp_path, board, {"disk": "nvme"}) as again:
        again.now = began + 20 * DAY
        scrubber, _ = scrubber_of(again)
        assert await scrubber.round(again.shelf("disk"))
        assert 6 <= scrubber.blocks <= 7
        assert scrubber.rounds[again.shelf("disk").number].started_at == began


async def test_a_device_that_is_not_readable_is_passed_over(stock):
    await stock.keep("/a", [0], size=8 * BLOCK_BYTES)
    shelf = stock.shelf("disk")
    stock.shelves.signal(shelf, Signal.VANISHED, "pulled")
    scrubber, ladder = scrubber_of(stock)
    assert not await scrubber.round(shelf)
    assert scrubber.blocks == 0
    assert stock.extent("/a") is not None
    assert ladder.asked == []


async def test_a_device_that_was_pulled_loses_nothing(stock):
    await stock.keep("/a", [0], size=8 * BLOCK_BYTES)
    shelf = stock.shelf("disk")
    (stock.root / "disk").rename(stock.root / "elsewhere")
    for folder in (stock.root / "elsewhere" / "extents").iterdir():
        folder.rename(stock.root / folder.name)
    scrubber, _ = scrubber_of(stock)
    await scrubber.round(shelf)
    assert stock.extent("/a") is not None
    assert not scrubber.damaged
    assert not shelf.can_read


async def test_viewers_come_first_but_not_for_ever(stock):
    await stock.keep("/a", [0, 1], size=8 * BLOCK_BYTES)
    asked = []

    @contextlib.contextmanager
    def busy(device, depth):
        asked.append((device, depth))
        yield False

    scrubber, _ = scrubber_of(stock, try_turn=busy, depth_of=lambda tier: 16)
    assert await scrubber.round(stock.shelf("disk"))
    assert scrubber.blocks == 2
    assert len(asked) == 200
    assert set(asked) == {(stock.shelf("disk").number, 16)}


async def test_what_is_evicted_while_it_is_read_is_no_damage(stock):
    await stock.keep("/a", [0, 1], size=8 * BLOCK_BYTES)
    scrubber, ladder = scrubber_of(stock)

    async def sleep(seconds):
        stock.now += seconds
        if scrubber.blocks == 1:
            await stock.shelves.drop([object_key("/a")])

    scrubber._sleep = sleep
    assert await scrubber.round(stock.shelf("disk"))
    assert not scrubber.damaged
    assert ladder.asked == []


async def test_an_empty_device_is_done_at_once(stock):
    scrubber, _ = scrubber_of(stock)
    began = stock.now
    assert await scrubber.round(stock.shelf("disk"))
    assert stock.now == began


# --- A disk that fails ------------------------------------------------------------------------------------------------


@pytest.fixture
async def failing(tmp_path, board):
    """A store on a disk that fails as it is told, with four extents, none of which the kernel remembers."""
    with faulty_disk(tmp_path / "faulty") as disk:
        async with Stock(tmp_path, board, {"faulty/mount": "hdd"}) as stock:
            for number in range(4):
                await stock.keep(f"/{number}", [0, 1], size=8 * BLOCK_BYTES)
            disk.forget(*disk.files())
            yield stock, disk
            disk.mend()


@pytest.mark.mounts
async def test_what_the_disk_can_not_read_is_replaced(failing):
    stock, disk = failing
    (shelf,) = stock.shelves.shelves
    disk.fail(Act.READ, where=f"*{stock.key('/2').hex()}", times=2)
    scrubber, ladder = scrubber_of(stock)
    assert await scrubber.round(shelf)
    assert scrubber.damaged == {Fault.IO: 1}
    assert ladder.asked == [("/2", [0, 1])]
    assert scrubber.replaced == 2
    assert shelf.can_read


@pytest.mark.mounts
async def test_a_read_that_stalls_is_told_of_and_the_others_are_read(failing):
    stock, disk = failing
    (shelf,) = stock.shelves.shelves
    held = disk.hold(Act.READ, where=f"*{stock.key('/1').hex()}")
    scrubber, ladder = scrubber_of(stock, deadline=0.3)
    assert await scrubber.round(shelf)
    assert scrubber.blocks == 6
    assert not scrubber.damaged
    assert ladder.asked == []
    assert "does not answer" in shelf.detail
    disk.mend(held)
    assert await scrubber.round(shelf)
    assert scrubber.blocks == 6 + 8


@pytest.mark.mounts
async def test_a_disk_that_stalls_again_and_again_is_left_alone(failing):
    stock, disk = failing
    (shelf,) = stock.shelves.shelves
    disk.hold(Act.READ)
    scrubber, _ = scrubber_of(stock, days=1e-6, deadline=0.1)
    assert not await scrubber.round(shelf)
    assert not shelf.can_read
    assert len(stock.known()) == 4
