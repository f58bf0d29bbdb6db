"""What viewers asked for, added up by the hour and by the folder of a rendition, and how that lies in a file.

*Counts* are one folder's numbers, in a list whose places stand below. Bytes count by where they came from: what a
device (or the memory in which newcomers wait) gave is a hit's, what went out while it was fetched is a miss's, also
where one answer has both. A request counts once, as its answer began, and only if it was answered with content:
neither HEAD nor 304 nor an error is somebody who watches.

A *part* is what one keeper counted of one hour. It is never added to once it is closed, and has an id of its own: so
who merges parts into the hour's object can tell which are in there already. A restart, a clock that was set, and an
operator who wants to see what there is begin a new part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from oca.cache.keys import EXTENT_BYTES
from wire.demand import COLUMNS, SCHEMA, Served, demand_key, folder_of

TIERS: Final = ("nvme", "ssd", "hdd", "memory")
"""As the columns of bytes are called, in the order of oca.counters.PLACES."""
HIT_REQUESTS: Final = 0
HIT_SESSIONS: Final = 1
HIT_BYTES_AT: Final = 2
"""The first of four, one for each of `TIERS`."""
MISS_REQUESTS: Final = HIT_BYTES_AT + len(TIERS)
MISS_SESSIONS: Final = MISS_REQUESTS + 1
MISS_BYTES: Final = MISS_REQUESTS + 2
STALLS: Final = MISS_REQUESTS + 3
PLAYED_MS: Final = MISS_REQUESTS + 4
KILOBITS: Final = MISS_REQUESTS + 5
"""Of what was played of a known bitrate."""
COUNTS: Final = MISS_REQUESTS + 6
"""At the end: what players say of themselves (CMCD). An earlier version's counts end before it."""

HOUR: Final = 3600
MOST_FOLDERS: Final = 200_000
"""In one part; what comes beyond is added up under "". That many take 83 MB of memory, 16 of file, and the keeper 24 ms
at each checkpoint; 10,000 take 3 MB, 0.8 and 1 ms."""
MOST_FOLDER_BYTES: Final = 255
"""Longer names are not of our making; they count under ""."""

_LATE: Final = 2.0
"""Seconds after an hour in which workers may still tell what they counted in its last one."""
_FIRST_PAUSE: Final = 30.0
"""Seconds until shipping is tried again after a failure; doubled each time, up to the next."""
_LONGEST_PAUSE: Final = 1800.0

Counts = Sequence[int]
_UNNAMED: Final = ""
_TOLD: Final = ("stalls", "played_ms", "played_kilobits")
_INIT: Final = re.compile(r"init(?![a-z])")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Part(msgspec.Struct, frozen=True):
    """What was counted of one hour, as it lies in the spool."""

    id: str
    hour: int
    """Hours since 1970, in UTC."""
    folders: dict[str, list[int]]


class Gathering:
    """The part that is being counted."""

    def __init__(self, identity: str, hour: int, most_folders: int = MOST_FOLDERS) -> None:
        self.id = identity
        self.hour = hour
        self.unnamed = 0
        """Times that a folder's counts went under "" because the part is full."""
        self._most = most_folders
        self._folders: dict[str, list[int]] = {}
        self.sums = [0] * COUNTS
        """Over all folders."""

    def add(self, told: Iterable[tuple[str, Counts]]) -> None:
        """What a worker told, by folder."""
        for folder, counts in told:
            sums = self._folders.get(folder)
            if sums is None:
                if folder and len(self._folders) >= self._most:
                    self.unnamed += 1
                    folder = _UNNAMED
                sums = self._folders.setdefault(folder, [0] * COUNTS)
            # A worker of another version may count more, or less.
            for place, count in enumerate(counts[:COUNTS]):
                sums[place] += count
                self.sums[place] += count

    def part(self) -> Part:
        """As it is now; what is added later does not show in what was encoded of it."""
        return Part(self.id, self.hour, self._folders)

    @property
    def is_empty(self) -> bool:
        return not self._folders

    @property
    def folders(self) -> int:
        return len(self._folders)


def counted_folder(path: str) -> str:
    """The folder under which an object is counted; "" for what is no film, or has no name that we would write."""
    folder = folder_of(path)
    return folder if len(folder.encode()) <= MOST_FOLDER_BYTES else _UNNAMED


def begins_play(path: str, size: int) -> bool:
    """Whether who asks for the first byte of this object begins to play a rendition.

    HLS and DASH players fetch the initialisation segment once for each rendition that they take up; playlists are asked
    for by HLS players only, and again and again. What is larger than an extent is a rendition in one file.
    """
    return size > EXTENT_BYTES or _INIT.match(path, path.rfind("/") + 1) is not None


def hour_of(now: float) -> int:
    return int(now // HOUR)


def key_of(hour: int, appliance: str) -> str:
    """Where an hour's demand lies, below the bucket's prefix."""
    at = _moment(hour)
    return demand_key(f"{at:%Y-%m-%d}", at.hour, appliance)


class Timetable:
    """When to ship: some time after the start and after each hour, and again after a failure, ever later.

    Moments are monotonic. `dice` gives numbers from 0 to 1: a fleet must not come at once.
    """

    def __init__(self, hour: int, now: float, jitter: float, dice: Callable[[], float]) -> None:
        self._hour = hour
        self._jitter = jitter
        self._dice = dice
        self._pause = _FIRST_PAUSE
        self.due_at = now + jitter * dice()
        """Infinite while there is nothing to be done before the next hour."""

    def is_due(self, hour: int, now: float) -> bool:
        """`hour` is what the clock says: one that was set, either way, ends an hour too."""
        if hour != self._hour:
            self._hour = hour
            self.due_at = min(self.due_at, now + _LATE + self._jitter * self._dice())
        return now >= self.due_at

    def succeeded(self) -> None:
        self._pause = _FIRST_PAUSE
        self.due_at = float("inf")

    def failed(self, now: float) -> None:
        self.due_at = now + self._pause * (0.75 + 0.5 * self._dice())
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


# --- The spool's files -----------------------------------------------------------------------------------------------

_PART_NAME: Final = re.compile(r"(\d{1,9})\.([0-9a-f]{1,64})\.part")


def part_name(hour: int, identity: str) -> str:
    """Of a part's file. Sorted, older hours come first."""
    return f"{hour:07}.{identity}.part"


def hour_of_part(name: str) -> int | None:
    """None if it is no part's name."""
    found = _PART_NAME.fullmatch(name)
    return None if found is None else int(found[1])


def encode_part(part: Part) -> bytes:
    return msgspec.msgpack.encode(part)


def decode_part(packed: bytes) -> Part:
    """Raises ValueError (msgspec's are) if it is not a part."""
    return msgspec.msgpack.decode(packed, type=Part)


def over_bound(sizes: Mapping[str, int], most: int) -> list[str]:
    """The parts to give up so that the others take no more than `most` bytes: the oldest hours first."""
    total = sum(sizes.values())
    given_up = []
    for name in sorted(sizes):
        if total <= most:
            break
        total -= sizes[name]
        given_up.append(name)
    return given_up


# --- An hour as a table ----------------------------------------------------------------------------------------------


def merged(*many: Mapping[str, Counts]) -> dict[str, list[int]]:
    """The sums by folder. Counts that an older version wrote may be shorter."""
    sums: dict[str, list[int]] = {}
    for folders in many:
        for folder, counts in folders.items():
            row = sums.setdefault(folder, [0] * COUNTS)
            for place, count in enumerate(counts):
                row[place] += count
    return sums


def table_of(appliance: str, hour: int, folders: Mapping[str, Counts]) -> dict[str, list[Any]]:
    """The columns of wire.demand.COLUMNS, one row for each folder and outcome of which something was counted."""
    columns: dict[str, list[Any]] = {name: [] for name, _ in COLUMNS}
    at = _moment(hour)
    for folder in sorted(folders):
        counts = folders[folder]
        tiers = counts[HIT_BYTES_AT:MISS_REQUESTS]
        hit = (counts[HIT_REQUESTS], counts[HIT_SESSIONS], sum(tiers), tiers)
        # A flight is memory, as it is in oca_egress_bytes_total.
        missed = counts[MISS_BYTES]
        miss = (counts[MISS_REQUESTS], counts[MISS_SESSIONS], missed, (0, 0, 0, missed))
        # A player speaks of what was before this request: not of a hit or a miss. It stands in the folder's first row.
        told = [*counts[STALLS:], 0, 0, 0][:3] if any(counts[STALLS:]) else [None, None, None]
        for outcome, (requests, sessions, sent, by_tier) in ((Served.HIT, hit), (Served.MISS, miss)):
            if not (requests or sent):
                continue
            row = {
                "schema": SCHEMA,
                "hour": at,
                "appliance": appliance,
                "title": title_in(folder),
                "folder": folder,
                "outcome": outcome.value,
                "requests": requests,
                "bytes": sent,
                "sessions": sessions,
                "first_byte_ms": None,
                "stalls": told[0],
                "played_ms": told[1],
                "played_kilobits": told[2],
                **{f"bytes_{tier}": count for tier, count in zip(TIERS, by_tier, strict=True)},
            }
            told = [None, None, None]
            for name, column in columns.items():
                column.append(row[name])
    return columns


def folders_of(table: Mapping[str, Sequence[Any]]) -> dict[str, list[int]]:
    """What `table_of` was made of."""
    folders: dict[str, list[int]] = {}
    for at, folder in enumerate(table["folder"]):
        counts = folders.setdefault(folder, [0] * COUNTS)
        if table["outcome"][at] == Served.HIT:
            counts[HIT_REQUESTS] += table["requests"][at]
            counts[HIT_SESSIONS] += table["sessions"][at]
            for place, tier in enumerate(TIERS):
                counts[HIT_BYTES_AT + place] += table[f"bytes_{tier}"][at]
        else:
            counts[MISS_REQUESTS] += table["requests"][at]
            counts[MISS_SESSIONS] += table["sessions"][at]
            counts[MISS_BYTES] += table["bytes"][at]
        for place, name in enumerate(_TOLD):
            # What an earlier version wrote has no such columns.
            counts[STALLS + place] += (table[name][at] if name in table else None) or 0
    return folders


def title_in(folder: str) -> str:
    """The id of the title whose rendition this is."""
    return folder.split("/")[2] if folder else ""


def _moment(hour: int) -> datetime:
    return _EPOCH + timedelta(hours=hour)
