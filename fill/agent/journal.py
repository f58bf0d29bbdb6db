"""What the agent remembers over its own death: which orders it worked on, what came of each rendition, what is pledged.

A file of lines, each with its own sum, synced before the agent goes on. What a kill tore off at the end is no line and
was not acted on. The lines are folded into one when the journal is opened and when an order begins, so it stays small.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from fill.agent.work import Failure
from fill.errors import FillError

_MOST_BYTES: Final = 512 * 1024 * 1024
_MOST_URGENT: Final = 1000
"""Urgent orders that are remembered as worked on."""


class JournalError(FillError):
    """The journal can't be read or written."""


class Name(Struct, frozen=True):
    """Which order: of two, the later one counts."""

    night: str
    version: int
    digest: str = ""
    """Of its bytes: a name that comes again with others is another order."""

    def __str__(self) -> str:
        return f"{self.night}/{self.version}"

    def is_before(self, other: Name) -> bool:
        return (self.night, self.version) < (other.night, other.version)


class Pledged(Struct, frozen=True, tag="pledged"):
    """A rendition is here, compared with the catalogue, and pledged."""

    number: int
    folder: str
    until: float


class Failed(Struct, frozen=True, tag="failed"):
    number: int
    why: Failure


class Released(Struct, frozen=True, tag="released"):
    folder: str


class Lost(Struct, frozen=True, tag="lost"):
    """What was pledged is not held any more, or was replaced."""

    numbers: tuple[int, ...]


class Begun(Struct, frozen=True, tag="begun"):
    """An order is worked on from now on; what came of the one before is forgotten, what is pledged is not."""

    name: Name
    at: float


class Kept(Struct, frozen=True, tag="kept"):
    """The pledges of what the order keeps are renewed."""


class Finished(Struct, frozen=True, tag="finished"):
    at: float


class UrgentDone(Struct, frozen=True, tag="urgent"):
    key: str


class State(Struct, tag="state"):
    """All lines, folded."""

    name: Name | None = None
    began_at: float = 0.0
    done: dict[int, float] = {}
    """Renditions of the order that are pledged, until when."""
    failed: dict[int, Failure] = {}
    released: list[str] = []
    has_kept: bool = False
    finished_at: float | None = None
    last_success: float | None = None
    ledger: dict[int, str] = {}
    """Folders of all that is pledged, by the number of the rendition."""
    urgent: list[str] = []
    """Keys of urgent orders that were worked on."""


Event = Pledged | Failed | Released | Lost | Begun | Kept | Finished | UrgentDone
Line = Event | State
_Sum = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class _Written(Struct, array_like=True):
    crc: _Sum
    line: msgspec.Raw


def folded(state: State, event: Event) -> None:
    """What an event makes of a state."""
    match event:
        case Begun(name, at):
            state.name, state.began_at = name, at
            state.done, state.failed, state.released = {}, {}, []
            state.has_kept, state.finished_at = False, None
        case Pledged(number, folder, until):
            state.done[number] = until
            state.failed.pop(number, None)
            state.ledger[number] = folder
        case Failed(number, why):
            state.failed[number] = why
        case Released(folder):
            state.released.append(folder)
            state.ledger = {number: one for number, one in state.ledger.items() if one != folder}
        case Lost(numbers):
            for number in numbers:
                state.ledger.pop(number, None)
        case Kept():
            state.has_kept = True
        case Finished(at):
            state.finished_at = at
            if not state.failed:
                state.last_success = at
        case UrgentDone(key):
            state.urgent = [*state.urgent, key][-_MOST_URGENT:]


class Journal:
    """`state` is what all lines say."""

    def __init__(self, path: Path) -> None:
        """Raises `JournalError`: it can't be read or written, or holds what no kill can have left."""
        self._path = path
        self.state = _read(path)
        self._fd = -1
        self.fold()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def note(self, event: Event) -> None:
        """It is on the disk on return. Raises `JournalError`."""
        try:
            os.write(self._fd, _packed(event))
            os.fdatasync(self._fd)
        except OSError as error:
            raise JournalError(f"{self._path}: can't be written: {error.strerror}") from error
        folded(self.state, event)

    def fold(self) -> None:
        """Write the state anew, as one line. Raises `JournalError`; then the lines are as they were."""
        beside = self._path.with_name(self._path.name + ".new")
        try:
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                body = _packed(self.state)
                if os.write(fd, body) != len(body):
                    raise OSError(0, "not all of it could be written")
                os.fsync(fd)
                beside.replace(self._path)
            except BaseException:
                os.close(fd)
                raise
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise JournalError(f"{self._path}: can't be written: {error.strerror}") from error
        self.close()
        self._fd = fd


def _packed(line: Line) -> bytes:
    body = msgspec.json.encode(line)
    return msgspec.json.encode(_Written(zlib.crc32(body), msgspec.Raw(body))) + b"\n"


def _read(path: Path) -> State:
    try:
        with path.open("rb") as file:
            body = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise JournalError(f"{path}: can't be read: {error.strerror}") from error
    if len(body) > _MOST_BYTES:
        raise JournalError(f"{path}: more than {_MOST_BYTES} bytes: is it a journal?")
    state = State()
    lines = body.split(b"\n")
    for at, text in enumerate(lines):
        if not text:
            continue
        line = _line(text)
        if line is None:
            if any(_line(later) is not None for later in lines[at + 1 :] if later):
                raise JournalError(
                    f"{path}: line {at + 1} is damaged, and others follow it; remove the file to begin anew"
                )
            break  # Torn off by a kill: nothing was done by it.
        if isinstance(line, State):
            state = line
        else:
            folded(state, line)
    return state


def _line(text: bytes) -> Line | None:
    try:
        written = msgspec.json.decode(text, type=_Written)
        if zlib.crc32(bytes(written.line)) != written.crc:
            return None
        line: Line = msgspec.json.decode(written.line, type=Line)
    except msgspec.DecodeError:
        return None
    return line
