"""`oca-fill` as an operator types it, against a real bucket."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fill.plans import Plans
from tests.doubles.published import document, rendition
from tests.doubles.s3 import S3Server
from tests.fill.stock import row, table
from tests.fill.test_fleet import INVENTORY
from tests.fill.test_plans import KEY, made
from wire.codec import encode
from wire.demand import demand_key
from wire.orders import Phase, Progress, progress_key, public_key


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
        return subprocess.run(
            [sys.executable, "-m", "fill", command, "--config", str(self.folder / "fill.toml"), *more],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**S3Server.environment(), "COLUMNS": "200"},
        )

    def sees(self, command, *more):
        done = self.types(command, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def operator(tmp_path, bucket, s3):
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
