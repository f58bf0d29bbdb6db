import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.topology.geo import NOWHERE, Place, asn_of, place_of
from tests.doubles.geoip import asn, city

COLOGNE = city("DE", 50.94, 6.96, name="Cologne", radius=10, subdivision="NW")


def test_a_city_is_a_place():
    assert place_of(COLOGNE) == Place("DE", "NW", 50.94, 6.96, 10.0)


@pytest.mark.parametrize(
    ("record", "place"),
    [
        # The middle of the USA as databases give it, and of countries whose middle has a small radius.
        (city("US", 37.751, -97.822, name=None, radius=1000), Place("US")),
        (city("LI", 47.16, 9.55, name=None, radius=10), Place("LI")),
        (city("DE", 51.0, 9.0, radius=500), Place("DE")),
        (city("DE", 51.0, 9.0, radius=499), Place("DE", None, 51.0, 9.0, 499.0)),
        (city("DE", 51.0, 9.0, name=None, subdivision="NW"), Place("DE", "NW", 51.0, 9.0, 20.0)),
        (city("DE", 51.0, 9.0, name=None) | {"postal": {"code": "50667"}}, Place("DE", None, 51.0, 9.0, 20.0)),
        (COLOGNE | {"location": {"latitude": 50.94, "longitude": 6.96}}, Place("DE", "NW", 50.94, 6.96, None)),
        (COLOGNE | {"location": {"latitude": 50.94}}, Place("DE", "NW")),
        (COLOGNE | {"location": {"latitude": 91.0, "longitude": 6.96}}, Place("DE", "NW")),
        (COLOGNE | {"location": {"latitude": math.nan, "longitude": 6.96}}, Place("DE", "NW")),
        (COLOGNE | {"location": "Cologne"}, Place("DE", "NW")),
        (COLOGNE | {"country": {"iso_code": 49}, "registered_country": {"iso_code": "NL"}},
         Place("NL", "NW", 50.94, 6.96, 10.0)),
        ({"country": {"iso_code": "DE"}}, Place("DE")),
        ({}, NOWHERE),
        (None, NOWHERE),
        ("Cologne", NOWHERE),
    ],
)  # fmt: skip
def test_the_middle_of_a_country_is_no_place_and_what_is_odd_is_absent(record, place):
    assert place_of(record) == place


def test_how_wide_a_place_may_be_can_be_set():
    assert place_of(COLOGNE, 10.0).latitude is None
    assert place_of(COLOGNE, 11.0).latitude == 50.94


@pytest.mark.parametrize(
    ("record", "number"),
    [(asn(64500), 64500), (asn(0), None), (asn(2**32), None), (asn("64500"), None), ({}, None), (None, None)],
)
def test_an_as_number_is_read(record, number):
    assert asn_of(record) == number


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["country", "iso_code", "location", "latitude", "longitude", "city", "subdivisions"]), inner
        )
    ),
)


@given(anything)
def test_no_record_is_too_odd(record):
    place = place_of(record)
    assert (place.latitude is None) == (place.longitude is None)
    assert place.latitude is None or abs(place.latitude) <= 90
    asn_of(record)
