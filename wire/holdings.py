"""Which renditions an appliance holds, as a roaring bitmap of their numbers in the catalogue."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from wire.heartbeat import ApplianceId, Count, Word

MOST_BITMAP_BYTES: Final = 8 * 1024 * 1024
"""Half a million renditions take 64 KiB at most; numbers up to four billion could take more than anyone should send."""
MOST_BYTES: Final = MOST_BITMAP_BYTES * 4 // 3 + 1024
"""Of the message as JSON, where bytes stand in base64."""


class Holdings(Struct, frozen=True, kw_only=True):
    """All of them, at one moment. A rendition counts as held when almost all of its bytes are on well devices."""

    appliance: ApplianceId
    boot: Word
    version: Count
    """As in the heartbeat. It changes when the set does, at most every 30 s."""
    bitmap: Annotated[bytes, Meta(max_length=MOST_BITMAP_BYTES)]
    """The portable serialised form of 32-bit roaring bitmaps (github.com/RoaringBitmap/RoaringFormatSpec)."""
