"""Alertmanager's API v2: what fires, and silences."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Struct, field

from admin.console.rows import Row
from admin.fleet.asking import FleetError, asked

_DEADLINE: Final = 10.0
_MOST: Final = 2000
"""Alerts that are shown."""
_RANK: Final = {"page": 0, "ticket": 1}


class _Status(Struct, frozen=True, rename="camel"):
    silenced_by: tuple[str, ...] = ()
    inhibited_by: tuple[str, ...] = ()


class _Alert(Struct, frozen=True, rename="camel"):
    fingerprint: str
    starts_at: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    status: _Status = _Status()


class _Silence(Struct, frozen=True, rename="camel"):
    id: str
    ends_at: str
    created_by: str = ""
    comment: str = ""


class Alertmanager:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._session = session

    async def alerts(self) -> list[Row]:
        """What fires, what wakes somebody first. Raises FleetError."""
        told = await self._read("/api/v2/alerts?active=true&silenced=true&inhibited=true", list[_Alert])
        silences = {one.id: one for one in await self._read("/api/v2/silences", list[_Silence])}
        rows = [_row(alert, silences) for alert in told]
        rows.sort(key=lambda row: (_RANK.get(row["severity"], 2), row["starts_at"], row["fingerprint"]))
        return rows[:_MOST]

    async def snooze(self, alert: Row, until: float, now: float, who: str, note: str) -> str:
        """Silence this very alert, by all of its labels, and nothing else. The silence's id. Raises FleetError."""
        silence = {
            "matchers": [
                {"name": name, "value": value, "isRegex": False, "isEqual": True}
                for name, value in alert["labels"].items()
            ],
            "startsAt": _moment(now),
            "endsAt": _moment(until),
            "createdBy": who,
            "comment": note,
        }
        body = await asked(self._session, "POST", f"{self._url}/api/v2/silences", _DEADLINE, json=silence)
        return str(msgspec.json.decode(body)["silenceID"])

    async def wake(self, silence: str) -> None:
        """End a silence. Raises FleetError."""
        await asked(self._session, "DELETE", f"{self._url}/api/v2/silence/{silence}", _DEADLINE)

    async def _read(self, path: str, kind: Any) -> Any:  # noqa: ANN401
        body = await asked(self._session, "GET", f"{self._url}{path}", _DEADLINE)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise FleetError(f"{self._url}{path}: an answer that can't be read: {error}") from error


def _row(alert: _Alert, silences: Mapping[str, _Silence]) -> Row:
    snoozed = [silences[one] for one in alert.status.silenced_by if one in silences]
    last = max(snoozed, key=lambda one: one.ends_at, default=None)
    return {
        "fingerprint": alert.fingerprint,
        "starts_at": alert.starts_at,
        "name": alert.labels.get("alertname", ""),
        "severity": alert.labels.get("severity", ""),
        "summary": alert.annotations.get("summary", ""),
        "runbook": alert.annotations.get("runbook_url", ""),
        "dashboard": alert.annotations.get("dashboard_url", ""),
        "labels": dict(sorted(alert.labels.items())),
        "inhibited": bool(alert.status.inhibited_by),
        "snoozed": None
        if last is None
        else {"id": last.id, "until": last.ends_at, "who": last.created_by, "note": last.comment},
        "acknowledged": None,
    }


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
