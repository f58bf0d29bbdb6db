"""The fleet as the console shows it: a row an appliance, rounded to what eyes see, and what changed between two looks.

Pure. Rounding is what keeps a fleet of thousands quiet: a row is sent again only when somebody would see a difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from admin.fleet.known import SERVING, Fleet, Inventory

Row = dict[str, Any]

WELL: Final = "well"
RESTING: Final = "resting"
WARNING: Final = "warning"
BAD: Final = "bad"
"""How a row is: what the map and the table colour, the worst last."""

_BAD: Final = ("lost",)


def rows_of(fleet: Fleet) -> dict[str, Row]:
    """By appliance."""
    rows = {}
    for member in fleet.appliances:
        trouble = _short(member.trouble)
        if not trouble:
            state = WELL if member.standing == SERVING else RESTING
        else:
            state = BAD if member.standing in _BAD else WARNING
        rows[member.id] = {
            "site": member.site,
            "standing": member.standing,
            "wish": member.wish,
            "state": state,
            "trouble": trouble,
            "full": round(member.utilisation, 2),
            "load": _rounded(member.load_bps),
            "capacity": member.capacity_bps,
            "hits": None if member.hit_ratio is None else round(member.hit_ratio, 2),
            "maintenance": [{"start": one.start, "stop": one.stop, "forced": one.forced} for one in member.maintenance],
            "resting": member.resting,
        }
    return rows


def places_of(inventory: Inventory) -> list[Row]:
    """Sites, by id."""
    return [
        {
            "id": place.id,
            "name": place.name or place.id,
            "operator": place.operator,
            "country": place.country,
            "latitude": place.latitude,
            "longitude": place.longitude,
        }
        for place in sorted(inventory.site, key=lambda place: place.id)
    ]


def changed(before: Mapping[str, Row], now: Mapping[str, Row]) -> tuple[dict[str, Row], list[str]]:
    """The fields that differ, by appliance, and who is gone."""
    different = {}
    for name, row in now.items():
        old = before.get(name)
        if old is None:
            different[name] = row
        elif old != row:
            different[name] = {field: value for field, value in row.items() if old.get(field) != value}
    return different, [name for name in before if name not in now]


def _short(trouble: str) -> str:
    """Without seconds that count up: a row would be new at each look."""
    return trouble.rpartition(", heard")[0] or trouble


def _rounded(bps: float) -> float:
    """To two digits."""
    if bps <= 0:
        return 0.0
    digits = 1 - math.floor(math.log10(bps))
    return float(round(bps, digits))
