"""The registry of one machine: an SQLite file, and the inventory in memory.

What a registry promises (a clustered one promises the same, over the same tests):

- `inventory` is the newest that was kept. It is a value; whoever holds it goes on with it.
- `change` keeps the change and then makes it true, or raises and nothing has changed.
- Every change is kept with who, when and why, for ever, and `history` gives the newest first.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Struct

from steering.errors import RegistryError
from steering.inventory import (
    APPLIANCE,
    OPERATOR,
    SITE,
    Appliance,
    Change,
    Inventory,
    Operator,
    Proof,
    Site,
    Source,
    apply,
    encode_change,
    subject,
)
from wire.toml import quantity

_DEADLINE: Final = 10.0
"""Seconds for one change to be kept."""
_SCHEMA: Final = 2
"""1 knew no turn-up checks."""
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    kind TEXT NOT NULL, id TEXT NOT NULL, from_file INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL,
    source TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS changes_of ON changes (kind, id, number);
"""


class Kept(Struct, frozen=True, kw_only=True):
    """One change as it was kept."""

    number: int
    at: float
    who: str
    why: str
    source: Source
    kind: str
    id: str
    change: msgspec.Raw


class EmbeddedRegistry:
    """Use as an async context manager."""

    def __init__(self, path: str, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._thread_lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._is_doubtful = False
        """A change was cut short: whether it was kept must be read."""
        self.inventory = Inventory()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._close)

    async def change(self, *changes: Change, who: str, why: str, source: Source = Source.API) -> Inventory:
        """The inventory after the changes, all or none of them. Raises `InventoryError` for what can't be, and
        `RegistryError` for what can't be kept.
        """
        async with self._one_at_a_time:
            if self._is_doubtful:
                self.inventory = await asyncio.to_thread(self._read_again)
                self._is_doubtful = False
            changed = await asyncio.to_thread(apply, self.inventory, *changes, source=source, now=self._clock())
            try:
                async with asyncio.timeout(_DEADLINE):
                    await asyncio.to_thread(self._keep, changes, changed, who, why, source)
            except TimeoutError as error:
                self._is_doubtful = True
                raise RegistryError(f"{self._path}: a change was not kept within {_DEADLINE:.0f} s") from error
            self.inventory = changed
            return changed

    async def history(self, limit: int, kind: str | None = None, name: str | None = None) -> list[Kept]:
        """The newest changes first, of all or of one kind and id."""
        return await asyncio.to_thread(self._history, limit, kind, name)

    # --- In threads ---

    def _open(self) -> None:
        try:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path, timeout=5.0, check_same_thread=False, isolation_level=None)
            # FULL: a change that was answered survives a power cut.
            self._database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + _TABLES)
            self._upgrade(self._database)
            self.inventory = self._read(self._database)
        except (sqlite3.Error, OSError, msgspec.DecodeError) as error:
            raise RegistryError(f"{self._path}: the registry can't be opened: {error}") from error

    def _close(self) -> None:
        with self._thread_lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _upgrade(self, database: sqlite3.Connection) -> None:
        row = database.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        if row is None:
            database.execute("INSERT INTO meta VALUES ('schema', ?)", (_SCHEMA,))
        elif row[0] > _SCHEMA:
            raise RegistryError(f"{self._path}: is of schema {row[0]}; this version reads up to {_SCHEMA}: upgrade")
        elif row[0] < _SCHEMA:
            self._believe_in(database)

    def _believe_in(self, database: sqlite3.Connection) -> None:
        """Appliances from before there were turn-up checks have viewers: an upgrade must not take them away."""
        now = self._clock()
        proof = Proof(at=now, passed=True, passed_at=now, by="the upgrade of steering: it was there before")
        rows = database.execute("SELECT id, body FROM entries WHERE kind = ?", (APPLIANCE,)).fetchall()
        database.execute("BEGIN IMMEDIATE")
        try:
            for name, body in rows:
                entry = msgspec.structs.replace(_APPLIANCES.decode(body), proof=proof)
                database.execute(
                    "UPDATE entries SET body = ? WHERE kind = ? AND id = ?", (_ENCODER.encode(entry), APPLIANCE, name)
                )
            database.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (_SCHEMA,))
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise

    def _read_again(self) -> Inventory:
        with self._thread_lock:
            if self._database is None:
                raise RegistryError(f"{self._path}: the registry is closed")
            try:
                return self._read(self._database)
            except sqlite3.Error as error:
                raise RegistryError(f"{self._path}: the registry can't be read: {error}") from error

    def _read(self, database: sqlite3.Connection) -> Inventory:
        row = database.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
        operators: dict[str, Operator] = {}
        sites: dict[str, Site] = {}
        appliances: dict[str, Appliance] = {}
        from_file = set()
        for kind, name, is_from_file, body in database.execute("SELECT kind, id, from_file, body FROM entries"):
            try:
                if kind == OPERATOR:
                    operators[name] = _OPERATORS.decode(body)
                elif kind == SITE:
                    sites[name] = _SITES.decode(body)
                else:
                    appliances[name] = _APPLIANCES.decode(body)
            except msgspec.DecodeError as error:
                raise RegistryError(f"{self._path}: {kind} {name} can't be read: {error}") from error
            if is_from_file:
                from_file.add((kind, name))
        return Inventory(
            version=row[0] if row else 0,
            operators=operators,
            sites=sites,
            appliances=appliances,
            from_file=frozenset(from_file),
        )

    def _keep(self, changes: tuple[Change, ...], changed: Inventory, who: str, why: str, source: Source) -> None:
        now = self._clock()
        rows: dict[str, dict[str, Operator] | dict[str, Site] | dict[str, Appliance]] = {
            OPERATOR: dict(changed.operators),
            SITE: dict(changed.sites),
            APPLIANCE: dict(changed.appliances),
        }
        with self._thread_lock:
            database = self._database
            if database is None:
                raise RegistryError(f"{self._path}: the registry is closed")
            try:
                database.execute("BEGIN IMMEDIATE")
                try:
                    for change in changes:
                        kind, name = subject(change)
                        database.execute(
                            "INSERT INTO changes (at, who, why, source, kind, id, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                            (now, who, why, source, kind, name, encode_change(change)),
                        )
                        entry = rows[kind].get(name)
                        if entry is None:
                            database.execute("DELETE FROM entries WHERE kind = ? AND id = ?", (kind, name))
                        else:
                            database.execute(
                                "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
                                (kind, name, (kind, name) in changed.from_file, _ENCODER.encode(entry)),
                            )
                    database.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?)", (changed.version,))
                    database.execute("COMMIT")
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise RegistryError(f"{self._path}: a change was not kept: {error}") from error

    def _history(self, limit: int, kind: str | None, name: str | None) -> list[Kept]:
        with self._thread_lock:
            if self._database is None:
                raise RegistryError(f"{self._path}: the registry is closed")
            try:
                rows = self._database.execute(
                    "SELECT number, at, who, why, source, kind, id, body FROM changes"
                    " WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR id = ?2) ORDER BY number DESC LIMIT ?3",
                    (kind, name, limit),
                ).fetchall()
            except sqlite3.Error as error:
                raise RegistryError(f"{self._path}: the history can't be read: {error}") from error
        return [
            Kept(
                number=number,
                at=at,
                who=who,
                why=why,
                source=Source(source),
                kind=of_kind,
                id=of_id,
                change=msgspec.Raw(body),
            )
            for number, at, who, why, source, of_kind, of_id, body in rows
        ]


_OPERATORS: Final = msgspec.json.Decoder(Operator)
_SITES: Final = msgspec.json.Decoder(Site)
_APPLIANCES: Final = msgspec.json.Decoder(Appliance, dec_hook=quantity)
_ENCODER: Final = msgspec.json.Encoder(enc_hook=int)
