"""What has left the page cache is read by its device's own threads first, and is right all the same."""

import os

import pytest

from tests.doubles.appliance import BLOCK


def forget_pages(appliance):
    """Have the kernel drop what it remembers of all extents. False where the file system keeps it anyway (tmpfs)."""
    one_byte = bytearray(1)
    for path in appliance.extent_files():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            try:
                os.preadv(file.fileno(), [one_byte], 0, os.RWF_NOWAIT)
            except BlockingIOError:
                continue
            return False
    return True


@pytest.mark.parametrize("size", [100_000, 3 * BLOCK + 1])
def test_cold_pages_are_read_ahead_and_sent_right(make_appliance, origin, path, size):
    appliance = make_appliance().start(listen={"workers": 1})
    content = origin.put(path, size)
    appliance.get(path)
    appliance.wait_stored(path)
    if not forget_pages(appliance):
        pytest.skip("this file system does not let go of its pages")
    answer = appliance.get(path)
    assert answer.is_hit
    assert answer.body == content
    assert appliance.metric("oca_cold_reads_total") >= 1
    warm = appliance.metric("oca_cold_reads_total")
    assert appliance.get(path).body == content
    assert appliance.metric("oca_cold_reads_total") == warm
