"""The index made anew from what extent files say of themselves.

Two ways lead here. `import_device` takes over a device that the running appliance does not know: one that was moved
from another box, or all of them when the state folder was lost. `rebuild` makes a whole new index while the appliance
is stopped. Neither reads the content, which would take days: only labels, names and lengths. What is rotten is found by
the scrubber, by `oca store verify`, and by every cold read before a viewer gets a byte of it.

Of two generations of an object the newer one counts. A file whose label is not believed, or that is held better
elsewhere, is not taken, and is removed by the sweep that follows.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, TypeVar

import msgspec

from oca.cache.health import Fault, Signal, signal_of
from oca.cache.keys import ExtentKey
from oca.cache.records import Label
from oca.errors import DeviceFault, StoreError
from oca.store.device import DeviceFolder
from oca.store.labels import LabelFlaw, label_of
from oca.store.shelf import Shelf
from oca.store.shelves import Shelves

T = TypeVar("T")
_Found = tuple[ExtentKey, Label | LabelFlaw | Fault]

log = logging.getLogger(__name__)

_BATCH: Final = 64
"""Extents that nobody else may touch while their labels are read: on a disk that seeks for each, below a second."""
_LISTING: Final = 600.0
_READING: Final = 60.0
_TRIES: Final = 3


class Report(msgspec.Struct):
    """What became of the extents that were found."""

    extents: int = 0
    """Taken into the index."""
    passed_over: int = 0
    """Held better elsewhere, or of an older generation."""
    flaws: Counter[str] = msgspec.field(default_factory=Counter)
    """Labels that were not believed, by why; files that could not be read, by the device's fault."""


# --- A device that comes to a running appliance -----------------------------------------------------------------------


async def import_device(shelves: Shelves, shelf: Shelf) -> Report:
    """Take over what lies on a device from elsewhere, while the appliance serves. Its content is served bit by bit as
    it comes in; nothing is written there before the end. If the device fails meanwhile it stays foreign, and what is
    left is taken over when it is back.
    """
    report = Report()
    try:
        for first in range(256):
            for batch in _batches(await _asked(shelves, shelf, partial(_listed, shelf.folder, first), _LISTING) or []):
                async with shelves.alone_with(batch):
                    found = await _asked(shelves, shelf, partial(_read, shelf.folder, batch), _READING)
                    await _adopt(shelves, shelf, found or [], report)
            if not shelf.can_read:
                log.warning("device %s: fails; so far %s; the rest when it is back", shelf.path, sentence(report))
                return report
        await shelves.taken_over(shelf)
    except StoreError as error:
        log.error("device %s: is not taken over: %s", shelf.path, error)
        return report
    log.info("device %s: %s", shelf.path, sentence(report))
    return report


async def _asked(shelves: Shelves, shelf: Shelf, work: Callable[[], list[T]], deadline: float) -> list[T] | None:
    """What the device answers; None if it does not, though it was asked more than once."""
    for _ in range(_TRIES):
        if not shelf.can_read:
            return None
        try:
            return await shelf.do(work, deadline)
        except StoreError as error:
            fault = Fault(error.fault) if isinstance(error, DeviceFault) else None
            shelves.signal(shelf, (fault and signal_of(fault)) or Signal.UNUSABLE, str(error))
    return None


async def _adopt(shelves: Shelves, shelf: Shelf, found: list[_Found], report: Report) -> None:
    labels: list[tuple[ExtentKey, Label]] = []
    for key, label in found:
        if isinstance(label, Label):
            labels.append((key, label))
            continue
        report.flaws[label] += 1
        if label is Fault.IO:
            shelves.signal(shelf, Signal.READ_ERROR, f"{shelf.folder.file_path(key)}: can't be read")
    if labels:
        adopted = await shelves.adopt(shelf, labels)
        report.extents += adopted
        report.passed_over += len(labels) - adopted


def _listed(folder: DeviceFolder, first: int) -> list[ExtentKey]:
    return list(folder.extents(first))


def _read(folder: DeviceFolder, keys: Iterable[ExtentKey]) -> list[_Found]:
    """One file that can't be read does not hide the others; a device that can't be is an error."""
    found: list[_Found] = []
    for key in keys:
        try:
            found.append((key, label_of(folder, key)))
        except DeviceFault as error:
            if error.fault != Fault.IO:
                raise
            found.append((key, Fault.IO))
    return found


def _batches(keys: list[ExtentKey]) -> Iterator[list[ExtentKey]]:
    for start in range(0, len(keys), _BATCH):
        yield keys[start : start + _BATCH]


def sentence(report: Report) -> str:
    flaws = ", ".join(f"{count} {flaw}" for flaw, count in sorted(report.flaws.items()))
    return f"{report.extents} extents taken over, {report.passed_over} passed over" + (
        f", not believed: {flaws}" if flaws else ""
    )
