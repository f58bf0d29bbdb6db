"""Hours on disk: whole or not at all, and no more than allowed."""

import pytest

from oca.keeper.spool import Spool
from oca.report.demand import part_name

SEVEN, EIGHT, NINE = (part_name(hour, "aa") for hour in (7, 8, 9))


async def opened(folder, most=1_000_000):
    spool = Spool(folder / "demand", most)
    await spool.open()
    return spool


async def test_what_was_written_is_found_by_the_next_keeper(tmp_path):
    spool = await opened(tmp_path)
    await spool.write(SEVEN, b"x" * 5000)
    await spool.write(SEVEN, b"y" * 5001)
    await spool.write(part_name(7, "bb"), b"z")
    await spool.write("stock.json", b"{}")
    for one in (spool, await opened(tmp_path)):
        assert one.parts == (SEVEN, part_name(7, "bb"))
        assert (one.hours, one.size_bytes) == (1, 8192 + 4096)
    assert (spool.folder / SEVEN).read_bytes() == b"y" * 5001


async def test_what_a_killed_keeper_was_writing_does_not_count_and_goes(tmp_path):
    spool = await opened(tmp_path)
    await spool.write(SEVEN, b"whole")
    (spool.folder / f"{SEVEN}.new").write_bytes(b"ha")
    (spool.folder / f"{EIGHT}.new").write_bytes(b"ha")
    again = await opened(tmp_path)
    assert again.parts == (SEVEN,)
    assert [path.name for path in again.folder.iterdir()] == [SEVEN]


async def test_the_oldest_hours_make_room_but_the_running_one_stays(tmp_path):
    spool = await opened(tmp_path, 2 * 4096)
    for name in (NINE, SEVEN, EIGHT):
        await spool.write(name, b"x")
    assert await spool.make_room(running=SEVEN) == [EIGHT]
    assert spool.parts == (SEVEN, NINE)
    assert await spool.make_room(running=None) == []
    assert (await opened(tmp_path)).parts == (SEVEN, NINE)


async def test_a_disk_that_takes_nothing_leaves_what_was_there(tmp_path):
    spool = await opened(tmp_path)
    await spool.write(SEVEN, b"before")
    (spool.folder / f"{SEVEN}.new").mkdir()
    with pytest.raises(OSError):
        await spool.write(SEVEN, b"after")
    assert (spool.folder / SEVEN).read_bytes() == b"before"
    assert spool.parts == (SEVEN,)


async def test_what_went_already_may_be_removed_again(tmp_path):
    spool = await opened(tmp_path)
    await spool.write(SEVEN, b"x")
    await spool.remove(SEVEN)
    await spool.remove(SEVEN)
    assert spool.parts == ()
