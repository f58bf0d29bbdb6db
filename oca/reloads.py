"""What came of reloads, for whoever asked for one and waits; and what can't change by one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from oca.errors import SettingsError
from oca.settings import PORTS, Settings

_FILE: Final = "reload.json"
_MOST_BYTES: Final = 64 * 1024


class Outcome(Struct, frozen=True):
    """Of the last reload."""

    number: int = 0
    """How many there were since the appliance was started first."""
    error: str = ""
    """Why it was refused; empty: it was done."""


class Place(Struct, frozen=True):
    """Where an appliance is: sockets and folder are the running process's."""

    control: str
    state_dir: str
    http: str | None = None
    https: str | None = None
    fleet: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> Place:
        return cls(settings.listen.control, settings.appliance.state_dir, **settings.listen.ports)

    def check_same(self, settings: Settings) -> None:
        """Raises `SettingsError` if a running appliance can't go on with these settings."""
        new = Place.of(settings)
        for key in (*PORTS, "control", "state_dir"):
            name = f"appliance.{key}" if key == "state_dir" else f"listen.{key}"
            before, after = getattr(self, key), getattr(new, key)
            if before != after:
                raise SettingsError(f"{name} can't change while running: it is {before!r}, the file says {after!r}")


def place_of(text: str) -> Place:
    """Of what a supervisor says of itself, as JSON. Raises `SettingsError`."""
    try:
        return msgspec.json.decode(text, type=Place)
    except msgspec.DecodeError as error:
        raise SettingsError(f"--running: read {text!r}; allowed: what a supervisor says of itself") from error


class Reloads:
    """In the folder of run-time files."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / _FILE

    @property
    def number(self) -> int:
        return self.last().number

    def last(self) -> Outcome:
        """Of what can't be read, as if there had been none."""
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(_MOST_BYTES), type=Outcome)
        except (OSError, msgspec.DecodeError):
            return Outcome()

    def tell(self, number: int, error: str) -> None:
        """Where it can't be written, nobody waits the less: whoever waits has a deadline."""
        new = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            new.write_bytes(msgspec.json.encode(Outcome(number, error)))
            new.replace(self._path)
