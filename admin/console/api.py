"""What pages ask of the console, as JSON: looks, and acts. Every act is checked, done, and noted in the audit log."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from importlib import resources
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import web
from markdown_it import MarkdownIt
from msgspec import Meta, Struct

from admin.bucket import Bucket
from admin.console.accounts import Role
from admin.console.alerts import Alertmanager
from admin.console.charts import Prometheus
from admin.console.door import SESSION, Door, require
from admin.console.jobs import Busy, Jobs
from admin.console.ledger import Acknowledgement, Entry, Ledger, Session
from admin.console.night import Night
from admin.console.rows import Row
from admin.console.settings import Settings
from admin.console.watching import TooMany, Watching
from admin.errors import AdminError, UsageError
from admin.fleet.asking import Desk, FleetError, Refused
from admin.fleet.known import chosen

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MOST_BODY: Final = 256 * 1024
_BODY: Final = 10.0
_BOX: Final = 3.0
"""Seconds that an appliance's own words are waited for. The rest of its page does not."""
_LINES: Final = 200
_BEAT: Final = 15.0
"""Seconds between signs of life on a stream of events."""
_RUNBOOK: Final = re.compile(r"[A-Za-z]{1,80}")
_LONGEST_SNOOZE: Final = 7 * 86400.0

OrderT = TypeVar("OrderT", bound=Struct)
Why = Annotated[str, Meta(min_length=1, max_length=500)]
Id = Annotated[str, Meta(min_length=1, max_length=100)]
Ids = Annotated[tuple[Id, ...], Meta(max_length=10_000)]


class Wish(Struct, forbid_unknown_fields=True):
    """{"appliances": ["lis-1"], "why": "disk swap"} or {"site": "lis", ...}."""

    why: Why
    appliances: Ids = ()
    site: Id | None = None
    force: bool = False


class Plan(Struct, forbid_unknown_fields=True):
    """Maintenance: `start` and `stop` in seconds since 1970."""

    why: Why
    start: float
    stop: float
    appliances: Ids = ()
    site: Id | None = None
    force: bool = False


class Cancel(Struct, forbid_unknown_fields=True):
    why: Why
    appliance: Id
    start: float | None = None


class Purge(Struct, forbid_unknown_fields=True):
    why: Why
    path: Annotated[str, Meta(min_length=1, max_length=2048, pattern="^/")]
    is_prefix: bool = False
    site: Id | None = None


class Acknowledge(Struct, forbid_unknown_fields=True):
    fingerprint: Annotated[str, Meta(min_length=1, max_length=100)]
    note: Why


class Snooze(Struct, forbid_unknown_fields=True):
    fingerprint: Annotated[str, Meta(min_length=1, max_length=100)]
    note: Why
    seconds: Annotated[float, Meta(ge=60, le=_LONGEST_SNOOZE)]


class Wake(Struct, forbid_unknown_fields=True):
    fingerprint: Annotated[str, Meta(min_length=1, max_length=100)]


class End(Struct, forbid_unknown_fields=True):
    session: Annotated[str, Meta(min_length=64, max_length=64)]


class Api:
    def __init__(
        self,
        settings: Settings,
        door: Door,
        ledger: Ledger,
        desk: Desk,
        watching: Watching,
        jobs: Jobs,
        night: Night,
        alertmanager: Alertmanager | None,
        prometheus: Prometheus | None,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._door = door
        self._ledger = ledger
        self._desk = desk
        self._watching = watching
        self._jobs = jobs
        self._night = night
        self._alertmanager = alertmanager
        self._prometheus = prometheus
        self._clock = clock

    def add_routes(self, app: web.Application) -> None:
        for path, look in (
            ("/healthz", self._healthz),
            ("/api/me", self._me),
            ("/api/fleet", self._fleet),
            ("/api/events", self._events),
            ("/api/appliances/{id}", self._appliance),
            ("/api/appliances/{id}/box", self._box),
            ("/api/appliances/{id}/logs", self._logs),
            ("/api/charts", self._charts),
            ("/api/explain", self._explain),
            ("/api/fill", self._fill),
            ("/api/audit", self._audit),
            ("/api/sessions", self._sessions),
            ("/runbooks/{name}", self._runbook),
        ):
            app.router.add_get(path, look)
        for path, act in (
            ("/api/drain", self._drain),
            ("/api/resume", self._resume),
            ("/api/maintenance", self._plan),
            ("/api/maintenance/cancel", self._cancel),
            ("/api/purge", self._purge),
            ("/api/alerts/acknowledge", self._acknowledge),
            ("/api/alerts/snooze", self._snooze),
            ("/api/alerts/wake", self._wake),
            ("/api/sessions/end", self._end),
        ):
            app.router.add_post(path, act)

    # --- Looks ---

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _me(self, request: web.Request) -> web.Response:
        session = request[SESSION]
        return _json(
            {
                "name": session.name,
                "role": session.role,
                "csrf": session.csrf,
                "prometheus": self._prometheus is not None,
                "alertmanager": self._alertmanager is not None,
            }
        )

    async def _fleet(self, _: web.Request) -> web.Response:
        await self._watching.looked.wait()
        answer = _json(self._watching.whole())
        answer.enable_compression()
        return answer

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: what changed after version `since`. "anew": ask for the whole again."""
        last = request.headers.get("Last-Event-ID") or request.query.get("since", "")
        if not last.isdecimal():
            raise web.HTTPBadRequest(text='"since" is missing; allowed: the version that /api/fleet said')
        async with self._watching.watched(int(last)) as queue:
            answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
            for name, value in self._door.headers.items():
                answer.headers[name] = value
            await answer.prepare(request)
            while True:
                try:
                    async with asyncio.timeout(_BEAT):
                        packed = await queue.get()
                except TimeoutError:
                    if await self._door.is_over(request):
                        return answer
                    await answer.write(b": still here\n\n")
                    continue
                if packed is None:
                    await answer.write(b"event: anew\ndata:\n\n")
                    return answer
                version = msgspec.json.decode(packed, type=_Versioned).version
                await answer.write(b"id: %d\ndata: %b\n\n" % (version, packed))

    async def _appliance(self, request: web.Request) -> web.Response:
        """What steering knows of one, where it sent players lately, and what was ordered of it."""
        name = request.match_info["id"]
        row = self._watching.rows.get(name)
        if row is None:
            raise web.HTTPNotFound(text=f"there is no appliance {name[:80]!r}")
        member, decisions, changes = await asyncio.gather(
            self._desk.read(f"/v1/fleet/{name}", dict[str, Any]),
            self._desk.read("/v1/decisions", dict[str, Any], {"appliance": name, "limit": "30"}),
            self._desk.read("/v1/changes", dict[str, Any], {"kind": "appliance", "id": name, "limit": "30"}),
        )
        return _json({"member": member, "decisions": decisions["decisions"], "changes": changes["changes"]})

    def _address_of(self, request: web.Request) -> str:
        name = request.match_info["id"]
        box = next((box for box in self._watching.inventory.appliance if box.id == name), None)
        if box is None:
            raise web.HTTPNotFound(text=f"there is no appliance {name[:80]!r}")
        if box.metrics is None:
            raise FleetError(f"the inventory has no address (metrics) of {name}")
        return box.metrics

    async def _box(self, request: web.Request) -> web.Response:
        """What an appliance says of itself, if it answers within three seconds."""
        return _json(await self._desk.of_appliance(self._address_of(request), "/v1/status", _BOX))

    async def _logs(self, request: web.Request) -> web.Response:
        """Its last lines, as long."""
        path = f"/v1/logs?lines={_LINES}&level=INFO"
        return _json(await self._desk.of_appliance(self._address_of(request), path, _BOX))

    async def _charts(self, request: web.Request) -> web.Response:
        if self._prometheus is None:
            raise web.HTTPNotFound(text="there is no [prometheus] in the console's settings")
        labels = {name: request.query[name] for name in ("appliance", "site") if name in request.query}
        return _json(await self._prometheus.charts(labels, request.query.get("span", "1h"), self._clock()))

    async def _explain(self, request: web.Request) -> web.Response:
        query = {name: request.query[name] for name in ("client", "path", "current") if request.query.get(name)}
        try:
            told: dict[str, Any] = await self._desk.read("/v1/explain", dict[str, Any], query)
        except FleetError as error:
            if " 400: " in str(error):
                raise UsageError(str(error).partition(" 400: ")[2]) from error
            raise
        return _json(told)

    async def _fill(self, _: web.Request) -> web.Response:
        return _json(await self._night.told(self._watching.inventory))

    async def _audit(self, request: web.Request) -> web.Response:
        """What was done here, and what was changed at steering, whoever did it: the newest first."""
        limit, before = request.query.get("limit", "200"), request.query.get("before")
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
            raise web.HTTPBadRequest(text=f'"limit" is {limit[:20]!r}; allowed: 1 to 1000')
        if before is not None and not before.isdecimal():
            raise web.HTTPBadRequest(text=f'"before" is {before[:20]!r}; allowed: the number of an entry')
        entries = await self._ledger.entries(int(limit), None if before is None else int(before))
        try:
            changes = (await self._desk.read("/v1/changes", dict[str, Any], {"limit": limit}))["changes"]
            error = None
        except FleetError as failure:
            changes, error = [], str(failure)
        return _json({"entries": entries, "changes": changes, "error": error})

    async def _runbook(self, request: web.Request) -> web.Response:
        name = request.match_info["name"].removesuffix(".md")
        page = resources.files("admin") / "runbooks" / f"{name}.md"
        if not _RUNBOOK.fullmatch(name) or not page.is_file():
            raise web.HTTPNotFound(text=f"there is no runbook {name[:80]!r}")
        body = MarkdownIt("commonmark", {"html": False}).enable("table").render(page.read_text(encoding="utf-8"))
        return web.Response(text=_RUNBOOK_PAGE.format(name=name, body=body), content_type="text/html")

    async def _sessions(self, request: web.Request) -> web.Response:
        own = require(request, Role.ADMIN)
        rows = [
            {
                "session": one.id,
                "name": one.name,
                "role": one.role,
                "address": one.address,
                "begun_at": one.begun_at,
                "seen_at": one.seen_at,
                "is_own": one.id == own.id,
            }
            for one in sorted(await self._ledger.sessions(), key=lambda one: -one.seen_at)
        ]
        return _json(rows)

    # --- Acts ---

    async def _drain(self, request: web.Request) -> web.Response:
        session, order = require(request, Role.OPERATOR), await _order(request, Wish)
        return await self._wished(request, session, order, "drain")

    async def _resume(self, request: web.Request) -> web.Response:
        session, order = require(request, Role.OPERATOR), await _order(request, Wish)
        return await self._wished(request, session, order, "serve")

    async def _wished(self, request: web.Request, session: Session, order: Wish, wish: str) -> web.Response:
        names = await self._names(order.appliances, order.site)
        act = self._desk.wish(names, wish, session.name, order.why, force=order.force)
        await self._noted(request, "drain" if wish == "drain" else "resume", ", ".join(names), order.why, act)
        return _json({"appliances": names})

    async def _plan(self, request: web.Request) -> web.Response:
        session, order = require(request, Role.OPERATOR), await _order(request, Plan)
        names = await self._names(order.appliances, order.site)
        window = {"start": order.start, "stop": order.stop, "forced": order.force}
        changes = [{"type": "plan-maintenance", "appliance": name, **window} for name in names]
        act = self._desk.change(changes, session.name, order.why, force=order.force)
        await self._noted(request, "plan maintenance", ", ".join(names), order.why, act)
        return _json({"appliances": names})

    async def _cancel(self, request: web.Request) -> web.Response:
        session, order = require(request, Role.OPERATOR), await _order(request, Cancel)
        change = {"type": "cancel-maintenance", "appliance": order.appliance, "start": order.start}
        act = self._desk.change([change], session.name, order.why)
        await self._noted(request, "cancel maintenance", order.appliance, order.why, act)
        return _json({"appliances": [order.appliance]})

    async def _names(self, appliances: Sequence[str], site: str | None) -> list[str]:
        members = chosen(await self._desk.fleet(), appliances, site)
        await self._watching.look()
        return [member.id for member in members]

    async def _purge(self, request: web.Request) -> web.Response:
        session, order = require(request, Role.OPERATOR), await _order(request, Purge)
        boxes = [box for box in self._watching.inventory.appliance if order.site in (None, box.site)]
        addresses = {box.id: box.metrics for box in boxes if box.metrics is not None}
        if not addresses:
            raise UsageError("there is nobody to tell: no appliance there has an address (metrics) in the inventory")
        kind = "prefix" if order.is_prefix else "path"
        what = f"purge {kind}"
        address = self._door.address(request)

        async def done(outcome: str) -> None:
            await self._note(session, address, f"{what}: ended", order.path, order.why, outcome)

        job = self._jobs.purge({kind: order.path}, addresses, session.name, done)
        await self._note(session, address, what, order.path, order.why, f"begun: job {job.number}")
        return _json({"job": job.number, "untold": len(boxes) - len(addresses)})

    async def _acknowledge(self, request: web.Request) -> web.Response:
        session, order = require(request, Role.OPERATOR), await _order(request, Acknowledge)
        alert = self._alert(order.fingerprint)
        told = Acknowledgement(order.fingerprint, alert["starts_at"], session.name, self._clock(), order.note)
        await self._noted(request, "acknowledge", _named(alert), order.note, self._ledger.acknowledge(told))
        await self._watching.look_for_alerts()
        return _json({})

    async def _snooze(self, request: web.Request) -> web.Response:
        session, order = require(request, Role.OPERATOR), await _order(request, Snooze)
        alert, now = self._alert(order.fingerprint), self._clock()
        assert self._alertmanager is not None
        act = self._alertmanager.snooze(alert, now + order.seconds, now, session.name, order.note)
        await self._noted(request, f"snooze for {order.seconds / 3600:g} h", _named(alert), order.note, act)
        await self._watching.look_for_alerts()
        return _json({})

    async def _wake(self, request: web.Request) -> web.Response:
        require(request, Role.OPERATOR)
        order = await _order(request, Wake)
        alert = self._alert(order.fingerprint)
        if alert["snoozed"] is None:
            raise UsageError("this alert is not snoozed")
        assert self._alertmanager is not None
        await self._noted(request, "wake", _named(alert), "", self._alertmanager.wake(alert["snoozed"]["id"]))
        await self._watching.look_for_alerts()
        return _json({})

    def _alert(self, fingerprint: str) -> Row:
        for alert in self._watching.alerts:
            if alert["fingerprint"] == fingerprint:
                return alert
        raise UsageError("this alert does not fire (any more)")

    async def _end(self, request: web.Request) -> web.Response:
        require(request, Role.ADMIN)
        order = await _order(request, End)
        known = {one.id: one for one in await self._ledger.sessions()}
        if order.session not in known:
            raise UsageError("there is no such session (any more)")
        await self._noted(request, "end session", known[order.session].name, "", self._ledger.end(order.session))
        return _json({})

    async def _noted(self, request: web.Request, what: str, about: str, why: str, act: Awaitable[object]) -> None:
        """Do it, and keep what came of it, also if nothing did."""
        session, address = request[SESSION], self._door.address(request)
        try:
            await act
        except AdminError as error:
            await self._note(session, address, what, about, why, f"refused: {error}")
            raise
        await self._note(session, address, what, about, why, "done")
        await self._watching.look()

    async def _note(self, session: Session, address: str, what: str, about: str, why: str, outcome: str) -> None:
        await self._ledger.note(
            Entry(
                at=self._clock(),
                who=session.name,
                role=session.role,
                address=address,
                what=what,
                about=about,
                why=why,
                outcome=outcome,
            )
        )


class _Versioned(Struct):
    version: int


@web.middleware
async def failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Our own errors as answers."""
    try:
        return await handler(request)
    except Refused as error:
        status, sentence = HTTPStatus.CONFLICT, str(error)
    except UsageError as error:
        status, sentence = HTTPStatus.BAD_REQUEST, str(error)
    except (TooMany, Busy) as error:
        status, sentence = HTTPStatus.SERVICE_UNAVAILABLE, str(error)
    except FleetError as error:
        status, sentence = HTTPStatus.BAD_GATEWAY, str(error)
    except AdminError as error:
        status, sentence = HTTPStatus.INTERNAL_SERVER_ERROR, str(error)
    return web.json_response({"error": sentence}, status=status)


async def _order(request: web.Request, kind: type[OrderT]) -> OrderT:
    """What a request's body says. Raises UsageError."""
    try:
        async with asyncio.timeout(_BODY):
            body = await request.content.read(_MOST_BODY + 1)
            while not request.content.at_eof() and len(body) <= _MOST_BODY:
                body += await request.content.readany()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text=f"the body did not come within {_BODY:.0f} s") from error
    if len(body) > _MOST_BODY:
        raise web.HTTPRequestEntityTooLarge(_MOST_BODY, len(body))
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"not what is allowed here: {error}") from error


def bucket_of(settings: Settings) -> Bucket | None:
    """Raises AdminError."""
    return None if settings.fill is None else Bucket(settings.fill.bucket, settings.fill.endpoint_url)


def _named(alert: Row) -> str:
    about = alert["labels"].get("appliance") or alert["labels"].get("site") or ""
    return f"{alert['name']} {about}".strip()


def _json(value: Any) -> web.Response:  # noqa: ANN401 whatever JSON can say
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


_RUNBOOK_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name} - runbook</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="/assets/icon.svg">
<link rel="stylesheet" href="/assets/console.css"></head>
<body class="runbook"><main><p><a href="/">Console</a></p>{body}</main></body></html>"""
