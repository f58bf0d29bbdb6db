"""The catalogue as a table: only what changed is read again, and nobody's mistake empties it."""

import msgspec
import pyarrow.parquet as pq
import pytest

from fill.bucket import Entry
from fill.catalogue import RENDITIONS, TITLES, refresh
from fill.errors import InputError
from tests.doubles.published import document, rendition
from wire.codec import encode


class Shelf:
    """Documents in memory. Remembers what was read."""

    def __init__(self, **titles):
        self.bodies = {}
        self.etags = {}
        self.reads = []
        for title, renditions in titles.items():
            self.put(title, *renditions)

    def put(self, title, *renditions):
        self.put_body(title, encode(document(title, *renditions)))

    def put_body(self, title, body):
        self.bodies[title] = body
        self.etags[title] = f"e{len(self.etags)}{hash(body)}"

    def entries(self, prefix):
        assert prefix == TITLES
        return [Entry(f"{TITLES}{title}.json", len(body), self.etags[title]) for title, body in self.bodies.items()]

    def read(self, key, most_bytes):
        title = key.removeprefix(TITLES).removesuffix(".json")
        self.reads.append(title)
        return self.bodies.get(title)


def table(lake):
    return pq.read_table(lake / RENDITIONS).to_pylist()


def numbers(lake):
    return [row["number"] for row in table(lake)]


def test_each_rendition_has_a_row_in_the_order_of_numbers(tmp_path):
    shelf = Shelf(
        second=[rendition("second", 3, {"a.mp4": 10, "b.mp4": 20})],
        first=[rendition("first", 1, {"a.mp4": 5}), rendition("first", 0, {"a.mp4": 7})],
    )
    refresh(shelf, tmp_path)
    assert numbers(tmp_path) == [0, 1, 3]
    row = table(tmp_path)[2]
    assert (row["title"], row["folder"]) == ("second", "/titles/second/video.0003")
    assert (row["size_bytes"], row["objects"], row["kind"]) == (30, 2, "video")
    assert row["published_at"].isoformat() == "2026-01-01T00:00:00+00:00"


def test_only_what_changed_is_read_again_and_what_is_gone_goes(tmp_path):
    shelf = Shelf(a=[rendition("a", 1, {"x": 1})], b=[rendition("b", 2, {"x": 1})], c=[rendition("c", 3, {"x": 1})])
    first = refresh(shelf, tmp_path)
    shelf.reads.clear()
    assert refresh(shelf, tmp_path) == first
    assert shelf.reads == []
    shelf.put("b", rendition("b", 7, {"x": 1}))
    del shelf.bodies["c"]
    assert refresh(shelf, tmp_path) != first
    assert shelf.reads == ["b"]
    assert numbers(tmp_path) == [1, 7]


def test_a_title_that_is_withdrawn_is_nobody_s_to_fill_until_it_is_restored(tmp_path):
    shelf = Shelf(first=[rendition("first", 0, {"a.mp4": 5})], second=[rendition("second", 1, {"a.mp4": 5})])
    refresh(shelf, tmp_path)
    published = document("first", rendition("first", 0, {"a.mp4": 5}))
    shelf.put_body("first", encode(msgspec.structs.replace(published, withdrawn_at=published.published_at)))
    refresh(shelf, tmp_path)
    assert numbers(tmp_path) == [1]
    shelf.put_body("first", encode(published))
    refresh(shelf, tmp_path)
    assert numbers(tmp_path) == [0, 1]


def test_a_document_that_can_not_be_read_keeps_the_rows_it_had(tmp_path, caplog):
    shelf = Shelf(a=[rendition("a", 1, {"x": 1})], b=[rendition("b", 2, {"x": 1})])
    refresh(shelf, tmp_path)
    shelf.put_body("a", b"{broken")
    refresh(shelf, tmp_path)
    assert numbers(tmp_path) == [1, 2]
    assert "document of a is left out" in caplog.text
    shelf.put("a", rendition("a", 4, {"x": 1}))
    refresh(shelf, tmp_path)
    assert numbers(tmp_path) == [2, 4]


def test_a_rendition_that_lies_in_several_folders_or_elsewhere_is_nobody_s_to_fill(tmp_path):
    scattered = rendition("a", 1, {"one/x": 1, "two/x": 1})
    elsewhere = rendition("other", 2, {"x": 1})
    refresh(Shelf(a=[scattered, elsewhere, rendition("a", 3, {"x": 1})]), tmp_path)
    assert numbers(tmp_path) == [3]


def test_two_renditions_of_one_number_are_named(tmp_path):
    shelf = Shelf(a=[rendition("a", 1, {"x": 1})], b=[rendition("b", 1, {"x": 1})])
    with pytest.raises(InputError, match="number 1 to renditions of a and b"):
        refresh(shelf, tmp_path)


@pytest.mark.parametrize("broken", [b"", b"PAR1 or not"])
def test_a_table_that_is_broken_is_made_anew(tmp_path, broken):
    shelf = Shelf(a=[rendition("a", 1, {"x": 1})])
    refresh(shelf, tmp_path)
    (tmp_path / RENDITIONS).write_bytes(broken)
    refresh(shelf, tmp_path)
    assert numbers(tmp_path) == [1]


def test_an_empty_catalogue_is_a_table_without_rows(tmp_path):
    refresh(Shelf(), tmp_path)
    assert table(tmp_path) == []


def test_progress_is_told(tmp_path):
    told = []
    refresh(
        Shelf(a=[rendition("a", 1, {"x": 1})], b=[rendition("b", 2, {"x": 1})]), tmp_path, lambda *at: told.append(at)
    )
    assert told == [(1, 2), (2, 2)]
