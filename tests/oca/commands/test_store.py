"""`oca store verify` and `oca index rebuild`: what they say of what was found. What they find has tests of its own."""

import json
import sys
from collections import Counter

import pytest

from oca.__main__ import main
from oca.commands.store import rebuilt, verified
from oca.store import rebuild, verify

SETTINGS = """\
[appliance]
id = "oca-1"
state_dir = "{folder}/state"
[origin]
url = "s3://films/catalogue"
[[device]]
path = "{folder}/disk"
tier = "nvme"
capacity = "1 GiB"
"""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    (tmp_path / "oca.toml").write_text(SETTINGS.format(folder=tmp_path))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["oca", *words, "--config", str(tmp_path / "oca.toml")])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_a_good_store_is_one_line():
    report = verify.Report(extents=3, blocks=40, bytes=160 * 1024**2)
    assert verified(report) == "3 extents looked at, 40 blocks (160.0 MiB) compared: all as it should be"


def test_each_finding_is_a_line_and_what_is_not_listed_is_counted():
    report = verify.Report(extents=3, blocks=40, bytes=0, unlabelled=2)
    report.add(verify.Finding(verify.Flaw.ROTTEN, "/a.mp4", 2, "/srv/x", "/srv/x/extents/aa: block 1 is not"))
    report.add(verify.Finding(verify.Flaw.DEVICE, "", 0, "/srv/y", "/srv/y: no device lies there"))
    report.flaws[verify.Flaw.ROTTEN] += 5
    *lines, summary = verified(report).splitlines()
    assert lines == [
        "rotten: /srv/x/extents/aa: block 1 is not (/a.mp4, extent 2)",
        "device: /srv/y: no device lies there",
        "... and 5 more",
    ]
    assert "2 extents without a label" in summary
    assert summary.endswith(": 1 device, 6 rotten")


def test_a_rebuilt_index_is_summed_up():
    report = rebuild.Report(extents=5, passed_over=1, objects=2, bytes=1024, devices=3, flaws=Counter(short=2, gone=1))
    told = rebuilt(report)
    assert told.startswith("5 extents (1.0 KiB) of 2 objects on 3 devices are in the index; 1 passed over")
    assert told.endswith("; not believed: 1 gone, 2 short")


def test_without_an_index_there_is_nothing_to_verify(run):
    code, output, errors = run("store", "verify")
    assert (code, output) == (1, "")
    assert errors.startswith("oca: ")


def test_an_index_is_rebuilt_from_devices_that_hold_nothing_and_is_good(run, tmp_path):
    (tmp_path / "disk").mkdir()
    code, output, _ = run("index", "rebuild", "--json")
    assert (code, json.loads(output)["extents"]) == (0, 0)
    code, output, _ = run("store", "verify", "--quick", "--json")
    assert (code, json.loads(output)["flaws"]) == (0, {})
    code, _, errors = run("store", "verify", "--device", str(tmp_path / "other"))
    assert code == 1
    assert "is no device of this appliance" in errors
