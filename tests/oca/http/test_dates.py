from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.http.dates import format_date, parse_date

NOW = int(datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC).timestamp())
EXAMPLE = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110

first_second = int(datetime(1, 1, 1, tzinfo=UTC).timestamp())
last_second = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
moments = st.integers(first_second, last_second)


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "  Sun, 06 Nov 1994 08:49:37 GMT\t",
    ],
)
def test_all_three_forms_of_rfc_9110_are_read(text):
    assert parse_date(text, NOW) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1994-11-06T08:49:37Z",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Tue, 29 Feb 2100 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "\xa0Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Someday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov 06 08:49:37 94",
        "Sun Nov  0 08:49:37 1994",
    ],
)
def test_what_is_no_http_date_is_none(text):
    assert parse_date(text, NOW) is None


def test_a_leap_second_counts_as_the_one_before_it():
    assert parse_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW) == at(2016, 12, 31, 23, 59, 59)


@pytest.mark.parametrize(
    ("now", "text", "moment"),
    [
        (at(2025, 6, 1), "Sunday, 01-Jun-25 00:00:00 GMT", at(2025, 6, 1)),
        (at(2025, 6, 1), "Saturday, 01-Jun-75 00:00:00 GMT", at(2075, 6, 1)),
        (at(2025, 6, 1), "Saturday, 01-Jun-75 00:00:01 GMT", at(1975, 6, 1, 0, 0, 1)),
        (at(2025, 6, 1), "Friday, 31-Dec-99 23:59:59 GMT", at(1999, 12, 31, 23, 59, 59)),
        (at(2025, 6, 1), "Tuesday, 29-Feb-00 00:00:00 GMT", at(2000, 2, 29)),
        (at(2090, 6, 1), "Monday, 01-Jan-10 00:00:00 GMT", at(2110, 1, 1)),
        (at(2052, 2, 29), "Sunday, 01-Mar-02 00:00:00 GMT", at(2002, 3, 1)),
    ],
)
def test_a_two_digit_year_lies_at_most_fifty_years_ahead(now, text, moment):
    assert parse_date(text, now) == moment


def test_a_written_date_looks_as_in_rfc_9110():
    assert format_date(EXAMPLE) == "Sun, 06 Nov 1994 08:49:37 GMT"


def test_a_written_date_cuts_fractions_off():
    assert format_date(EXAMPLE + 0.9999999) == format_date(EXAMPLE)


@given(moments)
def test_a_written_date_reads_back_as_the_same_second(moment):
    assert parse_date(format_date(moment), NOW) == moment


@given(st.integers(at(1000, 1, 1), last_second))
def test_the_standard_library_reads_a_written_date_alike(moment):
    assert parsedate_to_datetime(format_date(moment)).timestamp() == moment


@given(moments)
def test_the_asctime_form_reads_back_as_the_same_second(moment):
    when = datetime.fromtimestamp(moment, UTC)
    text = f"{when:%a} {when:%b} {when.day:2d} {when:%H:%M:%S} {when.year:04d}"
    assert parse_date(text, NOW) == moment


@given(st.integers(at(1970, 1, 1), at(2200, 1, 1)), st.integers(-49 * 365 * 86400, 49 * 365 * 86400))
def test_the_rfc_850_form_reads_back_within_fifty_years_of_now(now, distance):
    moment = now + distance
    text = f"{datetime.fromtimestamp(moment, UTC):%A, %d-%b-%y %H:%M:%S} GMT"
    assert parse_date(text, now) == moment


@given(st.text(), st.integers(0, at(9000, 1, 1)))
def test_no_text_makes_it_fail(text, now):
    assert parse_date(text, now) is None or isinstance(parse_date(text, now), int)


@given(st.from_regex(r"\A(Sun|Feb), \d\d (Feb|Nov) \d{4} \d\d:\d\d:\d\d GMT\Z"), st.integers(0, at(9000, 1, 1)))
def test_no_date_outside_the_calendar_makes_it_fail(text, now):
    moment = parse_date(text, now)
    assert moment is None or first_second <= moment <= last_second
