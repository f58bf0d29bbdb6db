"""Processes are killed at random moments during random traffic. Whoever gets an answer gets the right one, always; a
connection may be cut, a byte may never be wrong, and what is marked present after a restart is right.
"""

import os
import random
import signal
import threading

import pytest

from tests.doubles.appliance import BLOCK, PATIENCE, wait_until
from tests.doubles.wire import Cut

CAPACITY = "96 MiB"
VIEWERS = 3


class Viewer(threading.Thread):
    """Asks for random parts of random films and compares every byte."""

    def __init__(self, appliance, films, seed):
        super().__init__(name=f"viewer-{seed}")
        self._appliance = appliance
        self._films = films
        self._dice = random.Random(seed)
        self.over = threading.Event()
        self.answers = 0
        self.cuts = 0
        self.faults = []

    def run(self):
        wire = None
        while not self.over.is_set():
            path = self._dice.choice(list(self._films))
            content = self._films[path]
            start = self._dice.randrange(len(content))
            stop = self._dice.choice([start + 1, start + 5000, start + BLOCK, len(content)])
            expected = content[start:stop]
            try:
                if wire is None:
                    wire = self._appliance.wire()
                wire.ask(path, Range=f"bytes={start}-{start + len(expected) - 1}")
                self._compare(wire, path, expected)
            except (Cut, OSError):
                self.cuts += 1
                if wire is not None:
                    wire.close()
                wire = None
        if wire is not None:
            wire.close()

    def _compare(self, wire, path, expected):
        head = wire.head()
        if head.status != 206 or head["Content-Length"] != str(len(expected)):
            self.faults.append(f"{path}: {head}")
            raise Cut
        try:
            body = wire.read(len(expected))
        except Cut as cut:
            if not expected.startswith(cut.body):
                self.faults.append(f"{path}: wrong bytes before a cut")
            raise
        if body != expected:
            self.faults.append(f"{path}: wrong bytes")
        self.answers += 1


def kill(appliance, victim, dice):
    match victim:
        case "worker":
            pids = appliance.worker_pids
        case "keeper":
            pids = appliance.keeper_pids
        case "supervisor":
            appliance.process.kill()
            appliance.process.wait(PATIENCE)
            appliance.process = None
            return
        case _:
            appliance.kill_all()
            return
    if pids:
        os.kill(dice.choice(pids), signal.SIGKILL)


def rage(appliance, origin, path, rounds, seed):
    dice = random.Random(seed)
    appliance.start(
        device=[{"path": str(appliance.devices[0]), "tier": "nvme", "capacity": CAPACITY}],
        http={"drain_timeout": "5 s"},
    )
    # More than there is room for, so that things are evicted as well.
    sizes = [dice.choice([1, 4097, 300_000, BLOCK, BLOCK + 1, 3 * BLOCK + 7]) for _ in range(16)] + [5 * BLOCK] * 3
    films = {f"{path}/{n}": origin.put(f"{path}/{n}", size) for n, size in enumerate(sizes)}
    viewers = [Viewer(appliance, films, seed * 1000 + number) for number in range(VIEWERS)]
    for viewer in viewers:
        viewer.start()
    try:
        for number in range(rounds):
            goal = sum(viewer.answers for viewer in viewers) + dice.randrange(1, 25)
            wait_until(
                lambda goal=goal: sum(viewer.answers for viewer in viewers) >= goal,
                f"viewers are served in round {number}",
            )
            victim = victims[number % len(victims)] if number < len(victims) else dice.choice(victims)
            kill(appliance, victim, dice)
            if appliance.process is None:
                appliance.start()
                # What it says it holds after its death is right: read it all, from disk.
                for name in dice.sample(sorted(films), 4):
                    assert appliance.get(name).body == films[name], f"after the death of the {victim}"
            else:
                appliance.wait_ready()
            assert [fault for viewer in viewers for fault in viewer.faults] == []
    finally:
        for viewer in viewers:
            viewer.over.set()
        for viewer in viewers:
            viewer.join(PATIENCE)
    assert all(not viewer.is_alive() for viewer in viewers)
    for name, content in films.items():
        assert appliance.get(name).body == content
    appliance.wait_landed()
    used = appliance.metric("oca_device_used_bytes")
    assert used <= 96 * 1024 * 1024
    appliance.stop()


victims = ["keeper", "worker", "everything", "supervisor"]


def test_seven_rounds_of_killing_never_give_a_wrong_byte(make_appliance, origin, path):
    rage(make_appliance(), origin, path, rounds=7, seed=42)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sixty_rounds_of_killing_never_give_a_wrong_byte(make_appliance, origin, path, seed):
    rage(make_appliance(), origin, path, rounds=60, seed=seed)
