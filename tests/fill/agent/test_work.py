"""What is to be done of an order: the most valuable first, peers waited for, nothing given up too early."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fill.agent.work import Failure, Route, Work, is_behind
from wire.orders import Bring, FillOrder, Peer


def bring(number, size=100, sources=()):
    return Bring(number=number, title="t", folder=f"/titles/t/{number}", size_bytes=size, sources=tuple(sources))


def order(*brings, release=(), budget=10**9, peers=("p", "q")):
    return FillOrder(
        appliance="a",
        night="2026-11-25",
        version=1,
        issued_at=0.0,
        expires_at=1.0,
        pledged_until=2.0,
        budget_bytes=budget,
        bring=brings,
        release=tuple(f"/titles/old/{name}" for name in release),
        peers=tuple(Peer(id=peer, url=f"http://{peer}") for peer in peers),
    )


def work(*brings, done=(), failed=(), released=(), peer_wait=60.0, **more):
    return Work(order(*brings, **more), done, dict.fromkeys(failed, Failure.ABSENT), released, 0.0, peer_wait, 1.0)


def taken(one, now=0.0):
    found = []
    while (some := one.pick(now)) is not None:
        found.append(some.number)
    return found


def test_renditions_are_taken_up_as_the_order_has_them():
    assert taken(work(bring(3), bring(1), bring(2))) == [3, 1, 2]


def test_what_a_journal_knows_is_not_done_again():
    one = work(bring(1), bring(2), bring(3), done=[1], failed=[3])
    assert taken(one) == [2]
    assert one.failed == {3: Failure.ABSENT}


def test_what_was_put_off_waits_longer_each_time_and_others_go_on():
    first = bring(1)
    one = work(first, bring(2))
    assert one.pick(0.0) == first
    assert one.put_off(first, 0.0) == 1.0
    assert one.pick(0.5).number == 2
    assert one.next_at() == 1.0
    pauses = []
    now = 1.0
    for _ in range(8):
        assert one.pick(now) == first
        pauses.append(one.put_off(first, now))
        now = one.next_at()
    assert pauses == [2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 20.0, 20.0]


def test_peers_alone_are_asked_until_they_were_waited_for():
    one = work(bring(1, sources=["p", "q"]), bring(2), bring(3, sources=["nobody"]))
    assert one.route(one.order.bring[0], 59.0) == Route(("http://p", "http://q"), only_peers=True)
    assert one.route(one.order.bring[0], 60.0) == Route(("http://p", "http://q"), only_peers=False)
    assert one.route(one.order.bring[1], 0.0) == Route()
    # Who stands in no list of peers can't be asked: then the ladder is.
    assert one.route(one.order.bring[2], 0.0) == Route()


def test_no_more_than_came_is_given_up():
    one = work(bring(1, 100), bring(2, 100), release=["x", "y", "z"])
    assert one.to_release() is None
    one.pick(0.0)
    one.finished(one.order.bring[0])
    assert one.to_release() == "/titles/old/x"
    one.released("/titles/old/x", 60)
    assert one.to_release() == "/titles/old/y"
    one.released("/titles/old/y", 60)
    assert one.to_release() is None  # 120 went for 100.
    one.pick(0.0)
    one.finished(one.order.bring[1])
    # All is here: what else the order gives up goes as well.
    one.released("/titles/old/z", 500)
    assert one.to_release() is None


def test_where_something_failed_only_what_was_replaced_goes():
    one = work(bring(1, 100), bring(2, 100), release=["x", "y"])
    one.pick(0.0)
    one.finished(one.order.bring[0])
    one.released("/titles/old/x", 100)
    one.pick(0.0)
    one.gave_up(one.order.bring[1], Failure.ABSENT)
    assert one.is_over
    assert one.to_release() is None
    assert one.least_valuable() == "/titles/old/y"


def test_what_was_released_before_a_restart_is_not_released_again():
    assert work(bring(1), release=["x", "y"], released=["/titles/old/x"]).least_valuable() == "/titles/old/y"


def test_progress_counts_what_is_under_way_and_forgets_what_broke_off():
    one = work(bring(1, 100), bring(2, 300))
    one.pick(0.0)
    one.came(one.order.bring[0], 40, {"origin": 30, "peer": 10})
    assert (one.order_bytes, one.done_bytes, one.left_bytes) == (400, 40, 360)
    assert one.source_bytes == {"origin": 30, "peer": 10}
    one.dropped(one.order.bring[0])
    assert one.done_bytes == 0
    assert one.pick(0.0).number == 1


def test_when_the_orders_bytes_are_used_up_nothing_more_is_begun():
    one = work(bring(1, 100), bring(2, 100), budget=100)
    assert one.may_spend(one.order.bring[0])
    one.came(one.order.bring[0], 100, {"origin": 100})
    assert not one.may_spend(one.order.bring[1])


@pytest.mark.parametrize(
    ("left", "seconds", "cap", "observed", "behind"),
    [
        (100, 10, 10, None, False),
        (101, 10, 10, None, True),
        (100, 10, 100, 9.0, True),
        (100, 10, 100, 10.0, False),
        (100, 10, 5, 100.0, True),
        (0, 0, 10, None, False),
        (1, -5, 10, None, True),
    ],
)
def test_it_is_behind_when_what_is_left_can_not_come_in_time(left, seconds, cap, observed, behind):
    assert is_behind(left, seconds, cap, observed) is behind


@settings(max_examples=200)
@given(st.data())
def test_whatever_becomes_of_renditions_no_more_is_given_up_than_came(data):
    sizes = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=8))
    held = data.draw(st.lists(st.integers(0, 50), max_size=8))
    one = work(*(bring(at, size) for at, size in enumerate(sizes)), release=[str(at) for at in range(len(held))])
    came, gone, now = 0, 0, 0.0
    while not one.is_over:
        some = one.pick(now)
        if some is None:
            now = one.next_at()
            continue
        what = data.draw(st.sampled_from(["finished", "finished", "gave up", "put off", "dropped"]))
        if what == "finished":
            one.finished(some)
            came += some.size_bytes
        elif what == "gave up":
            one.gave_up(some, Failure.CHECKSUM)
        elif what == "put off":
            one.put_off(some, now)
        else:
            one.dropped(some)
        while not one.is_over and (folder := one.to_release()) is not None:
            before = gone
            gone += held[int(folder.rpartition("/")[2])]
            one.released(folder, gone - before)
            assert before < came
    assert len(one.done) + len(one.failed) == len(sizes)
