"""What is encrypted is what it was, to those who have the key and to nobody else: ffmpeg decrypts both schemes."""

import re
import subprocess
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin.publish.boxes import BoxError, segment_timing
from admin.publish.encryption import COMMON_SYSTEM, Encryptor
from admin.publish.keys import Scheme, TrackKey
from admin.publish.slices import Headers, is_slice

KID, KEY = bytes(range(16)), bytes(range(100, 116))
SYSTEM = b"\0\0\0\x24pssh\0\0\0\0" + bytes(range(16)) + b"\0\0\0\4data"

ENCODES = {
    "cabac": ("-c:v", "libx264", "-profile:v", "high", "-bf", "3"),
    "cavlc": ("-c:v", "libx264", "-profile:v", "baseline"),
    "slices": ("-c:v", "libx264", "-x264-params", "slices=4:bframes=2"),
    "weights": ("-c:v", "libx264", "-x264-params", "weightp=2:weightb=1:bframes=4:ref=8"),
    "fields": ("-c:v", "libx264", "-flags", "+ilme+ildct", "-x264-params", "interlaced=1"),
    "sound": ("-c:a", "aac"),
}


@pytest.fixture(scope="module")
def clear(make, tmp_path_factory):
    """The initialisation segment and the media segments of an encode by name, as publishing makes them."""

    def made(name):
        source = "sine=duration=5" if name == "sound" else "testsrc2=size=160x120:rate=10:duration=5,fade=out:20:30"
        folder = tmp_path_factory.getbasetemp() / f"clear-{name}"
        folder.mkdir(exist_ok=True)
        options = ("-pix_fmt", "yuv420p", "-force_key_frames", "expr:gte(t,n_forced*4)") if name != "sound" else ()
        make(
            *("-f", "lavfi", "-i", source, *ENCODES[name], *options, "-f", "dash", "-seg_duration", "4"),
            *("-format_options", "movflags=+cmaf", "-init_seg_name", "init.mp4"),
            *("-media_seg_name", "seg-$Number%05d$.m4s", str(folder / "ffmpeg.mpd")),
        )
        return (folder / "init.mp4").read_bytes(), [path.read_bytes() for path in sorted(folder.glob("*.m4s"))]

    return made


@pytest.fixture
def decoded(ffmpeg, tmp_path):
    """Checksums of every decoded frame; None where ffmpeg can't decode it."""

    def run(init, segments, key=None):
        path = tmp_path / "film.mp4"
        path.write_bytes(init + b"".join(segments))
        hand = ("-decryption_key", key.hex()) if key else ()
        done = subprocess.run(
            [ffmpeg.path, "-v", "error", "-xerror", *hand, "-i", path, "-f", "framecrc", "-"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return None if done.returncode else [line for line in done.stdout.splitlines() if line[0] != "#"]

    return run


def encrypted(init, segments, scheme, key=KEY, seed=b"film"):
    encryptor = Encryptor(TrackKey(scheme, KID, key, (SYSTEM,)), init, seed)
    return encryptor.init, [encryptor.segment(segment) for segment in segments]


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("name", ENCODES)
def test_every_frame_is_what_it_was_with_the_key_and_not_without(clear, decoded, name, scheme):
    init, segments = clear(name)
    frames = decoded(init, segments)
    assert len(frames) >= 50
    locked = encrypted(init, segments, scheme)
    assert decoded(*locked, KEY) == frames
    assert decoded(*locked) != frames
    assert decoded(*locked, bytes(16)) != frames


@pytest.mark.parametrize("scheme", list(Scheme))
def test_the_same_film_under_the_same_key_gives_the_same_bytes_and_others_do_not(clear, scheme):
    init, segments = clear("cabac")
    once = encrypted(init, segments, scheme)
    assert encrypted(init, segments, scheme) == once
    assert encrypted(init, segments, scheme, seed=b"another")[1] != once[1]
    assert encrypted(init, segments, scheme, key=bytes(16))[1] != once[1]


def test_no_two_samples_share_an_initialisation_vector(clear):
    vectors = []
    for name in ("cabac", "sound"):
        init, segments = clear(name)
        _, locked = encrypted(init, segments, Scheme.CENC, seed=name.encode())
        for segment in locked:
            at = segment.index(b"senc") + 4
            is_mapped, count = int.from_bytes(segment[at : at + 4]) & 2, int.from_bytes(segment[at + 4 : at + 8])
            at += 8
            for _ in range(count):
                vectors.append(segment[at : at + 8])
                at += 8
                if is_mapped:
                    at += 2 + 6 * int.from_bytes(segment[at : at + 2])
    assert len(vectors) > 100
    assert len(set(vectors)) == len(vectors)


@pytest.mark.parametrize("scheme", list(Scheme))
def test_boxes_say_the_scheme_the_key_and_where_everything_is(clear, scheme):
    init, segments = clear("cabac")
    locked_init, locked = encrypted(init, segments, scheme)
    assert scheme.encode() + b"\0\1\0\0" in locked_init
    assert b"frmaavc1" in locked_init
    assert b"encv" in locked_init
    assert COMMON_SYSTEM + b"\0\0\0\1" + KID in locked_init
    assert SYSTEM in locked_init
    for before, after in zip(segments, locked, strict=True):
        assert segment_timing(after) == segment_timing(before)
        (indexed,) = re.findall(rb"sidx.{32}(.{4})", after, re.DOTALL)
        assert int.from_bytes(indexed) == len(after) - after.index(b"moof") + 4
        moof = after.index(b"moof") - 4
        offset = int.from_bytes(after[after.index(b"saio") + 12 : after.index(b"saio") + 16])
        assert moof + offset == after.index(b"senc") + 12


@pytest.mark.parametrize("name", [name for name in ENCODES if name != "sound"])
def test_slice_headers_are_as_long_as_ffmpeg_reads_them(clear, ffmpeg, tmp_path, name):
    init, segments = clear(name)
    path = tmp_path / "film.mp4"
    path.write_bytes(init + b"".join(segments))
    traced = subprocess.run(
        [ffmpeg.path, "-i", path, "-c", "copy", "-bsf:v", "trace_headers", "-f", "null", "-"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stderr
    # Each header's last element: the bit at which it begins, and its bits.
    expected = []
    for header in traced.split("Slice Header")[1:]:
        rows = re.findall(r"\] (\d+) +(\w[\w\[\]]*) +([01]+) = ", header.partition("Packet: ")[0])
        last = [row for row in rows if row[1] != "cabac_alignment_one_bit"][-1]
        expected.append(-(-(int(last[0]) + len(last[2])) // 8))
    at = init.index(b"avcC") + 4
    headers = Headers(init[at : at - 8 + int.from_bytes(init[at - 8 : at - 4])])
    found = []
    for segment in segments:
        data = segment[segment.index(b"mdat") + 4 :]
        while data:
            size = int.from_bytes(data[:4])
            nal, data = data[4 : 4 + size], data[4 + size :]
            if is_slice(nal):
                found.append(headers.length(nal))
    assert len(found) >= 50
    assert found == expected


def test_other_codecs_are_refused(make, ffmpeg):
    path = make(
        *("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=1", "-c:v", "libx265", "-x265-params"),
        *("log-level=error", "-movflags", "+frag_keyframe+empty_moov", "hevc.mp4"),
    )
    body = path.read_bytes()
    with pytest.raises(BoxError, match=r"hev1 can't be encrypted; allowed: H\.264 and AAC"):
        Encryptor(TrackKey(Scheme.CENC, KID, KEY), body[: body.index(b"moof") - 4], b"")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_encrypted_but_never_crash(clear, data):
    init, segments = clear("cabac")
    whole = [init, segments[1]]
    place = data.draw(st.integers(0, 1))
    at = data.draw(st.integers(0, min(len(whole[place]), 900) - 1))
    rubbish = data.draw(st.binary(min_size=1, max_size=8))
    whole[place] = whole[place][:at] + rubbish + whole[place][at + len(rubbish) :]
    with suppress(BoxError):
        encrypted(whole[0], whole[1:], Scheme.CENC)
