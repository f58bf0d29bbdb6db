"""Prometheus metrics of one replica. Labels come from closed sets, and from the inventory for sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from steering.decisions import Decision, proximity_of
from steering.fleet import Fleet
from steering.topology.databases import State, Status

Reason = TypeVar("Reason", bound=StrEnum)

_BUCKETS: Final = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25)
_NOWHERE: Final = "none"


class DecisionMetrics:
    """Counts decisions. Children of labels are kept: looking one up costs more than a decision's other accounts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decisions = Counter(
            "oca_steering_decisions",
            "Decisions by how it was asked, which of the fallbacks answered, the reason and the class of the first.",
            ["way", "fallback", "reason", "proximity"],
            registry=registry,
        )
        self._of_site = Counter(
            "oca_steering_site_decisions", "Decisions whose first is at this site.", ["site"], registry=registry
        )
        self._seconds = Histogram(
            "oca_steering_decision_seconds", "Time for one decision.", buckets=_BUCKETS, registry=registry
        )
        self._children: dict[tuple[str, ...], Counter] = {}
        self._sites: dict[str, Counter] = {}
        self.failures = 0

    def count(self, decision: Decision, seconds: float) -> None:
        proximity = proximity_of(decision)
        labels = (
            decision.way.value,
            decision.fallback.value,
            decision.reason.value,
            _NOWHERE if proximity is None else proximity.name.lower(),
        )
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._decisions.labels(*labels)
        child.inc()
        self._seconds.observe(seconds)
        if decision.ranking is not None and decision.ranking.ranked:
            site = decision.ranking.ranked[0].candidate.site
            of_site = self._sites.get(site)
            if of_site is None:
                of_site = self._sites[site] = self._of_site.labels(site)
            of_site.inc()

    def forget_sites(self, sites: Iterable[str]) -> None:
        """Sites that are in the inventory no more."""
        for site in set(self._sites) - set(sites):
            del self._sites[site]
            self._of_site.remove(site)


class FleetMetrics(Collector):
    """What is read at each scrape."""

    def __init__(self, fleet: Fleet, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """`gauges`: names (those that end in _total are counters), what they are, and how they are read."""
        self._fleet = fleet
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        standing = GaugeMetricFamily("oca_steering_appliances", "Appliances by standing.", labels=["standing"])
        for state, count in self._fleet.by_standing().items():
            standing.add_metric([state.value], count)
        yield standing
        panic = GaugeMetricFamily(
            "oca_steering_panic", "1 while silence is not believed, as too much of the fleet is silent at once."
        )
        panic.add_metric([], float(self._fleet.panic_since is not None))
        yield panic
        clocks = GaugeMetricFamily("oca_steering_clocks_off", "Appliances whose clock is off by more than 5 s.")
        clocks.add_metric([], sum(member.is_clock_off for member in self._fleet.members.values()))
        yield clocks
        for name, (words, read) in self._gauges.items():
            family = (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(name, words)
            family.add_metric([], read())
            yield family


class ReasonMetrics(Collector):
    """Numbers by a closed set of reasons, read at each scrape."""

    def __init__(self, name: str, words: str, read: Callable[[], Mapping[Reason, int]], *, counts: bool = True) -> None:
        """`counts`: they only grow."""
        self._name = name
        self._words = words
        self._read = read
        self._family = CounterMetricFamily if counts else GaugeMetricFamily

    def collect(self) -> Iterable[Metric]:
        family = self._family(self._name, self._words, labels=["reason"])
        for reason, number in self._read().items():
            family.add_metric([reason.value], number)
        yield family


class CertificateMetrics(Collector):
    def __init__(self, ends: Mapping[str, float]) -> None:
        """`ends`: by listener, in seconds since 1970."""
        self._ends = ends

    def collect(self) -> Iterable[Metric]:
        ends = GaugeMetricFamily(
            "oca_steering_certificate_end_timestamp_seconds",
            "When the certificate that a listener shows ends.",
            labels=["listener"],
        )
        for listener, at in self._ends.items():
            ends.add_metric([listener], at)
        yield ends


class DatabaseMetrics(Collector):
    """The GeoIP databases: whether they are in use, how old, and how their files are."""

    def __init__(self, read: Callable[[], Iterable[Status]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        state = GaugeMetricFamily(
            "oca_steering_database_state", "1 for how the file of a database is.", labels=["database", "state"]
        )
        loaded = GaugeMetricFamily("oca_steering_database_loaded", "1 if look-ups are answered.", labels=["database"])
        built = GaugeMetricFamily(
            "oca_steering_database_build_timestamp_seconds",
            "When the database in use was built by its publisher.",
            labels=["database"],
        )
        for status in self._read():
            for one in State:
                state.add_metric([status.kind.value, one.value], float(status.state is one))
            loaded.add_metric([status.kind.value], float(status.loaded))
            if status.built_at is not None:
                built.add_metric([status.kind.value], status.built_at)
        yield from (state, loaded, built)
