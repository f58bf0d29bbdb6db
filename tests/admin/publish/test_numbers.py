"""Rendition numbers stay dense, whatever dies in between."""

from hypothesis import given
from hypothesis import strategies as st

from admin.publish.numbers import claimed, settled
from wire.catalog import RenditionNumbers

FOLDERS = st.lists(st.sampled_from([f"/titles/t/{letter}" for letter in "abcdefgh"]), unique=True)


@given(st.lists(st.tuples(FOLDERS, st.booleans())))
def test_every_number_is_given_once_and_none_is_left_out(runs):
    numbers, catalogue = RenditionNumbers(), {}
    for folders, survives in runs:
        numbers, given_now = claimed(numbers, folders, catalogue)
        assert list(given_now) == folders
        if survives:
            catalogue |= given_now
            numbers = settled(numbers, folders)
    everyone = catalogue | numbers.claims
    assert sorted(everyone.values()) == list(range(numbers.next))


@given(FOLDERS)
def test_who_claims_again_gets_the_same(folders):
    numbers, first = claimed(RenditionNumbers(next=5), folders, {})
    again, second = claimed(numbers, folders, {})
    assert (again, first) == (numbers, second)


def test_what_the_catalogue_numbers_already_needs_no_claim():
    numbers, given_now = claimed(RenditionNumbers(next=5), ["/titles/t/a"], {"/titles/t/a": 3})
    assert (given_now, numbers) == ({"/titles/t/a": 3}, RenditionNumbers(next=5))


def test_settling_leaves_the_claims_of_others():
    numbers, _ = claimed(RenditionNumbers(), ["/titles/t/a", "/titles/u/a"], {})
    assert settled(numbers, ["/titles/t/a"]).claims == {"/titles/u/a": 1}
