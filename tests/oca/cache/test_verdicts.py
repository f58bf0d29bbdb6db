"""Verdicts: every lie a source can tell about a range, and every truth."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.records import ObjectRecord
from oca.cache.verdicts import Beyond, Negative, Part, Unchanged, Whole, judge
from oca.errors import FetchReason, GenerationChanged, SourceError

NOW = 1_700_000_000.0
LONG_AGO = "Sun, 06 Nov 1994 08:49:37 GMT"
JUST_BEFORE = "Sun, 06 Nov 1994 08:49:38 GMT"
LONG_AGO_SECOND = 784111777
HTTP_DATE = "Tue, 14 Nov 2023 22:13:20 GMT"

PARTIAL = {
    "content-range": "bytes 100-199/1000",
    "content-length": "100",
    "etag": '"v1"',
}
WHOLE = {"content-length": "1000", "etag": '"v1"'}
HELD = ObjectRecord("/a", 1, 1000, etag=b'"v1"')


def asked(status, headers, *, start=100, stop=200, held=None, is_s3=False):
    return judge(status, headers, start=start, stop=stop, held=held, now=NOW, is_s3=is_s3)


def but(headers, **changes):
    """`headers` with some changed; None takes one away."""
    changed = headers | {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in changed.items() if value is not None}


@pytest.mark.parametrize("held", [None, HELD])
def test_an_honest_part(held):
    part = asked(206, PARTIAL, held=held)
    assert isinstance(part, Part)
    assert (part.start, part.stop, part.version.size, part.version.etag) == (100, 200, 1000, b'"v1"')


@pytest.mark.parametrize(
    ("headers", "start", "stop", "found"),
    [
        # The end of the object lies before the end of what was asked: the right end is the object's.
        (but(PARTIAL, content_range="bytes 900-999/1000"), 900, 1100, (900, 1000)),
        (but(PARTIAL, content_range="bytes 0-99/100"), 0, 4096, (0, 100)),
        (but(PARTIAL, content_range="BYTES 100-199/1000"), 100, 200, (100, 200)),
        (but(PARTIAL, content_range=" bytes 100-199/1000 "), 100, 200, (100, 200)),
        (but(PARTIAL, content_encoding="identity"), 100, 200, (100, 200)),
        (but(PARTIAL, content_encoding=""), 100, 200, (100, 200)),
        (but(PARTIAL, content_range="bytes 0-0/1", content_length="1"), 0, 1, (0, 1)),
    ],
)
def test_honest_parts(headers, start, stop, found):
    part = asked(206, headers, start=start, stop=stop)
    assert isinstance(part, Part)
    assert (part.start, part.stop) == found


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        # Another start.
        (but(PARTIAL, content_range="bytes 0-99/1000"), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="bytes 101-200/1000"), FetchReason.WRONG_RANGE),
        # Another end.
        (but(PARTIAL, content_range="bytes 100-149/1000", content_length="50"), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="bytes 100-198/1000", content_length="99"), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="bytes 100-200/1000", content_length="101"), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="bytes 100-99/1000", content_length="0"), FetchReason.WRONG_RANGE),
        # An end behind the end.
        (but(PARTIAL, content_range="bytes 100-199/150"), FetchReason.WRONG_RANGE),
        # Content-Range: none, no complete length, another unit, nonsense, two of them.
        (but(PARTIAL, content_range=None), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="bytes 100-199/*"), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="bytes */1000"), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="lines 100-199/1000"), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="bytes 100-199"), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="bytes +100-199/1000"), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="bytes 100-199/1000, bytes 0-1/2"), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range="bytes 100-199/" + "9" * 19), FetchReason.WRONG_RANGE),
        (but(PARTIAL, content_range=None, content_type="multipart/byteranges; boundary=x"), FetchReason.WRONG_RANGE),
        # A body of another length than the range.
        (but(PARTIAL, content_length="99"), FetchReason.WRONG_SIZE),
        (but(PARTIAL, content_length="101"), FetchReason.WRONG_SIZE),
        (but(PARTIAL, content_length="1000"), FetchReason.WRONG_SIZE),
        (but(PARTIAL, content_length=None), FetchReason.WRONG_SIZE),
        (but(PARTIAL, content_length="100, 100"), FetchReason.WRONG_SIZE),
        (but(PARTIAL, content_length="-100"), FetchReason.WRONG_SIZE),
        (but(PARTIAL, content_length="\u0661\u0660\u0660"), FetchReason.WRONG_SIZE),
        (but(PARTIAL, content_length="1" + "0" * 5000), FetchReason.WRONG_SIZE),
        # A coding: the range would be one of other bytes.
        (but(PARTIAL, content_encoding="gzip"), FetchReason.ENCODED),
        (but(PARTIAL, content_encoding="identity, gzip"), FetchReason.ENCODED),
        (but(PARTIAL, content_encoding="GZIP"), FetchReason.ENCODED),
        (but(PARTIAL, content_encoding="aws-chunked"), FetchReason.ENCODED),
    ],
)
@pytest.mark.parametrize("held", [None, HELD])
def test_a_lie_about_the_range_gives_nothing(headers, reason, held):
    with pytest.raises(SourceError) as lie:
        asked(206, headers, held=held)
    assert lie.value.reason is reason or isinstance(lie.value, GenerationChanged)


@pytest.mark.parametrize(
    "headers",
    [
        but(PARTIAL, etag='"v2"'),
        but(PARTIAL, etag=None),
        but(PARTIAL, etag='W/"v1"'),
        but(PARTIAL, etag="v1"),
        but(PARTIAL, etag='"V1"'),
        but(PARTIAL, content_range="bytes 100-199/1001"),
        but(PARTIAL, content_range="bytes 100-199/999"),
        but(PARTIAL, etag=None, last_modified=LONG_AGO, date=HTTP_DATE),
    ],
)
def test_bytes_of_another_generation_are_told_apart(headers):
    with pytest.raises(GenerationChanged):
        asked(206, headers, held=HELD)


@pytest.mark.parametrize(
    "headers", [but(WHOLE, etag='"v2"'), but(WHOLE, content_length="999"), but(WHOLE, etag='W/"v1"')]
)
def test_a_whole_answer_of_another_generation_is_told_apart(headers):
    with pytest.raises(GenerationChanged):
        asked(200, headers, held=HELD)


def test_the_same_last_modified_is_the_same_generation_where_there_is_no_tag():
    held = ObjectRecord("/a", 1, 1000, last_modified=LONG_AGO_SECOND)
    same = but(PARTIAL, etag=None, last_modified=LONG_AGO, date=HTTP_DATE)
    assert isinstance(asked(206, same, held=held), Part)
    with pytest.raises(GenerationChanged):
        asked(206, but(same, last_modified=JUST_BEFORE), held=held)


def test_what_has_no_strong_validator_is_never_continued():
    bare = ObjectRecord("/a", 1, 1000)
    with pytest.raises(GenerationChanged):
        asked(206, but(PARTIAL, etag=None), held=bare)


@pytest.mark.parametrize(
    ("headers", "etag", "last_modified", "is_strong"),
    [
        ({"etag": '"v"'}, b'"v"', None, True),
        ({"etag": '""'}, b'""', None, True),
        ({"etag": 'W/"v"'}, b"", None, False),
        ({"etag": "v"}, b"", None, False),
        ({"etag": '"a"b"'}, b"", None, False),
        ({"etag": '"a b"'}, b"", None, False),
        ({"etag": '"\u20ac"'}, b"", None, False),
        ({}, b"", None, False),
        # RFC 9110 section 8.8.2.2: strong only if it is at least a second older than the answer.
        ({"last-modified": LONG_AGO, "date": JUST_BEFORE}, b"", LONG_AGO_SECOND, True),
        ({"last-modified": LONG_AGO, "date": LONG_AGO}, b"", None, False),
        ({"last-modified": JUST_BEFORE, "date": LONG_AGO}, b"", None, False),
        ({"last-modified": LONG_AGO}, b"", None, False),
        ({"last-modified": LONG_AGO, "date": "now"}, b"", None, False),
        ({"last-modified": "never", "date": LONG_AGO}, b"", None, False),
    ],
)
def test_which_validators_are_strong(headers, etag, last_modified, is_strong):
    answer = asked(200, {"content-length": "1000", **headers})
    assert isinstance(answer, Whole)
    assert (answer.version.etag, answer.version.last_modified) == (etag, last_modified)
    assert answer.version.is_strong is is_strong


def test_which_headers_are_kept():
    said = {
        "content-type": "video/mp4",
        "expires": "0",
        "set-cookie": "id=1",
        "content-range": "bytes 100-199/1000",
        "content-length": "100",
        "transfer-encoding": "chunked",
    }
    assert asked(206, said).version.kept == {"Content-Type": "video/mp4", "Expires": "0"}


@pytest.mark.parametrize(("headers", "size"), [(WHOLE, 1000), (but(WHOLE, content_length=None), -1)])
@pytest.mark.parametrize("stop", [None, 200])
def test_a_whole_answer_is_whole_whether_or_not_a_range_was_asked(headers, size, stop):
    answer = asked(200, headers, start=0 if stop is None else 100, stop=stop)
    assert isinstance(answer, Whole)
    assert answer.version.size == size


def test_a_200_that_claims_a_range_is_whole_for_a_plain_source():
    assert isinstance(asked(200, PARTIAL | {"content-length": "1000"}), Whole)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        # rclone's S3 server: the right part, the wrong status.
        (PARTIAL, Part),
        (but(PARTIAL, content_length="1000"), Whole),
        (WHOLE, Whole),
    ],
)
def test_an_s3_part_under_status_200_is_known_by_its_length(headers, kind):
    assert isinstance(asked(200, headers, is_s3=True), kind)


@pytest.mark.parametrize(
    ("status", "held", "kind"),
    [
        (304, HELD, Unchanged),
        (403, None, Negative),
        (404, None, Negative),
        (404, HELD, Negative),
        (410, None, Negative),
    ],
)
def test_answers_without_bytes(status, held, kind):
    assert isinstance(asked(status, {}, held=held), kind)


def test_a_start_behind_the_end_is_no_error_of_the_source():
    assert isinstance(asked(416, {"content-range": "bytes */50"}), Beyond)


@pytest.mark.parametrize(
    ("status", "stop", "reason"),
    [
        (304, 200, FetchReason.STATUS),
        (416, None, FetchReason.STATUS),
        (206, None, FetchReason.NOT_PARTIAL),
        *[(status, 200, FetchReason.STATUS) for status in (100, 201, 204, 226, 302, 400, 401, 429, 500, 502, 503, 599)],
    ],
)
def test_answers_that_are_worth_nothing(status, stop, reason):
    with pytest.raises(SourceError) as refused:
        asked(status, PARTIAL, stop=stop)
    assert refused.value.reason is reason
    assert not isinstance(refused.value, GenerationChanged)


def test_a_failed_precondition_means_another_generation():
    with pytest.raises(GenerationChanged):
        asked(412, {}, held=HELD)


numbers = st.integers(0, 300)


@given(numbers, numbers, numbers, numbers, numbers, st.integers(1, 300), st.booleans())
def test_for_any_numbers_a_part_is_what_was_asked_or_nothing(first, last, size, length, start, count, is_s3):
    stop = start + count
    headers = {"content-range": f"bytes {first}-{last}/{size}", "content-length": str(length), "etag": '"v"'}
    try:
        answer = asked(206, headers, start=start, stop=stop, is_s3=is_s3)
    except SourceError:
        return
    assert isinstance(answer, Part)
    assert (answer.start, answer.stop) == (start, min(stop, size)) == (first, last + 1)
    assert answer.version.size == size > start
    assert length == answer.stop - answer.start > 0


names = st.sampled_from(["content-range", "content-length", "etag", "last-modified", "date", "content-encoding"])


@given(st.integers(100, 599), st.dictionaries(names, st.text(max_size=30)), st.sampled_from([None, 200]))
def test_any_nonsense_is_judged_without_another_error(status, headers, stop):
    with contextlib.suppress(SourceError):
        asked(status, headers, start=0, stop=stop, held=HELD)
