"""What the agent remembers: all that it noted, and nothing else, wherever it was cut off."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fill.agent.journal import (
    Begun,
    Failed,
    Finished,
    Journal,
    JournalError,
    Kept,
    Lost,
    Name,
    Pledged,
    Released,
    State,
    UrgentDone,
    folded,
)
from fill.agent.work import Failure

NAME = Name("2026-11-25", 1, "d")
EVENTS = [
    Begun(NAME, 1.0),
    Kept(),
    Pledged(1, "/titles/a/1", 9.0),
    Failed(2, Failure.CHECKSUM),
    Pledged(3, "/titles/b/3", 9.0),
    Released("/titles/a/1"),
    UrgentDone("fill/orders/a/urgent/1.json"),
    Finished(5.0),
]


def read(path):
    journal = Journal(path)
    journal.close()
    return journal.state


def after(events):
    state = State()
    for event in events:
        folded(state, event)
    return state


def test_what_was_noted_is_there_after_a_restart(tmp_path):
    journal = Journal(tmp_path / "journal")
    for event in EVENTS:
        journal.note(event)
    journal.close()
    state = read(tmp_path / "journal")
    assert state == after(EVENTS) == journal.state
    assert state.done == {1: 9.0, 3: 9.0}
    assert state.failed == {2: Failure.CHECKSUM}
    assert state.ledger == {3: "/titles/b/3"}
    assert (state.has_kept, state.finished_at, state.last_success) == (True, 5.0, None)


def test_a_new_order_forgets_what_came_of_the_old_one_and_keeps_what_is_pledged():
    state = after([*EVENTS, Begun(Name("2026-11-26", 1), 7.0), Lost((3,)), Finished(8.0)])
    assert (state.done, state.failed, state.released, state.has_kept) == ({}, {}, [], False)
    assert state.ledger == {}
    assert (state.finished_at, state.last_success) == (8.0, 8.0)


@settings(max_examples=100, deadline=None)
@given(events=st.lists(st.sampled_from(EVENTS), max_size=8), data=st.data())
def test_wherever_a_kill_cuts_it_off_it_is_what_was_noted_until_then(tmp_path_factory, events, data):
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path)
    ends = [path.stat().st_size]
    for event in events:
        journal.note(event)
        ends.append(path.stat().st_size)
    journal.close()
    cut = data.draw(st.integers(ends[0], ends[-1]))
    with path.open("rb+") as file:
        file.truncate(cut)
    # A line whose end of line alone is missing was written whole.
    whole = sum(cut >= end - 1 for end in ends[1:])
    assert read(path) == after(events[:whole])


def test_what_no_kill_can_have_done_is_an_error(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path)
    for event in EVENTS:
        journal.note(event)
    journal.close()
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"1", b"2", 1)
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(JournalError, match="line 3 is damaged"):
        Journal(path)


def test_it_stays_small(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path)
    for _ in range(500):
        journal.note(Begun(NAME, 1.0))
    assert path.stat().st_size > 10_000
    journal.fold()
    assert path.stat().st_size < 1000
    journal.note(Pledged(1, "/titles/a/1", 9.0))
    journal.close()
    assert read(path).ledger == {1: "/titles/a/1"}


def test_urgent_orders_are_remembered_up_to_a_bound():
    state = after(UrgentDone(str(at)) for at in range(1500))
    assert (len(state.urgent), state.urgent[-1]) == (1000, "1499")


def test_a_folder_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="can't be"):
        Journal(tmp_path / "file" / "journal")


def test_of_two_orders_the_later_night_counts_and_then_the_version():
    assert Name("2026-11-24", 9).is_before(Name("2026-11-25", 1))
    assert Name("2026-11-25", 1).is_before(Name("2026-11-25", 2))
    assert not Name("2026-11-25", 2, "x").is_before(Name("2026-11-25", 2, "y"))
