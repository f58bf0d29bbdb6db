"""Orders out of cycle: a title that appliances bring at once, beside what they work on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from fill import placement
from fill.catalogue import Known
from fill.errors import InputError
from fill.fleet import Appliance, Fleet
from wire.orders import Bring, FillOrder, Peer

_WORKED_ON: float = 2 * 86400.0
"""Seconds until nobody begins with it any more."""


class Wish(Struct, frozen=True):
    """None: all of them."""

    title: str
    renditions: tuple[str, ...] | None = None
    sites: tuple[str, ...] | None = None
    appliances: tuple[str, ...] | None = None


def orders(
    wish: Wish, known: Mapping[int, Known], fleet: Fleet, now: float, days: float, catalogue: str
) -> list[FillOrder]:
    """One for each appliance. Raises `InputError`, which names what there is not, and what there is."""
    of_title = [one for _, one in sorted(known.items()) if one.title == wish.title]
    if not of_title:
        raise InputError(f"{wish.title} is in no catalogue, or withdrawn")
    wanted = [one for one in of_title if wish.renditions is None or one.name in wish.renditions]
    for name in wish.renditions or ():
        if name not in {one.name for one in of_title}:
            names = ", ".join(sorted({one.name for one in of_title}))
            raise InputError(f"{wish.title} has no rendition {name!r}; it has {names}")
    for site in wish.sites or ():
        if site not in {one.id for one in fleet.sites}:
            raise InputError(f"{site!r} is no site of the fleet")
    for appliance in wish.appliances or ():
        if appliance not in {one.id for one in fleet.appliances}:
            raise InputError(f"{appliance!r} is no appliance of the fleet")
    meant = [
        one
        for one in fleet.appliances
        if (wish.sites is None or one.site in wish.sites) and (wish.appliances is None or one.id in wish.appliances)
    ]
    if not meant:
        raise InputError("none of these appliances is at one of these sites")
    return _orders(wanted, meant, fleet, now, days, catalogue)


def _orders(
    wanted: list[Known], meant: list[Appliance], fleet: Fleet, now: float, days: float, catalogue: str
) -> list[FillOrder]:
    parents = {site.id: site.parent for site in fleet.sites}
    urls = {one.id: one.url for one in fleet.appliances}
    numbers = np.array([one.number for one in wanted], np.int64)
    rows, nothing = np.arange(len(wanted)), np.empty(0, np.int64)
    groups: dict[str, list[Appliance]] = {}
    for appliance in meant:
        groups.setdefault(parents[appliance.site] or appliance.site, []).append(appliance)
    made = []
    for parent, group in sorted(groups.items()):
        asked = placement.sources(numbers, [(one.id, one.site, rows, nothing) for one in group], parent)
        for appliance in group:
            bring = tuple(
                Bring(
                    number=one.number,
                    title=one.title,
                    folder=one.folder,
                    size_bytes=one.size_bytes,
                    sources=sources,
                )
                for one, sources in zip(wanted, asked[appliance.id], strict=True)
            )
            made.append(
                FillOrder(
                    appliance=appliance.id,
                    night=str(dt.datetime.fromtimestamp(now, dt.UTC).date()),
                    version=0,
                    issued_at=now,
                    expires_at=now + _WORKED_ON,
                    pledged_until=now + days * 86400,
                    catalogue=catalogue,
                    budget_bytes=sum(one.size_bytes for one in wanted),
                    bring=bring,
                    peers=tuple(
                        Peer(id=peer, url=urls[peer]) for peer in sorted({one for row in bring for one in row.sources})
                    ),
                    is_urgent=True,
                )
            )
    return made
