"""What the index holds: values that are packed to bytes. Fields are only ever added at the end, with a default."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from oca.cache.keys import EXTENT_BLOCKS

FORMAT: Final = 1


class ObjectRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One object in its present generation, or a negative answer (status 403, 404, 410) that is remembered briefly."""

    path: str
    generation: int
    """Unique on this box and growing. Bytes of two generations are never spliced."""
    size: int
    status: int = 200
    etag: bytes = b""
    """Strong, with quotes; empty if the source gave none or a weak one."""
    last_modified: int | None = None
    """Seconds since 1970; kept only if it is a strong validator (RFC 9110 section 8.8.2.2)."""
    kept: dict[str, str] = {}
    """Header lines that are replayed."""
    generated_at: float = 0.0
    """When the origin's answer was fresh from the origin: our clock at its validation, less its Age."""
    lifetime: float = 0.0
    """Seconds from `generated_at` for which the object is fresh."""
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    storable: bool = True
    """False for no-store and private: bytes pass through memory to one viewer and are forgotten."""
    ranged: bool = True
    """False if the source has no strong validator: then only one whole answer makes one generation."""

    def is_fresh(self, now: float) -> bool:
        return now < self.generated_at + self.lifetime

    def age(self, now: float) -> int:
        return max(0, int(now - self.generated_at))

    def is_same_version(self, other: ObjectRecord) -> bool:
        """Whether both are, by a strong validator, the same bytes."""
        if self.size != other.size or self.status != other.status:
            return False
        if self.etag or other.etag:
            return self.etag == other.etag
        return self.last_modified is not None and self.last_modified == other.last_modified


class ExtentRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where one extent lies and which of its blocks are durable and verified."""

    device: int
    """Number of the device in this index; the device's own id stands in its DeviceRecord."""
    slot: int
    """Small and dense: the extent's row in the policy's arrays."""
    present: int
    """Bitmap: bit i is set if block i of the extent is durable and its sum is stored."""
    sums: bytes
    """CRC32C of each block, big-endian, 4 bytes each, up to the highest present one; zeros where absent."""
    used_bytes: int
    """What its blocks take on disk, each rounded up to 4 KiB."""
    group: int = 0
    """32 bits that all extents of a rendition share: what the policy counts together."""
    below: int | None = None
    """A device of a slower tier on which the same blocks lie as well."""
    pledged_until: float = 0.0
    """Seconds since 1970 before which it is not evicted."""

    def sum_of(self, block: int) -> int:
        return int(_SUM.unpack_from(self.sums, 4 * block)[0])


class Label(msgspec.Struct, frozen=True, array_like=True):
    """What an extent's file says of itself, so that the index can be made anew from the devices alone."""

    object: ObjectRecord
    extent: ExtentRecord
    """Its device and slot mean nothing elsewhere."""


class DeviceRecord(msgspec.Struct, frozen=True, array_like=True):
    """A device by its own id, wherever it is mounted today; its path is empty while it is not in use."""

    id: str
    path: str
    tier: str
    capacity: int = 0
    """Bytes that the cache may use."""
    standing: str = "online"
    """A `Standing` of oca.cache.health."""
    reason: str = ""
    """A `Fault` of oca.cache.health: why it stands so. Empty if it is well."""
    since: float = 0.0
    """Seconds since 1970 of the last change of `standing`."""
    wish: str = "serve"
    """What the operator wants of it: serve, drain or remove."""
    dwpd: float = 1.0
    """Drive writes per day that its maker allows, for the write budget."""
    home: str = ""
    """Where it was mounted last; stays when `path` is emptied."""
    live: bool = False
    """Brought in by command: it is in service without standing in the settings."""
    foreign: bool = False
    """It came with content of which not everything has been taken over yet: nothing is written or swept there."""


_SUM: Final = struct.Struct(">I")


def with_block(record: ExtentRecord, block: int, crc: int, used_bytes: int) -> ExtentRecord:
    """`record` with block number `block` (within the extent) present. Setting a present block changes its sum only.

    A copy below is not one any more.
    """
    assert 0 <= block < EXTENT_BLOCKS
    sums = bytearray(record.sums.ljust(4 * (block + 1), b"\0"))
    _SUM.pack_into(sums, 4 * block, crc)
    was_present = record.present >> block & 1
    return ExtentRecord(
        record.device,
        record.slot,
        record.present | 1 << block,
        bytes(sums),
        record.used_bytes + (0 if was_present else used_bytes),
        record.group,
        None,  # The copy below lacks this block.
        record.pledged_until,
    )


def on_disk(length: int) -> int:
    """What `length` bytes of a block take on a file system with 4 KiB pages."""
    return -(-length // 4096) * 4096


encode = msgspec.msgpack.Encoder().encode
decode_object = msgspec.msgpack.Decoder(ObjectRecord).decode
decode_extent = msgspec.msgpack.Decoder(ExtentRecord).decode
decode_device = msgspec.msgpack.Decoder(DeviceRecord).decode
decode_label = msgspec.msgpack.Decoder(Label).decode
