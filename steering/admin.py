"""The operators' listener: the fleet as it is, the inventory and its changes, explain, metrics. Loopback only."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Callable
from http import HTTPStatus
from math import isfinite
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta, Struct
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from steering.announcements import Announcements
from steering.answers.clients import BadClient, packed
from steering.answers.desk import Desk
from steering.answers.door import checked_path
from steering.answers.questions import pathway
from steering.bodies import answer, errors, message
from steering.decisions import Ask, Decision, Way
from steering.errors import Crowded, InventoryError
from steering.fleet import FULLEST, Fleet, Member, fullness_without
from steering.inventory import (
    APPLIANCE,
    OPERATOR,
    SITE,
    Change,
    PlanMaintenance,
    PutAppliance,
    SetWish,
    Wish,
    apply,
    decode_change,
)
from steering.ranking import Ranked
from steering.registry.embedded import EmbeddedRegistry
from steering.standing import Standing

_MOST_BYTES: Final = 64 * 1024 * 1024
"""Of a change of many entries: twenty thousand appliances are 6 MB."""
_MOST_HISTORY: Final = 1000
_TOKEN_BYTES: Final = 32

Reason = Annotated[str, Meta(min_length=1, max_length=500)]


class Order(Struct, forbid_unknown_fields=True):
    """{"who": "ana", "why": "disk swap", "changes": [{"type": "set-wish", "appliance": "a1", "wish": "drain"}]}."""

    who: Annotated[str, Meta(min_length=1, max_length=100)]
    why: Reason
    changes: Annotated[tuple[msgspec.Raw, ...], Meta(min_length=1, max_length=100_000)]
    force: bool = False
    """Also if the rest of a site can't carry the load of those that go."""


class TokenOrder(Struct, forbid_unknown_fields=True):
    """{"who": "ana", "why": "new box", "appliance": "a1"}: a new token; the old one is good no more."""

    who: Annotated[str, Meta(min_length=1, max_length=100)]
    why: Reason
    appliance: str


class Admin:
    """Handlers of one application."""

    def __init__(
        self,
        registry: EmbeddedRegistry,
        fleet: Fleet,
        desk: Desk,
        metrics: CollectorRegistry,
        clock: Callable[[], float],
        changed: Callable[[], None],
        readiness: Callable[[], list[str]],
        expected: Callable[[str, float, float], float | None],
        announcements: Announcements,
    ) -> None:
        self._registry = registry
        self._fleet = fleet
        self._desk = desk
        self._metrics = metrics
        self._clock = clock
        self._changed = changed
        """Called when the inventory has changed."""
        self._readiness = readiness
        """What is missing, in words; nothing if all is well."""
        self._expected = expected
        """What a site will carry in a span of time, in bits a second, if it can be told."""
        self._announcements = announcements

    def application(self) -> web.Application:
        app = web.Application(middlewares=[errors])
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/v1/explain", self._explain)
        app.router.add_get("/v1/decisions", self._decisions)
        app.router.add_get("/v1/fleet", self._show_fleet)
        app.router.add_get("/v1/fleet/{appliance}", self._show_member)
        app.router.add_get("/v1/signed", self._show_signed)
        app.router.add_get("/v1/inventory", self._show_inventory)
        app.router.add_get("/v1/changes", self._history)
        app.router.add_post("/v1/changes", self._change)
        app.router.add_post("/v1/tokens", self._new_token)
        app.router.add_get("/v1/prometheus-targets", self._targets)
        return app

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        return answer({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        """200 if a full decision can be made. 503 says why not; players are answered all the same."""
        missing = self._readiness()
        return answer({"ready": not missing, "reasons": missing}, HTTPStatus.SERVICE_UNAVAILABLE if missing else 200)

    async def _explain(self, request: web.Request) -> web.Response:
        """The whole decision for a client and a path, as it would be made now. Nobody is counted as sent."""
        query = request.query
        try:
            client = packed(query.get("client", ""))
        except BadClient as error:
            raise web.HTTPBadRequest(text=f'"client": {error}') from error
        family = query.get("family")
        if family not in {None, "4", "6"}:
            raise web.HTTPBadRequest(text=f'"family" is {family!r}; allowed: 4 or 6')
        ask = Ask(
            client=client,
            content=self._desk.content(checked_path(query.get("path"))),
            way=Way.EXPLAIN,
            current=pathway(query.get("current")),
            family=None if family is None else int(family),
        )
        return answer(explained(self._desk.decide(ask)))

    async def _decisions(self, request: web.Request) -> web.Response:
        """The last decisions of some thousands, the newest first; those that named one `appliance`, if it is said."""
        limit = request.query.get("limit", "100")
        if not limit.isdecimal() or not 1 <= int(limit) <= _MOST_HISTORY:
            raise web.HTTPBadRequest(text=f'"limit" is {limit!r}; allowed: 1 to {_MOST_HISTORY}')
        appliance = request.query.get("appliance")
        sent = (
            one
            for one in reversed(self._desk.recent)
            if appliance is None or any(place.id == appliance for place in one.targets)
        )
        rows = [
            {
                "at": one.at,
                "decision": one.decision,
                "way": one.way,
                "reason": one.reason,
                "content": one.content,
                "answer": [place.id for place in one.targets],
            }
            for one in itertools.islice(sent, int(limit))
        ]
        return answer({"decisions": rows})

    async def _show_fleet(self, request: web.Request) -> web.Response:
        """All appliances, or those of one `site` or `standing`."""
        site, standing = request.query.get("site"), request.query.get("standing")
        if standing is not None and standing not in set(Standing):
            raise web.HTTPBadRequest(text=f'"standing" is {standing!r}; allowed: {", ".join(Standing)}')
        members = [
            self._described(member)
            for member in self._fleet.members.values()
            if (site is None or member.entry.site == site) and (standing is None or member.standing == standing)
        ]
        version = self._fleet.inventory.version
        return answer({"panic_since": self._fleet.panic_since, "inventory": version, "appliances": members})

    async def _show_member(self, request: web.Request) -> web.Response:
        member = self._fleet.members.get(request.match_info["appliance"])
        if member is None:
            raise web.HTTPNotFound(text=f"there is no appliance {request.match_info['appliance']!r}")
        return answer({**self._described(member), "heartbeat": member.heartbeat})

    def _described(self, member: Member) -> dict[str, Any]:
        entry = member.entry
        return {
            "id": entry.id,
            "site": entry.site,
            "url": entry.url,
            "wish": entry.wish,
            "maintenance": entry.maintenance,
            "resting": member.resting,
            "put_off": None if member.put_off is None else _crowded(entry.site, member.put_off),
            "standing": member.standing,
            "bar": member.bar,
            "proof": entry.proof,
            "prefixes": self._learned(entry.id),
            "since": member.since,
            "heard": None if member.heard_at is None else round(self._clock() - member.heard_at, 3),
            "utilisation": round(member.utilisation, 4),
            "egress_bps": 0.0 if member.heartbeat is None else member.heartbeat.egress_bps,
            "capacity_bps": member.capacity_bps,
            "hit_ratio": member.hit_ratio,
            "holdings": {"version": member.holdings_version, "renditions": len(member.holdings)},
            "clock_offset": round(member.clock_offset, 3),
            "is_clock_off": member.is_clock_off,
            "from_snapshot": member.heard_at is not None and not member.is_live,
            "reasons": () if member.heartbeat is None else member.heartbeat.reasons,
        }

    def _learned(self, appliance: str) -> dict[str, Any] | None:
        """What became of the prefixes that it reported last; None if it reported none since this process started."""
        accepted = self._announcements.reported.get(appliance)
        if accepted is None:
            return None
        return {
            "accepted": len(accepted.networks),
            "digest": accepted.digest,
            "rejected": {reason.value: count for reason, count in accepted.rejected.items()},
        }

    async def _show_signed(self, request: web.Request) -> web.Response:
        """The URL of `path` at one `appliance` as a viewer at `client` would be given it, whether or not it may have
        viewers: for whoever reads back what it serves.
        """
        query = request.query
        entry = self._registry.inventory.appliances.get(query.get("appliance", ""))
        if entry is None:
            raise web.HTTPNotFound(text=f"there is no appliance {query.get('appliance', '')[:64]!r}")
        try:
            client = packed(query.get("client", ""))
        except BadClient as error:
            raise web.HTTPBadRequest(text=f'"client": {error}') from error
        url = self._desk.signed(entry.url, checked_path(query.get("path")), client)
        return answer({"appliance": entry.id, "url": url, "signed": self._desk.signs})

    async def _show_inventory(self, _: web.Request) -> web.Response:
        inventory = self._registry.inventory
        rows: dict[str, Any] = {"version": inventory.version}
        for kind, entries in (
            (OPERATOR, inventory.operators),
            (SITE, inventory.sites),
            (APPLIANCE, inventory.appliances),
        ):
            rows[kind] = [
                {**msgspec.to_builtins(entry), "from_file": (kind, name) in inventory.from_file}
                for name, entry in sorted(entries.items())
            ]
            for row in rows[kind]:
                row.pop("token_sha256", None)
        return answer(rows)

    async def _history(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", "100")
        if not limit.isdecimal() or not 1 <= int(limit) <= _MOST_HISTORY:
            raise web.HTTPBadRequest(text=f'"limit" is {limit!r}; allowed: 1 to {_MOST_HISTORY}')
        kept = await self._registry.history(int(limit), request.query.get("kind"), request.query.get("id"))
        return answer({"changes": kept})

    async def _change(self, request: web.Request) -> web.Response:
        order = await message(request, Order, _MOST_BYTES)
        changes: list[Change] = []
        for number, raw in enumerate(order.changes):
            try:
                changes.append(decode_change(bytes(raw)))
            except InventoryError as error:
                raise web.HTTPBadRequest(text=f"changes[{number}]: {error}") from error
        # What can't be is said as that, however full a site is; the registry looks again under its lock.
        apply(self._registry.inventory, *changes, now=self._clock())
        if not order.force and (crowded := self._crowded(changes)):
            raise Crowded(f"nothing was changed: {crowded}; with force it is done all the same")
        inventory = await self._registry.change(*changes, who=order.who, why=order.why)
        self._changed()
        return answer({"version": inventory.version})

    def _crowded(self, changes: list[Change]) -> str:
        """What is said against taking appliances away: sites whose load the others could not carry. Empty: nothing."""
        now = self._clock()
        members = self._fleet.members
        asked = [one for one in changes if isinstance(one, SetWish | PlanMaintenance) and one.appliance in members]
        gone = {one.appliance for one in asked if isinstance(one, SetWish) and one.wish is not Wish.SERVE}
        windows = [one for one in asked if isinstance(one, PlanMaintenance) and not one.forced and one.stop > now]
        spans = [(max(one.start, now), one.stop, {one.appliance}) for one in windows]
        if gone:
            spans.append((now, now, gone))
        words: dict[str, None] = {}
        for start, stop, leaving in spans:
            for site in sorted({members[name].entry.site for name in leaving}):
                inside = self._fleet.at(site)
                away = leaving | {other.appliance for other in windows if other.start < stop and start < other.stop}
                away |= {
                    member.entry.id
                    for member in inside
                    if any(window.overlaps(start, stop) for window in member.entry.maintenance)
                }
                load = self._expected(site, start, stop) if start > now else None
                back = {member.entry.id for member in inside if member.resting and start > now}
                full = fullness_without(inside, away, load, back)
                if full > FULLEST:
                    words[_crowded(site, full)] = None
        return ", ".join(words)

    async def _new_token(self, request: web.Request) -> web.Response:
        """The token is in this answer and nowhere else: the registry keeps its SHA-256."""
        order = await message(request, TokenOrder, 4096)
        entry = self._registry.inventory.appliances.get(order.appliance)
        if entry is None:
            raise web.HTTPNotFound(text=f"there is no appliance {order.appliance!r}")
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        digest = hashlib.sha256(token.encode()).hexdigest()
        put = PutAppliance(msgspec.structs.replace(entry, token_sha256=digest))
        await self._registry.change(put, who=order.who, why=order.why)
        self._changed()
        return answer({"appliance": order.appliance, "token": token})

    async def _targets(self, request: web.Request) -> web.Response:
        """Prometheus' HTTP service discovery: one group for each appliance, or with ?of=agents for its fill agent."""
        of = request.query.get("of", "appliances")
        if of not in ("appliances", "agents"):
            raise web.HTTPBadRequest(text=f'"of" is {of[:40]!r}; allowed: appliances or agents')
        inventory = self._registry.inventory
        groups = []
        for name, entry in sorted(inventory.appliances.items()):
            address = entry.metrics if of == "appliances" else entry.agent_metrics
            if address is None:
                continue
            site = inventory.sites[entry.site]
            labels = {"appliance": name, "site": entry.site, "operator": site.operator, "country": site.country}
            groups.append({"targets": [address], "labels": labels})
        return answer(groups)


def _crowded(site: str, full: float) -> str:
    return f"{site} would be {full:.0%} full" if isfinite(full) else f"{site} has no other appliance for its viewers"


def explained(decision: Decision) -> dict[str, Any]:
    """A decision with all its terms, in milliseconds."""
    ranking = decision.ranking
    return {
        "decision": decision.id,
        "at": decision.at,
        "fallback": decision.fallback,
        "reason": decision.reason,
        "answer": [{"id": place.id, "url": place.url} for place in decision.targets],
        "client": decision.where,
        "content": {"name": decision.content.name, "renditions": decision.content.renditions},
        "current": decision.question.current,
        "sites": [
            {"site": site, "proximity": proximity.name.lower(), "rtt": round(rtt, 3)}
            for site, proximity, rtt in decision.near
        ],
        "ranked": [] if ranking is None else [_terms(row) for row in ranking.ranked],
        "rejected": []
        if ranking is None
        else [
            {
                "appliance": row.appliance,
                "site": row.site,
                "proximity": row.proximity.name.lower(),
                "why": bar,
                "utilisation": round(row.utilisation, 4),
            }
            for row, bar in ranking.rejected
        ],
    }


def _terms(row: Ranked) -> dict[str, Any]:
    candidate = row.candidate
    return {
        "appliance": candidate.appliance,
        "site": candidate.site,
        "proximity": candidate.proximity.name.lower(),
        "cost": round(row.cost, 3),
        "rtt": round(candidate.rtt, 3),
        "fetch": round(row.fetch, 3),
        "load": round(row.load, 3),
        "miss": round(row.miss, 4),
        "held": candidate.held,
        "hit_ratio": candidate.hit_ratio,
        "utilisation": round(candidate.utilisation, 4),
        "weight": round(candidate.weight, 3),
        "among_equals": row.equal,
        "busy": row.busy,
    }
