"""Renditions: what the readings of all extents say of each."""

from oca.cache.heat import DOUBLING, steps_a_second
from oca.cache.renditions import UNKNOWN, Renditions

NOW = 1_750_000_000
RATE = steps_a_second(86400)


def test_each_extent_has_its_share_of_the_heat():
    renditions = Renditions()
    for _ in range(4):
        renditions.widen(7, 1 << 20)
    for _ in range(32):
        renditions.read(7, NOW, RATE, 1 << 20)
    # 32 readings of 4 extents are 8 for each, and count half.
    assert abs(renditions.share_of(7, RATE) - NOW * RATE - 2 * DOUBLING) < 4


def test_one_reading_more_of_a_thousand_still_counts():
    renditions = Renditions()
    for _ in range(4096):
        renditions.read(7, NOW, RATE, 1 << 20)
    assert abs(renditions.share_of(7, RATE) - NOW * RATE - 11 * DOUBLING) < 4


def test_what_was_never_read_is_worth_nothing():
    renditions = Renditions()
    assert renditions.share_of(7, RATE) == UNKNOWN
    renditions.widen(7, 1 << 20)
    assert renditions.share_of(7, RATE) < NOW * RATE - 100 * DOUBLING


def test_of_two_on_one_place_the_hotter_is_known():
    renditions = Renditions()
    rival = 7 + len(renditions)
    for _ in range(8):
        renditions.read(7, NOW, RATE, 0)
    renditions.read(rival, NOW, RATE, 0)
    assert renditions.share_of(rival, RATE) == UNKNOWN
    renditions.read(rival, NOW + 5 * 86400, RATE, 0)
    assert renditions.share_of(7, RATE) == UNKNOWN
    assert renditions.share_of(rival, RATE) > UNKNOWN


def test_the_table_grows_to_what_is_allowed_and_forgets_nothing():
    renditions = Renditions()
    small = len(renditions)
    for group in range(1, small):
        renditions.read(group, NOW, RATE, 2 * small)
    assert len(renditions) == 2 * small
    assert all(renditions.share_of(group, RATE) > UNKNOWN for group in range(1, small))


def test_a_dump_brings_them_back():
    renditions, later = Renditions(), Renditions()
    for group in range(100):
        renditions.read(group, NOW, RATE, 1 << 20)
        renditions.widen(group, 1 << 20)
    later.restore(*renditions.dump())
    assert [later.share_of(group, RATE) for group in range(120)] == [renditions.share_of(g, RATE) for g in range(120)]
