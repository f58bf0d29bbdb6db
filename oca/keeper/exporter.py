"""/metrics: the workers' shared counters and the keeper's own numbers, in Prometheus' text format."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from oca.cache.health import Standing
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
    Outcome,
    first_byte_words,
)
from oca.keeper.desk import Desk, DeviceReads
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


_TIMED: Final = (Outcome.HIT, Outcome.MISS)
"""Whose first bytes are told apart. A fleet of 20,000 appliances must stay below 300 series each."""
_SHOWN_BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
"""Of FIRST_BYTE_BUCKETS."""


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
                count = sums[REQUESTS_AT + i * len(CLASSES) + j]
                # Most of the others never happen.
                if count or outcome in _TIMED:
                    requests.add_metric([outcome, status_class], count)
        yield requests
        timed = {str(outcome): [outcome] for outcome in _TIMED}
        timed["other"] = [outcome for outcome in OUTCOMES if outcome not in _TIMED]
        for name, outcomes in timed.items():
            firsts = [first_byte_words(outcome) for outcome in outcomes]
            counts = [sum(sums[first + k] for first in firsts) for k in range(SUM_OFFSET)]
            seconds = sum(sums[first + SUM_OFFSET] for first in firsts) / 1e6
            histogram.add_metric([name], _shown(_cumulative(FIRST_BYTE_BUCKETS, counts)), sum_value=seconds)
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
        yield CounterMetricFamily(
            "oca_connections", "Client connections accepted.", value=sums[Count.CONNECTIONS_ACCEPTED]
        )
        yield CounterMetricFamily(
            "oca_refused_connections",
            "Client connections closed at once: there are too many.",
            value=sums[Count.CONNECTIONS_REFUSED],
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
            if count := sums[REFUSALS_AT + place]:
                refusals.add_metric([reason], count)
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
            if count:
                errors.add_metric([source, reason], count)
        yield errors
        state = GaugeMetricFamily("oca_breaker_state", "0 closed, 1 half open, 2 open.", labels=["source"])
        for source, breaker in self._library.breakers.items():
            state.add_metric([source], breaker.state)
        yield state

    def _devices(self) -> Iterator[Metric]:
        labels = ["device", "tier"]
        used = GaugeMetricFamily("oca_device_used_bytes", "What the cache takes on a device.", labels=labels)
        capacity = GaugeMetricFamily("oca_device_capacity_bytes", "What the cache may take on a device.", labels=labels)
        up = GaugeMetricFamily("oca_device_up", "Whether blocks are written there.", labels=labels)
        standing = GaugeMetricFamily("oca_device_standing", "1 for how a device stands.", labels=[*labels, "standing"])
        faults = CounterMetricFamily("oca_device_faults", "What went wrong with a device.", labels=[*labels, "fault"])
        for shelf in self._shelves.shelves:
            names = [shelf.identity, shelf.tier]
            used.add_metric(names, self._shelves.policy.used_bytes(shelf.number))
            capacity.add_metric(names, shelf.capacity)
            up.add_metric(names, int(shelf.can_write))
            standing.add_metric([*names, shelf.health.standing], 1)
            for fault, count in sorted(shelf.errors.items()):
                faults.add_metric([*names, fault], count)
        for left_out in self._rack.left_out:
            # Its own id can't be read: it stands under its path.
            names = [left_out.settings.path, left_out.settings.tier]
            capacity.add_metric(names, left_out.settings.capacity)
            up.add_metric(names, 0)
            standing.add_metric([*names, Standing.OFFLINE], 1)
        yield from (used, capacity, up, standing, faults)
        yield GaugeMetricFamily("oca_health_ratio", "Share of the devices' room that is well.", value=self._rack.health)
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
        reads = CounterMetricFamily("oca_device_reads", "Cold reads of blocks.", labels=labels)
        busy = CounterMetricFamily(
            "oca_device_busy_seconds", "Time that cold reads took, without waiting in line.", labels=labels
        )
        errors = CounterMetricFamily(
            "oca_device_read_errors", "Cold reads that failed, or gave other bytes than were stored.", labels=labels
        )
        histogram = HistogramMetricFamily(
            "oca_device_read_seconds", "As oca_device_busy_seconds_total, of each read.", labels=["tier"]
        )
        size = CounterMetricFamily("oca_device_read_bytes", "Bytes that cold reads brought in.", labels=["tier"])
        found = self._desk.counters.device_reads()
        by_tier: dict[str, list[DeviceReads]] = {}
        for shelf in self._shelves.shelves:
            if (read := found.get(shelf.number)) is None:
                continue
            names = [shelf.identity, shelf.tier]
            reads.add_metric(names, read.reads)
            busy.add_metric(names, read.seconds)
            errors.add_metric(names, read.errors)
            by_tier.setdefault(shelf.tier, []).append(read)
        for tier, those in by_tier.items():
            counts = [sum(column) for column in zip(*(read.buckets for read in those), strict=True)]
            buckets = _cumulative(DEVICE_READ_BUCKETS, counts)
            histogram.add_metric([tier], buckets, sum_value=sum(read.seconds for read in those))
            size.add_metric([tier], sum(read.bytes for read in those))
        yield from (reads, busy, errors, histogram, size)


def _cumulative(bounds: Sequence[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """As Prometheus has buckets: at most so much, and how many."""
    return list(zip([*(str(float(bound)) for bound in bounds), "+Inf"], accumulate(counts), strict=True))


def _shown(buckets: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(bound, count) for bound, count in buckets if bound == "+Inf" or float(bound) in _SHOWN_BOUNDS]
