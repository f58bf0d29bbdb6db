import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering.topology.distance import EARTH_RADIUS_KM, WAYS, Proximity, great_circle_km, rtt_ms

COLOGNE = (50.94, 6.96)
latitudes = st.floats(-90, 90)
longitudes = st.floats(-180, 180)


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        (COLOGNE, COLOGNE, 0),
        (COLOGNE, (50.11, 8.68), 152),
        ((40.71, -74.01), (51.51, -0.13), 5570),
        ((-33.87, 151.21), (35.68, 139.69), 7820),
        ((0, 179.5), (0, -179.5), 111),
        ((90, 0), (-90, 0), 20015),
        ((0, 0), (0, 180), 20015),
    ],
)
def test_distances_are_those_of_the_atlas(a, b, km):
    assert great_circle_km(*a, *b) == pytest.approx(km, rel=0.01, abs=0.001)


@given(latitudes, longitudes, latitudes, longitudes)
def test_the_way_back_is_as_long_and_none_is_longer_than_half_the_earth(a, b, c, d):
    there = great_circle_km(a, b, c, d)
    assert there == pytest.approx(great_circle_km(c, d, a, b), abs=1e-6)
    assert 0 <= there <= EARTH_RADIUS_KM * 3.1416


def test_a_hundred_kilometres_of_fibre_are_a_millisecond():
    way = WAYS[Proximity.PREFIX]
    assert rtt_ms(100.0, Proximity.PREFIX) == pytest.approx(way.ms + way.inflation)


@given(st.floats(0, 20000) | st.none())
def test_at_the_same_distance_the_nearer_kind_is_never_slower(km):
    times = [rtt_ms(km, proximity) for proximity in Proximity]
    assert times == sorted(times)
    assert all(time > 0 for time in times)


@given(st.floats(0, 20000), st.floats(0, 20000), st.sampled_from(Proximity))
def test_farther_is_never_faster(a, b, proximity):
    assert rtt_ms(min(a, b), proximity) <= rtt_ms(max(a, b), proximity)
