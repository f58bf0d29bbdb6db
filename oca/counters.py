"""What a worker counts, as places in a row of shared numbers; the keeper turns the sums into Prometheus metrics.

Every label is a member of a closed enum. A metric is added by one line here and one in the exporter.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import IntEnum, StrEnum
from typing import Final

from oca.settings import Tier


class Outcome(StrEnum):
    """How a request was answered."""

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"
    REVALIDATED = "revalidated"
    NEGATIVE = "negative"
    PREFLIGHT = "preflight"
    REFUSED = "refused"
    FAILED = "failed"


class Place(StrEnum):
    """Where bytes that went out came from: a tier, or the memory of a flight that had not landed yet."""

    NVME = Tier.NVME
    SSD = Tier.SSD
    HDD = Tier.HDD
    MEMORY = "memory"


class Count(IntEnum):
    """Single counters, by their place in the row."""

    HITS = 0
    MISSES = 1
    HIT_BYTES = 2
    MISS_BYTES = 3
    CONNECTIONS_OPEN = 4
    CONNECTIONS_ACCEPTED = 5
    CONNECTIONS_REFUSED = 6
    HEADER_TIMEOUTS = 7
    IDLE_TIMEOUTS = 8
    SLOW_CLIENTS = 9
    CUT_RESPONSES = 10
    COLD_READS = 11
    HEALED_READS = 12
    LOOKUPS = 13


OUTCOMES: Final = tuple(Outcome)
PLACES: Final = tuple(Place)
CLASSES: Final = ("2xx", "3xx", "4xx", "5xx")
FIRST_BYTE_BUCKETS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
)
"""Upper bounds in seconds."""

_BUCKETS: Final = len(FIRST_BYTE_BUCKETS) + 1
EGRESS_AT: Final = len(Count)
REQUESTS_AT: Final = EGRESS_AT + len(PLACES)
FIRST_BYTE_AT: Final = REQUESTS_AT + len(OUTCOMES) * len(CLASSES)
_HISTOGRAM: Final = _BUCKETS + 1
"""Buckets, then the sum in microseconds."""
WORDS: Final = FIRST_BYTE_AT + len(OUTCOMES) * _HISTOGRAM
ROWS: Final = 1024
"""More than workers live at a time: up to 256, and as many more for each reload whose old ones still drain."""
COUNTERS_BYTES: Final = ROWS * WORDS * 8

_OUTCOME_INDEX: Final = {outcome: i for i, outcome in enumerate(OUTCOMES)}


def request_word(outcome: Outcome, status: int) -> int:
    """The place of `oca_requests_total{outcome, status_class}`."""
    return REQUESTS_AT + _OUTCOME_INDEX[outcome] * len(CLASSES) + status // 100 - 2


def first_byte_words(outcome: Outcome) -> int:
    """The place of the first bucket; the sum stands behind the last (`SUM_OFFSET` further)."""
    return FIRST_BYTE_AT + _OUTCOME_INDEX[outcome] * _HISTOGRAM


SUM_OFFSET: Final = _BUCKETS


def bucket_of(seconds: float) -> int:
    return bisect_left(FIRST_BYTE_BUCKETS, seconds)
