"""Countries, as an operator says them."""

import pytest

from admin.errors import UsageError
from admin.licence import availability_of, in_words
from wire.catalog import Availability


def test_countries_are_read_from_a_list():
    assert availability_of(" pt,ES,PT", "RU") == Availability(only=("PT", "ES"), never=("RU",))
    assert availability_of(None, None) == Availability()


@pytest.mark.parametrize("text", ["", "PRT", "P", "PT,", "PT;ES", "P1"])
def test_what_is_no_country_is_named(text):
    with pytest.raises(UsageError, match="ISO 3166-1"):
        availability_of(text, None)


def test_a_country_is_not_on_both_lists():
    with pytest.raises(UsageError, match="PT can't be both"):
        availability_of("PT,ES", "PT")


def test_a_licence_is_told_in_words():
    assert in_words(Availability()) == "everywhere"
    assert in_words(Availability(only=("PT",), never=("RU", "BY"))) == "only in PT, not in RU, BY"
