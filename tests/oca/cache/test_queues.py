"""Lines of slots: first in, first out, and anybody may leave."""

from hypothesis import given
from hypothesis import strategies as st

from oca.cache.columns import Columns
from oca.cache.queues import Line


@given(st.lists(st.one_of(st.integers(0, 40), st.sampled_from(["pop", "turn"])), max_size=300))
def test_a_line_is_first_in_first_out_and_anybody_may_leave(moves):
    columns = Columns()
    columns.reach(40)
    line, model = Line(columns), []
    for slot in moves:
        if slot in ("pop", "turn"):
            if model and slot == "pop":
                assert line.first == model.pop(0)
                line.remove(line.first)
            elif model:
                many = len(model) // 2 + 1
                line.turn(model[many - 1])
                model = model[many:] + model[:many]
        elif slot in model:
            model.remove(slot)
            line.remove(slot)
        else:
            model.append(slot)
            line.push(slot)
        assert list(line) == model
        assert len(line) == len(model)


def test_a_slot_takes_twenty_nine_bytes():
    columns = Columns()
    columns.reach(99_999)
    assert columns.row_bytes == 29
    assert len(columns) < 1.07 * 100_000
