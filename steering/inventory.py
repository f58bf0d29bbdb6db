"""What there is: operators, their sites, the appliances at each. Declared by people; how things *are* is in fleet.py.

An inventory is a value. A change makes another one, or is refused with a sentence; whoever holds the old one goes on
undisturbed. Entries that stand in the inventory file can be changed there only: two truths about one site are none.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Final, TypeVar, cast
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct, field

from steering.errors import InventoryError
from wire.heartbeat import APPLIANCE_ID_PATTERN, ApplianceId
from wire.toml import BitsPerSecond, Document, Mistake, host_and_port, leads_somewhere, quantity

Id = Annotated[str, Meta(pattern=APPLIANCE_ID_PATTERN)]
Asn = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Words = Annotated[str, Meta(max_length=500)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
EntryT = TypeVar("EntryT")

_NETWORKS: Final = 100_000
"""Prefixes of one site or operator, at most."""
_WINDOWS: Final = 50
"""That are planned for one appliance, at most."""
_LONGEST_WINDOW: Final = 31 * 86400.0
_CHECKS: Final = 32
"""Of one turn-up, at most."""
_AHEAD: Final = 300.0
"""Seconds by which whoever checked may be ahead of our clock."""


class Serves(StrEnum):
    """Whose players a site is for."""

    ANNOUNCED = "announced"
    """Those in prefixes that the site announces."""
    NETWORK = "network"
    """These, and all others of the operator's autonomous systems."""
    EVERYONE = "everyone"
    """These, and whoever is nearest: an exchange point, say."""


class Wish(StrEnum):
    """What the operator wants of an appliance."""

    SERVE = "serve"
    DRAIN = "drain"
    """No new players; those that play are moved away. It reads as drained when they are gone."""
    DISABLE = "disable"
    """No player at all, whatever it says of itself."""


class Source(StrEnum):
    """Where an entry was declared."""

    FILE = "file"
    API = "api"


class Window(Struct, frozen=True, forbid_unknown_fields=True):
    """From when until when, in seconds since 1970, an appliance shall be drained. It serves again by itself."""

    start: float
    stop: float
    forced: bool = False
    """Also if the rest of its site can't carry the load. Else it begins once that can."""

    def overlaps(self, start: float, stop: float) -> bool:
        return self.start < stop and start < self.stop


class Proof(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the last turn-up checks of an appliance found. Moments are seconds since 1970."""

    at: float
    passed: bool
    passed_at: float | None = None
    """When it passed last. From the first time on it may have viewers: a check that fails later only alarms."""
    version: Words = ""
    """Of the software that was looked at."""
    failed: Annotated[tuple[Words, ...], Meta(max_length=_CHECKS)] = ()
    """Names of the checks that it did not pass."""
    by: Words = ""


class Operator(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who runs a network: an ISP, an exchange, ourselves."""

    id: Id
    name: Words = ""
    asns: Annotated[tuple[Asn, ...], Meta(max_length=1000)] = ()
    allowed: Annotated[tuple[str, ...], Meta(max_length=_NETWORKS)] = ()
    """Networks within which its sites may announce prefixes. What appliances learn by BGP is accepted nowhere else;
    without any, nothing is, and only what is declared here counts."""
    first_as: Annotated[tuple[Asn, ...], Meta(max_length=1000)] = ()
    """Of learned routes whose path is known: the neighbours that they may come from; none: any."""
    origin_as: Annotated[tuple[Asn, ...], Meta(max_length=1000)] = ()
    """Where they may begin; none: anywhere."""
    required_communities: Annotated[tuple[Words, ...], Meta(max_length=100)] = ()
    """One of these must be on a learned route, as "64500:100"."""
    forbidden_communities: Annotated[tuple[Words, ...], Meta(max_length=100)] = ()
    most_prefixes: Annotated[int, Meta(ge=1, le=200_000)] = 20_000
    """That one appliance may announce."""


class Site(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Appliances at one place: what fails together."""

    id: Id
    operator: Id
    name: Words = ""
    latitude: Annotated[float, Meta(ge=-90, le=90)]
    longitude: Annotated[float, Meta(ge=-180, le=180)]
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}\Z")]
    """ISO 3166-1 alpha-2."""
    serves: Serves = Serves.NETWORK
    prefixes: Annotated[tuple[str, ...], Meta(max_length=_NETWORKS)] = ()
    """Announced by declaration, besides those that its appliances learn by BGP."""
    parent: Id | None = None
    """The site that its misses are fetched from."""


class Appliance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: ApplianceId
    site: Id
    url: str
    """Where players fetch from: https://host, of a host name of its own. Content steering can't carry ports."""
    ipv4: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    """For DNS. None: DNS never names it for that family."""
    ipv6: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    capacity: BitsPerSecond | None = None
    """What may be sent, more than 0; None: what its network cards say. These never count for more than this."""
    token_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None = None
    """Of the bearer token it shows; None: it is not heard until it has one."""
    metrics: str | None = None
    """host:port that Prometheus scrapes."""
    agent_metrics: str | None = None
    """host:port of its fill agent, that Prometheus scrapes."""
    wish: Wish = Wish.SERVE
    """Of one that is new. After that only `SetWish` changes it, whoever puts the rest anew."""
    maintenance: Annotated[tuple[Window, ...], Meta(max_length=_WINDOWS)] = ()
    """Planned; by start. `PlanMaintenance` and `CancelMaintenance` change it, and nothing else."""
    proof: Proof | None = None
    """Of its last turn-up checks; None: it was never checked. `RecordProof` changes it, and nothing else."""

    @property
    def is_proven(self) -> bool:
        """Whether it has passed its turn-up checks once."""
        return self.proof is not None and self.proof.passed_at is not None


class Inventory(Struct, frozen=True, kw_only=True):
    """All of it. `version` grows with each change."""

    version: int = 0
    operators: Mapping[str, Operator] = field(default_factory=dict)
    sites: Mapping[str, Site] = field(default_factory=dict)
    appliances: Mapping[str, Appliance] = field(default_factory=dict)
    from_file: frozenset[tuple[str, str]] = frozenset()
    """Kind and id of what stands in the inventory file."""

    def operator_of(self, site: str) -> Operator:
        return self.operators[self.sites[site].operator]


# --- Changes ---


class PutOperator(Struct, frozen=True, tag="put-operator", forbid_unknown_fields=True):
    operator: Operator


class PutSite(Struct, frozen=True, tag="put-site", forbid_unknown_fields=True):
    site: Site


class PutAppliance(Struct, frozen=True, tag="put-appliance", forbid_unknown_fields=True):
    appliance: Appliance


class SetWish(Struct, frozen=True, tag="set-wish", forbid_unknown_fields=True):
    """Allowed for entries of the file too: an operator at night drains what is on fire, whoever declared it."""

    appliance: Id
    wish: Wish


class PlanMaintenance(Struct, frozen=True, tag="plan-maintenance", forbid_unknown_fields=True):
    """One more window; in place of one that begins at the same moment. Allowed for entries of the file too."""

    appliance: Id
    start: float
    stop: float
    forced: bool = False


class CancelMaintenance(Struct, frozen=True, tag="cancel-maintenance", forbid_unknown_fields=True):
    """Without the window that begins then; None: without any. One under way ends at once."""

    appliance: Id
    start: float | None = None


class RecordProof(Struct, frozen=True, tag="record-proof", forbid_unknown_fields=True):
    """What turn-up checks found at a moment, by whom. Allowed for entries of the file too."""

    appliance: Id
    at: float
    failed: Annotated[tuple[Words, ...], Meta(max_length=_CHECKS)] = ()
    """None: it passed."""
    version: Words = ""
    by: Words = ""


class RemoveOperator(Struct, frozen=True, tag="remove-operator", forbid_unknown_fields=True):
    id: Id


class RemoveSite(Struct, frozen=True, tag="remove-site", forbid_unknown_fields=True):
    id: Id


class RemoveAppliance(Struct, frozen=True, tag="remove-appliance", forbid_unknown_fields=True):
    id: Id


Put = PutOperator | PutSite | PutAppliance
Remove = RemoveOperator | RemoveSite | RemoveAppliance
Order = SetWish | PlanMaintenance | CancelMaintenance | RecordProof
"""What may be said of entries of the file too: how an appliance works now is not declared, but ordered."""
Change = Put | Remove | Order

OPERATOR: Final = "operator"
SITE: Final = "site"
APPLIANCE: Final = "appliance"
_KIND: Final[dict[type, str]] = {
    PutOperator: OPERATOR,
    PutSite: SITE,
    PutAppliance: APPLIANCE,
    SetWish: APPLIANCE,
    PlanMaintenance: APPLIANCE,
    CancelMaintenance: APPLIANCE,
    RecordProof: APPLIANCE,
    RemoveOperator: OPERATOR,
    RemoveSite: SITE,
    RemoveAppliance: APPLIANCE,
}


def subject(change: Change) -> tuple[str, str]:
    """Kind and id of what a change is about."""
    match change:
        case PutOperator(entry) | PutSite(entry) | PutAppliance(entry):
            name = entry.id
        case SetWish(name) | PlanMaintenance(name) | CancelMaintenance(name) | RecordProof(name):
            pass
        case RemoveOperator(name) | RemoveSite(name) | RemoveAppliance(name):
            pass
    return _KIND[type(change)], name


def apply(inventory: Inventory, *changes: Change, source: Source = Source.API, now: float = 0.0) -> Inventory:
    """The inventory after all of the changes together. Raises `InventoryError` for one that can't be, and then nothing
    has changed. `now`: before that moment no maintenance is planned, and what ended is forgotten with the next plan;
    what was checked after it is not believed.
    """
    draft = _Draft(inventory, source, now)
    for change in changes:
        draft.apply(change)
    return draft.done()


class _Draft:
    """An inventory while it is changed: twenty thousand entries are copied once, and looked through once at the end."""

    def __init__(self, inventory: Inventory, source: Source, now: float) -> None:
        self._now = now
        self._version = inventory.version
        self._source = source
        self._operators = dict(inventory.operators)
        self._sites = dict(inventory.sites)
        self._appliances = dict(inventory.appliances)
        self._from_file = set(inventory.from_file)
        self._touched: set[tuple[str, str]] = set()

    def apply(self, change: Change) -> None:
        about = subject(change)
        if self._source is Source.API and about in self._from_file and not isinstance(change, Order):
            raise InventoryError(f"{about[0]} {about[1]} is declared in the inventory file; change it there")
        self._touched.add(about)
        match change:
            case PutOperator(operator):
                self._operators[operator.id] = operator
            case PutSite(site):
                self._sites[site.id] = site
            case PutAppliance(appliance):
                _check_appliance(appliance)
                known = self._appliances.get(appliance.id)
                # A drained box stays drained when somebody mends its address.
                wish, windows = (appliance.wish, ()) if known is None else (known.wish, known.maintenance)
                proof = None if known is None else known.proof
                self._appliances[appliance.id] = msgspec.structs.replace(
                    appliance, wish=wish, maintenance=windows, proof=proof
                )
            case SetWish(name, wish):
                self._appliances[name] = msgspec.structs.replace(self._known(name), wish=wish)
            case PlanMaintenance(name):
                entry = self._known(name)
                windows = _planned(entry, change, self._now)
                self._appliances[name] = msgspec.structs.replace(entry, maintenance=windows)
            case CancelMaintenance(name, start):
                entry = self._known(name)
                windows = () if start is None else tuple(one for one in entry.maintenance if one.start != start)
                if len(windows) == len(entry.maintenance):
                    raise InventoryError(f"appliance {name}: no such maintenance is planned")
                self._appliances[name] = msgspec.structs.replace(entry, maintenance=windows)
            case RecordProof(name):
                entry = self._known(name)
                self._appliances[name] = msgspec.structs.replace(entry, proof=_proved(entry, change, self._now))
            case RemoveOperator(name):
                _remove(name, OPERATOR, self._operators)
            case RemoveSite(name):
                _remove(name, SITE, self._sites)
            case RemoveAppliance(name):
                _remove(name, APPLIANCE, self._appliances)
        if isinstance(change, Put) and self._source is Source.FILE:
            self._from_file.add(about)
        elif isinstance(change, Remove):
            self._from_file.discard(about)

    def _known(self, name: str) -> Appliance:
        if name not in self._appliances:
            raise InventoryError(f"there is no appliance {name!r}")
        return self._appliances[name]

    def done(self) -> Inventory:
        """Raises `InventoryError` if an entry names one that is not there, or a prefix that its operator may not."""
        self._check_references()
        sites_of: dict[str, list[Site]] = {}
        for site in self._sites.values():
            if (SITE, site.id) in self._touched:
                self._check_parents(site)
            if (SITE, site.id) in self._touched or (OPERATOR, site.operator) in self._touched:
                sites_of.setdefault(site.operator, []).append(site)
        for kind, name in self._touched:
            if kind == OPERATOR and name in self._operators:
                sites_of.setdefault(name, [])
        for name, sites in sites_of.items():
            _check_prefixes(self._operators[name], sites)
        return Inventory(
            version=self._version + 1,
            operators=self._operators,
            sites=self._sites,
            appliances=self._appliances,
            from_file=frozenset(self._from_file),
        )

    def _check_references(self) -> None:
        used: dict[tuple[str, str], list[str]] = {}
        """Of what is named and not there: who names it."""
        for site in self._sites.values():
            if site.operator not in self._operators:
                used.setdefault((OPERATOR, site.operator), []).append(f"site {site.id}")
            if site.parent is not None and site.parent not in self._sites:
                used.setdefault((SITE, site.parent), []).append(f"site {site.id}")
        for appliance in self._appliances.values():
            if appliance.site not in self._sites:
                used.setdefault((SITE, appliance.site), []).append(f"appliance {appliance.id}")
        if any(kind == APPLIANCE for kind, _ in self._touched):
            self._check_host_names()
        for (kind, name), users in used.items():
            if (kind, name) in self._touched:
                shown = ", ".join(sorted(users)[:5]) + (", …" if len(users) > 5 else "")
                raise InventoryError(f"{kind} {name} is still used by {len(users)}: {shown}; remove these first")
            raise InventoryError(f"{users[0]}: there is no {kind} {name!r}")

    def _check_host_names(self) -> None:
        """Ids are labels of host names, which know no case (steering/dns)."""
        seen: dict[str, str] = {}
        for name in self._appliances:
            other = seen.setdefault(name.lower(), name)
            if other != name:
                raise InventoryError(f"appliances {other} and {name} differ only in case, which DNS does not know")

    def _check_parents(self, site: Site) -> None:
        seen = {site.id}
        above = site.parent
        while above is not None:
            if above in seen:
                raise InventoryError(f"site {site.id}: its parents lead back to {above}")
            seen.add(above)
            above = self._sites[above].parent


def _check_prefixes(operator: Operator, sites: list[Site]) -> None:
    allowed = Allowance(_parsed(operator.allowed, f"operator {operator.id}: allowed"))
    for site in sites:
        for prefix in _parsed(site.prefixes, f"site {site.id}: prefixes"):
            if operator.allowed and prefix not in allowed:
                raise InventoryError(
                    f"site {site.id}: prefix {prefix} is outside of what operator {operator.id} is allowed"
                )


def _check_appliance(appliance: Appliance) -> None:
    where = f"appliance {appliance.id}"
    if any(not 1 <= len(label) <= 63 for label in appliance.id.split(".")):
        raise InventoryError(f"{where}: between its dots an id has 1 to 63 characters, as a host name has")
    if not _is_base(appliance.url):
        raise InventoryError(f"{where}: url {appliance.url!r} is not like https://host or http://host:port")
    if appliance.capacity is not None and appliance.capacity < 1:
        raise InventoryError(f'{where}: capacity must be more than 0; wish = "disable" keeps players away')
    for texts, version in ((appliance.ipv4, 4), (appliance.ipv6, 6)):
        for text in texts:
            if not _is_address(text, version):
                raise InventoryError(f"{where}: ipv{version}: {text!r} is not an IPv{version} address")
    for name in ("metrics", "agent_metrics"):
        address: str | None = getattr(appliance, name)
        if address is None:
            continue
        try:
            host_and_port(address)
        except ValueError as error:
            raise InventoryError(f"{where}: {name}: {address!r} is not host:port") from error


def _planned(entry: Appliance, plan: PlanMaintenance, now: float) -> tuple[Window, ...]:
    """Its windows with the new one. Raises `InventoryError` for one that can't be."""
    where = f"appliance {entry.id}: maintenance"
    if not (math.isfinite(plan.start) and 0 < plan.stop - plan.start <= _LONGEST_WINDOW):
        raise InventoryError(
            f"{where} has to end after it begins, and to last {_LONGEST_WINDOW / 86400:.0f} days at most"
        )
    if plan.stop <= now:
        raise InventoryError(f"{where} would be over already: it ended {now - plan.stop:.0f} s ago")
    kept = [window for window in entry.maintenance if window.stop > now and window.start != plan.start]
    if len(kept) >= _WINDOWS:
        raise InventoryError(f"{where} is planned {_WINDOWS} times already; cancel one first")
    return tuple(sorted((*kept, Window(plan.start, plan.stop, plan.forced)), key=lambda window: window.start))


def _proved(entry: Appliance, found: RecordProof, now: float) -> Proof:
    """Raises `InventoryError` for checks of the future, and for older ones than are known."""
    before = entry.proof
    if not found.at <= now + _AHEAD:
        raise InventoryError(f"appliance {entry.id}: its checks are of a moment {found.at - now:.0f} s from now")
    if before is not None and found.at < before.at:
        raise InventoryError(f"appliance {entry.id}: was checked again {before.at - found.at:.0f} s after that")
    earlier = None if before is None else before.passed_at
    return Proof(
        at=found.at,
        passed=not found.failed,
        passed_at=earlier if found.failed else found.at,
        version=found.version,
        failed=found.failed,
        by=found.by,
    )


def _remove(name: str, kind: str, entries: dict[str, EntryT]) -> None:
    if name not in entries:
        raise InventoryError(f"there is no {kind} {name!r}")
    del entries[name]


def _parsed(networks: tuple[str, ...], where: str) -> list[Network]:
    parsed = []
    for text in networks:
        try:
            parsed.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise InventoryError(f"{where}: {text!r} is not a network such as 192.0.2.0/24: {error}") from error
        if "/" not in text:
            raise InventoryError(f"{where}: {text!r} has no length; write {parsed[-1]}")
    return parsed


class Allowance:
    """Networks within which prefixes may be announced: `prefix in allowance`."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = frozenset(networks)
        self._lengths = {
            version: sorted({wider.prefixlen for wider in self._networks if wider.version == version})
            for version in (4, 6)
        }

    def __contains__(self, network: Network) -> bool:
        """Whether one of them contains the whole of `network`."""
        return any(
            length <= network.prefixlen and network.supernet(new_prefix=length) in self._networks
            for length in self._lengths[network.version]
        )


def _is_base(url: str) -> bool:
    """Whether a path can be put behind `url`."""
    if not leads_somewhere(url, ("http", "https")):
        return False
    parts = urlsplit(url)
    return url == f"{parts.scheme}://{parts.netloc}" and parts.username is None


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


# --- The file ---


class InventoryFile(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[operator]]`, `[[site]]` and `[[appliance]]` tables."""

    operator: tuple[Operator, ...] = ()
    site: tuple[Site, ...] = ()
    appliance: tuple[Appliance, ...] = ()


def parse_inventory(text: str, path: str) -> InventoryFile:
    """Raises `InventoryError`, which names file, line and key."""
    try:
        return Document(text, path).read(InventoryFile)
    except Mistake as error:
        raise InventoryError(str(error)) from error


def reconciled(inventory: Inventory, declared: InventoryFile, path: str) -> tuple[Change, ...]:
    """The changes, in an order that can be applied, that make the inventory say what the file says.

    What the file does not name any more and once did goes. Raises `InventoryError` for an entry that is declared twice.
    """
    put: list[Change] = []
    named: set[tuple[str, str]] = set()
    rows: tuple[tuple[str, tuple[Operator | Site | Appliance, ...], Mapping[str, object]], ...] = (
        (OPERATOR, declared.operator, inventory.operators),
        (SITE, declared.site, inventory.sites),
        (APPLIANCE, declared.appliance, inventory.appliances),
    )
    for kind, entries, _ in rows:
        for entry in entries:
            if (kind, entry.id) in named:
                raise InventoryError(f"{path}: {kind} {entry.id} is declared twice")
            named.add((kind, entry.id))
    for kind, entries, known in rows:
        for entry in parents_first(declared.site) if kind == SITE else entries:
            about = (kind, entry.id)
            as_kept = known.get(entry.id)
            if isinstance(entry, Appliance) and isinstance(as_kept, Appliance):
                as_kept = msgspec.structs.replace(
                    as_kept, wish=entry.wish, maintenance=entry.maintenance, proof=entry.proof
                )
            if as_kept == entry and about in inventory.from_file:
                continue
            put.append(_put(entry))
    gone = inventory.from_file - named
    remove: list[Change] = [RemoveAppliance(name) for kind, name in sorted(gone) if kind == APPLIANCE]
    left = [site for site in inventory.sites.values() if (SITE, site.id) in gone]
    remove += [RemoveSite(site.id) for site in reversed(parents_first(tuple(left)))]
    remove += [RemoveOperator(name) for kind, name in sorted(gone) if kind == OPERATOR]
    return (*put, *remove)


def _put(entry: Operator | Site | Appliance) -> Put:
    if isinstance(entry, Operator):
        return PutOperator(entry)
    return PutSite(entry) if isinstance(entry, Site) else PutAppliance(entry)


def parents_first(sites: tuple[Site, ...]) -> tuple[Site, ...]:
    """The same sites, each after its parent if that is among them. Rings stay in their order, to be refused later."""
    by_id = {site.id: site for site in sites}
    ordered: dict[str, Site] = {}
    for site in sites:
        chain = [site]
        while (above := chain[-1].parent) in by_id and above not in ordered and by_id[above] not in chain:
            chain.append(by_id[above])
        for one in reversed(chain):
            ordered.setdefault(one.id, one)
    return tuple(ordered.values())


def decode_change(body: bytes) -> Change:
    """A change as JSON, told apart by its `type`. Raises `InventoryError`."""
    try:
        return cast("Change", _DECODER.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InventoryError(f"not a change: {error}") from error


def encode_change(change: Change) -> bytes:
    return _ENCODER.encode(change)


_DECODER: Final = msgspec.json.Decoder(Change, dec_hook=quantity)
_ENCODER: Final = msgspec.json.Encoder(enc_hook=lambda value: int(value) if isinstance(value, int) else float(value))
