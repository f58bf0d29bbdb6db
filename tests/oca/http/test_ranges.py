"""Ranges against a table of rules, and against a model that follows RFC 9110 section 14.1.2 word by word."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oca.http.ranges import Verdict, first_wanted, requested_spans, single_span

WHOLE = Verdict.WHOLE
UNSATISFIABLE = Verdict.UNSATISFIABLE
MANY = 1000


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        (b"bytes=0-0", [(0, 1)]),
        (b"bytes=0-99", [(0, 100)]),
        (b"bytes=10-19", [(10, 20)]),
        (b"bytes=99-99", [(99, 100)]),
        (b"bytes=10-", [(10, 100)]),
        (b"bytes=10-1000000", [(10, 100)]),
        (b"bytes=010-0019", [(10, 20)]),
        (b"BYTES=1-2", [(1, 3)]),
        (b"Bytes=1-2,4-5", [(1, 3), (4, 6)]),
        # Suffixes: the last n bytes, or all there are.
        (b"bytes=-1", [(99, 100)]),
        (b"bytes=-100", [(0, 100)]),
        (b"bytes=-1000", [(0, 100)]),
        (b"bytes=-0", UNSATISFIABLE),
        # Nothing of it exists.
        (b"bytes=100-", UNSATISFIABLE),
        (b"bytes=100-200", UNSATISFIABLE),
        (b"bytes=100-200,300-", UNSATISFIABLE),
        # Of several, those that exist are sent.
        (b"bytes=0-0,100-200", [(0, 1)]),
        (b"bytes=-0,5-6", [(5, 7)]),
        # Lists: empty elements and spaces do not count.
        (b"bytes=0-0,2-2", [(0, 1), (2, 3)]),
        (b"bytes=,0-0,,\t2-2 ,", [(0, 1), (2, 3)]),
        (b"bytes=0-0 , 2-2", [(0, 1), (2, 3)]),
        (b"bytes=,", WHOLE),
        (b"bytes=", WHOLE),
        # The order asked is the order sent.
        (b"bytes=50-59,0-9", [(50, 60), (0, 10)]),
        (b"bytes=-1,0-0", [(99, 100), (0, 1)]),
        # What overlaps or touches is joined, and stands where its first asker stood.
        (b"bytes=0-9,5-14", [(0, 15)]),
        (b"bytes=0-9,10-19", [(0, 20)]),
        (b"bytes=0-,0-,0-,0-", [(0, 100)]),
        (b"bytes=50-59,0-9,5-14", [(50, 60), (0, 15)]),
        (b"bytes=5-14,50-59,0-9", [(0, 15), (50, 60)]),
        (b"bytes=0-49,10-19", [(0, 50)]),
        (b"bytes=0-1,8-9,2-7", [(0, 10)]),
        # Malformed anywhere: the header is ignored.
        (b"bytes=5-4", WHOLE),
        (b"bytes=0-0,5-4", WHOLE),
        (b"bytes=0-0,x", WHOLE),
        (b"bytes=100-200,x", WHOLE),
        (b"bytes=-", WHOLE),
        (b"bytes=0", WHOLE),
        (b"bytes=0-0-0", WHOLE),
        (b"bytes=--1", WHOLE),
        (b"bytes=+1-2", WHOLE),
        (b"bytes=1 -2", WHOLE),
        (b"bytes=1- 2", WHOLE),
        (b"bytes=0x0-0x1", WHOLE),
        (b"bytes=1_0-20", WHOLE),
        (b"bytes=1.0-2.0", WHOLE),
        ("bytes=\u0661-\u0662".encode(), WHOLE),
        (b"bytes=0-1;2-3", WHOLE),
        (b"bytes=1-2\n", WHOLE),
        (b"bytes:0-1", WHOLE),
        (b"bytes 0-1", WHOLE),
        (b"bytes =0-1", WHOLE),
        (b"bytes==0-1", WHOLE),
        (b"bytes=bytes=0-1", WHOLE),
        (b"0-1", WHOLE),
        (b"", WHOLE),
        # Units that are not known here.
        (b"seconds=0-1", WHOLE),
        (b"none", WHOLE),
        (b"bits=0-1", WHOLE),
        # Numbers of any length.
        (b"bytes=0-99999999999999999999999999", [(0, 100)]),
        (b"bytes=-99999999999999999999999999", [(0, 100)]),
        (b"bytes=99999999999999999999999999-", UNSATISFIABLE),
        (b"bytes=99999999999999999999999998-99999999999999999999999999", UNSATISFIABLE),
        (b"bytes=99999999999999999999999999-99999999999999999999999998", WHOLE),
        (b"bytes=99999999999999999999999999-5", WHOLE),
        (b"bytes=" + b"9" * 5000 + b"-", UNSATISFIABLE),
        (b"bytes=" + b"0" * 5000 + b"7-" + b"0" * 5000 + b"8", [(7, 9)]),
    ],
)
def test_a_range_header_on_a_hundred_bytes(header, spans):
    assert requested_spans(header, 100, MANY) == spans


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        (b"bytes=0-", UNSATISFIABLE),
        (b"bytes=0-0", UNSATISFIABLE),
        (b"bytes=-0", UNSATISFIABLE),
        # A suffix of an empty object is satisfiable, but Content-Range can't name zero bytes.
        (b"bytes=-1", WHOLE),
        (b"bytes=0-0,-1", WHOLE),
        (b"bytes=2-1", WHOLE),
    ],
)
def test_a_range_header_on_an_empty_object(header, spans):
    assert requested_spans(header, 0, MANY) == spans


def test_as_many_ranges_as_allowed_are_served_and_one_more_is_not():
    three = b"bytes=0-0,2-2,4-4"
    assert requested_spans(three, 100, 3) == [(0, 1), (2, 3), (4, 5)]
    assert requested_spans(three, 100, 2) is UNSATISFIABLE


def test_ranges_that_would_be_joined_or_dropped_still_count():
    assert requested_spans(b"bytes=0-,0-,0-", 100, 2) is UNSATISFIABLE
    assert requested_spans(b"bytes=0-0,100-,200-", 100, 2) is UNSATISFIABLE


def test_a_malformed_header_is_ignored_however_many_ranges_it_holds():
    assert requested_spans(b"bytes=0-0,2-2,4-4,x", 100, 2) is WHOLE


@pytest.mark.parametrize(
    ("header", "first"),
    [
        (b"bytes=0-", 0),
        (b"bytes=500-", 500),
        (b"BYTES=,\t500-600,0-1", 500),
        (b"bytes=-500", None),
        (b"bytes=-500,0-1", None),
        (b"bytes=" + b"9" * 30 + b"-", None),
        # The header does not apply: the whole object, from its start.
        (b"", 0),
        (b"bytes=", 0),
        (b"bytes=x", 0),
        (b"lines=500-", 0),
    ],
)
def test_the_first_wanted_byte_is_known_before_the_size_is(header, first):
    assert first_wanted(header) == first


digits = st.integers(0, 130).map(str) | st.text("0123456789", max_size=25)
elements = st.builds("{}-{}".format, digits, digits)
hostile = st.lists(
    st.sampled_from([*"0123456789-,=; \t", "bytes", "bytes=", "-1", "0-", "9" * 25]) | elements | st.text(max_size=3),
    max_size=12,
).map(lambda parts: "".join(parts).encode())
headers = hostile | hostile.map(b"bytes=".__add__) | st.binary(max_size=40)


@given(headers, st.integers(0, 120) | st.integers(0, 2**50), st.integers(1, 8))
def test_spans_are_not_empty_lie_in_bounds_and_never_hold_a_byte_twice(header, size, max_ranges):
    spans = requested_spans(header, size, max_ranges)
    if isinstance(spans, Verdict):
        return
    assert 1 <= len(spans) <= max_ranges
    assert all(0 <= start < stop <= size for start, stop in spans)
    ordered = sorted(spans)
    assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(ordered))
    assert sum(stop - start for start, stop in spans) <= size


@given(st.integers(0, 10**20), st.integers(0, 10**20) | st.none(), st.integers(0, 2**50))
def test_a_part_that_is_sent_begins_at_the_first_wanted_byte(first, last, size):
    header = f"bytes={first}-{'' if last is None else last}".encode()
    spans = requested_spans(header, size, 1)
    if isinstance(spans, list):
        assert spans[0][0] == first_wanted(header)


class Model:
    """RFC 9110 sections 14.1.1, 14.1.2 and 14.2 word by word, over sets of byte positions. Slow and obvious."""

    ELEMENT = re.compile(r"(?:(?P<first>[0-9]+)-(?P<last>[0-9]*)|-(?P<suffix>[0-9]+))\Z")

    @classmethod
    def wanted(cls, header: str, size: int) -> list[set[int]] | None:
        """The positions each range-spec selects, or None if the header is to be ignored."""
        unit, equals, range_set = header.partition("=")
        if unit.lower() != "bytes" or not equals:
            return None
        specs = [element.strip(" \t") for element in range_set.split(",")]
        specs = [element for element in specs if element]
        found = [cls.ELEMENT.match(element) for element in specs]
        if not specs or None in found:
            return None
        wanted = []
        for spec in found:
            if spec["suffix"]:
                wanted.append(set(range(max(size - int(spec["suffix"]), 0), size)))
            elif spec["last"] and int(spec["last"]) < int(spec["first"]):
                return None
            else:
                last = int(spec["last"]) if spec["last"] else size
                wanted.append(set(range(int(spec["first"]), min(last + 1, size))))
        return wanted


def positions(spans):
    return [set(range(start, stop)) for start, stop in spans]


@given(headers, st.integers(1, 120))
@example(b"bytes=5-14,50-59,0-9", 100)
@example(b"bytes=20000000000000000000-10000000000000000000", 100)
def test_any_header_selects_the_bytes_the_model_selects(header, size):
    spans = requested_spans(header, size, MANY)
    wanted = Model.wanted(header.decode("latin-1"), size)
    if wanted is None:
        assert spans is WHOLE
    elif not any(wanted):
        assert spans is UNSATISFIABLE
    else:
        assert set().union(*positions(spans)) == set().union(*wanted)


@given(st.integers(0, 150), st.integers(0, 150) | st.none(), st.integers(0, 120))
def test_a_well_formed_single_range_is_the_models_slice(first, last, size):
    header = f"bytes={first}-{'' if last is None else last}"
    spans = requested_spans(header.encode(), size, 1)
    wanted = Model.wanted(header, size)
    if wanted is None:
        assert spans is WHOLE
    else:
        assert spans == UNSATISFIABLE if wanted == [set()] else positions(spans) == wanted


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), min_size=2, max_size=8), st.integers(1, 60))
def test_well_formed_ranges_that_do_not_meet_keep_the_models_order(asked, size):
    header = "bytes=" + ", ".join(f"{first}-{first + extra}" for first, extra in asked)
    wanted = [selected for selected in Model.wanted(header, size) if selected]
    spans = requested_spans(header.encode(), size, MANY)
    if not wanted:
        assert spans is UNSATISFIABLE
        return
    # Joining is allowed (section 15.3.7.2): every part begins where the order of asking first touches it.
    firsts = [min(i for i, selected in enumerate(wanted) if selected & part) for part in positions(spans)]
    assert firsts == sorted(firsts)
    if sum(map(len, wanted)) == len(set().union(*wanted)) and not any(
        max(one) + 1 in other for one in wanted for other in wanted
    ):
        assert positions(spans) == wanted


@given(
    st.one_of(
        st.builds(lambda first, last: b"bytes=%d-%d" % (first, last), st.integers(0, 2000), st.integers(0, 2000)),
        st.builds(lambda first: b"bytes=%d-" % first, st.integers(0, 2000)),
        st.binary(max_size=20),
    ),
    st.integers(0, 1500),
)
def test_the_short_way_for_the_plainest_header_says_what_the_long_one_says(header, size):
    span = single_span(header, size)
    if span is not None:
        assert requested_spans(header, size, 32) == [span]
    elif header.removeprefix(b"bytes=").replace(b"-", b"", 1).isdigit() and header.startswith(b"bytes="):
        assert isinstance(requested_spans(header, size, 32), Verdict) or header[6:7] == b"-"
