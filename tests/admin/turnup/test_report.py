"""Reports for eyes, for the ISP, and for programs."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from admin.turnup.checks import Finding, Outcome
from admin.turnup.report import Report, markdown, rows, told
from admin.turnup.seen import Check

PASSED = Finding(Check.CLOCK, Outcome.PASSED, "+0.0 s from steering's")
WARNED = Finding(Check.CLOCK, Outcome.WARNED, "does chrony run?")
FAILED = Finding(Check.DEVICES, Outcome.FAILED, "/srv/d0 (hdd): writes 1 kB/s")


def report(*found, **more):
    plain = {"appliance": "lis-1", "site": "lis", "at": 1.8e9, "version": "1.2", "by": "ana on noc-1"}
    return Report(**{**plain, "findings": found, "is_whole": True, **more})


@pytest.mark.parametrize(
    ("found", "whole", "verdict"),
    [
        ([PASSED], True, "lis-1: passed"),
        ([PASSED, WARNED], True, "lis-1: passed, with a warning of clock"),
        ([PASSED], False, "lis-1: passed what was checked"),
        ([PASSED, FAILED, FAILED], True, "lis-1: failed: devices"),
    ],
)
def test_the_verdict_is_a_line(found, whole, verdict):
    assert report(*found, is_whole=whole).verdict == verdict


def test_in_a_table_the_name_of_a_check_stands_once():
    assert [row[:2] for row in rows(report(PASSED, WARNED, FAILED))] == [
        ("clock", "passed"),
        ("", "warned"),
        ("devices", "failed"),
    ]


def test_the_isp_reads_what_was_seen_when_and_by_whom():
    text = markdown([report(PASSED, FAILED)], {"lis-2": "no answer within 30 s"})
    assert "## lis-1" in text
    assert "**lis-1: failed: devices.**" in text
    assert "Site lis, software 1.2, 2027-01-15 08:00:00 UTC, checked by ana on noc-1." in text
    assert "| devices | **FAILED** | /srv/d0 (hdd): writes 1 kB/s |" in text
    assert "## Not checked\n\n- lis-2: no answer within 30 s\n" in text


@given(words=st.text(max_size=80))
def test_nothing_that_a_box_says_breaks_out_of_its_cell(words):
    text = markdown([report(Finding(Check.NETWORK, Outcome.PASSED, f"a{words}"), PASSED)], {})
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert sum(token.type == "td_open" for token in tokens) == 6
    inline = [child.type for token in tokens if token.type == "inline" for child in token.children or ()]
    assert not {"link_open", "image", "html_inline", "em_open", "code_inline"} & set(inline)


def test_programs_get_everything_and_who_was_recorded():
    said = told([report(PASSED, FAILED)], {"lis-2": "no answer"}, ["lis-1"])
    said = json.loads(msgspec.json.encode(said))
    (one,) = said["reports"]
    assert (one["passed"], one["failed"], one["recorded"]) == (False, ["devices"], True)
    assert one["findings"][0] == {"check": "clock", "outcome": "passed", "sentence": "+0.0 s from steering's"}
    assert said["unanswered"] == {"lis-2": "no answer"}
