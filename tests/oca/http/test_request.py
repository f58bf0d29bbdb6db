"""Request heads: a table of what is refused and why, and httptools as the second opinion on what is accepted."""

from http import HTTPStatus

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oca.http.refusal import Refused
from oca.http.request import MEMO_BLOCK_BYTES, MEMO_ENTRIES, Fields, parse_head
from oca.http.target import canonical_path, path_and_query

MAX_FIELDS = 20


def head(*lines: bytes, request: bytes = b"GET / HTTP/1.1", host: bytes | None = b"edge.example") -> bytes:
    hosts = () if host is None else (b"Host: " + host,)
    return b"".join(line + b"\r\n" for line in (request, *hosts, *lines, b""))


def parsed(*lines: bytes, **kwargs: bytes | None):
    return parse_head(head(*lines, **kwargs), MAX_FIELDS)


def refusal_of(text: bytes, max_fields: int = MAX_FIELDS) -> Refused:
    with pytest.raises(Refused) as refused:
        parse_head(text, max_fields)
    return refused.value


def test_a_player_s_request_becomes_a_value():
    request = parse_head(
        b"GET /films/1/seg.m4s?token=x HTTP/1.1\r\n"
        b"Host: edge.example:8080\r\n"
        b"User-Agent: player\r\n"
        b"RANGE: bytes=0-99\r\n"
        b'if-range:\t"v1" \t\r\n'
        b"Origin: https://play.example\r\n"
        b"CDN-Loop: oca-1\r\n"
        b"CDN-Loop: oca-2; x=1\r\n"
        b"\r\n",
        MAX_FIELDS,
    )
    assert request.method == b"GET"
    assert request.target == b"/films/1/seg.m4s?token=x"
    assert request.persists
    assert request.fields == Fields(
        host=b"edge.example:8080",
        range=b"bytes=0-99",
        if_range=b'"v1"',
        origin=b"https://play.example",
        cdn_loop=b"oca-1, oca-2; x=1",
        is_conditional=True,
        lines=7,
    )


def test_the_five_conditional_fields_are_kept_and_make_it_conditional():
    names = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "Range", "If-Range")
    for name in names:
        fields = parsed(name.encode() + b": x").fields
        assert getattr(fields, name.lower().replace("-", "_")) == b"x"
        assert fields.is_conditional
    assert not parsed().fields.is_conditional


def test_a_cookie_is_kept():
    assert parse_head(b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1; b=2\r\n\r\n", 10).fields.cookie == b"a=1; b=2"


@pytest.mark.parametrize(
    ("value", "is_so"),
    [
        (b"only-if-cached", True),
        (b"no-transform, Only-If-Cached", True),
        (b"max-age=0,only-if-cached", True),
        (b"only-if-cached=1", False),
        (b"x-only-if-cached", False),
        (b"no-cache", False),
        (b"", False),
    ],
)
def test_who_wants_only_what_is_held_says_so(value, is_so):
    head = b"GET / HTTP/1.1\r\nHost: h\r\nCache-Control: " + value + b"\r\n\r\n"
    assert parse_head(head, 10).fields.is_only_if_cached is is_so


def test_an_empty_field_is_there():
    assert parsed(b"If-Match:").fields.if_match == b""


def test_lists_over_several_lines_are_joined():
    assert parsed(b'If-None-Match: "a"', b'if-none-match: "b"').fields.if_none_match == b'"a", "b"'


def test_high_bytes_may_stand_in_a_value():
    assert parsed("X-Title: Amélie".encode(), b"Origin: \x80\xff").fields.origin == b"\x80\xff"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
def test_three_methods_are_answered(method):
    assert parsed(request=method + b" / HTTP/1.1").method == method


@pytest.mark.parametrize(
    ("request_line", "lines", "persists"),
    [
        (b"GET / HTTP/1.1", [], True),
        (b"GET / HTTP/1.1", [b"Connection: keep-alive"], True),
        (b"GET / HTTP/1.1", [b"Connection: close"], False),
        (b"GET / HTTP/1.1", [b"Connection: Upgrade,\tCLOSE ,"], False),
        (b"GET / HTTP/1.1", [b"Connection: TE", b"Connection: close"], False),
        (b"GET / HTTP/1.1", [b"Connection: closed"], True),
        (b"GET / HTTP/1.1", [b"Connection: close, keep-alive"], False),
        # A later minor version is answered as the highest we know (RFC 9110 section 2.5).
        (b"GET / HTTP/1.9", [], True),
        (b"GET / HTTP/1.0", [], False),
        (b"GET / HTTP/1.0", [b"Connection: keep-alive"], True),
        (b"GET / HTTP/1.0", [b"Connection: keep-alive, close"], False),
        # A body is never read: what follows it can't be found.
        (b"GET / HTTP/1.1", [b"Content-Length: 0"], True),
        (b"GET / HTTP/1.1", [b"Content-Length: 5"], False),
        (b"GET / HTTP/1.1", [b"Transfer-Encoding: chunked"], False),
        (b"GET / HTTP/1.1", [b"Content-Length: 5", b"Expect: 100-continue"], False),
        (b"GET / HTTP/1.0", [b"Content-Length: 5", b"Connection: keep-alive"], False),
    ],
)
def test_a_connection_persists_where_the_next_request_can_be_found(request_line, lines, persists):
    assert parsed(*lines, request=request_line).persists is persists


def test_http_1_0_needs_no_host():
    assert parsed(request=b"GET / HTTP/1.0", host=None).fields.host is None


BAD_REQUESTS = {
    # Request line
    "empty": b"\r\n",
    "an empty line first": b"\r\n" + head(),
    "no version": head(request=b"GET /"),
    "no target": head(request=b"GET HTTP/1.1"),
    "an empty target": head(request=b"GET  HTTP/1.1"),
    "two spaces": head(request=b"GET  / HTTP/1.1"),
    "a space after the version": head(request=b"GET / HTTP/1.1 "),
    "a space before the method": head(request=b" GET / HTTP/1.1"),
    "a tab for a space": head(request=b"GET\t/ HTTP/1.1"),
    "a space in the target": head(request=b"GET /a b HTTP/1.1"),
    "four words": head(request=b"GET / / HTTP/1.1"),
    "a bad method": head(request=b"G(T / HTTP/1.1"),
    "a NUL in the target": head(request=b"GET /a\0b HTTP/1.1"),
    "a CR in the target": head(request=b"GET /a\rb HTTP/1.1"),
    "an LF in the target": head(request=b"GET /a\nb HTTP/1.1"),
    "a DEL in the target": head(request=b"GET /a\x7fb HTTP/1.1"),
    "a raw byte over 127 in the target": head(request=b"GET /caf\xc3\xa9 HTTP/1.1"),
    "a lower-case version": head(request=b"GET / http/1.1"),
    "another protocol": head(request=b"GET / HTCPCP/1.0"),
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a version without digits": head(request=b"GET / HTTP/x.y"),
    "a version and a tail": head(request=b"GET / HTTP/1.1x"),
    "a bare LF after the request line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    # Field lines
    "a bare LF after a field": b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "a bare LF at the end": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a bare CR in a value": head(b"X: a\rb"),
    "a bare CR after a value": head(b"X: a\r"),
    "a NUL in a value": head(b"X: a\0b"),
    "an escape in a value": head(b"X: \x1b[31m"),
    "a DEL in a value": head(b"X: \x7f"),
    "a NUL in a name": head(b"X\0: a"),
    "a space before the colon": head(b"Content-Length : 5"),
    "a tab before the colon": head(b"Transfer-Encoding\t: chunked"),
    "a space before the first name": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "a folded line": head(b"X: a", b" b"),
    "a folded line with a tab": head(b"Transfer-Encoding:", b"\tchunked"),
    "a space in a name": head(b"Content Length: 5"),
    "an empty name": head(b": a"),
    "no colon": head(b"Host"),
    "a high byte in a name": head("Hôst: a".encode()),
    "a line of spaces": head(b"   "),
    "nothing after the last field": head()[:-2],
    "something after the empty line": head() + b"X",
    "a request after the empty line": head() + head(),
    # Host (RFC 9112 section 3.2)
    "no Host": head(host=None),
    "no Host, and no field at all": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": head(b"Host: edge.example"),
    "an empty Host": head(host=b""),
    "a Host with a path": head(host=b"edge/films"),
    "a Host with a user": head(host=b"user@edge"),
    "a Host with a space": head(host=b"edge example"),
    "a list of Hosts": head(host=b"edge, example"),
    "a bad Host in HTTP/1.0": head(request=b"GET / HTTP/1.0", host=b"edge/films"),
    "no Host for a method that is not answered": head(request=b"POST / HTTP/1.1", host=None),
    # Framing (RFC 9112 section 6): the stuff of request smuggling
    "both lengths": head(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "both lengths, the other way round": head(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "both lengths, one of them none": head(b"Transfer-Encoding: chunked", b"Content-Length: 0"),
    "two different lengths": head(b"Content-Length: 5", b"Content-Length: 6"),
    "the same length twice": head(b"Content-Length: 5", b"Content-Length: 5"),
    "the same length twice in other case": head(b"Content-Length: 5", b"content-length: 5"),
    "a list of lengths": head(b"Content-Length: 5, 5"),
    "a length with a plus": head(b"Content-Length: +5"),
    "a length with a minus": head(b"Content-Length: -5"),
    "a length in hexadecimal": head(b"Content-Length: 0x5"),
    "a length with a dot": head(b"Content-Length: 5.0"),
    "a length with an underscore": head(b"Content-Length: 1_0"),
    "a length with a space": head(b"Content-Length: 1 0"),
    "a length in other digits": head("Content-Length: \u0665".encode()),
    "a superscript length": head(b"Content-Length: \xb2"),
    "an empty length": head(b"Content-Length:"),
    "a length in quotes": head(b'Content-Length: "5"'),
    "a length beyond 64 bits": head(b"Content-Length: 18446744073709551617"),
    "a length of thousands of digits": head(b"Content-Length: " + b"9" * 5000),
    "chunked twice": head(b"Transfer-Encoding: chunked, chunked"),
    "chunked twice on two lines": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "a coding on two lines": head(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"),
    "chunked and then another": head(b"Transfer-Encoding: chunked, gzip"),
    "chunked in the middle": head(b"Transfer-Encoding: chunked, gzip, chunked"),
    "chunked and then identity": head(b"Transfer-Encoding: chunked, identity"),
    "identity": head(b"Transfer-Encoding: identity"),
    "gzip without chunked": head(b"Transfer-Encoding: gzip"),
    "xchunked": head(b"Transfer-Encoding: xchunked"),
    "chunkedx": head(b"Transfer-Encoding: chunkedx"),
    "x chunked": head(b"Transfer-Encoding: x chunked"),
    "chunked with a parameter": head(b"Transfer-Encoding: chunked;q=1"),
    "chunked in quotes": head(b'Transfer-Encoding: "chunked"'),
    "chunked after a comma": head(b"Transfer-Encoding: ,chunked"),
    "chunked before a comma": head(b"Transfer-Encoding: chunked,"),
    "chunked after a vertical tab": head(b"Transfer-Encoding: \x0bchunked"),
    "chunked after a high space": head(b"Transfer-Encoding: \xa0chunked"),
    "an empty transfer coding": head(b"Transfer-Encoding:"),
    "a transfer coding in HTTP/1.0": head(b"Transfer-Encoding: chunked", request=b"GET / HTTP/1.0"),
    "a transfer coding in HTTP/1.0 that would be kept alive": head(
        b"Transfer-Encoding: chunked", b"Connection: keep-alive", request=b"GET / HTTP/1.0"
    ),
    # Fields that must not come twice
    "two Ranges": head(b"Range: bytes=0-1", b"Range: bytes=2-3"),
    "two If-Ranges": head(b'If-Range: "a"', b'If-Range: "b"'),
}


@pytest.mark.parametrize("text", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_bad_grammar_framing_and_host_are_a_bad_request_and_the_end_of_the_connection(text):
    refused = refusal_of(text)
    assert refused.status == HTTPStatus.BAD_REQUEST
    assert refused.closes


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (head(request=b"POST / HTTP/1.1"), 405),
        (head(request=b"PUT / HTTP/1.1"), 405),
        (head(request=b"DELETE / HTTP/1.1"), 405),
        (head(request=b"PATCH / HTTP/1.1"), 405),
        (head(request=b"TRACE / HTTP/1.1"), 405),
        (head(request=b"CONNECT edge:443 HTTP/1.1"), 405),
        (head(request=b"BREW / HTTP/1.1"), 501),
        (head(request=b"get / HTTP/1.1"), 501),
        (head(request=b"PURGE / HTTP/1.1"), 501),
        (head(b"Transfer-Encoding: gzip, chunked"), 501),
        (head(b"Transfer-Encoding: deflate , gzip,\tCHUNKED"), 501),
        (head(request=b"GET / HTTP/0.9"), 505),
        (head(request=b"GET / HTTP/2.0"), 505),
        (head(request=b"GET / HTTP/2"), 505),
        (head(request=b"GET / HTTP/3"), 505),
        (head(request=b"GET / HTTP/11.1"), 505),
        (head(request=b"GET / HTTP/1.10"), 505),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (head(b"Expect: 200-ok"), 417),
        (head(b"Expect: 100-continue, 200-ok"), 417),
        (head(b"Expect: 100-continue", b"Expect: more"), 417),
        (head(b"Expect: 100-continue=yes"), 417),
    ],
)
def test_what_is_well_formed_but_not_served_here_says_so(text, status):
    assert refusal_of(text).status == status


@pytest.mark.parametrize(
    "value", [b"100-continue", b"100-Continue", b"", b"100-continue, 100-continue", b",100-continue"]
)
def test_the_one_known_expectation_is_accepted(value):
    assert parsed(b"Expect: " + value).method == b"GET"


def test_as_many_fields_as_allowed_pass_and_one_more_is_431():
    lines = [b"X%d: a" % number for number in range(9)]
    assert parse_head(head(*lines), 10).fields.lines == 10
    assert refusal_of(head(*lines, b"Y: b"), 10).status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def test_repeated_names_count_as_fields():
    assert refusal_of(head(*[b"X: a"] * 10), 10).status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def test_a_remembered_block_still_obeys_a_smaller_limit():
    text = head(b"X: a", b"Y: b")
    assert parse_head(text, 3).fields.lines == 3
    assert refusal_of(text, 2).status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def test_a_remembered_block_belongs_to_any_request_line():
    lines = (b"X-Memo: 1",)
    first = parsed(*lines)
    second = parsed(*lines, request=b"HEAD /other HTTP/1.0")
    assert (second.method, second.target, second.persists) == (b"HEAD", b"/other", False)
    assert second.fields is first.fields


def test_a_refused_block_is_refused_again():
    for _ in range(2):
        assert refusal_of(head(b"Content-Length: +5")).status == HTTPStatus.BAD_REQUEST
        assert refusal_of(head(b"Transfer-Encoding: chunked", request=b"GET / HTTP/1.0")).status == 400
        assert parsed(b"Transfer-Encoding: chunked").fields.has_body


def test_more_blocks_than_are_remembered_are_all_parsed_right():
    for number in range(MEMO_ENTRIES + 10):
        assert parsed(b"Range: bytes=%d-" % number).fields.range == b"bytes=%d-" % number


def test_a_block_too_long_to_remember_is_parsed_alike():
    line = b"Cookie: " + b"c" * MEMO_BLOCK_BYTES
    assert parsed(line, b"Range: bytes=1-").fields.range == b"bytes=1-"


# --- The second opinion ---


class Heard:
    """What httptools (llhttp) hears."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: dict[bytes, list[bytes]] = {}
        self.lines = 0
        self.parser = httptools.HttpRequestParser(self)
        self.is_complete = False
        self.persists = False

    def on_url(self, piece: bytes) -> None:
        self.target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines += 1
        self.fields.setdefault(name.lower(), []).append(value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        self.is_complete = True
        # Only true while the message is parsed.
        self.persists = self.parser.should_keep_alive()


def heard_by_httptools(text: bytes):
    """What httptools hears, or None if it refuses `text` or is not done at its end."""
    heard = Heard()
    try:
        heard.parser.feed_data(text)
    except httptools.HttpParserUpgrade:
        pass  # Its way to say that an Upgrade was asked for. We never upgrade; the request is an ordinary one.
    except httptools.HttpParserError:
        return None
    return heard if heard.is_complete else None


def accepted(text: bytes):
    """The request as the appliance takes it: the head and the target."""
    try:
        request = parse_head(text, 100)
        if not (request.method == b"OPTIONS" and request.target == b"*"):
            canonical_path(path_and_query(request.target)[0])
    except Refused:
        return None
    return request


COMPARED = {
    b"host": "host",
    b"range": "range",
    b"if-range": "if_range",
    b"if-match": "if_match",
    b"if-none-match": "if_none_match",
    b"if-modified-since": "if_modified_since",
    b"if-unmodified-since": "if_unmodified_since",
    b"origin": "origin",
    b"cdn-loop": "cdn_loop",
}

request_lines = st.builds(
    b"%b %b HTTP/%b".__mod__,
    st.tuples(
        st.sampled_from([b"GET", b"HEAD", b"OPTIONS", b"POST", b"GET\t", b"G"]),
        st.sampled_from([b"/", b"*", b"/a?b=c", b"http://a/b", b"http://a", b"a", b"//", b"/a#b", b"/%2e%2e"])
        | st.binary(min_size=1, max_size=6).map(b"/".__add__)
        | st.text("/:?#[]@!a0.%", max_size=8).map(str.encode),
        # llhttp knows no HTTP/1.2; RFC 9110 section 2.5 lets us take it as 1.1. Not compared.
        st.sampled_from([b"1.1", b"1.0", b"1.1 ", b"2.0", b"1", b"0.9"]),
    ),
)
names = st.sampled_from(
    [*COMPARED, b"X", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect"]
)
plain_values = st.sampled_from(
    b"|a|a.b:80|5|+5|5, 5|0|chunked|Chunked |gzip, chunked|chunked,gzip|close|keep-alive, upgrade|upgrade|h2c"
    b'|100-continue|bytes=0-1|"v1"|\xff|a\tb'.split(b"|")
)
field_lines = st.builds(
    b"%b%b%b%b".__mod__,
    st.tuples(
        names | st.binary(max_size=4),
        st.sampled_from([b":", b": ", b":\t ", b" :", b"", b"\r\n :"]),
        plain_values | st.binary(max_size=6),
        st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b" \r\n", b"\n", b"\r", b"\r\n ", b"\0\r\n", b""]),
    ),
)
good_lines = st.builds(b"%b: %b\r\n".__mod__, st.tuples(names, plain_values))
heads = st.builds(
    b"%b%b%b%b%b".__mod__,
    st.tuples(
        request_lines,
        st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]),
        st.sampled_from([b"Host: a\r\n", b"Host: a\r\n", b""]),
        st.lists(good_lines, max_size=3).map(b"".join) | st.lists(field_lines, max_size=4).map(b"".join),
        st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b""]),
    ),
)
ordinary_heads = st.builds(
    b"%b\r\n%b\r\n".__mod__,
    st.tuples(
        st.sampled_from([b"GET /a?b HTTP/1.1", b"HEAD http://a/b HTTP/1.0", b"OPTIONS * HTTP/1.1"]),
        st.permutations(
            b"Host: a:1|Range:bytes=0-1|IF-MATCH: \t*|cdn-loop: a|CDN-Loop: b |Connection: keep-alive|X: \xc3\xa9"
            b"|Content-Length: 0".split(b"|")
        ).flatmap(
            lambda lines: st.integers(0, len(lines)).map(
                lambda count: b"".join(line + b"\r\n" for line in lines[:count])
            )
        ),
    ),
)


@given(heads | ordinary_heads | st.binary(max_size=60))
@example(b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 0\r\n\r\nX")
@example(b"GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n")
def test_what_is_accepted_here_httptools_hears_alike(text):
    request = accepted(text)
    if request is None:
        return
    heard = heard_by_httptools(text)
    assert heard is not None, "httptools refuses it"
    assert request.method == heard.parser.get_method()
    assert request.target == heard.target
    assert request.fields.lines == heard.lines
    for name, attribute in COMPARED.items():
        values = heard.fields.get(name)
        assert getattr(request.fields, attribute) == (None if values is None else b", ".join(values)), name
    length = heard.fields.get(b"content-length", [b"0"])
    assert request.fields.has_body == (b"transfer-encoding" in heard.fields or int(length[0]) > 0)
    if not request.fields.has_body and b"upgrade" not in heard.fields:
        assert request.persists == heard.persists


@given(ordinary_heads)
def test_ordinary_heads_are_accepted_where_they_have_a_host(text):
    assert (accepted(text) is not None) == (b"Host:" in text or b"HTTP/1.0" in text)


@given(ordinary_heads, st.data())
def test_one_byte_changed_anywhere_is_never_heard_otherwise_than_by_httptools(text, data):
    position = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.binary(min_size=0, max_size=2))
    changed = text[:position] + byte + text[position + 1 :]
    request = accepted(changed)
    # llhttp knows no minor version over 1, see above.
    if request is None or not changed.partition(b"\r\n")[0].endswith((b"HTTP/1.0", b"HTTP/1.1")):
        return
    heard = heard_by_httptools(changed)
    assert heard is not None
    assert (request.method, request.target) == (heard.parser.get_method(), heard.target)
    assert request.fields.host == heard.fields.get(b"host", [None])[0]


@given(st.binary(max_size=200) | heads, st.integers(1, 5))
def test_any_bytes_are_a_request_or_refused(text, max_fields):
    try:
        request = parse_head(text, max_fields)
    except Refused:
        return
    assert text.endswith(b"\r\n\r\n")
    assert request.fields.lines <= max_fields


@pytest.mark.parametrize("line", [b"Range: bytes=0-5", b"range: bytes=7-", b"RANGE: bytes=0-5", b"Range:bytes=0-5"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_range_is_found_wherever_its_line_stands_and_however_it_is_written(line, place):
    lines = [b"Host: a", b"Accept: */*"]
    lines.insert(place, line)
    fields = parse_head(b"GET / HTTP/1.1\r\n" + b"".join(one + b"\r\n" for one in lines) + b"\r\n", 3).fields
    assert fields.range == line.partition(b":")[2].strip()
    assert fields.is_conditional
    assert fields.lines == 3
    with pytest.raises(Refused) as refused:
        parse_head(b"GET / HTTP/1.1\r\n" + b"".join(one + b"\r\n" for one in lines) + b"\r\n", 2)
    assert refused.value.status == 431


@pytest.mark.parametrize("second", [b"Range: bytes=0-5", b"range:bytes=1-2", b"RANGE: lines=1"])
@pytest.mark.parametrize("order", [1, -1])
def test_two_ranges_are_refused_in_any_spelling_and_order(second, order):
    lines = [b"Range: bytes=3-4\r\n", second + b"\r\n"][::order]
    with pytest.raises(Refused) as refused:
        parse_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(lines) + b"\r\n", 100)
    assert refused.value.status == 400


def test_a_folded_range_is_refused():
    with pytest.raises(Refused) as refused:
        parse_head(b"GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-5\r\n , 7-9\r\n\r\n", 100)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("more", "is_only_ranged"), [(b"", True), (b'If-Range: "a"\r\n', False), (b"If-None-Match: *\r\n", False)]
)
def test_it_is_told_whether_the_range_is_the_only_condition(more, is_only_ranged):
    fields = parse_head(b"GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-5\r\n" + more + b"\r\n", 100).fields
    assert fields.is_only_ranged is is_only_ranged
