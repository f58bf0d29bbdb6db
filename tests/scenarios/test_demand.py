"""From what viewers read to what the planner finds in the bucket: exact, once, and whatever dies on the way."""

import io
import os
import signal
import threading
import time
from collections import Counter

import pyarrow.parquet as pq
import pytest
from pyroaring import BitMap

from oca.report.demand import HIT_REQUESTS, MISS_REQUESTS, decode_part
from tests.doubles.appliance import BLOCK, free_port, wait_until
from tests.doubles.fake_steering import Steering, settings
from tests.doubles.published import publish, rendition
from tests.doubles.s3 import S3Server, moto
from wire.demand import read_stock


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


class Box:
    """An appliance that ships to a bucket of its own place, and what its viewers know that they read."""

    def __init__(self, appliance, origin, server, prefix):
        self.appliance = appliance
        self.origin = origin
        self.server = server
        self.prefix = prefix
        self.read = Counter()

    def settings(self, **more):
        where = {"bucket": f"s3://films/{self.prefix}", "endpoint_url": self.server.endpoint_url}
        # The rounds that begin by themselves would mix with those that a test asks for.
        return {**where, "region": "us-east-1", "checkpoint": "1 s", "jitter": "50 min", **more}

    def start(self, **overrides):
        self.appliance.start(demand=self.settings(**overrides.pop("demand", {})), **overrides)
        return self

    def put(self, path, size):
        self.origin.put(path, size)
        return path

    def get(self, path, start=None, stop=0):
        """Read it as a viewer does, and note what was read: by folder, outcome, tier."""
        tier = "memory"
        found = self.appliance.held(path)
        if found["held"] and found["blocks"] == found["blocks_held"]:
            tier = found["extents"][0]["tier"]
        answer = self.appliance.get(path) if start is None else self.appliance.span(path, start, stop)
        assert answer.status in (200, 206)
        folder = path.rpartition("/")[0]
        outcome = "hit" if answer.is_hit else "miss"
        self.read[folder, outcome, "requests"] += 1
        self.read[folder, outcome, tier] += len(answer.body)
        if path.endswith("init.mp4") and not start:
            self.read[folder, outcome, "sessions"] += 1

    def fetch(self, path):
        """Read it for the first time."""
        self.get(path)
        self.appliance.wait_stored(path)

    def running(self):
        demand = self.appliance.status()["demand"]
        return demand["running"]["requests"]

    def wait_told(self, requests):
        wait_until(lambda: self.running() == requests, "the workers told what they counted")

    def ship(self):
        answer = self.appliance.control("POST", "/v1/demand/ship")
        assert answer.status == 200, answer.body
        return answer.json()["shipped"]

    def shipped(self):
        """What the bucket says of all hours, as `read` is kept."""
        found = Counter()
        client = self.server.client()
        listed = client.list_objects_v2(Bucket="films", Prefix=f"{self.prefix}/demand/").get("Contents", [])
        for one in listed:
            body = client.get_object(Bucket="films", Key=one["Key"])["Body"].read()
            for row in pq.read_table(io.BytesIO(body)).to_pylist():
                assert row["appliance"] == self.appliance.name
                assert row["bytes"] == sum(row[f"bytes_{tier}"] for tier in ("nvme", "ssd", "hdd", "memory"))
                for name in ("requests", "sessions", "bytes_nvme", "bytes_ssd", "bytes_hdd", "bytes_memory"):
                    if row[name]:
                        found[row["folder"], row["outcome"], name.removeprefix("bytes_")] += row[name]
        return found


@pytest.fixture
def box(make_appliance, origin, server, path):
    return Box(make_appliance(env=S3Server.environment()), origin, server, path.strip("/").removesuffix(".mp4"))


def test_the_bucket_says_exactly_what_viewers_read_by_rendition_outcome_and_tier(box):
    one = box.appliance
    one.devices = [one.folder / "fast", one.folder / "slow"]
    tiers = ("nvme", "hdd")
    box.start(
        device=[
            {"path": str(path), "tier": tier, "capacity": "1 GiB"}
            for path, tier in zip(one.devices, tiers, strict=True)
        ]
    )
    for tier in tiers:
        # What is brought ahead of time is nobody's request.
        path = box.put(f"/titles/{tier}/720p.1f/init.mp4", 3 * BLOCK + 5)
        order = {"path": path, "pledged_until": time.time() + 3600, "tier": tier}
        assert one.control("POST", "/v1/prefetch", order).status == 202
        one.wait_stored(path)
        for start, stop in ((0, 1), (0, 100_000), (5, BLOCK), (BLOCK - 10, 2 * BLOCK + 10)):
            box.get(path, start, stop)
        box.get(path)
    for name in ("init.mp4", "seg-00001.m4s", "seg-00002.m4s", "index.m3u8"):
        path = box.put(f"/titles/x/1080p.2e/{name}", 300_000)
        box.fetch(path)
        box.get(path)
        # Another appliance that takes what is held watches nothing.
        assert one.get(path, Cache_Control="only-if-cached").status == 200
        assert one.get(path, Cache_Control="only-if-cached", Range="bytes=5-9").status == 206
    box.fetch(box.put("/titles/x/master.m3u8", 900))
    assert one.get("/titles/x/1080p.2e/init.mp4", method="HEAD").status == 200
    assert one.get("/titles/x/nothing").status == 404
    assert {tier for _, _, tier in box.read} == {"requests", "sessions", "nvme", "hdd", "memory"}
    requests = sum(count for (_, _, what), count in box.read.items() if what == "requests")
    wait_until(lambda: checkpointed(box) == requests, "the workers told what they counted")
    assert len(box.ship()) in (2, 3)  # The hour may have ended meanwhile.
    assert box.shipped() == box.read


def test_what_waits_while_the_bucket_is_away_is_shipped_when_it_is_back(box, tmp_path):
    port = free_port()
    box.start(demand={"endpoint_url": f"http://127.0.0.1:{port}"})
    box.fetch(box.put("/titles/x/720p.1f/init.mp4", 1000))
    box.wait_told(1)
    refused = box.appliance.control("POST", "/v1/demand/ship")
    assert refused.status == 502
    assert "can't be written" in refused.json()["error"]
    metrics = box.appliance.metrics()
    assert metrics.value("oca_demand_spooled_hours") == 1
    assert metrics.value("oca_demand_spooled_bytes") == 4096
    assert metrics.value("oca_demand_failures_total") == 1
    assert metrics.value("oca_demand_last_success_timestamp_seconds") == 0
    assert "can't be written" in box.appliance.status()["demand"]["error"]
    box.get("/titles/x/720p.1f/init.mp4")
    box.wait_told(1)
    with moto(tmp_path, port) as back:
        box.server = back
        box.ship()
        assert box.shipped() == box.read
    metrics = box.appliance.metrics()
    assert metrics.value("oca_demand_spooled_bytes") == 0
    assert metrics.value("oca_demand_shipped_total") >= 1
    assert metrics.value("oca_demand_last_success_timestamp_seconds") > 0
    assert metrics.value("oca_demand_lost_total") == 0


def checkpointed(box):
    """Requests that the spool has."""
    total = 0
    for path in (box.appliance.state_dir / "demand").glob("*.part"):
        counts = decode_part(path.read_bytes()).folders.values()
        total += sum(row[HIT_REQUESTS] + row[MISS_REQUESTS] for row in counts)
    return total


def kill_keeper(box):
    (keeper,) = box.appliance.keeper_pids
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: box.appliance.keeper_pids not in ([], [keeper]), "there is another keeper")
    box.appliance.wait_ready()


def test_a_killed_keeper_loses_nothing_that_was_written_and_ships_nothing_twice(box):
    box.start()
    path = box.put("/titles/x/720p.1f/init.mp4", 1000)
    box.fetch(path)
    for number in range(1, 4):
        wait_until(lambda want=number: checkpointed(box) == want, "what was read is on disk")
        kill_keeper(box)
        box.get(path)
    wait_until(lambda: checkpointed(box) == 4, "what was read is on disk")
    box.ship()
    assert box.shipped() == box.read
    assert checkpointed(box) == 0


def test_a_keeper_that_is_killed_while_it_ships_ships_each_part_once(box):
    box.start()
    path = box.put("/titles/x/720p.1f/init.mp4", 1000)
    box.fetch(path)
    wait_until(lambda: checkpointed(box) == 1, "what was read is on disk")
    for _ in range(4):
        asking = threading.Thread(target=box.appliance.control, args=("POST", "/v1/demand/ship"), daemon=True)
        threading.excepthook = lambda _: None  # It is cut off, as it should be.
        asking.start()
        wait_until(lambda: box.appliance._running("oca.keeper.demand_shipper"), "the process that ships is there")
        kill_keeper(box)
        asking.join()
        box.get(path)
        box.wait_told(1)
    box.ship()
    assert box.shipped() == box.read


def test_nothing_is_lost_when_the_appliance_ends_and_begins_again(box):
    box.start()
    path = box.put("/titles/x/720p.1f/init.mp4", 1000)
    box.fetch(path)
    box.appliance.stop()
    box.start(demand={"jitter": "0 s"})
    # By itself, for what the one before left.
    wait_until(lambda: box.shipped() == box.read, "what waited is shipped")


def test_nothing_is_lost_over_a_reload(box):
    box.start()
    path = box.put("/titles/x/720p.1f/init.mp4", 1000)
    box.fetch(path)
    with box.appliance.wire() as viewer:
        before = box.appliance.workers()
        box.appliance.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not set(before.values()) & set(box.appliance.workers().values()), "there are new workers")
        box.get(path)
        # One of before the reload.
        viewer.get(path)
        box.read["/titles/x/720p.1f", "hit", "requests"] += 1
        box.read["/titles/x/720p.1f", "hit", "sessions"] += 1
        box.read["/titles/x/720p.1f", "hit", "nvme"] += 1000
    wait_until(lambda: checkpointed(box) == 3, "what was read is on disk")
    box.ship()
    assert box.shipped() == box.read


def test_the_stock_says_what_there_is_room_for_and_what_is_held(box, origin, tmp_path):
    with Steering() as steering:
        box.start(steering=settings(steering, folder=tmp_path))
        stock_is_told(box, origin)


def stock_is_told(box, origin):
    title = "stock-of-one"
    published = publish(origin, title, rendition(title, 7, {"init.mp4": 1000, "seg-1.m4s": 50_000}))
    for one in published.renditions:
        for item in one.objects:
            box.fetch(item.path)

    def stock():
        box.ship()
        body = box.server.client().get_object(Bucket="films", Key=f"{box.prefix}/stock/oca-test.json")["Body"].read()
        return read_stock(body)

    found = wait_until(lambda: (told := stock()).holdings and bitmap(told.holdings) == {7} and told, "it is held")
    (device,) = found.devices
    assert (device.tier, device.standing, device.capacity_bytes) == ("nvme", "online", 1024**3)
    assert device.used_bytes > 0
    assert (found.appliance, found.pledge_share) == ("oca-test", 0.8)


def bitmap(packed):
    return set(BitMap.deserialize(packed))


def test_where_no_bucket_is_named_nothing_is_counted(appliance):
    assert appliance.status()["demand"] is None
    refused = appliance.control("POST", "/v1/demand/ship")
    assert refused.status == 409
    assert "[demand]" in refused.json()["error"]
    assert not appliance.metrics().has("oca_demand_shipped_total")
    assert not (appliance.state_dir / "demand").exists()
