"""A small fleet with everybody who watches it: three appliances at two sites, an agent, steering, Prometheus."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.doubles.agents import Agent
from tests.doubles.appliance import Appliance, free_port
from tests.doubles.origin import Origin
from tests.doubles.prometheus import Prometheus, Told, running
from tests.doubles.s3 import S3Server, moto
from tests.doubles.steering import SECRET, Replica, site
from tests.doubles.steering import appliance as entry

BOXES = ("lis-1", "lis-2", "mad-1")
FILM = "/titles/film/720p.1f/seg-1.m4s"
BUCKET = "s3://films/control"


@dataclass
class Noc:
    boxes: dict[str, Appliance]
    origin: Origin
    store: S3Server
    agent: Agent
    """Beside lis-1."""
    replica: Replica
    prometheus: Prometheus
    told: Told


@contextlib.contextmanager
def noc(make: Callable[..., Appliance], folder: Path, **more: Any) -> Iterator[Noc]:
    """`more` are tables of steering's settings."""
    with contextlib.ExitStack() as stack:
        origin, store = stack.enter_context(Origin()), stack.enter_context(moto(folder))
        boxes = {name: make(origin.url, name=name, env=S3Server.environment()) for name in BOXES}
        oca = f"http://127.0.0.1:{boxes['lis-1'].control_port}"
        agent = Agent(folder / "agent", "lis-1", oca, BUCKET, store.endpoint_url)
        stack.callback(agent.stop)
        fleet = {
            "operator": [{"id": "isp", "allowed": ["85.88.128.0/19"]}],
            "site": [site("lis", "isp", 38.7, -9.1, "PT"), site("mad", "isp", 40.4, -3.7, "ES", serves="everyone")],
            "appliance": [
                entry(name, name[:3], url=box.url, metrics=f"127.0.0.1:{box.control_port}")
                for name, box in boxes.items()
            ],
        }
        fleet["appliance"][0]["agent_metrics"] = f"127.0.0.1:{agent.port}"
        token = folder / "token"
        token.write_text(SECRET)
        token.chmod(0o600)
        replica = Replica(folder / "steering", fleet)
        stack.callback(replica.kill)
        tables = {
            "listen": {"dns": f"127.0.0.1:{free_port()}"},
            "patience": {"rise": 1, "ramp": 1, "interval": 1, "quiet_after": 13, "silent_after": 14},
            **more,
        }
        replica.start(**tables)
        for box in boxes.values():
            to_whom = {"urls": [f"http://127.0.0.1:{replica.fleet_port}"], "token_file": str(token), "interval": "1 s"}
            box.launch(
                listen={"workers": 1},
                breaker={"min_calls": 10, "open_for": "5 s"},
                steering=to_whom | {"interfaces": ["lo"], "link_speed": "10 Gbit/s"},
                demand={"bucket": BUCKET, "endpoint_url": store.endpoint_url, "region": "us-east-1"},
            )
        for box in boxes.values():
            box.wait_ready()
        agent.start().wait_up()
        origin.put(FILM, 10_000)
        prometheus, told = stack.enter_context(running(folder, replica.admin_port))
        yield Noc(boxes, origin, store, agent, replica, prometheus, told)
