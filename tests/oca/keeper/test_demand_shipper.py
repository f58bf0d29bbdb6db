"""What ships demand, against a real S3 server: each part gets into its hour's object once, whatever lies there."""

import fcntl
import io
import os
import subprocess
import sys

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oca.keeper.demand_shipper import ARROW_SCHEMA, packed, ship
from oca.keeper.shipping import HourShipped, NotShipped, Order, PartUnreadable, StockShipped, Told
from oca.report.demand import COUNTS, Part, encode_part, key_of, part_name
from tests.doubles.appliance import free_port
from tests.doubles.s3 import S3Server, moto, rclone
from wire.demand import COLUMNS

HOUR = 494_444
KEY = key_of(HOUR, "box")
A = {"/titles/x/a": [5, 2, 100, 20, 3, 1, 4, 1, 60]}
B = {"/titles/x/a": [1, 0, 7, 0, 0, 0, 0, 0, 0], "/titles/y/b": [0, 0, 0, 0, 0, 0, 1, 1, 9]}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with moto(tmp_path_factory.mktemp("moto")) as one, rclone(tmp_path_factory.mktemp("rclone")) as other:
        yield {"moto": one, "rclone": other}


class Box:
    """A spool, and what the bucket has."""

    def __init__(self, folder, server, prefix):
        self.folder = folder
        self.server = server
        self.prefix = prefix
        (folder / "stock.json").write_bytes(b'{"it": "lives"}')

    def part(self, identity, folders, hour=HOUR):
        name = part_name(hour, identity)
        (self.folder / name).write_bytes(encode_part(Part(identity, hour, folders)))
        return name

    def order(self, *parts, endpoint_url=None):
        return Order(
            appliance="box",
            folder=str(self.folder),
            parts=parts,
            stock="stock.json",
            bucket=f"s3://films/{self.prefix}",
            endpoint_url=endpoint_url or self.server.endpoint_url,
            region="us-east-1",
        )

    def ship(self, *parts, **where):
        return list(ship(self.order(*parts, **where)))

    def get(self, key=KEY):
        return self.server.client().get_object(Bucket="films", Key=f"{self.prefix}/{key}")["Body"].read()

    def put(self, key, body):
        self.server.put(f"{self.prefix}/{key}", body)

    def rows(self, key=KEY):
        """By folder and outcome: requests, plays, bytes."""
        table = pq.read_table(io.BytesIO(self.get(key))).to_pylist()
        return {
            (row["folder"].removeprefix("/titles/"), row["outcome"]): (row["requests"], row["sessions"], row["bytes"])
            for row in table
        }


@pytest.fixture(params=["moto", "rclone"])
def box(servers, request, tmp_path, monkeypatch):
    for name, value in S3Server.environment().items():
        monkeypatch.setenv(name, value)
    return Box(tmp_path, servers[request.param], tmp_path.name)


def test_an_hour_lies_at_its_key_with_the_columns_that_were_agreed(box):
    told = box.ship(box.part("aa", A))
    assert told == [StockShipped("stock/box.json"), HourShipped(KEY, (part_name(HOUR, "aa"),))]
    assert box.get("stock/box.json") == b'{"it": "lives"}'
    assert box.rows() == {("x/a", "hit"): (5, 2, 124), ("x/a", "miss"): (4, 1, 60)}
    written = pq.read_table(io.BytesIO(box.get())).schema
    assert [field.name for field in written] == [name for name, _ in COLUMNS]
    # Parquet has no seconds.
    assert written.set(1, ARROW_SCHEMA.field(1)) == ARROW_SCHEMA
    assert written.field(1).type == pa.timestamp("ms", tz="UTC")


def test_parts_of_an_hour_become_one_object_and_hours_one_each(box):
    names = [box.part("aa", A), box.part("bb", B), box.part("cc", B, HOUR + 1)]
    told = box.ship(*reversed(names))
    assert told[1:] == [HourShipped(KEY, tuple(names[:2])), HourShipped(key_of(HOUR + 1, "box"), (names[2],))]
    assert box.rows() == {("x/a", "hit"): (6, 2, 131), ("x/a", "miss"): (4, 1, 60), ("y/b", "miss"): (1, 1, 9)}


def test_what_comes_later_for_an_hour_is_added_to_what_lies_there(box):
    box.ship(box.part("aa", A))
    box.ship(box.part("bb", B))
    assert box.rows()["x/a", "hit"] == (6, 2, 131)


def test_a_part_that_the_bucket_had_already_is_not_added_again(box):
    """As when we were killed after the bucket had confirmed it, and before the keeper heard."""
    one = box.part("aa", A)
    box.ship(one)
    before = box.get()
    assert box.ship(one)[1:] == [HourShipped(KEY, (one,))]
    assert box.get() == before
    box.ship(one, box.part("bb", B))
    assert box.rows()["x/a", "hit"] == (6, 2, 131)


@pytest.mark.parametrize("strange", [b"", b"PAR1 not", b"{}"])
def test_what_is_not_ours_is_not_overwritten_and_other_hours_go_on(box, strange):
    box.put(KEY, strange)
    later = box.part("bb", B, HOUR + 1)
    told = box.ship(box.part("aa", A), later)
    assert [type(one) for one in told] == [StockShipped, NotShipped, HourShipped]
    assert KEY in told[1].reason
    assert box.get() == strange


def test_what_a_later_version_wrote_is_not_overwritten(box):
    table = pq.read_table(io.BytesIO(packed("box", HOUR, A, {"zz"})))
    later = table.set_column(0, "schema", pa.array([2, 2], pa.int32()))
    sink = io.BytesIO()
    pq.write_table(later, sink)
    box.put(KEY, sink.getvalue())
    (_, told) = box.ship(box.part("aa", A))
    assert "later than ours" in told.reason
    assert box.get() == sink.getvalue()


def test_a_file_that_is_not_what_was_written_is_told_and_holds_up_no_other(box):
    broken = box.part("aa", A)
    (box.folder / broken).write_bytes((box.folder / broken).read_bytes()[:-3])
    good = box.part("bb", B)
    _, unreadable, shipped = box.ship(broken, good)
    assert isinstance(unreadable, PartUnreadable)
    assert unreadable.part == broken
    assert shipped == HourShipped(KEY, (good,))


def test_a_bucket_that_is_away_is_told_in_words(box):
    (told,) = box.ship(box.part("aa", A), endpoint_url=f"http://127.0.0.1:{free_port()}")
    assert isinstance(told, NotShipped)
    assert "stock/box.json can't be written" in told.reason


def test_who_may_not_write_is_told(servers, tmp_path, monkeypatch):
    for name, value in S3Server.environment(secret="wrong").items():
        monkeypatch.setenv(name, value)
    box = Box(tmp_path, servers["rclone"], "denied")
    (told,) = box.ship(box.part("aa", A))
    assert isinstance(told, NotShipped)


def test_an_hour_of_very_many_folders_is_shipped_whole(box):
    folders = {f"/titles/{number}/720p.{number:08x}": [1] * COUNTS for number in range(20_000)}
    box.ship(box.part("aa", folders))
    assert pq.read_table(io.BytesIO(box.get())).num_rows == 40_000


def test_two_do_not_ship_at_once(box):
    """One of a keeper that was killed may still be at it."""
    with (box.folder / "shipper.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [sys.executable, "-m", "oca.keeper.demand_shipper", "--keeper", str(os.getpid())],
            input=msgspec.json.encode(box.order(box.part("aa", A))),
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert msgspec.json.decode(done.stdout, type=Told) == NotShipped("another process is still shipping")
