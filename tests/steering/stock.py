"""Sites, appliances and heartbeats for tests: what matters is named, the rest is ordinary."""

from types import SimpleNamespace

from steering.inventory import Appliance, Inventory, Operator, PutAppliance, PutOperator, PutSite, Serves, Site, apply
from steering.ranking import Candidate, Proximity
from wire.heartbeat import Heartbeat
from wire.toml import BitsPerSecond

GBIT = 10**9


def operator(name="isp", **fields):
    return Operator(id=name, **fields)


def site(name="lisbon", **fields):
    plain = {"operator": "isp", "latitude": 38.7, "longitude": -9.1, "country": "PT"}
    return Site(id=name, **{**plain, **fields})


def appliance(name="a1", at="lisbon", **fields):
    if "capacity" in fields:
        fields["capacity"] = BitsPerSecond(fields["capacity"])
    return Appliance(id=name, site=at, **{"url": f"https://{name}.edge.example", **fields})


def inventory(*entries, **sites):
    """Of these entries, and of `name=[appliances]` for ordinary sites that serve everyone."""
    if not any(isinstance(entry, Operator) for entry in entries):
        entries = (operator(asns=(64500,)), *entries)
    declared = [site(name, serves=Serves.EVERYONE) for name in sites]
    boxes = [appliance(box, name) for name, inside in sites.items() for box in inside]
    puts = {Operator: PutOperator, Site: PutSite, Appliance: PutAppliance}
    return apply(Inventory(), *(puts[type(entry)](entry) for entry in (*entries, *declared, *boxes)))


def heartbeat(name="a1", sequence=1, **fields):
    plain = {"boot": "b1", "sent_at": 0.0, "ready": True, "link_bps": 100 * GBIT, "connections": 10}
    return Heartbeat(appliance=name, sequence=sequence, **{**plain, **fields})


def candidate(name="a1", **fields):
    """A row for the ranking: idle, near, of 10 Gbit/s, whose contents nobody knows."""
    plain = {
        "site": "lisbon",
        "proximity": Proximity.PLACE,
        "rtt": 10.0,
        "utilisation": 0.0,
        "weight": 10.0,
        "hit_ratio": 0.5,
        "held": 0.0,
        "mix": sum(ord(letter) << 8 * (place % 8) for place, letter in enumerate(name)),
        "bar": None,
    }
    return Candidate(appliance=name, **{**plain, **fields})


def where(sites=(), asn=None, country=None, place=(None, None), network=None, scope=24):
    """What the locator says of a client."""
    latitude, longitude = place
    return SimpleNamespace(
        sites=tuple(sites),
        asn=asn,
        country=country,
        latitude=latitude,
        longitude=longitude,
        network=network,
        scope=scope,
    )
