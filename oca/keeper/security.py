"""TLS as the keeper sees it: it changes the keys of session tickets, and tells how long certificates are good and what
came of handshakes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from oca.counters import Count
from oca.keeper.desk import Counters
from oca.settings import Settings
from oca.tls import TicketKeys, ends_at, kernel_tls

log = logging.getLogger(__name__)

_LOOK: Final = 10.0
_RESULTS: Final = {
    "full": Count.HANDSHAKES_FULL,
    "resumed": Count.HANDSHAKES_RESUMED,
    "failed": Count.HANDSHAKES_FAILED,
    "timeout": Count.HANDSHAKE_TIMEOUTS,
    "refused": Count.FLEET_REFUSED,
}


class Security(Collector):
    def __init__(self, settings: Settings, tickets_fd: int, counters: Counters, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._tickets = TicketKeys(tickets_fd)
        self._counters = counters
        self._clock = clock
        self._kernel = kernel_tls()
        self._ends: dict[str, float] = {}
        """By listener: when the first of its certificates ends."""

    async def run(self) -> None:
        """For ever."""
        interval = float(self._settings.tls.ticket_rotation)
        while True:
            if interval:
                self._tickets.rotate(self._clock(), interval)
            self._ends = await asyncio.to_thread(self._read_ends)
            await asyncio.sleep(min(_LOOK, interval or _LOOK))

    def status(self) -> dict[str, Any]:
        return {"kernel": self._kernel, "certificates_end_at": self._ends}

    def collect(self) -> Iterator[Metric]:
        sums = self._counters.sums()
        shakes = CounterMetricFamily(
            "oca_tls_handshakes",
            "TLS handshakes by what came of them; refused: at the fleet's port, by the certificate.",
            labels=["result"],
        )
        for result, count in _RESULTS.items():
            shakes.add_metric([result], sums[count])
        yield shakes
        yield CounterMetricFamily(
            "oca_tls_old_handshakes", "Handshakes that came to TLS 1.2.", value=sums[Count.HANDSHAKES_TLS12]
        )
        yield CounterMetricFamily(
            "oca_certificate_faults",
            "Changed certificates that could not be used, by each worker that looked.",
            value=sums[Count.CERTIFICATE_FAULTS],
        )
        ends = GaugeMetricFamily(
            "oca_certificate_end_timestamp_seconds",
            "When the certificate of a listener ends, in seconds since 1970; of several, the first.",
            labels=["listener"],
        )
        for listener, at in self._ends.items():
            ends.add_metric([listener], at)
        yield ends

    def _read_ends(self) -> dict[str, float]:
        ends = [end for certificate in self._settings.certificate if (end := _end(certificate.cert)) is not None]
        return {"https": min(ends)} if ends else {}


def _end(path: str) -> float | None:
    try:
        return ends_at(path)
    except (OSError, ValueError) as error:
        log.warning("certificate %s can't be read: %s", path, error)
        return None
