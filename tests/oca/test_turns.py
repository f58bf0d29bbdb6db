"""Turns at a device: among threads, among processes, and after a process died with one."""

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from oca.settings import Store
from oca.store.board import new_memory
from oca.turns import Turns, depth_of

ROOT = Path(__file__).parents[2]
OTHER = """\
import sys
from oca.turns import Turns
fd, device, depth = map(int, sys.argv[1:])
with Turns(fd).turn(device, depth):
    print("has it", flush=True)
    sys.stdin.readline()
print("gave it back", flush=True)
"""


@pytest.fixture
def memory():
    fd = new_memory("test-turns", 4096)
    yield fd
    os.close(fd)


@pytest.fixture
def turns(memory):
    built = Turns(memory)
    yield built
    built.close()


class Other:
    """Another process that takes a turn, and keeps it until it is told to give it back."""

    def __init__(self, memory: int, device: int, depth: int) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(memory), str(device), str(depth)],
            pass_fds=[memory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def says(self) -> str:
        return self.child.stdout.readline().strip()

    def give_back(self) -> None:
        self.child.stdin.write("\n")
        self.child.stdin.flush()

    def end(self) -> None:
        self.child.kill()
        self.child.wait()
        self.child.stdin.close()
        self.child.stdout.close()


@pytest.fixture
def another(memory):
    made = []

    def make(device: int, depth: int) -> Other:
        made.append(Other(memory, device, depth))
        return made[-1]

    yield make
    for other in made:
        other.end()


def is_free(turns: Turns, device: int, depth: int) -> bool:
    with turns.try_turn(device, depth) as is_ours:
        return is_ours


def test_there_are_as_many_turns_as_the_device_is_deep(turns, memory):
    others = [Turns(memory) for _ in range(3)]
    with others[0].turn(5, 3), others[1].turn(5, 3):
        assert is_free(turns, 5, 3)
        with others[2].turn(5, 3):
            assert not is_free(turns, 5, 3)
            # Other devices have turns of their own.
            assert is_free(turns, 4, 1)
            assert is_free(turns, 6, 1)
        assert is_free(turns, 5, 3)
    for other in others:
        other.close()


def test_threads_of_one_process_have_different_turns(turns):
    with turns.turn(0, 2), turns.turn(0, 2):
        assert not is_free(turns, 0, 2)
    assert is_free(turns, 0, 2)


def test_two_processes_share_the_turns_of_a_device(turns, another):
    one, other = another(7, 1), another(7, 1)
    ready, _, _ = select.select([one.child.stdout, other.child.stdout], [], [], 20)
    first, second = (one, other) if one.child.stdout in ready else (other, one)
    assert first.says() == "has it"
    assert not is_free(turns, 7, 1)
    first.give_back()
    assert second.says() == "has it"
    assert first.says() == "gave it back"
    second.give_back()
    assert second.says() == "gave it back"
    assert is_free(turns, 7, 1)


def test_the_turn_of_a_process_that_was_killed_is_free(turns, another):
    other = another(1, 1)
    assert other.says() == "has it"
    assert not is_free(turns, 1, 1)
    other.child.send_signal(signal.SIGKILL)
    other.child.wait()
    assert is_free(turns, 1, 1)


def test_who_has_just_read_does_not_overtake_who_waits(turns, memory):
    other = Turns(memory)
    order: list[str] = []
    waiting = threading.Thread(target=lambda: take(other, order, "waited"))
    with turns.turn(2, 1):
        waiting.start()
        while not turns.is_waited_for(2, 1):
            pass
        # Nothing in the background while somebody waits.
        assert not is_free(turns, 2, 1)
    take(turns, order, "again")
    waiting.join(20)
    assert order == ["waited", "again"]
    other.close()


def take(turns: Turns, order: list[str], who: str) -> None:
    with turns.turn(2, 1):
        order.append(who)


def test_each_tier_has_its_depth():
    store = Store(nvme_queue=5, ssd_queue=4, hdd_queue=3)
    assert [depth_of(store, tier) for tier in ("nvme", "ssd", "hdd", "memory")] == [5, 4, 3, 5]
