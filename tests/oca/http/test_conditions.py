"""Every precondition alone by table, all of them together by the full truth table of RFC 9110 section 13.2.2."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.http.conditions import Outcome, decide
from oca.http.dates import format_date
from oca.http.request import Fields

WHOLE, PARTIAL = Outcome.WHOLE, Outcome.PARTIAL
NOT_MODIFIED, FAILED, UNSATISFIABLE = Outcome.NOT_MODIFIED, Outcome.PRECONDITION_FAILED, Outcome.UNSATISFIABLE

ETAG = b'"v1"'
MODIFIED = 1_700_000_000
BEFORE, SAME, AFTER = (format_date(MODIFIED + shift).encode() for shift in (-1, 0, 1))
NOW = MODIFIED + 1_000_000


def decided(*, is_head=False, etag=ETAG, last_modified=MODIFIED, size=100, max_ranges=8, **fields):
    return decide(
        Fields(**fields),
        is_head=is_head,
        etag=etag,
        last_modified=last_modified,
        size=size,
        max_ranges=max_ranges,
        now=NOW,
    )


def outcome(**kwargs):
    return decided(**kwargs)[0]


def test_a_plain_get_gets_the_whole():
    assert decided() == (WHOLE, [])


def test_a_range_gets_its_part():
    assert decided(range=b"bytes=10-19") == (PARTIAL, [(10, 20)])


def test_several_ranges_get_several_parts():
    assert decided(range=b"bytes=0-0,-1") == (PARTIAL, [(0, 1), (99, 100)])


def test_a_range_that_does_not_exist_is_unsatisfiable():
    assert decided(range=b"bytes=100-") == (UNSATISFIABLE, [])


def test_a_range_that_is_none_gets_the_whole():
    assert decided(range=b"seconds=1-2") == (WHOLE, [])


def test_head_ignores_range_even_one_that_does_not_exist():
    assert decided(is_head=True, range=b"bytes=10-19") == (WHOLE, [])
    assert decided(is_head=True, range=b"bytes=100-") == (WHOLE, [])
    assert decided(is_head=True, range=b"bytes=0-0", if_range=b'"v2"') == (WHOLE, [])


TAG_LISTS = [
    # header, strong match (If-Match), weak match (If-None-Match)
    (b"*", True, True),
    (b'"v1"', True, True),
    (b'W/"v1"', False, True),
    (b'"v2"', False, False),
    (b'W/"v2"', False, False),
    (b'"V1"', False, False),
    (b'"v1', False, False),
    (b'v1"', False, False),
    (b"v1", False, False),
    (b"", False, False),
    (b'""', False, False),
    (b'"v2", "v1"', True, True),
    (b'"v2","v1","v3"', True, True),
    (b'"v2" ,\tW/"v1"', False, True),
    (b', ,"v1",', True, True),
    (b'"a,b", "v1"', True, True),
    # Malformed lists name nothing: neither a false 304 nor a match to overwrite by.
    (b'w/"v1"', False, False),
    (b'"v1" "v2"', False, False),
    (b'"v2""v1"', False, False),
    (b'x"v1"', False, False),
    (b'"v1"x', False, False),
    (b'"v1", *', False, False),
    (b'*, "v1"', False, False),
    (b'W/ "v1"', False, False),
    (b'"x,"v1","y"', False, False),
    (b'"a b", "v1"', False, False),
    (b"'v1'", False, False),
    (b'"v1"\n', False, False),
]


@pytest.mark.parametrize(("header", "strong", "_weak"), TAG_LISTS)
def test_if_match_compares_strongly(header, strong, _weak):
    assert outcome(if_match=header) is (WHOLE if strong else FAILED)


@pytest.mark.parametrize(("header", "_strong", "weak"), TAG_LISTS)
def test_if_none_match_compares_weakly(header, _strong, weak):
    assert outcome(if_none_match=header) is (NOT_MODIFIED if weak else WHOLE)


def test_without_an_entity_tag_only_the_star_matches():
    for header in (b'""', b'"v1"', b"", b'W/""'):
        assert outcome(etag=b"", if_match=header) is FAILED
        assert outcome(etag=b"", if_none_match=header) is WHOLE
    assert outcome(etag=b"", if_match=b"*") is WHOLE
    assert outcome(etag=b"", if_none_match=b"*") is NOT_MODIFIED


@pytest.mark.parametrize(
    ("header", "unmodified", "modified"),
    [
        (BEFORE, FAILED, WHOLE),
        (SAME, WHOLE, NOT_MODIFIED),
        (AFTER, WHOLE, NOT_MODIFIED),
        # No date, or more than one: the header is ignored.
        (b"", WHOLE, WHOLE),
        (b"yesterday", WHOLE, WHOLE),
        (b"\xff", WHOLE, WHOLE),
        (SAME + b", " + SAME, WHOLE, WHOLE),
        (b"Sun, 06 Nov 0000 08:49:37 GMT", WHOLE, WHOLE),
        (b"Thu, 31 Feb 2022 08:49:37 GMT", WHOLE, WHOLE),
    ],
)
def test_dates_are_compared_with_last_modified(header, unmodified, modified):
    assert outcome(if_unmodified_since=header) is unmodified
    assert outcome(if_modified_since=header) is modified


def test_without_last_modified_dates_are_ignored():
    for header in (BEFORE, SAME, AFTER):
        assert outcome(last_modified=None, if_unmodified_since=header) is WHOLE
        assert outcome(last_modified=None, if_modified_since=header) is WHOLE


@pytest.mark.parametrize(
    ("header", "holds"),
    [
        (ETAG, True),
        (b'W/"v1"', False),
        (b'"v2"', False),
        (b'"v1", "v2"', False),
        (b'"v1" ', False),
        (b"v1", False),
        (b"*", False),
        (b"", False),
        (SAME, True),
        (BEFORE, False),
        # Not "not modified since": the very date (section 13.1.5).
        (AFTER, False),
        (b"yesterday", False),
    ],
)
def test_if_range_compares_strongly_and_exactly(header, holds):
    expected = (PARTIAL, [(0, 10)]) if holds else (WHOLE, [])
    assert decided(range=b"bytes=0-9", if_range=header) == expected


def test_a_failed_if_range_makes_even_a_range_that_does_not_exist_the_whole():
    assert decided(range=b"bytes=100-", if_range=b'"v2"') == (WHOLE, [])


def test_if_range_without_range_is_ignored():
    assert decided(if_range=b'"v2"') == (WHOLE, [])


def test_if_range_never_holds_where_there_is_no_validator():
    for header in (b'""', b'"', ETAG, SAME, b""):
        assert decided(etag=b"", last_modified=None, range=b"bytes=0-9", if_range=header) == (WHOLE, [])


# What a field says of the object: absent, true or false.
STATES = {
    "if_match": (None, b'"v0", "v1"', b'"v2"'),
    "if_unmodified_since": (None, AFTER, BEFORE),
    # True: send; false: the client has it already.
    "if_none_match": (None, b'"v2"', b'W/"v1"'),
    "if_modified_since": (None, BEFORE, AFTER),
    "range": (None, b"bytes=10-19", b"bytes=100-", b"lines=1-2"),
    "if_range": (None, ETAG, b'"v2"'),
}


def expected_by_rfc_9110_section_13_2_2(state, *, is_head):
    """The numbered steps of the section, in its own order and words."""
    absent, true, false = 0, 1, 2
    # 1. When recipient is the origin server and If-Match is present: if false, 412.
    if state["if_match"] == false:
        return FAILED
    # 2. If-Match is not present, and If-Unmodified-Since is present: if false, 412.
    if state["if_match"] == absent and state["if_unmodified_since"] == false:
        return FAILED
    # 3. When If-None-Match is present: if false for GET/HEAD, 304.
    if state["if_none_match"] == false:
        return NOT_MODIFIED
    # 4. Method is GET or HEAD, If-None-Match is not present, and If-Modified-Since is present: if false, 304.
    if state["if_none_match"] == absent and state["if_modified_since"] == false:
        return NOT_MODIFIED
    # 5. Method is GET and both Range and If-Range are present: if true, 206; else ignore Range.
    if is_head or state["range"] == absent or (state["if_range"] == false):
        return WHOLE
    # 6. Otherwise the requested method. 14.2: a Range for GET, satisfiable or not, or of an unknown unit.
    assert state["if_range"] in (absent, true)
    return {1: PARTIAL, 2: UNSATISFIABLE, 3: WHOLE}[state["range"]]


@pytest.mark.parametrize("is_head", [False, True])
def test_all_preconditions_together_are_taken_in_the_order_of_rfc_9110(is_head):
    for choice in product(*(range(len(states)) for states in STATES.values())):
        state = dict(zip(STATES, choice, strict=True))
        fields = {name: STATES[name][chosen] for name, chosen in state.items()}
        expected = expected_by_rfc_9110_section_13_2_2(state, is_head=is_head)
        assert decided(is_head=is_head, **fields) == (expected, [(10, 20)] if expected is PARTIAL else []), fields


values = st.none() | st.binary(max_size=12) | st.sampled_from([ETAG, b'W/"v1"', b"*", SAME, AFTER, b"bytes=0-5,9-"])


@given(
    fields=st.fixed_dictionaries(dict.fromkeys(STATES, values)),
    is_head=st.booleans(),
    etag=st.sampled_from([b"", ETAG]),
    last_modified=st.none() | st.just(MODIFIED),
    size=st.integers(0, 50),
)
def test_whatever_the_fields_hold_there_is_an_answer_and_spans_only_for_partial(
    fields, is_head, etag, last_modified, size
):
    answer, spans = decided(is_head=is_head, etag=etag, last_modified=last_modified, size=size, **fields)
    assert bool(spans) == (answer is PARTIAL)


@given(st.lists(st.tuples(st.booleans(), st.text("vw1,/W!#é", max_size=3)), min_size=1, max_size=5))
def test_a_well_formed_list_holds_exactly_its_tags(tags):
    listed = [(weak, b'"' + text.encode("latin-1") + b'"') for weak, text in tags]
    header = b", ".join((b"W/" if weak else b"") + tag for weak, tag in listed)
    for candidate in {tag for _, tag in listed} | {ETAG, b'"absent"'}:
        assert (outcome(etag=candidate, if_match=header) is WHOLE) == ((False, candidate) in listed)
        assert (outcome(etag=candidate, if_none_match=header) is NOT_MODIFIED) == any(
            tag == candidate for _, tag in listed
        )
