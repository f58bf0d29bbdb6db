"""Titles in the catalogue of a real store: looked at, withdrawn, restored and licensed."""

import json

import msgspec
import pytest
from typer.testing import CliRunner

from admin.__main__ import app
from admin.bucket import Bucket
from admin.errors import TitleTaken
from admin.titles.documents import license_title, restore, withdraw
from wire.catalog import Availability, title_path
from wire.codec import encode

NAME = "metropolis"


@pytest.fixture
def titled(published, store):
    """The published clip, copied into a bucket of its own."""
    for path in published.paths():
        source = {"Bucket": published.bucket, "Key": f"{published.prefix}{path}"}
        store.client.copy_object(Bucket=store.bucket, Key=f"{store.prefix}{path}", CopySource=source)
    return store


@pytest.fixture
def titles(titled):
    def run(command, *arguments):
        place = ("--at", titled.url, "--endpoint-url", titled.endpoint_url)
        return CliRunner(env={"COLUMNS": "250"}).invoke(app, ["titles", command, *arguments, *place])

    return run


def put(store, path, body):
    store.client.put_object(Bucket=store.bucket, Key=f"{store.prefix}{path}", Body=body)


def test_titles_are_listed_for_people_and_machines(titles):
    table = titles("list")
    assert table.exit_code == 0
    (row,) = [line for line in table.stdout.splitlines() if NAME in line]
    assert all(said in row for said in ("0:00:09", " 3 ", "MB", "everywhere", "published"))
    (told,) = json.loads(titles("list", "--json").stdout)
    assert (told["title"], len(told["renditions"])) == (NAME, 3)


def test_a_document_that_can_not_be_read_is_named_and_hides_no_other(titles, titled):
    put(titled, title_path("broken"), b"{")
    ran = titles("list")
    assert ran.exit_code == 1
    assert NAME in ran.stdout
    assert "broken can't be read" in ran.stderr


def test_a_title_is_shown_with_all_its_renditions(titles):
    shown = titles("show", NAME)
    assert shown.exit_code == 0
    for said in ("metropolis: published", "240p", "avc1.64", "426x240", "deu", "/titles/metropolis/master.m3u8"):
        assert said in shown.stdout


def test_verifying_names_every_object_that_is_not_as_it_should_be(titles, titled):
    assert titles("show", NAME, "--verify").exit_code == 0
    objects = titled.title(NAME).renditions[2].objects
    gone, short, other = (item for item in objects if item.path.endswith(".m4s"))
    titled.client.delete_object(Bucket=titled.bucket, Key=f"{titled.prefix}{gone.path}")
    put(titled, short.path, b"short")
    put(titled, other.path, bytes(other.size_bytes))
    ran = titles("show", NAME, "--verify")
    assert ran.exit_code == 1
    assert f"{gone.path} is missing" in ran.stderr
    assert f"{short.path} has 5 bytes, not {short.size_bytes}" in ran.stderr
    assert f"{other.path} has the checksum" in ran.stderr
    assert len(json.loads(titles("show", NAME, "--verify", "--json").stdout)["damages"]) == 3


def test_a_title_is_withdrawn_and_restored_and_its_files_stay(titles, titled):
    before = titled.paths()
    assert "withdrawn since" in titles("withdraw", NAME, "--reason", "rights").stdout
    withdrawn = titled.title(NAME)
    assert withdrawn.withdrawal_reason == "rights"
    assert "was already withdrawn since" in titles("withdraw", NAME).stdout
    assert titled.title(NAME) == withdrawn
    assert "withdrawn" in titles("list").stdout
    assert "may be played again" in titles("restore", NAME).stdout
    assert titled.title(NAME).withdrawn_at is None
    assert "was not withdrawn" in titles("restore", NAME).stdout
    assert titled.paths() == before


def test_where_a_title_may_be_shown_is_said_anew(titles, titled):
    assert "only in PT, ES" in titles("licence", NAME, "--only-in", "pt,es").stdout
    assert titled.title(NAME).availability == Availability(only=("PT", "ES"))
    assert "everywhere" in titles("licence", NAME, "--everywhere").stdout
    assert titled.title(NAME).availability == Availability()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "no-such"), "there is no title no-such"),
        (("withdraw", "No Title"), "allowed: 1 to 64 of a-z"),
        (("withdraw", NAME, "--reason", "x" * 201), "allowed: 1 to 200"),
        (("licence", NAME), "say where"),
        (("licence", NAME, "--everywhere", "--not-in", "RU"), "say where"),
        (("licence", NAME, "--only-in", "XYZ"), "'XYZ' is no country"),
    ],
)
def test_what_can_not_be_done_is_said_and_changes_nothing(titles, titled, words, said):
    before = titled.body(title_path(NAME))
    ran = titles(*words)
    assert ran.exit_code == 2
    assert said in ran.stderr
    assert titled.body(title_path(NAME)) == before


class Crossed(Bucket):
    """Somebody writes between our look and our change, so many times."""

    def __init__(self, store, times):
        super().__init__(store.url, store.endpoint_url)
        self._store, self._left = store, times

    def replace(self, upload, etag):
        if self._left:
            self._left -= 1
            title = self._store.title(NAME)
            put(self._store, title_path(NAME), encode(msgspec.structs.replace(title, duration=title.duration + 1)))
        super().replace(upload, etag)


def test_of_two_changes_at_once_both_count(titled):
    duration = titled.title(NAME).duration
    withdraw(Crossed(titled, 2), NAME, None)
    license_title(Crossed(titled, 1), NAME, Availability(never=("RU",)))
    now = titled.title(NAME)
    assert now.withdrawn_at is not None
    assert (now.availability.never, now.duration) == (("RU",), duration + 3)


def test_who_is_crossed_again_and_again_gives_up_and_says_so(titled):
    withdraw(titled.open(), NAME, None)
    with pytest.raises(TitleTaken, match="changed by others 10 times"):
        restore(Crossed(titled, 100), NAME)
