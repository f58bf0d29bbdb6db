"""What each machine shows to Prometheus, as the document that people read: `make metrics` writes it anew.

It is taken from processes that run, with every part switched on.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from admin.demo.login import write_signing_key
from tests.doubles.agents import Agent
from tests.doubles.appliance import Appliance, free_port, wait_until
from tests.doubles.authority import Authority
from tests.doubles.origin import Origin
from tests.doubles.s3 import S3Server, moto
from tests.doubles.steering import SECRET, Replica, site
from tests.doubles.steering import appliance as entry
from tests.doubles.viewers import AUDIENCE, ISSUER, LoginService

DOCUMENT = Path(__file__).parents[2] / "admin" / "dashboards" / "METRICS.md"
RECORDER = Path(__file__).parent / "recorder"
_HEAD = """\
# Metrics

Made by `make metrics` from what running processes show; a test compares. All names begin with `oca_`, units are base
units (seconds, bytes, ratios from 0 to 1), moments are seconds since 1970 and end in `_timestamp_seconds`. Labels come
from closed sets, from settings or from the inventory, never from a request; some are there only when something was
counted under them. What stands here as `histogram` has `_bucket`, `_sum` and `_count`.
"""
_MACHINES = {
    "appliance": "Appliance (`oca serve`, at `listen.control`)",
    "agent": "Fill agent (`oca-fill agent`, at `listen`)",
    "steering": "Steering (`oca-steering serve`, at `listen.admin`)",
}


class Described(NamedTuple):
    """One family. `name` is as a query has it."""

    name: str
    type: str
    words: str
    labels: tuple[str, ...]


def described(folder: Path) -> dict[str, list[Described]]:
    """Of each machine what it shows, sorted by name. Works in this folder; processes inherit our environment."""
    records = folder / "records"
    records.mkdir()
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "OCA_METRICS_RECORD")}
    os.environ |= {"PYTHONPATH": str(RECORDER), "OCA_METRICS_RECORD": str(records)}
    try:
        with ExitStack() as stack:
            return {machine: _recorded(records) for machine in _scraped(stack, folder)}
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def document(machines: dict[str, list[Described]]) -> str:
    text = [_HEAD]
    for machine, title in _MACHINES.items():
        text.append(f"\n## {title}\n\n| metric | type | labels | what it says |\n|---|---|---|---|\n")
        for one in machines[machine]:
            labels = ", ".join(f"`{label}`" for label in one.labels)
            text.append(f"| `{one.name}` | {one.type} | {labels} | {one.words} |\n")
    return "".join(text)


def _recorded(records: Path) -> list[Described]:
    """What was written since it was read last."""
    found = set()
    for path in records.iterdir():
        for name, kind, words, labels in json.loads(path.read_text()):
            suffix = {"counter": "_total", "info": "_info"}.get(kind, "")
            found.add(Described(name + suffix, kind, words, tuple(labels)))
        path.unlink()
    return sorted(found)


def _scraped(stack: ExitStack, folder: Path) -> Iterator[str]:
    """Start each machine, have it show its metrics, and say which it was."""
    origin = stack.enter_context(Origin())
    store = stack.enter_context(moto(folder))
    token = folder / "token"
    token.write_text(SECRET)
    token.chmod(0o600)
    login = LoginService()
    origin.put("/jwks.json", login.key_set())
    write_signing_key(_made(folder / "keys") / "one.pem")
    box = Appliance(folder / "box", origin.url, name="box", env=S3Server.environment())
    stack.callback(box.kill_all)
    fleet = {"operator": [{"id": "isp"}], "site": [site("lis", "isp", 38.7, -9.1, "PT")]}
    replica = Replica(folder / "steering", fleet | {"appliance": [entry("box", "lis", url=box.url)]})
    stack.callback(replica.kill)
    replica.start(
        listen={"dns": f"127.0.0.1:{free_port()}"},
        content={"catalogue": origin.url},
        playback={"keys": f"{origin.url}/jwks.json", "issuer": ISSUER, "audience": AUDIENCE},
        tokens={"folder": str(folder / "keys"), "issuer": "steer"},
        dns={
            "zone": "films.example",
            "hostmaster": "noc@films.example",
            "name_servers": [{"name": "ns.example"}],
        },
    )
    pair = Authority(folder).sign("box", "pair.pem")
    box.start(
        listen={"https": f"127.0.0.1:{box.tls_port}"},
        certificate=[{"cert": pair, "key": pair}],
        steering={
            "urls": [f"http://127.0.0.1:{replica.fleet_port}"],
            "token_file": str(token),
            "interval": "1 s",
            "interfaces": ["lo"],
        },
        demand={"bucket": "s3://films/control", "endpoint_url": store.endpoint_url, "region": "us-east-1"},
    )
    wait_until(lambda: "oca_cpu_ratio" in box.metrics().text, "a heartbeat was made")
    assert box.metrics().families
    yield "appliance"
    oca = f"http://127.0.0.1:{box.control_port}"
    agent = Agent(folder / "agent", "box", oca, "s3://films/control", store.endpoint_url)
    agent.env = {name: os.environ[name] for name in ("PYTHONPATH", "OCA_METRICS_RECORD")}
    stack.callback(agent.stop)
    agent.start().wait_up()
    assert agent.metrics()
    yield "agent"
    assert replica.admin("GET", "/metrics").status == 200
    yield "steering"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory(prefix="oca-metrics-") as name:
        DOCUMENT.write_text(document(described(Path(name))))
