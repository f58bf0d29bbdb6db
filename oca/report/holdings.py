"""Which renditions are held: counted by what the index says of their extents, as they come and go.

The catalogue says what belongs to a rendition; a `Sheet` keeps of that what counting needs. Extents carry the *group*
of their rendition (`group_of`), so the books count 4 KiB pages by group and by the devices on which they lie, and a
rendition is held when enough of its pages lie on devices that can be read. What can't be told apart, because two
renditions share a group, is not claimed.
"""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from msgspec import Struct
from pyroaring import BitMap

from oca.cache.keys import EXTENT_BYTES, group_of
from oca.cache.records import ExtentRecord
from wire.catalog import Title, is_title_id, title_folder

PAGE_BYTES: Final = 4096
_MOST_NUMBER: Final = 2**32 - 1
TITLES_PREFIX: Final = title_folder("")

Home = tuple[int, int]
"""The number of the device from which an extent is read, and of the one with the copy below; -1 if there is none."""
Pages = Mapping[Home, int]
"""How many pages lie where."""


class Part(Struct, frozen=True, array_like=True, gc=False):
    """What of a rendition is counted together."""

    group: int
    prefix: str
    """With what the paths of its objects begin: their folder, or the path itself of an object longer than an extent."""
    pages: int
    """Of the whole."""


class RenditionSheet(Struct, frozen=True, array_like=True, gc=False):
    number: int
    """In the catalogue."""
    parts: tuple[Part, ...]


class Sheet(Struct, frozen=True, array_like=True, gc=False):
    """What counting needs to know of a title."""

    title: str
    read_at: float
    """Seconds since 1970 when its document was read."""
    renditions: tuple[RenditionSheet, ...]

    def parts(self) -> list[Part]:
        return [part for rendition in self.renditions for part in rendition.parts]


Change = tuple[ExtentRecord | None, ExtentRecord | None]
"""What the index said of an extent before a commit, and says after it; None: nothing."""


def sheet_of(document: Title, now: float) -> Sheet:
    """The sheet of a title. Renditions are left out whose objects lie elsewhere than in the title's folder, or whose
    bytes can't be told from those of another.
    """
    folder = title_folder(document.title) + "/"
    found: list[tuple[int, dict[int, Part]]] = []
    seen: Counter[int] = Counter()
    for rendition in document.renditions:
        parts: dict[int, Part] = {}
        is_ours = rendition.number <= _MOST_NUMBER
        for item in rendition.objects:
            is_ours = is_ours and item.path.startswith(folder)
            group = group_of(item.path, item.size_bytes)
            prefix = item.path if item.size_bytes > EXTENT_BYTES else item.path.rpartition("/")[0] + "/"
            before = parts.get(group)
            is_ours = is_ours and (before is None or before.prefix == prefix)
            pages = -(-item.size_bytes // PAGE_BYTES)
            parts[group] = Part(group, prefix, pages + (0 if before is None else before.pages))
        seen.update(parts.keys())
        if is_ours:
            found.append((rendition.number, parts))
    renditions = [
        RenditionSheet(number, tuple(parts.values()))
        for number, parts in found
        if parts and all(seen[group] == 1 for group in parts)
    ]
    return Sheet(document.title, now, tuple(renditions))


def title_at(path: str) -> tuple[str, bool] | None:
    """The title that a path belongs to, and whether it lies in a folder of a rendition there; None: to none."""
    if not path.startswith(TITLES_PREFIX):
        return None
    title, _, rest = path[len(TITLES_PREFIX) :].partition("/")
    if not rest or not is_title_id(title):
        return None
    return title, "/" in rest


class Ledger:
    """Pages by group and home, in a column for each home: 4 bytes a group there."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        self._free: list[int] = []
        self._columns: dict[Home, array[int]] = {}

    def __contains__(self, group: int) -> bool:
        return group in self._rows

    def open(self, group: int, pages: Pages) -> None:
        """Count this group from now on; `pages` is what lies there."""
        row = self._rows.get(group)
        if row is None:
            row = self._rows[group] = self._free.pop() if self._free else len(self._rows)
        for column in self._columns.values():
            if row < len(column):
                column[row] = 0
        for home, count in pages.items():
            self._add(row, home, count)

    def close(self, group: int) -> None:
        row = self._rows.pop(group, None)
        if row is not None:
            self._free.append(row)

    def add(self, group: int, home: Home, count: int) -> None:
        """So many pages came (or went, below 0) of a group that is counted."""
        self._add(self._rows[group], home, count)

    def pages(self, group: int, readable: AbstractSet[int]) -> int:
        """How many of a group lie on a device of these, in the first place or below."""
        row = self._rows.get(group)
        if row is None:
            return 0
        return sum(
            column[row]
            for (device, below), column in self._columns.items()
            if row < len(column) and (device in readable or below in readable)
        )

    def is_empty(self, group: int) -> bool:
        row = self._rows.get(group)
        return row is None or not any(row < len(column) and column[row] for column in self._columns.values())

    def _add(self, row: int, home: Home, count: int) -> None:
        column = self._columns.setdefault(home, array("I"))
        if row >= len(column):
            column.frombytes(bytes(column.itemsize * (row + 1 - len(column))))
        # Never below nothing: this is called where a commit is told of, and no count is worth a commit.
        column[row] = max(0, column[row] + count)


def home_of(extent: ExtentRecord) -> Home:
    return extent.device, -1 if extent.below is None else extent.below


class Books:
    """All titles of which something is held, and which of their renditions are."""

    def __init__(self, share: float, most: int) -> None:
        """`share` of a rendition's pages make it held; the books have room for so many titles."""
        self._share = share
        self._most = most
        self.ledger = Ledger()
        self.sheets: OrderedDict[str, Sheet] = OrderedDict()
        """The ones that something came for lately are last."""
        self._owners: dict[int, tuple[str, ...]] = {}
        """Titles by group. Of a group with two nothing is claimed: 32 bits are not enough to tell them apart."""
        self._uncounted: set[str] = set()
        self._stirred: OrderedDict[str, None] = OrderedDict()
        self._empty: set[str] = set()
        self._readable: frozenset[int] = frozenset()
        self.held = BitMap()

    def enter(self, sheet: Sheet) -> list[str]:
        """A title is looked after from now on; nothing of it is held until its parts are counted, unless they are the
        same as before. Titles for which there is no room any more go, and are returned.
        """
        known = self.sheets.get(sheet.title)
        if known is not None and known.renditions == sheet.renditions:
            self.sheets[sheet.title] = sheet
            return []
        self.leave(sheet.title)
        self.sheets[sheet.title] = sheet
        self._uncounted.add(sheet.title)
        alone = (sheet.title,)  # One for all its parts: it is a tenth of what they take.
        for part in sheet.parts():
            owners = self._owners.get(part.group, ())
            self._owners[part.group] = (*owners, sheet.title) if owners else alone
            self._stirred.update(dict.fromkeys(owners))
        gone: list[str] = []
        while len(self.sheets) > self._most:
            # Of which nothing is left, else for which nothing came for the longest time.
            least = next(iter(self._empty), None) or next(iter(self.sheets))
            self.leave(least)
            gone.append(least)
        return gone

    def leave(self, title: str) -> None:
        """Nothing of a title is claimed any more."""
        sheet = self.sheets.pop(title, None)
        if sheet is None:
            return
        self._uncounted.discard(title)
        self._stirred.pop(title, None)
        self._empty.discard(title)
        for part in sheet.parts():
            # What was counted may be of either: it is claimed again when the other title was counted again.
            self.ledger.close(part.group)
            owners = tuple(owner for owner in self._owners[part.group] if owner != title)
            if owners:
                self._owners[part.group] = owners
                self._stirred.update(dict.fromkeys(owners))
            else:
                del self._owners[part.group]
        for rendition in sheet.renditions:
            self.held.discard(rendition.number)

    def counted(self, group: int, pages: Pages) -> None:
        """What lies of a group now; from here on it is counted by what is heard. A group that nobody looks after any
        more is not.
        """
        owners = self._owners.get(group)
        if owners is not None:
            self.ledger.open(group, pages)
            self._stirred.update(dict.fromkeys(owners))

    def is_counted(self, title: str) -> None:
        """All its parts were."""
        if title in self.sheets:
            self._uncounted.discard(title)
            self._stirred[title] = None

    def hear(self, changes: Iterable[Change]) -> None:
        """What a commit of the index changed."""
        for before, after in changes:
            for extent, sign in ((before, -1), (after, 1)):
                if extent is not None and extent.group in self.ledger:
                    self.ledger.add(extent.group, home_of(extent), sign * (extent.used_bytes // PAGE_BYTES))
                    self._stirred.update(dict.fromkeys(self._owners[extent.group]))

    def touch(self, title: str) -> Sheet | None:
        """Something of it came. Its sheet, if there is one."""
        sheet = self.sheets.get(title)
        if sheet is not None:
            self.sheets.move_to_end(title)
        return sheet

    def read_from(self, readable: frozenset[int]) -> None:
        """The devices that can be read now."""
        if readable != self._readable:
            self._readable = readable
            self._stirred.update(dict.fromkeys(self.sheets))

    def settle(self, most: int) -> bool:
        """Judge anew what changed, `most` titles at a time. False if some are left."""
        for _ in range(min(most, len(self._stirred))):
            title, _ = self._stirred.popitem(last=False)
            if title in self._uncounted:
                continue
            sheet = self.sheets[title]
            for rendition in sheet.renditions:
                if self._is_held(rendition):
                    self.held.add(rendition.number)
                else:
                    self.held.discard(rendition.number)
            if all(self.ledger.is_empty(part.group) for part in sheet.parts()):
                self._empty.add(title)
            else:
                self._empty.discard(title)
        return not self._stirred

    def is_empty(self, title: str) -> bool:
        """Whether nothing was left of it when it was judged last."""
        return title in self._empty

    def _is_held(self, rendition: RenditionSheet) -> bool:
        needed = sum(part.pages for part in rendition.parts)
        here = 0
        for part in rendition.parts:
            if len(self._owners[part.group]) > 1:
                return False
            here += min(part.pages, self.ledger.pages(part.group, self._readable))
        return needed > 0 and here >= self._share * needed
