"""From what viewers watch in the evening to what lies on the right disks in the morning: everything real.

A parent in Lisbon, two appliances in Porto and one in Braga behind it; films, demand and orders in an S3 bucket.
"""

import asyncio
import datetime as dt
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from admin.bucket import Bucket
from admin.console.night import Night
from admin.fleet.asking import desk
from admin.fleet.known import Box, Inventory
from tests.doubles.agents import Agent, Planner
from tests.doubles.appliance import BLOCK, wait_until
from tests.doubles.origin import content_of
from tests.doubles.published import document
from tests.doubles.s3 import S3Server, moto
from wire.catalog import CatalogObject, Kind, Rendition
from wire.codec import decode, encode
from wire.orders import Phase, Progress, progress_key

SITES = [
    {"id": "lisbon", "operator": "isp", "country": "PT", "latitude": 38.7, "longitude": -9.1},
    {"id": "porto", "operator": "isp", "country": "PT", "latitude": 41.2, "longitude": -8.6, "parent": "lisbon"},
    {"id": "braga", "operator": "isp", "country": "PT", "latitude": 41.5, "longitude": -8.4, "parent": "lisbon"},
]
PLACES = {"top": "lisbon", "p1": "porto", "p2": "porto", "b1": "braga"}
CHILDREN = ("p1", "p2", "b1")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


class Region:
    def __init__(self, folder, server, prefix, make, places=tuple(PLACES)):
        self.folder = folder
        self.server = server
        self.prefix = prefix
        self.films = {}
        """By title: its objects' paths and contents."""
        self.numbers = 0
        env = S3Server.environment()
        self.boxes = {name: make(f"s3://films/{prefix}", name=name, env=env) for name in places}
        self.agents = {}

    @property
    def url(self):
        return f"s3://films/{self.prefix}"

    def start(self, **overrides):
        origin = {"endpoint_url": self.server.endpoint_url, "region": "us-east-1"}
        demand = {"bucket": self.url, "endpoint_url": self.server.endpoint_url, "jitter": "50 min"}
        for name, box in self.boxes.items():
            parents = [] if name == "top" else [{"url": self.boxes["top"].url}]
            box.launch(origin=origin, demand=demand, parents=parents, listen={"workers": 1}, **overrides)
        for box in self.boxes.values():
            box.wait_ready()
        inventory = {
            "site": SITES,
            "appliance": [{"id": name, "site": PLACES[name], "url": box.url} for name, box in self.boxes.items()],
        }
        # Each of a site's appliances shall hold what the site holds, and each hour is of the peak.
        self.planner = Planner(
            self.folder / "planner",
            self.url,
            self.url,
            self.server.endpoint_url,
            {"operator": [{"id": "isp"}], **inventory},
            placement={"copy_share": 1e-12, "churn": 1.0},
            peak={"start": 0, "stop": 24},
        )
        return self

    def agent(self, name, **more):
        self.agents[name] = Agent(
            self.folder / f"agent-{name}",
            name,
            f"http://127.0.0.1:{self.boxes[name].control_port}",
            self.url,
            self.server.endpoint_url,
            **more,
        )
        return self.agents[name]

    def publish(self, title, *sizes):
        """One rendition of these objects."""
        folder = f"/titles/{title}/720p.{self.numbers:04x}"
        contents = {f"{folder}/seg-{at}.m4s": content_of(f"{title} {at}", size) for at, size in enumerate(sizes)}
        objects = tuple(
            CatalogObject(path, len(content), hashlib.sha256(content).hexdigest(), "video/mp4")
            for path, content in contents.items()
        )
        rendition = Rendition(
            number=self.numbers,
            name="720p",
            kind=Kind.VIDEO,
            codecs="avc1",
            bandwidth_bps=1,
            average_bps=1,
            size_bytes=sum(sizes),
            duration=60.0,
            objects=objects,
        )
        self.numbers += 1
        for path, content in contents.items():
            self.put(path, content)
        self.put(f"/catalogue/titles/{title}.json", encode(document(title, rendition)))
        self.films[title] = contents

    def put(self, path, content):
        self.server.put(f"{self.prefix}{path}", content)

    def read(self, key, kind):
        body = self.server.client().get_object(Bucket="films", Key=f"{self.prefix}/{key}")["Body"].read()
        return decode(body, kind)

    def watched(self, name, *titles):
        box = self.boxes[name]
        for title in titles:
            for path, content in self.films[title].items():
                assert box.get(path).body == content
                box.wait_stored(path)

    def ship(self):
        def told(box, requests):
            return box.status()["demand"]["running"]["requests"] >= requests

        for box in self.boxes.values():
            wait_until(lambda box=box: told(box, 0), "demand is counted")
            assert box.control("POST", "/v1/demand/ship").status == 200

    def plan(self):
        tonight = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
        said = self.planner.types("plan", "--night", str(tonight))
        self.planner.types("apply")
        return said

    def fetched(self, source, names):
        return sum(self.boxes[name].metric("oca_fetch_bytes_total", source=source) for name in names)

    def assert_morning(self, name, titles):
        """The morning's viewers: each byte is right, and from a disk."""
        for title in titles:
            for path, content in self.films[title].items():
                answer = self.boxes[name].get(path)
                assert answer.is_hit, (name, path, answer.cache_status)
                assert answer.body == content


@pytest.fixture(params=[tuple(PLACES)])
def region(request, server, make_appliance, tmp_path, path):
    region = Region(tmp_path, server, path.strip("/").removesuffix(".mp4"), make_appliance, request.param)
    yield region
    for agent in region.agents.values():
        agent.stop()


async def night_on_the_console(region):
    """What the NOC sees of it."""
    boxes = tuple(
        Box(name, PLACES[name], agent_metrics=f"127.0.0.1:{agent.port}") for name, agent in region.agents.items()
    )
    bucket = Bucket(region.url, region.server.endpoint_url)
    async with desk("http://127.0.0.1:9") as at:
        return await Night(at, bucket, time.time).told(Inventory(1, (), boxes))


def test_a_night_from_what_was_watched_to_a_morning_of_hits(region, monkeypatch):
    region.start()
    for at in range(5):
        region.publish(f"film-{at}", 300_000, BLOCK + 70_000 + at, 5_000)
    region.watched("p1", "film-0", "film-1")
    (region.planner.folder / "wishes.toml").write_text('[[pin]]\ntitle = "film-4"\n')
    before = region.fetched("origin", PLACES)
    region.ship()
    said = region.plan()
    assert "4 appliances at 3 sites" in said
    for name in PLACES:
        region.agent(name, peer_wait="60 s")
    with ThreadPoolExecutor(len(PLACES)) as pool:
        codes = dict(zip(region.agents, pool.map(lambda agent: agent.once(), region.agents.values()), strict=True))
    assert set(codes.values()) == {0}, {name: agent.told()[-3000:] for name, agent in region.agents.items()}
    for name in CHILDREN:
        region.assert_morning(name, region.films)
        for title in ("film-0", "film-4"):
            for path in region.films[title]:
                extents = region.boxes[name].held(path)["extents"]
                assert all(
                    extent["pledged_until"] > dt.datetime.now(dt.UTC).timestamp() + 5 * 86400 for extent in extents
                )
    # What nobody had came from the origin once, for all of the region.
    new = sum(len(content) for at in (2, 3, 4) for content in region.films[f"film-{at}"].values())
    documents = region.fetched("origin", PLACES) - before - new
    assert 0 <= documents < 100_000
    progress = region.read(progress_key("p2"), Progress)
    assert (progress.phase, progress.done_renditions, progress.failed_renditions) == (Phase.IDLE, 5, 0)
    assert "done" in region.planner.types("status")
    for name, value in S3Server.environment().items():
        monkeypatch.setenv(name, value)
    seen = asyncio.run(night_on_the_console(region))
    assert seen["plan"]["error"] is None
    assert set(seen["plan"]["sites"]) == set(PLACES.values())
    for expected in seen["plan"]["sites"].values():
        assert 0 <= expected["before"] <= expected["after"] <= 1
    assert {one["id"]: "no answer" in one["error"] for one in seen["agents"]} == dict.fromkeys(PLACES, True)


@pytest.mark.parametrize("region", [("top", "b1")], indirect=True, ids=["two"])
@pytest.mark.parametrize("lives", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_an_agent_that_is_killed_again_and_again_brings_everything_once(region, lives):
    region.start()
    films = 2 + lives // 4
    for at in range(films):
        region.publish(f"film-{at}", *(BLOCK + 1000 * at + part for part in range(5)))
    pins = "".join(f'[[pin]]\ntitle = "film-{at}"\n' for at in range(films))
    (region.planner.folder / "wishes.toml").write_text(pins)
    region.ship()
    region.plan()
    box = region.boxes["b1"]

    def came():
        return region.fetched("parent-1", ["b1"])

    # So slow that little comes in a life.
    agent = region.agent("b1", rate={"most": "1 Mbit/s"}, peer_wait="0 s")
    for _ in range(lives):
        box.wait_landed()
        before = came()
        agent.start("--once")
        wait_until(lambda before=before: came() > before + BLOCK // 2, "something comes")
        agent.kill()
    box.wait_landed()
    agent = region.agent("b1", peer_wait="0 s")
    assert agent.once() == 0, agent.told()[-3000:]
    region.assert_morning("b1", region.films)
    documents = came() - sum(len(content) for film in region.films.values() for content in film.values())
    # Documents are read anew in each life; of films nothing came twice.
    assert 0 <= documents < 200_000
    assert box.metric("oca_fill_verified_total", result="checksum") == 0


@pytest.mark.parametrize("region", [("top", "b1")], indirect=True, ids=["two"])
def test_an_urgent_title_comes_at_once_outside_the_window(region):
    region.start()
    region.publish("film", BLOCK)
    region.ship()
    now = dt.datetime.now(dt.UTC)
    hours = {
        "start": (now + dt.timedelta(hours=6)).strftime("%H:%M"),
        "stop": (now + dt.timedelta(hours=7)).strftime("%H:%M"),
    }
    agent = region.agent("b1", window=hours).start().wait_up()
    region.planner.types("urgent", "--title", "film", "--appliance", "b1")
    region.boxes["b1"].wait_stored(next(iter(region.films["film"])))
    wait_until(lambda: "is done: 1 of 1" in agent.told(), "the urgent order is done")
    region.assert_morning("b1", ["film"])
    wait_until(lambda: agent.status()["phase"] in ("idle", "waiting"), "it rests again")
    agent.stop()
