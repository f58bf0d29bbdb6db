"""What the console keeps: sessions, acknowledgements, and the audit log. An SQLite file.

Of a session only the SHA-256 of its id is kept, so that whoever reads the file can't take one over. The audit log is
only added to; it is kept for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from msgspec import Struct

from admin.console.accounts import Role
from admin.errors import MachineError

_DEADLINE: Final = 10.0
_MOST_SESSIONS: Final = 10_000
_TABLES: Final = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, is_local INTEGER NOT NULL, csrf TEXT NOT NULL,
    address TEXT NOT NULL, begun_at REAL NOT NULL, seen_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, role TEXT NOT NULL,
    address TEXT NOT NULL, what TEXT NOT NULL, about TEXT NOT NULL, why TEXT NOT NULL, outcome TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS acknowledged (
    fingerprint TEXT PRIMARY KEY, starts_at TEXT NOT NULL, who TEXT NOT NULL, at REAL NOT NULL, note TEXT NOT NULL
) WITHOUT ROWID;
"""
ResultT = TypeVar("ResultT")


class Session(Struct, frozen=True, kw_only=True):
    id: str
    """The SHA-256 of what its cookie says."""
    name: str
    role: Role
    is_local: bool
    csrf: str
    address: str
    begun_at: float
    seen_at: float


class Entry(Struct, frozen=True, kw_only=True):
    """One line of the audit log."""

    number: int = 0
    at: float
    who: str
    role: str
    address: str
    what: str
    about: str
    why: str
    outcome: str


class Acknowledgement(Struct, frozen=True):
    """Of one alert, as long as that fires."""

    fingerprint: str
    starts_at: str
    who: str
    at: float
    note: str


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


class Ledger:
    """Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path, timeout=5, check_same_thread=False, isolation_level=None)
            self._path.chmod(0o600)
            self._database.executescript(_TABLES)
        except (sqlite3.Error, OSError) as error:
            raise MachineError(f"{self._path}: can't be opened: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    # --- Sessions ---

    async def begin(self, session: Session) -> None:
        def write(database: sqlite3.Connection) -> None:
            database.execute(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    session.id,
                    session.name,
                    session.role,
                    session.is_local,
                    session.csrf,
                    session.address,
                    session.begun_at,
                    session.seen_at,
                ),
            )
            database.execute(
                "DELETE FROM sessions WHERE id NOT IN (SELECT id FROM sessions ORDER BY seen_at DESC LIMIT ?)",
                (_MOST_SESSIONS,),
            )

        await self._do(write)

    async def sessions(self) -> list[Session]:
        rows = await self._do(lambda database: database.execute("SELECT * FROM sessions").fetchall())
        return [_session(row) for row in rows]

    async def session(self, secret: str) -> Session | None:
        def read(database: sqlite3.Connection) -> Any:  # noqa: ANN401
            return database.execute("SELECT * FROM sessions WHERE id = ?", (digest(secret),)).fetchone()

        row = await self._do(read)
        return None if row is None else _session(row)

    async def touch(self, session: Session, now: float) -> None:
        await self._do(lambda at: at.execute("UPDATE sessions SET seen_at = ? WHERE id = ?", (now, session.id)))

    async def end(self, session_id: str) -> bool:
        """Whether there was one."""
        done = await self._do(lambda at: at.execute("DELETE FROM sessions WHERE id = ?", (session_id,)).rowcount)
        return done > 0

    async def end_older(self, seen_before: float, begun_before: float) -> None:
        query = "DELETE FROM sessions WHERE seen_at < ? OR begun_at < ?"
        await self._do(lambda at: at.execute(query, (seen_before, begun_before)))

    # --- Audit ---

    async def note(self, entry: Entry) -> None:
        row = (
            entry.at,
            entry.who[:200],
            entry.role,
            entry.address[:100],
            entry.what,
            entry.about[:2000],
            entry.why[:1000],
            entry.outcome[:1000],
        )
        query = "INSERT INTO audit (at, who, role, address, what, about, why, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        await self._do(lambda at: at.execute(query, row))

    async def entries(self, limit: int, before: int | None = None) -> list[Entry]:
        """The newest first."""

        def read(database: sqlite3.Connection) -> list[Any]:
            return database.execute(
                "SELECT number, at, who, role, address, what, about, why, outcome FROM audit"
                " WHERE (?1 IS NULL OR number < ?1) ORDER BY number DESC LIMIT ?2",
                (before, limit),
            ).fetchall()

        names = Entry.__struct_fields__
        return [Entry(**dict(zip(names, row, strict=True))) for row in await self._do(read)]

    # --- Acknowledgements ---

    async def acknowledge(self, told: Acknowledgement) -> None:
        row = (told.fingerprint, told.starts_at, told.who, told.at, told.note)
        await self._do(lambda at: at.execute("INSERT OR REPLACE INTO acknowledged VALUES (?, ?, ?, ?, ?)", row))

    async def acknowledgements(self) -> dict[str, Acknowledgement]:
        rows = await self._do(lambda at: at.execute("SELECT * FROM acknowledged").fetchall())
        return {row[0]: Acknowledgement(*row) for row in rows}

    async def forget(self, fingerprint: str) -> None:
        await self._do(lambda at: at.execute("DELETE FROM acknowledged WHERE fingerprint = ?", (fingerprint,)))

    async def _do(self, act: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Raises MachineError."""

        def locked() -> ResultT:
            with self._lock:
                if self._database is None:
                    raise MachineError(f"{self._path}: is closed")
                try:
                    return act(self._database)
                except sqlite3.Error as error:
                    raise MachineError(f"{self._path}: {error}") from error

        try:
            async with asyncio.timeout(_DEADLINE):
                return await asyncio.to_thread(locked)
        except TimeoutError as error:
            raise MachineError(f"{self._path}: no answer of the disk within {_DEADLINE:.0f} s") from error


def _session(row: tuple[Any, ...]) -> Session:
    name, role, is_local, csrf, address, begun_at, seen_at = row[1:]
    return Session(
        id=row[0],
        name=name,
        role=Role(role),
        is_local=bool(is_local),
        csrf=csrf,
        address=address,
        begun_at=begun_at,
        seen_at=seen_at,
    )
