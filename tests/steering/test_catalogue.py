"""What a path is of, by documents that are read beside the decisions."""

import asyncio
import datetime as dt

import pytest
from aiohttp import web

from steering.catalogue import Catalogue, CatalogueError, FolderShelf, HttpShelf, shelf_at
from steering.fleet import content_of
from wire.catalog import DASH_TYPE, HLS_TYPE, CatalogObject, Kind, Rendition, Title, title_path
from wire.codec import encode


def rendition(number, folder):
    return Rendition(
        number=number,
        name=folder,
        kind=Kind.VIDEO,
        codecs="avc1.640015",
        bandwidth_bps=1,
        average_bps=1,
        size_bytes=1,
        duration=1.0,
        objects=(CatalogObject(f"/titles/film/{folder}/seg-1.m4s", 1, "ab" * 32, "video/mp4"),),
    )


FILM = encode(
    Title(
        title="film",
        published_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        duration=1.0,
        manifests=(
            CatalogObject("/titles/film/master.m3u8", 1, "ab" * 32, HLS_TYPE),
            CatalogObject("/titles/film/manifest.mpd", 1, "ab" * 32, DASH_TYPE),
        ),
        renditions=(rendition(7, "720p.aa"), rendition(9, "240p.bb")),
    )
)


class Documents:
    """A shelf of a test's own."""

    def __init__(self, **documents):
        self.documents = documents
        self.asked = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def document(self, path):
        self.asked.append(path)
        await self.may_answer.wait()
        found = self.documents.get(path.rpartition("/")[2].removesuffix(".json"))
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self):
        pass


class Library:
    """A catalogue with a clock, whose reading is waited for."""

    def __init__(self, shelf):
        self.now = 1000.0
        self.tasks = []
        self.catalogue = Catalogue(shelf, 300.0, lambda: self.now, self._spawn)

    def _spawn(self, work):
        self.tasks.append(asyncio.ensure_future(work))

    async def content(self, path):
        """What is known after whatever the question set going has ended."""
        self.catalogue.content(path)
        while self.tasks:
            await self.tasks.pop()
        return self.catalogue.content(path)


async def test_a_title_is_known_by_its_renditions_after_the_first_question():
    library = Library(Documents(film=FILM))
    assert library.catalogue.content("/titles/film/master.m3u8").renditions == ()
    assert (await library.content("/titles/film/master.m3u8")).renditions == (7, 9)
    assert (await library.content("/titles/film/720p.aa/seg-5.m4s")).renditions == (7,)
    assert (await library.content("/titles/film/unknown/seg-5.m4s")).renditions == (7, 9)


async def test_all_paths_of_a_title_have_one_home():
    library = Library(Documents(film=FILM))
    before = library.catalogue.content("/titles/film/master.m3u8")
    assert (await library.content("/titles/film/720p.aa/seg-5.m4s")).mix == before.mix == content_of("film").mix


async def test_a_document_is_asked_for_once_however_many_ask():
    shelf = Documents(film=FILM)
    shelf.may_answer.clear()
    library = Library(shelf)
    for _ in range(50):
        library.catalogue.content("/titles/film/master.m3u8")
    shelf.may_answer.set()
    await library.content("/titles/film/master.m3u8")
    assert shelf.asked == [title_path("film")]


async def test_a_document_is_read_again_after_its_time_and_a_failure_keeps_what_was_known():
    shelf = Documents(film=FILM)
    library = Library(shelf)
    await library.content("/titles/film/master.m3u8")
    library.now += 301
    shelf.documents["film"] = CatalogueError("the bucket is away")
    assert (await library.content("/titles/film/master.m3u8")).renditions == (7, 9)
    assert library.catalogue.failures == 1
    await library.content("/titles/film/master.m3u8")
    assert len(shelf.asked) == 2, "what failed is not asked for at each request"
    library.now += 61
    await library.content("/titles/film/master.m3u8")
    assert len(shelf.asked) == 3


@pytest.mark.parametrize("body", [None, b"", b"{", b'{"renditions": 3}', b"\xff"])
async def test_a_title_without_a_document_is_content_by_its_name(body):
    library = Library(Documents(film=body))
    content = await library.content("/titles/film/master.m3u8")
    assert (content.name, content.renditions) == ("film", ())
    await library.content("/titles/film/master.m3u8")
    assert len(library.catalogue) == 1


@pytest.mark.parametrize("path", ["/", "/titles/", "/titles/UPPER/x", "/titles/" + "x" * 65 + "/y", "/other/film/x"])
async def test_what_is_no_title_is_content_by_its_path_and_nothing_is_asked(path):
    shelf = Documents()
    assert (await Library(shelf).content(path)) == content_of(path)
    assert shelf.asked == []


async def test_strangers_titles_are_asked_for_a_few_at_a_time_and_no_more_than_wait():
    shelf = Documents()
    shelf.may_answer.clear()
    library = Library(shelf)
    for number in range(5000):
        library.catalogue.content(f"/titles/t-{number}/x")
    assert len(library.tasks) == 1024
    await asyncio.sleep(0)
    assert len(shelf.asked) == 8
    shelf.may_answer.set()
    await asyncio.gather(*library.tasks)


async def test_a_folder_is_a_shelf(tmp_path):
    (tmp_path / "catalogue" / "titles").mkdir(parents=True)
    (tmp_path / "catalogue" / "titles" / "film.json").write_bytes(FILM)
    shelf = shelf_at(str(tmp_path), None, None)
    assert isinstance(shelf, FolderShelf)
    assert await shelf.document(title_path("film")) == FILM
    assert await shelf.document(title_path("none")) is None
    (tmp_path / "catalogue" / "titles" / "dir.json").mkdir()
    with pytest.raises(CatalogueError):
        await shelf.document(title_path("dir"))


async def test_an_http_origin_is_a_shelf():
    async def answer(request):
        known = {"film": web.Response(body=FILM), "none": web.Response(status=404), "bad": web.Response(status=500)}
        return known[request.match_info["name"]]

    app = web.Application()
    app.router.add_get("/base/catalogue/titles/{name}.json", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    shelf = shelf_at(f"http://127.0.0.1:{port}/base", None, None)
    assert isinstance(shelf, HttpShelf)
    try:
        assert await shelf.document(title_path("film")) == FILM
        assert await shelf.document(title_path("none")) is None
        with pytest.raises(CatalogueError, match="500"):
            await shelf.document(title_path("bad"))
        await runner.cleanup()
        with pytest.raises(CatalogueError):
            await shelf.document(title_path("film"))
    finally:
        await shelf.close()


# --- Who presses play ---


async def test_who_presses_play_waits_for_the_document():
    library = Library(Documents(film=FILM))
    listing = await library.catalogue.listing("film")
    assert (listing.hls, listing.dash) == ("/titles/film/master.m3u8", "/titles/film/manifest.mpd")
    assert [one.name for one in listing.renditions] == ["720p.aa", "240p.bb"]
    assert listing.availability.allows(None)


async def test_a_title_that_is_not_there_is_not_published():
    library = Library(Documents())
    assert await library.catalogue.listing("film") is None


async def test_many_who_press_play_at_once_wait_for_one_document():
    shelf = Documents(film=FILM)
    library = Library(shelf)
    listings = await asyncio.gather(*(library.catalogue.listing("film") for _ in range(50)))
    assert all(listing.hls for listing in listings)
    assert len(shelf.asked) == 1


async def test_what_was_known_is_told_while_the_catalogue_is_away():
    shelf = Documents(film=FILM)
    library = Library(shelf)
    await library.catalogue.listing("film")
    library.now += 301
    shelf.documents["film"] = CatalogueError("the bucket is away")
    assert (await library.catalogue.listing("film")).hls
    await library.tasks[-1]
    assert (await library.catalogue.listing("film")).hls
    assert len(shelf.asked) == 2


async def test_a_withdrawn_title_is_not_published_after_its_time():
    shelf = Documents(film=FILM)
    library = Library(shelf)
    await library.catalogue.listing("film")
    library.now += 301
    del shelf.documents["film"]
    await library.catalogue.listing("film")
    await library.tasks[-1]
    assert await library.catalogue.listing("film") is None


async def test_a_catalogue_that_is_away_is_left_alone_for_a_while():
    shelf = Documents(film=CatalogueError("the bucket is away"))
    library = Library(shelf)
    for _ in range(10):
        with pytest.raises(CatalogueError):
            await library.catalogue.listing("film")
    assert len(shelf.asked) == 5
    library.now += 5
    shelf.documents["film"] = FILM
    assert (await library.catalogue.listing("film")).hls
