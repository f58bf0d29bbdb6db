"""What a crowd saw, added up; and as text, JSON and plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Struct

_MOST_SAMPLES: Final = 200_000


class Failure(StrEnum):
    """What went wrong. Every one is an error of the service, as a viewer would call it."""

    PLAYBACK = "playback"
    """Pressing play was refused, or not answered."""
    PLAYLIST = "playlist"
    """A playlist could not be had from any place, or not be read."""
    SEGMENT = "segment"
    """A file of the film could not be had from any place."""


class Visit(Struct):
    """One viewer, from pressing play to leaving."""

    start_seconds: float | None = None
    """None if no picture came."""
    stalls: int = 0
    stalled_seconds: float = 0.0
    played_seconds: float = 0.0
    megabits: float = 0.0
    """Bitrate times duration of what was fetched of the picture."""
    fetched_seconds: float = 0.0
    steps: int = 0
    """Changes of rendition."""
    moves: int = 0
    """Changes of place, for a reason of steering's or since a place failed."""
    retries: int = 0
    """Requests that failed at one place and were put to the next."""
    failure: Failure | None = None
    failed_because: str = ""


class Moment(Struct, frozen=True):
    """The crowd at one second."""

    second: int
    watching: int
    stalled: int
    bits: int
    """Received in this second."""


class Account:
    """Filled while the crowd watches."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.moments: list[Moment] = []
        self.bytes: Counter[str] = Counter()
        """By place."""
        self.requests: Counter[str] = Counter()
        self.first_bytes: list[float] = []
        self._bits = 0

    def received(self, place: str, size_bytes: int, first_byte: float) -> None:
        self.bytes[place] += size_bytes
        self.requests[place] += 1
        self._bits += size_bytes * 8
        if len(self.first_bytes) < _MOST_SAMPLES:
            self.first_bytes.append(first_byte)

    def tick(self, second: int, watching: int, stalled: int) -> None:
        self.moments.append(Moment(second, watching, stalled, self._bits))
        self._bits = 0


class Report(Struct, frozen=True):
    """The figures of a crowd. Times are seconds; percentiles of nothing are None."""

    visits: int
    started: int
    start_p50: float | None
    start_p95: float | None
    start_p99: float | None
    stalls: int
    stalls_an_hour: float | None
    """Per hour watched."""
    stalled_ratio: float | None
    """Of the time in which a picture was shown or waited for."""
    watched_hours: float
    mean_bitrate_bps: float | None
    steps_an_hour: float | None
    moves: int
    retries: int
    failures: dict[str, int]
    first_byte_p50: float | None
    first_byte_p99: float | None
    requests: dict[str, int]
    bytes: dict[str, int]
    """By place."""
    most_bps: int
    """In one second."""
    failed_because: dict[str, int]
    """The commonest reasons."""

    @property
    def is_flawless(self) -> bool:
        return not self.failures and not self.stalls


def report_of(account: Account) -> Report:
    visits = account.visits
    starts = sorted(visit.start_seconds for visit in visits if visit.start_seconds is not None)
    first = sorted(account.first_bytes)
    played = sum(visit.played_seconds for visit in visits)
    stalled = sum(visit.stalled_seconds for visit in visits)
    stalls = sum(visit.stalls for visit in visits)
    fetched = sum(visit.fetched_seconds for visit in visits)
    hours = played / 3600
    reasons = Counter(visit.failed_because for visit in visits if visit.failure is not None)
    return Report(
        visits=len(visits),
        started=len(starts),
        start_p50=percentile(starts, 0.5),
        start_p95=percentile(starts, 0.95),
        start_p99=percentile(starts, 0.99),
        stalls=stalls,
        stalls_an_hour=stalls / hours if hours else None,
        stalled_ratio=stalled / (stalled + played) if played else None,
        watched_hours=hours,
        mean_bitrate_bps=sum(visit.megabits for visit in visits) * 1e6 / fetched if fetched else None,
        steps_an_hour=sum(visit.steps for visit in visits) / hours if hours else None,
        moves=sum(visit.moves for visit in visits),
        retries=sum(visit.retries for visit in visits),
        failures=dict(Counter(visit.failure.value for visit in visits if visit.failure is not None)),
        first_byte_p50=percentile(first, 0.5),
        first_byte_p99=percentile(first, 0.99),
        requests=dict(sorted(account.requests.items())),
        bytes=dict(sorted(account.bytes.items())),
        most_bps=max((moment.bits for moment in account.moments), default=0),
        failed_because=dict(reasons.most_common(5)),
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Of ascending numbers; the nearest rank."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def as_json(report: Report, account: Account) -> bytes:
    """The figures, and the crowd second by second."""
    return msgspec.json.format(msgspec.json.encode({"report": report, "moments": account.moments}), indent=1)


def as_rows(report: Report) -> list[tuple[str, str]]:
    """For a table."""
    rows = [
        ("viewers that came, and saw a picture", f"{report.visits:,}, {report.started:,}"),
        ("watched", f"{report.watched_hours:.2f} h"),
        (
            "start-up, p50 / p95 / p99",
            " / ".join(_seconds(x) for x in (report.start_p50, report.start_p95, report.start_p99)),
        ),
        ("stalls", f"{report.stalls} ({_number(report.stalls_an_hour, '.2f')} an hour watched)"),
        ("of the time waited", "none" if report.stalled_ratio is None else f"{100 * report.stalled_ratio:.2f} %"),
        ("mean bitrate", "none" if report.mean_bitrate_bps is None else f"{report.mean_bitrate_bps / 1e6:.2f} Mbit/s"),
        ("changes of rendition, an hour", _number(report.steps_an_hour, ".1f")),
        ("changes of place; requests put to another", f"{report.moves}; {report.retries}"),
        ("first byte, p50 / p99", f"{_seconds(report.first_byte_p50)} / {_seconds(report.first_byte_p99)}"),
        ("most, in one second", f"{report.most_bps / 1e6:.0f} Mbit/s"),
        ("errors", ", ".join(f"{name} {count}" for name, count in report.failures.items()) or "0"),
    ]
    total = sum(report.bytes.values())
    rows += [
        (f"from {place}", f"{size / 1e6:,.0f} MB in {report.requests[place]:,} requests ({100 * size / total:.0f} %)")
        for place, size in report.bytes.items()
    ]
    rows += [("because", f"{count} x {why}") for why, count in report.failed_because.items()]
    return rows


def draw(report: Report, account: Account, path: str) -> None:
    """Viewers, rate and stalls by the second, and how long starts took. Needs matplotlib (of the extra `planner`)."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only where it is asked for

    figure = Figure(figsize=(10, 9), layout="constrained")
    axes = figure.subplots(3, 1)
    seconds = [moment.second for moment in account.moments]
    axes[0].plot(seconds, [moment.watching for moment in account.moments], label="watching")
    axes[0].plot(seconds, [moment.stalled for moment in account.moments], label="stalled", color="tab:red")
    axes[0].set_ylabel("viewers")
    axes[0].legend()
    axes[1].plot(seconds, [moment.bits / 1e6 for moment in account.moments], color="tab:green")
    axes[1].set_ylabel("Mbit/s")
    axes[1].set_xlabel("seconds")
    starts: list[Any] = sorted(visit.start_seconds for visit in account.visits if visit.start_seconds is not None)
    axes[2].plot(starts, [(at + 1) / len(starts) for at in range(len(starts))])
    axes[2].set_xlabel("start-up, seconds")
    axes[2].set_ylabel("share of viewers")
    figure.suptitle(f"{report.visits:,} viewers, {report.stalls} stalls, {sum(report.failures.values())} errors")
    figure.savefig(path)


def _seconds(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _number(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)
