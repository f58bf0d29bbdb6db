"""Where a viewer of a crowd plays from."""

import pytest

from admin.crowd.places import SHUNNED, Direct, Places, Spot, read_order

A, B, C = (Spot(name, f"http://{name}/") for name in "abc")


def places(*spots):
    return Places(spots, "master.m3u8", "session", None, 10)


def test_who_fails_is_left_for_the_next_and_not_gone_back_to_at_once():
    some = places(A, B, C)
    assert some.failed(A, 0.0)
    assert some.current is B
    assert some.failed(B, 1.0)
    assert some.current is C
    assert not some.heed(["a", "b", "c"], 2.0)
    assert some.heed(["a", "b", "c"], SHUNNED + 1.0)
    assert some.current is A


def test_where_all_have_failed_another_is_tried_all_the_same():
    some = places(A, B)
    some.failed(A, 0.0)
    assert some.failed(B, 0.0)
    assert some.current is A


def test_a_late_failure_of_a_place_that_was_left_moves_nobody():
    some = places(A, B, C)
    some.failed(A, 0.0)
    assert not some.failed(A, 0.0)
    assert some.current is B
    assert not places(A).failed(A, 0.0)


def test_places_that_steering_does_not_name_come_last():
    some = places(A, B, C)
    assert some.heed(["c", "elsewhere", "b"], 0.0)
    assert [spot.id for spot in some.spots] == ["c", "b", "a"]


def test_an_order_is_read():
    body = b'{"VERSION":1,"TTL":7,"RELOAD-URI":"http://x/","PATHWAY-PRIORITY":["b","a"],"PATHWAY-CLONES":[]}'
    assert read_order(body) == (("b", "a"), 7.0)
    with pytest.raises(ValueError, match="JSON"):
        read_order(b"<html>")


async def test_without_steering_viewers_are_spread_over_the_boxes():
    source = Direct(["http://one:1/titles/x/master.m3u8", "http://two/titles/x/master.m3u8"])
    first, second = await source.press(None, 0), await source.press(None, 1)
    assert [spot.id for spot in first.spots] == ["one:1", "two"]
    assert [spot.id for spot in second.spots] == ["two", "one:1"]
    assert first.current.base_url == "http://one:1/titles/x/"
    assert first.session != second.session
