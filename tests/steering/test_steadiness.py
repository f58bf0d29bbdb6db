"""Players who ask again and again, over half an hour: what they do changes the loads that the next answer sees.

Each asks every minute with the appliance that it is on, and moves with its next segment, four seconds later. Loads are
told every five seconds, as a mean that is off by a few percent. Nobody is to move without a reason, and nobody back.
"""

import random
from collections import Counter

import pytest

from steering.decisions import Ask, Decider, Way
from steering.fleet import Fleet, content_of
from steering.inventory import Serves
from steering.neighbourhood import Neighbourhood
from steering.ranking import Rules
from steering.standing import Patience
from tests.steering.stock import GBIT, appliance, heartbeat, inventory, operator, site, where

TTL, SEGMENT, BEAT = 60, 4, 5
CAPACITY = 10 * GBIT
CLIENT = where(["near"], 64500, "PT", (38.7, -9.1))


class Evening:
    def __init__(self, near=4, far=4, *, noise=0.03, seed=1, boxes=None):
        entries = [
            operator(asns=(64500,)),
            operator("ixp"),
            site("near"),
            site("far", operator="ixp", latitude=40.4, longitude=-3.7, serves=Serves.EVERYONE),
        ]
        entries += [appliance(f"n{number}", "near", capacity=CAPACITY) for number in range(near)]
        entries += [appliance(f"f{number}", "far", capacity=CAPACITY) for number in range(far)]
        self.dice = random.Random(seed)
        self.noise = noise
        self.now = 0
        self.fleet = Fleet(Patience(), seed=7)
        entries = inventory(*entries)
        self.fleet.take(entries, 0.0)
        self.decider = Decider(self.fleet, Neighbourhood(entries, 7), Rules(), 7, "r", "https://origin.example", ())
        self.players = {}
        """Where each is; it asks when the second is its own, modulo TTL."""
        self.bps = {}
        self.moving = []
        self.sent = Counter()
        self.silent = set()
        self.bias = {}
        self.moves = Counter()
        self.peaks = Counter()
        self.run(100)

    def join(self, count, bps, title=None):
        for _ in range(count):
            name = len(self.bps)
            self.bps[name] = bps
            self.players[name] = self._asked(name, None, title)

    def leave(self, name):
        del self.players[name]
        self.moving = [row for row in self.moving if row[1] != name]

    def run(self, seconds):
        for _ in range(seconds):
            self.now += 1
            for moved, name, there in [row for row in self.moving if row[0] <= self.now]:
                self.players[name] = there
                self.moving.remove((moved, name, there))
            self._load()
            for name, here in self.players.items():
                if self.now % TTL == name * 7 % TTL and not any(row[1] == name for row in self.moving):
                    there = self._asked(name, here)
                    if there != here:
                        self.moves[name] += 1
                        self.moving.append((self.now + self.dice.randrange(1, SEGMENT + 1), name, there))

    def settled(self, seconds=600):
        """After the first minutes."""
        self.run(seconds)
        self.moves.clear()
        self.peaks.clear()
        return self

    def on(self, prefix):
        return sum(here.startswith(prefix) for here in self.players.values())

    def _asked(self, name, current, title=None):
        content = content_of(f"title-{name % 40}" if title is None else title)
        ask = Ask(name.to_bytes(4, "big"), content, Way.CONTENT_STEERING, current, self.bps[name])
        return self.decider.decide(ask, CLIENT, float(self.now)).targets[0].id

    def _load(self):
        for name, here in self.players.items():
            self.sent[here] += self.bps[name]
        for place, name in enumerate(sorted(self.fleet.members)):
            if self.now % BEAT == place % BEAT and name not in self.silent:
                egress = self.sent.pop(name, 0) / BEAT * (1.0 + self.dice.uniform(-self.noise, self.noise))
                self.peaks[name] = max(self.peaks[name], egress / CAPACITY)
                egress += self.bias.get(name, lambda _: 0)(self.now) * CAPACITY
                self.fleet.hear(
                    heartbeat(name, self.now, link_bps=CAPACITY, egress_bps=int(egress), sent_at=float(self.now)),
                    float(self.now),
                )
        self.fleet.tick(float(self.now))


def test_players_stay_while_the_loads_of_two_appliances_alternate():
    evening = Evening(near=2, far=2)
    evening.join(100, 20_000_000)
    evening.bias = {
        "n0": lambda now: 0.7 if now // BEAT % 2 else 0.1,
        "n1": lambda now: 0.1 if now // BEAT % 2 else 0.7,
    }
    evening.moves.clear()
    evening.run(1800)
    assert not evening.moves


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.08])
def test_with_room_for_all_nobody_moves(noise):
    evening = Evening(noise=noise)
    evening.join(300, 100_000_000)  # three quarters of what the near ones can
    evening.settled().run(1800)
    assert evening.on("n") == 300
    assert sum(evening.moves.values()) == 0


@pytest.mark.parametrize("noise", [0.03, 0.08])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_with_too_many_for_the_near_ones_the_rest_stays_outside_and_nobody_goes_to_and_fro(seed, noise):
    evening = Evening(seed=seed, noise=noise)
    evening.join(440, 100_000_000)  # a tenth more than the near ones can
    evening.settled().run(1800)
    assert 320 <= evening.on("n") <= 380
    assert max(evening.peaks.values()) < 1.0
    # Of 440 players who asked 30 times each.
    assert sum(evening.moves.values()) <= 20
    assert max(evening.moves.values(), default=0) <= 1


def test_who_comes_takes_the_room_that_is_left_at_the_near_ones():
    evening = Evening()
    evening.join(440, 100_000_000)
    evening.settled()
    near = []
    for _ in range(120):
        for name in evening.dice.sample(sorted(evening.players), 4):
            evening.leave(name)
        evening.join(4, 100_000_000)
        evening.run(10)
        near.append(evening.on("n"))
    assert min(near[60:]) >= 345
    assert max(evening.peaks.values()) < 1.0
    assert max(evening.moves.values(), default=0) <= 2


def test_when_one_falls_silent_its_players_move_once_and_nobody_else():
    evening = Evening()
    evening.join(240, 100_000_000)
    evening.settled()
    were_there = {name for name, here in evening.players.items() if here == "n1"}
    assert were_there
    evening.silent.add("n1")
    evening.run(300)
    assert set(evening.moves) == were_there
    assert set(evening.moves.values()) == {1}
    assert evening.on("n1") == 0


def test_when_it_returns_nobody_moves_back_without_a_gain():
    evening = Evening()
    evening.join(240, 100_000_000)
    evening.settled()
    evening.silent.add("n1")
    evening.run(300)
    evening.silent.clear()
    evening.settled(0).run(1200)
    assert not evening.moves


def test_when_the_near_ones_have_room_again_those_outside_come_home_once():
    evening = Evening()
    evening.silent.update(["n0", "n1", "n2"])
    evening.run(20)
    evening.join(240, 100_000_000)
    evening.settled()
    assert evening.on("f") > 100
    evening.silent.clear()
    evening.run(600)
    assert evening.on("n") == 240
    assert max(evening.moves.values()) <= 2


def test_a_flash_crowd_on_one_title_fills_nobody_while_siblings_have_room():
    evening = Evening()
    for _ in range(30):
        evening.join(10, 100_000_000, title="tonight")
        evening.run(1)
    evening.run(300)
    assert max(evening.peaks.values()) < 0.95
    assert evening.on("n") == 300
