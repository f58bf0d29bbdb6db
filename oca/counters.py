"""What a worker counts, as places in a row of shared numbers; the keeper turns the sums into Prometheus metrics.

Every label is a member of a closed enum. A metric is added by one line here and one in the exporter.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import IntEnum, StrEnum
from typing import Final

from oca.settings import Tier
from wire.access import Refusal


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
    TOKENS_REMEMBERED = 14
    """Requests whose token had been verified before."""
    TOKENS_VERIFIED = 15
    TOKENS_RENEWED = 16
    KEY_FAULTS = 17
    CMCD_REQUESTS = 18
    """With which a player said something of itself."""
    VIEWER_STALLS = 19
    PLAYED_MS = 20
    RATED_MS = 21
    """Of these, where the bitrate was told."""
    RATED_KILOBITS = 22
    BUFFER_MS = 23
    """Sum over what `BUFFER_BUCKETS` count."""
    PACED = 24
    PREFETCHES = 25
    HANDSHAKES_FULL = 26
    HANDSHAKES_RESUMED = 27
    HANDSHAKES_FAILED = 28
    HANDSHAKES_TLS12 = 29
    """Of those that succeeded."""
    HANDSHAKE_TIMEOUTS = 30
    FLEET_REFUSED = 31
    """At the fleet's port: a certificate of no appliance, or of one that was revoked."""
    CERTIFICATE_FAULTS = 32


OUTCOMES: Final = tuple(Outcome)
PLACES: Final = tuple(Place)
REFUSALS: Final = tuple(Refusal)
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

BUFFER_BUCKETS: Final = (0.5, 1, 2, 5, 10, 20, 30, 60)
"""Upper bounds in seconds of what players have in their buffers."""

DEVICES: Final = 64
"""Devices whose reads are counted: those whose number in the index is below."""
DEVICE_READ_BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
"""Upper bounds in seconds. Coarse, because each worker's row has them for every device."""


class DeviceCount(IntEnum):
    """What is counted of one device's cold reads, by its place behind `device_words`."""

    READS = 0
    """Of whole blocks, those that failed included."""
    BYTES = 1
    ERRORS = 2
    SLOW = 3
    """Took longer than store.slow_read."""
    MICROSECONDS = 4
    """Of the reads alone, without waiting in line."""


DEVICE_BUCKETS_OFFSET: Final = len(DeviceCount)

_BUCKETS: Final = len(FIRST_BYTE_BUCKETS) + 1
EGRESS_AT: Final = len(Count)
REQUESTS_AT: Final = EGRESS_AT + len(PLACES)
FIRST_BYTE_AT: Final = REQUESTS_AT + len(OUTCOMES) * len(CLASSES)
_HISTOGRAM: Final = _BUCKETS + 1
"""Buckets, then the sum in microseconds."""
REFUSALS_AT: Final = FIRST_BYTE_AT + len(OUTCOMES) * _HISTOGRAM
BUFFER_AT: Final = REFUSALS_AT + len(REFUSALS)
DEVICES_AT: Final = BUFFER_AT + len(BUFFER_BUCKETS) + 1
"""Here begins what is counted by device; what stands before is read on each scrape of each row."""
DEVICE_WORDS: Final = DEVICE_BUCKETS_OFFSET + len(DEVICE_READ_BUCKETS) + 1
WORDS: Final = DEVICES_AT + DEVICES * DEVICE_WORDS
ROWS: Final = 1024
"""More than workers live at a time: up to 256, and as many more for each reload whose old ones still drain."""
READING_AT: Final = ROWS * WORDS
"""Behind the rows: a word for each block, found by hash, that is not 0 while some worker reads it from a device."""
READING_WORDS: Final = 65536
COUNTERS_BYTES: Final = (READING_AT + READING_WORDS) * 8

_OUTCOME_INDEX: Final = {outcome: i for i, outcome in enumerate(OUTCOMES)}


def request_word(outcome: Outcome, status: int) -> int:
    """The place of `oca_requests_total{outcome, status_class}`."""
    return REQUESTS_AT + _OUTCOME_INDEX[outcome] * len(CLASSES) + status // 100 - 2


def first_byte_words(outcome: Outcome) -> int:
    """The place of the first bucket; the sum stands behind the last (`SUM_OFFSET` further)."""
    return FIRST_BYTE_AT + _OUTCOME_INDEX[outcome] * _HISTOGRAM


SUM_OFFSET: Final = _BUCKETS


def device_words(device: int) -> int:
    """The place of what is counted of device number `device`, which is below `DEVICES`."""
    return DEVICES_AT + device * DEVICE_WORDS


def device_bucket_of(seconds: float) -> int:
    return bisect_left(DEVICE_READ_BUCKETS, seconds)


def buffer_bucket_of(seconds: float) -> int:
    return bisect_left(BUFFER_BUCKETS, seconds)


def bucket_of(seconds: float) -> int:
    return bisect_left(FIRST_BYTE_BUCKETS, seconds)
