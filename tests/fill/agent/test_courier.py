"""An order being worked on, and all that can go wrong with it. The appliance is a double that fails as it is told."""

import asyncio
import contextlib
import time

import aiohttp
import pytest
from pyroaring import BitMap

from fill.agent.courier import SPAN_BYTES, Courier
from fill.agent.journal import Begun, Journal, Name, Pledged
from fill.agent.pace import Pace
from fill.agent.settings import Rate
from fill.agent.station import Station, StationError
from fill.agent.work import Failure, Work
from tests.doubles.keeper import Keeper
from tests.doubles.published import document, rendition
from wire.orders import Bring, FillOrder, Peer

UNTIL = 9e9
DEADLINE = 20.0


class Desk:
    """An agent's courier and the appliance beside it."""

    def __init__(self, folder):
        self.folder = folder
        self.keeper = Keeper()
        self.brings = []
        self.work = None
        self.url = ""

    def title(self, title, number, sizes=(100, 200), sources=()):
        """It is published, and the order wants it."""
        made = rendition(title, number, {f"seg-{at}": size for at, size in enumerate(sizes)})
        self.keeper.publish(document(title, made))
        folder = made.objects[0].path.rpartition("/")[0]
        self.brings.append(
            Bring(number=number, title=title, folder=folder, size_bytes=sum(sizes), sources=tuple(sources))
        )
        return [item.path for item in made.objects]

    def hold(self, folder, size):
        """Something that was pledged before."""
        path = f"{folder}/seg-0"
        self.keeper.sizes[path] = size
        self.keeper.held[path].add(0)
        self.keeper.pledged[path] = 1.0
        return folder

    def order(self, **fields):
        plain = {
            "appliance": "a",
            "night": "2026-11-25",
            "version": 1,
            "issued_at": 0.0,
            "expires_at": UNTIL,
            "pledged_until": UNTIL,
            "budget_bytes": 10**12,
            "bring": tuple(self.brings),
            "peers": (Peer(id="p", url="http://p"),),
        }
        return FillOrder(**{**plain, **fields})

    def run(self, *, url=None, until=lambda: False, keeps=False, peer_wait=0.0, journalled=True, **fields):
        """Until the order is done, or `until`; returns the work."""
        return asyncio.run(self._run(url, until, keeps, peer_wait, journalled, fields))

    async def _run(self, url, until, keeps, peer_wait, journalled, fields):
        journal = Journal(self.folder / "journal")
        order = self.order(**fields)
        state = journal.state
        if state.name is None:
            journal.note(Begun(Name(order.night, order.version), 0.0))
        self.work = Work(order, state.done, state.failed, state.released, time.monotonic(), peer_wait, 0.02)
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(self.keeper.server())
            session = await stack.enter_async_context(aiohttp.ClientSession())
            station = Station(session, url or str(server.make_url("/")))
            courier = Courier(
                self.work,
                journal,
                station,
                Pace(1e12, time.monotonic()),
                Rate(),
                time.monotonic,
                is_journalled=journalled,
            )
            async with asyncio.timeout(DEADLINE):
                if keeps:
                    await courier.keep()
                await courier.run(until)
        self.state = journal.state
        self.courier = courier
        journal.close()
        return self.work


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_what_the_order_names_is_brought_compared_and_pledged_the_most_valuable_first(desk):
    paths = [*desk.title("first", 1), *desk.title("second", 2)]
    work = desk.run()
    assert work.done == {1, 2}
    assert set(desk.keeper.pledged) == set(paths)
    assert set(desk.keeper.pledged.values()) == {UNTIL}
    assert sorted(desk.keeper.paths_of("verify")) == sorted(paths)
    assert desk.keeper.paths_of("fill")[0] in paths[:2]
    assert desk.state.done == {1: UNTIL, 2: UNTIL}
    assert desk.state.ledger == {1: "/titles/first/video.0001", 2: "/titles/second/video.0002"}
    assert work.source_bytes == {"origin": 600}


def test_nothing_is_pledged_that_was_not_compared(desk):
    (path,) = desk.title("film", 1, [100])
    desk.run()
    what = [asked for asked, _ in desk.keeper.asked]
    assert what.index("verify") < what.index("pledges")
    assert path in desk.keeper.pledged


def test_a_large_object_comes_in_spans(desk):
    (path,) = desk.title("film", 1, [2 * SPAN_BYTES + 5])
    assert desk.run().done == {1}
    spans = [(order["start"], order["stop"]) for what, order in desk.keeper.asked if what == "fill"]
    assert spans == [(0, SPAN_BYTES), (SPAN_BYTES, 2 * SPAN_BYTES), (2 * SPAN_BYTES, 2 * SPAN_BYTES + 5)]
    assert path in desk.keeper.pledged


def test_what_the_journal_knows_is_not_asked_for_again(desk):
    desk.title("first", 1)
    desk.run()
    asked = len(desk.keeper.asked)
    desk.title("second", 2)
    work = desk.run()
    assert work.done == {1, 2}
    assert all("second" in path for path in desk.keeper.paths_of("fill")[2:])
    assert len(desk.keeper.asked) > asked
    assert max(desk.keeper.fetched.values()) == 1


# --- Peers ---


def test_a_peer_is_waited_for_while_others_go_on(desk):
    late = desk.title("late", 1, [100], sources=["p"])
    desk.title("other", 2, [100])

    def until():
        # As soon as the other one is here, the peer has the first as well.
        if desk.work is not None and 2 in desk.work.done:
            desk.keeper.at_peers[late[0]] = "http://p"
        return False

    work = desk.run(until=until, peer_wait=1000.0)
    assert work.done == {1, 2}
    assert work.source_bytes == {"origin": 100, "peer": 100}


def test_a_peer_that_never_has_it_is_waited_for_no_longer_than_is_said(desk):
    desk.title("film", 1, [100], sources=["p"])
    work = desk.run(peer_wait=0.2)
    assert work.source_bytes == {"origin": 100}
    assert [order["only_peers"] for what, order in desk.keeper.asked if what == "fill"][-1] is False


# --- What is not as the catalogue says ---


def test_a_title_that_is_in_no_catalogue_any_more_fails_and_others_go_on(desk):
    desk.title("gone", 1)
    desk.title("film", 2)
    del desk.keeper.documents["/catalogue/titles/gone.json"]
    work = desk.run()
    assert (work.done, work.failed) == ({2}, {1: Failure.ABSENT})
    assert desk.state.failed == {1: Failure.ABSENT}
    assert not any("gone" in path for path in desk.keeper.pledged)


def test_a_rendition_that_the_catalogue_does_not_have_any_more_fails(desk):
    desk.title("film", 1)
    desk.keeper.publish(document("film", rendition("film", 7, {"seg-0": 100})))
    assert desk.run().failed == {1: Failure.ABSENT}


def test_a_document_that_is_none_fails(desk):
    desk.title("film", 1)
    desk.keeper.documents["/catalogue/titles/film.json"] = b"nonsense"
    assert desk.run().failed == {1: Failure.ABSENT}


def test_an_object_that_is_at_no_source_fails_its_rendition_and_nothing_of_it_is_pledged(desk):
    paths = desk.title("film", 1, [100, 100, 100])
    del desk.keeper.sizes[paths[2]]
    assert desk.run().failed == {1: Failure.ABSENT}
    assert desk.keeper.pledged == {}


def test_an_object_that_changed_since_the_catalogue_fails_after_a_second_look(desk):
    (path,) = desk.title("film", 1, [100])
    desk.keeper.sizes[path] = 101
    assert desk.run().failed == {1: Failure.CHANGED}
    assert len(desk.keeper.paths_of("fill")) == 2


def test_an_object_that_became_another_under_way_is_brought_anew(desk):
    (path,) = desk.title("film", 1, [100])
    desk.keeper.troubles[path].append("changed")
    assert desk.run().done == {1}


def test_what_is_wrong_is_brought_once_more_from_the_ladder_alone(desk):
    (path,) = desk.title("film", 1, [100], sources=["p"])
    desk.keeper.at_peers[path] = "http://p"
    desk.keeper.wrong[path] = 1
    work = desk.run()
    assert work.done == {1}
    assert [order["peers"] for what, order in desk.keeper.asked if what == "fill"] == [["http://p"], []]


def test_what_is_wrong_twice_fails_and_is_not_pledged(desk):
    (path,) = desk.title("film", 1, [100])
    desk.keeper.wrong[path] = 2
    assert desk.run().failed == {1: Failure.CHECKSUM}
    assert desk.keeper.pledged == {}
    assert not desk.keeper.held[path]


# --- Room ---


def test_what_the_order_releases_goes_as_far_as_it_was_replaced(desk):
    old = [desk.hold(f"/titles/old/{name}", 100) for name in "xyz"]
    desk.title("film", 1, [150])
    desk.title("gone", 2, [100])
    desk.keeper.documents.pop("/catalogue/titles/gone.json")
    desk.run(release=tuple(old))
    # 150 came: two of a hundred went, the second for the rest; what failed replaces nothing.
    assert sorted(path for path in desk.keeper.pledged if "old" in path) == ["/titles/old/z/seg-0"]
    assert desk.state.released == old[:2]


def test_nothing_goes_before_what_replaces_it_is_here(desk):
    old = desk.hold("/titles/old/x", 100)
    desk.title("film", 1, [100])
    desk.run(release=(old,))
    pledges = [order for what, order in desk.keeper.asked if what == "pledges"]
    assert [bool(order["until"]) for order in pledges] == [True, False]
    assert [what for what, _ in desk.keeper.asked].index("verify") < len(desk.keeper.asked) - 2


def test_where_all_that_may_be_pledged_is_the_least_valuable_makes_room_for_what_is_here(desk):
    old = [desk.hold(f"/titles/old/{name}", 100) for name in "xy"]
    desk.keeper.room = 200
    (path,) = desk.title("film", 1, [100])
    work = desk.run(release=tuple(old))
    assert work.done == {1}
    # Then all is here, and the rest of what the order gives up goes as well.
    assert set(desk.keeper.pledged) == {path}
    assert desk.state.released == old


def test_a_disk_smaller_than_the_order_gets_the_most_valuable_of_it(desk):
    desk.keeper.room = 250
    first = desk.title("first", 1, [100, 100])
    desk.title("second", 2, [100, 100])
    work = desk.run()
    assert (work.done, work.failed) == ({1}, {2: Failure.NO_ROOM})
    # What could not be pledged whole is not pledged in part.
    assert set(desk.keeper.pledged) == set(first)


def test_a_disk_that_takes_nothing_fails_what_does_not_fit(desk):
    (path,) = desk.title("film", 1, [100])
    desk.keeper.troubles[path].extend(["no_room", "no_room"])
    assert desk.run().failed == {1: Failure.NO_ROOM}


def test_when_the_nights_bytes_are_used_up_the_rest_is_left(desk):
    for number in range(1, 5):
        desk.title(f"film-{number}", number, [100])
    work = desk.run(budget_bytes=150)
    assert 2 <= len(work.done) <= 3
    assert set(work.failed.values()) == {Failure.BUDGET}


# --- Sources and appliance away ---


def test_a_source_that_is_away_is_asked_again_until_it_is_back(desk):
    (path,) = desk.title("film", 1, [100])
    desk.keeper.troubles[path].extend(["unavailable"] * 4)
    desk.keeper.troubles["/catalogue/titles/film.json"].extend(["unavailable", "busy"])
    assert desk.run().done == {1}


def test_while_the_appliance_is_away_nothing_fails(desk):
    desk.title("film", 1, [100])
    looks = iter(range(3))
    work = desk.run(url="http://127.0.0.1:1", until=lambda: next(looks, None) is None)
    assert (work.done, work.failed) == (set(), {})
    assert "127.0.0.1:1" in desk.courier.trouble
    assert desk.run().done == {1}


def test_what_does_not_stay_is_brought_anew(desk):
    (path,) = desk.title("film", 1, [100])
    seen = []

    def until():
        if not seen and desk.keeper.paths_of("verify"):
            seen.append(True)
        return False

    desk.keeper.held[path] = _Forgetful()
    work = desk.run(until=until)
    assert work.done == {1}
    assert desk.keeper.fetched[path, 0] >= 2


class _Forgetful(set):
    """What was just brought is not there at the first look."""

    looks = 0

    def __bool__(self):
        self.looks += 1
        if self.looks == 1:
            self.clear()
            return False
        return len(self) > 0


def test_a_window_that_closes_breaks_off_what_is_under_way_and_the_next_one_goes_on(desk):
    desk.title("first", 1, [100])
    desk.title("second", 2, [100], sources=["p"])
    work = desk.run(until=lambda: desk.work is not None and 1 in desk.work.done, peer_wait=1000.0)
    assert (work.done, work.failed, work.is_over) == ({1}, {}, False)
    assert desk.run().done == {1, 2}
    assert max(desk.keeper.fetched.values()) == 1


# --- What is kept ---


def test_what_the_order_keeps_stays_pledged_and_what_was_lost_is_told(desk):
    journal = Journal(desk.folder / "journal")
    journal.note(Begun(Name("2026-11-25", 1), 0.0))
    for number, folder in ((5, desk.hold("/titles/old/x", 100)), (6, "/titles/old/lost")):
        journal.note(Pledged(number, folder, 1.0))
    journal.note(Begun(Name("2026-11-25", 1), 0.0))
    journal.close()
    desk.run(keeps=True, keep=BitMap([5, 6, 7]).serialize())
    assert desk.keeper.pledged == {"/titles/old/x/seg-0": UNTIL}
    assert desk.state.ledger == {5: "/titles/old/x"}
    assert desk.state.has_kept
    asked = len(desk.keeper.asked)
    desk.run(keeps=True, keep=BitMap([5, 6, 7]).serialize())
    assert len(desk.keeper.asked) == asked


def test_pledges_that_can_not_be_renewed_are_renewed_later(desk):
    journal = Journal(desk.folder / "journal")
    journal.note(Begun(Name("2026-11-25", 1), 0.0))
    journal.note(Pledged(5, desk.hold("/titles/old/x", 100), 1.0))
    journal.note(Begun(Name("2026-11-25", 1), 0.0))
    journal.close()
    with pytest.raises(StationError):
        desk.run(url="http://127.0.0.1:1", keeps=True, keep=BitMap([5]).serialize())
    assert not Journal(desk.folder / "journal").state.has_kept


def test_an_urgent_order_does_not_touch_what_the_journal_says_of_the_current_one(desk):
    desk.title("film", 1, [100])
    work = desk.run(journalled=False)
    assert work.done == {1}
    assert desk.state.done == {}
