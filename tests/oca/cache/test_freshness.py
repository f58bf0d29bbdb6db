"""Freshness: cases from RFC 9111, RFC 5861 and RFC 8246, and what is assumed where the origin says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.cache.freshness import Defaults, directives, lifetime

NOW = 1_700_000_000.0
HTTP_NOW = "Tue, 14 Nov 2023 22:13:20 GMT"
IN_AN_HOUR = "Tue, 14 Nov 2023 23:13:20 GMT"
AN_HOUR_AGO = "Tue, 14 Nov 2023 21:13:20 GMT"
YEAR = 365 * 86400.0
DEFAULTS = Defaults(film=1000, manifest=5, negative=10, stale_if_error=700, manifest_suffixes=(".m3u8", ".mpd"))


def judged(control=None, *, path="/a.mp4", status=200, **others):
    headers = {name.replace("_", "-"): value for name, value in others.items()}
    if control is not None:
        headers["cache-control"] = control
    return lifetime(path, status, headers, NOW, DEFAULTS)


@pytest.mark.parametrize(
    ("control", "fresh"),
    [
        (None, 1000),
        ("", 1000),
        ("public", 1000),
        ("max-age=60", 60),
        ("Max-Age=60", 60),
        ('max-age="60"', 60),
        ("public, max-age=60", 60),
        (",,max-age=60,", 60),
        ("max-age=0", 0),
        # Section 5.2.2.10: a shared cache obeys s-maxage first.
        ("max-age=60, s-maxage=7", 7),
        ("s-maxage=7, max-age=60", 7),
        ("s-maxage=0, max-age=60", 0),
        # Section 4.2.1: the first of a repeated directive counts; what conflicts, most strictly.
        ("max-age=60, max-age=90", 60),
        ("max-age=60, no-cache", 0),
        ('no-cache="set-cookie", max-age=60', 0),
        # Section 4.2.1: an argument that is no number makes the answer stale at once.
        ("max-age=soon", 0),
        ("max-age=-1", 0),
        ("max-age=1.5", 0),
        ("max-age", 0),
        ("max-age=", 0),
        ("max-age = 60", 0),
        ("max-age=60 90", 0),
        ("max-age=\u0663", 0),
        # Section 1.2.2: as much as fits.
        ("max-age=99999999999", 2**31),
        ("max-age=" + "9" * 5000, 2**31),
        # Quoted text is not read as directives.
        ('foo="max-age=1, no-cache", max-age=60', 60),
        ('foo="\\", no-cache", max-age=60', 60),
        # RFC 8246: immutable speaks of the lifetime that is given; without one, for long.
        ("immutable", YEAR),
        ("immutable, max-age=60", 60),
        ("immutable, no-cache", 0),
    ],
)
def test_how_long_a_film_is_fresh(control, fresh):
    assert judged(control).fresh == fresh


@pytest.mark.parametrize(
    ("others", "fresh"),
    [
        ({"expires": IN_AN_HOUR, "date": HTTP_NOW}, 3600),
        # The origin's two clocks are compared, not ours.
        ({"expires": HTTP_NOW, "date": AN_HOUR_AGO}, 3600),
        ({"expires": IN_AN_HOUR}, 3600),
        ({"expires": IN_AN_HOUR, "date": "yesterday"}, 3600),
        ({"expires": AN_HOUR_AGO, "date": HTTP_NOW}, 0),
        # Section 5.3: an invalid date, "0" above all, means that it has expired.
        ({"expires": "0"}, 0),
        ({"expires": "never", "date": HTTP_NOW}, 0),
    ],
)
def test_expires_counts_where_cache_control_says_nothing(others, fresh):
    assert judged(**others).fresh == fresh
    assert judged("max-age=60", **others).fresh == 60
    # Nor does immutable make anything of what has expired.
    assert judged("immutable", **others).fresh == fresh


@pytest.mark.parametrize(
    ("path", "control", "fresh", "said"),
    [
        ("/a.mp4", None, 1000, "public, max-age=1000, immutable"),
        ("/a.m3u8", None, 5, "public, max-age=5"),
        ("/a.mpd", None, 5, "public, max-age=5"),
        ("/a.m3u8.mp4", None, 1000, "public, max-age=1000, immutable"),
        ("/a.m3u8", "max-age=60", 60, "max-age=60"),
        ("/a.m3u8", "immutable", YEAR, "immutable"),
    ],
)
def test_what_is_assumed_and_told_on(path, control, fresh, said):
    life = judged(control, path=path)
    assert (life.fresh, life.cache_control) == (fresh, said)


@pytest.mark.parametrize(
    ("control", "others", "storable"),
    [
        (None, {}, True),
        ("no-store", {}, False),
        ("max-age=60, no-store", {}, False),
        ("private", {}, False),
        ('private="x-user", max-age=60', {}, False),
        ("PRIVATE", {}, False),
        ("no-cache", {}, True),
        ("xno-store", {}, True),
        ('foo="no-store"', {}, True),
        (None, {"vary": "*"}, False),
        (None, {"vary": " * "}, False),
        (None, {"vary": "origin"}, True),
        # Written with a semicolon by mistake: the wish is clear enough.
        ("no-store; max-age=60", {}, False),
        ("private; max-age=60", {}, False),
        ("no-store max-age=60", {}, False),
        ('no-store, foo="unfinished', {}, False),
    ],
)
def test_what_may_be_stored(control, others, storable):
    assert judged(control, **others).storable is storable


@pytest.mark.parametrize(
    ("control", "while_revalidate", "if_error"),
    [
        (None, 0, 700),
        ("max-age=60", 0, 700),
        ("max-age=60, stale-while-revalidate=30", 30, 700),
        ("max-age=60, stale-if-error=30", 0, 30),
        ("max-age=60, stale-if-error=0", 0, 0),
        ("max-age=60, stale-while-revalidate=x, stale-if-error=x", 0, 700),
        # Section 4.2.4: these forbid stale answers.
        ("max-age=60, must-revalidate", 0, 0),
        ("max-age=60, proxy-revalidate", 0, 0),
        ("s-maxage=60", 0, 0),
        ("no-cache", 0, 0),
        ("max-age=60, must-revalidate, stale-while-revalidate=30", 0, 0),
        # RFC 5861 section 4: unless the origin itself says for how long.
        ("s-maxage=60, stale-if-error=30", 0, 30),
    ],
)
def test_what_may_be_done_when_it_is_stale(control, while_revalidate, if_error):
    life = judged(control)
    assert (life.stale_while_revalidate, life.stale_if_error) == (while_revalidate, if_error)


@pytest.mark.parametrize(
    ("age", "counted"), [(None, 0), ("0", 0), ("59", 59), (" 59 ", 59), ("-1", 0), ("x", 0), ("99999999999", 2**31)]
)
def test_the_age_on_arrival_counts(age, counted):
    assert judged("max-age=60", **({} if age is None else {"age": age})).age == counted


@pytest.mark.parametrize("status", [403, 404, 410])
@pytest.mark.parametrize(
    ("control", "others", "fresh", "storable", "said"),
    [
        (None, {}, 10, True, "max-age=10"),
        ("max-age=3", {}, 3, True, "max-age=3"),
        ("max-age=0", {}, 0, True, "max-age=0"),
        ("no-cache", {}, 0, True, "max-age=0"),
        # The origin may shorten the life of a refusal, never lengthen it.
        ("max-age=86400, immutable", {}, 10, True, "max-age=10"),
        ("immutable", {}, 10, True, "max-age=10"),
        (None, {"expires": IN_AN_HOUR}, 10, True, "max-age=10"),
        (None, {"expires": AN_HOUR_AGO}, 0, True, "max-age=0"),
        ("no-store", {}, 0, False, "no-store"),
        ("private, max-age=5", {}, 0, False, "no-store"),
    ],
)
def test_how_long_a_refusal_is_remembered(status, control, others, fresh, storable, said):
    life = judged(control, status=status, **others)
    assert (life.fresh, life.storable, life.cache_control) == (fresh, storable, said)
    assert (life.stale_while_revalidate, life.stale_if_error) == (0, 0)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", {}),
        (" , ,", {}),
        ("a", {"a": ""}),
        ("A=B", {"a": "B"}),
        ("a=b , c", {"a": "b", "c": ""}),
        ("a,a=1", {"a": ""}),
        ('a="x, y", b', {"a": "x, y", "b": ""}),
        ("=1, b", {"b": ""}),
        ("a/b, c", {"a": "", "c": ""}),
    ],
)
def test_directives(header, found):
    assert directives(header) == found


words = st.text('abm-axge=0159", \\;/\t\u00e9', max_size=40)


@given(words, st.sampled_from(["no-store", "private", "NO-STORE"]), st.text("abc=1", max_size=10))
def test_what_comes_before_or_behind_never_hides_that_it_may_not_be_stored(before, wish, behind):
    # Unless it is quoted: then it is somebody else's argument.
    before = before.replace('"', "")
    assert not judged(f"{before},{wish},{behind}").storable


@given(st.text(max_size=200), st.sampled_from([200, 404]))
def test_any_header_gives_a_lifetime_that_makes_sense(control, status):
    life = judged(control, status=status)
    assert 0 <= life.fresh <= max(2**31, YEAR)
    assert min(life.age, life.stale_if_error, life.stale_while_revalidate) >= 0
    assert "\n" not in life.cache_control or "\n" in control


def test_a_header_made_to_be_slow_is_read_at_once():
    # Quadratic time would show as a timeout of the whole run.
    for evil in ("a" * 100_000 + "/", "a=" * 50_000, '"' * 100_001, '"\\' * 50_000, " " * 100_000 + "x y"):
        directives(evil)
