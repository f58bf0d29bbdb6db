"""What the agent says of itself: Prometheus metrics, status as JSON, `Progress` in the bucket, a bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from fill.agent.mailbox import Refusal
from fill.agent.work import Failure
from wire.orders import Phase, Progress

SOURCES = ("peer", "parent", "origin")
_DONE = "done"


class Telling(Struct):
    """All that is told, as it is now."""

    appliance: str
    phase: Phase = Phase.IDLE
    reason: str = ""
    night: str = ""
    version: int = 0
    order_bytes: int = 0
    done_bytes: int = 0
    order_renditions: int = 0
    done_renditions: int = 0
    failed: dict[str, int] = {}
    """Renditions of the order, by why they did not come."""
    source_bytes: dict[str, int] = {}
    """Since the agent began."""
    is_behind: bool = False
    last_success: float | None = None
    finished_at: float | None = None
    issued_at: float | None = None
    """Of the order."""
    share: float = 1.0
    """Of the cap that is used: below 1 viewers need the rest."""
    window_opens: float = 0.0
    window_closes: float = 0.0
    bucket_heard_at: float | None = None
    urgent_waiting: int = 0
    renditions: dict[str, int] = {}
    """That ended since the agent began, by how."""
    refused: dict[Refusal, int] = {}

    def progress(self, now: float) -> Progress:
        return Progress(
            appliance=self.appliance,
            at=now,
            phase=self.phase,
            reason=self.reason[:1000],
            night=self.night,
            version=self.version,
            order_bytes=self.order_bytes,
            done_bytes=self.done_bytes,
            order_renditions=self.order_renditions,
            done_renditions=self.done_renditions,
            failed_renditions=sum(self.failed.values()),
            source_bytes=dict(self.source_bytes),
            behind_schedule=self.is_behind,
            finished_at=self.finished_at,
        )


class AgentMetrics(Collector):
    """Read at each scrape."""

    def __init__(self, told: Callable[[], Telling], clock: Callable[[], float]) -> None:
        self._told = told
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        told = self._told()
        for name, words, value in (
            ("order_bytes", "Bytes of the order that is worked on.", told.order_bytes),
            (
                "done_bytes",
                "Of the order that is worked on, bytes of renditions that are here, and of those under way.",
                told.done_bytes,
            ),
            ("behind_schedule", "1 if what is left can't come before the window closes.", int(told.is_behind)),
            ("rate_ratio", "The share of the cap that is used: below 1 viewers need the rest.", told.share),
            ("urgent_waiting", "Urgent orders that are not done.", told.urgent_waiting),
            ("last_success_timestamp_seconds", "When an order was done without a failure.", told.last_success or 0),
        ):
            yield GaugeMetricFamily(f"oca_fill_{name}", words, value=value)
        if told.issued_at is not None:
            age = max(0.0, self._clock() - told.issued_at)
            yield GaugeMetricFamily("oca_fill_order_age_seconds", "Since the order was made.", value=age)
        sources = CounterMetricFamily("oca_fill_source_bytes", "Bytes that came, by source.", labels=["source"])
        for source in SOURCES:
            sources.add_metric([source], told.source_bytes.get(source, 0))
        yield sources
        ended = CounterMetricFamily(
            "oca_fill_renditions", "Renditions that were dealt with, by how that ended.", labels=["result"]
        )
        for result in (_DONE, *Failure):
            ended.add_metric([str(result)], told.renditions.get(str(result), 0))
        yield ended
        refused = CounterMetricFamily(
            "oca_fill_orders_refused", "Orders that are not worked on, by why.", labels=["reason"]
        )
        for why in Refusal:
            refused.add_metric([why.value], told.refused.get(why, 0))
        yield refused
