"""Holdings: counted by events they are what a count of everything says, and nothing is claimed that is not there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from oca.cache.keys import group_of
from oca.cache.records import ExtentRecord
from oca.report.holdings import Books, Ledger, Part, RenditionSheet, Sheet, sheet_of, title_at
from tests.doubles.published import document, rendition

MIB = 1024 * 1024
PAGE = 4096


def extent(group, pages, device=0, below=None):
    return ExtentRecord(device, 0, 0, b"", pages * PAGE, group, below)


def sheet(title, *renditions):
    """Renditions as (number, {group: pages})."""
    return Sheet(
        title,
        0.0,
        tuple(
            RenditionSheet(
                number, tuple(Part(group, f"/titles/{title}/{group}/", pages) for group, pages in parts.items())
            )
            for number, parts in renditions
        ),
    )


def books(*sheets, share=1.0, most=100, devices=(0, 1, 2)):
    """Books in which these sheets stand, counted: nothing lies here yet."""
    found = Books(share, most)
    found.read_from(frozenset(devices))
    for one in sheets:
        found.enter(one)
        for part in one.parts():
            found.counted(part.group, {})
        found.is_counted(one.title)
    return found


def held(found):
    while not found.settle(1):
        pass
    return set(found.held)


# --- Sheets -----------------------------------------------------------------------------------------------------------


def test_segments_are_counted_by_their_folder_and_long_objects_by_themselves():
    video = rendition("film", 3, {"media.m3u8": 1, "a.m4s": PAGE, "b.m4s": PAGE + 1, "long.mp4": 65 * MIB})
    (one,) = sheet_of(document("film", video), 5.0).renditions
    folder = video.objects[0].path.rpartition("/")[0]
    assert one.number == 3
    assert {(part.group, part.prefix, part.pages) for part in one.parts} == {
        (group_of(f"{folder}/a.m4s", 1), f"{folder}/", 1 + 1 + 2),
        (group_of(f"{folder}/long.mp4", 65 * MIB), f"{folder}/long.mp4", 65 * MIB // PAGE),
    }


def test_what_can_not_be_told_apart_is_left_out():
    alike = [rendition("film", number, {f"{number}.m4s": 1000}, folder="video") for number in (1, 2)]
    apart = rendition("film", 3, {"a.m4s": 1000})
    assert [one.number for one in sheet_of(document("film", *alike, apart), 0.0).renditions] == [3]


def test_what_lies_in_the_folder_of_another_title_is_left_out():
    strange = rendition("other", 1, {"a.m4s": 1000})
    assert sheet_of(document("film", strange), 0.0).renditions == ()


def test_numbers_that_no_bitmap_holds_are_left_out():
    highest, above = (rendition("film", number, {"a.m4s": 1}) for number in (2**32 - 1, 2**32))
    assert [one.number for one in sheet_of(document("film", highest, above), 0.0).renditions] == [2**32 - 1]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/titles/film/video.1/a.m4s", ("film", True)),
        ("/titles/film/video.1/deep/a.m4s", ("film", True)),
        ("/titles/film/master.m3u8", ("film", False)),
        ("/titles/film", None),
        ("/titles/film/", None),
        ("/titles//a/b", None),
        ("/titles/Film/a/b", None),
        ("/titles/../a/b", None),
        ("/catalogue/titles/film.json", None),
        ("/", None),
    ],
)
def test_a_path_tells_its_title(path, found):
    assert title_at(path) == found


# --- What is held -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "pages", "is_held"), [(1.0, 99, False), (1.0, 100, True), (0.98, 97, False), (0.98, 98, True)]
)
def test_a_rendition_is_held_when_enough_of_it_is(share, pages, is_held):
    found = books(sheet("film", (7, {1: 100})), share=share)
    found.hear([(None, extent(1, pages))])
    assert held(found) == ({7} if is_held else set())


def test_more_of_one_part_does_not_stand_for_another():
    found = books(sheet("film", (7, {1: 50, 2: 50})), share=0.5)
    found.hear([(None, extent(1, 49)), (None, extent(1, 49))])
    assert held(found) == {7}
    found = books(sheet("film", (7, {1: 50, 2: 50})), share=0.6)
    found.hear([(None, extent(1, 49)), (None, extent(1, 49))])
    assert held(found) == set()


def test_nothing_is_held_of_a_title_that_is_not_counted():
    found = books()
    found.enter(sheet("film", (7, {1: 1})))
    found.counted(1, {(0, -1): 1})
    assert held(found) == set()
    found.is_counted("film")
    assert held(found) == {7}


def test_a_rendition_without_bytes_is_not_held():
    assert held(books(sheet("film", (7, {1: 0}), (8, {})))) == set()


@pytest.mark.parametrize(
    ("device", "below", "readable", "is_held"),
    [
        (0, None, {0}, True),
        (0, None, {1}, False),
        (0, 1, {0}, True),
        (0, 1, {1}, True),
        (0, 1, {2}, False),
        (0, 1, set(), False),
    ],
)
def test_what_lies_on_devices_that_can_not_be_read_is_not_held(device, below, readable, is_held):
    found = books(sheet("film", (7, {1: 4})))
    found.hear([(None, extent(1, 4, device, below))])
    assert held(found) == {7}
    found.read_from(frozenset(readable))
    assert held(found) == ({7} if is_held else set())
    found.read_from(frozenset({0, 1, 2}))
    assert held(found) == {7}


def test_of_renditions_that_share_a_group_none_is_held_until_one_is_gone_and_the_other_was_counted_anew():
    one, other = sheet("one", (1, {5: 10})), sheet("other", (2, {5: 10}))
    found = books(one)
    found.hear([(None, extent(5, 10))])
    assert held(found) == {1}
    found.enter(other)
    found.counted(5, {(0, -1): 20})
    found.is_counted("other")
    assert held(found) == set()
    found.leave("other")
    assert held(found) == set()
    found.counted(5, {(0, -1): 10})
    assert held(found) == {1}


def test_a_title_that_was_published_anew_is_counted_anew():
    found = books(sheet("film", (1, {5: 10}), (2, {6: 10})))
    found.hear([(None, extent(5, 10)), (None, extent(6, 10))])
    assert held(found) == {1, 2}
    found.enter(sheet("film", (2, {6: 10}), (3, {7: 10})))
    assert held(found) == set()
    for group, pages in ((6, {(0, -1): 10}), (7, {})):
        found.counted(group, pages)
    found.is_counted("film")
    assert held(found) == {2}


def test_a_sheet_that_says_the_same_takes_nothing_away():
    found = books(sheet("film", (1, {5: 10})))
    found.hear([(None, extent(5, 10))])
    held(found)
    found.enter(sheet("film", (1, {5: 10})))
    assert held(found) == {1}


def test_for_a_new_title_an_empty_one_goes_and_else_the_one_for_which_nothing_came_longest():
    found = books(*(sheet(name, (number, {number: 1})) for number, name in enumerate("abc", 1)), most=3)
    found.hear([(None, extent(1, 1)), (None, extent(3, 1))])
    assert held(found) == {1, 3}
    assert found.is_empty("b")
    assert found.enter(sheet("d", (4, {4: 1}))) == ["b"]
    found.touch("a")
    assert found.enter(sheet("e", (5, {5: 1}))) == ["c"]
    assert held(found) == {1}
    assert list(found.sheets) == ["d", "a", "e"]


def test_rows_of_groups_that_left_are_given_to_others_clean():
    ledger = Ledger()
    ledger.open(1, {(0, -1): 5, (1, -1): 6})
    ledger.close(1)
    ledger.open(2, {(1, 0): 1})
    assert ledger.pages(1, {0, 1}) == 0
    assert ledger.pages(2, {0, 1}) == 1
    assert 1 not in ledger


# --- Laws -------------------------------------------------------------------------------------------------------------

GROUPS = {"a": {1: 3, 2: 2}, "b": {3: 4}, "c": {4: 1, 5: 1}}
homes = st.tuples(st.integers(0, 2), st.none() | st.integers(0, 2))


class CountingByEvents(RuleBasedStateMachine):
    """Extents come, grow, move and go, titles are looked after and not, devices fail: at each moment, what is held by
    the books is what a look at all extents says.
    """

    def __init__(self) -> None:
        super().__init__()
        self.books = books(share=0.75, most=2)
        self.extents: dict[int, ExtentRecord] = {}
        self.readable = frozenset({0, 1, 2})

    def lying(self, group):
        found = {}
        for one in self.extents.values():
            if one.group == group:
                home = (one.device, -1 if one.below is None else one.below)
                found[home] = found.get(home, 0) + one.used_bytes // PAGE
        return found

    @rule(title=st.sampled_from("abc"))
    def look_after(self, title):
        self.books.enter(sheet(title, (ord(title), GROUPS[title])))
        for group in GROUPS[title]:
            self.books.counted(group, self.lying(group))
        self.books.is_counted(title)

    @rule(title=st.sampled_from("abc"))
    def leave(self, title):
        self.books.leave(title)

    @rule(slot=st.integers(0, 5), group=st.integers(1, 6), pages=st.integers(1, 3), home=homes)
    def put(self, slot, group, pages, home):
        before = self.extents.get(slot)
        after = extent(group, pages, *home)
        self.extents[slot] = after
        self.books.hear([(before, after)])

    @rule(slots=st.sets(st.integers(0, 5)))
    def drop(self, slots):
        self.books.hear([(self.extents.pop(slot), None) for slot in slots if slot in self.extents])

    @rule(readable=st.frozensets(st.integers(0, 2)))
    def fail(self, readable):
        self.readable = readable
        self.books.read_from(readable)

    @invariant()
    def what_is_held_is_what_a_count_says(self):
        expected = set()
        for title in self.books.sheets:
            here = 0
            for group, pages in GROUPS[title].items():
                lying = self.lying(group)
                well = sum(n for (device, below), n in lying.items() if {device, below} & self.readable)
                here += min(pages, well)
            if here >= 0.75 * sum(GROUPS[title].values()):
                expected.add(ord(title))
        assert held(self.books) == expected
        assert len(self.books.sheets) <= 2


TestCountingByEvents = CountingByEvents.TestCase


@given(st.lists(st.tuples(st.integers(1, 3), homes, st.integers(-5, 5))))
def test_a_count_never_falls_below_nothing(additions):
    ledger = Ledger()
    for group in (1, 2, 3):
        ledger.open(group, {})
    for group, (device, below), count in additions:
        ledger.add(group, (device, -1 if below is None else below), count)
        assert ledger.pages(group, {0, 1, 2}) >= 0
