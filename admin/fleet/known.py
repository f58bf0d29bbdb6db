"""What steering and appliances say, as far as the commands show it; and what follows from it. Pure."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct, field

from admin.errors import UsageError

SERVING: Final = "serving"
UNPROVEN: Final = "unproven"
_RESTING: Final = ("draining", "drained", "disabled")


class Window(Struct, frozen=True):
    """Planned maintenance, in seconds since 1970."""

    start: float
    stop: float
    forced: bool = False


class Proof(Struct, frozen=True):
    """What its last turn-up checks found. Moments are seconds since 1970."""

    at: float
    passed: bool
    passed_at: float | None = None
    version: str = ""
    failed: tuple[str, ...] = ()
    by: str = ""


class Learned(Struct, frozen=True):
    """What steering accepted of the prefixes that an appliance learned by BGP."""

    accepted: int
    digest: str
    """Equal sets have equal ones."""
    rejected: dict[str, int] = {}


class Member(Struct, frozen=True):
    """One appliance as steering sees it (GET /v1/fleet)."""

    id: str
    site: str
    url: str
    wish: str
    standing: str
    heard: float | None = None
    """Seconds since its last heartbeat."""
    utilisation: float = 0.0
    """Of what is scarcest: network, connections or processors."""
    load_bps: float = field(name="egress_bps", default=0.0)
    capacity_bps: float = 0.0
    hit_ratio: float | None = None
    clock_offset: float = 0.0
    is_clock_off: bool = False
    maintenance: tuple[Window, ...] = ()
    resting: bool = False
    """In one of these."""
    put_off: str | None = None
    """Why maintenance that should have begun has not."""
    reasons: tuple[str, ...] = ()
    """Why it is not ready, in its own words."""
    bar: str | None = None
    """Why it gets no new viewers."""
    proof: Proof | None = None
    prefixes: Learned | None = None

    @property
    def trouble(self) -> str:
        """Why it is not well; empty if it is, or if it rests as it was told to."""
        if self.standing == SERVING:
            if self.put_off is not None:
                return f"its maintenance waits: {self.put_off}"
            if self.is_clock_off:
                return "its clock is off"
            return f"its turn-up checks fail: {self._failed}" if self._failed else ""
        if self.standing in _RESTING and (self.resting or self.wish != "serve"):
            return ""
        if self.bar == UNPROVEN:
            found = f"its turn-up checks fail: {self._failed}" if self._failed else "it was not turned up yet"
            return f"no viewers before oca-admin turn-up passes: {found}"
        own = f" ({'; '.join(self.reasons)})" if self.reasons else ""
        return f"{self.standing}{own}, heard {'never' if self.heard is None else f'{self.heard:.0f} s ago'}"

    @property
    def _failed(self) -> str:
        return "" if self.proof is None else ", ".join(self.proof.failed)


class Fleet(Struct, frozen=True):
    appliances: tuple[Member, ...]
    panic_since: float | None = None
    inventory: int = -1
    """The version of the inventory that it goes by."""


class Place(Struct, frozen=True):
    """A site of the inventory."""

    id: str
    operator: str
    country: str | None = None
    name: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    serves: str = "network"
    prefixes: tuple[str, ...] = ()
    """That it announces by declaration."""


class Box(Struct, frozen=True):
    """An appliance of the inventory. `metrics` is its control listener, as host:port."""

    id: str
    site: str
    metrics: str | None = None
    agent_metrics: str | None = None
    """Of its fill agent."""
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    capacity: float | None = None
    """Bits a second that it may send; None: what its network cards say."""


class Inventory(Struct, frozen=True):
    version: int
    site: tuple[Place, ...] = ()
    appliance: tuple[Box, ...] = ()


class SiteRow(Struct, frozen=True):
    """A site with all of its appliances."""

    id: str
    operator: str
    country: str | None
    appliances: int
    serving: int
    capacity_bps: float
    """Of those that serve."""
    load_bps: float
    troubles: tuple[str, ...]

    @property
    def utilisation(self) -> float | None:
        """Of the network; None: nobody serves."""
        return self.load_bps / self.capacity_bps if self.capacity_bps else None


def sites_of(inventory: Inventory, fleet: Fleet) -> tuple[SiteRow, ...]:
    """By id."""
    members: dict[str, list[Member]] = {place.id: [] for place in inventory.site}
    for member in fleet.appliances:
        members.setdefault(member.site, []).append(member)
    places = {place.id: place for place in inventory.site}
    made = []
    for name, own in sorted(members.items()):
        serving = [member for member in own if member.standing == SERVING]
        place = places.get(name, Place(name, "?"))
        made.append(
            SiteRow(
                name,
                place.operator,
                place.country,
                len(own),
                len(serving),
                sum(member.capacity_bps for member in serving),
                sum(member.load_bps for member in own),
                tuple(f"{member.id}: {member.trouble}" for member in own if member.trouble),
            )
        )
    return tuple(made)


def chosen(fleet: Fleet, names: Sequence[str], site: str | None = None) -> tuple[Member, ...]:
    """Those appliances, or those of a site. Raises UsageError for one that there is not, and for none at all."""
    if bool(names) == bool(site):
        raise UsageError("say which: ids of appliances, or --site")
    if site is not None:
        found = tuple(member for member in fleet.appliances if member.site == site)
        if not found:
            raise UsageError(f"there is no appliance at {site!r}")
        return found
    known = {member.id: member for member in fleet.appliances}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"there is no appliance {unknown[0]!r}; oca-admin appliances lists them")
    return tuple(known[name] for name in dict.fromkeys(names))
