"""A region fills itself: eight appliances in network namespaces, an origin, and how often each byte crosses its link.

Two appliances at the exchange, which the others have for a parent, and two at each of three sites behind it. All are
ordered to hold all of the films; the origin is an S3 server in the middle.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

from fill.bucket import Bucket
from tests.bench.fill.orders import Library
from tests.bench.machine import BenchError
from tests.bench.report import reached
from tests.doubles.agents import Agent
from tests.doubles.appliance import Appliance
from tests.doubles.networks import connect, lacking, machine
from tests.doubles.s3 import S3Server

MOST: float = 1.1
_SITES = ("ixp", "ixp", "lisbon", "lisbon", "porto", "porto", "braga", "braga")
_FILMS = 12
_OBJECTS = (6 << 20, 6 << 20, 6 << 20, 6 << 20, 6 << 20)


def measure(folder: Path) -> dict:
    if os.geteuid() or (missing := lacking()):
        raise BenchError(f"namespaces can't be made: {missing if not os.geteuid() else 'only root may'}")
    films = Library()
    for at in range(_FILMS):
        films.make(f"film-{at}", _OBJECTS)
    os.environ.update(S3Server.environment())
    with contextlib.ExitStack() as stack:
        centre = stack.enter_context(machine())
        centre.forward()
        boxes: dict[str, tuple[Appliance, object]] = {}
        places: dict[str, tuple[str, str]] = {}
        homes = {}
        for number, site in enumerate(_SITES, start=1):
            name = f"{site}-{1 + number % 2}"
            home = homes[name] = stack.enter_context(machine())
            connect(centre, home, [f"10.9.{number}.1/30"], [f"10.9.{number}.2/30"])
            home.route("default", f"10.9.{number}.1")
            places[name] = (site, f"http://10.9.{number}.2:8080")
        with centre.entered():
            server = stack.enter_context(_s3(folder))
            bucket = Bucket("s3://films", "http://10.9.1.1:9000")
            for path, content in (films.contents | films.documents).items():
                server.put(path.lstrip("/"), content)
        for number, (name, home) in enumerate(homes.items(), start=1):
            box = Appliance(folder / name, "s3://films", name=name, env=S3Server.environment())
            stack.callback(box.kill_all)
            parents = [] if places[name][0] == "ixp" else [{"url": places["ixp-2"][1]}]
            with home.entered():
                box.launch(
                    origin={"endpoint_url": f"http://10.9.{number}.1:9000", "region": "us-east-1"},
                    listen={"http": "0.0.0.0:8080", "workers": 1},
                    parents=parents,
                )
            boxes[name] = box, home
        for box, home in boxes.values():
            with home.entered():
                box.wait_ready()
        with centre.entered():
            films.order(bucket, places, "ixp")
        began = time.monotonic()
        agents = []
        for number, (name, (box, home)) in enumerate(boxes.items(), start=1):
            agent = Agent(
                folder / f"agent-{name}",
                name,
                f"http://127.0.0.1:{box.control_port}",
                "s3://films",
                f"http://10.9.{number}.1:9000",
                rate={"most": "10 Gbit/s"},
                pause="500 ms",
            )
            with home.entered():
                agents.append(agent.start("--once"))
        for agent in agents:
            stack.callback(agent.stop)
        for agent in agents:
            assert agent.process is not None
            if agent.process.wait(600):
                raise BenchError(f"an agent failed:\n{agent.told()[-2000:]}")
        seconds = time.monotonic() - began
        came = {"origin": 0.0, "parent-1": 0.0, "peer": 0.0}
        for box, home in boxes.values():
            with home.entered():
                metrics = box.metrics()
                for source in came:
                    came[source] += metrics.value("oca_fetch_bytes_total", source=source)
    if not came["origin"]:
        raise BenchError("nothing came from the origin: what is counted here is not what it was")
    return {"unique": films.bytes, "appliances": len(boxes), "seconds": seconds, **came}


@contextlib.contextmanager
def _s3(folder: Path):
    """Where it can be reached from all namespaces."""
    command = [sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", "9000"]
    log = folder / "moto.log"
    server = S3Server(command, 9000, log)
    try:
        server.wait_up()
        server.client().create_bucket(Bucket="films")
        yield server
    finally:
        server.end()


def told(row: dict) -> str:
    ratio = row["origin"] / row["unique"]
    whole = row["origin"] + row["parent-1"] + row["peer"]
    return (
        f"{row['appliances']} appliances at 4 sites, {row['unique'] / 1e6:,.0f} MB of films ordered at each, in"
        f" {row['seconds']:.0f} s\n"
        f"came from the origin {row['origin'] / 1e6:,.0f} MB, from the parent {row['parent-1'] / 1e6:,.0f} MB, from"
        f" peers {row['peer'] / 1e6:,.0f} MB; of {whole / 1e6:,.0f} MB\n"
        f"{reached(ratio, MOST)}: origin bytes / unique bytes ordered {ratio:.3f} (<= {MOST})"
    )
