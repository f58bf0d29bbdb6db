from email.message import Message
from email.parser import BytesHeaderParser, BytesParser
from email.policy import HTTP
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oca.http.dates import parse_date
from oca.http.ranges import requested_spans
from oca.http.replies import (
    CommonHeads,
    Cors,
    ObjectHeads,
    date_line,
    header_line,
    preflight,
    refusal,
    status_line,
)

KEPT = {
    "Content-Type": "video/mp4",
    "Cache-Control": "max-age=31536000, immutable",
    "Content-Disposition": "inline",
    "Vary": "Accept-Encoding",
}
ETAG = b'"v1"'
MODIFIED = 1_700_000_000
CONTENT = bytes(range(256)) * 4


def heads(content: bytes = CONTENT, *, etag=ETAG, last_modified=MODIFIED, kept=KEPT) -> ObjectHeads:
    return ObjectHeads(len(content), etag, last_modified, kept)


def read(head: bytes) -> tuple[str, Message]:
    """The status line and the fields, as another parser reads them. Every line must be one, and end in CRLF."""
    assert head.endswith(b"\r\n")
    assert b"\r\n\r\n" not in head
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n")
    line, _, fields = head.partition(b"\r\n")
    message = BytesHeaderParser().parsebytes(fields + b"\r\n")
    assert len(message.items()) == fields.count(b"\r\n")
    assert len({name.lower() for name in message}) == len(message), "a field stands twice"
    return line.decode(), message


def test_a_whole_reply_carries_everything_known_of_the_object():
    line, fields = read(heads().whole())
    assert line == "HTTP/1.1 200 OK"
    assert dict(fields) == KEPT | {
        "Content-Length": "1024",
        "Accept-Ranges": "bytes",
        "ETag": '"v1"',
        "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
    }


def test_an_object_of_which_nothing_is_known_has_a_short_head():
    bare = heads(etag=b"", last_modified=None, kept={})
    assert dict(read(bare.whole())[1]) == {"Content-Length": "1024", "Accept-Ranges": "bytes"}
    assert read(bare.not_modified())[1].items() == []


def test_a_single_part_says_where_it_lies():
    line, fields = read(heads().single_part((10, 20)))
    assert line == "HTTP/1.1 206 Partial Content"
    assert fields["Content-Range"] == "bytes 10-19/1024"
    assert fields["Content-Length"] == "10"
    assert fields["Content-Type"] == "video/mp4"
    assert fields["ETag"] == '"v1"'
    assert fields["Cache-Control"] == KEPT["Cache-Control"]


def test_a_304_carries_what_rfc_9110_asks_and_no_other_line_about_the_content():
    line, fields = read(heads().not_modified())
    assert line == "HTTP/1.1 304 Not Modified"
    assert set(fields) == {"ETag", "Last-Modified", "Cache-Control", "Vary"}


def test_a_412_can_not_be_kept_as_if_it_were_the_object():
    line, fields = read(heads().precondition_failed())
    assert line == "HTTP/1.1 412 Precondition Failed"
    assert dict(fields) == {"Content-Length": "0", "ETag": '"v1"', "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}


def test_a_416_tells_the_size():
    line, fields = read(heads().unsatisfiable())
    assert line == "HTTP/1.1 416 Range Not Satisfiable"
    assert fields["Content-Range"] == "bytes */1024"
    assert fields["Content-Length"] == "0"
    assert "Cache-Control" not in fields


def assembled(content: bytes, spans, boundary=b"oca-3f2a", **kwargs) -> tuple[bytes, bytes]:
    head, parts, closing = heads(content, **kwargs).multipart(spans, boundary)
    body = b"".join(part + content[start:stop] for part, (start, stop) in zip(parts, spans, strict=True)) + closing
    return head, body


def test_a_multipart_head_has_no_content_range_of_its_own():
    line, fields = read(assembled(CONTENT, [(0, 1), (4, 9)])[0])
    assert line == "HTTP/1.1 206 Partial Content"
    assert "Content-Range" not in fields
    assert fields.get_content_type() == "multipart/byteranges"
    assert fields["ETag"] == '"v1"'


@given(
    content=st.binary(min_size=1, max_size=200),
    asked=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40)), min_size=2, max_size=8),
    kept=st.sampled_from([KEPT, {}]),
)
def test_a_multipart_body_is_as_long_as_declared_and_reads_back_part_by_part(content, asked, kept):
    header = b"bytes=" + b",".join(b"%d-%d" % (first, first + more) for first, more in asked)
    spans = requested_spans(header, len(content), 8)
    if not isinstance(spans, list):
        return
    head, body = assembled(content, spans, kept=kept)
    _, fields = read(head)
    assert int(fields["Content-Length"]) == len(body)
    content_type = f"Content-Type: {fields['Content-Type']}\r\n\r\n"
    message = BytesParser(policy=HTTP).parsebytes(content_type.encode() + body)
    assert not message.defects
    parts = list(message.iter_parts())
    assert len(parts) == len(spans)
    for part, (start, stop) in zip(parts, spans, strict=True):
        assert part["Content-Range"] == f"bytes {start}-{stop - 1}/{len(content)}"
        assert part["Content-Type"] == kept.get("Content-Type")
    # The bytes themselves by their lengths: Python's email parser takes line ends in film bytes for its own.
    rest = body
    for start, stop in spans:
        part_head, blank, rest = rest.partition(b"\r\n\r\n")
        assert blank
        assert part_head.startswith(b"\r\n--oca-3f2a\r\n")
        assert rest[: stop - start] == content[start:stop]
        rest = rest[stop - start :]
    assert rest == b"\r\n--oca-3f2a--\r\n"


@given(st.text("abcXYZ 0189", max_size=200), st.integers(2, 6))
def test_pythons_email_parser_reads_the_very_bytes_of_each_part(text, count):
    content = f"<{text}>".encode() * 3
    step = len(content) // count
    spans = [(number * step, number * step + step - 1) for number in range(count) if step > 1]
    if not spans:
        return
    head, body = assembled(content, spans)
    message = BytesParser(policy=HTTP).parsebytes(head.partition(b"\r\n")[2] + b"\r\n" + body)
    assert [part.get_payload(decode=True) for part in message.iter_parts()] == [
        content[start:stop] for start, stop in spans
    ]


@given(st.text(max_size=30))
def test_no_value_from_an_origin_starts_a_second_line(value):
    line = header_line("X-Title", value)
    assert line.startswith(b"X-Title: ")
    assert line.endswith(b"\r\n")
    assert not any(byte in b"\r\n\0" for byte in line[:-2])


@given(st.dictionaries(st.sampled_from(["Content-Type", "X-A", "Vary", "Expires"]), st.text(max_size=20)))
def test_no_line_from_an_origin_changes_the_shape_of_a_head(kept):
    for head in (heads(kept=kept).whole(), heads(kept=kept).single_part((0, 1)), heads(kept=kept).not_modified()):
        assert b"\r\n\r\n" not in head
        assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n")


def test_a_date_line_is_this_second():
    name, _, value = date_line(MODIFIED).decode().partition(": ")
    assert name == "Date"
    assert value.endswith("\r\n")
    assert parse_date(value[:-2], MODIFIED) == MODIFIED


def test_a_status_line_has_its_phrase():
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"


@pytest.mark.parametrize("status", [400, 403, 404, 405, 408, 414, 417, 431, 500, 501, 502, 503, 504, 505])
def test_a_refusal_says_why_in_one_line(status):
    head, body = refusal(status, "the path is not UTF-8")
    line, fields = read(head)
    assert line == f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    assert body == b"the path is not UTF-8\n"
    assert int(fields["Content-Length"]) == len(body)
    assert fields["Content-Type"] == "text/plain; charset=utf-8"


def test_a_405_names_the_methods_and_no_other_refusal_does():
    assert read(refusal(405, "no")[0])[1]["Allow"] == "GET, HEAD, OPTIONS"
    assert "Allow" not in read(refusal(404, "no")[0])[1]


def test_the_length_of_a_refusal_counts_bytes_and_not_letters():
    head, body = refusal(404, "Amélie is not here")
    assert int(read(head)[1]["Content-Length"]) == len(body) == 20


def test_a_preflight_allows_what_players_send_and_has_no_body():
    line, fields = read(preflight())
    assert line == "HTTP/1.1 204 No Content"
    # RFC 9110 section 8.6: never in a 204.
    assert "Content-Length" not in fields
    allowed = fields["Access-Control-Allow-Headers"].split(", ")
    assert {"Range", "If-Range", "CMCD-Session"} <= set(allowed)
    assert fields["Access-Control-Allow-Methods"] == fields["Allow"] == "GET, HEAD, OPTIONS"


def test_public_video_may_be_read_by_any_page():
    common = CommonHeads(Cors())
    assert common.any_origin
    for origin in (None, b"https://any.example", b"null"):
        _, fields = read(b"\r\n" + common.cors_lines(origin))
        assert fields["Access-Control-Allow-Origin"] == "*"
        assert fields["Timing-Allow-Origin"] == "*"
        assert "Content-Range" in fields["Access-Control-Expose-Headers"]
        assert "Vary" not in fields


def test_listed_pages_are_named_and_others_get_nothing_but_vary():
    common = CommonHeads(Cors(allow_origins=("https://play.example",)))
    _, listed = read(b"\r\n" + common.cors_lines(b"https://play.example"))
    assert listed["Access-Control-Allow-Origin"] == "https://play.example"
    assert listed["Vary"] == "Origin"
    for origin in (None, b"https://evil.example", b"https://play.example.evil", b"null", b"*", b""):
        assert common.cors_lines(origin) == b"Vary: Origin\r\n"


def test_only_listed_origins_may_send_cookies():
    listed = CommonHeads(Cors(allow_origins=("https://play.example",), with_cookies=True))
    assert b"Access-Control-Allow-Credentials: true\r\n" in listed.cors_lines(b"https://play.example")
    assert b"Credentials" not in listed.cors_lines(b"https://other.example")
    assert b"Credentials" not in CommonHeads(Cors(with_cookies=True)).cors_lines(b"https://play.example")


def test_a_401_names_how_to_do_better():
    assert b"\r\nWWW-Authenticate: URISigningPackage\r\n" in refusal(401, "x")[0]
    assert b"WWW-Authenticate" not in refusal(403, "x")[0]


def test_cors_lines_that_are_switched_off_are_absent():
    common = CommonHeads(Cors(expose_headers="", timing_allow_origin=""))
    assert common.cors_lines(None) == b"Access-Control-Allow-Origin: *\r\n"


def test_a_line_end_in_the_settings_starts_no_second_line():
    common = CommonHeads(Cors(expose_headers="Age\r\nSet-Cookie: x"))
    assert set(read(b"\r\n" + common.cors_lines(None))[1]) == {
        "Access-Control-Allow-Origin",
        "Access-Control-Expose-Headers",
        "Timing-Allow-Origin",
    }
