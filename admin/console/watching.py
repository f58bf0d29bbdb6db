"""The fleet as it is now, watched for everybody who looks: asked once every two seconds however many look on.

A browser gets the whole once (`whole`) and from then on what changed, by server-sent events. A version counts the
changes; who lags behind what is kept, or reads too slowly, is told to begin anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from admin.console.alerts import Alertmanager
from admin.console.ledger import Ledger
from admin.console.rows import Row, changed, places_of, rows_of
from admin.errors import AdminError
from admin.fleet.asking import Desk
from admin.fleet.known import Fleet, Inventory

log = logging.getLogger(__name__)

_LOOK: Final = 2.0
_ALERTS: Final = 5.0
_KEPT: Final = 300
"""Changes, for who was away for a moment."""
_WAITING: Final = 64
"""Changes that one browser may be behind."""
_MOST_WATCHERS: Final = 500

Change = dict[str, Any]


class TooMany(AdminError):
    """As many look on already as are allowed."""


class Watching:
    def __init__(
        self, desk: Desk, alertmanager: Alertmanager | None, ledger: Ledger, clock: Callable[[], float]
    ) -> None:
        self._desk = desk
        self._alertmanager = alertmanager
        self._ledger = ledger
        self._clock = clock
        self.version = 0
        self.inventory = Inventory(version=-1)
        self.rows: dict[str, Row] = {}
        self._places: list[Row] = []
        self._panic_since: float | None = None
        self.alerts: list[Row] = []
        self._sources: dict[str, Row] = {"steering": {"error": "not asked yet", "heard_at": None}}
        if alertmanager is not None:
            self._sources["alertmanager"] = {"error": "not asked yet", "heard_at": None}
        self._jobs: list[Row] = []
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)
        self._watchers: set[asyncio.Queue[bytes | None]] = set()
        self._looking, self._listening = asyncio.Lock(), asyncio.Lock()
        """One look after the other: an answer that is late must not undo what a newer one told."""
        self.looked = asyncio.Event()
        """Set once steering was asked, whatever came of it."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self.look, _LOOK))
            group.create_task(self._again(self.look_for_alerts, _ALERTS))

    async def _again(self, look: Callable[[], Any], pause: float) -> None:
        while True:
            try:
                await look()
            except Exception:
                # A mistake of ours in one look: the next one is made all the same.
                log.exception("a look at the fleet failed")
            await asyncio.sleep(pause)

    # --- Looks ---

    async def look(self) -> None:
        """Ask steering, and tell what changed."""
        async with self._looking:
            await self._look()
        self.looked.set()

    async def _look(self) -> None:
        try:
            fleet = await self._desk.fleet()
            if fleet.inventory != self.inventory.version or fleet.inventory < 0:
                inventory = await self._desk.inventory()
            else:
                inventory = self.inventory
        except AdminError as error:
            self._source("steering", str(error))
        else:
            self._take(fleet, inventory)
            self._source("steering", None)

    def _take(self, fleet: Fleet, inventory: Inventory) -> None:
        change: Change = {}
        rows = rows_of(fleet)
        different, gone = changed(self.rows, rows)
        if different:
            change["rows"] = different
        if gone:
            change["gone"] = gone
        if inventory is not self.inventory:
            places = places_of(inventory)
            if places != self._places:
                self._places = change["sites"] = places
        if fleet.panic_since != self._panic_since:
            self._panic_since = change["panic_since"] = fleet.panic_since
        self.rows, self.inventory = rows, inventory
        self.tell(change)

    async def look_for_alerts(self) -> None:
        """Ask Alertmanager, if there is one."""
        if self._alertmanager is not None:
            async with self._listening:
                await self._look_for_alerts(self._alertmanager)

    async def _look_for_alerts(self, alertmanager: Alertmanager) -> None:
        try:
            alerts = await alertmanager.alerts()
        except AdminError as error:
            self._source("alertmanager", str(error))
            return
        known = await self._ledger.acknowledgements()
        for alert in alerts:
            told = known.pop(alert["fingerprint"], None)
            if told is not None and told.starts_at == alert["starts_at"]:
                alert["acknowledged"] = {"who": told.who, "at": told.at, "note": told.note}
        for over in known:
            await self._ledger.forget(over)
        if alerts != self.alerts:
            self.alerts = alerts
            self.tell({"alerts": alerts})
        self._source("alertmanager", None)

    def _source(self, name: str, error: str | None) -> None:
        before = self._sources[name]
        # While it is well, when it was heard is no news.
        heard_at = self._clock() if error is None else before["heard_at"]
        now = {"error": error, "heard_at": heard_at}
        self._sources[name] = now
        if before["error"] != error:
            self.tell({"sources": self._sources})

    def job(self, jobs: list[Row]) -> None:
        """How far what was begun is."""
        self._jobs = jobs
        self.tell({"jobs": jobs})

    # --- Telling ---

    def whole(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "now": self._clock(),
            "rows": self.rows,
            "sites": self._places,
            "alerts": self.alerts,
            "sources": self._sources,
            "panic_since": self._panic_since,
            "jobs": self._jobs,
        }

    def tell(self, change: Change) -> None:
        if not change:
            return
        self.version += 1
        packed = msgspec.json.encode({"version": self.version, "now": self._clock(), **change})
        self._kept.append((self.version, packed))
        for queue in tuple(self._watchers):
            try:
                queue.put_nowait(packed)
            except asyncio.QueueFull:
                # It reads too slowly: it is told to begin anew, once it reads.
                self._watchers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    @asynccontextmanager
    async def watched(self, since: int) -> AsyncIterator[asyncio.Queue[bytes | None]]:
        """Changes after a version; None: begin anew. Raises TooMany."""
        if len(self._watchers) >= _MOST_WATCHERS:
            raise TooMany(f"{_MOST_WATCHERS} look on already")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
        missed = [packed for version, packed in self._kept if version > since]
        if since > self.version or len(missed) != self.version - since or len(missed) >= _WAITING:
            queue.put_nowait(None)
        else:
            for packed in missed:
                queue.put_nowait(packed)
            self._watchers.add(queue)
        try:
            yield queue
        finally:
            self._watchers.discard(queue)
