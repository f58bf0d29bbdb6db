"""Moments and spans as people type them."""

from datetime import datetime, timedelta, timezone

import pytest

from admin.errors import UsageError
from admin.fleet.moments import moment, span

HERE = timezone(timedelta(hours=1))
NOW = datetime(2026, 11, 27, 12, 30, tzinfo=HERE)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("now", NOW),
        ("2026-12-24 02:00", datetime(2026, 12, 24, 2, tzinfo=HERE)),
        ("2026-12-24T02:00+00:00", datetime(2026, 12, 24, 3, tzinfo=HERE)),
        ("14:00", datetime(2026, 11, 27, 14, tzinfo=HERE)),
        ("02:00", datetime(2026, 11, 28, 2, tzinfo=HERE)),
        ("12:30", datetime(2026, 11, 28, 12, 30, tzinfo=HERE)),
    ],
)
def test_a_moment_is_read(text, means):
    assert moment(text, NOW) == means


@pytest.mark.parametrize("text", ["", "soon", "25:00", "2026-13-01", "2:x"])
def test_what_is_no_moment_is_refused_with_what_is_allowed(text):
    with pytest.raises(UsageError, match="is no moment; allowed:"):
        moment(text, NOW)


def test_a_span_is_read():
    assert span("90 min") == timedelta(minutes=90)
    with pytest.raises(UsageError, match="is no duration; allowed:"):
        span("long")
