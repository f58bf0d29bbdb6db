"""Rates from counters: growth over time, whatever the counters do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.report.rates import Cpu, Egress, HitRatio, fair_share

MIB = 1024 * 1024


def test_egress_is_the_growth_of_all_cards_over_the_time_between():
    egress = Egress()
    assert egress.counted({"eth0": 1000, "eth1": 0}, 10.0) == 0
    assert egress.counted({"eth0": 2000, "eth1": 500}, 12.0) == 1500 * 8 / 2
    assert egress.counted({"eth0": 2000, "eth1": 500}, 13.0) == 0


@pytest.mark.parametrize(
    ("before", "after", "grown"),
    [
        (1000, 200, 200),  # The driver was loaded anew.
        (2**32 - 100, 50, 150),  # It counts in 32 bits.
        (2**31, 2**31 - 1, 2**31 - 1),  # Fell by one: no wrap takes so much.
        (2**40, 70, 70),  # It counts in 64 bits: that was no wrap.
    ],
)
def test_a_counter_that_falls_was_begun_anew_or_has_wrapped(before, after, grown):
    egress = Egress()
    egress.counted({"eth0": before}, 0.0)
    assert egress.counted({"eth0": after}, 8.0) == grown


def test_a_card_counts_from_its_second_reading_on_and_no_longer_when_it_is_gone():
    egress = Egress()
    egress.counted({"eth0": 0}, 0.0)
    assert egress.counted({"eth0": 0, "eth1": 10**12}, 1.0) == 0
    assert egress.counted({"eth1": 10**12 + 100}, 2.0) == 800
    assert egress.counted({}, 3.0) == 0


def test_a_clock_that_stands_changes_nothing():
    egress = Egress()
    egress.counted({"eth0": 0}, 1.0)
    egress.counted({"eth0": 100}, 2.0)
    assert egress.counted({"eth0": 900}, 2.0) == 800
    assert egress.counted({"eth0": 1100}, 3.0) == 8000


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2**64 - 1)), max_size=8))
def test_egress_is_never_below_nothing(readings):
    egress = Egress()
    for second, sent in enumerate(readings):
        assert egress.counted(sent, float(second)) >= 0


def test_cpu_is_what_was_not_idle_nor_waiting_for_disks():
    cpu = Cpu()
    cpu.counted("cpu  100 0 0 300 100 0 0 0 0 0\n")
    assert cpu.counted("cpu  125 0 25 320 130 0 0 0 99 0\n") == 0.5
    assert cpu.counted("cpu  125 0 25 320 130 0 0 0 99 0\n") == 0.5


@pytest.mark.parametrize("line", ["", "cpu", "cpu0 1 2 3 4 5", "cpu 1 2 3", "intr 1 2 3 4 5 6"])
def test_another_line_is_refused(line):
    with pytest.raises(ValueError, match="not the first line of /proc/stat"):
        Cpu().counted(line)


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=5, max_size=10), min_size=1, max_size=6))
def test_cpu_is_a_share_whatever_is_read(readings):
    cpu = Cpu()
    for ticks in readings:
        assert 0 <= cpu.counted("cpu " + " ".join(map(str, ticks))) <= 1


def test_the_hit_ratio_is_of_the_bytes_of_the_last_five_minutes():
    ratio = HitRatio()
    assert ratio.counted(10**12, 10**12, 0.0) is None
    assert ratio.counted(10**12 + 60 * MIB, 10**12, 100.0) is None
    assert ratio.counted(10**12 + 60 * MIB, 10**12 + 20 * MIB, 200.0) == 0.75
    # The first hundred seconds are out.
    assert ratio.counted(10**12 + 60 * MIB, 10**12 + 80 * MIB, 401.0) == 0.0
    assert ratio.counted(10**12 + 60 * MIB, 10**12 + 80 * MIB, 800.0) is None


def test_counters_that_were_begun_anew_are_no_loss():
    ratio = HitRatio()
    ratio.counted(10**12, 10**12, 0.0)
    assert ratio.counted(5, 5, 1.0) is None
    assert ratio.counted(5 + 100 * MIB, 5, 2.0) == 1.0


@pytest.mark.parametrize(
    ("link", "egress", "viewers", "bps"),
    [
        (10_000, 8999, 10, 0),
        (10_000, 9000, 10, 900),
        (10_000, 11_000, 3, 3000),
        (10_000, 9500, 0, 0),
        (0, 9500, 10, 0),
    ],
)
def test_players_are_asked_for_less_only_while_the_link_is_nearly_full(link, egress, viewers, bps):
    assert fair_share(link, egress, viewers) == bps
