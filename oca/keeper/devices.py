"""/v1/devices: what the operator sees of the devices, and what may be done with them while the appliance serves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from oca.cache.health import Standing, explanation
from oca.errors import OrderRefused
from oca.keeper.bodies import body
from oca.store.rack import AddOrder, LeftOut, Rack
from oca.store.scrub import Round
from oca.store.shelf import DRAIN, MEMORY, Shelf
from oca.store.shelves import Shelves
from wire.heartbeat import DeviceState

_MOST_WORD: Final = 200
Settle = Callable[[], object]


class DeviceOrder(msgspec.Struct, forbid_unknown_fields=True):
    """{"device": "5f3a…"} or {"device": "/srv/disk7"}; `force` gives up content."""

    device: str
    force: bool = False


class Devices:
    def __init__(self, rack: Rack, shelves: Shelves, settle: Settle, rounds: Mapping[int, Round]) -> None:
        self._rack = rack
        self._rounds = rounds
        """Of the scrubber."""
        self._shelves = shelves
        self._settle = settle
        """Called when a device came or came back: it is swept, and what lies on it is taken over."""

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/devices", self._list)
        app.router.add_post("/v1/devices", self._add)
        app.router.add_post("/v1/devices/drain", self._drain)
        app.router.add_post("/v1/devices/serve", self._serve)
        app.router.add_post("/v1/devices/remove", self._remove)

    def entries(self) -> list[dict[str, Any]]:
        """All devices but the memory, as the operator should see them."""
        known = [self._entry(shelf) for shelf in self._shelves.shelves if shelf.tier != MEMORY]
        return known + [_left_out(out) for out in self._rack.left_out]

    def memory(self) -> dict[str, Any] | None:
        """Where newcomers wait."""
        return next((self._entry(shelf) for shelf in self._shelves.shelves if shelf.tier == MEMORY), None)

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"devices": self.entries(), "health": self._rack.health})

    async def _add(self, request: web.Request) -> web.Response:
        shelf = await _obeyed(self._rack.add(await body(request, AddOrder)))
        self._settle()
        return web.json_response(self._entry(shelf))

    async def _drain(self, request: web.Request) -> web.Response:
        return await self._on(request, self._rack.drain)

    async def _serve(self, request: web.Request) -> web.Response:
        return await self._on(request, self._rack.serve)

    async def _on(self, request: web.Request, act: Callable[[Shelf], None]) -> web.Response:
        order = await body(request, DeviceOrder)
        shelf = _found(self._rack, order.device)
        act(shelf)
        return web.json_response(self._entry(shelf))

    async def _remove(self, request: web.Request) -> web.Response:
        order = await body(request, DeviceOrder)
        shelf = _found(self._rack, order.device)
        entry = self._entry(shelf)
        await _obeyed(self._rack.remove(shelf, force=order.force))
        return web.json_response({**entry, "wish": shelf.wish, "used_bytes": 0})

    def _entry(self, shelf: Shelf) -> dict[str, Any]:
        used = self._shelves.policy.used_bytes(shelf.number)
        entry = {
            "id": shelf.identity,
            "path": shelf.path,
            "tier": shelf.tier,
            "standing": shelf.health.standing,
            "reason": shelf.health.reason or "",
            "since": shelf.health.since,
            "wish": shelf.wish,
            "used_bytes": used,
            "capacity_bytes": shelf.capacity,
            "errors": {fault.value: count for fault, count in sorted(shelf.errors.items())},
            "detail": _detail(shelf),
        }
        if shelf.wish == DRAIN:
            entry["left_bytes"] = used
        if shelf.number in self._rounds:
            entry["scrub"] = msgspec.to_builtins(self._rounds[shelf.number])
        return entry


def device_states(shelves: Shelves, rack: Rack) -> list[DeviceState]:
    """What other machines are told of the devices."""
    used = shelves.policy.used_bytes
    known = [_state(shelf, used(shelf.number)) for shelf in shelves.shelves if shelf.tier != MEMORY]
    # The id of what is left out can't be read: it stands under its path.
    return known + [
        DeviceState(
            id=out.settings.path[:_MOST_WORD],
            tier=out.settings.tier,
            standing=Standing.OFFLINE,
            reason=out.reason or "",
            capacity_bytes=int(out.settings.capacity),
        )
        for out in rack.left_out
    ]


def _state(shelf: Shelf, used_bytes: int) -> DeviceState:
    return DeviceState(
        id=shelf.identity[:_MOST_WORD],
        tier=shelf.tier,
        standing=shelf.health.standing,
        reason=shelf.health.reason or "",
        capacity_bytes=shelf.capacity,
        used_bytes=used_bytes,
    )


def _detail(shelf: Shelf) -> str:
    if shelf.health.standing is Standing.ONLINE:
        return "what lies on it is being taken over; until then nothing is written there" if shelf.foreign else ""
    said = explanation(shelf.health.reason)
    return f"{said} ({shelf.detail})" if shelf.detail else said


def _left_out(out: LeftOut) -> dict[str, Any]:
    return {
        "id": None,
        "path": out.settings.path,
        "tier": out.settings.tier,
        "standing": Standing.OFFLINE,
        "reason": out.reason or "",
        "since": 0.0,
        "wish": "serve" if out.reason else "remove",
        "used_bytes": 0,
        "capacity_bytes": int(out.settings.capacity),
        "errors": {},
        "detail": out.detail,
    }


def _found(rack: Rack, name: str) -> Shelf:
    try:
        return rack.find(name)
    except OrderRefused as error:
        raise _as_http(error) from error


async def _obeyed(work: Awaitable[Any]) -> Any:  # noqa: ANN401
    try:
        return await work
    except OrderRefused as error:
        raise _as_http(error) from error


def _as_http(error: OrderRefused) -> web.HTTPException:
    kind = {400: web.HTTPBadRequest, 404: web.HTTPNotFound}.get(error.status, web.HTTPConflict)
    return kind(text=str(error))
