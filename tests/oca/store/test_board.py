"""The board: what one process writes, all see; a change after a look-up is never hidden."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.store.board import BOARD_BYTES, Board, CounterMemory, DrainCause, new_memory


@pytest.fixture
def fd():
    fd = new_memory("test", BOARD_BYTES)
    yield fd
    os.close(fd)


def test_new_memory_is_zero_and_not_inherited(fd):
    assert os.fstat(fd).st_size == BOARD_BYTES
    assert not os.get_inheritable(fd)
    board = Board(fd)
    assert not any(board.stamps)
    assert not board.is_draining
    assert board.devices_version == 0


def test_every_board_on_the_same_memory_sees_the_same(fd):
    keeper, worker = Board(fd), Board(fd)
    keeper.drain(DrainCause.OPERATOR)
    keeper.raise_devices_version()
    keeper.raise_stamp(b"\x12\x34rest of the key")
    assert worker.is_draining
    assert worker.devices_version == 1
    assert worker.stamps[0x1234] == 1
    assert sum(worker.stamps) == 1
    keeper.resume(DrainCause.OPERATOR)
    assert not worker.is_draining


def test_the_appliance_drains_while_anybody_wants_it(fd):
    board = Board(fd)
    board.drain(DrainCause.STEERING)
    board.drain(DrainCause.OPERATOR)
    board.resume(DrainCause.STEERING)
    assert board.is_draining
    assert not board.drains_for(DrainCause.STEERING)
    board.resume(DrainCause.OPERATOR)
    assert not board.is_draining


def test_the_first_and_the_last_stamp_are_no_flags(fd):
    board = Board(fd)
    board.raise_stamp(b"\x00\x00")
    board.raise_stamp(b"\xff\xff")
    assert not board.is_draining
    assert board.devices_version == 0
    assert (board.stamps[0], board.stamps[65535], len(board.stamps)) == (1, 1, 65536)


@given(st.lists(st.sampled_from(["commit", "raise", "stamp", "read"]), max_size=30))
def test_whatever_the_order_what_is_remembered_is_the_truth_once_its_stamp_was_raised(order):
    """Keeper: commit, then raise the stamp. Worker: note the stamp, then read. In any mixture of the two."""
    fd = new_memory("test", BOARD_BYTES)
    board = Board(fd)
    key = b"ab"
    committed = raised = 0
    noted = remembered = None
    for step in order:
        if step == "commit" and committed == raised:
            committed += 1
        elif step == "raise" and committed > raised:
            raised += 1
            board.raise_stamp(key)
        elif step == "stamp":
            noted = board.stamps[board.row_of(key)]
        elif step == "read" and noted is not None:
            remembered = (noted, committed)
            noted = None
        if remembered is not None and remembered[0] == board.stamps[board.row_of(key)]:
            assert remembered[1] >= raised
    os.close(fd)


def test_counters_are_one_memory_for_writer_and_reader():
    fd = new_memory("test", 8 * 4)
    memory, other = CounterMemory(fd, 4), CounterMemory(fd, 4)
    memory.words[1] += 5
    memory.words[3] += 2**40
    assert list(other.words) == [0, 5, 0, 2**40]
    os.close(fd)
