"""Judgements: from what was seen of a box to findings, each with its figures and with what is allowed. Pure.

A box passes if nothing failed. What is odd and keeps nobody from a film is warned of; what does not apply to a box, or
can't be told from where the command runs, is skipped and said.
"""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from admin.fleet.known import Learned
from admin.fleet.showing import bits
from admin.turnup.content import PATH, SIZE_BYTES
from admin.turnup.seen import Check, Read, Seen, Way
from wire.probe import Card, Certificate, DeviceSpeed, Reached

_MOST_ERRORS: Final = 1e-6
"""Of a card's packets. A link that keeps to IEEE 802.3, one bit in 10^12, has a hundredth of that."""
_FEW: Final = 10
"""Errors and drops since the card came up that say nothing yet: a cable was plugged in."""
_MOST_DROPS: Final = 1e-3
_CLOCK_OFF: Final = 5.0
"""Seconds: from there on steering says that a clock is off, and appliances refuse tokens."""
_CLOCK_ODD: Final = 1.0
_DAY: Final = 86400.0
_CERTIFICATE_ENDS: Final = 7 * _DAY
_CERTIFICATE_ENDS_SOON: Final = 30 * _DAY
_SLOW_SOURCE: Final = 1.0
"""Seconds to the first byte, from which viewers of what is not held begin late."""
_ROOM: Final = 0.98
"""Of the capacity, that must be free or used by us: file systems keep some for themselves."""


class Outcome(StrEnum):
    PASSED = "passed"
    WARNED = "warned"
    SKIPPED = "skipped"
    FAILED = "failed"


class Finding(Struct, frozen=True):
    """One line of a report."""

    check: Check
    outcome: Outcome
    sentence: str


class Floor(Struct, frozen=True):
    """The least that a device does in one piece, in bytes a second."""

    write: float
    read: float


FLOORS: Final[Mapping[str, Floor]] = {
    "nvme": Floor(400e6, 1000e6),
    "ssd": Floor(150e6, 300e6),
    "hdd": Floor(80e6, 80e6),
}
"""By tier: half of what a plain device of today does at its slow end. Less is one that fails, or in the wrong slot."""

Judged = Iterator[tuple[Outcome, str]]


def findings(seen: Seen, wanted: Iterable[Check] = Check, floors: Mapping[str, Floor] = FLOORS) -> tuple[Finding, ...]:
    """What is to be said of a box, in the order of `Check`; each check that is wanted has a word at least."""
    chosen = frozenset(wanted)
    judges: dict[Check, Callable[[], Judged]] = {
        Check.NETWORK: lambda: _network(seen),
        Check.FAMILIES: lambda: _families(seen),
        Check.PREFIXES: lambda: _prefixes(seen),
        Check.DEVICES: lambda: _devices(seen, floors),
        Check.CLOCK: lambda: _clock(seen),
        Check.CERTIFICATE: lambda: _certificate(seen),
        Check.SOURCES: lambda: _sources(seen),
        Check.FILL: lambda: _fill(seen),
        Check.READ_BACK: lambda: _read_back(seen),
    }
    return tuple(
        Finding(check, outcome, sentence)
        for check, judge in judges.items()
        if check in chosen
        for outcome, sentence in judge()
    )


def failed(found: Iterable[Finding]) -> tuple[str, ...]:
    """The checks that did not pass, each once."""
    return tuple(dict.fromkeys(one.check.value for one in found if one.outcome is Outcome.FAILED))


# --- Network ---


def _network(seen: Seen) -> Judged:
    probe = seen.probe
    if probe is None or probe.cards_trouble or not probe.cards:
        why = probe.cards_trouble if probe is not None else ""
        yield Outcome.FAILED, why or "no network card carries a film address, or it was not told which"
        return
    for card in probe.cards:
        yield from _card(card)
    up = [card for card in probe.cards if card.is_up]
    speeds = [card.speed_bps for card in up if card.speed_bps is not None]
    declared = seen.box.capacity
    if not up:
        return
    if len(speeds) < len(up):
        names = ", ".join(card.name for card in up if card.speed_bps is None)
        yield Outcome.WARNED, f"{names}: the speed is not known, as of virtual cards; it is not judged"
    elif declared is not None and sum(speeds) < declared:
        yield (
            Outcome.FAILED,
            f"the cards carry {bits(sum(speeds))} together; the inventory's capacity is {bits(declared)}",
        )


def _card(card: Card) -> Judged:
    if not card.is_up:
        yield Outcome.FAILED, f"{card.name} is down; it has to be up"
        return
    if card.duplex == "half":
        yield Outcome.FAILED, f"{card.name} runs half duplex; allowed: full"
        return
    speed = "unknown speed" if card.speed_bps is None else bits(card.speed_bps)
    bad, most = card.errors, max(_FEW, card.packets * _MOST_ERRORS)
    figures = f"{card.errors} errors and {card.drops} drops in {card.packets} packets"
    if bad > most or card.new_errors:
        more = f", {card.new_errors} of these errors during the check" if card.new_errors else ""
        yield (
            Outcome.FAILED,
            f"{card.name}: {figures}{more}; allowed: 1 error in a million, and none while it is checked",
        )
    elif card.drops > max(_FEW, card.packets * _MOST_DROPS):
        yield Outcome.WARNED, f"{card.name}: {figures}; more than 1 drop in a thousand: its queues may be too short"
    else:
        yield Outcome.PASSED, f"{card.name}: {speed}, {figures}"


# --- Families ---


def _families(seen: Seen) -> Judged:
    for family in (4, 6):
        ways = [way for way in seen.ways or () if way.family == family]
        if not ways:
            unserved = f"viewers with IPv{family} only can't be served"
            yield Outcome.WARNED, f"IPv{family}: no address is declared, and the film URL's name has none: {unserved}"
        for way in ways:
            yield _way(way)


def _way(way: Way) -> tuple[Outcome, str]:
    if way.is_ours:
        return Outcome.SKIPPED, f"{_at(way)}: this machine has no IPv{way.family}; check it from one that has"
    if way.trouble:
        return Outcome.FAILED, f"{_at(way)}: the film port can't be reached from here: {way.trouble}"
    return Outcome.PASSED, f"{_at(way)}: the film port answers"


# --- Prefixes ---


def _prefixes(seen: Seen) -> Judged:
    own = seen.member.prefixes
    others = {member.id: member.prefixes for member in seen.siblings if member.prefixes is not None}
    declared = len(seen.place.prefixes)
    if own is None and not others:
        if declared:
            yield Outcome.PASSED, f"{declared} declared for the site, none learned by BGP at any of its boxes"
        elif seen.place.serves == "announced":
            yield (
                Outcome.FAILED,
                "the site serves announced prefixes only, and there are none: neither declared nor learned",
            )
        else:
            yield Outcome.SKIPPED, "the site announces none: its viewers are known by their network and place"
        return
    if own is None:
        names = ", ".join(sorted(others))
        yield Outcome.FAILED, f"steering has heard of none from this box, and of some from {names}; allowed: the same"
        return
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(own.rejected.items()))
    if not own.accepted and refused:
        yield (
            Outcome.FAILED,
            f"none of what it learned is accepted: {refused}; see the operator's rules in the inventory",
        )
        return
    yield _compared(own, others)
    if refused:
        yield Outcome.WARNED, f"some that it learned are not accepted: {refused}"


def _compared(own: Learned, others: Mapping[str, Learned | None]) -> tuple[Outcome, str]:
    """Against what most of the site's boxes learned; where no two agree, against each."""
    known = {name: learned for name, learned in others.items() if learned is not None}
    same = [name for name, learned in known.items() if learned.digest == own.digest]
    count = f"{own.accepted} accepted"
    if len(same) == len(known):
        return Outcome.PASSED, count + (f", the same as at {', '.join(sorted(same))}" if same else "")
    (_, most) = Counter(learned.digest for learned in known.values()).most_common(1)[0]
    rest = "; ".join(
        f"{name} has {learned.accepted}" for name, learned in sorted(known.items()) if learned.digest != own.digest
    )
    if len(same) + 1 > most:
        return Outcome.WARNED, f"{count}, as at most boxes of the site, but not all: {rest}"
    return Outcome.FAILED, f"{count}, and not the same as at its site: {rest}; allowed: the same set"


# --- Devices ---


def _devices(seen: Seen, floors: Mapping[str, Floor]) -> Judged:
    probe = seen.probe
    if probe is None or not probe.devices:
        yield Outcome.FAILED, "the box told of no device; a cache has one at least"
        return
    for device in probe.devices:
        yield from _device(device, floors.get(device.tier, Floor(0.0, 0.0)))


def _device(device: DeviceSpeed, floor: Floor) -> Judged:
    where = f"{device.path} ({device.tier})"
    if device.wish != "serve":
        yield Outcome.SKIPPED, f"{where}: its operator wants it to {device.wish}"
        return
    if device.standing != "online":
        why = f" ({device.reason})" if device.reason else ""
        yield Outcome.FAILED, f"{where} is {device.standing}{why}; allowed: online"
        return
    if device.trouble:
        yield Outcome.FAILED, f"{where}: {device.trouble}"
        return
    room = None if device.free_bytes is None else device.free_bytes + device.used_bytes
    if room is not None and room < device.capacity_bytes * _ROOM:
        figures = f"{_bytes(device.free_bytes or 0)} free and {_bytes(device.used_bytes)} used by the cache"
        yield Outcome.FAILED, f"{where} has less room than its capacity of {_bytes(device.capacity_bytes)}: {figures}"
        return
    write, read = device.write_bytes_per_second, device.read_bytes_per_second
    if write is None or read is None:
        yield Outcome.WARNED, f"{where}: {device.skipped or 'not measured'}"
        return
    figures = f"{where}: writes {_bytes(write)}/s, reads {_bytes(read)}/s"
    if not device.is_direct:
        yield Outcome.WARNED, f"{figures}, through the page cache: the file system allows nothing else; not judged"
    elif write < floor.write or read < floor.read:
        yield Outcome.FAILED, f"{figures}; allowed: {_bytes(floor.write)}/s and {_bytes(floor.read)}/s at least"
    else:
        yield Outcome.PASSED, f"{figures}, of {_bytes(device.size_bytes)}"


# --- Clock and certificates ---


def _clock(seen: Seen) -> Judged:
    member = seen.member
    offset = f"{member.clock_offset:+.1f} s from steering's"
    allowed = f"allowed: {_CLOCK_OFF:.0f} s"
    if member.heard is None:
        yield Outcome.FAILED, "steering never heard this box, so its clock can't be compared; see /v1/status of the box"
    elif abs(member.clock_offset) > _CLOCK_OFF:
        yield Outcome.FAILED, f"{offset}; {allowed}"
    elif abs(member.clock_offset) > _CLOCK_ODD:
        yield Outcome.WARNED, f"{offset}; {allowed}, and a clock that is kept by NTP is within milliseconds"
    else:
        yield Outcome.PASSED, f"{offset}; {allowed}"
    clock = seen.probe.clock if seen.probe is not None else None
    if clock is None or clock.is_synchronised is None:
        yield (
            Outcome.SKIPPED,
            f"whether NTP keeps it is not told: {clock.trouble if clock is not None else 'not asked'}",
        )
    elif not clock.is_synchronised:
        yield Outcome.WARNED, "the kernel says that nothing keeps it in step: does chrony run?"
    else:
        yield Outcome.PASSED, f"the kernel keeps it in step, within {clock.estimated_error or 0.0:.3f} s"


def _certificate(seen: Seen) -> Judged:
    own = seen.probe.certificates if seen.probe is not None else None
    shown = [*(own or ()), *(seen.certificates or ())]
    if not shown:
        yield Outcome.SKIPPED, "the box shows none: films go by plain HTTP, and a token proves it to steering"
    for certificate in shown:
        yield _ends(certificate, seen.at)


def _ends(certificate: Certificate, now: float) -> tuple[Outcome, str]:
    if certificate.ends_at is None:
        return Outcome.FAILED, f"{certificate.name}: {certificate.trouble or 'its end is not known'}"
    left = certificate.ends_at - now
    words = f"{certificate.name} ends in {left / _DAY:.0f} days" if left > 0 else f"{certificate.name} has ended"
    allowed = f"allowed: {_CERTIFICATE_ENDS / _DAY:.0f} days and more"
    if left < _CERTIFICATE_ENDS:
        return Outcome.FAILED, f"{words}; {allowed}"
    if left < _CERTIFICATE_ENDS_SOON:
        return Outcome.WARNED, f"{words}; {allowed}"
    return Outcome.PASSED, words


# --- Sources, fill and reading back ---


def _sources(seen: Seen) -> Judged:
    sources = seen.probe.sources if seen.probe is not None else None
    if not sources:
        yield Outcome.FAILED, "the box told of no source; it has an origin at least"
    for source in sources or ():
        yield _source(source)


def _source(source: Reached) -> tuple[Outcome, str]:
    if source.status is None:
        return Outcome.FAILED, f"{source.name} can't be reached from the box: {source.trouble}"
    after = f"after {(source.first_byte or 0.0) * 1000:.0f} ms"
    if source.status in {401, 403}:
        return (
            Outcome.FAILED,
            f"{source.name} refuses the box: {source.status}; its network or credentials are missing there",
        )
    if source.status >= 500:
        return Outcome.FAILED, f"{source.name} answers {source.status} {after}"
    if source.status == 404:
        return Outcome.WARNED, f"{source.name} answers {after}, but {PATH} is not there: --put-content puts it"
    if source.status != 206:
        return Outcome.WARNED, f"{source.name} answers a range with {source.status} {after}; 206 is meant"
    if (source.first_byte or 0.0) > _SLOW_SOURCE:
        return Outcome.WARNED, f"{source.name}: first byte {after}; from {_SLOW_SOURCE:.0f} s on films begin late"
    return Outcome.PASSED, f"{source.name}: first byte {after}"


def _fill(seen: Seen) -> Judged:
    filled = seen.filled
    if filled is None or filled.trouble:
        yield Outcome.FAILED, "not asked" if filled is None else f"{PATH} did not come: {filled.trouble}"
    elif filled.size_bytes != SIZE_BYTES:
        yield Outcome.FAILED, f"{PATH} is of {filled.size_bytes} bytes at the origin; allowed: {SIZE_BYTES}"
    else:
        rate = 8 * filled.size_bytes / max(filled.seconds, 1e-3)
        yield Outcome.PASSED, f"{_bytes(filled.size_bytes)} came in {filled.seconds:.1f} s ({bits(rate)})"


def _read_back(seen: Seen) -> Judged:
    reads = seen.reads or ()
    for read in reads:
        yield _one_read(read)
    if not any(not read.way.is_ours for read in reads):
        yield Outcome.FAILED, "it could not be read back by any way from here"


def _one_read(read: Read) -> tuple[Outcome, str]:
    where = _at(read.way)
    if read.way.is_ours:
        return Outcome.SKIPPED, f"{where}: this machine has no IPv{read.way.family}"
    if read.trouble:
        return Outcome.FAILED, f"{where}: {read.trouble}"
    rate = bits(8 * SIZE_BYTES / max(read.seconds, 1e-3))
    figures = (
        f"{where}: {_bytes(SIZE_BYTES)} and {read.ranges} ranges are right to the byte, {rate},"
        f" first byte after {read.first_byte * 1000:.0f} ms"
    )
    return Outcome.PASSED, figures + ("" if read.is_hit else ", fetched for us")


def _at(way: Way) -> str:
    if not way.address:
        return f"IPv{way.family}"
    host = way.address if ipaddress.ip_address(way.address).version == 4 else f"[{way.address}]"
    return f"IPv{way.family} {host}:{way.port}"


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
