"""Cold reads: on the device's own threads, in turns, given up in time, answered on the loop."""

import asyncio
import os
import sys
import threading

import pytest

from oca.cache.health import Fault
from oca.cache.keys import BLOCK_BYTES
from oca.counters import DEVICES, DeviceCount, device_words
from oca.edge.extents import Copy, Damaged, GivenUp, OpenExtent
from oca.edge.pools import _LINE
from tests.oca.edge.disk import PATIENCE, Bay, answer_of, flip, forget_pages, laid, opened
from tests.oca.test_turns import ROOT, Other


@pytest.fixture
async def bay():
    built = Bay()
    yield built
    built.close()


@pytest.fixture
async def hasty():
    """Gives reads up soon."""
    built = Bay(read_timeout=0.05, nvme_queue=2)
    yield built
    built.close()


@pytest.fixture
def gate():
    """Reads that hang until it is opened."""
    built = threading.Event()
    yield built
    built.set()


def hang(bay: Bay, gate: threading.Event, device: int, extent: OpenExtent, key: bytes, done=lambda result: None):
    """Have a thread of a device hang, as a disk that does not answer would."""

    def work() -> OpenExtent:
        gate.wait()
        return extent

    return bay.pools._pool(device, extent.place).ask((key, 0), work, 1, done)


async def test_what_was_read_is_in_memory_and_verified(bay, tmp_path):
    content = os.urandom(BLOCK_BYTES + 100)
    extent = opened(tmp_path, content)
    forget_pages(extent)
    for block, part in enumerate((content[:BLOCK_BYTES], content[BLOCK_BYTES:])):
        copy = await answer_of(bay.pools.read, extent, block)
        assert isinstance(copy, Copy)
        assert os.pread(copy.fd, BLOCK_BYTES, 0) == part
    assert extent.is_warm(0, BLOCK_BYTES, bay.pools, 1.0)


async def test_an_extent_is_opened_on_the_device_s_threads(bay, tmp_path):
    lying = laid(tmp_path, b"film")
    extent = await answer_of(bay.pools.open, lying)
    assert isinstance(extent, OpenExtent)
    assert os.pread(extent.fd, 10, 0) == b"film"
    os.unlink(lying.path)
    lost = await answer_of(bay.pools.open, lying)
    assert isinstance(lost, Damaged)
    assert lost.fault is Fault.MISSING


async def test_what_is_rotten_comes_back_as_that(bay, tmp_path):
    lying = laid(tmp_path, b"x" * 1000)
    flip(lying.path, 500)
    damaged = await answer_of(bay.pools.read, await answer_of(bay.pools.open, lying), 0)
    assert isinstance(damaged, Damaged)
    assert damaged.fault is Fault.ROTTEN


async def test_two_who_want_the_same_block_cause_one_read(bay, tmp_path):
    extent = opened(tmp_path, b"x" * 1000)
    both = await asyncio.gather(*(answer_of(bay.pools.read, extent, 0) for _ in range(2)))
    assert both[0] is both[1]
    assert bay.tally.words[device_words(0) + DeviceCount.READS] == 1


async def test_a_device_that_hangs_does_not_delay_another(bay, gate, tmp_path):
    slow, well = opened(tmp_path, b"slow", name="/slow"), opened(tmp_path, b"well", device=1)
    for number in range(40):
        hang(bay, gate, 0, slow, bytes([number]))
    late: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    bay.pools.read(slow, 0, late.set_result)
    assert isinstance(await answer_of(bay.pools.read, well, 0), Copy)
    assert not late.done()
    gate.set()
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await late, Copy)


async def test_a_read_that_hangs_is_given_up_and_told(hasty, gate, tmp_path):
    extent = opened(tmp_path, b"x")
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    hang(hasty, gate, 4, extent, b"a", told.set_result)
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await told, GivenUp)
    ((device, seconds), *_) = hasty.stalls
    assert (device, seconds >= 0.05) == (4, True)


async def test_a_device_of_which_all_threads_hang_refuses_at_once_until_it_answers(hasty, gate, tmp_path):
    extent = opened(tmp_path, b"x")
    told: asyncio.Queue[object] = asyncio.Queue()
    # Two are read, one waits in line.
    for key in (b"a", b"b", b"c"):
        hang(hasty, gate, 0, extent, key, told.put_nowait)
    async with asyncio.timeout(PATIENCE):
        assert all([isinstance(await told.get(), GivenUp) for _ in range(3)])
    with pytest.raises(GivenUp):
        hasty.pools.read(extent, 0, told.put_nowait)
    # Said once for all of them, and again for as long as it goes on.
    said = len(hasty.stalls)
    async with asyncio.timeout(PATIENCE):
        while len(hasty.stalls) < said + 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
    gate.set()
    answered = None
    async with asyncio.timeout(PATIENCE):
        while answered is None:
            try:
                answered = await answer_of(hasty.pools.read, extent, 0)
            except GivenUp:
                await asyncio.sleep(0)
    assert isinstance(answered, Copy)
    # Threads that came back are used again: never more than the device is deep.
    assert sum(thread.name.startswith("device-0-") for thread in threading.enumerate()) <= 2


async def test_one_read_that_hangs_does_not_keep_others_of_its_device_waiting(hasty, gate, tmp_path):
    extent = opened(tmp_path, b"x" * 10)
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    hang(hasty, gate, 0, extent, b"a", told.set_result)
    while not told.done():
        assert isinstance(await answer_of(hasty.pools.read, extent, 0), Copy)
    # That very read is not asked for again, the device is.
    with pytest.raises(GivenUp):
        hang(hasty, gate, 0, extent, b"a")
    assert isinstance(await answer_of(hasty.pools.read, extent, 0), Copy)
    assert len(hasty.stalls) == 1


async def test_a_line_that_is_too_long_is_refused(hasty, gate, tmp_path):
    extent = opened(tmp_path, b"x")
    # Two of them may have left the line already.
    for number in range(2 * _LINE):
        hang(hasty, gate, 0, extent, number.to_bytes(2, "big"))
    with pytest.raises(GivenUp):  # noqa: PT012
        for number in range(3):
            hang(hasty, gate, 0, extent, b"more" + bytes([number]))
    assert hasty.stalls == []


async def test_who_left_is_not_told_and_what_nobody_wants_is_not_read(bay, gate, tmp_path):
    extent = opened(tmp_path, b"x" * 10, tier="hdd")
    told: list[object] = []
    first = hang(bay, gate, 0, extent, b"a", told.append)
    second = bay.pools.read(extent, 0, told.append)
    while first.began_at is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    bay.pools.leave(0, second, told.append)
    bay.pools.leave(0, first, told.append)
    gate.set()
    other = opened(tmp_path, b"y", tier="hdd", name="/other")
    assert isinstance(await answer_of(bay.pools.read, other, 0), Copy)
    assert told == []
    # The first had begun, the second had not.
    assert bay.tally.words[device_words(0) + DeviceCount.READS] == 2


async def test_turns_are_shared_with_other_processes(bay, tmp_path):
    extent = opened(tmp_path, b"x" * 10, tier="hdd", device=9)
    other = Other(bay.memory, 9, 1)
    assert other.says() == "has it"
    late: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    bay.pools.read(extent, 0, late.set_result)
    # Nor is it taken by whoever reads in the background.
    assert isinstance(await answer_of(bay.pools.read, opened(tmp_path, b"y", name="/other"), 0), Copy)
    assert not late.done()
    other.give_back()
    async with asyncio.timeout(PATIENCE):
        assert isinstance(await late, Copy)
    other.end()


async def test_reading_ahead_happens_only_when_nothing_else_does(bay, gate, tmp_path):
    extent = opened(tmp_path, b"x" * 10, tier="hdd")
    blocked = opened(tmp_path, b"y", tier="hdd", name="/other")
    hang(bay, gate, 0, blocked, b"a")
    bay.pools.read_ahead(extent, 0)
    gate.set()
    assert isinstance(await answer_of(bay.pools.read, blocked, 0), Copy)
    reads = bay.tally.words[device_words(0) + DeviceCount.READS]
    bay.pools.read_ahead(extent, 0)
    # Who comes meanwhile joins it, or finds it done.
    assert isinstance(await answer_of(bay.pools.read, extent, 0), OpenExtent | Copy)
    assert bay.tally.words[device_words(0) + DeviceCount.READS] > reads == 2


async def test_a_device_that_lets_a_read_wait_is_suspect_until_it_answers(bay, gate, tmp_path):
    extent = opened(tmp_path, b"x")
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    hang(bay, gate, 3, extent, b"a", done.set_result)
    now = asyncio.get_running_loop().time()
    bay.pools.look(now)
    assert bay.pools.suspects == set()
    bay.pools.look(now + 1)
    assert bay.pools.suspects == {3}
    gate.set()
    await done
    assert bay.pools.suspects == set()


async def test_reads_are_counted_by_device(bay, tmp_path):
    extent = opened(tmp_path, b"x" * 1000, device=5)
    await answer_of(bay.pools.read, extent, 0)
    os.truncate(extent_path(extent), 0)
    await answer_of(bay.pools.read, extent, 0)
    beyond = opened(tmp_path, b"y", device=DEVICES, name="/beyond")
    await answer_of(bay.pools.read, beyond, 0)
    at = device_words(5)
    counted = list(bay.tally.words[at : at + len(DeviceCount)])
    assert counted[:4] == [2, 1000, 1, 0]
    assert counted[DeviceCount.MICROSECONDS] > 0


def extent_path(extent: OpenExtent) -> str:
    return os.readlink(f"/proc/self/fd/{extent.fd}")


async def test_a_process_ends_though_its_disks_hang(tmp_path):
    """Threads in the kernel can't be ended: they must not be waited for."""
    program = """\
import asyncio, os, sys, threading
sys.path.insert(0, sys.argv[1])
from tests.oca.edge.disk import Bay
async def main():
    bay = Bay()
    began = threading.Event()
    def hangs():
        began.set()
        threading.Event().wait()
    bay.pools._pool(0, 0).ask((b"", 0), hangs, 1, print)
    while not began.is_set():
        await asyncio.sleep(0)
    bay.close()
asyncio.run(main())
print("ends", flush=True)
"""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(ROOT), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        said, _ = await child.communicate()
    assert (said, child.returncode) == (b"ends\n", 0)
