"""How well viewers are served, as far as players say so (CMCD), for /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from oca.counters import BUFFER_AT, BUFFER_BUCKETS, Count
from oca.keeper.desk import Counters
from oca.keeper.viewers import Viewers


class ViewerMetrics(Collector):
    """Collected on each scrape."""

    def __init__(self, viewers: Viewers, counters: Counters) -> None:
        self._viewers = viewers
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        sums = self._counters.sums()
        yield GaugeMetricFamily(
            "oca_viewers", "Sessions that asked for something within a minute (CMCD).", value=self._viewers.count
        )
        yield CounterMetricFamily(
            "oca_viewer_sessions", "Sessions begun here (CMCD).", value=self._viewers.sessions.begun
        )
        yield CounterMetricFamily(
            "oca_viewer_stalls",
            "Times that players ran out of what to play (CMCD bs).",
            value=sums[Count.VIEWER_STALLS],
        )
        yield CounterMetricFamily(
            "oca_viewer_played_seconds",
            "Duration of the pictures that players asked for (CMCD d).",
            value=sums[Count.PLAYED_MS] / 1e3,
        )
        yield CounterMetricFamily(
            "oca_viewer_rated_seconds",
            "Of played pictures, those whose bitrate was told (CMCD br).",
            value=sums[Count.RATED_MS] / 1e3,
        )
        yield CounterMetricFamily(
            "oca_viewer_rated_bytes",
            "Bitrate times duration of rated pictures: divided by oca_viewer_rated_seconds_total, the mean bitrate.",
            value=sums[Count.RATED_KILOBITS] * 125,
        )
        buffers = HistogramMetricFamily("oca_viewer_buffer_seconds", "What players had in their buffers (CMCD bl).")
        bounds = [*(str(float(bound)) for bound in BUFFER_BUCKETS), "+Inf"]
        counts = accumulate(sums[BUFFER_AT : BUFFER_AT + len(bounds)])
        buffers.add_metric([], list(zip(bounds, counts, strict=True)), sum_value=sums[Count.BUFFER_MS] / 1e3)
        yield buffers
        yield CounterMetricFamily(
            "oca_cmcd_requests",
            "Requests with which a player said something of itself.",
            value=sums[Count.CMCD_REQUESTS],
        )
        yield CounterMetricFamily(
            "oca_paced_answers", "Answers for which a connection's rate was set.", value=sums[Count.PACED]
        )
        yield CounterMetricFamily(
            "oca_prefetches",
            "Objects brought because a player says that it asks for them next.",
            value=sums[Count.PREFETCHES],
        )
