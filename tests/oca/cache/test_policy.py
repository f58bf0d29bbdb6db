"""The policy: what is kept, where, and what goes; the sums are exact; a restart changes nothing."""

import random
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from oca.cache.columns import LISTED
from oca.cache.keys import grouped
from oca.cache.policy import AdmitReason, Level, Move, MoveReason, Policy

PAGE = 4096
NOBODY: frozenset[int] = frozenset()
LATER = 1000.0
"""Touches are counted once in a while: the next one that counts comes so much later."""
BASE = 1_750_000_000.0
FLASH, MEMORY, DISK, OTHER = 1, 2, 3, 4


def name_of(slot: int) -> int:
    return random.Random(slot).getrandbits(64)


def filled(capacity: int, slots, level: Level = Level.HDD) -> Policy:
    """One shelf of `capacity` pages with these slots, a page each."""
    policy = Policy()
    policy.add_shelf(FLASH, level, capacity * PAGE)
    put(policy, slots)
    return policy


def put(policy: Policy, slots, shelf: int = FLASH, now: float = BASE) -> None:
    for slot in slots:
        policy.admit(name_of(slot), slot, PAGE, now)
        policy.place(slot, name_of(slot), slot, shelf, PAGE, now)


def read(policy: Policy, *slots: int, times: int = 1, now: float = BASE) -> None:
    for turn in range(times):
        for slot in slots:
            policy.touch(slot, now + (turn + 1) * LATER)


def victims(policy: Policy, count: int, pinned=NOBODY, shelf: int = FLASH, now: float = BASE) -> list[int]:
    return list(policy.victims(shelf, count * PAGE, pinned, now))


def holds(policy: Policy, slot: int) -> bool:
    return policy.shelf_of(slot) is not None


# Eviction


def test_one_hit_wonders_go_in_the_order_they_came():
    assert victims(filled(10, range(10)), 3) == [0, 1, 2]


def test_what_was_read_again_stays():
    policy = filled(10, range(10))
    read(policy, 0, 2)
    assert victims(policy, 3) == [1, 3, 4]
    assert holds(policy, 0)
    assert holds(policy, 2)


def test_requests_of_one_viewer_inside_an_extent_are_one_reading():
    extent = 64 << 20
    policy = Policy()
    policy.add_shelf(FLASH, Level.HDD, 2 * extent)
    for slot in (0, 1):
        policy.place(slot, name_of(slot), slot, FLASH, extent, BASE)
    for second in range(0, 100, 5):
        policy.touch(0, BASE + second)
    policy.touch(1, BASE + 200)
    assert victims(policy, 1) == [0]


def test_a_scan_does_not_drive_out_what_is_read():
    policy = filled(200, range(50))
    read(policy, *range(50))
    for slot in range(1000, 3000):
        assert all(victim >= 1000 for victim in victims(policy, 1))
        put(policy, [slot])
    assert all(holds(policy, slot) for slot in range(50))


def test_what_returns_is_known_and_stays_longer():
    policy = filled(10, range(10))
    assert victims(policy, 1) == [0]
    # It comes back under another number, by the same name.
    policy.place(50, name_of(0), 0, FLASH, PAGE, BASE + LATER)
    put(policy, [51], now=BASE + LATER)
    assert victims(policy, 10, now=BASE + LATER) == [*range(1, 10), 51, 50]


def test_a_reading_told_too_late_does_no_harm():
    policy = filled(4, range(4))
    policy.forget(1)
    read(policy, 1, 1000)
    policy.admit(name_of(99), 99, PAGE, BASE + LATER)
    policy.place(1, name_of(99), 99, FLASH, PAGE, BASE + LATER)
    assert victims(policy, 1) == [0]
    # The new extent with the old number did not inherit the reading.
    assert victims(policy, 4) == [2, 3, 1]
    assert policy.used_bytes(FLASH) == 0


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("level", [Level.MEMORY, Level.SSD, Level.HDD])
@pytest.mark.parametrize("all_pinned", [range(10), range(5), range(5, 10), [0], [9]])
def test_pinned_slots_never_go_and_do_not_keep_the_others(all_pinned, level, is_read):
    policy = filled(10, range(10), level)
    if is_read:
        read(policy, *range(10), times=3)
    pinned = set(all_pinned)
    assert set(victims(policy, 10, pinned)) == set(range(10)) - pinned
    assert policy.used_bytes(FLASH) == len(pinned) * PAGE


@pytest.mark.parametrize(("size", "goes"), [(0, []), (1, [0]), (PAGE, [0]), (PAGE + 1, [0, 1])])
def test_room_is_counted_in_pages(size, goes):
    assert list(filled(4, range(4)).victims(FLASH, size, NOBODY, BASE)) == goes


def test_more_than_the_capacity_can_never_fit():
    policy = filled(4, range(4))
    assert victims(policy, 5) == [0, 1, 2, 3]
    assert policy.free_bytes(FLASH) == 4 * PAGE


def test_a_victim_is_among_the_coldest_though_few_are_looked_at():
    policy = filled(1000, range(1000))
    dice = random.Random(1)
    reads = [dice.randrange(8) for _ in range(1000)]
    for slot in range(1000):
        read(policy, slot, times=reads[slot])
    assert sum(reads[slot] for slot in victims(policy, 100)) < 150
    assert sum(reads[slot] for slot in victims(policy, 400)) < 800


def test_an_extent_of_a_rendition_that_many_watch_outlives_another():
    policy = Policy()
    policy.add_shelf(FLASH, Level.HDD, 20 * PAGE)
    for slot in range(20):
        policy.admit(name_of(slot), slot % 2, PAGE, BASE)
        policy.place(slot, name_of(slot), slot % 2, FLASH, PAGE, BASE)
    for turn in range(8):
        policy.touch(0, BASE + turn * LATER)
    assert set(victims(policy, 10)) == set(range(1, 20, 2))


def short(policy: Policy) -> Policy:
    """As if the trials had found that readings fade within minutes."""
    policy._trials.chosen = 0
    policy._adopt()
    return policy


def test_where_recency_rules_who_was_read_longest_ago_goes():
    policy = short(filled(10, range(10)))
    read(policy, 0, 3, 7)
    read(policy, 3, now=BASE + LATER)
    assert victims(policy, 10) == [1, 2, 4, 5, 6, 8, 9, 0, 7, 3]


def test_where_recency_rules_every_newcomer_is_written():
    policy = short(tiers(nvme=4, memory=4))
    put(policy, range(4), OTHER)
    assert admitted(policy, 9) == (Level.NVME, AdmitReason.NEWCOMER)


USUAL, SELDOM = grouped(1, 1), grouped(1, 2)


def doubtful(policy: Policy) -> Policy:
    """As if what was followed had shown that renditions that are seldom taken are read again less."""
    policy._reuse.is_doubt_right = True
    return policy


def visit(policy: Policy, group: int, times: int) -> None:
    for turn in range(times):
        policy.admit(name_of(1000 + turn) | 1, group, PAGE, BASE - 86400 + turn * LATER)


def test_where_recency_rules_what_is_seldom_taken_of_its_title_waits_in_memory():
    policy = doubtful(short(tiers(nvme=4, memory=4)))
    put(policy, range(4), OTHER)
    visit(policy, USUAL, 5)
    admission = policy.admit(name_of(9), SELDOM, PAGE, BASE)
    assert (admission.level, admission.reason) == (Level.MEMORY, AdmitReason.UNUSUAL)
    assert policy.admit(name_of(8), USUAL, PAGE, BASE).level is Level.NVME


def test_what_is_seldom_taken_is_not_kept_on_a_box_without_memory():
    policy = doubtful(short(tiers(nvme=4, hdd=4)))
    put(policy, range(4), OTHER)
    put(policy, range(4, 8), DISK)
    visit(policy, USUAL, 5)
    admission = policy.admit(name_of(9), SELDOM, PAGE, BASE)
    assert (admission.level, admission.reason) == (None, AdmitReason.UNUSUAL)
    assert policy.admit(name_of(8), USUAL, PAGE, BASE).level is Level.HDD


def test_where_recency_rules_nothing_goes_down():
    policy = tiers(nvme=4, hdd=10)
    put(policy, range(4), OTHER)
    assert policy.next_move(BASE + LATER).reason is MoveReason.DEMOTED
    policy = short(tiers(nvme=4, hdd=10))
    put(policy, range(4), OTHER)
    assert policy.next_move(BASE + LATER) is None


def test_what_is_seldom_taken_is_written_when_it_is_read_again_in_memory():
    policy = doubtful(short(tiers(nvme=4, memory=4)))
    put(policy, range(4), OTHER)
    visit(policy, USUAL, 5)
    policy.admit(name_of(9), SELDOM, PAGE, BASE)
    policy.place(9, name_of(9), SELDOM, MEMORY, PAGE, BASE)
    policy.touch(9, BASE + LATER)
    assert policy.next_move(BASE + LATER) == Move(9, Level.NVME, MoveReason.READ_AGAIN)


def test_what_is_seldom_taken_is_written_where_it_is_read_again_as_often():
    policy = short(tiers(nvme=4, memory=4))
    put(policy, range(4), OTHER)
    visit(policy, USUAL, 5)
    assert policy.admit(name_of(9), SELDOM, PAGE, BASE).level is Level.NVME


def test_what_is_seldom_taken_is_written_while_there_is_room():
    policy = doubtful(short(tiers(nvme=40, memory=4)))
    visit(policy, USUAL, 5)
    assert policy.admit(name_of(9), SELDOM, PAGE, BASE).reason is AdmitReason.FREE


def test_which_renditions_are_usual_survives_a_restart():
    policy = short(tiers(nvme=4, memory=4))
    visit(policy, USUAL, 5)
    later = Policy()
    later.restore(memoryview(b"".join(policy.dump())))
    later.admit(name_of(9), SELDOM, PAGE, BASE)
    assert later._visits.is_usual(USUAL)
    assert not later._visits.is_usual(SELDOM)


# Pledges


def test_a_pledged_slot_stays_until_its_time_and_goes_afterwards():
    policy = filled(4, range(4))
    policy.pledge(0, BASE + 86400)
    assert victims(policy, 4) == [1, 2, 3]
    assert victims(policy, 4, now=BASE + 86000) == []
    assert victims(policy, 4, now=BASE + 86400 + 3600) == [0]


def test_a_pledge_that_was_renewed_holds():
    policy = filled(4, range(4))
    policy.pledge(0, BASE + 86400)
    policy.pledge(0, BASE + 3 * 86400)
    assert victims(policy, 4, now=BASE + 2 * 86400) == [1, 2, 3]


def test_the_operator_may_purge_what_is_pledged():
    policy = filled(4, range(4))
    policy.pledge(0, BASE + 86400)
    policy.forget(0)
    assert not holds(policy, 0)
    assert policy.used_bytes(FLASH) == 3 * PAGE


# Admission


def tiers(**capacities: int) -> Policy:
    policy = Policy()
    for word, number, level in (
        ("memory", MEMORY, Level.MEMORY),
        ("nvme", OTHER, Level.NVME),
        ("ssd", FLASH, Level.SSD),
        ("hdd", DISK, Level.HDD),
    ):
        if word in capacities:
            policy.add_shelf(number, level, capacities[word] * PAGE)
    return policy


def admitted(policy: Policy, slot: int, now: float = BASE) -> tuple[Level | None, AdmitReason]:
    admission = policy.admit(name_of(slot), slot, PAGE, now)
    return admission.level, admission.reason


def test_without_devices_everything_passes_through():
    assert admitted(Policy(), 0) == (None, AdmitReason.CLOSED)


@pytest.mark.parametrize(
    ("capacities", "level"),
    [
        ({"ssd": 1}, Level.SSD),
        ({"ssd": 1, "memory": 1}, Level.SSD),
        ({"nvme": 1, "ssd": 1}, Level.SSD),
        ({"nvme": 1, "ssd": 1, "hdd": 1}, Level.HDD),
        ({"nvme": 1, "ssd": 0, "hdd": 0}, Level.NVME),
    ],
)
def test_while_there_is_room_all_is_kept_on_the_slowest_level_that_has_it(capacities, level):
    assert admitted(tiers(**capacities), 0) == (level, AdmitReason.FREE)


def test_newcomers_go_to_the_slow_disk_when_all_is_full():
    assert admitted(tiers(nvme=0, hdd=0), 0) == (Level.HDD, AdmitReason.NEWCOMER)


def test_newcomers_wait_in_memory_on_a_box_of_flash():
    policy = tiers(nvme=4, memory=4)
    put(policy, range(4), OTHER)
    assert admitted(policy, 9) == (Level.MEMORY, AdmitReason.COLD)


def test_without_memory_probation_is_on_flash_as_long_as_the_budget_is_ample():
    policy = Policy()
    policy.add_shelf(FLASH, Level.SSD, 4 * PAGE, writes_per_day=10 * PAGE)
    put(policy, range(4))
    assert admitted(policy, 9) == (Level.SSD, AdmitReason.NEWCOMER)
    policy.forget(0)
    put(policy, [0])
    assert admitted(policy, 9) == (None, AdmitReason.BUDGET)
    # It passed through, and is known when it returns.
    assert admitted(policy, 9, BASE + 60) == (Level.SSD, AdmitReason.RETURNED)


def test_what_returns_often_enough_goes_to_flash():
    policy = tiers(ssd=4, memory=1)
    put(policy, range(4))
    put(policy, [8], MEMORY)
    read(policy, 8, times=2)
    assert victims(policy, 1, shelf=MEMORY) == [8]
    assert admitted(policy, 8, BASE + 3 * LATER) == (Level.SSD, AdmitReason.RETURNED)
    assert admitted(policy, 9, BASE + 3 * LATER) == (Level.MEMORY, AdmitReason.COLD)


def test_the_margin_narrows_while_nothing_is_written_and_widens_with_every_write():
    policy = tiers(ssd=4, memory=1)
    put(policy, range(4))
    for turn in range(300):
        assert admitted(policy, 100 + turn) == (Level.MEMORY, AdmitReason.COLD)
    narrow = policy._margin
    assert narrow == 64
    for turn in range(10):
        policy.admit(name_of(7), 7, PAGE, BASE + turn * LATER)
        put(policy, [7], MEMORY, BASE + turn * LATER)
        assert victims(policy, 1, shelf=MEMORY, now=BASE + turn * LATER) == [7]
    assert policy._margin > narrow


def test_a_closed_shelf_takes_nothing():
    policy = tiers(ssd=1, hdd=1)
    policy.open_shelf(DISK, False)
    assert admitted(policy, 0) == (Level.SSD, AdmitReason.FREE)
    policy.open_shelf(FLASH, False)
    assert admitted(policy, 0) == (None, AdmitReason.CLOSED)
    policy.open_shelf(DISK, True)
    assert admitted(policy, 0) == (Level.HDD, AdmitReason.FREE)


def full_flash_with_budget(spent: int) -> Policy:
    """Ten pages a day may be written; slot 8 was wanted thrice before, and there is no room."""
    policy = Policy()
    policy.add_shelf(FLASH, Level.SSD, 4 * PAGE, writes_per_day=10 * PAGE)
    policy.add_shelf(MEMORY, Level.MEMORY, PAGE)
    put(policy, range(4))
    put(policy, [8], MEMORY)
    read(policy, 8, times=3)
    assert victims(policy, 1, shelf=MEMORY) == [8]
    for _ in range(spent - 4):
        policy.forget(0)
        put(policy, [0])
    return policy


def test_flash_that_was_written_enough_for_today_takes_nothing_more():
    policy = full_flash_with_budget(11)
    assert admitted(policy, 8, BASE + 60) == (Level.MEMORY, AdmitReason.BUDGET)
    assert admitted(policy, 8, BASE + 3 * 86400) == (Level.SSD, AdmitReason.RETURNED)


def test_what_little_is_left_of_a_day_is_for_what_returned():
    policy = full_flash_with_budget(8)
    # Its rendition is hot, but the extent itself was never seen.
    for turn in range(40):
        policy.touch(0, BASE + turn)
    assert admitted(policy, 8, BASE + 60) == (Level.SSD, AdmitReason.RETURNED)
    assert admitted(policy, 77, BASE + 60)[1] in (AdmitReason.BUDGET, AdmitReason.COLD)


# Moves


def test_what_is_read_again_in_memory_moves_to_flash():
    policy = tiers(ssd=9, memory=4)
    put(policy, range(4), MEMORY)
    read(policy, 2)
    assert policy.next_move(BASE + LATER) == Move(2, Level.SSD, MoveReason.READ_AGAIN)
    policy.move(2, FLASH, BASE + LATER)
    assert policy.next_move(BASE + LATER) is None
    assert policy.used_bytes(MEMORY) == 3 * PAGE
    assert policy.used_bytes(FLASH) == PAGE


def test_what_is_read_thrice_in_a_day_rises_and_keeps_its_copy_below():
    policy = tiers(nvme=9, hdd=9)
    put(policy, range(4), DISK)
    read(policy, 1, times=2)
    assert policy.next_move(BASE + LATER) is None
    read(policy, 1, now=BASE + 3 * LATER)
    assert policy.next_move(BASE + LATER) == Move(1, Level.NVME, MoveReason.PROMOTED)
    policy.move(1, OTHER, BASE + LATER, keeps_below=True)
    assert (policy.shelf_of(1), policy.below_of(1)) == (OTHER, DISK)
    assert (policy.used_bytes(OTHER), policy.used_bytes(DISK)) == (PAGE, 4 * PAGE)


def test_three_readings_in_a_week_are_no_reason_to_rise():
    policy = tiers(nvme=9, hdd=9)
    put(policy, range(4), DISK)
    for day in range(1, 6):
        policy.touch(1, BASE + day * 86400)
    assert policy.next_move(BASE) is None


def test_a_move_refused_is_not_proposed_again_until_the_next_reading():
    policy = tiers(ssd=9, memory=4)
    put(policy, [0], MEMORY)
    read(policy, 0)
    assert policy.next_move(BASE + LATER) is not None
    policy.moved_not(0)
    assert policy.next_move(BASE + LATER) is None
    read(policy, 0, now=BASE + LATER)
    assert policy.next_move(BASE + LATER) is not None


def test_proposals_that_nobody_answers_end():
    policy = tiers(ssd=1000, memory=1000)
    put(policy, range(500), MEMORY)
    read(policy, *range(500))
    proposals = 0
    while policy.next_move(BASE) is not None:
        proposals += 1
    assert proposals == 64


def test_what_is_evicted_from_flash_falls_on_its_copy_below():
    policy = tiers(nvme=1, hdd=9)
    put(policy, [0], DISK)
    policy.move(0, OTHER, BASE, keeps_below=True)
    assert victims(policy, 1, shelf=OTHER) == [0]
    assert (policy.shelf_of(0), policy.below_of(0)) == (DISK, None)
    assert (policy.used_bytes(OTHER), policy.used_bytes(DISK)) == (0, PAGE)


def test_full_flash_sends_down_what_it_would_evict_next():
    policy = tiers(nvme=4, hdd=9)
    put(policy, range(4), DISK)
    for slot in range(4):
        policy.move(slot, OTHER, BASE)
    read(policy, 0)
    assert policy.next_move(BASE) == Move(1, Level.HDD, MoveReason.DEMOTED)
    policy.move(1, DISK, BASE)
    assert policy.next_move(BASE) is None  # There is room again.
    assert policy.shelf_of(1) == DISK


def test_room_that_was_made_by_sending_down_is_not_for_newcomers():
    policy = tiers(nvme=200, hdd=9)
    put(policy, range(195), OTHER)
    assert admitted(policy, 500) == (Level.HDD, AdmitReason.FREE)
    put(policy, range(200, 209), DISK)
    assert admitted(policy, 500) == (Level.NVME, AdmitReason.FREE)
    put(policy, [195], OTHER)
    assert admitted(policy, 500) == (Level.HDD, AdmitReason.NEWCOMER)


def test_a_lost_copy_below_takes_no_room():
    policy = tiers(nvme=4, hdd=9)
    put(policy, [0], DISK)
    policy.move(0, OTHER, BASE, keeps_below=True)
    policy.drop_below(0)
    assert policy.below_of(0) is None
    assert policy.used_bytes(DISK) == 0
    policy.forget(0)
    assert policy.used_bytes(OTHER) == 0


# Restarts


def restarted(policy: Policy, places: list[tuple[int, int, int]], shelves=((FLASH, Level.HDD, 100),)) -> Policy:
    """As after a restart: shelves, the dump, and then what the index holds, in any order."""
    later = Policy()
    for number, level, capacity in shelves:
        later.add_shelf(number, level, capacity * PAGE)
    later.restore(memoryview(b"".join(policy.dump())))
    for slot, shelf, size in places:
        later.place(slot, name_of(slot), slot, shelf, size * PAGE, BASE)
    return later


@given(st.lists(st.tuples(st.sampled_from("trf"), st.integers(0, 29)), max_size=60), st.randoms(use_true_random=False))
def test_a_restart_changes_nothing(deeds, dice):
    policy = filled(100, range(30))
    for number, (deed, slot) in enumerate(deeds):
        now = BASE + number * LATER
        if deed == "t":
            policy.touch(slot, now)
        elif deed == "r" and holds(policy, slot):
            policy.resize(slot, PAGE * (1 + number % 5))
        elif deed == "f":
            list(policy.victims(FLASH, 90 * PAGE, {slot}, now))
    places = [(slot, FLASH, policy._pages[slot]) for slot in range(30) if holds(policy, slot)]
    dice.shuffle(places)
    later = restarted(policy, places)
    assert later.used_bytes(FLASH) == policy.used_bytes(FLASH)
    # The shortlist is not kept: it is made anew in a moment.
    for slot in policy._shelves[FLASH].shortlist.clear():
        policy._standing[slot] &= ~LISTED
    policy._shelves[FLASH].bar, policy._shelves[FLASH].looks = 0.0, later._shelves[FLASH].looks
    assert victims(later, 100) == victims(policy, 100)


def test_what_changes_while_a_dump_is_written_is_known_as_it_was_or_as_it_is():
    policy = filled(100, range(60))
    pieces = policy.dump()
    packed = [next(pieces)]
    for number, piece in enumerate(pieces):
        packed.append(piece)
        now = BASE + number * LATER
        policy.touch(number, now)
        policy.forget(20 + number)
        assert len(victims(policy, 45, now=now)) <= 45
        put(policy, [20 + number, 5000 * number], now=now)
    held = [slot for slot in range(200_000) if holds(policy, slot)]
    later = restarted(policy, [])
    later.restore(memoryview(b"".join(packed)))
    for slot in held:
        later.place(slot, name_of(slot), slot, FLASH, PAGE, BASE + 100 * LATER)
    assert later.used_bytes(FLASH) == len(held) * PAGE
    assert sorted(victims(later, 100)) == held


def test_what_was_purged_while_it_was_away_leaves_no_trace():
    policy = filled(100, range(10))
    later = restarted(policy, [(slot, FLASH, 1) for slot in range(0, 10, 2)])
    assert victims(later, 100) == [0, 2, 4, 6, 8]
    assert later.used_bytes(FLASH) == 0


def test_a_slot_with_a_new_name_inherits_nothing():
    policy = filled(100, range(10))
    read(policy, 3, times=3)
    later = restarted(policy, [(slot, FLASH, 1) for slot in range(10) if slot != 3])
    later.place(3, name_of(300), 0, FLASH, PAGE, BASE)
    assert later._heat[3] == 0
    assert set(victims(later, 91)) == {0}


def test_ghosts_and_budgets_outlive_a_restart():
    policy = Policy()
    policy.add_shelf(FLASH, Level.SSD, 4 * PAGE, writes_per_day=10 * PAGE)
    put(policy, range(5, 9))
    assert victims(policy, 1) == [5]
    later = Policy()
    later.add_shelf(FLASH, Level.SSD, 0, writes_per_day=10 * PAGE)
    later.restore(memoryview(b"".join(policy.dump())))
    assert later._ghosts.known(name_of(5) & 0xFFFFFFFF, 5)
    assert later._shelves[FLASH].budget.left_bytes == 6 * PAGE


@pytest.mark.parametrize("cut", [0, 7, 30, -1])
def test_a_dump_that_is_cut_is_refused(cut):
    packed = b"".join(filled(10, range(10)).dump())
    with pytest.raises(ValueError):
        Policy().restore(memoryview(packed[:cut]))


def test_a_dump_of_another_version_is_refused():
    packed = bytearray(b"".join(Policy().dump()))
    packed[0] ^= 0xFF
    with pytest.raises(ValueError):
        Policy().restore(memoryview(packed))


# Laws


class PolicyMachine(RuleBasedStateMachine):
    """Against a dict: the sums are exact, and what is given as a victim was there, not pinned and not pledged."""

    @initialize(flash=st.integers(4, 40), disk=st.integers(4, 64))
    def start(self, flash, disk):
        self.policy = tiers(ssd=flash, hdd=disk, memory=8)
        self.capacity = {FLASH: flash, DISK: disk, MEMORY: 8}
        self.model = {}
        """Slot: its shelf, the shelf below or None, pages."""
        self.pinned = set()
        self.pledged = set()
        self.now = BASE

    def used(self, number):
        return sum(size for shelf, below, size in self.model.values() if number in (shelf, below))

    def make_room(self, shelf, pages, pinned):
        taken = []
        for slot in self.policy.victims(shelf, pages * PAGE, pinned, self.now):
            assert slot not in pinned | self.pledged
            here, below, size = self.model.pop(slot)
            assert here == shelf
            taken.append(slot)
            if below is not None:
                self.model[slot] = (below, None, size)
        assert len(set(taken)) == len(taken)
        free = self.capacity[shelf] - self.used(shelf)
        # It stopped early only where nothing more could go.
        here = {slot for slot in self.model if self.model[slot][0] == shelf}
        assert free >= pages or here <= pinned | self.pledged
        return free >= pages

    @rule(
        slot=st.integers(0, 30),
        pages=st.integers(1, 8),
        shelf=st.sampled_from([FLASH, DISK, MEMORY]),
        other=st.booleans(),
    )
    def make_room_and_place(self, slot, pages, shelf, other):
        if slot in self.model:
            shelf = self.model[slot][0]
            if self.model[slot][1] is not None:
                self.policy.drop_below(slot)
                self.model[slot] = (shelf, None, self.model[slot][2])
        if self.make_room(shelf, pages, self.pinned | {slot}):
            self.policy.place(slot, name_of(slot + 100 * other), slot % 3, shelf, pages * PAGE, self.now)
            self.model[slot] = (shelf, None, self.model.get(slot, (0, 0, 0))[2] + pages)

    @rule(slot=st.integers(0, 40), passes=st.integers(0, 20_000))
    def touch(self, slot, passes):
        self.now += passes
        self.policy.touch(slot, self.now)

    @rule()
    def do_what_is_proposed(self):
        for _ in range(100):
            move = self.policy.next_move(self.now)
            if move is None:
                return
            shelf, _, size = self.model[move.slot]
            target = {Level.SSD: FLASH, Level.HDD: DISK}[move.level]
            assert target != shelf
            if not self.make_room(target, size, self.pinned | {move.slot}) or move.slot in self.pinned:
                self.policy.moved_not(move.slot)
                continue
            keeps = move.reason == MoveReason.PROMOTED
            self.policy.move(move.slot, target, self.now, keeps_below=keeps)
            self.model[move.slot] = (target, shelf if keeps else None, size)
        raise AssertionError("proposals do not end")

    @rule(slot=st.integers(0, 40))
    def forget(self, slot):
        self.policy.forget(slot)
        self.model.pop(slot, None)
        self.pinned.discard(slot)
        self.pledged.discard(slot)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), share=st.floats(0, 1))
    def resize_down(self, data, share):
        slot = data.draw(st.sampled_from(sorted(self.model)))
        shelf, below, size = self.model[slot]
        self.policy.resize(slot, int(size * share) * PAGE)
        self.model[slot] = (shelf, below, int(size * share))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def pin_or_unpin(self, data):
        self.pinned ^= {data.draw(st.sampled_from(sorted(self.model)))}

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def pledge(self, data):
        slot = data.draw(st.sampled_from(sorted(self.model)))
        self.policy.pledge(slot, self.now + 10_000_000)
        self.pledged.add(slot)

    @invariant()
    def the_sums_are_exact(self):
        if not hasattr(self, "model"):
            return
        for number, capacity in self.capacity.items():
            assert self.policy.used_bytes(number) == self.used(number) * PAGE
            assert 0 <= self.policy.free_bytes(number) <= capacity * PAGE
        for slot in range(45):
            shelf, below, _ = self.model.get(slot, (None, None, 0))
            assert (self.policy.shelf_of(slot), self.policy.below_of(slot)) == (shelf, below)
        for shelf in self.policy._shelves.values():
            for line in (shelf.kept, shelf.pledged):
                assert line.count == len(list(line))
            assert self.policy.pledged_bytes(shelf.number) == PAGE * sum(self.policy._pages[s] for s in shelf.pledged)
            on = {slot for slot, (at, below, _) in self.model.items() if shelf.number in (at, below)}
            assert set(self.policy.slots_on(shelf.number)) == on
            listed = {slot for slot in shelf.kept if self.policy._standing[slot] & LISTED}
            assert len(listed) <= 16
        for tier in self.policy._tiers:
            assert tier.free == sum(shelf.capacity - shelf.used for shelf in tier.shelves)


TestPolicy = PolicyMachine.TestCase
TestPolicy.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


class Fifo:
    """Plain first in, first out, to be better than."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: OrderedDict[int, None] = OrderedDict()

    def reads(self, key: int, now: float) -> bool:
        if key in self.held:
            return True
        if len(self.held) >= self.capacity:
            self.held.popitem(last=False)
        self.held[key] = None
        return False


class Ours:
    def __init__(self, capacity: int) -> None:
        self.policy = filled(capacity, [], Level.SSD)

    def reads(self, key: int, now: float) -> bool:
        if holds(self.policy, key):
            self.policy.touch(key, now)
            return True
        for _ in self.policy.victims(FLASH, PAGE, NOBODY, now):
            pass
        self.policy.place(key, name_of(key), key, FLASH, PAGE, now)
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
    for cache in (Fifo(300), Ours(300)):
        hits = sum(cache.reads(film, BASE + 300.0 * number) for number, film in enumerate(trace))
        ratios.append(hits / len(trace))
    assert ratios[1] > ratios[0] + better_by
