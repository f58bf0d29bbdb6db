"""What became of reports to steering, for /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from oca.keeper.reporter import Reporter
from oca.keeper.stocktaker import Stocktaker
from oca.report.replicas import Outcome


class ReportMetrics(Collector):
    def __init__(self, reporter: Reporter, stocktaker: Stocktaker) -> None:
        self._reporter = reporter
        self._stocktaker = stocktaker

    def collect(self) -> Iterator[Metric]:
        heartbeats = CounterMetricFamily(
            "oca_reports", "Heartbeats to all replicas, by what became of them.", labels=["outcome"]
        )
        for outcome in Outcome:
            heartbeats.add_metric([outcome], self._reporter.heartbeats[outcome])
        yield heartbeats
        success = GaugeMetricFamily(
            "oca_report_last_success_timestamp_seconds",
            "When a replica last answered, by its place in steering.urls.",
            labels=["replica"],
        )
        for number, at in sorted(self._reporter.succeeded_at.items()):
            success.add_metric([str(number)], at)
        yield success
        heartbeat = self._reporter.heartbeat
        if heartbeat is not None:
            # Unknown is no number.
            yield GaugeMetricFamily(
                "oca_link_capacity_bytes_per_second",
                "What the network cards towards viewers can send; 0 if they don't say.",
                value=heartbeat.link_bps / 8,
            )
            yield GaugeMetricFamily(
                "oca_link_egress_bytes_per_second",
                "What they sent in the last interval, headers and all.",
                value=heartbeat.egress_bps / 8,
            )
            yield GaugeMetricFamily("oca_cpu_ratio", "Share of all cores that was busy.", value=heartbeat.cpu)
        yield GaugeMetricFamily(
            "oca_holdings_renditions", "Renditions that steering is told are held.", value=self._stocktaker.renditions
        )
        yield GaugeMetricFamily(
            "oca_holdings_version",
            "Of what steering is told; begins anew with the keeper.",
            value=self._stocktaker.version,
        )
