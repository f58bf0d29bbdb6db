"""The fill night: how far each appliance is, by its own agent, and what the plan expected of the day.

Agents are asked when somebody looks, all at once, and whoever does not answer in three seconds is shown as such. What
was asked is good for two seconds, whoever looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from admin.bucket import Bucket
from admin.console.rows import Row
from admin.errors import AdminError
from admin.fleet.asking import Desk, FleetError
from admin.fleet.known import Inventory

_DEADLINE: Final = 3.0
_FIELDS: Final = (
    "phase",
    "reason",
    "night",
    "order_bytes",
    "done_bytes",
    "order_renditions",
    "done_renditions",
    "failed",
    "source_bytes",
    "is_behind",
    "finished_at",
)
_GOOD_FOR: Final = 2.0
_PLAN_GOOD_FOR: Final = 300.0
_BUCKET: Final = 20.0


class _Applied(Struct, frozen=True):
    """fill/applied.json: the plan that agents work on."""

    night: str
    version: int
    at: float
    who: str


class _Site(Struct, frozen=True):
    id: str
    pledged_before: float
    pledged_after: float


class _Report(Struct, frozen=True):
    sites: tuple[_Site, ...]


class Night:
    def __init__(self, desk: Desk, bucket: Bucket | None, clock: Callable[[], float]) -> None:
        self._desk = desk
        self._bucket = bucket
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._told: tuple[float, list[Row]] = (0.0, [])
        self._plan: tuple[float, Row] = (0.0, {})

    async def told(self, inventory: Inventory) -> Row:
        """Appliances with their agents' words, and what the plan expects of sites."""
        async with self._one_at_a_time:
            now = self._clock()
            if now - self._told[0] > _GOOD_FOR:
                self._told = now, await self._agents(inventory)
            if now - self._plan[0] > _PLAN_GOOD_FOR:
                self._plan = now, await self._expected()
        return {"agents": self._told[1], "plan": self._plan[1]}

    async def _agents(self, inventory: Inventory) -> list[Row]:
        boxes = {box.id: box for box in sorted(inventory.appliance, key=lambda box: box.id)}
        asked = {box.id: box.agent_metrics for box in boxes.values() if box.agent_metrics is not None}
        answers = await self._desk.ask_all(asked, "/v1/status", _DEADLINE)
        return [_row(boxes[name].site, name, said) for name, said in answers.items()]

    async def _expected(self) -> Row:
        """What the applied plan says, or why nothing can be told."""
        if self._bucket is None:
            return {"error": "there is no [fill] in the console's settings", "sites": {}}
        try:
            async with asyncio.timeout(_BUCKET):
                return await asyncio.to_thread(self._read, self._bucket)
        except TimeoutError:
            return {"error": f"the bucket gave no answer within {_BUCKET:.0f} s", "sites": {}}
        except (AdminError, msgspec.DecodeError) as error:
            return {"error": str(error), "sites": {}}

    def _read(self, bucket: Bucket) -> Row:
        applied = bucket.read("/fill/applied.json")
        if applied is None:
            return {"error": "no plan was applied yet", "sites": {}}
        plan = msgspec.json.decode(applied.body, type=_Applied)
        report = bucket.read(f"/fill/plans/{plan.night}/{plan.version}/report.json")
        if report is None:
            return {"error": f"plan {plan.night} version {plan.version} has no report", "sites": {}}
        sites = msgspec.json.decode(report.body, type=_Report).sites
        return {
            "error": None,
            "night": plan.night,
            "version": plan.version,
            "applied_at": plan.at,
            "who": plan.who,
            "sites": {site.id: {"before": site.pledged_before, "after": site.pledged_after} for site in sites},
        }


def _row(site: str, name: str, said: Any) -> Row:  # noqa: ANN401 as an agent says it, or a FleetError
    if isinstance(said, FleetError):
        return {"id": name, "site": site, "error": str(said)}
    return {"id": name, "site": site, "error": None, **{field: said.get(field) for field in _FIELDS}}
