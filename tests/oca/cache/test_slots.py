"""Slots: no number is ever given to two extents."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oca.cache.keys import extent_key
from oca.cache.slots import Slots


def key(number: int) -> bytes:
    return extent_key(b"k" * 16, 1, number)


def test_numbers_are_dense_from_zero():
    slots = Slots()
    assert [slots.take(key(i)) for i in range(5)] == [0, 1, 2, 3, 4]
    assert len(slots) == 5


def test_a_number_given_back_is_given_again():
    slots = Slots()
    taken = [slots.take(key(i)) for i in range(3)]
    slots.give_back(taken[1])
    assert slots.key_of(taken[1]) is None
    assert slots.take(key(9)) == taken[1]
    assert slots.key_of(taken[1]) == key(9)


def test_what_was_given_back_last_rests():
    slots = Slots(resting=2)
    taken = [slots.take(key(i)) for i in range(3)]
    for slot in taken:
        slots.give_back(slot)
    assert len(slots) == 0
    assert slots.take(key(7)) == taken[0]
    assert slots.take(key(8)) == 3
    assert slots.key_of(taken[1]) is None


def test_giving_back_twice_frees_one_number():
    slots = Slots()
    slots.take(key(0))
    slots.give_back(0)
    slots.give_back(0)
    assert [slots.take(key(i)) for i in range(2)] == [0, 1]


def test_what_was_never_given_has_no_key():
    assert Slots().key_of(7) is None


def test_restored_numbers_are_kept_and_the_gaps_are_free():
    slots = Slots()
    assert slots.restore(5, key(5))
    assert slots.restore(2, key(2))
    slots.settle()
    assert len(slots) == 2
    given = [slots.take(key(10 + i)) for i in range(5)]
    assert sorted(given) == [0, 1, 3, 4, 6]


def test_the_second_claim_to_a_number_is_refused():
    slots = Slots()
    assert slots.restore(3, key(1))
    assert not slots.restore(3, key(2))
    assert slots.key_of(3) == key(1)


class SlotsMachine(RuleBasedStateMachine):
    @initialize(claims=st.lists(st.integers(0, 40), max_size=20))
    def restart(self, claims):
        self.slots = Slots()
        self.model = {}
        self.named = 0
        for slot in claims:
            self.named += 1
            assert self.slots.restore(slot, key(self.named)) == (slot not in self.model)
            self.model.setdefault(slot, key(self.named))
        self.slots.settle()

    @rule()
    def take(self):
        self.named += 1
        slot = self.slots.take(key(self.named))
        assert slot not in self.model
        # Dense: a number is only added when none is free.
        assert slot <= max([*self.model, len(self.model), 40])
        self.model[slot] = key(self.named)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def give_back(self, data):
        slot = data.draw(st.sampled_from(sorted(self.model)))
        self.slots.give_back(slot)
        del self.model[slot]

    @invariant()
    def each_number_has_its_one_owner(self):
        if not hasattr(self, "model"):
            return
        assert len(self.slots) == len(self.model)
        for slot in range(60):
            assert self.slots.key_of(slot) == self.model.get(slot)


TestSlots = SlotsMachine.TestCase
TestSlots.settings = settings(max_examples=60, stateful_step_count=40)
