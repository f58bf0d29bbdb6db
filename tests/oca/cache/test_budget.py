"""The write budget of a flash device: a day's worth at once, and then as much as time brings."""

from oca.cache.budget import WriteBudget

DAY = 86400.0


def test_it_starts_full_and_ends_empty():
    budget = WriteBudget(1000.0)
    assert budget.allows(0.0)
    budget.spend(999, 0.0)
    assert budget.allows(0.0)
    budget.spend(1, 0.0)
    assert not budget.allows(0.0)


def test_the_last_write_of_the_day_is_on_the_next_days_account():
    budget = WriteBudget(1000.0)
    budget.spend(1500, 0.0)
    assert not budget.allows(DAY / 2)
    assert budget.allows(DAY / 2 + 1)


def test_a_day_is_all_it_holds():
    budget = WriteBudget(1000.0)
    assert budget.allows(9 * DAY)
    budget.spend(1000, 9 * DAY)
    assert not budget.allows(9 * DAY)


def test_what_is_written_all_the_same_is_paid_back_in_two_days_at_most():
    budget = WriteBudget(1000.0)
    budget.spend(50_000, 0.0)
    assert not budget.allows(DAY)
    assert budget.allows(DAY + 1)


def test_a_clock_set_back_fills_nothing():
    budget = WriteBudget(1000.0)
    budget.spend(1000, 10 * DAY)
    assert not budget.allows(5 * DAY)
    assert budget.allows(5.5 * DAY)
