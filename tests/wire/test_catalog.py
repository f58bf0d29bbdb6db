"""The catalogue's documents: what one version writes, another reads."""

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.catalog import (
    SCHEMA,
    Availability,
    CatalogObject,
    Kind,
    Rendition,
    RenditionNumbers,
    Title,
    is_title_id,
    read_numbers,
    read_title,
    title_folder,
    title_path,
)
from wire.codec import WireError, encode

SEGMENT = CatalogObject("/titles/nosferatu-1922/240p.0a1b/seg-00001.m4s", 70_000, "ab" * 32, "video/mp4")
RENDITION = Rendition(
    number=7,
    name="240p",
    kind=Kind.VIDEO,
    codecs="avc1.640015",
    bandwidth_bps=300_000,
    average_bps=250_000,
    size_bytes=70_000,
    duration=4.004,
    objects=(SEGMENT,),
    width=426,
    height=240,
    frame_rate="30000/1001",
)
TITLE = Title(
    title="nosferatu-1922",
    published_at=dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC),
    duration=4.004,
    manifests=(),
    renditions=(RENDITION,),
)


def test_a_title_is_read_as_it_was_written():
    assert read_title(encode(TITLE)) == TITLE


@pytest.mark.parametrize(
    ("rule", "country", "allowed"),
    [
        (Availability(), None, True),
        (Availability(), "PT", True),
        (Availability(only=("PT", "ES")), "ES", True),
        (Availability(only=("PT", "ES")), "FR", False),
        (Availability(only=("PT",)), None, False),
        (Availability(only=()), "PT", False),
        (Availability(never=("PT",)), "PT", False),
        (Availability(never=("PT",)), "ES", True),
        (Availability(never=("PT",)), None, True),
        (Availability(only=("PT",), never=("PT",)), "PT", False),
    ],
)
def test_a_licence_names_where_a_title_may_be_shown(rule, country, allowed):
    assert rule.allows(country) is allowed


def test_an_earlier_document_says_nothing_of_countries_and_is_for_all():
    document = json.loads(encode(TITLE))
    del document["availability"]
    assert read_title(json.dumps(document).encode()) == TITLE


@pytest.mark.parametrize("country", ["pt", "PRT", "", "P1"])
def test_a_country_is_two_letters(country):
    document = json.loads(encode(TITLE))
    document["availability"] = {"only": [country]}
    with pytest.raises(WireError):
        read_title(json.dumps(document).encode())


def test_fields_of_a_later_version_are_skipped():
    document = json.loads(encode(TITLE))
    document["mood"] = "gloomy"
    document["renditions"][0]["grain"] = {"strength": 3}
    document["renditions"][0]["objects"][0]["etag"] = '"x"'
    assert read_title(json.dumps(document).encode()) == TITLE


def test_fields_an_earlier_version_did_not_write_have_their_defaults():
    document = json.loads(encode(TITLE))
    del document["renditions"][0]["frame_rate"]
    assert read_title(json.dumps(document).encode()).renditions[0].frame_rate is None


def test_a_later_schema_is_refused_and_the_reader_is_told_to_upgrade():
    document = json.loads(encode(TITLE)) | {"schema": SCHEMA + 1}
    with pytest.raises(WireError, match=f"schema {SCHEMA + 1}.*upgrade"):
        read_title(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": "../etc"}, "title"),
        ({"title": "nosferatu\n"}, "title"),
        ({"published_at": "2026-03-04T05:06:07"}, "published_at"),
        ({"duration": 0}, "duration"),
        ({"renditions": None}, "renditions"),
    ],
)
def test_a_document_that_is_wrong_is_refused_and_the_place_is_named(change, said):
    document = json.loads(encode(TITLE)) | change
    with pytest.raises(WireError, match=said):
        read_title(json.dumps(document).encode())


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_bytes_that_are_no_document_are_refused(body):
    with pytest.raises(WireError):
        read_title(body)


@given(st.integers(0, 2**40), st.dictionaries(st.text(max_size=20), st.integers(0, 2**40)))
def test_rendition_numbers_are_read_as_they_were_written(following, claims):
    numbers = RenditionNumbers(next=following, claims=claims)
    assert read_numbers(encode(numbers)) == numbers


@given(st.dictionaries(st.text(max_size=20), st.integers(0, 9)))
def test_equal_documents_are_equal_bytes(claims):
    backwards = dict(reversed(claims.items()))
    assert encode(RenditionNumbers(claims=claims)) == encode(RenditionNumbers(claims=backwards))


@pytest.mark.parametrize("title", ["a", "7", "nosferatu-1922", "a" * 64, "s01-e02-the-one-with-dashes"])
def test_a_title_id_is_lower_case_words_joined_by_hyphens(title):
    assert is_title_id(title)


@pytest.mark.parametrize(
    "title", ["", "-a", "a-", "a--b", "A", "a" * 65, "a\n", "a b", "a/b", "..", "a.b", "é", "٣", "a\x00", "a%2f"]
)
def test_anything_else_is_no_title_id(title):
    assert not is_title_id(title)


def test_paths_are_those_of_the_urls():
    assert title_folder("nosferatu-1922") == "/titles/nosferatu-1922"
    assert title_path("nosferatu-1922") == "/catalogue/titles/nosferatu-1922.json"
