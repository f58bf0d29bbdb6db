from __future__ import annotations

import dns.edns
import dns.message
import dns.rrset
import dns.tsig
import dns.tsigkeyring
import pytest

from steering.dns.packets import HEADER_BYTES, Edns, Fault, Query, Rcode, read_common
from steering.dns.uncommon import read_uncommon
from tests.steering.dns.asking import ZONE, query


def _counted(packet: bytes, *counts: int) -> bytes:
    """With these counts of answers, authorities and additionals in the header."""
    return packet[:6] + b"".join(count.to_bytes(2, "big") for count in counts) + packet[HEADER_BYTES:]


_RECORD = b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4\xc0\0\2\1"
_OPT = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0"


def test_records_in_a_query_are_read_over() -> None:
    packet = _counted(query("films"), 1, 1, 2) + _RECORD * 3 + _OPT
    assert read_common(packet) is None
    read = read_uncommon(packet)
    assert isinstance(read, Query)
    assert read.name.startswith(b"\x05films")
    assert read.edns == Edns(1232, 0, wants_dnssec=True)


def test_a_compressed_question_is_spelt_out() -> None:
    # A label in the header's place: the id, 1 and "a", and the flags end the name.
    packet = b"\1a\0\0\0\1\0\0\0\0\0\0" + b"\4test\xc0\x00" + b"\0\1\0\1"
    read = read_uncommon(packet)
    assert isinstance(read, Query)
    assert read.question == b"\4test\1a\0\0\1\0\1"


@pytest.mark.parametrize(
    "packet",
    [
        query("films") + b"\0",  # something behind the end
        query("films")[:-1],
        _counted(query("films"), 0, 0, 1),
        _counted(query("films"), 65535, 65535, 65535),
        query("films")[:HEADER_BYTES] + b"\xc0\x0c\0\1\0\1",  # a name that points at itself
        query("films")[:HEADER_BYTES] + b"\xc0\x0e\0\1\0\1",  # forwards
        query("films")[:HEADER_BYTES] + b"\x40a\0\0\1\0\1",  # a kind of label that does not exist
        query("films")[:HEADER_BYTES] + b"\x3fa" * 5 + b"\0\0\1\0\1",
        query("films")[:HEADER_BYTES] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",  # 257 bytes
        _counted(query("films"), 0, 0, 2) + _OPT * 2,
        _counted(query("films"), 1, 0, 0) + _OPT,  # OPT among the answers
        _counted(query("films"), 0, 0, 1) + b"\1a\0" + _OPT[1:],  # OPT with a name
        _counted(query("films"), 0, 0, 1) + _OPT[:-2] + b"\0\4\0\x08\0\x08",  # an option longer than its record
        _counted(query("films"), 0, 0, 1) + _OPT[:-2] + b"\0\3\0\x08\0",
        _counted(query("films"), 1, 0, 0) + _RECORD[:-6] + b"\0\3\xc0\0\2",  # an address of three bytes
    ],
)
def test_a_malformed_packet_is_a_format_error(packet: bytes) -> None:
    read = read_uncommon(packet)
    assert isinstance(read, Fault)
    assert read.rcode is Rcode.FORMERR
    assert read.id == int.from_bytes(packet[:2], "big")


def test_a_signature_is_met_with_the_truth_that_we_share_no_key() -> None:
    message = dns.message.make_query(f"films.{ZONE}", "A")
    message.use_tsig(dns.tsigkeyring.from_text({"k.": "c2VjcmV0"}))
    read = read_uncommon(message.to_wire())
    assert isinstance(read, Fault)
    assert read.rcode is Rcode.NOTAUTH


def test_what_a_later_edns_brings_is_not_looked_into() -> None:
    packet = _counted(query("films"), 0, 0, 1) + b"\0\0\x29\x04\xd0\0\1\0\0\0\4\0\x08\0\0"
    read = read_uncommon(packet)
    assert isinstance(read, Fault)
    assert read.rcode is Rcode.BADVERS
    assert read.edns == Edns(1232, 1)
