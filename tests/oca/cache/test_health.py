"""The health table: every standing with every signal, thresholds, and what holds for any history."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.health import (
    HEALS,
    STICKS,
    TRANSITIONS,
    WINDOWS,
    Change,
    Fault,
    Health,
    Limits,
    Signal,
    Standing,
    box_health,
    explanation,
    fault_of,
    signal_of,
)

ONLINE, FAILING, OFFLINE = Standing
LIMITS = Limits(settle=120)
ENOUGH = 1000
"""More than any threshold."""
DEPTH = {ONLINE: 0, FAILING: 1, OFFLINE: 2}


def standing(where, reason=None):
    return Health(LIMITS, where, reason, since=5.0)


def settle(health, now):
    """Good probes, one each 30 s, until they have settled or would have. Returns the last change."""
    for passed in (0, 30, 60, 90, 120):
        change = health.signal(now + passed, Signal.PROBE_GOOD)
    return change


# --- Every standing with every signal ---------------------------------------------------------------------------------

# (signal, count) -> standing and reason, for a device that is ONLINE, FAILING (slow) and OFFLINE (stalled).
WALK = {
    (Signal.GOOD, ENOUGH): ((ONLINE, None), (FAILING, "slow"), (OFFLINE, "stalled")),
    (Signal.READ_ERROR, 2): ((ONLINE, None), (FAILING, "slow"), (OFFLINE, "stalled")),
    (Signal.READ_ERROR, 3): ((FAILING, "io"), (FAILING, "io"), (OFFLINE, "stalled")),
    (Signal.READ_ERROR, 12): ((OFFLINE, "io"), (OFFLINE, "io"), (OFFLINE, "io")),
    (Signal.ROTTEN, 2): ((ONLINE, None), (FAILING, "slow"), (OFFLINE, "stalled")),
    (Signal.ROTTEN, 3): ((FAILING, "rotten"), (FAILING, "rotten"), (OFFLINE, "stalled")),
    (Signal.ROTTEN, 12): ((OFFLINE, "rotten"), (OFFLINE, "rotten"), (OFFLINE, "rotten")),
    (Signal.WRITE_ERROR, 1): ((FAILING, "write"), (FAILING, "write"), (OFFLINE, "stalled")),
    (Signal.WRITE_ERROR, 3): ((FAILING, "io"), (FAILING, "io"), (OFFLINE, "stalled")),
    (Signal.STALL, 2): ((ONLINE, None), (FAILING, "slow"), (OFFLINE, "stalled")),
    (Signal.STALL, 3): ((OFFLINE, "stalled"), (OFFLINE, "stalled"), (OFFLINE, "stalled")),
    (Signal.SLOW_READ, 9): ((ONLINE, None), (FAILING, "slow"), (OFFLINE, "stalled")),
    (Signal.SLOW_READ, 10): ((FAILING, "slow"), (FAILING, "slow"), (OFFLINE, "stalled")),
    (Signal.FULL, 1): ((FAILING, "full"), (FAILING, "full"), (OFFLINE, "stalled")),
    (Signal.READ_ONLY, 1): ((FAILING, "read_only"), (FAILING, "read_only"), (OFFLINE, "stalled")),
    (Signal.VANISHED, 1): ((OFFLINE, "vanished"), (OFFLINE, "vanished"), (OFFLINE, "vanished")),
    (Signal.WRONG_DISK, 1): ((OFFLINE, "wrong_disk"), (OFFLINE, "wrong_disk"), (OFFLINE, "wrong_disk")),
    (Signal.UNUSABLE, 1): ((OFFLINE, "unusable"), (OFFLINE, "unusable"), (OFFLINE, "stalled")),
    (Signal.PROBE_GOOD, 1): ((ONLINE, None), (FAILING, "slow"), (OFFLINE, "stalled")),
    (Signal.PROBE_BAD, 3): ((ONLINE, None), (FAILING, "slow"), (OFFLINE, "stalled")),
    (Signal.PROBE_BAD, 4): ((ONLINE, None), (OFFLINE, "io"), (OFFLINE, "io")),
    (Signal.OPERATOR, 1): ((ONLINE, None), (ONLINE, None), (ONLINE, None)),
}
BEFORE = ((ONLINE, None), (FAILING, Fault.SLOW), (OFFLINE, Fault.STALLED))


@pytest.mark.parametrize(
    ("before", "signal", "count", "after"),
    [
        (before, signal, count, afters[number])
        for (signal, count), afters in WALK.items()
        for number, before in enumerate(BEFORE)
    ],
)
def test_every_standing_with_every_signal(before, signal, count, after):
    health = standing(*before)
    change = health.signal(100.0, signal, count)
    assert (health.standing, health.reason) == after
    if before == after:
        assert change is None
        assert health.since == 5.0
    else:
        assert change == Change(before[0], after[0], after[1])
        assert health.since == 100.0


def test_the_walk_leaves_no_signal_and_no_transition_out():
    assert {signal for signal, _ in WALK} == set(Signal)
    assert set(TRANSITIONS) == set(Standing)
    for before, steps_of in TRANSITIONS.items():
        for steps in steps_of.values():
            assert all(DEPTH[step.standing] >= DEPTH[before] for step in steps), "the table only leads down"
            assert all(step.reason in (*HEALS, *STICKS) for step in steps)


@pytest.mark.parametrize(
    ("where", "can_read", "can_write", "weight"),
    [(ONLINE, True, True, 1.0), (FAILING, True, False, 0.5), (OFFLINE, False, False, 0.0)],
)
def test_what_a_standing_allows(where, can_read, can_write, weight):
    health = standing(where, None if where is ONLINE else Fault.FULL)
    assert (health.can_read, health.can_write, health.weight) == (can_read, can_write, weight)


# --- Thresholds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", [Signal.READ_ERROR, Signal.ROTTEN, Signal.STALL])
def test_errors_count_within_their_window_only(signal):
    apart = standing(ONLINE)
    for number in range(20):
        assert apart.signal(number * WINDOWS[signal] / 2, signal) is None
    together = standing(ONLINE)
    changes = [together.signal(number * WINDOWS[signal] / 4, signal) for number in range(3)]
    assert changes[:2] == [None, None]
    assert changes[2] is not None


def test_one_bad_extent_is_not_the_end_of_a_disk_but_a_dying_disk_is_taken_out():
    health = standing(ONLINE)
    standings = []
    for number in range(12):
        health.signal(float(number), Signal.READ_ERROR)
        standings.append(health.standing)
    assert standings == [ONLINE] * 2 + [FAILING] * 9 + [OFFLINE]


@pytest.mark.parametrize(("good", "after"), [(0, FAILING), (39, FAILING), (40, ONLINE), (10_000, ONLINE)])
def test_slow_reads_are_judged_by_their_share(good, after):
    health = standing(ONLINE)
    health.signal(0.0, Signal.GOOD, good)
    for number in range(10):
        health.signal(number * 0.1, Signal.SLOW_READ)
    assert health.standing is after


def test_good_reads_of_long_ago_do_not_hide_slow_ones():
    health = standing(ONLINE)
    health.signal(0.0, Signal.GOOD, 10_000)
    health.signal(200.0, Signal.SLOW_READ, 10)
    assert health.standing is FAILING


def test_a_device_that_needs_its_third_rest_in_a_day_does_not_come_back_by_itself():
    health = standing(ONLINE)
    for hours in (0, 5):
        now = hours * 3600.0
        assert health.signal(now, Signal.WRITE_ERROR) == Change(ONLINE, FAILING, Fault.WRITE)
        assert settle(health, now + 30) == Change(FAILING, ONLINE, None)
    assert health.signal(36_000.0, Signal.WRITE_ERROR) == Change(ONLINE, FAILING, Fault.IO)
    assert settle(health, 36_030.0) is None


def test_a_good_probe_between_bad_ones_begins_their_count_anew():
    health = standing(FAILING, Fault.WRITE)
    for number in range(12):
        kind = Signal.PROBE_GOOD if number % 4 == 3 else Signal.PROBE_BAD
        assert health.signal(number * 30.0, kind) is None


# --- The way up -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", HEALS)
@pytest.mark.parametrize("where", [FAILING, OFFLINE])
def test_what_heals_is_back_when_good_probes_have_settled_and_not_before(where, reason):
    health = standing(where, reason)
    assert health.heals
    for passed in (0.0, 30.0, 60.0, 90.0, 119.9):
        assert health.signal(1000 + passed, Signal.PROBE_GOOD) is None
    assert health.signal(1120.0, Signal.PROBE_GOOD) == Change(where, ONLINE, None)
    assert health.can_write
    assert not health.heals


@pytest.mark.parametrize("reason", STICKS)
@pytest.mark.parametrize("where", [FAILING, OFFLINE])
def test_what_sticks_waits_for_the_operator(where, reason):
    health = standing(where, reason)
    assert not health.heals
    assert settle(health, 0.0) is None
    assert settle(health, 1e9) is None
    assert health.signal(2e9, Signal.OPERATOR) == Change(where, ONLINE, None)


@pytest.mark.parametrize(
    "bad", [signal for signal in Signal if signal not in {Signal.GOOD, Signal.PROBE_GOOD, Signal.OPERATOR}]
)
def test_anything_bad_begins_the_wait_anew(bad):
    health = standing(FAILING, Fault.FULL)
    health.signal(0.0, Signal.PROBE_GOOD)
    health.signal(100.0, bad, 10 if bad is Signal.SLOW_READ else 1)
    assert health.signal(125.0, Signal.PROBE_GOOD) is None
    assert health.standing is not ONLINE


def test_a_single_slow_read_does_not():
    health = standing(FAILING, Fault.FULL)
    health.signal(0.0, Signal.PROBE_GOOD)
    health.signal(100.0, Signal.SLOW_READ)
    assert health.signal(120.0, Signal.PROBE_GOOD) == Change(FAILING, ONLINE, None)


def test_a_disk_with_input_output_errors_that_is_pulled_and_put_back_still_waits_for_the_operator():
    health = standing(FAILING, Fault.IO)
    assert health.signal(0.0, Signal.VANISHED) == Change(FAILING, OFFLINE, Fault.IO)
    assert settle(health, 30.0) is None


def test_the_worst_reason_is_the_one_that_is_told():
    health = standing(ONLINE)
    health.signal(0.0, Signal.FULL)
    health.signal(1.0, Signal.READ_ONLY)
    assert health.reason is Fault.READ_ONLY
    assert health.signal(2.0, Signal.FULL) is None
    health.signal(3.0, Signal.VANISHED)
    health.signal(4.0, Signal.WRONG_DISK)
    assert health.reason is Fault.WRONG_DISK
    assert health.signal(5.0, Signal.VANISHED) is None


def test_after_the_operators_command_old_errors_are_forgotten():
    health = standing(ONLINE)
    for kind in (Signal.READ_ERROR, Signal.WRITE_ERROR, Signal.STALL):
        health.signal(0.0, kind, 2)
    health.signal(1.0, Signal.OPERATOR)
    for kind in (Signal.READ_ERROR, Signal.STALL):
        assert health.signal(2.0, kind) is None
    assert health.signal(2.0, Signal.WRITE_ERROR).reason is Fault.WRITE


@pytest.mark.parametrize("where", [FAILING, OFFLINE])
def test_a_standing_survives_a_restart(where):
    before = standing(ONLINE)
    change = before.signal(50.0, Signal.READ_ERROR, 3 if where is FAILING else 12)
    after = Health(LIMITS, Standing(change.after.value), Fault(change.reason.value), before.since)
    assert (after.standing, after.reason, after.since) == (where, Fault.IO, 50.0)
    assert settle(after, 60.0) is None


def test_a_record_with_a_reason_that_is_no_devices_still_waits_for_the_operator():
    for reason in (None, Fault.MISSING, Fault.SHORT):
        health = standing(OFFLINE, reason)
        assert settle(health, 0.0) is None
        assert health.signal(500.0, Signal.OPERATOR) == Change(OFFLINE, ONLINE, None)


# --- Words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("EIO", Fault.IO),
        ("ENODATA", Fault.IO),
        ("EUCLEAN", Fault.IO),
        ("EROFS", Fault.READ_ONLY),
        ("ENOSPC", Fault.FULL),
        ("EDQUOT", Fault.FULL),
        ("ENOENT", Fault.MISSING),
        ("ENODEV", Fault.VANISHED),
        ("ENXIO", Fault.VANISHED),
        ("ESTALE", Fault.VANISHED),
        ("ENOTCONN", Fault.VANISHED),
        ("ETIMEDOUT", Fault.STALLED),
        ("EACCES", Fault.UNUSABLE),
        ("EMFILE", None),
        ("EBADF", None),
        ("ENOMEM", None),
    ],
)
def test_what_an_errno_says(name, fault):
    assert fault_of(getattr(errno, name)) is fault


def test_a_file_that_is_gone_or_short_says_nothing_of_its_device():
    assert {fault for fault in Fault if signal_of(fault) is None} == {Fault.MISSING, Fault.SHORT}


def test_every_reason_is_explained_with_what_ends_it():
    assert explanation(None) == ""
    told = {reason: explanation(reason) for reason in (*HEALS, *STICKS)}
    assert len(set(told.values())) == len(told)
    assert all(("by itself" in told[reason]) == (reason in HEALS) for reason in told)


@pytest.mark.parametrize(
    ("devices", "health"),
    [
        ([], 0.0),
        ([(10, ONLINE)], 1.0),
        ([(10, ONLINE), (10, OFFLINE)], 0.5),
        ([(30, ONLINE), (10, FAILING)], 0.875),
        ([(10, OFFLINE), (90, FAILING)], 0.45),
    ],
)
def test_the_health_of_the_box_is_the_share_of_capacity_that_is_well(devices, health):
    assert box_health(devices) == pytest.approx(health)


# --- Laws -------------------------------------------------------------------------------------------------------------

histories = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 300), st.floats(0, 1e5)),
        st.one_of(st.sampled_from(Signal), st.just(Signal.PROBE_GOOD)),
        st.sampled_from([1, 1, 2, 3, 12]),
    ),
    max_size=80,
)
starts = st.one_of(
    st.just((ONLINE, None)), st.tuples(st.sampled_from([FAILING, OFFLINE]), st.sampled_from((*HEALS, *STICKS)))
)
BAD = set(Signal) - {Signal.GOOD, Signal.PROBE_GOOD, Signal.OPERATOR, Signal.SLOW_READ}


@given(starts, histories)
def test_for_any_history_the_way_up_is_slow_and_what_sticks_needs_the_operator(start, history):
    health = standing(*start)
    now = 1000.0
    last_bad = None
    for pause, signal, count in history:
        now += pause
        before = (health.standing, health.reason, health.since)
        change = health.signal(now, signal, count)
        after = (health.standing, health.reason, health.since)
        assert (change is None) == (before == after or before[:2] == after[:2])
        assert (health.reason is None) == (health.standing is ONLINE)
        if change is not None:
            assert change == Change(before[0], after[0], after[1])
            assert health.since == now
        if DEPTH[after[0]] < DEPTH[before[0]]:
            assert after[0] is ONLINE
            assert signal in {Signal.PROBE_GOOD, Signal.OPERATOR}
            if signal is Signal.PROBE_GOOD:
                assert before[1] in HEALS
                assert last_bad is None or now - last_bad >= LIMITS.settle
        if before[1] in STICKS and signal is not Signal.OPERATOR:
            assert after[1] in STICKS
            assert DEPTH[after[0]] >= DEPTH[before[0]]
        if signal in BAD:
            last_bad = now


@given(starts, histories)
def test_after_any_history_the_operators_command_puts_it_into_service(start, history):
    health = standing(*start)
    now = 0.0
    for pause, signal, count in history:
        now += pause
        health.signal(now, signal, count)
    health.signal(now, Signal.OPERATOR)
    assert (health.standing, health.reason) == (ONLINE, None)


@given(histories)
def test_what_is_remembered_is_bounded(history):
    health = standing(ONLINE)
    now = 0.0
    for pause, signal, count in history * 5:
        now += pause
        health.signal(now, signal, count)
    assert all(len(tally._slices) <= 33 for tally in health._heard.values())


@given(st.lists(st.floats(0, 400), max_size=200), st.integers(1, 5))
def test_a_tally_forgets_no_error_early_and_none_a_slice_late(pauses, count):
    """Against a model that keeps every moment: a slice is as old as its first entry."""
    health = standing(ONLINE)
    moments = []
    now = 0.0
    window = WINDOWS[Signal.READ_ERROR]
    for pause in pauses:
        now += pause
        health.signal(now, Signal.READ_ERROR, count)
        moments.append(now)
        heard = health._heard[Signal.READ_ERROR].total(now)
        assert heard <= count * sum(now - window < moment for moment in moments)
        assert heard >= count * sum(now - window * 31 / 32 < moment for moment in moments)
