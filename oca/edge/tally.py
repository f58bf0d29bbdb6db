"""The worker's counters, a row in memory that the keeper reads (see oca.counters for the places)."""

from __future__ import annotations

from typing import Final

from oca.counters import (
    DEVICE_BUCKETS_OFFSET,
    DEVICES,
    EGRESS_AT,
    FIRST_BYTE_BUCKETS,
    OUTCOMES,
    PLACES,
    READING_AT,
    READING_WORDS,
    REFUSALS,
    REFUSALS_AT,
    SUM_OFFSET,
    WORDS,
    Count,
    DeviceCount,
    Outcome,
    Place,
    bucket_of,
    device_bucket_of,
    device_words,
    first_byte_words,
    request_word,
)
from oca.store.board import CounterMemory
from wire.access import Refusal

_FIRST_BYTE: Final = {outcome: first_byte_words(outcome) for outcome in OUTCOMES}
_STATUSES: Final = (
    200,
    204,
    206,
    304,
    400,
    401,
    403,
    404,
    405,
    408,
    410,
    412,
    414,
    416,
    417,
    431,
    500,
    501,
    502,
    503,
    504,
    505,
    508,
)
_REQUEST: Final = {(outcome, status): request_word(outcome, status) for outcome in OUTCOMES for status in _STATUSES}
_HIT_WORDS: Final = {status: request_word(Outcome.HIT, status) for status in (200, 206)}
_HIT_AT: Final = first_byte_words(Outcome.HIT)
_HIT_SUM: Final = _HIT_AT + SUM_OFFSET
_REFUSED: Final = {reason: REFUSALS_AT + place for place, reason in enumerate(REFUSALS)}
_FIRST_BOUND: Final = FIRST_BYTE_BUCKETS[0]
_HITS: Final = int(Count.HITS)
_HIT_BYTES: Final = int(Count.HIT_BYTES)
_EGRESS_OF_FLIGHTS: Final = EGRESS_AT + PLACES.index(Place.MEMORY)


class Tally:
    """Row number `row` of the counters in `fd`, which no other living process writes."""

    def __init__(self, fd: int, row: int) -> None:
        words = CounterMemory(fd, READING_AT + READING_WORDS).words
        self.words = words[row * WORDS : (row + 1) * WORDS]
        self.reading = words[READING_AT:]
        """Written and read by all workers: see `OpenExtent.rows`."""

    def answered(self, outcome: Outcome, status: int, first_byte: float) -> None:
        """A request got its first byte, `first_byte` seconds after its head had come in."""
        words = self.words
        words[_REQUEST[outcome, status]] += 1
        at = _FIRST_BYTE[outcome]
        words[at + bucket_of(first_byte)] += 1
        words[at + SUM_OFFSET] += int(first_byte * 1e6)
        if outcome is Outcome.HIT:
            words[Count.HITS] += 1
        elif outcome in (Outcome.MISS, Outcome.REVALIDATED):
            words[Count.MISSES] += 1

    def hit(self, status: int, place: int, count: int, first_byte: float) -> None:
        """`answered` and `sent` in one, for an ordinary hit that went out at once."""
        words = self.words
        words[_HIT_WORDS[status]] += 1
        words[_HIT_AT if first_byte <= _FIRST_BOUND else _HIT_AT + bucket_of(first_byte)] += 1
        words[_HIT_SUM] += int(first_byte * 1e6)
        words[_HITS] += 1
        words[EGRESS_AT + place] += count
        words[_HIT_BYTES] += count

    def sent(self, place: int, count: int) -> None:
        """Bytes of content went out from a tier."""
        words = self.words
        words[EGRESS_AT + place] += count
        words[_HIT_BYTES] += count

    def passed_on(self, count: int) -> None:
        """Bytes of content went out from the memory of a flight."""
        words = self.words
        words[_EGRESS_OF_FLIGHTS] += count
        words[Count.MISS_BYTES] += count

    def device_read(self, device: int, count: int, seconds: float, *, is_slow: bool, failed: bool) -> None:
        """A device's thread has read a block of `count` bytes, or failed to."""
        if not 0 <= device < DEVICES:
            return
        words = self.words
        at = device_words(device)
        words[at + DeviceCount.READS] += 1
        words[at + DeviceCount.BYTES] += 0 if failed else count
        words[at + DeviceCount.ERRORS] += failed
        words[at + DeviceCount.SLOW] += is_slow
        words[at + DeviceCount.MICROSECONDS] += int(seconds * 1e6)
        words[at + DEVICE_BUCKETS_OFFSET + device_bucket_of(seconds)] += 1

    def not_let_in(self, reason: Refusal) -> None:
        self.words[_REFUSED[reason]] += 1

    def count(self, what: Count, amount: int = 1) -> None:
        self.words[what] += amount
