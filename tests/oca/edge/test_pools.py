"""Cold reads: on the device's own threads, answered on the loop."""

import asyncio
import os
import threading

import pytest

from oca.edge.pools import Pools, is_warm


@pytest.fixture
async def pools():
    built = Pools()
    yield built
    built.close()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "film"
    path.write_bytes(os.urandom(3 * 1024 * 1024))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


async def read(pools: Pools, device: int, fd: int, offset: int, count: int) -> OSError | None:
    answered: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    pools.read(device, fd, offset, count, answered.set_result)
    async with asyncio.timeout(20):
        return await answered


async def test_what_was_read_is_warm(pools, file):
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    assert await read(pools, 0, file, 1024 * 1024, 2 * 1024 * 1024) is None
    assert is_warm(file, 1024 * 1024, 2 * 1024 * 1024)


@pytest.mark.parametrize(("offset", "count"), [(0, 1), (4095, 2), (3 * 1024 * 1024 - 1, 1), (0, 3 * 1024 * 1024)])
def test_a_file_just_written_is_warm(file, offset, count):
    assert is_warm(file, offset, count)


def test_what_can_not_be_probed_is_sent_without():
    read_end, write_end = os.pipe()
    assert is_warm(read_end, 0, 10)
    os.close(read_end)
    os.close(write_end)


async def test_an_error_of_the_disk_comes_back_with_the_answer(pools, tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    error = await read(pools, 0, folder, 0, 10)
    assert isinstance(error, IsADirectoryError)
    os.close(folder)


async def test_a_response_that_ended_may_close_its_file_before_the_disk_answers(pools, tmp_path):
    (tmp_path / "film").write_bytes(b"x" * 100)
    fd = os.open(tmp_path / "film", os.O_RDONLY)
    answered = asyncio.get_running_loop().create_future()
    pools.read(0, fd, 0, 100, answered.set_result)
    os.close(fd)
    assert await answered is None


async def test_a_slow_device_does_not_delay_another(pools, file):
    gate = threading.Event()
    assert await read(pools, 0, file, 0, 10) is None
    for _ in range(50):
        pools._pools[0].submit(gate.wait)
    late = asyncio.get_running_loop().create_future()
    pools.read(0, file, 0, 10, late.set_result)
    assert await read(pools, 1, file, 0, 10) is None
    assert not late.done()
    gate.set()
    assert await late is None


async def test_many_reads_are_each_answered_once(pools, file):
    answers = await asyncio.gather(*(read(pools, number % 3, file, number * 1000, 1000) for number in range(200)))
    assert answers == [None] * 200
