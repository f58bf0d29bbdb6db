"""What the console's charts show, asked of Prometheus. A closed set: no query comes from a browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final

import aiohttp
import msgspec
from msgspec import Struct

from admin.console.rows import Row
from admin.errors import UsageError
from admin.fleet.asking import FleetError, asked

_DEADLINE: Final = 10.0
_POINTS: Final = 240
_SCRAPED: Final = 15
SPANS: Final = {"1h": 3600, "6h": 6 * 3600, "24h": 86400, "7d": 7 * 86400}
_ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


class Panel(Struct, frozen=True):
    title: str
    unit: str
    """bit/s, ratio, seconds or count."""
    lines: Mapping[str, str]
    """Queries by name of line, or by the label that names it, as {{tier}}. $at: the labels of what is looked at."""


PANELS: Final = {
    "sent": Panel(
        "Sent to viewers", "bit/s", {"{{tier}}": "8 * sum by (tier) (rate(oca_egress_bytes_total{$at}[2m]))"}
    ),
    "link": Panel(
        "Network cards",
        "bit/s",
        {
            "sent": "8 * sum(oca_link_egress_bytes_per_second{$at})",
            "can send": "8 * sum(oca_link_capacity_bytes_per_second{$at})",
        },
    ),
    "hits": Panel(
        "Bytes that were held",
        "ratio",
        {"held": "sum(rate(oca_hit_bytes_total{$at}[5m])) / sum(rate(oca_egress_bytes_total{$at}[5m]))"},
    ),
    "first_byte": Panel(
        "First byte, 99 of 100",
        "seconds",
        {
            "{{outcome}}": (
                "histogram_quantile(0.99, sum by (le, outcome) (rate(oca_first_byte_seconds_bucket{$at}[5m])))"
            ),
        },
    ),
    "errors": Panel(
        "Answers that failed",
        "ratio",
        {
            "failed": (
                'sum(rate(oca_requests_total{$at, status_class="5xx"}[5m])) / sum(rate(oca_requests_total{$at}[5m]))'
            ),
        },
    ),
    "processors": Panel("Processors", "ratio", {"busy": "avg(oca_cpu_ratio{$at})"}),
}


class _Series(Struct, frozen=True):
    metric: Mapping[str, str]
    values: list[tuple[float, str]]


class _Result(Struct, frozen=True):
    result: list[_Series]


class _Answer(Struct, frozen=True):
    data: _Result


class Prometheus:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._session = session

    async def charts(self, labels: Mapping[str, str], span: str, now: float) -> list[Row]:
        """All panels for an appliance, a site, or, without labels, the fleet. Raises UsageError, FleetError."""
        if span not in SPANS:
            raise UsageError(f'"span" is {span[:20]!r}; allowed: {", ".join(SPANS)}')
        for value in labels.values():
            if not _ID.fullmatch(value):
                raise UsageError(f"{value[:80]!r} is no id")
        at = ", ".join(f'{name}="{value}"' for name, value in labels.items()) or 'job!=""'
        return await asyncio.gather(*(self._panel(name, panel, at, span, now) for name, panel in PANELS.items()))

    async def _panel(self, name: str, panel: Panel, at: str, span: str, now: float) -> Row:
        step, end = _grid(span, now)
        lines = []
        for title, query in panel.lines.items():
            for series in await self._range(query.replace("$at", at), SPANS[span], step, end):
                label = title[2:-2] if title.startswith("{{") else None
                shown = title if label is None else series.metric.get(label, "?")
                points = [(moment, float(value)) for moment, value in series.values]
                lines.append({"name": shown, "points": [point for point in points if point[1] == point[1]]})
        told = {"id": name, "title": panel.title, "unit": panel.unit, "lines": lines}
        return {**told, "begin": end - SPANS[span], "end": end, "step": step}

    async def _range(self, query: str, span: int, step: int, end: float) -> list[_Series]:
        params = {"query": query, "start": str(end - span), "end": str(end), "step": str(step), "timeout": "8s"}
        url = f"{self._url}/api/v1/query_range"
        body = await asked(self._session, "POST", url, _DEADLINE, data=params)
        try:
            return msgspec.json.decode(body, type=_Answer).data.result
        except msgspec.DecodeError as error:
            raise FleetError(f"{url}: an answer that can't be read: {error}") from error


def _grid(span: str, now: float) -> tuple[int, float]:
    """Seconds between points, and the last one: of now, however coarse the others are."""
    return max(_SCRAPED, SPANS[span] // _POINTS), now // _SCRAPED * _SCRAPED
