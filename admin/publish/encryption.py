"""Common Encryption (ISO/IEC 23001-7) of the CMAF files that ffmpeg wrote: `cenc` and `cbcs`, H.264 and AAC.

In the clear stay boxes, and of pictures what is no slice, and each slice's length, NAL header and slice header: players
and decoders look there before anything is decrypted (9.5).
"""

import hashlib
import hmac
import struct
from collections.abc import Iterator
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR

from admin.publish.boxes import BoxError
from admin.publish.keys import Scheme, TrackKey
from admin.publish.slices import Headers, is_slice

#: "Common PSSH box": any DRM system may take the key's id from it (W3C, "cenc" initialization data format).
COMMON_SYSTEM: Final = bytes.fromhex("1077efecc0b24d02ace33c1e52e2fb4b")

_BLOCK: Final = 16
# cbcs of pictures: one block of ten (10.4.2).
_CRYPTED, _SKIPPED = 1, 9
_ENTRIES: Final = {b"avc1": (b"encv", 78), b"mp4a": (b"enca", 28)}
"""What the sample entry is called, encrypted, and how many bytes it has before its boxes (14496-12, 12.1.3, 12.2.3)."""
_MOST_CLEAR: Final = 0xFFFF
_CONTAINERS: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl")

Subsample = tuple[int, int]
"""Bytes in the clear, then bytes protected."""


class Encryptor:
    """One rendition: its initialisation segment, then its segments in their order.

    The same plaintext gets the same bytes again: initialisation vectors come from the key and from `seed`, which names
    the plaintext (its digest). No two samples under one key share one: under `cenc` a rendition starts at one of 2**64
    places and counts up by a sample, so that two of them hardly ever meet.
    """

    def __init__(self, key: TrackKey, init: bytes, seed: bytes) -> None:
        """Raises BoxError if the file is not what ffmpeg writes for us, or is in another codec."""
        self._key = key
        self._headers: Headers | None = None
        vector = hmac.new(key.key, b"iv" + key.kid + seed, hashlib.sha256).digest()
        self._next = int.from_bytes(vector[:8])
        self._constant = vector[:_BLOCK]
        self.init = self._initialisation(init)

    def segment(self, segment: bytes) -> bytes:
        """The next segment, encrypted. Raises BoxError."""
        try:
            return self._segment(segment)
        except (struct.error, IndexError) as error:
            raise BoxError(f"a segment that can't be read: {error}") from error

    # --- The initialisation segment -----------------------------------------------------------------------------------

    def _initialisation(self, init: bytes) -> bytes:
        parts = []
        try:
            for kind, content in _boxes(init):
                if kind == b"moov":
                    content = self._inside(content, 1) + self._pssh()
                parts.append(_box(kind, content))
        except (struct.error, IndexError) as error:
            raise BoxError(f"an initialisation segment that can't be read: {error}") from error
        if self._headers is None and not self._is_sound:
            raise BoxError("no sample entry in the initialisation segment")
        return b"".join(parts)

    _is_sound = False

    def _inside(self, content: bytes, depth: int) -> bytes:
        parts = []
        for kind, inner in _boxes(content):
            if depth < len(_CONTAINERS) and kind == _CONTAINERS[depth]:
                inner = self._inside(inner, depth + 1)
            elif depth == len(_CONTAINERS) and kind == b"stsd":
                inner = inner[:8] + b"".join(self._entry(name, entry) for name, entry in _boxes(inner[8:]))
            parts.append(_box(kind, inner))
        return b"".join(parts)

    def _entry(self, name: bytes, entry: bytes) -> bytes:
        if name not in _ENTRIES:
            raise BoxError(f"{name.decode(errors='replace')} can't be encrypted; allowed: H.264 and AAC")
        crypted, head = _ENTRIES[name]
        if name == b"avc1":
            (configuration,) = [inner for kind, inner in _boxes(entry[head:]) if kind == b"avcC"] or [b""]
            self._headers = Headers(configuration)
        else:
            self._is_sound = True
        scheme = _box(b"schm", b"\0\0\0\0" + self._key.scheme.encode() + b"\0\1\0\0")
        info = _box(b"frma", name) + scheme + _box(b"schi", _box(b"tenc", self._defaults()))
        return _box(crypted, entry + _box(b"sinf", info))

    def _defaults(self) -> bytes:
        """`tenc` (8.2): version, pattern, is protected, size of a sample's vector, key id, constant vector."""
        if self._key.scheme is Scheme.CENC:
            return b"\0\0\0\0\0\0\1\x08" + self._key.kid
        pattern = 0 if self._is_sound else _CRYPTED << 4 | _SKIPPED
        return b"\1\0\0\0\0" + bytes([pattern]) + b"\1\0" + self._key.kid + bytes([_BLOCK]) + self._constant

    def _pssh(self) -> bytes:
        common = _box(b"pssh", b"\1\0\0\0" + COMMON_SYSTEM + struct.pack(">I", 1) + self._key.kid + bytes(4))
        return common + b"".join(self._key.pssh)

    # --- Segments -----------------------------------------------------------------------------------------------------

    def _segment(self, segment: bytes) -> bytes:
        parts: list[tuple[bytes, bytes]] = list(_boxes(segment))
        kinds = [kind for kind, _ in parts]
        if kinds[-2:] != [b"moof", b"mdat"] or kinds.count(b"moof") != 1:
            raise BoxError("a segment of other boxes than one fragment; ffmpeg writes one fragment each")
        (_, fragment), (_, data) = parts[-2:]
        sizes = _sample_sizes(fragment)
        if sum(sizes) != len(data):
            raise BoxError("samples that are not what the segment's data is")
        crypted, vectors, maps = self._samples(data, sizes)
        moof = _with_auxiliary(fragment, vectors, maps)
        grown = len(moof) - len(fragment) - 8
        head = b"".join(
            _box(kind, _regrown(content, grown) if kind == b"sidx" else content) for kind, content in parts[:-2]
        )
        return head + moof + _box(b"mdat", crypted)

    def _samples(self, data: bytes, sizes: list[int]) -> tuple[bytes, list[bytes], list[list[Subsample]]]:
        """The data encrypted; and of each sample its vector and its subsamples, if it has some of its own."""
        out, vectors, maps, at = bytearray(data), [], [], 0
        for size in sizes:
            subsamples = [(0, size)] if self._headers is None else self._subsamples(data[at : at + size])
            if self._key.scheme is Scheme.CENC:
                vector = (self._next % (1 << 64)).to_bytes(8)
                self._next += 1
                vectors.append(vector)
                _crypt_counter(out, at, subsamples, self._key.key, vector)
            else:
                vectors.append(b"")
                _crypt_chain(out, at, subsamples, self._key.key, self._constant, is_pattern=self._headers is not None)
            maps.append([] if self._headers is None else subsamples)
            at += size
        return bytes(out), vectors, maps

    def _subsamples(self, sample: bytes) -> list[Subsample]:
        """What of a picture is clear, and what protected, in turns."""
        assert self._headers is not None
        found: list[Subsample] = []
        clear = at = 0
        length_size = self._headers.length_size
        while at < len(sample):
            size = int.from_bytes(sample[at : at + length_size])
            nal = sample[at + length_size : at + length_size + size]
            if not size or len(nal) != size:
                raise BoxError("a NAL unit that reaches beyond its picture")
            clear += length_size
            protected = size - self._headers.length(nal) if is_slice(nal) else 0
            if self._key.scheme is Scheme.CENC:
                # 9.5.2: whole blocks, so that each range can be decrypted by itself.
                protected -= max(0, protected) % _BLOCK
            protected = max(0, protected)
            clear += size - protected
            if protected:
                while clear > _MOST_CLEAR:
                    found.append((_MOST_CLEAR, 0))
                    clear -= _MOST_CLEAR
                found.append((clear, protected))
                clear = 0
            at += length_size + size
        while clear:
            found.append((min(clear, _MOST_CLEAR), 0))
            clear -= min(clear, _MOST_CLEAR)
        return found


def _crypt_counter(out: bytearray, at: int, subsamples: list[Subsample], key: bytes, vector: bytes) -> None:
    """AES-CTR; the counter goes on from one protected range to the next (10.1)."""
    stream = Cipher(AES(key), CTR(vector + bytes(8))).encryptor()
    for clear, protected in subsamples:
        at += clear
        if protected:
            out[at : at + protected] = stream.update(bytes(out[at : at + protected]))
        at += protected


def _crypt_chain(
    out: bytearray, at: int, subsamples: list[Subsample], key: bytes, vector: bytes, *, is_pattern: bool
) -> None:
    """AES-CBC over whole blocks; the chain starts anew in each protected range (10.4). The rest of a block is clear."""
    step = (_CRYPTED + _SKIPPED) * _BLOCK if is_pattern else _BLOCK
    for clear, protected in subsamples:
        at += clear
        whole = protected - protected % _BLOCK
        chain = Cipher(AES(key), CBC(vector)).encryptor()
        if not is_pattern:
            out[at : at + whole] = chain.update(bytes(out[at : at + whole]))
        elif whole:
            places = range(at, at + whole, step)
            blocks = chain.update(b"".join([out[place : place + _BLOCK] for place in places]))
            for number, place in enumerate(places):
                out[place : place + _BLOCK] = blocks[number * _BLOCK : (number + 1) * _BLOCK]
        at += protected


def _sample_sizes(fragment: bytes) -> list[int]:
    """Of each sample of the only track's only run (14496-12, 8.8.7 and 8.8.8)."""
    traf = dict(_boxes(_only(fragment, b"traf")))
    tfhd, trun = traf.get(b"tfhd", b""), traf.get(b"trun", b"")
    (flags,) = struct.unpack_from(">I", tfhd)
    at = 8 + 8 * bool(flags & 1) + 4 * bool(flags & 2) + 4 * bool(flags & 8)
    (default,) = struct.unpack_from(">I", tfhd, at) if flags & 0x10 else (None,)
    run_flags, count = struct.unpack_from(">II", trun)
    if not run_flags & 1:
        raise BoxError("a run of samples that does not say where they are")
    at = 12 + 4 * bool(run_flags & 4)
    row = [bool(run_flags & bit) for bit in (0x100, 0x200, 0x400, 0x800)]
    stride = 4 * sum(row)
    if len(trun) < at + count * stride:
        raise BoxError("a run of samples that breaks off")
    if not row[1]:
        if default is None or count > len(fragment):
            raise BoxError("samples of unknown size")
        return [default] * count
    return [struct.unpack_from(">I", trun, at + number * stride + 4 * row[0])[0] for number in range(count)]


def _with_auxiliary(fragment: bytes, vectors: list[bytes], maps: list[list[Subsample]]) -> bytes:
    """The whole `moof`, its track's boxes followed by `saiz`, `saio` and `senc` (14496-12, 8.7.8; 23001-7, 7.2)."""
    is_mapped = any(maps)
    entries = [
        vector
        + (struct.pack(">H", len(each)) + b"".join(struct.pack(">HI", *pair) for pair in each) if is_mapped else b"")
        for vector, each in zip(vectors, maps, strict=True)
    ]
    if not any(entries):
        # One vector for all and nothing clear: there is nothing to say of samples (cbcs sound, 10.4.3).
        auxiliary: list[bytes] = []
    else:
        if max(map(len, entries)) > 255:
            raise BoxError("a picture of more slices than a segment can say of")
        sizes = bytes(len(entry) for entry in entries)
        senc = _box(b"senc", struct.pack(">II", 2 if is_mapped else 0, len(entries)) + b"".join(entries))
        saiz = _box(b"saiz", struct.pack(">IBI", 0, 0, len(entries)) + sizes)
        auxiliary = [saiz, _box(b"saio", struct.pack(">III", 0, 1, 0)), senc]
    added = sum(map(len, auxiliary))
    parts, at = [], 8
    for kind, content in _boxes(fragment):
        if kind == b"traf":
            inner = b"".join(
                _box(name, _moved_run(body, added) if name == b"trun" else body) for name, body in _boxes(content)
            )
            if auxiliary:
                # From the fragment's first byte to the first entry: default-base-is-moof.
                first = at + 8 + len(inner) + len(auxiliary[0]) + len(auxiliary[1]) + 16
                auxiliary[1] = _box(b"saio", struct.pack(">III", 0, 1, first))
            content = inner + b"".join(auxiliary)
        parts.append(_box(kind, content))
        at += len(parts[-1])
    return _box(b"moof", b"".join(parts))


def _moved_run(trun: bytes, by: int) -> bytes:
    (offset,) = struct.unpack_from(">i", trun, 8)
    return trun[:8] + struct.pack(">i", offset + by) + trun[12:]


def _regrown(sidx: bytes, by: int) -> bytes:
    at = 32 if sidx[0] == 1 else 24
    (size,) = struct.unpack_from(">I", sidx, at)
    return sidx[:at] + struct.pack(">I", size + by) + sidx[at + 4 :]


def _only(body: bytes, kind: bytes) -> bytes:
    for found, content in _boxes(body):
        if found == kind:
            return content
    raise BoxError(f"no {kind.decode()} box")


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _boxes(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(body):
        if len(body) - at < 8:
            raise BoxError("bytes after the last box")
        size, kind = struct.unpack_from(">I4s", body, at)
        if size < 8 or at + size > len(body):
            raise BoxError(f"a box of {size} bytes where {len(body) - at} are left")
        yield kind, body[at + 8 : at + size]
        at += size
