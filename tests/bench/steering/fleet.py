"""A fleet as large as it gets: 5,000 sites, 20,000 appliances, a million prefixes. The same each time."""

from __future__ import annotations

import hashlib
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from steering.fleet import MemberState
from steering.inventory import Appliance, Change, Operator, PutAppliance, PutOperator, PutSite, Serves, Site
from steering.snapshot import save
from steering.standing import Standing

TOKEN: Final = "bench"
_COUNTRIES: Final = ("PT", "ES", "FR", "DE", "IT", "PL", "SE", "BR", "US", "JP")


@dataclass(frozen=True)
class Size:
    operators: int = 1_000
    sites: int = 5_000
    appliances: int = 4
    """At each site."""
    prefixes: int = 200
    """Announced by each site, /24s that lie together in fours."""


def changes(size: Size, seed: int = 1) -> list[Change]:
    """The whole inventory. A tenth of the sites is open to everyone."""
    dice = random.Random(seed)
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    made: list[Change] = [PutOperator(Operator(id=f"isp-{n}", asns=(n + 1,))) for n in range(size.operators)]
    for n in range(size.sites):
        made.append(
            PutSite(
                Site(
                    id=f"site-{n}",
                    operator=f"isp-{n % size.operators}",
                    latitude=dice.uniform(-55, 65),
                    longitude=dice.uniform(-180, 180),
                    country=dice.choice(_COUNTRIES),
                    serves=Serves.EVERYONE if n % 10 == 0 else Serves.NETWORK,
                    prefixes=tuple(prefix(n * size.prefixes + m) for m in range(size.prefixes)),
                )
            )
        )
        made += [
            PutAppliance(
                Appliance(
                    id=f"a-{n}-{m}",
                    site=f"site-{n}",
                    url=f"https://a-{n}-{m}.edge.example",
                    ipv4=(f"198.18.{n % 250}.{m + 1}",),
                    token_sha256=digest,
                )
            )
            for m in range(size.appliances)
        ]
    return made


def prefix(number: int) -> str:
    """The numberth /24 from 16.0.0.0 upward."""
    return f"{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.0/24"


def address(number: int) -> str:
    """One in the numberth prefix."""
    return f"{16 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.77"


def states(size: Size, seed: int = 2) -> tuple[MemberState, ...]:
    """Everybody serves, each with a load of its own."""
    dice = random.Random(seed)
    return tuple(
        MemberState(
            appliance=f"a-{n}-{m}",
            standing=Standing.SERVING,
            since=0.0,
            utilisation=dice.uniform(0.05, 0.6),
            capacity_bps=100_000_000_000,
            hit_ratio=dice.uniform(0.8, 0.98),
        )
        for n in range(size.sites)
        for m in range(size.appliances)
    )


async def saved(path: Path, size: Size) -> None:
    """As a replica leaves its view when it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    await save(path, states(size), time.time())


def settings(folder: Path, public: int, fleet: int, admin: int, dns: int) -> str:
    """TOML for a replica whose limits and log do not stand in the way."""
    return f"""
[steering]
id = "bench"
state_dir = {json.dumps(str(folder / "state"))}
[listen]
base_url = "https://steer.example"
public = "127.0.0.1:{public}"
fleet = "127.0.0.1:{fleet}"
admin = "127.0.0.1:{admin}"
dns = "127.0.0.1:{dns}"
[content]
origin = "https://origin.example"
[turn_up]
required = false
[limits]
trusted_proxies = ["127.0.0.1/32"]
rate = 1000000
burst = 1000000
lag = "10 s"
[dns]
zone = "steer.example.net"
hostmaster = "people@example.net"
rate_limit = 1000000
[[dns.name_servers]]
name = "ns1.steer.example.net"
addresses = ["127.0.0.1"]
"""
