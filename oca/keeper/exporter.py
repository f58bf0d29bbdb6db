"""/metrics: the workers' shared counters and the keeper's own numbers, in Prometheus' text format."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import version
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from oca.cache.health import Fault, Standing
from oca.cache.policy import AdmitReason
from oca.counters import (
    CLASSES,
    DEVICE_READ_BUCKETS,
    EGRESS_AT,
    FIRST_BYTE_BUCKETS,
    OUTCOMES,
    PLACES,
    REFUSALS,
    REFUSALS_AT,
    REQUESTS_AT,
    SUM_OFFSET,
    Count,
    first_byte_words,
)
from oca.keeper.desk import Desk
from oca.keeper.library import Library
from oca.settings import Tier
from oca.store.index import Index
from oca.store.mover import MoveCause, Mover
from oca.store.rack import Rack
from oca.store.shelf import MEMORY
from oca.store.shelves import Shelves

_TIMEOUTS: Final = {
    "header": Count.HEADER_TIMEOUTS,
    "idle": Count.IDLE_TIMEOUTS,
    "slow": Count.SLOW_CLIENTS,
}


class Exporter(Collector):
    """Collected on each scrape: nothing is kept twice, so nothing can drift apart."""

    def __init__(
        self,
        desk: Desk,
        library: Library,
        shelves: Shelves,
        index: Index,
        rack: Rack,
        mover: Mover,
        places: int,
    ) -> None:
        self._desk = desk
        self._library = library
        self._shelves = shelves
        self._index = index
        self._rack = rack
        self._mover = mover
        self._places = places
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        sums = self._desk.counters.sums()
        yield from self._requests(sums)
        yield from self._connections(sums)
        yield from self._access(sums)
        yield from self._fetches()
        yield from self._devices()
        yield from self._device_reads()
        yield InfoMetricFamily(
            "oca_build",
            "The running version.",
            value={"version": version("open-oca"), "python": platform.python_version()},
        )

    def _requests(self, sums: list[int]) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "oca_requests", "Answers begun, by how and with what status.", labels=["outcome", "status_class"]
        )
        histogram = HistogramMetricFamily(
            "oca_first_byte_seconds",
            "From the end of a request's head to the first byte of its answer.",
            labels=["outcome"],
        )
        for i, outcome in enumerate(OUTCOMES):
            for j, status_class in enumerate(CLASSES):
                requests.add_metric([outcome, status_class], sums[REQUESTS_AT + i * len(CLASSES) + j])
            first = first_byte_words(outcome)
            total = 0
            buckets: list[tuple[str, float]] = []
            for k, bound in enumerate((*FIRST_BYTE_BUCKETS, float("inf"))):
                total += sums[first + k]
                buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
            histogram.add_metric([outcome], buckets, sum_value=sums[first + SUM_OFFSET] / 1e6)
        yield requests
        yield histogram
        egress = CounterMetricFamily(
            "oca_egress_bytes", "Bytes of content sent, by where they came from.", labels=["tier"]
        )
        for i, place in enumerate(PLACES):
            egress.add_metric([place], sums[EGRESS_AT + i])
        yield egress
        yield CounterMetricFamily("oca_hits", "Requests answered from what was held.", value=sums[Count.HITS])
        yield CounterMetricFamily("oca_misses", "Requests for which a source was asked.", value=sums[Count.MISSES])
        yield CounterMetricFamily("oca_hit_bytes", "Bytes sent from devices.", value=sums[Count.HIT_BYTES])
        yield CounterMetricFamily("oca_miss_bytes", "Bytes sent from flights.", value=sums[Count.MISS_BYTES])
        yield CounterMetricFamily(
            "oca_cold_reads", "Blocks that responses waited for while a device read them.", value=sums[Count.COLD_READS]
        )
        yield CounterMetricFamily(
            "oca_index_lookups", "Requests whose object was not remembered by the worker.", value=sums[Count.LOOKUPS]
        )
        yield CounterMetricFamily(
            "oca_healed_reads", "Reads a device failed, healed from the ladder.", value=sums[Count.HEALED_READS]
        )

    def _connections(self, sums: list[int]) -> Iterator[Metric]:
        yield GaugeMetricFamily("oca_open_connections", "Client connections now.", value=sums[Count.CONNECTIONS_OPEN])
        yield CounterMetricFamily("oca_connections", "Accepted.", value=sums[Count.CONNECTIONS_ACCEPTED])
        yield CounterMetricFamily(
            "oca_refused_connections", "Closed at once: too many.", value=sums[Count.CONNECTIONS_REFUSED]
        )
        ended = CounterMetricFamily("oca_client_timeouts", "Connections ended by a deadline.", labels=["deadline"])
        for deadline, count in _TIMEOUTS.items():
            ended.add_metric([deadline], sums[count])
        yield ended
        yield CounterMetricFamily(
            "oca_cut_responses", "Answers broken off because no source gave the rest.", value=sums[Count.CUT_RESPONSES]
        )
        up = GaugeMetricFamily("oca_worker_up", "Whether an edge worker is connected.", labels=["worker"])
        connected = self._desk.workers
        for place in range(self._places):
            up.add_metric([str(place)], int(place in connected))
        yield up

    def _access(self, sums: list[int]) -> Iterator[Metric]:
        refusals = CounterMetricFamily("oca_access_refusals", "Requests not let in, by reason.", labels=["reason"])
        for place, reason in enumerate(REFUSALS):
            refusals.add_metric([reason], sums[REFUSALS_AT + place])
        yield refusals
        tokens = CounterMetricFamily(
            "oca_access_tokens", "Tokens looked at, by whether their verdict was remembered.", labels=["verdict"]
        )
        tokens.add_metric(["remembered"], sums[Count.TOKENS_REMEMBERED])
        tokens.add_metric(["verified"], sums[Count.TOKENS_VERIFIED])
        yield tokens
        yield CounterMetricFamily("oca_access_renewals", "Tokens renewed.", value=sums[Count.TOKENS_RENEWED])
        yield CounterMetricFamily(
            "oca_access_key_faults", "Files of keys that could not be used.", value=sums[Count.KEY_FAULTS]
        )

    def _fetches(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("oca_flights", "Blocks on their way in.", value=self._library.flights)
        fetched = CounterMetricFamily("oca_fetch_bytes", "Bytes received from sources.", labels=["source"])
        for source, count in self._library.counts.bytes.items():
            fetched.add_metric([source], count)
        yield fetched
        errors = CounterMetricFamily("oca_fetch_errors", "Failed fetches.", labels=["source", "reason"])
        for (source, reason), count in self._library.counts.errors.items():
            errors.add_metric([source, reason], count)
        yield errors
        state = GaugeMetricFamily("oca_breaker_state", "0 closed, 1 half open, 2 open.", labels=["source"])
        for source, breaker in self._library.breakers.items():
            state.add_metric([source], breaker.state)
        yield state

    def _devices(self) -> Iterator[Metric]:
        labels = ["device", "tier"]
        used = GaugeMetricFamily("oca_device_used_bytes", "What the cache takes on a device.", labels=labels)
        capacity = GaugeMetricFamily("oca_device_capacity_bytes", "What it may take.", labels=labels)
        up = GaugeMetricFamily("oca_device_up", "Whether blocks are written there.", labels=labels)
        standing = GaugeMetricFamily("oca_device_standing", "1 for how a device stands.", labels=[*labels, "standing"])
        faults = CounterMetricFamily("oca_device_faults", "What went wrong.", labels=[*labels, "fault"])
        for shelf in self._shelves.shelves:
            names = [shelf.identity, shelf.tier]
            used.add_metric(names, self._shelves.policy.used_bytes(shelf.number))
            capacity.add_metric(names, shelf.capacity)
            up.add_metric(names, int(shelf.can_write))
            _add_standing(standing, names, shelf.health.standing)
            for fault in Fault:
                faults.add_metric([*names, fault], shelf.errors[fault])
        for left_out in self._rack.left_out:
            # Its own id can't be read: it stands under its path.
            names = [left_out.settings.path, left_out.settings.tier]
            capacity.add_metric(names, left_out.settings.capacity)
            up.add_metric(names, 0)
            _add_standing(standing, names, Standing.OFFLINE)
        yield from (used, capacity, up, standing, faults)
        yield GaugeMetricFamily("oca_health", "Share of the devices' room that is well.", value=self._rack.health)
        yield GaugeMetricFamily(
            "oca_pledged_ratio",
            "Share of the devices' room that fill keeps from eviction.",
            value=self._shelves.pledged_share,
        )
        yield CounterMetricFamily(
            "oca_unpledged_blocks", "Blocks of fill that are kept without a pledge.", value=self._shelves.unpledged
        )
        yield from self._moves()
        objects, extents = self._index.counts()
        yield GaugeMetricFamily("oca_index_objects", "Objects in the index.", value=objects)
        yield GaugeMetricFamily("oca_index_extents", "Extents in the index.", value=extents)

    def _moves(self) -> Iterator[Metric]:
        admissions = CounterMetricFamily(
            "oca_admissions", "Blocks of newcomers, by what became of them.", labels=["reason"]
        )
        for reason in AdmitReason:
            admissions.add_metric([reason], self._shelves.admissions[reason])
        moves = CounterMetricFamily("oca_moves", "Extents moved between devices.", labels=["reason"])
        for why in MoveCause:
            moves.add_metric([why], self._mover.moves[why])
        written = CounterMetricFamily("oca_written_bytes", "Bytes written to devices.", labels=["tier", "by"])
        for tier in (*Tier, MEMORY):
            written.add_metric([tier, "misses"], self._shelves.written[tier])
            written.add_metric([tier, "moves"], self._mover.bytes[tier])
        yield from (admissions, moves, written)
        yield CounterMetricFamily("oca_failed_moves", "Moves given up; the extent stays.", value=self._mover.failed)

    def _device_reads(self) -> Iterator[Metric]:
        labels = ["device", "tier"]
        histogram = HistogramMetricFamily(
            "oca_device_read_seconds", "Cold reads of blocks, without waiting in line.", labels=labels
        )
        count = CounterMetricFamily("oca_device_read_bytes", "Bytes that cold reads brought in.", labels=labels)
        errors = CounterMetricFamily(
            "oca_device_read_errors", "Cold reads that failed, or gave other bytes than were stored.", labels=labels
        )
        reads = self._desk.counters.device_reads()
        for shelf in self._shelves.shelves:
            read = reads.get(shelf.number)
            if read is None:
                continue
            names = [shelf.identity, shelf.tier]
            histogram.add_metric(names, _cumulative(read.buckets), sum_value=read.seconds)
            count.add_metric(names, read.bytes)
            errors.add_metric(names, read.errors)
        yield from (histogram, count, errors)


def _add_standing(family: GaugeMetricFamily, names: list[str], now: Standing) -> None:
    for standing in Standing:
        family.add_metric([*names, standing], int(standing is now))


def _cumulative(counts: list[int]) -> list[tuple[str, float]]:
    bounds = [*(str(float(bound)) for bound in DEVICE_READ_BUCKETS), "+Inf"]
    return list(zip(bounds, accumulate(counts), strict=True))
