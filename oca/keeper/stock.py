"""What the appliance has room for and what it holds, as the planner of fill is told."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Final

from oca.keeper.devices import device_states
from oca.keeper.gauges import Gauges
from oca.keeper.stocktaker import Stocktaker
from oca.settings import Settings, Steering
from oca.store.rack import Rack
from oca.store.shelves import Shelves
from wire.demand import Stock

_MOST_DEVICES: Final = 256


class StockReport:
    def __init__(
        self,
        settings: Settings,
        steering: Steering,
        shelves: Shelves,
        rack: Rack,
        stocktaker: Stocktaker,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._shelves = shelves
        self._rack = rack
        self._stocktaker = stocktaker
        self._clock = clock
        # Of its own: those of the heartbeat measure from one heartbeat to the next.
        self._gauges = Gauges(steering)

    async def message(self) -> Stock:
        """As it is now."""
        gauge = await self._gauges.read()
        return Stock(
            appliance=self._settings.appliance.id,
            at=self._clock(),
            version=version("open-oca"),
            devices=tuple(device_states(self._shelves, self._rack)[:_MOST_DEVICES]),
            pledge_share=self._settings.store.pledge_share,
            link_bps=gauge.link_bps,
            # What is only half counted would look as if the rest had gone.
            holdings=self._stocktaker.bitmap if self._stocktaker.is_complete else b"",
        )
