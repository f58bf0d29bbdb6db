"""`oca-fill` as an operator types it, against a real bucket."""

import contextlib
import io
import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pyroaring import BitMap

from fill.__main__ import main
from fill.plans import Plans
from tests.doubles.published import document, rendition
from tests.doubles.s3 import S3Server
from tests.fill.stock import row, table
from tests.fill.test_fleet import INVENTORY
from tests.fill.test_plans import KEY, made
from wire.codec import encode
from wire.demand import Stock, demand_key, stock_key
from wire.heartbeat import DeviceState
from wire.orders import FillOrder, Phase, Progress, opened, order_key, progress_key, public_key


class Operator:
    def __init__(self, folder, bucket, endpoint_url):
        self.folder = folder
        self.bucket = bucket
        (folder / "inventory.json").write_text(json.dumps(INVENTORY))
        (folder / "fill.toml").write_text(
            f"""
            state_dir = "{folder}"
            [control]
            bucket = "{bucket.url}"
            endpoint_url = "{endpoint_url}"
            [fleet]
            file = "{folder}/inventory.json"
            [signing]
            key = "{folder}/key.pem"
            kid = "k"
            """
        )

    def types(self, command, *more):
        """In this process: to load what plans takes two seconds each time. Others start the program itself."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main([command, "--config", str(self.folder / "fill.toml"), *more])
            except SystemExit as end:
                code = end.code or 0
        return subprocess.CompletedProcess([command, *more], code, out.getvalue(), err.getvalue())

    def sees(self, command, *more):
        done = self.types(command, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def operator(tmp_path, bucket, s3, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return Operator(tmp_path, bucket, s3.endpoint_url)


def test_what_a_plan_is_made_of_is_brought_here(operator, tmp_path):
    operator.bucket.write("catalogue/titles/film.json", encode(document("film", rendition("film", 1, {"x": 10}))))
    path = tmp_path / "hour.parquet"
    pq.write_table(table("2026-11-25", 3, "l1", row(bytes=5)), path)
    operator.bucket.write(demand_key("2026-11-25", 3, "l1"), path.read_bytes())
    operator.sees("sync")
    lake = tmp_path / "lake"
    assert pq.read_table(lake / "catalogue/renditions.parquet")["folder"].to_pylist() == ["/titles/film/video.0001"]
    assert len(json.loads((lake / "fleet.json").read_bytes())["appliances"]) == 2


def test_demand_of_an_empty_bucket_is_said_to_be_none(operator):
    assert "no appliance has written its demand yet" in operator.sees("demand")


def test_a_plan_is_listed_shown_applied_and_followed(operator):
    plans = Plans(operator.bucket)
    assert "there is no plan" in operator.sees("plans")
    record = made(plans)
    assert "2026-11-25/1  2 orders, 2 renditions, 140 B\n" in operator.sees("plans")
    assert operator.sees("show") == "well\n"
    assert "/titles/t/v" in operator.sees("show", "2026-11-25/1", "--appliance", "a1")
    assert "no plan is applied" in operator.sees("status")
    assert "2 orders" in operator.sees("apply")
    assert "140 B  applied" in operator.sees("plans")
    said = Progress(appliance="a1", at=0.0, phase=Phase.WORKING, order_bytes=2000, done_bytes=1000)
    operator.bucket.write(progress_key("a1"), encode(said))
    status = operator.sees("status")
    assert "never heard" in status
    assert "1.0 kB" in status
    assert plans.applied().name == record.name


def test_mistakes_end_with_a_sentence_and_a_code_of_their_own(operator):
    nothing = operator.types("show")
    assert (nothing.returncode, nothing.stderr) == (3, "oca-fill: there is no plan\n")
    wrong = operator.types("show", "yesterday")
    assert wrong.returncode == 2
    assert "allowed: a plan such as 2026-11-25/1" in wrong.stderr
    (operator.folder / "fill.toml").write_text("state_dir = 3\n")
    broken = operator.types("plans")
    assert broken.returncode == 2
    assert "line 1" in broken.stderr


def test_a_key_is_made_once_and_what_agents_need_is_printed(tmp_path):
    def make():
        return subprocess.run(
            [sys.executable, "-m", "fill", "keygen", str(tmp_path / "key.pem")],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = make()
    key = load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert public_key(done.stdout.rpartition(" = ")[2].strip().strip('"')) == key.public_key() != KEY.public_key()
    again = make()
    assert (again.returncode, "File exists" in again.stderr) == (2, True)


class Fleet:
    """What a plan is made of, in the bucket."""

    def __init__(self, operator, tmp_path):
        self.bucket = operator.bucket
        self.scratch = tmp_path / "scratch.parquet"
        self.folders = {}
        pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (operator.folder / "key.pem").write_bytes(pem)

    def title(self, title, number):
        made = rendition(title, number, {"seg-1": 1000, "seg-2": 1000})
        self.folders[title] = made.objects[0].path.rpartition("/")[0]
        one = document(title, made)
        self.bucket.write(f"catalogue/titles/{title}.json", encode(one))

    def watched(self, date, appliance, title, count):
        pq.write_table(table(date, 20, appliance, row(self.folders[title], bytes=count)), self.scratch)
        self.bucket.write(demand_key(date, 20, appliance), self.scratch.read_bytes())

    def stock(self, appliance, room=3000, held=()):
        device = DeviceState(id="d", tier="hdd", standing="online", capacity_bytes=room, used_bytes=0)
        one = Stock(appliance=appliance, at=1.0, devices=(device,), pledge_share=1.0, holdings=BitMap(held).serialize())
        self.bucket.write(stock_key(appliance), encode(one))


@pytest.fixture
def planned(operator, tmp_path):
    """Two titles; one is watched at each of two appliances, which have room for one."""
    fleet = Fleet(operator, tmp_path)
    for number, title in enumerate(("film", "other")):
        fleet.title(title, number)
    first, second = (one["id"] for one in INVENTORY["appliance"])
    for appliance in (first, second):
        fleet.stock(appliance)
        fleet.watched("2026-11-20", appliance, "film", 9000)
    return fleet


def test_a_night_is_planned_shown_and_applied(operator, planned):
    said = operator.sees("plan", "--night", "2026-11-21")
    assert "Night of 2026-11-21: 2 appliances" in said
    plans = Plans(operator.bucket)
    record = plans.latest()
    assert (record.night, record.version) == ("2026-11-21", 1)
    assert [bring.title for bring in plans.order(record, "l1").bring] == ["film"]
    assert plans.file(record.name, "served.png")[:4] == b"\x89PNG"
    assert plans.applied() is None
    operator.sees("apply")
    body = operator.bucket.read(order_key("l1"), 10**6)
    assert opened(body, {"k": KEY.public_key()}, FillOrder) == plans.order(record, "l1")


def test_a_dry_run_writes_nothing_but_what_it_is_told_to(operator, planned, tmp_path):
    said = operator.types("plan", "--night", "2026-11-21", "--dry-run", "--json", "--out", str(tmp_path / "out"))
    assert said.returncode == 0, said.stderr
    assert "this was a dry run" in said.stderr
    assert json.loads(said.stdout)["night"] == "2026-11-21"
    assert Plans(operator.bucket).names() == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "moved.png", "report.json", "report.txt", "served.png",
    ]  # fmt: skip


def test_a_plan_can_be_made_anew_without_the_bucket_being_asked(operator, planned):
    operator.sees("sync")
    planned.watched("2026-11-20", "l1", "other", 10**9)
    with_old = operator.sees("plan", "--night", "2026-11-21", "--dry-run", "--offline")
    with_new = operator.sees("plan", "--night", "2026-11-21", "--dry-run")
    assert with_old != with_new


def test_two_plans_are_compared(operator, planned):
    operator.sees("plan", "--night", "2026-11-21")
    assert "from nothing to 2026-11-21 version 1" in operator.sees("diff")
    operator.sees("apply")
    planned.stock("l1", held=[0])
    for date in ("2026-11-21", "2026-11-20"):
        for appliance in ("l1", "p1"):
            planned.watched(date, appliance, "other", 10**9)
    operator.sees("plan", "--night", "2026-11-22")
    said = operator.sees("diff")
    assert "from 2026-11-21 version 1 to 2026-11-22 version 1" in said
    assert "gain most: other" in said


def test_an_urgent_title_is_ordered_at_once_from_all_or_some(operator, planned):
    said = operator.sees("urgent", "--title", "other")
    assert "2 appliances were told to bring 4.0 kB in all" in said
    operator.sees("urgent", "--title", "film", "--appliance", "p1", "--days", "2")
    waiting = [list(operator.bucket.entries(f"fill/orders/{name}/urgent/")) for name in ("l1", "p1")]
    assert [len(some) for some in waiting] == [1, 2]
    order = opened(operator.bucket.read(waiting[0][0].key, 10**6), {"k": KEY.public_key()}, FillOrder)
    assert order.is_urgent
    assert order.release == ()
    assert [bring.title for bring in order.bring] == ["other"]


def test_the_operators_tool_urges_as_well(operator, planned):
    config = str(operator.folder / "fill.toml")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "admin",
            "fill",
            "--urgent",
            "film",
            "--config",
            config,
            "--site",
            "lisbon",
            "--days",
            "2",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**S3Server.environment(), "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    assert "film: 1 appliances were told" in done.stdout
    assert len(list(operator.bucket.entries("fill/orders/l1/urgent/"))) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("urgent", "--title", "nobody"), "nobody is in no catalogue"),
        (("urgent", "--title", "film", "--rendition", "8k"), "has no rendition '8k'; it has"),
        (("urgent", "--title", "film", "--site", "mars"), "'mars' is no site"),
        (("urgent", "--title", "film", "--appliance", "x"), "'x' is no appliance"),
        (("plan", "--night", "tomorrow"), "allowed: a date such as"),
    ],
)
def test_what_can_not_be_ordered_is_named(operator, planned, given, says):
    done = operator.types(*given)
    assert done.returncode in (2, 3)
    assert says in done.stderr


def test_without_a_key_nothing_is_planned(operator):
    done = operator.types("plan", "--night", "2026-11-21")
    assert done.returncode == 2
    assert "signing.key" in done.stderr
