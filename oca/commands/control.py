"""The client of a running appliance's control API."""

from __future__ import annotations

import http.client
import json
from typing import Any, Final, TypeVar

import msgspec

from oca.errors import OcaError
from oca.settings import Settings
from wire.toml import host_and_port

_LOOK_DEADLINE: Final = 30.0
_ORDER_DEADLINE: Final = 120.0
"""Taking a device into service reads and writes on it, and a disk that wakes up takes its time."""
_MOST_BYTES: Final = 64 * 1024 * 1024
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask one that listens everywhere

T = TypeVar("T")


class NoAnswer(OcaError):
    """The appliance does not answer. It may be down, or about to restart its keeper: asking again can help."""


class Refused(OcaError):
    """The appliance will not do it, and its sentence says why."""


class ControlClient:
    """Asks one appliance. Every call ends within its deadline, by an answer or by an `OcaError`."""

    def __init__(self, settings: Settings) -> None:
        self._address = settings.listen.control

    def look(self, path: str, kind: type[T]) -> T:
        """GET `path`. Raises `NoAnswer` and `Refused`."""
        return self._exchange("GET", path, None, kind, _LOOK_DEADLINE)

    def order(self, path: str, order: dict[str, Any], kind: type[T]) -> T:
        """POST `order` to `path`. Raises `NoAnswer` and `Refused`."""
        return self._exchange("POST", path, json.dumps(order).encode(), kind, _ORDER_DEADLINE)

    def _exchange(self, method: str, path: str, body: bytes | None, kind: type[T], deadline: float) -> T:
        host, port = host_and_port(self._address)
        connection = http.client.HTTPConnection(_ANYWHERE.get(host, host), port, timeout=deadline)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            content = answer.read(_MOST_BYTES)
        except TimeoutError as error:
            raise NoAnswer(f"{self._address}: no answer within {deadline:.0f} s") from error
        except OSError as error:
            raise NoAnswer(f"{self._address}: {error.strerror or error}: is the appliance running?") from error
        except http.client.HTTPException as error:
            raise NoAnswer(f"{self._address}: what answers there breaks off or is no appliance ({error!r})") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise Refused(_sentence(content) or f"{self._address}: {method} {path}: status {answer.status}")
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise Refused(
                f"{self._address}: what answers there is no appliance, or another version ({error})"
            ) from error


class _Complaint(msgspec.Struct):
    error: str


def _sentence(content: bytes) -> str:
    try:
        return msgspec.json.decode(content, type=_Complaint).error
    except msgspec.DecodeError:
        return ""
