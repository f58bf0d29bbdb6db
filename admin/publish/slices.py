"""How long the header of an H.264 slice is: Common Encryption leaves it in the clear (ISO/IEC 23001-7, 9.5 and 10).

The syntax is ITU-T H.264, 7.3.2.1 (sequence parameter set), 7.3.2.2 (picture parameter set) and 7.3.3 (slice header).
"""

from dataclasses import dataclass
from typing import Final

from admin.publish.boxes import BoxError

_SLICE, _IDR_SLICE = 1, 5
_P, _B, _SP, _SI = 0, 1, 3, 4
_I: Final = 2
_HIGH_PROFILES: Final = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
# No header has more than two lists of 32 references, a weight table and the marking of each.
_LONGEST: Final = 2048
_USUAL: Final = 64
_MOST_LEADING_ZEROS: Final = 32


def is_slice(nal: bytes | memoryview) -> bool:
    """Whether this NAL unit carries a part of a picture."""
    return nal[0] & 31 in (_SLICE, _IDR_SLICE)


@dataclass(frozen=True)
class _Sequence:
    separate_planes: bool
    chroma_array_type: int
    frame_number_bits: int
    order_type: int
    order_bits: int
    always_zero: bool
    frames_only: bool


@dataclass(frozen=True)
class _Picture:
    sequence: int
    cabac: bool
    order_present: bool
    slice_groups: int
    references: tuple[int, int]
    weighted_p: bool
    weighted_b: int
    control_present: bool
    redundant_present: bool


class Headers:
    """The parameter sets of a stream, by which slice headers are read."""

    def __init__(self, configuration: bytes) -> None:
        """`configuration` is the content of `avcC` (ISO/IEC 14496-15, 5.3.3.1). Raises BoxError."""
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, _Picture] = {}
        try:
            self.length_size = (configuration[4] & 3) + 1
            at, count = 6, configuration[5] & 31
            for read in (self._read_sequence, self._read_picture):
                for _ in range(count):
                    size = int.from_bytes(configuration[at : at + 2])
                    read(_Bits(configuration[at + 3 : at + 2 + size]))
                    at += 2 + size
                count, at = configuration[at] if read == self._read_sequence else 0, at + 1
        except (IndexError, KeyError) as error:
            raise BoxError(f"damaged avcC: {error!r}") from error

    def length(self, nal: bytes | memoryview) -> int:
        """Bytes of this slice's NAL unit (its own first byte counted) up to where slice data begins, rounded up."""
        for longest in (_USUAL, _LONGEST):
            try:
                return 1 + self._header(_Bits(bytes(nal[1:longest])), nal[0])
            except (IndexError, KeyError) as error:
                if longest == _LONGEST or len(nal) <= longest:
                    raise BoxError(f"a slice header that can't be read: {error!r}") from error
        raise AssertionError("one of both reads it or raises")

    def _read_sequence(self, bits: "_Bits") -> None:
        profile = bits.read(8)
        bits.read(16)
        number = bits.ue()
        chroma, separate = 1, False
        if profile in _HIGH_PROFILES:
            chroma = bits.ue()
            separate = chroma == 3 and bool(bits.read(1))
            bits.ue()
            bits.ue()
            bits.read(1)
            if bits.read(1):
                for place in range(12 if chroma == 3 else 8):
                    if bits.read(1):
                        _skip_scaling_list(bits, 16 if place < 6 else 64)
        frame_number_bits = bits.ue() + 4
        order_type = bits.ue()
        order_bits, always_zero = 0, False
        if order_type == 0:
            order_bits = bits.ue() + 4
        elif order_type == 1:
            always_zero = bool(bits.read(1))
            bits.ue()
            bits.ue()
            for _ in range(min(bits.ue(), 255)):
                bits.ue()
        bits.ue()
        bits.read(1)
        bits.ue()
        bits.ue()
        frames_only = bool(bits.read(1))
        self._sequences[number] = _Sequence(
            separate, 0 if separate else chroma, frame_number_bits, order_type, order_bits, always_zero, frames_only
        )

    def _read_picture(self, bits: "_Bits") -> None:
        number, sequence = bits.ue(), bits.ue()
        cabac, order_present = bool(bits.read(1)), bool(bits.read(1))
        groups = bits.ue()
        if groups:
            raise BoxError("slice groups, which no encoder of ours makes")
        references = (bits.ue() + 1, bits.ue() + 1)
        weighted_p, weighted_b = bool(bits.read(1)), bits.read(2)
        bits.ue()
        bits.ue()
        bits.ue()
        control_present = bool(bits.read(1))
        bits.read(1)
        redundant_present = bool(bits.read(1))
        self._pictures[number] = _Picture(
            sequence,
            cabac,
            order_present,
            groups,
            references,
            weighted_p,
            weighted_b,
            control_present,
            redundant_present,
        )

    def _header(self, bits: "_Bits", first: int) -> int:
        is_idr, is_reference = first & 31 == _IDR_SLICE, bool(first >> 5 & 3)
        bits.ue()
        kind = bits.ue() % 5
        picture = self._pictures[bits.ue()]
        sequence = self._sequences[picture.sequence]
        if sequence.separate_planes:
            bits.read(2)
        bits.read(sequence.frame_number_bits)
        is_field = not sequence.frames_only and bool(bits.read(1))
        if is_field:
            bits.read(1)
        if is_idr:
            bits.ue()
        if sequence.order_type == 0:
            bits.read(sequence.order_bits)
            if picture.order_present and not is_field:
                bits.ue()
        elif sequence.order_type == 1 and not sequence.always_zero:
            bits.ue()
            if picture.order_present and not is_field:
                bits.ue()
        if picture.redundant_present:
            bits.ue()
        if kind == _B:
            bits.read(1)
        references = list(picture.references)
        if kind in (_P, _SP, _B) and bits.read(1):
            references[0] = bits.ue() + 1
            if kind == _B:
                references[1] = bits.ue() + 1
        if max(references) > 32:
            raise BoxError(f"a slice of {max(references)} references; there can be 32")
        for _ in range({_P: 1, _SP: 1, _B: 2}.get(kind, 0)):
            _skip_modification(bits)
        if (picture.weighted_p and kind in (_P, _SP)) or (picture.weighted_b == 1 and kind == _B):
            _skip_weights(bits, references if kind == _B else references[:1], sequence.chroma_array_type)
        if is_reference:
            _skip_marking(bits, is_idr=is_idr)
        if picture.cabac and kind not in (_I, _SI):
            bits.ue()
        bits.ue()
        if kind in (_SP, _SI):
            if kind == _SP:
                bits.read(1)
            bits.ue()
        if picture.control_present and bits.ue() != 1:
            bits.ue()
            bits.ue()
        return bits.bytes_read


def _skip_scaling_list(bits: "_Bits", size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _skip_modification(bits: "_Bits") -> None:
    if not bits.read(1):
        return
    for _ in range(67):
        if bits.ue() == 3:
            return
        bits.ue()
    raise BoxError("a slice header whose list of references has no end")


def _skip_weights(bits: "_Bits", references: list[int], chroma_array_type: int) -> None:
    bits.ue()
    if chroma_array_type:
        bits.ue()
    for count in references:
        for _ in range(count):
            if bits.read(1):
                bits.ue()
                bits.ue()
            if chroma_array_type and bits.read(1):
                for _ in range(4):
                    bits.ue()


def _skip_marking(bits: "_Bits", *, is_idr: bool) -> None:
    if is_idr:
        bits.read(2)
        return
    if not bits.read(1):
        return
    for _ in range(67):
        operation = bits.ue()
        if operation == 0:
            return
        if operation in (1, 2, 3, 4, 6):
            bits.ue()
        if operation == 3:
            bits.ue()
    raise BoxError("a slice header whose marking of references has no end")


class _Bits:
    """Reads a NAL unit's payload bit by bit. Raises IndexError at its end."""

    def __init__(self, escaped: bytes) -> None:
        # 7.4.1: the 3 of 00 00 03 is not payload. What is behind it has moved by one byte.
        self._escapes: list[int] = []
        plain, zeros = bytearray(), 0
        for byte in escaped:
            if zeros >= 2 and byte == 3:
                self._escapes.append(len(plain))
                zeros = 0
                continue
            zeros = zeros + 1 if byte == 0 else 0
            plain.append(byte)
        self._value = int.from_bytes(plain)
        self._size = len(plain) * 8
        self._at = 0

    def read(self, count: int) -> int:
        self._at += count
        if self._at > self._size:
            raise IndexError("it ends too early")
        return self._value >> (self._size - self._at) & ((1 << count) - 1)

    def ue(self) -> int:
        """9.1: an Exp-Golomb number."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > _MOST_LEADING_ZEROS:
                raise IndexError("a number of too many bits")
        return (1 << zeros) - 1 + self.read(zeros)

    def se(self) -> int:
        number = self.ue()
        return (number + 1) // 2 if number & 1 else -(number // 2)

    @property
    def bytes_read(self) -> int:
        """As they were escaped, the last one whole."""
        plain = -(-self._at // 8)
        return plain + sum(escape < plain for escape in self._escapes)
