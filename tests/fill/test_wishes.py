"""The operator's wishes: read whole, or refused with the line."""

import datetime as dt

import pytest

from fill.errors import SettingsError
from fill.wishes import Block, Pin, Release, Wishes, read_wishes

TEXT = """\
[[pin]]
title = "nosferatu-1922"
renditions = ["1080p"]
until = 2026-12-24
[[block]]
title = "withdrawn-soon"
sites = ["lis"]
[[release]]
title = "the-big-one"
strength = 5.0
"""


def test_wishes_are_what_the_file_says(tmp_path):
    path = tmp_path / "wishes.toml"
    path.write_text(TEXT)
    assert read_wishes(str(path)) == Wishes(
        pin=(Pin("nosferatu-1922", ("1080p",), None, dt.date(2026, 12, 24)),),
        block=(Block("withdrawn-soon", None, ("lis",), None),),
        release=(Release("the-big-one", 5.0),),
    )


def test_nothing_is_wished_without_a_file():
    assert read_wishes(None) == Wishes()


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("nosferatu-1922", "Nosferatu", "pin"),
        ("until = 2026-12-24", 'until = "soon"', "until"),
        ("sites", "site", "line 7"),
        ("5.0", "0", "strength"),
        ("[[pin]]", "[[pins]]", "pins"),
        ("[[pin]]", "[[pin", "line 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, before, after, says):
    path = tmp_path / "wishes.toml"
    path.write_text(TEXT.replace(before, after, 1))
    with pytest.raises(SettingsError, match=says):
        read_wishes(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"wishes: .*nowhere: can't be read"):
        read_wishes(str(tmp_path / "nowhere"))
