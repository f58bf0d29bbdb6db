"""From places to milliseconds: an estimate of the round trip, until somebody measures it.

Light in fibre covers 200 km in a millisecond, so 100 km of it are 1 ms there and back. Cables do not run straight, and
routes do not follow the shortest cables. Inside one operator's network ITU-T (G.826, Y.1541) reckons with 1.5 times the
air route. Across networks measurement campaigns agree on 2.1 times (Bozkurt et al., "Dissecting Latency in the
Internet's Fiber Infrastructure", 2018).

The constant parts are judgements, not measurements: what it costs to leave a network through the exchange where it
meets the other, which need not lie on the way. They keep a site of another network from winning by a few kilometres.
"""

from __future__ import annotations

from enum import IntEnum
from math import asin, cos, radians, sin, sqrt
from typing import Final, NamedTuple

EARTH_RADIUS_KM: Final = 6371.0
"""The mean (IUGG); the earth is no ball, and distances are wrong by 0.5 % at most."""
KM_PER_MS: Final = 100.0
"""Of fibre, for a round trip."""


class Proximity(IntEnum):
    """How a site was found for a client, the nearest kind first. The order is that of preference, before any cost."""

    PREFIX = 0
    """It announces the client's prefix: the way to it was told by the network itself."""
    NETWORK = 1
    """Its operator has the client's autonomous system."""
    PLACE = 2
    """It serves everyone, and lies near to where a database puts the client."""
    ANYWHERE = 3
    """It serves everyone, and nobody knows where the client is."""


class Way(NamedTuple):
    """How milliseconds follow from kilometres."""

    ms: float
    inflation: float
    """Kilometres of fibre for one of the air route."""
    unknown_km: float
    """Taken as the distance where it is not known."""


WAYS: Final = {
    # A metropolitan network, if we don't know better.
    Proximity.PREFIX: Way(ms=1.0, inflation=1.5, unknown_km=100.0),
    # National carriers: somewhere in the same country.
    Proximity.NETWORK: Way(ms=3.0, inflation=1.5, unknown_km=400.0),
    # The site is near, the exchange may not be: 5 ms is a detour of 240 km.
    Proximity.PLACE: Way(ms=5.0, inflation=2.1, unknown_km=3000.0),
    # Half a continent: worse than any near site, better than another continent.
    Proximity.ANYWHERE: Way(ms=5.0, inflation=2.1, unknown_km=3000.0),
}


def great_circle_km(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """The air route between two points given in degrees (haversine: exact also for near ones)."""
    phi, other_phi = radians(latitude), radians(other_latitude)
    chord = (
        sin((other_phi - phi) / 2) ** 2 + cos(phi) * cos(other_phi) * sin(radians(other_longitude - longitude) / 2) ** 2
    )
    # Rounding may carry it past 1 between antipodes.
    return 2 * EARTH_RADIUS_KM * asin(sqrt(min(1.0, chord)))


def rtt_ms(km: float | None, proximity: Proximity) -> float:
    """The round trip to expect over this distance; None if it is not known. The client's own line is not in it: it is
    the same to every site.
    """
    way = WAYS[proximity]
    return way.ms + way.inflation * (way.unknown_km if km is None else km) / KM_PER_MS
