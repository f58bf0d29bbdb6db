"""Labels: what extent files say of themselves, and how far that is believed.

A label is believed only if the file's name follows from the object it names, if the file is long enough for the blocks
it promises, and if there is a sum for each of them. The bytes are not read: that is the work of `verify` and of the
scrubber, and every cold read compares them before a viewer gets one.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

import msgspec

from oca.cache.keys import BLOCK_BYTES, EXTENT_BYTES, ExtentKey, object_key, split_extent_key
from oca.cache.policy import Level
from oca.cache.records import ExtentRecord, Label, decode_label, on_disk
from oca.store.device import DeviceFolder


class LabelFlaw(StrEnum):
    """Why a label is not believed."""

    GONE = "gone"
    """The file is gone, or does not lie where its name belongs."""
    UNLABELLED = "unlabelled"
    ROTTEN = "rotten"
    """It can't be decoded."""
    ANOTHERS = "anothers"
    """It names an object or a generation that does not make this file's name."""
    BEYOND = "beyond"
    """It promises blocks beyond the end of its object, or none."""
    SUMLESS = "sumless"
    """It promises blocks without their sums."""
    SHORT = "short"
    """The file is too short for the blocks that it promises."""


LevelOf = Callable[[int], Level]
"""The level of a device by its number."""

_SUM_BYTES: Final = 4


def label_of(folder: DeviceFolder, key: ExtentKey) -> Label | LabelFlaw:
    described = folder.describe(key)
    if described is None:
        return LabelFlaw.GONE
    return believed(key, *described)


def believed(key: ExtentKey, size: int, packed: bytes) -> Label | LabelFlaw:
    """The label of a file of `size` bytes, if it may be believed."""
    if not packed:
        return LabelFlaw.UNLABELLED
    try:
        label = decode_label(packed)
    except msgspec.DecodeError:
        return LabelFlaw.ROTTEN
    record, extent = label.object, label.extent
    name, generation, number = split_extent_key(key)
    if record.generation != generation or object_key(record.path) != name:
        return LabelFlaw.ANOTHERS
    rest = record.size - number * EXTENT_BYTES
    blocks = -(-min(rest, EXTENT_BYTES) // BLOCK_BYTES)
    if rest <= 0 or not 0 < extent.present < 1 << blocks or record.status != 200:
        return LabelFlaw.BEYOND
    top = extent.present.bit_length()
    if len(extent.sums) < _SUM_BYTES * top:
        return LabelFlaw.SUMLESS
    if size < min(top * BLOCK_BYTES, rest):
        return LabelFlaw.SHORT
    return Label(
        record,
        msgspec.structs.replace(
            extent, sums=extent.sums[: _SUM_BYTES * top], used_bytes=_used_bytes(extent.present, rest), below=None
        ),
    )


def joined(one: ExtentRecord, other: ExtentRecord, level_of: LevelOf) -> ExtentRecord:
    """What to make of an extent that lies on two devices. `one` was known first, and gives the slot.

    The same blocks on two tiers are an extent with its copy below. Else the fuller one is taken, and the other is given
    up.
    """
    are_same = one.present == other.present and one.sums == other.sums
    upper, lower = (other, one) if level_of(other.device) < level_of(one.device) else (one, other)
    if are_same and one.below is None and level_of(upper.device) < level_of(lower.device):
        return msgspec.structs.replace(one, device=upper.device, below=lower.device)
    if other.present.bit_count() > one.present.bit_count():
        return msgspec.structs.replace(other, slot=one.slot)
    return one


def _used_bytes(present: int, rest: int) -> int:
    """What its blocks take on disk; `rest` bytes of the object begin with this extent."""
    last = -(-rest // BLOCK_BYTES) - 1
    if not present >> last & 1:
        return present.bit_count() * BLOCK_BYTES
    return (present.bit_count() - 1) * BLOCK_BYTES + on_disk(rest - last * BLOCK_BYTES)
