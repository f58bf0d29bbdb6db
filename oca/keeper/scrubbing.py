"""What the scrubber did and how far it is, for /metrics and status."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from oca.store.scrub import Scrubber
from oca.store.shelves import Shelves


class ScrubMetrics(Collector):
    def __init__(self, scrubber: Scrubber, shelves: Shelves) -> None:
        self._scrubber = scrubber
        self._shelves = shelves

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "oca_scrubbed_bytes", "Bytes read again from devices and compared.", value=self._scrubber.bytes
        )
        yield CounterMetricFamily(
            "oca_scrubbed_blocks", "Blocks read again from devices and compared.", value=self._scrubber.blocks
        )
        damaged = CounterMetricFamily("oca_scrub_damaged", "Extents that the scrubber found damaged.", labels=["fault"])
        for fault, count in sorted(self._scrubber.damaged.items()):
            damaged.add_metric([fault], count)
        yield damaged
        yield CounterMetricFamily(
            "oca_scrub_replaced_blocks", "Damaged blocks that were fetched again.", value=self._scrubber.replaced
        )
        labels = ["device", "tier"]
        progress = GaugeMetricFamily("oca_scrub_progress_ratio", "Share of the round that is done.", labels=labels)
        ends = GaugeMetricFamily(
            "oca_scrub_expected_end_timestamp_seconds", "When it ends as it goes now.", labels=labels
        )
        rate = GaugeMetricFamily("oca_scrub_bytes_per_second", "What a round of the scrubber goes at.", labels=labels)
        for number, done in self._scrubber.rounds.items():
            shelf = self._shelves.shelf(number)
            if shelf is not None:
                names = [shelf.identity, shelf.tier]
                progress.add_metric(names, done.share)
                ends.add_metric(names, done.expected_end)
                rate.add_metric(names, done.rate_bps)
        yield from (progress, ends, rate)
