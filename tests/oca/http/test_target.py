import unicodedata
from http import HTTPStatus
from urllib.parse import quote_from_bytes, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oca.http.refusal import Refused
from oca.http.target import authority, canonical_path, is_host, path_and_query


@pytest.mark.parametrize(
    ("target", "host", "found"),
    [
        (b"/a", b"h:8080", b"h:8080"),
        (b"/a", None, b""),
        # RFC 9112 section 3.2.2: the target's counts, whatever the header says.
        (b"http://other:80/a?b", b"h", b"other:80"),
        (b"HTTPS://other", None, b"other"),
    ],
)
def test_a_request_is_for_the_host_of_its_target_else_of_its_header(target, host, found):
    assert authority(target, host) == found


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/films/1/seg.m4s", b"/films/1/seg.m4s", b""),
        (b"/films?token=a/b?c", b"/films", b"token=a/b?c"),
        (b"/films?", b"/films", b""),
        (b"/?x", b"/", b"x"),
        (b"//films", b"//films", b""),
        (b"/a%3Fb?c", b"/a%3Fb", b"c"),
        (b"http://edge.example/films?x=1", b"/films", b"x=1"),
        (b"HTTP://edge.example:8080/films", b"/films", b""),
        (b"https://[2001:db8::1]:443/films", b"/films", b""),
        (b"http://edge.example", b"/", b""),
        (b"http://edge.example?x", b"/", b"x"),
        (b"http://edge.example/", b"/", b""),
    ],
)
def test_origin_form_and_absolute_form_are_split_into_path_and_query(target, path, query):
    assert path_and_query(target) == (path, query)


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"*",
        b"films/1",
        b"?x",
        b"edge.example:443",
        b"ftp://edge.example/films",
        b"file:///etc/passwd",
        b"http:/films",
        b"http:///films",
        b"http://?x",
        b"http://user@edge.example/films",
        b"http://user:secret@edge.example/films",
        b"http://edge.example/films#end",
        b"http://edge.example\\films",
        b"http://edge.example:http/films",
        b"http://edge.example:123456/films",
        b"http://[::1/films",
        b"http://%zz/films",
        b"/films?x#end",
    ],
)
def test_any_other_form_is_a_bad_request(target):
    with pytest.raises(Refused) as refused:
        path_and_query(target)
    assert refused.value.status == HTTPStatus.BAD_REQUEST
    assert refused.value.closes


@pytest.mark.parametrize(
    "host",
    [
        b"edge",
        b"edge.example",
        b"edge.example:8080",
        b"edge.example:",
        b"127.0.0.1:80",
        b"[::1]",
        b"[2001:db8::192.0.2.1]:8080",
        b"xn--bcher-kva.example",
        b"under_score.example",
        b"a%20b",
    ],
)
def test_a_host_is_a_name_or_an_address_with_or_without_a_port(host):
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b":80",
        b"edge example",
        b"edge/films",
        b"user@edge",
        b"edge:80:80",
        b"edge:-1",
        b"edge:http",
        b"edge:123456",
        b"::1",
        b"[::1",
        b"[]",
        b"[edge]",
        b"edge?x",
        b"edge#x",
        b"edge\\x",
        b'"edge"',
        b"<edge>",
        b"edge\0",
        b"edge\n",
        b"a%2",
        b"a%zz",
        "bücher.example".encode(),
    ],
)
def test_anything_else_is_no_host(host):
    assert not is_host(host)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"/films/1/seg.m4s", "/films/1/seg.m4s"),
        (b"/films/%61", "/films/a"),
        (b"/caf%C3%A9", "/café"),
        (b"/a%20b+c", "/a b+c"),
        # Decoded exactly once.
        (b"/%2561", "/%61"),
        (b"/%252e%252e/a", "/%2e%2e/a"),
        # Dot segments, however they are written.
        (b"/a/./b", "/a/b"),
        (b"/a/../b", "/b"),
        (b"/a/b/..", "/a/"),
        (b"/a/b/.", "/a/b/"),
        (b"/a/%2e%2E/b", "/b"),
        (b"/a%2F..%2Fb", "/b"),
        (b"/a/.%2e/b", "/b"),
        (b"/.", "/"),
        (b"/a/..", "/"),
        (b"/a//../b", "/a/b"),
        (b"//..", "/"),
        # Not dot segments.
        (b"/.hidden/..a/a../...", "/.hidden/..a/a../..."),
        (b"/a.b/c", "/a.b/c"),
        (b"//a///b/", "//a///b/"),
        (b"/a\\..\\b", "/a\\..\\b"),
        (b"/a%3Fb%23c", "/a?b#c"),
    ],
)
def test_a_path_is_decoded_once_and_its_dot_segments_resolved(raw, path):
    assert canonical_path(raw) == path


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"films",
        b"./films",
        b"%2Ffilms",
        # Above the root.
        b"/..",
        b"/../etc/passwd",
        b"/a/../../b",
        b"/a/%2e%2e/%2e%2e/b",
        b"/%2e%2e%2fetc/passwd",
        b"/./..",
        # Broken escapes.
        b"/%",
        b"/%4",
        b"/%4g",
        b"/%%41",
        b"/%u0041",
        b"/100%",
        # Controls: C0, DEL, C1.
        b"/a%00b",
        b"/a%0d%0aSet-Cookie:x",
        b"/a\nb",
        b"/a%1b[31m",
        b"/a%7f",
        b"/a%C2%9b31m",
        b"/a%C2%85",
        # Not UTF-8: cut short, overlong, a surrogate, Latin-1.
        b"/%C3",
        b"/%c0%ae%c0%ae/",
        b"/%ed%a0%80",
        b"/caf\xe9",
        # A fragment never belongs into a request.
        b"/a#b",
    ],
)
def test_what_could_be_read_in_two_ways_is_a_bad_request(raw):
    with pytest.raises(Refused) as refused:
        canonical_path(raw)
    assert refused.value.status == HTTPStatus.BAD_REQUEST
    assert refused.value.closes


pieces = st.sampled_from(
    [
        b"/",
        b"..",
        b".",
        b"%2e",
        b"%2E%2e",
        b"%2f",
        b"%25",
        b"a",
        b"b",
        b"%00",
        b"%C2%85",
        b"\xc3\xa9",
        b"%",
        b"#",
        b"\\",
    ]
)
raw_paths = st.lists(pieces | st.binary(max_size=3), max_size=12).map(lambda parts: b"/" + b"".join(parts))


def accepted(raw: bytes) -> str | None:
    try:
        return canonical_path(raw)
    except Refused:
        return None


@given(raw_paths | st.binary(max_size=20))
def test_a_canonical_path_holds_no_dot_segment_and_no_control(raw):
    path = accepted(raw)
    if path is None:
        return
    assert path.startswith("/")
    assert not {".", ".."} & set(path.split("/"))
    assert not any(unicodedata.category(letter) == "Cc" for letter in path)
    assert path.encode().decode() == path


@given(raw_paths)
@example(b"/%2561/%252e%252e")
def test_a_canonical_path_written_as_a_target_again_is_the_same_path(raw):
    path = accepted(raw)
    if path is not None:
        assert canonical_path(quote_from_bytes(path.encode()).encode()) == path


@given(raw_paths)
def test_escaping_every_byte_changes_nothing(raw):
    path = accepted(raw)
    if path is not None and b"%" not in raw:
        escaped = b"/" + b"".join(b"%%%02x" % byte for byte in raw[1:])
        assert canonical_path(escaped) == path


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", ".a", "..."]), max_size=8))
def test_dot_segments_end_up_where_a_urls_do(segments):
    raw = "/" + "/".join(segments)
    path = accepted(raw.encode())
    depth = 0
    for segment in segments:
        depth += {".": 0, "..": -1}.get(segment, 1)
        if depth < 0:
            assert path is None
            return
    # RFC 3986 section 5.2.4, as its own words have it: buffers of text, not a list.
    rest, output = raw, ""
    while rest:
        if rest.startswith("/./") or rest == "/.":
            rest = "/" + rest[3:]
        elif rest.startswith("/../") or rest == "/..":
            rest = "/" + rest[4:]
            output = output[: output.rfind("/")]
        else:
            cut = rest.find("/", 1)
            cut = len(rest) if cut < 0 else cut
            output, rest = output + rest[:cut], rest[cut:]
    assert path == output


@given(
    st.binary(max_size=20)
    | st.sampled_from([b"http://a", b"https://[::1]:80"]).flatmap(
        lambda start: st.binary(max_size=10).map(start.__add__)
    )
)
def test_a_target_is_split_or_refused_and_nothing_else(target):
    try:
        path, query = path_and_query(target)
    except Refused:
        return
    assert path.startswith(b"/")
    assert b"?" not in path
    assert b"#" not in query
    if target.startswith(b"/"):
        assert path + (b"?" + query if b"?" in target else b"") == target


@given(st.sampled_from(["/", "/a/b", "", "/%41"]), st.sampled_from(["", "?", "?x=/y", "??"]))
def test_absolute_form_is_split_as_the_standard_library_splits_it(path, query):
    url = f"http://edge.example:80{path}{query}"
    parts = urlsplit(url)
    assert path_and_query(url.encode()) == (parts.path.encode() or b"/", parts.query.encode())
