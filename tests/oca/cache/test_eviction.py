"""Eviction: the sums are exact, nothing pinned goes, and the order is that of S3-FIFO."""

import random
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oca.cache.eviction import Eviction, Ghost, SlotQueue

PAGE = 4096
NOBODY: frozenset[int] = frozenset()


def name_of(slot: int) -> int:
    return random.Random(slot).getrandbits(64)


def filled(capacity: int, slots) -> Eviction:
    """A device of `capacity` pages with these slots, a page each."""
    eviction = Eviction(capacity * PAGE, ghosts=64)
    for slot in slots:
        eviction.admit(slot, name_of(slot), PAGE)
    return eviction


def test_one_hit_wonders_go_in_the_order_they_came():
    eviction = filled(10, range(10))
    assert list(eviction.victims(3 * PAGE, NOBODY)) == [0, 1, 2]


def test_what_was_read_again_stays_and_moves_to_the_main_queue():
    eviction = filled(10, range(10))
    eviction.touch(0)
    eviction.touch(2)
    assert list(eviction.victims(3 * PAGE, NOBODY)) == [1, 3, 4]
    assert 0 in eviction
    assert 2 in eviction


def test_a_scan_does_not_drive_out_what_is_read():
    eviction = filled(20, range(15))
    for slot in range(15):
        eviction.touch(slot)
    for slot in range(100, 400):
        for victim in eviction.victims(PAGE, NOBODY):
            assert victim >= 100
        eviction.admit(slot, name_of(slot), PAGE)
    assert all(slot in eviction for slot in range(15))


def test_what_returns_soon_enters_the_main_queue():
    eviction = filled(10, range(10))
    assert list(eviction.victims(PAGE, NOBODY)) == [0]
    # It comes back under another number, by the same name.
    eviction.admit(50, name_of(0), PAGE)
    assert list(eviction.victims(6 * PAGE, NOBODY)) == [1, 2, 3, 4, 5, 6]
    for slot in range(60, 66):
        eviction.admit(slot, name_of(slot), PAGE)
    for _ in range(8):
        for victim in eviction.victims(PAGE, NOBODY):
            assert victim != 50
        eviction.admit(victim, name_of(victim + 1000), PAGE)
    assert 50 in eviction


def test_what_left_the_main_queue_is_not_remembered():
    eviction = filled(2, range(2))
    eviction.touch(0)
    eviction.touch(1)
    assert list(eviction.victims(PAGE, NOBODY)) == [0]
    eviction.admit(9, name_of(0), PAGE)
    assert list(eviction.victims(PAGE, NOBODY)) == [9]


def test_the_main_queue_gives_a_round_for_each_reading_three_at_most():
    eviction = filled(3, range(3))
    for slot in range(3):
        eviction.touch(slot)
    list(eviction.victims(PAGE, NOBODY))
    eviction = filled(3, range(3))
    for slot in range(3):
        eviction.touch(slot)
    assert list(eviction.victims(PAGE, NOBODY)) == [0]
    for _ in range(200):
        eviction.touch(1)
    eviction.admit(7, name_of(7), PAGE)
    assert list(eviction.victims(PAGE, NOBODY)) == [7]
    eviction.touch(2)
    assert list(eviction.victims(2 * PAGE, NOBODY)) == [2]
    assert list(eviction.victims(3 * PAGE, NOBODY)) == [1]


def test_a_reading_told_too_late_does_no_harm():
    eviction = filled(4, range(4))
    eviction.forget(1)
    eviction.touch(1)
    eviction.touch(1000)
    eviction.admit(1, name_of(99), PAGE)
    assert list(eviction.victims(PAGE, NOBODY)) == [0]
    # The new extent with the old number did not inherit the reading.
    assert list(eviction.victims(4 * PAGE, NOBODY))[-1] in (1, 3)
    assert eviction.used_bytes == 0


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("all_pinned", [range(10), range(5), range(5, 10), [0], [9]])
def test_pinned_slots_never_go_and_do_not_keep_the_others(all_pinned, read):
    eviction = filled(10, range(10))
    if read:
        for slot in range(10):
            eviction.touch(slot)
    pinned = set(all_pinned)
    assert set(eviction.victims(10 * PAGE, pinned)) == set(range(10)) - pinned
    assert eviction.used_bytes == len(pinned) * PAGE


def test_pinned_newcomers_do_not_hide_the_main_queue():
    eviction = filled(10, range(10))
    for slot in range(6):
        eviction.touch(slot)
    assert list(eviction.victims(3 * PAGE, NOBODY)) == [6, 7, 8]  # Slots 0 to 5 are in the main queue now.
    for slot in range(20, 23):
        eviction.admit(slot, name_of(slot), PAGE)
    assert list(eviction.victims(PAGE, {9, 20, 21, 22})) == [0]


def test_a_pinned_main_queue_does_not_hide_the_newcomers():
    eviction = filled(30, range(29))
    for slot in range(28):
        eviction.touch(slot)
    assert list(eviction.victims(2 * PAGE, {28})) == [0]
    eviction.admit(40, name_of(40), PAGE)
    assert list(eviction.victims(2 * PAGE, set(range(28)))) == [28]


@pytest.mark.parametrize(("size", "goes"), [(0, []), (1, [0]), (PAGE, [0]), (PAGE + 1, [0, 1])])
def test_room_is_counted_in_pages(size, goes):
    assert list(filled(4, range(4)).victims(size, NOBODY)) == goes


def test_more_than_the_capacity_can_never_fit():
    eviction = filled(4, range(4))
    assert list(eviction.victims(5 * PAGE, NOBODY)) == [0, 1, 2, 3]
    assert eviction.free_bytes == 4 * PAGE


def test_memory_does_not_grow_with_what_comes_and_goes_below_the_capacity():
    # A live manifest is a new extent every few seconds, on a device that is never full.
    eviction = filled(1000, range(3))
    for turn in range(20_000):
        slot = 3 + turn % 5
        eviction.forget(slot)
        eviction.admit(slot, name_of(turn), PAGE)
    assert len(eviction._small._ring) <= 256
    assert sorted(eviction.victims(1000 * PAGE, NOBODY)) == list(range(8))


@given(st.lists(st.one_of(st.integers(0, 200), st.none()), max_size=400))
def test_a_queue_is_first_in_first_out(moves):
    queue = SlotQueue(lambda _: True)
    model = OrderedDict()
    for slot in moves:
        if slot is None:
            if model:
                assert queue.pop() == model.popitem(last=False)[0]
        elif slot not in model:
            queue.push(slot)
            model[slot] = None
        assert len(queue) == len(model)
    assert [queue.pop() for _ in range(len(queue))] == list(model)


def test_a_ghost_is_remembered_once():
    ghost = Ghost(100)
    assert not ghost.forget(7 << 32)
    ghost.remember(7 << 32)
    assert ghost.forget(7 << 32)
    assert not ghost.forget(7 << 32)


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, min_size=1, max_size=50))
def test_a_ghost_may_be_forgotten_but_never_made_up(names):
    ghost = Ghost(64)
    for name in names[:-1]:
        ghost.remember(name)
    others = {(name % 64, name >> 32 or 1) for name in names[:-1]}
    if ghost.forget(names[-1]):
        assert (names[-1] % 64, names[-1] >> 32 or 1) in others


class EvictionMachine(RuleBasedStateMachine):
    """Against a dict of sizes: the sums are exact, and what is given as a victim was there and not pinned."""

    @initialize(capacity=st.integers(4, 64))
    def start(self, capacity):
        self.capacity = capacity
        self.eviction = Eviction(capacity * PAGE, ghosts=64)
        self.model = {}
        self.pinned = set()

    @rule(slot=st.integers(0, 30), size=st.integers(1, 8 * PAGE), data=st.data())
    def make_room_and_admit(self, slot, size, data):
        pages = -(-size // PAGE)
        victims = list(self.eviction.victims(size, self.pinned | {slot}))
        assert len(set(victims)) == len(victims)
        for victim in victims:
            assert victim not in self.pinned
            assert victim != slot
            del self.model[victim]
        free = self.capacity - sum(self.model.values())
        # It stopped early only where nothing more could go.
        assert free >= pages or set(self.model) <= self.pinned | {slot}
        if free >= pages:
            self.eviction.admit(slot, name_of(slot + data.draw(st.integers(0, 1)) * 100), size)
            self.model[slot] = self.model.get(slot, 0) + pages

    @precondition(lambda self: self.model)
    @rule(data=st.data(), times=st.integers(1, 4))
    def touch(self, data, times):
        for _ in range(times):
            self.eviction.touch(data.draw(st.integers(0, 40)))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def forget(self, data):
        slot = data.draw(st.integers(0, 40))
        self.eviction.forget(slot)
        self.model.pop(slot, None)
        self.pinned.discard(slot)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), share=st.floats(0, 1))
    def resize_down(self, data, share):
        slot = data.draw(st.sampled_from(sorted(self.model)))
        pages = int(self.model[slot] * share)
        self.eviction.resize(slot, pages * PAGE)
        self.model[slot] = pages

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def pin_or_unpin(self, data):
        self.pinned ^= {data.draw(st.sampled_from(sorted(self.model)))}

    @invariant()
    def the_sums_are_exact(self):
        if not hasattr(self, "model"):
            return
        assert self.eviction.used_bytes == sum(self.model.values()) * PAGE
        assert 0 <= self.eviction.free_bytes <= self.capacity * PAGE
        assert {slot for slot in range(50) if slot in self.eviction} == set(self.model)


TestEviction = EvictionMachine.TestCase
TestEviction.settings = settings(max_examples=80, stateful_step_count=40)


class Fifo:
    """Plain first in, first out, to be better than."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: OrderedDict[int, None] = OrderedDict()

    def reads(self, key: int) -> bool:
        if key in self.held:
            return True
        if len(self.held) >= self.capacity:
            self.held.popitem(last=False)
        self.held[key] = None
        return False


class S3Fifo:
    def __init__(self, capacity: int) -> None:
        self.eviction = Eviction(capacity * PAGE, ghosts=capacity)

    def reads(self, key: int) -> bool:
        if key in self.eviction:
            self.eviction.touch(key)
            return True
        for _ in self.eviction.victims(PAGE, NOBODY):
            pass
        self.eviction.admit(key, name_of(key), PAGE)
        return False


@pytest.mark.parametrize(("scans", "better_by"), [(False, 0.02), (True, 0.05)])
def test_it_hits_more_often_than_plain_fifo(scans, better_by):
    dice = random.Random(1)
    films = range(5000)
    popularity = [1 / (rank + 1) for rank in films]
    trace = dice.choices(films, popularity, k=20_000)
    if scans:
        # Every now and then somebody reads through what nobody else wants.
        for start in range(0, 20_000, 2000):
            trace[start:start] = range(10_000 + start, 10_000 + start + 600)
    ratios = []
    for cache in (Fifo(300), S3Fifo(300)):
        hits = sum(cache.reads(film) for film in trace)
        ratios.append(hits / len(trace))
    assert ratios[1] > ratios[0] + better_by
