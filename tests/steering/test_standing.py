"""What changes steering's mind about an appliance: every state with every signal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.standing import KEEPS_OLD, TAKES_NEW, TRANSITIONS, Patience, Signal, Standing, after, is_panic, ramp

PATIENCE = Patience()

TABLE = """
               well     steady   unwell   leaving   empty    quiet    silent   banned
    joining    joining  serving  joining  draining  drained  joining  lost     disabled
    serving    serving  serving  suspect  draining  drained  suspect  lost     disabled
    suspect    joining  joining  suspect  draining  drained  suspect  lost     disabled
    lost       joining  joining  suspect  draining  drained  lost     lost     disabled
    draining   joining  joining  suspect  draining  drained  draining lost     disabled
    drained    joining  joining  suspect  draining  drained  drained  drained  disabled
    disabled   joining  joining  suspect  draining  drained  joining  lost     disabled
"""
SIGNALS, *ROWS = [line.split() for line in TABLE.strip().splitlines()]


@pytest.mark.parametrize(
    ("before", "signal", "expected"),
    [(row[0], signal, standing) for row in ROWS for signal, standing in zip(SIGNALS, row[1:], strict=True)],
)
def test_each_standing_after_each_signal(before, signal, expected):
    assert after(Standing(before), Signal(signal)) is Standing(expected)


def test_the_table_is_whole():
    assert set(TRANSITIONS) == set(Standing) == {Standing(row[0]) for row in ROWS}
    assert all(set(row) == set(Signal) for row in TRANSITIONS.values())


@given(st.sampled_from(Standing), st.lists(st.sampled_from(Signal)))
def test_nobody_serves_who_was_not_steady_while_joining(standing, signals):
    for signal in signals:
        before, standing = standing, after(standing, signal)
        if standing is Standing.SERVING and before is not Standing.SERVING:
            assert (before, signal) == (Standing.JOINING, Signal.STEADY)


def test_only_who_serves_takes_new_players_and_the_doubtful_keep_theirs():
    assert {Standing.SERVING} == TAKES_NEW
    assert {Standing.SERVING, Standing.SUSPECT, Standing.JOINING} == KEEPS_OLD


@pytest.mark.parametrize(
    ("serving_for", "share"), [(-5, 0.1), (0, 0.1), (30, 0.55), (59.999999, 1.0), (60, 1.0), (1e9, 1.0)]
)
def test_a_new_appliance_begins_with_a_tenth_and_grows_for_a_minute(serving_for, share):
    assert ramp(serving_for, PATIENCE) == pytest.approx(share)


def test_without_a_ramp_the_full_share_comes_at_once():
    assert ramp(0, Patience(ramp=0.0)) == 1.0
    # Also while a clock that was set back says that it has not begun yet.
    assert ramp(-15, Patience(ramp=0.0)) == 1.0


@pytest.mark.parametrize(
    ("quiet", "sites", "counted", "expected"),
    [
        (0, 0, 0, False),
        (2, 2, 2, False),  # too few to tell
        (3, 2, 3, True),
        (3, 1, 3, False),  # a power cut
        (3, 3, 10, False),  # not more than 0.3
        (4, 3, 10, True),
        (6000, 900, 20_000, False),
        (6001, 900, 20_000, True),
        (6001, 1, 20_000, False),
    ],
)
def test_when_much_of_the_fleet_is_silent_at_once_it_is_more_likely_us(quiet, sites, counted, expected):
    assert is_panic(quiet, sites, counted, PATIENCE) is expected


def test_who_is_silent_is_lost_within_fifteen_seconds():
    # A look each second finds it one second late at most.
    assert PATIENCE.silent_after + 1.0 < 15.0
    assert PATIENCE.quiet_after < PATIENCE.silent_after
