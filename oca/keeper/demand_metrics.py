"""What becomes of demand, for /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from oca.keeper.demand import Demand, Lost


class DemandMetrics(Collector):
    def __init__(self, demand: Demand) -> None:
        self._demand = demand

    def collect(self) -> Iterator[Metric]:
        demand = self._demand
        yield GaugeMetricFamily(
            "oca_demand_spooled_bytes",
            "Bytes of demand on disk that the bucket does not have.",
            value=demand.spooled_bytes,
        )
        yield GaugeMetricFamily(
            "oca_demand_spooled_hours",
            "Hours of demand on disk that the bucket does not have; the running one counts.",
            value=demand.spooled_hours,
        )
        yield GaugeMetricFamily(
            "oca_demand_last_success_timestamp_seconds",
            "When the bucket last had all that there was; 0 before the first time.",
            value=demand.succeeded_at,
        )
        yield CounterMetricFamily(
            "oca_demand_shipped", "Hours' files that the bucket has confirmed.", value=demand.shipped
        )
        yield CounterMetricFamily(
            "oca_demand_failures", "Times that not all could be shipped; it is tried again.", value=demand.failures
        )
        lost = CounterMetricFamily("oca_demand_lost", "Parts of hours that were given up.", labels=["reason"])
        for why in Lost:
            lost.add_metric([why], demand.lost[why])
        yield lost
        yield CounterMetricFamily(
            "oca_demand_unnamed",
            "Times that a rendition was counted without its name, because the hour has too many.",
            value=demand.unnamed,
        )
