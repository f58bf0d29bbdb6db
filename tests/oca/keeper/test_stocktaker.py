"""The stocktaker on a real store: what it tells is what lies there, and the catalogue is asked no more than needed."""

import asyncio
import contextlib
import logging

import pytest
from pyroaring import BitMap

from oca.cache.keys import object_key
from oca.errors import IndexUnusable, NoSourceAnswered
from oca.keeper.stocktaker import Stocktaker
from oca.report.holdings import Books
from oca.settings import Steering
from oca.store.index import DropExtent
from tests.doubles.published import document, rendition
from tests.oca.store.stock import Stock
from wire.codec import encode
from wire.toml import Seconds

STEERING = Steering(("http://127.0.0.1:9",), holdings_interval=Seconds(30), holding_share=0.9)
PAGE = 4096


class Catalogue:
    """Documents by title, and how often each was asked for."""

    def __init__(self) -> None:
        self.titles = {}
        self.asked = []
        self.is_away = False

    def publish(self, title, *renditions):
        self.titles[f"/catalogue/titles/{title}.json"] = encode(document(title, *renditions))

    async def fetch(self, path, most_bytes):
        self.asked.append(path)
        await asyncio.sleep(0)
        if self.is_away:
            raise NoSourceAnswered(502, f"{path}: no source answered")
        return self.titles.get(path)


class Rig:
    """A stocktaker that runs and tells nothing by itself: `held` has it judge."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self.catalogue = Catalogue()
        self.wakes = asyncio.Event()
        self.taker: Stocktaker

    async def sleep(self, seconds):
        # Counting rests for moments; what is told is told when the test asks for it.
        if seconds >= STEERING.holdings_interval:
            await self.wakes.wait()
        await asyncio.sleep(0)

    def begin(self):
        stock = self.stock
        folder = stock.root / "catalogue"
        self.taker = Stocktaker(
            STEERING, stock.index, stock.shelves, self.catalogue.fetch, folder, lambda: stock.now, self.sleep
        )
        self.task = asyncio.ensure_future(self.taker.run())

    async def end(self):
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def at_rest(self):
        """Until it has nothing to do."""
        async with asyncio.timeout(30):
            await self.taker._is_complete.wait()
            while self.taker._queued or self.taker._heard or self.taker._books._uncounted:  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def held(self):
        """What is told, after everything that happened was thought about."""
        await self.at_rest()
        await self.taker.judge()
        return set(BitMap.deserialize(self.taker.bitmap))

    async def keep(self, made, *names):
        """Objects of a rendition, all or those of these names."""
        for item in made.objects:
            if not names or item.path.rpartition("/")[2] in names:
                blocks = range(-(-item.size_bytes // (4 * 1024 * 1024)))
                await self.stock.keep(item.path, blocks, size=item.size_bytes)


@pytest.fixture
async def rig(tmp_path, board):
    async with Stock(tmp_path, board, {"fast": "nvme", "slow": "hdd"}) as stock:
        found = Rig(stock)
        found.begin()
        yield found
        await found.end()


VIDEO = rendition("film", 1, {"a.m4s": 10 * PAGE, "b.m4s": 10 * PAGE, "media.m3u8": 100})
AUDIO = rendition("film", 2, {"a.m4s": 5 * PAGE})


async def test_an_empty_appliance_tells_that_it_holds_nothing(rig):
    assert await rig.held() == set()
    assert (rig.taker.version, rig.taker.renditions, rig.taker.titles) == (1, 0, 0)
    assert rig.catalogue.asked == []


async def test_a_rendition_is_told_when_enough_of_it_came_and_no_more_when_it_went(rig):
    rig.catalogue.publish("film", VIDEO, AUDIO)
    await rig.keep(VIDEO, "a.m4s")
    assert await rig.held() == set()
    await rig.keep(VIDEO, "b.m4s")
    assert await rig.held() == {1}
    await rig.keep(AUDIO)
    assert await rig.held() == {1, 2}
    version = rig.taker.version
    assert await rig.held() == {1, 2}
    assert rig.taker.version == version
    await rig.stock.shelves.drop([object_key(AUDIO.objects[0].path)])
    assert await rig.held() == {1}
    assert rig.taker.version == version + 1
    await rig.stock.index.apply(DropExtent(rig.stock.key(VIDEO.objects[0].path)))
    assert await rig.held() == set()
    assert rig.catalogue.asked == ["/catalogue/titles/film.json"]


async def test_what_lay_there_before_is_counted_at_the_start(rig):
    await rig.end()
    rig.catalogue.publish("film", VIDEO, AUDIO)
    rig.catalogue.publish("other", rendition("other", 3, {"x.mp4": 65 * 1024 * 1024}))
    await rig.keep(VIDEO)
    await rig.keep(rendition("other", 3, {"x.mp4": 65 * 1024 * 1024}))
    rig.begin()
    assert await rig.held() == {1, 3}


async def test_a_restart_asks_nobody_for_what_was_read_before(rig):
    rig.catalogue.publish("film", VIDEO, AUDIO)
    await rig.keep(VIDEO)
    assert await rig.held() == {1}
    await rig.end()
    rig.catalogue.is_away = True
    rig.begin()
    assert await rig.held() == {1}
    assert len(rig.catalogue.asked) == 1


async def test_a_sheet_that_can_not_be_read_is_made_anew(rig):
    rig.catalogue.publish("film", VIDEO)
    await rig.keep(VIDEO)
    await rig.held()
    await rig.end()
    (rig.stock.root / "catalogue" / "film").write_bytes(b"rotten")
    rig.begin()
    assert await rig.held() == {1}
    assert len(rig.catalogue.asked) == 2


async def test_a_new_generation_takes_the_old_bytes_away(rig):
    rig.catalogue.publish("film", AUDIO)
    await rig.keep(AUDIO)
    assert await rig.held() == {2}
    path = AUDIO.objects[0].path
    record = rig.stock.index.object(object_key(path))
    newer = type(record)(path, 2, record.size)
    await rig.stock.shelves.put(object_key(path), newer, replaces=True)
    assert await rig.held() == set()


async def test_a_device_that_is_away_takes_its_content_along_and_brings_it_back(rig):
    rig.catalogue.publish("film", VIDEO, AUDIO)
    await rig.keep(VIDEO)
    await rig.keep(AUDIO)
    assert await rig.held() == {1, 2}
    home = rig.stock.extent(VIDEO.objects[0].path).device
    shelf = rig.stock.shelves.shelf(home)
    path = rig.stock.root / ("slow" if shelf.tier == "hdd" else "fast")
    path.rename(rig.stock.root / "pulled")
    await rig.stock.rack.look_after()
    assert await rig.held() == set()
    (rig.stock.root / "pulled").rename(path)
    for _ in range(20):
        rig.stock.now += 60
        await rig.stock.rack.look_after()
    assert await rig.held() == {1, 2}


async def test_a_title_that_is_not_published_yet_is_asked_for_again_and_ever_less_often(rig):
    await rig.keep(VIDEO)
    assert await rig.held() == set()
    asked = []
    for _ in range(12 * 60):
        rig.stock.now += 60
        await rig.held()
        asked.append(len(rig.catalogue.asked))
    # After 1, 2, 4 ... minutes, and then every six hours.
    assert 9 <= asked[-1] <= 12
    rig.catalogue.publish("film", VIDEO)
    rig.stock.now += 6 * 3600 + 1
    await rig.held()
    assert await rig.held() == {1}


async def test_a_folder_that_the_document_does_not_name_has_it_read_again(rig):
    rig.catalogue.publish("film", VIDEO)
    await rig.keep(VIDEO)
    assert await rig.held() == {1}
    rig.catalogue.publish("film", VIDEO, AUDIO)
    await rig.keep(AUDIO)
    assert await rig.held() == {1}  # It was read just now.
    rig.stock.now += 61
    await rig.held()
    assert await rig.held() == {1, 2}
    assert len(rig.catalogue.asked) == 2


async def test_a_document_is_read_again_after_a_day(rig):
    rig.catalogue.publish("film", VIDEO)
    await rig.keep(VIDEO)
    await rig.held()
    rig.stock.now += 86401
    await rig.held()
    assert await rig.held() == {1}
    assert len(rig.catalogue.asked) == 2


async def test_a_title_that_was_withdrawn_is_held_no_more(rig):
    rig.catalogue.publish("film", VIDEO)
    await rig.keep(VIDEO)
    assert await rig.held() == {1}
    rig.catalogue.titles.clear()
    rig.stock.now += 86401
    await rig.held()
    assert await rig.held() == set()
    assert rig.taker.titles == 0


async def test_while_the_catalogue_is_away_what_is_known_goes_on_being_counted(rig, caplog):
    rig.catalogue.publish("film", VIDEO)
    await rig.keep(VIDEO, "a.m4s")
    assert await rig.held() == set()
    rig.catalogue.is_away = True
    rig.stock.now += 86401
    with caplog.at_level(logging.WARNING):
        await rig.held()
        await rig.keep(VIDEO, "b.m4s")
        assert await rig.held() == {1}
    assert "no source answered" in caplog.text


@pytest.mark.parametrize("trouble", [RuntimeError("broken"), IndexUnusable("its disk has failed")])
async def test_when_it_breaks_nothing_is_claimed_until_all_was_counted_anew(rig, caplog, trouble):
    rig.catalogue.publish("film", VIDEO)
    await rig.keep(VIDEO)
    assert await rig.held() == {1}
    version = rig.taker.version
    looks = rig.stock.index.paths_starting

    def broken(prefix, limit):
        rig.stock.index.paths_starting = looks
        raise trouble

    rig.stock.index.paths_starting = broken
    await rig.keep(rendition("other", 3, {"a.m4s": PAGE}))
    async with asyncio.timeout(30):
        while rig.stock.index.listener is not None:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert "what is held can't be told" in caplog.text
    assert (rig.taker.version, rig.taker.renditions) == (version + 1, 0)
    rig.wakes.set()
    async with asyncio.timeout(30):
        while rig.stock.index.listener is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
    rig.wakes.clear()
    assert await rig.held() == {1}


async def test_the_document_of_another_title_is_not_believed(rig):
    rig.catalogue.titles["/catalogue/titles/film.json"] = encode(document("other", VIDEO))
    await rig.keep(VIDEO)
    assert await rig.held() == set()


async def test_names_that_are_no_titles_are_asked_of_nobody(rig):
    await rig.end()
    await rig.stock.keep("/titles/No Title/video/a.m4s", [0], size=100)
    await rig.stock.keep("/titles/master.m3u8", [0], size=100)
    await rig.stock.keep("/other/film/video/a.m4s", [0], size=100)
    rig.begin()
    assert await rig.held() == set()
    assert rig.catalogue.asked == []


async def test_what_comes_and_goes_while_it_is_counted_is_counted_once(rig):
    await rig.end()
    rig.catalogue.publish("film", *(rendition("film", n, {"a.m4s": PAGE, "b.m4s": PAGE}) for n in range(20)))
    made = [rendition("film", n, {"a.m4s": PAGE, "b.m4s": PAGE}) for n in range(20)]
    for one in made[:10]:
        await rig.keep(one)
    rig.begin()
    dropping = [rig.stock.shelves.drop([object_key(one.objects[0].path)]) for one in made[:5]]
    await asyncio.gather(*dropping, *(rig.keep(one) for one in made[10:]))
    assert await rig.held() == set(range(5, 20))
    # And every count is what a look at everything says.
    books: Books = rig.taker._books
    for part in books.sheets["film"].parts():
        lying = rig.stock.index.lying_below(part.prefix, part.group)
        assert books.ledger.pages(part.group, {0, 1}) == sum(lying.values()) // PAGE
