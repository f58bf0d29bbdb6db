"""What the keeper reads of the workers' rows: sums over all, by device."""

import os

from oca.counters import COUNTERS_BYTES, DEVICES_AT, ROWS, WORDS, Count
from oca.edge.tally import Tally
from oca.keeper.desk import Counters, DeviceReads
from oca.store.board import CounterMemory, new_memory


def test_reads_of_devices_are_summed_over_all_workers():
    fd = new_memory("test-counters", COUNTERS_BYTES)
    counters = Counters(CounterMemory(fd, ROWS * WORDS))
    assert counters.sums() == [0] * DEVICES_AT
    assert counters.device_reads() == {}
    for row in (0, 3, ROWS - 1):
        tally = Tally(fd, row)
        tally.count(Count.CONNECTIONS_ACCEPTED)
        tally.device_read(2, 100, 0.5, is_slow=True, failed=False)
        tally.device_read(9, 100, 0.002, is_slow=False, failed=True)
    assert counters.sums()[Count.CONNECTIONS_ACCEPTED] == 3
    assert counters.device_reads() == {
        2: DeviceReads(3, 300, 0, 3, 1.5, [0, 0, 0, 0, 0, 0, 3, 0, 0, 0]),
        9: DeviceReads(3, 0, 3, 0, 0.006, [0, 3, 0, 0, 0, 0, 0, 0, 0, 0]),
    }
    os.close(fd)
