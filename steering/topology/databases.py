"""The ASN and city databases: files in MaxMind's format that others replace while we read.

A file is copied into memory of our own before it is opened. The reader maps what it reads, and whoever overwrites or
truncates a mapped file in place (`cp` does, a download tool may) would end this process with SIGBUS. The copy is opened
and checked, and only then does the one in use go. A file that is missing or broken is reported; what was loaded before
stays in use, and without anything loaded every look-up says "not known".
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from enum import StrEnum
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from typing import TYPE_CHECKING, Final

import maxminddb
from msgspec import Struct

from steering.errors import SteeringError
from steering.topology.geo import NOWHERE, asn_of, place_of

if TYPE_CHECKING:
    from maxminddb.extension import Reader

log = logging.getLogger(__name__)

EVERY: Final = 60.0
"""Seconds between two looks at the files; publishers make new ones once or twice a week."""
MOST_BYTES: Final = 2 * 1024**3
"""The largest city database on the market is under 1 GiB."""
_MOST_AHEAD: Final = 86400.0
"""Seconds that a build may lie in the future: clocks differ, but not by years."""
_SAMPLES: Final = 256
"""Records that are read, and addresses that are looked up, before a database is taken into use."""


class Kind(StrEnum):
    """Which question a database answers."""

    ASN = "asn"
    CITY = "city"


_TYPES: Final = {Kind.ASN: ("asn", "isp", "enterprise"), Kind.CITY: ("city", "enterprise")}
"""Words of which one stands in the type that a fitting file claims: GeoLite2-ASN, DBIP-City-Lite and so on."""


class State(StrEnum):
    """How the file is. What is loaded may be older and well."""

    OFF = "off"
    """No file is configured."""
    GOOD = "good"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    """The system does not let us read it."""
    BROKEN = "broken"
    """Not a database, or a damaged one."""
    WRONG_TYPE = "wrong_type"
    """A database, but of something else."""
    IMPLAUSIBLE = "implausible"
    """A database that can't be meant: empty, from the future, or with less than half of what is in use."""


class Status(Struct, frozen=True):
    """For health and metrics."""

    kind: Kind
    state: State
    problem: str = ""
    """A sentence for the operator; empty if all is well."""
    path: str = ""
    loaded: bool = False
    """Whether look-ups are answered."""
    type: str = ""
    """Of what is loaded, as are the rest."""
    built_at: float | None = None
    """Seconds since 1970."""
    nodes: int = 0
    failed: int = 0
    """Look-ups that met damage."""


class ReaderMissing(SteeringError):
    """maxminddb came without its C reader; its Python one is too slow to steer by."""


class _Unfit(Exception):
    def __init__(self, state: State, problem: str) -> None:
        super().__init__(problem)
        self.state = state


class Database:
    """One file, and what is loaded of it."""

    def __init__(self, kind: Kind, path: str | None) -> None:
        """Nothing is read yet. None: there is no such file, and nothing will be known. Raises ReaderMissing."""
        self._kind = kind
        self._path = path
        self._open: Callable[..., Reader] = _c_reader()
        self._reader: Reader | None = None
        self._versions: tuple[int, ...] = (4,)
        self._judged: tuple[int, int, int] | None = None
        """The file that `_state` speaks of: inode, size and time of writing."""
        self._state = State.OFF if path is None else State.MISSING
        self._problem = "" if path is None else f"{path} was not read yet"
        self._type = ""
        self._built_at: float | None = None
        self._nodes = 0
        self._failed = 0
        self.generation = 0
        """Grows with each database that is taken into use."""

    @property
    def status(self) -> Status:
        return Status(
            kind=self._kind,
            state=self._state,
            problem=self._problem,
            path=self._path or "",
            loaded=self._reader is not None,
            type=self._type,
            built_at=self._built_at,
            nodes=self._nodes,
            failed=self._failed,
        )

    def find(self, address: IPv4Address | IPv6Address) -> tuple[object, int]:
        """The record of an address, None if there is none, and the prefix length within which it is the same."""
        reader = self._reader
        if reader is None or address.version not in self._versions:
            return None, 0
        try:
            return reader.get_with_prefix_len(address)
        except maxminddb.InvalidDatabaseError:
            self._failed += 1
            return None, address.max_prefixlen

    def refresh(self, now: float) -> bool:
        """Look at the file and take it into use if it is new and well. Whether `status` changed.

        Reads and checks the whole file, so it belongs in a thread; look-ups may go on meanwhile.
        """
        if self._path is None:
            return False
        before = self._state, self._problem, self.generation
        try:
            self._load(self._path, now)
        except FileNotFoundError:
            self._judged = None
            self._state, self._problem = State.MISSING, f"{self._path} does not exist"
        except OSError as error:
            self._judged = None
            self._state, self._problem = State.UNREADABLE, f"{self._path} can't be read: {error.strerror}"
        except _Unfit as error:
            self._state, self._problem = error.state, f"{self._path} {error}"
        return before != (self._state, self._problem, self.generation)

    def _load(self, path: str, now: float) -> None:
        """Raises OSError or _Unfit."""
        with open(path, "rb", buffering=0) as file:
            seen = _identity(file.fileno())
            if seen == self._judged:
                return
            memory = os.memfd_create(f"{self._kind} database", os.MFD_CLOEXEC)
            try:
                size = _copy(file.fileno(), memory)
                if _identity(file.fileno()) != seen:
                    return  # Someone is writing it right now: the next look will find it whole.
                self._judged = seen
                self._use(self._opened(memory), size, now)
            finally:
                # The reader has mapped it and holds it by that.
                os.close(memory)

    def _opened(self, memory: int) -> Reader:
        try:
            return self._open(f"/proc/self/fd/{memory}", maxminddb.MODE_MMAP_EXT)
        except (maxminddb.InvalidDatabaseError, ValueError) as error:
            raise _Unfit(State.BROKEN, "is not a database in MaxMind's format") from error

    def _use(self, reader: Reader, size: int, now: float) -> None:
        """Check it, then let it take the place of the one in use. Raises _Unfit."""
        claims = reader.metadata()
        kind = str(claims.database_type)
        if not any(word in kind.lower() for word in _TYPES[self._kind]):
            raise _Unfit(State.WRONG_TYPE, f"is of type {kind!r}; wanted is one for {self._kind}")
        if claims.node_count * claims.record_size // 4 >= size:
            raise _Unfit(State.BROKEN, f"claims {claims.node_count} nodes and has only {size} bytes")
        if claims.build_epoch > now + _MOST_AHEAD:
            raise _Unfit(State.IMPLAUSIBLE, "was built in the future")
        if claims.node_count * 2 < self._nodes:
            raise _Unfit(
                State.IMPLAUSIBLE,
                f"has {claims.node_count} nodes, the one in use {self._nodes}; a restart would take it nevertheless",
            )
        if not _is_readable(reader, self._kind, claims.ip_version):
            raise _Unfit(State.IMPLAUSIBLE, f"knows nothing of use for {self._kind}")
        self._reader = reader
        self._versions = (4,) if claims.ip_version == 4 else (4, 6)
        self._type = kind
        self._built_at = float(claims.build_epoch)
        self._nodes = claims.node_count
        self._state, self._problem = State.GOOD, ""
        self.generation += 1


async def watch(databases: Iterable[Database], now: Callable[[], float], every: float = EVERY) -> None:
    """Look after the files until cancelled; what changes is logged. The first look is at once."""
    databases = tuple(databases)
    while True:
        for database in databases:
            # No deadline: a thread that hangs on a dead disk can't be ended, and what is loaded goes on being used.
            if await asyncio.to_thread(database.refresh, now()):
                _tell(database.status)
        await asyncio.sleep(every)


def _tell(status: Status) -> None:
    if status.problem:
        log.warning("%s database: %s; %s", status.kind, status.problem, _in_use(status))
    else:
        log.info("%s database: %s of %d nodes is in use", status.kind, status.type, status.nodes)


def _in_use(status: Status) -> str:
    return "the one loaded before stays in use" if status.loaded else "steering goes on without it"


def _c_reader() -> Callable[..., Reader]:
    try:
        reader: Callable[..., Reader] = import_module("maxminddb.extension").Reader
    except ImportError as error:
        raise ReaderMissing(
            "maxminddb is installed without its C reader (maxminddb.extension): install a binary wheel of it, or "
            "libmaxminddb with its headers before building it"
        ) from error
    return reader


def _identity(fd: int) -> tuple[int, int, int]:
    found = os.fstat(fd)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _copy(source: int, target: int) -> int:
    """Bytes copied. Raises OSError, or _Unfit for what is absurdly large."""
    size = 0
    while piece := os.read(source, 1024 * 1024):
        size += len(piece)
        if size > MOST_BYTES:
            raise _Unfit(State.BROKEN, f"is larger than {MOST_BYTES} bytes")
        os.write(target, piece)
    return size


def _is_readable(reader: Reader, kind: Kind, version: int) -> bool:
    """Whether its first records are of use, and addresses all over the world can be looked up. Raises _Unfit."""
    try:
        for number in range(_SAMPLES):
            reader.get(IPv4Address(number << 24 | 0x010101))
            if version == 6:
                reader.get(IPv6Address(0x2000 + number * 0x20 << 112 | 1))
        records = [record for _, record in islice(reader, _SAMPLES)]
    except (maxminddb.InvalidDatabaseError, UnicodeDecodeError) as error:
        raise _Unfit(State.BROKEN, f"is damaged: {error}") from error
    if kind is Kind.ASN:
        return any(asn_of(record) is not None for record in records)
    return any(place_of(record) != NOWHERE for record in records)
